//! Which peer a forward goes to: by name, by region, by capability, by health.

use causeway::domain::peer::PeerKind;
use causeway::services::peer_options::PeerOptions;
use serde_json::{Value, json};

use crate::support::forwards::FORWARD;
use crate::support::gateway::{TestGateway, forward_body, peer};
use crate::support::orchestrator::ScriptedOrchestrator;

fn selecting(selector: Value) -> Value {
    let mut body = forward_body("");
    body["forward"]["target_selector"] = selector;
    body
}

fn in_region(home: &ScriptedOrchestrator, id: &str, region: &str) -> PeerOptions {
    let mut options = peer(id, &home.base_url(), PeerKind::Orchestrator);
    options.region = region.to_owned();
    options
}

/// Two homes: `stk_b` in `eu`, which also hosts tools, and `stk_c` in `us`.
async fn two_homes() -> (ScriptedOrchestrator, ScriptedOrchestrator, TestGateway) {
    let (east, west) = (ScriptedOrchestrator::start().await, ScriptedOrchestrator::start().await);
    let mut tools = in_region(&east, "stk_b", "eu");
    tools.capabilities = ["runs_forward", "events_stream", "tool_hosting"].map(String::from).to_vec();
    let gateway = TestGateway::start(vec![tools, in_region(&west, "stk_c", "us")]).await;
    (east, west, gateway)
}

async fn chosen(gateway: &TestGateway, selector: Value) -> String {
    let answer = gateway.post(FORWARD, &selecting(selector)).await.expect(200);
    answer.json["forwarded"]["remote_stack_id"].as_str().expect("a peer").to_owned()
}

//
#[tokio::test]
async fn a_peer_is_chosen_by_region_and_by_capability_in_either_vocabulary() {
    let (_east, _west, gateway) = two_homes().await;
    assert_eq!(chosen(&gateway, json!({ "region": "eu" })).await, "stk_b");
    assert_eq!(chosen(&gateway, json!({ "region": "us" })).await, "stk_c");
    assert_eq!(chosen(&gateway, json!({ "required_capabilities": ["tool_hosting"] })).await, "stk_b");
    for words in [["runs_forward", "tenant_isolation"], ["runs.forward", "tenant_isolation"]] {
        assert_eq!(chosen(&gateway, json!({ "required_capabilities": words })).await, "stk_c");
    }
    for words in [["runs_forward", "events_stream"], ["runs.forward", "events.sse_proxy"]] {
        let selector = json!({ "region": "eu", "required_capabilities": words });
        assert_eq!(chosen(&gateway, selector).await, "stk_b");
    }
    assert_eq!(chosen(&gateway, json!({ "stack_id": "stk_c", "region": "us" })).await, "stk_c");
}

//
#[tokio::test]
async fn what_is_missing_is_named() {
    let (east, west, gateway) = two_homes().await;
    let selector =
        json!({ "stack_id": "stk_c", "required_capabilities": ["runs.forward", "tool_hosting", "gpu"] });
    let answer = gateway.post(FORWARD, &selecting(selector)).await.expect(422);
    assert_eq!(answer.code(), "capability_unsupported");
    assert_eq!(answer.json["error"]["details"]["missing"], json!(["tool_hosting", "gpu"]));
    assert!(answer.json["detail"].as_str().is_some_and(|text| text.contains("tool_hosting, gpu")));
    let nowhere = [
        json!({ "stack_id": "stk_b", "region": "us" }),
        json!({ "region": "mars" }),
        json!({ "required_capabilities": ["gpu"] }),
        json!({ "region": "us", "required_capabilities": ["tool_hosting"] }),
    ];
    for selector in nowhere {
        let answer = gateway.post(FORWARD, &selecting(selector.clone())).await.expect(422);
        assert_eq!(answer.code(), "capability_unsupported", "{selector}");
        assert_eq!(answer.json["error"]["retryable"], false);
    }
    assert_eq!(east.truth().creates().len() + west.truth().creates().len(), 0);
}

#[tokio::test]
async fn a_peer_that_is_not_enrolled_is_not_found() {
    let (_east, _west, gateway) = two_homes().await;
    for name in ["stk_x", "stk b", "http://127.0.0.1:1"] {
        let answer = gateway.post(FORWARD, &forward_body(name)).await.expect(404);
        assert_eq!((answer.code(), &answer.json["error"]["retryable"]), ("peer_not_found", &json!(false)));
    }
    gateway.post(FORWARD, &selecting(json!({}))).await.expect(400);
}

#[tokio::test]
async fn a_peer_that_is_not_well_is_avoided_until_it_is() {
    let (left, right) = (ScriptedOrchestrator::start().await, ScriptedOrchestrator::start().await);
    let peers = vec![in_region(&left, "stk_b", "eu"), in_region(&right, "stk_c", "eu")];
    let gateway = TestGateway::start(peers).await;
    let health = |id: &str| format!("/v1/federation/peers/{id}");
    let is = |state: &'static str| {
        move |answer: &crate::support::gateway::Answer| answer.json["peer"]["health"]["state"] == state
    };
    gateway.until(&health("stk_b"), is("healthy")).await;
    assert_eq!(chosen(&gateway, json!({ "region": "eu" })).await, "stk_b", "the first of equals");
    left.stop().await;
    gateway.until(&health("stk_b"), is("failing")).await;
    for _ in 0..3 {
        assert_eq!(chosen(&gateway, json!({ "region": "eu" })).await, "stk_c");
    }
    right.stop().await;
    gateway.until(&health("stk_c"), is("failing")).await;
    let answer = gateway.post(FORWARD, &selecting(json!({ "region": "eu" }))).await.expect(503);
    assert_eq!(answer.code(), "unavailable");
    assert_ne!(answer.header("retry-after"), "");
    left.restart().await;
    gateway.until(&health("stk_b"), is("healthy")).await;
    assert_eq!(chosen(&gateway, json!({ "region": "eu" })).await, "stk_b");
}
