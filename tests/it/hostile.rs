//! The attack table: what comes in to do harm, and what is answered. Numbers are those of its rows.

use std::time::Duration;

use causeway::domain::peer::PeerKind;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::document::Document;
use crate::support::gateway::{Answer, TestGateway, envelope, forward_body, peer, test_config};
use crate::support::orchestrator::{
    CreateFault, Garbage, GarbageFrame, RunStatus, ScriptedOrchestrator, StreamAnswer, StreamScript,
};
use crate::support::raw::{self, RawAnswer};
use crate::support::sse_client::Follower;

const FORWARD: &str = "/v1/federation/runs:forward";
const INGEST: &str = "/v1/federation/events:ingest";
const JSON: (&str, &str) = ("content-type", "application/json");

/// Our own body, whatever the request was.
#[track_caller]
fn assert_problem(document: &Document, answer: &RawAnswer, status: u16, code: &str, what: &str) -> Value {
    let body = answer.json();
    assert_eq!(answer.status(), status, "{what}: {}", answer.text);
    document.assert_is("Problem", &body, what);
    assert_eq!(body["error"]["code"], code, "{what}");
    assert_eq!(body["correlation_id"], answer.header("x-request-id"), "{what}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    body
}

#[track_caller]
fn assert_names(answer: &Answer, status: u16, code: &str, field: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{field}: {}", answer.text);
    assert_eq!(answer.json["error"]["details"]["field"], field, "{}", answer.text);
}

// reliability 4d.3, 4d.5
#[tokio::test]
async fn a_head_that_is_none_ends_the_connection() {
    let gateway = TestGateway::start(Vec::new()).await;
    let many = "x-a: b\r\n".repeat(101);
    let huge = format!("x-a: {}\r\n", "b".repeat(100 * 1024));
    let long = format!("GET /{} HTTP/1.1\r\nhost: g\r\n\r\n", "a".repeat(70 * 1024));
    let head = |line: &str| format!("POST {FORWARD} HTTP/1.1\r\nhost: g\r\n{line}\r\n\r\n");
    let table = [
        ("two lengths", head("content-length: 5\r\ncontent-length: 6"), 400),
        ("a signed length", head("content-length: +5"), 400),
        ("an unknown coding", head("transfer-encoding: xchunked"), 400),
        ("chunked is not last", head("transfer-encoding: chunked, gzip"), 400),
        ("a folded line", head("x-a: b\r\n c"), 400),
        ("a space before the colon", head("x-a : b"), 400),
        ("a bare CR", head("x-a: b\rx-c: d"), 400),
        ("a NUL", head("x-a: b\0c"), 400),
        ("a NUL in the target", "GET /\0 HTTP/1.1\r\nhost: g\r\n\r\n".to_owned(), 400),
        ("a space in the target", "GET /a b HTTP/1.1\r\nhost: g\r\n\r\n".to_owned(), 400),
        ("an old coding", format!("POST {FORWARD} HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"), 400),
        ("a TLS hello", "\x16\x03\x01\x02\0\x01\0\x01".to_owned(), 400),
        ("an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        ("many headers", format!("GET /livez HTTP/1.1\r\nhost: g\r\n{many}\r\n"), 431),
        ("huge headers", format!("GET /livez HTTP/1.1\r\nhost: g\r\n{huge}\r\n"), 431),
    ];
    for (what, bytes, status) in table {
        let answer = raw::send(gateway.address(), bytes.as_bytes()).await;
        // A version no one here speaks may be cut off without a word.
        let mute = what == "an HTTP/2 preface" && answer.status() == 0;
        assert!(answer.status() == status || mute, "{what}: {}", answer.text);
        assert!(answer.answers() <= 1, "{what}: {}", answer.text);
    }
    let large = raw::request("GET", "/livez", &[("x-a", &"b".repeat(25 * 1024))], b"");
    let answer = raw::send(gateway.address(), &large).await;
    assert_problem(&Document::load(), &answer, 431, "headers_too_large", "large headers");
    let answer = raw::send(gateway.address(), long.as_bytes()).await;
    assert!([0, 414, 431].contains(&answer.status()), "{}", answer.text);
    gateway.get("/livez").await.expect(200);
}

// reliability 4d.1, 4d.2
#[tokio::test]
async fn whoever_takes_too_long_over_a_head_is_cut_off() {
    let mut config = test_config();
    config.server.header_timeout = Duration::from_millis(300);
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    let silent = TcpStream::connect(gateway.address()).await.expect("a connection");
    raw::read_to_end(silent).await;

    let slow = TcpStream::connect(gateway.address()).await.expect("a connection");
    let (reader, mut writer) = slow.into_split();
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
async fn a_body_framed_twice_is_one_request() {
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

// reliability 4d.3, 4d.20, 4d.27, 4d.46, defect 18
#[tokio::test]
async fn odd_paths_are_nothing_here() {
    let document = Document::load();
    let gateway = TestGateway::start(Vec::new()).await;
    let runs = "/v1/federation/runs";
    let table = [
        (format!("{runs}/..%2f..%2f..%2fmetrics"), 404, "not_found"),
        (format!("{runs}/a%00b"), 404, "not_found"),
        (format!("{runs}/a%0d%0aset-cookie:%20a=b"), 404, "not_found"),
        (format!("{runs}/%zz"), 404, "not_found"),
        (format!("{runs}/%"), 404, "not_found"),
        (format!("{runs}/%ff"), 400, "invalid_request"),
        (format!("{runs}/%C3%A9"), 404, "not_found"),
        (format!("{runs}/'%20OR%201=1--"), 404, "not_found"),
        (format!("{runs}/%25"), 404, "not_found"),
        (format!("{runs}/{}", "a".repeat(129)), 404, "not_found"),
        (format!("{runs}/../../../metrics"), 404, "not_found"),
        ("//livez".to_owned(), 404, "not_found"),
        ("/livez/".to_owned(), 404, "not_found"),
        ("/LIVEZ".to_owned(), 404, "not_found"),
        ("*".to_owned(), 404, "not_found"),
        (format!("/{}", "a".repeat(9 * 1024)), 414, "uri_too_long"),
        (format!("/livez?{}", "a".repeat(9 * 1024)), 414, "uri_too_long"),
        (format!("{runs}?limit=99999999999999999999"), 400, "invalid_request"),
        (format!("{runs}?limit=1e2"), 400, "invalid_request"),
        (format!("{runs}?limit=%2B5"), 400, "invalid_request"),
        (format!("{runs}?limit=5&limit=6"), 400, "invalid_request"),
        (format!("{runs}?status='%20OR%201=1--"), 400, "invalid_request"),
        (format!("{runs}?cursor=';DROP%20TABLE%20runs"), 400, "invalid_cursor"),
    ];
    for (target, status, code) in table {
        let answer = raw::send(gateway.address(), &raw::request("GET", &target, &[], b"")).await;
        let body = assert_problem(&document, &answer, status, code, &target);
        assert_eq!(answer.header("set-cookie"), "", "{target}");
        if status == 400 {
            assert!(body["error"]["details"]["field"].is_string(), "{target}: {body}");
        }
    }
    for method in ["BREW", "get", "CONNECT", "A'B"] {
        let answer = raw::send(gateway.address(), &raw::request(method, "/livez", &[], b"")).await;
        assert!([400, 404, 405].contains(&answer.status()), "{method}: {}", answer.text);
    }
    gateway.get("/livez").await.expect(200);
}

// reliability 4d.62
#[tokio::test]
async fn what_is_echoed_is_an_id_or_replaced() {
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

// reliability 4d.9, 4d.10
#[tokio::test]
async fn a_body_that_is_none_is_refused_by_name() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let with_input = |input: &str| {
        let whole = forward_body("stk_b").to_string();
        whole.replace(r#"{"text":"hello","type":"text"}"#, input).into_bytes()
    };
    assert_ne!(with_input("1"), forward_body("stk_b").to_string().into_bytes(), "the input was replaced");
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for (what, body) in [
        ("nothing", Vec::new()),
        ("half", b"{\"forward\":".to_vec()),
        ("two", b"{}{}".to_vec()),
        ("depth 200", with_input(&deep(200))),
        ("depth 100000", with_input(&deep(100_000))),
        ("NaN", with_input("NaN")),
        ("a comment", with_input("1 /* x */")),
        ("a lone surrogate", with_input("\"\\ud800\"")),
        ("a control character", with_input("\"\u{1}\"")),
        ("bad UTF-8", [b"{\"a\":\"".as_slice(), b"\xff\"}"].concat()),
        ("a BOM", [b"\xef\xbb\xbf".as_slice(), &with_input("1")].concat()),
        ("UTF-16", forward_body("stk_b").to_string().encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ] {
        let answer = gateway.post_raw(FORWARD, "application/json", body).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_json"), "{what}: {}", answer.text);
    }
    for (body, field) in [
        (json!([]), "body"),
        (json!({ "forward": 1 }), "forward"),
        (json!({ "forward": { "target_selector": { "stack_id": 1 } } }), "forward.target_selector.stack_id"),
        (json!({ "forward": { "target_selector": { "stack_id": "stk_b" } } }), "forward.run_request"),
    ] {
        assert_names(&gateway.post(FORWARD, &body).await, 400, "invalid_request", field);
    }
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", ""]
    {
        let answer = gateway.post_raw(FORWARD, kind, with_input("1")).await;
        assert_eq!(answer.code(), "unsupported_media_type", "{kind}: {}", answer.text);
    }
    let gzip = gateway.post_with(FORWARD, &forward_body("stk_b"), &[("content-encoding", "gzip")]).await;
    assert_eq!(gzip.code(), "unsupported_media_type", "{}", gzip.text);
    let large = gateway.post_raw(FORWARD, "application/json", vec![b' '; 1024 * 1024 + 1]).await.expect(413);
    assert_eq!(large.json["error"]["details"]["limit_bytes"], 1024 * 1024);
    // Numbers no float holds are opaque, and go on as they are.
    gateway.post_raw(FORWARD, "application/json", with_input("1e400")).await.expect(200);
    assert_eq!(home.truth().creates().len(), 1);
}

// reliability 4d.9
#[tokio::test]
async fn an_endless_body_is_cut_at_its_limit() {
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
    let chunk = raw::request("POST", FORWARD, &[JSON, ("transfer-encoding", "chunked")], b"");
    let answer = raw::send(gateway.address(), &[&chunk[..], b"zz\r\n"].concat()).await;
    assert_problem(&Document::load(), &answer, 400, "invalid_request", "a chunk without a size");
}

// reliability 4d.13, 4d.14, 4d.16
#[tokio::test]
async fn a_key_is_one_request_of_one_tenant() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let long = "k".repeat(300);
    for bad in ["", "\"", "\"a\"b\"", "a b", &long] {
        let answer = gateway.post_with(FORWARD, &forward_body("stk_b"), &[("idempotency-key", bad)]).await;
        assert_names(&answer, 400, "invalid_request", "Idempotency-Key");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
    assert_names(
        &gateway.post_with(FORWARD, &forward_body("stk_b"), &twice).await,
        400,
        "invalid_request",
        "Idempotency-Key",
    );
    let key = [("idempotency-key", "k")];
    let first = gateway.post_with(FORWARD, &forward_body("stk_b"), &key).await.expect(200);
    let mut other = forward_body("stk_b");
    other["forward"]["run_request"]["input"] = json!("other");
    let reused = gateway.post_with(FORWARD, &other, &key).await;
    assert_names(&reused, 422, "idempotency_key_reused", "idempotency_key");
    let foreign = [("idempotency-key", "k"), ("x-tenant-id", "tnt_other")];
    let second = gateway.post_with(FORWARD, &other, &foreign).await.expect(200);
    assert_ne!(first.json["forwarded"]["run_id"], second.json["forwarded"]["run_id"]);
    assert_eq!(home.truth().creates().len(), 2);
    assert_eq!(home.truth().keys().len(), 2, "the two never meet at the home");
}

// reliability 4d.18, 4d.19, 4d.21, 4d.22, A-12, A-24
#[tokio::test]
async fn a_cursor_is_honoured_or_refused() {
    let gateway = TestGateway::start(Vec::new()).await;
    let events = json!({ "events": [envelope("run_1", "e1", Some(1), "note"), envelope("run_1", "e2", Some(2), "agentos.run.completed")] });
    gateway.post(INGEST, &events).await.expect(200);
    let path = "/v1/federation/runs/run_1/events";
    for bad in ["-1", "abc", "1e3", "18446744073709551616", "", "%201", "0x1", "1.0", "+1", "%D9%A1"] {
        for name in ["from_sequence", "after_sequence", "starting_after"] {
            let answer = gateway.get(&format!("{path}?{name}={bad}")).await;
            assert_names(&answer, 400, "invalid_cursor", name);
        }
    }
    for query in ["from_sequence=1&from_sequence=1", "from_sequence=1&after_sequence=2"] {
        assert_eq!(
            gateway.get(&format!("{path}?{query}")).await.expect(400).code(),
            "invalid_cursor",
            "{query}"
        );
    }
    let long = "1".repeat(10 * 1024);
    for bad in ["x", "-1", "1 ", "\t", "a\tb", &long] {
        // A client strips blanks at the ends, so the bytes are sent by hand.
        let bytes = raw::request("GET", path, &[("last-event-id", bad), ("accept", "application/json")], b"");
        let answer = raw::send(gateway.address(), &bytes).await;
        let stripped = bad.trim();
        if stripped == "1" || stripped.is_empty() {
            assert!([200, 400].contains(&answer.status()), "{bad:?}: {}", answer.text);
        } else {
            assert_eq!(
                (answer.status(), answer.json()["error"]["code"].as_str()),
                (400, Some("invalid_cursor")),
                "{bad:?}"
            );
        }
    }
    assert_eq!(gateway.get(&format!("{path}?from_sequence=3")).await.expect(409).code(), "cursor_ahead");
    let header = [("last-event-id", "2"), ("accept", "text/event-stream")];
    gateway.get_with(&format!("{path}?from_sequence=1"), &header).await.expect(204);
    assert_eq!(gateway.get_with(path, &[("accept", "image/png")]).await.expect(406).code(), "not_acceptable");
}

// reliability 4d.20, defect 4
#[tokio::test]
async fn what_is_another_tenants_is_not_there() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let forwarded = gateway.post(FORWARD, &forward_body("stk_b")).await.expect(200);
    let run = forwarded.json["forwarded"]["run_id"].as_str().expect("a run");
    let forward = forwarded.json["forwarded"]["forward_id"].as_str().expect("a forward");
    let other = [("x-tenant-id", "tnt_other"), ("x-correlation-id", "req_same")];
    let shape = |answer: Answer| {
        let names: Vec<String> = answer.headers.keys().map(|name| name.as_str().to_owned()).collect();
        (answer.status, answer.text, names)
    };
    for path in
        ["/v1/federation/runs/{}", "/v1/federation/runs/{}/events", "/v1/runs/{}", "/v1/runs/{}/events"]
    {
        let held = gateway.get_with(&path.replace("{}", run), &other).await;
        let free = gateway.get_with(&path.replace("{}", "run_free"), &other).await;
        assert_eq!(held.status, 404);
        assert_eq!(shape(held), shape(free), "{path}");
    }
    for path in [
        "/v1/federation/runs/{}/cancel",
        "/v1/federation/runs/{}:cancel",
        "/v1/runs/{}/cancel",
        "/v1/runs/{}:cancel",
    ] {
        let held = gateway.post_with(&path.replace("{}", run), &Value::Null, &other).await;
        let free = gateway.post_with(&path.replace("{}", "run_free"), &Value::Null, &other).await;
        assert_eq!(held.status, 404);
        assert_eq!(shape(held), shape(free), "{path}");
    }
    let path = "/v1/federation/forwards/";
    let held = gateway.get_with(&format!("{path}{forward}"), &other).await;
    assert_eq!(shape(held), shape(gateway.get_with(&format!("{path}fwd_free"), &other).await));
    let listed = gateway.get_with("/v1/federation/runs", &other).await.expect(200);
    assert_eq!(listed.json["items"], json!([]));
    // Pushing into it changes nothing of it.
    let event = envelope(run, "evt_foreign", Some(1), "note");
    let pushed = gateway.post_with(INGEST, &json!({ "events": [event] }), &other).await.expect(200);
    assert_eq!(pushed.json["results"][0]["code"], "origin_mismatch");
    assert!(home.truth().cancel_requests(run).is_empty());
}

// reliability 4d.43, 4d.44, A-15
#[tokio::test]
async fn an_event_is_stored_as_it_is_or_not_at_all() {
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
async fn odd_paths_and_names_make_no_new_time_series() {
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
async fn streams_that_are_given_up_give_their_places_back() {
    let gateway = TestGateway::start(Vec::new()).await;
    gateway.post(INGEST, &json!({ "events": [envelope("run_1", "e1", None, "note")] })).await.expect(200);
    let path = "/v1/federation/runs/run_1/events";
    for _ in 0..200 {
        let mut stream = TcpStream::connect(gateway.address()).await.expect("a connection");
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
async fn a_peer_that_answers_a_create_with_nonsense_harms_nobody() {
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
async fn garbage_in_a_peers_stream_is_set_aside() {
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
async fn a_peers_stream_that_is_none_or_says_nothing_is_opened_again_calmly() {
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
async fn probes_take_no_body_and_the_document_names_no_host() {
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
