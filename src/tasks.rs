//! Everything spawned is tracked here and stops on a token: the one place that spawns.
//!
//! Shutdown has two steps. *Draining* says "take no new work, close streams at a frame boundary";
//! *stopping* says "now". A task that ignores both is waited for until the shutdown timeout.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one gateway.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    draining: CancellationToken,
    stopping: CancellationToken,
    held: Arc<AtomicBool>,
}

impl Tasks {
    /// Spawns a tracked task.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::spawn(self.tracker.track_future(task))
    }

    /// Runs blocking work off the async threads.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        tokio::task::spawn_blocking(work)
    }

    /// Cancelled when the gateway starts to drain.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled when every task must end.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Starts to drain: new work is refused, streams close at a frame boundary.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Stops every task and waits for all of them.
    pub async fn stop(&self) {
        self.draining.cancel();
        self.stopping.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Holds new work off, or takes it again, while everything under way goes on.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// True while an operator holds new work off.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// True when new work is welcome.
    pub fn takes_work(&self) -> bool {
        !self.is_held() && !self.draining.is_cancelled()
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }
}
