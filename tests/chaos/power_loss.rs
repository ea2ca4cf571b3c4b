//! Power cuts over ingest, forward and settlement: what was acknowledged, or seen by a reader, is there
//! afterwards.
//!
//! kill -9 alone shows nothing of durability: the kernel still has every write. Here a kill takes back what no
//! sync covered (see `power`).

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::bench::Bench;
use crate::clusters_survive::number;
use crate::nemesis::say;
use crate::power::{self, Loss};

/// Cuts of one run, unless `CHAOS_CUTS` says.
const CUTS: u64 = 12;

/// Cuts the power again and again while clients are at work; answers what was found, and what was lost that
/// nobody had been promised.
async fn offences_after_cuts(mut bench: Bench, leak: f64) -> (Vec<String>, Loss) {
    let seed = number("CHAOS_SEED", 7);
    let cuts = number("CHAOS_CUTS", CUTS);
    say(&format!("CHAOS_SEED={seed} CHAOS_CUTS={cuts} leak={leak}"));
    let mut chance = StdRng::seed_from_u64(seed);
    let mut all = Loss::default();
    for at in 0..cuts {
        bench.gateway.start_for_sure().await;
        let work = bench.work(at);
        let life = Duration::from_millis(chance.random_range(30..500));
        tokio::time::sleep(life).await; // why: the moment of the cut is the fault
        bench.gateway.kill().await;
        work.stop().await;
        let loss = power::cut(&bench.gateway.journal(), &bench.gateway.data(), chance.random(), leak);
        say(&format!("cut after {life:?}: {loss:?}"));
        all.writes += loss.writes;
        all.names += loss.names;
        all.records += loss.records;
    }
    (bench.offences().await, all)
}

#[track_caller]
fn assert_kept((offences, loss): (Vec<String>, Loss)) {
    let shown = offences.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
    assert!(offences.is_empty(), "{} offences:\n  {shown}", offences.len());
    assert!(loss.writes > 0, "no cut ever lost a write: the machine is too kind");
}

// L1, L5, F1, F3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_takes_nothing_that_was_promised() {
    assert_kept(offences_after_cuts(Bench::new().await, 0.0).await);
}

// L1, L5, F1, F3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_after_which_half_of_the_unsynced_writes_are_there() {
    assert_kept(offences_after_cuts(Bench::new().await, 0.5).await);
}

/// The control: a gateway that does not sync each commit is found out, or all of the above shows nothing.
#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_sync_each_commit_is_caught() {
    let mut bench = Bench::new().await;
    bench.gateway.set(causeway::mutants::VARIABLE, "synchronous_normal");
    let (offences, _) = offences_after_cuts(bench, 0.0).await;
    let lost = offences.iter().filter(|offence| offence.contains("(L1)") || offence.contains("(L5)")).count();
    assert!(lost > 0, "nobody noticed: {offences:?}");
}
