//! What becomes of a forward whose outcome is not known: it is said, taken up again with the same key, over
//! restarts, and given up only when the key protects no more.

use std::sync::Arc;
use std::time::Duration;

use causeway::clock::Clock;
use causeway::config::Config;
use causeway::domain::id::PeerId;
use causeway::domain::peer::PeerKind;
use causeway::services::peer_options::PeerOptions;
use serde_json::json;
use tokio::time::timeout;

use crate::log_model;
use crate::support::forwards::{
    FORWARD, audit, forward_id, forward_now, forward_once, keyed_body, run_id, spawn_forward, time_of,
};
use crate::support::gateway::{Answer, TestGateway, forward_body, peer, test_config};
use crate::support::orchestrator::{CreateFault, ScriptedOrchestrator};

fn home_peer(home: &ScriptedOrchestrator) -> PeerOptions {
    peer("stk_b", &home.base_url(), PeerKind::Orchestrator)
}

/// Quick to stop although a request is open.
fn hasty_config() -> Config {
    let mut config = test_config();
    config.server.shutdown_timeout = Duration::from_millis(50);
    config
}

// F1, F3, F4, defect 6
#[tokio::test]
async fn an_unknown_outcome_is_said_and_then_settled_with_the_same_key() {
    for fault in [CreateFault::DropAnswer, CreateFault::StatusAfterCommit(503), CreateFault::DropRequest] {
        let home = ScriptedOrchestrator::start().await;
        let gateway = TestGateway::start(vec![home_peer(&home)]).await;
        home.next_creates([fault.clone(), fault.clone(), fault.clone()]);
        let answer = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(504);
        assert_eq!(answer.code(), "forward_outcome_unknown", "{fault:?}");
        assert_eq!(answer.json["error"]["details"]["outcome"], "unknown");
        assert_eq!(answer.json["error"]["retryable"], true);
        let forward = forward_once(&gateway, &forward_id(&answer), "forwarded").await;
        assert_eq!(forward["attempts_total"], 4, "{forward:#}");
        let attempts = forward["attempts"].as_array().expect("attempts");
        for (number, attempt) in (1..).zip(attempts) {
            assert_eq!(attempt["attempt"], number);
            assert!(time_of(&attempt["started_at"]) <= time_of(&attempt["finished_at"]));
            assert_ne!(attempt["reason"], "");
            assert_eq!(attempt["outcome"], if number < 4 { "unknown" } else { "forwarded" });
        }
        let truth = home.truth();
        assert_eq!((truth.creates().len(), truth.keys().len()), (4, 1));
        truth.assert_one_run_per_key();
        assert_eq!(forward["run_id"], truth.runs_created()[0].run_id.as_str());
        let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_eq!(run_id(&again), truth.runs_created()[0].run_id);
        assert_eq!(audit(&gateway, "unknown").len(), 1);
    }
}

// F1, F4: every pair of faults; what the caller is told is held against what really happened
#[tokio::test]
async fn no_pair_of_faults_makes_a_caller_hear_what_is_not_so() {
    let faults = [
        CreateFault::Ok,
        CreateFault::DropRequest,
        CreateFault::DropAnswer,
        CreateFault::CutAnswerAt(120),
        CreateFault::status(503),
        CreateFault::StatusAfterCommit(500),
        CreateFault::status(429),
        CreateFault::status(403),
        CreateFault::MissingRunId,
    ];
    for (first, second) in faults.iter().flat_map(|first| faults.iter().map(move |second| (first, second))) {
        let home = ScriptedOrchestrator::start().await;
        let mut config = test_config();
        config.forward.max_attempts = 2;
        config.forward.base_backoff = Duration::from_millis(1);
        let gateway = TestGateway::start_with(config, vec![home_peer(&home)]).await;
        home.next_creates([first.clone(), second.clone()]);
        let answer = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await;
        let case = format!("{first:?}, then {second:?}: {}", answer.text);
        let told = answer.json["error"]["details"]["outcome"].as_str().unwrap_or("forwarded");
        match (answer.status, told) {
            (200, "forwarded") => {
                assert_eq!(run_id(&answer), home.truth().runs_created()[0].run_id, "{case}")
            }
            (429 | 502 | 503, "not_started") | (403, "refused") => {
                assert!(home.truth().runs_created().is_empty(), "{case}");
            }
            (403, "unknown") => assert_eq!(second, &CreateFault::status(403), "{case}"),
            (504, "unknown") => {
                let forward = forward_once(&gateway, &forward_id(&answer), "forwarded").await;
                assert_eq!(forward["run_id"], home.truth().runs_created()[0].run_id.as_str(), "{case}");
            }
            _ => panic!("{case}"),
        }
        let truth = home.truth();
        assert!(truth.runs_created().len() <= 1 && truth.keys().len() == 1, "{case}");
    }
}

// F4: without a key of its own, a caller that asks again asks for another run
#[tokio::test]
async fn an_unknown_outcome_without_a_key_is_not_retryable() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::start(vec![home_peer(&home)]).await;
    home.next_creates([CreateFault::DropAnswer, CreateFault::DropAnswer, CreateFault::DropAnswer]);
    let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(504);
    assert_eq!(answer.json["error"]["retryable"], false);
    forward_once(&gateway, &forward_id(&answer), "forwarded").await;
}

// F4
#[tokio::test]
async fn a_peer_that_hangs_for_ever_leaves_the_outcome_unknown() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.outbound.answer_timeout = Duration::from_millis(100);
    let gateway = TestGateway::start_with(config, vec![home_peer(&home)]).await;
    home.next_creates([CreateFault::HangForever, CreateFault::HangAfterCommit, CreateFault::HangForever]);
    let answer = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(504);
    assert_eq!(answer.code(), "forward_outcome_unknown");
    forward_once(&gateway, &forward_id(&answer), "forwarded").await;
    home.truth().assert_one_run_per_key();
}

// F2: a repeat is told so at once, and wakes what waits
#[tokio::test]
async fn a_repeated_key_wakes_a_forward_that_waits() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.forward.max_attempts = 1;
    let hour = Duration::from_secs(3600);
    (config.forward.base_backoff, config.forward.max_backoff, config.forward.reconcile_backoff) =
        (hour, hour, hour);
    let gateway = TestGateway::start_with(config, vec![home_peer(&home)]).await;
    home.next_creates([CreateFault::DropAnswer, CreateFault::DropAnswer]);
    let answer = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(504);
    let id = forward_id(&answer);
    // The reconciler tries at once; from then on it would wait for half an hour.
    let tried = |answer: &Answer| answer.json["forward"]["attempts_total"] == 2;
    gateway.until(&format!("/v1/federation/forwards/{id}"), tried).await;
    let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(409);
    assert_eq!((again.code(), again.header("retry-after")), ("request_in_progress", "1"));
    assert_eq!(forward_id(&again), id);
    forward_once(&gateway, &id, "forwarded").await;
    gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    home.truth().assert_one_run_per_key();
}

// F2, A-08: who repeats a key does not make the gateway press a peer that asked for a pause
#[tokio::test]
async fn a_repeated_key_does_not_shorten_the_wait_that_a_peer_asked_for() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.forward.max_attempts = 1;
    let mut gateway = TestGateway::start_with(config, vec![home_peer(&home)]).await;
    home.next_creates([CreateFault::status_retry_after(503, "4")]);
    gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(504);
    for round in 0..6 {
        gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(409);
        if round == 3 {
            gateway.restart().await;
        }
    }
    let truth = home.until("another create", |truth| truth.creates().len() > 1).await;
    let rested = truth.creates()[1].request.at - truth.creates()[0].request.at;
    assert!(rested >= Duration::from_millis(3900), "rested {rested:?} of 4 s");
    truth.assert_one_run_per_key();
}

#[tokio::test]
async fn respond_async_is_accepted_once_durable_and_goes_on_over_a_restart() {
    let home = ScriptedOrchestrator::start().await;
    let mut gateway = TestGateway::start(vec![home_peer(&home)]).await;
    home.stop().await;
    let sent = [("prefer", "respond-async")];
    let answer = gateway.post_with(FORWARD, &keyed_body("stk_b", "k1"), &sent).await.expect(202);
    let id = forward_id(&answer);
    assert_eq!(answer.header("location"), format!("/v1/federation/forwards/{id}"));
    assert_eq!(answer.header("preference-applied"), "respond-async");
    let tried = |state: &'static str| {
        move |answer: &Answer| {
            let forward = &answer.json["forward"];
            forward["state"] == state && forward["attempts_total"].as_u64() >= Some(1)
        }
    };
    let forward = gateway.until(&format!("/v1/federation/forwards/{id}"), tried("reserved")).await;
    assert_eq!(forward.json["forward"]["attempts"][0]["outcome"], "not_sent");
    gateway.restart().await;
    home.restart().await;
    let forward = forward_once(&gateway, &id, "forwarded").await;
    let truth = home.truth();
    assert_eq!(truth.runs_created().len(), 1);
    assert_eq!(forward["run_id"], truth.runs_created()[0].run_id.as_str());
    let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    assert_eq!(again.header("idempotency-replayed"), "true");
}

// F1, A-04: the gateway goes down while the home is at work on the create
#[tokio::test]
async fn a_restart_with_a_forward_under_way_makes_exactly_one_run() {
    for fault in [CreateFault::Hold, CreateFault::HoldAnswer] {
        let home = ScriptedOrchestrator::start().await;
        let mut gateway = TestGateway::start_with(hasty_config(), vec![home_peer(&home)]).await;
        home.next_creates([fault]);
        let caller = spawn_forward(&gateway, &keyed_body("stk_b", "k1"));
        home.until("the create", |truth| truth.creates().len() == 1).await;
        gateway.restart().await;
        drop(caller.await);
        home.until("another attempt", |truth| truth.creates().len() == 2).await;
        home.release_creates();
        let path = "/v1/federation/runs";
        let listed = gateway.until(path, |answer| answer.json["items"][0]["run_id"].is_string()).await;
        let truth = home.truth();
        truth.assert_one_run_per_key();
        assert_eq!((truth.runs_created().len(), truth.keys().len()), (1, 1));
        assert_eq!(listed.json["items"][0]["run_id"], truth.runs_created()[0].run_id.as_str());
        let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
        assert_eq!(run_id(&again), truth.runs_created()[0].run_id);
    }
}

//
#[tokio::test]
async fn a_peer_without_idempotency_is_never_asked_twice_after_bytes_left() {
    let home = ScriptedOrchestrator::start().await;
    let mut options = home_peer(&home);
    options.idempotent_create = false;
    let mut gateway = TestGateway::start_with(hasty_config(), vec![options]).await;
    home.refuse_connections(true).await;
    gateway.post(FORWARD, &keyed_body("stk_b", "k0")).await.expect(502);
    home.refuse_connections(false).await;
    home.next_creates([CreateFault::DropAnswer, CreateFault::Hold]);
    let answer = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(504);
    assert_eq!(answer.code(), "forward_outcome_unknown");
    assert_eq!(answer.json["error"]["retryable"], false);
    let forward = forward_now(&gateway, &forward_id(&answer)).await;
    assert_eq!((&forward["state"], &forward["outcome"]), (&"expired".into(), &"unknown".into()));
    let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(504);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.json["error"]["retryable"], false);
    // Nor after a restart in the middle of an attempt.
    let sent = [("prefer", "respond-async")];
    let answer = gateway.post_with(FORWARD, &keyed_body("stk_b", "k2"), &sent).await.expect(202);
    home.until("the second create", |truth| truth.creates().len() == 2).await;
    gateway.restart().await;
    let forward = forward_once(&gateway, &forward_id(&answer), "expired").await;
    assert_eq!(forward["outcome"], "unknown");
    assert_eq!(home.truth().creates().len(), 2);
}

// F6
#[tokio::test]
async fn a_key_the_peer_may_have_forgotten_is_not_sent_again() {
    let home = ScriptedOrchestrator::start().await;
    let mut far_config = test_config();
    far_config.gateway.stack_id = PeerId::parse("stk_far").expect("a peer id");
    far_config.forward.idempotency_retention = Duration::from_secs(1); // what it announces
    let mut local = home_peer(&home);
    local.local = true;
    let far = TestGateway::start_with(far_config, vec![local]).await;
    let mut config = test_config();
    config.outbound.answer_timeout = Duration::from_millis(1100);
    let near =
        TestGateway::start_with(config, vec![peer("stk_far", &far.base_url(), PeerKind::Gateway)]).await;
    near.until("/v1/federation/peers/stk_far", |a| a.json["peer"]["health"]["state"] == "healthy").await;
    home.next_creates([CreateFault::HoldAnswer]);
    let answer = near.post(FORWARD, &keyed_body("stk_far", "k1")).await.expect(504);
    assert_eq!(answer.code(), "forward_outcome_unknown");
    let forward = forward_once(&near, &forward_id(&answer), "expired").await;
    assert_eq!((&forward["outcome"], &forward["attempts_total"]), (&"unknown".into(), &1.into()));
    assert_eq!(audit(&near, "expired").len(), 1);
    let again = near.post(FORWARD, &keyed_body("stk_far", "k1")).await.expect(504);
    assert_eq!(again.json["error"]["retryable"], false);
    assert_eq!(home.truth().creates().len(), 1);
    home.release_creates();
}

// F2: whoever has our name may go, so the forward waits for that as long as it may, and no longer.
#[tokio::test]
async fn a_name_that_another_process_bears_holds_a_forward_and_does_not_end_it() {
    is_held(409, "peer_id_conflict").await;
}

// F2: clocks are set right sooner or later.
#[tokio::test]
async fn a_clock_that_is_off_holds_a_forward_and_does_not_end_it() {
    is_held(401, "signature_expired").await;
}

// F3: a run that was made before a clock was off is found once it is right.
#[tokio::test]
async fn a_clock_that_is_off_does_not_end_a_forward_whose_run_may_exist() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    home.next_creates([CreateFault::DropAnswer]);
    home.creates(refusal(401, "signature_expired"));
    let unknown = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(504);
    assert_eq!(unknown.code(), "forward_outcome_unknown");
    home.until("the reconciler", |truth| truth.creates().len() > 4).await;
    home.creates(CreateFault::Ok);
    let forward = forward_once(&gateway, &forward_id(&unknown), "forwarded").await;
    assert_eq!(home.truth().runs_created().len(), 1);
    gateway
        .get(&format!("/v1/federation/runs/{}", forward["run_id"].as_str().expect("a run")))
        .await
        .expect(200);
}

/// Refuses a create under this code.
fn refusal(code: u16, name: &str) -> CreateFault {
    let body = json!({ "error": { "code": name, "message": "not now" } });
    CreateFault::Status { code, retry_after: None, body: Some(body) }
}

/// A refusal that is no final one: whoever waits gets the run if it goes, and nobody is told no for good.
async fn is_held(code: u16, name: &str) {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.forward.background_deadline = Duration::from_secs(2);
    let peers = vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)];
    let gateway = TestGateway::start_with(config, peers).await;
    // A caller who waits gets the run once it is over.
    home.next_creates([refusal(code, name)]);
    gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(200);
    assert_eq!(home.truth().creates().len(), 2);
    // Or hears that nothing was started, and may ask again.
    home.creates(refusal(code, name));
    let refused = gateway.post(FORWARD, &keyed_body("stk_b", "k2")).await.expect(502);
    let error = &refused.json["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("forward_failed"), &json!(true)));
    assert_eq!(error["details"]["outcome"], "not_started");
    assert_eq!(error["details"]["upstream_code"], name);
    // In the background it goes on to its deadline, and ends there.
    let sent = [("prefer", "respond-async")];
    let accepted = gateway.post_with(FORWARD, &keyed_body("stk_b", "k3"), &sent).await.expect(202);
    let forward = forward_once(&gateway, &forward_id(&accepted), "expired").await;
    assert_eq!(forward["outcome"], "not_started", "{forward}");
    assert!(forward["attempts"].as_array().is_some_and(|attempts| attempts.len() > 1), "{forward}");
    assert_eq!(home.truth().runs_created().len(), 1);
}

// A clock that was ahead for a moment has not put off a forward for as long as it was ahead.
#[tokio::test]
async fn what_a_clock_that_was_ahead_put_off_is_due_in_its_time() {
    const AHEAD_MS: i64 = 600_000;
    let now_ms = 1_700_000_000_000;
    let nobody = peer("stk_b", "http://127.0.0.1:1", PeerKind::Orchestrator);
    let clock = Clock::manual(now_ms + AHEAD_MS);
    let mut gateway = TestGateway::start_at(clock, test_config(), vec![nobody]).await;
    let sent = [("prefer", "respond-async")];
    gateway.post_with(FORWARD, &keyed_body("stk_b", "k1"), &sent).await.expect(202);
    gateway.stop().await;
    let clock = Clock::manual(now_ms);
    let log = log_model::open(&gateway.data_dir(), &clock, &Arc::default()).await;
    let put_off = log.next_due_ms().await.expect("a read").expect("a forward");
    assert!(put_off >= now_ms + AHEAD_MS, "{put_off}");
    assert_eq!(log.redate_forwards().await.ok(), Some(1));
    let due = log.next_due_ms().await.expect("a read").expect("a forward");
    assert!((now_ms..now_ms + AHEAD_MS / 2).contains(&due), "{due}");
    assert_eq!(log.redate_forwards().await.ok(), Some(0));
    log.close().await;
}

// ... and the gateway sees to that by itself, within a minute and the wait itself.
#[tokio::test]
async fn a_forward_that_a_clock_put_off_is_taken_up_once_the_clock_is_right() {
    const AHEAD_MS: i64 = 600_000;
    let home = ScriptedOrchestrator::start().await;
    let clock = Clock::running(1_700_000_000_000 + AHEAD_MS);
    let gateway = TestGateway::start_at(clock.clone(), test_config(), vec![home_peer(&home)]).await;
    home.next_creates([CreateFault::status_retry_after(503, "5")]);
    let sent = [("prefer", "respond-async")];
    let accepted = gateway.post_with(FORWARD, &keyed_body("stk_b", "k1"), &sent).await.expect(202);
    forward_once(&gateway, &forward_id(&accepted), "unknown").await;
    clock.jump(-AHEAD_MS);
    let made = timeout(Duration::from_secs(120), async {
        while home.truth().runs_created().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await; // why: polling another party
        }
    });
    made.await.expect("the run, long before ten minutes are over");
}
