//! A peer's event stream, as frames: bounded, with an idle timeout, and read in as large bites as came.

use std::time::Duration;

use futures_util::FutureExt;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};

use super::client::{CallContext, PeerClient};
use super::failure::{CallFailure, root_cause};
use super::way::retry_after;
use crate::domain::cursor::Cursor;
use crate::domain::limits;
use crate::mutants::mutant;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::sse::{DecodeError, Decoder, Frame, Limits};
use crate::protocol::{headers, paths, problem::PeerError};

/// Room for field names and our metadata around one event.
const FRAME_SLACK: usize = 64 * 1024;

/// How much, and for how long, is read of a stream after its last event.
const FINISH_BYTES: usize = 16 * 1024;
const FINISH_WAIT: Duration = Duration::from_millis(500);

/// Why a stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenFailure {
    /// The peer cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The peer says that nothing follows the cursor.
    #[error("the peer has nothing after the cursor")]
    NothingMore,
    /// The peer does not know the run any more.
    #[error("the peer does not know the run ({0})")]
    Gone(u16),
    /// The run ended at the peer before the cursor: what it has is not what was read from it.
    #[error("the peer has lost events of the run that were read from it{0}")]
    Behind(String),
    /// The peer answered something that is no event stream.
    #[error("{reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// A sentence.
        reason: String,
        /// What the peer asks to wait.
        retry_after: Option<Duration>,
    },
}

/// How a stream ended. None of them proves that the run ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// The peer closed it.
    #[error("the peer closed the stream")]
    Eof,
    /// No byte for the idle timeout.
    #[error("the peer sent nothing for {0:?}")]
    Idle(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// An open stream.
pub struct EventStream {
    response: Response,
    decoder: Decoder,
    idle: Duration,
    ended: Option<StreamEnd>,
}

impl PeerClient {
    /// Opens the events of a run after a sequence. The cursor is said in every name found in the wild:
    /// the origin's contract and its code disagree.
    pub async fn open_events(
        &self,
        context: CallContext<'_>,
        events_path: &str,
        after: Cursor,
        max_event: usize,
        idle: Duration,
    ) -> Result<EventStream, OpenFailure> {
        let mut url = paths::events(self.base(), events_path);
        url.query_pairs_mut()
            .append_pair("from_sequence", &after.to_string())
            .append_pair("after_sequence", &after.to_string())
            .append_pair("on_gap", "skip");
        let mut fields = HeaderMap::new();
        if after > Cursor::START {
            fields.insert(headers::LAST_EVENT_ID, HeaderValue::from(after.get()));
        }
        let unreachable = |failure: CallFailure| OpenFailure::Unreachable(failure.to_string());
        let prepared = self.prepare((Method::GET, url), context, fields, "text/event-stream", None);
        let prepared = prepared.map_err(unreachable)?;
        // A home may send its head only with the first event: it has as long as between two events.
        let response = self.send(prepared.request, idle).await.map_err(unreachable)?;
        let response = check(response).await?;
        let line = max_event + FRAME_SLACK;
        let decoder = Decoder::new(Limits { line_bytes: line, event_bytes: line });
        Ok(EventStream { response, decoder, idle, ended: None })
    }
}

/// Takes only a plain `200 text/event-stream`.
async fn check(response: Response) -> Result<Response, OpenFailure> {
    let status = response.status().as_u16();
    let refused = |reason: String, retry_after| Err(OpenFailure::Refused { status, reason, retry_after });
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_stream = content_type.is_some_and(|value| {
        value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    });
    match status {
        200 if response.headers().contains_key(CONTENT_ENCODING) => {
            refused("the peer compresses its event stream without being asked to".to_owned(), None)
        }
        200 if is_stream => Ok(response),
        200 => {
            let kind = limits::clean_reason(content_type.unwrap_or("nothing"));
            refused(format!("the peer answered {kind} instead of text/event-stream"), None)
        }
        204 => Err(OpenFailure::NothingMore),
        404 | 410 => Err(OpenFailure::Gone(status)),
        _ => {
            let wait = retry_after(response.headers());
            let error = first_words(response).await;
            let is_behind = error.code.as_deref() == Some(ErrorCode::CursorAhead.as_str());
            let said = error.message.or(error.code).map(|text| format!(": {text}")).unwrap_or_default();
            if is_behind {
                return Err(OpenFailure::Behind(said));
            }
            refused(format!("the peer answered {status}{said}"), wait)
        }
    }
}

/// The peer's own words, as far as they came with the head.
async fn first_words(mut response: Response) -> PeerError {
    let first = response.chunk().now_or_never().and_then(Result::ok).flatten().unwrap_or_default();
    PeerError::parse(&first)
}

impl EventStream {
    /// Waits for frames, then takes all that have come, up to about `max_frames` and `max_bytes`. One that
    /// is too large is an error among them. Answers how the stream ended once nothing is left. Dropping the
    /// future loses nothing.
    pub async fn next_frames(
        &mut self,
        max_frames: usize,
        max_bytes: usize,
    ) -> Result<Vec<Result<Frame, DecodeError>>, StreamEnd> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        loop {
            while let Some(frame) = self.decoder.next_frame() {
                bytes += frame.as_ref().map_or(0, |frame| frame.data.len());
                frames.push(frame);
            }
            let full = frames.len() >= max_frames || bytes >= max_bytes;
            if frames.is_empty() {
                match &self.ended {
                    Some(end) => return Err(end.clone()),
                    None => self.wait_for_bytes().await,
                }
            } else if full || self.ended.is_some() || !self.take_what_is_here() {
                // An end that came with the last frames is told after them.
                return Ok(frames);
            }
        }
    }

    /// True while less than this has been read ahead of what was taken, and more may come.
    pub fn wants_more(&self, most_bytes: usize) -> bool {
        self.ended.is_none() && self.decoder.buffered() < most_bytes
    }

    /// True once nothing more is to be read.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Takes the next bytes, whenever they come. Dropping the future loses nothing.
    pub async fn read_ahead(&mut self) {
        let chunk = self.response.chunk().await;
        self.take(chunk);
    }

    /// Reads what is left of a stream that has said all it has to say, for a moment: a connection that was read to
    /// its end can be used again.
    pub async fn finish(mut self) {
        let rest = async {
            let mut left = FINISH_BYTES;
            while let Ok(Some(chunk)) = self.response.chunk().await {
                left = left.saturating_sub(chunk.len());
                if left == 0 {
                    return;
                }
            }
        };
        // A home that keeps its stream open costs one connection, as before.
        let _ = tokio::time::timeout(FINISH_WAIT, rest).await;
    }

    /// Takes a chunk that has already come; answers whether there was one.
    fn take_what_is_here(&mut self) -> bool {
        match self.response.chunk().now_or_never() {
            None => false,
            Some(chunk) => {
                self.take(chunk);
                true
            }
        }
    }

    async fn wait_for_bytes(&mut self) {
        let idle = if mutant("silence_not_noticed") { self.idle * 1000 } else { self.idle };
        match tokio::time::timeout(idle, self.response.chunk()).await {
            Ok(chunk) => self.take(chunk),
            Err(_) => self.ended = Some(StreamEnd::Idle(self.idle)),
        }
    }

    fn take(&mut self, chunk: reqwest::Result<Option<bytes::Bytes>>) {
        match chunk {
            Ok(Some(chunk)) => self.decoder.push(&chunk),
            Ok(None) => self.ended = Some(StreamEnd::Eof),
            Err(error) => {
                self.ended = Some(StreamEnd::Broken(limits::clean_reason(&root_cause(&error))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // a body of bytes ends in the very moment its last chunk is taken.
    #[tokio::test]
    async fn frames_that_come_with_the_end_are_told_before_it() {
        let body = "id: 1\ndata: a\n\nid: 2\ndata: b\n\n";
        let mut stream = EventStream {
            response: Response::from(http::Response::new(body)),
            decoder: Decoder::new(Limits { line_bytes: 1024, event_bytes: 1024 }),
            idle: Duration::from_secs(1),
            ended: None,
        };
        let frames = stream.next_frames(256, 1024).await.expect("frames");
        let data: Vec<String> = frames.into_iter().map(|frame| frame.expect("a frame").data).collect();
        assert_eq!(data, ["a", "b"]);
        assert_eq!(stream.next_frames(256, 1024).await, Err(StreamEnd::Eof));
    }
}
