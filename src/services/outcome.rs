//! What a caller hears of a forward that gave no run: what is known, and whether asking again is safe.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::store::ForwardRecord;

pub(super) fn outcome_unknown(record: &ForwardRecord) -> Problem {
    let message = "the peer may have created the run; the gateway goes on asking with the same key";
    Problem::new(ErrorCode::ForwardOutcomeUnknown, message)
        .with("outcome", "unknown")
        .with("forward_id", record.forward_id.as_str())
}

pub(super) fn given_up(record: &ForwardRecord) -> Problem {
    let message =
        "the peer may have created the run; asking again could create a second one, so it was given up";
    Problem::new(ErrorCode::ForwardOutcomeUnknown, message)
        .with("outcome", "unknown")
        .with("forward_id", record.forward_id.as_str())
        .with("retryable", false)
}

pub(super) fn key_reused() -> Problem {
    let message = "this idempotency key was used for another request; use a new key";
    Problem::new(ErrorCode::IdempotencyKeyReused, message).with("field", "idempotency_key")
}

pub(super) fn stopped() -> Problem {
    Problem::new(ErrorCode::ForwardOutcomeUnknown, "the gateway stopped while the forward was under way")
        .with("outcome", "unknown")
}

/// Without a key of the caller's own, the same request again would be another run.
pub(super) fn with_retryability(problem: Problem, has_key: bool) -> Problem {
    let unsafe_to_repeat = problem.code == ErrorCode::ForwardOutcomeUnknown && !has_key;
    if unsafe_to_repeat { problem.with("retryable", false) } else { problem }
}
