//! Three gateways as processes, and their homes.
//!
//! ```text
//! clients ─▶ a ──(proxy, mutual TLS, signatures)──▶ b ──(proxy)──▶ orc_b
//!            └──(proxy)──▶ orc_a                    c: events are only pushed there, and few are kept
//! ```
//!
//! `a` is the edge: it has the index of every forwarded run, and it is the one that is restored from a backup.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use causeway::config::Config;
use causeway::domain::id::PeerId;
use causeway::domain::key::PublicKey;
use causeway::entropy::Entropy;
use causeway::keyring::Keyring;
use causeway::services::peer_options::PeerOptions;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::audience::seen;
use crate::history::{History, What};
use crate::process::Process;
use crate::support::address::steady_address;
use crate::support::fault_proxy::{FaultProxy, ProxyMode};
use crate::support::gateway::test_config;
use crate::support::orchestrator::{CreateOutcome, ScriptedOrchestrator};
use crate::support::pair::{gateway_entry, orchestrator_entry};
use crate::workload::Client;

/// How many events `c` keeps.
pub(crate) const KEPT_BY_C: u64 = 150;
/// How long one answer, or one state, may be waited for once everything is sound again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The gateways, the network between them, and the homes.
pub(crate) struct Cluster {
    /// `a`, `b`, `c`.
    pub(crate) gateways: Vec<Process>,
    /// The ways that can be disturbed: a to b, a to its home, b to its home.
    pub(crate) links: Vec<(&'static str, FaultProxy)>,
    /// `orc_a`, `orc_b`.
    pub(crate) homes: Vec<(&'static str, Arc<ScriptedOrchestrator>)>,
    /// What happens.
    pub(crate) history: History,
    directory: TempDir,
}

impl Cluster {
    /// Starts everything. Runs take this many steps at this pace; `a` and `b` keep so many events, with 0 all.
    pub(crate) async fn start(steps: usize, pace: Duration, kept: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        let (home_a, home_b) = (ScriptedOrchestrator::start().await, ScriptedOrchestrator::start().await);
        for home in [&home_a, &home_b] {
            home.auto_events(steps, pace);
        }
        let (door_a, door_b) = (steady_address(), steady_address());
        let a_to_b = FaultProxy::start(door_b).await;
        let a_to_home = FaultProxy::start(home_a.addr()).await;
        let b_to_home = FaultProxy::start(home_b.addr()).await;
        let (key_a, key_b) = (key_of(path, "a"), key_of(path, "b"));

        let mut a = config("stk_a");
        a.peering.listen = Some(door_a);
        let to_b = gateway_entry("stk_b", &format!("https://{}", a_to_b.addr()), &key_b);
        a.peers = vec![home_entry("orc_a", &a_to_home.base_url()), to_b];
        let mut b = config("stk_b");
        b.peering.listen = Some(door_b);
        let to_a = gateway_entry("stk_a", &format!("https://{door_a}"), &key_a);
        b.peers = vec![home_entry("orc_b", &b_to_home.base_url()), to_a];
        let mut c = config("stk_c");
        for config in [&mut a, &mut b] {
            config.retention.max_events_per_tenant = kept;
            config.retention.sweep_interval = Duration::from_secs(1);
        }
        c.retention.max_events_per_tenant = KEPT_BY_C;
        c.retention.sweep_interval = Duration::from_millis(200);

        let mut gateways =
            vec![Process::new("a", path, a), Process::new("b", path, b), Process::new("c", path, c)];
        for gateway in &mut gateways {
            gateway.start_for_sure().await;
        }
        let history = History::new(path.join("history.jsonl"));
        let links = vec![("a to b", a_to_b), ("a to orc_a", a_to_home), ("b to orc_b", b_to_home)];
        let homes = vec![("orc_a", Arc::new(home_a)), ("orc_b", Arc::new(home_b))];
        Cluster { gateways, links, homes, history, directory }
    }

    /// A client of one of the gateways.
    pub(crate) fn client(&self, gateway: usize) -> Client {
        let process = &self.gateways[gateway];
        Client::new(&self.history, &process.name, process.address)
    }

    /// Makes everything sound again.
    pub(crate) async fn heal(&mut self) {
        for (_, link) in &self.links {
            link.set(ProxyMode::Pass).await;
        }
        for (_, home) in &self.homes {
            home.forgive_creates();
        }
        for gateway in &mut self.gateways {
            gateway.machine.set_disk_full(false);
            gateway.machine.set_clock_offset_ms(0);
            gateway.limit_descriptors(None);
            gateway.revive().await;
        }
    }

    /// Waits until every run that `a` has is over there, as every home says it is.
    pub(crate) async fn until_quiet(&self) {
        let client = self.client(0);
        let deadline = Instant::now() + PATIENCE;
        let mut unfinished = indexed(&self.gateways[0]);
        while !unfinished.is_empty() {
            let mut left = Vec::new();
            for (run, remote) in unfinished {
                let status = client.status(&run).await.unwrap_or_default();
                if !["completed", "failed", "canceled", "lost"].contains(&status.as_str()) {
                    left.push((run, remote));
                }
            }
            unfinished = left;
            // To ask for each of very many runs takes longer than to wait for the last of them.
            let is_over = unfinished.is_empty() || Instant::now() < deadline;
            assert!(is_over, "these runs never end at a: {unfinished:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await; // why: polling another party's HTTP API
        }
    }

    /// Writes down the truth of the homes, what each gateway holds and what its audit's proof says, then stops
    /// them all.
    pub(crate) async fn take_stock(&mut self) {
        for (name, home) in &self.homes {
            note_truth(&self.history, name, home);
        }
        for at in 0..self.gateways.len() {
            // A restart on whatever is on disk: what is held is what came through that.
            self.gateways[at].restart().await;
            note_held(&self.history, &self.gateways[at], &self.client(at)).await;
            self.gateways[at].stop().await;
            let proof = self.gateways[at].command(&["audit", "verify"]).await;
            let said = String::from_utf8_lossy(&[proof.stdout, proof.stderr].concat()).trim().to_owned();
            let gateway = self.gateways[at].name.clone();
            self.history.note(What::Audit { gateway, sound: proof.status.success(), said });
        }
    }

    /// The ends of what the gateways logged.
    pub(crate) fn logs(&self) -> String {
        let logs = self.gateways.iter().map(|one| format!("--- {}\n{}", one.name, one.log_end()));
        logs.collect::<Vec<_>>().join("\n")
    }

    /// Keeps everything for a person who looks for the reason; answers where it is.
    pub(crate) fn keep(self) -> std::path::PathBuf {
        self.directory.keep()
    }
}

/// The runs in a gateway's forward index whose home is elsewhere, and their names there.
pub(crate) fn indexed(gateway: &Process) -> Vec<(String, String)> {
    let rows = runs(gateway);
    rows.into_iter().filter(|(_, _, home)| !home.is_empty()).map(|(run, remote, _)| (run, remote)).collect()
}

/// Every run: its name, its name at its home, its home.
fn runs(gateway: &Process) -> Vec<(String, String, String)> {
    let file = gateway.data().join(causeway::store::DATABASE_FILE);
    let database = rusqlite::Connection::open(file).expect("the database opens");
    let mut statement = database.prepare("SELECT run_id, remote_run_id, peer_id FROM runs").expect("runs");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

/// Writes down the runs that a home made, for which clients' keys, and their events.
pub(crate) fn note_truth(history: &History, name: &str, home: &ScriptedOrchestrator) {
    for create in home.truth().creates() {
        if let CreateOutcome::Committed(run) = &create.outcome {
            let text = create.request.body.pointer("/input/text").and_then(Value::as_str).unwrap_or_default();
            let (home, key) = (name.to_owned(), text.to_owned());
            history.note_at(create.request.at, What::Made { home, key, run: run.clone() });
        }
    }
    for run in home.truth().runs_created() {
        for event in home.events(&run.run_id) {
            let object = serde_json::from_str(&event.text).expect("an event object");
            history.note(What::True { home: name.to_owned(), seen: seen(&run.run_id, &object) });
        }
    }
}

/// Writes down every event that a gateway holds, the floors below which it gave them up, and, if it is the edge,
/// its index.
pub(crate) async fn note_held(history: &History, gateway: &Process, client: &Client) {
    for (run, remote, home) in runs(gateway) {
        let held = client.held(&run).await;
        let (oldest, events) = held.unwrap_or_else(|| panic!("{} does not show {run}", gateway.name));
        for event in &events {
            history.note(What::Held { gateway: gateway.name.clone(), seen: seen(&run, event) });
        }
        let name = gateway.name.clone();
        history.note(What::Floor { gateway: name.clone(), run: run.clone(), oldest });
        if name == "a" && !home.is_empty() {
            history.note(What::Indexed { gateway: name, run, remote });
        }
    }
}

fn config(id: &str) -> Config {
    let mut config = test_config();
    config.gateway.stack_id = PeerId::parse(id).expect("an id");
    config.forward.deadline = Duration::from_secs(4);
    config.events.heartbeat = Duration::from_secs(1);
    config
}

fn home_entry(id: &str, base: &str) -> PeerOptions {
    let mut entry = orchestrator_entry(id, base);
    entry.local = true;
    entry
}

/// The key that a gateway will find in its data directory.
fn key_of(directory: &Path, name: &str) -> PublicKey {
    let mut seed = [0; 32];
    Entropy::from_os().fill(&mut seed);
    let ring = Keyring::open(&directory.join(name).join("data"), None, &seed).expect("a keyring");
    *ring.keys().present.public()
}
