//! What a gateway is joined to, and how each link is: from what it knows, the same for whoever looks twice.

use causeway::domain::grants::Operation;
use causeway::domain::peer::PeerKind;
use serde_json::{Value, json};

use crate::support::gateway::{TestGateway, peer, test_config};
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::pair::{Operator, Pair, Plan};

const TOPOLOGY: &str = "/v1/federation/topology";

async fn link(operator: &Operator, peer: &str) -> Value {
    operator.get(&format!("/v1/federation/links/{peer}")).await.expect(200).json["link"].take()
}

async fn until_link(operator: &Operator, peer: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..500 {
        last = link(operator, peer).await;
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await; // why: polling another party's HTTP API
    }
    panic!("the link to {peer} never was as wanted; last: {last}");
}

fn find<'a>(topology: &'a Value, list: &str, name: &str, id: &str) -> &'a Value {
    let all = topology["topology"][list].as_array().expect("a list");
    all.iter().find(|one| one[name] == id).unwrap_or_else(|| panic!("{id} is not in {topology}"))
}

// M-03
#[tokio::test]
async fn the_topology_shows_both_ways_of_each_link_as_it_is() {
    let mut plan = Plan::new().await;
    plan.b.entry.region = "us-west-2".to_owned();
    plan.b.entry.operations.push(Operation::Ingest);
    let pair = plan.start().await;
    pair.until_healthy().await;
    let run = pair.a.forward_run("stk_b").await;
    let at_a = Operator::of(&pair.a);
    until_link(&at_a, "stk_b", |link| link["readers"]["placed"] == 1).await;
    let shown = at_a.get(TOPOLOGY).await.expect(200).json;
    let own = find(&shown, "nodes", "node_id", "stk_a");
    assert_eq!(
        (&own["role"], &own["state"], &own["kind"]),
        (&json!("self"), &json!("serving"), &json!("gateway"))
    );
    let far = find(&shown, "nodes", "node_id", "stk_b");
    assert_eq!(
        (&far["role"], &far["region"], &far["state"]),
        (&json!("peer"), &json!("us-west-2"), &json!("connected"))
    );
    assert_eq!(find(&shown, "nodes", "node_id", "orc_a")["local"], true);

    let there = find(&shown, "edges", "edge_id", "stk_a -> stk_b");
    assert_eq!(there["proofs"], json!(["mtls", "signature"]));
    assert_eq!(there["operations"], json!([{ "operation": "forward_out", "allowed": true, "rule": null }]));
    assert_eq!((&there["flows"]["runs_read"], &there["flows"]["forwards_in_flight"]), (&json!(1), &json!(0)));
    assert!(there["latency_ms"].is_u64() && there["answered_at"].is_string(), "{there}");
    let here = find(&shown, "edges", "edge_id", "stk_b -> stk_a");
    let granted: Vec<&Value> =
        here["operations"].as_array().expect("operations").iter().map(|one| &one["operation"]).collect();
    assert_eq!(granted, [&json!("forward_in"), &json!("ingest")]);
    assert_eq!(
        (&here["state"], &here["flows"]),
        (&Value::Null, &Value::Null),
        "what is not known is not said"
    );
    let plain = find(&shown, "edges", "edge_id", "stk_a -> orc_a");
    assert_eq!(plain["proofs"], json!([]), "an orchestrator without a token is shown nothing");

    // Nothing moved, nothing differs, but for what is measured.
    let stable = |answer: &Value| {
        let mut shown = answer["topology"].clone();
        shown["generated_at"].take();
        for edge in shown["edges"].as_array_mut().expect("edges") {
            (edge["latency_ms"], edge["answered_at"]) = (Value::Null, Value::Null);
        }
        shown
    };
    assert_eq!(stable(&shown), stable(&at_a.get(TOPOLOGY).await.expect(200).json));
    pair.home_b.finish(&run, crate::support::orchestrator::RunStatus::Completed);
    until_link(&at_a, "stk_b", |link| link["readers"]["running"] == 0).await;

    let link = link(&at_a, "stk_b").await;
    let ends = link["certificate_expires_at"].as_str().expect("a certificate was shown");
    assert!(ends > "2030", "{ends}");
    assert_eq!(
        (&link["circuit"]["state"], &link["forwards"]["in_flight_limit"]),
        (&json!("closed"), &json!(64))
    );
    assert!(
        link["capabilities"].as_array().is_some_and(|all| all.contains(&json!("runs.forward"))),
        "{link}"
    );
}

// M-03, M-16
#[tokio::test]
async fn a_link_says_how_it_is_since_when_and_why() {
    let mut pair = Pair::start().await;
    let at_a = Operator::of(&pair.a);
    let connected = link(&at_a, "stk_b").await;
    assert_eq!(connected["state"], "connected");
    // Asked again and again, it has been so since it began to be.
    let checked = connected["health"]["checked_at"].clone();
    let later = until_link(&at_a, "stk_b", |link| link["health"]["checked_at"] != checked).await;
    assert_eq!(later["since"], connected["since"]);

    at_a.act("/v1/federation/peers/stk_b:drain").await.expect(200);
    assert_eq!(link(&at_a, "stk_b").await["state"], "draining");
    at_a.act("/v1/federation/peers/stk_b:reinstate").await.expect(200);
    until_link(&at_a, "stk_b", |link| link["state"] == "connected").await;

    pair.b.stop().await;
    let gone = until_link(&at_a, "stk_b", |link| link["state"] == "unreachable").await;
    assert!(gone["health"]["reason"].as_str().is_some_and(|why| why.contains("cannot connect")), "{gone}");
    assert!(gone["since"].as_str() > connected["since"].as_str(), "{gone}");
    pair.b.start_again().await.expect("it starts again");
    let back = until_link(&at_a, "stk_b", |link| link["state"] == "connected").await;
    assert!(
        back["last_error"]["reason"].as_str().is_some_and(|why| why.contains("cannot connect")),
        "{back}"
    );

    // The other side cut it off: it answers, and does not let it in.
    Operator::of(&pair.b).act("/v1/federation/peers/stk_a:revoke").await.expect(200);
    until_link(&at_a, "stk_b", |link| link["state"] == "refused" || link["state"] == "unreachable").await;
    at_a.post("/v1/federation/peers/stk_b:revoke", &json!({ "reason": "over" })).await.expect(200);
    let revoked = link(&at_a, "stk_b").await;
    assert_eq!((&revoked["state"], &revoked["standing_reason"]), (&json!("revoked"), &json!("over")));
    assert_eq!(revoked["operations"][0]["allowed"], false);
    assert_eq!(revoked["operations"][0]["rule"], "peer_revoked");
    // A restart keeps what was decided.
    pair.a.restart().await;
    let at_a = Operator::of(&pair.a);
    until_link(&at_a, "stk_b", |link| link["state"] == "revoked").await;
}

// M-03
#[tokio::test]
async fn a_breaker_that_opened_shows_in_the_link_with_its_next_try() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.forward.max_attempts = 1;
    let gateway =
        TestGateway::start_with(config, vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)]).await;
    home.creates(crate::support::orchestrator::CreateFault::status(500));
    let body = crate::support::gateway::forward_body("stk_b");
    for _ in 0..6 {
        gateway.post("/v1/federation/runs:forward", &body).await;
    }
    let path = "/v1/federation/links/stk_b";
    let open = gateway.until(path, |answer| answer.json["link"]["state"] == "circuit_open").await;
    let circuit = &open.json["link"]["circuit"];
    assert_eq!(circuit["state"], "open", "{circuit}");
    assert!(circuit["retry_at"].as_str() > circuit["since"].as_str(), "{circuit}");
    assert_eq!(open.json["link"]["health"]["state"], "healthy", "its health call is answered all the same");
}
