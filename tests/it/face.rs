//! The orchestrator face and the far side of a run: create as any AgentOS client does, through one gateway or
//! two, and cancel at the home.

use causeway::domain::id::PeerId;
use causeway::domain::peer::PeerKind;
use serde_json::{Value, json};

use crate::support::forwards::{FORWARD, keyed_body, run_id};
use crate::support::gateway::{TestGateway, peer, test_config};
use crate::support::orchestrator::{CreateFault, PlainFault, RunStatus, ScriptedOrchestrator};
use crate::support::sse_client::{Followed, Follower};

const CREATE: &str = "/v1/agents/agt_test/runs";

async fn with_home() -> (ScriptedOrchestrator, TestGateway) {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    (home, gateway)
}

/// A gateway behind a gateway: `near` knows `far` as `stk_far`, `far` has the orchestrator.
async fn two_gateways() -> (ScriptedOrchestrator, TestGateway, TestGateway) {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.gateway.stack_id = PeerId::parse("stk_far").expect("a peer id");
    config.forward.max_attempts = 1; // the near gateway's three are enough to wear out a breaker
    let mut local = peer("stk_b", &home.base_url(), PeerKind::Orchestrator);
    local.local = true;
    let far = TestGateway::start_with(config, vec![local]).await;
    let near = TestGateway::start(vec![peer("stk_far", &far.base_url(), PeerKind::Gateway)]).await;
    (home, far, near)
}

async fn follow(gateway: &TestGateway, path: &str) -> Vec<Followed> {
    let mut follower = Follower::new(gateway.address(), path);
    follower.follow_to_end().await;
    follower.seen().to_vec()
}

#[tokio::test]
async fn a_create_is_answered_201_and_its_repeat_200() {
    let (home, gateway) = with_home().await;
    let body =
        json!({ "input": "plain text", "run_options": { "priority": "high" }, "idempotency_key": "k1" });
    let first = gateway.post(CREATE, &body).await.expect(201);
    let run = &first.json["run"];
    let id = run["run_id"].as_str().expect("a run id");
    assert_eq!(first.header("location"), format!("/v1/runs/{id}"));
    assert_eq!(run["events_url"], format!("/v1/runs/{id}/events"));
    assert_eq!((&run["tenant_id"], &run["agent_id"]), (&json!("tnt_demo"), &json!("agt_test")));
    let again = gateway.post(CREATE, &body).await.expect(200);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(&again.json["run"], run);
    let mut other = body.clone();
    other["input"] = json!("other text");
    assert_eq!(gateway.post(CREATE, &other).await.expect(422).code(), "idempotency_key_reused");
    let truth = home.truth();
    assert_eq!(truth.creates().len(), 1);
    assert_eq!(truth.creates()[0].agent_id, "agt_test");
    assert_eq!(truth.creates()[0].request.body["run_options"], body["run_options"]);
    assert_eq!(truth.creates()[0].request.body["input"], "plain text");
    home.emit_steps(id, 1);
    home.finish(id, RunStatus::Completed);
    assert_eq!(follow(&gateway, &format!("/v1/runs/{id}/events")).await.len(), 2);
    let shown = gateway.get(&format!("/v1/runs/{id}")).await.expect(200);
    assert_eq!(shown.json["run"]["status"], "completed");
}

#[tokio::test]
async fn without_a_local_orchestrator_there_is_no_face() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::start(vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)]).await;
    let answer = gateway.post(CREATE, &json!({ "input": {} })).await.expect(404);
    assert_eq!(answer.code(), "peer_not_found");
    assert!(home.truth().creates().is_empty());
}

// A-31, A-15, F1, defect 16
#[tokio::test]
async fn a_run_through_two_gateways_is_one_run_with_the_same_bytes_on_both() {
    let (home, far, near) = two_gateways().await;
    home.next_creates([CreateFault::DropAnswer]);
    let sent = [("x-correlation-id", "corr_far")];
    let answer = near.post_with(FORWARD, &keyed_body("stk_far", "k1"), &sent).await.expect(200);
    let run = run_id(&answer);
    home.emit_event(
        &run,
        &format!(
            r#"{{"event_id":"evt_odd","sequence":1,"time":"2025-12-19T22:15:36.5Z","type":"agentos.run.step.started",
"tenant_id":"tnt_demo","agent_id":"agt_test","run_id":"{run}","step_id":null,"trace":{{}},
"payload":{{"n":1.50,"big":123456789012345678901234567890,"text":"\u00e9\u2028","z":1,"a":2}}}}"#
        ),
    );
    home.emit_steps(&run, 3);
    home.finish(&run, RunStatus::Completed);
    let path = format!("/v1/federation/runs/{run}/events");
    let (there, here) = (follow(&far, &path).await, follow(&near, &path).await);
    assert_eq!(there, here);
    assert_eq!(here.len(), 5);
    assert!(here[0].text.contains("1.50") && here[0].text.contains("123456789012345678901234567890"));
    let truth = home.truth();
    truth.assert_one_run_per_key();
    assert_eq!(truth.runs_created().len(), 1);
    assert!(
        truth.creates().iter().all(|create| create.request.header("x-correlation-id") == Some("corr_far"))
    );
}

// F1, F3
#[tokio::test]
async fn a_run_lost_between_two_gateways_is_still_one_run() {
    let (home, mut far, near) = two_gateways().await;
    home.next_creates([CreateFault::HoldAnswer]);
    far.config.server.shutdown_timeout = std::time::Duration::from_millis(50);
    let sent = [("prefer", "respond-async")];
    near.post_with(FORWARD, &keyed_body("stk_far", "k1"), &sent).await.expect(202);
    home.until("the create", |truth| truth.creates().len() == 1).await;
    far.restart().await;
    home.release_creates();
    let runs = "/v1/federation/runs";
    let listed = near.until(runs, |answer| answer.json["items"][0]["run_id"].is_string()).await;
    let truth = home.truth();
    truth.assert_one_run_per_key();
    assert_eq!((truth.runs_created().len(), truth.keys().len()), (1, 1));
    assert_eq!(listed.json["items"][0]["run_id"], truth.runs_created()[0].run_id.as_str());
}

// defect 9, over two hops
#[tokio::test]
async fn a_refusal_passes_through_two_gateways_as_itself() {
    let (home, _far, near) = two_gateways().await;
    home.next_creates([CreateFault::status(403)]);
    let answer = near.post(FORWARD, &keyed_body("stk_far", "k1")).await.expect(403);
    assert_eq!((answer.code(), &answer.json["error"]["retryable"]), ("forbidden", &json!(false)));
    assert_eq!(home.truth().creates().len(), 1);
}

// the far gateway proves that nothing started, so the near one may say so
#[tokio::test]
async fn not_started_is_believed_of_a_gateway() {
    let (home, _far, near) = two_gateways().await;
    home.stop().await;
    let answer = near.post(FORWARD, &keyed_body("stk_far", "k1")).await.expect(502);
    assert_eq!(answer.json["error"]["details"]["outcome"], "not_started");
}

#[tokio::test]
async fn a_cancel_is_asked_of_the_home() {
    let (home, gateway) = with_home().await;
    for path in
        ["/v1/federation/runs/{run}/cancel", "/v1/federation/runs/{run}:cancel", "/v1/runs/{run}:cancel"]
    {
        let run = gateway.forward_run("stk_b").await;
        let path = path.replace("{run}", &run);
        let answer =
            gateway.post_with(&path, &Value::Null, &[("x-correlation-id", "corr_c")]).await.expect(200);
        assert_eq!(answer.json["run"]["status"], "canceled", "{path}");
        let truth = home.truth();
        assert_eq!(truth.cancel_requests(&run).len(), 1);
        assert_eq!(truth.cancel_requests(&run)[0].request.header("x-correlation-id"), Some("corr_c"));
        let shown = format!("/v1/federation/runs/{run}");
        gateway.until(&shown, |answer| answer.json["run"]["status"] == "canceled").await;
        let again = gateway.post(&path, &Value::Null).await.expect(409);
        assert_eq!(again.code(), "invalid_state_transition");
        assert_eq!(home.truth().cancel_requests(&run).len(), 1, "a run that ended here is not asked about");
    }
}

#[tokio::test]
async fn a_cancel_the_home_refuses_is_passed_on() {
    let (home, gateway) = with_home().await;
    let run = gateway.forward_run("stk_b").await;
    let path = format!("/v1/federation/runs/{run}/cancel");
    home.next_cancels([PlainFault::Status(409), PlainFault::Status(403), PlainFault::DropRequest]);
    assert_eq!(gateway.post(&path, &Value::Null).await.expect(409).code(), "invalid_state_transition");
    assert_eq!(gateway.post(&path, &Value::Null).await.expect(403).code(), "forbidden");
    let answer = gateway.post(&path, &Value::Null).await.expect(504);
    assert_eq!(answer.json["error"]["details"]["outcome"], "unknown");
    assert_eq!(home.find_status(&run), Some(RunStatus::Queued));
    gateway.post("/v1/federation/runs/run_none/cancel", &Value::Null).await.expect(404);
}

#[tokio::test]
async fn a_cancel_passes_through_two_gateways() {
    let (home, _far, near) = two_gateways().await;
    let run = run_id(&near.post(FORWARD, &keyed_body("stk_far", "k1")).await.expect(200));
    near.post(&format!("/v1/federation/runs/{run}/cancel"), &Value::Null).await.expect(200);
    assert_eq!(home.find_status(&run), Some(RunStatus::Canceled));
    near.until(&format!("/v1/federation/runs/{run}"), |a| a.json["run"]["status"] == "canceled").await;
}
