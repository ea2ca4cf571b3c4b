//! The bytes of HTTP/1.1 as a strict client reads them.
//!
//! Invariant: a function here returns what is whole, or nothing yet; what can never become right is a panic.

use std::{fmt::Write as _, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::frame::shown;
use crate::support::ears::{Tapped, connect};

/// Sends a GET.
pub(super) async fn send_request(
    addr: SocketAddr,
    path_and_query: &str,
    headers: &[(&str, &str)],
) -> Result<Tapped<TcpStream>, io::ErrorKind> {
    let mut request = format!("GET {path_and_query} HTTP/1.1\r\nHost: {addr}\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").expect("a string takes all");
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
        request.push_str("Accept: text/event-stream\r\n");
    }
    request.push_str("\r\n");
    let mut socket = connect(addr).await.map_err(|error| error.kind())?;
    socket.write_all(request.as_bytes()).await.map_err(|error| error.kind())?;
    Ok(socket)
}

/// Reads the head; returns it and the bytes read beyond it.
pub(super) async fn read_head(
    socket: &mut Tapped<TcpStream>,
    patience: Duration,
) -> Result<(String, Vec<u8>), io::ErrorKind> {
    let mut received = Vec::new();
    loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let beyond = received.split_off(at + 4);
            return Ok((shown(&received), beyond));
        }
        read_some(socket, &mut received, patience).await?;
    }
}

/// Status and headers; names in lower case, values trimmed.
pub(super) fn parse_head(head: &str) -> (u16, Vec<(String, String)>) {
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    (status.unwrap_or_else(|| panic!("no HTTP/1.1 head: {head:?}")), lines.map(header).collect())
}

/// Appends what the next read brings; `TimedOut` when that is nothing, `UnexpectedEof` at the end.
pub(super) async fn read_some(
    socket: &mut Tapped<TcpStream>,
    into: &mut Vec<u8>,
    patience: Duration,
) -> Result<(), io::ErrorKind> {
    match timeout(patience, socket.read_buf(into)).await {
        Err(_) => Err(io::ErrorKind::TimedOut),
        Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.kind()),
    }
}

/// The payload of the first chunk in these bytes, once it is whole, and the length of it all.
pub(super) fn find_chunk(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let size_end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let size = shown(&bytes[..size_end]);
    let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("a chunk of size {size:?}"));
    let payload_end = size_end + 2 + size;
    let payload = bytes.get(size_end + 2..payload_end)?;
    assert_eq!(bytes.get(payload_end..payload_end + 2)?, b"\r\n", "a chunk longer than its size");
    Some((payload, payload_end + 2))
}

/// What there is of the payload of a chunk that is not whole.
pub(super) fn broken_payload(bytes: &[u8]) -> &[u8] {
    bytes.windows(2).position(|pair| pair == b"\r\n").map_or(&[], |size_end| &bytes[size_end + 2..])
}
