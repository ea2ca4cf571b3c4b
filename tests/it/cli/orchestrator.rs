//! `causeway orchestrator`: it keeps the contract its runs are forwarded under.

use super::*;

/// The orchestrator, and a client that sees whole answers.
struct Desk {
    served: Served,
    client: reqwest::Client,
    _directory: TempDir,
}

impl Desk {
    async fn start(run_time: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let arguments = ["orchestrator", "--listen", "127.0.0.1:0", "--run-time", run_time];
        let served = Served::start(&arguments, &directory.path().join("log"), "orchestrator: ").await;
        let client = plain_client();
        Desk { served, client, _directory: directory }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let answer =
            tokio::time::timeout(PATIENCE, request.send()).await.expect("in time").expect("an answer");
        let answer = read(answer).await;
        (answer.status, answer.text)
    }

    async fn get(&self, path: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
        let request = self.client.get(format!("{}{path}", self.served.url));
        self.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    async fn create(&self, header: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = self.client.post(format!("{}/v1/agents/agt_demo/runs", self.served.url));
        if let Some(key) = header {
            request = request.header("idempotency-key", key);
        }
        let (status, text) = self.send(request.body(body.to_string())).await;
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    async fn cancel(&self, run: &str) -> u16 {
        self.send(self.client.post(format!("{}/v1/runs/{run}:cancel", self.served.url))).await.0
    }
}

/// The ids of a stream's frames, in order.
fn ids(stream: &str) -> Vec<u64> {
    let number = |id: &str| id.parse().expect("a sequence");
    stream.lines().filter_map(|line| line.strip_prefix("id: ")).map(number).collect()
}

#[tokio::test]
async fn one_key_makes_one_run_wherever_it_stands() {
    let desk = Desk::start("100ms").await;
    let (status, first) = desk.create(Some("\"k\""), &json!({"input": "a b"})).await;
    assert_eq!((status, first["run"]["status"].as_str()), (201, Some("queued")), "{first}");
    let (status, again) = desk.create(None, &json!({"input": "a b", "idempotency_key": "k"})).await;
    assert_eq!((status, &again["run"]["run_id"]), (200, &first["run"]["run_id"]));
    let (status, refused) = desk.create(Some("k"), &json!({"input": "other"})).await;
    assert_eq!((status, refused["error"]["code"].as_str()), (422, Some("idempotency_key_reused")));
    assert_eq!(desk.create(Some("k"), &json!({"input": 1, "idempotency_key": "l"})).await.0, 400);
    assert_eq!(desk.create(None, &json!({"context": {}})).await.0, 400);
    assert_eq!(desk.get("/v1/health", &[]).await.0, 200);
}

#[tokio::test]
async fn its_streams_resume_after_any_sequence_and_end_with_the_run() {
    let desk = Desk::start("300ms").await;
    let (_, created) = desk.create(None, &json!({"input": {"type": "text", "text": "one two three"}})).await;
    let run = created["run"]["run_id"].as_str().expect("a run");
    let events = format!("/v1/runs/{run}/events");
    let (status, live) = desk.get(&events, &[]).await;
    assert_eq!((status, ids(&live)), (200, (1..=EVENTS).collect()));
    for (query, header, first) in [
        ("?from_sequence=12", "0", 13),
        ("?after_sequence=12", "0", 13),
        ("?from_sequence=2", "12", 13),
        ("", "3", 4),
    ] {
        let (_, rest) = desk.get(&format!("{events}{query}"), &[("last-event-id", header)]).await;
        assert_eq!(ids(&rest), (first..=EVENTS).collect::<Vec<_>>(), "{query} {header}");
    }
    assert_eq!(desk.get(&format!("{events}?from_sequence=14"), &[]).await.0, 204);
    assert_eq!(desk.get(&format!("{events}?from_sequence=x"), &[]).await.0, 400);
    assert_eq!(desk.get(&events, &[("x-tenant-id", "another")]).await.0, 404);
    let (_, run) = desk.get(&format!("/v1/runs/{run}"), &[]).await;
    let run: Value = serde_json::from_str(&run).expect("JSON");
    assert_eq!(run["run"]["status"], "completed");
    assert_eq!(run["run"]["output"]["text"], "3 words, the longest is 'three': one two three");
}

#[tokio::test]
async fn a_run_is_canceled_while_it_goes_on_and_not_afterwards() {
    let desk = Desk::start("1h").await;
    let (_, created) = desk.create(None, &json!({"input": 1})).await;
    let run = created["run"]["run_id"].as_str().expect("a run");
    assert_eq!([desk.cancel(run).await, desk.cancel(run).await], [200, 200], "twice does no harm");
    let (_, stream) = desk.get(&format!("/v1/runs/{run}/events"), &[]).await;
    assert!(stream.contains("agentos.run.canceled"), "{stream}");
    assert_eq!(desk.cancel("run_nobody_knows").await, 404);
    let quick = Desk::start("1ms").await;
    let (_, created) = quick.create(None, &json!({"input": 1})).await;
    let run = created["run"]["run_id"].as_str().expect("a run");
    quick.get(&format!("/v1/runs/{run}/events"), &[]).await;
    assert_eq!(quick.cancel(run).await, 409);
}
