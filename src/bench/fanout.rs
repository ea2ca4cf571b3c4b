//! One run, published in batches, and many who follow it live.

use std::sync::Arc;

use tokio::time::Instant;

use super::audience::Audience;
use super::course::{Course, Progress, latency, note};
use super::ingest::{Pusher, mould};
use super::pace::Pace;
use super::report::{Better, Report};
use super::server::Server;
use super::{BenchError, Common};

/// Events that a request may have, as the gateway ships.
const MOST_TOGETHER: usize = 500;

/// What `fanout` takes.
#[derive(Debug, Clone)]
pub struct FanoutPlan {
    /// Subscribers, each with a connection.
    pub subscribers: usize,
    /// Events of one publish.
    pub batch: usize,
    /// Publishes that may be on their way before the next one waits for their deliveries.
    pub window: usize,
}

/// Measures.
pub(super) async fn run(
    plan: &FanoutPlan,
    common: &Common,
    server: &Server,
    progress: Progress,
) -> Result<Report, BenchError> {
    let mould = mould(common);
    let course = Course::new(common);
    let mut pusher = Pusher::new(&server.endpoint, &mould, 0).await?;
    pusher.push(1, &[Instant::now()], &course).await?;
    progress.phase("connecting subscribers");
    let size = plan.subscribers as u64;
    let audience =
        Audience::gather(&server.endpoint, &pusher.run, &pusher.shape, plan.subscribers, &course).await?;
    let pace = Pace::new(common.rate, &course.over);
    let (batch, behind) = (plan.batch, (plan.window * plan.batch) as u64);
    let (course_now, by_number) = (Arc::clone(&course), common.count.is_some());
    let worker = async move {
        let mut published = latency();
        course_now.begin().await;
        while course_now.claim() {
            let due = tokio::select! {
                due = pace.next() => due,
                () = course_now.over.cancelled() => None,
            };
            let Some(due) = due else { break };
            let mut moments = vec![due];
            // What became due while the last publish was on its way goes together, else the queue is ours.
            while (moments.len() + 1) * batch <= MOST_TOGETHER
                && let Some(due) = pace.overdue().await
                && course_now.claim()
            {
                moments.push(due);
            }
            pusher.push(batch, &moments, &course_now).await?;
            if course_now.done(moments.len() as u64, 0) {
                moments.iter().for_each(|due| note(&mut published, due.elapsed(), 1));
            }
            if matches!(pace, Pace::Closed) {
                audience.wait_for(pusher.pushed.saturating_sub(behind) * size).await?;
            }
        }
        if by_number {
            // What was asked for by number is measured to its last delivery.
            audience.wait_for(pusher.pushed * size).await?;
        }
        Ok((pusher, audience, published))
    };
    let (measured, mut done) = course.measure(common, server, vec![course.work(worker)], &progress).await?;
    let Some((pusher, audience, published)) = done.pop() else {
        return Err(BenchError::Setup("the publisher did not come back".to_owned()));
    };
    progress.phase("waiting for the last deliveries");
    audience.wait_for(pusher.pushed * size).await?;
    let verified = audience.delivered();
    let deliveries = audience.close();
    let mut report = Report::new("fanout", "deliveries", &measured, common, server);
    report.verified = verified;
    report.parameter("subscribers", plan.subscribers);
    report.parameter("batch", plan.batch);
    report.parameter("window", plan.window);
    report.add(
        "published_events_per_second",
        (measured.operations * plan.batch as u64) as f64 / measured.seconds,
        Better::Higher,
    );
    report.latency("delivery", &deliveries);
    report.latency("publish", &published);
    Ok(report)
}
