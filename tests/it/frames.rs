//! The bytes of an event stream, held against what real SSE clients break on.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::gateway::{TestGateway, envelope, events_path, test_config};
use crate::support::orchestrator::{RunStatus, ScriptedOrchestrator};
use crate::support::sse_client::{Frame, Response, SseClient};

async fn open(gateway: &TestGateway, run: &str) -> Response {
    SseClient::connect(gateway.address(), &events_path(run), &[]).await
}

fn text(frame: &Frame) -> &str {
    std::str::from_utf8(&frame.raw).expect("a frame is text")
}

// peers §3.1, A-15
#[tokio::test]
async fn each_frame_has_exactly_the_form_of_the_contract() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", [1, 2]).await;
    gateway.push_end("run_a", 3).await;
    let frames = open(&gateway, "run_a").await.collect_until_end().await;
    let [first, second, third, caught_up, end] = &frames[..] else { panic!("five frames: {frames:?}") };

    let retry = first.retry.expect("the first frame bears the reconnect time");
    assert!((1000..=3000).contains(&retry), "{retry}");
    for (frame, sequence) in [(first, 1), (second, 2), (third, 3)] {
        let federation = &frame.data["federation"];
        assert_eq!(federation["home"], "stk_local");
        let received_at = federation["received_at"].as_str().expect("a time");
        let prefix = if sequence == 1 { format!("retry: {retry}\n") } else { String::new() };
        let event = frame.event_text();
        let data = format!(
            "{{\"event\":{event},\"federation\":{{\"home\":\"stk_local\",\"received_at\":\"{received_at}\"}}}}"
        );
        let expected = format!("{prefix}id: {sequence}\nevent: agentos.event\ndata: {data}\n\n");
        assert_eq!(text(frame), expected);
    }
    assert_eq!(text(caught_up), "event: caught_up\ndata: {\"sequence\":3}\n\n");
    let body: Value = json!({"sequence": 3, "status": "completed"});
    assert_eq!(end.data, body);
    assert_eq!(text(end), format!("event: end\ndata: {body}\n\n"));
}

// peers §3.1: reconnects of many subscribers are spread.
#[tokio::test]
async fn the_reconnect_time_is_said_once_and_differs_between_connections() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", 1..=3).await;
    gateway.push_end("run_a", 4).await;
    let mut said = BTreeSet::new();
    for _ in 0..12 {
        let frames = open(&gateway, "run_a").await.collect_until_end().await;
        let retries: Vec<u64> = frames.iter().filter_map(|frame| frame.retry).collect();
        assert_eq!(retries.len(), 1);
        assert!((1000..=3000).contains(&retries[0]));
        said.insert(retries[0]);
    }
    assert!(said.len() > 3, "{said:?}");
}

// peers §3.2: `:hb` and one newline; a blank line behind it makes clients emit an empty event or crash.
#[tokio::test]
async fn a_quiet_stream_says_hb_with_one_newline_at_the_heartbeat() {
    const HEARTBEAT: Duration = Duration::from_millis(60);
    let mut config = test_config();
    config.events.heartbeat = HEARTBEAT;
    let gateway = TestGateway::start_with(config, vec![]).await;
    gateway.push_steps("run_a", [1]).await;
    let mut stream = open(&gateway, "run_a").await;
    assert_eq!(stream.next_frame().await.sequence(), 1);
    assert!(stream.next_frame().await.is("caught_up"));
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(text(&stream.next_frame().await), ":hb\n");
    }
    assert!(begun.elapsed() >= HEARTBEAT * 3, "{:?}", begun.elapsed());
    gateway.push_steps("run_a", [2]).await;
    loop {
        let frame = stream.next_frame().await;
        if frame.is_event() {
            assert_eq!((frame.sequence(), frame.retry), (2, None));
            break;
        }
        assert_eq!(text(&frame), ":hb\n");
    }
    stream.assert_no_frame_is_split();
}

// peers §3.2: a heartbeat is no frame, so the reconnect time waits for the first that is one.
#[tokio::test]
async fn a_heartbeat_before_any_event_leaves_the_first_frame_as_it_is() {
    let mut config = test_config();
    (config.events.heartbeat, config.events.gap_hold_pushed) =
        (Duration::from_millis(40), Duration::from_secs(60));
    let gateway = TestGateway::start_with(config, vec![]).await;
    gateway.push_steps("run_a", [2]).await;
    let mut stream = open(&gateway, "run_a").await;
    for _ in 0..2 {
        assert_eq!(text(&stream.next_frame().await), ":hb\n");
    }
    gateway.push_steps("run_a", [1]).await;
    let first = loop {
        let frame = stream.next_frame().await;
        if frame.comment.is_none() {
            break frame;
        }
    };
    assert_eq!(first.sequence(), 1);
    assert!(text(&first).starts_with("retry: "), "{first:?}");
}

// A-15, defect 16, peers §3.2: bytes stay, but for what splits lines in some clients.
#[tokio::test]
async fn an_event_keeps_its_bytes_but_for_space_between_and_separators_within() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    let odd = format!(
        concat!(
            r#"{{"time":"1999-12-31T23:59:60Z", "type":"acme.odd", "sequence":1, "event_id":"evt_odd","#,
            r#""tenant_id":"tnt_demo","run_id":"{}","zebra":1.50e1,"big":123456789012345678901234567890,"#,
            r#""payload":{{"b":1,"a":"\u00e9 é {}{}{} \ud83d\ude00", "nothing":null}}}}"#
        ),
        run, '\u{2028}', '\u{2029}', '\u{85}'
    );
    let kept = odd
        .replace(", \"", ",\"")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
        .replace('\u{85}', "\\u0085");
    let mut live = open(&gateway, &run).await;
    home.emit_event(&run, &odd);
    let frame = live.next_event().await;
    assert_eq!(frame.event_text(), kept);
    home.finish(&run, RunStatus::Completed);
    live.collect_until_end().await;

    // Live, replayed, as lines and as a page: the same bytes.
    let replayed = &open(&gateway, &run).await.collect_until_end().await[0];
    let from_id = |frame: &Frame| text(frame)[text(frame).find("id: ").expect("an id")..].to_owned();
    assert_eq!(from_id(replayed), from_id(&frame));
    let data = from_id(&frame);
    let data = data.lines().find_map(|line| line.strip_prefix("data: ")).expect("data").to_owned();
    for accept in ["application/x-ndjson", "application/json"] {
        let answer = gateway.get_with(&events_path(&run), &[("accept", accept)]).await.expect(200);
        assert!(answer.text.contains(&data), "{accept}: {}", answer.text);
    }
}

// peers §3.2: clients that read in blocks hang on a body that only its close delimits.
#[tokio::test]
async fn a_stream_is_chunked_each_chunk_ends_with_a_frame_and_the_last_chunk_says_so() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", 1..=300).await;
    let mut stream = open(&gateway, "run_a").await;
    for sequence in 1..=300 {
        assert_eq!(stream.next_event().await.sequence(), sequence);
    }
    assert!(stream.next_frame().await.is("caught_up"));
    for sequence in 301..=310 {
        gateway.push_steps("run_a", [sequence]).await;
        let before = stream.chunks().len();
        assert_eq!(stream.next_frame().await.sequence(), sequence);
        assert_eq!(stream.chunks().len(), before + 1, "a live event is one chunk");
    }
    stream.assert_no_frame_is_split();
    gateway.push_end("run_a", 311).await;
    let rest = stream.collect_until_end().await;
    assert!(rest.last().expect("frames").is("end"));
}

// L12: the worst event the door lets in, and those around it, reach every subscriber.
#[tokio::test]
async fn the_worst_event_that_is_taken_is_read_past_by_everybody() {
    let gateway = TestGateway::start(vec![]).await;
    let mut worst = envelope("run_a", "id:\\\"data:!", Some(2), "event:\\n");
    worst["event"]["payload"] = json!({
        "lines": "\r\n\r\ndata: {}\n\nid: 9\n\n",
        "nul": "\0", "quote": "\"\\", "line": "\u{b}\u{c}\u{1c}\u{1d}\u{1e}\u{2028}", "deep": [[[[[[[[{}]]]]]]]],
    });
    gateway.push_steps("run_a", [1]).await;
    let mut live = open(&gateway, "run_a").await;
    let answer = gateway.post("/v1/federation/events:ingest", &json!({"events": [worst]})).await.expect(200);
    assert_eq!(answer.json["accepted"], 1, "{}", answer.text);
    gateway.push_end("run_a", 3).await;
    for sequence in 1..=3 {
        assert_eq!(live.next_event().await.sequence(), sequence);
    }
    let replayed = open(&gateway, "run_a").await.collect_until_end().await;
    assert_eq!(replayed.iter().filter(|frame| frame.is_event()).count(), 3);
    assert_eq!(replayed[1].data["event"]["payload"], worst["event"]["payload"]);
}
