//! The task of one forward: attempts until the home has answered or time is up, then the one settlement.
//!
//! Invariant: a forward has at most one task at work, and that task ends with the forward at rest, handed to
//! the reconciler, or, when the gateway stops, as a crash would leave it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::admission::{Action, Admission};
use super::attempt::{Attempted, Cause, Progress, attempt};
use super::options::ForwardOptions;
use super::outcome::{given_up, outcome_unknown};
use super::peer::Peer;
use super::peers::Peers;
use super::pull::Pull;
use super::turns::{Turn, Turns};
use crate::clock::{Clock, left, millis};
use crate::domain::backoff::{Backoff, BackoffError, clamp_retry_after};
use crate::domain::event::RunKey;
use crate::domain::forward::{AttemptOutcome, ForwardState, Patience, Rules, Verdict, decide, state_after};
use crate::domain::id::ForwardId;
use crate::entropy::Entropy;
use crate::failpoint;
use crate::metrics::{Metrics, Outcome};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::forward_request::downstream_body;
use crate::protocol::problem::Problem;
use crate::store::{ForwardRecord, Settlement, Store, StoreError};
use crate::tasks::Tasks;

/// The least pause between two attempts that nobody waits for, however short a one the peer or its breaker allows.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(100);

/// A forward as its task leaves it, and what its caller hears when there is no run.
pub(super) type Concluded = (ForwardRecord, Option<Problem>);

/// Drives forwards to their end.
#[derive(Clone)]
pub struct Driver {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    admission: Admission,
    peers: Peers,
    pull: Pull,
    clock: Clock,
    entropy: Entropy,
    metrics: Arc<Metrics>,
    options: ForwardOptions,
    backoff: Backoff,
    tasks: Tasks,
    /// Forwards with a task at work: nobody else takes them up.
    turns: Turns,
    /// Rings when a forward waits for the reconciler.
    due: Notify,
    /// Rings when the forward index has a new run.
    indexed: Arc<Notify>,
}

impl Driver {
    /// Drives forwards of `store` to `peers`.
    pub fn new(
        store: Store,
        (admission, peers): (Admission, Peers),
        pull: Pull,
        (clock, entropy): (Clock, Entropy),
        metrics: Arc<Metrics>,
        options: ForwardOptions,
        tasks: Tasks,
    ) -> Result<Self, BackoffError> {
        let backoff = Backoff::try_new(options.base_backoff, options.max_backoff)?;
        let (turns, due, indexed) = (Turns::default(), Notify::new(), Arc::default());
        #[rustfmt::skip]
        let shared = Shared {
            store, admission, peers, pull, clock, entropy, metrics, options, backoff, tasks, turns, due, indexed,
        };
        Ok(Driver { shared: Arc::new(shared) })
    }

    /// Rings when the forward index has a new run.
    pub fn indexed(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.indexed)
    }

    /// Makes a forward due now, unless somebody is at work on it or its peer rests.
    pub(super) fn wake(&self, record: &ForwardRecord) {
        let rests = || self.find_peer(record).is_some_and(|peer| peer.retry_in().is_some());
        if self.shared.turns.is_taken(&record.forward_id) || rests() {
            return;
        }
        let (this, id) = (self.clone(), record.forward_id.clone());
        self.shared.tasks.spawn(async move {
            if this.shared.store.wake_forward(&id).await.is_ok() {
                this.shared.due.notify_one();
            }
        });
    }

    /// Makes a forward ours to drive, unless somebody drives it.
    pub(super) fn claim(&self, id: &ForwardId) -> Option<Turn> {
        self.shared.turns.take(id)
    }

    /// Waits until a forward is due to be taken up.
    pub(super) async fn rung(&self) {
        self.shared.due.notified().await;
    }

    /// Takes up a forward nobody is at work on, for one attempt.
    pub(super) fn take_up(&self, record: ForwardRecord) {
        let Some(claim) = self.claim(&record.forward_id) else { return };
        match self.find_peer(&record) {
            Some(peer) => drop(self.spawn(ForwardRecord { background: true, ..record }, peer, None, claim)),
            None => self.expire_orphan(record),
        }
    }

    /// The peer of a forward that was begun, as it stands now, if it may go on; drained ones finish theirs.
    fn find_peer(&self, record: &ForwardRecord) -> Option<Arc<Peer>> {
        let (tenant, agent) = (record.tenant.as_str(), record.agent.as_str());
        let may = |peer: &Arc<Peer>| {
            self.shared.admission.may_send(Some(tenant), Action::CancelRun, peer, Some(agent)).is_ok()
        };
        self.shared.peers.find(&record.peer).filter(may)
    }

    /// The peer is not enrolled any more, or may take nothing: nothing is sent, and time runs out.
    fn expire_orphan(&self, record: ForwardRecord) {
        let this = self.clone();
        self.shared.tasks.spawn(async move {
            let now_ms = this.shared.clock.now_ms();
            let late = now_ms >= record.deadline_at_ms;
            let maybe_sent = record.state.may_have_left();
            let settlement = Settlement {
                state: if late { ForwardState::Expired } else { record.state },
                outcome: late.then_some(if maybe_sent { "unknown" } else { "not_started" }),
                attempt: None,
                error: None,
                next_attempt_at_ms: Some(now_ms + millis(this.shared.options.reconcile_backoff)),
                not_before_ms: None,
                deadline_at_ms: record.deadline_at_ms,
            };
            if let Err(error) = this.shared.store.settle_without_run(&record.forward_id, settlement).await {
                tracing::warn!(forward.id = %record.forward_id, error = %error, "a forward could not be put off");
            }
        });
    }

    /// Drives a forward in a task of its own.
    pub(super) fn spawn(
        &self,
        record: ForwardRecord,
        peer: Arc<Peer>,
        permit: Option<OwnedSemaphorePermit>,
        claim: Turn,
    ) -> oneshot::Receiver<Concluded> {
        let (sender, done) = oneshot::channel();
        let this = self.clone();
        self.shared.tasks.spawn(async move {
            this.shared.metrics.forwards_unsettled.inc();
            let begun = this.shared.clock.monotonic();
            let result = this.drive(record, peer, permit).await;
            this.shared.metrics.forwards_unsettled.dec();
            let took = this.shared.clock.monotonic().saturating_sub(begun);
            this.shared.metrics.forward_duration.observe(took.as_secs_f64());
            drop(claim);
            // A caller that hung up hears nothing; the forward is settled all the same.
            let _ = sender.send(result);
        });
        done
    }

    /// Attempts until the verdict is something else than to try again.
    async fn drive(
        &self,
        mut record: ForwardRecord,
        mut peer: Arc<Peer>,
        mut permit: Option<OwnedSemaphorePermit>,
    ) -> Concluded {
        // A forward found on disk in `sending` may have been sent before a crash.
        let resumed = record.background && record.state.may_have_left();
        let mut progress = Progress { attempt: 0, maybe_sent: resumed };
        let Some(body) = downstream_body(&record.request, &record.downstream_key) else {
            let problem = Problem::new(ErrorCode::InternalError, "the stored request cannot be read");
            return (record, Some(problem));
        };
        if resumed && self.is_unsafe_to_repeat(&record, &peer) {
            return self.give_up(record).await;
        }
        if record.background {
            match peer.enter().await {
                Ok(place) => permit = Some(place),
                Err(refusal) => {
                    let attempted = Attempted::refused(&peer, refusal, &self.shared.clock);
                    return self.conclude(record, &peer, attempted, progress).await;
                }
            }
            match self.shared.store.mark_sending(&record).await {
                Ok(true) => {}
                Ok(false) => {
                    let problem = outcome_unknown(&record);
                    return (record, Some(problem));
                }
                Err(error) => return (record, Some(Problem::from(error))),
            }
            record.first_sent_at_ms.get_or_insert(self.shared.clock.now_ms());
        }
        peer.earn_retry();
        let stopping = self.shared.tasks.stopping();
        let ending = loop {
            progress.attempt += 1;
            let mut attempted = tokio::select! {
                biased;
                attempted = attempt(&self.shared.clock, &self.shared.metrics, &peer, &record, body.clone()) => {
                    attempted
                }
                // As a crash would leave it: the next start takes the forward up where the disk says it is.
                () = stopping.cancelled() => {
                    let problem = outcome_unknown(&record);
                    return (record, Some(problem));
                }
            };
            let Some(delay) = self.retry_delay(&record, &peer, &attempted, progress) else { break attempted };
            progress.maybe_sent |= attempted.outcome == AttemptOutcome::Unknown;
            self.save(&record, &mut attempted).await;
            tokio::select! {
                biased;
                () = tokio::time::sleep(delay) => {}
                () = stopping.cancelled() => break attempted,
            }
            if peer.gone().is_cancelled() {
                // Its entry was changed under way: the key goes on with the one there is now.
                let Some(now) = self.find_peer(&record) else { break attempted };
                peer = now;
            }
        };
        drop(permit);
        self.conclude(record, &peer, ending, progress).await
    }

    /// Shows an attempt to whoever asks before the forward is at rest.
    async fn save(&self, record: &ForwardRecord, attempted: &mut Attempted) {
        let Some(attempt) = attempted.record.take() else { return };
        if let Err(error) = self.shared.store.save_attempt(&record.forward_id, attempt).await {
            tracing::warn!(forward.id = %record.forward_id, error = %error, "an attempt was not recorded");
        }
    }

    /// The peer never promised, or no longer promises, that a repeated key makes no second run.
    fn is_unsafe_to_repeat(&self, record: &ForwardRecord, peer: &Peer) -> bool {
        !peer.options.idempotent_create || self.shared.clock.now_ms() >= self.protected_until(record, peer)
    }

    async fn give_up(&self, record: ForwardRecord) -> Concluded {
        let problem = given_up(&record);
        let settlement = Settlement {
            state: ForwardState::Expired,
            outcome: Some("unknown"),
            attempt: None,
            error: serde_json::to_string(&problem).ok(),
            next_attempt_at_ms: None,
            not_before_ms: None,
            deadline_at_ms: record.deadline_at_ms,
        };
        self.note(&record, ForwardState::Expired, &problem);
        match self.shared.store.settle_without_run(&record.forward_id, settlement).await {
            Ok(settled) => (settled, Some(problem)),
            Err(error) => self.unsettled(record, &error),
        }
    }

    /// How long to wait before another attempt by this task; `None` when there is none.
    fn retry_delay(
        &self,
        record: &ForwardRecord,
        peer: &Peer,
        attempted: &Attempted,
        progress: Progress,
    ) -> Option<Duration> {
        if record.background {
            return None; // the reconciler makes the next one, over restarts
        }
        if matches!(attempted.cause, Cause::Refused(_) | Cause::Denied(..)) {
            return None; // our own breaker: whoever waits hears so at once, as the next caller does
        }
        let delay = self.pause(record, peer, attempted, progress)?;
        let verdict =
            decide(self.rules(record, peer), attempted.outcome, progress.maybe_sent, progress.attempt, true);
        (verdict == Verdict::Retry && peer.spend_retry()).then_some(delay)
    }

    /// What the peer asked to wait, or the jittered backoff; `None` when the deadline leaves less, or when
    /// by then the peer may have forgotten a key that may have reached it.
    fn pause(
        &self,
        record: &ForwardRecord,
        peer: &Peer,
        attempted: &Attempted,
        progress: Progress,
    ) -> Option<Duration> {
        let mut until_ms = record.deadline_at_ms;
        if attempted.maybe_exists(progress) {
            until_ms = until_ms.min(self.protected_until(record, peer));
        }
        let left = left(until_ms, self.shared.clock.now_ms());
        let chance = self.shared.entropy.fraction();
        let delay = match attempted.retry_after {
            Some(asked) => clamp_retry_after(asked, left)?,
            None if record.background => {
                let cap = self.shared.options.reconcile_backoff;
                let times = u32::try_from(record.attempts_total).unwrap_or(u32::MAX);
                crate::domain::backoff::doubled(self.shared.options.base_backoff, cap, times.min(63))
                    .mul_f64(0.5 + 0.5 * chance)
            }
            None => self.shared.backoff.delay(progress.attempt.saturating_sub(1), chance),
        };
        let delay = if record.background { delay.max(BACKGROUND_PAUSE) } else { delay };
        (delay < left).then_some(delay)
    }

    fn rules(&self, record: &ForwardRecord, peer: &Peer) -> Rules {
        Rules {
            max_attempts: self.shared.options.max_attempts,
            idempotent_create: peer.options.idempotent_create,
            patience: if record.background { Patience::Background } else { Patience::Caller },
        }
    }

    /// The one settlement.
    async fn conclude(
        &self,
        mut record: ForwardRecord,
        peer: &Peer,
        attempted: Attempted,
        progress: Progress,
    ) -> Concluded {
        let protected_until = self.protected_until(&record, peer);
        let maybe_exists = attempted.maybe_exists(progress);
        if record.background && maybe_exists {
            record.deadline_at_ms = protected_until;
        }
        let pause = self.pause(&record, peer, &attempted, progress);
        let again = record.background && pause.is_some();
        let rules = self.rules(&record, peer);
        let verdict = decide(
            rules,
            attempted.outcome,
            progress.maybe_sent,
            progress.attempt.max(rules.max_attempts),
            again,
        );
        let state = state_after(verdict, maybe_exists);
        let (outcome, problem) = match verdict {
            Verdict::Forwarded => return self.settle_forwarded(record, attempted).await,
            // The peer may refuse now what it did before its earlier answer was lost.
            Verdict::Refused if progress.maybe_sent => {
                (Some("unknown"), attempted.problem(peer).with("outcome", "unknown"))
            }
            Verdict::Refused => (None, attempted.problem(peer)),
            Verdict::GiveUpNotStarted => (Some("not_started"), attempted.problem(peer)),
            Verdict::GiveUpUnknown => (Some("unknown"), given_up(&record)),
            Verdict::Reconcile => (Some("unknown"), outcome_unknown(&record)),
            Verdict::Retry if maybe_exists => (Some("unknown"), outcome_unknown(&record)),
            Verdict::Retry => (None, attempted.problem(peer)),
        };
        // The reconciler waits as long as the peer asked, but looks again before the key means nothing there.
        let wait = pause.or(attempted.retry_after).unwrap_or(Duration::from_secs(1));
        let now_ms = self.shared.clock.now_ms();
        let mut next_attempt_at_ms = now_ms + millis(wait);
        if maybe_exists {
            next_attempt_at_ms = next_attempt_at_ms.min(protected_until);
        }
        let deadline_at_ms =
            if verdict == Verdict::Reconcile { protected_until } else { record.deadline_at_ms };
        let asked = matches!(attempted.cause, Cause::Answered { .. }) && attempted.retry_after.is_some();
        let settlement = Settlement {
            state,
            outcome,
            attempt: attempted.record,
            error: state.is_at_rest().then(|| serde_json::to_string(&problem).unwrap_or_default()),
            next_attempt_at_ms: Some(next_attempt_at_ms),
            not_before_ms: asked.then_some(next_attempt_at_ms),
            deadline_at_ms,
        };
        self.note(&record, state, &problem);
        match self.shared.store.settle_without_run(&record.forward_id, settlement).await {
            Ok(settled) => {
                self.shared.due.notify_one();
                (settled, Some(problem))
            }
            Err(error) => self.unsettled(record, &error),
        }
    }

    async fn settle_forwarded(&self, record: ForwardRecord, attempted: Attempted) -> Concluded {
        let (Some(run), Some(attempt)) = (attempted.run, attempted.record) else {
            let problem = outcome_unknown(&record);
            return (record, Some(problem));
        };
        let settled = self.shared.store.settle_forwarded(&record.forward_id, attempt, run).await;
        let (settled, fresh) = match settled {
            Ok(settled) => settled,
            Err(error) => return self.unsettled(record, &error),
        };
        failpoint::reached("forward::after_settle");
        self.shared.metrics.forwards.get_or_create(&Outcome { outcome: "forwarded" }).inc();
        match fresh {
            Some(fresh) => self.shared.pull.start_fresh(fresh),
            None => self.start_reader(&settled).await,
        }
        self.shared.indexed.notify_one();
        (settled, None)
    }

    async fn start_reader(&self, settled: &ForwardRecord) {
        let Some(run) = settled.run_id.clone() else { return };
        let key = RunKey { tenant: settled.tenant.clone(), run };
        match self.shared.store.find_run(&key).await {
            Ok(Some(run)) => self.shared.pull.start(run),
            Ok(None) => {}
            // The run is in the index: the next start reads it.
            Err(error) => tracing::warn!(run.id = %key.run, error = %error, "a reader was not started"),
        }
    }

    /// The answer came but could not be written down: the reconciler will ask for it again.
    fn unsettled(&self, record: ForwardRecord, error: &StoreError) -> Concluded {
        tracing::error!(forward.id = %record.forward_id, error = %error, "a forward could not be settled");
        let problem = outcome_unknown(&record);
        (record, Some(problem))
    }

    /// Until when the peer promises that a repeated key makes no second run.
    fn protected_until(&self, record: &ForwardRecord, peer: &Peer) -> i64 {
        let since = record.first_sent_at_ms.unwrap_or(record.created_at_ms);
        since + millis(peer.idempotency_retention())
    }

    fn note(&self, record: &ForwardRecord, state: ForwardState, problem: &Problem) {
        if state.is_at_rest() {
            self.shared.metrics.forwards.get_or_create(&Outcome { outcome: state.as_str() }).inc();
        }
        tracing::warn!(forward.id = %record.forward_id, peer.id = %record.peer, state = state.as_str(),
            code = problem.code.as_str(), reason = problem.message, "a forward has no run yet");
    }
}
