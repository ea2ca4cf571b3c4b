//! HTTP as bytes: what no decent client sends, and whatever comes back.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::ears::connect;

/// How long a connection may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// All that came back before the connection ended.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    /// Every byte, lossily as text.
    pub(crate) text: String,
}

impl RawAnswer {
    /// The status, 0 when the connection just ended.
    pub(crate) fn status(&self) -> u16 {
        self.text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// A header of the first answer.
    pub(crate) fn header(&self, name: &str) -> &str {
        let head = self.text.split("\r\n\r\n").next().unwrap_or("");
        let found = head.lines().filter_map(|line| line.split_once(": "));
        found
            .filter(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or("")
    }

    /// The body of the first answer, `Null` when it is no JSON.
    pub(crate) fn json(&self) -> Value {
        let body = self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    /// How many answers there were.
    pub(crate) fn answers(&self) -> usize {
        self.text.matches("HTTP/1.1 ").count()
    }
}

/// Sends bytes and reads until the other side ends the connection; panics when it does not.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> RawAnswer {
    let mut stream = connect(address).await.expect("a connection");
    // The other side may refuse before it has read everything.
    let _ = stream.write_all(bytes).await;
    read_to_end(stream).await
}

/// Reads until the other side ends the connection; panics when it does not.
pub(crate) async fn read_to_end(mut stream: impl AsyncRead + Unpin) -> RawAnswer {
    let mut all = Vec::new();
    let reading = async {
        let mut piece = [0_u8; 4096];
        while let Ok(count) = stream.read(&mut piece).await {
            if count == 0 {
                break;
            }
            all.extend_from_slice(&piece[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the connection ends");
    RawAnswer { text: String::from_utf8_lossy(&all).into_owned() }
}

/// A whole request that asks for the end of the connection.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        // Latin-1: a header may hold any byte.
        bytes.extend(value.chars().map(|c| c as u8));
        bytes.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
