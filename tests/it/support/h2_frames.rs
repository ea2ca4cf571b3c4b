//! HTTP/2 as frames: what no decent client sends, and whatever comes back.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a connection begins with: the preface and settings that say nothing.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Kinds of frames.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags of a HEADERS frame.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// How long a connection may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is small").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A header block of static entries and literals: a request of `path` at `localhost`.
pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    let literal = |name: u8, value: &str| {
        let length = u8::try_from(value.len()).ok().filter(|length| *length < 127).expect("a short value");
        [&[name, length], value.as_bytes()].concat()
    };
    [literal(2, method), vec![0x87], literal(4, path), literal(1, "localhost")].concat()
}

/// What came back before the connection ended: the kinds of frames, and why the other side went away.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// `(kind, stream)` of each frame, in order.
    pub(crate) frames: Vec<(u8, u32)>,
    /// The error code of a GOAWAY.
    pub(crate) goaway: Option<u32>,
}

/// Sends bytes and reads until the other side ends the connection; panics when it does not.
pub(crate) async fn send(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Heard {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut all = Vec::new();
    let both = async {
        // The other side may go away before it has read everything.
        let write = async { drop(writer.write_all(bytes).await) };
        let read = async { drop(reader.read_to_end(&mut all).await) };
        tokio::join!(write, read)
    };
    tokio::time::timeout(PATIENCE, both).await.expect("the connection ends");
    parse(&all)
}

fn parse(mut bytes: &[u8]) -> Heard {
    let mut heard = Heard::default();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        heard.frames.push((head[3], stream));
        if let (GOAWAY, Some(code)) = (head[3], payload.get(4..8)) {
            heard.goaway = Some(u32::from_be_bytes([code[0], code[1], code[2], code[3]]));
        }
        bytes = rest;
    }
    heard
}
