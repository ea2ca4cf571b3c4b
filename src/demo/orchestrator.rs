//! The built-in orchestrator: the AgentOS orchestrator API over the runs of this process, for the demo and the tour.
//!
//! It keeps its part of the contract: one key makes one run, sequences have no holes, a stream resumes after any
//! sequence and ends after the run's last event.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::form_urlencoded;

use super::runs::{Creation, MOST_RUNS, NewRun, Run, RunBook};
use super::script;
use crate::clock::Clock;
use crate::domain::cursor::{Cursor, CursorInput, start_after};
use crate::domain::id::{AgentId, TenantId};
use crate::domain::run::RunStatus;
use crate::entropy::Entropy;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::forward_request::RunRequest;
use crate::protocol::problem::{self, Problem};
use crate::protocol::sse::{HEARTBEAT, event_frame};
use crate::protocol::{headers, json_fields};
use crate::tasks::Tasks;

/// Tenant of requests that name none.
pub const DEMO_TENANT: &str = "tnt_demo";
/// How long a run takes unless told otherwise.
pub const RUN_TIME: Duration = Duration::from_secs(3);

/// Largest request body; more is 413.
const BODY_BYTES: usize = 1024 * 1024;
/// Silence after which a stream says that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Wait asked of a caller when no more runs can be kept.
const FULL_WAIT: Duration = Duration::from_secs(1);

/// A running orchestrator.
pub struct Orchestrator {
    address: SocketAddr,
    tasks: Tasks,
}

#[derive(Clone)]
struct Desk {
    book: Arc<RunBook>,
    clock: Clock,
    entropy: Entropy,
    tasks: Tasks,
    run_time: Duration,
}

/// Where one stream stands.
struct Reading {
    run: Arc<Run>,
    moved: watch::Receiver<u64>,
    cursor: u64,
    draining: CancellationToken,
}

/// A run to show, or why there is none.
type Answer = Result<(StatusCode, Arc<Run>), Problem>;

impl Orchestrator {
    /// Listens at `listen` (port 0 takes a free one) and executes runs that take `run_time` each.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on.
    pub async fn start(listen: SocketAddr, run_time: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (clock, entropy, tasks) = (Clock::system(), Entropy::from_os(), Tasks::default());
        let book = Arc::new(RunBook::new(clock.clone(), entropy.clone(), MOST_RUNS));
        let desk = Desk { book, clock, entropy, tasks: tasks.clone(), run_time };
        let draining = tasks.draining().clone().cancelled_owned();
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let server = axum::serve(listener, router(desk)).with_graceful_shutdown(draining);
        tasks.spawn(server.into_future());
        Ok(Orchestrator { address, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every stream and every run.
    pub async fn shutdown(self) {
        self.tasks.stop().await;
    }
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/v1/agents/{agent_id}/runs", post(create))
        // The verb of `…/{run_id}:cancel` is a part of the last segment.
        .route("/v1/runs/{run_id}", get(show).post(cancel))
        .route("/v1/runs/{run_id}/events", get(events))
        .route("/v1/health", get(health))
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(desk)
}

async fn create(
    State(desk): State<Desk>,
    Path(agent): Path<String>,
    sent: HeaderMap,
    body: Bytes,
) -> Response {
    desk.answer(&sent, desk.create(&agent, &sent, &body))
}

async fn show(State(desk): State<Desk>, Path(run_id): Path<String>, sent: HeaderMap) -> Response {
    desk.answer(&sent, desk.find(&sent, &run_id).map(|run| (StatusCode::OK, run)))
}

async fn cancel(State(desk): State<Desk>, Path(segment): Path<String>, sent: HeaderMap) -> Response {
    desk.answer(&sent, desk.cancel(&segment, &sent))
}

async fn events(
    State(desk): State<Desk>,
    Path(run_id): Path<String>,
    RawQuery(query): RawQuery,
    sent: HeaderMap,
) -> Response {
    let cursor = cursor(query.as_deref().unwrap_or_default(), &sent);
    match (desk.find(&sent, &run_id), cursor) {
        (Ok(run), Ok(cursor)) => desk.stream(run, cursor.get()),
        (Err(problem), _) | (_, Err(problem)) => desk.refuse(&sent, &problem),
    }
}

async fn health(State(desk): State<Desk>, sent: HeaderMap) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let body = json!({"status": "ok", "service": "agent-orchestrator", "version": version});
    desk.json(&sent, StatusCode::OK, body)
}

async fn no_such_path(State(desk): State<Desk>, sent: HeaderMap) -> Response {
    desk.refuse(&sent, &Problem::new(ErrorCode::NotFound, "there is no such path"))
}

/// What a request to create a run asks for; the key may stand in the header, in the body, or in both.
fn new_run(agent: &str, sent: &HeaderMap, body: &Bytes) -> Result<NewRun, Problem> {
    let agent = AgentId::parse(agent).map_err(|error| invalid("agent_id", &error.to_string()))?;
    let body = json_fields::normalised(body)
        .map_err(|error| Problem::new(ErrorCode::InvalidJson, error.to_string()))?;
    let request = RunRequest::parse_create(&body, agent.clone())
        .map_err(|error| Problem::new(ErrorCode::InvalidRequest, error.to_string()))?;
    let in_header = match text(sent, headers::IDEMPOTENCY_KEY) {
        Some(value) => {
            let key = headers::idempotency_key(value);
            Some(key.ok_or_else(|| {
                invalid("Idempotency-Key", "the key is not 1 to 256 visible ASCII characters")
            })?)
        }
        None => None,
    };
    if let (Some(header), Some(body)) = (&in_header, &request.idempotency_key)
        && header != body
    {
        return Err(invalid("idempotency_key", "the keys in header and body differ"));
    }
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(NewRun {
        tenant: tenant(sent)?,
        agent,
        meaning: request.meaning(),
        key: in_header.or(request.idempotency_key),
        input: document.get("input").cloned().unwrap_or_default(),
        traceparent: text(sent, headers::TRACEPARENT).map(str::to_owned),
    })
}

/// Lets the acts of a run happen, until its end or that of the process.
async fn perform(run: Arc<Run>, desk: Desk) {
    let acts = script::acts(&run.asked.input);
    let beats: u32 = acts.iter().map(|act| act.beats).sum();
    let beat = desk.run_time / beats.max(1);
    for act in acts {
        tokio::select! {
            () = tokio::time::sleep(beat * act.beats) => {}
            () = desk.tasks.stopping().cancelled() => return,
        }
        if !run.append(act.kind, act.step, act.payload) {
            return;
        }
    }
}

impl Desk {
    fn create(&self, agent: &str, sent: &HeaderMap, body: &Bytes) -> Answer {
        match self.book.create(new_run(agent, sent, body)?) {
            Creation::New(run) => {
                self.tasks.spawn(perform(Arc::clone(&run), self.clone()));
                Ok((StatusCode::CREATED, run))
            }
            Creation::Known(run) => Ok((StatusCode::OK, run)),
            Creation::KeyReused => {
                Err(Problem::new(ErrorCode::IdempotencyKeyReused, "this key made another run"))
            }
            Creation::Full => {
                let message = format!("{MOST_RUNS} runs are at work, and no more can be");
                Err(Problem::new(ErrorCode::Busy, message).retry_after(FULL_WAIT))
            }
        }
    }

    fn find(&self, sent: &HeaderMap, run_id: &str) -> Result<Arc<Run>, Problem> {
        let found = self.book.find(&tenant(sent)?, run_id);
        found.ok_or_else(|| Problem::new(ErrorCode::NotFound, "no such run"))
    }

    fn cancel(&self, segment: &str, sent: &HeaderMap) -> Answer {
        let Some(run_id) = segment.strip_suffix(":cancel") else {
            return Err(Problem::new(ErrorCode::NotFound, "the only verb of a run is `:cancel`"));
        };
        let run = self.find(sent, run_id)?;
        let canceled = run.append("agentos.run.canceled", None, json!({"reason": "asked to"}));
        if canceled || run.status() == RunStatus::Canceled {
            return Ok((StatusCode::OK, run));
        }
        let status = run.status().as_str();
        let message = format!("the run is already {status}");
        Err(Problem::new(ErrorCode::InvalidStateTransition, message).with("status", status))
    }

    fn stream(&self, run: Arc<Run>, cursor: u64) -> Response {
        let (after, finished) = run.events_after(cursor);
        if finished && after.is_empty() {
            return StatusCode::NO_CONTENT.into_response();
        }
        let draining = self.tasks.draining().clone();
        let reading = Reading { moved: run.watch(), run, cursor, draining };
        let frames = stream::unfold(reading, async |mut reading| {
            reading.next().await.map(|frames| (Ok::<_, Infallible>(frames), reading))
        });
        let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache, no-transform")];
        (headers, Body::from_stream(frames)).into_response()
    }

    fn answer(&self, sent: &HeaderMap, answer: Answer) -> Response {
        let (status, run) = match answer {
            Ok(found) => found,
            Err(problem) => return self.refuse(sent, &problem),
        };
        let mut response = self.json(sent, status, json!({"run": run.to_json()}));
        if status == StatusCode::CREATED
            && let Ok(location) = HeaderValue::try_from(format!("/v1/runs/{}", run.run_id))
        {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }

    fn refuse(&self, sent: &HeaderMap, problem: &Problem) -> Response {
        let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = problem.to_json(&self.correlation_id(sent)).to_string();
        let mut response = (status, [(CONTENT_TYPE, problem::CONTENT_TYPE)], body).into_response();
        if let Some(after_ms) = problem.retry_after_ms {
            response.headers_mut().insert(RETRY_AFTER, headers::retry_after_seconds(after_ms).into());
        }
        response
    }

    fn json(&self, sent: &HeaderMap, status: StatusCode, mut body: Value) -> Response {
        body["correlation_id"] = self.correlation_id(sent).into();
        (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }

    fn correlation_id(&self, sent: &HeaderMap) -> String {
        let given =
            [headers::CORRELATION_ID, headers::REQUEST_ID].into_iter().find_map(|name| text(sent, name));
        let given = given.and_then(headers::correlation_id).map(str::to_owned);
        given.unwrap_or_else(|| self.entropy.id("req", self.clock.now_ms()))
    }
}

impl Reading {
    /// The next frames; nothing after the run's last event, or when the orchestrator stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.moved.borrow_and_update();
            let (events, finished) = self.run.events_after(self.cursor);
            if !events.is_empty() {
                return Some(self.take(&events));
            }
            if finished {
                return None;
            }
            tokio::select! {
                moved = self.moved.changed() => moved.ok()?,
                () = tokio::time::sleep(HEARTBEAT_EVERY) => return Some(Bytes::from_static(HEARTBEAT)),
                () = self.draining.cancelled() => return None,
            }
        }
    }

    fn take(&mut self, events: &[(u64, Bytes)]) -> Bytes {
        let mut frames = Vec::new();
        for (sequence, json) in events {
            event_frame(&mut frames, *sequence, json, b"{}");
            self.cursor = *sequence;
        }
        frames.into()
    }
}

fn text<'a>(sent: &'a HeaderMap, name: &str) -> Option<&'a str> {
    sent.get(name)?.to_str().ok()
}

fn tenant(sent: &HeaderMap) -> Result<TenantId, Problem> {
    let name = text(sent, headers::TENANT).unwrap_or(DEMO_TENANT);
    TenantId::parse(name).map_err(|error| invalid("X-Tenant-Id", &error.to_string()))
}

fn cursor(query: &str, sent: &HeaderMap) -> Result<Cursor, Problem> {
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| matches!(&**name, "from_sequence" | "after_sequence" | "starting_after"))
        .collect();
    let input = CursorInput {
        query: pairs.iter().map(|(name, value)| (&**name, &**value)).collect(),
        last_event_id: sent.get_all(headers::LAST_EVENT_ID).iter().map(|value| value.as_bytes()).collect(),
    };
    start_after(&input).map_err(|error| {
        Problem::new(ErrorCode::InvalidCursor, error.to_string()).with("field", error.field())
    })
}

fn invalid(field: &str, message: &str) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, format!("`{field}`: {message}")).with("field", field)
}
