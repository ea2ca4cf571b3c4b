//! The rows that are one request each: what is sent, and what is answered. Nothing of it is stored or sent on.

use serde_json::{Value, json};

use crate::support::document::Document;
use crate::support::forwards::FORWARD;
use crate::support::gateway::{TestGateway, envelope, forward_body};
use crate::support::log::INGEST;
use crate::support::orchestrator::{RunStatus, ScriptedOrchestrator};
use crate::support::raw::{self, RawAnswer};

const JSON: (&str, &str) = ("content-type", "application/json");
const RUNS: &str = "/v1/federation/runs";
const EVENTS: &str = "/v1/federation/runs/run_1/events";
/// The connection may just end.
const CUT_OFF: u16 = 0;

/// One line: the row it belongs to, what is sent, and what is answered.
pub(super) struct Line {
    /// The number of its row.
    pub(super) row: u8,
    what: String,
    bytes: Vec<u8>,
    /// One of these.
    statuses: Vec<u16>,
    /// The code of our own body; empty where the answer need not have one.
    code: &'static str,
    /// The field that is named; empty where the code says it all.
    field: &'static str,
}

impl Line {
    fn new(row: u8, what: impl Into<String>, bytes: Vec<u8>, status: u16) -> Self {
        Line { row, what: what.into(), bytes, statuses: vec![status], code: "", field: "" }
    }

    fn code(self, code: &'static str) -> Self {
        Line { code, ..self }
    }

    fn names(self, field: &'static str) -> Self {
        Line { field, ..self }
    }

    fn or(mut self, status: u16) -> Self {
        self.statuses.push(status);
        self
    }
}

/// A whole `GET`.
fn get(target: &str) -> Vec<u8> {
    raw::request("GET", target, &[], b"")
}

/// A whole forward with this body.
fn forward(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    raw::request("POST", FORWARD, &[&[JSON], headers].concat(), body)
}

/// A forward whose input is this text.
fn with_input(input: &str) -> Vec<u8> {
    let whole = forward_body("stk_b").to_string();
    let (before, after) = whole.split_once(r#"{"text":"hello","type":"text"}"#).expect("the input");
    format!("{before}{input}{after}").into_bytes()
}

fn heads() -> Vec<Line> {
    let head = |line: &str| format!("POST {FORWARD} HTTP/1.1\r\nhost: g\r\n{line}\r\n\r\n").into_bytes();
    let bare = |text: &str| text.as_bytes().to_vec();
    let many = format!("GET /livez HTTP/1.1\r\nhost: g\r\n{}\r\n", "x-a: b\r\n".repeat(101));
    let huge = format!("GET /livez HTTP/1.1\r\nhost: g\r\nx-a: {}\r\n\r\n", "b".repeat(100 * 1024));
    let large = raw::request("GET", "/livez", &[("x-a", &"b".repeat(25 * 1024))], b"");
    let old = format!("POST {FORWARD} HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut lines = vec![
        Line::new(3, "101 headers", bare(&many), 431),
        Line::new(3, "100 KiB of headers", bare(&huge), 431),
        Line::new(3, "25 KiB of headers", large, 431).code("headers_too_large"),
        Line::new(3, "9 KiB of path", get(&format!("/{}", "a".repeat(9 * 1024))), 414).code("uri_too_long"),
        Line::new(3, "9 KiB of query", get(&format!("/livez?{}", "a".repeat(9 * 1024))), 414)
            .code("uri_too_long"),
        Line::new(3, "70 KiB of target", get(&format!("/{}", "a".repeat(70 * 1024))), 414)
            .or(431)
            .or(CUT_OFF),
        Line::new(5, "two lengths", head("content-length: 5\r\ncontent-length: 6"), 400),
        Line::new(5, "a signed length", head("content-length: +5"), 400),
        Line::new(5, "an unknown coding", head("transfer-encoding: xchunked"), 400),
        Line::new(5, "chunked is not last", head("transfer-encoding: chunked, gzip"), 400),
        Line::new(5, "a coding on HTTP/1.0", bare(&old), 400),
        Line::new(5, "a folded line", head("x-a: b\r\n c"), 400),
        Line::new(5, "a space before the colon", head("x-a : b"), 400),
        Line::new(5, "a bare CR", head("x-a: b\rx-c: d"), 400),
        Line::new(5, "a NUL", head("x-a: b\0c"), 400),
        Line::new(5, "a NUL in the target", bare("GET /\0 HTTP/1.1\r\nhost: g\r\n\r\n"), 400),
        Line::new(5, "a space in the target", bare("GET /a b HTTP/1.1\r\nhost: g\r\n\r\n"), 400),
        Line::new(5, "a TLS hello", bare("\x16\x03\x01\x02\0\x01\0\x01"), 400),
        // A version no one here speaks may be cut off without a word.
        Line::new(5, "an HTTP/2 preface", bare("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400).or(CUT_OFF),
    ];
    for method in ["BREW", "get", "CONNECT", "A'B"] {
        let bytes = raw::request(method, "/livez", &[], b"");
        lines.push(Line::new(27, format!("method {method}"), bytes, 405).or(400).or(404));
    }
    lines
}

fn bodies() -> Vec<Line> {
    let post = |body: Vec<u8>| forward(&[], &body);
    let is_json = |what: &str, body: Vec<u8>| Line::new(10, what, post(body), 400).code("invalid_json");
    let deep = |levels: usize| with_input(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    let utf16 = forward_body("stk_b").to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let chunked = forward(&[("transfer-encoding", "chunked")], b"");
    let gzip = forward(&[("content-encoding", "gzip")], &with_input("1"));
    let mut lines = vec![
        Line::new(9, "1 MiB and a byte", post(vec![b' '; 1024 * 1024 + 1]), 413).code("payload_too_large"),
        Line::new(9, "a packed body", gzip, 415).code("unsupported_media_type"),
        Line::new(9, "a chunk without a size", [&chunked, &b"zz\r\n"[..]].concat(), 400)
            .code("invalid_request"),
        is_json("nothing", Vec::new()),
        is_json("half", b"{\"forward\":".to_vec()),
        is_json("two", b"{}{}".to_vec()),
        is_json("depth 200", deep(200)),
        is_json("depth 100000", deep(100_000)),
        is_json("NaN", with_input("NaN")),
        is_json("a comment", with_input("1 /* x */")),
        is_json("a lone surrogate", with_input("\"\\ud800\"")),
        is_json("a control character", with_input("\"\u{1}\"")),
        is_json("bad UTF-8", b"{\"a\":\"\xff\"}".to_vec()),
        is_json("a BOM", [b"\xef\xbb\xbf".as_slice(), &with_input("1")].concat()),
        is_json("UTF-16", utf16),
    ];
    for (body, field) in [
        (json!([]), "body"),
        (json!({ "forward": 1 }), "forward"),
        (json!({ "forward": { "target_selector": { "stack_id": 1 } } }), "forward.target_selector.stack_id"),
        (json!({ "forward": { "target_selector": { "stack_id": "stk_b" } } }), "forward.run_request"),
    ] {
        let line = Line::new(10, body.to_string(), post(body.to_string().into_bytes()), 400);
        lines.push(line.code("invalid_request").names(field));
    }
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", ""]
    {
        let bytes = raw::request("POST", FORWARD, &[("content-type", kind)], &with_input("1"));
        lines.push(Line::new(10, format!("type {kind}"), bytes, 415).code("unsupported_media_type"));
    }
    let unknown = forward_body("stk_nowhere").to_string().into_bytes();
    lines.push(Line::new(12, "an unknown peer", post(unknown), 404).code("peer_not_found"));
    for key in ["", "\"", "\"a\"b\"", "a b", "a\tb", "caf\u{e9}", &"k".repeat(300)] {
        let bytes = forward(&[("idempotency-key", key)], &with_input("1"));
        let line = Line::new(13, format!("key {key:?}"), bytes, 400);
        lines.push(line.code("invalid_request").names("Idempotency-Key"));
    }
    let twice = forward(&[("idempotency-key", "a"), ("idempotency-key", "a")], &with_input("1"));
    lines.push(Line::new(13, "two keys", twice, 400).code("invalid_request").names("Idempotency-Key"));
    let reused = forward(&[("idempotency-key", "taken")], &with_input("2"));
    lines.push(
        Line::new(14, "another body", reused, 422).code("idempotency_key_reused").names("idempotency_key"),
    );
    lines
}

fn targets() -> Vec<Line> {
    let mut lines = Vec::new();
    for (row, target) in [
        (27, format!("{RUNS}/..%2f..%2f..%2fmetrics")),
        (27, format!("{RUNS}/a%00b")),
        (27, format!("{RUNS}/%zz")),
        (27, format!("{RUNS}/%")),
        (27, format!("{RUNS}/%25")),
        (27, format!("{RUNS}/%C3%A9")),
        (27, format!("{RUNS}/{}", "a".repeat(129))),
        (27, format!("{RUNS}/../../../metrics")),
        (27, "//livez".to_owned()),
        (27, "/livez/".to_owned()),
        (27, "/LIVEZ".to_owned()),
        (27, "*".to_owned()),
        (46, format!("{RUNS}/'%20OR%201=1--")),
        (62, format!("{RUNS}/a%0d%0aset-cookie:%20a=b")),
    ] {
        lines.push(Line::new(row, target.clone(), get(&target), 404).code("not_found"));
    }
    for (row, target, field) in [
        (27, format!("{RUNS}/%ff"), ""),
        (46, format!("{RUNS}?limit=99999999999999999999"), "limit"),
        (46, format!("{RUNS}?limit=1e2"), "limit"),
        (46, format!("{RUNS}?limit=%2B5"), "limit"),
        (46, format!("{RUNS}?limit=5&limit=6"), "limit"),
        (46, format!("{RUNS}?status='%20OR%201=1--"), "status"),
    ] {
        let line = Line::new(row, target.clone(), get(&target), 400);
        lines.push(line.code("invalid_request").names(field));
    }
    let injected = get(&format!("{RUNS}?cursor=';DROP%20TABLE%20runs"));
    lines.push(Line::new(46, "SQL as a cursor", injected, 400).code("invalid_cursor").names("cursor"));
    for path in ["/v1/health", "/v1/federation/health", "/livez", "/readyz", "/metrics", EVENTS] {
        let row = if path == EVENTS { 27 } else { 64 };
        let line = Line::new(row, format!("POST {path}"), raw::request("POST", path, &[JSON], b"{}"), 405);
        lines.push(line.code("method_not_allowed"));
    }
    lines
}

fn cursors() -> Vec<Line> {
    let mut lines = Vec::new();
    for name in ["from_sequence", "after_sequence", "starting_after"] {
        for bad in ["-1", "abc", "1e3", "18446744073709551616", "", "%201", "0x1", "1.0", "+1", "%D9%A1"] {
            let line = Line::new(18, format!("{name}={bad}"), get(&format!("{EVENTS}?{name}={bad}")), 400);
            lines.push(line.code("invalid_cursor").names(name));
        }
    }
    for query in ["from_sequence=1&from_sequence=1", "from_sequence=1&after_sequence=2"] {
        let line = Line::new(18, query, get(&format!("{EVENTS}?{query}")), 400);
        lines.push(line.code("invalid_cursor"));
    }
    let ahead = get(&format!("{EVENTS}?from_sequence=3"));
    lines.push(Line::new(19, "beyond the end", ahead, 409).code("cursor_ahead"));
    for bad in ["x", "-1", "1\0", "1\u{1}", "a\tb", &"1".repeat(10 * 1024)] {
        let bytes = raw::request("GET", EVENTS, &[("last-event-id", bad)], b"");
        let line = Line::new(21, format!("{:?}", &bad[..bad.len().min(8)]), bytes, 400);
        // What is no header at all never gets as far as a cursor.
        let is_header = !bad.contains(['\0', '\u{1}']);
        lines.push(if is_header { line.code("invalid_cursor") } else { line });
    }
    let picture = raw::request("GET", EVENTS, &[("accept", "image/png")], b"");
    lines.push(Line::new(22, "a picture of it", picture, 406).code("not_acceptable"));
    lines
}

/// Every line.
pub(super) fn lines() -> Vec<Line> {
    [heads(), bodies(), targets(), cursors()].into_iter().flatten().collect()
}

/// The lines above change nothing of this.
fn stored(gateway: &TestGateway, home: &ScriptedOrchestrator) -> Vec<usize> {
    let tables = ["runs", "forwards", "events", "streams", "idempotency"];
    let rows = tables.into_iter().map(|table| gateway.count_rows(table));
    rows.chain([home.truth().creates().len()]).collect()
}

/// Our own body, whatever the request was.
#[track_caller]
fn assert_problem(document: &Document, answer: &RawAnswer, line: &Line) {
    let (body, what): (Value, _) = (answer.json(), &line.what);
    document.assert_is("Problem", &body, what);
    assert_eq!(body["error"]["code"], line.code, "{what}: {}", answer.text);
    assert_eq!(body["correlation_id"], answer.header("x-request-id"), "{what}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    if !line.field.is_empty() {
        assert_eq!(body["error"]["details"]["field"], line.field, "{what}: {}", answer.text);
    }
}

// Z-44, A-12, A-24, defect 18
#[tokio::test]
pub(crate) async fn each_is_answered_as_the_table_says_and_changes_nothing() {
    let document = Document::load();
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let events =
        [envelope("run_1", "e1", Some(1), "note"), envelope("run_1", "e2", Some(2), "agentos.run.completed")];
    gateway.post(INGEST, &json!({ "events": events })).await.expect(200);
    // Numbers no float holds are opaque, and go on as they are.
    let taken =
        raw::send(gateway.address(), &forward(&[("idempotency-key", "taken")], &with_input("1e400"))).await;
    assert_eq!(taken.status(), 200, "{}", taken.text);
    let run = taken.json()["forwarded"]["run_id"].as_str().expect("a run").to_owned();
    home.finish(&run, RunStatus::Completed);
    gateway.until_run(&run, |run| run["status"] == "completed").await;
    let before = stored(&gateway, &home);
    for line in lines() {
        let answer = raw::send(gateway.address(), &line.bytes).await;
        let what = format!("row {}, {}", line.row, line.what);
        assert!(line.statuses.contains(&answer.status()), "{what}: {}", answer.text);
        assert!(answer.answers() <= 1, "{what}: {}", answer.text);
        assert_eq!(answer.header("set-cookie"), "", "{what}");
        if !line.code.is_empty() {
            assert_problem(&document, &answer, &line);
        }
        assert_eq!(stored(&gateway, &home), before, "{what} left something behind");
    }
    gateway.get("/readyz").await.expect(200);
}
