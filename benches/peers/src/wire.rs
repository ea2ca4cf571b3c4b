//! The peers' protocols, as far as one needs them who measures: NATS, RESP (Redis), HTTP/1.1 with server-sent
//! events. A client library would cost more than the server it asks, on the same machine.

use std::cell::RefCell;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use memchr::{memchr, memmem};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::window::PATIENCE;

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;
/// Bytes of what has come in part; nothing here is nearly as long.
const MOST_PART: usize = READ_BYTES / 2;

thread_local! {
    /// One for all connections of a thread: ten thousand followers need no buffer each.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The next thing that came, and how many bytes it was; none: it is not whole yet.
pub type Next<T> = Result<Option<(T, usize)>>;

/// A connection.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    /// What has come and is not whole yet.
    part: Vec<u8>,
}

/// One thing a Redis server says; an array is its length, then its members.
#[derive(Debug, PartialEq, Eq)]
pub enum Resp<'a> {
    Array(usize),
    Bulk(&'a [u8]),
    Other,
}

/// One thing a NATS server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Nats<'a> {
    Message(&'a [u8]),
    Pong,
    Other,
}

/// The head of an HTTP answer.
struct Head {
    status: u16,
    /// Bytes of the head.
    end: usize,
    /// Bytes of the body, where that is said.
    length: Option<usize>,
    /// The body comes in chunks.
    chunked: bool,
}

/// A stream of server-sent events: in chunks, or as it is until the connection ends.
#[derive(Debug, Default)]
pub struct Events {
    /// The head of the answer was read, and said whether chunks follow.
    chunked: Option<bool>,
    /// Bytes of the chunk that are still to come, with the line end after it.
    chunk: usize,
    body: Vec<u8>,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Self::of(TcpStream::connect(address).await?)
    }

    pub fn of(socket: TcpStream) -> Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Wire { socket, part: Vec::new() })
    }

    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(PATIENCE, self.socket.write_all(bytes)).await.context("nothing is taken any more")??;
        Ok(())
    }

    /// Waits for bytes and hands on all there are; the sink says how many of them it used up.
    pub async fn read(&mut self, sink: impl FnMut(&[u8]) -> Result<usize>) -> Result<()> {
        timeout(PATIENCE, self.read_at_leisure(sink)).await.context("nothing came")?
    }

    /// As [`Wire::read`], however long it takes.
    pub async fn read_at_leisure(&mut self, mut sink: impl FnMut(&[u8]) -> Result<usize>) -> Result<()> {
        loop {
            self.socket.readable().await?;
            let part = &mut self.part;
            let came = BUFFER.with_borrow_mut(|buffer| {
                let before = part.len();
                buffer[..before].copy_from_slice(part);
                let length = match self.socket.try_read(&mut buffer[before..]) {
                    Ok(0) => bail!("the server closed the connection"),
                    Ok(length) => before + length,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error.into()),
                };
                let used = sink(&buffer[..length])?;
                part.clear();
                part.extend_from_slice(&buffer[used..length]);
                ensure!(part.len() <= MOST_PART, "what came has no end");
                Ok(true)
            });
            if came? {
                return Ok(());
            }
        }
    }
}

/// Hands on everything that is whole, and answers how many bytes that was.
pub fn each<'a, T>(
    bytes: &'a [u8],
    next: impl Fn(&'a [u8]) -> Next<T>,
    mut sink: impl FnMut(T) -> Result<()>,
) -> Result<usize> {
    let mut used = 0;
    while let Some((found, length)) = next(&bytes[used..])? {
        sink(found)?;
        used += length;
    }
    Ok(used)
}

/// The next thing a Redis server said, and how long that was.
pub fn resp(bytes: &[u8]) -> Next<Resp<'_>> {
    let Some((line, length)) = line(bytes) else { return Ok(None) };
    let (kind, rest) = line.split_first().context("an empty line")?;
    Ok(match kind {
        b'*' => Some((Resp::Array(number(rest)?), length)),
        b'$' => {
            let end = length + number(rest)?;
            (bytes.len() >= end + 2).then(|| (Resp::Bulk(&bytes[length..end]), end + 2))
        }
        b'+' | b':' => Some((Resp::Other, length)),
        _ => bail!("Redis said {}", String::from_utf8_lossy(line)),
    })
}

/// The next thing a NATS server said, and how long that was.
pub fn nats(bytes: &[u8]) -> Next<Nats<'_>> {
    let Some((line, length)) = line(bytes) else { return Ok(None) };
    let mut words = line.rsplit(|byte| *byte == b' ');
    if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
        let end = length + number(words.next().unwrap_or_default())?;
        let headers = if line.starts_with(b"H") { number(words.next().unwrap_or_default())? } else { 0 };
        ensure!(length + headers <= end, "NATS said {}", String::from_utf8_lossy(line));
        let body = length + headers..end;
        return Ok((bytes.len() >= end + 2).then(|| (Nats::Message(&bytes[body]), end + 2)));
    }
    match line {
        b"PONG" => Ok(Some((Nats::Pong, length))),
        b"PING" | b"+OK" => Ok(Some((Nats::Other, length))),
        _ if line.starts_with(b"INFO ") => Ok(Some((Nats::Other, length))),
        _ => bail!("NATS said {}", String::from_utf8_lossy(line)),
    }
}

impl Events {
    /// The request for a stream.
    pub fn request(path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n\r\n").into_bytes()
    }

    /// Takes bytes and hands on the data of each event they complete.
    pub fn take(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let mut used = 0;
        if self.chunked.is_none() {
            let Some(head) = http_head(bytes)? else { return Ok(0) };
            let (status, length) = (head.status, head.length);
            ensure!(status == 200 && length.is_none(), "a stream was answered {status}, length {length:?}");
            (self.chunked, used) = (Some(head.chunked), head.end);
        }
        if self.chunked == Some(false) {
            return Ok(
                used + each(&bytes[used..], event, |data| if data.is_empty() { Ok(()) } else { sink(data) })?
            );
        }
        while used < bytes.len() {
            let rest = &bytes[used..];
            if self.chunk == 0 {
                let Some((size, length)) = line(rest) else { break };
                let size = std::str::from_utf8(size)?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)?;
                ensure!(size > 0, "the stream has ended");
                self.chunk = size + 2;
                used += length;
                continue;
            }
            let take = rest.len().min(self.chunk);
            let body = take.min(self.chunk.saturating_sub(2));
            self.body.extend_from_slice(&rest[..body]);
            self.chunk -= take;
            used += take;
        }
        let whole = each(&self.body, event, |data| if data.is_empty() { Ok(()) } else { sink(data) })?;
        self.body.drain(..whole);
        Ok(used)
    }
}

/// A request with a body.
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    request.extend_from_slice(body);
    request
}

/// The next whole answer, status and body, and how long it was.
pub fn answer(bytes: &[u8]) -> Next<(u16, &[u8])> {
    let Some(head) = http_head(bytes)? else { return Ok(None) };
    let end = head.end + head.length.context("an answer of unknown length")?;
    Ok((bytes.len() >= end).then(|| ((head.status, &bytes[head.end..end]), end)))
}

/// The data of the next event, and how long the event was. One without data is news about the stream.
fn event(bytes: &[u8]) -> Next<&[u8]> {
    let Some(end) = memmem::find(bytes, b"\n\n") else { return Ok(None) };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    Ok(Some((lines.find_map(|line| line.strip_prefix(b"data: ")).unwrap_or_default(), end + 2)))
}

fn http_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = answer.parse(bytes)? else { return Ok(None) };
    let header = |name: &str| answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let length = header("content-length").map(|header| number(header.value)).transpose()?;
    let chunked =
        header("transfer-encoding").is_some_and(|header| header.value.eq_ignore_ascii_case(b"chunked"));
    Ok(Some(Head { status: answer.code.unwrap_or(0), end, length, chunked }))
}

/// A line without its end, and its length with it.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr(b'\n', bytes)?;
    Some((bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]), end + 1))
}

fn number(digits: &[u8]) -> Result<usize> {
    let shown = || String::from_utf8_lossy(digits).into_owned();
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).with_context(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_left_until_it_is() {
        let said = b"*2\r\n$3\r\nabc\r\n:1\r\n";
        assert_eq!(resp(said).unwrap(), Some((Resp::Array(2), 4)));
        assert_eq!(resp(&said[4..]).unwrap(), Some((Resp::Bulk(b"abc"), 9)));
        assert_eq!(resp(&said[4..12]).unwrap(), None);
        assert!(resp(b"-ERR no\r\n").is_err());
        let said = b"MSG a.b 1 reply 3\r\nabc\r\nPONG\r\n";
        assert_eq!(nats(said).unwrap(), Some((Nats::Message(b"abc"), 24)));
        assert_eq!(nats(&said[..20]).unwrap(), None);
        assert_eq!(nats(b"HMSG a 1 2 5\r\nhhabc\r\n").unwrap(), Some((Nats::Message(b"abc"), 21)));
        assert!(nats(b"-ERR 'no'\r\n").is_err());
    }

    #[test]
    fn events_are_found_without_chunks() {
        let mut events = Events::default();
        let stream = b"HTTP/1.1 200 OK\r\n\r\n: hi\n\nid: 1\ndata: abc\n\nid: 2\nda";
        let mut found = Vec::new();
        let take = |data: &[u8]| {
            found.push(data.to_vec());
            Ok(())
        };
        assert_eq!(events.take(stream, take).unwrap(), stream.len() - 8);
        assert_eq!(found, [b"abc".to_vec()]);
    }

    #[test]
    fn events_are_found_wherever_reads_and_chunks_are_cut() {
        let stream = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
            4\r\n: hi\r\n6\r\n\n\nid: \r\n8\r\n1\ndata: \r\n6\r\nabc\n\n\n\r\n";
        for cut in 1..stream.len() {
            let (mut events, mut found, mut part) = (Events::default(), Vec::new(), Vec::new());
            for bytes in [&stream[..cut], &stream[cut..]] {
                part.extend_from_slice(bytes);
                let used = events
                    .take(&part, |data| {
                        found.push(data.to_vec());
                        Ok(())
                    })
                    .unwrap();
                part.drain(..used);
            }
            assert_eq!(found, [b"abc".to_vec()], "cut at {cut}");
        }
    }
}
