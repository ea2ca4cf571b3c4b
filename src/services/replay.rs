//! No signed request is taken twice: its nonce is remembered for as long as the signature could be used.
//!
//! A request that changes something is taken only once its nonce is on disk, so that a restart forgets none;
//! should the gateway die between nonce and effect, the sender signs its next attempt anew. The nonce of a
//! request that only reads goes to disk in its own time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;
use crate::domain::key::KeyId;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// Nonces held in memory; the peers' rates keep the number far below.
const MOST: usize = 200_000;

/// The nonces of late.
#[derive(Clone)]
pub(super) struct Replay {
    store: Store,
    clock: Clock,
    tasks: Tasks,
    seen: Arc<Mutex<HashMap<(KeyId, String), i64>>>,
}

impl Replay {
    /// Remembers in `store`.
    pub(super) fn new(store: Store, clock: Clock, tasks: Tasks) -> Self {
        Replay { store, clock, tasks, seen: Arc::default() }
    }

    /// Remembers a nonce; false when it is known.
    pub(super) async fn note(
        &self,
        key: KeyId,
        nonce: &str,
        until_ms: i64,
        changes: bool,
    ) -> Result<bool, StoreError> {
        if !self.remember(key, nonce, until_ms)? {
            return Ok(false);
        }
        let (store, key, nonce) = (self.store.clone(), key.to_string(), nonce.to_owned());
        if changes {
            return store.keep_nonce(&key, &nonce, until_ms).await;
        }
        // In this life memory refuses a second use; over a restart the disk does, all but always in time.
        if store.knows_nonce(&key, &nonce).await? {
            return Ok(false);
        }
        self.tasks.spawn(async move {
            if let Err(error) = store.keep_nonce(&key, &nonce, until_ms).await {
                tracing::debug!(error = %error, "the nonce of a read was not kept");
            }
        });
        Ok(true)
    }

    fn remember(&self, key: KeyId, nonce: &str, until_ms: i64) -> Result<bool, StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST {
            let now_ms = self.clock.now_ms();
            seen.retain(|_, until_ms| *until_ms > now_ms);
        }
        if seen.len() >= MOST {
            return Err(StoreError::Overloaded);
        }
        Ok(seen.insert((key, nonce.to_owned()), until_ms).is_none())
    }
}
