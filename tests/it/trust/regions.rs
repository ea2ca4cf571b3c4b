//! Regions: a peer's runs run where its entry lets them, whichever way they cross.

use causeway::config::Config;
use causeway::domain::grants::Operation;
use causeway::services::peer_options::PeerOptions;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::forwards::FORWARD;
use crate::support::gateway::{Answer, TENANT, TestGateway, envelope, forward_body, test_config};
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::pair::{Operator, Pair, Plan, Signer, orchestrator_entry};

fn only_eu() -> Vec<String> {
    vec!["eu-*".to_owned()]
}

fn asking_for(stack_id: &str, region: Option<&str>) -> Value {
    let mut body = forward_body(stack_id);
    body["forward"]["target_selector"]["region"] = json!(region);
    body
}

#[track_caller]
fn assert_region_refused(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.code()), (403, "policy_denied"), "{what}: {}", answer.text);
    assert_eq!(answer.json["error"]["details"]["rule"], "region_not_granted", "{what}: {}", answer.text);
    let said = answer.json["error"]["message"].as_str().expect("a message");
    assert!(said.contains("eu-*"), "{what} says what is granted: {said}");
}

//
#[tokio::test]
async fn a_run_is_sent_only_where_it_may_run() {
    let home = ScriptedOrchestrator::start().await;
    let entry = |id: &str, region: &str| PeerOptions {
        region: region.to_owned(),
        regions: only_eu(),
        ..orchestrator_entry(id, &home.base_url())
    };
    let configured = vec![entry("in_eu", "eu-west"), entry("in_us", "us-1"), entry("unplaced", "")];
    let gateway = TestGateway::start_with(test_config(), configured).await;
    // Those of the configuration, and the same enrolled by an operator.
    for (id, region) in [("late_eu", "eu-west"), ("late_us", "us-1"), ("late_unplaced", "")] {
        let body =
            json!({ "peer_id": id, "base_url": home.base_url(), "region": region, "regions": ["eu-*"] });
        let peer = gateway.post("/v1/federation/peers", &body).await.expect(201);
        assert_eq!(peer.json["peer"]["grants"]["regions"], json!(["eu-*"]));
    }
    let operator = Operator::of(&gateway);
    let mut sent = 0;
    for (place, asked, allowed) in [
        ("eu", None, true),
        ("eu", Some("eu-west"), true),
        ("us", None, false),
        ("us", Some("us-1"), false),
        ("unplaced", None, false),
        ("unplaced", Some("us-1"), false),
        ("unplaced", Some("eu-north"), true),
    ] {
        let names = match place {
            "unplaced" => ["unplaced".to_owned(), "late_unplaced".to_owned()],
            _ => [format!("in_{place}"), format!("late_{place}")],
        };
        for id in names {
            let answer = gateway.post(FORWARD, &asking_for(&id, asked)).await;
            let question =
                json!({ "peer_id": id, "action": "run.create", "direction": "out", "region": asked });
            let decision = operator.post("/v1/federation/policy:evaluate", &question).await.expect(200);
            assert_eq!(decision.json["decision"]["allow"], json!(allowed), "{id} {asked:?}");
            match allowed {
                true => drop(answer.expect(200)),
                false => assert_region_refused(&answer, &format!("{id} {asked:?}")),
            }
            sent += usize::from(allowed);
        }
    }
    assert_eq!(home.truth().creates().len(), sent, "a refusal has no effect");
    let is_it =
        |record: &Value| record["reason"].as_str().is_some_and(|said| said.starts_with("region_not_granted"));
    operator.until_audited("the refusal", is_it).await;
    assert!(gateway.metric("requests_refused_total{reason=\"region_not_granted\"}").await >= 1.0);
    // Without a name, one that may serve the region is chosen.
    let mut body = asking_for("", Some("eu-west"));
    body["forward"]["target_selector"]["stack_id"] = Value::Null;
    let chosen = gateway.post(FORWARD, &body).await.expect(200);
    let stack = chosen.json["forwarded"]["remote_stack_id"].as_str().expect("a peer");
    assert!(["in_eu", "late_eu"].contains(&stack), "{stack}");
}

/// A pair whose B grants A the regions of Europe, after `change` to B's configuration, and to A's entry there.
async fn pair(change: impl FnOnce(&mut Config, &mut PeerOptions)) -> Pair {
    let mut plan = Plan::new().await;
    plan.a.entry.regions = only_eu();
    plan.a.entry.operations.extend([Operation::Ingest, Operation::Subscribe]);
    change(&mut plan.b.config, &mut plan.a.entry);
    plan.start().await
}

async fn signed(pair: &Pair, path: &str, body: &Value) -> Answer {
    let fields = [("content-type", "application/json"), ("x-tenant-id", TENANT)];
    let signer: Signer = pair.as_a();
    signer.sign(Method::POST, path, &fields, Some(body.to_string().into_bytes())).send_to(&pair.b).await
}

//
#[tokio::test]
async fn a_peer_that_comes_in_has_runs_only_where_it_may() {
    let abroad = pair(|config, entry| {
        config.gateway.region = "us-1".to_owned();
        entry.region = "us-1".to_owned();
    })
    .await;
    let event = json!({ "events": [envelope("r1", "e1", Some(1), "agentos.run.step.completed")] });
    let push = "/v1/federation/events:ingest";
    assert_region_refused(&abroad.as_a().create("k1").send_to(&abroad.b).await, "created at this gateway");
    assert_region_refused(&signed(&abroad, FORWARD, &forward_body("orc_b")).await, "forwarded by name");
    assert_region_refused(&signed(&abroad, push, &event).await, "pushed by a home abroad");
    assert!(abroad.home_b.truth().creates().is_empty());
    assert_eq!(abroad.b.count_rows("events"), 0);
    // What others have run there is not for it either.
    let foreign = abroad.b.forward_run("orc_b").await;
    let one = abroad.as_a().get(&format!("/v1/federation/runs/{foreign}")).send_to(&abroad.b).await;
    assert_eq!(one.status, 404, "{}", one.text);
    let listed = abroad.as_a().get("/v1/federation/runs").send_to(&abroad.b).await.expect(200);
    assert_eq!(listed.json["items"], json!([]));

    let near = pair(|config, entry| {
        config.gateway.region = "eu-west".to_owned();
        entry.region = "eu-north".to_owned();
    })
    .await;
    near.as_a().create("k1").send_to(&near.b).await.expect(201);
    signed(&near, FORWARD, &forward_body("orc_b")).await.expect(200);
    let pushed = signed(&near, push, &event).await.expect(200);
    assert_eq!(pushed.json["accepted"], 1, "{}", pushed.text);
    let listed = near.as_a().get("/v1/federation/runs").send_to(&near.b).await.expect(200);
    assert_eq!(listed.json["items"].as_array().map(Vec::len), Some(3), "{}", listed.text);
}
