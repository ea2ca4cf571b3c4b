//! The upstream reader: whatever a home does to its stream, the log gets each event once and the run ends.

use std::time::Duration;

use causeway::domain::peer::PeerKind;
use causeway::domain::run::RunStatus as Status;
use causeway::services::peer_options::TerminalEvent;
use causeway::store::DATABASE_FILE;
use serde_json::{Value, json};

use crate::support::gateway::{TestGateway, events_path, peer, test_config};
use crate::support::orchestrator::{
    CreateFault, CursorRule, GarbageFrame, LineEnding, Omission, RunStatus, ScriptedOrchestrator,
    StreamAnswer, StreamEnd, StreamScript,
};
use crate::support::sse_client::{Follower, Gap, RunEnd, SseClient};

/// A home whose runs emit this many steps and complete as soon as they are created, behind a gateway.
async fn home_with(steps: usize) -> (ScriptedOrchestrator, TestGateway) {
    let home = ScriptedOrchestrator::start().await;
    home.auto_events(steps, Duration::ZERO);
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    (home, gateway)
}

fn follower(gateway: &TestGateway, run: &str) -> Follower {
    Follower::new(gateway.address(), &events_path(run))
}

fn ended(sequence: u64, status: &str) -> RunEnd {
    RunEnd::Ended { sequence, status: status.to_owned() }
}

/// Follows to the end and holds what was seen against the home's own log, byte for byte.
async fn assert_whole(home: &ScriptedOrchestrator, gateway: &TestGateway, run: &str) {
    let mut follower = follower(gateway, run);
    let end = follower.follow_to_end().await;
    assert!(matches!(end, RunEnd::Ended { .. }), "{end:?}");
    assert_eq!(follower.gaps(), []);
    let seen: Vec<_> = follower.seen().iter().map(|event| &event.text).collect();
    let held = home.events(run);
    assert_eq!(seen, held.iter().map(|event| &event.text).collect::<Vec<_>>());
}

//
#[tokio::test]
async fn a_run_is_read_to_its_end_while_nobody_listens() {
    let (home, gateway) = home_with(3).await;
    let run = gateway.forward_run("stk_b").await;
    let view = gateway.until_run(&run, |run| run["follow"]["state"] == "finished").await;
    assert_eq!((&view["status"], &view["high_water"]), (&json!("completed"), &json!(4)));
    home.until("the stream to be left", |truth| truth.open_streams(&run) == 0).await;
    home.stop().await;
    assert_whole(&home, &gateway, &run).await;
}

// defect 10
#[tokio::test]
async fn a_stream_cut_at_any_byte_is_taken_up_where_the_log_ends() {
    let (home, gateway) = home_with(6).await;
    let cut = |bytes| StreamScript { cut_after_bytes: Some(bytes), ..StreamScript::default() };
    home.next_streams((0..12).map(|step| cut(step * 113)));
    let run = gateway.forward_run("stk_b").await;
    assert_whole(&home, &gateway, &run).await;
    assert!(home.truth().events_requests(&run).len() > 5);
    assert_eq!(gateway.metric("events_duplicate_total").await, 0.0, "nothing was asked for twice");
}

// A-25, defect 1
#[tokio::test]
async fn the_cursor_is_said_under_every_name_a_home_may_know() {
    let (home, gateway) = home_with(5).await;
    for only in ["from_sequence", "after_sequence", "last-event-id"] {
        let cursor = CursorRule::Only(only);
        home.streams(StreamScript { cursor, end: StreamEnd::AfterEvents(2), ..StreamScript::default() });
        let run = gateway.forward_run("stk_b").await;
        assert_whole(&home, &gateway, &run).await;
        let truth = home.truth();
        let requests = truth.events_requests(&run);
        for (request, after) in requests.iter().zip([0, 2, 4]) {
            let after = after.to_string();
            for name in ["from_sequence", "after_sequence"] {
                assert_eq!(request.cursor(name), Some(after.as_str()), "{name}");
            }
            let header = (after != "0").then_some(after.as_str());
            assert_eq!(request.cursor("last-event-id"), header);
            let accepts = request.request.headers.iter().filter(|(name, _)| name == "accept");
            assert_eq!(accepts.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["text/event-stream"]);
        }
        assert_eq!(requests.len(), 3, "{only}");
    }
    assert_eq!(gateway.metric("events_duplicate_total").await, 0.0);
}

// defects 2 and 3
#[tokio::test]
async fn repeats_disorder_and_ignored_cursors_change_nothing_of_what_is_served() {
    let (home, gateway) = home_with(40).await;
    for seed in 1..=3 {
        let script = StreamScript {
            repeat: 1..=5,
            shuffle_window: 8,
            seed,
            cursor: CursorRule::Ignore,
            ..StreamScript::default()
        };
        home.next_streams([StreamScript { cut_after_bytes: Some(9000), ..script.clone() }]);
        home.streams(script);
        let run = gateway.forward_run("stk_b").await;
        assert_whole(&home, &gateway, &run).await;
        assert_eq!(gateway.count_rows(&format!("events WHERE position >> 32 = {seed}")), 41);
    }
    gateway.until_metric("events_duplicate_total", |count| count > 0.0).await;
    assert_eq!(gateway.metric("events_conflict_total").await, 0.0);
}

//
#[tokio::test]
async fn a_restart_of_either_side_loses_nothing() {
    let home = ScriptedOrchestrator::start().await;
    let mut gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 3);
    gateway.until_run(&run, |run| run["high_water"] == 3).await;
    home.stop().await;
    home.emit_steps(&run, 2);
    home.restart().await;
    gateway.until_run(&run, |run| run["high_water"] == 5).await;
    gateway.stop().await;
    home.emit_steps(&run, 2);
    gateway.start_again().await.expect("it starts again");
    gateway.until_run(&run, |run| run["high_water"] == 7).await;
    home.finish(&run, RunStatus::Canceled);
    assert_whole(&home, &gateway, &run).await;
    assert_eq!(gateway.metric("events_duplicate_total").await, 0.0);
}

// defect 10: the origin takes the end of a connection for the end of the run.
#[tokio::test]
async fn the_end_of_a_connection_is_not_the_end_of_the_run() {
    let home = ScriptedOrchestrator::start().await;
    home.streams(StreamScript { end: StreamEnd::WhenDrained, ..StreamScript::default() });
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 2);
    home.until("the run to be read again and asked for", |truth| {
        truth.events_requests(&run).len() >= 3 && truth.status_requests(&run).len() >= 2
    })
    .await;
    gateway.until_run(&run, |view| view["high_water"] == 2 && view["status"] == "running").await;
    home.emit_steps(&run, 2);
    home.finish(&run, RunStatus::Completed);
    assert_whole(&home, &gateway, &run).await;
}

// the home passed over it, and passed over it again.
#[tokio::test]
async fn a_hole_nothing_fills_is_read_again_then_announced_and_stays_so() {
    let home = ScriptedOrchestrator::start().await;
    let omit = vec![Omission { sequence: 3, until_read: None }];
    home.streams(StreamScript { omit, ..StreamScript::default() });
    let mut gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 5);
    let mut live = follower(&gateway, &run);
    live.follow_events(4).await;
    let gap = Gap { missing: 3..=3, reason: "upstream".to_owned() };
    assert_eq!((live.sequences(), live.gaps()), (vec![1, 2, 4, 5], &[gap.clone()][..]));
    let truth = home.truth();
    assert_eq!(truth.events_requests(&run)[1].cursor("from_sequence"), Some("2"));

    gateway.restart().await;
    let view = gateway.until_run(&run, |run| run["follow"]["state"] == "following").await;
    assert_eq!(view["gaps"], json!([{"from_sequence": 3, "to_sequence": 3, "reason": "upstream"}]));
    home.finish(&run, RunStatus::Completed);
    assert_eq!(live.follow_to_end().await, ended(6, "completed"));
    let last = home.truth();
    let last =
        last.events_requests(&run).last().and_then(|seen| seen.cursor("from_sequence")).map(str::to_owned);
    assert_eq!(last.as_deref(), Some("5"), "a gap known for good is passed over after a restart too");
}

//
#[tokio::test]
async fn a_finished_run_with_a_hole_is_not_waited_for_at_a_stream_that_stays_open() {
    let (home, gateway) = home_with(4).await;
    let omit = vec![Omission { sequence: 2, until_read: None }];
    home.streams(StreamScript { omit, end: StreamEnd::Never, ..StreamScript::default() });
    let run = gateway.forward_run("stk_b").await;
    let mut live = follower(&gateway, &run);
    assert_eq!(live.follow_to_end().await, ended(5, "completed"));
    assert_eq!(live.sequences(), [1, 3, 4, 5]);
    home.until("the reader to leave", |truth| truth.open_streams(&run) == 0).await;
}

//
#[tokio::test]
async fn a_run_that_ended_over_a_hole_is_read_again_after_a_restart() {
    let (home, mut gateway) = home_with(4).await;
    let omit = vec![Omission { sequence: 2, until_read: None }];
    home.next_streams([StreamScript { omit, ..StreamScript::default() }]);
    home.streams(StreamScript { answer: StreamAnswer::Hang, ..StreamScript::default() });
    let run = gateway.forward_run("stk_b").await;
    let view = gateway.until_run(&run, |run| run["last_sequence"] == 5).await;
    assert_eq!((view["status"].as_str(), view["high_water"].as_u64()), (Some("completed"), Some(1)));

    gateway.stop().await;
    home.streams(StreamScript::default());
    gateway.start_again().await.expect("the gateway starts again");
    gateway.until_run(&run, |run| run["high_water"] == 5 && run["follow"]["state"] == "finished").await;
    assert_whole(&home, &gateway, &run).await;
}

//
#[tokio::test]
async fn a_hole_that_a_later_reading_fills_is_no_gap() {
    for until_read in [2, 3] {
        let (home, gateway) = home_with(5).await;
        let omit = vec![Omission { sequence: 3, until_read: Some(until_read) }];
        // The second reading breaks before it proves anything, where the third is to fill the hole.
        let broken =
            StreamScript { cut_after_bytes: Some(10), omit: omit.clone(), ..StreamScript::default() };
        let first = StreamScript { omit: omit.clone(), end: StreamEnd::Never, ..StreamScript::default() };
        home.next_streams([first].into_iter().chain((until_read == 3).then_some(broken)));
        home.streams(StreamScript { omit, ..StreamScript::default() });
        let run = gateway.forward_run("stk_b").await;
        assert_whole(&home, &gateway, &run).await;
    }
}

// L12, defect 10
#[tokio::test]
async fn garbage_between_events_is_set_aside_and_counted_and_the_stream_goes_on() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    let garbage = GarbageFrame::one_of_each(2 << 20);
    for kind in &garbage {
        home.emit_steps(&run, 1);
        home.emit_garbage(&run, *kind);
    }
    home.finish(&run, RunStatus::Completed);
    assert_whole(&home, &gateway, &run).await;
    assert_eq!(home.truth().events_requests(&run).len(), 1, "no garbage costs a connection");
    // A marker that says it is done is known, and no garbage.
    let aside = garbage.len() - 1;
    gateway.until_metric("upstream_invalid_total{peer=\"stk_b\"}", |count| count == aside as f64).await;
    assert_eq!(gateway.count_rows("events_aside WHERE kind = 'upstream_invalid'"), aside);
    assert_eq!(gateway.count_rows("audit WHERE action = 'events.set_aside'"), 1);
}

// peers §3.3, L12
#[tokio::test]
async fn any_line_end_a_byte_order_mark_and_any_cut_into_chunks_are_read() {
    let (home, gateway) = home_with(4).await;
    for (line_ending, chunk_bytes) in [
        (LineEnding::Cr, None),
        (LineEnding::CrLf, Some(1)),
        (LineEnding::Lf, Some(7)),
        (LineEnding::Cr, Some(1)),
    ] {
        let prelude = b"\xef\xbb\xbf:hello\n".to_vec();
        home.streams(StreamScript { line_ending, chunk_bytes, prelude, ..StreamScript::default() });
        let run = gateway.forward_run("stk_b").await;
        assert_whole(&home, &gateway, &run).await;
    }
    assert_eq!(gateway.metric("upstream_invalid_total{peer=\"stk_b\"}").await, 0.0);
}

//
#[tokio::test]
async fn a_stream_without_a_byte_is_left_and_one_with_heartbeats_is_kept() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.reader.idle_timeout = Duration::from_millis(200);
    let gateway =
        TestGateway::start_with(config, vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)]).await;
    let stalled = StreamScript { stall_after_events: Some(2), ..StreamScript::default() };
    home.next_streams([stalled]);
    home.streams(StreamScript { heartbeat: Some(Duration::from_millis(50)), ..StreamScript::default() });
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 4);
    gateway.until_run(&run, |run| run["high_water"] == 4).await;
    let mut stream = SseClient::connect(gateway.address(), &events_path(&run), &[]).await;
    for _ in 0..5 {
        stream.next_frame().await;
    }
    stream.assert_silent_for(Duration::from_millis(600)).await;
    assert_eq!(home.truth().events_requests(&run).len(), 2, "three idle timeouts passed under heartbeats");
    home.finish(&run, RunStatus::Completed);
    assert_whole(&home, &gateway, &run).await;
}

#[tokio::test]
async fn a_run_its_home_does_not_know_is_lost_and_everybody_is_told() {
    for code in [404, 410] {
        let home = ScriptedOrchestrator::start().await;
        let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
        let run = gateway.forward_run("stk_b").await;
        home.emit_steps(&run, 2);
        let mut live = follower(&gateway, &run);
        live.follow_events(2).await;
        home.streams(StreamScript { answer: StreamAnswer::Status(code), ..StreamScript::default() });
        home.cut_streams();
        assert_eq!(live.follow_to_end().await, RunEnd::Error("run_lost".to_owned()));
        let view = gateway.until_run(&run, |run| run["status"] == "lost").await;
        assert_eq!(view["follow"]["state"], "lost");
        assert_eq!(gateway.get(&format!("/v1/runs/{run}")).await.expect(410).code(), "run_lost");
        assert_eq!(gateway.count_rows("audit WHERE action = 'run.lost'"), 1);
        let mut late = follower(&gateway, &run);
        assert_eq!(late.follow_to_end().await, RunEnd::Error("run_lost".to_owned()));
        assert_eq!(late.sequences(), [1, 2], "what was read stays");
    }
}

// defect 5
#[tokio::test]
async fn what_is_no_stream_is_tried_again_ever_more_slowly_and_never_followed_elsewhere() {
    let elsewhere = ScriptedOrchestrator::start().await;
    let target = format!("{}/v1/runs/run_x/events", elsewhere.base_url());
    let (html, redirect) =
        (StreamAnswer::ContentType("text/html".to_owned()), StreamAnswer::Redirect(target));
    for answer in [html, redirect, StreamAnswer::Status(500), StreamAnswer::Drop] {
        let (home, gateway) = home_with(3).await;
        home.streams(StreamScript { answer, ..StreamScript::default() });
        let run = gateway.forward_run("stk_b").await;
        let truth = home.until("six tries", |truth| truth.events_requests(&run).len() >= 6).await;
        let times: Vec<_> = truth.events_requests(&run).iter().map(|seen| seen.request.at).collect();
        // Three quick tries at 125 ms or more, then at least half of a growing pause.
        for (pair, least) in times.windows(2).zip([125, 125, 125, 10, 20]) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(least), "{:?}", pair[1] - pair[0]);
        }
        gateway.until_run(&run, |run| run["status"] != "lost" && run["high_water"] == 0).await;
        home.streams(StreamScript::default());
        assert_whole(&home, &gateway, &run).await;
    }
    assert!(elsewhere.truth().requests().is_empty());
}

#[tokio::test]
async fn a_configured_type_ends_a_run() {
    let home = ScriptedOrchestrator::start().await;
    home.streams(StreamScript { end: StreamEnd::Never, ..StreamScript::default() });
    let mut options = peer("stk_b", &home.base_url(), PeerKind::Orchestrator);
    options.terminal_events =
        vec![TerminalEvent { event_type: "acme.done".to_owned(), status: Status::Failed }];
    let gateway = TestGateway::start(vec![options]).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 1);
    home.emit(&run, "acme.done", json!({}));
    let mut live = follower(&gateway, &run);
    assert_eq!(live.follow_to_end().await, ended(2, "failed"));
    home.until("the reader to leave", |truth| truth.open_streams(&run) == 0).await;
}

// defect 16
#[tokio::test]
async fn a_run_that_only_its_status_ends_is_closed_here_and_marked_as_derived() {
    for status in [RunStatus::Completed, RunStatus::Failed, RunStatus::Canceled] {
        let home = ScriptedOrchestrator::start().await;
        home.streams(StreamScript { end: StreamEnd::WhenDrained, ..StreamScript::default() });
        let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
        let run = gateway.forward_run("stk_b").await;
        home.emit_steps(&run, 2);
        home.finish_silently(&run, status);
        let mut live = follower(&gateway, &run);
        assert_eq!(live.follow_to_end().await, ended(3, status.as_str()));
        let held: Vec<_> = home.events(&run).into_iter().map(|event| event.text).collect();
        let texts: Vec<_> = live.seen().iter().map(|event| event.text.clone()).collect();
        assert_eq!(texts[..2], held, "the home's events are as they were, their times too");
        let page = gateway.get_with(&events_path(&run), &[("accept", "application/json")]).await.json;
        let derived: Vec<_> = page["events"]
            .as_array()
            .expect("events")
            .iter()
            .map(|entry| entry["federation"]["derived"].clone())
            .collect();
        assert_eq!(derived, [Value::Null, Value::Null, json!(true)]);
        assert_eq!(page["events"][2]["event"]["type"], format!("agentos.run.{}", status.as_str()));
    }
}

// L3
#[tokio::test]
async fn a_home_that_contradicts_itself_is_stored_once_and_audited_once() {
    let home = ScriptedOrchestrator::start().await;
    home.streams(StreamScript { cursor: CursorRule::Ignore, ..StreamScript::default() });
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 2);
    let first = home.events(&run)[1].text.clone();
    home.emit_event(&run, &first.replace("evt_", "evt_other_"));
    home.emit_event(&run, &first.replace("\"step\":1", "\"step\":7"));
    home.emit_steps(&run, 1);
    gateway.until_run(&run, |run| run["high_water"] == 3).await;
    home.cut_streams();
    home.until("a second reading", |truth| truth.events_requests(&run).len() == 2).await;
    home.finish(&run, RunStatus::Completed);
    let mut live = follower(&gateway, &run);
    assert_eq!(live.follow_to_end().await, ended(4, "completed"));
    assert_eq!(live.seen()[1].text, first);
    gateway.until_metric("events_conflict_total", |count| count == 4.0).await;
    for kind in ["conflict_sequence", "conflict_event_id"] {
        assert_eq!(gateway.count_rows(&format!("audit WHERE outcome = '{kind}'")), 1, "{kind}");
    }
}

// C-bounds: streams per peer
#[tokio::test]
async fn streams_at_a_peer_are_bounded_and_a_watched_run_goes_first() {
    let home = ScriptedOrchestrator::start().await;
    let mut config = test_config();
    config.reader.streams_per_peer = 1;
    let gateway =
        TestGateway::start_with(config, vec![peer("stk_b", &home.base_url(), PeerKind::Orchestrator)]).await;
    let first = gateway.forward_run("stk_b").await;
    home.until("the first to be read", |truth| truth.open_streams(&first) == 1).await;
    let second = gateway.forward_run("stk_b").await;
    let third = gateway.forward_run("stk_b").await;
    gateway.until("/metrics", |metrics| metrics.text.contains("upstream_readers_waiting 2\n")).await;
    gateway.until_run(&second, |run| run["follow"]["state"] == "waiting").await;
    let mut stream = SseClient::connect(gateway.address(), &events_path(&third), &[]).await;
    assert!(stream.next_frame().await.is("caught_up"));
    home.finish(&first, RunStatus::Completed);
    let truth = home.until("the watched one", |truth| truth.open_streams(&third) == 1).await;
    assert_eq!(truth.events_requests(&second).len(), 0);
    home.finish(&third, RunStatus::Completed);
    home.until("the other one", |truth| truth.open_streams(&second) == 1).await;
}

/// A gateway that reads from a gateway that reads from a home.
async fn chain(home: &ScriptedOrchestrator) -> (TestGateway, TestGateway) {
    let near = TestGateway::with_orchestrator(&home.base_url()).await;
    let far = TestGateway::start(vec![peer("stk_right", &near.base_url(), PeerKind::Gateway)]).await;
    (far, near)
}

//
#[tokio::test]
async fn over_two_gateways_bytes_gaps_and_the_end_arrive_as_the_home_gave_them() {
    let home = ScriptedOrchestrator::start().await;
    let omit = vec![Omission { sequence: 3, until_read: None }];
    home.streams(StreamScript { omit, ..StreamScript::default() });
    let (far, mut near) = chain(&home).await;
    let run = far.forward_run("stk_right").await;
    home.emit_steps(&run, 5);
    let mut live = follower(&far, &run);
    live.follow_events(4).await;
    near.restart().await;
    home.finish(&run, RunStatus::Failed);
    assert_eq!(live.follow_to_end().await, ended(6, "failed"));
    assert_eq!(live.gaps(), [Gap { missing: 3..=3, reason: "upstream".to_owned() }]);
    let mut held: Vec<_> = home.events(&run).into_iter().map(|event| event.text).collect();
    held.remove(2);
    assert_eq!(live.seen().iter().map(|event| event.text.clone()).collect::<Vec<_>>(), held);
    assert_eq!(
        far.metric("upstream_invalid_total{peer=\"stk_right\"}").await,
        0.0,
        "its control frames are known"
    );
}

// A-14, L8: found by the simulator
#[tokio::test]
async fn what_the_next_gateway_keeps_no_longer_is_a_gap_below_the_end() {
    let home = ScriptedOrchestrator::start().await;
    let (mut far, mut near) = chain(&home).await;
    let run = far.forward_run("stk_right").await;
    far.stop().await;
    home.emit_steps(&run, 3);
    home.finish(&run, RunStatus::Completed);
    let held = near.until_run(&run, |run| run["status"] == "completed").await["high_water"].clone();
    near.config.retention.sweep_interval = Duration::from_millis(50);
    near.config.retention.max_events_per_tenant = 1;
    near.restart().await;
    near.until(&format!("{}?follow=false", events_path(&run)), |answer| answer.status == 410).await;
    far.start_again().await.expect("it starts");
    far.until_run(&run, |run| run["status"] == "completed").await;
    let page = far.get_with(&events_path(&run), &[("accept", "application/json")]).await.expect(200);
    let events = page.json["events"].as_array().expect("events");
    assert_eq!(events.len(), 1, "{}", page.text);
    assert_eq!(events[0]["event"]["sequence"], held.as_u64().expect("a sequence") + 1);
    let gap = &page.json["gaps"][0];
    assert_eq!((&gap["from_sequence"], &gap["to_sequence"]), (&Value::from(1), &held), "{}", page.text);
}

// defect 8
#[tokio::test]
async fn a_run_renamed_at_the_next_gateway_is_read_under_its_new_name() {
    let home = ScriptedOrchestrator::start().await;
    home.next_creates([CreateFault::RunId("run_x".to_owned())]);
    let (far, near) = chain(&home).await;
    near.push_steps("run_x", [1]).await;
    let run = far.forward_run("stk_right").await;
    assert_eq!(run, "run_x@stk_b");
    home.emit_steps("run_x", 2);
    home.finish("run_x", RunStatus::Completed);
    let mut live = follower(&far, &run);
    assert_eq!(live.follow_to_end().await, ended(3, "completed"));
    let held: Vec<_> = home.events("run_x").into_iter().map(|event| event.text).collect();
    assert_eq!(live.seen().iter().map(|event| event.text.clone()).collect::<Vec<_>>(), held);
}

#[tokio::test]
async fn a_run_lost_at_the_next_gateway_is_lost_here() {
    let home = ScriptedOrchestrator::start().await;
    let (far, near) = chain(&home).await;
    let run = far.forward_run("stk_right").await;
    home.emit_steps(&run, 1);
    let mut live = follower(&far, &run);
    live.follow_events(1).await;
    home.forget_runs();
    home.cut_streams();
    assert_eq!(live.follow_to_end().await, RunEnd::Error("run_lost".to_owned()));
    for gateway in [&far, &near] {
        gateway.until_run(&run, |run| run["status"] == "lost").await;
    }
}

// L10: the next gateway's log is gone, and the run began anew there
#[tokio::test]
async fn a_run_that_ends_at_the_next_gateway_before_what_is_held_here_is_lost() {
    for ends_first in [true, false] {
        let home = ScriptedOrchestrator::start().await;
        let (mut far, mut near) = chain(&home).await;
        let run = far.forward_run("stk_right").await;
        home.emit_steps(&run, 5);
        follower(&far, &run).follow_events(5).await;
        far.stop().await;
        near.stop().await;
        std::fs::remove_file(near.data_dir().join(DATABASE_FILE)).expect("a whole log in one file");
        near.start_again().await.expect("it starts");
        near.push_steps(&run, [1]).await;
        if ends_first {
            near.push_end(&run, 2).await;
            far.start_again().await.expect("it starts");
        } else {
            far.start_again().await.expect("it starts");
            near.until_metric("sse_streams_open", |open| open == 1.0).await;
            near.push_end(&run, 2).await;
        }
        let view = far.until_run(&run, |run| run["status"] == "lost").await;
        let reason = view["follow"]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("the run ended at sequence 2"), "{view}");
        let mut late = follower(&far, &run);
        assert_eq!(late.follow_to_end().await, RunEnd::Error("run_lost".to_owned()));
        assert_eq!(late.sequences(), [1, 2, 3, 4, 5], "what was read stays");
    }
}
