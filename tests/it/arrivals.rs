//! Where events lie: what comes in a crowd is written as it arrives, and put in its place later. Nobody who reads
//! can tell.

use std::ops::Range;
use std::path::Path;

use causeway::domain::cursor::Cursor;
use causeway::domain::event::{Appended, Sender};
use causeway::store::{PageRange, Store, StoreError};
use futures_util::future::join_all;

use crate::log_model::{Push, entry, key};
use crate::storage::{aside, open_slow};
use crate::support::log::{beside, number};

const RUNS: usize = 64;
/// Events that fill a page of the database.
const PAGE: u64 = 100;

/// Appends so many events to a run in one unit, with sequences from `first`.
async fn append(store: &Store, run: usize, first: u64, count: u64) -> Result<Vec<Appended>, StoreError> {
    let push =
        |sequence: u64| Push { id: sequence as u32, sequence: Some(sequence), content: 0, ends: false };
    let batch = (first..first + count).map(|sequence| entry(run, push(sequence))).collect();
    store.append_batch(Sender::Client, batch).await
}

/// An event of each run, in one group: the disk begins when all wait for it.
async fn crowd(store: &Store, runs: Range<usize>, sequence: u64) {
    for answer in join_all(runs.map(|run| append(store, run, sequence, 1))).await {
        assert!(matches!(answer.expect("a commit")[..], [Appended::Stored(_)]));
    }
}

/// The sequences of a run, read in small pages.
async fn read(store: &Store, run: usize) -> Vec<u64> {
    let stream = store.find_run(&key(run)).await.expect("an answer").expect("the run").stream_no;
    let (mut read, mut after) = (Vec::new(), Cursor::START);
    loop {
        let range = PageRange { after, to: Cursor::at(u64::MAX), max_events: 5, max_bytes: 1 << 20 };
        let page = store.read_events(stream, range, Vec::new(), |page: &mut Vec<u64>, row| {
            page.push(row.sequence.get());
        });
        let (page, last) = page.await.expect("a page");
        read.extend(page);
        let Some(last) = last else { return read };
        after = last.cursor();
    }
}

fn arrived(directory: &Path) -> i64 {
    number(&beside(directory), "SELECT count(*) FROM events_arrived")
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_a_crowd_is_put_in_its_place_with_others() {
    let (aside, directory) = (aside(), tempfile::tempdir().expect("a directory"));
    let mut store = open_slow(directory.path(), &aside).await;
    append(&store, 0, 1, 1).await.expect("a commit");
    assert_eq!(arrived(directory.path()), 0, "alone, it is put in its place at once");
    for run in 1..RUNS {
        append(&store, run, 1, 1).await.expect("a commit");
    }
    crowd(&store, 0..RUNS, 2).await;
    assert_eq!(arrived(directory.path()), RUNS as i64);

    // A whole page of events goes to its place in any crowd; then single ones again, behind it.
    let pages = join_all((0..RUNS).map(|run| append(&store, run, 3, PAGE))).await;
    assert!(pages.iter().all(Result::is_ok));
    assert_eq!(arrived(directory.path()), RUNS as i64);
    store.close().await;
    store = open_slow(directory.path(), &aside).await;
    let behind = 3 + PAGE;
    for sequence in behind..behind + 14 {
        crowd(&store, 0..RUNS, sequence).await;
        assert_eq!(read(&store, 7).await, (1..=sequence).collect::<Vec<_>>());
    }
    assert_eq!(arrived(directory.path()), 15 * RUNS as i64);
    let repeated = append(&store, 7, behind + 9, 1).await.expect("an answer");
    assert!(matches!(repeated[..], [Appended::Duplicate(_)]), "{repeated:?}");

    crowd(&store, 0..RUNS, behind + 14).await;
    assert_eq!(arrived(directory.path()), 0, "1024 are enough");
    for run in 0..RUNS {
        assert_eq!(read(&store, run).await, (1..=behind + 14).collect::<Vec<_>>());
    }
    store.close().await;
    aside.shutdown_background();
}

// L3: whatever else writes into the file. Had a taken place been given twice, no group could be put in place any more.
#[tokio::test(start_paused = true)]
async fn a_place_that_is_taken_in_one_table_is_not_given_in_the_other() {
    let (aside, directory) = (aside(), tempfile::tempdir().expect("a directory"));
    let store = open_slow(directory.path(), &aside).await;
    crowd(&store, 0..RUNS, 1).await;
    let tampered = |table: &str, run: usize| {
        let sql = format!(
            "INSERT INTO {table} (position, event_key, received_at, checksum, json)
             SELECT stream_no << 32 | 2, x'00', 0, 0, x'7b7d' FROM runs WHERE run_id = 'run_{run}'"
        );
        assert_eq!(beside(directory.path()).execute(&sql, []).expect("a row"), 1);
    };
    tampered("events_sorted", 5);
    tampered("events_arrived", 6);
    let answers =
        join_all((0..RUNS).map(|run| append(&store, run, 2, if run == 6 { PAGE } else { 1 }))).await;
    for (run, answer) in answers.into_iter().enumerate() {
        let refused = matches!(answer, Err(StoreError::Inconsistent { column: "position", .. }));
        assert_eq!(refused, [5, 6].contains(&run), "run {run}: {answer:?}");
    }
    let mut sequence = 2;
    while arrived(directory.path()) > 0 {
        sequence += 1;
        crowd(&store, 7..RUNS, sequence).await;
        assert!(sequence < 40, "nothing is put in its place any more");
    }
    store.close().await;
    aside.shutdown_background();
}
