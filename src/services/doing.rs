//! How one peer is doing, and since when: what its health calls, its breaker and its streams told of late.
//!
//! Kept in memory and bounded: the newest of each kind, from real calls only.

use std::time::Duration;

use crate::domain::link::{Circuit, LinkFacts, LinkState};
use crate::domain::peer::HealthState;

/// Superseded processes remembered per peer.
const INSTANCES: usize = 16;

/// How a peer did when it was last asked.
#[derive(Debug, Clone)]
pub struct Health {
    /// From real calls only.
    pub state: HealthState,
    /// Why, when it is not healthy.
    pub reason: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub checked_at_ms: Option<i64>,
    /// The call was answered, with whatever.
    pub answered: bool,
}

/// Something that went wrong, and when, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mishap {
    /// When.
    pub at_ms: i64,
    /// A sentence.
    pub reason: String,
}

/// Sequences that the peer passed over for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// How many, since this process began.
    pub sequences: u64,
    /// The last time, in milliseconds since the Unix epoch.
    pub at_ms: Option<i64>,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Doing {
    /// The last health call.
    pub health: Health,
    /// Its breaker, when it was last used.
    pub circuit: Circuit,
    /// Since when the breaker has not been closed, in milliseconds since the Unix epoch.
    pub circuit_since_ms: Option<i64>,
    /// The one word for all of it.
    pub link: LinkState,
    /// Since when that word holds, as far as this process saw, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// How long the last answered health call took.
    pub latency: Option<Duration>,
    /// When it last answered a call of ours, in milliseconds since the Unix epoch.
    pub answered_at_ms: Option<i64>,
    /// What last went wrong with it.
    pub last_error: Option<Mishap>,
    /// When two processes last spoke as this peer, in milliseconds since the Unix epoch.
    pub conflict_at_ms: Option<i64>,
    /// The end of the certificate it last showed us, in milliseconds since the Unix epoch.
    pub certificate_ends_ms: Option<i64>,
    /// Sequences that it passed over for good.
    pub given_up: GivenUp,
    /// It is of this domain and has another policy.
    pub drifts: bool,
    /// The digest of its policy, when it said one.
    pub(super) policy_digest: Option<String>,
    instances: Instances,
}

/// The processes that spoke as this peer: one that was superseded must not come back.
#[derive(Debug, Clone, Default)]
struct Instances {
    current: Option<String>,
    superseded: Vec<String>,
}

impl Doing {
    /// Of a peer that nothing has been asked of yet.
    pub(super) fn since(now_ms: i64) -> Self {
        let health =
            Health { state: HealthState::Unknown, reason: None, checked_at_ms: None, answered: false };
        Doing {
            health,
            circuit: Circuit::Closed,
            circuit_since_ms: None,
            link: LinkState::Unknown,
            since_ms: now_ms,
            latency: None,
            answered_at_ms: None,
            last_error: None,
            conflict_at_ms: None,
            certificate_ends_ms: None,
            given_up: GivenUp::default(),
            drifts: false,
            policy_digest: None,
            instances: Instances::default(),
        }
    }

    /// Takes the word for how it all stands now.
    pub(super) fn judge(&mut self, facts: LinkFacts, now_ms: i64) {
        let link = facts.state();
        if link != self.link {
            (self.link, self.since_ms) = (link, now_ms);
        }
    }

    /// Takes what the breaker learned.
    pub(super) fn set_circuit(&mut self, circuit: Circuit, now_ms: i64) {
        self.circuit = circuit;
        self.circuit_since_ms = match circuit {
            Circuit::Closed => None,
            Circuit::HalfOpen | Circuit::Open => Some(self.circuit_since_ms.unwrap_or(now_ms)),
        };
    }

    /// Takes note of the process that speaks as this peer; false when it is one that another had superseded:
    /// then two processes share one identity.
    pub(super) fn note_instance(&mut self, instance: &str, now_ms: i64) -> bool {
        let instances = &mut self.instances;
        if instances.current.as_deref() == Some(instance) {
            return true;
        }
        if instances.superseded.iter().any(|before| before == instance) {
            self.conflict_at_ms = Some(now_ms);
            return false;
        }
        if let Some(before) = instances.current.replace(instance.to_owned()) {
            if instances.superseded.len() == INSTANCES {
                instances.superseded.remove(0);
            }
            instances.superseded.push(before);
        }
        true
    }
}
