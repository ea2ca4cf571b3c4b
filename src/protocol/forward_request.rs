//! The body of `runs:forward` and of a run-create, as AgentOS clients really send them.
//!
//! Unknown fields are ignored; what is passed on keeps its text.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::json_fields::{Fields, InvalidBody};
use crate::domain::id::AgentId;
use crate::domain::limits;

/// Which peer a forward goes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetSelector {
    /// A peer by name.
    pub stack_id: Option<String>,
    /// Only peers of this region.
    pub region: Option<String>,
    /// Only peers that have all of these, in either vocabulary.
    pub required_capabilities: Vec<String>,
    /// Only peers that do not say they lack this tier.
    pub preferred_model_tier: Option<String>,
}

/// A run to create.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The agent that is to run.
    pub agent: AgentId,
    /// The caller's key, when the body has one.
    pub idempotency_key: Option<String>,
    /// Every other field, as text, sorted by name.
    fields: BTreeMap<String, Box<RawValue>>,
}

/// A whole forward.
#[derive(Debug, Clone)]
pub struct ForwardRequest {
    /// Which peer.
    pub selector: TargetSelector,
    /// The tenant the body claims, flat or nested.
    pub claimed_tenant: Option<String>,
    /// The run.
    pub run: RunRequest,
    /// Trace context the body carries.
    pub traceparent: Option<String>,
}

impl ForwardRequest {
    /// Reads a normalised body.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidBody> {
        let root = Fields::of_body(body)?;
        let forward = root.object("forward")?;
        let auth = forward.find_object("auth")?;
        let claimed_tenant = match &auth {
            Some(auth) => auth.find_string("tenant_id")?,
            None => None,
        };
        let selector = TargetSelector::parse(&forward.object("target_selector")?)?;
        let run = forward.object("run_request")?;
        let agent = required_agent(&run)?;
        Ok(ForwardRequest {
            selector,
            claimed_tenant,
            run: RunRequest::parse(run, agent)?,
            traceparent: forward.find_string("traceparent")?,
        })
    }

    /// What the request means, without its key and trace: repeats of one key must agree on it.
    pub fn meaning(&self) -> Vec<u8> {
        meaning(Some(&self.selector), &self.run)
    }
}

impl TargetSelector {
    fn parse(selector: &Fields<'_>) -> Result<Self, InvalidBody> {
        let text = |name: &str| -> Result<Option<String>, InvalidBody> {
            Ok(selector.find_string(name)?.filter(|text| !text.is_empty()))
        };
        let parsed = TargetSelector {
            stack_id: text("stack_id")?,
            region: text("region")?,
            required_capabilities: selector.strings("required_capabilities")?,
            preferred_model_tier: text("preferred_model_tier")?,
        };
        let selects = parsed.stack_id.is_some()
            || parsed.region.is_some()
            || !parsed.required_capabilities.is_empty()
            || parsed.preferred_model_tier.is_some();
        if selects {
            return Ok(parsed);
        }
        Err(InvalidBody::field(
            selector.path_of("stack_id"),
            "is required, unless region, required_capabilities or preferred_model_tier selects a peer",
        ))
    }

    /// Names the peer and nothing else.
    pub fn peer(stack_id: &str) -> Self {
        TargetSelector { stack_id: Some(stack_id.to_owned()), ..TargetSelector::default() }
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "stack_id": self.stack_id,
            "region": self.region,
            "required_capabilities": self.required_capabilities,
            "preferred_model_tier": self.preferred_model_tier,
        })
    }
}

impl RunRequest {
    /// Reads the normalised body of `POST /v1/agents/{agent_id}/runs`.
    pub fn parse_create(body: &[u8], agent: AgentId) -> Result<Self, InvalidBody> {
        let root = Fields::of_body(body)?;
        if root.find_string("agent_id")?.is_some_and(|named| named != agent.as_str()) {
            return Err(InvalidBody::field("agent_id", "must be the agent of the path, or be left out"));
        }
        Self::parse(root, agent)
    }

    fn parse(run: Fields<'_>, agent: AgentId) -> Result<Self, InvalidBody> {
        // Any JSON is an input, `null` too.
        if !run.has("input") {
            return Err(InvalidBody::field(run.path_of("input"), "is required"));
        }
        let idempotency_key = run.find_string("idempotency_key")?.filter(|key| !key.is_empty());
        if let Some(key) = &idempotency_key {
            let plain = key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            if !plain || key.len() > limits::IDEMPOTENCY_KEY_BYTES {
                let expected =
                    format!("must be at most {} visible ASCII characters", limits::IDEMPOTENCY_KEY_BYTES);
                return Err(InvalidBody::field(run.path_of("idempotency_key"), expected));
            }
        }
        let mut fields: BTreeMap<String, Box<RawValue>> =
            run.into_values().into_iter().map(|(name, raw)| (name, raw.to_owned())).collect();
        fields.remove("idempotency_key");
        fields.remove("agent_id");
        Ok(RunRequest { agent, idempotency_key, fields })
    }

    /// What the request means, without its key: repeats of one key must agree on it.
    pub fn meaning(&self) -> Vec<u8> {
        meaning(None, self)
    }
}

fn required_agent(run: &Fields<'_>) -> Result<AgentId, InvalidBody> {
    let agent = run.find_string("agent_id")?;
    agent.as_deref().and_then(|text| AgentId::parse(text).ok()).ok_or_else(|| {
        let expected = "is required and must be 1 to 128 visible ASCII characters (! to ~)";
        InvalidBody::field(run.path_of("agent_id"), expected)
    })
}

fn meaning(selector: Option<&TargetSelector>, run: &RunRequest) -> Vec<u8> {
    let mut text = String::from("{\"agent_id\":");
    text.push_str(&serde_json::Value::from(run.agent.as_str()).to_string());
    if let Some(selector) = selector {
        text.push_str(",\"target_selector\":");
        text.push_str(&selector.to_json().to_string());
    }
    text.push_str(",\"run_request\":");
    push_object(&mut text, &run.fields, None);
    text.push('}');
    text.into_bytes()
}

/// The body to send to the home: the stored request with the one key of its forward.
pub fn downstream_body(stored_request: &[u8], key: &str) -> Option<Vec<u8>> {
    let root = Fields::of_body(stored_request).ok()?;
    let run = root.object("run_request").ok()?;
    let fields = run.into_values().into_iter().map(|(name, raw)| (name, raw.to_owned())).collect();
    let mut text = String::new();
    push_object(&mut text, &fields, Some(key));
    Some(text.into_bytes())
}

fn push_object(text: &mut String, fields: &BTreeMap<String, Box<RawValue>>, key: Option<&str>) {
    text.push('{');
    for (at, (name, raw)) in fields.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        text.push_str(raw.get());
    }
    if let Some(key) = key {
        if !fields.is_empty() {
            text.push(',');
        }
        text.push_str("\"idempotency_key\":");
        text.push_str(&serde_json::Value::from(key).to_string());
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"forward":{"target_selector":{"stack_id":"stk_b","region":""},
        "auth":{"tenant_id":"t","principal_id":"p"},"unknown":1,
        "run_request":{"agent_id":"agt","input":{"type":"text","n":1.50},"future":{"x":[1e400]},
        "idempotency_key":"k1"},"traceparent":"00-x"}}"#;

    #[test]
    fn what_is_passed_on_keeps_its_text() {
        let request = ForwardRequest::parse(BODY.as_bytes()).expect("valid");
        assert_eq!(request.run.idempotency_key.as_deref(), Some("k1"));
        assert_eq!(request.claimed_tenant.as_deref(), Some("t"));
        let sent = downstream_body(&request.meaning(), "down").expect("a body");
        assert_eq!(
            String::from_utf8(sent).expect("UTF-8"),
            r#"{"future":{"x":[1e400]},"input":{"type":"text","n":1.50},"idempotency_key":"down"}"#
        );
    }

    #[test]
    fn an_input_of_null_is_an_input() {
        let null = BODY.replace(r#"{"type":"text","n":1.50}"#, "null");
        let request = ForwardRequest::parse(null.as_bytes()).expect("valid");
        let sent = downstream_body(&request.meaning(), "down").expect("a body");
        assert!(String::from_utf8(sent).expect("UTF-8").contains(r#""input":null"#));
    }

    #[test]
    fn the_key_is_no_part_of_what_a_request_means() {
        let other = BODY.replace("k1", "k2").replace("00-x", "00-y");
        let [left, right] =
            [BODY, &other].map(|b| ForwardRequest::parse(b.as_bytes()).expect("valid").meaning());
        assert_eq!(left, right);
    }

    #[test]
    fn a_missing_field_is_named_with_its_path() {
        for (from, to, field) in [
            (r#""agent_id":"agt","#, "", "forward.run_request.agent_id"),
            (r#""stack_id":"stk_b","#, "", "forward.target_selector.stack_id"),
            (r#""input":{"type":"text","n":1.50},"#, "", "forward.run_request.input"),
            (r#""idempotency_key":"k1""#, r#""idempotency_key":7"#, "forward.run_request.idempotency_key"),
            (r#""tenant_id":"t""#, r#""tenant_id":[]"#, "forward.auth.tenant_id"),
        ] {
            let error = ForwardRequest::parse(BODY.replace(from, to).as_bytes()).expect_err(field);
            assert!(matches!(&error, InvalidBody::Field { field: at, .. } if at == field), "{error:?}");
        }
    }
}
