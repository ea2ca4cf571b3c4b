//! One gateway as a child process: the shipped binary, on a port, a data directory and a machine that outlive
//! it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use causeway::config::Config;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::machine::Machine;
use crate::support::address::steady_address;

/// The shipped binary.
const BINARY: &str = env!("CARGO_BIN_EXE_causeway");
/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// File descriptors of a gateway that is not starved of them.
const DESCRIPTORS: u64 = 4096;

/// A gateway that may be alive.
pub(crate) struct Process {
    /// Its name in the history.
    pub(crate) name: String,
    /// Where clients find it, for ever.
    pub(crate) address: SocketAddr,
    /// Its disk and clock.
    pub(crate) machine: Machine,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    starts: usize,
    journals: bool,
}

impl Process {
    /// A gateway that keeps everything below `directory`; it is not started yet.
    pub(crate) fn new(name: &str, directory: &Path, mut config: Config) -> Self {
        let directory = directory.join(name);
        let data = directory.join("data");
        std::fs::create_dir_all(&data).expect("a directory");
        // The machine knows files by the paths the kernel gives.
        let data = data.canonicalize().expect("a path");
        if config.server.listen.port() == 0 {
            config.server.listen = steady_address();
        }
        config.gateway.data_dir = data.clone();
        config.gateway.forward_index_file = Some(directory.join("forward-index.json"));
        let text = toml::to_string(&config).expect("a configuration");
        std::fs::write(directory.join("causeway.toml"), text).expect("a configuration file");
        let machine = Machine::new(&directory.join("control"), &data);
        Process {
            name: name.to_owned(),
            address: config.server.listen,
            machine,
            directory,
            environment: Vec::new(),
            child: None,
            starts: 0,
            journals: false,
        }
    }

    /// Every kill is a power cut from the next start on: nothing is on disk that was not synced.
    pub(crate) fn journal_writes(&mut self) {
        self.journals = true;
    }

    /// Sets a variable for the next start; an empty one is taken away.
    #[cfg(feature = "faults")]
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.environment.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Where its database is.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data").canonicalize().expect("a path")
    }

    /// What was written by the last start.
    pub(crate) fn journal(&self) -> PathBuf {
        self.directory.join(format!("journal-{}", self.starts))
    }

    /// Starts it, without waiting.
    pub(crate) fn spawn(&mut self) {
        self.starts += 1;
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--config").arg(self.directory.join("causeway.toml"));
        command.env_clear().envs(self.machine.environment());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.journals {
            command.env("CHAOS_JOURNAL", self.journal());
        }
        command.stdout(Stdio::null()).stderr(Stdio::from(log)).kill_on_drop(true);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// Starts it and waits until it takes work; false when it ended instead.
    pub(crate) async fn start(&mut self) -> bool {
        self.spawn();
        self.until_ready().await
    }

    /// Waits until it takes work; false when it ended instead.
    pub(crate) async fn until_ready(&mut self) -> bool {
        let client = client();
        let url = format!("http://{}/readyz", self.address);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return true;
            }
            if self.ended().is_some() {
                return false;
            }
            let waited = tokio::time::Instant::now() < deadline;
            assert!(waited, "{} never became ready; its log ends:\n{}", self.name, self.log_end());
            tokio::time::sleep(Duration::from_millis(10)).await; // why: another process starts
        }
    }

    /// How it ended, if it did by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("a child"))
    }

    /// Waits for it to end by itself.
    pub(crate) async fn until_ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it was started");
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} goes on\n{}", self.name, self.log_end())).expect("a child")
    }

    /// Ends it without a word.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("SIGKILL");
        }
    }

    /// Asks it to stop, and waits until it did.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.until_ended().await;
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.log_end());
    }

    /// Ends it without a word and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.start_for_sure().await;
    }

    /// Starts it; not to come up is a failure.
    pub(crate) async fn start_for_sure(&mut self) {
        assert!(self.start().await, "{} does not start; its log ends:\n{}", self.name, self.log_end());
    }

    /// Starts it again if it ended by itself, as a supervisor does; answers whether it had.
    pub(crate) async fn revive(&mut self) -> bool {
        let ended = self.child.is_none() || self.ended().is_some();
        if ended {
            self.start_for_sure().await;
        }
        ended
    }

    /// Sends a signal, if it lives.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may have ended by itself in between.
            let _ = kill_process(pid, signal);
        }
    }

    /// Leaves it this many descriptors; `None` gives it plenty.
    pub(crate) fn limit_descriptors(&self, most: Option<u64>) {
        let limit = Rlimit { current: Some(most.unwrap_or(DESCRIPTORS)), maximum: Some(DESCRIPTORS) };
        if let Some(pid) = self.pid() {
            let _ = prlimit(Some(pid), Resource::Nofile, limit);
        }
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let list = self.pid().and_then(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok());
        list.map_or(0, Iterator::count)
    }

    /// Its resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let text = self.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    /// Runs another command of the binary on its data directory.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--data-dir").arg(self.data()).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.output().await.expect("the binary starts")
    }

    /// Takes the database away, so that a backup can take its place.
    pub(crate) fn remove_database(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let name = format!("{}{suffix}", causeway::store::DATABASE_FILE);
            let removed = std::fs::remove_file(self.data().join(name));
            assert!(removed.is_ok() || !suffix.is_empty(), "{removed:?}");
        }
    }

    /// A file beside its data directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The end of what it logged.
    pub(crate) fn log_end(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.as_ref()?.id()?.try_into().ok()?)
    }
}

/// A client of gateways, impatient enough for faults.
pub(crate) fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2));
    builder.timeout(Duration::from_secs(10)).build().expect("a client")
}

/// A body as JSON; `Null` when the gateway died while sending it.
pub(crate) async fn json_of(answer: reqwest::Response) -> Value {
    let text = answer.text().await.unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
