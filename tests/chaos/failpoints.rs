//! The sweep: for each named place and for its n-th passing, the gateway dies there with the power cut, starts
//! again, and keeps its promises. Only in a build with the feature `faults`.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use causeway::app::CONTROL_SOCKET;
use causeway::clock::Clock;
use causeway::config::Config;
use causeway::domain::limits;
use causeway::failpoint::VARIABLE as FAILPOINT;
use causeway::keyring::{KEY_DIR, Keyring};
use serde_json::json;
use tokio::time::Instant;

use crate::bench::Bench;
use crate::history::What;
use crate::nemesis::say;
use crate::power;
use crate::process::client;
use crate::support::gateway::envelope;
use crate::support::orchestrator::{CreateFault, CreateOutcome};

/// True when a process ended without a word: at a failpoint, or killed.
fn is_crash(status: ExitStatus) -> bool {
    status.signal().is_some()
}

/// Every gateway passes these with every commit.
const LOG: [&str; 4] =
    ["log::before_commit", "log::after_commit", "log::before_publish", "log::before_answer"];
/// And these with every forward.
const FORWARD: [&str; 4] =
    ["forward::after_intent", "forward::before_send", "forward::after_response", "forward::after_settle"];
const RETENTION: [(&str, u64); 5] = [
    ("retention::after_floor", 1),
    ("retention::after_floor", 2),
    ("retention::mid_delete", 1),
    ("retention::mid_delete", 2),
    ("retention::between_deletes", 1),
];
const KEYS: [&str; 4] =
    ["keys::after_next", "keys::after_announce", "keys::before_switch", "keys::after_switch"];
const RESTORE: [&str; 2] = ["restore::before_incarnation", "restore::before_name"];

/// Batches that make retention work hard.
const BATCHES: usize = 6;
/// How many events retention leaves; 0 for all.
const KEPT: &str = "CAUSEWAY_RETENTION_MAX_EVENTS_PER_TENANT";
/// How long a gateway at work may take to pass a place.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the gateway so that it dies there, at work; answers how it ended. What is unsynced is half lost.
async fn die_at(bench: &mut Bench, point: &str, nth: u64, shift: u64) -> ExitStatus {
    bench.gateway.set(FAILPOINT, &format!("{point}={nth}"));
    bench.gateway.spawn();
    let work = bench.work(shift);
    let ended = bench.gateway.until_ended().await;
    work.stop().await;
    after_death(bench, (point, nth), ended, shift);
    ended
}

fn after_death(bench: &mut Bench, (point, nth): (&str, u64), ended: ExitStatus, seed: u64) {
    assert!(is_crash(ended), "{point}={nth}: {ended}\n{}", bench.gateway.log_end());
    bench.gateway.set(FAILPOINT, "");
    let loss = power::cut(&bench.gateway.journal(), &bench.gateway.data(), seed, 0.5);
    say(&format!("died at {point}={nth}: {loss:?}"));
}

// L1–L7, F1–F3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_at_any_place_of_a_commit_or_a_forward_keeps_its_promises() {
    let mut bench = Bench::new().await;
    let cases = LOG.iter().flat_map(|point| [1, 6, 30].map(|nth| (point, nth)));
    let cases: Vec<_> =
        cases.chain(FORWARD.iter().flat_map(|point| [1, 2, 5].map(|nth| (point, nth)))).collect();
    for (shift, (point, nth)) in cases.into_iter().enumerate() {
        die_at(&mut bench, point, nth, shift as u64).await;
    }
    bench.judge().await;
}

// F1, F4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_between_sending_and_hearing_makes_no_second_run() {
    let mut bench = Bench::new().await;
    for shift in 0..4_u64 {
        bench.home.creates(if shift % 2 == 0 { CreateFault::HoldAnswer } else { CreateFault::Hold });
        bench.gateway.start_for_sure().await;
        let seen = bench.home.truth().creates().len();
        let work = bench.work(shift);
        let wanted = if shift % 2 == 0 { "a commit" } else { "a request" };
        let arrived = bench.home.until(wanted, |truth| {
            let new = &truth.creates()[seen..];
            let is_there =
                |outcome: &CreateOutcome| shift % 2 == 1 || *outcome != CreateOutcome::NotCommitted;
            new.iter().any(|create| is_there(&create.outcome))
        });
        arrived.await;
        bench.gateway.kill().await;
        work.stop().await;
        bench.home.creates(CreateFault::Ok);
        bench.home.release_creates();
        power::cut(&bench.gateway.journal(), &bench.gateway.data(), shift, 0.0);
    }
    bench.judge().await;
}

// L8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_that_dies_half_way_is_never_silent() {
    // Only when it starts: what was pushed before is more than one step of it takes.
    let seldom = |config: &mut Config| config.retention.sweep_interval = Duration::from_secs(3600);
    let mut bench = Bench::with(seldom).await;
    for (shift, (point, nth)) in (0..).zip(RETENTION) {
        bench.gateway.set(KEPT, "0");
        bench.gateway.start_for_sure().await;
        let work = bench.work(shift);
        push_many(bench.gateway.address, shift).await;
        bench.gateway.kill().await;
        bench.gateway.set(KEPT, "30");
        bench.gateway.set(FAILPOINT, &format!("{point}={nth}"));
        bench.gateway.spawn();
        let ended = bench.gateway.until_ended().await;
        work.stop().await;
        after_death(&mut bench, (point, nth), ended, shift);
    }
    bench.judge().await;
}

/// Pushes the largest batches, all into one run: more than one step of retention takes.
async fn push_many(address: SocketAddr, shift: u64) {
    let http = client();
    let run = format!("run_many_{shift}");
    for nth in 0..BATCHES {
        let id = |at| format!("evt_{shift}_{nth}_{at}");
        let event = |at| envelope(&run, &id(at), None, "agentos.run.step.completed");
        let events: Vec<_> = (0..limits::INGEST_EVENTS).map(event).collect();
        let request = http.post(format!("http://{address}/v1/federation/events:ingest"));
        let request = request.header("content-type", "application/json");
        let answer = request.body(json!({ "events": events }).to_string()).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

//
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_dies_half_way_leaves_one_key_and_can_be_repeated() {
    for point in KEYS {
        let mut bench = Bench::new().await;
        leave_stale_facts(&bench);
        bench.gateway.set(FAILPOINT, &format!("{point}=1"));
        bench.gateway.start_for_sure().await;
        let before = Keyring::read(&bench.gateway.data(), None).expect("a key");
        let before_ms = Clock::system().now_ms();
        // It may die before it answers.
        let _ = rotate(&bench).await;
        let ended = bench.gateway.until_ended().await;
        after_death(&mut bench, (point, 1), ended, 1);
        let after = Keyring::read(&bench.gateway.data(), None).expect("a key");
        let is_known = |key| after.find_public(key) == before.find_public(key);
        let early = after.next.as_ref().filter(|(_, at_ms)| *at_ms < before_ms);
        assert!(early.is_none(), "{point}: the new key is to take over before anybody knows it: {early:?}");
        assert!(is_known(before.present.public().key_id().as_str()), "{point}: the old key is forgotten");
        bench.gateway.start_for_sure().await;
        let present = until_rotated(&bench, before.present.public().key_id().as_str()).await;
        say(&format!("{point}: {present} took over"));
        bench.judge().await;
    }
}

/// When the next key is to take over, as a rotation of long ago leaves it that died after its take-over.
fn leave_stale_facts(bench: &Bench) {
    let directory = bench.gateway.data().join(KEY_DIR);
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("next.json"), "{\"activates_at_ms\": 1}").expect("a file");
}

async fn rotate(bench: &Bench) -> Option<u16> {
    let socket = bench.gateway.data().join(CONTROL_SOCKET);
    let http = reqwest::Client::builder().unix_socket(socket).no_proxy().build().expect("a client");
    let request = http.post("http://gateway/v1/federation/keys:rotate");
    let request =
        request.header("content-type", "application/json").body(json!({"overlap": "1s"}).to_string());
    request.send().await.ok().map(|answer| answer.status().as_u16())
}

/// Lets the rotation that was cut short take over, or asks for it again; answers the new key.
async fn until_rotated(bench: &Bench, old: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let keys = Keyring::read(&bench.gateway.data(), None).expect("a key");
        let present = keys.present.public().key_id().to_string();
        if present != old {
            return present;
        }
        if keys.next.is_none() {
            let status = rotate(bench).await.expect("the gateway answers its operator");
            assert!(matches!(status, 200..=299 | 409), "{status}");
        }
        assert!(Instant::now() < deadline, "no key ever takes over\n{}", bench.gateway.log_end());
        tokio::time::sleep(Duration::from_millis(50)).await; // why: another process's clock goes on
    }
}

// L9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_dies_half_way_can_be_repeated() {
    let mut bench = Bench::new().await;
    bench.gateway.start_for_sure().await;
    let work = bench.work(1);
    bench.until_acknowledged(20).await;
    let file = bench.gateway.file("backup.db");
    let file = file.to_str().expect("a path of ours").to_owned();
    bench.history.note(What::BackedUp { gateway: "a".to_owned() });
    let copied = bench.gateway.command(&["backup", &file]).await;
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    bench.until_acknowledged(40).await;
    bench.gateway.kill().await;
    work.stop().await;
    bench.gateway.remove_database();
    for point in RESTORE {
        bench.gateway.set(FAILPOINT, &format!("{point}=1"));
        let died = bench.gateway.command(&["restore", &file]).await;
        assert!(is_crash(died.status), "{point}: {}", died.status);
        let database = bench.gateway.data().join(causeway::store::DATABASE_FILE);
        assert!(!database.exists(), "{point} left half a database under its name");
    }
    bench.gateway.set(FAILPOINT, "");
    let restored = bench.gateway.command(&["restore", &file]).await;
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    bench.history.note(What::Restored { gateway: "a".to_owned() });
    bench.judge().await;
}
