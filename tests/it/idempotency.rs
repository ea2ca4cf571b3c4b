//! One key, one run: whoever repeats it, however often, whatever happens in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::forwards::{FORWARD, forward_id, forward_now, keyed_body, run_id, spawn_forward};
use crate::support::gateway::{TestGateway, forward_body};
use crate::support::orchestrator::{CreateFault, ScriptedOrchestrator};

async fn with_home() -> (ScriptedOrchestrator, TestGateway) {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    (home, gateway)
}

// F2, A-22
#[tokio::test]
async fn a_repeated_key_is_answered_with_the_first_answer() {
    let (home, gateway) = with_home().await;
    let first = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    assert_eq!(first.header("idempotency-replayed"), "");
    home.emit_steps(&run_id(&first), 1); // the run moves on; its answer does not
    home.stop().await; // an answer that is stored needs no peer
    for key in ["k1", "\"k1\""] {
        let again = gateway.post_with(FORWARD, &forward_body("stk_b"), &[("idempotency-key", key)]).await;
        let again = again.expect(200);
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_eq!(again.json["forwarded"], first.json["forwarded"]);
    }
    assert_eq!(home.truth().creates().len(), 1);
}

// F2
#[tokio::test]
async fn a_key_outlives_a_restart_of_the_gateway() {
    let (home, mut gateway) = with_home().await;
    let first = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    gateway.restart().await;
    let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    assert_eq!(again.json["forwarded"], first.json["forwarded"]);
    assert_eq!(home.truth().creates().len(), 1);
}

// F2
#[tokio::test]
async fn a_key_used_for_another_request_is_refused() {
    let (home, gateway) = with_home().await;
    gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    let mut other_input = keyed_body("stk_b", "k1");
    other_input["forward"]["run_request"]["input"]["text"] = Value::from("hellp");
    let mut other_target = keyed_body("stk_b", "k1");
    other_target["forward"]["target_selector"]["required_capabilities"] = serde_json::json!(["runs_forward"]);
    for body in [other_input, other_target, keyed_body("stk_unheard_of", "k1")] {
        let answer = gateway.post(FORWARD, &body).await.expect(422);
        assert_eq!(answer.code(), "idempotency_key_reused");
        assert_eq!(answer.json["error"]["retryable"], false);
    }
    let mut same = keyed_body("stk_b", "k1");
    same["forward"]["traceparent"] = Value::from("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    gateway.post(FORWARD, &same).await.expect(200);
    assert_eq!(home.truth().creates().len(), 1);
}

#[tokio::test]
async fn a_key_that_differs_between_header_and_body_is_refused() {
    let (home, gateway) = with_home().await;
    let body = keyed_body("stk_b", "k1");
    let answer = gateway.post_with(FORWARD, &body, &[("idempotency-key", "k2")]).await.expect(400);
    assert_eq!(answer.code(), "invalid_request");
    gateway.post_with(FORWARD, &body, &[("idempotency-key", "")]).await.expect(400);
    gateway
        .post_with(FORWARD, &body, &[("idempotency-key", "k1"), ("idempotency-key", "k1")])
        .await
        .expect(400);
    assert!(home.truth().creates().is_empty());
    gateway.post_with(FORWARD, &body, &[("idempotency-key", "k1")]).await.expect(200);
}

// F1: keys never meet at the peer, whose scope may be narrower than ours
#[tokio::test]
async fn one_key_of_two_tenants_or_two_principals_makes_runs_of_their_own() {
    let (home, gateway) = with_home().await;
    let mut runs = BTreeSet::new();
    for tenant in ["tnt_one", "tnt_two"] {
        for principal in ["svc_a", "svc_b"] {
            let who = [("x-tenant-id", tenant), ("x-principal-id", principal)];
            let answer = gateway.post_with(FORWARD, &keyed_body("stk_b", "k1"), &who).await.expect(200);
            assert_eq!(answer.header("idempotency-replayed"), "", "{tenant} {principal}");
            assert_eq!(answer.json["forwarded"]["tenant_id"], tenant);
            runs.insert(run_id(&answer));
        }
    }
    // Nor do the keys of two operations.
    let create = serde_json::json!({ "input": {}, "idempotency_key": "k1" });
    let who = [("x-tenant-id", "tnt_one"), ("x-principal-id", "svc_a")];
    let answer = gateway.post_with("/v1/agents/agt_test/runs", &create, &who).await.expect(201);
    runs.insert(answer.json["run"]["run_id"].as_str().expect("a run id").to_owned());
    assert_eq!(runs.len(), 5);
    let truth = home.truth();
    assert_eq!(truth.keys().len(), 5, "{:?}", truth.keys());
    truth.assert_one_run_per_key();
}

// F2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_equal_requests_at_once_make_one_run() {
    let (home, gateway) = with_home().await;
    home.next_creates([CreateFault::Delay(std::time::Duration::from_millis(100))]);
    let gateway = Arc::new(gateway);
    let mut posts = JoinSet::new();
    for _ in 0..50 {
        let gateway = Arc::clone(&gateway);
        posts.spawn(async move { gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await });
    }
    let mut runs = BTreeSet::new();
    for answer in posts.join_all().await {
        if answer.status == 409 {
            assert_eq!(answer.code(), "request_in_progress");
            assert_eq!(answer.json["error"]["retryable"], true);
            assert_ne!(answer.header("retry-after"), "");
        } else {
            runs.insert(run_id(&answer.expect(200)));
        }
    }
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(home.truth().creates().len(), 1);
}

// F2, defect 10
#[tokio::test]
async fn a_caller_that_hangs_up_cancels_nothing() {
    let (home, gateway) = with_home().await;
    home.next_creates([CreateFault::HoldAnswer]);
    let caller = spawn_forward(&gateway, &keyed_body("stk_b", "k1"));
    home.until("the create", |truth| truth.creates().len() == 1).await;
    caller.abort();
    assert!(caller.await.is_err());
    let busy = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(409);
    home.release_creates();
    let id = forward_id(&busy);
    gateway
        .until(&format!("/v1/federation/forwards/{id}"), |a| a.json["forward"]["state"] == "forwarded")
        .await;
    let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    assert_eq!(again.header("idempotency-replayed"), "true");
    let truth = home.truth();
    assert_eq!((truth.creates().len(), truth.runs_created().len()), (1, 1));
}

// F2, defect 9
#[tokio::test]
async fn a_refusal_is_an_answer_too() {
    let (home, gateway) = with_home().await;
    home.next_creates([CreateFault::status(403)]);
    let first = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(403);
    let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(403);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!((again.code(), again.json["detail"].clone()), (first.code(), first.json["detail"].clone()));
    assert_eq!(home.truth().creates().len(), 1);
}

//
#[tokio::test]
async fn without_a_key_every_request_is_a_run_of_its_own() {
    let (home, gateway) = with_home().await;
    let (left, right) = (gateway.forward_run("stk_b").await, gateway.forward_run("stk_b").await);
    assert_ne!(left, right);
    let truth = home.truth();
    assert_eq!(truth.keys().len(), 2);
    truth.assert_one_run_per_key();
}

// another tenant's forward answers byte for byte as one that is not there
#[tokio::test]
async fn forwards_and_runs_of_another_tenant_do_not_exist() {
    let (_home, gateway) = with_home().await;
    let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
    let (forward, run) = (forward_id(&answer), run_id(&answer));
    assert_eq!(forward_now(&gateway, &forward).await["run_id"], Value::from(run.as_str()));
    let pairs = [
        (format!("/v1/federation/forwards/{forward}"), format!("/v1/federation/forwards/{}", "f".repeat(36))),
        (format!("/v1/federation/runs/{run}"), "/v1/federation/runs/run_none".to_owned()),
        (format!("/v1/federation/runs/{run}/events"), "/v1/federation/runs/run_none/events".to_owned()),
        (format!("/v1/runs/{run}"), "/v1/runs/run_none".to_owned()),
    ];
    let who = [("x-tenant-id", "tnt_other"), ("x-correlation-id", "corr_same")];
    for (theirs, none) in pairs {
        let theirs = gateway.get_with(&theirs, &who).await.expect(404);
        let none = gateway.get_with(&none, &who).await.expect(404);
        assert_eq!(theirs.text, none.text);
        let names = |answer: &crate::support::gateway::Answer| -> Vec<String> {
            answer.headers.keys().map(ToString::to_string).collect()
        };
        assert_eq!(names(&theirs), names(&none));
    }
    let path = format!("/v1/federation/runs/{run}/cancel");
    gateway.post_with(&path, &Value::Null, &who).await.expect(404);
}
