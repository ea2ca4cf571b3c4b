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
    /// One short round with fewer stored events and followers: does it work? (under three minutes)
    #[arg(long)]
    quick: bool,
    /// Rounds; left out: 3, or 1 with --quick
    #[arg(long)]
    rounds: Option<usize>,
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
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 3 });
    let seconds = options.seconds.unwrap_or(if options.quick { 1.0 } else { 4.0 });
    let times = Times {
        warmup: Duration::from_secs_f64((seconds / 4.0).min(1.0)),
        duration: Duration::from_secs_f64(seconds),
    };
    let chosen = |workload: &Workload| {
        options.only.is_empty() || options.only.iter().any(|name| name == workload.name)
    };
    let workloads: Vec<Workload> = workloads::all(options.quick).into_iter().filter(chosen).collect();
    anyhow::ensure!(!workloads.is_empty(), "there is no such workload");
    let (started, load) = (Instant::now(), machine::load()?);
    let mut disk = row("this disk", "4 KiB appended, then fdatasync, one after the other");
    let mut tables: Vec<Table> = workloads.iter().map(|workload| table(workload, times)).collect();
    for round in 0..rounds {
        disk.samples.push(Some(machine::disk(directory, times.duration.min(Duration::from_secs(2)))?));
        for (workload, table) in workloads.iter().zip(&mut tables) {
            let mut order: Vec<usize> = (0..table.rows.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                eprintln!(
                    "peers: {:4.0} s, round {} of {rounds}: {}: {}",
                    started.elapsed().as_secs_f64(),
                    round + 1,
                    workload.title,
                    table.rows[at].server
                );
                let measured = match at.checked_sub(1) {
                    None => workload.causeway(&options.causeway, directory, times).await,
                    Some(peer) => workload.peer(workload.peers[peer].0, directory, times).await,
                };
                note(&mut table.rows[at], measured);
            }
        }
    }
    let disk = Table {
        title: "The disk".to_owned(),
        throughput: "syncs/s",
        latency: "sync",
        memory: "",
        command: "fdatasync".to_owned(),
        rows: vec![disk],
    };
    let commit = machine::said("git", &["rev-parse", "--short", "HEAD"]);
    let binary = options.causeway.display().to_string();
    let mut versions = vec![format!("{} ({commit})", machine::said(&binary, &["--version"]))];
    let used =
        |peer: &Peer| workloads.iter().any(|workload| workload.peers.iter().any(|(used, ..)| used == peer));
    let peers = [Peer::Postgres, Peer::Nats, Peer::Redis, Peer::Nginx, Peer::Haproxy];
    versions.extend(
        peers
            .iter()
            .filter(|peer| peer.is_there() && (used(peer) || **peer == Peer::Nginx))
            .map(|peer| peer.version()),
    );
    let (date, machine) = (machine::date(), machine::describe(directory)?);
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let about = format!(
        "Measured {date} on {machine}.\n\nVersions: {}. Rounds: {rounds}, windows of {seconds} s, {minutes:.0} min in \
         all; load of the machine {load:.1} before it began. Median (least–most).\n",
        versions.join("; ")
    );
    tables.insert(0, disk);
    let text: Vec<String> = tables.iter().map(Table::markdown).collect();
    let text = format!("{about}\n{}", text.join("\n"));
    let result = json!({
        "causeway_peers": 1, "date": date, "machine": machine, "versions": versions, "rounds": rounds,
        "seconds": seconds, "load_before": load, "arguments": arguments,
        "tables": tables.iter().map(Table::json).collect::<Vec<_>>(),
    });
    fs::create_dir_all(&options.out)?;
    fs::write(options.out.join("table.md"), &text).context("table.md")?;
    fs::write(options.out.join("result.json"), serde_json::to_string_pretty(&result)? + "\n")
        .context("result.json")?;
    eprintln!("peers: {} and result.json", options.out.join("table.md").display());
    Ok(())
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
