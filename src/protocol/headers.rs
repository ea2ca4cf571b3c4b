//! Header names of ours and of AgentOS, and the ones that need reading with care.

use std::time::Duration;

use crate::domain::limits;

/// The tenant, in profile `dev` and towards peers.
pub const TENANT: &str = "x-tenant-id";
/// The principal, in profile `dev` and towards peers.
pub const PRINCIPAL: &str = "x-principal-id";
/// The id that follows a request over all hops.
pub const CORRELATION_ID: &str = "x-correlation-id";
/// Echo of the correlation id.
pub const REQUEST_ID: &str = "x-request-id";
/// One request, however often it is sent.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The answer was stored by an earlier request with the same key.
pub const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The gateways a run-create came through, by id, so that a loop is refused where it closes.
pub const VIA: &str = "causeway-via";
/// The gateway that calls, as a signed request says it.
pub const ORIGIN: &str = "causeway-origin";
/// The gateway a signed request is meant for.
pub const DESTINATION: &str = "causeway-destination";
/// The process that calls.
pub const INSTANCE: &str = "causeway-instance";
/// The key that follows the one that signs, announced by it.
pub const KEY_SUCCESSION: &str = "causeway-key-succession";
/// Where an event stream goes on.
pub const LAST_EVENT_ID: &str = "last-event-id";
/// The first sequence retention kept.
pub const OLDEST_SEQUENCE: &str = "causeway-oldest-sequence";
/// The largest sequence with no hole below it.
pub const HIGH_WATER: &str = "causeway-high-water";
/// How far the run has come.
pub const RUN_STATUS: &str = "causeway-run-status";

/// Reads an idempotency key: a quoted structured-field string, or a bare token.
pub fn idempotency_key(value: &str) -> Option<String> {
    let value = value.trim();
    let key = match value.strip_prefix('"') {
        None if value.contains(' ') => return None,
        None => value.to_owned(),
        Some(quoted) => {
            let inner = quoted.strip_suffix('"')?;
            let mut key = String::with_capacity(inner.len());
            let mut escaped = false;
            for c in inner.chars() {
                match c {
                    '"' if !escaped => return None,
                    '\\' if !escaped => escaped = true,
                    _ if escaped && c != '"' && c != '\\' => return None,
                    _ => {
                        escaped = false;
                        key.push(c);
                    }
                }
            }
            if escaped {
                return None;
            }
            key
        }
    };
    let plain = key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    (plain && (1..=limits::IDEMPOTENCY_KEY_BYTES).contains(&key.len())).then_some(key)
}

/// Reads a correlation id a caller gave; anything odd is not used.
pub fn correlation_id(value: &str) -> Option<&str> {
    let plain = value.bytes().all(|byte| byte.is_ascii_graphic());
    (plain && (1..=limits::CORRELATION_ID_BYTES).contains(&value.len())).then_some(value)
}

/// Reads `Retry-After` in seconds. The date form is left: peers' clocks are not ours.
pub fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()))
}

/// Writes `Retry-After`: whole seconds, rounded up, at least one.
pub fn retry_after_seconds(after_ms: u64) -> u64 {
    after_ms.div_ceil(1000).max(1)
}

/// True when a `Prefer` header asks for an answer before the work is done.
pub fn prefers_async(value: &str) -> bool {
    value.split(',').any(|preference| {
        preference.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("respond-async"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_quoted_or_bare() {
        assert_eq!(idempotency_key("\"a b\\\"c\""), Some("a b\"c".to_owned()));
        assert_eq!(idempotency_key("idem_1"), Some("idem_1".to_owned()));
        // reliability 4d.13
        for bad in ["", "a b", "\"", "\"a", "\"a\"b\"", "\"a\\\"", "\"\"", "é", &"x".repeat(257)] {
            assert_eq!(idempotency_key(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn preferences_are_read_as_a_list() {
        assert!(prefers_async("wait=10, respond-async"));
        assert!(!prefers_async("respond-asynchronously"));
    }

    #[test]
    fn a_wait_is_never_said_to_be_nothing() {
        assert_eq!(retry_after_seconds(0), 1);
        assert_eq!(retry_after_seconds(1001), 2);
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
