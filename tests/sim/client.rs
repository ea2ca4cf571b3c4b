//! What clients do: create, repeat, push, follow, read, cancel; each checks at every step what it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::net::{Net, NoAnswer};
use super::trace::Dice;

/// How long a client waits for an answer, and for a byte of a stream.
const PATIENCE: Duration = Duration::from_secs(9);

/// One client of one gateway, of one tenant.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) net: Arc<Net>,
    pub(crate) name: String,
    pub(crate) gateway: String,
    pub(crate) tenant: String,
    pub(crate) dice: Dice,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or("")
    }

    pub(crate) fn is_retryable(&self) -> bool {
        self.json["error"]["retryable"] == true
    }

    /// What the answer says of a forward that gave no run.
    pub(crate) fn outcome(&self) -> &str {
        self.json["error"]["details"]["outcome"].as_str().unwrap_or("")
    }
}

impl Client {
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        fields: &[(&'static str, &str)],
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let mut request = Request::new(Full::new(body.map(Value::to_string).unwrap_or_default().into()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("a path");
        let own = [("host", &*self.gateway), ("x-tenant-id", &*self.tenant), ("x-principal-id", &*self.name)];
        let kind = body.map(|_| ("content-type", "application/json"));
        for (name, value) in own.into_iter().chain(kind).chain(fields.iter().copied()) {
            request.headers_mut().insert(name, value.parse().expect("a header value"));
        }
        let sent = self.net.send((&self.name, &self.gateway), request, None);
        timeout(PATIENCE, sent).await.unwrap_or_else(|_| Err(NoAnswer::Interrupted("no answer".to_owned())))
    }

    /// A request and its whole answer; anything less is no answer.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        fields: &[(&'static str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, NoAnswer> {
        let answer = self.open(method, path, fields, body).await?;
        let status = answer.status().as_u16();
        let broke = || NoAnswer::Interrupted("the answer broke off".to_owned());
        let body = timeout(PATIENCE, answer.into_body().collect()).await.map_err(|_| broke())?;
        let json = serde_json::from_slice(&body.map_err(|_| broke())?.to_bytes()).unwrap_or(Value::Null);
        Ok(Answer { status, json })
    }

    /// What the gateway says once nothing goes wrong any more; it may still have to come back.
    pub(crate) async fn surely(&self, path: &str) -> Option<Answer> {
        for _ in 0..20 {
            let answer = self.call(Method::GET, path, &[("accept", "application/json")], None).await;
            if let Some(answer) = answer.ok().filter(|answer| answer.status < 500) {
                return Some(answer);
            }
            self.rest().await;
        }
        None
    }

    /// Waits a little before another try.
    pub(crate) async fn rest(&self) {
        sleep(Duration::from_millis(100) + self.dice.up_to(Duration::from_millis(900))).await;
    }

    pub(crate) fn breach(&self, what: String) {
        self.net.breach(format!("{} at {}: {what}", self.name, self.gateway));
    }
}

/// The frames of an event stream, as they come.
pub(crate) struct Frames {
    body: Incoming,
    buffer: Vec<u8>,
}

/// One frame.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) kind: String,
    pub(crate) id: u64,
    pub(crate) data: String,
    pub(crate) json: Value,
}

impl Frames {
    pub(crate) fn of(body: Incoming) -> Self {
        Frames { body, buffer: Vec::new() }
    }

    /// The next one; `None` when the stream broke or said nothing for too long.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(Frame::parse(&String::from_utf8_lossy(&frame)));
            }
            let Ok(Some(Ok(chunk))) = timeout(PATIENCE, self.body.frame()).await else { return None };
            self.buffer.extend_from_slice(&chunk.into_data().unwrap_or_default());
        }
    }
}

impl Frame {
    fn parse(text: &str) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
        let data = field("data: ").to_owned();
        Frame {
            kind: field("event: ").to_owned(),
            id: field("id: ").parse().unwrap_or(0),
            json: serde_json::from_str(&data).unwrap_or(Value::Null),
            data,
        }
    }
}

/// The true events of a run: sequence to text, and whether there will be more.
pub(crate) type Truth = Arc<dyn Fn() -> (BTreeMap<u64, String>, bool) + Send + Sync>;

/// Follows one run to its end.
pub(crate) struct Follower {
    pub(crate) client: Client,
    pub(crate) run: String,
    pub(crate) truth: Truth,
    /// Finished runs are removed after a while.
    pub(crate) retention: bool,
    /// The last sequence seen.
    pub(crate) last: u64,
}

/// What a connection came to.
enum Visit {
    Again,
    Done,
}

impl Follower {
    /// To the end of the run, over however many connections.
    pub(crate) async fn follow(mut self) {
        sleep(self.client.dice.up_to(Duration::from_secs(3))).await;
        let mut skips = false;
        loop {
            match self.visit(&mut skips).await {
                Visit::Done => break,
                Visit::Again => self.client.rest().await,
            }
        }
        self.client.net.trace.say(format_args!("{} has all of {}", self.client.name, self.run));
    }

    async fn visit(&mut self, skips: &mut bool) -> Visit {
        let last = self.last.to_string();
        let path =
            format!("/v1/federation/runs/{}/events{}", self.run, if *skips { "?on_gap=skip" } else { "" });
        let fields = [("accept", "text/event-stream"), ("last-event-id", &*last)];
        let fields = if self.last > 0 { &fields[..] } else { &fields[..1] };
        let Ok(answer) = self.client.open(Method::GET, &path, fields, None).await else {
            return Visit::Again;
        };
        match answer.status().as_u16() {
            200 => {}
            204 => return self.ended("204"),
            410 if self.retention => {
                *skips = true;
                return Visit::Again;
            }
            404 if self.retention => return Visit::Done,
            status @ (400..=499) if status != 429 => {
                self.breach("L6", &format!("{status} to a follower after {}", self.last));
                return Visit::Done;
            }
            _ => return Visit::Again,
        }
        let held = answer.headers().get("causeway-high-water").and_then(|value| value.to_str().ok());
        let held: u64 = held.and_then(|held| held.parse().ok()).unwrap_or(0);
        // A sequence that never comes is a hole, and what is held without one ends there.
        if held < self.last && !self.has_holes() {
            self.breach("L5", &format!("saw {} and the log holds {held}", self.last));
        }
        self.read(answer.into_body()).await
    }

    fn has_holes(&self) -> bool {
        let (events, _) = (self.truth)();
        events.keys().zip(1..).any(|(sequence, place)| *sequence != place)
    }

    async fn read(&mut self, body: Incoming) -> Visit {
        let mut frames = Frames::of(body);
        while let Some(frame) = frames.next().await {
            if let Some(visit) = self.frame(&frame) {
                return visit;
            }
        }
        Visit::Again
    }

    fn frame(&mut self, frame: &Frame) -> Option<Visit> {
        let json = &frame.json;
        match frame.kind.as_str() {
            "agentos.event" => {
                self.event(frame.id, &frame.data);
                None
            }
            "gap" => {
                self.gap(json);
                None
            }
            "end" => Some(self.ended("end")),
            "stream_error" => {
                let code = json["error"]["code"].as_str().unwrap_or("").to_owned();
                let expected = code == "cursor_expired" && self.retention;
                let passing =
                    ["internal_error", "unavailable", "insufficient_storage"].contains(&code.as_str());
                if !expected && !passing {
                    self.breach("L6", &format!("stream_error {code} after {}", self.last));
                }
                Some(Visit::Again)
            }
            _ => None,
        }
    }

    fn event(&mut self, sequence: u64, data: &str) {
        if sequence != self.last + 1 {
            self.breach("L6", &format!("{sequence} after {}", self.last));
        }
        self.last = self.last.max(sequence);
        let Client { net, gateway, tenant, .. } = &self.client;
        if !self.retention && !net.is_on_disk(gateway, (tenant, &self.run), sequence) {
            self.breach("L5", &format!("saw {sequence}, which is not on the disk"));
        }
        let (events, _) = (self.truth)();
        match events.get(&sequence) {
            Some(text) if data.starts_with(&format!("{{\"event\":{text},\"federation\":")) => {}
            Some(text) => self.breach("L4", &format!("{sequence} is {data}, not {text}")),
            None => self.breach("L4", &format!("{sequence} never was: {data}")),
        }
    }

    fn gap(&mut self, json: &Value) {
        let (from, to) =
            (json["from_sequence"].as_u64().unwrap_or(0), json["to_sequence"].as_u64().unwrap_or(0));
        if from != self.last + 1 || to < from {
            self.breach("L6", &format!("gap {from}-{to} after {}", self.last));
        }
        let by_retention = json["reason"] == "retention" && self.retention;
        let (events, _) = (self.truth)();
        if let Some((there, _)) = events.range(from..=to.max(from)).next().filter(|_| !by_retention) {
            self.breach("L6", &format!("gap over {there}, which exists: {json}"));
        }
        self.last = self.last.max(to);
    }

    fn ended(&self, by: &str) -> Visit {
        let (events, over) = (self.truth)();
        let end = events.keys().last().copied().unwrap_or(0);
        if !over || end != self.last {
            self.breach("L6", &format!("{by} at {} of {end} (over: {over})", self.last));
        }
        Visit::Done
    }

    fn breach(&self, invariant: &str, what: &str) {
        self.client.breach(format!("{invariant}: {}: {what}", self.run));
    }
}

/// Pushes the events of one run, each until it is acknowledged.
pub(crate) struct Pusher {
    pub(crate) client: Client,
    pub(crate) run: String,
    pub(crate) pushed: Arc<Mutex<BTreeMap<u64, String>>>,
    retention: bool,
}

impl Pusher {
    /// Makes the events.
    pub(crate) fn new(client: Client, run: &str, count: u64, retention: bool) -> Self {
        let event = |sequence: u64| {
            let kind = if sequence == count { "agentos.run.completed" } else { "agentos.run.step.completed" };
            (sequence, push_event(&client.tenant, run, sequence, kind, "true").to_string())
        };
        let pushed = (1..=count).map(event).collect();
        Pusher { run: run.to_owned(), pushed: Arc::new(Mutex::new(pushed)), client, retention }
    }

    /// Pushes all; `first` is told when the run is known.
    pub(crate) async fn push(self, first: tokio::sync::oneshot::Sender<()>) {
        let mut first = Some(first);
        let mut waiting: Vec<(u64, String)> = super::trace::lock(&self.pushed)
            .iter()
            .map(|(sequence, text)| (*sequence, text.clone()))
            .collect();
        let mut held = Vec::new();
        while !waiting.is_empty() {
            let count = self.client.dice.between(1, 5).min(waiting.len() as u64) as usize;
            let from = self.client.dice.between(0, (waiting.len() - count) as u64 + 1) as usize;
            let batch = waiting[from..from + count].to_vec();
            let events: Vec<Value> = batch.iter().map(|(_, text)| wrapped(text)).collect();
            if let Some(results) = self.send(events).await {
                for ((sequence, text), result) in batch.into_iter().zip(&results) {
                    match result["status"].as_str() {
                        Some("stored" | "duplicate") if result["sequence"] == sequence => {
                            waiting.retain(|(other, _)| *other != sequence);
                            held.push((sequence, text));
                            first.take().map(|first| first.send(()));
                        }
                        // The run's end was kept long ago, and all of it has been removed since.
                        Some("rejected") if self.retention && result["code"] == "cursor_expired" => {
                            waiting.retain(|(other, _)| *other != sequence);
                        }
                        _ => self.client.breach(format!("L3: {} {sequence}: {result}", self.run)),
                    }
                }
            }
            if let Some((sequence, _)) = held.last().filter(|_| self.client.dice.chance(0.4)) {
                self.contradict(*sequence).await;
            }
            self.client.rest().await;
        }
    }

    /// The same event with another content is never taken, nor said to be a repeat.
    async fn contradict(&self, sequence: u64) {
        let kind = "agentos.run.step.completed";
        let other = push_event(&self.client.tenant, &self.run, sequence, kind, "false");
        let results = self.send(vec![json!({ "event": other })]).await.unwrap_or_default();
        let gone = |result: &Value| self.retention && result["code"] == "cursor_expired";
        for result in results.iter().filter(|result| result["status"] != "conflict" && !gone(result)) {
            self.client.breach(format!("L3: {} contradicted at {sequence}: {result}", self.run));
        }
    }

    async fn send(&self, events: Vec<Value>) -> Option<Vec<Value>> {
        let body = json!({ "events": events });
        let answer = self.client.call(Method::POST, "/v1/federation/events:ingest", &[], Some(&body)).await;
        let answer = answer.ok().filter(|answer| answer.status == 200)?;
        Some(answer.json["results"].as_array().cloned().unwrap_or_default())
    }
}

fn wrapped(text: &str) -> Value {
    json!({ "event": serde_json::from_str::<Value>(text).expect("an event") })
}

fn push_event(tenant: &str, run: &str, sequence: u64, kind: &str, content: &str) -> Value {
    json!({
        "event_id": format!("evt_{run}_{sequence}"),
        "sequence": sequence,
        "time": "2026-01-02T03:04:05Z",
        "type": kind,
        "tenant_id": tenant,
        "agent_id": "agt_push",
        "run_id": run,
        "trace": { "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
        "payload": { "content": content },
    })
}
