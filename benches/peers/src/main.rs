//! Measures Causeway and other servers in turn, on one machine and in one run. The script `run` beside it installs
//! the others, builds both programs and calls this one.
//!
//! Every server gets the same time, the same cores and the same disk; none is pinned. What comes out of it is held
//! against what went in, for the others as for Causeway: an event that is lost, repeated or changed is a failure,
//! not a figure. The order in which servers are measured turns round from round to round.

mod causeway;
mod event;
mod fanout;
mod ingest;
mod machine;
mod peers;
mod process;
mod relay;
mod replay;
mod report;
mod window;
mod wire;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;

use crate::peers::Peer;
use crate::report::{Row, Table};
use crate::window::{Sample, Times};
use crate::workloads::Workload;

/// What stands before and after the tables in a page.
const MARKS: [&str; 2] = ["<!-- figures: begin -->", "<!-- figures: end -->"];

/// Longest time of a run, unless its first round alone takes longer.
const LONGEST: Duration = Duration::from_secs(25 * 60);

/// Longest time for which the disk alone is measured.
const DISK: Duration = Duration::from_secs(2);

/// Measures Causeway beside other servers
#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Options {
    /// Release binary of Causeway
    #[arg(long)]
    causeway: PathBuf,
    /// Where table.md and result.json go
    #[arg(long)]
    out: PathBuf,
    /// Where servers keep their data while they are measured; on the disk you mean to measure
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Markdown page that gets the tables too, between its two marks
    #[arg(long)]
    page: Option<PathBuf>,
    /// One short round with fewer stored events and followers: does it work? (under three minutes)
    #[arg(long)]
    quick: bool,
    /// Rounds; left out: 3, or 1 with --quick
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds of each measurement; left out: 4, or 1 with --quick
    #[arg(long)]
    seconds: Option<f64>,
    /// Only this workload (ingest, fanout, replay, proxy, forward, idle); again for more
    #[arg(long)]
    only: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let directory = tempfile::Builder::new().prefix("causeway-peers-").tempdir_in(&options.dir)?;
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    // Servers end with what is dropped here, and the directory after them.
    tokio::select! {
        done = run(&options, directory.path()) => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminated.recv() => anyhow::bail!("terminated"),
    }
}

async fn run(options: &Options, directory: &Path) -> Result<()> {
    let page = options.page.as_deref().map(around_marks).transpose()?;
    let (started, load) = (Instant::now(), machine::load()?);
    let tables = measure(options, &options.workloads()?, directory).await?;
    let rounds = tables.first().and_then(|disk| disk.rows.first()).map_or(0, |row| row.samples.len());
    let commit = machine::said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"]);
    let version = machine::said(&options.causeway.display().to_string(), &["--version"]);
    let mut versions = vec![format!("{version} (sources at {commit})")];
    let peers = [Peer::Bare, Peer::Postgres, Peer::Nats, Peer::Redis, Peer::Nginx, Peer::Haproxy];
    versions.extend(peers.iter().filter(|peer| peer.is_there()).map(|peer| peer.version()));
    let (date, machine, command) = (machine::date(), machine::describe(directory)?, options.command());
    let (seconds, minutes) = (options.seconds(), started.elapsed().as_secs_f64() / 60.0);
    let about = format!(
        "Measured {date} by `{command}` on {machine}.\n\nVersions: {}. Rounds: {rounds}, windows of {seconds} s, \
         {minutes:.0} min in all. Load of the machine before it began: {load:.1}; of an idle one it is near 0. \
         Median (least–most).\n",
        versions.join("; ")
    );
    let text: Vec<String> = tables.iter().map(Table::markdown).collect();
    let text = format!("{about}\n{}", text.join("\n"));
    let result = json!({
        "causeway_peers": 1, "date": date, "machine": machine, "versions": versions, "rounds": rounds,
        "seconds": seconds, "load_before": load, "command": command,
        "tables": tables.iter().map(Table::json).collect::<Vec<_>>(),
    });
    fs::create_dir_all(&options.out)?;
    fs::write(options.out.join("table.md"), &text).context("table.md")?;
    fs::write(options.out.join("result.json"), serde_json::to_string_pretty(&result)? + "\n")
        .context("result.json")?;
    if let Some((page, [before, after])) = options.page.as_ref().zip(page) {
        fs::write(page, format!("{before}{}\n{text}{}{after}", MARKS[0], MARKS[1])).context("the page")?;
    }
    eprintln!("peers: {} and result.json", options.out.join("table.md").display());
    Ok(())
}

/// Measures everybody in turn, and the disk before each round.
async fn measure(options: &Options, workloads: &[Workload], directory: &Path) -> Result<Vec<Table>> {
    let (started, rounds, times) = (Instant::now(), options.rounds(), options.times());
    let mut disk = row("this disk", "4 KiB appended, then fdatasync, one after the other");
    let mut tables: Vec<Table> = workloads.iter().map(|workload| table(workload, times)).collect();
    for round in 0..rounds {
        // The next round takes as long as the last ones did.
        if round > 0 && started.elapsed() / round * (round + 1) > LONGEST {
            eprintln!("peers: there is no time for more than {round} rounds of {rounds}");
            break;
        }
        disk.samples.push(Some(machine::disk(directory, times.duration.min(DISK))?));
        for (workload, table) in workloads.iter().zip(&mut tables) {
            let mut order: Vec<usize> = (0..table.rows.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let row = &mut table.rows[at];
                let (seconds, now) = (started.elapsed().as_secs(), round + 1);
                eprintln!(
                    "peers: {seconds:4} s, round {now} of {rounds}: {}: {}",
                    workload.title, row.server
                );
                // What the one before has left to be written would be this one's stalls.
                machine::settle();
                let measured = match at.checked_sub(1) {
                    None => workload.causeway(&options.causeway, directory, times).await,
                    Some(peer) => workload.peer(workload.peers[peer].0, directory, times).await,
                };
                note(row, measured);
            }
        }
    }
    let (title, command) = ("The disk".to_owned(), "fdatasync".to_owned());
    let disk = Table { title, throughput: "syncs/s", latency: "sync", memory: "", command, rows: vec![disk] };
    tables.insert(0, disk);
    Ok(tables)
}

impl Options {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 1.0 } else { 4.0 })
    }

    fn times(&self) -> Times {
        let seconds = self.seconds();
        let warmup = Duration::from_secs_f64((seconds / 4.0).min(1.0));
        Times { warmup, duration: Duration::from_secs_f64(seconds) }
    }

    /// What was chosen, with those who are here.
    fn workloads(&self) -> Result<Vec<Workload>> {
        let chosen =
            |workload: &Workload| self.only.is_empty() || self.only.iter().any(|name| name == workload.name);
        let mut workloads: Vec<Workload> = workloads::all(self.quick).into_iter().filter(chosen).collect();
        anyhow::ensure!(!workloads.is_empty(), "there is no such workload");
        for workload in &mut workloads {
            workload.peers.retain(|(peer, name, _)| {
                let there = peer.is_there();
                if !there {
                    eprintln!("peers: {name} is not installed, and left out");
                }
                there
            });
        }
        Ok(workloads)
    }

    /// How to measure the same again.
    fn command(&self) -> String {
        let mut command = "benches/peers/run".to_owned();
        let mut say = |word: String| command.extend([" ", &word]);
        if self.quick {
            say("--quick".to_owned());
        }
        self.rounds.into_iter().for_each(|rounds| say(format!("--rounds {rounds}")));
        self.seconds.into_iter().for_each(|seconds| say(format!("--seconds {seconds}")));
        self.only.iter().for_each(|name| say(format!("--only {name}")));
        command
    }
}

/// What a page has around its tables.
fn around_marks(page: &Path) -> Result<[String; 2]> {
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let (before, rest) = text.split_once(MARKS[0]).context("the page has no first mark")?;
    let (_, after) = rest.split_once(MARKS[1]).context("the page has no second mark")?;
    Ok([before.to_owned(), after.to_owned()])
}

fn row(server: &str, promise: &'static str) -> Row {
    Row { server: server.to_owned(), promise, samples: Vec::new(), failure: None }
}

fn table(workload: &Workload, times: Times) -> Table {
    let mut rows = vec![row("**Causeway**", workload.promise)];
    rows.extend(workload.peers.iter().map(|(_, name, promise)| row(name, promise)));
    let (title, command) = (workload.title.clone(), workload.command(times));
    let Workload { throughput, latency, memory, .. } = *workload;
    Table { title, throughput, latency, memory, command, rows }
}

/// A failure is told and kept, and ends nothing else.
fn note(row: &mut Row, measured: Result<Sample>) {
    match measured {
        Ok(sample) => row.samples.push(Some(sample)),
        Err(error) => {
            eprintln!("peers: {}: {error:#}", row.server);
            row.failure = Some(format!("{error:#}"));
            row.samples.push(None);
        }
    }
}
