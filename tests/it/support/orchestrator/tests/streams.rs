//! Event streams: replay, live, cursors, and every way to go wrong.

use std::{collections::BTreeSet, io, time::Duration};

use serde_json::json;

use super::{client, create, follow, get, send_in_vain};
use crate::support::{
    orchestrator::{
        CursorRule, EnvelopeShape, Event, EventsSeen, FrameId, GarbageFrame, Identity, LineEnding, Omission,
        RunStatus, ScriptedOrchestrator, StreamAnswer, StreamEnd, StreamScript,
    },
    sse_client::{Abort, Frame, SseClient},
};

async fn with_run() -> (ScriptedOrchestrator, String) {
    let orchestrator = ScriptedOrchestrator::start().await;
    let run_id = create(&orchestrator, "k1").await;
    (orchestrator, run_id)
}

fn sequences(frames: &[Frame]) -> Vec<u64> {
    frames.iter().map(Frame::sequence).collect()
}

#[tokio::test]
async fn a_stream_replays_follows_live_and_ends_after_the_terminal_event() {
    let (orchestrator, run_id) = with_run().await;
    assert_eq!(orchestrator.emit_steps(&run_id, 2), 1..=2);
    let mut stream = follow(&orchestrator, &run_id, "").await;
    assert_eq!(stream.next_frame().await.sequence(), 1);
    let second = stream.next_frame().await;
    let held: Vec<Event> = orchestrator.events(&run_id);
    assert_eq!((second.sequence(), second.event_text()), (held[1].sequence, held[1].text.clone()));
    assert_eq!(second.data["event"]["event_id"], held[1].event_id);
    orchestrator.emit(&run_id, "agentos.tool.call.requested", json!({"tool": "t"}));
    let live = stream.next_event().await;
    assert_eq!(live.data["event"]["payload"], json!({"tool": "t"}));
    assert_eq!(orchestrator.finish(&run_id, RunStatus::Completed), 4);
    assert_eq!(sequences(&stream.collect_until_end().await), [4]);
    stream.assert_no_frame_is_split();
    assert_eq!(stream.chunks().len(), 4);
    orchestrator.until("no stream", |truth| truth.open_streams(&run_id) == 0).await;
}

#[tokio::test]
async fn every_cursor_is_recorded_and_the_largest_counts() {
    let (orchestrator, run_id) = with_run().await;
    orchestrator.emit_steps(&run_id, 5);
    orchestrator.finish_silently(&run_id, RunStatus::Completed);
    let path = format!("/v1/runs/{run_id}/events?from_sequence=2&after_sequence=3&other=1");
    let mut stream = SseClient::connect_lenient(orchestrator.addr(), &path, &[("Last-Event-ID", "4")]).await;
    assert_eq!(stream.next_frame().await.sequence(), 5);
    let truth = orchestrator.truth();
    let seen: &EventsSeen = truth.events_requests(&run_id)[0];
    assert_eq!((seen.cursor("from_sequence"), seen.cursor("last-event-id")), (Some("2"), Some("4")));
    assert_eq!((seen.cursors.len(), seen.request.header("accept")), (3, Some("text/event-stream")));

    let only = |cursor| StreamScript { cursor, ..StreamScript::default() };
    orchestrator.next_streams([only(CursorRule::Only("after_sequence")), only(CursorRule::Ignore)]);
    for first in [4, 1] {
        let mut stream = SseClient::connect_lenient(orchestrator.addr(), &path, &[]).await;
        assert_eq!(stream.next_frame().await.sequence(), first);
    }
}

#[tokio::test]
async fn a_cut_comes_at_its_byte_once_or_each_time() {
    let (orchestrator, run_id) = with_run().await;
    orchestrator.emit_steps(&run_id, 2);
    orchestrator.finish(&run_id, RunStatus::Completed);
    let cut = |bytes| StreamScript { cut_after_bytes: Some(bytes), ..StreamScript::default() };
    orchestrator.next_streams([cut(0), cut(10)]);
    for kept in ["", "id: 1\neven"] {
        let broken = follow(&orchestrator, &run_id, "").await.try_next().await.expect_err("cut");
        assert_eq!(
            (broken.reason, broken.partial.as_slice()),
            (io::ErrorKind::UnexpectedEof, kept.as_bytes())
        );
    }
    assert_eq!(follow(&orchestrator, &run_id, "").await.collect_until_end().await.len(), 3);

    orchestrator.streams(StreamScript { chunk_bytes: Some(4), ..cut(10) });
    for _ in 0..2 {
        let broken = follow(&orchestrator, &run_id, "").await.try_next().await.expect_err("cut");
        assert_eq!(broken.partial, b"id: 1\neven");
    }
}

#[tokio::test]
async fn one_event_then_eof_walks_through_the_run_by_cursor() {
    let (orchestrator, run_id) = with_run().await;
    orchestrator.streams(StreamScript { end: StreamEnd::AfterEvents(1), ..StreamScript::default() });
    orchestrator.emit_steps(&run_id, 3);
    for cursor in 0..3 {
        let mut stream = follow(&orchestrator, &run_id, &format!("?from_sequence={cursor}")).await;
        assert_eq!(sequences(&stream.collect_until_end().await), [cursor + 1]);
    }
}

#[tokio::test]
async fn agentos_repeats_sequence_1_under_another_id_and_ends_at_once() {
    let orchestrator = ScriptedOrchestrator::agentos().await;
    let run_id = create(&orchestrator, "k1").await;
    let mut ids = BTreeSet::new();
    for cursor in 0..3 {
        let frames = follow(&orchestrator, &run_id, &format!("?from_sequence={cursor}"))
            .await
            .collect_until_end()
            .await;
        assert_eq!((sequences(&frames), &frames[0].id), (vec![1], &None));
        ids.insert(frames[0].data["event"]["event_id"].to_string());
    }
    assert_eq!(ids.len(), 3);
    let (_, status) = get(&orchestrator, &format!("/v1/runs/{run_id}")).await;
    assert_eq!(status["run"]["status"], "queued");
}

#[tokio::test]
async fn heartbeats_break_the_silence_and_a_stall_has_none() {
    let (orchestrator, run_id) = with_run().await;
    let beating = StreamScript { heartbeat: Some(Duration::from_millis(5)), ..StreamScript::default() };
    let stalling = StreamScript { stall_after_events: Some(1), ..beating.clone() };
    orchestrator.next_streams([beating, stalling]);
    let mut stream = follow(&orchestrator, &run_id, "").await;
    assert_eq!(stream.next_frame().await.raw, b":hb\n");
    orchestrator.emit_steps(&run_id, 2);
    while stream.next_frame().await.comment.is_some() {}

    let mut stalled = follow(&orchestrator, &run_id, "").await;
    assert_eq!(stalled.next_frame().await.sequence(), 1);
    stalled.assert_silent_for(Duration::from_millis(30)).await;
    orchestrator.cut_streams();
    stalled.try_next().await.expect_err("broken");
    stream.abort(Abort::Close);
    orchestrator.until("no stream", |truth| truth.open_streams(&run_id) == 0).await;
}

#[tokio::test]
async fn streams_are_refused_redirected_mislabelled_dropped_or_left_hanging() {
    let (orchestrator, run_id) = with_run().await;
    orchestrator.finish(&run_id, RunStatus::Completed);
    let answers = [
        (StreamAnswer::Status(410), 410, "application/json"),
        (StreamAnswer::Redirect("http://127.0.0.1:1/".to_owned()), 307, "text/plain"),
        (StreamAnswer::ContentType("text/html".to_owned()), 200, "text/html"),
    ];
    for (answer, status, content_type) in answers {
        orchestrator.streams_of(&run_id, StreamScript { answer, ..StreamScript::default() });
        let response = follow(&orchestrator, &run_id, "").await;
        assert_eq!((response.status, response.header("content-type")), (status, Some(content_type)));
    }
    assert_eq!(follow(&orchestrator, "run_none", "").await.status, 404);
    let request = || client().get(format!("{}/v1/runs/{run_id}/events", orchestrator.base_url()));
    orchestrator.streams_of(&run_id, StreamScript { answer: StreamAnswer::Drop, ..StreamScript::default() });
    request().send().await.expect_err("no answer");
    orchestrator.streams_of(&run_id, StreamScript { answer: StreamAnswer::Hang, ..StreamScript::default() });
    send_in_vain(&orchestrator, request(), |truth| truth.events_requests(&run_id).len() == 5).await;
    assert_eq!(orchestrator.truth().events_requests("run_none")[0].run_id, "run_none");
}

#[tokio::test]
async fn bytes_that_are_no_events_stand_where_the_test_put_them() {
    let (orchestrator, run_id) = with_run().await;
    let kinds = GarbageFrame::one_of_each(5_000);
    orchestrator.emit_raw(&run_id, ": first\n");
    for kind in &kinds {
        orchestrator.emit_garbage(&run_id, *kind);
    }
    orchestrator.skip_sequences(&run_id, 1);
    let text = json!({"sequence": 9, "event_id": "evt_mine", "type": "agentos.run.completed"}).to_string();
    assert_eq!(orchestrator.emit_event(&run_id, &text), 9);
    orchestrator.streams(StreamScript { prelude: b"\xef\xbb\xbf".to_vec(), ..StreamScript::default() });
    let body = follow(&orchestrator, &run_id, "").await.body().await;
    assert!(body.starts_with(b"\xef\xbb\xbf: first\n"));
    let frames = body.split(|byte| *byte == b'\n').filter(|line| line.is_empty()).count();
    // The frame of lone CRs has no empty line; the end of the body makes one more.
    assert_eq!(frames, kinds.len() - 1 + 1 + 1);
    assert!(
        String::from_utf8_lossy(&body)
            .contains(&format!("id: 9\nevent: agentos.event\ndata: {{\"event\":{text}}}"))
    );
}

#[tokio::test]
async fn a_paced_stream_with_a_hole_and_repeats_arrives_in_small_chunks() {
    let (orchestrator, run_id) = with_run().await;
    orchestrator.emit_steps(&run_id, 3);
    orchestrator.finish(&run_id, RunStatus::Completed);
    orchestrator.streams(StreamScript {
        omit: vec![Omission { sequence: 2, until_read: None }],
        repeat: 2..=2,
        pace: Duration::from_millis(1),
        chunk_bytes: Some(7),
        ..StreamScript::default()
    });
    let mut stream = follow(&orchestrator, &run_id, "").await;
    assert_eq!(sequences(&stream.collect_until_end().await), [1, 1, 3, 3, 4, 4]);
    assert!(stream.chunks().iter().all(|chunk| chunk.len() <= 7));
}

#[tokio::test]
async fn a_stream_can_speak_another_dialect() {
    let (orchestrator, run_id) = with_run().await;
    orchestrator.finish(&run_id, RunStatus::Completed);
    orchestrator.streams(StreamScript {
        envelope: EnvelopeShape::Flat,
        frame_id: FrameId::Absent,
        identity: Identity::MintedPerRead,
        line_ending: LineEnding::CrLf,
        ..StreamScript::default()
    });
    let body = follow(&orchestrator, &run_id, "").await.body().await;
    let body = String::from_utf8(body).expect("text");
    let data =
        body.strip_prefix("event: agentos.event\r\ndata: ").and_then(|rest| rest.strip_suffix("\r\n\r\n"));
    let event: Event = orchestrator.events(&run_id).remove(0);
    let read: serde_json::Value = serde_json::from_str(data.expect("one frame")).expect("JSON");
    assert_eq!(read["sequence"], event.sequence);
    assert_ne!(read["event_id"], event.event_id);
}
