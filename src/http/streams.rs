//! How many event streams may be open: in all, and per principal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::metrics::{Metrics, Reason};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::services::identity::Caller;

/// The open streams, counted.
#[derive(Clone)]
pub struct StreamSlots {
    inner: Arc<Inner>,
}

struct Inner {
    most: usize,
    most_per_principal: usize,
    open: Mutex<Open>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Open {
    all: usize,
    /// Only principals with an open stream have an entry.
    by_principal: HashMap<(String, String), usize>,
}

/// One open stream; dropping it closes the count.
pub(super) struct StreamSlot {
    inner: Arc<Inner>,
    principal: (String, String),
}

impl StreamSlots {
    /// At most so many in all and per principal.
    pub fn new(most: usize, most_per_principal: usize, metrics: Arc<Metrics>) -> Self {
        let open = Mutex::default();
        StreamSlots { inner: Arc::new(Inner { most, most_per_principal, open, metrics }) }
    }

    /// Takes a slot, or says which bound was reached.
    pub(super) fn take(&self, caller: &Caller) -> Result<StreamSlot, Problem> {
        let principal = (caller.tenant.to_string(), caller.principal.to_string());
        let mut open = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.by_principal.get(&principal).copied().unwrap_or(0);
        let refuse = |code, reason, message: String| {
            self.inner.metrics.backpressure.get_or_create(&Reason { reason }).inc();
            Err(Problem::new(code, message).retry_after(Duration::from_secs(5)))
        };
        if own >= self.inner.most_per_principal {
            let message = format!("this principal has {own} event streams open, the most it may have");
            return refuse(ErrorCode::TooManyStreams, "streams_per_principal", message);
        }
        if open.all >= self.inner.most {
            let message = format!("the gateway has {} event streams open, the most it may have", open.all);
            return refuse(ErrorCode::Busy, "streams", message);
        }
        open.all += 1;
        *open.by_principal.entry(principal.clone()).or_default() += 1;
        self.inner.metrics.streams_open.inc();
        Ok(StreamSlot { inner: Arc::clone(&self.inner), principal })
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut open = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(own) = open.by_principal.get_mut(&self.principal) {
            *own -= 1;
            if *own == 0 {
                open.by_principal.remove(&self.principal);
            }
        }
        self.inner.metrics.streams_open.dec();
    }
}
