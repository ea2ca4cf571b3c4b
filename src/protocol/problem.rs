//! Error bodies: one object that satisfies AgentOS clients and RFC 9457 clients, and reading those of peers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error_code::ErrorCode;
use crate::domain::limits;

/// The content type of every error body.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong.
    #[serde(with = "code_name")]
    pub code: ErrorCode,
    /// A plain sentence for the client.
    pub message: String,
    /// Facts: the field at fault, what is allowed, what the peer said.
    pub details: Map<String, Value>,
    /// Sent as `Retry-After`.
    pub retry_after_ms: Option<u64>,
    /// Other header fields of the answer.
    #[serde(skip)]
    pub headers: Vec<(&'static str, String)>,
}

impl Problem {
    /// An error with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Problem {
            code,
            message: message.into(),
            details: Map::new(),
            retry_after_ms: None,
            headers: Vec::new(),
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Adds header fields to the answer.
    #[must_use]
    pub fn with_headers(mut self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after_ms = u64::try_from(after.as_millis()).ok();
        self
    }

    /// The body.
    pub fn to_json(&self, correlation_id: &str) -> Value {
        let code = self.code;
        json!({
            "type": format!("urn:causeway:problem:{}", code.as_str()),
            "title": code.title(),
            "status": code.status(),
            "detail": self.message,
            "error": {
                "code": code.as_str(),
                "message": self.message,
                "retryable": self.is_retryable(),
                "details": self.details,
            },
            "correlation_id": correlation_id,
        })
    }

    /// True when the same request may succeed later, unchanged. A fact of this error may say otherwise.
    pub fn is_retryable(&self) -> bool {
        self.details.get("retryable").and_then(Value::as_bool).unwrap_or(self.code.is_retryable())
    }
}

mod code_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::ErrorCode;

    pub(super) fn serialize<S: Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(code.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
        let name = String::deserialize(deserializer)?;
        ErrorCode::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == name)
            .ok_or_else(|| de::Error::custom("not an error code"))
    }
}

/// What a peer's error body says, as data: bounded, without control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerError {
    /// `error.code`.
    pub code: Option<String>,
    /// `error.message`, else `detail` or `title`.
    pub message: Option<String>,
    /// `error.details.outcome` is `not_started`.
    pub not_started: bool,
}

impl PeerError {
    /// A gateway says that what failed is not itself but a peer of its own.
    pub fn lies_behind(&self) -> bool {
        let behind = [ErrorCode::CircuitOpen, ErrorCode::ForwardFailed, ErrorCode::ForwardOutcomeUnknown];
        self.code.as_deref().is_some_and(|code| behind.iter().any(|known| known.as_str() == code))
    }

    /// Reads an AgentOS or RFC 9457 body; anything else says nothing.
    pub fn parse(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return PeerError::default() };
        let error = body.get("error").unwrap_or(&Value::Null);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(limits::clean_reason);
        let message = text(error.get("message")).or_else(|| text(body.get("detail")));
        PeerError {
            code: text(error.get("code")),
            message: message.or_else(|| text(body.get("title"))).or_else(|| text(Some(error))),
            not_started: error.pointer("/details/outcome").and_then(Value::as_str) == Some("not_started"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_body_serves_both_kinds_of_client() {
        let body = Problem::new(ErrorCode::PeerNotFound, "no peer `stk_x` is enrolled")
            .with("field", "stack_id")
            .to_json("req_1");
        assert_eq!(body["error"]["code"], "peer_not_found");
        assert_eq!(body["error"]["retryable"], false);
        assert_eq!(body["type"], "urn:causeway:problem:peer_not_found");
        assert_eq!(body["status"], 404);
        assert_eq!(body["detail"], body["error"]["message"]);
        assert_eq!(body["correlation_id"], "req_1");
    }

    #[test]
    fn what_a_peer_says_is_data_without_control_characters() {
        // reliability 4d.62
        let error = PeerError::parse(b"{\"error\":{\"code\":\"bad\\u001b[2J\",\"message\":\"a\\r\\nb\"}}");
        assert_eq!(error.code.as_deref(), Some("bad [2J"));
        assert_eq!(error.message.as_deref(), Some("a  b"));
        assert_eq!(PeerError::parse(b"<html>"), PeerError::default());
    }

    #[test]
    fn every_code_reads_back() {
        for &code in ErrorCode::ALL {
            let text = serde_json::to_string(&Problem::new(code, "x")).expect("a problem is JSON");
            assert_eq!(serde_json::from_str::<Problem>(&text).expect("it reads back").code, code);
            assert!((400..=599).contains(&code.status()));
        }
    }
}
