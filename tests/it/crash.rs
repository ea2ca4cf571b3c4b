//! kill -9 of the real binary at random moments: nothing acknowledged is lost, nothing runs twice, every
//! subscriber resumes exactly.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use causeway::entropy::Entropy;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::support::address::steady_address;
use crate::support::ears::{plain_client, try_read};
use crate::support::gateway::{envelope, forward_body};
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::secrets::Watch;
use crate::support::sse_client::Follower;

const CREATES: usize = 60;
const FOLLOWERS: usize = 16;
const KILLS: usize = 8;
const EVENTS_PER_RUN: u64 = 20;

/// The shipped binary as a child process, on a port and a data directory that outlive it.
struct Victim {
    address: SocketAddr,
    directory: TempDir,
    config: PathBuf,
    child: Child,
    /// Before the directory that it searches.
    watch: Watch,
}

impl Victim {
    async fn start(home: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = steady_address();
        let config = directory.path().join("causeway.toml");
        let data = directory.path().join("data");
        let text = format!(
            "[gateway]\ndefault_tenant = \"tnt_demo\"\ndata_dir = {data:?}\n\n\
             [server]\nlisten = \"{address}\"\n\n\
             [forward]\nbase_backoff = \"20ms\"\nmax_backoff = \"100ms\"\n\n\
             [reader]\nbackoff = \"20ms\"\nmax_backoff = \"200ms\"\n\n\
             [[peers]]\npeer_id = \"stk_b\"\nbase_url = \"{home}\"\n"
        );
        std::fs::write(&config, text).expect("a configuration");
        let watch = Watch::over(vec![directory.path().to_owned()]);
        let child = Self::spawn(&config);
        let victim = Victim { address, directory, config, child, watch };
        victim.until_ready().await;
        victim
    }

    fn spawn(config: &Path) -> Child {
        let log = File::options().create(true).append(true).open(config.with_extension("log"));
        let log = log.expect("a log");
        Command::new(env!("CARGO_BIN_EXE_causeway"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env_clear()
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts")
    }

    async fn until_ready(&self) {
        let client = plain_client();
        let url = format!("http://{}/readyz", self.address);
        for _ in 0..500 {
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await; // why: another process starts
        }
        panic!("the gateway did not become ready");
    }

    /// Ends it without a word, and starts it again.
    async fn kill_and_restart(&mut self) {
        self.child.kill().await.expect("SIGKILL");
        self.child = Self::spawn(&self.config);
        self.until_ready().await;
    }
}

/// A caller that repeats one request with one key until it is answered with a run.
async fn create_until_answered(address: SocketAddr, key: String) -> String {
    let client = plain_client();
    for _ in 0..2000 {
        let request = client
            .post(format!("http://{address}/v1/federation/runs:forward"))
            .header("idempotency-key", &key)
            .header("content-type", "application/json")
            .timeout(Duration::from_secs(5))
            .body(forward_body("stk_b").to_string());
        if let Ok(answer) = request.send().await {
            let status = answer.status().as_u16();
            let body = json_of(answer).await;
            if status == 200 {
                return body["forwarded"]["run_id"].as_str().expect("a run id").to_owned();
            }
            assert!([409, 502, 503, 504].contains(&status), "{status}: {body}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // why: a client's own retry pause
    }
    panic!("`{key}` was never answered");
}

/// The body as JSON; `Null` when the gateway died while sending it.
async fn json_of(answer: reqwest::Response) -> Value {
    try_read(answer).await.map_or(Value::Null, |answer| answer.json)
}

/// A worker that pushes events of its own run, one by one, and remembers those that were acknowledged.
async fn push_and_remember(address: SocketAddr, acknowledged: Arc<Mutex<Vec<String>>>) {
    let client = plain_client();
    for at in 0..10_000 {
        let id = format!("evt_pushed_{at}");
        let body = json!({ "events": [envelope("run_pushed", &id, None, "acme.tick")] });
        let request = client
            .post(format!("http://{address}/v1/federation/events:ingest"))
            .header("content-type", "application/json")
            .timeout(Duration::from_secs(5))
            .body(body.to_string());
        if let Ok(answer) = request.send().await
            && json_of(answer).await["accepted"] == 1
        {
            acknowledged.lock().await.push(id);
        }
        tokio::task::yield_now().await;
    }
}

// A-04, F1, F3, L1, L3, L6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_runs_twice_over_kill_9_at_any_moment() {
    let home = ScriptedOrchestrator::start().await;
    home.auto_events(EVENTS_PER_RUN as usize, Duration::from_millis(10));
    let mut victim = Victim::start(&home.base_url()).await;
    let address = victim.address;

    let mut creates = tokio::task::JoinSet::new();
    for at in 0..CREATES {
        creates.spawn(async move {
            let key = format!("key_{at}");
            let run = create_until_answered(address, key.clone()).await;
            (at, key, run)
        });
    }
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut pusher = tokio::task::JoinSet::new();
    pusher.spawn(push_and_remember(address, Arc::clone(&acknowledged)));

    let chance = Entropy::from_os();
    let mut runs = vec![String::new(); CREATES];
    let mut followers = tokio::task::JoinSet::new();
    let mut kills = 0;
    while kills < KILLS || !creates.is_empty() {
        let life = Duration::from_millis(30).mul_f64(1.0 + 12.0 * chance.fraction());
        let answered = tokio::time::timeout(life, creates.join_next()).await;
        match answered {
            Ok(Some(done)) => {
                let (at, _, run) = done.expect("a caller");
                if followers.len() < FOLLOWERS {
                    let path = format!("/v1/federation/runs/{run}/events");
                    let run = run.clone();
                    followers.spawn(async move {
                        let mut follower = Follower::new(address, &path);
                        let end = follower.follow_to_end().await;
                        (run, end, follower)
                    });
                }
                runs[at] = run;
            }
            Ok(None) | Err(_) if kills < KILLS => {
                victim.kill_and_restart().await;
                kills += 1;
            }
            Ok(None) | Err(_) => {}
        }
    }
    pusher.shutdown().await;

    let truth = home.truth();
    truth.assert_one_run_per_key();
    assert_eq!(truth.runs_created().len(), CREATES, "one run for each caller's key");
    for (at, run) in runs.iter().enumerate() {
        let again = create_until_answered(address, format!("key_{at}")).await;
        assert_eq!(again, *run, "the same key answers with the same run");
    }
    while let Some(done) = followers.join_next().await {
        let (run, end, follower) = done.expect("a follower");
        let sent: Vec<String> = home.events(&run).into_iter().map(|event| event.event_id).collect();
        let seen: Vec<String> = follower.seen().iter().map(|event| event.event_id.clone()).collect();
        assert_eq!(seen, sent, "{run} ended with {end:?} after {} connections", follower.connects());
    }
    assert_pushed_events_are_there(&victim, &acknowledged.lock().await).await;
    drop((victim.watch, victim.directory));
}

async fn assert_pushed_events_are_there(victim: &Victim, acknowledged: &[String]) {
    assert!(!acknowledged.is_empty(), "the pusher was never answered");
    let client = plain_client();
    let mut held = Vec::new();
    let mut after = 0;
    loop {
        let url = format!(
            "http://{}/v1/federation/runs/run_pushed/events?limit=1000&from_sequence={after}",
            victim.address
        );
        let answer = client.get(url).header("accept", "application/json").send().await.expect("an answer");
        let page = json_of(answer).await;
        for envelope in page["events"].as_array().expect("events") {
            held.push(envelope["event"]["event_id"].as_str().expect("an id").to_owned());
        }
        after = page["next_from_sequence"].as_u64().expect("a cursor");
        if page["has_more"] != true {
            break;
        }
    }
    for id in acknowledged {
        assert!(held.contains(id), "{id} was acknowledged and is gone");
    }
    let mut once = held.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), held.len(), "an event is held twice");
}
