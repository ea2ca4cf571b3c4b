//! Forwards over all tenants: found by where they go and how they stand, page by page, and never what is in them.

use std::collections::BTreeSet;

use causeway::domain::peer::PeerKind;
use serde_json::{Value, json};

use crate::support::forwards::{FORWARD, forward_id};
use crate::support::gateway::{TestGateway, forward_body, peer, test_config};
use crate::support::log::beside;
use crate::support::orchestrator::{CreateFault, ScriptedOrchestrator};
use crate::support::pair::{Operator, orchestrator_entry};
use crate::support::prod::{ADMIN, CLIENT_SCOPES, Prod, prod_config};

const DELIVERIES: &str = "/v1/federation/deliveries";

fn items(answer: &Value) -> &Vec<Value> {
    answer["items"].as_array().unwrap_or_else(|| panic!("{answer}"))
}

async fn all(gateway: &TestGateway, query: &str) -> Vec<Value> {
    let (mut found, mut path) = (Vec::new(), format!("{DELIVERIES}?{query}"));
    loop {
        let page = gateway.get(&path).await.expect(200);
        found.extend(items(&page.json).iter().cloned());
        let Some(cursor) = page.json["next_cursor"].as_str() else { return found };
        path = format!("{DELIVERIES}?{query}&cursor={cursor}");
    }
}

// M-03, R-22
#[tokio::test]
async fn deliveries_are_found_by_peer_state_and_tenant_page_by_page_over_a_restart() {
    let home = ScriptedOrchestrator::start().await;
    let gone = ScriptedOrchestrator::start().await;
    gone.stop().await;
    let mut config = test_config();
    config.forward.max_attempts = 1;
    let near = peer("stk_b", &home.base_url(), PeerKind::Orchestrator);
    let far = peer("stk_far", &gone.base_url(), PeerKind::Orchestrator);
    let mut gateway = TestGateway::start_with(config, vec![near, far]).await;
    for tenant in ["tnt_demo", "tnt_other", "tnt_demo"] {
        gateway.post_with(FORWARD, &forward_body("stk_b"), &[("x-tenant-id", tenant)]).await.expect(200);
    }
    home.next_creates([CreateFault::status(403)]);
    let refused = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(403);
    let waits = gateway
        .post_with(FORWARD, &forward_body("stk_far"), &[("prefer", "respond-async")])
        .await
        .expect(202);
    let path = format!("{DELIVERIES}?peer_id=stk_far");
    let waits = forward_id(&waits);
    let tried = gateway.until(&path, |answer| answer.json["items"][0]["attempts"].as_u64() >= Some(1)).await;
    let tried = &tried.json["items"][0];
    assert_eq!((&tried["forward_id"], &tried["background"]), (&json!(waits), &json!(true)));
    assert!(
        tried["last_error"]["reason"].as_str().is_some_and(|why| why.contains("cannot connect")),
        "{tried}"
    );

    let whole = all(&gateway, "limit=2").await;
    let ids: BTreeSet<&str> = whole.iter().map(|one| one["forward_id"].as_str().expect("an id")).collect();
    assert_eq!((whole.len(), ids.len()), (5, 5), "each once: {whole:#?}");
    assert_eq!(whole[0]["forward_id"], waits.as_str(), "the newest first");
    let count = async |query: &str| all(&gateway, query).await.len();
    assert_eq!(count("state=forwarded").await, 3);
    assert_eq!(count("state=forwarded&tenant_id=tnt_other").await, 1);
    assert_eq!(count("peer_id=stk_b&limit=1").await, 4);
    assert_eq!(count("peer_id=stk_b&state=refused&tenant_id=tnt_demo").await, 1);
    assert_eq!(count("peer_id=stk_nobody").await, 0);
    let open: usize =
        count("state=reserved").await + count("state=sending").await + count("state=unknown").await;
    assert_eq!(open, 1);
    let is_due = "SELECT group_concat(DISTINCT state) FROM forwards WHERE next_attempt_at IS NOT NULL";
    let due: String = beside(&gateway.data_dir()).query_row(is_due, [], |row| row.get(0)).expect("states");
    assert!(["reserved", "sending", "unknown"].contains(&due.as_str()), "the one that is not at rest: {due}");
    let failed = all(&gateway, "state=refused").await.remove(0);
    assert_eq!(failed["correlation_id"], refused.json["correlation_id"]);
    assert_eq!(failed["last_error"]["upstream_status"], 403);
    let done = all(&gateway, "state=forwarded").await;
    assert!(done.iter().all(|one| one["last_error"].is_null() && one["run_id"].is_string()), "{done:#?}");

    // A cursor holds over a restart.
    let first = gateway.get(&format!("{DELIVERIES}?limit=3")).await.expect(200);
    let cursor = first.json["next_cursor"].as_str().expect("a cursor");
    gateway.restart().await;
    let rest = gateway.get(&format!("{DELIVERIES}?limit=3&cursor={cursor}")).await.expect(200);
    assert_eq!(items(&rest.json).len(), 2);
    assert_eq!(rest.json["next_cursor"], Value::Null);
}

// M-03: a page is bounded, whatever is filtered.
#[tokio::test]
async fn a_filter_that_finds_little_reads_on_page_by_page_and_loses_nothing() {
    let home = ScriptedOrchestrator::start().await;
    let mut gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    gateway.forward_run("stk_b").await;
    gateway.stop().await;
    // As two thousand tenants' forwards would lie there, each as the first one.
    let database = beside(&gateway.data_dir());
    let columns = "peer_id, agent_id, request, downstream_key, state, outcome, background, correlation_id,
        traceparent, via, created_at, updated_at, first_sent_at, deadline_at";
    let copy = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
         INSERT INTO forwards (forward_id, tenant_id, principal_id, {columns})
         SELECT 'fwd_' || i, 'tnt_' || i, 'p', {columns} FROM forwards, n"
    );
    assert_eq!(database.execute(&copy, []).expect("copied"), 2500);
    drop(database);
    gateway.start_again().await.expect("it starts again");
    let oldest = gateway.get(&format!("{DELIVERIES}?tenant_id=tnt_demo")).await.expect(200);
    assert!(items(&oldest.json).is_empty(), "a page looks at so many and no more");
    assert!(oldest.json["next_cursor"].is_string() && oldest.header("link").contains("tenant_id=tnt_demo"));
    assert_eq!(all(&gateway, "tenant_id=tnt_demo").await.len(), 1);
    assert_eq!(all(&gateway, "tenant_id=tnt_1000").await.len(), 1);
    assert_eq!(all(&gateway, "limit=200").await.len(), 2501);
}

// M-03, Z-43
#[tokio::test]
async fn operators_see_no_content_and_clients_see_no_deliveries() {
    let home = ScriptedOrchestrator::start().await;
    let prod = Prod::start(prod_config(), vec![orchestrator_entry("stk_b", &home.base_url())]).await;
    let client = prod.token(Some("tnt_demo"), &CLIENT_SCOPES).await.text;
    let bearer = format!("Bearer {client}");
    let mut body = forward_body("stk_b");
    body["forward"]["run_request"]["input"]["text"] = json!("canary-of-the-content-8001");
    body["forward"]["run_request"]["idempotency_key"] = json!("canary-of-the-key-8002");
    let known = [("authorization", bearer.as_str())];
    prod.gateway.post_with(FORWARD, &body, &known).await.expect(200);
    let operator = Operator::of(&prod.gateway);
    let page = operator.get(DELIVERIES).await.expect(200);
    assert_eq!(items(&page.json).len(), 1);
    for hidden in ["canary-of", "svc_test", "principal"] {
        assert!(!page.text.contains(hidden), "{hidden}: {}", page.text);
    }
    let paths = [
        DELIVERIES,
        "/v1/federation/alerts",
        "/v1/federation/topology",
        "/v1/federation/links",
        "/v1/federation/links/stk_b",
    ];
    let admin = format!("Bearer {}", prod.token(None, &[ADMIN]).await.text);
    for path in paths {
        assert_eq!(prod.gateway.get_with(path, &known).await.code(), "insufficient_scope", "{path}");
        prod.gateway.get(path).await.expect(401);
        prod.gateway.get_with(path, &[("authorization", &admin)]).await.expect(200);
    }
}
