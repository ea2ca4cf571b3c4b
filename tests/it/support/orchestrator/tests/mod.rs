//! The orchestrator as a client sees it: life and death, and the helpers of the tests beside each endpoint.

mod creates;
mod statuses;
mod streams;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    orchestrator::{Birth, RequestSeen, Rules, RunStatus, ScriptedOrchestrator, Truth},
    sse_client::{Response, SseClient},
};

/// A run-create as a gateway sends it: the key in header and body.
fn create_request(orchestrator: &ScriptedOrchestrator, key: &str) -> reqwest::RequestBuilder {
    let url = format!("{}/v1/agents/agt_a/runs", orchestrator.base_url());
    let body = json!({"input": {"type": "text", "text": "hello"}, "idempotency_key": key});
    client().post(url).header("idempotency-key", key).body(body.to_string())
}

/// Creates a run; returns its id.
async fn create(orchestrator: &ScriptedOrchestrator, key: &str) -> String {
    let answer = create_request(orchestrator, key).send().await.expect("an answer");
    json_of(answer).await["run"]["run_id"].as_str().expect("a run id").to_owned()
}

/// The answer to a GET: status and body.
async fn get(orchestrator: &ScriptedOrchestrator, path: &str) -> (u16, Value) {
    let answer = client().get(orchestrator.base_url() + path).send().await.expect("an answer");
    (answer.status().as_u16(), json_of(answer).await)
}

/// The body of an answer; `Null` when it is no JSON.
async fn json_of(answer: reqwest::Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.expect("a whole body")).unwrap_or(Value::Null)
}

/// The events stream of a run, from this query.
async fn follow(orchestrator: &ScriptedOrchestrator, run_id: &str, query: &str) -> Response {
    let path = format!("/v1/runs/{run_id}/events{query}");
    SseClient::connect_lenient(orchestrator.addr(), &path, &[]).await
}

/// Sends a request that is not answered, and gives it up once the truth log says it arrived.
async fn send_in_vain(
    orchestrator: &ScriptedOrchestrator,
    request: reqwest::RequestBuilder,
    arrived: impl Fn(&Truth) -> bool,
) {
    tokio::select! {
        answer = async { request.send().await?.text().await } => panic!("answered: {answer:?}"),
        _ = orchestrator.until("the request", arrived) => {}
    }
}

/// A client that repairs nothing and keeps no connection. One for all tests: setting TLS up is slow.
fn client() -> &'static reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> =
        LazyLock::new(|| plain_client().pool_max_idle_per_host(0).build().expect("a client"));
    &CLIENT
}

fn plain_client() -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    builder.retry(reqwest::retry::never())
}

#[tokio::test]
async fn a_restart_keeps_port_truth_runs_and_keys() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let run_id = create(&orchestrator, "k1").await;
    orchestrator.stop().await;
    let refused = create_request(&orchestrator, "k1").send().await.expect_err("it is down");
    assert!(refused.is_connect());
    orchestrator.emit(&run_id, "agentos.run.step.completed", json!({}));
    orchestrator.restart().await;
    assert_eq!(create(&orchestrator, "k1").await, run_id);
    let truth = orchestrator.truth();
    assert_eq!((truth.creates().len(), truth.runs_created().len()), (2, 1));
    assert_eq!(orchestrator.events(&run_id).len(), 1);
}

#[tokio::test]
async fn a_stop_breaks_open_streams_without_a_last_chunk() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let run_id = create(&orchestrator, "k1").await;
    let mut stream = follow(&orchestrator, &run_id, "").await;
    orchestrator.until("an open stream", |truth| truth.open_streams(&run_id) == 1).await;
    orchestrator.stop().await;
    stream.try_next().await.expect_err("no clean end");
    assert_eq!(orchestrator.truth().open_streams(&run_id), 0);
}

#[tokio::test]
async fn refusing_closes_idle_connections_and_spares_open_streams() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let run_id = create(&orchestrator, "k1").await;
    let pooled = plain_client().build().expect("a client");
    let health = orchestrator.base_url() + "/v1/health";
    assert_eq!(pooled.get(&health).send().await.expect("an answer").status(), 200);
    let mut stream = follow(&orchestrator, &run_id, "").await;
    orchestrator.refuse_connections(true).await;
    assert!(pooled.get(&health).send().await.is_err());
    orchestrator.finish(&run_id, RunStatus::Completed);
    assert_eq!(stream.collect_until_end().await.len(), 1);
    orchestrator.refuse_connections(false).await;
    assert_eq!(get(&orchestrator, "/v1/health").await.1["service"], "agent-orchestrator");
    assert!(orchestrator.truth().connections() >= 4);
}

#[tokio::test]
async fn forgotten_keys_make_a_second_run_and_forgotten_runs_are_gone() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let first = create(&orchestrator, "k1").await;
    orchestrator.forget_keys();
    assert_ne!(create(&orchestrator, "k1").await, first);
    assert_eq!(orchestrator.truth().runs_for_key("k1").len(), 2);
    assert_eq!(get(&orchestrator, &format!("/v1/runs/{first}")).await.0, 200);
    orchestrator.forget_runs();
    assert_eq!(get(&orchestrator, &format!("/v1/runs/{first}")).await.0, 404);
    assert_eq!(orchestrator.find_status(&first), None);
    assert_eq!(orchestrator.truth().runs_created().len(), 2);
}

#[tokio::test]
async fn runs_emit_by_themselves_at_once_or_in_time_even_while_it_is_down() {
    let orchestrator = ScriptedOrchestrator::start().await;
    orchestrator.rules(Rules { birth: Birth::CreatedEvent, ..Rules::default() });
    orchestrator.auto_events(3, Duration::ZERO);
    let at_once = create(&orchestrator, "k1").await;
    assert_eq!(orchestrator.first_run().await, at_once);
    assert_eq!(orchestrator.events(&at_once).len(), 5);
    orchestrator.rules(Rules::default());

    orchestrator.auto_events(2, Duration::from_millis(5));
    let in_time = create(&orchestrator, "k2").await;
    let stream = follow(&orchestrator, &in_time, "").await;
    orchestrator.stop().await;
    drop(stream);
    orchestrator.restart().await;
    let frames = follow(&orchestrator, &in_time, "").await.collect_until_end().await;
    let last = frames.last().expect("frames");
    assert_eq!((frames.len(), &last.data["event"]["type"]), (3, &json!("agentos.run.completed")));
}

#[tokio::test]
async fn strangers_are_turned_away_at_the_door() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let rules = Rules {
        tenants: Some(vec!["tnt_known".to_owned()]),
        authorization: Some("Bearer right".to_owned()),
        ..Rules::default()
    };
    orchestrator.rules(rules);
    for (tenant, credential, status) in [
        ("tnt_known", "Bearer right", 201),
        ("tnt_known", "Bearer wrong", 401),
        ("tnt_other", "Bearer right", 403),
    ] {
        let request = create_request(&orchestrator, "k1").header("x-tenant-id", tenant);
        let answer = request.header("authorization", credential).send().await.expect("an answer");
        assert_eq!(answer.status(), status);
    }
    let truth = orchestrator.truth();
    assert_eq!(Vec::from_iter(truth.credentials()), ["Bearer right", "Bearer wrong"]);
    assert_eq!((truth.requests().len(), truth.creates().len()), (3, 1));
    assert_eq!(truth.runs_created()[0].tenant_id, "tnt_known");
}

#[tokio::test]
async fn what_is_not_served_is_404_and_still_in_the_truth() {
    let orchestrator = ScriptedOrchestrator::start().await;
    assert_eq!(get(&orchestrator, "/latest/meta-data").await.0, 404);
    let truth = orchestrator.truth();
    let request: &Arc<RequestSeen> = &truth.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/latest/meta-data"));
}
