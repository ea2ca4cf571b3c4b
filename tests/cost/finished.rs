//! What is finished costs nothing: starting, appending and following are the same after a hundred thousand runs
//! as after a thousand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway::clock::Clock;
use causeway::domain::event::{NewEvent, RunKey, Sender, Sequence, StoredEvent};
use causeway::domain::id::{EventId, RunId, TenantId};
use causeway::domain::run::RunStatus;
use causeway::domain::stream::{StreamNo, StreamState};
use causeway::entropy::Entropy;
use causeway::metrics::Metrics;
use causeway::store::{BatchEntry, DATABASE_FILE, Store, TailObserver};
use causeway::tasks::Tasks;

use crate::support::{Counter, TENANT, allocations, alone, body, bytes_read, event, measured, push, start};

/// Runs in the smaller and in the larger log.
const RUNS: [usize; 2] = [1000, 100_000];
/// Runs that are finished in one go.
const BATCH: usize = 2000;
/// How much more the larger log may cost: a few pages, for trees that are a level deeper, and what happens
/// beside.
const RATIO: f64 = 1.5;
const SLACK: f64 = 64.0 * 1024.0;

struct Unwatched;

impl TailObserver for Unwatched {
    fn is_watched(&self, _stream_no: StreamNo) -> bool {
        false
    }

    fn advanced(&self, _stream_no: StreamNo, _state: StreamState, _events: Vec<StoredEvent>) {}
}

/// Fills a log with runs that are finished.
async fn fill(data_dir: &Path, runs: usize) {
    let heard = (Arc::new(Unwatched) as Arc<dyn TailObserver>, Arc::new(Metrics::default()));
    let store = Store::open(data_dir, Clock::system(), &Entropy::from_os(), Tasks::default(), heard).await;
    let store = store.expect("a store");
    for first in (0..runs).step_by(BATCH) {
        let entries = (first..runs.min(first + BATCH)).map(finished).collect();
        store.append_batch(Sender::Client, entries).await.expect("a commit");
    }
    store.close().await;
    drop(store);
    // A write-ahead log stays where two connections close at the same moment: each is told that it is not the
    // last. It is emptied here, else the next start would count reading it.
    let log = rusqlite::Connection::open(data_dir.join(DATABASE_FILE)).expect("the log");
    log.busy_timeout(Duration::from_secs(30)).expect("a timeout");
    let busy: i64 =
        log.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).expect("a checkpoint");
    assert_eq!(busy, 0, "somebody still reads a log that is closed");
}

/// The one event of a run, which ends it.
fn finished(number: usize) -> BatchEntry {
    let run = format!("run_{number:07}");
    let event = NewEvent {
        event_id: EventId::parse(&format!("evt_{run}_00000001")).expect("an id"),
        sequence: Sequence::new(1),
        terminal: Some(RunStatus::Completed),
        starts_work: true,
        derived: false,
        json: Bytes::from(event(&run, 1, "completed")),
    };
    let tenant = TenantId::parse(TENANT).expect("a tenant");
    BatchEntry { key: RunKey { tenant, run: RunId::parse(&run).expect("a run") }, agent: None, event }
}

/// What one log costs, each as a name and a number.
async fn costs(data_dir: &Path) -> Vec<(&'static str, u64)> {
    let mut costs = Vec::new();
    let read = bytes_read();
    let (started, gateway) = measured(start(data_dir, Vec::new())).await;
    costs.push(("allocations of a start", started.total_blocks));
    costs.push(("bytes held after a start", started.curr_bytes as u64));
    costs.push(("bytes read by a start", bytes_read() - read));
    let address = gateway.address();
    push(address, &body("run_new", 1, 1)).await; // caches are warm
    let bodies: Vec<String> = (2..22).map(|number| body("run_new", number, 1)).collect();
    let read = bytes_read();
    let appended = allocations(async {
        for body in &bodies {
            push(address, body).await;
        }
    })
    .await;
    costs.push(("allocations of twenty pushes", appended));
    costs.push(("bytes read by twenty pushes", bytes_read() - read));
    let read = bytes_read();
    let followed = allocations(async { Counter::follow(address, "run_new").await.read_to(22).await }).await;
    costs.push(("allocations of a follower", followed));
    costs.push(("bytes read by a follower", bytes_read() - read));
    gateway.shutdown().await;
    costs
}

#[tokio::test]
async fn what_is_finished_costs_neither_a_start_nor_a_push_nor_a_follower() {
    let (_alone, data) = (alone().await, tempfile::tempdir().expect("a directory"));
    let mut counted = Vec::new();
    for runs in RUNS {
        let data_dir = data.path().join(runs.to_string());
        fill(&data_dir, runs).await;
        counted.push(costs(&data_dir).await);
    }
    let mut grown = Vec::new();
    for ((what, small), (_, large)) in counted[0].iter().zip(&counted[1]) {
        eprintln!("{what}: {small} after {} runs, {large} after {}", RUNS[0], RUNS[1]);
        if *large as f64 > *small as f64 * RATIO + if what.starts_with("bytes") { SLACK } else { 0.0 } {
            grown.push(format!("{what}: {small} became {large}"));
        }
    }
    assert!(grown.is_empty(), "{}", grown.join("; "));
}
