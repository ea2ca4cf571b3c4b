//! What is measured: a gateway that runs somewhere, or one (or two) started for the purpose.
//!
//! A started gateway is this very binary in processes of its own, so that what it uses can be told from what the
//! measuring uses. Its directory goes with it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use url::Url;

use super::process::Usage;
use super::wire::Endpoint;
use super::{BenchError, Common};
use crate::demo::TemporaryDirectory;

/// How long a gateway may take to start.
const START: Duration = Duration::from_secs(30);
/// Time between looks at its log.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What its log says once it takes work.
const READY: &str = "ready on ";
/// Appends with which the disk is measured.
const DISK_PROBES: u32 = 200;
/// Lines of the log that are shown when it does not start.
const LAST_LINES: usize = 5;

/// What is measured.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    /// What runs are forwarded to.
    pub(super) peer: String,
    /// Synced appends of 4 KiB per second on the same disk, just before.
    pub(super) disk_syncs: Option<f64>,
    processes: Vec<u32>,
    /// Gateways that are ours.
    children: Vec<Spawned>,
    _directory: Option<TemporaryDirectory>,
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub enum Target {
    /// Gateways that are started for it.
    Spawn {
        /// Directory in which a temporary one is made; none: the system's.
        directory: Option<PathBuf>,
        /// Gateways in a row.
        hops: usize,
    },
    /// A gateway that runs already.
    Running {
        /// Its base URL.
        url: Url,
        /// The credential it is shown.
        token: Option<String>,
        /// The peer it forwards to.
        peer: String,
        /// Where that peer is, when it is to be ours.
        origin: Option<SocketAddr>,
        /// Its processes, to tell what they use.
        processes: Vec<u32>,
    },
}

/// Bounds that a started gateway must not stop at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    /// Connections and streams.
    pub(super) connections: usize,
    /// Forwards in flight.
    pub(super) forwards: usize,
}

#[derive(Debug)]
struct Spawned {
    process: Child,
    url: Url,
}

impl Server {
    /// Finds or starts it; behind it, runs are executed at `origin`.
    pub(super) async fn open(
        target: &Target,
        common: &Common,
        origin: Option<SocketAddr>,
        bounds: Bounds,
    ) -> Result<Self, BenchError> {
        match target {
            Target::Spawn { directory, hops } => {
                Self::spawn((directory.as_deref(), *hops), common, origin, bounds).await
            }
            Target::Running { url, token, peer, processes, .. } => {
                let endpoint = Endpoint::resolve(url, &common.tenant, token.as_deref()).await?;
                let (peer, processes) = (peer.clone(), processes.clone());
                let (children, directory) = (Vec::new(), None);
                Ok(Server { endpoint, peer, disk_syncs: None, processes, children, _directory: directory })
            }
        }
    }

    /// Starts gateways, the last one first.
    async fn spawn(
        (directory, hops): (Option<&Path>, usize),
        common: &Common,
        origin: Option<SocketAddr>,
        bounds: Bounds,
    ) -> Result<Self, BenchError> {
        let parent = directory.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let directory = TemporaryDirectory::new(&parent, "causeway-bench").map_err(|error| {
            BenchError::Setup(format!("no directory can be made in {}: {error}", parent.display()))
        })?;
        let disk_syncs = disk_syncs(directory.path()).ok();
        let mut beyond = origin.map(|origin| (format!("http://{origin}"), "orchestrator"));
        let mut children: Vec<Spawned> = Vec::new();
        for hop in (1..=hops.max(1)).rev() {
            let path = directory.path().join(format!("gateway-{hop}"));
            let config = config(hop, beyond.as_ref(), common, bounds);
            let child = Spawned::start(&path, &config).await?;
            beyond = Some((child.url.to_string(), "gateway"));
            children.push(child);
        }
        let nearest = &children[children.len() - 1];
        let endpoint = Endpoint::resolve(&nearest.url, &common.tenant, None).await?;
        let processes = children.iter().map(|child| child.process.id()).collect();
        let peer = peer_id(1);
        Ok(Server { endpoint, peer, disk_syncs, processes, children, _directory: Some(directory) })
    }

    /// What its processes have used so far, when they are known.
    pub(super) fn usage(&self) -> Option<Usage> {
        Usage::of(&self.processes)
    }

    /// How many gateways were started.
    pub(super) fn spawned(&self) -> usize {
        self.children.len()
    }
}

fn peer_id(hop: usize) -> String {
    format!("stk_beyond_{hop}")
}

fn config(
    hop: usize,
    beyond: Option<&(String, &str)>,
    common: &Common,
    Bounds { connections, forwards }: Bounds,
) -> String {
    // Room for those that connect beside them.
    let connections = connections.max(4000) + 96;
    let forwards = forwards.max(64);
    let peer = beyond.map_or_else(String::new, |(url, kind)| {
        format!(
            "\n[[peers]]\npeer_id = \"{}\"\nbase_url = \"{url}\"\nkind = \"{kind}\"\nlocal = true\n",
            peer_id(hop)
        )
    });
    format!(
        "[gateway]\nstack_id = \"stk_bench_{hop}\"\ndefault_tenant = \"{}\"\n\n[server]\nmax_connections = \
         {connections}\nmax_streams = {connections}\nmax_streams_per_principal = {connections}\n\n[forward]\nin_flight_per_peer = {forwards}\n\
         waiting_per_peer = {forwards}\n{peer}",
        common.tenant
    )
}

impl Spawned {
    async fn start(path: &Path, config: &str) -> Result<Self, BenchError> {
        let failed = |error: io::Error| BenchError::Setup(format!("a gateway cannot be started: {error}"));
        fs::create_dir(path).map_err(failed)?;
        let (file, log) = (path.join("causeway.toml"), path.join("log"));
        fs::write(&file, config).map_err(failed)?;
        let errors = File::create(&log).map_err(failed)?;
        let binary = std::env::current_exe().map_err(failed)?;
        let process = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--config"])
            .arg(&file)
            .current_dir(path)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        let url = Url::parse("http://127.0.0.1").expect("a URL");
        let mut spawned = Spawned { process, url };
        let asked = Instant::now();
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if let Some(url) = ready_url(&said) {
                spawned.url = url;
                return Ok(spawned);
            }
            let ended = spawned.process.try_wait().ok().flatten();
            if ended.is_some() || asked.elapsed() > START {
                let lines: Vec<&str> = said.lines().collect();
                let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
                return Err(BenchError::Setup(format!("a gateway does not start:\n{last}")));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // What it holds is thrown away: there is nothing to drain for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ready_url(log: &str) -> Option<Url> {
    let (_, rest) = log.split_once(READY)?;
    let end = rest.find(['"', '\n', ' '])?;
    Url::parse(&rest[..end]).ok()
}

/// How often per second 4 KiB can be appended to a file and synced: what no durable answer can beat one at a time.
fn disk_syncs(directory: &Path) -> io::Result<f64> {
    let path = directory.join("disk-probe");
    let (mut file, block) = (File::create(&path)?, [0x5a; 4096]);
    let start = Instant::now();
    for _ in 0..DISK_PROBES {
        file.write_all(&block)?;
        file.sync_data()?;
    }
    let took = start.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(f64::from(DISK_PROBES) / took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_says_where_it_is_in_text_and_in_json() {
        let url = Url::parse("http://127.0.0.1:4711").expect("a URL");
        assert_eq!(ready_url("x ready on http://127.0.0.1:4711\n"), Some(url.clone()));
        assert_eq!(ready_url("{\"message\":\"ready on http://127.0.0.1:4711\",\"v\":1}\n"), Some(url));
        assert_eq!(ready_url("ready on http://127"), None, "half a line");
    }
}
