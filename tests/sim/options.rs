//! Everything a seed decides before it begins.

use std::time::Duration;

use super::trace::Dice;

/// How a simulation is shaped. Faults that are off have probability zero.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How long faults happen.
    pub(crate) chaos: Duration,
    /// Gateways.
    pub(crate) gateways: usize,
    /// Run-creates.
    pub(crate) creates: usize,
    /// Runs whose events are pushed.
    pub(crate) pushed: usize,
    /// Followers of each run.
    pub(crate) followers: usize,
    /// Events of one run, at most.
    pub(crate) events: u64,
    /// Finished runs are kept so long; `None`: for good.
    pub(crate) retention: Option<Duration>,
    /// Runs a tenant may create in a day at one gateway; zero: any.
    pub(crate) runs_per_day: u64,
    /// Delay: the slowest packet.
    pub(crate) delay: Duration,
    /// Drop: a packet is lost; it and all behind it wait until it was sent again.
    pub(crate) drop: f64,
    /// Drop: an answer is lost, of a request that was served.
    pub(crate) drop_answer: f64,
    /// Duplicate: a request is heard twice at the same time.
    pub(crate) duplicate: f64,
    /// Duplicate: a request without an answer is sent again on its way.
    pub(crate) resend: f64,
    /// Duplicate: a request is heard again late.
    pub(crate) replay: f64,
    /// A signed request is also heard by a gateway it was not meant for.
    pub(crate) misdirect: f64,
    /// Reorder: a request is overtaken by later ones.
    pub(crate) reorder: f64,
    /// Half-open: one side of a connection closes it, dies or is cut off, and the other never hears of it.
    pub(crate) half_open: f64,
    /// Half-open: a connection goes silent at some byte, in one direction.
    pub(crate) silent: f64,
    /// A connection ends at some byte.
    pub(crate) cut: f64,
    /// A connection is refused.
    pub(crate) refuse: f64,
    /// The slowest commit.
    pub(crate) commit_delay: Duration,
    /// A commit is refused, the disk being full.
    pub(crate) disk_full: f64,
    /// The process dies before a commit.
    pub(crate) crash_before_commit: f64,
    /// The process dies between a commit and what depends on it.
    pub(crate) crash_after_commit: f64,
    /// Time between two crashes of some gateway.
    pub(crate) crash_every: Option<Duration>,
    /// Time between two orderly restarts.
    pub(crate) restart_every: Option<Duration>,
    /// Time between two partitions.
    pub(crate) partition_every: Option<Duration>,
    /// Time between two jumps of a wall clock.
    pub(crate) jump_every: Option<Duration>,
    /// Time between two times that an operator holds new work off at a gateway.
    pub(crate) drain_every: Option<Duration>,
    /// Time between two times that an operator revokes a gateway's peer, to reinstate it later.
    pub(crate) revoke_every: Option<Duration>,
    /// An operator rotates a gateway's key.
    pub(crate) rotates: bool,
    /// The first gateway, which then keeps a ledger only, is copied at work and restored from the copy.
    pub(crate) restores: bool,
    /// How far clocks differ and jump.
    pub(crate) skew: Duration,
    /// A home answers 503 before, or after, it made the run; or never answers.
    pub(crate) home_trouble: f64,
    /// A home sends an event twice, or late.
    pub(crate) home_disorder: f64,
    /// A home leaves a sequence out for good.
    pub(crate) home_skips: f64,
}

impl Options {
    /// What this seed says.
    pub(crate) fn of(seed: u64) -> Self {
        let dice = Dice::new(seed, 1);
        let seconds = |from: u64, to: u64| Duration::from_millis(dice.between(from * 1000, to * 1000));
        // Swarm testing: each seed goes without a random half of the faults.
        let rate =
            |most: f64| if dice.chance(0.5) { 0.0 } else { most * dice.between(1, 100) as f64 / 100.0 };
        let every = |from, to| dice.chance(0.5).then(|| Duration::from_millis(dice.between(from, to)));
        let rotates = dice.chance(0.15);
        // A copy brings back what was revoked after it was made, and forgets which keys were learned.
        let restores = !rotates && dice.chance(0.2);
        Options {
            chaos: seconds(6, 16),
            gateways: 2 + usize::from(dice.chance(0.5)),
            creates: dice.between(2, 7) as usize,
            pushed: dice.between(0, 3) as usize,
            followers: dice.between(1, 3) as usize,
            events: dice.between(2, 16),
            retention: (dice.chance(0.2) && !restores).then(|| seconds(4, 9)),
            runs_per_day: if dice.chance(0.2) { dice.between(1, 4) } else { 0 },
            delay: Duration::from_millis(dice.between(1, 60)),
            drop: rate(0.3),
            drop_answer: rate(0.2),
            duplicate: rate(0.3),
            resend: rate(0.8),
            replay: rate(0.5),
            misdirect: rate(0.5),
            reorder: rate(0.3),
            half_open: rate(0.3),
            silent: rate(0.15),
            cut: rate(0.3),
            refuse: rate(0.2),
            commit_delay: Duration::from_millis(if dice.chance(0.5) { 0 } else { dice.between(1, 80) }),
            disk_full: rate(0.1),
            crash_before_commit: rate(0.05),
            crash_after_commit: rate(0.05),
            crash_every: every(1500, 6000),
            restart_every: every(3000, 8000),
            partition_every: every(1000, 5000),
            // A clock that jumps ahead brings a key's time before its peers have heard of it.
            jump_every: every(1000, 5000).filter(|_| !rotates),
            drain_every: every(2000, 8000),
            revoke_every: every(1500, 6000).filter(|_| !restores),
            rotates,
            restores,
            skew: Duration::from_millis(if dice.chance(0.5) { 0 } else { dice.between(1, 20_000) }),
            home_trouble: rate(0.4),
            home_disorder: rate(0.3),
            home_skips: rate(0.1),
        }
    }
}
