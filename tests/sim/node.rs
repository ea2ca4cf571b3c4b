//! One gateway of the simulation: the real assembly on simulated ground, which can die and come back.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use causeway::app::{Gateway, Ground};
use causeway::clock::{Clock, millis};
use causeway::config::Config;
use causeway::domain::grants::Operation;
use causeway::domain::id::PeerId;
use causeway::domain::key::PublicKey;
use causeway::domain::peer::PeerKind;
use causeway::entropy::Entropy;
use causeway::http::Ports;
use causeway::keyring::Keyring;
use causeway::outbound::Network;
use causeway::services::peer_options::PeerOptions;
use causeway::store::{Disk, DiskFaults, Placing, StoreError};
use causeway::tasks::Tasks;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::sleep;

use super::net::{Inlet, Net, Outlet};
use super::options::Options;
use super::trace::{Dice, lock};

/// Letters of gateways and their homes.
pub(crate) const LETTERS: [char; 3] = ['a', 'b', 'c'];
/// Wall time at the start: noon of 2026-01-01, so that no clock that is off is in another day.
const EPOCH_MS: i64 = 1_767_268_800_000;

/// The beginning, as a clock shows it that is wrong by so much at most.
pub(crate) fn some_time(dice: &Dice, skew: Duration) -> i64 {
    let skew = millis(skew);
    EPOCH_MS + dice.between(0, 2 * skew as u64 + 1) as i64 - skew
}

/// Data directories as they are before the first start: a key and an empty database.
struct Templates {
    directory: TempDir,
    keys: Vec<PublicKey>,
    /// For the threads of list queries.
    aside: Runtime,
}

/// A gateway, running or not.
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) clock: Clock,
    config: Config,
    seed: u64,
    lives: Mutex<u64>,
    net: Arc<Net>,
    disk: Arc<SimDisk>,
    running: AsyncMutex<Option<Gateway>>,
    _data: TempDir,
}

/// The disk of one gateway.
struct SimDisk {
    host: String,
    net: Arc<Net>,
    options: Options,
    dice: Dice,
    tasks: Mutex<Option<Tasks>>,
    /// Of a process that died, until they are gone.
    dead: Mutex<Option<Tasks>>,
    /// The process died.
    died: Notify,
}

impl DiskFaults for SimDisk {
    fn delay(&self) -> Duration {
        if self.net.is_calm() { Duration::ZERO } else { self.dice.up_to(self.options.commit_delay) }
    }

    fn before_commit(&self) -> Result<(), StoreError> {
        if self.happens(self.options.crash_before_commit) {
            self.kill("before a commit");
            return Err(StoreError::Closed);
        }
        if self.happens(self.options.disk_full) {
            self.net.trace.say(format_args!("{} has a full disk", self.host));
            return Err(StoreError::Full);
        }
        Ok(())
    }

    fn after_commit(&self) -> bool {
        let dies = self.happens(self.options.crash_after_commit);
        if dies {
            self.kill("after a commit");
        }
        dies
    }
}

impl SimDisk {
    /// Nothing happens while a gateway starts: what it does then is done again at the next start.
    fn happens(&self, probability: f64) -> bool {
        !self.net.is_calm() && lock(&self.tasks).is_some() && self.dice.chance(probability)
    }

    fn kill(&self, when: &str) {
        let Some(tasks) = lock(&self.tasks).take() else { return };
        self.net.trace.say(format_args!("{} dies {when}", self.host));
        tasks.kill();
        self.net.cut_off(&self.host);
        *lock(&self.dead) = Some(tasks);
        self.died.notify_one();
    }
}

impl Node {
    /// A gateway that has not started, with a home of its own, enrolled with the others.
    pub(crate) fn new(index: usize, seed: u64, net: &Arc<Net>, options: &Options) -> Arc<Self> {
        let templates = templates();
        let letter = LETTERS[index];
        let host = format!("stk_{letter}");
        let data = data_directory();
        copy(&templates.directory.path().join(&host), data.path());
        let mut config = quick_config();
        config.gateway.stack_id = PeerId::parse(&host).expect("an id");
        config.gateway.data_dir = data.path().to_owned();
        config.limits.runs_per_day = options.runs_per_day;
        if let Some(kept) = options.retention {
            config.retention.events = kept;
        }
        let mut home = entry(&format!("orc_{letter}"), PeerKind::Orchestrator);
        home.local = true;
        config.peers.push(home);
        for other in (0..options.gateways).filter(|other| *other != index) {
            let mut peer = entry(&format!("stk_{}", LETTERS[other]), PeerKind::Gateway);
            peer.public_key = Some(templates.keys[other]);
            peer.operations = vec![Operation::ForwardIn, Operation::ForwardOut];
            config.peers.push(peer);
        }
        let dice = Dice::new(seed, 10 + index as u64);
        let clock = Clock::running(some_time(&dice, options.skew));
        let disk = Arc::new(SimDisk {
            host: host.clone(),
            net: Arc::clone(net),
            options: options.clone(),
            dice,
            tasks: Mutex::default(),
            dead: Mutex::default(),
            died: Notify::new(),
        });
        let node = Node {
            host,
            clock,
            config,
            seed: seed.wrapping_add(index as u64),
            lives: Mutex::default(),
            net: Arc::clone(net),
            disk,
            running: AsyncMutex::default(),
            _data: data,
        };
        node.look_into_log();
        Arc::new(node)
    }

    /// Starts it, and comes back whenever it died.
    pub(crate) async fn begin(self: &Arc<Self>) {
        self.start(&mut *self.running.lock().await).await;
        let node = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                node.disk.died.notified().await;
                let mut running = node.running.lock().await;
                if !node.bury(&mut running).await {
                    continue; // somebody else was here, and it is back
                }
                let rest = Dice::new(node.seed, 20 + *lock(&node.lives)).up_to(Duration::from_secs(2));
                sleep(rest).await;
                node.start(&mut running).await;
            }
        });
    }

    /// Waits until nothing is left of a process that died; false when there is none.
    async fn bury(&self, running: &mut Option<Gateway>) -> bool {
        let Some(dead) = lock(&self.disk.dead).take() else { return false };
        drop(running.take());
        dead.stop().await;
        true
    }

    async fn start(&self, running: &mut Option<Gateway>) {
        let life = {
            let mut lives = lock(&self.lives);
            *lives += 1;
            *lives
        };
        let tasks = Tasks::on_one_thread();
        let (net, host) = (Arc::clone(&self.net), self.host.clone());
        let outlet = Outlet { net: Arc::clone(&net), host: host.clone(), tasks: tasks.clone() };
        let ground = Ground {
            clock: self.clock.clone(),
            entropy: Entropy::seeded(self.seed.wrapping_mul(31).wrapping_add(life)),
            tasks: tasks.clone(),
            disk: Disk::simulated(Arc::clone(&self.disk) as Arc<_>, templates().aside.handle().clone())
                .with_placing(self.placing(life)),
            network: Network::Simulated(Arc::new(outlet)),
            ports: Ports::Simulated(Arc::new(Inlet { net, host })),
        };
        let gateway = Gateway::start_on(ground, self.config.clone()).await;
        *running = Some(gateway.expect("a gateway starts on what it left"));
        *lock(&self.disk.tasks) = Some(tasks);
        self.net.trace.say(format_args!("{} starts, life {life}", self.host));
    }

    /// When this life puts events in their places: mostly a few of them, so that it does within a seed; in rows of
    /// one, of some, or of many.
    fn placing(&self, life: u64) -> Placing {
        let choice = self.seed.wrapping_add(life);
        Placing {
            crowd: 1 + choice as usize % 4,
            most: 1 << (choice % 8),
            row_bytes: [0, 400, 64 * 1024][choice as usize % 3],
        }
    }

    /// Kills the process.
    pub(crate) fn crash(&self) {
        self.disk.kill("as it stands");
    }

    /// Stops it in order, and starts it again.
    pub(crate) async fn restart(&self) {
        let mut running = self.running.lock().await;
        if lock(&self.disk.tasks).is_none() {
            return; // it is dead already
        }
        let Some(gateway) = running.take() else { return };
        self.net.trace.say(format_args!("{} stops in order", self.host));
        gateway.shutdown().await;
        if lock(&self.disk.tasks).take().is_some() {
            self.net.cut_off(&self.host);
            self.start(&mut running).await;
        }
    }

    /// How often it has started.
    pub(crate) fn life(&self) -> u64 {
        *lock(&self.lives)
    }

    /// Copies its log, whatever it is doing.
    pub(crate) fn copy_log(&self, target: &Path) {
        self.net.trace.say(format_args!("the log of {} is copied", self.host));
        causeway::store::backup(&self.config.gateway.data_dir, target).expect("a backup");
    }

    /// Kills the process, puts a copy of its log in the place of the log, and starts again on that.
    pub(crate) async fn restore_log(&self, copy: &Path) {
        let mut running = self.running.lock().await;
        self.disk.kill("to be restored");
        self.bury(&mut running).await;
        // What it held is let go of when nothing else is left to do at this moment.
        sleep(Duration::from_millis(1)).await;
        let data_dir = &self.config.gateway.data_dir;
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(data_dir.join(format!("causeway.db{suffix}")));
        }
        let entropy = Entropy::seeded(self.seed.wrapping_mul(37));
        causeway::store::restore(copy, data_dir, &entropy).expect("a restore");
        self.look_into_log();
        self.start(&mut running).await;
    }

    fn look_into_log(&self) {
        let path = self.config.gateway.data_dir.join("causeway.db");
        let database = rusqlite::Connection::open(path).expect("the database");
        lock(&self.net.databases).insert(self.host.clone(), database);
    }

    /// Ends it for good.
    pub(crate) async fn end(&self) {
        let tasks = lock(&self.disk.tasks).take();
        let gateway = self.running.lock().await.take();
        if let Some(tasks) = tasks {
            tasks.kill();
            tasks.stop().await;
        }
        drop(gateway);
    }

    /// S3: the chain of the audit has no break, whatever groups failed.
    pub(crate) fn check_audit(&self) {
        let database = self.config.gateway.data_dir.join("causeway.db");
        match causeway::store::verify_audit(&database, |_, _, _| true) {
            Ok(report) if report.finding.is_none() => {}
            other => self.net.breach(format!("S3: the audit of {}: {other:?}", self.host)),
        }
    }
}

fn entry(host: &str, kind: PeerKind) -> PeerOptions {
    let base = format!("http://{host}/").parse().expect("a base");
    let mut entry = PeerOptions::new(PeerId::parse(host).expect("an id"), base);
    entry.kind = kind;
    entry.tenants = vec!["*".to_owned()];
    entry
}

/// As shipped, but for waits that would only make a seed longer.
fn quick_config() -> Config {
    let mut config = Config::default();
    config.server.shutdown_timeout = Duration::from_secs(2);
    config.events.heartbeat = Duration::from_secs(3);
    config.events.retry = Duration::from_millis(500);
    // A hole that can be filled is never given up: a gap over an event that exists is a bug.
    config.events.gap_hold = Duration::from_secs(24 * 60 * 60);
    config.events.gap_hold_pushed = Duration::from_secs(24 * 60 * 60);
    config.forward.deadline = Duration::from_secs(6);
    config.forward.reconcile_backoff = Duration::from_secs(5);
    config.outbound.answer_timeout = Duration::from_secs(3);
    config.outbound.body_timeout = Duration::from_secs(3);
    config.reader.max_backoff = Duration::from_secs(4);
    config.reader.idle_timeout = Duration::from_secs(9);
    config.reader.max_status_interval = Duration::from_secs(4);
    config.retention.sweep_interval = Duration::from_secs(2);
    config
}

fn templates() -> &'static Templates {
    static MADE: OnceLock<Templates> = OnceLock::new();
    MADE.get_or_init(|| {
        let aside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let aside = aside.expect("a runtime");
        let directory = data_directory();
        let mut keys = Vec::new();
        for (index, letter) in LETTERS.iter().enumerate() {
            let path = directory.path().join(format!("stk_{letter}"));
            let seed = [index as u8 + 1; 32];
            let ring = Keyring::open(&path, None, &seed).expect("a keyring");
            keys.push(*ring.keys().present.public());
            migrate(&path, index as u64);
        }
        Templates { directory, keys, aside }
    })
}

/// Makes an empty database, once for all seeds.
fn migrate(path: &Path, seed: u64) {
    use causeway::metrics::Metrics;
    use causeway::services::hub::Hub;
    use causeway::store::Store;
    let path = path.to_owned();
    let opened = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let heard = (Arc::new(Hub::default()) as Arc<_>, Arc::new(Metrics::default()));
            let entropy = Entropy::seeded(seed);
            let store = Store::open(&path, Clock::manual(EPOCH_MS), &entropy, Tasks::default(), heard).await;
            store.expect("an empty store").close().await;
        });
        // All of it in the one file that is copied.
        let database = rusqlite::Connection::open(path.join("causeway.db")).expect("the database");
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    });
    opened.join().expect("the store opens");
}

/// In memory where the machine has a place for that: thousands of databases are made.
fn data_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            std::fs::create_dir_all(&target).expect("a directory");
            copy(&entry.path(), &target);
        } else if !entry.file_name().to_string_lossy().starts_with("causeway.db-") {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
