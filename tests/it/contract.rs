//! The OpenAPI document against the code, both ways: routes, methods, codes, and every body that is served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use causeway::clock::Clock;
use causeway::domain::cursor::{Cursor, CursorInput, MAX_CURSOR, start_after};
use causeway::domain::event::{MAX_SEQUENCE, Sequence};
use causeway::domain::id::{AgentId, EventId, ForwardId, PeerId, PrincipalId, RunId, TenantId};
use causeway::domain::key::SigningKey;
use causeway::domain::peer::PeerKind;
use causeway::domain::rate::Rate;
use causeway::http::ROUTES;
use causeway::protocol::error_code::ErrorCode;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::document::{Ask, Checked, Document, Operation, Signer};
use crate::support::ears::{plain_client, read};
use crate::support::gateway::{Answer, TENANT, TestGateway, envelope, forward_body, peer, test_config};
use crate::support::orchestrator::{CreateFault, Garbage, PlainFault, RunStatus, ScriptedOrchestrator};
use crate::support::pair::some_key;
use crate::support::prod::{CLIENT_SCOPES, Prod, prod_config};
use crate::trust::introductions::{claims, hub_options, signed};

/// What was checked, over all tests' clients.
type Seen = Mutex<BTreeSet<(String, u16)>>;

/// The four ways to cancel a run.
const CANCELS: [&str; 4] =
    ["cancelFederatedRun", "cancelFederatedRunByVerb", "cancelRun", "cancelRunBySegment"];
/// The two ways to follow one.
const STREAMS: [&str; 2] = ["streamFederatedRunEvents", "streamRunEvents"];

#[test]
fn every_operation_is_a_route_and_every_route_is_documented() {
    let documented: BTreeSet<String> =
        Document::load().operations().iter().map(|one| format!("{} {}", one.method, one.path)).collect();
    let routes: BTreeSet<String> = ROUTES.iter().map(|&route| route.to_owned()).collect();
    assert_eq!(documented, routes);
    assert_eq!(routes.len(), ROUTES.len(), "a route is listed twice");
}

#[test]
fn the_codes_and_their_statuses_are_those_of_the_document() {
    let document = Document::load();
    let schema = &document.root["components"]["schemas"]["ErrorCode"];
    let documented: BTreeMap<String, u64> = schema["x-status"]
        .as_object()
        .expect("x-status")
        .iter()
        .map(|(code, status)| (code.clone(), status.as_u64().expect("a status")))
        .collect();
    let real: BTreeMap<String, u64> =
        ErrorCode::ALL.iter().map(|code| (code.as_str().to_owned(), u64::from(code.status()))).collect();
    assert_eq!(documented, real);
    let listed: BTreeSet<&str> =
        schema["enum"].as_array().expect("an enum").iter().filter_map(Value::as_str).collect();
    assert_eq!(listed, real.keys().map(String::as_str).collect());
    let described = schema["description"].as_str().expect("a description");
    for code in &listed {
        assert!(described.contains(&format!("`{code}`")), "{code} is not described");
    }
    // Every code is answered somewhere, under its own status. Any path may answer the first few.
    let mut answered = BTreeSet::from(["method_not_allowed", "uri_too_long", "headers_too_large"]);
    for operation in document.operations() {
        for (status, response) in document.responses(&operation) {
            for code in response["x-codes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                assert_eq!(real[code], u64::from(status), "{} {status} {code}", operation.id);
                answered.insert(listed.get(code).expect("a listed code"));
            }
        }
    }
    assert_eq!(answered, listed, "codes that no operation answers");
}

#[test]
fn the_examples_of_the_document_are_what_their_schemas_say() {
    let document = Document::load();
    let check = |content: &Value, what: &str| {
        for (kind, media) in content.as_object().into_iter().flatten() {
            let named = media["examples"].as_object().into_iter().flatten();
            let examples = named.map(|(_, example)| document.resolve(example)["value"].clone());
            for example in examples.chain(media.get("example").cloned()) {
                document.assert_valid(&media["schema"], &example, what);
                match kind.as_str() {
                    "text/event-stream" => document.assert_frames(example.as_str().expect("text"), what),
                    "application/x-ndjson" if what.ends_with("200") => {
                        document.assert_lines(example.as_str().expect("text"), what);
                    }
                    _ => {}
                }
            }
        }
    };
    for operation in document.operations() {
        check(&operation.value["requestBody"]["content"], &operation.id);
        for (status, response) in document.responses(&operation) {
            check(&response["content"], &format!("{} {status}", operation.id));
        }
    }
}

// M-08: an id is a type that takes what the document says an id is, and nothing else.
#[test]
fn every_kind_of_id_is_what_the_document_says() {
    let document = Document::load();
    let pattern = jsonschema::validator_for(&document.root["components"]["schemas"]["Id"]).expect("a schema");
    let longest = "x".repeat(128);
    let too_long = "x".repeat(129);
    for text in
        ["run_1", "a", "!", "~", "run@stk_b", &longest, "", " ", "a b", "a\n", "\u{7f}", "\u{e9}", &too_long]
    {
        let valid = pattern.is_valid(&json!(text));
        let taken = [
            TenantId::parse(text).is_ok(),
            PrincipalId::parse(text).is_ok(),
            PeerId::parse(text).is_ok(),
            RunId::parse(text).is_ok(),
            AgentId::parse(text).is_ok(),
            EventId::parse(text).is_ok(),
            ForwardId::parse(text).is_ok(),
        ];
        assert_eq!(taken, [valid; 7], "{text:?}");
    }
}

// M-08: a place in a stream, and where a reader stands, are types with the bounds of the document.
#[test]
fn sequences_and_cursors_are_what_the_document_says() {
    let document = Document::load();
    let schemas = &document.root["components"]["schemas"];
    let schema = |name: &str| jsonschema::validator_for(&schemas[name]).expect("a schema");
    let (sequence, cursor) = (schema("Sequence"), schema("Cursor"));
    for number in [0, 1, 7, MAX_SEQUENCE, MAX_SEQUENCE + 1, MAX_CURSOR, MAX_CURSOR + 1] {
        let (value, text) = (json!(number), number.to_string());
        assert_eq!(Sequence::new(number).is_some(), sequence.is_valid(&value), "{number}");
        let input = CursorInput { query: vec![("from_sequence", &text)], last_event_id: Vec::new() };
        let parsed = start_after(&input);
        assert_eq!(parsed.is_ok(), cursor.is_valid(&value), "{number}");
        assert!(parsed.is_err() || parsed.map(Cursor::get) == Ok(number), "{number}");
    }
}

// reliability 4d.27, 4d.64
#[tokio::test]
pub(crate) async fn a_path_takes_its_documented_methods_and_no_other() {
    let document = Document::load();
    let gateway = TestGateway::start(Vec::new()).await;
    let client = plain_client();
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for operation in document.operations() {
        methods.entry(operation.path).or_default().insert(operation.method);
    }
    for (path, documented) in &methods {
        let target = path.replace("{run_id}", "run_x").replace("{forward_id}", "fwd_x");
        let target = target.replace("{peer_id}", "stk_x").replace("{agent_id}", "agt_x");
        let target = target.replace("{token_id}", "abcdefghijkl");
        let mut allowed = documented.clone();
        if allowed.contains("GET") {
            allowed.insert("HEAD".to_owned());
        }
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let url = format!("{}{target}", gateway.base_url());
            let request = client.request(Method::from_bytes(method.as_bytes()).expect("a method"), url);
            let Answer { status, headers, text, .. } = read(request.send().await.expect("an answer")).await;
            assert!(headers.contains_key("x-request-id"), "{method} {path}");
            if allowed.contains(method) {
                assert_ne!(status, 405, "{method} {path}");
                assert!(!text.contains("nothing at this path"), "{method} {path}");
                continue;
            }
            assert_eq!(status, 405, "{method} {path}: {text}");
            let allow = headers["allow"].to_str().expect("text");
            let named: BTreeSet<String> = allow.split(',').map(|name| name.trim().to_owned()).collect();
            assert_eq!(named, allowed, "{method} {path}");
            if method != "HEAD" {
                let body: Value = serde_json::from_str(&text).expect("JSON");
                document.assert_is("Problem", &body, path);
                assert_eq!(body["error"]["code"], "method_not_allowed");
                assert_eq!(body["correlation_id"], headers["x-request-id"].to_str().expect("text"));
                assert_eq!(body["error"]["details"]["allowed"].as_array().map(Vec::len), Some(named.len()));
            }
        }
    }
}

#[tokio::test]
async fn an_id_that_ends_like_the_verb_is_told_from_it_by_its_encoding() {
    let gateway = TestGateway::start(Vec::new()).await;
    let body = json!({"events": [envelope("odd:cancel", "e1", Some(1), "note")]});
    gateway.post("/v1/federation/events:ingest", &body).await.expect(200);
    for base in ["/v1/federation/runs", "/v1/runs"] {
        let shown = gateway.get(&format!("{base}/odd%3Acancel")).await.expect(200);
        assert_eq!(shown.json["run"]["run_id"], "odd:cancel");
        let refused = gateway.get(&format!("{base}/odd:cancel")).await.expect(405);
        assert_eq!(refused.header("allow"), "POST");
        let canceled = gateway.post(&format!("{base}/odd%3Acancel:cancel"), &Value::Null).await;
        assert_eq!(canceled.code(), "capability_unsupported", "{}", canceled.text);
    }
    let entry = json!({"peer_id": "odd:revoke", "base_url": "http://127.0.0.1:9"});
    gateway.post("/v1/federation/peers", &entry).await.expect(201);
    let shown = gateway.get("/v1/federation/peers/odd%3Arevoke").await.expect(200);
    assert_eq!(shown.json["peer"]["standing"], "active");
    assert_eq!(gateway.get("/v1/federation/peers/odd:revoke").await.expect(405).header("allow"), "POST");
    let revoked = gateway.post("/v1/federation/peers/odd%3Arevoke:revoke", &json!({})).await.expect(200);
    assert_eq!(revoked.json["peer"]["standing"], "revoked");
}

#[tokio::test]
async fn the_document_is_served_as_it_is() {
    let gateway = TestGateway::start(Vec::new()).await;
    let served = gateway.get("/openapi.json").await.expect(200);
    assert_eq!(served.json, Document::load().root);
    assert_eq!(gateway.get("/openapi.yaml").await.expect(200).text, causeway::http::openapi::yaml());
}

/// A forward as AgentOS' specification has it, with its own values.
fn agentos_forward(stack_id: &str, auth: Value) -> Value {
    json!({ "forward": {
        "target_selector": { "stack_id": stack_id, "region": "", "required_capabilities": ["events_stream", "tenant_isolation"],
            "preferred_model_tier": "fast" },
        "auth": auth,
        "run_request": {
            "agent_id": "agt_digest_v2",
            "input": { "type": "text", "text": "Collect what arrived over night." },
            "context": { "locale": "de-DE", "timezone": "Europe/Berlin", "channel": "cron", "labels": {}, "metadata": {} },
            "tooling": { "tool_allowlist": ["tool.mail.read"], "tool_denymap": [] },
            "run_options": { "priority": "low", "timeout_ms": 60000, "max_steps": 12, "stream_events": true, "dry_run": false },
            "idempotency_key": "idem_night_1",
        },
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }})
}

// A-22, A-31, defects 14, 18
#[tokio::test]
pub(crate) async fn every_answer_is_what_the_document_says() {
    let document = Document::load();
    let seen = Seen::default();
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.forward.max_attempts = 1;
    let mut local = peer("stk_b", &home.base_url(), PeerKind::Orchestrator);
    local.local = true;
    let gone = ScriptedOrchestrator::start().await;
    gone.stop().await;
    let dead = peer("stk_dead", &gone.base_url(), PeerKind::Orchestrator);
    let gateway = TestGateway::start_with(config, vec![local, dead]).await;
    let client = Checked::new(&document, gateway.address(), &seen);

    operations(&client).await;
    peers(&client).await;
    let run = forwards(&client, &home).await;
    creates(&client, &home).await;
    runs(&client, &run).await;
    streams(&client, &home).await;
    ingests(&client).await;
    for operation in CANCELS {
        cancels(&client, &home, operation).await;
    }
    administration(&client).await;
    monitoring(&client).await;
    enrolled(&client, &gateway).await;
    lost(&client, &home).await;
    unknown_outcomes(&client, &home).await;
    bounded(&document, &seen).await;
    guarded(&document, &seen).await;
    introductions(&document, &seen).await;

    let seen = seen.into_inner().expect("no panic");
    let mut unseen = Vec::new();
    for operation in document.operations() {
        for status in document.responses(&operation).into_keys() {
            if !seen.contains(&(operation.id.clone(), status)) && !is_left_out(&operation.id, status) {
                unseen.push(format!("{} {status}", operation.id));
            }
        }
    }
    assert!(unseen.is_empty(), "documented, and never answered: {unseen:#?}");
}

/// What only a broken disk, a bug or a gateway about to stop can answer.
fn is_left_out(operation: &str, status: u16) -> bool {
    let waits_for_a_peer =
        operation == "forwardRun" || operation == "createRun" || CANCELS.contains(&operation);
    let waits = waits_for_a_peer || STREAMS.contains(&operation);
    matches!(status, 500 | 507) || (status == 503 && !waits)
}

async fn operations(client: &Checked<'_>) {
    for operation in [
        "federationHealth",
        "agentOrchestratorHealth",
        "livez",
        "readyz",
        "metrics",
        "openapiJson",
        "openapiYaml",
    ] {
        client.ask(Ask::of(operation).header("x-correlation-id", "req_mine")).await.expect(200);
    }
    for operation in ["getPeerInfo", "getPeerInfoShort", "getPeerCapabilities", "getPeerCapabilitiesShort"] {
        client.ask(Ask::of(operation)).await.expect(200);
    }
}

async fn peers(client: &Checked<'_>) {
    let whole = client.ask(Ask::of("listPeers")).await.expect(200);
    assert_eq!(whole.json["items"].as_array().map(Vec::len), Some(2));
    let first = client.ask(Ask::of("listPeers").query("limit=1")).await.expect(200);
    assert_eq!(first.json["items"][0]["peer_id"], "stk_b");
    let cursor = first.json["next_cursor"].as_str().expect("a cursor");
    assert!(first.header("link").contains(cursor), "{}", first.header("link"));
    let second =
        client.ask(Ask::of("listPeers").query(&format!("limit=1&cursor={cursor}"))).await.expect(200);
    assert_eq!(second.json["items"][0]["peer_id"], "stk_dead");
    assert_eq!(second.json["next_cursor"], Value::Null);
    client.ask(Ask::of("listPeers").query("cursor=%21")).await.expect_error(400, "invalid_cursor");
    client.ask(Ask::of("listPeers").query("limit=201")).await.expect_error(400, "invalid_request");
    client.ask(Ask::of("getPeer").at("peer_id", "stk_b")).await.expect(200);
    client.ask(Ask::of("getPeer").at("peer_id", "stk_x")).await.expect_error(404, "peer_not_found");
}

async fn bad_tenant(client: &Checked<'_>, ask: Ask) {
    let heard = client.ask(ask.header("x-tenant-id", "not an id")).await.expect_error(400, "invalid_request");
    assert_eq!(heard.json["error"]["details"]["field"], "x-tenant-id");
}

async fn forwards(client: &Checked<'_>, home: &ScriptedOrchestrator) -> String {
    let forward = |body: &Value| Ask::of("forwardRun").json(body);
    let nested = json!({ "tenant_id": TENANT, "principal": { "principal_id": "svc_x", "principal_type": "service" },
        "scopes": ["runs:forward"], "policy_context": { "data_classification": "internal", "region": "eu", "purpose": "agent_run" } });
    let body = agentos_forward("stk_b", nested);
    let done = client.ask(forward(&body)).await.expect(200);
    let again = client.ask(forward(&body)).await.expect(200);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.json["forwarded"], done.json["forwarded"]);
    let flat = agentos_forward("stk_b", json!({ "tenant_id": TENANT, "principal_id": "svc_x" }));
    client.ask(forward(&flat)).await.expect(200);
    let mut null = forward_body("stk_b");
    null["forward"]["run_request"]["input"] = Value::Null;
    null["forward"]["run_request"]["context"] = json!("opaque");
    client.ask(forward(&null)).await.expect(200);

    let asked =
        client.ask(forward(&forward_body("stk_b")).header("prefer", "respond-async")).await.expect(202);
    let id = asked.json["forward"]["forward_id"].as_str().expect("an id").to_owned();
    assert_eq!(asked.header("location"), format!("/v1/federation/forwards/{id}"));
    client.ask(Ask::of("getForward").at("forward_id", &id)).await.expect(200);
    client.ask(Ask::of("getForward").at("forward_id", "fwd_x")).await.expect_error(404, "not_found");
    bad_tenant(client, Ask::of("getForward").at("forward_id", &id)).await;

    let ask = |fault| {
        home.next_creates([fault]);
        client.ask(forward(&forward_body("stk_b")))
    };
    // What was asked for in the background is done before faults are scripted.
    home.until("the forward in the background", |truth| truth.creates().len() >= 3).await;
    ask(CreateFault::status(403)).await.expect_error(403, "forbidden");
    ask(CreateFault::status(404)).await.expect_error(404, "not_found");
    ask(CreateFault::status(409)).await.expect_error(409, "conflict");
    ask(CreateFault::status(422)).await.expect_error(422, "unprocessable_request");
    ask(CreateFault::status(429)).await.expect_error(429, "rate_limited");
    ask(CreateFault::status(418)).await.expect_error(502, "forward_failed");
    client.ask(forward(&forward_body("stk_x"))).await.expect_error(404, "peer_not_found");
    let mut able = forward_body("stk_b");
    able["forward"]["target_selector"]["required_capabilities"] = json!(["fly"]);
    client.ask(forward(&able)).await.expect_error(422, "capability_unsupported");
    let mut other = body.clone();
    other["forward"]["run_request"]["input"] = json!("other");
    client.ask(forward(&other)).await.expect_error(422, "idempotency_key_reused");
    let mut foreign = body.clone();
    foreign["forward"]["auth"]["tenant_id"] = json!("tnt_other");
    client.ask(forward(&foreign)).await.expect_error(400, "tenant_mismatch");
    client
        .ask(forward(&body).header("idempotency-key", "another"))
        .await
        .expect_error(400, "invalid_request");
    client.ask(forward(&json!({}))).await.expect_error(400, "invalid_request");
    client.ask(Ask::of("forwardRun").body("application/json", b"{")).await.expect_error(400, "invalid_json");
    client
        .ask(Ask::of("forwardRun").body("text/plain", b"x"))
        .await
        .expect_error(415, "unsupported_media_type");
    let far = (0..20).map(|hop| format!("stk_{hop}")).collect::<Vec<_>>().join(",");
    let circle = forward(&forward_body("stk_b")).header("causeway-via", &far);
    client.ask(circle).await.expect_error(508, "loop_detected");
    in_progress(client, home, forward(&forward_body("stk_b"))).await;
    until_circuit_opens(client, forward(&forward_body("stk_dead"))).await;
    done.json["forwarded"]["run_id"].as_str().expect("a run").to_owned()
}

/// A second request with the key of one that is held. // reliability 4d.15
async fn in_progress(client: &Checked<'_>, home: &ScriptedOrchestrator, ask: Ask) {
    let ask = ask.header("idempotency-key", "\"held\"");
    let before = home.truth().creates().len();
    home.next_creates([CreateFault::Hold]);
    let second = async {
        home.until("the held create", |truth| truth.creates().len() > before).await;
        let heard = client.ask(ask.clone()).await.expect_error(409, "request_in_progress");
        assert_eq!(heard.header("retry-after"), "1");
        home.release_creates();
    };
    let (first, ()) = tokio::join!(client.ask(ask.clone()), second);
    assert!(first.status < 300, "{}", first.text);
}

async fn until_circuit_opens(client: &Checked<'_>, ask: Ask) {
    for _ in 0..6 {
        let heard = client.ask(ask.clone()).await;
        if heard.status == 503 {
            heard.expect_error(503, "circuit_open");
            return;
        }
        heard.expect_error(502, "forward_failed");
    }
    panic!("the circuit never opened");
}

async fn creates(client: &Checked<'_>, home: &ScriptedOrchestrator) {
    let create = || Ask::of("createRun").at("agent_id", "agt_one");
    let body = json!({ "input": { "type": "text", "text": "hello" }, "context": { "locale": "en" }, "tooling": null,
        "run_options": { "dry_run": false }, "idempotency_key": "idem_face" });
    client.ask(create().json(&body)).await.expect(201);
    client.ask(create().json(&body)).await.expect(200);
    let least = json!({ "input": "a plain string" });
    let ask = |fault| {
        home.next_creates([fault]);
        client.ask(create().json(&least))
    };
    ask(CreateFault::status(403)).await.expect_error(403, "forbidden");
    ask(CreateFault::status(404)).await.expect_error(404, "not_found");
    ask(CreateFault::status(409)).await.expect_error(409, "conflict");
    ask(CreateFault::status(422)).await.expect_error(422, "unprocessable_request");
    ask(CreateFault::status(429)).await.expect_error(429, "rate_limited");
    ask(CreateFault::status(418)).await.expect_error(502, "forward_failed");
    client
        .ask(create().json(&json!({ "input": 1, "agent_id": "agt_two" })))
        .await
        .expect_error(400, "invalid_request");
    client.ask(create().json(&json!({}))).await.expect_error(400, "invalid_request");
    client.ask(create().body("text/plain", b"x")).await.expect_error(415, "unsupported_media_type");
    let far = (0..20).map(|hop| format!("stk_{hop}")).collect::<Vec<_>>().join(",");
    client.ask(create().json(&least).header("causeway-via", &far)).await.expect_error(508, "loop_detected");
    in_progress(client, home, create().json(&least)).await;
}

async fn runs(client: &Checked<'_>, run: &str) {
    client.ask(Ask::of("getFederatedRun").at("run_id", run)).await.expect(200);
    client.ask(Ask::of("getRun").at("run_id", run)).await.expect(200);
    for operation in ["getFederatedRun", "getRun"] {
        client.ask(Ask::of(operation).at("run_id", "run_x")).await.expect_error(404, "not_found");
        bad_tenant(client, Ask::of(operation).at("run_id", run)).await;
    }
    let mut query = "limit=2".to_owned();
    let mut listed = BTreeSet::new();
    loop {
        let page = client.ask(Ask::of("listFederatedRuns").query(&query)).await.expect(200);
        for item in page.json["items"].as_array().expect("items") {
            assert!(listed.insert(item["run_id"].to_string()), "listed twice");
        }
        let Some(cursor) = page.json["next_cursor"].as_str() else { break };
        assert!(page.header("link").contains(cursor));
        query = format!("limit=2&cursor={cursor}");
    }
    assert!(listed.len() >= 4, "{listed:?}");
    client.ask(Ask::of("listFederatedRuns").query("status=running")).await.expect(200);
    client.ask(Ask::of("listFederatedRuns").query("status=odd")).await.expect_error(400, "invalid_request");
    client.ask(Ask::of("listFederatedRuns").query("cursor=%21")).await.expect_error(400, "invalid_cursor");
    // "other 1 run_x": a cursor of another log.
    let foreign = "cursor=b3RoZXIgMSBydW5feA";
    client.ask(Ask::of("listFederatedRuns").query(foreign)).await.expect_error(409, "cursor_incarnation");
}

// A-12, A-13, A-14, A-19
async fn streams(client: &Checked<'_>, home: &ScriptedOrchestrator) {
    let done = client.ask(Ask::of("forwardRun").json(&forward_body("stk_b"))).await.expect(200);
    let run = done.json["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    home.emit_steps(&run, 3);
    home.skip_sequences(&run, 1);
    home.finish(&run, RunStatus::Completed);
    for operation in STREAMS {
        let follow = || Ask::of(operation).at("run_id", &run);
        for kind in ["text/event-stream", "application/x-ndjson"] {
            let heard = client.ask(follow().header("accept", kind)).await.expect(200);
            let at = |name: &str| heard.text.rfind(name).unwrap_or_else(|| panic!("{name}: {}", heard.text));
            assert!(at("caught_up") < at("\"status\":\"completed\""), "{}", heard.text);
            client
                .ask(follow().header("accept", kind).query("follow=false&after_sequence=3"))
                .await
                .expect(200);
            client.ask(follow().header("accept", kind).query("from_sequence=5")).await.expect(204);
        }
        let page =
            client.ask(follow().header("accept", "application/json").query("limit=2")).await.expect(200);
        assert_eq!(page.json["next_from_sequence"], 2);
        assert_eq!(page.json["has_more"], true);
        let rest = client
            .ask(follow().header("accept", "application/json").header("last-event-id", "2"))
            .await
            .expect(200);
        assert_eq!(rest.json["gaps"][0]["from_sequence"], 4);
        assert_eq!(rest.json["gaps"][0]["reason"], "upstream");
        client.ask(follow().header("accept", "image/png")).await.expect_error(406, "not_acceptable");
        client.ask(follow().query("from_sequence=-1")).await.expect_error(400, "invalid_cursor");
        client.ask(follow().query("follow=maybe")).await.expect_error(400, "invalid_request");
        client.ask(follow().query("from_sequence=6")).await.expect_error(409, "cursor_ahead");
        client.ask(Ask::of(operation).at("run_id", "run_x")).await.expect_error(404, "not_found");
    }
}

async fn ingests(client: &Checked<'_>) {
    let event = |id: &str| envelope("run_pushed", id, None, "note");
    let flat = event("e3")["event"].clone();
    let shapes = [
        json!({ "peer_id": "stk_far", "auth": { "tenant_id": TENANT, "principal_id": "svc_far" }, "events": [event("e1")] }),
        json!({ "peer": { "stack_id": "stk_far", "environment": "dev", "region": "eu", "api_versions": ["v1"],
            "endpoints": {}, "build": {} }, "events": [event("e2")], "traceparent": "00-x" }),
        json!({ "events": [flat], "ingest": { "source_stack_id": "stk_far", "dedupe": { "mode": "event_id" } } }),
    ];
    for shape in shapes {
        let heard = client.ask(Ask::of("ingestFederatedEvents").json(&shape)).await.expect(200);
        assert_eq!(heard.json["accepted"], 1, "{}", heard.text);
    }
    let lines = format!("{}\n\n{}\nnonsense\n", event("e4"), event("e4"));
    let heard = client
        .ask(Ask::of("ingestFederatedEvents").body("application/x-ndjson", lines.as_bytes()))
        .await
        .expect(200);
    assert_eq!(heard.json["results"][1]["code"], "duplicate_in_request");
    assert_eq!(heard.json["results"][2]["code"], "invalid_event");
    let mut without_tenant = event("e5");
    without_tenant["event"].as_object_mut().expect("an object").remove("tenant_id");
    let mut contradicting = event("e1");
    contradicting["event"]["payload"] = json!("other");
    let mut foreign = event("e6");
    foreign["event"]["tenant_id"] = json!("tnt_other");
    let lines = format!("{without_tenant}\n{contradicting}\n{foreign}\n");
    let heard = client
        .ask(Ask::of("ingestFederatedEvents").body("application/x-ndjson", lines.as_bytes()))
        .await
        .expect(200);
    let codes: Vec<&str> = heard.json["results"]
        .as_array()
        .expect("results")
        .iter()
        .filter_map(|one| one["code"].as_str())
        .collect();
    assert_eq!(codes, ["invalid_event", "event_conflict", "origin_mismatch"], "{}", heard.text);
    client
        .ask(Ask::of("ingestFederatedEvents").json(&json!({ "events": [] })))
        .await
        .expect_error(400, "invalid_request");
    client
        .ask(Ask::of("ingestFederatedEvents").body("text/csv", b"x"))
        .await
        .expect_error(415, "unsupported_media_type");
    // Only `sequence` is added to what came without one.
    let page = client
        .ask(Ask::of("streamRunEvents").at("run_id", "run_pushed").header("accept", "application/json"))
        .await;
    let mut kept = page.json["events"][0]["event"].clone();
    assert_eq!(kept.as_object_mut().expect("an object").remove("sequence"), Some(json!(1)));
    assert_eq!(kept, event("e1")["event"]);
}

async fn cancels(client: &Checked<'_>, home: &ScriptedOrchestrator, operation: &str) {
    let new = || async {
        let done = client.ask(Ask::of("forwardRun").json(&forward_body("stk_b"))).await.expect(200);
        done.json["forwarded"]["run_id"].as_str().expect("a run").to_owned()
    };
    let run = new().await;
    let ask = |run: &str| client.ask(Ask::of(operation).at("run_id", run));
    for (fault, status, code) in [
        (PlainFault::Status(403), 403, "forbidden"),
        (PlainFault::Status(404), 404, "not_found"),
        (PlainFault::Status(405), 422, "capability_unsupported"),
        (PlainFault::Status(429), 429, "rate_limited"),
        (PlainFault::Status(500), 502, "upstream_invalid_response"),
        (PlainFault::Status(503), 503, "unavailable"),
        (PlainFault::DropRequest, 504, "timeout"),
        (PlainFault::Garbage(Garbage::Html), 502, "upstream_invalid_response"),
    ] {
        home.next_cancels([fault]);
        ask(&run).await.expect_error(status, code);
    }
    let run = new().await;
    home.stop().await;
    ask(&run).await.expect_error(502, "events_proxy_failed");
    home.restart().await;
    assert_eq!(ask(&run).await.expect(200).json["run"]["status"], "canceled");
    ask(&run).await.expect_error(409, "invalid_state_transition");
    ask("run_x").await.expect_error(404, "not_found");
    ask("run_pushed").await.expect_error(422, "capability_unsupported");
    bad_tenant(client, Ask::of(operation).at("run_id", &run)).await;
}

async fn lost(client: &Checked<'_>, home: &ScriptedOrchestrator) {
    let done = client.ask(Ask::of("forwardRun").json(&forward_body("stk_b"))).await.expect(200);
    let run = done.json["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    home.forget_runs();
    home.cut_streams();
    // A stream opened before the loss is known says it in a frame, one opened after it by its status.
    let ended = client.ask(Ask::of("streamRunEvents").at("run_id", &run)).await;
    assert!(ended.text.contains("run_lost"), "{}", ended.text);
    for operation in STREAMS {
        client.ask(Ask::of(operation).at("run_id", &run)).await.expect_error(410, "run_lost");
    }
    client.ask(Ask::of("getRun").at("run_id", &run)).await.expect_error(410, "run_lost");
    client.ask(Ask::of("getFederatedRun").at("run_id", &run)).await.expect(200);
    for operation in CANCELS {
        client.ask(Ask::of(operation).at("run_id", &run)).await.expect_error(410, "run_lost");
    }
}

/// Last: what is unknown is asked for again, and would meet the faults of others.
async fn unknown_outcomes(client: &Checked<'_>, home: &ScriptedOrchestrator) {
    home.creates(CreateFault::DropAnswer);
    let heard = client.ask(Ask::of("forwardRun").json(&forward_body("stk_b"))).await;
    let heard = heard.expect_error(504, "forward_outcome_unknown");
    assert_eq!(heard.json["error"]["details"]["outcome"], "unknown");
    let id = heard.json["error"]["details"]["forward_id"].as_str().expect("an id");
    client.ask(Ask::of("getForward").at("forward_id", id)).await.expect(200);
    let create = Ask::of("createRun").at("agent_id", "agt_one").json(&json!({ "input": 1 }));
    client.ask(create.clone()).await.expect_error(504, "forward_outcome_unknown");
    until_unavailable(client, create).await;
}

async fn until_unavailable(client: &Checked<'_>, ask: Ask) {
    for _ in 0..10 {
        let heard = client.ask(ask.clone()).await;
        if heard.status == 503 {
            return;
        }
    }
    panic!("the circuit never opened");
}

/// Every placeholder of its path filled in.
fn placed(operation: &Operation) -> Ask {
    let ask = Ask::of(&operation.id).at("run_id", "run_x").at("forward_id", "fwd_x");
    ask.at("peer_id", "stk_x").at("token_id", "abcdefghijkl").at("agent_id", "agt_x")
}

/// A request that is good but for who sends it.
fn fixture(operation: &Operation) -> Ask {
    let body = match operation.id.as_str() {
        "forwardRun" => forward_body("stk_b"),
        "ingestFederatedEvents" => json!({ "events": [envelope("r", "e", None, "note")] }),
        "createStreamTicket" => json!({ "run_id": "run_x" }),
        "createRun" => json!({ "input": 1 }),
        _ => return placed(operation),
    };
    placed(operation).json(&body)
}

/// What operators do, in profile dev, where a caller without a credential is one.
async fn administration(client: &Checked<'_>) {
    let entry = json!({ "peer_id": "stk_new", "base_url": "http://127.0.0.1:9", "kind": "gateway", "name": "New",
        "public_key": SigningKey::from_seed(&[1; 32]).public(), "operations": ["forward_out", "ingest"],
        "tenants": [TENANT], "idempotency_retention": "1h", "terminal_events": ["acme.done"], "rate": "10/s" });
    let enrol = |entry: &Value| client.ask(Ask::of("enrolPeer").json(entry));
    let made = enrol(&entry).await.expect(201);
    assert_eq!(made.header("location"), "/v1/federation/peers/stk_new");
    enrol(&entry).await.expect(201);
    let with = |name: &str, value: Value| {
        let mut entry = entry.clone();
        entry[name] = value;
        entry
    };
    enrol(&with("name", json!("Other"))).await.expect_error(409, "conflict");
    enrol(&with("peer_id", json!("stk_twin"))).await.expect_error(409, "peer_id_conflict");
    enrol(&with("peer_url", json!("http://10.0.0.1"))).await.expect_error(400, "invalid_request");
    enrol(&with("peer_id", json!("far away"))).await.expect_error(400, "invalid_request");
    client.ask(Ask::of("enrolPeer").body("application/json", b"{")).await.expect_error(400, "invalid_json");
    let mut far = with("peer_id", json!("stk_far"));
    far["public_key"] = json!(SigningKey::from_seed(&[2; 32]).public());
    far["domain"] = json!("abroad");
    let refused = enrol(&far).await.expect_error(403, "federation_boundary");
    assert_eq!(refused.json["error"]["details"]["rule"], "federation_boundary");

    // What is shown is what PUT takes.
    let at = |operation: &str| Ask::of(operation).at("peer_id", "stk_new");
    let mut shown = client.ask(at("getPeer")).await.expect(200).json["peer"]["entry"].take();
    client.ask(at("updatePeer").json(&shown)).await.expect(200);
    shown["name"] = json!("Renamed");
    let renamed = client.ask(at("updatePeer").json(&shown)).await.expect(200);
    assert_eq!(renamed.json["peer"]["name"], "Renamed");
    assert_eq!(renamed.json["peer"]["grants"]["operations"], entry["operations"]);
    let misplaced = Ask::of("updatePeer").at("peer_id", "stk_b").json(&shown);
    client.ask(misplaced).await.expect_error(400, "invalid_request");
    let local = client.ask(Ask::of("getPeer").at("peer_id", "stk_b")).await.expect(200);
    let configured = Ask::of("updatePeer").at("peer_id", "stk_b").json(&local.json["peer"]["entry"]);
    client.ask(configured).await.expect_error(409, "conflict");
    let unknown = json!({ "peer_id": "stk_x", "base_url": "http://127.0.0.1:9" });
    let unknown = Ask::of("updatePeer").at("peer_id", "stk_x").json(&unknown);
    client.ask(unknown).await.expect_error(404, "peer_not_found");

    let reason = json!({ "reason": "a test" });
    for (operation, standing) in
        [("drainPeer", "draining"), ("revokePeer", "revoked"), ("reinstatePeer", "active")]
    {
        let peer = client.ask(at(operation).json(&reason)).await.expect(200).json["peer"].take();
        assert_eq!((&peer["standing"], &peer["standing_reason"]), (&json!(standing), &json!("a test")));
        client.ask(at(operation)).await.expect(200);
        client.ask(at(operation).json(&json!({ "why": 1 }))).await.expect_error(400, "invalid_request");
        let unknown = Ask::of(operation).at("peer_id", "stk_x");
        client.ask(unknown).await.expect_error(404, "peer_not_found");
    }
    let verified = client.ask(at("verifyPeer")).await.expect(200);
    assert_ne!(verified.json["peer"]["health"]["state"], "healthy");
    client.ask(Ask::of("verifyPeer").at("peer_id", "stk_x")).await.expect_error(404, "peer_not_found");
    policy(client).await;
    tokens(client).await;
    keys(client).await;
    client.ask(at("removePeer")).await.expect(204);
    client.ask(at("removePeer")).await.expect_error(404, "peer_not_found");
    client.ask(Ask::of("removePeer").at("peer_id", "stk_b")).await.expect_error(409, "conflict");

    let drained = client.ask(Ask::of("drainGateway")).await.expect(200);
    assert_eq!(drained.json["intake"]["draining"], true);
    client.ask(Ask::of("forwardRun").json(&forward_body("stk_b"))).await.expect_error(503, "draining");
    // In profile dev nobody shows a credential: a page of another origin must not act for who opened it.
    for origin in ["https://evil.example", "null"] {
        let page = Ask::of("resumeGateway").header("origin", origin);
        client.ask(page).await.expect_error(403, "policy_denied");
    }
    let form =
        Ask::of("createToken").body("text/plain", b"{\"principal_id\":\"x\",\"scopes\":[\"admin:*\"]}");
    client.ask(form).await.expect_error(415, "unsupported_media_type");
    let resumed = client.ask(Ask::of("resumeGateway")).await.expect(200);
    assert_eq!(resumed.json["intake"]["draining"], false);
    audit(client).await;
}

async fn policy(client: &Checked<'_>) {
    assert_eq!(
        client.ask(Ask::of("getPolicy")).await.expect(200).json["policy"]["federation_mode"],
        "strict"
    );
    let mut question =
        json!({ "peer_id": "stk_new", "action": "run.create", "direction": "out", "tenant_id": TENANT });
    let ask = |question: &Value| client.ask(Ask::of("evaluatePolicy").json(question));
    assert_eq!(ask(&question).await.expect(200).json["decision"]["allow"], true);
    question["tenant_id"] = json!("tnt_other");
    assert_eq!(ask(&question).await.expect(200).json["decision"]["rule"], "tenant_not_granted");
    question["direction"] = json!("in");
    assert_eq!(ask(&question).await.expect(200).json["decision"]["rule"], "operation_not_granted");
    question["direction"] = json!("up");
    ask(&question).await.expect_error(400, "invalid_request");
    question["peer_id"] = json!("stk_x");
    ask(&question).await.expect_error(404, "peer_not_found");
}

async fn tokens(client: &Checked<'_>) {
    let make = |body: Value| client.ask(Ask::of("createToken").json(&body));
    let made =
        make(json!({ "tenant_id": TENANT, "principal_id": "svc_x", "scopes": ["events:read"], "label": null,
        "lifetime": "90d" }));
    let made = made.await.expect(201).json["token"].take();
    let text = made["token"].as_str().expect("a token");
    let operator =
        json!({ "tenant_id": null, "principal_id": "ops", "scopes": ["admin:*"], "lifetime": null });
    make(operator).await.expect(201);
    for bad in [
        json!({ "tenant_id": TENANT, "principal_id": "svc_x", "scopes": [] }),
        json!({ "tenant_id": TENANT, "principal_id": "svc_x", "scopes": ["runs:write"] }),
        json!({ "tenant_id": TENANT, "principal_id": "svc_x", "scopes": ["admin:*"] }),
        json!({ "principal_id": "svc_x", "scopes": ["runs:read"] }),
        json!({ "principal_id": "ops", "scopes": ["admin:*", "runs:read"] }),
        json!({ "tenant_id": TENANT, "principal_id": "peer:stk_b", "scopes": ["runs:read"] }),
        json!({ "tenant_id": TENANT, "principal_id": "svc_x", "scopes": ["runs:read"], "lifetime": "200y" }),
        json!({ "tenant_id": TENANT, "principal_id": "svc_x", "scopes": ["runs:read"], "secret": "mine" }),
    ] {
        make(bad).await.expect_error(400, "invalid_request");
    }
    let page = client.ask(Ask::of("listTokens")).await.expect(200);
    assert_eq!(page.json["items"].as_array().map(Vec::len), Some(2));
    assert!(!page.text.contains(text) && !page.text.contains("secret"), "{}", page.text);
    // Another tenant than the token's, and then the token is no more.
    let run = Ask::of("createStreamTicket").json(&json!({ "run_id": "run_pushed", "from_sequence": 0 }));
    let ticket = client.ask(run.clone().bearer(text)).await.expect(201);
    let stream = Ask::of("streamRunEvents").at("run_id", "run_pushed");
    let query =
        format!("follow=false&ticket={}", ticket.json["stream_ticket"]["ticket"].as_str().expect("text"));
    client.ask(stream.clone().query(&query)).await.expect(200);
    client.ask(stream.query(&query)).await.expect_error(401, "ticket_invalid");
    let other = run.clone().bearer(text).header("x-tenant-id", "tnt_other");
    client.ask(other).await.expect_error(400, "tenant_mismatch");
    let unknown = Ask::of("createStreamTicket").json(&json!({ "run_id": "run_x" }));
    client.ask(unknown.bearer(text)).await.expect_error(404, "not_found");
    let revoke = |id: &str| client.ask(Ask::of("revokeToken").at("token_id", id));
    let id = made["token_id"].as_str().expect("an id");
    assert!(revoke(id).await.expect(200).json["token"]["revoked_at"].is_string());
    revoke(id).await.expect(200);
    revoke("abcdefghijkl").await.expect_error(404, "not_found");
    revoke("no-id").await.expect_error(404, "not_found");
    client.ask(run.bearer(text)).await.expect_error(401, "unauthorized");
}

async fn keys(client: &Checked<'_>) {
    let rotate = |body: Value| client.ask(Ask::of("rotateKey").json(&body));
    rotate(json!({ "overlap": "1000y" })).await.expect_error(400, "invalid_request");
    rotate(json!({ "overlap": "soon" })).await.expect_error(400, "invalid_request");
    client.ask(Ask::of("cancelKeyRotation")).await.expect_error(409, "invalid_state_transition");
    let announced = rotate(json!({ "overlap": "1h" })).await.expect(200);
    assert_eq!(announced.json["keys"][1]["state"], "next");
    client.ask(Ask::of("rotateKey")).await.expect_error(409, "invalid_state_transition");
    client.ask(Ask::of("cancelKeyRotation")).await.expect(200);
    let kept = client.ask(Ask::of("listKeys")).await.expect(200);
    assert_eq!(kept.json["keys"].as_array().map(Vec::len), Some(1));
    assert!(!kept.text.contains("PRIVATE"));
}

async fn audit(client: &Checked<'_>) {
    let page = |query: &str| client.ask(Ask::of("listAudit").query(query));
    let made = page("action=token.create").await.expect(200);
    assert_eq!(made.json["items"].as_array().map(Vec::len), Some(2));
    let newest = page("limit=1&outcome=done").await.expect(200);
    assert_eq!(newest.json["items"][0]["action"], "gateway.resume");
    let next = page(&format!("limit=1&outcome=done&before={}", newest.json["next_before"])).await.expect(200);
    assert_eq!(next.json["items"][0]["action"], "gateway.drain");
    assert_eq!(page("before=1").await.expect(200).json["next_before"], Value::Null);
    let foreign = page("action=peer.enrol&outcome=refused").await.expect(200);
    let reason = foreign.json["items"][0]["reason"].as_str().unwrap_or("");
    assert!(reason.starts_with("federation_boundary: "), "{}", foreign.text);
    for bad in ["limit=501", "before=-1", "before=x", "action=a&action=b"] {
        page(bad).await.expect_error(400, "invalid_request");
    }
}

// M-03
async fn monitoring(client: &Checked<'_>) {
    let topology = client.ask(Ask::of("getTopology")).await.expect(200).json["topology"].take();
    let ids = |name: &str, id: &str| -> Vec<String> {
        let all = topology[name].as_array().expect("a list");
        all.iter().map(|one| one[id].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids("nodes", "node_id"), ["stk_local", "stk_b", "stk_dead"]);
    assert_eq!(ids("edges", "edge_id"), ["stk_local -> stk_b", "stk_local -> stk_dead"]);

    let first = client.ask(Ask::of("listLinks").query("limit=1")).await.expect(200);
    let cursor = first.json["next_cursor"].as_str().expect("a cursor");
    assert!(first.header("link").contains(cursor), "{}", first.header("link"));
    let second = client.ask(Ask::of("listLinks").query(&format!("cursor={cursor}"))).await.expect(200);
    assert_eq!(
        (&first.json["items"][0]["peer_id"], &second.json["items"][0]["peer_id"]),
        (&json!("stk_b"), &json!("stk_dead"))
    );
    client.ask(Ask::of("listLinks").query("cursor=%21")).await.expect_error(400, "invalid_cursor");
    client.ask(Ask::of("listLinks").query("limit=0")).await.expect_error(400, "invalid_request");
    client.ask(Ask::of("getLink").at("peer_id", "stk_b")).await.expect(200);
    client.ask(Ask::of("getLink").at("peer_id", "stk_x")).await.expect_error(404, "peer_not_found");

    let list = |query: &str| client.ask(Ask::of("listDeliveries").query(query));
    let page = list("peer_id=stk_b&state=forwarded&tenant_id=tnt_demo&limit=1").await.expect(200);
    let cursor = page.json["next_cursor"].as_str().expect("a cursor");
    assert!(page.header("link").contains("state=forwarded"), "{}", page.header("link"));
    let next = list(&format!("state=forwarded&limit=1&cursor={cursor}")).await.expect(200);
    assert_ne!(next.json["items"][0]["forward_id"], page.json["items"][0]["forward_id"]);
    for bad in ["state=lost", "peer_id=a%20b", "tenant_id=", "limit=201", "state=sent&state=sent"] {
        list(bad).await.expect_error(400, "invalid_request");
    }
    for bad in ["cursor=%21", "cursor=", "cursor=b3RoZXIgMA"] {
        list(bad).await.expect_error(400, "invalid_cursor");
    }
    // "other 1": a cursor of another log.
    list("cursor=b3RoZXIgMQ").await.expect_error(409, "cursor_incarnation");
    // What the scripted home skipped was given up.
    let alerts = client.ask(Ask::of("listAlerts")).await.expect(200);
    assert_eq!(alerts.json["items"][0]["alert_id"], "events_given_up/peer:stk_b", "{}", alerts.text);
}

/// A gateway that signs hears who answers.
async fn enrolled(client: &Checked<'_>, gateway: &TestGateway) {
    let signer = Arc::new(Signer {
        key: SigningKey::from_seed(&[3; 32]),
        origin: "stk_near".to_owned(),
        destination: gateway.config.gateway.stack_id.to_string(),
    });
    let entry = json!({ "peer_id": "stk_near", "base_url": "http://127.0.0.1:9", "kind": "gateway",
        "public_key": signer.key.public(), "operations": ["forward_in"] });
    client.ask(Ask::of("enrolPeer").json(&entry)).await.expect(201);
    client.ask(Ask::of("rotateKey")).await.expect(200);
    let key = client.ask(Ask::of("getPeerInfo").signed(&signer)).await.expect(200).json["peer"]["public_key"]
        .take();
    for operation in ["getPeerCapabilities", "getPeerCapabilitiesShort"] {
        let heard = client.ask(Ask::of(operation).signed(&signer)).await.expect(200);
        assert_eq!(heard.json["you"], "stk_near");
        assert!(heard.json["proof"].is_string(), "{}", heard.text);
        assert_eq!(heard.json["key_succession"]["public_key"], key);
    }
    client.ask(Ask::of("cancelKeyRotation")).await.expect(200);
    let list = client.ask(Ask::of("listPeers").signed(&signer)).await.expect(200);
    assert_eq!(list.json["items"].as_array().map(Vec::len), Some(1), "a peer sees itself: {}", list.text);
    // What it is not granted, and what is not for peers.
    let push = json!({ "events": [envelope("run_near", "e", None, "note")] });
    let push = Ask::of("ingestFederatedEvents").json(&push).header("x-tenant-id", TENANT);
    let refused = client.ask(push.signed(&signer)).await.expect_error(403, "policy_denied");
    assert_eq!(refused.json["error"]["details"]["rule"], "operation_not_granted");
    let list = Ask::of("listFederatedRuns").header("x-tenant-id", TENANT).signed(&signer);
    client.ask(list).await.expect_error(403, "policy_denied");
    for action in ["events.ingest", "run.read"] {
        let query = format!("subject=peer:stk_near&action={action}&outcome=refused");
        let is_noted = || async {
            let page = client.ask(Ask::of("listAudit").query(&query)).await.expect(200);
            page.json["items"].as_array().is_some_and(|items| items.len() == 1)
        };
        for _ in 0..500 {
            if is_noted().await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
        }
        assert!(is_noted().await, "the refusal of {action} is not in the audit");
    }
    let other = Arc::new(Signer {
        key: SigningKey::from_seed(&[4; 32]),
        origin: "stk_near".to_owned(),
        destination: signer.destination.clone(),
    });
    let heard = client.send(&Ask::of("listPeers").signed(&other)).await;
    assert_eq!(heard.json["error"]["code"], "peer_id_conflict", "{}", heard.text);
}

/// What is refused before an operation is looked at: no credential, no scope, too often.
async fn guarded(document: &Document, seen: &Seen) {
    let prod = Prod::start(prod_config(), Vec::new()).await;
    let client = Checked::new(document, prod.gateway.address(), seen);
    let operations = document.operations();
    let mut config = prod_config();
    config.limits.principal = Some(Rate::parse("1/h").expect("a rate"));
    let slow = Prod::start(config, Vec::new()).await;
    let impatient = Checked::new(document, slow.gateway.address(), seen);
    let spent = slow.token(Some(TENANT), &CLIENT_SCOPES).await;
    let first = impatient.ask(Ask::of("getPeerInfo").bearer(&spent.text)).await.expect(200);
    assert!(first.header("ratelimit").contains("r=0"), "{}", first.header("ratelimit"));
    for operation in operations.iter().filter(|operation| !operation.is_open()) {
        client.ask(fixture(operation)).await.expect_error(401, "unauthorized");
        let scopes: Vec<&str> =
            CLIENT_SCOPES.into_iter().filter(|scope| operation.value["x-scope"] != *scope).collect();
        let token = prod.token(Some(TENANT), &scopes).await;
        let heard = client.ask(fixture(operation).bearer(&token.text)).await;
        heard.expect_error(403, "insufficient_scope");
        let heard = impatient.ask(fixture(operation).bearer(&spent.text)).await;
        let heard = heard.expect_error(429, "rate_limited");
        assert_eq!(heard.json["error"]["details"]["limit"], "principal");
        assert!(heard.header("ratelimit-policy").contains("\"principal\";q=1;w=3600"));
    }
}

/// A hub introduces peers; what happens to them then. // R-14
async fn introductions(document: &Document, seen: &Seen) {
    let hub = some_key();
    let mut config = test_config();
    let off = TestGateway::start_with(config.clone(), Vec::new()).await;
    config.introductions.hubs = vec![hub_options("hub", &hub, "default")];
    config.limits.failed_logins = Some(Rate::parse("1/h burst 5").expect("a rate"));
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    let client = Checked::new(document, gateway.address(), seen);
    let introduce = |token: &str| Ask::of("introducePeer").json(&json!({ "introduction": token }));
    let (stack_id, now_s) = (gateway.config.gateway.stack_id.to_string(), Clock::system().now_ms() / 1000);
    let token = |peer_id: &str, name: &str, value: &Value| {
        let mut said = claims(&stack_id, now_s, peer_id);
        said[name] = value.clone();
        signed(&hub, &said)
    };
    Checked::new(document, off.address(), seen).ask(introduce("x")).await.expect_error(404, "not_found");
    client.ask(introduce(&token("stk_c", "region", &json!("")))).await.expect(201);
    let at = |operation: &str| Ask::of(operation).at("peer_id", "stk_c");
    for operation in ["getPeer", "getLink"] {
        let shown = client.ask(at(operation)).await.expect(200).json;
        let shown = shown.get("peer").or(shown.get("link")).expect("either");
        assert_eq!(shown["standing"], "introduced");
    }
    client.ask(at("drainPeer")).await.expect_error(409, "conflict");
    client.ask(at("reinstatePeer")).await.expect_error(409, "conflict");
    client.ask(introduce("x")).await.expect_error(401, "signature_invalid");
    client.ask(introduce(&token("stk_d", "jti", &json!(1)))).await.expect_error(400, "invalid_request");
    client.ask(introduce(&token("stk_d", "domain", &json!("lab")))).await.expect_error(403, "policy_denied");
    client.ask(introduce(&token("stk_c", "jti", &json!("2")))).await.expect_error(409, "peer_id_conflict");
    client.ask(introduce("x")).await.expect_error(401, "signature_invalid");
    client.ask(introduce("x")).await.expect_error(429, "rate_limited");
}

/// A gateway with small bounds, no default tenant and no orchestrator of its own.
async fn bounded(document: &Document, seen: &Seen) {
    let mut config = test_config();
    config.gateway.default_tenant = None;
    config.server.max_body = 2048;
    config.server.max_ingest_body = 2048;
    config.server.body_timeout = Duration::from_millis(100);
    config.server.max_streams = 2;
    config.server.max_streams_per_principal = 1;
    config.retention.events = Duration::from_millis(1);
    config.retention.sweep_interval = Duration::from_millis(100);
    config.introductions.hubs = vec![hub_options("hub", &some_key(), "default")];
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    let client = Checked::new(document, gateway.address(), seen);
    for operation in document.operations().iter().filter(|operation| operation.calls("client")) {
        // In profile dev only what belongs to a tenant needs one.
        if !operation.calls("operator") {
            let ask = fixture(operation);
            client.ask(ask).await.expect_error(401, "unauthorized");
        }
    }
    let large = json!({ "reason": "x".repeat(3000) });
    for operation in document.operations() {
        if document.responses(&operation).contains_key(&413) {
            let ask = placed(&operation).header("x-tenant-id", TENANT);
            client.ask(ask.clone().json(&large)).await.expect_error(413, "payload_too_large");
            client.ask(ask.clone().body("text/csv", b"x")).await.expect_error(415, "unsupported_media_type");
            client.ask(ask.stalled()).await.expect_error(408, "request_timeout");
        }
    }
    let tenant = |ask: Ask| ask.header("x-tenant-id", TENANT);
    let create = tenant(Ask::of("createRun").at("agent_id", "a").json(&json!({ "input": 1 })));
    client.ask(create).await.expect_error(404, "peer_not_found");
    // Where nothing else names a tenant, profile dev believes the body.
    let claims =
        json!({ "auth": { "tenant_id": TENANT }, "events": [envelope("run_open", "e", None, "note")] });
    client.ask(Ask::of("ingestFederatedEvents").json(&claims)).await.expect(200);
    let end = envelope("run_done", "e", None, "agentos.run.completed");
    client.ask(tenant(Ask::of("ingestFederatedEvents").json(&json!({ "events": [end] })))).await.expect(200);
    full(&gateway, &client).await;
    let path = "/v1/federation/runs/run_done/events?follow=false";
    let dev = [("x-tenant-id", TENANT)];
    while gateway.get_with(path, &dev).await.status != 410 {
        tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
    }
    for operation in STREAMS {
        let follow = || tenant(Ask::of(operation).at("run_id", "run_done"));
        let heard = client.ask(follow()).await.expect_error(410, "cursor_expired");
        assert_eq!(heard.json["error"]["details"]["oldest_sequence"], 2);
        client.ask(follow().header("accept", "application/json")).await.expect_error(410, "cursor_expired");
        let skipped = client.ask(follow().query("on_gap=skip")).await.expect(200);
        assert!(skipped.text.contains("retention"), "{}", skipped.text);
    }
}

// reliability 4d.23
async fn full(gateway: &TestGateway, client: &Checked<'_>) {
    let http = plain_client();
    let url = format!("{}/v1/runs/run_open/events", gateway.base_url());
    let open = |principal: &'static str| {
        http.get(&url).header("x-tenant-id", TENANT).header("x-principal-id", principal).send()
    };
    let first = open("a").await.expect("a stream");
    for operation in STREAMS {
        let ask = Ask::of(operation).at("run_id", "run_open").header("x-tenant-id", TENANT);
        client.ask(ask.header("x-principal-id", "a")).await.expect_error(429, "too_many_streams");
    }
    let second = open("b").await.expect("a stream");
    for operation in STREAMS {
        let ask = Ask::of(operation).at("run_id", "run_open").header("x-tenant-id", TENANT);
        client.ask(ask.header("x-principal-id", "c")).await.expect_error(503, "busy");
    }
    drop((first, second));
    let closed = async {
        while gateway.metric("sse_streams_open ").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed)
        .await
        .expect("what is given up gives its place back");
}
