//! Several events in one row of the log: found from any place, told apart where one is damaged, parted by retention.

use std::path::Path;
use std::time::Duration;

use causeway::clock::Clock;
use causeway::domain::cursor::Cursor;
use causeway::domain::event::{Appended, Sender};
use causeway::store::{PageRange, Placing, Store, StoreError};

use crate::log_model::{Push, entry, key, open, open_with};
use crate::support::gateway::{TestGateway, test_config};
use crate::support::log::{beside, event_text, flip_bit, last_step, number, page, push, rows_of, sequences};

/// Appends events with these ids in one unit, which have no sequences yet.
async fn append(store: &Store, ids: std::ops::Range<u32>) -> Result<Vec<Appended>, StoreError> {
    let event = |id| entry(0, Push { id, sequence: None, content: 0, ends: false });
    store.append_batch(Sender::Client, ids.map(event).collect()).await
}

/// A page of the one run: sequences and bytes.
async fn read(store: &Store, after: u64, max_events: u32) -> Vec<(u64, String)> {
    let stream = store.find_run(&key(0)).await.expect("an answer").expect("the run").stream_no;
    let range =
        PageRange { after: Cursor::at(after), to: Cursor::at(u64::MAX), max_events, max_bytes: 1 << 30 };
    let page = store.read_events(stream, range, Vec::new(), |page: &mut Vec<_>, row| {
        page.push((row.sequence.get(), String::from_utf8(row.json.to_vec()).expect("text")));
    });
    page.await.expect("a page").0
}

fn rows(directory: &Path) -> i64 {
    number(&beside(directory), "SELECT count(*) FROM events_sorted")
}

/// What people see who look into the file.
fn seen(directory: &Path) -> Vec<(u64, String)> {
    let database = beside(directory);
    let sql = "SELECT position & 0xffffffff, CAST(json AS TEXT) FROM events ORDER BY position";
    let mut statement = database.prepare(sql).expect("a view");
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))).expect("rows");
    rows.collect::<Result<_, _>>().expect("text")
}

#[tokio::test]
async fn what_a_unit_appends_lies_in_one_row_and_is_read_from_any_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), &Clock::system(), &Default::default()).await;
    for ids in [100..400, 400..401, 401..500] {
        append(&store, ids).await.expect("a commit");
    }
    assert_eq!(rows(directory.path()), 3);
    let all = read(&store, 0, 1000).await;
    assert_eq!(all.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), Vec::from_iter(1..=400));
    assert_eq!(seen(directory.path()), all, "the view shows what is served");
    for after in 0..400 {
        let upto = 400.min(after + 7);
        assert_eq!(read(&store, after as u64, 7).await, all[after..upto]);
    }
    assert!(read(&store, 400, 7).await.is_empty());
    store.close().await;
}

// Bytes are kept whatever they say: nothing that an event may hold ends its line, or the row.
#[tokio::test]
async fn events_keep_their_bytes_beside_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), &Clock::system(), &Default::default()).await;
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let long = format!("\"{}\"", "y".repeat(70_000));
    let payloads = [
        "1e400",
        "-0.0",
        "\"\\n\\r\\u2028\\u0000\"",
        "{\"a\":1,\"a\":2}",
        "\"]}[{,\"",
        "\"ü€😀\"",
        &deep,
        &long,
        "{}",
    ];
    let mut batch = Vec::new();
    for (nth, payload) in (1..).zip(payloads) {
        let mut one = entry(0, Push { id: 100 + nth, sequence: Some(nth.into()), content: 0, ends: false });
        let json = format!("{{\"event_id\":\"evt_{}\",\"sequence\":{nth},\"payload\":{payload}}}", 100 + nth);
        one.event.json = json.into();
        batch.push(one);
    }
    let sent: Vec<(u64, String)> = (1..)
        .zip(batch.iter().map(|one| String::from_utf8(one.event.json.to_vec()).expect("text")))
        .collect();
    store.append_batch(Sender::Client, batch).await.expect("a commit");
    assert_eq!(rows(directory.path()), 3, "one beyond the bound is in a row of its own");
    assert_eq!(read(&store, 0, 100).await, sent);
    assert_eq!(seen(directory.path()), sent);
    store.close().await;
}

// L3: whatever else writes into the file.
#[tokio::test]
async fn a_place_within_a_row_is_not_given_again() {
    for crowd in [1, 2] {
        let directory = tempfile::tempdir().expect("a directory");
        let placing = |crowd| Placing { crowd, ..Placing::default() };
        let (clock, metrics) = (Clock::system(), Default::default());
        let store = open_with(placing(2), directory.path(), &clock, &metrics).await;
        append(&store, 100..105).await.expect("a commit");
        store.close().await;
        drop(store);
        assert_eq!(rows(directory.path()), 1);
        let forgotten = "UPDATE streams SET last_sequence = 2, ids_to = 0, ids_sorted_to = 0";
        assert_eq!(beside(directory.path()).execute(forgotten, []), Ok(1));
        let store = open_with(placing(crowd), directory.path(), &clock, &metrics).await;
        for ids in [200..201, 200..203] {
            let refused = append(&store, ids).await.expect_err("a place that is taken");
            assert!(matches!(refused, StoreError::Inconsistent { column: "position", .. }), "{refused}");
        }
        assert_eq!(read(&store, 0, 9).await.len(), 5);
        store.close().await;
    }
}

#[tokio::test]
async fn retention_takes_so_many_events_wherever_rows_end() {
    const EVENTS: u32 = 5000;
    const KEPT: u64 = 1234;
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(1_000_000);
    let store = open(directory.path(), &clock, &Default::default()).await;
    for first in (0..EVENTS).step_by(300) {
        append(&store, 100_000 + first..100_000 + EVENTS.min(first + 300)).await.expect("a commit");
    }
    let before = read(&store, 0, EVENTS).await;
    while store.expire_surplus(KEPT).await.expect("a sweep") > 0 {}
    let kept = read(&store, EVENTS as u64 - KEPT, EVENTS).await;
    assert_eq!(kept, before[EVENTS as usize - KEPT as usize..]);
    let database = beside(directory.path());
    let counted = "SELECT (SELECT count(*) || ' ' || sum(length(json)) FROM events) =
                          (SELECT event_count || ' ' || byte_count FROM streams)";
    assert_eq!(number(&database, counted), 1);
    assert_eq!(number(&database, "SELECT count(*) FROM events"), KEPT as i64);
    // All that is left is known again, and the run goes on behind it.
    let repeated = append(&store, 100_000 + EVENTS - KEPT as u32..100_000 + EVENTS).await.expect("an answer");
    assert!(repeated.iter().all(|answer| matches!(answer, Appended::Duplicate(_))));
    let next = append(&store, 200_000..200_001).await.expect("a commit");
    assert!(matches!(next[..], [Appended::Stored(at)] if at.get() == u64::from(EVENTS) + 1), "{next:?}");
    store.close().await;
}

// L4: what says where the events of a row begin and end has changed, so that none of them can be told any more.
#[tokio::test]
async fn a_row_that_cannot_be_read_is_not_served_and_does_not_stop_retention() {
    let clock = Clock::manual(1_700_000_000_000);
    let mut config = test_config();
    config.retention.sweep_interval = Duration::from_millis(100);
    config.retention.events = Duration::from_secs(60 * 60);
    let mut gateway = TestGateway::start_at(clock.clone(), config, Vec::new()).await;
    let of = |sequence: u64| event_text("r", &format!("marker-{sequence}"), &sequence.to_string(), "{}");
    push(&gateway, &[of(1), of(2), last_step("r", 3)]).await.expect(200);
    push(&gateway, &[last_step("other", 1)]).await.expect(200);
    gateway.stop().await;
    // As the note on the second event has its id.
    flip_bit(&gateway.data_dir(), b"\0marker-2", 1);
    gateway.start_again().await.expect("one damaged row does not keep the gateway down");

    for from in 0..3 {
        assert_eq!(page(&gateway, "r", from).await.expect(500).code(), "internal_error");
    }
    assert_eq!(sequences(&page(&gateway, "other", 0).await), [1]);
    clock.advance(Duration::from_secs(2 * 60 * 60));
    gateway.until("/metrics", |page| page.text.contains("retention_streams_removed_total 2")).await;
    let database = beside(&gateway.data_dir());
    assert_eq!((rows_of(&database, "r"), rows_of(&database, "other")), (0, 0));
    assert_eq!(number(&database, "SELECT sum(event_count + byte_count) FROM streams"), 0);
    assert_eq!(number(&database, "SELECT bytes FROM usage"), 0);
}
