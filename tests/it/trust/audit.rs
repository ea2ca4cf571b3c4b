//! What was decided and changed, as it can be read afterwards: whole, chained, signed, and copied.

use std::path::Path;

use causeway::keyring::Keyring;
use causeway::store::{AuditReport, DATABASE_FILE, verify_audit};
use serde_json::{Value, json};

use crate::support::forwards::FORWARD;
use crate::support::gateway::{TENANT, events_path, forward_body};
use crate::support::log::beside;
use crate::support::orchestrator::RunStatus;
use crate::support::pair::{Operator, Plan, Signer, some_key};
use crate::support::sse_client::Follower;

/// Verifies the chain with the gateway's own keys, as an operator would.
fn verify(data: &Path) -> AuditReport {
    let keys = Keyring::open(data, None, &[0; 32]).expect("a keyring").keys();
    let is_ours = |key: &str, text: &[u8], signature: &[u8]| {
        keys.find_public(key).is_some_and(|key| key.verify(text, signature))
    };
    verify_audit(&data.join(DATABASE_FILE), is_ours).expect("it can be read")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

//
#[tokio::test]
async fn every_decision_and_change_is_a_record_that_nobody_can_take_back() {
    let mut plan = Plan::prod().await;
    let sink = tempfile::tempdir().expect("a directory");
    let file = sink.path().join("audit.jsonl");
    plan.b.config.audit.sink = format!("file:{}", file.display());
    plan.b.config.audit.checkpoint_records = 5;
    let mut pair = plan.start().await;
    pair.until_healthy().await;
    let (at_a, at_b) = (Operator::of(&pair.a), Operator::of(&pair.b));

    let (_, token) = at_a.token("alice", &["runs:forward", "events:read"]).await;
    let known = [("x-api-key", token.as_str()), ("x-correlation-id", "req_of_alice")];
    let made = pair.a.post_with(FORWARD, &forward_body("stk_b"), &known).await.expect(200);
    let run = made.json["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    pair.home_b.finish(&run, RunStatus::Completed);
    let mut follower = Follower::new(pair.a.address(), &events_path(&run)).with_header("x-api-key", &token);
    follower.follow_to_end().await;

    let (id, weak) = at_b.token("bob", &["runs:read"]).await;
    let weak_of_bob = [("x-api-key", weak.as_str()), ("x-correlation-id", "req_of_bob")];
    pair.b.post_with(FORWARD, &forward_body("orc_b"), &weak_of_bob).await.expect(403);
    let nobody = [("x-api-key", "cw_of_nobody"), ("x-correlation-id", "req_of_nobody")];
    pair.b.get_with("/v1/federation/runs", &nobody).await.expect(401);
    let stranger = Signer::new(&some_key(), "stk_evil", "stk_b", &pair.clock).create("key-1");
    stranger.with("x-correlation-id", "req_of_evil").send_to(&pair.b).await.expect(401);
    at_b.delete(&format!("/v1/federation/tokens/{id}")).await.expect(200);
    let entry = json!({ "peer_id": "stk_x", "base_url": "https://192.0.2.1", "kind": "gateway", "tenants": ["*"],
        "allowed_addresses": ["192.0.2.0/24"], "public_key": some_key().public().to_string() });
    at_b.post("/v1/federation/peers", &entry).await.expect(201);
    for verb in ["drain", "revoke", "reinstate"] {
        at_b.post(&format!("/v1/federation/peers/stk_x:{verb}"), &json!({ "reason": "a drill" }))
            .await
            .expect(200);
    }
    at_b.delete("/v1/federation/peers/stk_x").await.expect(204);
    at_b.post("/v1/federation/keys:rotate", &json!({ "overlap": "1h" })).await.expect(200);
    at_b.act("/v1/federation/keys:cancel-rotation").await.expect(200);

    let expected: [(&str, &str, &str, &str); 13] = [
        ("federation.runs.forward", "peer:stk_a/alice", TENANT, "req_of_alice"),
        ("token.create", "operator:local", "", ""),
        ("run.create", "bob", TENANT, "req_of_bob"),
        ("authenticate", "address:127.0.0.1", "", "req_of_nobody"),
        ("authenticate", "address:127.0.0.1", "", "req_of_evil"),
        ("token.revoke", "operator:local", "", ""),
        ("peer.enrol", "operator:local", "", ""),
        ("peer.drain", "operator:local", "", ""),
        ("peer.revoke", "operator:local", "", ""),
        ("peer.reinstate", "operator:local", "", ""),
        ("peer.remove", "operator:local", "", ""),
        ("key.rotate", "operator:local", "", ""),
        ("key.cancel_rotation", "operator:local", "", ""),
    ];
    for (action, subject, tenant, correlation_id) in expected {
        let is_it = |record: &Value| {
            let is = |name: &str, wanted: &str| wanted.is_empty() || record[name] == wanted;
            record["action"] == action
                && is("subject", subject)
                && is("tenant_id", tenant)
                && is("correlation_id", correlation_id)
        };
        let record = at_b.until_audited(action, is_it).await;
        assert!(record["correlation_id"].as_str().is_some_and(|id| !id.is_empty()), "{record}");
        assert!(record["hash"].is_string(), "{record}");
    }
    let forwarded =
        at_a.until_audited("the forward", |record| record["action"] == "federation.runs.forward").await;
    assert_eq!(
        (&forwarded["subject"], &forwarded["correlation_id"]),
        (&json!("alice"), &json!("req_of_alice"))
    );

    // The copy has the same records, in the same order, also over a restart.
    let before = lines(&file).len();
    pair.b.restart().await;
    let at_b = Operator::of(&pair.b);
    at_b.token("carol", &["runs:read"]).await;
    pair.b.stop().await;
    let copied = lines(&file);
    assert!(copied.len() > before);
    let numbers: Vec<i64> = copied.iter().map(|line| line["audit_id"].as_i64().expect("a number")).collect();
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
    let data = pair.b.data_dir();
    assert_eq!(pair.b.count_rows("audit"), numbers.len());

    let report = verify(&data);
    assert_eq!(report.finding, None);
    assert_eq!(report.records, numbers.len() as u64);
    assert_eq!(report.signed_through, numbers.last().copied(), "signed as it stopped");
    assert!(report.checkpoints > 1);
    // One letter of one record is enough to be found out.
    // The database refuses, and whoever can change the file gets around that; not around the chain.
    let change = "UPDATE audit SET subject = 'operator:nobody' WHERE action = 'peer.revoke'";
    assert!(beside(&data).execute(change, []).is_err());
    let forced = format!("DROP TRIGGER audit_is_immutable; {change};");
    beside(&data).execute_batch(&forced).expect("changed");
    assert!(verify(&data).finding.is_some());
}

// a flood of refusals is counted rather than written.
#[tokio::test]
async fn a_flood_of_strangers_does_not_fill_the_audit() {
    let plan = Plan::prod().await;
    let pair = plan.start().await;
    let before = pair.b.count_rows("audit");
    let asked = (0..300).map(|number| {
        let token = format!("cw_of_nobody_{number}");
        let b = &pair.b;
        async move { b.get_with("/v1/federation/runs", &[("x-api-key", &token)]).await.status }
    });
    let statuses = futures_util::future::join_all(asked).await;
    assert!(statuses.iter().all(|status| [401, 429].contains(status)));
    let operator = Operator::of(&pair.b);
    operator.until_audited("a refusal", |record| record["action"] == "authenticate").await;
    let written = pair.b.count_rows("audit") - before;
    assert!(written < 200, "{written} records of 300 refusals");
    let page = operator.get("/metrics").await.text;
    assert!(page.contains("backpressure_events_total{reason=\"audit\"}"), "{page}");
}
