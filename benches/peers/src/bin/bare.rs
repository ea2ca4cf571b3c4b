//! The least that does the same work with the same libraries: axum, hyper and SQLite, and nothing else. What Causeway
//! costs beyond it is the price of what it promises beyond it.
//!
//! ```text
//! GET  /streams              how many events there are
//! POST /streams/{n}/events   [event, …]: parsed, deduplicated by id, committed and synced, then acknowledged
//! GET  /streams/{n}/events   all of them from the first on, then live, as server-sent events
//! anything else              to the origin, and its answer back, as it comes
//! ```
//!
//! It knows no tenants, credentials, limits, cursors, holes, audit, metrics or log lines, checks no event beyond its
//! JSON, and believes everything it is sent.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use clap::Parser;
use futures_util::stream::unfold;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rusqlite::{Connection, OpenFlags, params};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of events in one transaction, about.
const GROUP_BYTES: usize = 1 << 20;
/// Requests that wait for the writer.
const QUEUE: usize = 1024;
/// Commits whose frames followers find in memory.
const RING: usize = 1024;
/// Rows that are read at once.
const PAGE: usize = 1000;
/// Pages that are read ahead.
const AHEAD: usize = 2;

/// The least that does the same
#[derive(Debug, Parser)]
#[command(name = "bare", version)]
struct Options {
    #[arg(long)]
    listen: SocketAddr,
    /// Where the database goes
    #[arg(long)]
    dir: PathBuf,
    /// Where everything else goes
    #[arg(long)]
    origin: Option<SocketAddr>,
}

/// What every event has.
#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed, as whoever stores events must")]
struct Event<'a> {
    event_id: &'a str,
    time: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// One request, and who waits for it.
struct Append {
    stream: i64,
    /// Ids and events.
    events: Vec<(String, Box<str>)>,
    done: oneshot::Sender<usize>,
}

/// A stream's newest frames, and the last sequence.
struct Stream {
    last: watch::Sender<i64>,
    ring: Mutex<VecDeque<(i64, Bytes)>>,
}

struct Shared {
    database: PathBuf,
    appends: mpsc::Sender<Append>,
    streams: Mutex<HashMap<i64, Arc<Stream>>>,
    client: Client<HttpConnector, Body>,
    origin: Option<SocketAddr>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let database = options.dir.join("bare.db");
    let connection = Connection::open(&database)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
         CREATE TABLE IF NOT EXISTS events
             (stream INTEGER, sequence INTEGER, event_id TEXT NOT NULL, body TEXT NOT NULL,
              PRIMARY KEY (stream, sequence), UNIQUE (stream, event_id)) STRICT, WITHOUT ROWID",
    )?;
    let (appends, queue) = mpsc::channel(QUEUE);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let shared =
        Arc::new(Shared { database, appends, streams: Mutex::default(), client, origin: options.origin });
    let writer = Arc::clone(&shared);
    std::thread::spawn(move || {
        if let Err(error) = write(connection, queue, &writer) {
            eprintln!("bare: {error:#}");
            std::process::exit(1);
        }
    });
    let router = Router::new()
        .route("/streams/{stream}/events", post(append).get(follow))
        .route("/streams", get(count))
        .fallback(pass_on)
        .with_state(shared);
    let listener = TcpListener::bind(options.listen).await?;
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    axum::serve(listener, router).await?;
    Ok(())
}

impl Shared {
    fn stream(&self, number: i64) -> Arc<Stream> {
        let mut all = lock(&self.streams);
        let made = || Arc::new(Stream { last: watch::Sender::new(0), ring: Mutex::default() });
        Arc::clone(all.entry(number).or_insert_with(made))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn append(State(shared): State<Arc<Shared>>, Path(stream): Path<i64>, body: Bytes) -> Response {
    let Ok(texts) = serde_json::from_slice::<Vec<&RawValue>>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut events = Vec::with_capacity(texts.len());
    for text in texts {
        let Ok(event) = serde_json::from_str::<Event<'_>>(text.get()) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        events.push((event.event_id.to_owned(), text.get().into()));
    }
    let (done, committed) = oneshot::channel();
    // An error means that the writer has failed, and the process is about to end.
    let _ = shared.appends.send(Append { stream, events, done }).await;
    match committed.await {
        Ok(accepted) => format!("{{\"accepted\":{accepted}}}").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Commits what waits, as much as there is, and then tells who waits for it and who follows.
fn write(connection: Connection, mut queue: mpsc::Receiver<Append>, shared: &Shared) -> Result<()> {
    let insert = "INSERT INTO events VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    while let Some(first) = queue.blocking_recv() {
        let (mut bytes, mut next, mut told) = (0, Some(first), Vec::new());
        let mut moved: HashMap<i64, (i64, Vec<u8>)> = HashMap::new();
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        while let Some(Append { stream, events, done }) = next {
            let (last, frames) =
                moved.entry(stream).or_insert_with(|| (*shared.stream(stream).last.borrow(), Vec::new()));
            let mut accepted = 0;
            for (id, body) in events {
                bytes += body.len();
                let sequence = *last + 1;
                if connection.prepare_cached(insert)?.execute(params![stream, sequence, id, body])? == 1 {
                    (*last, accepted) = (sequence, accepted + 1);
                    frame(frames, sequence, &body);
                }
            }
            told.push((done, accepted));
            next = if bytes < GROUP_BYTES { queue.try_recv().ok() } else { None };
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        for (done, accepted) in told {
            let _ = done.send(accepted);
        }
        for (number, (last, frames)) in moved {
            let stream = shared.stream(number);
            let mut ring = lock(&stream.ring);
            ring.push_back((last, Bytes::from(frames)));
            if ring.len() > RING {
                ring.pop_front();
            }
            drop(ring);
            stream.last.send_replace(last);
        }
    }
    Ok(())
}

fn frame(out: &mut Vec<u8>, sequence: i64, body: &str) {
    use std::io::Write as _;
    // Memory takes everything.
    let _ = write!(out, "id: {sequence}\nevent: agentos.event\ndata: {body}\n\n");
}

async fn count(State(shared): State<Arc<Shared>>) -> Response {
    let counted = tokio::task::spawn_blocking(move || {
        let connection = Connection::open_with_flags(&shared.database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0))
    });
    match counted.await {
        Ok(Ok(events)) => events.to_string().into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What was read of a stream so far, and where the rest comes from.
struct Reading {
    stream: Arc<Stream>,
    moved: watch::Receiver<i64>,
    pages: mpsc::Receiver<(i64, Bytes)>,
    cursor: i64,
}

async fn follow(State(shared): State<Arc<Shared>>, Path(number): Path<i64>) -> Response {
    let stream = shared.stream(number);
    let (moved, pages) = (stream.last.subscribe(), read(shared.database.clone(), number));
    let reading = Reading { stream, moved, pages, cursor: 0 };
    let frames = unfold(reading, async |mut reading| {
        let bytes = reading.next().await;
        Some((Ok::<_, Infallible>(bytes), reading))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(frames)).into_response()
}

impl Reading {
    /// All that has come after the cursor and is in memory, else the next page.
    async fn next(&mut self) -> Bytes {
        if let Some((last, bytes)) = self.pages.recv().await {
            self.cursor = last;
            return bytes;
        }
        loop {
            self.moved.mark_unchanged();
            if let Some(bytes) = self.newest() {
                return bytes;
            }
            // The sender lives as long as the stream, which this holds.
            let _ = self.moved.changed().await;
        }
    }

    fn newest(&mut self) -> Option<Bytes> {
        let ring = lock(&self.stream.ring);
        let (last, newest) = ring.back().filter(|(last, _)| *last > self.cursor)?;
        let at = ring.partition_point(|(last, _)| *last <= self.cursor);
        self.cursor = *last;
        if at + 1 == ring.len() {
            return Some(newest.clone());
        }
        let mut together = Vec::new();
        ring.range(at..).for_each(|(_, bytes)| together.extend_from_slice(bytes));
        Some(Bytes::from(together))
    }
}

/// Reads what is stored, on a thread of its own, up to its end.
fn read(database: PathBuf, stream: i64) -> mpsc::Receiver<(i64, Bytes)> {
    let (pages, received) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || -> Result<()> {
        let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let sql = "SELECT sequence, body FROM events WHERE stream = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3";
        let mut statement = connection.prepare(sql)?;
        let mut cursor = 0;
        loop {
            let (before, mut page) = (cursor, Vec::new());
            let mut rows = statement.query(params![stream, cursor, PAGE as i64])?;
            while let Some(row) = rows.next()? {
                cursor = row.get(0)?;
                frame(&mut page, cursor, row.get_ref(1)?.as_str()?);
            }
            if cursor == before || pages.blocking_send((cursor, Bytes::from(page))).is_err() {
                return Ok(());
            }
        }
    });
    received
}

async fn pass_on(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let Some(origin) = shared.origin else { return StatusCode::NOT_FOUND.into_response() };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("http://{origin}{path}").parse::<Uri>() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    match shared.client.request(request).await {
        Ok(answer) => answer.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
