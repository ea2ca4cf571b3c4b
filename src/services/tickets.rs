//! Stream tickets: a browser's EventSource sends no header, so it gets a ticket that opens one stream once.
//!
//! They live in memory: a restart ends them, and a page that holds one asks for the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::identity::Client;
use crate::clock::{Clock, millis};
use crate::entropy::Entropy;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;

/// Tickets that may wait to be used.
const MOST: usize = 10_000;
/// What every ticket starts with.
const PREFIX: &str = "cwt_";

/// What each ticket is for and when it ends, by its hash.
type Waiting = HashMap<[u8; 32], (Client, i64)>;

/// The tickets that wait to be used.
#[derive(Clone)]
pub struct Tickets {
    clock: Clock,
    entropy: Entropy,
    lifetime: Duration,
    waiting: Arc<Mutex<Waiting>>,
}

impl Tickets {
    /// None yet.
    pub fn new(clock: Clock, entropy: Entropy, lifetime: Duration) -> Self {
        Tickets { clock, entropy, lifetime, waiting: Arc::default() }
    }

    /// Makes a ticket for what `client` may do; answers it and when it ends.
    pub fn issue(&self, client: Client) -> Result<(String, i64), Problem> {
        let mut random = [0; 32];
        self.entropy.fill(&mut random);
        let ticket = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let now_ms = self.clock.now_ms();
        let ends_ms = now_ms + millis(self.lifetime);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST {
            waiting.retain(|_, (_, ends_ms)| *ends_ms > now_ms);
        }
        if waiting.len() >= MOST {
            let message = "too many stream tickets wait to be used";
            return Err(Problem::new(ErrorCode::Busy, message).retry_after(self.lifetime));
        }
        waiting.insert(hash(&ticket), (client, ends_ms));
        Ok((ticket, ends_ms))
    }

    /// Takes a ticket: it is used now, whatever comes of it.
    pub(super) fn take(&self, ticket: &str) -> Option<Client> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (client, ends_ms) = waiting.remove(&hash(ticket))?;
        (self.clock.now_ms() < ends_ms).then_some(client)
    }
}

fn hash(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}
