//! Many subscribers of a run that stands still: what one of them costs, and that each of them is served at once
//! when it moves.

use tokio::time::Instant;

use super::audience::Audience;
use super::course::{Course, Progress};
use super::ingest::{Pusher, mould};
use super::report::{Better, Report};
use super::server::Server;
use super::{BenchError, Common};

/// What `idle` takes.
#[derive(Debug, Clone)]
pub struct IdlePlan {
    /// Subscribers, each with a connection.
    pub subscribers: usize,
}

/// Measures.
pub(super) async fn run(
    plan: &IdlePlan,
    common: &Common,
    server: &Server,
    progress: Progress,
) -> Result<Report, BenchError> {
    let course = Course::new(&Common { count: None, ..common.clone() });
    let mut pusher = Pusher::new(&server.endpoint, &mould(common), 0).await?;
    pusher.push(1, &[Instant::now()], &course).await?;
    let before = server.usage();
    progress.phase("connecting subscribers");
    let start = Instant::now();
    let audience =
        Audience::gather(&server.endpoint, &pusher.run, &pusher.shape, plan.subscribers, &course).await?;
    let connected = start.elapsed();
    let connecting = server.usage();
    let quiet = {
        let over = course.over.clone();
        course.work(async move {
            over.cancelled().await;
            Ok(())
        })
    };
    let still = Common { count: None, ..common.clone() };
    let (measured, _) = course.measure(&still, server, vec![quiet], &progress).await?;
    // A stream that stands still is alive: the next event comes to everybody.
    let size = plan.subscribers as u64;
    progress.phase("waking all of them");
    let woken = Instant::now();
    pusher.push(1, &[woken], &course).await?;
    audience.wait_for(2 * size).await?;
    let wake = woken.elapsed();
    let verified = audience.delivered();
    drop(audience.close());
    let mut report = Report::new("idle", "events", &measured, common, server);
    report.metrics.retain(|metric| metric.name != "events_per_second");
    report.verified = verified;
    report.parameter("subscribers", plan.subscribers);
    report.add("connects_per_second", size as f64 / connected.as_secs_f64(), Better::Higher);
    if let (Some(before), Some(connecting), Some(after)) = (before, connecting, measured.usage) {
        let each = (after.resident - before.resident) / size as f64;
        report.add("server_resident_bytes_per_subscriber", each, Better::Lower);
        let millions = size as f64 / 1e6;
        let cpu = (connecting.cpu - before.cpu) / millions;
        report.add("server_cpu_seconds_per_million_connects", cpu, Better::Lower);
    }
    report.add("wake_all_ms", wake.as_secs_f64() * 1000.0, Better::Lower);
    Ok(report)
}
