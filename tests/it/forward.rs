//! One forward and the attempts it takes: what is retried, what is passed on, what is never touched.

use std::time::Duration;

use causeway::domain::peer::PeerKind;
use serde_json::Value;

use crate::support::forwards::{
    FORWARD, audit, forward_id, forward_now, forward_once, keyed_body, run_id, time_of,
};
use crate::support::gateway::{TestGateway, forward_body, peer, test_config};
use crate::support::orchestrator::{CreateFault, Garbage, ScriptedOrchestrator, Truth};
use crate::support::sse_client::Follower;

async fn with_home() -> (ScriptedOrchestrator, TestGateway) {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    (home, gateway)
}

#[track_caller]
fn assert_one_key(truth: &Truth, creates: usize) {
    assert_eq!(truth.creates().len(), creates, "{:#?}", truth.creates());
    let keys = truth.keys();
    assert_eq!(keys.len(), 1, "attempts of one forward bear one key: {keys:?}");
    truth.assert_every_create_bore(keys.first().expect("a key"));
    truth.assert_one_run_per_key();
}

// F1, defect 6
#[tokio::test]
async fn network_errors_are_retried_with_one_key_in_header_and_body() {
    let (home, gateway) = with_home().await;
    home.next_creates([CreateFault::DropRequest, CreateFault::CutAnswerAt(40)]);
    let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
    let truth = home.truth();
    assert_one_key(&truth, 3);
    assert_eq!(truth.runs_created().len(), 1);
    assert_eq!(run_id(&answer), truth.runs_created()[0].run_id);
}

// A-22, defect 6
#[tokio::test]
async fn a_lost_answer_makes_no_second_run() {
    let (home, gateway) = with_home().await;
    home.next_creates([CreateFault::DropAnswer]);
    let answer = gateway.post(FORWARD, &keyed_body("stk_b", "idem_1")).await.expect(200);
    let truth = home.truth();
    assert_one_key(&truth, 2);
    assert_eq!(run_id(&answer), truth.runs_created()[0].run_id);
    assert!(!truth.keys().contains("idem_1"), "a caller's key is never a peer's key as it stands");
}

//
#[tokio::test]
async fn a_5xx_is_retried() {
    for fault in [CreateFault::status(500), CreateFault::status(502), CreateFault::StatusAfterCommit(503)] {
        let (home, gateway) = with_home().await;
        home.next_creates([fault]);
        gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
        assert_one_key(&home.truth(), 2);
    }
}

// A-06, defect 9
#[tokio::test]
async fn a_4xx_is_never_retried_and_is_passed_on_as_what_it_is() {
    let (home, gateway) = with_home().await;
    let cases = [
        (400, 400, "invalid_request"),
        (403, 403, "forbidden"),
        (404, 404, "not_found"),
        (409, 409, "conflict"),
        (422, 422, "unprocessable_request"),
        (401, 502, "forward_failed"),
        (410, 502, "forward_failed"),
        (418, 502, "forward_failed"),
        (501, 502, "forward_failed"),
    ];
    for (number, (upstream, status, code)) in (1..).zip(cases) {
        home.next_creates([CreateFault::status(upstream)]);
        let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(status);
        assert_eq!(answer.code(), code, "{upstream}");
        assert_eq!(answer.json["error"]["retryable"], false, "{upstream}: {}", answer.text);
        assert_eq!(answer.json["error"]["details"]["upstream_status"], upstream);
        assert_eq!(answer.json["error"]["details"]["outcome"], "refused");
        assert_eq!(home.truth().creates().len(), number, "{upstream} was asked again");
    }
    assert!(home.truth().runs_created().is_empty());
}

// three that say 'not now' rather than 'no'
#[tokio::test]
async fn a_4xx_that_says_not_now_is_retried() {
    for status in [408, 425, 429] {
        let (home, gateway) = with_home().await;
        home.next_creates([CreateFault::status(status)]);
        gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
        assert_one_key(&home.truth(), 2);
    }
}

// defect 11
#[tokio::test]
async fn retry_after_is_waited_for() {
    for status in [429, 503] {
        let (home, gateway) = with_home().await;
        home.next_creates([CreateFault::status_retry_after(status, "1")]);
        gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
        let truth = home.truth();
        assert_one_key(&truth, 2);
        let waited = truth.creates()[1].request.at - truth.creates()[0].request.at;
        assert!(waited >= Duration::from_millis(990), "{status}: waited {waited:?}");
    }
}

// defect 11
#[tokio::test]
async fn a_retry_after_beyond_the_deadline_ends_the_waiting_at_once() {
    let (home, gateway) = with_home().await;
    home.next_creates([CreateFault::status_retry_after(429, "3600")]);
    let answer = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(429);
    assert_eq!((answer.code(), answer.header("retry-after")), ("rate_limited", "3600"));
    assert_eq!(answer.json["error"]["details"]["outcome"], "not_started");
    assert_eq!(answer.json["error"]["retryable"], true);
    gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    home.next_creates([CreateFault::status_retry_after(503, "3600")]);
    let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(504);
    let forward = forward_now(&gateway, &forward_id(&answer)).await;
    assert_eq!(forward["state"], "unknown");
    assert_eq!(forward["attempts_total"], 1, "the reconciler waits as asked, too: {forward:#}");
    let wait = time_of(&forward["next_attempt_at"]) - time_of(&forward["created_at"]);
    assert!(wait >= Duration::from_secs(3590), "{forward:#}");
    assert_eq!(home.truth().creates().len(), 3);
}

// defect 11
#[tokio::test]
async fn attempts_and_their_backoff_are_as_configured() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.forward.max_attempts = 12;
    config.forward.base_backoff = Duration::from_millis(100);
    config.forward.max_backoff = Duration::from_millis(100);
    let gateway =
        TestGateway::start_with(config, vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)]).await;
    home.creates(CreateFault::status(429)); // proves that nothing started, so nobody goes on afterwards
    gateway.post(FORWARD, &forward_body("stk_b")).await.expect(429);
    let truth = home.truth();
    assert_eq!(truth.creates().len(), 12);
    let took = truth.creates()[11].request.at - truth.creates()[0].request.at;
    // Eleven even draws from 0..100 ms add up to less than 100 ms once in forty million times.
    assert!(took >= Duration::from_millis(100), "twelve attempts within {took:?}");
}

// defect 12, defect 5
#[tokio::test]
async fn trace_and_correlation_reach_the_home_and_credentials_do_not() {
    let (home, gateway) = with_home().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let sent = [
        ("traceparent", parent.as_str()),
        ("x-correlation-id", "corr_7"),
        ("authorization", "Bearer caller-secret"),
        ("cookie", "session=caller-secret"),
        ("x-principal-id", "svc_x"),
    ];
    let answer = gateway.post_with(FORWARD, &forward_body("stk_b"), &sent).await.expect(200);
    assert_eq!(answer.json["correlation_id"], "corr_7");
    assert_eq!(answer.header("x-request-id"), "corr_7");
    let run = run_id(&answer);
    let truth = home.until("an events request", |truth| !truth.events_requests(&run).is_empty()).await;
    let requests = [&truth.creates()[0].request, &truth.events_requests(&run)[0].request];
    for request in requests {
        assert!(request.header("traceparent").is_some_and(|value| value.contains(trace)), "{request:#?}");
        assert_eq!(request.header("x-correlation-id"), Some("corr_7"));
        assert_eq!(request.header("x-tenant-id"), Some("tnt_demo"));
    }
    assert_eq!(requests[0].header("x-principal-id"), Some("svc_x"));
    assert!(truth.credentials().is_empty(), "{:?}", truth.credentials());
}

// defect 12
#[tokio::test]
async fn a_trace_is_started_where_the_caller_has_none() {
    let (home, gateway) = with_home().await;
    let none = "00-00000000000000000000000000000000-0000000000000000-00";
    gateway.post_with(FORWARD, &forward_body("stk_b"), &[("traceparent", none)]).await.expect(200);
    let truth = home.truth();
    let sent = truth.creates()[0].request.header("traceparent").expect("a traceparent").to_owned();
    assert!(sent.starts_with("00-") && !sent.contains("-0000000000000000"), "{sent}");
    assert!(truth.creates()[0].request.header("x-correlation-id").is_some_and(|id| id.starts_with("req_")));
}

// defect 5
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (home, gateway) = with_home().await;
    let elsewhere = ScriptedOrchestrator::start().await;
    let target = format!("{}/v1/agents/agt_test/runs", elsewhere.base_url());
    home.next_creates([CreateFault::Redirect(target)]);
    let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(502);
    assert_eq!(answer.code(), "forward_failed");
    assert_eq!(answer.json["error"]["details"]["upstream_status"], 307);
    assert_eq!(home.truth().creates().len(), 1);
    assert_eq!(elsewhere.truth().connections(), 0);
}

// F4, A-05
#[tokio::test]
async fn an_answer_that_is_no_run_is_unknown_and_asked_for_again() {
    let faults = [
        CreateFault::Garbage(Garbage::Html),
        CreateFault::Garbage(Garbage::UnreadableJson),
        CreateFault::Garbage(Garbage::HugeBody(2 * 1024 * 1024)),
        CreateFault::Garbage(Garbage::Trickle(Duration::from_millis(50))),
        CreateFault::Garbage(Garbage::Empty),
        CreateFault::MissingRunId,
    ];
    for fault in faults {
        let home = ScriptedOrchestrator::start().await;
        let mut config = test_config();
        config.outbound.body_timeout = Duration::from_millis(800);
        let peers = vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)];
        let gateway = TestGateway::start_with(config, peers).await;
        home.next_creates([fault.clone()]);
        let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
        assert_one_key(&home.truth(), 2);
        let forward = forward_now(&gateway, &forward_id(&answer)).await;
        assert_eq!(forward["attempts"][0]["outcome"], "unknown", "{fault:?}: {forward:#}");
        assert_eq!(forward["attempts"][1]["outcome"], "forwarded", "{fault:?}: {forward:#}");
    }
}

// F4, A-05
#[tokio::test]
async fn a_caller_is_answered_at_its_deadline_and_the_forward_goes_on_without_it() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.forward.deadline = Duration::from_millis(300);
    let peers = vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)];
    let gateway = TestGateway::start_with(config, peers).await;
    home.next_creates([CreateFault::Hold]);
    let answer = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(504);
    assert_eq!(answer.code(), "forward_outcome_unknown");
    assert_eq!(answer.json["error"]["details"]["outcome"], "unknown");
    home.release_creates();
    let forward = forward_once(&gateway, &forward_id(&answer), "forwarded").await;
    assert_eq!(forward["attempts_total"], 1, "{forward:#}");
    let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    assert_eq!(again.json["forwarded"]["run_id"], forward["run_id"]);
}

// no byte left, so nothing is left behind
#[tokio::test]
async fn what_was_never_sent_is_called_not_started_and_its_key_is_free() {
    let (home, gateway) = with_home().await;
    home.refuse_connections(true).await;
    let answer = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(502);
    assert_eq!(answer.code(), "forward_failed");
    assert_eq!(answer.json["error"]["details"]["outcome"], "not_started");
    assert_eq!(answer.json["error"]["retryable"], true);
    home.refuse_connections(false).await;
    let answer = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    assert_eq!(answer.header("idempotency-replayed"), "");
    assert_one_key(&home.truth(), 1);
}

// defect 5
#[tokio::test]
async fn an_events_url_elsewhere_is_never_fetched_and_is_audited() {
    let (home, gateway) = with_home().await;
    let elsewhere = ScriptedOrchestrator::start().await;
    let url = format!("{}/v1/runs/steal/events", elsewhere.base_url());
    home.next_creates([CreateFault::EventsUrl(url.clone())]);
    let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
    let run = run_id(&answer);
    assert_ne!(answer.json["forwarded"]["remote_events_url"], Value::from(url));
    home.emit_steps(&run, 2);
    let path = format!("/v1/federation/runs/{run}/events");
    Follower::new(gateway.address(), &path).follow_events(2).await;
    assert_eq!(elsewhere.truth().connections(), 0);
    assert_eq!(audit(&gateway, "events_url_refused").len(), 1);
}

// defect 8
#[tokio::test]
async fn two_homes_that_mint_one_id_keep_their_runs_apart() {
    let (left, right) = (ScriptedOrchestrator::start().await, ScriptedOrchestrator::start().await);
    let peers = vec![
        peer("stk_b", &left.base_url(), PeerKind::Orchestrator),
        peer("stk_c", &right.base_url(), PeerKind::Orchestrator),
    ];
    let gateway = TestGateway::start(peers).await;
    for home in [&left, &right] {
        home.next_creates([CreateFault::RunId("run_same".to_owned())]);
    }
    assert_eq!(gateway.forward_run("stk_b").await, "run_same");
    let second = gateway.post(FORWARD, &forward_body("stk_c")).await.expect(200);
    assert_eq!(run_id(&second), "run_same@stk_c");
    assert_eq!(second.json["forwarded"]["remote_run_id"], "run_same");
    for (home, name) in [(&left, "run_same"), (&right, "run_same@stk_c")] {
        home.emit_steps("run_same", 2);
        let path = format!("/v1/federation/runs/{name}/events");
        let mut follower = Follower::new(gateway.address(), &path);
        let seen: Vec<String> = follower.follow_events(2).await.iter().map(|e| e.event_id.clone()).collect();
        let held: Vec<String> = home.events("run_same").iter().map(|event| event.event_id.clone()).collect();
        assert_eq!(seen, held, "{name}");
    }
}
