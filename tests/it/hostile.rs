//! What comes in to do harm, from clients and from peers, where one request does not tell it all. Numbers are
//! those of the attack table.

use std::time::Duration;

use causeway::domain::peer::PeerKind;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::ears::connect;
use crate::support::gateway::{TestGateway, envelope, forward_body, peer, test_config};
use crate::support::orchestrator::{
    CreateFault, Garbage, GarbageFrame, RunStatus, ScriptedOrchestrator, StreamAnswer, StreamScript,
};
use crate::support::raw;
use crate::support::sse_client::Follower;

const FORWARD: &str = "/v1/federation/runs:forward";
const INGEST: &str = "/v1/federation/events:ingest";
const JSON: (&str, &str) = ("content-type", "application/json");

// reliability 4d.1, 4d.2
#[tokio::test]
pub(crate) async fn whoever_takes_too_long_over_a_head_is_cut_off() {
    let mut config = test_config();
    config.server.header_timeout = Duration::from_millis(300);
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    let silent = connect(gateway.address()).await.expect("a connection");
    raw::read_to_end(silent).await;

    let slow = connect(gateway.address()).await.expect("a connection");
    let (reader, mut writer) = tokio::io::split(slow);
    let drip = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20)); // why: the pace is the attack
        for byte in "GET /livez HTTP/1.1\r\nhost: g\r\nx-slow: ".bytes().chain(std::iter::repeat(b'a')) {
            pace.tick().await;
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    let mut reader = reader;
    let mut answer = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer);
    tokio::select! {
        _ = ended => {}
        () = drip => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("never cut off"), // why: only a limit
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    drop((reader, writer));
    // The one that asks is open itself.
    gateway.until_metric("http_connections_open ", |count| count <= 1.0).await;
}

// reliability 4d.6
#[tokio::test]
pub(crate) async fn a_body_framed_twice_is_one_request() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let body = forward_body("stk_b").to_string();
    for (at, framing) in
        ["content-length: 5\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 5"]
            .into_iter()
            .enumerate()
    {
        let bytes = format!(
            "POST {FORWARD} HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-type: application/json\r\n{framing}\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        let answer = raw::send(gateway.address(), bytes.as_bytes()).await;
        assert_eq!((answer.status(), answer.answers()), (200, 1), "{framing}: {}", answer.text);
        assert_eq!(home.truth().creates().len(), at + 1, "{framing}");
    }
    for create in home.truth().creates() {
        assert_eq!(create.request.header("transfer-encoding"), None);
    }
}

// reliability 4d.62
#[tokio::test]
pub(crate) async fn what_is_echoed_is_an_id_or_replaced() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let long = "x".repeat(129);
    for odd in ["a b", "a\tb", "\u{1b}[2J".trim_start_matches('\u{1b}'), "caf\u{e9}", &long, "", "a\u{80}"] {
        let bytes = raw::request("GET", "/v1/federation/runs/run_x", &[("x-correlation-id", odd)], b"");
        let answer = raw::send(gateway.address(), &bytes).await;
        assert_eq!(answer.status(), 404, "{odd:?}: {}", answer.text);
        let echoed = answer.header("x-request-id");
        assert!(echoed.starts_with("req_") || (odd == "[2J" && echoed == odd), "{odd:?}: {echoed:?}");
    }
    let taken =
        gateway.get_with("/livez", &[("x-request-id", "req_theirs"), ("x-correlation-id", "req_mine")]).await;
    assert_eq!(taken.header("x-request-id"), "req_mine");

    let evil =
        json!({ "error": { "code": "bad\u{1b}[2J", "message": "a\r\nset-cookie: a=b\u{1b}[31m{}%s\u{0}" } });
    home.next_creates([CreateFault::Status { code: 403, retry_after: None, body: Some(evil) }]);
    let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(403);
    assert!(!answer.text.contains("\\u001b") && !answer.text.contains("\\r"), "{}", answer.text);
    assert_eq!(answer.header("set-cookie"), "");
    let name = "stk_\u{1b}]0;x\u{7}\r\nx: y";
    let answer = gateway.post(FORWARD, &forward_body(name)).await.expect(404);
    assert!(!answer.text.contains("\\u001b") && !answer.text.contains("\\r"), "{}", answer.text);
}

// reliability 4d.9
#[tokio::test]
pub(crate) async fn an_endless_body_is_cut_at_its_limit() {
    let mut config = test_config();
    config.server.max_body = 64 * 1024;
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    let mut bytes = raw::request("POST", FORWARD, &[JSON, ("transfer-encoding", "chunked")], b"");
    for _ in 0..64 {
        bytes.extend_from_slice(b"1000\r\n");
        bytes.extend(std::iter::repeat_n(b' ', 0x1000));
        bytes.extend_from_slice(b"\r\n");
    }
    let answer = raw::send(gateway.address(), &bytes).await;
    // The rest of the body may tear the answer down with it, as TCP has it.
    assert!([0, 413].contains(&answer.status()), "{}", answer.text);
}

// reliability 4d.43, 4d.44, A-15
#[tokio::test]
pub(crate) async fn an_event_is_stored_as_it_is_or_not_at_all() {
    let gateway = TestGateway::start(Vec::new()).await;
    let long = "x".repeat(129);
    for odd in ["a\nb", "a\rb", "a\u{0}b", "a\u{2028}b", "a b", "", "é", &long] {
        for field in ["event_id", "type", "run_id", "tenant_id"] {
            let mut event = envelope("run_odd", "e1", None, "note");
            event["event"][field] = json!(odd);
            let answer = gateway.post(INGEST, &json!({ "events": [event] })).await.expect(200);
            let result = &answer.json["results"][0];
            assert_eq!(
                (&result["status"], &result["code"]),
                (&json!("rejected"), &json!("invalid_event")),
                "{field} {odd:?}"
            );
            assert!(result["reason"].as_str().is_some_and(|reason| reason.contains(field)), "{result}");
        }
    }
    assert_eq!(gateway.get("/v1/federation/runs").await.json["items"], json!([]), "nothing was stored");
    let payload = json!({ "a": "x\n\ndata: y\r\rid: 7\n\u{2028}\u{85}:hb\nevent: end\n", "b": "z".repeat(256 * 1024 + 1) });
    let mut event = envelope("run_1", "e1", None, "note");
    event["event"]["payload"] = payload.clone();
    let mut large = envelope("run_1", "e2", None, "note");
    large["event"]["payload"] = json!("z".repeat(1024 * 1024));
    let end = envelope("run_1", "e3", None, "agentos.run.completed");
    let answer = gateway.post(INGEST, &json!({ "events": [event, large, end] })).await.expect(200);
    assert_eq!(answer.json["results"][1]["code"], "payload_too_large", "{}", answer.text);
    assert_eq!(answer.json["accepted"], 2);
    let mut follower = Follower::new(gateway.address(), "/v1/federation/runs/run_1/events");
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2]);
    let seen: Value = serde_json::from_str(&follower.seen()[0].text).expect("JSON");
    assert_eq!(seen["payload"], payload);
}

// reliability 4d.63
#[tokio::test]
pub(crate) async fn odd_paths_and_names_make_no_new_time_series() {
    let gateway = TestGateway::start(Vec::new()).await;
    let ask = |number: usize| {
        let gateway = &gateway;
        async move {
            gateway.get(&format!("/nothing/{number}")).await.expect(404);
            gateway
                .get_with(&format!("/v1/runs/run_{number}"), &[("x-tenant-id", &format!("t{number}"))])
                .await
                .expect(404);
            gateway.post(FORWARD, &forward_body(&format!("stk_{number}"))).await.expect(404);
        }
    };
    ask(0).await;
    let series = gateway.get("/metrics").await.text.lines().count();
    gateway.get("/metrics").await; // its own series exists from here on
    let series = series.max(gateway.get("/metrics").await.text.lines().count());
    for number in 1..350 {
        ask(number).await;
    }
    assert_eq!(gateway.get("/metrics").await.text.lines().count(), series);
}

// reliability 4d.25, 4d.27
#[tokio::test]
pub(crate) async fn streams_that_are_given_up_give_their_places_back() {
    let gateway = TestGateway::start(Vec::new()).await;
    gateway.post(INGEST, &json!({ "events": [envelope("run_1", "e1", None, "note")] })).await.expect(200);
    let path = "/v1/federation/runs/run_1/events";
    for _ in 0..200 {
        let mut stream = connect(gateway.address()).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nhost: g\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it is sent");
    }
    let head = raw::send(gateway.address(), &raw::request("HEAD", path, &[], b"")).await;
    assert_eq!(head.status(), 200);
    assert!(head.text.ends_with("\r\n\r\n"), "{}", head.text);
    gateway.until_metric("sse_streams_open ", |count| count <= 0.0).await;
    gateway.until_metric("http_connections_open ", |count| count <= 1.0).await;
}

// reliability 4d.47, 4d.53, defects 5, 9
#[tokio::test]
pub(crate) async fn a_peer_that_answers_a_create_with_nonsense_harms_nobody() {
    let home = ScriptedOrchestrator::start().await;
    let other = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.forward.max_attempts = 1;
    let peers = vec![
        peer("stk_b", &home.base_url(), PeerKind::Orchestrator),
        peer("stk_c", &other.base_url(), PeerKind::Orchestrator),
    ];
    let gateway = TestGateway::start_with(config, peers).await;
    for location in [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        format!("{}/v1/agents/agt_test/runs", other.base_url()),
    ] {
        home.next_creates([CreateFault::Redirect(location)]);
        let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(502);
        assert_eq!(answer.code(), "forward_failed", "{}", answer.text);
    }
    assert!(other.truth().creates().is_empty(), "no redirect is followed");
    // Two homes mint one id: both runs exist here, under two names.
    other.next_creates([CreateFault::RunId("run_twin".to_owned())]);
    let first = gateway.post(FORWARD, &forward_body("stk_c")).await.expect(200);
    home.next_creates([CreateFault::RunId("run_twin".to_owned())]);
    let second = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
    assert_eq!(first.json["forwarded"]["run_id"], "run_twin");
    assert_eq!(second.json["forwarded"]["run_id"], "run_twin@stk_b");
    // An events URL elsewhere is not fetched.
    let elsewhere = format!("{}/v1/runs/run_twin/events", other.base_url());
    home.next_creates([CreateFault::EventsUrl(elsewhere)]);
    let third = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
    let run = third.json["forwarded"]["remote_run_id"].as_str().expect("a run").to_owned();
    home.until("its events are asked of it", |truth| !truth.events_requests(&run).is_empty()).await;
    // What is too large or no run at all leaves the outcome unknown, and the gateway well.
    for garbage in [Garbage::HugeBody(3 * 1024 * 1024), Garbage::Html] {
        // Each time it is asked: the gateway goes on asking by itself.
        home.creates(CreateFault::Garbage(garbage));
        let answer = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(504);
        assert_eq!(answer.code(), "forward_outcome_unknown", "{}", answer.text);
    }
    gateway.get("/readyz").await.expect(200);
}

// reliability 4d.50
#[tokio::test]
pub(crate) async fn garbage_in_a_peers_stream_is_set_aside() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.reader.max_event = 64 * 1024;
    let gateway =
        TestGateway::start_with(config, vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)]).await;
    home.next_creates([CreateFault::Hold]);
    let body = forward_body("stk_b");
    let start = gateway.post(FORWARD, &body);
    let script = StreamScript {
        garbage: GarbageFrame::one_of_each(256 * 1024),
        prelude: b"\xef\xbb\xbf: hello\n\nretry: 0\n\n".to_vec(),
        chunk_bytes: Some(7),
        ..StreamScript::default()
    };
    home.streams(script);
    let release = async {
        home.until("the create", |truth| !truth.creates().is_empty()).await;
        home.release_creates();
    };
    let (answer, ()) = tokio::join!(start, release);
    let run = answer.expect(200).json["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    home.emit_steps(&run, 12);
    home.finish(&run, RunStatus::Completed);
    let mut follower = Follower::new(gateway.address(), &format!("/v1/federation/runs/{run}/events"));
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), (1..=13).collect::<Vec<u64>>());
    gateway.get("/readyz").await.expect(200);
}

// reliability 4d.51, 4d.52
#[tokio::test]
pub(crate) async fn a_peers_stream_that_is_none_or_says_nothing_is_opened_again_calmly() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.reader.idle_timeout = Duration::from_millis(200);
    let gateway =
        TestGateway::start_with(config, vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)]).await;
    let html =
        StreamScript { answer: StreamAnswer::ContentType("text/html".to_owned()), ..StreamScript::default() };
    let silent = StreamScript { stall_after_events: Some(1), ..StreamScript::default() };
    home.next_streams([html.clone(), html, silent]);
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 3);
    home.finish(&run, RunStatus::Completed);
    let mut follower = Follower::new(gateway.address(), &format!("/v1/federation/runs/{run}/events"));
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2, 3, 4]);
    let opened = home.truth().events_requests(&run).len();
    assert!((4..12).contains(&opened), "opened {opened} times");
}

// reliability 4d.64
#[tokio::test]
pub(crate) async fn probes_take_no_body_and_the_document_names_no_host() {
    let gateway = TestGateway::start(Vec::new()).await;
    for path in ["/v1/health", "/v1/federation/health", "/livez", "/readyz", "/metrics"] {
        let answer = gateway.post(path, &json!({ "a": 1 })).await.expect(405);
        assert_eq!(answer.header("allow"), "GET, HEAD", "{path}");
    }
    let document =
        gateway.get_with("/openapi.json", &[("x-forwarded-host", "evil.example")]).await.expect(200);
    assert_eq!(document.json["servers"], json!([{ "url": "/", "description": "This gateway" }]));
    assert!(!document.text.contains("evil"));
}
