//! Peers that push the events of their own runs, and never those of others.

use causeway::domain::grants::Operation;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::gateway::{Answer, TENANT, envelope, events_path};
use crate::support::pair::{Operator, Pair, Plan, Signer};

/// A pair whose A may push to B.
async fn pair() -> Pair {
    let mut plan = Plan::new().await;
    plan.a.entry.operations = vec![Operation::ForwardIn, Operation::Ingest];
    let pair = plan.start().await;
    pair.until_healthy().await;
    pair
}

async fn push(pair: &Pair, signer: &Signer, events: Vec<Value>) -> Answer {
    let body = json!({ "events": events }).to_string().into_bytes();
    let fields = [("content-type", "application/json"), ("x-tenant-id", TENANT)];
    signer.sign(Method::POST, "/v1/federation/events:ingest", &fields, Some(body)).send_to(&pair.b).await
}

fn event(run: &str, id: &str, sequence: u64) -> Value {
    envelope(run, id, Some(sequence), "agentos.run.step.completed")
}

// Z-40
#[tokio::test]
async fn a_peer_adds_to_its_own_runs_and_to_no_other() {
    let pair = pair().await;
    // A run of that name is a client's here already.
    pair.b.push_steps("r1", [1]).await;
    let answer =
        push(&pair, &pair.as_a(), vec![event("r1", "e1", 1), event("r2", "e2", 1)]).await.expect(200);
    assert_eq!(
        (&answer.json["accepted"], &answer.json["rejected"]),
        (&json!(2), &json!(0)),
        "{}",
        answer.text
    );

    let page = |run: &str| format!("{}?limit=10", events_path(run));
    let json = [("accept", "application/json")];
    let of_client = pair.b.get_with(&page("r1"), &json).await.expect(200);
    assert!(of_client.text.contains("evt_r1_1") && !of_client.text.contains("\"e1\""), "{}", of_client.text);
    let of_peer = pair.b.get_with(&page("r1@stk_a"), &json).await.expect(200);
    assert!(
        of_peer.text.contains("\"e1\"") && of_peer.text.contains("\"home\":\"stk_a\""),
        "{}",
        of_peer.text
    );
    assert!(pair.b.get_with(&page("r2"), &json).await.expect(200).text.contains("\"e2\""));

    // Again, and further: the same run.
    let again = push(&pair, &pair.as_a(), vec![event("r1", "e1", 1), event("r1", "e3", 2)]).await.expect(200);
    assert_eq!(again.json["duplicates"], 1, "{}", again.text);
    let both = pair.b.get_with(&page("r1@stk_a"), &json).await.expect(200);
    assert!(both.text.contains("\"e3\""), "{}", both.text);
    // A client cannot add to the peer's run.
    let client =
        pair.b.post("/v1/federation/events:ingest", &json!({ "events": [event("r2", "e4", 2)] })).await;
    assert_eq!(client.json["results"][0]["code"], "origin_mismatch", "{}", client.text);

    let pushed = |record: &Value| record["action"] == "events.ingest" && record["subject"] == "peer:stk_a";
    let record = Operator::of(&pair.b).until_audited("the push", pushed).await;
    assert_eq!(record["tenant_id"], TENANT);
}

// reliability 4d.40, R-15, F-04
#[tokio::test]
pub(crate) async fn an_event_that_names_another_origin_is_refused() {
    let pair = pair().await;
    let from = |origin: &str, id: &str, sequence| {
        let mut event = event("r9", id, sequence);
        event["federation"] = json!({ "origin_peer": origin, "origin_name": "A" });
        event
    };
    let answer = push(&pair, &pair.as_a(), vec![from("stk_a", "own", 1), from("stk_c", "spoofed", 2)]).await;
    let answer = answer.expect(200);
    assert_eq!(answer.json["results"][0]["status"], "stored", "{}", answer.text);
    assert_eq!(answer.json["results"][1]["code"], "origin_mismatch", "{}", answer.text);
    assert_eq!(pair.b.count_rows("events"), 1);
}

#[tokio::test]
async fn a_peer_without_the_grant_pushes_nothing() {
    let pair = Pair::start().await;
    let answer = push(&pair, &pair.as_a(), vec![event("r1", "e1", 1)]).await.expect(403);
    assert_eq!(
        (answer.code(), &answer.json["error"]["details"]["rule"]),
        ("policy_denied", &json!("operation_not_granted"))
    );
    assert_eq!(pair.b.count_rows("events"), 0);
}
