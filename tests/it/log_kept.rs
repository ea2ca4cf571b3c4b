//! What the log keeps, and for how long: nothing changes, nothing damaged is served, nothing goes in
//! silence, and a copy is whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway::app::Gateway;
use causeway::clock::Clock;
use causeway::entropy::Entropy;
use causeway::store::{BackupError, DATABASE_FILE, backup, restore};
use causeway::tasks::Tasks;
use serde_json::json;

use crate::support::gateway::{TestGateway, test_config};
use crate::support::log::{
    beside, counts, event_text, flip_bit, last_step, number, outcomes, page, push, rows_of, sequences, step,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn gateway() -> TestGateway {
    TestGateway::start(Vec::new()).await
}

fn steps(run: &str, sequences: std::ops::RangeInclusive<u64>) -> Vec<String> {
    sequences.map(|sequence| step(run, sequence)).collect()
}

fn once(run: &str) -> String {
    format!("/v1/federation/runs/{run}/events?follow=false")
}

/// A gateway on a day of the test's own, whose sweeps do not make a test wait.
async fn swept(clock: &Clock, max_events: u64) -> TestGateway {
    let mut config = test_config();
    config.retention.sweep_interval = Duration::from_millis(100);
    config.retention.events = DAY;
    config.retention.max_events_per_tenant = max_events;
    TestGateway::start_at(clock.clone(), config, Vec::new()).await
}

// A-16, L4
#[tokio::test]
async fn an_event_and_an_audit_record_can_be_neither_changed_nor_removed() {
    let mut gateway = gateway().await;
    let other = event_text("r", "evt_other", "1", "{}");
    push(&gateway, &[step("r", 1), other]).await.expect(200);
    gateway.stop().await;
    let database = beside(&gateway.data_dir());
    let arrival = "INSERT INTO events_arrived (position, event_key, received_at, checksum, json)
                   VALUES (2 << 32 | 1, x'00', 0, 0, x'7b7d')";
    database.execute(arrival, []).expect("an arrival");
    for sql in [
        "UPDATE events_sorted SET json = x'7b7d'",
        "UPDATE events_sorted SET received_at = 0",
        "DELETE FROM events_sorted",
        "UPDATE events_arrived SET json = x'7b7d'",
        "UPDATE audit SET outcome = 'fine'",
        "DELETE FROM audit",
    ] {
        let refused = database.execute(sql, []).expect_err(sql).to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
    // The event set aside, and the push.
    assert_eq!((rows_of(&database, "r"), number(&database, "SELECT count(*) FROM audit")), (1, 2));
}

// L4: a real flipped bit, in the file.
#[tokio::test]
async fn a_flipped_bit_is_found_and_the_event_is_never_served() {
    let mut gateway = gateway().await;
    let of = |sequence: u64| {
        event_text("r", &format!("e{sequence}"), &sequence.to_string(), &format!("\"marker-{sequence}\""))
    };
    push(&gateway, &[of(1), of(2), last_step("r", 3)]).await.expect(200);
    push(&gateway, &[last_step("other", 1)]).await.expect(200);
    gateway.stop().await;
    flip_bit(&gateway.data_dir(), b"marker-2", 0); // "larker-2"
    gateway.start_again().await.expect("one damaged row does not keep the gateway down");

    let stream = gateway.get(&once("r")).await.expect(200);
    assert!(stream.text.contains("event: stream_error"), "{}", stream.text);
    assert!(!stream.text.contains("arker-2") && !stream.text.contains("event: end"), "{}", stream.text);
    let answer = page(&gateway, "r", 0).await.expect(500);
    assert_eq!((answer.code(), answer.text.contains("arker")), ("internal_error", false));
    assert_eq!(sequences(&page(&gateway, "r", 2).await), [3], "what is sound is served");
    assert_eq!(sequences(&page(&gateway, "other", 0).await), [1]);

    let copy = gateway.data_dir().join("copy.db");
    let refused = causeway::store::backup(&gateway.data_dir(), &copy).expect_err("a damaged log");
    assert!(refused.to_string().contains("sequence 2 have changed"), "{refused}");
    assert!(!copy.exists(), "a damaged copy gets no name");
}

// L4: rows that are gone are no silent hole.
#[tokio::test]
async fn events_that_vanished_from_the_disk_are_missed_and_not_passed_over() {
    let mut gateway = gateway().await;
    // Each in a row of its own.
    for event in [step("r", 1), step("r", 2), step("r", 3), last_step("r", 4)] {
        push(&gateway, &[event]).await.expect(200);
    }
    gateway.stop().await;
    let database = beside(&gateway.data_dir());
    database.execute_batch("DROP TRIGGER events_are_kept").expect("somebody with a shell");
    assert_eq!(database.execute("DELETE FROM events_sorted WHERE position & 255 = 2", []).expect("a row"), 1);
    drop(database);
    gateway.start_again().await.expect("a lost row does not keep the gateway down");

    let stream = gateway.get(&once("r")).await.expect(200);
    assert!(stream.text.contains("event: stream_error"), "{}", stream.text);
    assert!(!stream.text.contains("event: end") && !stream.text.contains("id: 3"), "{}", stream.text);
    assert_eq!(page(&gateway, "r", 0).await.expect(500).code(), "internal_error");
    assert_eq!(sequences(&page(&gateway, "r", 2).await), [3, 4], "what is whole is served");
}

// A-23, L8
#[tokio::test]
async fn what_age_removed_is_said_and_unfinished_runs_stay() {
    let clock = Clock::manual(1_700_000_000_000);
    let gateway = swept(&clock, 0).await;
    push(&gateway, &[step("done", 1), step("done", 2), last_step("done", 3), step("open", 1)])
        .await
        .expect(200);
    clock.advance(DAY / 2);
    push(&gateway, &[last_step("young", 1)]).await.expect(200);
    assert_eq!(sequences(&page(&gateway, "done", 0).await), [1, 2, 3], "not yet");
    clock.advance(DAY / 2 + Duration::from_secs(1));
    let gone = gateway.until(&once("done"), |answer| answer.status == 410).await;
    assert_eq!(gone.code(), "cursor_expired");
    assert_eq!(gone.json["error"]["details"]["oldest_sequence"], 4);
    let cursor_at = |from: u64| format!("{}&from_sequence={from}", once("done"));
    gateway.get(&cursor_at(2)).await.expect(410);
    gateway.get(&cursor_at(3)).await.expect(204);
    let skipping = gateway.get(&format!("{}&on_gap=skip", once("done"))).await.expect(200);
    for part in
        ["event: gap", "\"from_sequence\":1", "\"reason\":\"retention\"", "\"to_sequence\":3", "event: end"]
    {
        assert!(skipping.text.contains(part), "{part}: {}", skipping.text);
    }
    assert_eq!(outcomes(&push(&gateway, &[step("done", 2)]).await), ["rejected cursor_expired"]);
    assert_eq!(sequences(&page(&gateway, "open", 0).await), [1]);
    assert_eq!(sequences(&page(&gateway, "young", 0).await), [1]);
}

// A-23
#[tokio::test]
async fn a_count_takes_whole_finished_runs_first_and_trims_the_others_last() {
    let clock = Clock::manual(1_700_000_000_000);
    let gateway = swept(&clock, 5).await;
    let mut events = steps("open", 1..=4);
    events.extend([step("done", 1), step("done", 2), last_step("done", 3)]);
    push(&gateway, &events).await.expect(200);
    let gone = gateway.until(&once("done"), |answer| answer.status == 410).await;
    assert_eq!(gone.json["error"]["details"]["oldest_sequence"], 4, "whole, though two would have done");
    assert_eq!(sequences(&page(&gateway, "open", 0).await), [1, 2, 3, 4]);
    push(&gateway, &steps("open", 5..=7)).await.expect(200);
    let gone = gateway.until(&once("open"), |answer| answer.status == 410).await;
    assert_eq!(gone.json["error"]["details"]["oldest_sequence"], 3);
    page(&gateway, "open", 1).await.expect(410);
    assert_eq!(sequences(&page(&gateway, "open", 2).await), [3, 4, 5, 6, 7]);
    assert_eq!(outcomes(&push(&gateway, &[event_text("open", "next", "", "{}")]).await), ["stored"]);
}

// A-23: a crash after `oldest_sequence` was raised and before the rows went.
#[tokio::test]
async fn rows_a_crash_left_behind_are_never_served_and_go_with_the_next_sweep() {
    let clock = Clock::manual(1_700_000_000_000);
    let mut gateway = swept(&clock, 0).await;
    push(&gateway, &[step("done", 1), last_step("done", 2)]).await.expect(200);
    gateway.stop().await;
    let database = beside(&gateway.data_dir());
    database.execute("UPDATE streams SET oldest_sequence = last_sequence + 1", []).expect("an update");
    gateway.start_again().await.expect("it starts");
    gateway.get(&once("done")).await.expect(410);
    let skipping = gateway.get(&format!("{}&on_gap=skip", once("done"))).await.expect(200);
    assert!(!skipping.text.contains("agentos.event"), "{}", skipping.text);
    assert_eq!(rows_of(&database, "done"), 2, "the rows are there still");
    clock.advance(2 * DAY);
    gateway.until("/metrics", |page| page.text.contains("retention_streams_removed_total 1")).await;
    assert_eq!(rows_of(&database, "done"), 0);
    assert_eq!(number(&database, "SELECT event_count + byte_count FROM streams"), 0);
    assert_eq!(number(&database, "SELECT count(*) FROM retention_window"), 0);
}

fn copied_to(gateway: &TestGateway, name: &str) -> PathBuf {
    gateway.data_dir().parent().expect("a parent").join(name)
}

fn remove_database(data_dir: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let file = data_dir.join(format!("{DATABASE_FILE}{suffix}"));
        if file.exists() {
            std::fs::remove_file(file).expect("removable");
        }
    }
}

// L9
#[tokio::test]
async fn a_list_cursor_of_the_log_before_a_restore_is_refused() {
    let mut gateway = gateway().await;
    push(&gateway, &[step("a", 1), step("b", 1), step("c", 1)]).await.expect(200);
    let list = gateway.get("/v1/federation/runs?limit=1").await.expect(200);
    let next = format!(
        "/v1/federation/runs?limit=1&cursor={}",
        list.json["next_cursor"].as_str().expect("a cursor")
    );
    gateway.restart().await;
    gateway.get(&next).await.expect(200);
    gateway.stop().await;
    let copy = copied_to(&gateway, "copy.db");
    backup(&gateway.data_dir(), &copy).expect("a backup");
    remove_database(&gateway.data_dir());
    restore(&copy, &gateway.data_dir(), &Entropy::from_os()).expect("a restore");
    gateway.start_again().await.expect("it starts");
    assert_eq!(gateway.get(&next).await.expect(409).code(), "cursor_incarnation");
    assert_eq!(sequences(&page(&gateway, "a", 0).await), [1], "a run's sequences come from its home");
}

// L9: no sequence is given twice
#[tokio::test]
async fn a_restored_run_goes_on_behind_a_gap_and_never_under_a_sequence_that_was_seen() {
    let numbered_here = |id: &str| vec![event_text("open", id, "", "{}")];
    let mut gateway = gateway().await;
    push(&gateway, &numbered_here("e1")).await.expect(200);
    push(&gateway, &[step("theirs", 1)]).await.expect(200);
    let copy = copied_to(&gateway, "copy.db");
    backup(&gateway.data_dir(), &copy).expect("a backup");
    push(&gateway, &numbered_here("e2")).await.expect(200);
    assert_eq!(sequences(&page(&gateway, "open", 0).await), [1, 2]);
    gateway.stop().await;
    remove_database(&gateway.data_dir());
    restore(&copy, &gateway.data_dir(), &Entropy::from_os()).expect("a restore");
    gateway.start_again().await.expect("it starts");

    assert_eq!(counts(&push(&gateway, &numbered_here("e1")).await), (1, 0, 1, 0), "that one is held");
    push(&gateway, &numbered_here("e3")).await.expect(200);
    gateway.restart().await;
    push(&gateway, &numbered_here("e4")).await.expect(200);
    let seen_two = page(&gateway, "open", 2).await;
    let after = 2 + (1 << 20);
    assert_eq!(sequences(&seen_two), [after, after + 1], "one gap, and on from there");
    let gap = &seen_two.json["gaps"][0];
    assert_eq!((&gap["from_sequence"], &gap["to_sequence"]), (&json!(3), &json!(after - 1)), "{gap}");
    assert_eq!(gap["reason"], "restore");
    push(&gateway, &[step("theirs", 2)]).await.expect(200);
    assert_eq!(
        sequences(&page(&gateway, "theirs", 0).await),
        [1, 2],
        "a sender's own sequences stay its own"
    );
}

// A copy that began again at every commit would never end under load.
#[tokio::test]
async fn a_backup_of_a_busy_log_ends_and_is_whole() {
    let gateway = gateway().await;
    let large = format!("\"{}\"", "x".repeat(900_000));
    for sequence in 1..=30_u64 {
        let event = event_text("large", &format!("e{sequence}"), &sequence.to_string(), &large);
        push(&gateway, &[event]).await.expect(200);
    }
    let (data_dir, copy) = (gateway.data_dir(), copied_to(&gateway, "copy.db"));
    let target = copy.clone();
    let mut copying = Tasks::default().blocking(move || backup(&data_dir, &target));
    let mut pushed = 0;
    let writing = async {
        loop {
            pushed += 1;
            push(&gateway, &[event_text("busy", &format!("e{pushed}"), "", "{}")]).await.expect(200);
        }
    };
    let copied = tokio::select! {
        copied = tokio::time::timeout(Duration::from_secs(20), &mut copying) => copied,
        () = writing => unreachable!("writing never ends"),
    };
    copied.expect("the copy ends").expect("no panic").expect("a backup");

    let restored = tempfile::tempdir().expect("a directory");
    restore(&copy, restored.path(), &Entropy::from_os()).expect("a restore");
    let database = beside(restored.path());
    let finding: String =
        database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    assert_eq!((finding.as_str(), rows_of(&database, "large")), ("ok", 30));
    let heads = "SELECT count(*) FROM streams s WHERE last_sequence <>
                     (SELECT count(*) FROM events WHERE position >> 32 = s.stream_no)";
    assert_eq!(number(&database, heads), 0, "events and heads are of one moment");
    assert!(!copied_to(&gateway, "copy.db.part").exists());
}

#[tokio::test]
async fn a_copy_is_refused_where_it_would_destroy_or_mix() {
    let mut gateway = gateway().await;
    push(&gateway, &[step("r", 1)]).await.expect(200);
    let (data_dir, copy) = (gateway.data_dir(), copied_to(&gateway, "copy.db"));
    backup(&data_dir, &copy).expect("a backup");
    assert!(matches!(backup(&data_dir, &copy), Err(BackupError::Exists(path)) if path == copy));
    let in_use = restore(&copy, &data_dir, &Entropy::from_os()).expect_err("a gateway runs");
    assert!(in_use.to_string().contains("in use by another gateway"), "{in_use}");
    gateway.stop().await;
    let exists = restore(&copy, &data_dir, &Entropy::from_os());
    assert!(matches!(exists, Err(BackupError::Exists(_))), "{exists:?}");
    assert_eq!(rows_of(&beside(&data_dir), "r"), 1);

    // The write-ahead log of a database that was moved away would be replayed over the restored one.
    let empty = copied_to(&gateway, "empty");
    std::fs::create_dir(&empty).expect("a directory");
    std::fs::write(empty.join(format!("{DATABASE_FILE}-wal")), b"old").expect("a file");
    let mixed = restore(&copy, &empty, &Entropy::from_os()).expect_err("a write-ahead log is there");
    assert!(mixed.to_string().contains("move it away too"), "{mixed}");

    let (garbage, fresh) = (copied_to(&gateway, "garbage.db"), copied_to(&gateway, "fresh"));
    for content in ["this is no database".repeat(1000), String::new()] {
        std::fs::write(&garbage, content).expect("a file");
        restore(&garbage, &fresh, &Entropy::from_os()).expect_err("no log of a gateway");
        let left: Vec<_> = std::fs::read_dir(&fresh)
            .expect("a directory")
            .map(|file| file.expect("a file").file_name())
            .collect();
        assert_eq!(left, ["causeway.lock"], "nothing half-made is left");
    }
    assert!(matches!(backup(&fresh, &copied_to(&gateway, "none.db")), Err(BackupError::Missing(_))));
}

#[tokio::test]
async fn a_directory_in_use_and_a_database_that_is_none_keep_a_gateway_from_starting() {
    let mut gateway = gateway().await;
    let mut second = gateway.config.clone();
    second.server.listen.set_port(0);
    let refused = Gateway::start(second).await.err().expect("one gateway per directory").to_string();
    assert!(refused.contains("in use by another gateway; stop it, or give this one its own"), "{refused}");
    assert_eq!(outcomes(&push(&gateway, &[step("r", 1)]).await), ["stored"], "the first goes on");

    gateway.stop().await;
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'of a later version', 1, x'00', 0)";
    beside(&gateway.data_dir()).execute(later, []).expect("a later version");
    let refused = gateway.start_again().await.expect_err("a schema that nobody knows").to_string();
    assert!(refused.contains("later version of causeway") && refused.contains("step 9999"), "{refused}");

    remove_database(&gateway.data_dir());
    let file = gateway.data_dir().join(DATABASE_FILE);
    std::fs::write(&file, "this is no database".repeat(1000)).expect("a file");
    let refused = gateway.start_again().await.expect_err("no database").to_string();
    assert!(refused.contains("causeway.db") && refused.contains("causeway restore"), "{refused}");
    let kept = std::fs::read_to_string(&file).expect("a file");
    assert!(kept.starts_with("this is no database"), "what could not be read is not replaced");
}

// The WAL-reset bug is mended from here on.
#[test]
fn the_bundled_sqlite_is_new_enough() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}
