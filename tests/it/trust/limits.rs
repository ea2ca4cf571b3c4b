//! How much one caller may ask for: rates, failed logins, quotas, and what is said of them.

use causeway::config::Config;
use causeway::domain::rate::Rate;
use causeway::services::options::Profile;
use serde_json::json;

use crate::support::forwards::FORWARD;
use crate::support::gateway::{Answer, TestGateway, envelope, forward_body, test_config};
use crate::support::log::INGEST;
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::pair::{Operator, Plan, orchestrator_entry};

const RUNS: &str = "/v1/federation/runs";

fn rate(text: &str) -> Option<Rate> {
    Some(Rate::parse(text).expect("a rate"))
}

/// A gateway in profile prod with one orchestrator, `orc`.
async fn guarded(change: impl FnOnce(&mut Config)) -> (TestGateway, ScriptedOrchestrator) {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.gateway.profile = Profile::Prod;
    config.gateway.default_tenant = None;
    change(&mut config);
    let mut local = orchestrator_entry("orc", &home.base_url());
    local.local = true;
    (TestGateway::start_with(config, vec![local]).await, home)
}

#[track_caller]
fn assert_limited(answer: &Answer, kind: &str) {
    assert_eq!((answer.status, answer.code()), (429, "rate_limited"), "{}", answer.text);
    assert_eq!(answer.json["error"]["details"]["limit"], kind, "{}", answer.text);
    assert!(answer.header("ratelimit").starts_with(&format!("\"{kind}\";r=0;t=")), "{:?}", answer.headers);
    let wait: u64 = answer.header("retry-after").parse().expect("whole seconds");
    assert!((1..=3600).contains(&wait), "{wait}");
}

// Z-42
#[tokio::test]
pub(crate) async fn a_principal_that_asks_too_much_hears_when_to_come_back_and_others_do_not() {
    let (gateway, _home) = guarded(|config| {
        config.limits.principal = rate("10/h burst 3");
        config.limits.tenant = rate("10/h burst 7");
    })
    .await;
    let operator = Operator::of(&gateway);
    let mut bearers = Vec::new();
    for name in ["alice", "bob", "carol"] {
        bearers.push(format!("Bearer {}", operator.token(name, &["runs:read"]).await.1));
    }
    let (_, other) = operator.token_of("tnt_other", "alice", &["runs:read"]).await;
    let ask = async |bearer: &str| gateway.get_with(RUNS, &[("authorization", bearer)]).await;
    for left in [2, 1, 0] {
        let answer = ask(&bearers[0]).await.expect(200);
        assert!(answer.header("ratelimit-policy").contains("\"principal\";q=3"), "{:?}", answer.headers);
        assert!(
            answer.header("ratelimit").contains(&format!("\"principal\";r={left};t=")),
            "{:?}",
            answer.headers
        );
    }
    let refused = ask(&bearers[0]).await;
    assert_limited(&refused, "principal");
    for _ in 0..3 {
        ask(&bearers[1]).await.expect(200);
    }
    // The tenant as a whole is full soon; another tenant's principal of the same name is not touched.
    let mut last = ask(&bearers[2]).await;
    for _ in 0..3 {
        last = ask(&bearers[2]).await;
    }
    assert_eq!(last.status, 429);
    ask(&format!("Bearer {other}")).await.expect(200);
    // Operators at the socket are never held off.
    for _ in 0..20 {
        operator.get("/v1/federation/tokens").await.expect(200);
    }
    let page = operator.get("/metrics").await.text;
    assert!(page.contains("backpressure_events_total{reason=\"rate\"}"), "{page}");
}

//
#[tokio::test]
async fn one_principals_excess_costs_its_neighbours_nothing() {
    let (gateway, _home) = guarded(|config| {
        config.limits.principal = rate("10/h burst 2");
        config.limits.tenant = rate("10/h burst 6");
    })
    .await;
    let operator = Operator::of(&gateway);
    let (_, loud) = operator.token("loud", &["runs:read"]).await;
    let (_, calm) = operator.token("calm", &["runs:read"]).await;
    let ask = async |token: &str| gateway.get_with(RUNS, &[("x-api-key", token)]).await;
    for _ in 0..20 {
        ask(&loud).await;
    }
    ask(&calm).await.expect(200);
    ask(&calm).await.expect(200);
}

//
#[tokio::test]
async fn a_peer_that_floods_is_held_off_alone() {
    let mut plan = Plan::prod().await;
    plan.b.config.limits.peer = rate("10/h burst 5");
    // Its own health calls count too: none comes while the test lasts.
    plan.a.config.outbound.health_interval = std::time::Duration::from_secs(600);
    plan.b.config.outbound.health_interval = std::time::Duration::from_secs(600);
    let pair = plan.start().await;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(pair.as_a().get("/v1/federation/peer").send_to(&pair.b).await);
    }
    let last = answers.last().expect("an answer");
    assert_limited(last, "peer");
    assert!(answers.iter().filter(|answer| answer.status == 200).count() <= 5);
    let (_, token) = Operator::of(&pair.b).token("alice", &["runs:read"]).await;
    pair.b.get_with(RUNS, &[("x-api-key", &token)]).await.expect(200);
}

// an entry's own rate goes before the general one.
#[tokio::test]
async fn a_peers_own_rate_is_the_one_that_counts() {
    let mut plan = Plan::prod().await;
    plan.b.config.limits.peer = rate("1000/s");
    plan.a.entry.rate = rate("10/h burst 4");
    plan.a.config.outbound.health_interval = std::time::Duration::from_secs(600);
    let pair = plan.start().await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(pair.as_a().get("/v1/federation/peer").send_to(&pair.b).await.status);
    }
    assert!(statuses.iter().filter(|status| **status == 200).count() <= 4, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
}

// R-17, reliability 4d.7
#[tokio::test]
pub(crate) async fn failed_logins_of_one_network_are_slowed_down_and_good_ones_are_not() {
    let (gateway, _home) = guarded(|config| config.limits.failed_logins = rate("10/h burst 5")).await;
    let operator = Operator::of(&gateway);
    let (_, token) = operator.token("alice", &["runs:read"]).await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(gateway.get_with(RUNS, &[("x-api-key", "cw_that_is_wrong")]).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
    let refused = gateway.get_with(RUNS, &[("x-api-key", "cw_that_is_wrong")]).await;
    assert_eq!(refused.code(), "rate_limited");
    assert!(!refused.header("retry-after").is_empty());
    gateway.get_with(RUNS, &[("x-api-key", &token)]).await.expect(200);
}

//
#[tokio::test]
async fn two_hundred_creates_at_a_quota_of_a_hundred_make_a_hundred_runs() {
    let (gateway, home) = guarded(|config| {
        config.limits.runs_per_day = 100;
        config.forward.in_flight_per_peer = 256;
    })
    .await;
    let operator = Operator::of(&gateway);
    let (_, token) = operator.token("alice", &["runs:forward"]).await;
    let (_, other) = operator.token_of("tnt_other", "bob", &["runs:forward"]).await;
    let body = forward_body("orc");
    let known = [("x-api-key", token.as_str())];
    let answers =
        futures_util::future::join_all((0..200).map(|_| gateway.post_with(FORWARD, &body, &known))).await;
    let made = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(made, 100);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!((answer.status, answer.code()), (429, "quota_exceeded"), "{}", answer.text);
        assert_eq!(answer.json["error"]["details"]["quota"], "runs_per_day");
        let wait: u64 = answer.header("retry-after").parse().expect("whole seconds");
        assert!((1..=86_400).contains(&wait), "until midnight: {wait}");
    }
    assert_eq!(home.truth().runs_created().len(), 100);
    assert_eq!(gateway.count_rows("forwards"), 100);
    gateway.post_with(FORWARD, &body, &[("x-api-key", &other)]).await.expect(200);
}

//
#[tokio::test]
async fn a_tenant_stores_no_more_than_its_bytes() {
    let (gateway, _home) = guarded(|config| config.limits.stored_bytes = 64 * 1024).await;
    let (_, token) = Operator::of(&gateway).token("alice", &["events:ingest"]).await;
    let known = [("x-api-key", token.as_str())];
    let push = async |number: u64| {
        let mut event = envelope("run_1", &format!("e{number}"), Some(number), "note");
        event["event"]["payload"] = json!("z".repeat(8 * 1024));
        gateway.post_with(INGEST, &json!({ "events": [event] }), &known).await
    };
    let mut refused = None;
    for number in 1..40 {
        let answer = push(number).await;
        if answer.status != 200 {
            refused = Some((number, answer));
            break;
        }
    }
    let (number, answer) = refused.expect("the quota is reached");
    assert!((5..=12).contains(&number), "after {number} events of 8 KiB");
    assert_eq!((answer.status, answer.code()), (429, "quota_exceeded"), "{}", answer.text);
    assert_eq!(answer.json["error"]["details"]["quota"], "stored_bytes");
}
