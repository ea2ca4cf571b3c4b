//! One gateway before one home, on a machine that is broken again and again while clients are at work.
//!
//! Work is ingest, forward and settlement, with readers; the promises are those of the cluster's checks.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::audience::Reader;
use crate::checks;
use crate::cluster::{indexed, note_held, note_truth};
use crate::history::{self, History, Outcome, Request, What};
use crate::nemesis::say;
use crate::process::Process;
use crate::support::gateway::test_config;
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::pair::orchestrator_entry;
use crate::workload::Client;

/// How long anything may take once all is sound again.
const PATIENCE: Duration = Duration::from_secs(40);
/// Steps of a run.
const STEPS: usize = 6;
/// Clients that push at a time.
const PUSHERS: usize = 3;
/// Clients that create at a time.
const CREATORS: usize = 2;

/// The gateway, its home, and what happened.
pub(crate) struct Bench {
    /// The gateway; the tests break it.
    pub(crate) gateway: Process,
    /// Its home.
    pub(crate) home: Arc<ScriptedOrchestrator>,
    /// What happened.
    pub(crate) history: History,
    directory: tempfile::TempDir,
}

/// Clients at work, until they are stopped.
pub(crate) struct Work {
    clients: JoinSet<()>,
}

impl Work {
    /// Ends it; what was asked and not answered stays unknown.
    pub(crate) async fn stop(mut self) {
        self.clients.shutdown().await;
    }
}

impl Bench {
    /// A gateway that is not started yet, whose kills are power cuts.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same, configured otherwise.
    pub(crate) async fn with(change: impl FnOnce(&mut causeway::config::Config)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = ScriptedOrchestrator::start().await;
        home.auto_events(STEPS, Duration::from_millis(5));
        let mut entry = orchestrator_entry("orc_a", &home.base_url());
        entry.local = true;
        let mut config = test_config();
        config.peers = vec![entry];
        config.server.shutdown_timeout = Duration::from_secs(1);
        change(&mut config);
        let mut gateway = Process::new("a", directory.path(), config);
        gateway.journal_writes();
        let history = History::new(directory.path().join("history.jsonl"));
        Bench { gateway, home: Arc::new(home), history, directory }
    }

    /// A client.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.history, "a", self.gateway.address)
    }

    /// The run that the first pusher of a shift pushes.
    pub(crate) fn pushed_run(&self, shift: u64) -> String {
        format!("run_pushed_{shift}_0")
    }

    /// Puts clients to work: each pushes, or creates and reads, until it is stopped.
    pub(crate) fn work(&self, shift: u64) -> Work {
        let mut clients = JoinSet::new();
        let far = Instant::now() + Duration::from_secs(600);
        for number in 0..PUSHERS {
            let (client, run) = (self.client(), format!("run_pushed_{shift}_{number}"));
            let reader = self.reader(&run);
            clients.spawn(async move {
                for nth in 0_u64.. {
                    client.push(&run, &format!("evt_{run}_{nth}"), "agentos.run.step.completed", far).await;
                }
            });
            clients.spawn(async move {
                let _ = reader.read_until(far).await;
            });
        }
        for number in 0..CREATORS {
            let (client, history, address) = (self.client(), self.history.clone(), self.gateway.address);
            clients.spawn(async move {
                let mut readers = JoinSet::new();
                for nth in 0_u64.. {
                    let key = format!("key_{shift}_{number}_{nth}");
                    if let Some(run) = client.create("orc_a", &key, far).await {
                        readers.spawn(Reader::new(&history, ("a", address), &run).read_until(far));
                    }
                    tokio::time::sleep(Duration::from_millis(15)).await; // why: a client's own pace
                }
            });
        }
        Work { clients }
    }

    fn reader(&self, run: &str) -> Reader {
        Reader::new(&self.history, ("a", self.gateway.address), run)
    }

    /// How many requests were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let entries = self.history.read();
        let done = |what: &What| matches!(what, What::Answered { outcome: Outcome::Ok, .. });
        entries.iter().filter(|entry| done(&entry.what)).count()
    }

    /// Waits until so many were.
    pub(crate) async fn until_acknowledged(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.acknowledged() < count {
            assert!(
                Instant::now() < deadline,
                "{} of {count}\n{}",
                self.acknowledged(),
                self.gateway.log_end()
            );
            tokio::time::sleep(Duration::from_millis(10)).await; // why: another process works
        }
    }

    /// Starts the gateway on whatever is on disk, lets every forward come to its end, and judges.
    pub(crate) async fn judge(mut self) {
        let offences = self.offences().await;
        let shown = offences.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
        let kept = if offences.is_empty() { None } else { Some(self.directory.keep()) };
        assert!(offences.is_empty(), "{} offences, kept in {kept:?}:\n  {shown}", offences.len());
    }

    /// The same, and answers what it found.
    pub(crate) async fn offences(&mut self) -> Vec<String> {
        if self.gateway.ended().is_some() {
            self.gateway.kill().await;
        }
        self.gateway.revive().await;
        let deadline = Instant::now() + PATIENCE;
        for key in self.keys() {
            let answered = self.client().create("orc_a", &key, deadline).await;
            assert!(answered.is_some(), "{key} is never answered\n{}", self.gateway.log_end());
        }
        self.until_read(deadline).await;
        note_truth(&self.history, "orc_a", &self.home);
        note_held(&self.history, &self.gateway, &self.client()).await;
        self.gateway.stop().await;
        let proof = self.gateway.command(&["audit", "verify"]).await;
        let said = String::from_utf8_lossy(&[proof.stdout, proof.stderr].concat()).trim().to_owned();
        self.history.note(What::Audit { gateway: "a".to_owned(), sound: proof.status.success(), said });
        let entries = self.history.read();
        say(&history::summary(&entries));
        checks::offences(&entries)
    }

    /// Every key that a client used.
    fn keys(&self) -> Vec<String> {
        let key = |what: What| match what {
            What::Asked { request: Request::Create { key }, .. } => Some(key),
            _ => None,
        };
        let mut keys: Vec<String> =
            self.history.read().into_iter().filter_map(|entry| key(entry.what)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Waits until the gateway has read every run to its end.
    async fn until_read(&self, deadline: Instant) {
        let client = self.client();
        for (run, _) in indexed(&self.gateway) {
            loop {
                let status = client.status(&run).await;
                if status.as_deref() == Some("completed") {
                    break;
                }
                assert!(Instant::now() < deadline, "{run} is {status:?}\n{}", self.gateway.log_end());
                tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
            }
        }
    }
}
