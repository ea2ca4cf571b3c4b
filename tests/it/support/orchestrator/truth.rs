//! The truth log: what really reached the orchestrator and what it really did.
//!
//! Invariant: a record is made before its request is acted upon and is never changed afterwards, except that
//! a create learns its outcome. A stop, restart or fault loses nothing of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use tokio::time::Instant;

/// A snapshot of the truth log; also the log itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    pub(super) connections: usize,
    pub(super) requests: Vec<Arc<RequestSeen>>,
    pub(super) creates: Vec<CreateSeen>,
    pub(super) runs: Vec<RunCreated>,
    pub(super) events: Vec<EventsSeen>,
    pub(super) statuses: Vec<RunRequest>,
    pub(super) cancels: Vec<RunRequest>,
    pub(super) open_streams: BTreeMap<String, usize>,
}

/// One request, whatever it was for.
#[derive(Debug)]
pub(crate) struct RequestSeen {
    /// The method.
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    /// Names in lower case, values as sent, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// The body as JSON; `Null` when it is empty or none.
    pub(crate) body: Value,
    /// When it had been read.
    pub(crate) at: Instant,
}

/// One run-create request.
#[derive(Debug, Clone)]
pub(crate) struct CreateSeen {
    /// The request.
    pub(crate) request: Arc<RequestSeen>,
    /// The agent of its path.
    pub(crate) agent_id: String,
    /// What became of it.
    pub(crate) outcome: CreateOutcome,
}

/// What became of a run-create request, whatever the caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CreateOutcome {
    /// No run exists because of it (yet).
    NotCommitted,
    /// It made this run.
    Committed(String),
    /// Its key was known; it names this run.
    Replayed(String),
}

/// One run that exists, or existed.
#[derive(Debug, Clone)]
pub(crate) struct RunCreated {
    /// Its id.
    pub(crate) run_id: String,
    /// Its tenant.
    pub(crate) tenant_id: String,
    /// Its agent.
    pub(crate) agent_id: String,
    /// The key it was created under, by the rule that held then.
    pub(crate) key: Option<String>,
}

/// One events request.
#[derive(Debug, Clone)]
pub(crate) struct EventsSeen {
    /// The request.
    pub(crate) request: Arc<RequestSeen>,
    /// The run of its path.
    pub(crate) run_id: String,
    /// Every cursor given, by name (`last-event-id` for the header) and verbatim value.
    pub(crate) cursors: Vec<(String, String)>,
}

/// One status or cancel request.
#[derive(Debug, Clone)]
pub(crate) struct RunRequest {
    /// The request.
    pub(crate) request: Arc<RequestSeen>,
    /// The run of its path.
    pub(crate) run_id: String,
}

impl Truth {
    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections
    }

    /// Every request, also those to paths that do not exist.
    pub(crate) fn requests(&self) -> &[Arc<RequestSeen>] {
        &self.requests
    }

    /// Every run-create request.
    pub(crate) fn creates(&self) -> &[CreateSeen] {
        &self.creates
    }

    /// The run-create requests that bore this key, in header or body.
    pub(crate) fn creates_for_key(&self, key: &str) -> Vec<&CreateSeen> {
        self.creates.iter().filter(|create| create.bears_key(key)).collect()
    }

    /// The distinct keys of all run-create requests, wherever they stood.
    pub(crate) fn keys(&self) -> BTreeSet<&str> {
        self.creates.iter().flat_map(|create| [create.header_key(), create.body_key()]).flatten().collect()
    }

    /// Every run created.
    pub(crate) fn runs_created(&self) -> &[RunCreated] {
        &self.runs
    }

    /// The runs created under this key.
    pub(crate) fn runs_for_key(&self, key: &str) -> Vec<&RunCreated> {
        self.runs.iter().filter(|run| run.key.as_deref() == Some(key)).collect()
    }

    /// The events requests for this run.
    pub(crate) fn events_requests(&self, run_id: &str) -> Vec<&EventsSeen> {
        self.events.iter().filter(|seen| seen.run_id == run_id).collect()
    }

    /// The status requests for this run.
    pub(crate) fn status_requests(&self, run_id: &str) -> Vec<&RunRequest> {
        self.statuses.iter().filter(|seen| seen.run_id == run_id).collect()
    }

    /// The cancel requests for this run.
    pub(crate) fn cancel_requests(&self, run_id: &str) -> Vec<&RunRequest> {
        self.cancels.iter().filter(|seen| seen.run_id == run_id).collect()
    }

    /// How many events streams of this run are open now.
    pub(crate) fn open_streams(&self, run_id: &str) -> usize {
        self.open_streams.get(run_id).copied().unwrap_or(0)
    }

    /// Every credential ever received: the values of `Authorization`, `X-API-Key` and `Cookie`.
    pub(crate) fn credentials(&self) -> BTreeSet<&str> {
        const CARRIERS: [&str; 3] = ["authorization", "x-api-key", "cookie"];
        let headers = self.requests.iter().flat_map(|request| &request.headers);
        headers
            .filter(|(name, _)| CARRIERS.contains(&name.as_str()))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// Panics unless each key a create bore made exactly one run, and no run was made without one.
    pub(crate) fn assert_one_run_per_key(&self) {
        for key in self.keys() {
            assert_eq!(self.runs_for_key(key).len(), 1, "runs created under key {key}: {:#?}", self.runs);
        }
        let keyless = self.runs.iter().filter(|run| run.key.is_none()).count();
        assert_eq!(keyless, 0, "runs created without a key: {:#?}", self.runs);
    }

    /// Panics unless every create bore this one key, in the header and in the body.
    pub(crate) fn assert_every_create_bore(&self, key: &str) {
        assert!(!self.creates.is_empty(), "no run-create request was seen");
        for create in &self.creates {
            assert_eq!(create.header_key(), Some(key), "Idempotency-Key of {:#?}", create.request);
            assert_eq!(create.body_key(), Some(key), "idempotency_key of {:#?}", create.request);
        }
    }
}

impl RequestSeen {
    /// The first value of this header; the name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

impl CreateSeen {
    /// The `Idempotency-Key` header, without the quotes of a structured-field string.
    pub(crate) fn header_key(&self) -> Option<&str> {
        self.request.header("idempotency-key").map(|key| key.trim_matches('"'))
    }

    /// The body's `idempotency_key`.
    pub(crate) fn body_key(&self) -> Option<&str> {
        self.request.body["idempotency_key"].as_str()
    }

    fn bears_key(&self, key: &str) -> bool {
        self.header_key() == Some(key) || self.body_key() == Some(key)
    }
}

impl EventsSeen {
    /// The value given under this cursor name.
    pub(crate) fn cursor(&self, name: &str) -> Option<&str> {
        self.cursors.iter().find(|(cursor, _)| cursor == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn create(header_key: Option<&str>, body: Value) -> CreateSeen {
        let headers = header_key.map(|key| ("idempotency-key".to_owned(), key.to_owned()));
        let request = RequestSeen {
            method: "POST".to_owned(),
            target: "/v1/agents/agt_a/runs".to_owned(),
            headers: headers.into_iter().collect(),
            body,
            at: Instant::now(),
        };
        let outcome = CreateOutcome::NotCommitted;
        CreateSeen { request: Arc::new(request), agent_id: "agt_a".to_owned(), outcome }
    }

    fn run(run_id: &str, key: Option<&str>) -> RunCreated {
        let tenant_id = "tnt_demo".to_owned();
        let key = key.map(str::to_owned);
        RunCreated { run_id: run_id.to_owned(), tenant_id, agent_id: "agt_a".to_owned(), key }
    }

    #[test]
    fn a_key_is_found_in_the_header_quoted_or_bare_and_in_the_body() {
        let creates = vec![
            create(Some("\"k1\""), Value::Null),
            create(Some("k1"), Value::Null),
            create(None, json!({"idempotency_key":"k1"})),
            create(None, json!({"idempotency_key":"k2"})),
        ];
        let truth = Truth { creates, ..Truth::default() };
        assert_eq!(truth.creates_for_key("k1").len(), 3);
        assert_eq!(truth.keys(), BTreeSet::from(["k1", "k2"]));
    }

    #[test]
    #[should_panic(expected = "runs created under key k1")]
    fn two_runs_under_one_key_are_denounced() {
        let creates = vec![create(Some("k1"), json!({"idempotency_key":"k1"}))];
        let runs = vec![run("run_1", Some("k1")), run("run_2", Some("k1"))];
        Truth { creates, runs, ..Truth::default() }.assert_one_run_per_key();
    }

    #[test]
    #[should_panic(expected = "runs created without a key")]
    fn a_run_without_a_key_is_denounced() {
        Truth { runs: vec![run("run_1", None)], ..Truth::default() }.assert_one_run_per_key();
    }

    #[test]
    #[should_panic(expected = "idempotency_key of")]
    fn a_key_missing_in_the_body_is_denounced() {
        let creates = vec![create(Some("k1"), Value::Null)];
        Truth { creates, ..Truth::default() }.assert_every_create_bore("k1");
    }
}
