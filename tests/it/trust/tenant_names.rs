//! One tenant under two names: each side hears its own, and nobody's events are lost on the way.

use std::collections::BTreeMap;

use causeway::domain::grants::Operation;
use causeway::domain::id::PeerId;
use causeway::domain::peer::PeerKind;
use causeway::domain::tenant_names::TenantNames;
use causeway::services::peer_options::PeerOptions;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::forwards::{FORWARD, run_id};
use crate::support::gateway::{
    Answer, TENANT, TestGateway, envelope, events_path, forward_body, peer, test_config,
};
use crate::support::orchestrator::{RunStatus, ScriptedOrchestrator};
use crate::support::pair::{Operator, Pair, Plan};
use crate::support::sse_client::Follower;

/// What B calls A's tenant, or A's tenant is called beyond.
const ABROAD: &str = "tnt_abroad";

fn id(text: &str) -> PeerId {
    PeerId::parse(text).expect("an id")
}

fn names(pairs: &[(&str, &str)]) -> TenantNames {
    let pairs = pairs.iter().map(|(ours, theirs)| ((*ours).to_owned(), (*theirs).to_owned()));
    TenantNames::try_from(pairs.collect::<BTreeMap<_, _>>()).expect("one to one")
}

/// A forward whose run request names the tenant, as a client may.
fn body_naming_it(stack_id: &str) -> Value {
    let mut body = forward_body(stack_id);
    body["forward"]["auth"] = json!({ "tenant_id": TENANT });
    body["forward"]["run_request"]["tenant_id"] = json!(TENANT);
    body
}

/// Every form in which a run's events can be had, in the words of `tenant`.
async fn every_form(gateway: &TestGateway, run: &str, tenant: &str) -> Vec<String> {
    let mut follower = Follower::new(gateway.address(), &events_path(run)).with_header("x-tenant-id", tenant);
    follower.follow_to_end().await;
    let mut forms =
        vec![follower.seen().iter().map(|seen| format!("{seen:?}")).collect::<Vec<_>>().join("\n")];
    for kind in ["application/json", "application/x-ndjson"] {
        let sent = [("accept", kind), ("x-tenant-id", tenant)];
        forms.push(gateway.get_with(&events_path(run), &sent).await.expect(200).text);
    }
    forms
}

/// The events of a run as this gateway keeps them.
async fn kept(gateway: &TestGateway, run: &str, tenant: &str) -> Vec<Value> {
    let sent = [("accept", "application/json"), ("x-tenant-id", tenant)];
    let page = gateway.get_with(&events_path(run), &sent).await.expect(200);
    let events = page.json["events"].as_array().expect("events").iter();
    events.map(|envelope| envelope["event"].clone()).collect()
}

fn renamed(mut events: Vec<Value>, tenant: &str) -> Vec<Value> {
    events.iter_mut().for_each(|event| event["tenant_id"] = json!(tenant));
    events
}

//
#[tokio::test]
async fn what_goes_to_a_peer_bears_its_name_and_what_comes_back_ours() {
    let mut plan = Plan::new().await;
    plan.b.entry.tenant_names = names(&[(TENANT, ABROAD)]);
    let pair = plan.start().await;
    pair.until_healthy().await;
    let run = run_id(&pair.a.post(FORWARD, &body_naming_it("stk_b")).await.expect(200));
    pair.home_b.emit_steps(&run, 3);
    pair.home_b.finish(&run, RunStatus::Completed);
    for form in every_form(&pair.a, &run, TENANT).await {
        assert!(form.contains(TENANT) && !form.contains(ABROAD), "{form}");
    }
    let there = kept(&pair.b, &run, ABROAD).await;
    assert_eq!(there.len(), 4);
    assert_eq!(kept(&pair.a, &run, TENANT).await, renamed(there, TENANT), "nothing else differs");
    let shown = pair.a.until_run(&run, |run| run["status"] == "completed").await;
    assert_eq!(shown["tenant_id"], TENANT);
    let face = pair.a.get(&format!("/v1/runs/{run}")).await.expect(200);
    assert_eq!(face.json["run"]["tenant_id"], TENANT, "{}", face.text);

    let truth = pair.home_b.truth();
    let create = &truth.creates()[0].request;
    assert_eq!(create.header("x-tenant-id"), Some(ABROAD));
    assert_eq!(create.body["tenant_id"], ABROAD);
    let all = format!("{:?}", truth.requests());
    assert!(!all.contains(TENANT), "our name has left: {all}");
    assert_eq!(pair.b.count_rows(&format!("runs WHERE tenant_id = '{TENANT}'")), 0);
    // Cancels and questions go by that name, too.
    let other = run_id(&pair.a.post(FORWARD, &body_naming_it("stk_b")).await.expect(200));
    pair.a.post(&format!("/v1/federation/runs/{other}/cancel"), &json!({})).await.expect(200);
    assert_eq!(pair.home_b.truth().cancel_requests(&other)[0].request.header("x-tenant-id"), Some(ABROAD));
}

//
#[tokio::test]
async fn a_peer_that_comes_in_speaks_its_own_words_and_is_answered_in_them() {
    let mut plan = Plan::new().await;
    // Here the tenant is `tnt_abroad`; A, which knows nothing of that, calls it by its own name.
    plan.a.entry.tenant_names = names(&[(ABROAD, TENANT)]);
    plan.a.entry.tenants = vec![ABROAD.to_owned()];
    plan.a.entry.operations.extend([Operation::Ingest, Operation::Subscribe]);
    let pair = plan.start().await;
    pair.until_healthy().await;
    let run = run_id(&pair.a.post(FORWARD, &forward_body("stk_b")).await.expect(200));
    pair.home_b.emit_steps(&run, 3);
    pair.home_b.finish(&run, RunStatus::Completed);
    let here = every_form(&pair.a, &run, TENANT).await;
    assert!(here.iter().all(|form| !form.contains(ABROAD)), "{here:?}");
    assert_eq!(renamed(kept(&pair.a, &run, TENANT).await, ABROAD), kept(&pair.b, &run, ABROAD).await);
    assert_eq!(pair.home_b.truth().creates()[0].request.header("x-tenant-id"), Some(ABROAD));
    assert_eq!(pair.b.count_rows(&format!("runs WHERE tenant_id = '{ABROAD}'")), 1);

    // Whatever it asks, it hears its own word.
    for path in [
        "/v1/federation/runs".to_owned(),
        format!("/v1/federation/runs/{run}"),
        format!("/v1/runs/{run}"),
        format!("/v1/runs/{run}/events"),
        format!("{}?limit=10", events_path(&run)),
        "/v1/federation/peers/stk_a".to_owned(),
    ] {
        for kind in ["application/json", "application/x-ndjson", "text/event-stream"] {
            let asked = pair.as_a().get(&path).with("accept", kind).send_to(&pair.b).await.expect(200);
            assert!(
                asked.text.contains(TENANT) && !asked.text.contains(ABROAD),
                "{path} {kind}: {}",
                asked.text
            );
        }
    }
    // What it pushes is kept under our name.
    let step = |id: &str, tenant: &str| {
        let mut event = envelope("pushed", id, None, "agentos.run.step.completed");
        event["event"]["sequence"] = json!(1);
        event["event"]["tenant_id"] = json!(tenant);
        event
    };
    let pushed = push(&pair, TENANT, vec![step("e1", TENANT), step("e2", ABROAD), step("e3", "tnt_x")]).await;
    let codes: Vec<_> = pushed.expect(200).json["results"].as_array().expect("results").clone();
    assert_eq!(codes[0]["status"], "stored");
    assert_eq!(
        (&codes[1]["code"], &codes[2]["code"]),
        (&json!("origin_mismatch"), &json!("origin_mismatch"))
    );
    assert_eq!(kept(&pair.b, "pushed", ABROAD).await[0]["tenant_id"], ABROAD);
    // Our own word, which the peer does not use, is nobody's.
    let refused = push(&pair, ABROAD, vec![step("e4", ABROAD)]).await.expect(403);
    assert_eq!(refused.json["error"]["details"]["rule"], "tenant_not_granted", "{}", refused.text);
    assert_eq!(pair.b.count_rows(&format!("streams WHERE tenant_id = '{TENANT}'")), 0);
    let (path, named) = (format!("/v1/federation/runs/{run}"), [("x-tenant-id", ABROAD)]);
    pair.as_a().sign(Method::GET, &path, &named, None).send_to(&pair.b).await.expect(403);
    Operator::of(&pair.b)
        .until_audited("the push", |record| {
            record["action"] == "events.ingest" && record["tenant_id"] == ABROAD
        })
        .await;
}

async fn push(pair: &Pair, tenant: &str, events: Vec<Value>) -> Answer {
    let body = json!({ "auth": { "tenant_id": tenant }, "events": events }).to_string().into_bytes();
    let fields = [("content-type", "application/json"), ("x-tenant-id", tenant)];
    pair.as_a().sign(Method::POST, "/v1/federation/events:ingest", &fields, Some(body)).send_to(&pair.b).await
}

//
#[tokio::test]
async fn over_two_hops_with_three_names_events_arrive_whole() {
    let home = ScriptedOrchestrator::start().await;
    let next = |id: &str, base: &str, kind, tenant_names| PeerOptions {
        local: true,
        tenant_names,
        ..peer(id, base, kind)
    };
    let mut config = test_config();
    config.gateway.stack_id = id("stk_c");
    let orchestrator = next("orc_c", &home.base_url(), PeerKind::Orchestrator, names(&[("far", "farthest")]));
    let c = TestGateway::start_with(config.clone(), vec![orchestrator]).await;
    config.gateway.stack_id = id("stk_b");
    let to_c = next("stk_c", &c.base_url(), PeerKind::Gateway, names(&[("middle", "far")]));
    let b = TestGateway::start_with(config.clone(), vec![to_c]).await;
    config.gateway.stack_id = id("stk_a");
    let to_b = next("stk_b", &b.base_url(), PeerKind::Gateway, names(&[(TENANT, "middle")]));
    let a = TestGateway::start_with(config, vec![to_b]).await;

    let run = run_id(&a.post(FORWARD, &body_naming_it("stk_b")).await.expect(200));
    let odd = json!({ "tenant_id": "farthest", "n": "1.50", "text": "e\u{301} \u{2028}" });
    home.emit_steps(&run, 2);
    home.emit(&run, "acme.odd", odd.clone());
    home.finish(&run, RunStatus::Completed);
    let mut follower = Follower::new(a.address(), &events_path(&run));
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2, 3, 4]);
    let here = kept(&a, &run, TENANT).await;
    assert_eq!(here[2]["payload"], odd, "a tenant's name elsewhere in an event is its own affair");
    assert_eq!(here, renamed(kept(&b, &run, "middle").await, TENANT));
    assert_eq!(here, renamed(kept(&c, &run, "far").await, TENANT));
    assert_eq!(home.truth().runs_created()[0].tenant_id, "farthest");
    assert_eq!(home.truth().creates()[0].request.body["tenant_id"], "farthest");
}

// Z-40: a home that says whose an event is does not say it for others
#[tokio::test]
async fn an_event_that_names_another_tenant_is_set_aside() {
    let home = ScriptedOrchestrator::start().await;
    let mut entry = peer("orc", &home.base_url(), PeerKind::Orchestrator);
    entry.tenant_names = names(&[(TENANT, ABROAD), ("tnt_other", "tnt_o")]);
    let gateway = TestGateway::start(vec![entry]).await;
    let run = run_id(&gateway.post(FORWARD, &forward_body("orc")).await.expect(200));
    for (sequence, tenant) in [(1, ABROAD), (2, TENANT), (3, "tnt_o"), (4, "tnt_x"), (5, ABROAD)] {
        let event = json!({ "event_id": format!("e{sequence}"), "sequence": sequence, "type": "acme.step",
            "tenant_id": tenant, "run_id": run });
        home.emit_event(&run, &event.to_string());
    }
    gateway.until_run(&run, |run| run["last_sequence"] == 5).await;
    let here = kept(&gateway, &run, TENANT).await;
    assert_eq!((&here[0]["event_id"], &here[0]["tenant_id"]), (&json!("e1"), &json!(TENANT)));
    assert_eq!(gateway.count_rows("events"), 2, "e1 and e5");
    // A hole is asked for again: each may have been set aside more than once.
    assert_eq!(gateway.count_rows("(SELECT DISTINCT json FROM events_aside)"), 3);
}

#[tokio::test]
async fn names_are_one_to_one_whoever_writes_them() {
    let gateway = TestGateway::start(Vec::new()).await;
    let operator = Operator::of(&gateway);
    let entry = |tenants: &[&str], names: Value| json!({ "peer_id": "stk_n", "base_url": "http://127.0.0.1:9", "tenants": tenants, "tenant_names": names });
    for (tenants, names, told) in [
        (vec!["*"], json!({ "a": "x", "b": "x" }), "the tenants a and b would both be x there"),
        (vec!["a", "x"], json!({ "a": "x" }), "x is granted under its own name"),
        (vec!["b"], json!({ "a": "x" }), "a is not granted"),
        (vec!["*"], json!({ "a": "x y" }), "is not a tenant"),
    ] {
        let refused = operator.post("/v1/federation/peers", &entry(&tenants, names)).await.expect(400);
        let said = refused.json["error"]["message"].as_str().expect("a message");
        assert!(said.contains(told), "{said}");
    }
    operator.post("/v1/federation/peers", &entry(&["a", "b"], json!({ "a": "x" }))).await.expect(201);
    let shown = operator.peer("stk_n").await;
    assert_eq!(shown["grants"]["tenant_names"], json!({ "a": "x" }));
    assert_eq!(shown["entry"]["tenant_names"], json!({ "a": "x" }));
}
