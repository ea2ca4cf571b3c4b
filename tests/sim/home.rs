//! A home in the simulation: makes runs, emits their events, and remembers the truth of both.
//!
//! Invariant: what the truth says is what happened, whatever a caller was told; one key makes one run.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::net::Net;
use super::options::Options;
use super::trace::{Dice, lock};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One home.
pub(crate) struct Home {
    pub(crate) name: String,
    net: Arc<Net>,
    options: Options,
    seed: u64,
    book: Mutex<Book>,
    changed: Notify,
}

#[derive(Default)]
struct Book {
    runs: BTreeMap<String, HomeRun>,
    keys: BTreeMap<(String, String), String>,
    requests: u64,
}

/// A run as it really is.
#[derive(Clone)]
pub(crate) struct HomeRun {
    pub(crate) run_id: String,
    pub(crate) tenant: String,
    /// What the client wrote into its request.
    pub(crate) mark: String,
    pub(crate) status: &'static str,
    /// Sequence to the event's text; sequences that are not there never will be once the run is over.
    pub(crate) events: BTreeMap<u64, String>,
    /// When each was emitted.
    pub(crate) emitted: BTreeMap<u64, Instant>,
    agent: String,
}

/// The runs that were made for a request.
pub(crate) fn made(homes: &[Arc<Home>], mark: &str) -> Vec<HomeRun> {
    homes.iter().flat_map(|home| home.runs()).filter(|run| run.mark == mark).collect()
}

impl Home {
    /// Opens its port.
    pub(crate) fn start(name: &str, seed: u64, net: &Arc<Net>, options: &Options) -> Arc<Self> {
        let home = Arc::new(Home {
            name: name.to_owned(),
            net: Arc::clone(net),
            options: options.clone(),
            seed: seed.wrapping_add(name.bytes().map(u64::from).sum()),
            book: Mutex::default(),
            changed: Notify::new(),
        });
        let mut arrivals = net.listen(name);
        let serving = Arc::clone(&home);
        tokio::spawn(async move {
            while let Some((stream, _)) = arrivals.recv().await {
                let home = Arc::clone(&serving);
                let service = service_fn(move |request| Arc::clone(&home).answer(request));
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        home
    }

    /// The network it is on.
    pub(crate) fn net(&self) -> &Arc<Net> {
        &self.net
    }

    /// Every run there is.
    pub(crate) fn runs(&self) -> Vec<HomeRun> {
        lock(&self.book).runs.values().cloned().collect()
    }

    /// One run.
    pub(crate) fn find(&self, run_id: &str) -> Option<HomeRun> {
        lock(&self.book).runs.get(run_id).cloned()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let tenant = header("x-tenant-id").to_owned();
        let key = header("idempotency-key").trim_matches('"').to_owned();
        let after =
            head.uri.query().unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("from_sequence="));
        let after: u64 = after.and_then(|after| after.parse().ok()).unwrap_or(0);
        let path: Vec<&str> = head.uri.path().trim_start_matches('/').split('/').collect();
        // A request whose body broke off has not arrived.
        let Ok(body) = body.collect().await else { return Ok(plain(400, &json!({}))) };
        Ok(match (&head.method, path.as_slice()) {
            (&Method::POST, ["v1", "agents", agent, "runs"]) => {
                let body = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
                self.create(agent, &tenant, &key, &body).await
            }
            (&Method::GET, ["v1", "runs", run]) => self.show(&tenant, run),
            (&Method::POST, ["v1", "runs", run]) => self.cancel(&tenant, run.trim_end_matches(":cancel")),
            (&Method::GET, ["v1", "runs", run, "events"]) => self.events(&tenant, run, after),
            _ => plain(200, &json!({ "status": "ok" })),
        })
    }

    /// What is decided of the next request, or run.
    fn dice(&self) -> Dice {
        let mut book = lock(&self.book);
        book.requests += 1;
        Dice::new(self.seed, book.requests)
    }

    fn is_troubled(&self, dice: &Dice) -> bool {
        !self.net.is_calm() && dice.chance(self.options.home_trouble)
    }

    async fn create(self: Arc<Self>, agent: &str, tenant: &str, key: &str, body: &Value) -> Response<Body> {
        let dice = self.dice();
        let trouble = self.is_troubled(&dice).then(|| dice.between(0, 5));
        match trouble {
            Some(0) => return plain(503, &json!({ "error": { "code": "unavailable", "message": "no" } })),
            Some(1) => return plain(429, &json!({ "error": { "code": "rate_limited", "message": "no" } })),
            _ => {}
        }
        let run_id = self.commit(agent, tenant, key, body);
        match trouble {
            Some(2) => plain(503, &json!({ "error": { "code": "unavailable", "message": "oh" } })),
            Some(3) => std::future::pending().await,
            Some(4) => plain(200, &json!("what")),
            _ => {
                let run = self.find(&run_id).expect("it was just made");
                plain(201, &json!({ "run": shown(&run) }))
            }
        }
    }

    /// The run of this key, made now or before.
    fn commit(self: &Arc<Self>, agent: &str, tenant: &str, key: &str, body: &Value) -> String {
        let mut book = lock(&self.book);
        if let Some(run_id) = book.keys.get(&(tenant.to_owned(), key.to_owned())) {
            return run_id.clone();
        }
        let run_id = format!("run_{}_{}", self.name, book.runs.len() + 1);
        let mark = body["input"]["text"].as_str().unwrap_or("").to_owned();
        self.net.trace.say(format_args!("{} makes {run_id} of {tenant} for {mark}", self.name));
        book.keys.insert((tenant.to_owned(), key.to_owned()), run_id.clone());
        let run = HomeRun {
            run_id: run_id.clone(),
            tenant: tenant.to_owned(),
            mark,
            status: "running",
            events: BTreeMap::new(),
            emitted: BTreeMap::new(),
            agent: agent.to_owned(),
        };
        book.runs.insert(run_id.clone(), run);
        drop(book);
        let (home, run) = (Arc::clone(self), run_id.clone());
        tokio::spawn(async move { home.live(&run).await });
        run_id
    }

    /// Emits the events of a run, to its end.
    async fn live(&self, run_id: &str) {
        let dice = self.dice();
        for step in 0..dice.between(0, self.options.events + 1) {
            sleep(dice.up_to(Duration::from_millis(600))).await;
            let skips = u64::from(dice.chance(self.options.home_skips));
            self.emit(run_id, skips, "agentos.run.step.completed", "running", step);
        }
        sleep(dice.up_to(Duration::from_millis(600))).await;
        self.emit(run_id, 0, "agentos.run.completed", "completed", 0);
    }

    fn emit(&self, run_id: &str, skips: u64, kind: &str, status: &'static str, step: u64) {
        let mut book = lock(&self.book);
        let Some(run) = book.runs.get_mut(run_id).filter(|run| run.status == "running") else { return };
        let sequence = run.events.keys().last().copied().unwrap_or(0) + 1 + skips;
        let event = json!({
            "event_id": format!("evt_{run_id}_{sequence}"),
            "sequence": sequence,
            "time": "2026-01-02T03:04:05Z",
            "type": kind,
            "tenant_id": run.tenant,
            "agent_id": run.agent,
            "run_id": run_id,
            "trace": { "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
            "payload": { "step": step, "text": "ä\u{1F600}".repeat(step as usize % 5) },
        });
        run.events.insert(sequence, event.to_string());
        run.emitted.insert(sequence, Instant::now());
        run.status = status;
        drop(book);
        self.net.trace.say(format_args!("{} emits {run_id} {sequence} {kind}", self.name));
        self.changed.notify_waiters();
    }

    fn known(&self, tenant: &str, run_id: &str) -> Option<HomeRun> {
        self.find(run_id).filter(|run| run.tenant == tenant)
    }

    fn show(&self, tenant: &str, run_id: &str) -> Response<Body> {
        match self.known(tenant, run_id) {
            _ if self.is_troubled(&self.dice()) => plain(500, &json!({})),
            Some(run) => plain(200, &json!({ "run": shown(&run) })),
            None => plain(404, &json!({ "error": { "code": "not_found", "message": "no such run" } })),
        }
    }

    fn cancel(&self, tenant: &str, run_id: &str) -> Response<Body> {
        if self.known(tenant, run_id).is_some() {
            self.emit(run_id, 0, "agentos.run.canceled", "canceled", 0);
        }
        self.show(tenant, run_id)
    }

    fn events(self: Arc<Self>, tenant: &str, run_id: &str, after: u64) -> Response<Body> {
        if self.known(tenant, run_id).is_none() || self.is_troubled(&self.dice()) {
            let status = if self.known(tenant, run_id).is_none() { 404 } else { 503 };
            return plain(status, &json!({ "error": { "code": "no", "message": "no" } }));
        }
        let (dice, run) = (self.dice(), run_id.to_owned());
        let feed = Feed { home: self, dice, run, after, late: None };
        let frames = stream::unfold(feed, |mut feed| async move {
            let bytes = feed.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(bytes)), feed))
        });
        let body = StreamBody::new(frames).boxed_unsync();
        Response::builder().header("content-type", "text/event-stream").body(body).expect("an answer")
    }
}

/// One reader's way through a run.
struct Feed {
    home: Arc<Home>,
    dice: Dice,
    run: String,
    after: u64,
    /// An event that was held back.
    late: Option<Bytes>,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let home = Arc::clone(&self.home);
            let changed = home.changed.notified();
            let run = self.home.find(&self.run)?;
            if let Some((sequence, text)) = run.events.range(self.after + 1..).next() {
                self.after = *sequence;
                let frame = format!("id: {sequence}\nevent: agentos.event\ndata: {{\"event\":{text}}}\n\n");
                let frame = Bytes::from(frame);
                let disorder = !self.home.net.is_calm() && self.dice.chance(self.home.options.home_disorder);
                match disorder.then(|| self.dice.between(0, 2)) {
                    Some(0) => return Some([frame.clone(), frame].concat().into()),
                    Some(_) if self.late.is_none() && run.events.range(self.after + 1..).next().is_some() => {
                        self.late = Some(frame);
                        continue;
                    }
                    _ => return Some([frame, self.late.take().unwrap_or_default()].concat().into()),
                }
            }
            if run.status != "running" {
                return self.late.take();
            }
            if tokio::time::timeout(Duration::from_secs(3), changed).await.is_err() {
                return Some(Bytes::from_static(b":hb\n"));
            }
        }
    }
}

fn shown(run: &HomeRun) -> Value {
    json!({
        "run_id": run.run_id,
        "status": run.status,
        "tenant_id": run.tenant,
        "events_url": format!("/v1/runs/{}/events", run.run_id),
    })
}

fn plain(status: u16, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(body).expect("an answer")
}
