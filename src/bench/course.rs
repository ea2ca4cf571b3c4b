//! One measurement: workers that work, a window in which it counts, and what the server used in it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::process::Usage;
use super::server::Server;
use super::{BenchError, Common};
use crate::tasks::Tasks;

/// Time between two words about the progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Digits that a latency keeps.
const DIGITS: u8 = 3;

/// Who is told how far it has come.
#[derive(Clone)]
pub struct Progress(pub Arc<dyn Fn(&str) + Send + Sync>);

/// What all workers of a measurement share.
#[derive(Debug)]
pub(super) struct Course {
    /// Cancelled when the time is over, or a worker failed.
    pub(super) over: CancellationToken,
    /// The tasks.
    pub(super) tasks: Tasks,
    claimed: AtomicU64,
    /// Cancelled when the workers may begin.
    begun: CancellationToken,
    measuring: AtomicBool,
    left: AtomicI64,
    /// Items (events, deliveries, runs) that count.
    items: AtomicU64,
    /// Operations (requests) that count.
    operations: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    fault: Mutex<Option<BenchError>>,
}

/// What came of the window.
#[derive(Debug)]
pub(super) struct Measured {
    /// How long it was.
    pub(super) seconds: f64,
    /// Items in it.
    pub(super) items: u64,
    /// Operations in it.
    pub(super) operations: u64,
    /// What the server used in it: memory is that at its end.
    pub(super) usage: Option<Usage>,
    /// What did not work, and how often; the whole measurement counts.
    pub(super) errors: BTreeMap<String, u64>,
}

/// Latencies, in nanoseconds.
pub(super) type Latency = Histogram<u64>;

/// What stamps count from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A moment as a number that an event can carry.
pub(super) fn stamp(at: Instant) -> u64 {
    nanos(at.saturating_duration_since(*EPOCH))
}

/// How long ago a stamp was made.
pub(super) fn since(earlier: u64, now: Instant) -> Duration {
    Duration::from_nanos(stamp(now).saturating_sub(earlier))
}

/// An empty record of latencies.
pub(super) fn latency() -> Latency {
    Histogram::new(DIGITS).expect("a precision that histograms have")
}

/// Writes a latency down.
pub(super) fn note(latency: &mut Latency, took: Duration, times: u64) {
    // It grows as far as it must: nothing is too long.
    let _ = latency.record_n(nanos(took), times);
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Course {
    /// A course on which nothing counts yet.
    pub(super) fn new(common: &Common) -> Arc<Self> {
        let left = common.count.map_or(i64::MAX, |count| i64::try_from(count).unwrap_or(i64::MAX));
        Arc::new(Course {
            over: CancellationToken::new(),
            tasks: Tasks::default(),
            claimed: AtomicU64::new(0),
            begun: CancellationToken::new(),
            measuring: AtomicBool::new(false),
            left: AtomicI64::new(left),
            items: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            errors: Mutex::default(),
            fault: Mutex::default(),
        })
    }

    /// True while what is done counts.
    pub(super) fn counts(&self) -> bool {
        self.measuring.load(Ordering::Relaxed)
    }

    /// Waits until the workers may begin.
    pub(super) async fn begin(&self) {
        self.begun.cancelled().await;
    }

    /// Takes one operation of those that are to be done; false when there is none, or no time.
    pub(super) fn claim(&self) -> bool {
        !self.over.is_cancelled() && self.left.fetch_sub(1, Ordering::Relaxed) > 0
    }

    /// As [`Course::claim`], with a number that no other claim has.
    pub(super) fn claim_number(&self) -> Option<u64> {
        self.claim().then(|| self.claimed.fetch_add(1, Ordering::Relaxed))
    }

    /// An operation is done; true when it counts.
    pub(super) fn done(&self, operations: u64, items: u64) -> bool {
        let counts = self.counts();
        if counts {
            self.operations.fetch_add(operations, Ordering::Relaxed);
            self.items.fetch_add(items, Ordering::Relaxed);
        }
        counts
    }

    /// Something did not work, and is tried again or left.
    pub(super) fn error(&self, reason: impl fmt::Display) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.entry(reason.to_string()).or_default() += 1;
    }

    /// Something is wrong for good: the first to say so ends the measurement.
    pub(super) fn fail(&self, error: BenchError) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.over.cancel();
    }

    /// What is wrong for good, if anything is.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        match &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Spawns a worker; its failure ends the measurement.
    pub(super) fn work<T: Send + 'static>(
        self: &Arc<Self>,
        worker: impl Future<Output = Result<T, BenchError>> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let course = Arc::clone(self);
        self.tasks.spawn(async move { worker.await.map_err(|error| course.fail(error)).ok() })
    }

    /// Measures until the workers are done or the time is over; then waits for the workers.
    pub(super) async fn measure<T>(
        &self,
        common: &Common,
        server: &Server,
        workers: Vec<JoinHandle<Option<T>>>,
        progress: &Progress,
    ) -> Result<(Measured, Vec<T>), BenchError> {
        let mut all = Box::pin(futures_util::future::join_all(workers));
        if common.count.is_none() {
            self.begun.cancel();
            tokio::select! {
                () = sleep(common.warmup) => {}
                () = self.over.cancelled() => {}
            }
        }
        let before = server.usage();
        let start = Instant::now();
        self.measuring.store(true, Ordering::Relaxed);
        self.begun.cancel();
        let mut finished = None;
        while start.elapsed() < common.duration && finished.is_none() && !self.over.is_cancelled() {
            let left = common.duration.saturating_sub(start.elapsed());
            tokio::select! {
                done = &mut all => finished = Some(done),
                () = sleep(PROGRESS_EVERY.min(left)) => {
                    progress.tell(self.items.load(Ordering::Relaxed), start.elapsed(), left);
                }
                () = self.over.cancelled() => {}
            }
        }
        self.measuring.store(false, Ordering::Relaxed);
        let seconds = start.elapsed().as_secs_f64();
        let after = server.usage();
        self.over.cancel();
        let done = match finished {
            Some(done) => done,
            None => all.await,
        };
        self.check()?;
        let done: Option<Vec<T>> = done.into_iter().map(|worker| worker.ok().flatten()).collect();
        let done = done.ok_or_else(|| BenchError::Setup("a worker of the bench panicked".to_owned()))?;
        let usage = before.zip(after).map(|(before, after)| {
            let used = after - before;
            Usage { cpu: used.cpu, written: used.written, ..after }
        });
        let measured = Measured {
            seconds,
            items: self.items.load(Ordering::Relaxed),
            operations: self.operations.load(Ordering::Relaxed),
            usage,
            errors: self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        Ok((measured, done))
    }
}

impl Progress {
    /// Says in which phase it is.
    pub(super) fn phase(&self, what: &str) {
        (self.0)(what);
    }

    fn tell(&self, items: u64, for_now: Duration, left: Duration) {
        let per_second = items as f64 / for_now.as_secs_f64();
        (self.0)(&format!("{items} so far, {per_second:.0}/s, at most {:.0} s left", left.as_secs_f64()));
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
