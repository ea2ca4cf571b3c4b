//! Who a gateway is: one id, one key, one process; how it is enrolled; and when it counts as healthy.

use causeway::domain::id::PeerId;
use causeway::domain::peer::PeerKind;
use serde_json::{Value, json};

use crate::support::address::steady_address;
use crate::support::forwards::FORWARD;
use crate::support::gateway::{Answer, TestGateway, events_path, forward_body, peer, test_config};
use crate::support::orchestrator::{CreateFault, RunStatus, ScriptedOrchestrator};
use crate::support::pair::{Operator, Pair, Plan, Signer, some_key};
use crate::support::sse_client::Follower;

const PEERS: &str = "/v1/federation/peers";

/// An enrolment by API.
fn entry(id: &str, key: &str) -> Value {
    json!({
        "peer_id": id,
        "base_url": "https://127.0.0.1:1",
        "kind": "gateway",
        "public_key": key,
        "operations": ["forward_in", "forward_out"],
        "tenants": ["*"],
    })
}

fn details(answer: &Answer) -> &Value {
    &answer.json["error"]["details"]
}

// R-41, F-26, reliability 4d.31
#[tokio::test]
pub(crate) async fn an_id_belongs_to_one_key_and_whoever_takes_it_is_refused_and_audited() {
    let pair = Pair::start_prod().await;
    let taker = Signer { key: some_key(), ..pair.as_a() };
    let refused = taker.create("key-1").send_to(&pair.b).await.expect(409);
    assert_eq!(refused.code(), "peer_id_conflict");
    let operator = Operator::of(&pair.b);
    let record =
        operator.until_audited("the taken id", |record| record["reason"] == "peer_id_conflict").await;
    assert_eq!((&record["action"], &record["outcome"]), (&json!("authenticate"), &json!("refused")));
    // The one that bears it rightly is not disturbed.
    pair.as_a().create("key-1").send_to(&pair.b).await.expect(201);
    assert_eq!(pair.home_b.truth().creates().len(), 1);
}

// R-41, F-03, F-04, F-06
#[tokio::test]
async fn enrolments_are_kept_and_conflicts_are_named() {
    let mut gateway = TestGateway::start_with(test_config(), Vec::new()).await;
    let (one, two) = (some_key().public().to_string(), some_key().public().to_string());
    let made = gateway.post(PEERS, &entry("stk_x", &one)).await.expect(201);
    assert_eq!(made.header("location"), "/v1/federation/peers/stk_x");
    assert_eq!(made.json["peer"]["source"], "enrolled");
    let same = gateway.post(PEERS, &entry("stk_x", &one)).await.expect(201);
    assert_eq!(same.json["peer"]["identity"], made.json["peer"]["identity"]);
    let mut named = entry("stk_x", &one);
    named["name"] = json!("Stack X");
    let own = gateway.config.gateway.stack_id.to_string();
    let table = [
        ("another key", entry("stk_x", &two), 409, "peer_id_conflict", "peer_id"),
        ("another name", named.clone(), 409, "conflict", "peer_id"),
        ("its key under another id", entry("stk_y", &one), 409, "peer_id_conflict", "public_key"),
        ("our own id", entry(&own, &two), 409, "peer_id_conflict", "peer_id"),
    ];
    for (what, body, status, code, field) in table {
        let answer = gateway.post(PEERS, &body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{what}: {}", answer.text);
        assert_eq!(details(&answer)["field"], field, "{what}");
    }
    // Keys anybody could sign with, and keys that are none.
    for key in ["", "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "ed25519:short", "rsa:AAAA"] {
        let mut body = entry("stk_z", key);
        body["operations"] = json!(["forward_in"]);
        let answer = gateway.post(PEERS, &body).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{key}: {}", answer.text);
    }
    let changed = gateway.config.clone();
    gateway.restart().await;
    assert_eq!(gateway.config.peers, changed.peers, "the configuration knows nothing of it");
    let operator = Operator::of(&gateway);
    let kept = operator.peer("stk_x").await;
    assert_eq!((&kept["identity"]["public_keys"], &kept["source"]), (&json!([one]), &json!("enrolled")));
    let update = operator.put(&format!("{PEERS}/stk_x"), &named).await.expect(200);
    assert_eq!(update.json["peer"]["name"], "Stack X");
    let moved = operator.put(&format!("{PEERS}/stk_other"), &named).await;
    assert_eq!(moved.status, 400, "{}", moved.text);
    operator.delete(&format!("{PEERS}/stk_x")).await.expect(204);
    operator.get(&format!("{PEERS}/stk_x")).await.expect(404);
    operator.delete(&format!("{PEERS}/stk_x")).await.expect(404);
    gateway.restart().await;
    Operator::of(&gateway).get(&format!("{PEERS}/stk_x")).await.expect(404);
    let records = Operator::of(&gateway).audit().await;
    for action in ["peer.enrol", "peer.update", "peer.remove"] {
        assert!(records.iter().any(|record| record["action"] == action), "{action}: {records:#?}");
    }
}

// F-26: what the configuration says of a peer is changed there.
#[tokio::test]
async fn a_configured_peer_is_revoked_by_api_and_changed_in_the_file() {
    let pair = Pair::start().await;
    let operator = Operator::of(&pair.a);
    let key = pair.key_b.public().to_string();
    let refused = operator.put(&format!("{PEERS}/stk_b"), &entry("stk_b", &key)).await.expect(409);
    assert_eq!(refused.code(), "conflict");
    operator.delete(&format!("{PEERS}/stk_b")).await.expect(409);
    operator.act(&format!("{PEERS}/stk_none:revoke")).await.expect(404);
    operator.act(&format!("{PEERS}/stk_b:revoke")).await.expect(200);
    operator.act(&format!("{PEERS}/stk_b:reinstate")).await.expect(200);
    let verified = operator.act(&format!("{PEERS}/stk_b:verify")).await.expect(200);
    assert_eq!(verified.json["peer"]["health"]["state"], "healthy", "{}", verified.text);
}

// two gateways that know nothing of each other become a pair by two calls.
#[tokio::test]
async fn two_gateways_are_enrolled_with_each_other_while_they_run() {
    let plan = Plan::new().await;
    let (entry_a, entry_b) = (plan.a.entry.clone(), plan.b.entry.clone());
    let pair = plan.strangers().await;
    let at_b = Operator::of(&pair.b);
    let body = |options| serde_json::to_value(options).expect("JSON");
    Operator::of(&pair.a).post(PEERS, &body(&entry_b)).await.expect(201);
    Operator::of(&pair.a).until_health("stk_b", "failing").await;
    at_b.post(PEERS, &body(&entry_a)).await.expect(201);
    pair.until_healthy().await;
    let run = pair.a.forward_run("stk_b").await;
    pair.home_b.finish(&run, RunStatus::Completed);
    Follower::new(pair.a.address(), &events_path(&run)).follow_to_end().await;
    let mut pair = pair;
    pair.b.restart().await;
    pair.until_healthy().await;
    pair.a.forward_run("stk_b").await;
}

//
#[tokio::test]
async fn health_is_proven_from_both_sides_and_says_what_to_do_when_it_is_not() {
    // `stk_b` does not know `stk_a` by any key, and believes strangers: it answers, and that is not enough.
    let other = TestGateway::start_with(
        {
            let mut config = test_config();
            config.gateway.stack_id = PeerId::parse("stk_b").expect("an id");
            config
        },
        Vec::new(),
    )
    .await;
    let mut entry = peer("stk_b", &other.base_url(), PeerKind::Gateway);
    let shown = Operator::of(&other).get("/v1/federation/keys").await.expect(200);
    let key = shown.json["keys"][0]["public_key"].as_str().expect("a key").to_owned();
    entry.public_key = Some(key.parse().expect("a key"));
    let mut config = test_config();
    config.gateway.stack_id = PeerId::parse("stk_a").expect("an id");
    let gateway = TestGateway::start_with(config, vec![entry.clone()]).await;
    let operator = Operator::of(&gateway);
    let failing = operator.until_health("stk_b", "failing").await;
    let reason = failing["health"]["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("enrol it there"), "{reason}");
    // Somebody else's key over there: it cannot prove ours.
    let shown = operator.get("/v1/federation/keys").await.expect(200);
    let own = shown.json["keys"][0]["public_key"].as_str().expect("a key").to_owned();
    let known = entry_of(&own, &gateway.base_url());
    other.post(PEERS, &known).await.expect(201);
    operator.until_health("stk_b", "healthy").await;
    let mut config = gateway.config.clone();
    entry.public_key = Some(*some_key().public());
    config.peers = vec![entry];
    let deceived = TestGateway::start_with(config, Vec::new()).await;
    let unproven = Operator::of(&deceived).until_health("stk_b", "failing").await;
    let reason = unproven["health"]["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("enrol it there") || reason.contains("prove") || reason.contains("409"),
        "{reason}"
    );
}

fn entry_of(key: &str, base: &str) -> Value {
    let mut body = entry("stk_a", key);
    body["base_url"] = json!(base);
    body
}

//
#[tokio::test]
async fn two_gateways_from_one_copied_directory_are_found_on_both_sides() {
    let pair = Pair::start().await;
    let copy = tempfile::tempdir().expect("a directory");
    let keys = copy.path().join("data").join("keys");
    std::fs::create_dir_all(&keys).expect("a directory");
    std::fs::copy(pair.a.data_dir().join("keys/gateway.pem"), keys.join("gateway.pem")).expect("copied");
    let mut config = pair.a.config.clone();
    config.peering.listen = Some(steady_address());
    config.server.listen = ([127, 0, 0, 1], 0).into();
    let twin = TestGateway::start_in(copy, pair.clock.clone(), config, Vec::new()).await;
    let said = |peer: &Value| {
        let reason = peer["health"]["reason"].as_str().unwrap_or("");
        peer["health"]["state"] == "failing" && reason.contains("two processes")
    };
    // At the one whose identity it is, or at its twin: whichever was superseded hears why.
    let (one, other) = (Operator::of(&pair.a), Operator::of(&twin));
    let mut found = false;
    for _ in 0..250 {
        found = said(&one.peer("stk_b").await) || said(&other.peer("stk_b").await);
        if found {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await; // why: polling another party's HTTP API
    }
    assert!(found, "{} {}", one.peer("stk_b").await, other.peer("stk_b").await);
    // And at the other gateway, by its own check and in its audit.
    let at_b = Operator::of(&pair.b);
    at_b.until_audited("two processes", |record| record["reason"] == "peer_id_conflict").await;
    at_b.until_peer("stk_a", said).await;
    drop(twin);
}

//
#[tokio::test]
async fn a_drained_peer_gets_nothing_new_and_its_streams_go_on() {
    let pair = Pair::start().await;
    let run = pair.a.forward_run("stk_b").await;
    pair.home_b.emit_steps(&run, 2);
    let mut follower = Follower::new(pair.a.address(), &events_path(&run));
    follower.follow_events(2).await;
    // A stream of our own, as `stk_a`: draining is no reason to cut it.
    let stream = pair.as_a().get(&format!("/v1/runs/{run}/events"));
    let stream = stream.open(&pair.tls_as_a(), &pair.door_b()).await.expect("a stream");
    let operator = Operator::of(&pair.b);
    let drained = operator.act("/v1/federation/peers/stk_a:drain").await.expect(200);
    assert_eq!(drained.json["peer"]["standing"], "draining");
    let refused = pair.as_a().create("key-1").send_to(&pair.b).await.expect(503);
    assert_eq!(refused.code(), "draining");
    assert!(!refused.header("retry-after").is_empty(), "{:?}", refused.headers);
    let refused = pair.b.post(FORWARD, &forward_body("stk_a")).await.expect(503);
    assert_eq!(refused.code(), "draining");
    assert!(!refused.header("retry-after").is_empty(), "{:?}", refused.headers);
    let refused = pair.a.post(FORWARD, &forward_body("stk_b")).await;
    assert!([502, 503].contains(&refused.status), "{}", refused.text);
    // What runs goes on, to its end.
    pair.home_b.emit_steps(&run, 2);
    pair.home_b.finish(&run, RunStatus::Completed);
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2, 3, 4, 5]);
    let text = stream.rest().await;
    assert!(!text.contains("stream_error"), "{text}");
    assert!(text.contains("event: end"), "{text}");
    pair.as_a().get(&format!("/v1/runs/{run}")).send_to(&pair.b).await.expect(200);
    operator.act("/v1/federation/peers/stk_a:reinstate").await.expect(200);
    pair.as_a().create("key-1").send_to(&pair.b).await.expect(201);
}

// whoever waits for a create while its peer's entry is drained or changed gets its run.
#[tokio::test]
async fn a_create_under_way_is_not_hurt_by_a_change_of_its_peer() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::start(Vec::new()).await;
    let entry = |name: &str| json!({ "peer_id": "stk_b", "base_url": home.base_url(), "name": name });
    gateway.post(PEERS, &entry("one")).await.expect(201);
    let operator = Operator::of(&gateway);
    let (drain, update) = (format!("{PEERS}/stk_b:drain"), format!("{PEERS}/stk_b"));
    for number in 1..=2 {
        home.next_creates([CreateFault::Hold]);
        let body = forward_body("stk_b");
        let create = gateway.post(FORWARD, &body);
        let change = async {
            home.until("the create", |truth| truth.creates().len() >= number).await;
            match number {
                1 => operator.act(&drain).await.expect(200),
                _ => operator.put(&update, &entry("two")).await.expect(200),
            };
            home.release_creates();
        };
        let (answer, ()) = tokio::join!(create, change);
        answer.expect(200);
        home.truth().assert_one_run_per_key();
        assert_eq!(home.truth().runs_created().len(), number);
        operator.act(&format!("{PEERS}/stk_b:reinstate")).await.expect(200);
    }
}

//
#[tokio::test]
async fn a_drained_gateway_takes_nothing_new_and_serves_what_it_has() {
    let pair = Pair::start().await;
    let run = pair.a.forward_run("stk_b").await;
    pair.home_b.emit_steps(&run, 1);
    let mut follower = Follower::new(pair.a.address(), &events_path(&run));
    follower.follow_events(1).await;
    let operator = Operator::of(&pair.b);
    let intake = operator.act("/v1/federation/gateway:drain").await.expect(200);
    assert_eq!(intake.json["intake"]["draining"], true);
    assert_eq!(pair.b.get("/readyz").await.expect(503).code(), "draining");
    pair.b.get("/livez").await.expect(200);
    let refused = pair.b.post(FORWARD, &forward_body("orc_b")).await.expect(503);
    assert_eq!((refused.code(), &details(&refused)["outcome"]), ("draining", &json!("not_started")));
    assert!(!refused.header("retry-after").is_empty());
    let refused = pair.a.post(FORWARD, &forward_body("stk_b")).await;
    assert!([502, 503].contains(&refused.status), "{}", refused.text);
    assert_eq!(details(&refused)["outcome"], "not_started", "{}", refused.text);
    pair.home_b.finish(&run, RunStatus::Completed);
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2]);
    let intake = operator.act("/v1/federation/gateway:resume").await.expect(200);
    assert_eq!(intake.json["intake"]["draining"], false);
    pair.b.get("/readyz").await.expect(200);
    pair.a.forward_run("stk_b").await;
    let records = operator.audit().await;
    for action in ["gateway.drain", "gateway.resume"] {
        assert!(records.iter().any(|record| record["action"] == action), "{action}");
    }
}
