//! GET /v1/runs/{run_id}/events: the event stream as bytes, whole or broken.
//!
//! Invariant: what the feed renders leaves in that order, one frame per chunk and per write unless the script
//! says otherwise; a stream is open in the truth log exactly while its connection serves it.

use std::{future::pending, io, sync::Arc};

use tokio::{
    io::AsyncWriteExt,
    net::tcp::{ReadHalf, WriteHalf},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    feed::{Batch, Feed, Then},
    http::{Connection, drain, head_bytes, split_target},
    reply::{Next, Reply},
    server::tenant_of,
    state::{OpenStream, Shared, State},
    stream_script::{CursorRule, StreamAnswer, StreamScript},
    truth::{EventsSeen, RequestSeen},
};

/// The cursor parameters known; the header is named `last-event-id` beside them.
const CURSOR_PARAMETERS: [&str; 3] = ["from_sequence", "after_sequence", "starting_after"];

/// Answers an events request on its connection, to the end of the stream or until it is broken from outside.
pub(super) async fn serve_events(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    request: &Arc<RequestSeen>,
    run_id: &str,
) -> io::Result<Next> {
    let opening = shared.change(|state| state.begin_events(request, run_id));
    let breaker = opening.breaker.clone();
    tokio::select! {
        () = breaker.cancelled() => Ok(Next::Close),
        served = answer_events(shared, connection, request, opening) => served,
    }
}

/// What an events request found.
struct Opening {
    script: StreamScript,
    /// The run's feed, unless the tenant has no such run.
    feed: Option<Feed>,
    run_id: String,
    breaker: CancellationToken,
}

/// Writes an SSE body in chunks, up to the byte at which the script cuts it.
struct ChunkWriter<'a> {
    writer: WriteHalf<'a>,
    script: &'a StreamScript,
    body_bytes: usize,
    last_sent: Instant,
}

/// Whether the connection is still good.
enum Sent {
    Whole,
    Cut,
}

/// Why a following stream stopped waiting.
enum Wake {
    Changed,
    /// The client closed, or the stream was cut within a heartbeat.
    Gone,
}

impl State {
    /// Records the request and takes its script.
    fn begin_events(&mut self, request: &Arc<RequestSeen>, run_id: &str) -> Opening {
        let cursors = cursors_of(request);
        let of_run = self.script.streams_of.get(run_id).cloned();
        let script = of_run.unwrap_or_else(|| self.script.streams.take());
        let cursor = effective_cursor(script.cursor, &cursors);
        let run_id = run_id.to_owned();
        let feed = self.book.find_for(tenant_of(request), &run_id).map(|run| {
            run.reads += 1;
            Feed::new(script.clone(), cursor, run.reads)
        });
        let seen = EventsSeen { request: Arc::clone(request), run_id: run_id.clone(), cursors };
        self.truth.events.push(seen);
        Opening { script, feed, run_id, breaker: self.breaker.clone() }
    }
}

impl ChunkWriter<'_> {
    async fn head(&mut self, content_type: &str) -> io::Result<()> {
        let headers = [
            ("content-type", content_type.to_owned()),
            ("cache-control", "no-cache".to_owned()),
            ("transfer-encoding", "chunked".to_owned()),
        ];
        self.writer.write_all(&head_bytes(200, &headers)).await
    }

    async fn batch(&mut self, batch: Batch) -> io::Result<Sent> {
        for frame in batch.frames {
            if !self.script.pace.is_zero() {
                tokio::time::sleep(self.script.pace).await;
            }
            if let Sent::Cut = self.frame(&frame).await? {
                return Ok(Sent::Cut);
            }
        }
        Ok(Sent::Whole)
    }

    async fn frame(&mut self, frame: &[u8]) -> io::Result<Sent> {
        let size = self.script.chunk_bytes.unwrap_or(frame.len()).max(1);
        for part in frame.chunks(size) {
            let left = self.script.cut_after_bytes.map_or(usize::MAX, |limit| limit - self.body_bytes);
            let kept = left.min(part.len());
            self.chunk(part.len(), &part[..kept]).await?;
            self.body_bytes += kept;
            if kept == left {
                return Ok(Sent::Cut);
            }
        }
        self.last_sent = Instant::now();
        Ok(Sent::Whole)
    }

    /// A chunk that announces this length and bears these bytes; it is broken off when they are fewer.
    async fn chunk(&mut self, announced: usize, payload: &[u8]) -> io::Result<()> {
        let mut bytes = format!("{announced:x}\r\n").into_bytes();
        bytes.extend_from_slice(payload);
        if payload.len() == announced {
            bytes.extend_from_slice(b"\r\n");
        }
        self.writer.write_all(&bytes).await
    }

    async fn end(&mut self) -> io::Result<Next> {
        self.writer.write_all(b"0\r\n\r\n").await?;
        Ok(Next::KeepAlive)
    }
}

/// Answers as the script says.
async fn answer_events(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    request: &Arc<RequestSeen>,
    opening: Opening,
) -> io::Result<Next> {
    let Opening { script, feed, run_id, .. } = opening;
    let content_type = match &script.answer {
        StreamAnswer::Stream => "text/event-stream",
        StreamAnswer::ContentType(content_type) => content_type,
        StreamAnswer::Status(code) => return Reply::refusal(*code, request).send(connection).await,
        StreamAnswer::Drop => return Reply::Drop.send(connection).await,
        StreamAnswer::Hang => return Reply::Hang.send(connection).await,
        StreamAnswer::Redirect(location) => return Reply::redirect(location).send(connection).await,
    };
    let Some(feed) = feed else {
        return Reply::refusal(404, request).send(connection).await;
    };
    let _open = OpenStream::count(shared, &run_id);
    let (mut reader, writer) = connection.socket.split();
    let mut out = ChunkWriter { writer, script: &script, body_bytes: 0, last_sent: Instant::now() };
    out.head(content_type).await?;
    if script.cut_after_bytes == Some(0) {
        return Ok(Next::Close);
    }
    stream(shared, &run_id, feed, &mut out, &mut reader).await
}

/// Sends what the feed has, as it comes, to its end.
async fn stream(
    shared: &Shared,
    run_id: &str,
    mut feed: Feed,
    out: &mut ChunkWriter<'_>,
    reader: &mut ReadHalf<'_>,
) -> io::Result<Next> {
    let mut changes = shared.changes();
    loop {
        changes.mark_unchanged();
        let Some(batch) = shared.look(|state| Some(feed.advance(state.book.find(run_id)?))) else {
            return Ok(Next::Close);
        };
        let then = batch.then;
        if let Sent::Cut = out.batch(batch).await? {
            return Ok(Next::Close);
        }
        match then {
            Then::End => return out.end().await,
            Then::Stall => {
                drain(reader).await?;
                return Ok(Next::Close);
            }
            Then::Follow => {
                if let Wake::Gone = next_wake(out, reader, &mut changes).await? {
                    return Ok(Next::Close);
                }
            }
        }
    }
}

/// Waits for a change of the state, with heartbeats, unless the client goes.
async fn next_wake(
    out: &mut ChunkWriter<'_>,
    reader: &mut ReadHalf<'_>,
    changes: &mut watch::Receiver<()>,
) -> io::Result<Wake> {
    loop {
        let silence = async {
            match out.script.heartbeat {
                Some(interval) => tokio::time::sleep_until(out.last_sent + interval).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => {
                return Ok(if changed.is_ok() { Wake::Changed } else { Wake::Gone });
            }
            gone = drain(reader) => {
                gone?;
                return Ok(Wake::Gone);
            }
            () = silence => {
                if let Sent::Cut = out.frame(b":hb\n").await? {
                    return Ok(Wake::Gone);
                }
            }
        }
    }
}

/// Every cursor a request gives, by name and verbatim value.
fn cursors_of(request: &RequestSeen) -> Vec<(String, String)> {
    let (_, query) = split_target(&request.target);
    let mut cursors = query;
    cursors.retain(|(name, _)| CURSOR_PARAMETERS.contains(&name.as_str()));
    let header = request.header("last-event-id");
    cursors.extend(header.map(|value| ("last-event-id".to_owned(), value.to_owned())));
    cursors
}

fn effective_cursor(rule: CursorRule, cursors: &[(String, String)]) -> u64 {
    let counts = |name: &str| match rule {
        CursorRule::Honour => true,
        CursorRule::Only(only) => name == only,
        CursorRule::Ignore => false,
    };
    let given = cursors.iter().filter(|(name, _)| counts(name));
    given.filter_map(|(_, value)| value.parse().ok()).max().unwrap_or(0)
}
