//! How the store's failures sound to a client: the chain goes to the log, a plain sentence to the wire.

use std::time::Duration;

use crate::protocol::error_code::ErrorCode;
use crate::protocol::json_fields::InvalidBody;
use crate::protocol::problem::Problem;
use crate::store::StoreError;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let second = Duration::from_secs(1);
        match error {
            StoreError::Full => Problem::new(
                ErrorCode::InsufficientStorage,
                "the disk is full: nothing was written; reading goes on, and writing resumes when space returns",
            )
            .retry_after(Duration::from_secs(10)),
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
