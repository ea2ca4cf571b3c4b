//! Where runs are executed while forwards and streams are measured: an orchestrator that does as little as one can.
//!
//! It keeps its part of the contract: one key makes one run, however often it is sent, and a stream resumes after
//! any sequence. It counts the runs it made, which is how a second one is found out.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::BenchError;
use super::course::stamp;
use super::events::Mould;
use super::pace::Pace;
use super::wire;
use crate::protocol::sse::event_frame;
use crate::tasks::Tasks;

/// Bytes of frames written at once where nothing says how fast.
const BURST_BYTES: usize = 64 * 1024;
/// Bytes of a request.
const MOST_BYTES: usize = 2 * 1024 * 1024;

/// A running orchestrator.
pub(super) struct Origin {
    /// Where it listens.
    pub(super) address: SocketAddr,
    desk: Arc<Desk>,
}

/// How a run goes.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Events, of which the last one ends the run; 0: it goes on and has none.
    pub(super) events: u64,
    /// Events per second; none: as fast as they are taken.
    pub(super) rate: Option<f64>,
    /// Cancelled: the next event is the last.
    pub(super) over: CancellationToken,
}

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    /// Its id.
    pub(super) id: String,
    number: u64,
    script: Script,
    /// Its last event, once that is known.
    last: AtomicU64,
}

struct Desk {
    mould: Mould,
    script: Script,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    by_key: HashMap<String, u64>,
    runs: Vec<Arc<Run>>,
}

impl Origin {
    /// Listens (port 0: anywhere on this machine) for those who create runs that go as the script says.
    pub(super) async fn start(
        listen: Option<SocketAddr>,
        mould: Mould,
        script: Script,
        tasks: &Tasks,
    ) -> Result<Self, BenchError> {
        let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let failed = |error| BenchError::Setup(format!("cannot listen on {listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let desk = Arc::new(Desk { mould, script, book: Mutex::default() });
        let (clerk, spawner) = (Arc::clone(&desk), tasks.clone());
        tasks.spawn(async move {
            loop {
                // Nothing is left to accept when descriptors run out: the gateway tries again.
                let Ok((stream, _)) = listener.accept().await else { continue };
                let desk = Arc::clone(&clerk);
                // How a gateway ends its connection is its own affair.
                spawner.spawn(async move { drop(desk.serve(stream).await) });
            }
        });
        Ok(Origin { address, desk })
    }

    /// What all its events have in common.
    pub(super) fn mould(&self) -> &Mould {
        &self.desk.mould
    }

    /// How many runs were created.
    pub(super) fn created(&self) -> u64 {
        self.desk.book().runs.len() as u64
    }

    /// The run with this id.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Run>> {
        self.desk.find(id)
    }

    /// A run that nobody asked for.
    pub(super) fn create(&self, script: Script) -> Arc<Run> {
        self.desk.create(None, script)
    }
}

impl Run {
    /// Its number, for its shape.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Its last event, once that is known.
    pub(super) fn last(&self) -> Option<u64> {
        Some(self.last.load(Ordering::SeqCst)).filter(|last| *last > 0)
    }
}

impl Desk {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Option<Arc<Run>> {
        let number: usize = id.rsplit('_').next()?.parse().ok()?;
        self.book().runs.get(number).filter(|run| run.id == id).cloned()
    }

    fn create(&self, key: Option<&str>, script: Script) -> Arc<Run> {
        let mut book = self.book();
        if let Some(number) = key.and_then(|key| book.by_key.get(key)) {
            return Arc::clone(&book.runs[*number as usize]);
        }
        let number = book.runs.len() as u64;
        let id = format!("run_bench_{:x}_{number}", self.mould.seed);
        let run = Arc::new(Run { id, number, script, last: AtomicU64::new(0) });
        book.runs.push(Arc::clone(&run));
        if let Some(key) = key {
            book.by_key.insert(key.to_owned(), number);
        }
        run
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut bytes = Vec::new();
        loop {
            let (end, body) = loop {
                if let Some(found) = whole(&bytes) {
                    break found;
                }
                if bytes.len() > MOST_BYTES {
                    return Ok(());
                }
                wire::read(&stream, |came| bytes.extend_from_slice(came)).await?;
            };
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes.drain(..end + body);
            self.answer(&mut stream, &head).await?;
        }
    }

    async fn answer(&self, stream: &mut TcpStream, head: &str) -> io::Result<()> {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (status, body) = match (method, segments.as_slice()) {
            ("POST", ["v1", "agents", _, "runs"]) => {
                let run = self.create(field(head, "idempotency-key"), self.script.clone());
                ("201 Created", shown(&run, "queued"))
            }
            ("GET", ["v1", "runs", id, "events"]) => match self.find(id) {
                Some(run) => return self.stream(stream, &run, after(query)).await,
                None => ("404 Not Found", "{}".to_owned()),
            },
            ("GET", ["v1", "runs", id]) => match self.find(id) {
                Some(run) if run.last().is_some() => ("200 OK", shown(&run, "completed")),
                Some(run) => ("200 OK", shown(&run, "running")),
                None => ("404 Not Found", "{}".to_owned()),
            },
            ("GET", _) => ("200 OK", "{\"status\":\"ok\"}".to_owned()),
            _ => ("404 Not Found", "{}".to_owned()),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await
    }

    async fn stream(&self, stream: &mut TcpStream, run: &Run, after: u64) -> io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        if run.script.events == 0 {
            return wire::read(stream, |_| ()).await; // until whoever reads has gone
        }
        let (tick, last) = (self.mould.shape(&run.id, run.number), self.mould.last(&run.id, run.number));
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let pace = Pace::new(run.script.rate, &gone);
        let (mut out, mut json, mut frame) = (Vec::new(), Vec::new(), Vec::new());
        let mut number = after;
        while run.last().is_none_or(|last| number < last) {
            let at = match pace.next().await {
                Some(due) => stamp(due),
                None => return Ok(()),
            };
            number += 1;
            let ends = number >= run.script.events || run.script.over.is_cancelled();
            if ends && run.last().is_none() {
                run.last.store(number, Ordering::SeqCst);
            }
            json.clear();
            let shape = if run.last() == Some(number) { &last } else { &tick };
            shape.numbered(&mut json, number, at);
            frame.clear();
            event_frame(&mut frame, number, &json, b"{}");
            out.extend_from_slice(format!("{:x}\r\n", frame.len()).as_bytes());
            out.extend_from_slice(&frame);
            out.extend_from_slice(b"\r\n");
            if matches!(pace, Pace::Open(_)) || out.len() >= BURST_BYTES {
                stream.write_all(&out).await?;
                out.clear();
            }
        }
        out.extend_from_slice(b"0\r\n\r\n");
        stream.write_all(&out).await
    }
}

/// Where the head of a whole request ends, and how long its body is.
fn whole(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = field(head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    (bytes.len() >= end + body).then_some((end, body))
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (given, value) = line.split_once(':')?;
        given.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn after(query: &str) -> u64 {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("from_sequence="));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn shown(run: &Run, status: &str) -> String {
    let id = &run.id;
    format!(
        "{{\"run\":{{\"run_id\":\"{id}\",\"status\":\"{status}\",\"events_url\":\"/v1/runs/{id}/events\"}}}}"
    )
}
