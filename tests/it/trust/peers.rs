//! The main path between two gateways, and what a peer may see of the other.

use causeway::domain::grants::Operation;
use causeway::domain::peer::PeerKind;
use serde_json::{Value, json};

use crate::support::forwards::FORWARD;
use crate::support::gateway::{Answer, TENANT, TestGateway, events_path, forward_body, peer, test_config};
use crate::support::orchestrator::{RunStatus, ScriptedOrchestrator};
use crate::support::pair::{Operator, Pair, Plan, Signed};
use crate::support::sse_client::{Follower, RunEnd};

const SECRETS: [&str; 3] = ["bearer-of-alice-4711", "api-key-of-alice-4712", "cookie-of-alice-4713"];

fn headers_of_alice() -> [(&'static str, &'static str); 4] {
    [
        ("x-principal-id", "alice"),
        ("authorization", "Bearer bearer-of-alice-4711"),
        ("cookie", "session=cookie-of-alice-4713"),
        ("idempotency-key", "key-of-alice"),
    ]
}

// F-03
#[tokio::test]
async fn a_run_goes_over_both_gateways_once_and_its_events_come_back_whole() {
    let pair = Pair::start().await;
    let made = pair.a.post_with(FORWARD, &forward_body("stk_b"), &headers_of_alice()).await.expect(200);
    let run = made.json["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    let again = pair.a.post_with(FORWARD, &forward_body("stk_b"), &headers_of_alice()).await.expect(200);
    assert_eq!(again.json["forwarded"]["run_id"], run);
    assert_eq!(again.header("idempotency-replayed"), "true");

    pair.home_b.emit_steps(&run, 3);
    let mut follower = Follower::new(pair.a.address(), &events_path(&run));
    follower.follow_events(3).await;
    pair.home_b.emit_steps(&run, 2);
    pair.home_b.finish(&run, RunStatus::Completed);
    // Another comes late and resumes in the middle.
    let mut late = Follower::new(pair.a.address(), &events_path(&run)).after(2);
    let ends = tokio::join!(follower.follow_to_end(), late.follow_to_end());
    for end in [&ends.0, &ends.1] {
        assert!(matches!(end, RunEnd::Ended { sequence: 6, status } if status == "completed"), "{end:?}");
    }
    assert_eq!(follower.sequences(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(late.sequences(), [3, 4, 5, 6]);

    let truth = pair.home_b.truth();
    truth.assert_one_run_per_key();
    assert_eq!(truth.runs_created().len(), 1);
    let seen = &truth.creates()[0].request;
    assert_eq!(seen.header("x-principal-id"), Some("peer:stk_a/alice"), "a peer vouches for its own");
    assert_eq!(seen.header("x-tenant-id"), Some(TENANT));
    assert_eq!(truth.credentials().len(), 0, "{:?}", truth.credentials());
    let all = format!("{:?}", truth.requests());
    assert!(SECRETS.iter().all(|secret| !all.contains(secret)), "{all}");
    assert!(pair.home_a.truth().creates().is_empty());
}

//
#[tokio::test]
async fn what_a_gateway_sends_to_another_is_its_own_word_and_no_callers_credential() {
    let other = ScriptedOrchestrator::start().await;
    let entry = peer("stk_b", &other.base_url(), PeerKind::Gateway);
    let gateway = TestGateway::start_with(test_config(), vec![entry]).await;
    gateway.post_with(FORWARD, &forward_body("stk_b"), &headers_of_alice()).await.expect(200);
    let body = forward_body("stk_b");
    gateway.post_with(FORWARD, &body, &[("x-api-key", "api-key-of-alice-4712")]).await.expect(200);
    let truth = other.truth();
    assert_eq!(truth.creates().len(), 2);
    for create in truth.creates() {
        let request = &create.request;
        for name in ["authorization", "cookie", "x-api-key"] {
            assert_eq!(request.header(name), None);
        }
        for name in ["signature", "signature-input", "content-digest", "causeway-instance"] {
            assert!(request.header(name).is_some(), "{name} is missing");
        }
        assert_eq!(request.header("causeway-destination"), Some("stk_b"));
    }
    let all = format!("{:?}", truth.requests());
    assert!(SECRETS.iter().all(|secret| !all.contains(secret)), "{all}");
}

/// The answer to a signed request, with all that could tell one 404 from another.
async fn shape(pair: &Pair, signed: Signed) -> (u16, String, Vec<String>) {
    let Answer { status, text, headers, .. } =
        signed.with("x-correlation-id", "req_same").send_to(&pair.b).await;
    (status, text, headers.keys().map(|name| name.as_str().to_owned()).collect())
}

// reliability 4d.20, A-27
#[tokio::test]
async fn a_peer_sees_its_own_runs_and_the_rest_is_not_there() {
    let pair = Pair::start().await;
    let own = pair.a.forward_run("stk_b").await;
    let foreign = pair.b.forward_run("orc_b").await;
    let known = pair.as_a();
    let forward = pair.b.post(FORWARD, &forward_body("orc_b")).await.expect(200);
    let forward = forward.json["forwarded"]["forward_id"].as_str().expect("a forward").to_owned();
    for path in ["/v1/federation/runs/{}", "/v1/runs/{}"] {
        let at = |run: &str| known.get(&path.replace("{}", run));
        assert_eq!(at(&own).send_to(&pair.b).await.status, 200, "{path}");
        let (held, free) = (shape(&pair, at(&foreign)).await, shape(&pair, at("run_free")).await);
        assert_eq!(held.0, 404, "{path}");
        assert_eq!(held, free, "{path}");
    }
    for path in ["/v1/federation/runs/{}/events", "/v1/runs/{}/events"] {
        let at = |run: &str| known.get(&path.replace("{}", run));
        assert_eq!(shape(&pair, at(&foreign)).await, shape(&pair, at("run_free")).await, "{path}");
    }
    for path in ["/v1/federation/runs/{}/cancel", "/v1/federation/runs/{}:cancel", "/v1/runs/{}:cancel"] {
        let at = |run: &str| {
            known.sign(reqwest::Method::POST, &path.replace("{}", run), &[("x-tenant-id", TENANT)], None)
        };
        let (held, free) = (shape(&pair, at(&foreign)).await, shape(&pair, at("run_free")).await);
        assert_eq!(held.0, 404, "{path}: {}", held.1);
        assert_eq!(held, free, "{path}");
    }
    let at = |id: &str| known.get(&format!("/v1/federation/forwards/{id}"));
    assert_eq!(shape(&pair, at(&forward)).await, shape(&pair, at("fwd_free")).await);
    assert_eq!(known.get("/v1/federation/runs").send_to(&pair.b).await.expect(403).code(), "policy_denied");
    assert!(pair.home_b.truth().cancel_requests(&foreign).is_empty());
}

//
#[tokio::test]
async fn a_peer_that_may_subscribe_sees_every_run_of_its_tenants() {
    let mut plan = Plan::new().await;
    plan.a.entry.operations.push(Operation::Subscribe);
    plan.a.entry.tenants = vec![TENANT.to_owned()];
    let pair = plan.start().await;
    let foreign = pair.b.forward_run("orc_b").await;
    let shown = pair.as_a().get(&format!("/v1/federation/runs/{foreign}")).send_to(&pair.b).await.expect(200);
    assert_eq!(shown.json["run"]["run_id"], foreign);
    let listed = pair.as_a().get("/v1/federation/runs").send_to(&pair.b).await.expect(200);
    assert_eq!(listed.json["items"].as_array().map(Vec::len), Some(1));
    // Of another tenant it sees nothing, whatever it asks for.
    let other = [("x-tenant-id", "tnt_other")];
    let refused = pair.as_a().sign(reqwest::Method::GET, "/v1/federation/runs", &other, None);
    let refused = refused.send_to(&pair.b).await.expect(403);
    assert_eq!(refused.json["error"]["details"]["rule"], "tenant_not_granted", "{}", refused.text);
}

// A-27, F-06
#[tokio::test]
async fn a_peer_does_no_more_than_its_entry_grants() {
    let mut plan = Plan::prod().await;
    plan.a.entry.tenants = vec![TENANT.to_owned()];
    plan.a.entry.agents = vec!["agt_test".to_owned(), "billing-*".to_owned()];
    // A name decides nothing.
    plan.a.entry.name = "operator".to_owned();
    let pair = plan.start().await;
    let known = pair.as_a();
    known.create("k1").send_to(&pair.b).await.expect(201);
    let body = || Some(json!({ "input": { "type": "text", "text": "x" } }).to_string().into_bytes());
    let json_of = ("content-type", "application/json");
    let agents = "/v1/agents/agt_other/runs";
    let table = [
        (agents, vec![json_of, ("x-tenant-id", TENANT)], "policy_denied", "agent_not_granted"),
        (
            "/v1/agents/agt_test/runs",
            vec![json_of, ("x-tenant-id", "tnt_x")],
            "policy_denied",
            "tenant_not_granted",
        ),
    ];
    for (path, fields, code, rule) in table {
        let refused =
            known.sign(reqwest::Method::POST, path, &fields, body()).send_to(&pair.b).await.expect(403);
        assert_eq!(refused.code(), code, "{}", refused.text);
        assert_eq!(refused.json["error"]["details"]["rule"], rule);
    }
    // No grant makes a peer an operator.
    for path in
        ["/v1/federation/audit", "/v1/federation/tokens", "/v1/federation/keys", "/v1/federation/policy"]
    {
        let refused = known.get(path).send_to(&pair.b).await.expect(403);
        assert_eq!(refused.json["error"]["details"]["rule"], "operators_only", "{path}");
    }
    let ticket = json!({ "run_id": "run_1" }).to_string().into_bytes();
    let fields = [json_of, ("x-tenant-id", TENANT)];
    let asked = known.sign(reqwest::Method::POST, "/v1/federation/stream-tickets", &fields, Some(ticket));
    assert_eq!(asked.send_to(&pair.b).await.expect(403).code(), "policy_denied");
    let operator = Operator::of(&pair.b);
    let is_it = |record: &Value| record["reason"].as_str().is_some_and(|reason| reason.contains("agt_other"));
    let record = operator.until_audited("the refused agent", is_it).await;
    assert_eq!((&record["subject"], &record["outcome"]), (&json!("peer:stk_a"), &json!("refused")));
    assert_eq!(pair.home_b.truth().runs_created().len(), 1);
}

// clients in profile prod, over the pair
#[tokio::test]
async fn a_client_with_a_token_uses_a_run_at_the_other_gateway() {
    let pair = Pair::start_prod().await;
    let (_, token) =
        Operator::of(&pair.a).token("alice", &["runs:forward", "runs:read", "events:read"]).await;
    let bearer = format!("Bearer {token}");
    let known = [("authorization", bearer.as_str())];
    let made = pair.a.post_with(FORWARD, &forward_body("stk_b"), &known).await.expect(200);
    let run = made.json["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    pair.home_b.emit_steps(&run, 2);
    pair.home_b.finish(&run, RunStatus::Completed);
    let mut follower =
        Follower::new(pair.a.address(), &events_path(&run)).with_header("authorization", &bearer);
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2, 3]);
    let truth = pair.home_b.truth();
    assert_eq!(truth.creates()[0].request.header("x-principal-id"), Some("peer:stk_a/alice"));
    assert!(!format!("{:?}", truth.requests()).contains(&token));
    // Whom a header says it is counts for nothing.
    let other = [("authorization", bearer.as_str()), ("x-tenant-id", "tnt_other")];
    let refused = pair.a.post_with(FORWARD, &forward_body("stk_b"), &other).await;
    assert_eq!((refused.status, refused.code()), (400, "tenant_mismatch"));
    let posing = [("authorization", bearer.as_str()), ("x-principal-id", "mallory")];
    pair.a.post_with(FORWARD, &forward_body("stk_b"), &posing).await.expect(200);
    let seen = pair.home_b.truth();
    assert_eq!(seen.creates()[1].request.header("x-principal-id"), Some("peer:stk_a/alice"));
}

//
#[tokio::test]
async fn two_gateways_of_one_domain_with_two_policies_are_told_of_the_drift() {
    let mut plan = Plan::new().await;
    plan.b.config.policy.allowed_foreign_domains = vec!["friends".to_owned()];
    let pair = plan.start().await;
    pair.until_healthy().await;
    let at_a = Operator::of(&pair.a);
    assert_eq!(at_a.until_peer("stk_b", |peer| peer["config_drift"] == true).await["standing"], "active");
    assert_eq!(pair.a.metric("config_drift{peer=\"stk_b\"}").await, 1.0);

    let alike = Pair::start().await;
    alike.until_healthy().await;
    assert_eq!(Operator::of(&alike.a).peer("stk_b").await["config_drift"], false);
    assert_eq!(alike.a.metric("config_drift{peer=\"stk_b\"}").await, 0.0);
}

//
#[tokio::test]
async fn a_gateway_states_its_limits_to_its_peers() {
    let pair = Pair::start().await;
    let answer = pair.as_a().get("/v1/federation/peer/capabilities").send_to(&pair.b).await.expect(200);
    let limits = &answer.json["capabilities"]["limits"];
    assert_eq!(limits["max_event_bytes"], 1024 * 1024, "{}", answer.text);
    assert_eq!(limits["max_body_bytes"], pair.b.config.server.max_body, "{}", answer.text);
}
