//! Clients: they create runs under keys, push events, cancel, and repeat themselves until they are answered.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::history::{History, Outcome, Request, What};
use crate::process::{client, json_of};
use crate::support::gateway::{envelope, forward_body};

/// A client's own pause before it repeats itself.
const RETRY: Duration = Duration::from_millis(40);

/// One client of one gateway.
#[derive(Clone)]
pub(crate) struct Client {
    history: History,
    gateway: String,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Client {
    /// A client of the gateway of this name.
    pub(crate) fn new(history: &History, gateway: &str, address: SocketAddr) -> Self {
        Client { history: history.clone(), gateway: gateway.to_owned(), address, http: client() }
    }

    /// Forwards a run under a key until it is answered with one; `None` when time is up, or when the gateway
    /// says that there will never be one.
    pub(crate) async fn create(&self, target: &str, key: &str, deadline: Instant) -> Option<String> {
        let mut body = forward_body(target);
        // So that the home knows which client's key a run is for: gateways send keys of their own.
        body["forward"]["run_request"]["input"]["text"] = Value::from(key);
        while Instant::now() < deadline {
            let operation = self.history.ask(&self.gateway, Request::Create { key: key.to_owned() });
            let request = self.post("/v1/federation/runs:forward").header("idempotency-key", key);
            let answer = self.answer(request, &body).await;
            let run = answer.as_ref().and_then(|(_, body)| body["forwarded"]["run_id"].as_str());
            let details = |name: &str| {
                answer.as_ref().map_or(&Value::Null, |(_, body)| &body["error"]["details"][name])
            };
            let outcome = match (&run, details("outcome").as_str()) {
                (Some(_), _) => Outcome::Ok,
                (None, Some("not_started" | "refused")) => Outcome::Fail,
                (None, _) => Outcome::Unknown,
            };
            let is_final = details("replayed") == true;
            let said = shown(answer.as_ref());
            let run = run.map(str::to_owned);
            self.note(operation, outcome, run.clone(), None, said);
            if run.is_some() || is_final {
                return run;
            }
            tokio::time::sleep(RETRY).await; // why: a client's own pause
        }
        None
    }

    /// Pushes one event until it is acknowledged; answers its sequence, `None` when time is up.
    pub(crate) async fn push(&self, run: &str, id: &str, kind: &str, deadline: Instant) -> Option<u64> {
        let body = json!({ "events": [envelope(run, id, None, kind)] });
        while Instant::now() < deadline {
            let (run, id) = (run.to_owned(), id.to_owned());
            let operation = self.history.ask(&self.gateway, Request::Push { run, id });
            let answer = self.answer(self.post("/v1/federation/events:ingest"), &body).await;
            let result = answer.as_ref().map_or(&Value::Null, |(_, body)| &body["results"][0]);
            let is_held = matches!(result["status"].as_str(), Some("stored" | "duplicate"));
            let sequence = result["sequence"].as_u64().filter(|_| is_held);
            let outcome = if is_held { Outcome::Ok } else { Outcome::Unknown };
            self.note(operation, outcome, None, sequence, shown(answer.as_ref()));
            if is_held {
                return sequence;
            }
            tokio::time::sleep(RETRY).await; // why: a client's own pause
        }
        None
    }

    /// Pushes a run of this many steps, with a pause after each, and its end; answers whether all of it was
    /// acknowledged.
    pub(crate) async fn push_run(&self, run: &str, steps: usize, pause: Duration, deadline: Instant) -> bool {
        for step in 0..steps {
            let id = format!("evt_{run}_{step}");
            if self.push(run, &id, "agentos.run.step.completed", deadline).await.is_none() {
                return false;
            }
            tokio::time::sleep(pause).await; // why: a client's own pace
        }
        self.push(run, &format!("evt_{run}_end"), "agentos.run.completed", deadline).await.is_some()
    }

    /// Asks once to cancel a run.
    pub(crate) async fn cancel(&self, run: &str) {
        let operation = self.history.ask(&self.gateway, Request::Cancel { run: run.to_owned() });
        let path = format!("/v1/federation/runs/{}:cancel", run.replace('@', "%40"));
        let answer = self.answer(self.post(&path), &json!({})).await;
        let is_done = answer.as_ref().is_some_and(|(status, _)| *status < 300);
        let outcome = if is_done { Outcome::Ok } else { Outcome::Unknown };
        self.note(operation, outcome, None, None, shown(answer.as_ref()));
    }

    /// All that the gateway holds of a run: the oldest sequence, and the event objects.
    pub(crate) async fn held(&self, run: &str) -> Option<(u64, Vec<Value>)> {
        let (mut after, mut events) = (0, Vec::new());
        loop {
            let path = format!("/v1/federation/runs/{}/events", run.replace('@', "%40"));
            let query = format!("?limit=1000&on_gap=skip&from_sequence={after}");
            let request = self.http.get(format!("http://{}{path}{query}", self.address));
            let answer = request.header("accept", "application/json").send().await.ok()?;
            if !answer.status().is_success() {
                return None;
            }
            let page = json_of(answer).await;
            events.extend(page["events"].as_array()?.iter().map(|envelope| envelope["event"].clone()));
            after = page["next_from_sequence"].as_u64()?;
            if page["has_more"] != true {
                return Some((page["oldest_sequence"].as_u64()?, events));
            }
        }
    }

    /// What the gateway says of a run.
    pub(crate) async fn status(&self, run: &str) -> Option<String> {
        let path = format!("/v1/federation/runs/{}", run.replace('@', "%40"));
        let answer = self.http.get(format!("http://{}{path}", self.address)).send().await.ok()?;
        let body = json_of(answer).await;
        body.pointer("/run/status").or(body.get("status"))?.as_str().map(str::to_owned)
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("http://{}{path}", self.address)).header("content-type", "application/json")
    }

    /// The status and the body, if an answer came.
    async fn answer(&self, request: reqwest::RequestBuilder, body: &Value) -> Option<(u16, Value)> {
        let answer = request.body(body.to_string()).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, json_of(answer).await))
    }

    fn note(
        &self,
        operation: u64,
        outcome: Outcome,
        run: Option<String>,
        sequence: Option<u64>,
        said: String,
    ) {
        self.history.note(What::Answered { operation, outcome, run, sequence, said });
    }
}

/// An answer in short.
fn shown(answer: Option<&(u16, Value)>) -> String {
    match answer {
        None => "nothing".to_owned(),
        Some((status, body)) => {
            let error = &body["error"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!("{status} {} {}", text(&error["code"]), text(&error["message"])).trim_end().to_owned()
        }
    }
}
