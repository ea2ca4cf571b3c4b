//! What a peer says it can do: both forms found in the wild, one reader.

use std::time::Duration;

use serde_json::Value;

use crate::domain::peer::Capabilities;
use crate::domain::succession::Succession;

/// What a peer's capability document says.
#[derive(Debug, Clone, Default)]
pub struct CapabilityDocument {
    /// The names, and the model tiers.
    pub capabilities: Capabilities,
    /// For how long the peer keeps idempotency keys, when it says.
    pub idempotency_retention: Option<Duration>,
    /// The id the peer goes by, when it says.
    pub peer_id: Option<String>,
    /// The domain it says it is in.
    pub domain: Option<String>,
    /// Its process.
    pub instance: Option<String>,
    /// The id it knows the caller by.
    pub you: Option<String>,
    /// Its signature of the request's nonce.
    pub proof: Option<String>,
    /// The largest request body it takes, when it says.
    pub max_body: Option<u64>,
    /// A digest of its policy.
    pub policy_digest: Option<String>,
    /// The key that follows its present one.
    pub succession: Option<Succession>,
}

/// Reads `{capabilities:{supports:{…}}}`, `{capabilities:[…]}` and our own `features`. A body that is
/// neither says nothing.
pub fn parse(body: &[u8]) -> Option<CapabilityDocument> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let capabilities = body.get("capabilities")?;
    let listed = capabilities.as_array().into_iter().flatten().filter_map(Value::as_str);
    let supported = capabilities
        .get("supports")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| (value == &Value::Bool(true)).then_some(name.as_str()));
    let features =
        body.get("features").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut parsed = Capabilities::new(listed.chain(supported).chain(features).take(256));
    let tiers = capabilities.pointer("/models/tiers").and_then(Value::as_array).into_iter().flatten();
    parsed.model_tiers = tiers.filter_map(Value::as_str).take(64).map(str::to_owned).collect();
    let retention = body.get("idempotency_retention_ms").and_then(Value::as_u64);
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let succession = body.get("key_succession").cloned();
    Some(CapabilityDocument {
        capabilities: parsed,
        idempotency_retention: retention.map(Duration::from_millis),
        peer_id: text("peer_id"),
        domain: text("domain"),
        instance: text("instance_id"),
        you: text("you"),
        proof: text("proof"),
        max_body: capabilities.pointer("/limits/max_body_bytes").and_then(Value::as_u64),
        policy_digest: text("policy_digest"),
        succession: succession.and_then(|value| serde_json::from_value(value).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specs_object_and_the_codes_list_say_the_same() {
        // defect 18
        let spec = parse(
            br#"{"capabilities":{"supports":{"runs_forward":true,"events_stream":true,"tool_hosting":false},
            "models":{"tiers":["fast"]}}}"#,
        )
        .expect("the spec's form");
        let code = parse(br#"{"peer_id":"x","capabilities":["runs.forward","events.sse_proxy"]}"#)
            .expect("the code's form");
        assert_eq!(
            spec.capabilities.names().collect::<Vec<_>>(),
            code.capabilities.names().collect::<Vec<_>>()
        );
        assert!(spec.capabilities.model_tiers.contains("fast"));
        assert!(parse(b"{}").is_none());
    }
}
