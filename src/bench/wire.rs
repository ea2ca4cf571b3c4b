//! HTTP/1.1 as one who measures speaks it: requests written by hand, answers read for what counts.
//!
//! A client library would cost more than the server it asks, on the same machine.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use memchr::memmem;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use url::Url;

use super::BenchError;
use super::frames::{Dechunker, Frame, FrameReader};
use crate::protocol::headers;

/// How long an answer, or the next byte of a stream that must bring one, may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A connection that was idle for longer may be closed by the server at any moment: it is made anew.
const FRESH: Duration = Duration::from_secs(4);
/// Bytes of an answer that are shown.
const MOST_SHOWN: usize = 500;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

thread_local! {
    /// One for all connections of a thread: ten thousand readers need no buffer each.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A server, and as whom it is asked.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    address: SocketAddr,
    prefix: String,
    common: String,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    stream: TcpStream,
    used: Instant,
    answer: Vec<u8>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    /// HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: &'a [u8],
}

/// A head, and where the body begins.
struct Head {
    status: u16,
    /// Bytes of the body; none: it is chunked.
    length: Option<usize>,
    end: usize,
}

/// A stream being read.
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    chunks: Dechunker,
    frames: FrameReader,
    /// Body bytes that came with the head.
    early: Vec<u8>,
}

impl Endpoint {
    /// The server at `base`.
    ///
    /// # Errors
    ///
    /// Its name cannot be resolved, or it is not spoken to in plain HTTP.
    pub(super) async fn resolve(base: &Url, tenant: &str, token: Option<&str>) -> Result<Self, BenchError> {
        if base.scheme() != "http" {
            let told = "name a gateway's plain http URL: what TLS costs is not measured here";
            return Err(BenchError::Setup(format!("{base}: {told}")));
        }
        let (host, port) = (base.host_str().unwrap_or_default(), base.port_or_known_default().unwrap_or(80));
        let mut found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port))
            .await
            .map_err(|error| BenchError::Unreachable(format!("{base}: {error}")))?;
        let address =
            found.next().ok_or_else(|| BenchError::Unreachable(format!("{base} has no address")))?;
        let who = match token {
            Some(token) => format!("authorization: Bearer {token}\r\n"),
            None => format!("{}: {tenant}\r\n", headers::TENANT),
        };
        let common = format!("host: {host}:{port}\r\n{who}");
        Ok(Endpoint { address, prefix: base.path().trim_end_matches('/').to_owned(), common })
    }

    /// A request with a JSON body.
    pub(super) fn post(&self, path: &str, more: &str, body: &[u8]) -> Vec<u8> {
        let (prefix, common, length) = (&self.prefix, &self.common, body.len());
        let mut request = format!(
            "POST {prefix}{path} HTTP/1.1\r\n{common}content-type: application/json\r\n{more}\
             content-length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// A request for a stream of events.
    pub(super) fn events(&self, path: &str, principal: Option<&str>) -> Vec<u8> {
        let principal =
            principal.map(|name| format!("{}: {name}\r\n", headers::PRINCIPAL)).unwrap_or_default();
        let (prefix, common) = (&self.prefix, &self.common);
        format!("GET {prefix}{path} HTTP/1.1\r\n{common}{principal}accept: text/event-stream\r\n\r\n")
            .into_bytes()
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Answer<'_> {
    /// True when the same request may succeed later.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    /// The beginning of the body, to be shown.
    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(MOST_SHOWN)]).into_owned()
    }
}

impl Connection {
    /// Connects.
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, BenchError> {
        let address = endpoint.address;
        let stream = endpoint
            .connect()
            .await
            .map_err(|error| BenchError::Unreachable(format!("{address}: {error}")))?;
        Ok(Connection { endpoint: endpoint.clone(), stream, used: Instant::now(), answer: Vec::new() })
    }

    /// Sends a request and reads the whole answer. Afterwards a broken connection is made anew.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        if self.used.elapsed() > FRESH {
            self.stream = self.endpoint.connect().await?;
        }
        let exchanged = timeout(PATIENCE, self.try_exchange(request)).await;
        self.used = Instant::now();
        let (status, start) = match exchanged.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(found) => found,
            Err(error) => {
                self.stream = self.endpoint.connect().await?;
                return Err(error);
            }
        };
        Ok(Answer { status, body: &self.answer[start..] })
    }

    async fn try_exchange(&mut self, request: &[u8]) -> io::Result<(u16, usize)> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        let head = loop {
            read(&self.stream, |bytes| self.answer.extend_from_slice(bytes)).await?;
            if let Some(head) = Head::find(&self.answer)? {
                break head;
            }
        };
        let Some(length) = head.length else {
            return Err(io::Error::other("a body of unknown length"));
        };
        while self.answer.len() < head.end + length {
            read(&self.stream, |bytes| self.answer.extend_from_slice(bytes)).await?;
        }
        Ok((head.status, head.end))
    }
}

impl Stream {
    /// Asks for a stream and waits for the head of the answer.
    pub(super) async fn open(endpoint: &Endpoint, request: &[u8]) -> Result<Self, BenchError> {
        let opened = timeout(PATIENCE, Self::try_open(endpoint, request)).await;
        opened.unwrap_or_else(|_| Err(BenchError::Broken("a stream did not open in time".to_owned())))
    }

    async fn try_open(endpoint: &Endpoint, request: &[u8]) -> Result<Self, BenchError> {
        let lost = |error: io::Error| BenchError::Broken(format!("a stream did not open: {error}"));
        let mut socket = endpoint.connect().await.map_err(lost)?;
        socket.write_all(request).await.map_err(lost)?;
        let mut early = Vec::new();
        let head = loop {
            read(&socket, |bytes| early.extend_from_slice(bytes)).await.map_err(lost)?;
            if let Some(head) = Head::find(&early).map_err(lost)? {
                break head;
            }
        };
        early.drain(..head.end);
        if head.status != 200 || head.length.is_some() {
            let said = String::from_utf8_lossy(&early[..early.len().min(MOST_SHOWN)]).into_owned();
            return Err(BenchError::Broken(format!("a stream was answered {}: {said}", head.status)));
        }
        Ok(Stream { socket, chunks: Dechunker::default(), frames: FrameReader::default(), early })
    }

    /// As [`Stream::read`], where bytes must come soon.
    pub(super) async fn read_soon(
        &mut self,
        sink: impl FnMut(Frame<'_>) -> Result<(), BenchError>,
    ) -> Result<bool, BenchError> {
        let late = || BenchError::Broken(format!("a stream brought nothing for {PATIENCE:?}"));
        timeout(PATIENCE, self.read(sink)).await.unwrap_or_else(|_| Err(late()))
    }

    /// Waits for bytes and hands on the frames they complete; false once the stream has ended.
    pub(super) async fn read(
        &mut self,
        mut sink: impl FnMut(Frame<'_>) -> Result<(), BenchError>,
    ) -> Result<bool, BenchError> {
        let (chunks, frames) = (&mut self.chunks, &mut self.frames);
        let mut take = |bytes: &[u8]| chunks.feed(bytes, |body| frames.feed(body, &mut sink)).map(|_| ());
        if self.early.is_empty() {
            let mut taken = Ok(());
            let came = read(&self.socket, |bytes| taken = take(bytes)).await;
            taken?;
            came.map_err(|error| BenchError::Broken(format!("a stream broke: {error}")))?;
        } else {
            take(&std::mem::take(&mut self.early))?;
        }
        Ok(!self.chunks.is_over())
    }
}

/// Waits for bytes and hands them on. An end is an error: whoever reads is owed something.
pub(super) async fn read(stream: &TcpStream, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let came: io::Result<usize> = BUFFER.with_borrow_mut(|buffer| {
            let length = stream.try_read(buffer)?;
            take(&buffer[..length]);
            Ok(length)
        });
        match came {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

impl Head {
    fn find(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let unreadable = || io::Error::other("the answer is not HTTP/1.1");
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| unreadable())?;
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(unreadable)?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
        });
        let length = if status == 204 { Some(0) } else { length };
        Ok(Some(Head { status, length, end: end + 4 }))
    }
}
