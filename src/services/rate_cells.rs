//! Where the limiters keep their buckets: a map of bounded size, and one shared bucket for what does not fit.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;

/// Buckets by key, never more than `max`. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Cells<K> {
    max: usize,
    overflowed: Arc<AtomicU64>,
    held: Arc<Mutex<Held<K>>>,
}

#[derive(Debug)]
struct Held<K> {
    by_key: HashMap<K, Nanos>,
    shared: Option<Nanos>,
}

impl<K> Cells<K> {
    /// `overflowed` counts the requests that went to the shared bucket.
    pub(super) fn new(max: usize, overflowed: Arc<AtomicU64>) -> Self {
        let held = Held { by_key: HashMap::new(), shared: None };
        Cells { max, overflowed, held: Arc::new(Mutex::new(held)) }
    }

    /// The bucket `key` is counted in, if anything was counted there yet.
    pub(super) fn peek(&self, key: &K) -> Option<Nanos>
    where
        K: Hash + Eq,
    {
        let held = self.lock();
        let shared = if held.by_key.len() < self.max { None } else { held.shared };
        held.by_key.get(key).copied().or(shared)
    }

    fn lock(&self) -> MutexGuard<'_, Held<K>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> StateStore for Cells<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut held = self.lock();
        if let Some(cell) = held.by_key.get_mut(key) {
            let (outcome, next) = measure(Some(*cell))?;
            *cell = next;
            return Ok(outcome);
        }
        if held.by_key.len() < self.max {
            let (outcome, next) = measure(None)?;
            held.by_key.insert(key.clone(), next);
            return Ok(outcome);
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        let (outcome, next) = measure(held.shared)?;
        held.shared = Some(next);
        Ok(outcome)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for Cells<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.lock().by_key.retain(|_, cell| *cell > drop_below);
    }

    fn shrink_to_fit(&self) {
        self.lock().by_key.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    fn is_empty(&self) -> bool {
        self.lock().by_key.is_empty()
    }
}
