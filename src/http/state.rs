//! What handlers work with.

use std::sync::Arc;

use super::options::ServerOptions;
use super::streams::StreamSlots;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::services::admission::Admission;
use crate::services::follow::Follow;
use crate::services::forward::Forwarder;
use crate::services::ingest::Ingest;
use crate::services::peers::Peers;
use crate::services::runs::Runs;
use crate::services::sweep::Sweep;
use crate::tasks::Tasks;

/// Who this gateway says it is.
#[derive(Debug, Clone)]
pub struct GatewayIdentity {
    /// Its own peer id.
    pub stack_id: String,
    /// A label.
    pub environment: String,
    /// Where it stands.
    pub region: String,
    /// For how long a caller's idempotency key is remembered, in milliseconds.
    pub idempotency_retention_ms: u64,
    /// For how long events are kept, in milliseconds.
    pub replay_window_ms: u64,
}

/// Every service a handler may call.
pub struct Services {
    /// The one door.
    pub admission: Admission,
    /// Creates runs.
    pub forwarder: Forwarder,
    /// Finds and cancels runs.
    pub runs: Runs,
    /// Serves events.
    pub follow: Follow,
    /// Takes events.
    pub ingest: Ingest,
    /// The configured peers.
    pub peers: Peers,
    /// Proves that the log can be written, and measures it.
    pub sweep: Sweep,
    /// Who this gateway is.
    pub identity: GatewayIdentity,
    /// Inbound bounds.
    pub options: ServerOptions,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// Whether the gateway drains.
    pub tasks: Tasks,
}

/// The state of the router.
#[derive(Clone)]
pub(super) struct State {
    pub(super) services: Arc<Services>,
    pub(super) slots: StreamSlots,
}

impl std::ops::Deref for State {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}
