//! Events that are made elsewhere, through a gateway to a subscriber; beside it the same way without one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::course::{Course, Latency, Progress, latency, note, since};
use super::events::Shape;
use super::forward::{Forwarder, follow};
use super::origin::{Origin, Script};
use super::report::{Better, Report};
use super::server::Server;
use super::wire::{Endpoint, Stream};
use super::{BenchError, Common};

/// How long the way without a gateway is measured.
const DIRECT: Duration = Duration::from_secs(1);

/// What `proxy` takes.
#[derive(Debug, Clone)]
pub struct ProxyPlan {
    /// Runs that are read at the same time.
    pub streams: usize,
}

/// Measures.
pub(super) async fn run(
    plan: &ProxyPlan,
    common: &Common,
    (server, origin): (&Server, &Arc<Origin>),
    course: &Arc<Course>,
    progress: Progress,
) -> Result<Report, BenchError> {
    progress.phase("measuring without a gateway");
    let (direct, direct_rate) = directly(origin, common).await?;
    let mut forwarder = Forwarder::new(server, common).await?;
    let mut workers = Vec::new();
    // The events begin with their runs: what comes before the window does not count.
    for number in 0..plan.streams {
        let run = forwarder.forward(number as u64, course).await?;
        let (endpoint, origin, course_now) =
            (server.endpoint.clone(), Arc::clone(origin), Arc::clone(course));
        workers.push(course.work(async move {
            let mut times = latency();
            let read = follow(&endpoint, &origin, &run, |stamp, now| {
                if course_now.done(0, 1) {
                    note(&mut times, since(stamp, now), 1);
                }
            });
            let read = read.await?;
            Ok((times, read))
        }));
    }
    let (measured, done) = course.measure(common, server, workers, &progress).await?;
    let mut through: Latency = latency();
    let mut report = Report::new("proxy", "events", &measured, common, server);
    for (own, read) in done {
        through.add(&own).map_err(|error| BenchError::Setup(error.to_string()))?;
        report.verified += read;
    }
    report.parameter("streams", plan.streams);
    report.add("direct_events_per_second", direct_rate, Better::Higher);
    report.latency("delivery", &through);
    report.latency("direct_delivery", &direct);
    if common.rate.is_some() {
        for name in ["p50", "p99"] {
            let found = report.find(&format!("delivery_ms_{name}"));
            let added = found.zip(report.find(&format!("direct_delivery_ms_{name}")));
            if let Some((with, without)) = added {
                report.add(&format!("added_ms_{name}"), with - without, Better::Lower);
            }
        }
    }
    Ok(report)
}

/// One stream from the origin to a subscriber, with nothing between them.
async fn directly(origin: &Origin, common: &Common) -> Result<(Latency, f64), BenchError> {
    let over = tokio_util::sync::CancellationToken::new();
    let events = common.count.unwrap_or(u64::MAX);
    let run = origin.create(Script { events, rate: common.rate, over: over.clone() });
    let base = Url::parse(&format!("http://{}", origin.address))
        .map_err(|error| BenchError::Setup(error.to_string()))?;
    let endpoint = Endpoint::resolve(&base, &common.tenant, None).await?;
    let request = endpoint.events(&format!("/v1/runs/{}/events", run.id), None);
    let (tick, last) =
        (origin.mould().shape(&run.id, run.number()), origin.mould().last(&run.id, run.number()));
    let start = Instant::now();
    let mut stream = Stream::open(&endpoint, &request).await?;
    let (mut times, mut read, mut more) = (latency(), 0, true);
    while more {
        let mut now = None;
        more = stream
            .read_soon(|frame| {
                if Shape::is_event(&frame) {
                    let ends = run.last() == Some(read + 1);
                    let sent = if ends { &last } else { &tick }.check(&frame, read + 1)?;
                    read += 1;
                    note(&mut times, since(sent, *now.get_or_insert_with(Instant::now)), 1);
                }
                Ok(())
            })
            .await?;
        if start.elapsed() > DIRECT {
            over.cancel();
        }
    }
    Ok((times, read as f64 / start.elapsed().as_secs_f64()))
}
