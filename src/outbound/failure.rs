//! Why a call has no answer, and what that proves.

use super::resolver;
use crate::domain::limits;
use crate::tls::HandshakeError;

/// A call without an answer, by what it proves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// Name resolution, connect or TLS failed: no byte of the request left.
    #[error("{0}")]
    NeverLeft(String),
    /// The peer may not be dialled at its address, or not for this tenant: no byte left, and none will.
    #[error("{0}")]
    Denied(String),
    /// Bytes may have left.
    #[error("{0}")]
    Interrupted(String),
}

/// Sorts a failure by whether bytes may have left.
pub(super) fn failure(error: &reqwest::Error) -> CallFailure {
    if let Some(denied) = resolver::denied_address(error) {
        return CallFailure::Denied(denied.to_string());
    }
    // A server that refuses our certificate says so after our side of the handshake, and reads nothing.
    if let Some(refused) = HandshakeError::find(error).filter(HandshakeError::is_of_certificate) {
        let hint = match refused {
            HandshakeError::Alert(_) => "; is this gateway enrolled there, and not revoked?",
            _ => "",
        };
        return CallFailure::NeverLeft(format!("TLS: {refused}{hint}"));
    }
    let reason = limits::clean_reason(&root_cause(error));
    if error.is_connect() || error.is_builder() {
        CallFailure::NeverLeft(format!("cannot connect: {reason}"))
    } else {
        CallFailure::Interrupted(format!("the connection broke: {reason}"))
    }
}

/// The innermost cause: the outer ones only repeat the URL.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
