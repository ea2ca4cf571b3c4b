//! Rows of the log that contradict each other or their checksum: told, never served, never repaired.

use std::sync::{Arc, Mutex, PoisonError};

use super::error::StoreError;
use crate::clock::Clock;

/// The damage that was met last, cheap to clone.
#[derive(Clone)]
pub(super) struct Damage {
    clock: Clock,
    last: Arc<Mutex<Option<(i64, String)>>>,
}

impl Damage {
    /// None was met yet.
    pub(super) fn none(clock: &Clock) -> Self {
        Damage { clock: clock.clone(), last: Arc::default() }
    }

    /// Keeps in mind what a read or a unit of work met, and passes its result on.
    pub(super) fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Inconsistent { .. }) = &result {
            let (now_ms, what) = (self.clock.now_ms(), error.to_string());
            let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace((now_ms, what));
            if before.is_none_or(|(_, before)| before != error.to_string()) {
                tracing::error!(error = %error, "the event log is damaged: what belongs to this row is not served");
            }
        }
        result
    }

    /// When damage was last met, in milliseconds since the Unix epoch, and which.
    pub(super) fn last(&self) -> Option<(i64, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
