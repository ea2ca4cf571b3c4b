//! A disk that says no: a sync that fails ends the gateway at once and loses nothing it promised; a full one
//! is refused, and taken up again by itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::bench::Bench;
use crate::history::{Entry, History, Outcome, What};
use crate::power;

/// Which sync of a gateway's life fails, one per start: all of the first, and some later.
const FAILING: [i64; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 17, 22, 29, 40];

// L1, L11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_ends_the_gateway_and_loses_nothing() {
    let mut bench = Bench::new().await;
    let (mut while_starting, mut at_work) = (0, 0);
    for nth in FAILING {
        bench.gateway.machine.fail_sync(nth);
        let came_up = bench.gateway.start().await;
        let work = came_up.then(|| bench.work(nth as u64));
        let ended = bench.gateway.until_ended().await;
        assert!(
            bench.gateway.machine.has_failed_sync(),
            "sync {nth} never came; the gateway ended with {ended}"
        );
        assert!(!ended.success(), "the gateway ended with {ended} after a failed sync");
        if let Some(work) = work {
            work.stop().await;
        }
        *(if came_up { &mut at_work } else { &mut while_starting }) += 1;
        // The kernel forgot what it could not write; so does the machine.
        power::cut(&bench.gateway.journal(), &bench.gateway.data(), nth as u64, 0.0);
        bench.gateway.machine.fail_sync(0);
    }
    assert!(while_starting > 0 && at_work > 0, "{while_starting} while starting, {at_work} at work");
    bench.judge().await;
}

// L11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_refused_and_taken_up_again() {
    let mut bench = Bench::new().await;
    bench.gateway.start_for_sure().await;
    let before = bench.work(1);
    bench.until_acknowledged(20).await;
    bench.gateway.machine.set_disk_full(true);
    let refused = bench.gateway.machine.refused();
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.gateway.machine.refused() < refused + 5 {
        assert!(Instant::now() < deadline, "nobody wrote");
        tokio::time::sleep(Duration::from_millis(10)).await; // why: another process works
    }
    assert_nothing_acknowledged(&bench.history).await;
    // What is stored can be read all the while.
    let held = bench.client().held(&bench.pushed_run(1)).await;
    assert!(held.is_some_and(|(_, events)| !events.is_empty()), "a full disk keeps readers out");
    let acknowledged = bench.acknowledged();
    bench.gateway.machine.set_disk_full(false);
    bench.until_acknowledged(acknowledged + 20).await;
    assert!(bench.gateway.ended().is_none(), "it took a restart");
    before.stop().await;
    bench.judge().await;
}

/// While the disk is full: of what is asked from now on nothing is acknowledged.
async fn assert_nothing_acknowledged(history: &History) {
    let asked_before = history.number();
    tokio::time::sleep(Duration::from_millis(300)).await; // why: others go on asking meanwhile
    let acknowledged = |entry: &Entry| matches!(&entry.what, What::Answered { operation, outcome: Outcome::Ok, .. } if *operation > asked_before);
    assert!(!history.read().iter().any(acknowledged), "acknowledged on a full disk");
}
