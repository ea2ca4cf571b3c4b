//! The time in which it counts: workers work before and after it too, and say what they did as they do it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;

use crate::process::Server;

/// How long a peer may keep one waiting before that is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Latencies, in nanoseconds.
pub type Latency = Histogram<u64>;

/// What stamps count from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub warmup: Duration,
    pub duration: Duration,
}

/// What all workers of a measurement share.
#[derive(Debug, Default)]
pub struct Window {
    counting: AtomicBool,
    over: AtomicBool,
    items: AtomicU64,
}

/// What was measured once.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Items per second.
    pub throughput: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// Processor seconds of the server per million items.
    pub cpu_per_million: Option<f64>,
    /// Memory of the server, or of each follower, in bytes.
    pub memory: Option<f64>,
}

/// A moment as a number that an event can carry.
pub fn stamp(at: Instant) -> u64 {
    at.saturating_duration_since(*EPOCH).as_nanos() as u64
}

/// How many nanoseconds ago a moment was.
pub fn since(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}

/// An empty record of latencies.
pub fn latency() -> Latency {
    Histogram::new(3).expect("a precision that histograms have")
}

/// Writes down how long something took, so many times.
pub fn note(latency: &mut Latency, nanoseconds: u64, times: u64) -> Result<()> {
    Ok(latency.record_n(nanoseconds, times)?)
}

/// Waits for a moment, to the microsecond: the timers of the runtime round up to a millisecond.
pub fn wait_until(at: Instant) {
    let left = at.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        tokio::task::block_in_place(|| std::thread::sleep(left));
    }
}

impl Window {
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Items were done; true when they count.
    pub fn count(&self, items: u64) -> bool {
        let counting = self.counting.load(Ordering::Relaxed);
        if counting {
            self.items.fetch_add(items, Ordering::Relaxed);
        }
        counting
    }

    /// True while what is done counts.
    pub fn counts(&self) -> bool {
        self.counting.load(Ordering::Relaxed)
    }

    /// Measures while the workers work, then has them end, and takes their latencies together.
    pub async fn measure(
        self: &Arc<Self>,
        times: Times,
        server: &Server,
        workers: Vec<JoinHandle<Result<Latency>>>,
    ) -> Result<Sample> {
        let all = try_join_all(workers);
        tokio::pin!(all);
        let early = || anyhow!("the workers ended before the time was over");
        let measured = tokio::select! {
            measured = self.count_for(times, server) => measured?,
            ended = &mut all => {
                for worker in ended.context("a worker panicked")? {
                    worker?;
                }
                return Err(early());
            }
        };
        let mut latencies = latency();
        let ended = tokio::time::timeout(PATIENCE * 2, all).await.context("the workers do not end")?;
        for worker in ended.context("a worker panicked")? {
            latencies.add(worker?)?;
        }
        Ok(measured.with_latency(&latencies))
    }

    async fn count_for(&self, times: Times, server: &Server) -> Result<Sample> {
        tokio::time::sleep(times.warmup).await;
        let before = server.cpu()?;
        let start = Instant::now();
        self.counting.store(true, Ordering::Relaxed);
        // One that acknowledges much at once, and slowly, is given the time for the first of it.
        while start.elapsed() < times.duration || self.items.load(Ordering::Relaxed) == 0 {
            anyhow::ensure!(start.elapsed() < PATIENCE, "nothing came of it in {PATIENCE:?}");
            tokio::time::sleep(times.duration).await;
        }
        self.counting.store(false, Ordering::Relaxed);
        let seconds = start.elapsed().as_secs_f64();
        let after = server.cpu()?;
        self.over.store(true, Ordering::Relaxed);
        let items = self.items.load(Ordering::Relaxed) as f64;
        Ok(Sample {
            throughput: Some(items / seconds),
            cpu_per_million: Some((after - before) / (items / 1e6)),
            memory: Some(server.memory()?),
            ..Sample::default()
        })
    }
}

impl Sample {
    /// With the median and the 99th percentile of these latencies.
    pub fn with_latency(mut self, latency: &Latency) -> Self {
        let at = |quantile| (!latency.is_empty()).then(|| latency.value_at_quantile(quantile) as f64 / 1e6);
        (self.p50_ms, self.p99_ms) = (at(0.5), at(0.99));
        self
    }

    /// What was added to a latency that was there without the server.
    pub fn beyond(mut self, direct: &Sample) -> Self {
        let beyond = |with: Option<f64>, without: Option<f64>| Some(with? - without?);
        self.p50_ms = beyond(self.p50_ms, direct.p50_ms);
        self.p99_ms = beyond(self.p99_ms, direct.p99_ms);
        self
    }
}
