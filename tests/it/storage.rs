//! The disk under the log: one fsync for many, nothing seen before it, and what happens when it is full.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use causeway::clock::Clock;
use causeway::domain::cursor::Cursor;
use causeway::domain::event::{Appended, Sender, StoredEvent};
use causeway::domain::stream::{StreamNo, StreamState};
use causeway::entropy::Entropy;
use causeway::metrics::Metrics;
use causeway::services::hub::{Hub, Watch};
use causeway::store::{
    Actor, DATABASE_FILE, Disk, DiskFaults, Quotas, ReaderBatch, Store, StoreError, TailObserver,
};
use causeway::tasks::Tasks;
use futures_util::future::{join, join_all};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::{Duration, Instant, timeout};

use crate::log_model::{Push, Unwatched, entry, key, open, open_heard, place};
use crate::support::gateway::{TestGateway, envelope};
use crate::support::log::{beside, event_text, number, page, push, rows_of, sequences};
use crate::support::secrets;
use crate::support::sse_client::SseClient;

/// Names the small disk to the child that works on it.
const SMALL_DISK: &str = "CAUSEWAY_TEST_SMALL_DISK";

// quality: group commit
#[tokio::test]
async fn many_appends_at_once_take_few_commits_and_each_is_answered_for_itself() {
    const APPENDS: usize = 600;
    let directory = tempfile::tempdir().expect("a directory");
    let metrics = Arc::new(Metrics::default());
    let store = open(directory.path(), &Clock::system(), &metrics).await;
    let before = metrics.log_commits.get();
    let append = |at: usize| {
        let push = Push { id: at as u32, sequence: None, content: 0, ends: false };
        store.append_batch(Sender::Client, vec![entry(at % 7, push)])
    };
    let answers = join_all((0..APPENDS).map(append)).await;
    let commits = metrics.log_commits.get() - before;
    assert!((1..=APPENDS as u64 / 10).contains(&commits), "{commits} commits");
    let mut given: Vec<(usize, u64)> = Vec::new();
    for (at, answer) in answers.into_iter().enumerate() {
        match answer.expect("a commit").as_slice() {
            [Appended::Stored(sequence)] => given.push((at % 7, sequence.get())),
            other => panic!("{other:?}"),
        }
    }
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), APPENDS, "no sequence twice");
    store.close().await;
}

// A push that fails when it is half done is undone alone, with its record in the audit, however many share its commit.
#[tokio::test]
async fn what_fails_takes_nothing_of_its_neighbours_with_it() {
    const APPENDS: usize = 600;
    let directory = tempfile::tempdir().expect("a directory");
    let metrics = Arc::new(Metrics::default());
    let store = open(directory.path(), &Clock::system(), &metrics).await;
    let before = metrics.log_commits.get();
    let append = |at: usize| {
        let push = |id, content| Push { id: (2 * at + id) as u32, sequence: None, content, ends: false };
        let mut entries = vec![entry(at % 7, push(0, 0)), entry((at + 1) % 7, push(1, 0))];
        let fails = at % 5 == 3;
        if fails {
            // It contradicts itself, which is audited, before it is one byte too long.
            entries.push(entry(at % 7, push(0, 1)));
        }
        let quotas = Quotas { stored_bytes: u64::from(fails), ..Quotas::default() };
        let by = Actor { tenant: "t".to_owned(), subject: "s".to_owned(), correlation_id: String::new() };
        store.append_pushed(Sender::Client, entries, quotas, by)
    };
    let answers = join_all((0..APPENDS).map(append)).await;
    let commits = metrics.log_commits.get() - before;
    assert!((1..=APPENDS as u64 / 10).contains(&commits), "{commits} commits");
    for (at, answer) in answers.iter().enumerate() {
        match answer {
            Ok(stored) => {
                assert!(at % 5 != 3 && matches!(stored[..], [Appended::Stored(_), Appended::Stored(_)]))
            }
            Err(error) => {
                assert!(at % 5 == 3 && matches!(error, StoreError::QuotaExceeded(_)), "{at}: {error}")
            }
        }
    }
    store.close().await;
    let log = beside(directory.path());
    let kept = (APPENDS - APPENDS / 5) as i64;
    assert_eq!(number(&log, "SELECT count(*) FROM events"), 2 * kept);
    assert_eq!(number(&log, "SELECT sum(last_sequence) FROM streams"), 2 * kept, "no sequence is left out");
    assert_eq!(number(&log, "SELECT bytes FROM usage"), number(&log, "SELECT sum(length(json)) FROM events"));
    assert_eq!(number(&log, "SELECT count(*) FROM audit WHERE action = 'events.ingest'"), kept);
    assert_eq!(number(&log, "SELECT max(audit_id) FROM audit"), kept, "no record is left out");
}

// Whoever stops a gateway and copies the database file has copied everything.
#[tokio::test]
async fn a_log_that_was_closed_is_whole_in_one_file() {
    let (directory, copy) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = open(directory.path(), &Clock::system(), &Arc::default()).await;
    for id in 1..=300 {
        let event = entry(1, Push { id, sequence: None, content: 0, ends: false });
        store.append_batch(Sender::Client, vec![event]).await.expect("a commit");
    }
    // The log is looked at after the last of these, and has so much to move that it is still moved when it is closed.
    for id in 301..=321 {
        let mut large = entry(1, Push { id, sequence: None, content: 0, ends: false });
        let padding = "x".repeat(1 << 20);
        large.event.json = format!("{{\"event_id\":\"evt_{id}\",\"payload\":\"{padding}\"}}").into();
        store.append_batch(Sender::Client, vec![large]).await.expect("a commit");
    }
    store.close().await;
    // Its readers still have the file open, so that SQLite does not tidy up by itself.
    std::fs::copy(directory.path().join(DATABASE_FILE), copy.path().join(DATABASE_FILE)).expect("a copy");
    drop(store);
    assert_eq!(rows_of(&beside(copy.path()), "run_1"), 321);
}

/// Counts what followers are told.
#[derive(Default)]
struct Told(AtomicUsize);

impl TailObserver for Told {
    fn is_watched(&self, _: StreamNo) -> bool {
        true
    }

    fn advanced(&self, _: StreamNo, _: StreamState, events: Vec<StoredEvent>) {
        self.0.fetch_add(events.len(), Ordering::Relaxed);
    }
}

// More streams than the writer keeps in memory: the group that passes its bound is told like every other.
#[tokio::test]
async fn followers_are_told_of_every_event_however_many_streams_there_are() {
    const STREAMS: usize = 12_000;
    let directory = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Told::default());
    let heard = (Arc::clone(&told) as Arc<dyn TailObserver>, Arc::new(Metrics::default()));
    let store = open_heard(directory.path(), &Clock::system(), heard).await;
    for first in (0..STREAMS).step_by(1000) {
        let push = |run| entry(run, Push { id: run as u32, sequence: None, content: 0, ends: false });
        store
            .append_batch(Sender::Client, (first..first + 1000).map(push).collect())
            .await
            .expect("a commit");
    }
    store.close().await;
    assert_eq!(told.0.load(Ordering::Relaxed), STREAMS);
}

/// A hub to which somebody comes just when the first event has been written, before it is committed.
#[derive(Default)]
struct Late {
    hub: Arc<Hub>,
    comer: Mutex<Option<Watch>>,
}

impl TailObserver for Late {
    fn is_watched(&self, stream_no: StreamNo) -> bool {
        let is_watched = self.hub.is_watched(stream_no);
        self.comer.lock().expect("a lock").get_or_insert_with(|| self.hub.watch(stream_no, ""));
        is_watched
    }

    fn advanced(&self, stream_no: StreamNo, state: StreamState, events: Vec<StoredEvent>) {
        self.hub.advanced(stream_no, state, events);
    }
}

// What nobody follows is not kept for followers: who comes in between is woken, and reads it in the log.
#[tokio::test]
async fn whoever_comes_while_a_commit_is_under_way_is_told_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let late = Arc::new(Late::default());
    let heard = (Arc::clone(&late) as Arc<dyn TailObserver>, Arc::new(Metrics::default()));
    let store = open_heard(directory.path(), &Clock::system(), heard).await;
    for id in [1, 2] {
        let event = entry(1, Push { id, sequence: None, content: 0, ends: false });
        store.append_batch(Sender::Client, vec![event]).await.expect("a commit");
        let mut comer = late.comer.lock().expect("a lock").take().expect("somebody came");
        timeout(Duration::from_secs(30), comer.moved()).await.expect("to be woken");
        assert_eq!(comer.state().expect("a state").last, u64::from(id));
        assert!(comer.tail_after(Cursor::START).is_none(), "the first one is in the log only");
        let second = comer.tail_after(Cursor::at(1));
        assert_eq!(second.map(|chunk| chunk.last.get()), (id == 2).then_some(2));
        *late.comer.lock().expect("a lock") = Some(comer);
    }
    store.close().await;
    assert_eq!(rows_of(&beside(directory.path()), "run_1"), 2);
}

/// Takes its time to hear of anything: until it is let go, or for a minute.
struct Slow(Mutex<mpsc::Receiver<()>>);

impl TailObserver for Slow {
    fn is_watched(&self, _: StreamNo) -> bool {
        true
    }

    fn advanced(&self, _: StreamNo, _: StreamState, _: Vec<StoredEvent>) {
        let go = self.0.lock().expect("a lock").recv_timeout(Duration::from_secs(60));
        go.expect("to be let go");
    }
}

// A thousand followers are woken by the writer: who pushed does not wait for that.
#[tokio::test]
async fn a_push_is_answered_before_followers_are_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let (go, gone) = mpsc::channel();
    let heard = (Arc::new(Slow(Mutex::new(gone))) as Arc<dyn TailObserver>, Arc::new(Metrics::default()));
    let store = open_heard(directory.path(), &Clock::system(), heard).await;
    let event = entry(1, Push { id: 1, sequence: None, content: 0, ends: false });
    let push = store.append_batch(Sender::Client, vec![event]);
    timeout(Duration::from_secs(30), push).await.expect("an answer").expect("a commit");
    go.send(()).expect("a follower that still waits");
    store.close().await;
}

/// A disk that takes a minute for a group.
struct SlowDisk;

impl DiskFaults for SlowDisk {
    fn delay(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn before_commit(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn after_commit(&self) -> bool {
        false
    }
}

/// Where work of a simulated disk waits for threads.
pub(crate) fn aside() -> Runtime {
    let aside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    aside.expect("a runtime")
}

/// A store on a [`SlowDisk`].
pub(crate) async fn open_slow(directory: &Path, aside: &Runtime) -> Store {
    let heard = (Arc::new(Unwatched) as Arc<dyn TailObserver>, Arc::new(Metrics::default()));
    let (clock, entropy, tasks) = (Clock::system(), Entropy::seeded(1), Tasks::on_one_thread());
    let disk = Disk::simulated(Arc::new(SlowDisk), aside.handle().clone());
    Store::open_on(disk, directory, clock, &entropy, tasks, heard).await.expect("a store")
}

// R-34: what waits for the log is bounded, what is new is refused at once, and what was taken is kept.
#[tokio::test(start_paused = true)]
async fn beyond_its_queue_the_log_refuses_what_is_new_and_drops_nothing() {
    const PUSHES: u32 = 3000;
    let (aside, directory) = (aside(), tempfile::tempdir().expect("a directory"));
    let store = open_slow(directory.path(), &aside).await;
    let begun = Instant::now();
    let push = async |id: u32| {
        let push = Push { id, sequence: None, content: 0, ends: false };
        let answer = store.append_batch(Sender::Client, vec![entry(1, push)]).await;
        (answer, begun.elapsed())
    };
    let mut stored = 0;
    for (answer, took) in join_all((0..PUSHES).map(push)).await {
        match answer {
            Ok(answer) => stored += i64::from(matches!(answer[..], [Appended::Stored(_)])),
            Err(StoreError::Overloaded) => assert_eq!(took, Duration::ZERO, "refused late"),
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..=1100).contains(&stored), "{stored} waited");
    assert_eq!(rows_of(&beside(directory.path()), "run_1"), stored);
    aside.shutdown_background();
}

// L1, L2: whoever is let into the directory finds all that will ever be written by whoever had it before.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_after_the_log_was_closed() {
    let (aside, directory) = (aside(), tempfile::tempdir().expect("a directory"));
    let store = open_slow(directory.path(), &aside).await;
    let event = |id| vec![entry(1, Push { id, sequence: None, content: 0, ends: false })];
    // Its caller is gone before the disk has it.
    let gone = timeout(Duration::from_secs(1), store.append_batch(Sender::Client, event(1))).await;
    gone.expect_err("a disk that takes a minute");
    store.close().await;
    let refused = store.append_batch(Sender::Client, event(2)).await.expect_err("the log is closed");
    assert!(matches!(refused, StoreError::Closed), "{refused}");
    let next = open_slow(directory.path(), &aside).await;
    let appended = next.append_batch(Sender::Client, event(3)).await.expect("a commit");
    assert!(matches!(appended[..], [Appended::Stored(at)] if at.get() == 2), "{appended:?}");
    assert_eq!(rows_of(&beside(directory.path()), "run_1"), 2);
    next.close().await;
    aside.shutdown_background();
}

// Whatever a lock on the directory is worth where it lies: what another wrote is not overwritten from memory.
#[tokio::test]
async fn what_another_process_wrote_is_gone_on_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), &Clock::system(), &Arc::default()).await;
    let append = async |id| {
        let event = entry(1, Push { id, sequence: None, content: 0, ends: false });
        store.append_batch(Sender::Client, vec![event]).await.expect("a commit")[0].clone()
    };
    assert_eq!(append(1).await, Appended::Stored(place(1)));
    let another =
        "INSERT INTO events_sorted SELECT position + 1, x'00', received_at, flags, checksum, json FROM events_sorted;
                   UPDATE streams SET last_sequence = 2, event_count = 2";
    beside(directory.path()).execute_batch(another).expect("another's event");
    assert_eq!(append(2).await, Appended::Stored(place(3)));
    let run = store.find_run(&key(1)).await.expect("an answer").expect("the run");
    let state = store.stream_state(run.stream_no).await.expect("a state");
    assert_eq!((state.last, state.holes.len()), (3, 0));
    store.close().await;
}

// L6: a hole is seen with the event that made it, or a follower would pass over it in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_state_is_of_one_moment_however_fast_the_stream_moves() {
    const EVENTS: u64 = 400;
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), &Clock::system(), &Arc::default()).await;
    let push = |sequence| Push { id: sequence as u32, sequence: Some(sequence), content: 0, ends: false };
    let append = |sequence| store.append_batch(Sender::Client, vec![entry(0, push(sequence))]);
    append(1).await.expect("a commit");
    let stream_no = store.find_run(&key(0)).await.expect("an answer").expect("the run").stream_no;
    let pushing = async {
        for nth in 1..EVENTS {
            append(1 + 2 * nth).await.expect("a commit");
        }
    };
    let reading = async {
        let mut last = 0;
        while last < 2 * (EVENTS - 1) {
            let state = store.stream_state(stream_no).await.expect("a state");
            last = state.last;
            assert_eq!(state.holes.len() as u64, (last - 1) / 2, "holes below {last}");
        }
    };
    join(pushing, reading).await;
    store.close().await;
}

// L5: what a second connection reads is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_is_answered_or_sees_an_event_finds_it_committed() {
    const EVENTS: u64 = 60;
    let gateway = TestGateway::start(Vec::new()).await;
    let event = |sequence: u64| event_text("r", &format!("e{sequence}"), "", "{}");
    push(&gateway, &[event(0)]).await.expect(200);
    let database = beside(&gateway.data_dir());
    let mut stream = SseClient::connect(gateway.address(), "/v1/federation/runs/r/events", &[]).await;
    let following = async {
        for _ in 0..=EVENTS {
            let sequence = stream.next_event().await.sequence();
            let held = rows_of(&database, "r") as u64;
            assert!(held >= sequence, "event {sequence} was seen while {held} were committed");
        }
    };
    let answered = beside(&gateway.data_dir());
    let pushing = async {
        for group in 0..EVENTS / 4 {
            let batches: Vec<_> = (1..=4).map(|at| [event(4 * group + at)]).collect();
            let answers = join_all(batches.iter().map(|batch| push(&gateway, batch))).await;
            for answer in answers {
                let sequence = answer.json["results"][0]["sequence"].as_u64().expect("stored");
                assert!(rows_of(&answered, "r") as u64 >= sequence);
            }
        }
    };
    join(following, pushing).await;
}

/// Runs one hidden test of this binary in a shell that has first done `prepare`.
fn in_a_child(prepare: &str, test: &str, directory: &Path) -> Output {
    let binary = std::env::current_exe().expect("this binary");
    let script = format!("{prepare} && exec \"$0\" --ignored --exact {test} --nocapture");
    Command::new("sh")
        .args(["-c", &script])
        .arg(binary)
        .env(SMALL_DISK, directory)
        .env("TMPDIR", directory)
        .output()
        .expect("a shell")
}

#[track_caller]
fn assert_passed(child: &Output) {
    let said = [String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr)].concat();
    secrets::read(&said);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

/// Pushes events of 50 kB until one is refused; answers how many were acknowledged, and the refusal.
async fn push_until_refused(
    gateway: &TestGateway,
    acknowledged: &mut u64,
) -> crate::support::gateway::Answer {
    let payload = format!("\"{}\"", "x".repeat(50_000));
    for _ in 0..1000 {
        let next = *acknowledged + 1;
        let event = event_text("r", &format!("e{next}"), &next.to_string(), &payload);
        let answer = push(gateway, &[event]).await;
        if answer.status != 200 {
            return answer;
        }
        *acknowledged = next;
    }
    panic!("the disk never filled up");
}

async fn all_are_read(gateway: &TestGateway, acknowledged: u64) {
    let (mut read, mut from) = (Vec::new(), 0);
    loop {
        let page = page(gateway, "r", from).await.expect(200);
        read.extend(sequences(&page));
        from = page.json["next_from_sequence"].as_u64().expect("a cursor");
        if page.json["has_more"] == false {
            break;
        }
    }
    assert_eq!(read, (1..=acknowledged).collect::<Vec<_>>());
}

// L1, L11, A-16
#[test]
fn a_full_disk_refuses_writes_serves_reads_and_is_got_over_without_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mount = "mount -t tmpfs -o size=8m tmpfs \"$CAUSEWAY_TEST_SMALL_DISK\"";
    // A mount namespace of its own: by right, or as the root of a user namespace.
    let may = |unshare: &str| {
        let probe = format!("{unshare} sh -c '{mount}'");
        let mut command = Command::new("sh");
        command.args(["-c", &probe]).env(SMALL_DISK, directory.path());
        command.output().is_ok_and(|output| output.status.success())
    };
    let Some(unshare) = ["unshare -m", "unshare -rm"].into_iter().find(|unshare| may(unshare)) else {
        eprintln!("no mount namespace is allowed here; the limit on file sizes stands in for the disk");
        return;
    };
    let test = "storage::inside_a_small_disk";
    let inner = format!("{mount} && exec \"$0\" --ignored --exact {test} --nocapture");
    let child = Command::new("sh")
        .args(["-c", &format!("exec {unshare} sh -c '{inner}' \"$0\"")])
        .arg(std::env::current_exe().expect("this binary"))
        .env(SMALL_DISK, directory.path())
        .env("TMPDIR", directory.path())
        .output()
        .expect("a shell");
    assert_passed(&child);
}

#[tokio::test]
#[ignore = "runs in the child of a_full_disk_refuses_writes…"]
async fn inside_a_small_disk() {
    let ballast = Path::new(&std::env::var_os(SMALL_DISK).expect("started by its parent")).join("ballast");
    std::fs::write(&ballast, vec![1; 4 << 20]).expect("there is room");
    let mut gateway = TestGateway::start(Vec::new()).await;
    let mut acknowledged = 0;
    let refused = push_until_refused(&gateway, &mut acknowledged).await.expect(507);
    assert!(acknowledged > 10, "{acknowledged}");
    assert_eq!(
        (refused.code(), refused.json["error"]["retryable"].as_bool()),
        ("insufficient_storage", Some(true))
    );
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
    for _ in 0..3 {
        all_are_read(&gateway, acknowledged).await;
        push_until_refused(&gateway, &mut acknowledged).await.expect(507);
    }
    std::fs::remove_file(&ballast).expect("removable");
    let before = acknowledged;
    push_until_refused(&gateway, &mut acknowledged).await.expect(507);
    assert!(acknowledged > before + 10, "writing resumed: {before} then {acknowledged}");
    all_are_read(&gateway, acknowledged).await;
    gateway.stop().await;
    assert_eq!(rows_of(&beside(&gateway.data_dir()), "r") as u64, acknowledged, "no more and no less");
}

// L1, L11: a write that fails for any other reason than space.
#[test]
fn a_disk_that_fails_stops_writing_for_good_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let prepare = "trap '' XFSZ && ulimit -f 4096";
    assert_passed(&in_a_child(prepare, "storage::inside_a_file_size_limit", directory.path()));
}

#[tokio::test]
#[ignore = "runs in the child of a_disk_that_fails…"]
async fn inside_a_file_size_limit() {
    assert!(std::env::var_os(SMALL_DISK).is_some(), "started by its parent");
    let mut gateway = TestGateway::start(Vec::new()).await;
    let mut acknowledged = 0;
    let refused = push_until_refused(&gateway, &mut acknowledged).await.expect(503);
    assert!(acknowledged > 10 && !refused.header("retry-after").is_empty(), "{acknowledged}");
    push_until_refused(&gateway, &mut acknowledged).await.expect(503);
    gateway.get("/readyz").await.expect(503);
    gateway.get("/livez").await.expect(200);
    // M-03: whoever looks before it stops is told.
    let alerts = gateway.get("/v1/federation/alerts").await.expect(200);
    assert_eq!(alerts.json["items"][0]["code"], "log_not_writable", "{}", alerts.text);
    all_are_read(&gateway, acknowledged).await;
    gateway.stop().await;
    assert_eq!(rows_of(&beside(&gateway.data_dir()), "r") as u64, acknowledged, "no more and no less");
}

#[tokio::test]
async fn what_lies_on_disk_is_for_this_user_only() {
    let gateway = TestGateway::start(Vec::new()).await;
    let event = envelope("run_a", "evt_1", None, "acme.tick");
    gateway.post("/v1/federation/events:ingest", &json!({ "events": [event] })).await.expect(200);
    let data = gateway.data_dir();
    let copy = data.join("copy.db");
    causeway::store::backup(&data, &copy).expect("a backup");
    let mode = |path: &Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in ["causeway.db", "causeway.db-wal", "causeway.db-shm", "causeway.lock", "copy.db"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
}

// A-18: kept, seen by replay, and counted.
#[tokio::test]
async fn an_event_under_a_gap_that_was_announced_is_counted_late() {
    let directory = tempfile::tempdir().expect("a directory");
    let metrics = Arc::new(Metrics::default());
    let log = open(directory.path(), &Clock::manual(1), &metrics).await;
    let with = |sequence| {
        entry(1, Push { id: sequence, sequence: Some(u64::from(sequence)), content: 1, ends: false })
    };
    log.append_batch(Sender::Client, vec![with(1), with(5)]).await.expect("appended");
    let run = log.find_run(&with(1).key).await.expect("a read").expect("the run");
    let gap = ReaderBatch { gaps: vec![(2, 3)], ..ReaderBatch::default() };
    log.append_read(run.stream_no, Sender::Client, gap).await.expect("marked");
    log.append_batch(Sender::Client, vec![with(4)]).await.expect("appended");
    assert_eq!(metrics.events_late.get(), 0, "a hole that may still be filled is no gap");
    log.append_batch(Sender::Client, vec![with(3)]).await.expect("appended");
    assert_eq!(metrics.events_late.get(), 1);
}
