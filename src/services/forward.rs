//! Forwarding a run-create to its home: intent first, one key, bounded retries, one settlement.
//!
//! Invariant: nothing leaves before the intent is on disk, and a forward that has begun is finished by its
//! own task: a caller that hangs up cancels nothing.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::OwnedSemaphorePermit;

use super::admission::{Action, Admission};
use super::attempt::{Cause, problem_of};
use super::drive::{Concluded, Driver};
use super::identity::Caller;
use super::options::ForwardOptions;
use super::outcome::{given_up, key_reused, outcome_unknown, stopped, with_retryability};
use super::peer::{Peer, Refusal};
use super::peers::{Peers, no_such_peer};
use super::quota_gate::QuotaGate;
use super::turns::Turn;
use crate::clock::{Clock, left, millis};
use crate::domain::forward::ForwardState;
use crate::domain::id::{AgentId, ForwardId};
use crate::domain::limits;
use crate::domain::policy::{Denial, Rule};
use crate::entropy::Entropy;
use crate::failpoint;
use crate::metrics::{Metrics, Reason};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::forward_request::TargetSelector;
use crate::protocol::problem::Problem;
use crate::store::{Reserved, Store};
use crate::tasks::Tasks;

pub use crate::store::{AttemptRecord, ForwardRecord};

/// A run to create, as a caller asked for it.
#[derive(Debug, Clone)]
pub struct ForwardCommand {
    /// Who asks.
    pub caller: Caller,
    /// Which peer.
    pub target: Target,
    /// The agent that is to run.
    pub agent: AgentId,
    /// What the request means, normalised; two requests under one key must agree on it.
    pub meaning: Vec<u8>,
    /// The caller's key.
    pub key: Option<String>,
    /// `runs:forward` or `runs:create`: keys of one never meet those of the other.
    pub operation: &'static str,
    /// Answer once the intent is durable.
    pub respond_async: bool,
    /// Of the request.
    pub correlation_id: String,
    /// Of the request.
    pub traceparent: String,
    /// The gateways the request came through.
    pub via: Vec<String>,
}

/// Which peer a run goes to.
#[derive(Debug, Clone)]
pub enum Target {
    /// The one this selects.
    Selected(TargetSelector),
    /// The one marked `local`.
    Local,
}

/// How far a forward has come when its caller is answered.
#[derive(Debug)]
pub struct Forwarded {
    /// The forward; its state says whether it is done or under way.
    pub record: ForwardRecord,
    /// The answer was stored by an earlier request with the same key.
    pub replayed: bool,
}

/// Forwards runs.
#[derive(Clone)]
pub struct Forwarder {
    shared: Arc<Shared>,
}

struct Shared {
    driver: Driver,
    admission: Admission,
    store: Store,
    peers: Peers,
    quotas: QuotaGate,
    clock: Clock,
    entropy: Entropy,
    metrics: Arc<Metrics>,
    options: ForwardOptions,
    /// This log, as gateways further on name it when they look for a circle.
    way_mark: String,
    tasks: Tasks,
}

impl Forwarder {
    /// Forwards to `peers`; `driver` does the work.
    pub fn new(
        driver: Driver,
        admission: Admission,
        (store, peers): (Store, Peers),
        (clock, entropy): (Clock, Entropy),
        metrics: Arc<Metrics>,
        (options, quotas, stack_id): (ForwardOptions, QuotaGate, &str),
        tasks: Tasks,
    ) -> Self {
        // Two gateways may bear one stack id, the default say; no two logs bear one incarnation.
        let way_mark = format!("{stack_id}/{}", store.incarnation());
        let shared = Shared {
            driver,
            admission,
            store,
            peers,
            quotas,
            clock,
            entropy,
            metrics,
            options,
            way_mark,
            tasks,
        };
        Forwarder { shared: Arc::new(shared) }
    }

    /// Creates a run at its home and answers with the forward, done or (with `respond_async`) under way.
    pub async fn create(&self, command: ForwardCommand) -> Result<Forwarded, Problem> {
        let result = self.try_create(command).await;
        if let Err(problem) = &result {
            let reason = Reason { reason: problem.code.as_str() };
            self.shared.metrics.forward_failures.get_or_create(&reason).inc();
        }
        result
    }

    async fn try_create(&self, command: ForwardCommand) -> Result<Forwarded, Problem> {
        let begun_ms = self.shared.clock.now_ms();
        // Writing the intent asks for the key again: while there is a place, that is soon enough.
        let place = match self.find_place(&command).now_or_never() {
            Some(Ok(place)) => place,
            // A caller that repeats a key hears of its forward, whatever holds for new ones.
            refused => match (self.find_known(&command).await?, refused) {
                (Some(known), _) => return known,
                (None, Some(Err(problem))) => return Err(problem),
                (None, _) => self.find_place(&command).await?,
            },
        };
        let record = self.intent(&command, &place.peer, begun_ms);
        // Before the intent can be seen: a repeat of the key must not wake what is about to be driven.
        let claim = self.shared.driver.claim(&record.forward_id).expect("a minted id is nobody else's");
        let retention = self.shared.options.idempotency_retention;
        let key_expires_at_ms = command.key.is_some().then_some(record.created_at_ms + millis(retention));
        let quotas = self.shared.quotas.quotas();
        let reserved = self.shared.store.reserve_forward(record, key_expires_at_ms, quotas).await?;
        failpoint::reached("forward::after_intent");
        match reserved {
            Reserved::KeyReused => Err(key_reused()),
            Reserved::QuotaExceeded(exceeded) => {
                Err(self.shared.quotas.refuse(&command.caller.tenant, &exceeded))
            }
            Reserved::Known(known) => self.replay(*known),
            Reserved::New(record) if command.respond_async => {
                self.shared.driver.spawn((*record).clone(), Arc::clone(&place.peer), None, claim);
                Ok(Forwarded { record: *record, replayed: false })
            }
            Reserved::New(record) => {
                let (record, problem) = self.wait_for(*record, place, claim).await?;
                match problem {
                    None => Ok(Forwarded { record, replayed: false }),
                    Some(problem) => Err(with_retryability(problem, command.key.is_some())),
                }
            }
        }
    }

    /// Waits for a forward no longer than its caller's deadline. What has left goes on without the caller.
    async fn wait_for(
        &self,
        record: ForwardRecord,
        place: ChosenPlace,
        claim: Turn,
    ) -> Result<Concluded, Problem> {
        let left = left(record.deadline_at_ms, self.shared.clock.now_ms());
        let done = self.shared.driver.spawn(record.clone(), place.peer, place.permit, claim);
        match tokio::time::timeout(left, done).await {
            Ok(done) => done.map_err(|_| stopped()),
            Err(_) => {
                let problem = outcome_unknown(&record);
                Ok((record, Some(problem)))
            }
        }
    }

    /// Chooses a peer and waits for a place there. Nothing is written yet, so a refusal here is whole.
    async fn find_place(&self, command: &ForwardCommand) -> Result<ChosenPlace, Problem> {
        if !self.shared.tasks.takes_work() {
            let problem = Problem::new(ErrorCode::Draining, "the gateway takes no new work");
            return Err(problem.with("outcome", "not_started").retry_after(Duration::from_secs(5)));
        }
        self.refuse_circle(command)?;
        let peer = self.choose_peer(command)?;
        if let Some(problem) = peer.refuse_body(command.meaning.len()) {
            return Err(problem);
        }
        if command.respond_async {
            return Ok(ChosenPlace { peer, permit: None });
        }
        if let Some(wait) = peer.retry_in() {
            return Err(problem_of(&peer, &Cause::Refused(Refusal::CircuitOpen(wait))));
        }
        let entered = tokio::time::timeout(self.shared.options.deadline, peer.enter()).await;
        match entered.unwrap_or(Err(Refusal::Busy)) {
            Ok(permit) => Ok(ChosenPlace { peer, permit: Some(permit) }),
            Err(refusal) => {
                self.shared.metrics.backpressure.get_or_create(&Reason { reason: "peer_in_flight" }).inc();
                Err(problem_of(&peer, &Cause::Refused(refusal)))
            }
        }
    }

    /// Chooses among the peers that may take work of this tenant for this agent.
    fn choose_peer(&self, command: &ForwardCommand) -> Result<Arc<Peer>, Problem> {
        let (tenant, agent) = (command.caller.tenant.as_str(), command.agent.as_str());
        let region = match &command.target {
            Target::Selected(selector) => selector.region.as_deref(),
            Target::Local => None,
        };
        let may = |peer: &Peer| self.shared.admission.may_forward(&command.caller, peer, agent, region);
        let refused = |peer: &Peer, denial: Denial| match denial.rule {
            // A peer that is not for this tenant is not there.
            Rule::TenantNotGranted => no_such_peer(peer.id().as_str()),
            _ => {
                let subject = (command.caller.subject(), tenant);
                self.shared.admission.refuse(denial, subject, Action::CreateRun, &command.correlation_id)
            }
        };
        match &command.target {
            Target::Selected(selector) => self.shared.peers.select(selector, may, refused),
            Target::Local => {
                let peer = self.shared.peers.local()?;
                may(&peer).map_err(|denial| refused(&peer, denial))?;
                Ok(peer)
            }
        }
    }

    /// Refuses a request that came through here before, or through too many gateways.
    fn refuse_circle(&self, command: &ForwardCommand) -> Result<(), Problem> {
        let before = command.via.iter().any(|gateway| *gateway == self.shared.way_mark);
        if !before && command.via.len() < limits::HOPS {
            return Ok(());
        }
        let way = command.via.join(" → ");
        let message = if before {
            format!("the request came through here before ({way}): the gateways forward in a circle")
        } else {
            format!("the request came through {} gateways, the most it may ({way})", limits::HOPS)
        };
        Err(Problem::new(ErrorCode::LoopDetected, message).with("outcome", "not_started"))
    }

    async fn find_known(
        &self,
        command: &ForwardCommand,
    ) -> Result<Option<Result<Forwarded, Problem>>, Problem> {
        let Some(key) = &command.key else { return Ok(None) };
        let key = self.downstream_key(&command.caller, command.operation, key);
        let known = self.shared.store.find_by_key(&key).await?;
        Ok(match known {
            Some(known) if !known.means(&command.meaning) => Some(Err(key_reused())),
            Some(known) if !known.may_be_tried_again() => Some(self.replay(known)),
            _ => None,
        })
    }

    fn intent(&self, command: &ForwardCommand, peer: &Peer, begun_ms: i64) -> ForwardRecord {
        let shared = &self.shared;
        let now_ms = shared.clock.now_ms();
        let deadline =
            if command.respond_async { shared.options.background_deadline } else { shared.options.deadline };
        let deadline_at_ms = begun_ms + millis(deadline);
        let id = shared.entropy.id("fwd", now_ms);
        let forward_id = ForwardId::parse(&id).expect("a minted id is an id");
        let downstream_key = match &command.key {
            Some(key) => self.downstream_key(&command.caller, command.operation, key),
            None => self.downstream_key(&command.caller, "forward", &id),
        };
        ForwardRecord {
            downstream_key,
            forward_id,
            tenant: command.caller.tenant.clone(),
            principal: command.caller.principal.clone(),
            peer: peer.id().clone(),
            agent: command.agent.clone(),
            request: command.meaning.clone(),
            state: if command.respond_async { ForwardState::Reserved } else { ForwardState::Sending },
            outcome: None,
            background: command.respond_async,
            correlation_id: command.correlation_id.clone(),
            traceparent: command.traceparent.clone(),
            via: self.via(command),
            attempts: Vec::new(),
            attempts_total: 0,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            first_sent_at_ms: (!command.respond_async).then_some(now_ms),
            deadline_at_ms,
            // While a task is at work nobody else is due; a crash leaves it due soon enough.
            next_attempt_at_ms: Some(now_ms + millis(shared.options.deadline) + 1000),
            run_id: None,
            remote_run_id: None,
            remote_events_url: None,
            run_status: None,
            answer: None,
            error: None,
        }
    }

    /// The way of the request, with this gateway added.
    fn via(&self, command: &ForwardCommand) -> String {
        let own = std::iter::once(&*self.shared.way_mark);
        command.via.iter().map(String::as_str).chain(own).collect::<Vec<_>>().join(",")
    }

    /// The one key for every attempt: from the caller's key where there is one, so that even a gateway
    /// restored from an older backup asks for the same run; scoped so that no two callers ever meet.
    fn downstream_key(&self, caller: &Caller, scope: &str, key: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.shared.store.gateway_secret())
            .expect("HMAC takes a key of any length");
        for part in [caller.tenant.as_str(), caller.principal.as_str(), scope, key] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// Answers a repeated key.
    fn replay(&self, known: ForwardRecord) -> Result<Forwarded, Problem> {
        if known.state == ForwardState::Forwarded {
            return Ok(Forwarded { record: known, replayed: true });
        }
        if known.state.is_at_rest() {
            let stored = known.error.as_deref().and_then(|text| serde_json::from_str::<Problem>(text).ok());
            let problem = stored.unwrap_or_else(|| given_up(&known));
            return Err(problem.with("replayed", true));
        }
        self.shared.driver.wake(&known);
        let message = "the forward of this idempotency key is still at work; ask again, or look at it";
        Err(Problem::new(ErrorCode::RequestInProgress, message)
            .with("forward_id", known.forward_id.as_str())
            .retry_after(Duration::from_secs(1)))
    }

    /// The forward, if the caller may see it.
    pub async fn find(&self, caller: &Caller, id: &ForwardId) -> Result<ForwardRecord, Problem> {
        let found = self.shared.store.find_forward(&caller.tenant, id).await?;
        found.filter(|forward| caller.may_see(Some(&forward.principal))).ok_or_else(|| {
            Problem::new(ErrorCode::NotFound, "there is no such forward").with("field", "forward_id")
        })
    }
}

struct ChosenPlace {
    peer: Arc<Peer>,
    permit: Option<OwnedSemaphorePermit>,
}
