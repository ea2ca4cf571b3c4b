//! A cluster under every fault there is keeps its promises.
//!
//! Two phases: faults and work at once, then everything is healed and must come to rest within a bound. Judged
//! is the history, once all is over.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::checks;
use crate::cluster::Cluster;
use crate::crowd::{self, Shift};
use crate::history::{self, Entry, What};
use crate::nemesis::{Nemesis, say};

/// How long the faults last, unless `CHAOS_SECONDS` says.
const SECONDS: u64 = 25;
/// The seed, unless `CHAOS_SEED` says.
const SEED: u64 = 20_261_121;
/// How long everybody may take once everything is sound again. A peer's breaker rests for up to a minute.
const CALM: Duration = Duration::from_secs(90);

/// A number from the environment.
pub(crate) fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

// A-04, M-06, F-33, L1–L9, F1–F4, S3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_under_every_fault_keeps_its_promises() {
    let (seed, seconds) = (number("CHAOS_SEED", SEED), number("CHAOS_SECONDS", SECONDS));
    say(&format!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}"));
    let mut cluster = Cluster::start(12, Duration::from_millis(25), 0).await;
    let work = Instant::now() + Duration::from_secs(seconds);
    let crowd = crowd::gather(&cluster, Shift { work, over: work + CALM, pause: Duration::from_millis(300) });
    Nemesis::new(seed).strike_until(&mut cluster, work).await;
    cluster.heal().await;
    say("everything is sound again");
    let all_answered = crowd::disperse(crowd).await;
    cluster.until_quiet().await;
    cluster.take_stock().await;

    let entries = cluster.history.read();
    say(&history::summary(&entries));
    let logs = cluster.logs();
    let kept = cluster.keep();
    say(&format!("the history: {}\n{logs}", kept.join("history.jsonl").display()));
    checks::assert_all(&entries);
    assert!(all_answered, "somebody was never answered, or a stream never ended");
    assert_it_was_worth_it(&entries);
    if std::env::var_os("CHAOS_KEEP").is_none() {
        std::fs::remove_dir_all(kept).expect("its own directory");
    }
}

/// A history in which little happened shows little.
fn assert_it_was_worth_it(entries: &[Entry]) {
    let count = |wanted: fn(&What) -> bool| entries.iter().filter(|entry| wanted(&entry.what)).count();
    let faults = count(|what| matches!(what, What::Fault { .. }));
    let made = count(|what| matches!(what, What::Made { .. }));
    let seen = count(|what| matches!(what, What::Saw { .. }));
    assert!(faults >= 5 && made >= 5 && seen >= 100, "{faults} faults, {made} runs, {seen} events seen");
}

/// Judges a history that was kept: `CHAOS_HISTORY=<file> cargo test --features faults --test chaos -- --ignored judged_again`.
#[test]
#[ignore = "a tool: it needs the file of a history"]
fn a_history_is_judged_again() {
    let file = std::env::var_os("CHAOS_HISTORY").expect("CHAOS_HISTORY names the file of a history");
    let entries = history::read(Path::new(&file));
    say(&history::summary(&entries));
    checks::assert_all(&entries);
}
