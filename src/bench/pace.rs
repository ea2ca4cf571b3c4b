//! When requests are due: at once, or on a schedule that waits for nobody.

use std::thread;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Requests that are due and were not taken are kept; a generator that is this far behind measures nothing any more.
const MOST_WAITING: usize = 100_000;

/// The source of requests for all workers.
#[derive(Debug)]
pub(super) enum Pace {
    /// As fast as answers come.
    Closed,
    /// On a schedule.
    Open(Mutex<mpsc::Receiver<Instant>>),
}

impl Pace {
    /// A schedule of `rate` requests per second, or none. It begins now and ends with `over`.
    pub(super) fn new(rate: Option<f64>, over: &CancellationToken) -> Self {
        let Some(rate) = rate else { return Pace::Closed };
        let (due, taken) = mpsc::channel(MOST_WAITING);
        let (start, over) = (Instant::now(), over.clone());
        // A thread of its own: the timers of the runtime round up to a millisecond.
        thread::spawn(move || {
            for number in 0_u64.. {
                let at = start + Duration::from_secs_f64(number as f64 / rate);
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if over.is_cancelled() || due.blocking_send(at).is_err() {
                    return;
                }
            }
        });
        Pace::Open(Mutex::new(taken))
    }

    /// When the next request is due: now, or a moment that may have passed. `None`: no more.
    pub(super) async fn next(&self) -> Option<Instant> {
        match self {
            Pace::Closed => Some(Instant::now()),
            Pace::Open(due) => due.lock().await.recv().await,
        }
    }

    /// One more that is due already, on a schedule.
    pub(super) async fn overdue(&self) -> Option<Instant> {
        match self {
            Pace::Closed => None,
            Pace::Open(due) => due.lock().await.try_recv().ok(),
        }
    }
}
