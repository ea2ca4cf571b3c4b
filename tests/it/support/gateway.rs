//! A real gateway in this process, on port 0 and a temporary data directory, and a plain client for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use causeway::app::{Gateway, StartError};
use causeway::clock::Clock;
use causeway::config::Config;
use causeway::domain::id::{PeerId, TenantId};
use causeway::domain::peer::PeerKind;
use causeway::entropy::Entropy;
use causeway::services::peer_options::PeerOptions;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use tempfile::TempDir;

use super::ears::{plain_client, read};
use super::secrets::{self, Watch};

/// The tenant of every request that names none.
pub(crate) const TENANT: &str = "tnt_demo";

/// The type of an event that neither begins nor ends a run.
const STEP: &str = "agentos.run.step.completed";

/// A gateway under test. Its data directory outlives restarts, and is searched for secrets in the end.
pub(crate) struct TestGateway {
    /// What it was started with; change it before a restart.
    pub(crate) config: Config,
    gateway: Option<Gateway>,
    address: SocketAddr,
    /// Before the directory that it searches.
    watch: Watch,
    data: TempDir,
    clock: Clock,
    http: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// The body as JSON, `Null` when it is none.
    pub(crate) json: Value,
    /// The body.
    pub(crate) text: String,
}

impl Answer {
    /// The error code of the body.
    pub(crate) fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or("")
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or(""))
    }

    /// Panics unless the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

/// A configuration for tests: port 0, quick retries, no default files.
pub(crate) fn test_config() -> Config {
    let mut config = Config::default();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.server.shutdown_timeout = Duration::from_secs(5);
    config.gateway.default_tenant = Some(TenantId::parse(TENANT).expect("a tenant"));
    config.forward.base_backoff = Duration::from_millis(10);
    config.forward.max_backoff = Duration::from_millis(50);
    config.forward.reconcile_backoff = Duration::from_millis(100);
    config.reader.backoff = Duration::from_millis(20);
    config.reader.max_backoff = Duration::from_millis(100);
    config.reader.heal_after = Duration::from_millis(100);
    config.reader.status_interval = Duration::from_millis(20);
    config.reader.max_status_interval = Duration::from_millis(100);
    config.outbound.health_interval = Duration::from_millis(200);
    config
}

/// A peer entry.
pub(crate) fn peer(id: &str, base: &str, kind: PeerKind) -> PeerOptions {
    let base = base.parse().expect("a base URL");
    let mut options = PeerOptions::new(PeerId::parse(id).expect("a peer id"), base);
    options.kind = kind;
    options
}

impl TestGateway {
    /// Starts a gateway with these peers.
    pub(crate) async fn start(peers: Vec<PeerOptions>) -> Self {
        Self::start_with(test_config(), peers).await
    }

    /// Starts a gateway with its orchestrator at `base`, as peer `stk_b` that is also local.
    pub(crate) async fn with_orchestrator(base: &str) -> Self {
        let mut local = peer("stk_b", base, PeerKind::Orchestrator);
        local.local = true;
        Self::start(vec![local]).await
    }

    /// Starts a gateway with a configuration of the test's own.
    pub(crate) async fn start_with(config: Config, peers: Vec<PeerOptions>) -> Self {
        Self::start_at(Clock::system(), config, peers).await
    }

    /// Starts a gateway whose wall clock is the test's.
    pub(crate) async fn start_at(clock: Clock, config: Config, peers: Vec<PeerOptions>) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        Self::start_in(data, clock, config, peers).await
    }

    /// Starts a gateway on a directory that may hold something already.
    pub(crate) async fn start_in(
        data: TempDir,
        clock: Clock,
        mut config: Config,
        peers: Vec<PeerOptions>,
    ) -> Self {
        config.gateway.data_dir = data.path().join("data");
        config.peers.extend(peers);
        let watch = Watch::over(vec![data.path().to_owned()]);
        watch.learn(&config);
        let gateway = Gateway::start_with(config.clone(), clock.clone(), Entropy::from_os())
            .await
            .expect("the gateway starts");
        let http = plain_client();
        TestGateway { address: gateway.address(), gateway: Some(gateway), config, watch, data, clock, http }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where peers come in with mutual TLS.
    pub(crate) fn peer_address(&self) -> SocketAddr {
        self.gateway.as_ref().and_then(Gateway::peer_address).expect("a door for peers")
    }

    /// `http://address`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// Drains and stops it; the data stays.
    pub(crate) async fn stop(&mut self) {
        self.show_metrics();
        if let Some(gateway) = self.gateway.take() {
            gateway.shutdown().await;
        }
    }

    /// Starts it again on the same data and port.
    pub(crate) async fn start_again(&mut self) -> Result<(), StartError> {
        self.config.server.listen = self.address;
        self.watch.learn(&self.config);
        let gateway =
            Gateway::start_with(self.config.clone(), self.clock.clone(), Entropy::from_os()).await?;
        self.gateway = Some(gateway);
        Ok(())
    }

    /// Stops it and starts it again on the same data and port.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await.expect("the gateway starts again");
    }

    /// A `GET`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.base_url()))).await
    }

    /// A `GET` with headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.base_url())).headers(header_map(headers))).await
    }

    /// A `POST` of JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, &[]).await
    }

    /// A `POST` of JSON with headers.
    pub(crate) async fn post_with(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let request = self.http.post(format!("{}{path}", self.base_url()));
        let request = request.header("content-type", "application/json").body(body.to_string());
        self.send(request.headers(header_map(headers))).await
    }

    /// A `POST` of any body.
    pub(crate) async fn post_raw(&self, path: &str, kind: &'static str, body: Vec<u8>) -> Answer {
        let request = self.http.post(format!("{}{path}", self.base_url()));
        self.send(request.header("content-type", kind).body(body)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        read(request.send().await.expect("the gateway answers")).await
    }

    /// What this process has logged and refused since the gateway began, and what lies in its directory.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    fn show_metrics(&self) {
        if let Some(gateway) = &self.gateway {
            secrets::say(&gateway.metrics_page());
        }
    }

    /// Asks until the answer is as wanted; panics with the last one after ten seconds.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let mut last = None;
        for _ in 0..500 {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            last = Some(answer);
            tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
        }
        panic!("{path} never was as wanted; last: {last:?}");
    }

    /// Forwards a run of `agt_test` to `stack_id` and answers its id here.
    pub(crate) async fn forward_run(&self, stack_id: &str) -> String {
        let answer = self.post("/v1/federation/runs:forward", &forward_body(stack_id)).await.expect(200);
        answer.json["forwarded"]["run_id"].as_str().expect("a run id").to_owned()
    }

    /// Pushes these sequences of a run homed here, each as a step.
    pub(crate) async fn push_steps(&self, run: &str, sequences: impl IntoIterator<Item = u64>) {
        let step = |sequence| envelope(run, &format!("evt_{run}_{sequence}"), Some(sequence), STEP);
        let events: Vec<Value> = sequences.into_iter().map(step).collect();
        self.push(events).await;
    }

    /// Pushes the event that completes a run homed here.
    pub(crate) async fn push_end(&self, run: &str, sequence: u64) {
        self.push(vec![envelope(run, &format!("evt_{run}_end"), Some(sequence), "agentos.run.completed")])
            .await;
    }

    async fn push(&self, events: Vec<Value>) {
        let count = events.len() as u64;
        let body = serde_json::json!({ "events": events });
        let answer = self.post("/v1/federation/events:ingest", &body).await.expect(200);
        assert_eq!(answer.json["accepted"], count, "{}", answer.text);
    }

    /// Waits until the run is so, as `GET /v1/federation/runs/{run}` says.
    pub(crate) async fn until_run(&self, run: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/federation/runs/{}", run.replace('@', "%40"));
        let is_so =
            |answer: &Answer| answer.status == 200 && wanted(answer.json.get("run").unwrap_or(&answer.json));
        let json = self.until(&path, is_so).await.json;
        json.get("run").cloned().unwrap_or(json)
    }

    /// Counts rows in the gateway's database.
    pub(crate) fn count_rows(&self, table_and_condition: &str) -> usize {
        let database = rusqlite::Connection::open_with_flags(
            self.data_dir().join("causeway.db"),
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        );
        let sql = format!("SELECT count(*) FROM {table_and_condition}");
        database.expect("the database").query_row(&sql, [], |row| row.get::<_, i64>(0)).expect("a count")
            as usize
    }

    /// A value of the metrics page, 0 when it is not there.
    pub(crate) async fn metric(&self, line_start: &str) -> f64 {
        self.shown_metric(line_start).await.unwrap_or(0.0)
    }

    /// Asks until a metric is there and as wanted: what is counted after a commit may lag behind what the
    /// commit shows.
    pub(crate) async fn until_metric(&self, line_start: &str, wanted: impl Fn(f64) -> bool) {
        let mut last = None;
        for _ in 0..500 {
            last = self.shown_metric(line_start).await;
            if last.is_some_and(&wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's HTTP API
        }
        panic!("{line_start} stayed at {last:?}");
    }

    async fn shown_metric(&self, line_start: &str) -> Option<f64> {
        let page = self.get("/metrics").await.text;
        page.lines().find_map(|line| line.strip_prefix(line_start)?.trim().parse().ok())
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.show_metrics();
    }
}

/// A run's events, below a gateway.
pub(crate) fn events_path(run: &str) -> String {
    format!("/v1/federation/runs/{}/events", run.replace('@', "%40"))
}

/// The smallest forward.
pub(crate) fn forward_body(stack_id: &str) -> Value {
    serde_json::json!({ "forward": {
        "target_selector": { "stack_id": stack_id },
        "run_request": { "agent_id": "agt_test", "input": { "type": "text", "text": "hello" } },
    }})
}

/// An event envelope.
pub(crate) fn envelope(run: &str, event_id: &str, sequence: Option<u64>, kind: &str) -> Value {
    let mut event = serde_json::json!({
        "event_id": event_id,
        "time": "2025-12-19T22:15:36Z",
        "type": kind,
        "tenant_id": TENANT,
        "agent_id": "agt_test",
        "run_id": run,
        "step_id": null,
        "trace": { "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
        "payload": { "of": event_id },
    });
    if let Some(sequence) = sequence {
        event["sequence"] = Value::from(sequence);
    }
    serde_json::json!({ "event": event })
}

fn header_map(headers: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        secrets::carried(name, value);
        map.append(*name, HeaderValue::from_str(value).expect("a header value"));
    }
    map
}
