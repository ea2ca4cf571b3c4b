//! A strict SSE client over raw HTTP/1.1: bytes, chunk boundaries, headers and the last chunk are all to be
//! seen.
//!
//! Invariant: nothing is repaired. A body that is not chunked, a frame that is not plain, a stream that
//! breaks off where an end was awaited, or a wait without a byte is a panic that shows what had been
//! received.

mod follower;
mod frame;
#[cfg(test)]
mod tests;
mod wire;

use std::{io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

pub(crate) use self::{
    follower::{Followed, Follower, Gap, RunEnd},
    frame::Frame,
};
use self::{
    frame::shown,
    wire::{broken_payload, find_chunk, parse_head, read_head, read_some, send_request},
};
use crate::support::ears::Tapped;

/// How long one wait for bytes may last, unless the test says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens streams.
pub(crate) struct SseClient;

/// A response whose head was read, and its body as it comes.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Names in lower case, values trimmed, in order.
    pub(crate) headers: Vec<(String, String)>,
    socket: Tapped<TcpStream>,
    strictness: Strictness,
    patience: Duration,
    /// Received and not yet understood.
    undecoded: Vec<u8>,
    chunks: Vec<Vec<u8>>,
    /// The payloads of all chunks.
    body: Vec<u8>,
    /// The ends of the frames returned, as offsets into the body.
    frame_ends: Vec<usize>,
    /// Frames returned, comments apart: a comment is no frame to the contract.
    frames_read: usize,
    /// The last chunk arrived.
    ended: bool,
}

/// Why a stream has no next frame, and never said so.
#[derive(Debug)]
pub(crate) struct Broken {
    /// What the socket said.
    pub(crate) reason: io::ErrorKind,
    /// The bytes of the frame that was under way, those of a chunk broken off included.
    pub(crate) partial: Vec<u8>,
}

/// How to end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abort {
    /// With RST.
    Reset,
    /// With FIN.
    Close,
}

/// What a frame must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// Be plain.
    Grammar,
    /// Be plain, and one of the gateway's own.
    Contract,
}

impl SseClient {
    /// Sends a GET; each frame must keep to the gateway's contract.
    pub(crate) async fn connect(
        addr: SocketAddr,
        path_and_query: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let opened = open(addr, path_and_query, headers, Strictness::Contract).await;
        opened.unwrap_or_else(|error| panic!("GET {path_and_query} at {addr}: {error}"))
    }

    /// Sends a GET; frames need only be plain, as an orchestrator's are.
    pub(crate) async fn connect_lenient(
        addr: SocketAddr,
        path_and_query: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let opened = open(addr, path_and_query, headers, Strictness::Grammar).await;
        opened.unwrap_or_else(|error| panic!("GET {path_and_query} at {addr}: {error}"))
    }
}

impl Response {
    /// The first value of this header; the name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The same, waiting this long for bytes before it panics.
    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The next frame; the end of the stream is a panic.
    pub(crate) async fn next_frame(&mut self) -> Frame {
        match self.try_next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the stream ended where a frame was awaited, after {}", shown(&self.body)),
            Err(broken) => panic!("{broken:?} where a frame was awaited, after {}", shown(&self.body)),
        }
    }

    /// The next event frame, past heartbeats and `caught_up`; any other frame is a panic.
    pub(crate) async fn next_event(&mut self) -> Frame {
        loop {
            let frame = self.next_frame().await;
            if frame.comment.is_some() || frame.is("caught_up") {
                continue;
            }
            assert!(frame.is_event(), "no event: {}", shown(&frame.raw));
            return frame;
        }
    }

    /// The next frame, `None` at a clean end.
    pub(crate) async fn try_next(&mut self) -> Result<Option<Frame>, Broken> {
        self.assert_chunked();
        loop {
            if let Some(frame) = self.take_frame() {
                return Ok(Some(frame));
            }
            if self.ended {
                assert_eq!(shown(self.rest()), "", "the stream ended within a frame");
                return Ok(None);
            }
            if let Err(reason) = self.receive().await {
                let partial = [self.rest(), broken_payload(&self.undecoded)].concat();
                return Err(Broken { reason, partial });
            }
        }
    }

    /// All frames to the clean end of the stream.
    pub(crate) async fn collect_until_end(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.try_next().await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(broken) => panic!("{broken:?} where an end was awaited, after {}", shown(&self.body)),
            }
        }
    }

    /// The chunks received so far.
    pub(crate) fn chunks(&self) -> &[Vec<u8>] {
        &self.chunks
    }

    /// Panics if a frame returned so far did not end with its chunk or was spread over two.
    pub(crate) fn assert_no_frame_is_split(&self) {
        let returned = self.frame_ends.last().copied().unwrap_or(0);
        let mut end = 0;
        for chunk in &self.chunks {
            end += chunk.len();
            let whole = end > returned || self.frame_ends.binary_search(&end).is_ok();
            assert!(whole, "a chunk ends within a frame: {}", shown(chunk));
        }
    }

    /// Panics if a byte arrives within this time.
    pub(crate) async fn assert_silent_for(&mut self, time: Duration) {
        if let Some(frame) = self.take_frame() {
            panic!("no silence: {}", shown(&frame.raw));
        }
        let mut byte = [0];
        if let Ok(read) = timeout(time, self.socket.get_ref().peek(&mut byte)).await {
            panic!("no silence: {read:?} bytes, after {}", shown(&self.body));
        }
    }

    /// The whole body of an answer that is no stream.
    pub(crate) async fn body(mut self) -> Vec<u8> {
        let length = self.header("content-length").map(|length| length.parse().expect("Content-Length"));
        let length: usize = match length {
            Some(length) => length,
            None if matches!(self.status, 204 | 304) => 0,
            None => {
                self.assert_chunked();
                while !self.ended {
                    self.receive().await.unwrap_or_else(|error| panic!("{error} in {}", shown(&self.body)));
                }
                return self.body;
            }
        };
        while self.undecoded.len() < length {
            let read = read_some(&mut self.socket, &mut self.undecoded, self.patience).await;
            read.unwrap_or_else(|error| panic!("{error} in {}", shown(&self.undecoded)));
        }
        assert_eq!(self.undecoded.len(), length, "more than the body: {}", shown(&self.undecoded));
        self.undecoded
    }

    /// The body of an answer that is no stream, as JSON.
    pub(crate) async fn json(self) -> Value {
        let body = self.body().await;
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {}", shown(&body)))
    }

    /// Reads this many bytes of the stream (chunk framing apart), then aborts; returns exactly those.
    pub(crate) async fn read_bytes_then_cut(mut self, bytes: usize, how: Abort) -> Vec<u8> {
        self.assert_chunked();
        while self.body.len() < bytes {
            assert!(!self.ended, "the stream ended before {bytes} bytes: {}", shown(&self.body));
            self.receive().await.unwrap_or_else(|error| panic!("{error} after {}", shown(&self.body)));
        }
        let mut read = std::mem::take(&mut self.body);
        read.truncate(bytes);
        self.abort(how);
        read
    }

    /// Ends the connection now.
    pub(crate) fn abort(self, how: Abort) {
        if how == Abort::Reset {
            self.socket.get_ref().set_zero_linger().expect("SO_LINGER");
        }
    }

    fn assert_chunked(&self) {
        let coding = self.header("transfer-encoding");
        assert_eq!(coding, Some("chunked"), "status {}, headers {:?}", self.status, self.headers);
    }

    /// The body after the frames returned.
    fn rest(&self) -> &[u8] {
        &self.body[self.frame_ends.last().copied().unwrap_or(0)..]
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let rest = self.rest();
        let length = Frame::find_end(rest)?;
        let frame = Frame::parse(&rest[..length]);
        if self.strictness == Strictness::Contract {
            frame.assert_contract(self.frames_read);
        }
        self.frames_read += usize::from(frame.comment.is_none());
        self.frame_ends.push(self.frame_ends.last().copied().unwrap_or(0) + length);
        Some(frame)
    }

    /// Reads once and takes the chunks that are whole. An end without the last chunk is `UnexpectedEof`.
    async fn receive(&mut self) -> Result<(), io::ErrorKind> {
        if self.take_chunks() {
            return Ok(());
        }
        match read_some(&mut self.socket, &mut self.undecoded, self.patience).await {
            Err(io::ErrorKind::TimedOut) => {
                panic!("nothing for {:?} after {}", self.patience, shown(&self.body))
            }
            Err(broken) => Err(broken),
            Ok(()) => {
                self.take_chunks();
                Ok(())
            }
        }
    }

    /// Moves whole chunks to the body; whether there were any.
    fn take_chunks(&mut self) -> bool {
        let mut used = 0;
        while let Some((payload, length)) = find_chunk(&self.undecoded[used..]) {
            used += length;
            self.ended = payload.is_empty();
            if self.ended {
                assert_eq!(shown(&self.undecoded[used..]), "", "bytes after the last chunk");
                break;
            }
            self.body.extend_from_slice(payload);
            self.chunks.push(payload.to_vec());
        }
        self.undecoded.drain(..used);
        used > 0
    }
}

/// Sends the request and reads the head.
async fn open(
    addr: SocketAddr,
    path_and_query: &str,
    headers: &[(&str, &str)],
    strictness: Strictness,
) -> Result<Response, io::ErrorKind> {
    let mut socket = send_request(addr, path_and_query, headers).await?;
    let (head, undecoded) = read_head(&mut socket, PATIENCE).await?;
    let (status, headers) = parse_head(&head);
    Ok(Response {
        status,
        headers,
        socket,
        strictness,
        patience: PATIENCE,
        undecoded,
        chunks: Vec::new(),
        body: Vec::new(),
        frame_ends: Vec::new(),
        frames_read: 0,
        ended: false,
    })
}
