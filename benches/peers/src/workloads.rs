//! What is measured, of whom, and what each of them promises while it is.

use std::path::Path;

use anyhow::{Context, Result};

use crate::causeway::{self, Names};
use crate::peers::Peer;
use crate::window::{Sample, Times};
use crate::{fanout, ingest, relay, replay};

/// What peers are asked to do.
#[derive(Debug, Clone, Copy)]
pub enum Task {
    Ingest(ingest::Shape),
    Fanout(fanout::Shape),
    Replay { events: u64 },
    Stream { rate: Option<u32> },
    Create { in_flight: usize },
    Idle { followers: usize },
}

/// How the least that does the same is called.
const BARE: &str = "axum, hyper, SQLite";

/// One workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name on the command line.
    pub name: &'static str,
    pub title: String,
    /// What the throughput, the latency and the memory are of; empty: not told.
    pub throughput: &'static str,
    pub latency: &'static str,
    pub memory: &'static str,
    /// How Causeway is measured.
    command: String,
    names: Names,
    task: Task,
    /// Causeway's promise, then each peer with its own.
    pub promise: &'static str,
    pub peers: Vec<(Peer, &'static str, &'static str)>,
}

impl Workload {
    /// How Causeway is measured, for one to repeat it.
    pub fn command(&self, times: Times) -> String {
        let seconds = times.duration.as_secs_f64();
        format!("causeway bench {} --spawn --duration {seconds}s", self.command)
    }

    /// Measures Causeway.
    pub async fn causeway(&self, binary: &Path, parent: &Path, times: Times) -> Result<Sample> {
        causeway::measure(binary, (&self.command, self.names), parent, times).await
    }

    /// Measures a peer.
    pub async fn peer(&self, peer: Peer, parent: &Path, times: Times) -> Result<Sample> {
        match self.task {
            Task::Ingest(shape) => ingest::measure(peer, shape, parent, times).await,
            Task::Fanout(shape) => fanout::measure(peer, shape, parent, times).await,
            Task::Replay { events } => replay::measure(peer, events, parent, times).await,
            Task::Stream { rate } => relay::stream(peer, rate, parent, times).await,
            Task::Create { in_flight } => relay::create(peer, in_flight, parent, times).await,
            Task::Idle { followers } => fanout::idle(peer, followers, parent, times).await,
        }
        .with_context(|| format!("{peer:?}"))
    }
}

/// All workloads; `quick` makes the long ones smaller.
pub fn all(quick: bool) -> Vec<Workload> {
    let mut all = Vec::new();
    for (writers, batch) in [(1, 1), (64, 1), (16, 100)] {
        all.push(Workload {
            name: "ingest",
            title: format!("Ingest, {writers} × {batch}: writers × events in a request"),
            throughput: "events/s",
            latency: "acknowledgement",
            memory: "",
            command: format!("ingest --writers {writers} --batch {batch}"),
            names: Names::INGEST,
            task: Task::Ingest(ingest::Shape { writers, batch }),
            promise: "fsync before ack; deduplicated by id; JSON validated; HTTP",
            peers: vec![
                (Peer::Bare, BARE, "fsync before ack; deduplicated by unique index; HTTP"),
                (
                    Peer::Postgres,
                    "PostgreSQL, INSERT",
                    "fsync before ack; deduplicated by unique index; own protocol",
                ),
                (
                    Peer::Nats,
                    "NATS JetStream, sync always",
                    "fsync before ack; deduplicated for 2 min; raw TCP",
                ),
                (Peer::Redis, "Redis XADD, AOF always", "fsync before ack; not deduplicated; raw TCP"),
            ],
        });
    }
    let memory = [
        (Peer::Bare, BARE, "fsync before delivery; SSE"),
        (Peer::Nats, "NATS core", "memory only, no resume; raw TCP"),
        (Peer::Redis, "Redis pub/sub", "memory only, no resume; raw TCP"),
        (Peer::Nchan, "nginx nchan", "memory only; SSE; one event per request"),
    ];
    let kept = "fsync before delivery, resume from any event; SSE";
    for (batch, rate) in [(32, None), (1, Some(100.0))] {
        let how =
            rate.map_or_else(|| format!("publishes of {batch}"), |rate: f64| format!("{rate} events/s"));
        let paced = rate.map_or_else(String::new, |rate| format!(" --rate {rate}"));
        all.push(Workload {
            name: "fanout",
            title: format!("Fan-out, 1000 subscribers, {how}"),
            throughput: "deliveries/s",
            latency: "delivery, from publish",
            memory: "",
            command: format!("fanout --subscribers 1000 --batch {batch}{paced}"),
            names: Names::FANOUT,
            task: Task::Fanout(fanout::Shape { followers: 1000, batch, window: 3, rate }),
            promise: kept,
            peers: memory.to_vec(),
        });
    }
    let events = if quick { 100_000 } else { 1_000_000 };
    all.push(Workload {
        name: "replay",
        title: format!("Replay of {events} stored events, one reader"),
        throughput: "events/s",
        latency: "first event",
        memory: "",
        command: format!("replay --events {events}"),
        names: Names::REPLAY,
        task: Task::Replay { events },
        promise: "from disk (page cache); SSE",
        peers: vec![
            (Peer::Bare, BARE, "from disk (page cache); SSE"),
            (Peer::Postgres, "PostgreSQL, COPY", "from disk (page cache); own protocol"),
            (Peer::Nats, "NATS JetStream, push consumer", "from disk (page cache); raw TCP"),
            (Peer::Redis, "Redis XRANGE, pages of 1000", "from memory; raw TCP"),
        ],
    });
    let relays = vec![
        (Peer::Bare, BARE, "passed on, nothing kept; HTTP"),
        (Peer::Nginx, "nginx", "passed on, nothing kept; HTTP"),
        (Peer::Haproxy, "haproxy", "passed on, nothing kept; HTTP"),
    ];
    for rate in [Some(1000), None] {
        let how = rate.map_or_else(|| "as fast as it goes".to_owned(), |rate| format!("{rate} events/s"));
        let paced = rate.map_or_else(String::new, |rate| format!(" --rate {rate}"));
        all.push(Workload {
            name: "proxy",
            title: format!("Proxy, one stream, {how}"),
            throughput: "events/s",
            latency: if rate.is_some() { "added to the direct way" } else { "" },
            memory: "",
            command: format!("proxy{paced}"),
            names: if rate.is_some() { Names::PROXY } else { Names::BULK },
            task: Task::Stream { rate },
            promise: "fsync before delivery; deduplicated; resume from any event; SSE",
            peers: relays.clone(),
        });
    }
    // By itself, as most runs go on for a while; then with all that a run of so many events, ended at once, costs.
    for (in_flight, events) in [(64, 0), (64, 1), (64, 10), (1, 0), (1, 1)] {
        let with = match events {
            0 => "runs that go on".to_owned(),
            1 => "runs of one event".to_owned(),
            _ => format!("runs of {events} events"),
        };
        let promise = match events {
            0 => "two fsynced transactions each; once per key; HTTP",
            _ => "two fsynced transactions each; once per key; the run followed and stored; HTTP",
        };
        all.push(Workload {
            name: "forward",
            title: format!("Run-create forwarding, {in_flight} in flight, {with}"),
            throughput: "runs/s",
            latency: "answer",
            memory: "",
            command: format!("forward --in-flight {in_flight} --events {events}"),
            names: Names::FORWARD,
            task: Task::Create { in_flight },
            promise,
            peers: relays.clone(),
        });
    }
    let followers = if quick { 1000 } else { 10_000 };
    all.push(Workload {
        name: "idle",
        title: format!("{followers} idle followers"),
        throughput: "",
        latency: "",
        memory: "each follower",
        command: format!("idle --subscribers {followers}"),
        names: Names::IDLE,
        task: Task::Idle { followers },
        promise: "resume from any event; SSE",
        peers: memory.to_vec(),
    });
    all
}
