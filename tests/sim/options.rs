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
    /// The slowest packet.
    pub(crate) latency: Duration,
    /// A connection ends at some byte.
    pub(crate) cut: f64,
    /// A connection goes silent at some byte, in one direction, and stays open.
    pub(crate) stall: f64,
    /// A connection is refused.
    pub(crate) refuse: f64,
    /// A request is heard twice, the second time late.
    pub(crate) replay: f64,
    /// A signed request is also heard by a gateway it was not meant for.
    pub(crate) misdirect: f64,
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
        Options {
            chaos: seconds(6, 16),
            gateways: 2 + usize::from(dice.chance(0.5)),
            creates: dice.between(2, 7) as usize,
            pushed: dice.between(0, 3) as usize,
            followers: dice.between(1, 3) as usize,
            events: dice.between(2, 16),
            retention: dice.chance(0.2).then(|| seconds(4, 9)),
            runs_per_day: if dice.chance(0.2) { dice.between(1, 4) } else { 0 },
            latency: Duration::from_millis(dice.between(1, 60)),
            cut: rate(0.3),
            stall: rate(0.15),
            refuse: rate(0.2),
            replay: rate(0.5),
            misdirect: rate(0.5),
            commit_delay: Duration::from_millis(if dice.chance(0.5) { 0 } else { dice.between(1, 80) }),
            disk_full: rate(0.1),
            crash_before_commit: rate(0.05),
            crash_after_commit: rate(0.05),
            crash_every: every(1500, 6000),
            restart_every: every(3000, 8000),
            partition_every: every(1000, 5000),
            jump_every: every(1000, 5000),
            skew: Duration::from_millis(if dice.chance(0.5) { 0 } else { dice.between(1, 20_000) }),
            home_trouble: rate(0.4),
            home_disorder: rate(0.3),
            home_skips: rate(0.1),
        }
    }
}
