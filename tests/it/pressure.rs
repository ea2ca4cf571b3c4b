//! A peer that is slow, busy or down: what is bounded, what is refused at once, and how it comes back.

use std::sync::Arc;
use std::time::Duration;

use causeway::domain::id::PeerId;
use causeway::domain::peer::PeerKind;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::forwards::{FORWARD, forward_id, forward_once, keyed_body, spawn_forward};
use crate::support::gateway::{Answer, TestGateway, forward_body, peer, test_config};
use crate::support::orchestrator::{CreateFault, ScriptedOrchestrator};

async fn attempts_of(gateway: &TestGateway, forward_id: &str) -> u64 {
    let shown = gateway.get(&format!("/v1/federation/forwards/{forward_id}")).await.expect(200);
    shown.json["forward"]["attempts_total"].as_u64().expect("a number")
}

/// Posts this many different forwards at once.
fn post_at_once(gateway: &Arc<TestGateway>, count: usize) -> JoinSet<Answer> {
    let mut posts = JoinSet::new();
    for _ in 0..count {
        let gateway = Arc::clone(gateway);
        posts.spawn(async move { gateway.post(FORWARD, &forward_body("stk_b")).await });
    }
    posts
}

//
#[tokio::test]
async fn beyond_those_in_flight_and_those_waiting_a_forward_is_refused_at_once() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    (config.forward.in_flight_per_peer, config.forward.waiting_per_peer) = (1, 1);
    let peers = vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)];
    let gateway = Arc::new(TestGateway::start_with(config, peers).await);
    home.next_creates([CreateFault::Hold]);
    let mut posts = post_at_once(&gateway, 3);
    let busy = posts.join_next().await.expect("three posts").expect("an answer").expect(503);
    assert_eq!(busy.code(), "busy");
    assert_eq!(busy.header("retry-after"), "1");
    assert_eq!(busy.json["error"]["retryable"], true);
    assert_eq!(busy.json["error"]["details"]["outcome"], "not_started");
    let shown = gateway.get("/v1/federation/peers/stk_b").await.expect(200);
    assert_eq!(shown.json["peer"]["in_flight"], 1);
    assert_eq!(gateway.metric("backpressure_events_total{reason=\"peer_in_flight\"}").await, 1.0);
    home.until("the create", |truth| truth.creates().len() == 1).await;
    home.release_creates();
    for answer in posts.join_all().await {
        answer.expect(200);
    }
    assert_eq!(home.truth().runs_created().len(), 2);
}

// F2, A-09: a repeat does not queue behind what it asks about
#[tokio::test]
async fn a_repeated_key_is_answered_although_the_peer_is_full() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    (config.forward.in_flight_per_peer, config.forward.waiting_per_peer) = (1, 8);
    let peers = vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)];
    let gateway = TestGateway::start_with(config, peers).await;
    home.next_creates([CreateFault::Hold]);
    let first = spawn_forward(&gateway, &keyed_body("stk_b", "k1"));
    home.until("the create", |truth| truth.creates().len() == 1).await;
    let again = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(409);
    assert_eq!(again.code(), "request_in_progress");
    home.release_creates();
    assert_eq!(first.await.expect("a task").expect("an answer").status, 200);
}

// F5
#[tokio::test]
async fn retries_are_a_share_of_the_requests_and_no_more() {
    let home = ScriptedOrchestrator::start().await;
    let peers = vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)];
    let gateway = Arc::new(TestGateway::start_with(test_config(), peers).await);
    home.creates(CreateFault::status(429)); // says nothing against the peer, so the breaker stays closed
    for answer in post_at_once(&gateway, 100).join_all().await {
        answer.expect(429);
    }
    let truth = home.truth();
    let attempts = truth.creates().len();
    let took = truth.creates()[attempts - 1].request.at - truth.creates()[0].request.at;
    // 100 requests, 20 retries they earn, and three a second that are always allowed, ten seconds' worth
    // of them at once.
    let most = 150 + 3 * took.as_secs() as usize;
    assert!((130..=most).contains(&attempts), "{attempts} attempts for 100 forwards within {took:?}");
}

// A-09, F2, F5: five failures open the breaker; one probe closes it
#[tokio::test]
async fn a_peer_that_fails_rests_and_is_tried_again_by_one_probe() {
    let home = ScriptedOrchestrator::start().await;
    let peers = vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)];
    let gateway = TestGateway::start(peers).await;
    home.creates(CreateFault::DropAnswer);
    let unknown = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(504);
    let path = "/v1/federation/peers/stk_b";
    let open = gateway.until(path, |answer| answer.json["peer"]["health"]["state"] == "open").await;
    assert!(open.json["peer"]["health"]["retry_at"].is_string());
    assert_eq!(gateway.metric("circuit_state{peer=\"stk_b\"}").await, 2.0);
    let asked = home.truth().creates().len();
    assert_eq!(asked, 5);

    let refused = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(503);
    assert_eq!(refused.code(), "circuit_open");
    assert_eq!(refused.json["error"]["details"]["outcome"], "not_started");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=6).contains(&wait), "{wait}");
    home.creates(CreateFault::Ok);
    home.next_creates([CreateFault::Hold]);
    // Who repeats a key wakes nothing while the peer rests, as it would do once a second: one more attempt is the
    // reconciler's own, which found the breaker open.
    let id = forward_id(&unknown);
    let tried = |answer: &Answer| answer.json["forward"]["attempts_total"].as_u64() >= Some(5);
    gateway.until(&format!("/v1/federation/forwards/{id}"), tried).await;
    let (before, repeating) = (attempts_of(&gateway, &id).await, Instant::now());
    while repeating.elapsed() < Duration::from_millis(2600) {
        let repeated = gateway.post(FORWARD, &keyed_body("stk_b", "k1")).await.expect(409);
        assert_eq!(repeated.code(), "request_in_progress", "whatever the breaker says");
        assert_ne!(repeated.header("retry-after"), "");
        tokio::time::sleep(Duration::from_millis(50)).await; // why: a client that asks again and again
    }
    let attempts = attempts_of(&gateway, &id).await;
    assert!(attempts <= before + 1, "{before} attempts, then {attempts}");

    // Two more that nobody waits for: when the rest is over, one of the three is the probe.
    let sent = [("prefer", "respond-async")];
    let second = gateway.post_with(FORWARD, &keyed_body("stk_b", "k2"), &sent).await.expect(202);
    let third = gateway.post_with(FORWARD, &keyed_body("stk_b", "k3"), &sent).await.expect(202);
    let probed = home.until("a probe", |truth| truth.creates().len() > asked).await;
    let rested = probed.creates()[asked].request.at - probed.creates()[asked - 1].request.at;
    assert!(rested >= Duration::from_millis(3900), "rested {rested:?} of 5 s less a fifth");
    let half_open = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(503);
    assert_eq!(half_open.code(), "circuit_open", "while the probe is out nothing else goes");
    // Whoever is turned away by the probe comes again soon, and not when it would be taken for lost (20 s).
    let wait: u64 = half_open.header("retry-after").parse().expect("seconds");
    assert!((1..=6).contains(&wait), "{wait}");
    let fourth = gateway.post_with(FORWARD, &keyed_body("stk_b", "k4"), &sent).await.expect(202);
    let path = format!("/v1/federation/forwards/{}", forward_id(&fourth));
    gateway.until(&path, |answer| answer.json["forward"]["attempts_total"] == 1).await;
    assert_eq!(home.truth().creates().len(), asked + 1);
    home.release_creates();
    for answer in [unknown, second, third, fourth] {
        forward_once(&gateway, &forward_id(&answer), "forwarded").await;
    }
    assert_eq!(gateway.metric("circuit_state{peer=\"stk_b\"}").await, 0.0);
    home.truth().assert_one_run_per_key();
}

// F5: neither a peer that asks for no pause nor a backoff of next to none makes the reconciler press it
#[tokio::test]
async fn a_forward_that_nobody_waits_for_is_not_sent_without_a_pause() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.forward.base_backoff = Duration::from_millis(1);
    let gateway =
        TestGateway::start_with(config, vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)]).await;
    // 429 says nothing against the peer, so its breaker stays closed.
    home.next_creates([
        CreateFault::status_retry_after(429, "0"),
        CreateFault::status_retry_after(429, "0"),
        CreateFault::status(429),
        CreateFault::status(429),
    ]);
    let sent = [("prefer", "respond-async")];
    let accepted = gateway.post_with(FORWARD, &keyed_body("stk_b", "k1"), &sent).await.expect(202);
    let forward = forward_once(&gateway, &forward_id(&accepted), "forwarded").await;
    assert_eq!(forward["attempts_total"], 5, "{forward}");
    let truth = home.truth();
    for pair in truth.creates().windows(2) {
        let paused = pair[1].request.at - pair[0].request.at;
        assert!(paused >= Duration::from_millis(95), "sent again after {paused:?}");
    }
}

// what lies behind a gateway fails, and the gateway stays reachable for all else
#[tokio::test]
async fn a_gateway_whose_own_peer_fails_does_not_rest() {
    let home = ScriptedOrchestrator::start().await;
    home.creates(CreateFault::DropAnswer);
    let mut local = peer("stk_home", &home.base_url(), PeerKind::Orchestrator);
    local.local = true;
    let mut config = test_config();
    config.gateway.stack_id = PeerId::parse("stk_far").expect("a peer id");
    let far = TestGateway::start_with(config, vec![local]).await;
    let near = TestGateway::start(vec![peer("stk_far", &far.base_url(), PeerKind::Gateway)]).await;
    let mut said = Vec::new();
    for _ in 0..8 {
        said.push(near.post(FORWARD, &forward_body("stk_far")).await.code().to_owned());
    }
    assert!(said.contains(&"forward_failed".to_owned()), "the far gateway's breaker is open: {said:?}");
    assert_eq!(far.metric("circuit_state{peer=\"stk_home\"}").await, 2.0);
    assert_eq!(near.metric("circuit_state{peer=\"stk_far\"}").await, 0.0, "{said:?}");
}

// one slow peer never harms another
#[tokio::test]
async fn a_peer_that_hangs_does_not_hold_up_another() {
    let (slow, quick) = (ScriptedOrchestrator::start().await, ScriptedOrchestrator::start().await);
    let mut config = test_config();
    (config.forward.in_flight_per_peer, config.forward.waiting_per_peer) = (2, 2);
    let peers = vec![
        peer("stk_b", &slow.base_url(), PeerKind::Orchestrator),
        peer("stk_c", &quick.base_url(), PeerKind::Orchestrator),
    ];
    let gateway = Arc::new(TestGateway::start_with(config, peers).await);
    slow.creates(CreateFault::Hold);
    let held = post_at_once(&gateway, 4);
    slow.until("two creates", |truth| truth.creates().len() == 2).await;
    for _ in 0..5 {
        gateway.forward_run("stk_c").await;
    }
    slow.creates(CreateFault::Ok);
    slow.release_creates();
    for answer in held.join_all().await {
        answer.expect(200);
    }
}
