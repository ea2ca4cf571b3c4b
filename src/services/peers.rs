//! The peers an operator configured: what each can take, how it is doing, and which one a forward goes to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::options::{ForwardOptions, PeerOptions};
use crate::clock::Clock;
use crate::domain::breaker::{Breaker, BreakerOptions, BreakerState, Outcome, Permit};
use crate::domain::id::PeerId;
use crate::domain::peer::{Capabilities, HealthState, ORCHESTRATOR_FEATURES, PeerKind};
use crate::domain::retry_budget::RetryBudget;
use crate::domain::secret::Secret;
use crate::entropy::Entropy;
use crate::metrics::{Metrics, PeerLabel};
use crate::outbound::{BuildError, PeerClient, options::OutboundOptions};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::forward_request::TargetSelector;
use crate::protocol::problem::Problem;

/// Retries allowed on top of requests, and the floor below which they are always allowed.
const RETRY_RATIO: f64 = 0.2;
const RETRY_FLOOR_PER_SECOND: f64 = 3.0;
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// How a peer did when it was last asked.
#[derive(Debug, Clone)]
pub struct Health {
    /// From real calls only.
    pub state: HealthState,
    /// Why, when it is not healthy.
    pub reason: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub checked_at_ms: Option<i64>,
}

/// One configured peer.
pub struct Peer {
    /// What the operator said of it.
    pub options: PeerOptions,
    /// The way to it.
    pub client: PeerClient,
    breaker: Mutex<Breaker>,
    budget: Mutex<RetryBudget>,
    in_flight: Arc<Semaphore>,
    in_flight_limit: usize,
    waiting: Semaphore,
    health: Mutex<Health>,
    capabilities: Mutex<Capabilities>,
    retention: Mutex<Duration>,
    clock: Clock,
    entropy: Entropy,
    metrics: Arc<Metrics>,
}

/// Every configured peer.
#[derive(Clone)]
pub struct Peers {
    by_id: Arc<HashMap<PeerId, Arc<Peer>>>,
    sorted: Arc<[Arc<Peer>]>,
}

impl Peers {
    /// Prepares the configured peers; nothing is called yet.
    pub fn new(
        configured: &[PeerOptions],
        outbound: &OutboundOptions,
        forward: &ForwardOptions,
        (clock, entropy): (&Clock, &Entropy),
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BuildError> {
        let mut sorted = Vec::new();
        for options in configured {
            let client = PeerClient::new(
                options.peer_id.as_str(),
                &options.base_url,
                options.token.as_ref().map(Secret::expose),
                outbound,
            )?;
            sorted.push(Arc::new(Peer {
                client,
                breaker: Mutex::new(Breaker::new(BreakerOptions::default())),
                budget: Mutex::new(RetryBudget::new(RETRY_RATIO, RETRY_FLOOR_PER_SECOND, RETRY_WINDOW)),
                in_flight: Arc::new(Semaphore::new(forward.in_flight_per_peer)),
                in_flight_limit: forward.in_flight_per_peer,
                waiting: Semaphore::new(forward.waiting_per_peer),
                health: Mutex::new(Health { state: HealthState::Unknown, reason: None, checked_at_ms: None }),
                capabilities: Mutex::new(assumed_capabilities(options)),
                retention: Mutex::new(options.idempotency_retention),
                clock: clock.clone(),
                entropy: entropy.clone(),
                metrics: Arc::clone(metrics),
                options: options.clone(),
            }));
        }
        sorted.sort_by(|left, right| left.options.peer_id.cmp(&right.options.peer_id));
        let by_id = sorted.iter().map(|peer| (peer.options.peer_id.clone(), Arc::clone(peer))).collect();
        Ok(Peers { by_id: Arc::new(by_id), sorted: Arc::from(sorted) })
    }

    /// The peer with this id.
    pub fn find(&self, id: &PeerId) -> Option<&Arc<Peer>> {
        self.by_id.get(id)
    }

    /// All of them, by id.
    pub fn all(&self) -> &[Arc<Peer>] {
        &self.sorted
    }

    /// The peer marked `local`: the orchestrator face forwards to it.
    pub fn local(&self) -> Result<&Arc<Peer>, Problem> {
        self.sorted.iter().find(|peer| peer.options.local).ok_or_else(|| {
            Problem::new(
                ErrorCode::PeerNotFound,
                "this gateway has no local orchestrator: mark one of its peers `local = true`",
            )
        })
    }

    /// Chooses where a forward goes: the named peer if it fits, else the fitting peer with the fewest
    /// forwards in flight.
    pub fn select(&self, selector: &TargetSelector) -> Result<Arc<Peer>, Problem> {
        if let Some(name) = &selector.stack_id {
            let peer = PeerId::parse(name).ok().and_then(|id| self.find(&id).cloned()).ok_or_else(|| {
                Problem::new(ErrorCode::PeerNotFound, format!("no peer `{}` is enrolled", shown(name)))
                    .with("field", "forward.target_selector.stack_id")
            })?;
            return match peer.misfit(selector) {
                None => Ok(peer),
                Some(problem) => Err(problem),
            };
        }
        let mut misfit = None;
        let mut fitting: Vec<&Arc<Peer>> = Vec::new();
        for peer in self.sorted.iter() {
            match peer.misfit(selector) {
                None => fitting.push(peer),
                Some(problem) => misfit = Some(problem),
            }
        }
        let healthy = fitting.iter().filter(|peer| peer.health().state.may_be_chosen());
        if let Some(peer) = healthy.min_by_key(|peer| (peer.in_flight(), !prefers(peer, selector))) {
            return Ok(Arc::clone(peer));
        }
        match misfit {
            Some(problem) if fitting.is_empty() => Err(problem),
            None if fitting.is_empty() => {
                Err(Problem::new(ErrorCode::PeerNotFound, "this gateway has no peers"))
            }
            _ => Err(Problem::new(ErrorCode::Unavailable, "no peer that fits is healthy")
                .with("outcome", "not_started")
                .retry_after(Duration::from_secs(5))),
        }
    }
}

fn prefers(peer: &Peer, selector: &TargetSelector) -> bool {
    match &selector.preferred_model_tier {
        Some(tier) => lock(&peer.capabilities).model_tiers.contains(tier),
        None => true,
    }
}

/// A caller's text, fit for a sentence.
fn shown(text: &str) -> String {
    crate::domain::limits::clean_reason(text).chars().take(128).collect()
}

fn assumed_capabilities(options: &PeerOptions) -> Capabilities {
    if !options.capabilities.is_empty() {
        return Capabilities::new(options.capabilities.iter().map(String::as_str));
    }
    Capabilities::new(ORCHESTRATOR_FEATURES)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a peer cannot take a create right now: nothing has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The breaker is open; try again after this long.
    CircuitOpen(Duration),
    /// Too many creates are in flight and waiting.
    Busy,
}

impl Peer {
    /// Its id.
    pub fn id(&self) -> &PeerId {
        &self.options.peer_id
    }

    fn misfit(&self, selector: &TargetSelector) -> Option<Problem> {
        let unsupported = |message: String| Problem::new(ErrorCode::CapabilityUnsupported, message);
        // A peer chosen by name whose region nobody configured is taken at its name.
        let unsaid = selector.stack_id.is_some() && self.options.region.is_empty();
        if let Some(region) = selector.region.as_ref().filter(|region| **region != self.options.region)
            && !unsaid
        {
            let message = format!(
                "peer `{}` is in region `{}`, not `{}`",
                self.id(),
                self.options.region,
                shown(region)
            );
            return Some(unsupported(message).with("field", "forward.target_selector.region"));
        }
        let capabilities = lock(&self.capabilities);
        let missing = capabilities.missing(&selector.required_capabilities);
        if missing.is_empty() {
            return None;
        }
        let named = missing.iter().map(|name| shown(name)).collect::<Vec<_>>();
        let message = format!("peer `{}` lacks: {}", self.id(), named.join(", "));
        Some(
            unsupported(message)
                .with("field", "forward.target_selector.required_capabilities")
                .with("missing", named),
        )
    }

    /// Waits for a place among the creates in flight; refuses at once when too many wait already.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        match Arc::clone(&self.in_flight).try_acquire_owned() {
            Ok(permit) => return Ok(permit),
            Err(TryAcquireError::Closed) => return Err(Refusal::Busy),
            Err(TryAcquireError::NoPermits) => {}
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| Refusal::Busy)?;
        Arc::clone(&self.in_flight).acquire_owned().await.map_err(|_| Refusal::Busy)
    }

    /// Creates in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight_limit - self.in_flight.available_permits().min(self.in_flight_limit)
    }

    /// Asks the breaker for leave to call.
    pub fn ask_breaker(&self) -> Result<Permit, Refusal> {
        let chance = self.entropy.fraction();
        let answer = lock(&self.breaker).try_acquire(self.clock.monotonic(), chance);
        self.show_circuit();
        answer.map_err(Refusal::CircuitOpen)
    }

    /// Tells the breaker how a call went.
    pub fn tell_breaker(&self, permit: Permit, outcome: Outcome) {
        let chance = self.entropy.fraction();
        lock(&self.breaker).record(permit, outcome, self.clock.monotonic(), chance);
        self.show_circuit();
    }

    fn show_circuit(&self) {
        let value = match lock(&self.breaker).state(self.clock.monotonic()) {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open { .. } => 2,
        };
        self.metrics.circuit_state.get_or_create(&self.label()).set(value);
    }

    /// Counts a first attempt, which earns budget for retries.
    pub fn earn_retry(&self) {
        lock(&self.budget).record_request(self.clock.monotonic());
    }

    /// Spends from the retry budget; false when it is used up.
    pub fn spend_retry(&self) -> bool {
        lock(&self.budget).try_retry(self.clock.monotonic())
    }

    /// How it is doing; an open breaker outweighs the last health call.
    pub fn health(&self) -> Health {
        let health = lock(&self.health).clone();
        match lock(&self.breaker).state(self.clock.monotonic()) {
            BreakerState::Open { .. } => Health {
                state: HealthState::Open,
                reason: Some("recent calls failed; the peer rests before it is tried again".to_owned()),
                ..health
            },
            BreakerState::Closed | BreakerState::HalfOpen => health,
        }
    }

    /// When the open breaker lets a probe through, from now.
    pub fn retry_in(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        match lock(&self.breaker).state(now) {
            BreakerState::Open { until } => Some(until.saturating_sub(now)),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        }
    }

    /// Takes the result of a health call.
    pub fn set_health(&self, state: HealthState, reason: Option<String>) {
        let checked_at_ms = Some(self.clock.now_ms());
        let before = std::mem::replace(
            &mut *lock(&self.health),
            Health { state, reason: reason.clone(), checked_at_ms },
        );
        self.metrics.peer_state.get_or_create(&self.label()).set(state as i64);
        if before.state != state {
            let reason = reason.unwrap_or_default();
            tracing::info!(peer.id = %self.id(), from = before.state.as_str(), to = state.as_str(), reason,
                "a peer's health changed");
        }
    }

    /// Takes what the peer says it can do, unless the operator said so first.
    pub fn set_capabilities(&self, capabilities: Capabilities, retention: Option<Duration>) {
        if self.options.capabilities.is_empty() {
            *lock(&self.capabilities) = capabilities;
        }
        if let Some(retention) = retention {
            // The smaller of what the peer promises and what the operator believes.
            *lock(&self.retention) = retention.min(self.options.idempotency_retention);
        }
    }

    /// What it can do, by name.
    pub fn capability_names(&self) -> Vec<String> {
        lock(&self.capabilities).names().map(str::to_owned).collect()
    }

    /// For how long a repeated key creates no second run there.
    pub fn idempotency_retention(&self) -> Duration {
        *lock(&self.retention)
    }

    /// True when the peer speaks for other orchestrators and sends our control frames.
    pub fn is_gateway(&self) -> bool {
        self.options.kind == PeerKind::Gateway
    }

    /// Its metric label.
    pub fn label(&self) -> PeerLabel {
        PeerLabel { peer: self.id().to_string() }
    }
}
