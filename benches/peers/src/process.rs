//! Servers as processes: started, waited for, looked at in `/proc`, and ended with all they started.

use std::collections::HashMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use procfs::process::{Process, all_processes};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(20);
/// How long a server may take to end.
const END: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    end: Signal,
}

/// A port of this machine that nobody listens at.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A command whose process ends with this one, and by this signal.
pub fn command(program: &str, end: Signal, as_user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig").arg(if end == Signal::INT { "INT" } else { "TERM" });
    if let Some(user) = as_user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// True when a program of this name can be called.
pub fn is_installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|path| path.join(program).is_file()) || Path::new(program).is_file()
}

impl Server {
    /// Starts a server that will listen at the address; what it says goes to a file in the directory.
    pub async fn start(
        mut command: Command,
        address: SocketAddr,
        directory: &Path,
        end: Signal,
    ) -> Result<Self> {
        let log: PathBuf = directory.join("log");
        let said = File::create(&log)?;
        command.current_dir(directory).stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut server = Server { address, child, end };
        let asked = Instant::now();
        while TcpStream::connect(address).is_err() {
            if server.child.try_wait()?.is_some() || asked.elapsed() > START {
                bail!("{command:?} does not start: {}", std::fs::read_to_string(&log)?.trim_end());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(server)
    }

    /// Seconds of processor time its processes used so far, in user and kernel mode.
    pub fn cpu(&self) -> Result<f64> {
        // One that has ended meanwhile is counted by its parent.
        let stats = self.processes()?.into_iter().filter_map(|process| process.stat().ok());
        let waited_for = |ticks: i64| u64::try_from(ticks).unwrap_or(0);
        let ticks: u64 =
            stats.map(|of| of.utime + of.stime + waited_for(of.cutime) + waited_for(of.cstime)).sum();
        ensure!(ticks > 0 || self.is_running(), "the server has ended");
        Ok(ticks as f64 / procfs::ticks_per_second() as f64)
    }

    /// Bytes of resident memory of its processes; what they share counts once.
    pub fn memory(&self) -> Result<f64> {
        let rollups = self.processes()?.into_iter().filter_map(|process| process.smaps_rollup().ok());
        let maps = rollups.flat_map(|rollup| rollup.memory_map_rollup);
        let bytes: u64 = maps.filter_map(|map| map.extension.map.get("Pss").copied()).sum();
        ensure!(bytes > 0, "the server has ended");
        Ok(bytes as f64)
    }

    fn is_running(&self) -> bool {
        Process::new(self.child.id() as i32).is_ok_and(|process| process.is_alive())
    }

    /// Its processes: the one that was started and all that come from it.
    fn processes(&self) -> Result<Vec<Process>> {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for process in all_processes()?.flatten() {
            if let Ok(stat) = process.stat() {
                children.entry(stat.ppid).or_default().push(stat.pid);
            }
        }
        let mut family = vec![self.child.id() as i32];
        let mut at = 0;
        while let Some(parent) = family.get(at) {
            family.extend(children.remove(parent).unwrap_or_default());
            at += 1;
        }
        Ok(family.into_iter().filter_map(|pid| Process::new(pid).ok()).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(pid) = Pid::from_raw(self.child.id() as i32) else { return };
        let asked = Instant::now();
        // It may have ended by itself; then there is nobody to tell.
        let _ = kill_process(pid, self.end);
        while asked.elapsed() < END {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
