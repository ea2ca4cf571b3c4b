//! Following a run's events: where a stream starts, what it says, and that it is the same however it is cut.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::support::gateway::{TestGateway, envelope, events_path, test_config};
use crate::support::orchestrator::{RunStatus, ScriptedOrchestrator};
use crate::support::sse_client::{Abort, Follower, Frame, Response, RunEnd, SseClient};

const JSON: (&str, &str) = ("accept", "application/json");

async fn open(gateway: &TestGateway, run: &str, query: &str) -> Response {
    SseClient::connect(gateway.address(), &format!("{}{query}", events_path(run)), &[]).await
}

async fn page(gateway: &TestGateway, run: &str, query: &str) -> crate::support::gateway::Answer {
    gateway.get_with(&format!("{}{query}", events_path(run)), &[JSON]).await
}

fn sequences(frames: &[Frame]) -> Vec<u64> {
    frames.iter().filter(|frame| frame.is_event()).map(Frame::sequence).collect()
}

fn page_sequences(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().expect("events");
    events.iter().map(|entry| entry["event"]["sequence"].as_u64().expect("a sequence")).collect()
}

// A-19, A-24
#[tokio::test]
async fn history_then_caught_up_once_then_live_then_the_end_and_204_from_there_on() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", 1..=3).await;
    let mut stream = open(&gateway, "run_a", "").await;
    for sequence in 1..=3 {
        assert_eq!(stream.next_frame().await.sequence(), sequence);
    }
    let caught_up = stream.next_frame().await;
    assert!(caught_up.is("caught_up"));
    assert_eq!(caught_up.data, json!({"sequence": 3}));
    gateway.push_steps("run_a", [4]).await;
    assert_eq!(stream.next_frame().await.sequence(), 4);
    gateway.push_end("run_a", 5).await;
    let rest = stream.collect_until_end().await;
    assert_eq!(sequences(&rest), [5]);
    assert_eq!(rest.last().expect("an end").data, json!({"sequence": 5, "status": "completed"}));
    assert_eq!(rest.len(), 2);

    let done = open(&gateway, "run_a", "?from_sequence=5").await;
    assert_eq!((done.status, done.header("causeway-run-status")), (204, Some("completed")));
    let again = SseClient::connect(gateway.address(), &events_path("run_a"), &[("Last-Event-ID", "5")]).await;
    assert_eq!(again.status, 204);
}

// A-13, A-14, A-19, defect 1
#[tokio::test]
async fn a_cursor_is_exclusive_under_every_name_in_proxied_and_stored_mode_alike() {
    let home = ScriptedOrchestrator::start().await;
    home.auto_events(5, Duration::ZERO);
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let proxied = gateway.forward_run("stk_b").await;
    gateway.push_steps("stored", 1..=5).await;
    gateway.push_end("stored", 6).await;
    gateway.until_run(&proxied, |run| run["status"] == "completed").await;
    for run in [proxied.as_str(), "stored"] {
        for name in ["from_sequence", "after_sequence", "starting_after"] {
            for cursor in 0..=5 {
                let query = format!("?{name}={cursor}");
                let frames = open(&gateway, run, &query).await.collect_until_end().await;
                let left: Vec<u64> = (cursor + 1..=6).collect();
                assert_eq!(sequences(&frames), left, "{run} {query}");
                assert_eq!(page_sequences(&page(&gateway, run, &query).await.json), left, "{run} {query}");
            }
            assert_eq!(open(&gateway, run, &format!("?{name}=6")).await.status, 204);
        }
    }
}

// A-12, defect 1
#[tokio::test]
async fn a_cursor_that_is_none_is_refused_and_says_which() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", 1..=3).await;
    for (query, field) in [
        ("from_sequence=-1", "from_sequence"),
        ("from_sequence=1.5", "from_sequence"),
        ("after_sequence=abc", "after_sequence"),
        ("starting_after=", "starting_after"),
        ("from_sequence=+1", "from_sequence"),
        ("from_sequence=0x1", "from_sequence"),
        ("from_sequence=18446744073709551616", "from_sequence"),
        ("from_sequence=1&from_sequence=1", "from_sequence"),
        ("from_sequence=1&after_sequence=2", "after_sequence"),
    ] {
        for accept in ["text/event-stream", "application/json"] {
            let path = format!("{}?{query}", events_path("run_a"));
            let answer = gateway.get_with(&path, &[("accept", accept)]).await.expect(400);
            assert_eq!(answer.code(), "invalid_cursor", "{query}");
            assert_eq!(answer.json["error"]["details"]["field"], field, "{query}");
        }
    }
    for header in ["abc", "", "-1"] {
        let sent = [JSON, ("last-event-id", header)];
        let answer = gateway.get_with(&events_path("run_a"), &sent).await.expect(400);
        assert_eq!(answer.code(), "invalid_cursor", "{header:?}");
    }
    let twice = [JSON, ("last-event-id", "1"), ("last-event-id", "1")];
    gateway.get_with(&events_path("run_a"), &twice).await.expect(400);
    page(&gateway, "run_a", "?from_sequence=1&after_sequence=1").await.expect(200);
}

// A-24
#[tokio::test]
async fn the_larger_of_last_event_id_and_query_is_where_it_starts() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", 1..=6).await;
    for (query, header, first) in [("?from_sequence=2", "4", 5), ("?from_sequence=5", "4", 6), ("", "3", 4)] {
        let path = format!("{}{query}", events_path("run_a"));
        let mut stream = SseClient::connect(gateway.address(), &path, &[("Last-Event-ID", header)]).await;
        assert_eq!(stream.next_frame().await.sequence(), first, "{query} {header}");
    }
}

// L10, A-23
#[tokio::test]
async fn a_cursor_ahead_is_refused_on_a_finished_run_and_waits_on_another() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("done", [1]).await;
    gateway.push_end("done", 2).await;
    for query in ["?from_sequence=3", "?from_sequence=9223372036854775807"] {
        for accept in ["text/event-stream", "application/json"] {
            let path = format!("{}{query}", events_path("done"));
            let answer = gateway.get_with(&path, &[("accept", accept)]).await.expect(409);
            assert_eq!(
                (answer.code(), answer.json["error"]["details"]["last_sequence"].as_u64()),
                ("cursor_ahead", Some(2))
            );
        }
    }

    gateway.push_steps("open", [1]).await;
    let mut far = open(&gateway, "open", "?from_sequence=9223372036854775807").await;
    assert_eq!(far.next_frame().await.data["sequence"], i64::MAX);
    let mut ahead = open(&gateway, "open", "?from_sequence=3").await;
    assert!(ahead.next_frame().await.is("caught_up"));
    gateway.push_steps("open", 2..=4).await;
    assert_eq!(ahead.next_frame().await.sequence(), 4);
    assert_eq!(page(&gateway, "open", "?from_sequence=9").await.expect(200).json["next_from_sequence"], 9);
    // A run that ends before it comes to the cursor is not one that was followed to its end.
    let mut beyond = open(&gateway, "open", "?from_sequence=9").await;
    assert!(beyond.next_frame().await.is("caught_up"));
    gateway.push_end("open", 5).await;
    for stream in [&mut beyond, &mut far] {
        let refused = stream.next_frame().await;
        assert!(refused.is("stream_error"), "{refused:?}");
        assert_eq!(refused.data["error"]["code"], "cursor_ahead");
        assert_eq!(refused.data["error"]["details"]["last_sequence"], 5);
    }
}

// A-23, L8
#[tokio::test]
pub(crate) async fn a_cursor_below_what_retention_kept_is_refused_or_shown_as_a_gap() {
    let mut config = test_config();
    config.retention.max_events_per_tenant = 3;
    config.retention.sweep_interval = Duration::from_millis(100);
    let gateway = TestGateway::start_with(config, vec![]).await;
    gateway.push_steps("run_a", 1..=10).await;
    gateway.until_run("run_a", |run| run["oldest_sequence"] == 8).await;
    for cursor in [0, 6] {
        for accept in ["text/event-stream", "application/json"] {
            let path = format!("{}?from_sequence={cursor}", events_path("run_a"));
            let answer = gateway.get_with(&path, &[("accept", accept)]).await.expect(410);
            assert_eq!(answer.code(), "cursor_expired");
            assert_eq!(answer.json["error"]["details"]["oldest_sequence"], 8);
        }
    }
    for (cursor, first) in [(7, 8), (8, 9)] {
        let mut stream = open(&gateway, "run_a", &format!("?from_sequence={cursor}")).await;
        assert_eq!(stream.header("causeway-oldest-sequence"), Some("8"));
        assert_eq!(stream.next_frame().await.sequence(), first);
    }
    let mut stream = open(&gateway, "run_a", "?from_sequence=2&on_gap=skip").await;
    let gap = stream.next_frame().await;
    assert!(gap.is("gap"));
    assert_eq!((gap.data["from_sequence"].as_u64(), gap.data["to_sequence"].as_u64()), (Some(3), Some(7)));
    assert_eq!(gap.data["reason"], "retention");
    assert_eq!(stream.next_frame().await.sequence(), 8);
    let skipped = page(&gateway, "run_a", "?on_gap=skip").await.expect(200).json;
    assert_eq!(
        (&skipped["gaps"][0]["from_sequence"], &skipped["gaps"][0]["to_sequence"]),
        (&json!(1), &json!(7))
    );
    assert_eq!(page_sequences(&skipped), [8, 9, 10]);
}

// A-23, L8
#[tokio::test]
async fn a_finished_run_goes_whole_and_says_so() {
    let mut config = test_config();
    config.retention.events = Duration::from_millis(1);
    config.retention.sweep_interval = Duration::from_millis(100);
    let gateway = TestGateway::start_with(config, vec![]).await;
    gateway.push_steps("run_a", 1..=3).await;
    gateway.push_end("run_a", 4).await;
    gateway.until_run("run_a", |run| run["oldest_sequence"] == 5).await;
    for cursor in [0, 3] {
        let answer =
            gateway.get(&format!("{}?from_sequence={cursor}", events_path("run_a"))).await.expect(410);
        assert_eq!(answer.json["error"]["details"]["oldest_sequence"], 5);
    }
    assert_eq!(open(&gateway, "run_a", "?from_sequence=4").await.status, 204);
    let frames = open(&gateway, "run_a", "?on_gap=skip").await.collect_until_end().await;
    let names: Vec<_> = frames.iter().map(|frame| frame.event.as_deref().unwrap_or("")).collect();
    assert_eq!(names, ["gap", "caught_up", "end"]);
    assert_eq!(frames[0].data["to_sequence"], 4);
}

// A-19
#[tokio::test]
async fn accept_chooses_between_sse_ndjson_and_a_page_and_nothing_else() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", 1..=2).await;
    gateway.push_end("run_a", 3).await;
    for (accept, kind) in [
        ("text/event-stream", "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/json", "application/json"),
        ("application/json;q=0.2, text/event-stream", "text/event-stream"),
    ] {
        let answer = gateway.get_with(&events_path("run_a"), &[("accept", accept)]).await.expect(200);
        assert_eq!(answer.header("content-type"), kind, "{accept}");
    }
    let refused = gateway.get_with(&events_path("run_a"), &[("accept", "text/html")]).await.expect(406);
    assert_eq!(refused.code(), "not_acceptable");

    let ndjson = gateway.get_with(&events_path("run_a"), &[("accept", "application/x-ndjson")]).await;
    let lines: Vec<Value> =
        ndjson.text.lines().map(|line| serde_json::from_str(line).expect("a JSON text per line")).collect();
    assert_eq!(lines.len(), 5, "{}", ndjson.text);
    assert_eq!(lines[2]["event"]["sequence"], 3);
    assert_eq!(lines[3], json!({"caught_up": {"sequence": 3}}));
    assert_eq!(lines[4], json!({"end": {"sequence": 3, "status": "completed"}}));
}

#[tokio::test]
async fn without_follow_a_stream_ends_at_the_present_end() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", [1, 2, 4]).await;
    let frames = open(&gateway, "run_a", "?follow=false").await.collect_until_end().await;
    assert_eq!(sequences(&frames), [1, 2], "what lies behind a hole that is still held is not the end");
    assert!(frames.last().expect("frames").is("caught_up"));
    let answer = gateway.get(&format!("{}?follow=perhaps", events_path("run_a"))).await.expect(400);
    assert_eq!(answer.code(), "invalid_request");
}

// A-18, A-19
#[tokio::test]
async fn a_page_says_where_it_ends_what_it_passed_over_and_whether_there_is_more() {
    let mut config = test_config();
    config.events.gap_hold_pushed = Duration::from_millis(50);
    let gateway = TestGateway::start_with(config, vec![]).await;
    gateway.push_steps("run_a", [1, 2, 3, 7, 8]).await;
    let path = format!("{}?follow=false", events_path("run_a"));
    gateway.until(&path, |answer| answer.text.contains("id: 8")).await;
    let mut cursor = 0;
    for (sequences, next, more, gaps) in [
        (vec![1, 2], 2, true, json!([])),
        (
            vec![3, 7],
            7,
            true,
            json!([{"from_sequence": 4, "to_sequence": 6, "reason": "hold_timeout", "oldest_sequence": 1}]),
        ),
        (vec![8], 8, false, json!([])),
        (vec![], 8, false, json!([])),
    ] {
        let page =
            page(&gateway, "run_a", &format!("?from_sequence={cursor}&limit=2")).await.expect(200).json;
        assert_eq!(page_sequences(&page), sequences);
        assert_eq!((&page["next_from_sequence"], &page["has_more"]), (&json!(next), &json!(more)));
        assert_eq!(page["gaps"], gaps);
        assert_eq!((&page["oldest_sequence"], &page["high_water"]), (&json!(1), &json!(3)));
        assert_eq!(page["run"], json!({"status": "running"}));
        assert!(page["correlation_id"].is_string());
        cursor = next;
    }
    for limit in ["0", "1001", "x", "-1"] {
        page(&gateway, "run_a", &format!("?limit={limit}")).await.expect(400);
    }
}

#[tokio::test]
async fn the_head_says_where_the_run_stands_and_leaves_before_the_first_event() {
    let mut config = test_config();
    config.events.gap_hold_pushed = Duration::from_secs(60);
    let gateway = TestGateway::start_with(config, vec![]).await;
    gateway.push_steps("run_a", [2]).await;
    let sent = [("Accept-Encoding", "gzip, br")];
    let mut stream = SseClient::connect(gateway.address(), &events_path("run_a"), &sent).await;
    for (name, value) in [
        ("content-type", Some("text/event-stream")),
        ("cache-control", Some("no-cache, no-transform")),
        ("x-accel-buffering", Some("no")),
        ("causeway-oldest-sequence", Some("1")),
        ("causeway-high-water", Some("0")),
        ("causeway-run-status", Some("running")),
        ("transfer-encoding", Some("chunked")),
        ("content-encoding", None),
        ("content-length", None),
        ("connection", None),
    ] {
        assert_eq!(stream.header(name), value, "{name}");
    }
    stream.assert_silent_for(Duration::from_millis(50)).await;
    // A-18, defect 3: the late event fills the hole while it is held, and nobody hears of a gap.
    gateway.push_steps("run_a", [1]).await;
    assert_eq!(stream.next_frame().await.sequence(), 1);
    assert_eq!(stream.next_frame().await.sequence(), 2);
    assert!(stream.next_frame().await.is("caught_up"));
}

// A-18, defect 3
#[tokio::test]
async fn a_hole_is_announced_after_the_hold_and_what_comes_later_is_there_to_replay() {
    let mut config = test_config();
    config.events.gap_hold_pushed = Duration::from_millis(100);
    let gateway = TestGateway::start_with(config, vec![]).await;
    gateway.push_steps("run_a", [1, 4]).await;
    let mut stream = open(&gateway, "run_a", "").await;
    assert_eq!(stream.next_frame().await.sequence(), 1);
    let gap = stream.next_frame().await;
    assert_eq!((&gap.data["from_sequence"], &gap.data["to_sequence"]), (&json!(2), &json!(3)));
    assert_eq!(gap.data["reason"], "hold_timeout");
    assert_eq!(stream.next_frame().await.sequence(), 4);
    assert!(stream.next_frame().await.is("caught_up"));

    gateway.push_steps("run_a", [2, 3]).await;
    gateway.push_steps("run_a", [5]).await;
    assert_eq!(stream.next_frame().await.sequence(), 5, "what lies behind a subscriber is not sent to it");
    assert_eq!(page_sequences(&page(&gateway, "run_a", "").await.json), [1, 2, 3, 4, 5]);
    let replay = open(&gateway, "run_a", "?follow=false").await.collect_until_end().await;
    assert_eq!(sequences(&replay), [1, 2, 3, 4, 5]);
}

// A-18: each hole costs memory and a row, so they are counted.
#[tokio::test]
async fn a_stream_with_too_many_holes_takes_no_further_one_but_lets_them_be_filled() {
    let gateway = TestGateway::start(vec![]).await;
    let evens: Vec<u64> = (1..=1024).map(|hole| hole * 2).collect();
    for part in evens.chunks(500) {
        gateway.push_steps("run_a", part.iter().copied()).await;
    }
    let event = envelope("run_a", "evt_more", Some(2050), "agentos.run.step.completed");
    let refused =
        gateway.post("/v1/federation/events:ingest", &json!({"events": [event]})).await.expect(200).json;
    assert_eq!((&refused["accepted"], &refused["results"][0]["status"]), (&json!(0), &json!("rejected")));
    assert!(refused["results"][0]["reason"].as_str().expect("a reason").contains("holes"), "{refused}");
    gateway.push_steps("run_a", [1, 2049, 2050]).await;
}

// A tenant's thing that is not there, for another.
#[tokio::test]
async fn another_tenants_run_answers_as_one_that_is_not_there() {
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", [1]).await;
    let sent = [("x-tenant-id", "tnt_other"), ("x-correlation-id", "req_same")];
    for accept in ["text/event-stream", "application/json"] {
        let ask = |run: &str| {
            let path = format!("{}?from_sequence=9", events_path(run));
            let headers = [sent[0], sent[1], ("accept", accept)];
            let gateway = &gateway;
            async move { gateway.get_with(&path, &headers).await.expect(404) }
        };
        assert_eq!(ask("run_a").await.text, ask("run_b").await.text);
    }
}

#[tokio::test]
pub(crate) async fn open_streams_are_counted_per_principal_and_in_all() {
    let mut config = test_config();
    (config.server.max_streams, config.server.max_streams_per_principal) = (3, 2);
    let gateway = TestGateway::start_with(config, vec![]).await;
    gateway.push_steps("run_a", [1]).await;
    let first = open(&gateway, "run_a", "").await;
    let _second = open(&gateway, "run_a", "").await;
    let refused = gateway.get(&events_path("run_a")).await.expect(429);
    assert_eq!(refused.code(), "too_many_streams");
    assert!(!refused.header("retry-after").is_empty());
    let another = [("X-Principal-Id", "usr_b")];
    let third = SseClient::connect(gateway.address(), &events_path("run_a"), &another).await;
    assert_eq!(third.status, 200);
    let full = gateway.get_with(&events_path("run_a"), &[("x-principal-id", "usr_c")]).await.expect(503);
    assert_eq!(full.code(), "busy");
    page(&gateway, "run_a", "").await.expect(200);
    first.abort(Abort::Close);
    gateway.until("/metrics", |metrics| metrics.text.contains("sse_streams_open 2\n")).await;
    assert_eq!(open(&gateway, "run_a", "").await.status, 200);
}

// L6, L7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_at_any_cursor_during_appends_sees_each_event_once_and_in_order() {
    const LAST: u64 = 240;
    let gateway = TestGateway::start(vec![]).await;
    gateway.push_steps("run_a", [1]).await;
    let mut chance = StdRng::seed_from_u64(7);
    let mut joiners = Vec::new();
    let mut next = 2;
    while next < LAST {
        let to = (next + chance.random_range(0..8)).min(LAST - 1);
        gateway.push_steps("run_a", next..=to).await;
        next = to + 1;
        let after = chance.random_range(0..=to);
        let mut follower = Follower::new(gateway.address(), &events_path("run_a")).after(after);
        joiners.push(
            TaskTracker::new()
                .spawn(async move { (after, follower.follow_to_end().await, follower.sequences()) }),
        );
    }
    gateway.push_end("run_a", LAST).await;
    assert!(joiners.len() > 30);
    for joiner in joiners {
        let (after, end, seen) = joiner.await.expect("a follower");
        assert_eq!(end, RunEnd::Ended { sequence: LAST, status: "completed".to_owned() });
        assert_eq!(seen, (after + 1..=LAST).collect::<Vec<_>>());
    }
}

// L6: the id last received whole is all that counts, wherever the connection was cut.
#[tokio::test]
async fn a_stream_cut_at_any_byte_resumes_without_duplicate_or_hole() {
    const LAST: u64 = 30;
    /// No frame of an event is shorter.
    const SHORTEST: usize = 300;
    let gateway = TestGateway::start(vec![]).await;
    let text = "ä\u{2028}日本\r\n";
    let events: Vec<Value> = (1..LAST)
        .map(|sequence| {
            let mut event =
                envelope("run_a", &format!("e{sequence}"), Some(sequence), "agentos.run.step.completed");
            event["event"]["payload"] = json!({ "text": text.repeat(sequence as usize % 5) });
            event
        })
        .collect();
    gateway.post("/v1/federation/events:ingest", &json!({ "events": events })).await.expect(200);
    gateway.push_end("run_a", LAST).await;
    let mut chance = StdRng::seed_from_u64(11);
    let (mut last, mut seen, mut cuts) = (0_u64, Vec::new(), 0);
    while LAST - last > 1 {
        let stream = SseClient::connect(
            gateway.address(),
            &events_path("run_a"),
            &[("Last-Event-ID", &last.to_string())],
        )
        .await;
        let most = SHORTEST * usize::try_from((LAST - last).min(5)).expect("few");
        let how = if cuts % 2 == 0 { Abort::Reset } else { Abort::Close };
        let bytes = stream.read_bytes_then_cut(chance.random_range(1..=most), how).await;
        let whole = bytes.windows(2).rposition(|pair| pair == b"\n\n").map_or(0, |at| at + 2);
        let text = std::str::from_utf8(&bytes[..whole]).expect("whole frames are text");
        for id in text.lines().filter_map(|line| line.strip_prefix("id: ")) {
            last = id.parse().expect("an id is a sequence");
            seen.push(last);
        }
        cuts += 1;
    }
    let rest = open(&gateway, "run_a", &format!("?from_sequence={last}")).await.collect_until_end().await;
    seen.extend(sequences(&rest));
    assert!(cuts > 5);
    assert_eq!(seen, (1..=LAST).collect::<Vec<_>>());
}

// L6, A-04
#[tokio::test]
async fn a_follower_goes_on_where_it_was_when_the_gateway_comes_back() {
    let home = ScriptedOrchestrator::start().await;
    let mut gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 5);
    let mut follower = Follower::new(gateway.address(), &events_path(&run));
    follower.follow_events(3).await;
    gateway.restart().await;
    home.emit_steps(&run, 5);
    follower.follow_events(8).await;
    gateway.stop().await;
    home.emit_steps(&run, 5);
    home.finish(&run, RunStatus::Failed);
    gateway.start_again().await.expect("it starts again");
    let end = follower.follow_to_end().await;
    assert_eq!(end, RunEnd::Ended { sequence: 16, status: "failed".to_owned() });
    assert_eq!(follower.sequences(), (1..=16).collect::<Vec<_>>());
    assert!(follower.gaps().is_empty() && follower.connects() >= 2);
    let held: Vec<_> = home.events(&run).into_iter().map(|event| event.text).collect();
    let seen: Vec<_> = follower.seen().iter().map(|event| event.text.clone()).collect();
    assert_eq!(seen, held);
}

// R-34, defect 15: the successor's fan-out drops events for slow subscribers without telling them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn a_subscriber_that_does_not_read_is_cut_and_harms_nobody() {
    let mut config = test_config();
    config.server.write_stall = Duration::from_secs(4);
    let gateway = TestGateway::start_with(config, vec![]).await;
    gateway.push_steps("run_a", [1]).await;
    let mut stalled = open(&gateway, "run_a", "").await;
    assert_eq!(stalled.next_frame().await.sequence(), 1);
    let mut reading = open(&gateway, "run_a", "").await;
    let reader = TaskTracker::new().spawn(async move {
        for sequence in 1..=22 {
            assert_eq!(reading.next_event().await.sequence(), sequence);
        }
        reading
    });
    let filler = "x".repeat(900 * 1024);
    for part in 0..3_u64 {
        let large = |at: u64| {
            let sequence = 2 + part * 7 + at;
            let mut event =
                envelope("run_a", &format!("e{sequence}"), Some(sequence), "agentos.run.step.completed");
            event["event"]["payload"] = json!({ "text": filler });
            event
        };
        let body = json!({ "events": (0..7).map(large).collect::<Vec<_>>() });
        gateway.post("/v1/federation/events:ingest", &body).await.expect(200);
    }
    let _reading = reader.await.expect("the other subscriber sees everything");
    gateway.until("/metrics", |metrics| metrics.text.contains("sse_streams_open 1\n")).await;
    let mut last = 1;
    let broken = loop {
        match stalled.try_next().await {
            Ok(Some(frame)) if frame.is_event() => last = frame.sequence(),
            Ok(Some(_)) => {}
            Ok(None) => panic!("a stalled stream was ended as if it were whole, after {last}"),
            Err(broken) => break broken,
        }
    };
    assert!(last < 22, "{broken:?}: it was never stalled");
    let mut resumed = open(&gateway, "run_a", &format!("?from_sequence={last}")).await;
    assert_eq!(resumed.next_frame().await.sequence(), last + 1);
}
