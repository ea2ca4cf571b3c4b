//! What handlers work with.

use std::future::Future;
use std::sync::Arc;

use super::options::ServerOptions;
use super::streams::StreamSlots;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::services::admission::Admission;
use crate::services::alerts::Alerts;
use crate::services::audit_log::AuditLog;
use crate::services::deliveries::Deliveries;
use crate::services::follow::Follow;
use crate::services::forward::Forwarder;
use crate::services::ingest::Ingest;
use crate::services::introductions::Introductions;
use crate::services::links::Links;
use crate::services::own_keys::OwnKeys;
use crate::services::peers::Peers;
use crate::services::roster::Roster;
use crate::services::runs::Runs;
use crate::services::sweep::Sweep;
use crate::services::tokens::Tokens;
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
    /// This process.
    pub instance: String,
    /// The domain it belongs to.
    pub domain: String,
    /// A digest of its policy: two gateways of one domain that differ in it should not.
    pub policy_digest: String,
}

/// Every service a handler may call.
pub struct Services {
    /// The one door.
    pub admission: Admission,
    /// The tokens of clients and operators.
    pub tokens: Tokens,
    /// Who takes part.
    pub roster: Roster,
    /// Takes the word of hubs for who is to take part.
    pub introductions: Introductions,
    /// The gateway's own keys.
    pub own_keys: OwnKeys,
    /// The trail.
    pub audit: AuditLog,
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
    /// The way to each of them.
    pub links: Links,
    /// Forwards, over all tenants.
    pub deliveries: Deliveries,
    /// What wants attention.
    pub alerts: Alerts,
    /// Proves that the log can be written, and measures it.
    pub sweep: Sweep,
    /// Who this gateway is.
    pub identity: GatewayIdentity,
    /// The open event streams, over all listeners.
    pub slots: StreamSlots,
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
}

impl State {
    /// Sees a change through to its end, whether or not its caller waits: half of it on disk and the other half
    /// not in force would be a revocation that does not hold.
    pub(super) async fn see_through<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let stopped = |_| Problem::new(ErrorCode::Unavailable, "the gateway is stopping");
        self.tasks.spawn(change).await.unwrap_or_else(|error| Err(stopped(error)))
    }
}

impl std::ops::Deref for State {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}
