//! The client and the follower against canned bytes: each must see through what it is there to see through.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::*;
use crate::support::sse_client::Followed;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const LAST_CHUNK: &str = "0\r\n\r\n";
const CAUGHT_UP: &str = "event: caught_up\ndata: {\"sequence\":2}\n\n";

/// Answers the n-th connection with the n-th bytes, then closes it; keeps the requests.
struct Canned {
    addr: SocketAddr,
    requests: JoinSet<Vec<String>>,
}

impl Canned {
    async fn serve(answers: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address");
        let answers: Vec<String> = answers.into_iter().collect();
        let mut requests = JoinSet::new();
        requests.spawn(async move {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().await.expect("accept");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    socket.read_buf(&mut request).await.expect("a request");
                }
                socket.write_all(answer.as_bytes()).await.expect("sent");
                seen.push(shown(&request));
            }
            seen
        });
        Self { addr, requests }
    }

    async fn requests(mut self) -> Vec<String> {
        self.requests.join_next().await.expect("one task").expect("no panic")
    }
}

fn chunk(payload: &str) -> String {
    format!("{:x}\r\n{payload}\r\n", payload.len())
}

fn event(sequence: u64) -> String {
    let data = format!("{{\"event\":{{\"event_id\":\"evt_{sequence}\",\"sequence\":{sequence}}}}}");
    format!("id: {sequence}\nevent: agentos.event\ndata: {data}\n\n")
}

fn gap(from: u64, to: u64) -> String {
    let data = format!("{{\"from_sequence\":{from},\"to_sequence\":{to},\"reason\":\"upstream\"}}");
    chunk(&format!("event: gap\ndata: {data}\n\n"))
}

fn end(sequence: u64) -> String {
    let data = format!("{{\"sequence\":{sequence},\"status\":\"completed\"}}");
    chunk(&format!("event: end\ndata: {data}\n\n")) + LAST_CHUNK
}

fn stream(events: impl IntoIterator<Item = u64>) -> String {
    events.into_iter().fold(HEAD.to_owned(), |stream, sequence| stream + &chunk(&event(sequence)))
}

async fn connect(answer: String) -> Response {
    let canned = Canned::serve([answer]).await;
    let response = SseClient::connect(canned.addr, "/events", &[]).await;
    canned.requests().await;
    response
}

/// The message of the panic this future ends in.
async fn panic_of<T>(future: impl Future<Output = T>) -> String {
    let caught = AssertUnwindSafe(future).catch_unwind().await.err().expect("a panic");
    let text = caught.downcast_ref::<String>().cloned();
    text.or_else(|| caught.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .expect("a panic with a text")
}

#[tokio::test]
async fn a_stream_is_read_frame_by_frame_to_its_last_chunk() {
    let canned =
        Canned::serve([stream([1, 2]) + &chunk(CAUGHT_UP) + &chunk(":hb\n") + &chunk(&event(3)) + &end(3)]);
    let canned = canned.await;
    let mut response = SseClient::connect(canned.addr, "/events?from_sequence=0", &[("X-Test", "a")]).await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(response.next_frame().await.sequence(), 1);
    assert_eq!(response.next_event().await.sequence(), 2);
    assert_eq!(response.next_event().await.sequence(), 3);
    let rest = response.collect_until_end().await;
    assert_eq!(rest.len(), 1);
    assert!(rest[0].is("end"));
    assert_eq!(response.chunks().len(), 6);
    response.assert_no_frame_is_split();
    let request = canned.requests().await.remove(0);
    assert!(
        request.starts_with("GET /events?from_sequence=0 HTTP/1.1\r\n") && request.contains("X-Test: a\r\n")
    );
}

#[tokio::test]
async fn a_frame_spread_over_two_chunks_is_denounced() {
    let event = event(1);
    let (first, second) = event.split_at(9);
    let mut response = connect(HEAD.to_owned() + &chunk(first) + &chunk(second) + LAST_CHUNK).await;
    assert_eq!(response.next_frame().await.sequence(), 1);
    assert!(panic_of(async { response.assert_no_frame_is_split() }).await.contains("within a frame"));
}

#[tokio::test]
async fn an_end_without_last_chunk_is_broken_and_says_what_was_under_way() {
    let mut response = connect(stream([1]) + &chunk("id: 2\n")).await;
    response.next_frame().await;
    let broken = response.try_next().await.expect_err("no last chunk");
    assert_eq!((broken.reason, shown(&broken.partial).as_str()), (io::ErrorKind::UnexpectedEof, "id: 2\n"));
    let mut response = connect(stream([1])).await;
    assert!(panic_of(response.collect_until_end()).await.contains("UnexpectedEof"));
}

#[tokio::test]
async fn a_stream_that_is_not_chunked_or_ends_within_a_frame_is_denounced() {
    let mut response = connect("HTTP/1.1 200 OK\r\n\r\n".to_owned() + &event(1)).await;
    assert!(panic_of(response.next_frame()).await.contains("status 200"));
    let mut response = connect(HEAD.to_owned() + &chunk("id: 1\n") + LAST_CHUNK).await;
    assert!(panic_of(response.next_frame()).await.contains("ended within a frame"));
    let mut response = connect(stream([1]) + LAST_CHUNK + "x").await;
    assert!(panic_of(response.collect_until_end()).await.contains("after the last chunk"));
}

#[tokio::test]
async fn silence_is_a_panic_that_shows_what_was_received() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let client = SseClient::connect(listener.local_addr().expect("address"), "/", &[]);
    let (response, _socket) = tokio::join!(client, async {
        let (mut socket, _) = listener.accept().await.expect("accept");
        socket.write_all(stream([1]).as_bytes()).await.expect("sent");
        socket
    });
    let mut response = response.with_patience(Duration::from_millis(50));
    assert!(panic_of(response.assert_silent_for(Duration::from_secs(5))).await.contains("no silence"));
    response.next_frame().await;
    response.assert_silent_for(Duration::from_millis(20)).await;
    let panic = panic_of(response.next_frame()).await;
    assert!(panic.contains("nothing for 50ms") && panic.contains("evt_1"), "{panic}");
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_read_by_its_length_or_its_chunks() {
    let response = connect("HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n{\"a\":1}".to_owned()).await;
    assert_eq!((response.status, response.json().await["a"].as_u64()), (404, Some(1)));
    let response = connect(HEAD.to_owned() + &chunk("[1,") + &chunk("2]") + LAST_CHUNK).await;
    assert_eq!(response.json().await, serde_json::json!([1, 2]));
    let response = connect("HTTP/1.1 204 No Content\r\n\r\n".to_owned()).await;
    assert_eq!(response.body().await, b"");
}

#[tokio::test]
async fn a_client_can_cut_the_stream_at_any_byte_by_reset_or_close() {
    for (how, seen) in [(Abort::Reset, Err(io::ErrorKind::ConnectionReset)), (Abort::Close, Ok(0))] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let client = SseClient::connect(listener.local_addr().expect("address"), "/", &[]);
        let (response, mut socket) = tokio::join!(client, async {
            let (mut socket, _) = listener.accept().await.expect("accept");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                socket.read_buf(&mut request).await.expect("a request");
            }
            socket.write_all(stream([1]).as_bytes()).await.expect("sent");
            socket
        });
        assert_eq!(response.read_bytes_then_cut(5, how).await, b"id: 1");
        assert_eq!(socket.read(&mut [0]).await.map_err(|error| error.kind()), seen);
    }
}

#[tokio::test]
async fn a_follower_reconnects_with_the_last_event_id_until_the_end() {
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned();
    let cut = stream([1, 2]) + &chunk("id: 3\n");
    let canned = Canned::serve([busy, cut, stream([3]) + LAST_CHUNK, stream([4]) + &end(4)]).await;
    let mut follower = Follower::new(canned.addr, "/events?from_sequence=0").with_header("X-Test", "a");
    let ended = RunEnd::Ended { sequence: 4, status: "completed".to_owned() };
    assert_eq!(follower.follow_to_end().await, ended);
    assert_eq!((follower.sequences(), follower.connects()), (vec![1, 2, 3, 4], 3));
    let text = "{\"event_id\":\"evt_4\",\"sequence\":4}".to_owned();
    assert_eq!(follower.seen()[3], Followed { sequence: 4, event_id: "evt_4".to_owned(), text });
    let cursors: Vec<_> = canned.requests().await.iter().map(|request| cursor_of(request)).collect();
    assert_eq!(cursors, [None, None, Some(2), Some(3)]);
}

#[tokio::test]
async fn a_follower_may_stop_and_go_on_where_it_was() {
    let canned = Canned::serve([stream(1..=3), stream([2, 3]) + &end(3)]).await;
    let mut follower = Follower::new(canned.addr, "/events");
    assert_eq!(follower.follow_events(1).await.len(), 1);
    follower.disconnect(Abort::Reset);
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 2, 3]);
}

#[tokio::test]
async fn a_follower_accepts_a_hole_only_when_a_gap_announces_it_and_hears_it_again_after_a_reconnect() {
    let canned =
        Canned::serve([stream([1]) + &gap(2, 4), stream([]) + &gap(2, 4) + &chunk(&event(5)) + &end(5)])
            .await;
    let mut follower = Follower::new(canned.addr, "/events");
    follower.follow_to_end().await;
    assert_eq!(follower.sequences(), [1, 5]);
    assert_eq!(follower.gaps(), [Gap { missing: 2..=4, reason: "upstream".to_owned() }]);
    let cursors: Vec<_> = canned.requests().await.iter().map(|request| cursor_of(request)).collect();
    assert_eq!(cursors, [None, Some(1)]);
}

#[tokio::test]
async fn a_follower_denounces_duplicates_reorderings_holes_and_wrong_ends() {
    let same_id = event(2).replace("evt_2", "evt_1");
    for (answer, complaint) in [
        (stream([1, 1]), "a duplicate or a reordering"),
        (stream([1, 2, 1]), "a duplicate or a reordering"),
        (stream([1, 3]), "a silent hole"),
        (stream([1]) + &chunk(&same_id), "evt_1 twice"),
        (stream([1]) + &chunk(CAUGHT_UP) + &chunk(CAUGHT_UP), "caught_up twice"),
        (stream([1]) + &gap(3, 4), "a gap that does not follow"),
        (stream([1]) + &end(2), "the end is not after the last event"),
        ("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n".to_owned(), "410 for /events"),
    ] {
        let canned = Canned::serve([answer]).await;
        let mut follower = Follower::new(canned.addr, "/events");
        let panic = panic_of(follower.follow_to_end()).await;
        assert!(panic.contains(complaint), "{panic}");
    }
}

#[tokio::test]
async fn a_follower_stops_at_204_and_at_a_stream_error() {
    let nothing = Canned::serve(["HTTP/1.1 204 No Content\r\n\r\n".to_owned()]).await;
    let mut follower = Follower::new(nothing.addr, "/events").after(7);
    assert_eq!(follower.follow_to_end().await, RunEnd::NothingLeft);
    assert_eq!(cursor_of(&nothing.requests().await[0]), Some(7));
    let error = chunk("event: stream_error\ndata: {\"error\":{\"code\":\"run_lost\"}}\n\n") + LAST_CHUNK;
    let lost = Canned::serve([stream([1]) + &error]).await;
    let mut follower = Follower::new(lost.addr, "/events");
    assert_eq!(follower.follow_to_end().await, RunEnd::Error("run_lost".to_owned()));
}

/// The `Last-Event-ID` of a request.
fn cursor_of(request: &str) -> Option<u64> {
    request.lines().find_map(|line| line.strip_prefix("Last-Event-ID: ")?.parse().ok())
}
