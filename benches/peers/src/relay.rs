//! What goes through a proxy: a stream of events, and requests that create runs; and the origin behind it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::event;
use crate::peers::{Keeping, Peer, Running};
use crate::window::{Latency, Sample, Times, Window, latency, note, since, stamp, wait_until};
use crate::wire::{Events, Wire, answer, each};

/// Bytes of chunks written at once where nothing says how fast.
const BURST_BYTES: usize = 64 * 1024;
/// How long the way without a proxy is measured.
const DIRECT: Duration = Duration::from_secs(1);
/// What makes a request to create a run as long as that of `causeway bench forward`.
const REQUEST: &str = "{\"agent_id\":\"agt_bench\",\"input\":{\"type\":\"text\",\"text\":\"abcdefghijklmnopqrstuvwxyz\
    abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\
    abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqr\"}}";

/// Measures one stream, at a rate (then latency is what the proxy adds) or as fast as it goes.
pub async fn stream(peer: Peer, rate: Option<u32>, parent: &Path, times: Times) -> Result<Sample> {
    let origin = Origin::start().await?;
    let Running { server, .. } = &peer.start(parent, Keeping::Nothing, Some(origin.address)).await?;
    let window = Arc::new(Window::default());
    let worker = tokio::spawn(follow(server.address, rate, Arc::clone(&window)));
    let through = window.measure(times, server, vec![worker]).await?;
    if rate.is_none() {
        return Ok(through);
    }
    let direct = Arc::new(Window::default());
    let worker = tokio::spawn(follow(origin.address, rate, Arc::clone(&direct)));
    let times = Times { duration: DIRECT, ..times };
    Ok(through.beyond(&direct.measure(times, server, vec![worker]).await?))
}

async fn follow(address: SocketAddr, rate: Option<u32>, window: Arc<Window>) -> Result<Latency> {
    let mut wire = Wire::connect(address).await?;
    wire.send(&Events::request(&format!("/events/{}", rate.unwrap_or(0)))).await?;
    let (mut times, mut events, mut cursor) = (latency(), Events::default(), 0);
    while !window.is_over() {
        let mut now = None;
        wire.read(|bytes| {
            events.take(bytes, |body| {
                let at = event::check(body, cursor + 1)?;
                cursor += 1;
                if window.count(1) {
                    let now = stamp(*now.get_or_insert_with(Instant::now));
                    note(&mut times, now.saturating_sub(at), 1)?;
                }
                Ok(())
            })
        })
        .await?;
    }
    Ok(times)
}

/// Measures requests that create runs, so many at a time.
pub async fn create(peer: Peer, in_flight: usize, parent: &Path, times: Times) -> Result<Sample> {
    let origin = Origin::start().await?;
    let Running { server, .. } = &peer.start(parent, Keeping::Nothing, Some(origin.address)).await?;
    let window = Arc::new(Window::default());
    let workers: Vec<JoinHandle<Result<Latency>>> =
        (0..in_flight).map(|worker| tokio::spawn(ask(server.address, worker, Arc::clone(&window)))).collect();
    window.measure(times, server, workers).await
}

async fn ask(address: SocketAddr, worker: usize, window: Arc<Window>) -> Result<Latency> {
    let mut wire = Wire::connect(address).await?;
    let mut times = latency();
    for number in 0_u64.. {
        if window.is_over() {
            break;
        }
        let start = Instant::now();
        let key = format!("bench-{worker:x}-{number:x}");
        let request = format!(
            "POST /v1/agents/agt_bench/runs HTTP/1.1\r\nhost: bench\r\nidempotency-key: {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{REQUEST}",
            REQUEST.len()
        );
        wire.send(request.as_bytes()).await?;
        let mut answered = false;
        while !answered {
            wire.read(|bytes| {
                each(bytes, answer, |(status, body)| {
                    ensure!(status == 201 && body == created(&key).as_bytes(), "the answer was {status}");
                    answered = true;
                    Ok(())
                })
            })
            .await?;
        }
        if window.count(1) {
            note(&mut times, since(start), 1)?;
        }
    }
    Ok(times)
}

/// Where runs are executed and events come from; it does as little as one can.
struct Origin {
    address: SocketAddr,
    listening: JoinHandle<Result<Infallible>>,
}

impl Origin {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let listening = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await?;
                // How its client ends a connection is the client's affair.
                tokio::spawn(async move { drop(serve(socket).await) });
            }
        });
        Ok(Origin { address, listening })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(socket: TcpStream) -> Result<()> {
    let mut wire = Wire::of(socket)?;
    loop {
        let (mut stream, mut out) = (None, Vec::new());
        wire.read_at_leisure(|bytes| {
            each(bytes, request, |found| {
                match found {
                    Asked::Stream(rate) => stream = Some(rate),
                    Asked::Run(key) => {
                        let body = created(&key);
                        let head =
                            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: ";
                        out.extend_from_slice(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes());
                    }
                }
                Ok(())
            })
        })
        .await?;
        if let Some(rate) = stream {
            return emit(wire.into_socket(), rate).await;
        }
        wire.send(&out).await?;
    }
}

/// What the origin answers about a run it created.
fn created(key: &str) -> String {
    format!(
        "{{\"run\":{{\"run_id\":\"run_{key}\",\"status\":\"queued\",\"events_url\":\"/v1/runs/run_{key}/events\"}}}}"
    )
}

/// What the origin is asked for.
enum Asked {
    /// A stream of so many events a second; 0: as fast as they are taken.
    Stream(u32),
    /// A run, by this key.
    Run(String),
}

fn request(bytes: &[u8]) -> Result<Option<(Asked, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    if let Some(rate) = request.path.and_then(|path| path.strip_prefix("/events/")) {
        return Ok(Some((Asked::Stream(rate.parse()?), head)));
    }
    let end = head + header("content-length").context("a request without a body")?.parse::<usize>()?;
    let key = header("idempotency-key").context("a request without a key")?.to_owned();
    Ok((bytes.len() >= end).then_some((Asked::Run(key), end)))
}

/// Sends events until nobody takes them any more, each a chunk of its own.
async fn emit(mut socket: TcpStream, rate: u32) -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    let start = Instant::now();
    let (mut out, mut frame) = (Vec::new(), Vec::new());
    for number in 1_u64.. {
        let mut due = Instant::now();
        if rate > 0 {
            due = start + Duration::from_secs_f64(number as f64 / f64::from(rate));
            wait_until(due);
        }
        frame.clear();
        frame.extend_from_slice(format!("id: {number}\nevent: agentos.event\ndata: ").as_bytes());
        event::write(&mut frame, number, stamp(due));
        frame.extend_from_slice(b"\n\n");
        out.extend_from_slice(format!("{:x}\r\n", frame.len()).as_bytes());
        out.extend_from_slice(&frame);
        out.extend_from_slice(b"\r\n");
        if rate > 0 || out.len() >= BURST_BYTES {
            socket.write_all(&out).await?;
            out.clear();
        }
    }
    Ok(())
}
