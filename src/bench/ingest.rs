//! Writers that push events, each to a run of its own, and read them all again afterwards.

use std::sync::Arc;

use memchr::memmem;
use tokio::time::{Instant, sleep};

use super::course::{Course, Latency, Progress, latency, note, stamp};
use super::events::{Mould, Shape};
use super::pace::Pace;
use super::report::Report;
use super::server::Server;
use super::wire::{Connection, Endpoint, Stream};
use super::{BenchError, Common, PAUSE, TRIES};
use crate::clock::Clock;
use crate::entropy::Entropy;

/// Where events are pushed.
const PUSH: &str = "/v1/federation/events:ingest";
/// Runs read again at the same time.
const READERS: usize = 4;

/// What `ingest` takes.
#[derive(Debug, Clone)]
pub struct IngestPlan {
    /// Writers, each with a connection and a run.
    pub writers: usize,
    /// Events in one request.
    pub batch: usize,
}

/// One who pushes events to a run.
#[derive(Debug)]
pub(super) struct Pusher {
    connection: Connection,
    endpoint: Endpoint,
    pub(super) run: String,
    pub(super) shape: Shape,
    /// Events that were acknowledged.
    pub(super) pushed: u64,
    body: Vec<u8>,
}

/// Measures.
pub(super) async fn run(
    plan: &IngestPlan,
    common: &Common,
    server: &Server,
    progress: Progress,
) -> Result<Report, BenchError> {
    let mould = mould(common);
    let course = Course::new(common);
    let mut pushers = Vec::new();
    for number in 0..plan.writers {
        pushers.push(Pusher::new(&server.endpoint, &mould, number as u64).await?);
    }
    let pace = Arc::new(Pace::new(common.rate, &course.over));
    let workers = pushers
        .into_iter()
        .map(|pusher| course.work(write(pusher, plan.batch, Arc::clone(&course), Arc::clone(&pace))))
        .collect();
    let (measured, written) = course.measure(common, server, workers, &progress).await?;
    let mut times = latency();
    for (_, own) in &written {
        times.add(own).map_err(|error| BenchError::Setup(error.to_string()))?;
    }
    progress.phase("reading all of it again");
    let runs: Vec<_> =
        written.into_iter().map(|(pusher, _)| (pusher.run, pusher.shape, pusher.pushed)).collect();
    let mut report = Report::new("ingest", "events", &measured, common, server);
    report.verified = read_again(&server.endpoint, runs, &course).await?;
    report.parameter("writers", plan.writers);
    report.parameter("batch", plan.batch);
    report.latency("request", &times);
    Ok(report)
}

/// What all events of this measurement have in common.
pub(super) fn mould(common: &Common) -> Mould {
    // Milliseconds in front: ids of a later measurement lie behind those of an earlier one.
    let chance = (Entropy::from_os().fraction() * 4096.0) as u64;
    let seed = u64::try_from(Clock::system().now_ms()).unwrap_or(0) << 20 | chance;
    Mould { tenant: common.tenant.clone(), ids: common.ids, payload: common.payload, seed }
}

async fn write(
    mut pusher: Pusher,
    batch: usize,
    course: Arc<Course>,
    pace: Arc<Pace>,
) -> Result<(Pusher, Latency), BenchError> {
    let mut times = latency();
    course.begin().await;
    while course.claim() {
        let due = tokio::select! {
            due = pace.next() => due,
            () = course.over.cancelled() => None,
        };
        let Some(due) = due else { break };
        pusher.push(batch, &[due], &course).await?;
        if course.done(1, batch as u64) {
            note(&mut times, due.elapsed(), 1);
        }
    }
    Ok((pusher, times))
}

impl Pusher {
    /// Connects; `number` tells the runs of one measurement apart.
    pub(super) async fn new(endpoint: &Endpoint, mould: &Mould, number: u64) -> Result<Self, BenchError> {
        let run = format!("run_bench_{:x}_{number}", mould.seed);
        let shape = mould.shape(&run, number);
        let connection = Connection::open(endpoint).await?;
        Ok(Pusher { connection, endpoint: endpoint.clone(), run, shape, pushed: 0, body: Vec::new() })
    }

    /// Pushes `batch` events for each moment in one request, until they are acknowledged. A repeat is the same
    /// request: it does no harm.
    pub(super) async fn push(
        &mut self,
        batch: usize,
        moments: &[Instant],
        course: &Course,
    ) -> Result<(), BenchError> {
        let events = batch * moments.len();
        self.body.clear();
        self.body.extend_from_slice(b"{\"events\":[");
        let stamps = moments.iter().flat_map(|at| std::iter::repeat_n(stamp(*at), batch));
        for (number, stamp) in (self.pushed + 1..).zip(stamps) {
            self.shape.push(&mut self.body, number, stamp);
            self.body.push(b',');
        }
        self.body.pop();
        self.body.extend_from_slice(b"]}");
        let request = self.endpoint.post(PUSH, "", &self.body);
        let accepted = format!("\"accepted\":{events},");
        for _ in 0..TRIES {
            match self.connection.exchange(&request).await {
                Ok(answer) if answer.status == 200 => {
                    if memmem::find(answer.body, accepted.as_bytes()).is_none() {
                        return Err(BenchError::Broken(format!("not all was accepted: {}", answer.said())));
                    }
                    self.pushed += events as u64;
                    return Ok(());
                }
                Ok(answer) if answer.is_busy() => course.error(format!("status {}", answer.status)),
                Ok(answer) => {
                    return Err(BenchError::Broken(format!(
                        "a push was answered {}: {}",
                        answer.status,
                        answer.said()
                    )));
                }
                Err(error) => course.error(error.kind()),
            }
            sleep(PAUSE).await;
        }
        Err(BenchError::Broken(format!("a push was not accepted in {TRIES} tries")))
    }
}

/// Reads runs from the log to their present ends and holds them against what was sent: `(run, shape, events)`.
pub(super) async fn read_again(
    endpoint: &Endpoint,
    runs: Vec<(String, Shape, u64)>,
    course: &Arc<Course>,
) -> Result<u64, BenchError> {
    let runs = Arc::new(std::sync::Mutex::new(runs));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (runs, endpoint) = (Arc::clone(&runs), endpoint.clone());
            course.work(async move {
                let mut read = 0;
                loop {
                    let next = runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
                    let Some((run, shape, events)) = next else { return Ok(read) };
                    read += read_run(&endpoint, &run, &shape, events).await?;
                }
            })
        })
        .collect();
    let mut verified = 0;
    for reader in readers {
        verified += reader.await.ok().flatten().unwrap_or(0);
    }
    course.check()?;
    Ok(verified)
}

/// Reads one run and answers how many events it had: those that were acknowledged.
pub(super) async fn read_run(
    endpoint: &Endpoint,
    run: &str,
    shape: &Shape,
    events: u64,
) -> Result<u64, BenchError> {
    if events == 0 {
        return Ok(0);
    }
    let path = format!("/v1/federation/runs/{run}/events?follow=false");
    let mut stream = Stream::open(endpoint, &endpoint.events(&path, None)).await?;
    let mut read = 0;
    let mut more = true;
    while more {
        more = stream
            .read_soon(|frame| {
                if Shape::is_event(&frame) {
                    shape.check(&frame, read + 1)?;
                    read += 1;
                }
                Ok(())
            })
            .await?;
    }
    match read == events {
        true => Ok(read),
        false => {
            Err(BenchError::Broken(format!("run {run}: {events} events were acknowledged, {read} came out")))
        }
    }
}
