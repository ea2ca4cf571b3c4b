//! The boundary between domains: one answer for one mode and one domain, whichever way a peer comes.

use causeway::config::Config;
use causeway::domain::grants::Operation;
use causeway::domain::id::PeerId;
use causeway::domain::policy::FederationMode;
use causeway::services::trust_options::BridgeOptions;
use serde_json::{Value, json};

use crate::support::forwards::FORWARD;
use crate::support::gateway::{Answer, TestGateway, forward_body, test_config};
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::pair::{Operator, Signer, gateway_entry, orchestrator_entry, some_key};

const OWN: &str = "eu.example";
const FOREIGN: &str = "us.example";

/// A refusal at the boundary: the code, and both domains by name.
#[track_caller]
fn assert_boundary(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.code()), (403, "federation_boundary"), "{what}: {}", answer.text);
    let said = answer.json["error"]["message"].as_str().expect("a message");
    assert!(said.contains(OWN) && said.contains(FOREIGN), "{what}: {said}");
    assert!(said.contains("policy.") || said.contains("bridge"), "{what} says what to change: {said}");
}

/// Everything that a peer of `domain` may try: the answers, by the way it came.
async fn ways(change: &impl Fn(&mut Config), domain: &str) -> Vec<(&'static str, Answer)> {
    let home = ScriptedOrchestrator::start().await;
    let key = some_key();
    let mut config = test_config();
    config.gateway.stack_id = PeerId::parse("stk_b").expect("an id");
    config.policy.domain = OWN.to_owned();
    change(&mut config);
    let mut local = orchestrator_entry("orc", &home.base_url());
    local.local = true;
    // One configured gateway, which comes in and is sent to.
    let mut configured = gateway_entry("stk_x", &home.base_url(), key.public());
    configured.domain = domain.to_owned();
    let gateway = TestGateway::start_with(config, vec![local, configured]).await;
    let signer = Signer::new(&key, "stk_x", "stk_b", &causeway::clock::Clock::system());
    let mut answers = vec![
        ("inbound question", signer.get("/v1/federation/peer").send_to(&gateway).await),
        ("inbound create", signer.create("key-1").send_to(&gateway).await),
        ("outbound forward", gateway.post(FORWARD, &forward_body("stk_x")).await),
    ];
    let enrolment = |id: &str, base: String| {
        json!({ "peer_id": id, "base_url": base, "kind": "gateway", "domain": domain,
            "public_key": some_key().public().to_string(), "operations": ["forward_in", "forward_out"] })
    };
    let enrolled = gateway.post("/v1/federation/peers", &enrolment("stk_y", home.base_url())).await;
    let is_enrolled = enrolled.status == 201;
    answers.push(("enrolment", enrolled));
    if is_enrolled {
        answers.push(("outbound to the enrolled", gateway.post(FORWARD, &forward_body("stk_y")).await));
    }
    // The question without an act gives the same answer.
    let operator = Operator::of(&gateway);
    for direction in ["in", "out"] {
        let body = json!({ "peer_id": "stk_x", "action": "run.create", "direction": direction });
        let decision = operator.post("/v1/federation/policy:evaluate", &body).await.expect(200);
        let expected = answers[1].1.status < 300;
        assert_eq!(decision.json["decision"]["allow"], json!(expected), "{direction}: {}", decision.text);
        if !expected {
            assert_eq!(decision.json["decision"]["rule"], "federation_boundary");
        }
    }
    let created = answers.iter().filter(|(way, answer)| *way != "enrolment" && answer.status < 300).count();
    let asked = usize::from(answers[0].1.status < 300);
    assert_eq!(home.truth().creates().len(), created - asked, "a refusal has no effect");
    answers
}

fn mode(mode: FederationMode) -> impl Fn(&mut Config) {
    move |config| config.policy.federation_mode = mode
}

fn allowed(config: &mut Config) {
    config.policy.federation_mode = FederationMode::Bridging;
    config.policy.allowed_foreign_domains = vec![FOREIGN.to_owned()];
}

fn bridged(config: &mut Config) {
    config.policy.federation_mode = FederationMode::Bridging;
    config.bridges.insert(FOREIGN.to_owned(), BridgeOptions::default());
}

fn bridged_for_others(config: &mut Config) {
    let bridge = BridgeOptions { allowed_peers: vec!["stk_other".to_owned()], operations: Vec::new() };
    config.policy.federation_mode = FederationMode::Bridging;
    config.bridges.insert(FOREIGN.to_owned(), bridge);
}

// M-14, M-15, M-17, M-19, M-22, M-23
#[tokio::test]
async fn one_mode_gives_one_answer_whichever_way_a_peer_comes() {
    type Change = Box<dyn Fn(&mut Config)>;
    let table: Vec<(&str, Change, bool)> = vec![
        ("the default", Box::new(|_| {}), false),
        ("strict", Box::new(mode(FederationMode::Strict)), false),
        ("bridging without a bridge", Box::new(mode(FederationMode::Bridging)), false),
        ("bridging for others", Box::new(bridged_for_others), false),
        ("bridging, allowed", Box::new(allowed), true),
        ("bridging, bridged", Box::new(bridged), true),
        ("open", Box::new(mode(FederationMode::Open)), true),
    ];
    for (what, change, lets_foreigners_in) in table {
        for (way, answer) in ways(&change, OWN).await {
            assert!(answer.status < 300, "{what}, {way}, own domain: {}", answer.text);
        }
        for (way, answer) in ways(&change, FOREIGN).await {
            match lets_foreigners_in {
                true => assert!(answer.status < 300, "{what}, {way}, foreign domain: {}", answer.text),
                false => assert_boundary(&answer, &format!("{what}, {way}")),
            }
        }
    }
}

// M-14, M-16
#[tokio::test]
async fn a_bridge_carries_what_it_says_and_no_more() {
    let home = ScriptedOrchestrator::start().await;
    let key = some_key();
    let mut config = test_config();
    config.gateway.stack_id = PeerId::parse("stk_b").expect("an id");
    config.policy.domain = OWN.to_owned();
    config.policy.federation_mode = FederationMode::Bridging;
    let bridge =
        BridgeOptions { allowed_peers: vec!["stk_x".to_owned()], operations: vec![Operation::ForwardOut] };
    config.bridges.insert(FOREIGN.to_owned(), bridge);
    let mut entry = gateway_entry("stk_x", &home.base_url(), key.public());
    entry.domain = FOREIGN.to_owned();
    let mut local = orchestrator_entry("orc", &home.base_url());
    local.local = true;
    let gateway = TestGateway::start_with(config, vec![local, entry]).await;
    gateway.post(FORWARD, &forward_body("stk_x")).await.expect(200);
    let signer = Signer::new(&key, "stk_x", "stk_b", &causeway::clock::Clock::system());
    signer.get("/v1/federation/peer").send_to(&gateway).await.expect(200);
    let refused = signer.create("key-1").send_to(&gateway).await;
    assert_boundary(&refused, "an operation the bridge does not carry");
    // The policy in force can be read, and every refusal was counted and kept.
    let operator = Operator::of(&gateway);
    let shown = operator.get("/v1/federation/policy").await.expect(200);
    let policy = &shown.json["policy"];
    assert_eq!((&policy["domain"], &policy["federation_mode"]), (&json!(OWN), &json!("bridging")));
    assert_eq!(policy["bridges"][0]["remote_domain"], FOREIGN);
    let is_it = |record: &Value| {
        record["reason"].as_str().is_some_and(|said| said.starts_with("federation_boundary"))
    };
    let record = operator.until_audited("the refusal", is_it).await;
    assert_eq!((&record["subject"], &record["action"]), (&json!("peer:stk_x"), &json!("run.create")));
    assert!(gateway.metric("requests_refused_total{reason=\"federation_boundary\"}").await >= 1.0);
}
