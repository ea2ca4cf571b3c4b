//! A page whose own name was made to lead to this machine: under profile dev it is believed nothing.

use crate::support::forwards::FORWARD;
use crate::support::gateway::{TestGateway, forward_body, test_config};
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::pair::{Operator, orchestrator_entry};

#[tokio::test]
async fn a_name_of_somebody_else_opens_nothing() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.server.cors_origins = vec!["http://console.example".to_owned()];
    let gateway = TestGateway::start_with(config, vec![orchestrator_entry("orc", &home.base_url())]).await;
    for path in ["/v1/federation/runs", "/v1/federation/peers", "/v1/federation/audit"] {
        let refused = gateway.get_with(path, &[("host", "evil.example:8080")]).await.expect(403);
        let said = refused.json["error"]["message"].as_str().expect("a message");
        assert!(said.contains("localhost"), "it says what to do: {said}");
    }
    // Such a page is of the same origin to its browser.
    let page = [("host", "evil.example"), ("origin", "http://evil.example")];
    gateway.post_with(FORWARD, &forward_body("orc"), &page).await.expect(403);
    assert!(home.truth().creates().is_empty());

    for own in ["localhost:8080", "[::1]", "console.example"] {
        gateway.get_with("/v1/federation/runs", &[("host", own)]).await.expect(200);
    }
    // A credential proves more than a name.
    let (_, token) = Operator::of(&gateway).token("alice", &["runs:read"]).await;
    let bearer = format!("Bearer {token}");
    let known = [("host", "gateway.acme.example"), ("authorization", bearer.as_str())];
    gateway.get_with("/v1/federation/runs", &known).await.expect(200);
}
