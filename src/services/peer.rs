//! One peer at work: the way to it, what it may do, what it can take, and how it is doing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio_util::sync::CancellationToken;

use super::doing::Doing;
use super::enrolment::{Enrolment, LearnedKey, accepted_keys, pins};
use super::options::ForwardOptions;
use super::peer_options::PeerOptions;
use crate::clock::Clock;
use crate::domain::breaker::{Breaker, BreakerOptions};
use crate::domain::id::PeerId;
use crate::domain::key::{KeyId, PublicKey};
use crate::domain::peer::{Capabilities, ORCHESTRATOR_FEATURES, PeerKind};
use crate::domain::policy::{PeerFacts, Standing};
use crate::domain::retry_budget::RetryBudget;
use crate::domain::tenant_names::TenantNames;
use crate::entropy::Entropy;
use crate::metrics::{Metrics, PeerLabel};
use crate::mutants::mutant;
use crate::outbound::PeerClient;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::forward_request::TargetSelector;
use crate::protocol::problem::Problem;
use crate::tls::{LivePins, Presented, SpkiPin};

/// Retries allowed on top of requests, and the floor below which they are always allowed.
const RETRY_RATIO: f64 = 0.2;
const RETRY_FLOOR_PER_SECOND: f64 = 3.0;
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// One enrolled peer.
pub struct Peer {
    /// What the operator said of it.
    pub options: PeerOptions,
    /// The way to it.
    pub client: PeerClient,
    /// What the operator decided when the entry was made; [`Peer::decided`] says how it stands now.
    pub enrolment: Enrolment,
    gone: CancellationToken,
    now: Mutex<Now>,
    pins: Arc<LivePins>,
    pub(super) breaker: Mutex<Breaker>,
    budget: Mutex<RetryBudget>,
    in_flight: Arc<Semaphore>,
    in_flight_limit: usize,
    waiting: Semaphore,
    waiting_limit: usize,
    pub(super) doing: Mutex<Doing>,
    capabilities: Mutex<Capabilities>,
    retention: Mutex<Duration>,
    max_body: Mutex<Option<u64>>,
    pub(super) clock: Clock,
    pub(super) entropy: Entropy,
    pub(super) metrics: Arc<Metrics>,
}

/// What changes without a new entry, so that nothing under way is disturbed.
#[derive(Debug, Clone)]
struct Now {
    standing: Standing,
    reason: String,
    learned: Vec<LearnedKey>,
}

/// The capability without which no run is sent to a gateway.
const RUNS_FORWARD: &str = "runs.forward";

fn assumed_capabilities(options: &PeerOptions) -> Capabilities {
    if !options.capabilities.is_empty() {
        return Capabilities::new(options.capabilities.iter().map(String::as_str));
    }
    Capabilities::new(ORCHESTRATOR_FEATURES)
}

/// A caller's text, fit for a sentence.
pub(super) fn shown(text: &str) -> String {
    crate::domain::limits::clean_reason(text).chars().take(128).collect()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
    /// A peer that nothing has been asked of yet.
    pub(super) fn new(
        enrolment: Enrolment,
        (client, pins): (PeerClient, Arc<LivePins>),
        forward: &ForwardOptions,
        (clock, entropy): (&Clock, &Entropy),
        metrics: &Arc<Metrics>,
    ) -> Self {
        let options = enrolment.options.clone();
        Peer {
            client,
            gone: CancellationToken::new(),
            now: Mutex::new(Now {
                standing: enrolment.standing,
                reason: enrolment.reason.clone(),
                learned: enrolment.learned.clone(),
            }),
            pins,
            breaker: Mutex::new(Breaker::new(BreakerOptions::default())),
            budget: Mutex::new(RetryBudget::new(RETRY_RATIO, RETRY_FLOOR_PER_SECOND, RETRY_WINDOW)),
            in_flight: Arc::new(Semaphore::new(forward.in_flight_per_peer)),
            in_flight_limit: forward.in_flight_per_peer,
            waiting: Semaphore::new(forward.waiting_per_peer),
            waiting_limit: forward.waiting_per_peer,
            doing: Mutex::new(Doing::since(clock.now_ms())),
            capabilities: Mutex::new(assumed_capabilities(&options)),
            retention: Mutex::new(options.idempotency_retention),
            max_body: Mutex::default(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            metrics: Arc::clone(metrics),
            options,
            enrolment,
        }
    }

    /// Its id.
    pub fn id(&self) -> &PeerId {
        &self.options.peer_id
    }

    /// What policy is told of it.
    pub fn facts(&self) -> PeerFacts<'_> {
        let Enrolment { domain, region, grants, .. } = &self.enrolment;
        PeerFacts { id: self.id(), domain, region, standing: self.standing(), grants }
    }

    /// What it calls our tenants.
    pub fn tenant_names(&self) -> &TenantNames {
        &self.enrolment.grants.tenant_names
    }

    /// Cancelled when this entry no longer holds: it was changed, revoked or removed.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// True unless it was revoked, or only introduced.
    pub fn takes_part(&self) -> bool {
        matches!(self.standing(), Standing::Active | Standing::Draining)
    }

    /// Whether it takes part, now.
    pub fn standing(&self) -> Standing {
        lock(&self.now).standing
    }

    /// What the operator decided, as it stands now.
    pub fn decided(&self) -> Enrolment {
        let Now { standing, reason, learned } = lock(&self.now).clone();
        Enrolment { standing, reason, learned, ..self.enrolment.clone() }
    }

    /// Begins or ends a drain.
    pub(super) fn set_standing(&self, standing: Standing, reason: &str) {
        let mut now = lock(&self.now);
        now.standing = standing;
        reason.clone_into(&mut now.reason);
    }

    /// Takes the keys it may use besides the one of its entry.
    pub(super) fn set_learned(&self, learned: Vec<LearnedKey>) {
        lock(&self.now).learned = learned;
        self.refresh_pins();
    }

    /// Lets the way to it know which keys count by now.
    pub(super) fn refresh_pins(&self) {
        self.pins.store(Arc::new(self.pins()));
    }

    /// True for a key it announced and has not used before.
    pub(super) fn is_first_use(&self, key: &KeyId) -> bool {
        lock(&self.now).learned.iter().any(|learned| !learned.in_use && learned.public_key.key_id() == *key)
    }

    /// The keys it may prove itself with now.
    pub fn keys(&self) -> Vec<PublicKey> {
        let now = lock(&self.now);
        accepted_keys(self.options.public_key, &now.learned, self.clock.now_ms())
    }

    /// Its key of this id, if that is one it may use now.
    pub fn key(&self, id: &KeyId) -> Option<PublicKey> {
        self.keys().into_iter().find(|key| key.key_id() == *id)
    }

    /// True when a certificate that a client showed is this peer's.
    pub fn shows(&self, presented: &Presented) -> bool {
        let pinned = || self.pins().contains(&presented.pin);
        let named = || {
            let name = &self.options.tls_name;
            !name.is_empty()
                && presented.by_authority
                && presented.names.iter().any(|shown| shown.eq_ignore_ascii_case(name))
        };
        pinned() || named()
    }

    /// The public keys its certificate may have.
    pub fn pins(&self) -> Vec<SpkiPin> {
        pins(&self.decided(), self.clock.now_ms())
    }

    pub(super) fn misfit(&self, selector: &TargetSelector) -> Option<Problem> {
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
        // What a gateway did not declare is not asked of it.
        let forwards = self.is_gateway().then(|| RUNS_FORWARD.to_owned());
        let required: Vec<String> = selector.required_capabilities.iter().cloned().chain(forwards).collect();
        let missing = capabilities.missing(&required);
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

    /// Creates that may be in flight at once.
    pub fn in_flight_limit(&self) -> usize {
        self.in_flight_limit
    }

    /// Creates that wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting_limit - self.waiting.available_permits().min(self.waiting_limit)
    }

    /// Counts a first attempt, which earns budget for retries.
    pub fn earn_retry(&self) {
        lock(&self.budget).record_request(self.clock.monotonic());
    }

    /// Spends from the retry budget; false when it is used up.
    pub fn spend_retry(&self) -> bool {
        mutant("retries_without_budget") || lock(&self.budget).try_retry(self.clock.monotonic())
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

    pub(super) fn has_tier(&self, tier: &str) -> bool {
        lock(&self.capabilities).model_tiers.contains(tier)
    }

    /// What it can do, by name.
    pub fn capability_names(&self) -> Vec<String> {
        lock(&self.capabilities).names().map(str::to_owned).collect()
    }

    /// Takes the largest body it says it takes.
    pub(super) fn set_max_body(&self, most: Option<u64>) {
        *lock(&self.max_body) = most;
    }

    /// The refusal of a body that is larger than the peer takes.
    pub(super) fn refuse_body(&self, size: usize) -> Option<Problem> {
        let most = (*lock(&self.max_body)).filter(|most| size as u64 > *most)?;
        let message = format!("peer `{}` takes bodies of at most {most} bytes", self.id());
        let problem = Problem::new(ErrorCode::PayloadTooLarge, message).with("limit_bytes", most);
        Some(problem.with("peer", self.id().as_str()).with("outcome", "not_started"))
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
