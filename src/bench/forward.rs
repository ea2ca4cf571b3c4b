//! Runs created at a peer, through a gateway: each key gives one run there, whatever happens on the way.

use std::collections::HashSet;
use std::sync::Arc;

use memchr::memmem;
use tokio::time::{Instant, sleep};

use super::course::{Course, Latency, Progress, latency, note};
use super::events::Shape;
use super::origin::Origin;
use super::pace::Pace;
use super::report::{Better, Report};
use super::server::Server;
use super::wire::{Connection, Endpoint, Stream};
use super::{BenchError, Common, PAUSE, TRIES};

/// Where runs are created.
const FORWARD: &str = "/v1/federation/runs:forward";

/// What `forward` takes.
#[derive(Debug, Clone)]
pub struct ForwardPlan {
    /// Forwards in flight.
    pub in_flight: usize,
    /// Events of each run; 0: it goes on.
    pub events: u64,
    /// Each run is read to its end before the next one is created.
    pub follow: bool,
}

/// One who creates runs.
pub(super) struct Forwarder {
    endpoint: Endpoint,
    connection: Connection,
    body: Vec<u8>,
    seed: u64,
}

struct Done {
    runs: Vec<String>,
    created: Latency,
    ended: Latency,
    events: u64,
}

/// Measures.
pub(super) async fn run(
    plan: &ForwardPlan,
    common: &Common,
    (server, origin): (&Server, Option<&Arc<Origin>>),
    course: &Arc<Course>,
    progress: Progress,
) -> Result<Report, BenchError> {
    if plan.follow && plan.events == 0 {
        let told = "--follow reads each run to its end: it wants --events of 1 or more";
        return Err(BenchError::Setup(told.to_owned()));
    }
    let pace = Arc::new(Pace::new(common.rate, &course.over));
    let mut workers = Vec::new();
    for _ in 0..plan.in_flight {
        let forwarder = Forwarder::new(server, common).await?;
        let followed = origin.filter(|_| plan.follow).cloned();
        workers.push(course.work(work(forwarder, Arc::clone(course), Arc::clone(&pace), followed)));
    }
    let (measured, done) = course.measure(common, server, workers, &progress).await?;
    let (mut created, mut ended) = (latency(), latency());
    let (mut runs, mut all, mut events) = (HashSet::new(), 0, 0);
    for own in done {
        let added = created.add(&own.created).and_then(|()| ended.add(&own.ended));
        added.map_err(|error| BenchError::Setup(error.to_string()))?;
        events += own.events;
        all += own.runs.len() as u64;
        runs.extend(own.runs);
    }
    let distinct = runs.len() as u64;
    if distinct != all {
        return Err(BenchError::Broken(format!(
            "{all} keys were given {distinct} runs: some were given twice"
        )));
    }
    if let Some(origin) = origin {
        let created = origin.created();
        if created != all || runs.iter().any(|run| origin.find(run).is_none()) {
            let told = format!("{all} forwards were answered with a run, and {created} runs were created");
            return Err(BenchError::Broken(told));
        }
    }
    let mut report = Report::new("forward", "runs", &measured, common, server);
    report.verified = all + events;
    report.parameter("in_flight", plan.in_flight);
    report.parameter("events", plan.events);
    report.parameter("follow", plan.follow);
    report.latency("create", &created);
    report.latency("create_to_end", &ended);
    if plan.follow {
        let per_second = measured.items as f64 * plan.events as f64 / measured.seconds;
        report.add("events_per_second", per_second, Better::Higher);
    }
    Ok(report)
}

async fn work(
    mut forwarder: Forwarder,
    course: Arc<Course>,
    pace: Arc<Pace>,
    followed: Option<Arc<Origin>>,
) -> Result<Done, BenchError> {
    let mut done = Done { runs: Vec::new(), created: latency(), ended: latency(), events: 0 };
    course.begin().await;
    while let Some(number) = course.claim_number() {
        let due = tokio::select! {
            due = pace.next() => due,
            () = course.over.cancelled() => None,
        };
        let Some(due) = due else { break };
        let run = forwarder.forward(number, &course).await?;
        let created = due.elapsed();
        if let Some(origin) = &followed {
            done.events += follow(&forwarder.endpoint, origin, &run, |_, _| {}).await?;
        }
        if course.done(1, 1) {
            note(&mut done.created, created, 1);
            if followed.is_some() {
                note(&mut done.ended, due.elapsed(), 1);
            }
        }
        done.runs.push(run);
    }
    Ok(done)
}

impl Forwarder {
    /// Connects.
    pub(super) async fn new(server: &Server, common: &Common) -> Result<Self, BenchError> {
        let filling: String = ('a'..='z').cycle().take(common.payload).collect();
        let body = format!(
            "{{\"forward\":{{\"target_selector\":{{\"stack_id\":\"{}\"}},\"run_request\":{{\"agent_id\":\
             \"agt_bench\",\"input\":{{\"type\":\"text\",\"text\":\"{filling}\"}}}}}}}}",
            server.peer
        );
        let connection = Connection::open(&server.endpoint).await?;
        let seed = super::ingest::mould(common).seed;
        Ok(Forwarder { endpoint: server.endpoint.clone(), connection, body: body.into_bytes(), seed })
    }

    /// Creates a run, until there is an answer that says which. A repeat bears the same key.
    pub(super) async fn forward(&mut self, number: u64, course: &Course) -> Result<String, BenchError> {
        let key = format!("idempotency-key: \"bench-{:x}-{number}\"\r\n", self.seed);
        let request = self.endpoint.post(FORWARD, &key, &self.body);
        for _ in 0..TRIES {
            match self.connection.exchange(&request).await {
                Ok(answer) if answer.status == 200 => {
                    return run_id(answer.body).ok_or_else(|| {
                        BenchError::Broken(format!("a forward without a run: {}", answer.said()))
                    });
                }
                // The peer may be slow, or the outcome unknown: the same key asks again.
                Ok(answer) if matches!(answer.status, 409 | 429 | 502..=504) => {
                    course.error(format!("status {}", answer.status));
                }
                Ok(answer) => {
                    let (status, said) = (answer.status, answer.said());
                    return Err(BenchError::Broken(format!("a forward was answered {status}: {said}")));
                }
                Err(error) => course.error(error.kind()),
            }
            sleep(PAUSE).await;
        }
        Err(BenchError::Broken(format!("a forward gave no run in {TRIES} tries")))
    }
}

/// `run_id` of the answer, and not `remote_run_id`.
fn run_id(body: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\"run_id\":\"";
    let rest = &body[memmem::find(body, NAME)? + NAME.len()..];
    let end = memchr::memchr(b'"', rest)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

/// Reads a run from its beginning to its end through a gateway, and answers how many events it had. `came` is
/// told when each event was sent, and when it came.
pub(super) async fn follow(
    endpoint: &Endpoint,
    origin: &Origin,
    id: &str,
    mut came: impl FnMut(u64, Instant),
) -> Result<u64, BenchError> {
    let Some(run) = origin.find(id) else {
        return Err(BenchError::Broken(format!("run {id} was never created")));
    };
    let path = format!("/v1/federation/runs/{id}/events");
    let mut stream = Stream::open(endpoint, &endpoint.events(&path, None)).await?;
    let (tick, last) = (origin.mould().shape(id, run.number()), origin.mould().last(id, run.number()));
    let (mut read, mut ended, mut more) = (0, false, true);
    while more {
        let mut now = None;
        more = stream
            .read_soon(|frame| {
                if Shape::is_event(&frame) {
                    let ends = run.last() == Some(read + 1);
                    let sent = if ends { &last } else { &tick }.check(&frame, read + 1)?;
                    read += 1;
                    came(sent, *now.get_or_insert_with(Instant::now));
                } else if frame.event == b"end" {
                    ended = true;
                } else if matches!(frame.event, b"gap" | b"stream_error") {
                    let said = String::from_utf8_lossy(frame.data).into_owned();
                    return Err(BenchError::Broken(format!("the stream of run {id} said {said}")));
                }
                Ok(())
            })
            .await?;
    }
    match run.last() == Some(read) && ended {
        true => Ok(read),
        false => Err(BenchError::Broken(format!(
            "run {id} ended for its subscriber after {read} events, at its home after {:?}",
            run.last()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_of_an_answer_is_the_one_of_this_gateway() {
        let body = br#"{"forwarded":{"remote_run_id":"r1","run_id":"r1@stk","status":"queued"}}"#;
        assert_eq!(run_id(body), Some("r1@stk".to_owned()));
        assert_eq!(run_id(b"{}"), None);
    }
}
