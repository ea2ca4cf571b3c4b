//! The shipped binary under faults: kills, pauses, a bad network, a bad disk, a bad clock, power cuts.
//!
//! Everything is seeded, and the seed is printed with all that was derived from it: `CHAOS_SEED=7` repeats the
//! choices of a run, `CHAOS_SECONDS=600` makes it longer, `CHAOS_KEEP=1` keeps its
//! history. What happened is written down as a history, and the
//! history is judged afterwards.
//!
//! ```text
//! machine.c, machine   a disk and a clock that fail on command, preloaded     power      takes unsynced writes back
//! process              one gateway as a child process                         cluster    three of them, and their homes
//! history, checks      what was done and seen; what must hold of it           workload   clients that write it down
//! nemesis              the faults                                             audience   readers that resume
//! crowd                the clients of a cluster                               clusters_survive, disk_fails, power_loss, failpoints: the claims
//! bench                one gateway whose machine breaks again and again       soak       hours of it, and slopes
//! ```

mod audience;
mod bench;
mod checks;
mod cluster;
mod clusters_survive;
mod crowd;
mod disk_fails;
#[cfg(feature = "faults")]
mod failpoints;
mod history;
mod machine;
mod nemesis;
mod power;
mod power_loss;
mod process;
mod soak;
mod support;
mod workload;
