//! A gateway changes its key while work goes on: announced, learned, taken over, and the old one ends.

use std::cell::Cell;
use std::time::Duration;

use causeway::clock::Clock;
use causeway::domain::key::PublicKey;
use causeway::keyring::Keyring;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::forwards::FORWARD;
use crate::support::gateway::{events_path, forward_body};
use crate::support::orchestrator::RunStatus;
use crate::support::pair::{Operator, Pair, Plan};
use crate::support::sse_client::Follower;

/// A pair at a time of the test's own.
async fn pair_at(clock: &Clock) -> Pair {
    let mut plan = Plan::new().await;
    plan.clock = clock.clone();
    let pair = plan.start().await;
    pair.until_healthy().await;
    pair
}

fn keys(peer: &Value) -> Vec<String> {
    let keys = peer["identity"]["public_keys"].as_array().expect("keys");
    keys.iter().map(|key| key.as_str().expect("a key").to_owned()).collect()
}

/// The gateway's own keys, as `(state, key)`.
async fn own_keys(operator: &Operator) -> Vec<(String, String)> {
    let shown = operator.get("/v1/federation/keys").await.expect(200);
    let text = |key: &Value, name: &str| key[name].as_str().expect("text").to_owned();
    let keys = shown.json["keys"].as_array().expect("keys");
    keys.iter().map(|key| (text(key, "state"), text(key, "public_key"))).collect()
}

async fn until_present(operator: &Operator, key: &str) {
    for _ in 0..500 {
        if own_keys(operator).await[0].1 == key {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
    }
    panic!("{key} never took over");
}

//
#[tokio::test]
async fn a_key_is_rotated_under_way_and_no_caller_notices() {
    let clock = Clock::manual(1_790_000_000_000);
    let mut pair = pair_at(&clock).await;
    let (at_a, at_b) = (Operator::of(&pair.a), Operator::of(&pair.b));
    let old = pair.key_a.public().to_string();
    let run = pair.a.forward_run("stk_b").await;
    pair.home_b.emit_steps(&run, 2);
    let mut follower = Follower::new(pair.a.address(), &events_path(&run));
    follower.follow_events(2).await;

    let announced = at_a.post("/v1/federation/keys:rotate", &json!({ "overlap": "1h" })).await.expect(200);
    assert_eq!(announced.json["keys"].as_array().map(Vec::len), Some(2), "{}", announced.text);
    assert!(!announced.text.contains("PRIVATE"), "{}", announced.text);
    let twice = at_a.post("/v1/federation/keys:rotate", &json!({})).await.expect(409);
    assert_eq!(twice.code(), "invalid_state_transition");
    let next = own_keys(&at_a).await[1].clone();
    assert_eq!(next.0, "next");
    let learned = at_b.until_peer("stk_a", |peer| keys(peer).len() == 2).await;
    assert_eq!(keys(&learned), [old.clone(), next.1.clone()]);
    // Before its time nothing has changed; requests go on.
    pair.a.forward_run("stk_b").await;
    assert_eq!(own_keys(&at_a).await[0], ("present".to_owned(), old.clone()));

    // What was learned survives a restart of whoever learned it.
    pair.b.restart().await;
    let at_b = Operator::of(&pair.b);
    assert_eq!(keys(&at_b.peer("stk_a").await), [old.clone(), next.1.clone()]);

    clock.advance(Duration::from_secs(3601));
    until_present(&at_a, &next.1).await;
    assert_eq!(own_keys(&at_a).await[0], ("present".to_owned(), next.1.clone()));
    pair.a.forward_run("stk_b").await;
    pair.b.forward_run("stk_a").await;
    // For a while the old one counts: requests of it may be under way.
    pair.as_a().get("/v1/federation/peer").send_to(&pair.b).await.expect(200);
    clock.advance(Duration::from_secs(301));
    let refused = pair.as_a().get("/v1/federation/peer").send_to(&pair.b).await;
    assert_eq!((refused.status, refused.code()), (409, "peer_id_conflict"), "{}", refused.text);
    let shown = at_b.until_peer("stk_a", |peer| keys(peer).len() == 1).await;
    assert_eq!(keys(&shown), std::slice::from_ref(&next.1));
    pair.a.forward_run("stk_b").await;
    pair.b.forward_run("stk_a").await;
    pair.until_healthy().await;

    // The stream that was open over all of it has everything.
    pair.home_b.finish(&run, RunStatus::Completed);
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2, 3]);
    // The old private half is gone from the disk; its history is not.
    let ring = Keyring::open(&pair.a.data_dir(), None, &[0; 32]).expect("a keyring");
    assert_eq!(ring.keys().present.public().to_string(), next.1);
    assert_eq!(ring.keys().retired[0].public_key, PublicKey::parse(&old).expect("a key"));
    let actions: Vec<String> =
        at_a.audit().await.iter().map(|record| record["action"].as_str().expect("text").to_owned()).collect();
    for action in ["key.rotate", "key.take_over"] {
        assert!(actions.iter().any(|done| done == action), "{action} is not in {actions:?}");
    }
    at_b.until_audited("the learned key", |record| record["action"] == "peer.key").await;
}

// many callers during a rotation, and not one of them hears of it.
#[tokio::test]
async fn forwards_go_on_without_a_failure_while_a_key_changes() {
    let pair = Pair::start().await;
    let at_a = Operator::of(&pair.a);
    let changed = Cell::new(false);
    let forwards = async {
        let mut made = 0;
        while !changed.get() {
            pair.a.post(FORWARD, &forward_body("stk_b")).await.expect(200);
            made += 1;
        }
        for _ in 0..10 {
            pair.a.post(FORWARD, &forward_body("stk_b")).await.expect(200);
        }
        made + 10
    };
    let rotation = async {
        at_a.post("/v1/federation/keys:rotate", &json!({ "overlap": "3s" })).await.expect(200);
        at_a.until_audited("the take-over", |record| record["action"] == "key.take_over").await;
        changed.set(true);
    };
    let (made, ()) = tokio::join!(forwards, rotation);
    let truth = pair.home_b.truth();
    truth.assert_one_run_per_key();
    assert_eq!(truth.runs_created().len(), made);
    pair.until_healthy().await;
}

// connections that are in use all the time were made with the certificate of the old key.
#[tokio::test]
async fn no_connection_outlives_the_key_it_was_made_with() {
    let clock = Clock::manual(1_790_000_000_000);
    let pair = pair_at(&clock).await;
    let (at_a, at_b) = (Operator::of(&pair.a), Operator::of(&pair.b));
    // Each leaves its connection behind for the next.
    let use_all_connections = async || {
        for answer in join_all((0..8).map(|_| at_a.act("/v1/federation/peers/stk_b:verify"))).await {
            let health = &answer.expect(200).json["peer"]["health"];
            assert_eq!(health["state"], "healthy", "{health}");
        }
    };
    at_a.post("/v1/federation/keys:rotate", &json!({ "overlap": "1h" })).await.expect(200);
    let next = own_keys(&at_a).await[1].1.clone();
    at_b.until_peer("stk_a", |peer| keys(peer).len() == 2).await;
    use_all_connections().await;
    clock.advance(Duration::from_secs(3601));
    until_present(&at_a, &next).await;
    use_all_connections().await;
    at_b.until_audited("the first use", |record| record["action"] == "peer.key_in_use").await;
    clock.advance(Duration::from_secs(301));
    at_b.until_peer("stk_a", |peer| keys(peer) == [next.clone()]).await;
    use_all_connections().await;
}

//
#[tokio::test]
async fn an_announcement_that_nobody_heard_is_taken_back_without_a_trace() {
    let mut plan = Plan::new().await;
    plan.clock = Clock::manual(1_790_000_000_000);
    let pair = plan.start().await;
    pair.until_healthy().await;
    let at_a = Operator::of(&pair.a);
    let none = at_a.act("/v1/federation/keys:cancel-rotation").await.expect(409);
    assert_eq!(none.code(), "invalid_state_transition");
    // While nothing goes from there to here, nobody asks and nobody learns.
    let at_b = Operator::of(&pair.b);
    at_b.act("/v1/federation/peers/stk_a:revoke").await.expect(200);
    at_a.post("/v1/federation/keys:rotate", &json!({ "overlap": "1h" })).await.expect(200);
    at_a.act("/v1/federation/keys:cancel-rotation").await.expect(200);
    at_b.act("/v1/federation/peers/stk_a:reinstate").await.expect(200);
    pair.clock.advance(Duration::from_secs(2 * 3600));
    at_a.act("/v1/federation/peers/stk_b:verify").await.expect(200);
    pair.a.forward_run("stk_b").await;
    assert_eq!(own_keys(&at_a).await, [("present".to_owned(), pair.key_a.public().to_string())]);
}

//
#[tokio::test]
async fn an_announcement_taken_back_after_it_was_heard_locks_nobody_out() {
    let clock = Clock::manual(1_790_000_000_000);
    let pair = pair_at(&clock).await;
    let (at_a, at_b) = (Operator::of(&pair.a), Operator::of(&pair.b));
    let old = pair.key_a.public().to_string();
    at_a.post("/v1/federation/keys:rotate", &json!({ "overlap": "1h" })).await.expect(200);
    at_b.until_peer("stk_a", |peer| keys(peer).len() == 2).await;
    at_a.act("/v1/federation/keys:cancel-rotation").await.expect(200);
    clock.advance(Duration::from_secs(3 * 3600));
    pair.a.forward_run("stk_b").await;
    pair.b.forward_run("stk_a").await;
    pair.until_healthy().await;

    // The next announcement takes the place of the one that came to nothing.
    at_a.post("/v1/federation/keys:rotate", &json!({ "overlap": "1h" })).await.expect(200);
    let next = own_keys(&at_a).await[1].1.clone();
    at_b.until_peer("stk_a", |peer| keys(peer) == [old.clone(), next.clone()]).await;
    clock.advance(Duration::from_secs(3601));
    until_present(&at_a, &next).await;
    pair.a.forward_run("stk_b").await;
    clock.advance(Duration::from_secs(301));
    at_b.until_peer("stk_a", |peer| keys(peer) == [next.clone()]).await;
    pair.a.forward_run("stk_b").await;
}
