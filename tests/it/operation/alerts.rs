//! Each condition that can be brought about is told of while it holds, and no longer.

use std::time::Duration;

use causeway::config::Config;
use causeway::domain::peer::PeerKind;
use serde_json::json;

use super::{ALERTS, ids, until_alert, until_over};
use crate::support::forwards::FORWARD;
use crate::support::gateway::{TENANT, TestGateway, forward_body, peer, test_config};
use crate::support::log::{beside, page, push, sequences, step};
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::pair::{Operator, Pair, Plan};

/// A configuration that loses patience at once.
pub(super) fn impatient() -> Config {
    let mut config = test_config();
    config.alerts.interval = Duration::from_millis(50);
    config.alerts.patience = Duration::from_millis(100);
    config
}

// M-03, M-16
#[tokio::test]
async fn a_peer_that_is_gone_is_told_of_until_it_is_back() {
    let home = ScriptedOrchestrator::start().await;
    let mut local = peer("stk_b", &home.base_url(), PeerKind::Orchestrator);
    local.local = true;
    let gateway = TestGateway::start_with(impatient(), vec![local]).await;
    gateway.until("/v1/federation/links/stk_b", |answer| answer.json["link"]["state"] == "connected").await;
    assert_eq!(ids(&gateway.get(ALERTS).await.expect(200)), [""; 0]);
    gateway
        .until_metric("alerts{code=\"peer_unreachable\",severity=\"critical\"} ", |count| count == 0.0)
        .await;
    home.stop().await;
    let id = "peer_unreachable/peer:stk_b";
    let alert = until_alert(&gateway, id).await;
    assert_eq!((&alert["severity"], &alert["subject"]), (&json!("critical"), &json!("peer:stk_b")));
    let message = alert["message"].as_str().expect("a message");
    assert!(message.contains("base_url") && message.contains("cannot connect"), "{message}");
    gateway
        .until_metric("alerts{code=\"peer_unreachable\",severity=\"critical\"} ", |count| count == 1.0)
        .await;
    // It began when it began, however often one looks.
    assert_eq!(until_alert(&gateway, id).await["since"], alert["since"]);
    home.restart().await;
    until_over(&gateway, id).await;
    gateway
        .until_metric("alerts{code=\"peer_unreachable\",severity=\"critical\"} ", |count| count == 0.0)
        .await;
    // The log has its beginning and its end, once each.
    let heard = gateway.watch().written();
    let lines = |what: &str| {
        let of_it =
            |line: &&str| line.contains(what) && line.contains("peer_unreachable") && line.contains("stk_b");
        heard.lines().filter(of_it).count()
    };
    assert!(lines("an alert: ") >= 1 && lines("an alert ended") >= 1, "{heard}");
}

// M-03, R-30
#[tokio::test]
async fn drift_conflict_and_a_revoked_peer() {
    let mut plan = Plan::new().await;
    plan.b.config.policy.allowed_foreign_domains = vec!["friends".to_owned()];
    let pair = plan.start().await;
    pair.until_healthy().await;
    let drift = until_alert(&pair.a, "config_drift/peer:stk_b").await;
    assert!(drift["message"].as_str().is_some_and(|text| text.contains("[policy]")), "{drift}");

    // Two processes take turns under one identity.
    let as_process = |name: &str| {
        let mut signer = pair.as_a();
        signer.instance = Some(name.to_owned());
        signer
    };
    let path = "/v1/federation/peer";
    for name in ["ins_one", "ins_two"] {
        as_process(name).get(path).send_to(&pair.b).await;
    }
    assert_eq!(as_process("ins_one").get(path).send_to(&pair.b).await.code(), "peer_id_conflict");
    let conflict = until_alert(&pair.b, "peer_identity_conflict/peer:stk_a").await;
    assert_eq!(conflict["severity"], "critical");
    let at_b = Operator::of(&pair.b);
    let link = at_b.get("/v1/federation/links/stk_a").await.expect(200);
    assert!(link.json["link"]["identity_conflict_at"].is_string(), "{}", link.text);

    // What an operator cut off on purpose is no trouble.
    at_b.act("/v1/federation/peers/stk_a:revoke").await.expect(200);
    assert!(!at_b.get(ALERTS).await.expect(200).text.contains("stk_a"));
}

// M-03
#[tokio::test]
async fn what_an_operator_holds_off_a_tenant_used_up_and_a_forward_waits_for() {
    let gone = ScriptedOrchestrator::start().await;
    gone.stop().await;
    let mut config = impatient();
    config.forward.max_attempts = 1;
    config.alerts.forward_patience = Duration::from_millis(50);
    config.limits.concurrent_runs = 1;
    let far = peer("stk_far", &gone.base_url(), PeerKind::Orchestrator);
    let mut gateway = TestGateway::start_with(config, vec![far]).await;
    let waits = [("prefer", "respond-async")];
    gateway.post_with(FORWARD, &forward_body("stk_far"), &waits).await.expect(202);
    let stuck = until_alert(&gateway, "forwards_stuck/peer:stk_far").await;
    assert!(stuck["message"].as_str().is_some_and(|text| text.contains("forward_patience: 1.")), "{stuck}");
    let refused = gateway.post_with(FORWARD, &forward_body("stk_far"), &waits).await.expect(429);
    assert_eq!(refused.code(), "quota_exceeded");
    let quota = until_alert(&gateway, &format!("quota_exhausted/tenant:{TENANT}")).await;
    assert!(quota["message"].as_str().is_some_and(|text| text.contains("limits.concurrent_runs")), "{quota}");
    gateway.post("/v1/federation/gateway:drain", &json!({})).await.expect(200);
    assert_eq!(until_alert(&gateway, "intake_held/gateway").await["severity"], "info");
    gateway.post("/v1/federation/gateway:resume", &json!({})).await.expect(200);
    until_over(&gateway, "intake_held/gateway").await;
    // What is on disk is known again after a restart, what was in memory is not.
    gateway.restart().await;
    until_alert(&gateway, "forwards_stuck/peer:stk_far").await;
    assert!(!ids(&gateway.get(ALERTS).await).contains(&"quota_exhausted/tenant:tnt_demo"));
}

// M-03
#[tokio::test]
async fn a_forward_that_was_given_up_with_an_unknown_outcome_is_told_of() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = impatient();
    config.forward.max_attempts = 1;
    let mut entry = peer("stk_b", &home.base_url(), PeerKind::Orchestrator);
    entry.idempotent_create = false;
    let gateway = TestGateway::start_with(config, vec![entry]).await;
    home.next_creates([crate::support::orchestrator::CreateFault::DropAnswer]);
    let heard = gateway.post(FORWARD, &forward_body("stk_b")).await;
    assert_eq!(heard.code(), "forward_outcome_unknown", "{}", heard.text);
    let alert = until_alert(&gateway, "forwards_given_up/peer:stk_b").await;
    assert_eq!(alert["severity"], "critical");
    let found = gateway.get("/v1/federation/deliveries?state=expired").await.expect(200);
    assert_eq!(found.json["items"][0]["outcome"], "unknown", "{}", found.text);
}

// M-03
#[tokio::test]
async fn an_audit_sink_that_cannot_be_written_and_a_log_that_grew() {
    let directory = tempfile::tempdir().expect("a directory");
    let sink = directory.path().join("audit.jsonl");
    std::fs::create_dir(&sink).expect("in its place");
    let mut config = impatient();
    config.audit.sink = format!("file:{}", sink.display());
    config.alerts.max_write_ahead_log = 1;
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    gateway.post("/v1/federation/gateway:resume", &json!({})).await.expect(200);
    assert_eq!(until_alert(&gateway, "audit_sink_failing/gateway").await["severity"], "critical");
    until_alert(&gateway, "write_ahead_log_large/gateway").await;
    std::fs::remove_dir(&sink).expect("removed");
    // Whatever is audited next rings the copy.
    gateway.post("/v1/federation/gateway:resume", &json!({})).await.expect(200);
    until_over(&gateway, "audit_sink_failing/gateway").await;
}

// M-03: a row that contradicts another is not served, and told of for as long as it is met.
#[tokio::test]
async fn a_damaged_row_is_told_of() {
    let mut gateway = TestGateway::start_with(impatient(), Vec::new()).await;
    push(&gateway, &[step("run_kept", 1), step("run_hurt", 1), step("run_hurt", 2)]).await.expect(200);
    gateway.stop().await;
    let hurt = "UPDATE streams SET status = 'hurt' WHERE stream_id = 'run/run_hurt'";
    assert_eq!(beside(&gateway.data_dir()).execute(hurt, []), Ok(1));
    gateway.start_again().await.expect("it starts");
    assert_eq!(sequences(&page(&gateway, "run_kept", 0).await.expect(200)), [1]);
    assert!(ids(&gateway.get(ALERTS).await.expect(200)).is_empty());
    page(&gateway, "run_hurt", 0).await.expect(500);
    let alert = until_alert(&gateway, "log_damaged/gateway").await;
    assert_eq!(alert["severity"], "critical");
    assert!(
        alert["message"].as_str().is_some_and(|text| text.contains("runs.status at run_hurt")),
        "{alert}"
    );
    assert_eq!(sequences(&page(&gateway, "run_kept", 0).await.expect(200)), [1]);
}

// M-03, R-25
#[tokio::test]
async fn readers_that_cannot_read_are_told_of() {
    let home = ScriptedOrchestrator::start().await;
    let local = peer("stk_b", &home.base_url(), PeerKind::Orchestrator);
    let gateway = TestGateway::start_with(impatient(), vec![local]).await;
    let run = gateway.forward_run("stk_b").await;
    home.stop().await;
    let alert = until_alert(&gateway, "readers_failing/peer:stk_b").await;
    assert!(alert["message"].as_str().is_some_and(|text| text.contains("stk_b: 1.")), "{alert}");
    home.restart().await;
    home.emit_steps(&run, 1);
    until_over(&gateway, "readers_failing/peer:stk_b").await;
}

// M-03
#[tokio::test]
async fn a_certificate_near_its_end_is_told_of_by_both_sides() {
    let mut plan = Plan::new().await;
    // Self-issued ones last ten years.
    plan.a.config.alerts.certificate_notice = Duration::from_secs(11 * 366 * 24 * 60 * 60);
    let pair: Pair = plan.start().await;
    pair.until_healthy().await;
    let own = until_alert(&pair.a, "certificate_expires/certificate:peers").await;
    assert_eq!(own["severity"], "warning");
    until_alert(&pair.a, "certificate_expires/peer:stk_b").await;
    assert!(ids(&pair.b.get(ALERTS).await.expect(200)).is_empty());
}
