//! Forward requests: what is taken can be stored, compared with itself, and sent on with our key in it.

use causeway::domain::json_equal;
use causeway::protocol::forward_request::{ForwardRequest, downstream_body};
use serde_json::{Map, Value};

/// The body of a forward.
pub(crate) fn run(data: &[u8]) {
    let Ok(request) = ForwardRequest::parse(data) else { return };
    assert!(json_equal::equal(&request.meaning(), &request.meaning()), "a request is the same as itself");
    let sent = downstream_body(&request.run.meaning(), "cw-key").expect("what was taken can be sent");
    // A number may be larger than a map of values holds.
    let Ok(sent) = serde_json::from_slice::<Map<String, Value>>(&sent) else { return };
    assert_eq!(sent["idempotency_key"], "cw-key", "the caller's own stays here");
    assert!(!sent.contains_key("agent_id"), "the agent stands in the path");
    assert!(sent.contains_key("input"));
}
