//! The faults of a run, one after the other, drawn from a seed.
//!
//! Drawn as from a deck: each kind of fault comes once before any comes again, so that even a short run has all
//! of them.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::history::What;
use crate::support::fault_proxy::{Direction, Ending, ProxyMode, Times};
use crate::support::orchestrator::CreateFault;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// SIGKILL, and a start.
    Kill,
    /// SIGKILL, a start, and SIGKILL while it starts.
    KillTwice,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// The network between two of them misbehaves.
    Network,
    /// A home dies, and comes back.
    HomeDown,
    /// A home does what it is asked, and says so badly.
    HomeLies,
    /// There is no space on the disk.
    DiskFull,
    /// There are no more file descriptors.
    Descriptors,
    /// The wall clock jumps, and back.
    Clock,
    /// The edge goes on from a backup.
    Restore,
}

const DECK: [Kind; 12] = [
    Kind::Kill,
    Kind::Kill,
    Kind::Kill,
    Kind::KillTwice,
    Kind::Pause,
    Kind::Network,
    Kind::Network,
    Kind::HomeDown,
    Kind::HomeLies,
    Kind::DiskFull,
    Kind::Descriptors,
    Kind::Clock,
];
/// A pause longer than this is no pause but an outage.
const LONGEST: u64 = 1500;

/// Whoever does it.
pub(crate) struct Nemesis {
    chance: StdRng,
    deck: Vec<Kind>,
    restored: bool,
}

impl Nemesis {
    /// All its choices follow from the seed.
    pub(crate) fn new(seed: u64) -> Self {
        Nemesis { chance: StdRng::seed_from_u64(seed), deck: Vec::new(), restored: false }
    }

    /// Strikes until this time.
    pub(crate) async fn strike_until(&mut self, cluster: &mut Cluster, deadline: Instant) {
        while Instant::now() < deadline {
            let calm = self.millis(50, 400);
            tokio::time::sleep(calm).await; // why: what was hit before has work to do
            let kind = self.draw();
            self.strike(cluster, kind).await;
        }
    }

    fn draw(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck = DECK.to_vec();
            // Each restore forgives what it took away: one is enough.
            if !std::mem::replace(&mut self.restored, true) {
                self.deck.push(Kind::Restore);
            }
            self.deck.shuffle(&mut self.chance);
        }
        self.deck.pop().expect("a fresh deck")
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.chance.random_range(least..=most))
    }

    async fn strike(&mut self, cluster: &mut Cluster, kind: Kind) {
        let at = self.chance.random_range(0..cluster.gateways.len());
        let lasting = self.millis(100, LONGEST);
        let name = cluster.gateways[at].name.clone();
        let note = |text: String| {
            say(&text);
            cluster.history.note(What::Fault { text });
        };
        match kind {
            Kind::Kill => {
                note(format!("kill {name}"));
                cluster.gateways[at].restart().await;
            }
            Kind::KillTwice => {
                let life = self.millis(1, 120);
                note(format!("kill {name}, and {life:?} into its start"));
                cluster.gateways[at].kill().await;
                cluster.gateways[at].spawn();
                tokio::time::sleep(life).await; // why: the moment of the second kill is the fault
                cluster.gateways[at].restart().await;
            }
            Kind::Pause => {
                note(format!("pause {name} for {lasting:?}"));
                cluster.gateways[at].signal(Signal::STOP);
                tokio::time::sleep(lasting).await; // why: the length of the pause is the fault
                cluster.gateways[at].signal(Signal::CONT);
            }
            Kind::Network => {
                let at = self.chance.random_range(0..cluster.links.len());
                let mode = self.network_mode();
                note(format!("{}: {mode:?} for {lasting:?}", cluster.links[at].0));
                cluster.links[at].1.set(mode).await;
                tokio::time::sleep(lasting).await; // why: the length of the disturbance is the fault
                cluster.links[at].1.set(ProxyMode::Pass).await;
            }
            Kind::HomeDown => {
                let (name, home) = &cluster.homes[self.chance.random_range(0..cluster.homes.len())];
                note(format!("{name} is down for {lasting:?}"));
                home.stop().await;
                tokio::time::sleep(lasting).await; // why: the length of the outage is the fault
                home.restart().await;
            }
            Kind::HomeLies => {
                let faults = [
                    CreateFault::DropAnswer,
                    CreateFault::StatusAfterCommit(503),
                    CreateFault::DropRequest,
                    CreateFault::CutAnswerAt(self.chance.random_range(1..200)),
                    CreateFault::DelayAnswer(lasting),
                ];
                let (name, home) = &cluster.homes[self.chance.random_range(0..cluster.homes.len())];
                note(format!("{name} answers its next creates so: {faults:?}; its streams are cut"));
                home.next_creates(faults);
                home.cut_streams();
            }
            Kind::DiskFull => {
                note(format!("the disk of {name} is full for {lasting:?}"));
                let gateway = &mut cluster.gateways[at];
                gateway.machine.set_disk_full(true);
                tokio::time::sleep(lasting).await; // why: the length of the shortage is the fault
                gateway.machine.set_disk_full(false);
                let ended = gateway.ended();
                assert!(
                    ended.is_none(),
                    "{name} ended with {ended:?} when its disk was full:\n{}",
                    gateway.log_end()
                );
            }
            Kind::Descriptors => {
                let gateway = &mut cluster.gateways[at];
                let few = gateway.descriptors() as u64 + self.chance.random_range(0..4);
                note(format!("{name} may have {few} descriptors for {lasting:?}"));
                gateway.limit_descriptors(Some(few));
                tokio::time::sleep(lasting).await; // why: the length of the shortage is the fault
                gateway.limit_descriptors(None);
                let ended = gateway.ended();
                assert!(
                    ended.is_none(),
                    "{name} ended with {ended:?} without descriptors:\n{}",
                    gateway.log_end()
                );
            }
            Kind::Clock => {
                let offset = self.chance.random_range(-1_800_000..1_800_000);
                note(format!("the clock of {name} is off by {offset} ms for {lasting:?}"));
                cluster.gateways[at].machine.set_clock_offset_ms(offset);
                tokio::time::sleep(lasting).await; // why: the length of the error is the fault
                cluster.gateways[at].machine.set_clock_offset_ms(0);
            }
            Kind::Restore => self.restore(cluster).await,
        }
    }

    async fn restore(&mut self, cluster: &mut Cluster) {
        let lasting = self.millis(300, 1000);
        let edge = &mut cluster.gateways[0];
        let text = format!("a is backed up, and restored from it {lasting:?} later");
        say(&text);
        cluster.history.note(What::Fault { text });
        let file = edge.file("backup.db");
        let file = file.to_str().expect("a path of ours");
        cluster.history.note(What::BackedUp { gateway: edge.name.clone() });
        let copied = edge.command(&["backup", file]).await;
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        tokio::time::sleep(lasting).await; // why: what is done meanwhile is what the restore takes away
        edge.kill().await;
        edge.remove_database();
        let restored = edge.command(&["restore", file]).await;
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        cluster.history.note(What::Restored { gateway: edge.name.clone() });
        edge.start_for_sure().await;
    }

    fn network_mode(&mut self) -> ProxyMode {
        let bytes = self.chance.random_range(0..4000);
        let direction = if self.chance.random_bool(0.5) { Direction::ToTarget } else { Direction::ToClient };
        let ending = if self.chance.random_bool(0.5) { Ending::Reset } else { Ending::HalfClose };
        match self.chance.random_range(0..7) {
            0 => ProxyMode::Refuse,
            1 => ProxyMode::Silence,
            2 => ProxyMode::CutAfter { direction, bytes, ending, times: Times::EachConnection },
            3 => ProxyMode::Dribble(Duration::from_millis(1)),
            4 => ProxyMode::Delay(self.millis(5, 100)),
            5 => ProxyMode::BlackholeAfterHeaders,
            _ => ProxyMode::Reset,
        }
    }
}

/// Says what happens, for whoever reads the output of a failed test.
#[expect(clippy::print_stdout, reason = "a failed test shows what was done")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}
