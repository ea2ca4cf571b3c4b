//! A gateway in this process, clients that allocate next to nothing, and the counting.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use causeway::app::Gateway;
use causeway::config::Config;
use causeway::domain::id::TenantId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

pub(crate) const TENANT: &str = "tnt_cost";

/// Held by the test that counts.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits until no other test counts.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

/// A gateway on a directory, with this process as its only client.
pub(crate) async fn start(
    data_dir: &Path,
    peers: Vec<causeway::services::peer_options::PeerOptions>,
) -> Gateway {
    let mut config = Config::default();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.gateway.default_tenant = Some(TenantId::parse(TENANT).expect("a tenant"));
    config.gateway.data_dir = data_dir.to_owned();
    config.peers = peers;
    Gateway::start(config).await.expect("the gateway starts")
}

/// What was allocated while `work` was done, by everybody in this process, and how much of it is held still.
pub(crate) async fn measured<T>(work: impl Future<Output = T>) -> (dhat::HeapStats, T) {
    let profiler = dhat::Profiler::builder().testing().build();
    let done = work.await;
    let stats = dhat::HeapStats::get();
    drop(profiler);
    (stats, done)
}

/// Allocations while `work` is done.
pub(crate) async fn allocations(work: impl Future<Output = ()>) -> u64 {
    measured(work).await.0.total_blocks
}

/// Bytes that this process has read from files and connections so far.
pub(crate) fn bytes_read() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").expect("what this process read");
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a count");
    line.parse().expect("a number")
}

/// `events` events of a run, numbered from `first`, as one body to push.
pub(crate) fn body(run: &str, first: usize, events: usize) -> String {
    let all: Vec<String> =
        (first..first + events).map(|number| event(run, number, "step.completed")).collect();
    format!("{{\"events\":[{}]}}", all.join(","))
}

/// One event of a run, about 450 bytes of it.
pub(crate) fn event(run: &str, number: usize, kind: &str) -> String {
    let filling = "x".repeat(200);
    format!(
        "{{\"event_id\":\"evt_{run}_{number:08}\",\"sequence\":{number},\"time\":\"2025-12-19T22:15:36Z\",\
         \"type\":\"agentos.run.{kind}\",\"tenant_id\":\"{TENANT}\",\"agent_id\":\"agt_cost\",\
         \"run_id\":\"{run}\",\"step_id\":null,\"trace\":{{}},\"payload\":{{\"text\":\"{filling}\"}}}}"
    )
}

/// Pushes a body and expects that all of it was taken.
pub(crate) async fn push(address: SocketAddr, body: &str) {
    let answer = post(address, "/v1/federation/events:ingest", body).await;
    assert!(answer.contains(" 200 ") && answer.contains("\"rejected\":0"), "{answer}");
}

/// Posts JSON and answers with the whole answer.
pub(crate) async fn post(address: SocketAddr, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\nx-tenant-id: {TENANT}\r\n\
         content-type: application/json\r\nidempotency-key: \"{path}\"\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("a head that leaves");
    stream.write_all(body.as_bytes()).await.expect("a body that leaves");
    let mut answer = Vec::with_capacity(256 * 1024);
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A connection that is kept, to push one event after the other.
pub(crate) struct Pusher {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Pusher {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        Pusher { stream, request: Vec::with_capacity(4096), answer: vec![0; 4096] }
    }

    /// Pushes a body and expects that all of it was taken. Allocates nothing.
    pub(crate) async fn push(&mut self, body: &str) {
        self.request.clear();
        write!(
            self.request,
            "POST /v1/federation/events:ingest HTTP/1.1\r\nhost: 127.0.0.1:80\r\nx-tenant-id: {TENANT}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("a request");
        self.stream.write_all(&self.request).await.expect("a request that leaves");
        let count = self.stream.read(&mut self.answer).await.expect("an answer");
        let answer = std::str::from_utf8(&self.answer[..count]).expect("text");
        assert!(answer.contains(" 200 ") && answer.contains("\"rejected\":0"), "{answer}");
    }
}

/// A follower that only counts frames.
pub(crate) struct Counter {
    stream: TcpStream,
    line_feeds: usize,
    frames: usize,
}

impl Counter {
    /// Follows a run from its beginning.
    pub(crate) async fn follow(address: SocketAddr, run: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = format!(
            "GET /v1/federation/runs/{run}/events HTTP/1.1\r\nhost: g\r\nx-tenant-id: {TENANT}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("a request that leaves");
        Counter { stream, line_feeds: 0, frames: 0 }
    }

    /// Reads until so many frames have come in all. A frame ends in a blank line, and no head of a chunk
    /// does.
    pub(crate) async fn read_to(&mut self, frames: usize) {
        let mut piece = [0; 16 * 1024];
        while self.frames < frames {
            let count = self.stream.read(&mut piece).await.expect("more");
            assert!(count > 0, "the stream ended after {} frames of {frames}", self.frames);
            for byte in &piece[..count] {
                self.line_feeds = if *byte == b'\n' { self.line_feeds + 1 } else { 0 };
                self.frames += usize::from(self.line_feeds == 2);
            }
        }
    }
}
