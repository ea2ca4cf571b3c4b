//! Everything spawned is tracked here and stops on a token: the one place that spawns.
//!
//! Shutdown has two steps. *Draining* says "take no new work, close streams at a frame boundary";
//! *stopping* says "now". A task that ignores both is waited for until the shutdown timeout.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::mutants::mutant;

/// The tasks of one gateway.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    draining: CancellationToken,
    stopping: CancellationToken,
    held: Arc<AtomicBool>,
    mortal: Option<Arc<Mortal>>,
}

/// Tasks that can be killed.
#[derive(Debug, Default)]
struct Mortal {
    tasks: Mutex<Vec<AbortHandle>>,
    killed: AtomicBool,
}

impl Tasks {
    /// Tasks that never leave the thread of their runtime, and that [`Tasks::kill`] ends (simulation).
    pub fn on_one_thread() -> Self {
        Tasks { mortal: Some(Arc::default()), ..Tasks::default() }
    }

    /// True when nothing may leave the thread of the runtime.
    pub fn stay_on_one_thread(&self) -> bool {
        self.mortal.is_some()
    }

    /// Drops every task where it stands, as the end of the process would.
    pub fn kill(&self) {
        let Some(mortal) = &self.mortal else { return };
        mortal.killed.store(true, Ordering::Relaxed);
        for task in mortal.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// Spawns a tracked task.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let spawned = tokio::spawn(self.tracker.track_future(task));
        if let Some(mortal) = &self.mortal {
            mortal.note(spawned.abort_handle());
        }
        spawned
    }

    /// Spawns what ends by itself once nobody has a use for it: [`Tasks::stop`] does not wait for it.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn_aside(&self, task: impl Future<Output = ()> + Send + 'static) {
        let spawned = tokio::spawn(task);
        if let Some(mortal) = &self.mortal {
            mortal.note(spawned.abort_handle());
        }
    }

    /// Runs blocking work off the async threads.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self.mortal {
            Some(_) => self.spawn(async move { work() }),
            None => tokio::task::spawn_blocking(work),
        }
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
        (!self.is_held() && !self.draining.is_cancelled()) || mutant("draining_takes_work")
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }
}

impl Mortal {
    fn note(&self, task: AbortHandle) {
        if self.killed.load(Ordering::Relaxed) {
            return task.abort();
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() == tasks.capacity() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }
}
