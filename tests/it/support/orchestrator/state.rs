//! What all connections share: script, truth and runs, under one lock, and a bell rung at each change.
//!
//! Invariant: whoever waits sees every change, since it looks first and the bell cannot ring unheard; nobody
//! holds the lock across an await.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{runs::RunBook, script::Script, truth::Truth};

/// The state, and its bell.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<()>,
    /// What runs do by themselves; it goes on while nothing listens.
    pub(super) executor: TaskTracker,
    /// Ends the executor.
    pub(super) life: CancellationToken,
}

/// Everything that outlives a restart.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) script: Script,
    pub(super) truth: Truth,
    pub(super) book: RunBook,
    /// Breaks the streams open now; replaced when it does.
    pub(super) breaker: CancellationToken,
    /// Holds creates; replaced when it lets them go.
    pub(super) gate: CancellationToken,
}

/// Counts one open events stream for as long as it lives.
pub(super) struct OpenStream {
    shared: Arc<Shared>,
    run_id: String,
}

impl Shared {
    /// An empty state; its executor ends with this token.
    pub(super) fn new(life: CancellationToken) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { state, changes: watch::Sender::new(()), executor: TaskTracker::new(), life })
    }

    /// Reads the state.
    pub(super) fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.lock())
    }

    /// Changes the state and rings the bell.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.changes.send_replace(());
        result
    }

    /// A test that panicked under the lock had changed nothing yet, so the state is still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

impl OpenStream {
    /// Counts a stream of this run.
    pub(super) fn count(shared: &Arc<Shared>, run_id: &str) -> Self {
        shared.change(|state| *state.truth.open_streams.entry(run_id.to_owned()).or_default() += 1);
        Self { shared: Arc::clone(shared), run_id: run_id.to_owned() }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.shared.change(|state| {
            if let Some(open) = state.truth.open_streams.get_mut(&self.run_id) {
                *open -= 1;
            }
        });
    }
}
