//! What the demo forwards: a sample, or a run request of the user's own, checked before anything is started.

use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::create::{Target, body, mint_key};
use super::exit::Failure;
use super::forward::read_input;
use super::output::visible;
use crate::demo::{DEMO_TENANT, RIGHT};
use crate::domain::id::TenantId;
use crate::protocol::forward_request::ForwardRequest;
use crate::protocol::json_fields::{InvalidBody, normalised};

/// What is asked for unless the user asks for something else.
const SAMPLE_TEXT: &str = "Two places, one run, nothing lost between them.";
/// Shown to whoever wrote something else.
const EXAMPLE: &str =
    r#"a run request looks like {"agent_id":"agt_demo","input":{"type":"text","text":"hello"}}"#;

/// What is forwarded.
pub(super) struct DemoRequest {
    /// The body of `runs:forward`.
    pub(super) body: Vec<u8>,
    /// Its key.
    pub(super) key: String,
    /// Whose run it is, when that is not the demo's tenant.
    pub(super) tenant: Option<TenantId>,
}

impl DemoRequest {
    /// The user's request, or the sample.
    pub(super) fn load(file: Option<&Path>) -> Result<Self, Failure> {
        match file {
            Some(file) => {
                let name =
                    if file == Path::new("-") { "standard input".into() } else { file.to_string_lossy() };
                let text = read_input(file)?;
                Self::parse(&text).map_err(|message| Failure::usage(format!("{}: {message}", visible(&name))))
            }
            None => {
                let sample = json!({"agent_id": "agt_demo", "input": {"type": "text", "text": SAMPLE_TEXT}});
                Self::parse(&sample.to_string()).map_err(Failure::failed)
            }
        }
    }

    /// A whole forward is taken as it is; a run request goes to the gateway on the right.
    fn parse(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?;
        let whole = json.get("forward").is_some();
        let raw: Box<RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let target = Target { stack_id: Some(RIGHT.to_owned()), ..Target::default() };
        let body = match whole {
            true => text.as_bytes().to_vec(),
            false if json.is_object() => body(&target, &raw).map_err(|_| "this cannot be sent".to_owned())?,
            false => return Err(format!("this is not a JSON object; {EXAMPLE}")),
        };
        let body = normalised(&body).map_err(|error| error.to_string())?;
        let request = ForwardRequest::parse(&body).map_err(|error| explain(&error, whole))?;
        let tenant = match request.claimed_tenant.filter(|tenant| tenant != DEMO_TENANT) {
            Some(tenant) => Some(TenantId::parse(&tenant).map_err(|error| format!("the tenant {error}"))?),
            None => None,
        };
        Ok(DemoRequest { body, key: request.run.idempotency_key.unwrap_or_else(mint_key), tenant })
    }
}

/// Names the field as the user wrote it, not as it is sent.
fn explain(error: &InvalidBody, whole: bool) -> String {
    match error {
        InvalidBody::NotJson(_) => error.to_string(),
        InvalidBody::Field { field, expected } => {
            let written = field.strip_prefix("forward.run_request.").filter(|_| !whole).unwrap_or(field);
            format!("`{written}` {expected}; {EXAMPLE}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_request_goes_to_the_right_and_a_forward_stays_as_it_is() {
        let request =
            DemoRequest::parse(r#"{"agent_id":"a","input":{"n":1.50},"future":true}"#).expect("valid");
        assert_eq!(
            String::from_utf8_lossy(&request.body),
            r#"{"forward":{"target_selector":{"stack_id":"stk_right"},"run_request":{"agent_id":"a","input":{"n":1.50},"future":true}}}"#
        );
        let whole = r#"{"forward":{"target_selector":{"region":"right"},"auth":{"tenant_id":"t"},"run_request":{"agent_id":"a","input":1,"idempotency_key":"k"}}}"#;
        let request = DemoRequest::parse(whole).expect("valid");
        assert_eq!(String::from_utf8_lossy(&request.body), whole);
        assert_eq!(
            (request.key.as_str(), request.tenant.map(|t| t.to_string())),
            ("k", Some("t".to_owned()))
        );
    }

    #[test]
    fn a_bad_request_is_named_as_it_was_written() {
        for (text, said) in [
            ("{", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "`agent_id` is required"),
            (r#"{"agent_id":"a"}"#, "`input` is required"),
            (r#"{"forward":{}}"#, "`forward.target_selector`"),
        ] {
            let error = DemoRequest::parse(text).err().expect(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
