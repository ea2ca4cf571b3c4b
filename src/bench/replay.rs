//! A long run in the log, read from its beginning, again and again.

use std::sync::Arc;

use tokio::time::Instant;

use super::course::{Course, Latency, Progress, latency, note};
use super::events::Shape;
use super::ingest::{Pusher, mould};
use super::report::Report;
use super::server::Server;
use super::wire::{Endpoint, Stream};
use super::{BenchError, Common};

/// Events pushed at once while the log is filled.
const FILL: u64 = 500;

/// What `replay` takes.
#[derive(Debug, Clone)]
pub struct ReplayPlan {
    /// Events in the run.
    pub events: u64,
    /// Readers at the same time.
    pub readers: usize,
}

/// Measures.
pub(super) async fn run(
    plan: &ReplayPlan,
    common: &Common,
    server: &Server,
    progress: Progress,
) -> Result<Report, BenchError> {
    let course = Course::new(common);
    let mut pusher = Pusher::new(&server.endpoint, &mould(common), 0).await?;
    while pusher.pushed < plan.events {
        progress.phase(&format!("filling the log: {} of {}", pusher.pushed, plan.events));
        let batch = FILL.min(plan.events - pusher.pushed) as usize;
        pusher.push(batch, &[Instant::now()], &course).await?;
    }
    let workers = (0..plan.readers)
        .map(|_| {
            let (run, shape, events) = (pusher.run.clone(), pusher.shape.clone(), plan.events);
            course.work(read(server.endpoint.clone(), (run, shape, events), Arc::clone(&course)))
        })
        .collect();
    let (measured, read) = course.measure(common, server, workers, &progress).await?;
    let mut report = Report::new("replay", "events", &measured, common, server);
    report.parameter("events", plan.events);
    report.parameter("readers", plan.readers);
    let (mut first, mut whole) = (latency(), latency());
    for (own_first, own_whole, events) in &read {
        let added = first.add(own_first).and_then(|()| whole.add(own_whole));
        added.map_err(|error| BenchError::Setup(error.to_string()))?;
        report.verified += events;
    }
    report.latency("first_event", &first);
    report.latency("whole_replay", &whole);
    Ok(report)
}

async fn read(
    endpoint: Endpoint,
    (run, shape, events): (String, Shape, u64),
    course: Arc<Course>,
) -> Result<(Latency, Latency, u64), BenchError> {
    let (mut first, mut whole, mut verified) = (latency(), latency(), 0);
    let request = endpoint.events(&format!("/v1/federation/runs/{run}/events?follow=false"), None);
    course.begin().await;
    while course.claim() {
        let start = Instant::now();
        let mut stream = Stream::open(&endpoint, &request).await?;
        let (mut read, mut first_at, mut more) = (0_u64, None, true);
        while more {
            let before = read;
            more = stream
                .read_soon(|frame| {
                    if Shape::is_event(&frame) {
                        shape.check(&frame, read + 1)?;
                        read += 1;
                    }
                    Ok(())
                })
                .await?;
            if first_at.is_none() && read > 0 {
                first_at = Some(start.elapsed());
            }
            course.done(0, read - before);
        }
        if read != events {
            return Err(BenchError::Broken(format!("{events} events were acknowledged, {read} came out")));
        }
        verified += read;
        if course.done(1, 0) {
            note(&mut first, first_at.unwrap_or_default(), 1);
            note(&mut whole, start.elapsed(), 1);
        }
    }
    Ok((first, whole, verified))
}
