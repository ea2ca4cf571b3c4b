//! HTTP/1.1 as bytes: just enough to serve a gateway's client, and to break every rule on purpose.
//!
//! Invariant: a request is read whole (head and body) before anything is done about it, so a fault that
//! closes the connection is never mistaken by the kernel for one that left bytes unread.

use std::{io, sync::Arc};

use bytes::{Buf, BytesMut};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{event::mint, truth::RequestSeen};

/// The largest head and the largest body taken; beyond, the connection is an error.
const LARGEST_PART: usize = 64 << 20;

/// One accepted connection, with the bytes read ahead.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    ahead: BytesMut,
}

/// A whole answer, not yet bytes.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Connection {
    /// A connection nothing was read from.
    pub(super) fn new(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("TCP_NODELAY");
        Self { socket, ahead: BytesMut::new() }
    }

    /// Waits for the first byte of a request; `false` when the client closed instead.
    pub(super) async fn begins(&mut self) -> io::Result<bool> {
        Ok(!self.ahead.is_empty() || self.socket.read_buf(&mut self.ahead).await? > 0)
    }

    /// Reads one request to its last byte.
    pub(super) async fn read_request(&mut self) -> io::Result<Arc<RequestSeen>> {
        let head = self.read_until(b"\r\n\r\n").await?;
        let mut lines = head.trim_end().split("\r\n");
        let mut start = lines.next().unwrap_or_default().split(' ');
        let method = start.next().unwrap_or_default().to_owned();
        let target = start.next().unwrap_or_default().to_owned();
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: Vec<_> = lines.filter_map(header).collect();
        let body = self.read_body(&headers).await?;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Arc::new(RequestSeen { method, target, headers, body, at: Instant::now() }))
    }

    /// Waits until the client closes, whatever it still sends.
    pub(super) async fn outlast_client(&mut self) -> io::Result<()> {
        drain(&mut self.socket).await
    }

    /// Sends these bytes.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    async fn read_body(&mut self, headers: &[(String, String)]) -> io::Result<Vec<u8>> {
        let value = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        if value("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.read_chunked().await;
        }
        let length = value("content-length").map_or(Ok(0), |length| length.parse());
        let length = length.map_err(|_| malformed("Content-Length"))?;
        Ok(self.read_exactly(length).await?.to_vec())
    }

    async fn read_chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.read_until(b"\r\n").await?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| malformed("chunk size"))?;
            body.extend_from_slice(&self.read_exactly(size).await?);
            self.read_until(b"\r\n").await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn read_until(&mut self, end: &[u8]) -> io::Result<String> {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|window| window == end) {
                let part = self.ahead.split_to(at + end.len());
                return String::from_utf8(part.to_vec()).map_err(|_| malformed("head"));
            }
            self.read_more().await?;
        }
    }

    async fn read_exactly(&mut self, length: usize) -> io::Result<BytesMut> {
        while self.ahead.len() < length {
            self.read_more().await?;
        }
        Ok(self.ahead.split_to(length))
    }

    async fn read_more(&mut self) -> io::Result<()> {
        if self.ahead.remaining() > LARGEST_PART {
            return Err(malformed("length"));
        }
        match self.socket.read_buf(&mut self.ahead).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Answer {
    /// A JSON answer.
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string().into_bytes())
    }

    /// An answer of any type.
    pub(super) fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body }
    }

    /// AgentOS' error object under this status.
    pub(super) fn error(status: u16, code: &str, request: &RequestSeen) -> Self {
        let retryable = matches!(status, 408 | 429 | 500..);
        let error = json!({"code": code, "message": format!("scripted {status}"), "retryable": retryable});
        Self::json(status, &json!({"error": error, "correlation_id": correlation_id(request)}))
    }

    /// The same for a status without a code of its own.
    pub(super) fn refusal(status: u16, request: &RequestSeen) -> Self {
        let code = match status {
            400 => "invalid_request",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            409 => "conflict",
            410 => "gone",
            429 => "quota_exceeded",
            502..=504 => "unavailable",
            _ => "internal_error",
        };
        Self::error(status, code, request)
    }

    /// The same answer with one more header.
    pub(super) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The bytes up to the body.
    pub(super) fn head(&self) -> Vec<u8> {
        let length = ("content-length", self.body.len().to_string());
        head_bytes(self.status, self.headers.iter().chain([&length]))
    }

    /// The bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [self.head().as_slice(), &self.body].concat()
    }

    /// The body's bytes.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }
}

/// A response head.
pub(super) fn head_bytes<'a>(
    status: u16,
    headers: impl IntoIterator<Item = &'a (&'static str, String)>,
) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The caller's correlation id, else a fresh one.
pub(super) fn correlation_id(request: &RequestSeen) -> String {
    let given = request.header("x-correlation-id").or_else(|| request.header("x-request-id"));
    given.map_or_else(|| mint("req"), str::to_owned)
}

/// The path without its query, and the query's pairs, decoded.
pub(super) fn split_target(target: &str) -> (&str, Vec<(String, String)>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(name), percent_decode(value))
    };
    (path, query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect())
}

/// `%41` → `A`; what is no escape stays.
pub(super) fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Reads and discards until the other side closes.
pub(super) async fn drain(reader: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
    let mut discarded = [0; 1024];
    while reader.read(&mut discarded).await? > 0 {}
    Ok(())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed or too large: {what}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_target_splits_into_path_and_decoded_pairs() {
        let (path, query) = split_target("/v1/runs/r%3A1/events?after_sequence=3&x=a%20b&flag");
        assert_eq!((path, percent_decode(path).as_str()), ("/v1/runs/r%3A1/events", "/v1/runs/r:1/events"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(query, [pair("after_sequence", "3"), pair("x", "a b"), pair("flag", "")]);
        assert_eq!(percent_decode("100%"), "100%");
    }

    #[tokio::test]
    async fn pipelined_requests_are_read_one_by_one_sized_and_chunked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("addr")).await.expect("connect");
        let mut connection = Connection::new(listener.accept().await.expect("accept").0);
        client
            .write_all(b"POST /a HTTP/1.1\r\nContent-Length: 7\r\nX-A:  b \r\n\r\n{\"a\":1}")
            .await
            .expect("sent");
        client
            .write_all(
                b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n",
            )
            .await
            .expect("sent");
        drop(client);
        assert!(connection.begins().await.expect("bytes"));
        let first = connection.read_request().await.expect("the first");
        assert_eq!((first.target.as_str(), first.header("x-a")), ("/a", Some("b")));
        assert_eq!(first.body, json!({"a": 1}));
        let second = connection.read_request().await.expect("the second");
        assert_eq!((second.method.as_str(), second.body.clone()), ("POST", json!([1, 2])));
        assert!(!connection.begins().await.expect("closed"));
    }
}
