//! How the store's failures sound to a client: the chain goes to the log, a plain sentence to the wire.

use std::time::Duration;

use crate::domain::policy::{Denial, Rule};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::json_fields::InvalidBody;
use crate::protocol::problem::Problem;
use crate::protocol::signature::SignatureError;
use crate::store::{QuotaExceeded, StoreError};

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let second = Duration::from_secs(1);
        match error {
            StoreError::Full => Problem::new(
                ErrorCode::InsufficientStorage,
                "the disk is full: nothing was written; reading goes on, and writing resumes when space returns",
            )
            .retry_after(Duration::from_secs(10)),
            StoreError::QuotaExceeded(exceeded) => quota_exceeded(&exceeded, 0),
            StoreError::Overloaded => {
                Problem::new(ErrorCode::Busy, "the event log has too much work waiting").retry_after(second)
            }
            StoreError::Closed => {
                Problem::new(ErrorCode::Unavailable, "the event log is closed").retry_after(second)
            }
            StoreError::Fatal(_) => {
                Problem::new(ErrorCode::Unavailable, "the disk failed and the gateway is stopping")
                    .retry_after(Duration::from_secs(10))
            }
            StoreError::Inconsistent { .. } | StoreError::Failed(_) => {
                tracing::error!(error = %error, "the event log failed");
                Problem::new(ErrorCode::InternalError, "the event log failed; the gateway's log says why")
            }
        }
    }
}

/// A quota that is used up, and when it may be asked for again.
pub(super) fn quota_exceeded(exceeded: &QuotaExceeded, now_ms: i64) -> Problem {
    let QuotaExceeded { quota, limit, used, resets_at_ms } = *exceeded;
    let message = format!("the tenant has used {used} of its {limit} {}", quota.replace('_', " "));
    let wait = match resets_at_ms {
        Some(at_ms) => Duration::from_millis(u64::try_from(at_ms - now_ms).unwrap_or(0)),
        None => Duration::from_secs(5),
    };
    Problem::new(ErrorCode::QuotaExceeded, message)
        .with("quota", quota)
        .with("limit", limit)
        .with("used", used)
        .with("outcome", "not_started")
        .retry_after(wait)
        .with_headers([
            ("ratelimit-policy", format!("\"{quota}\";q={limit}")),
            ("ratelimit", format!("\"{quota}\";r=0;t={}", wait.as_secs().max(1))),
        ])
}

/// What everybody hears whose credential is missing, wrong, over or revoked.
pub(super) fn unauthorized() -> Problem {
    Problem::new(
        ErrorCode::Unauthorized,
        "send a credential that holds, as Authorization: Bearer or X-API-Key",
    )
}

/// A peer's signature, refused; peers hear why, so that their operators can mend it.
pub(super) fn signature(error: SignatureError) -> Problem {
    let code = match &error {
        SignatureError::Missing => ErrorCode::SignatureMissing,
        SignatureError::TooManyLabels => ErrorCode::InvalidRequest,
        SignatureError::Coverage(_) | SignatureError::Components => ErrorCode::SignatureCoverage,
        SignatureError::Algorithm => ErrorCode::SignatureAlgorithm,
        SignatureError::Expired { .. } | SignatureError::Lifetime => ErrorCode::SignatureExpired,
        SignatureError::Invalid => ErrorCode::SignatureInvalid,
        SignatureError::Digest | SignatureError::DigestMismatch => ErrorCode::DigestMismatch,
        SignatureError::Malformed(_)
        | SignatureError::Value(_)
        | SignatureError::Repeated(_)
        | SignatureError::Tag => ErrorCode::SignatureMalformed,
    };
    let problem = Problem::new(code, error.to_string());
    match error {
        SignatureError::Coverage(component) => problem.with("component", component),
        SignatureError::Expired { now_s, .. } => problem.with("server_time", now_s),
        _ => problem,
    }
}

/// Policy's no, in the words of the wire.
pub(super) fn denied(denial: &Denial) -> Problem {
    let code = match denial.rule {
        Rule::PeerRevoked | Rule::PeerIntroduced => ErrorCode::PeerNotAllowed,
        Rule::PeerDraining => ErrorCode::Draining,
        Rule::FederationBoundary => ErrorCode::FederationBoundary,
        Rule::InsufficientScope => ErrorCode::InsufficientScope,
        Rule::OperationNotGranted
        | Rule::TenantNotGranted
        | Rule::AgentNotGranted
        | Rule::RegionNotGranted
        | Rule::OperatorsOnly => ErrorCode::PolicyDenied,
    };
    Problem::new(code, denial.reason.clone())
        .with("rule", denial.rule.as_str())
        .with("outcome", "not_started")
}

impl From<InvalidBody> for Problem {
    fn from(error: InvalidBody) -> Self {
        match &error {
            InvalidBody::NotJson(_) => Problem::new(ErrorCode::InvalidJson, error.to_string()),
            InvalidBody::Field { field, expected } => {
                Problem::new(ErrorCode::InvalidRequest, error.to_string())
                    .with("field", field.as_str())
                    .with("expected", expected.as_str())
            }
        }
    }
}
