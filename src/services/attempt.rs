//! One attempt to create a run at a peer, and what it proved.

use std::sync::Arc;
use std::time::Duration;

use super::peer::{Peer, Refusal};
use crate::clock::Clock;
use crate::domain::breaker::Outcome;
use crate::domain::forward::{AttemptFact, AttemptOutcome, classify, is_for_now};
use crate::domain::limits;
use crate::failpoint;
use crate::metrics::{Metrics, PeerOutcome};
use crate::mutants::mutant;
use crate::outbound::{Answer, CallContext, CallFailure};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::paths;
use crate::protocol::problem::{PeerError, Problem};
use crate::protocol::run::{self, HomeRun};
use crate::store::{AttemptRecord, ForwardRecord, ForwardedRun};

/// What was seen of an attempt.
#[derive(Debug)]
pub(super) enum Cause {
    /// Our own breaker or bulkhead said no.
    Refused(Refusal),
    /// No byte left.
    NeverLeft(String),
    /// No byte may leave: the peer's address, or its standing.
    Denied(ErrorCode, String),
    /// Bytes may have left.
    Interrupted(String),
    /// The peer answered, without a run.
    Answered { status: u16, error: PeerError },
    /// The peer answered with a run.
    Run,
}

/// Where a forward stands before an attempt is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// Attempts of this task so far, the one at hand included.
    pub(super) attempt: u32,
    /// An earlier attempt may have reached the peer.
    pub(super) maybe_sent: bool,
}

/// One attempt, judged.
#[derive(Debug)]
pub(super) struct Attempted {
    pub(super) outcome: AttemptOutcome,
    pub(super) cause: Cause,
    pub(super) retry_after: Option<Duration>,
    /// What is kept of it; taken once it is on disk.
    pub(super) record: Option<AttemptRecord>,
    pub(super) run: Option<ForwardedRun>,
}

/// Makes one attempt.
pub(super) async fn attempt(
    clock: &Clock,
    metrics: &Arc<Metrics>,
    peer: &Peer,
    forward: &ForwardRecord,
    body: Vec<u8>,
) -> Attempted {
    let started_at_ms = clock.now_ms();
    let permit = match peer.ask_breaker() {
        Ok(permit) => permit,
        Err(refusal) => return Attempted::refused(peer, refusal, clock),
    };
    let context = CallContext {
        tenant: Some(&forward.tenant),
        principal: Some(&forward.principal),
        correlation_id: Some(&forward.correlation_id),
        traceparent: Some(&forward.traceparent),
        via: Some(&forward.via),
    };
    let agent = forward.agent.as_str();
    let mut key = forward.downstream_key.clone();
    if mutant("key_per_attempt") {
        key.push_str(&started_at_ms.to_string());
    }
    failpoint::reached("forward::before_send");
    let called = tokio::select! {
        biased;
        called = peer.client.create_run(context, agent, &key, body) => called,
        () = peer.gone().cancelled() => {
            Err(CallFailure::Interrupted("the peer was revoked or changed while it was asked".to_owned()))
        }
    };
    failpoint::reached("forward::after_response");
    let attempted = Attempted::judge(peer, called, (started_at_ms, clock.now_ms()));
    peer.tell_breaker(permit, attempted.for_breaker(peer));
    let outcome = match attempted.outcome {
        AttemptOutcome::Forwarded => "forwarded",
        AttemptOutcome::Refused => "refused",
        AttemptOutcome::NotSent => "not_sent",
        AttemptOutcome::Unknown => "unknown",
    };
    let label = PeerOutcome { peer: peer.id().to_string(), outcome };
    metrics.forward_attempts.get_or_create(&label).inc();
    attempted
}

impl Attempted {
    /// An attempt our own breaker or bulkhead refused.
    pub(super) fn refused(peer: &Peer, refusal: Refusal, clock: &Clock) -> Self {
        let retry_after = match refusal {
            Refusal::CircuitOpen(wait) => Some(wait),
            Refusal::Busy => None,
        };
        let now_ms = clock.now_ms();
        let cause = Cause::Refused(refusal);
        let mut attempted = Self::of(AttemptFact::NeverLeft, cause, (now_ms, now_ms), None, peer);
        attempted.retry_after = retry_after;
        attempted
    }

    fn judge(peer: &Peer, called: Result<Answer, CallFailure>, times: (i64, i64)) -> Self {
        let answer = match called {
            Ok(answer) => answer,
            Err(CallFailure::NeverLeft(reason)) => {
                return Self::of(AttemptFact::NeverLeft, Cause::NeverLeft(reason), times, None, peer);
            }
            Err(CallFailure::Denied(reason)) => {
                let cause = Cause::Denied(ErrorCode::PeerAddressDenied, reason);
                return Self::of(AttemptFact::NeverLeft, cause, times, None, peer);
            }
            Err(CallFailure::Interrupted(reason)) => {
                return Self::of(AttemptFact::Interrupted, Cause::Interrupted(reason), times, None, peer);
            }
        };
        let run = (answer.is_success() && answer.complete).then(|| run::parse_answer(&answer.body)).flatten();
        let error = if run.is_some() { PeerError::default() } else { PeerError::parse(&answer.body) };
        let fact = AttemptFact::Answered {
            status: answer.status,
            whole: answer.complete,
            code: error.code.as_deref(),
            not_started: error.not_started && peer.is_gateway(),
            has_run: run.is_some(),
        };
        let outcome_run = run.as_ref().map(|run| forwarded_run(peer, run));
        let status = Some(answer.status);
        let fact_outcome = classify(fact);
        let cause = match &run {
            Some(_) => Cause::Run,
            None => Cause::Answered { status: answer.status, error },
        };
        let mut attempted = Self::with_outcome(fact_outcome, cause, times, status, peer);
        attempted.retry_after = answer.retry_after;
        attempted.run = outcome_run;
        attempted
    }

    fn of(fact: AttemptFact<'_>, cause: Cause, times: (i64, i64), status: Option<u16>, peer: &Peer) -> Self {
        Self::with_outcome(classify(fact), cause, times, status, peer)
    }

    fn with_outcome(
        outcome: AttemptOutcome,
        cause: Cause,
        (started_at_ms, finished_at_ms): (i64, i64),
        upstream_status: Option<u16>,
        peer: &Peer,
    ) -> Self {
        let reason = limits::clean_reason(&reason(peer, &cause));
        let record =
            AttemptRecord { attempt: 0, started_at_ms, finished_at_ms, outcome, reason, upstream_status };
        Attempted { outcome, cause, retry_after: None, record: Some(record), run: None }
    }

    /// True when this attempt or an earlier one may have created the run.
    pub(super) fn maybe_exists(&self, progress: Progress) -> bool {
        progress.maybe_sent || self.outcome == AttemptOutcome::Unknown
    }

    /// How the breaker counts this call: only what says that the peer is unwell is a failure.
    fn for_breaker(&self, peer: &Peer) -> Outcome {
        match &self.cause {
            Cause::Answered { error, .. } if peer.is_gateway() && error.lies_behind() => Outcome::Success,
            Cause::Refused(_) | Cause::Denied(..) => Outcome::Ignored,
            Cause::NeverLeft(_) | Cause::Interrupted(_) => Outcome::Failure,
            Cause::Answered { status: 429, .. } => Outcome::Ignored,
            Cause::Answered { status: 500.., .. } => Outcome::Failure,
            Cause::Answered { .. } | Cause::Run => Outcome::Success,
        }
    }

    /// What the caller hears of this attempt.
    pub(super) fn problem(&self, peer: &Peer) -> Problem {
        let problem = problem_of(peer, &self.cause);
        match self.retry_after {
            // What the peer asked for, over any wait of ours.
            Some(wait) if problem.is_retryable() => problem.retry_after(wait),
            _ => problem,
        }
    }
}

fn forwarded_run(peer: &Peer, run: &HomeRun) -> ForwardedRun {
    let base = peer.client.base();
    let default = || paths::default_events_path(base, run.run_id.as_str());
    let (events_path, refused) = match &run.events_url {
        None => (default(), None),
        Some(url) => match paths::events_path(base, url) {
            Ok(path) => (path, None),
            Err(error) => (default(), Some(error.to_string())),
        },
    };
    ForwardedRun {
        remote_run_id: run.run_id.clone(),
        remote_events_url: paths::events(base, &events_path).to_string(),
        events_path,
        events_url_refused: refused,
        status: run.status,
        answer: run.json.clone(),
    }
}

fn reason(peer: &Peer, cause: &Cause) -> String {
    match cause {
        Cause::Refused(Refusal::CircuitOpen(_)) => format!("peer `{}` rests after failures", peer.id()),
        Cause::Refused(Refusal::Busy) => format!("too many creates are waiting for peer `{}`", peer.id()),
        Cause::NeverLeft(reason) | Cause::Denied(_, reason) | Cause::Interrupted(reason) => reason.clone(),
        Cause::Answered { status, error } => match error.message.as_ref().or(error.code.as_ref()) {
            Some(said) => format!("the peer answered {status}: {said}"),
            None => format!("the peer answered {status} without a run"),
        },
        Cause::Run => "the peer has the run".to_owned(),
    }
}

/// The error for a caller, when this is how the last attempt went and no run may exist.
pub(super) fn problem_of(peer: &Peer, cause: &Cause) -> Problem {
    let message = reason(peer, cause);
    let not_started = |code| Problem::new(code, message.clone()).with("outcome", "not_started");
    let problem = match cause {
        Cause::Refused(Refusal::CircuitOpen(wait)) => not_started(ErrorCode::CircuitOpen).retry_after(*wait),
        Cause::Refused(Refusal::Busy) => not_started(ErrorCode::Busy).retry_after(Duration::from_secs(1)),
        Cause::Denied(code, _) => not_started(*code),
        Cause::NeverLeft(_) | Cause::Interrupted(_) | Cause::Run => {
            not_started(ErrorCode::ForwardFailed).with("retryable", true)
        }
        Cause::Answered { status: 425 | 429, .. } => {
            not_started(ErrorCode::RateLimited).retry_after(Duration::from_secs(1))
        }
        Cause::Answered { status, error } if error.not_started && *status >= 500 && *status != 508 => {
            not_started(ErrorCode::ForwardFailed).with("retryable", true)
        }
        Cause::Answered { status, error } if is_for_now(*status, error.code.as_deref()) => {
            not_started(ErrorCode::ForwardFailed).with("retryable", true)
        }
        Cause::Answered { status, error } => refusal(*status, error, message),
    };
    let problem = problem.with("peer", peer.id().as_str());
    match cause {
        Cause::Answered { status, error } => {
            let problem = problem.with("upstream_status", *status);
            match &error.code {
                Some(code) => problem.with("upstream_code", code.as_str()),
                None => problem,
            }
        }
        _ => problem,
    }
}

/// The peer's final no, passed on as what it is.
fn refusal(status: u16, error: &PeerError, message: String) -> Problem {
    let code = match (status, error.code.as_deref()) {
        (400, _) => ErrorCode::InvalidRequest,
        (403, _) => ErrorCode::Forbidden,
        (404, _) => ErrorCode::NotFound,
        (409, _) => ErrorCode::Conflict,
        (508, _) => ErrorCode::LoopDetected,
        (422, Some("idempotency_key_reused")) => ErrorCode::IdempotencyKeyReused,
        (422, Some("capability_unsupported")) => ErrorCode::CapabilityUnsupported,
        (422, _) => ErrorCode::UnprocessableRequest,
        _ => ErrorCode::ForwardFailed,
    };
    Problem::new(code, message).with("outcome", "refused")
}
