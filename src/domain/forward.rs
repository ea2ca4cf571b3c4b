//! One forward as a small durable state machine: what an attempt proved, and what to do next.
//!
//! ```text
//! reserved ─▶ sending ─▶ forwarded | refused
//!                │  ╰──▶ not sent: again with the same key, or expired when time is up
//!                ╰─────▶ unknown: again with the same key, then the reconciler, then expired
//! ```
//!
//! Invariant: once bytes may have left, only the peer's own answer ends the forward. What cannot be
//! known is called unknown, never failed and never succeeded.

use serde::{Deserialize, Serialize};

use crate::mutants::mutant;

/// True for a refusal of who asks, now, and not of the run: two clocks differ, or another process has the name we
/// came under. The run was not looked at, and both are set right sooner or later.
pub fn is_for_now(status: u16, code: Option<&str>) -> bool {
    matches!((status, code), (401, Some("signature_expired")) | (409, Some("peer_id_conflict")))
}

/// Where a forward stands, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardState {
    /// The intent is on disk; nothing has left.
    Reserved,
    /// An attempt is under way, or was when the gateway stopped: bytes may have left.
    Sending,
    /// Bytes have left and no answer tells what became of them; the reconciler goes on asking.
    Unknown,
    /// The peer has the run.
    Forwarded,
    /// The peer's final no.
    Refused,
    /// Given up: see the outcome for whether anything may have started.
    Expired,
}

impl ForwardState {
    /// The stored and shown name.
    pub fn as_str(self) -> &'static str {
        match self {
            ForwardState::Reserved => "reserved",
            ForwardState::Sending => "sending",
            ForwardState::Unknown => "unknown",
            ForwardState::Forwarded => "forwarded",
            ForwardState::Refused => "refused",
            ForwardState::Expired => "expired",
        }
    }

    /// Reads a stored name.
    pub fn find(name: &str) -> Option<Self> {
        Some(match name {
            "reserved" => ForwardState::Reserved,
            "sending" => ForwardState::Sending,
            "unknown" => ForwardState::Unknown,
            "forwarded" => ForwardState::Forwarded,
            "refused" => ForwardState::Refused,
            "expired" => ForwardState::Expired,
            _ => return None,
        })
    }

    /// True when bytes may have left before this state was left on disk.
    pub fn may_have_left(self) -> bool {
        !matches!(self, ForwardState::Reserved)
    }

    /// True when nothing more will be done about the forward.
    pub fn is_at_rest(self) -> bool {
        matches!(self, ForwardState::Forwarded | ForwardState::Refused | ForwardState::Expired)
    }
}

/// What one attempt proved about the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The peer has the run.
    Forwarded,
    /// The peer will not create it.
    Refused,
    /// Nothing was started by this attempt.
    NotSent,
    /// The run may exist.
    Unknown,
}

/// What was seen of one attempt, before judging it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptFact<'a> {
    /// Name resolution, connect or TLS failed, or our own breaker or bulkhead said no.
    NeverLeft,
    /// Timeout, reset or end of stream after bytes may have left.
    Interrupted,
    /// An answer came.
    Answered {
        /// HTTP status.
        status: u16,
        /// All of its body came, and can be read.
        whole: bool,
        /// `error.code` of the body, when it has one.
        code: Option<&'a str>,
        /// A gateway said that nothing was started (`details.outcome`).
        not_started: bool,
        /// The body is a run with an id we can use.
        has_run: bool,
    },
}

/// Judges one attempt: the one table of causes.
pub fn classify(fact: AttemptFact<'_>) -> AttemptOutcome {
    use AttemptOutcome::{Forwarded, NotSent, Refused, Unknown};
    match fact {
        AttemptFact::NeverLeft => NotSent,
        AttemptFact::Interrupted if mutant("unknown_called_failed") => NotSent,
        AttemptFact::Interrupted => Unknown,
        AttemptFact::Answered { status, whole, code, not_started, has_run } => match status {
            200..=299 if has_run => Forwarded,
            200..=299 => Unknown,
            425 | 429 => NotSent,
            408 => Unknown,
            // What these mean stands in the body: it may have been one of the three below.
            401 | 409 if !whole => Unknown,
            // Something on the way sent the request twice: the other one may have been served.
            401 if code == Some("signature_replayed") => Unknown,
            409 if code == Some("request_in_progress") => Unknown,
            401 | 409 if is_for_now(status, code) => NotSent,
            501 | 505 | 508 => Refused,
            500..=599 if not_started => NotSent,
            500..=599 => Unknown,
            _ => Refused,
        },
    }
}

/// Who waits for a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Patience {
    /// A caller with an open request: few attempts, a short deadline.
    Caller,
    /// Nobody: `respond-async`, or the reconciler. Attempts go on until the deadline.
    Background,
}

/// What holds for all attempts of one forward.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Attempts for a waiting caller, the first included.
    pub max_attempts: u32,
    /// The peer promises that one key creates one run.
    pub idempotent_create: bool,
    /// Who waits.
    pub patience: Patience,
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Settle as forwarded.
    Forwarded,
    /// Settle as refused.
    Refused,
    /// Try again with the same key.
    Retry,
    /// Tell the caller that the outcome is unknown; the reconciler goes on.
    Reconcile,
    /// Settle as expired: nothing was started.
    GiveUpNotStarted,
    /// Settle as expired: it can no longer be known whether the run exists.
    GiveUpUnknown,
}

/// Decides what follows an attempt.
///
/// `maybe_sent` says that an earlier attempt, in this life of the gateway or a former one, may have
/// reached the peer. `attempt` counts from 1 in this drive. `time_left` says that another attempt
/// still fits before the deadline.
pub fn decide(
    rules: Rules,
    outcome: AttemptOutcome,
    maybe_sent: bool,
    attempt: u32,
    time_left: bool,
) -> Verdict {
    let again = time_left && (rules.patience == Patience::Background || attempt < rules.max_attempts);
    let maybe_exists = maybe_sent || outcome == AttemptOutcome::Unknown;
    match outcome {
        AttemptOutcome::Forwarded => Verdict::Forwarded,
        AttemptOutcome::Refused => Verdict::Refused,
        _ if maybe_exists && !rules.idempotent_create => Verdict::GiveUpUnknown,
        _ if again => Verdict::Retry,
        _ if !maybe_exists => Verdict::GiveUpNotStarted,
        _ if rules.patience == Patience::Caller => Verdict::Reconcile,
        _ => Verdict::GiveUpUnknown,
    }
}

/// The state a forward is left in. `maybe_exists` says that some attempt may have created the run.
pub fn state_after(verdict: Verdict, maybe_exists: bool) -> ForwardState {
    match verdict {
        Verdict::Forwarded => ForwardState::Forwarded,
        Verdict::Refused => ForwardState::Refused,
        Verdict::GiveUpNotStarted | Verdict::GiveUpUnknown => ForwardState::Expired,
        Verdict::Reconcile => ForwardState::Unknown,
        Verdict::Retry if maybe_exists => ForwardState::Unknown,
        Verdict::Retry => ForwardState::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> AttemptFact<'static> {
        AttemptFact::Answered { status, whole: true, code: None, not_started: false, has_run: false }
    }

    #[test]
    fn each_cause_is_judged_by_what_it_proves() {
        use AttemptOutcome::{Forwarded, NotSent, Refused, Unknown};
        assert_eq!(classify(AttemptFact::NeverLeft), NotSent); // A-05
        assert_eq!(classify(AttemptFact::Interrupted), Unknown); // F4
        for (status, expected) in [
            (400, Refused), // A-06, defect 9
            (401, Refused),
            (403, Refused),
            (404, Refused),
            (409, Refused),
            (422, Refused),
            (302, Refused),
            (408, Unknown),
            (425, NotSent),
            (429, NotSent), // defect 11
            (500, Unknown), // A-06
            (501, Refused),
            (503, Unknown),
            (505, Refused),
            (508, Refused),
            (200, Unknown),
            (204, Unknown),
        ] {
            assert_eq!(classify(answered(status)), expected, "{status}");
        }
        let run =
            AttemptFact::Answered { status: 201, whole: true, code: None, not_started: false, has_run: true };
        assert_eq!(classify(run), Forwarded);
        let coded = |status, code| AttemptFact::Answered {
            status,
            whole: true,
            code: Some(code),
            not_started: false,
            has_run: false,
        };
        let busy = coded(409, "request_in_progress");
        assert_eq!(classify(busy), Unknown, "a gateway still at work on our key has not refused it");
        let heard_before = coded(401, "signature_replayed");
        assert_eq!(classify(heard_before), Unknown, "what was heard before may have been served");
        let superseded = coded(409, "peer_id_conflict");
        assert_eq!(classify(superseded), NotSent, "the right process may come back");
        assert_eq!(classify(coded(401, "signature_expired")), NotSent, "a clock may be set right");
        assert_eq!(classify(coded(401, "signature_invalid")), Refused);
        for (status, expected) in [(401, Unknown), (409, Unknown), (404, Refused), (429, NotSent)] {
            let cut = AttemptFact::Answered {
                status,
                whole: false,
                code: None,
                not_started: false,
                has_run: false,
            };
            assert_eq!(classify(cut), expected, "{status} with a body that broke off");
        }
        let far =
            AttemptFact::Answered { status: 502, whole: true, code: None, not_started: true, has_run: false };
        assert_eq!(classify(far), NotSent);
    }

    #[test]
    fn a_peer_without_idempotency_is_never_asked_twice_after_bytes_left() {
        let rules = Rules { max_attempts: 3, idempotent_create: false, patience: Patience::Caller };
        assert_eq!(decide(rules, AttemptOutcome::Unknown, false, 1, true), Verdict::GiveUpUnknown);
        assert_eq!(decide(rules, AttemptOutcome::NotSent, true, 1, true), Verdict::GiveUpUnknown);
        assert_eq!(decide(rules, AttemptOutcome::NotSent, false, 1, true), Verdict::Retry);
    }
}
