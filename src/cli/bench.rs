//! `causeway bench`: measure a gateway, and find it faithful or fail.

use std::fs;
use std::io::{self, IsTerminal, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::exit::{Exit, Failure, Outcome};
use super::logging;
use super::output::{Output, Tone};
use super::signals::Signals;
use crate::bench::{
    self, BenchError, Better, Common, FanoutPlan, ForwardPlan, IdlePlan, Ids, IngestPlan, Progress,
    ProxyPlan, ReplayPlan, Report, Target, Workload,
};
use crate::clock::{Clock, rfc3339};
use crate::domain::base_url;
use crate::domain::id::{PeerId, TenantId};

/// What `causeway bench` takes.
#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    workload: WorkloadArgs,
}

/// What is measured.
#[derive(Debug, clap::Subcommand)]
enum WorkloadArgs {
    /// Events pushed by writers, each acknowledged after it is durable
    Ingest {
        /// Writers, each with a connection and a run
        #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        writers: u32,
        /// Events in one request
        #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=500))]
        batch: u32,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Events of one run, delivered to many subscribers
    Fanout {
        /// Subscribers, each with a connection
        #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=50_000))]
        subscribers: u32,
        /// Events of one publish
        #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(1..=500))]
        batch: u32,
        /// Publishes that may be on their way to subscribers; not with --rate
        #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(0..=1000))]
        window: u32,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Stored events of a long run, read from its beginning
    Replay {
        /// Events in the run
        #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        events: u64,
        /// Readers at the same time
        #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        readers: u32,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Events of an origin, through the gateway to a subscriber; --rate counts events of one stream
    Proxy {
        /// Runs that are read at the same time
        #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=200))]
        streams: u32,
        #[command(flatten)]
        beyond: BeyondArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Runs created at a peer, once for each key
    Forward {
        /// Forwards in flight
        #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        in_flight: u32,
        /// Events of each run; 0: it goes on and says nothing, so that forwards alone are measured
        #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u64).range(0..=100_000))]
        events: u64,
        /// Follow each run to its end before the next one is created
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        beyond: BeyondArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Subscribers of a run that stands still
    Idle {
        /// Subscribers, each with a connection
        #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..=50_000))]
        subscribers: u32,
        #[command(flatten)]
        common: CommonArgs,
    },
}

/// Where runs are executed.
#[derive(Debug, Clone, Default, clap::Args)]
struct BeyondArgs {
    /// Gateways in a row that are started: 2 has one forward to the other
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "url", value_parser = clap::value_parser!(u8).range(1..=4))]
    hops: u8,
    /// The peer that the gateway at --url forwards to
    #[arg(long, value_name = "PEER_ID", requires = "url", value_parser = PeerId::parse)]
    to: Option<PeerId>,
    /// Address at which the gateway finds that peer: it is served from here, so that runs can be counted
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    origin: Option<SocketAddr>,
}

/// What every workload takes.
#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// The gateway to measure. Left out: one is started for it
    #[arg(long, value_name = "URL", value_parser = base_url::parse)]
    url: Option<Url>,
    /// Start a gateway (this program, profile dev) in a temporary directory, and measure that
    #[arg(long, conflicts_with = "url")]
    spawn: bool,
    /// Where that directory is made; it should be on the disk you mean to use. Left out: the system's
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    dir: Option<PathBuf>,
    /// Tenant of everything that is sent; with a token it is the token's
    #[arg(long, value_name = "TENANT", default_value = "tnt_bench", value_parser = TenantId::parse)]
    tenant: TenantId,
    /// File with an API token for the gateway
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// Process of the gateway, to tell what it uses; again for each of its processes
    #[arg(long, value_name = "PID", requires = "url")]
    pid: Vec<u32>,
    /// Requests to measure. Left out: as many as fit into the duration
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Longest time to measure
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// Time before measuring begins; none with --count
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Requests per second, on a schedule that waits for no answer: latency counts from when a request was due.
    /// Left out: the next one when the last one is answered
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Event ids in the order of time, or anywhere
    #[arg(long, value_enum, default_value = "ordered")]
    ids: IdsArg,
    /// Bytes of filling in each event
    #[arg(long, value_name = "BYTES", default_value = "200", value_parser = clap::value_parser!(u32).range(0..=500_000))]
    payload: u32,
    /// Print one JSON object, with stable names
    #[arg(long)]
    json: bool,
    /// Result of an earlier run (--json) to compare with
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum IdsArg {
    /// As UUID version 7 and ULID are
    Ordered,
    /// As UUID version 4 is
    Random,
}

/// Measures once. A gateway that loses, repeats, reorders or changes an event is exit code 1, and no result.
pub(super) async fn run(args: BenchArgs) -> Outcome {
    logging::install_quiet()?;
    let mut signals = Signals::listen_in_terminal()?;
    tokio::select! {
        outcome = measure(args.workload) => outcome,
        signal = signals.next() => Err(Failure::failed(format!("stopped by {signal}: there is no result"))),
    }
}

async fn measure(args: WorkloadArgs) -> Outcome {
    let (workload, beyond, args) = args.taken_apart();
    let before = args.compare.as_deref().map(|file| earlier(file, workload.name())).transpose()?;
    let common = args.common();
    let target = args.target(&workload, beyond)?;
    let measured = bench::run(&workload, &common, &target, progress()).await;
    wipe();
    let report = measured.map_err(failure)?;
    let output = Output::stdout();
    if args.json {
        output.json(report.to_json(&rfc3339(Clock::system().now_ms())).to_string().as_bytes())?;
    } else {
        show(output, &report, before.as_ref())?;
    }
    Ok(Exit::Done)
}

impl WorkloadArgs {
    fn taken_apart(self) -> (Workload, BeyondArgs, CommonArgs) {
        let none = BeyondArgs::default();
        match self {
            WorkloadArgs::Ingest { writers, batch, common } => {
                let plan = IngestPlan { writers: writers as usize, batch: batch as usize };
                (Workload::Ingest(plan), none, common)
            }
            WorkloadArgs::Fanout { subscribers, batch, window, common } => {
                let (subscribers, batch, window) = (subscribers as usize, batch as usize, window as usize);
                (Workload::Fanout(FanoutPlan { subscribers, batch, window }), none, common)
            }
            WorkloadArgs::Replay { events, readers, common } => {
                (Workload::Replay(ReplayPlan { events, readers: readers as usize }), none, common)
            }
            WorkloadArgs::Proxy { streams, beyond, common } => {
                (Workload::Proxy(ProxyPlan { streams: streams as usize }), beyond, common)
            }
            WorkloadArgs::Forward { in_flight, events, follow, beyond, common } => {
                let plan = ForwardPlan { in_flight: in_flight as usize, events, follow };
                (Workload::Forward(plan), beyond, common)
            }
            WorkloadArgs::Idle { subscribers, common } => {
                (Workload::Idle(IdlePlan { subscribers: subscribers as usize }), none, common)
            }
        }
    }
}

impl CommonArgs {
    fn common(&self) -> Common {
        Common {
            tenant: self.tenant.to_string(),
            count: self.count,
            duration: self.duration,
            warmup: self.warmup,
            rate: self.rate,
            ids: match self.ids {
                IdsArg::Ordered => Ids::Ordered,
                IdsArg::Random => Ids::Random,
            },
            payload: self.payload as usize,
        }
    }

    fn target(&self, workload: &Workload, beyond: BeyondArgs) -> Result<Target, Failure> {
        let Some(url) = self.url.clone() else {
            return Ok(Target::Spawn { directory: self.dir.clone(), hops: usize::from(beyond.hops) });
        };
        let needs_peer = matches!(workload, Workload::Proxy(_) | Workload::Forward(_));
        if needs_peer && beyond.to.is_none() {
            return Err(Failure::usage("with --url, name the peer to forward to with --to"));
        }
        Ok(Target::Running {
            url,
            token: self.token_file.as_deref().map(read_token).transpose()?,
            peer: beyond.to.map(|peer| peer.to_string()).unwrap_or_default(),
            origin: beyond.origin,
            processes: self.pid.clone(),
        })
    }
}

fn read_token(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("--token-file: {}: {error}", file.display())))?;
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(Failure::usage(format!("--token-file: {} does not hold a token", file.display()))),
    }
}

/// The metrics of an earlier result.
fn earlier(file: &Path, workload: &str) -> Result<Value, Failure> {
    let name = file.display();
    let text = fs::read(file).map_err(|error| Failure::usage(format!("--compare: {name}: {error}")))?;
    let result: Value = serde_json::from_slice(&text).unwrap_or_default();
    if result["workload"] != workload || !result["metrics"].is_object() {
        let told = format!("--compare: {name} is no result of `causeway bench {workload} --json`");
        return Err(Failure::usage(told));
    }
    Ok(result)
}

fn show(output: Output, report: &Report, before: Option<&Value>) -> Result<(), Failure> {
    let style = output.style;
    output.line(style.paint(Tone::Strong, format_args!("causeway bench {}", report.workload)))?;
    for (name, value) in &report.parameters {
        if !value.is_null() {
            output.line(style.paint(Tone::Faint, format_args!("  {} {value}", name.replace('_', " "))))?;
        }
    }
    if cfg!(debug_assertions) {
        output.line(style.paint(Tone::Odd, "  built without optimisation: these figures mean nothing"))?;
    }
    let rows = report.rows();
    let widest = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for ((name, value), metric) in rows.iter().zip(&report.metrics) {
        let ratio = before
            .and_then(|before| before["metrics"][&metric.name].as_f64())
            .filter(|earlier| *earlier != 0.0)
            .map(|earlier| metric.value / earlier);
        let compared = ratio.map_or_else(String::new, |ratio| {
            let better = (ratio > 1.0) == (metric.better == Better::Higher);
            let tone = match () {
                () if (0.8..1.25).contains(&ratio) => Tone::Faint,
                () if better => Tone::Good,
                () => Tone::Bad,
            };
            format!("  {}", style.paint(tone, format_args!("×{ratio:.2}")))
        });
        output.line(format_args!("  {name:<widest$}  {value:>15}{compared}"))?;
    }
    for (reason, times) in &report.errors {
        output.line(style.paint(Tone::Bad, format_args!("  {times} times: {reason}")))?;
    }
    let verified = format!("  {} verified: each came out once, in order, as it was sent", report.verified);
    output.line(style.paint(Tone::Good, verified))
}

/// Words about the progress, on one line of a terminal; elsewhere none.
fn progress() -> Progress {
    let terminal = io::stderr().is_terminal();
    Progress(Arc::new(move |text| {
        if terminal {
            let _ = write!(io::stderr().lock(), "\r\u{1b}[K{text}");
        }
    }))
}

fn wipe() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr().lock(), "\r\u{1b}[K");
    }
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::Unreachable(_) => Failure::new(Exit::Unreachable, error),
        BenchError::Setup(_) => Failure::failed(error),
        BenchError::Broken(_) => Failure::failed(format!("there is no result: {error}")),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::ZERO..=Duration::from_secs(24 * 60 * 60);
    if allowed.contains(&duration) { Ok(duration) } else { Err("must be at most 24h".to_owned()) }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "write a number such as 1000".to_owned())?;
    if (0.1..=1_000_000.0).contains(&rate) { Ok(rate) } else { Err("must be from 0.1 to 1000000".to_owned()) }
}
