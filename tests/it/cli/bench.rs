//! `causeway bench`: it measures what it says, and a gateway that breaks a promise gets no figure.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use causeway::tasks::Tasks;
use serde_json::value::RawValue;

use super::*;
use crate::support::address::steady_address;

/// Runs `causeway bench … --json` and answers its result.
async fn bench(arguments: &[&str]) -> Value {
    let (code, out, err) = causeway_says(&[&["bench"], arguments, &["--json"]].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    serde_json::from_str(&out).expect("one JSON object")
}

fn metric(result: &Value, name: &str) -> f64 {
    result["metrics"][name].as_f64().unwrap_or_else(|| panic!("{name}: {result}"))
}

#[tokio::test]
async fn every_workload_is_measured_and_verified_on_a_gateway_of_its_own() {
    let ingest = bench(&["ingest", "--writers", "3", "--batch", "7", "--count", "20"]).await;
    assert_eq!((&ingest["workload"], &ingest["verified"]), (&json!("ingest"), &json!(140)));
    assert_eq!(ingest["parameters"]["spawned_gateways"], 1);
    let random =
        bench(&["ingest", "--writers", "1", "--batch", "50", "--count", "4", "--ids", "random"]).await;
    assert_eq!((&random["verified"], &random["errors"]), (&json!(200), &json!({})));
    for result in [&ingest, &random] {
        assert!(metric(result, "events_per_second") > 0.0);
        assert!(metric(result, "request_ms_p50") > 0.0);
        assert!(metric(result, "request_ms_max") >= metric(result, "request_ms_p99_9"));
        #[cfg(target_os = "linux")]
        assert!(metric(result, "server_resident_bytes") > 1e6, "of the other process");
    }
    // One event before anybody listens, and five publishes.
    let fanout = bench(&["fanout", "--subscribers", "20", "--batch", "8", "--count", "5"]).await;
    assert_eq!(fanout["verified"], 20 * (1 + 5 * 8));
    assert!(metric(&fanout, "delivery_ms_p50") > 0.0);
    let replay = bench(&["replay", "--events", "1200", "--readers", "2", "--count", "3"]).await;
    assert_eq!(replay["verified"], 3 * 1200);
    assert!(metric(&replay, "first_event_ms_p50") <= metric(&replay, "whole_replay_ms_p50"));
    let idle = bench(&["idle", "--subscribers", "30", "--duration", "200ms", "--warmup", "0s"]).await;
    assert_eq!(idle["verified"], 2 * 30);
}

#[tokio::test]
async fn forwards_and_their_streams_are_held_against_the_orchestrator() {
    let created = bench(&["forward", "--in-flight", "4", "--count", "12", "--events", "3"]).await;
    assert_eq!(created["verified"], 12);
    assert!(metric(&created, "create_ms_p50") > 0.0);
    let going_on = bench(&["forward", "--in-flight", "4", "--count", "12", "--events", "0"]).await;
    assert_eq!(going_on["verified"], 12);
    let follow = ["forward", "--in-flight", "2", "--count", "6", "--events", "5", "--follow", "--hops", "2"];
    let followed = bench(&follow).await;
    assert_eq!((&followed["verified"], &followed["parameters"]["spawned_gateways"]), (&json!(36), &json!(2)));
    let bulk = bench(&["proxy", "--count", "2000", "--streams", "2"]).await;
    assert_eq!(bulk["verified"], 4000);
    let paced = bench(&["proxy", "--count", "100", "--rate", "500"]).await;
    assert_eq!(paced["verified"], 100);
    assert!(metric(&paced, "delivery_ms_p50") > metric(&paced, "direct_delivery_ms_p50"));
}

#[tokio::test]
async fn latency_under_a_rate_counts_from_when_a_request_was_due() {
    // No gateway answers each of these within 10 µs: those that wait say so.
    let flooded = bench(&["ingest", "--writers", "1", "--rate", "100000", "--count", "200"]).await;
    let closed = bench(&["ingest", "--writers", "1", "--count", "200"]).await;
    let (waited, served) = (metric(&flooded, "request_ms_p90"), metric(&closed, "request_ms_p90"));
    assert!(waited > 10.0 * served, "{waited} {served}");
}

#[tokio::test]
async fn an_earlier_result_is_compared_with() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("before.json");
    let mut before = bench(&["ingest", "--writers", "1", "--count", "5"]).await;
    before["metrics"]["request_ms_p50"] = json!(1e9);
    std::fs::write(&file, before.to_string()).expect("a file");
    let compare = ["--writers", "1", "--count", "5", "--compare", text(&file)];
    let (code, out, err) = causeway_says(&[&["bench", "ingest"], &compare[..]].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let row = out.lines().find(|line| line.contains("request ms p50")).expect("a row");
    assert!(row.ends_with("×0.00"), "{out}");
    assert!(out.contains("  5 verified: each came out once"), "{out}");
    let (code, _, err) = causeway_says(&["bench", "replay", "--compare", text(&file)]).await;
    assert_eq!(code, 2);
    assert!(err.contains("no result of `causeway bench replay --json`"), "{err}");
}

/// What a gateway does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sin {
    Nothing,
    Loses,
    Repeats,
    Swaps,
    Changes,
    OneRunForAll,
    /// Asks this orchestrator for two runs where one was asked for.
    TwoRunsForEach(SocketAddr),
}

/// A gateway of one run that takes all that is pushed, and gives it back in its own way.
#[derive(Clone)]
struct Sinner {
    sin: Sin,
    events: Arc<Mutex<Vec<String>>>,
}

impl Sinner {
    async fn start(sin: Sin) -> String {
        let sinner = Sinner { sin, events: Arc::default() };
        let router = Router::new()
            .route("/v1/federation/events:ingest", post(take))
            .route("/v1/federation/runs/{run}/events", get(give))
            .route("/v1/federation/runs:forward", post(forward))
            .with_state(sinner);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Tasks::default().spawn(axum::serve(listener, router).into_future());
        format!("http://{address}")
    }
}

#[derive(serde::Deserialize)]
struct Pushed {
    events: Vec<Box<RawValue>>,
}

async fn take(State(sinner): State<Sinner>, body: Bytes) -> Response {
    let pushed: Pushed = serde_json::from_slice(&body).expect("a batch");
    let count = pushed.events.len();
    let after_brace = pushed.events.iter().map(|event| event.get()[1..].to_owned());
    sinner.events.lock().expect("whole").extend(after_brace);
    ([(CONTENT_TYPE, "application/json")], format!("{{\"accepted\":{count},\"rejected\":0}}")).into_response()
}

async fn give(State(sinner): State<Sinner>) -> Response {
    let mut frames: Vec<String> = Vec::new();
    for (index, event) in sinner.events.lock().expect("whole").iter().enumerate() {
        let number = index + 1;
        let event = if sinner.sin == Sin::Changes && number == 3 {
            event.replace("abc", "abd")
        } else {
            event.clone()
        };
        frames.push(format!(
            "id: {number}\nevent: agentos.event\ndata: {{\"event\":{{\"sequence\":{number},{event},\"federation\":{{}}}}\n\n"
        ));
    }
    match sinner.sin {
        Sin::Loses => drop(frames.pop()),
        Sin::Repeats => frames.insert(3, frames[2].clone()),
        Sin::Swaps => frames.swap(2, 3),
        Sin::Nothing | Sin::Changes | Sin::OneRunForAll | Sin::TwoRunsForEach(_) => {}
    }
    let body = futures_util::stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, "text/event-stream")], axum::body::Body::from_stream(body)).into_response()
}

async fn forward(State(sinner): State<Sinner>, sent: HeaderMap) -> Response {
    let mut run = json!("run_1");
    if let Sin::TwoRunsForEach(origin) = sinner.sin {
        let client = plain_client();
        let key = sent["idempotency-key"].to_str().expect("a key");
        for attempt in ["a", "b"] {
            let create = client.post(format!("http://{origin}/v1/agents/agt_bench/runs"));
            let create = create.header("idempotency-key", format!("{key}{attempt}")).body("{}");
            let answer = read(create.send().await.expect("an answer")).await;
            run = answer.json["run"]["run_id"].clone();
        }
    }
    ([(CONTENT_TYPE, "application/json")], json!({"forwarded": {"run_id": run}}).to_string()).into_response()
}

#[tokio::test]
async fn a_gateway_that_loses_repeats_reorders_or_changes_an_event_gets_no_figure() {
    let ingest = ["bench", "ingest", "--writers", "1", "--batch", "2", "--count", "4", "--url"];
    for (sin, told) in [
        (Sin::Loses, "8 events were acknowledged, 7 came out"),
        (Sin::Repeats, "event 3 came again where 4 was due"),
        (Sin::Swaps, "event 4 came where 3 was due"),
        (Sin::Changes, "event 3 is not the one that was sent"),
    ] {
        let url = Sinner::start(sin).await;
        let (code, out, err) = causeway_says(&[&ingest[..], &[&url]].concat()).await;
        assert_eq!((code, out.as_str()), (1, ""), "{sin:?}: {err}");
        assert!(err.contains("there is no result") && err.contains(told), "{sin:?}: {err}");
    }
    let url = Sinner::start(Sin::Nothing).await;
    let (code, out, err) = causeway_says(&[&ingest[..], &[&url]].concat()).await;
    assert_eq!(code, 0, "the same gateway without a sin: {err}");
    assert!(out.contains("8 verified"), "{out}");
}

#[tokio::test]
async fn two_keys_with_one_run_are_no_forwards() {
    let url = Sinner::start(Sin::OneRunForAll).await;
    let forward = ["bench", "forward", "--in-flight", "1", "--count", "3", "--to", "stk_b", "--url", &url];
    let (code, _, err) = causeway_says(&forward).await;
    assert_eq!(code, 1);
    assert!(err.contains("3 keys were given 1 runs"), "{err}");
}

#[tokio::test]
async fn a_run_that_nobody_asked_for_is_found_out() {
    let free = steady_address();
    let url = Sinner::start(Sin::TwoRunsForEach(free)).await;
    let origin = free.to_string();
    let forward = ["bench", "forward", "--in-flight", "2", "--count", "3", "--to", "stk_b", "--url", &url];
    let (code, out, err) = causeway_says(&[&forward[..], &["--origin", &origin]].concat()).await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("3 forwards were answered with a run, and 6 runs were created"), "{err}");
}

#[tokio::test]
async fn a_live_stream_that_ends_is_no_delivery() {
    let url = Sinner::start(Sin::Nothing).await;
    let fanout = ["bench", "fanout", "--subscribers", "2", "--count", "1", "--url", &url];
    let (code, _, err) = causeway_says(&fanout).await;
    assert_eq!(code, 1);
    assert!(err.contains("a stream ended before its run"), "{err}");
}

#[tokio::test]
async fn an_interrupted_measurement_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = causeway(&["bench", "ingest", "--duration", "1m", "--dir", text(directory.path())]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let entries = || std::fs::read_dir(directory.path()).expect("a directory").count();
    let started = async {
        while entries() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.expect("its directory");
    signal(&child, "-INT").await;
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends in time");
    assert_eq!(told(&ended.expect("it ran")).0, 1);
    assert_eq!(entries(), 0, "the gateway's directory is gone");
}

#[tokio::test]
async fn the_directory_is_one_of_where_it_was_called() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = causeway(&["bench", "ingest", "--count", "10", "--warmup", "0s", "--dir", "."]);
    let ended = command.current_dir(directory.path()).output();
    let (code, _, err) =
        told(&tokio::time::timeout(PATIENCE, ended).await.expect("in time").expect("it ran"));
    assert_eq!(code, 0, "{err}");
}

#[tokio::test]
async fn what_cannot_be_measured_says_why() {
    let (code, _, err) = causeway_says(&["bench", "ingest", "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(code, 69, "{err}");
    let (code, _, err) = causeway_says(&["bench", "forward", "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("--to"), "{err}");
    let (code, _, err) = causeway_says(&["bench", "forward", "--events", "0", "--follow"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("--events of 1 or more"), "{err}");
    let nowhere = ["bench", "idle", "--dir", "/no/such/place"];
    let (code, _, err) = causeway_says(&nowhere).await;
    assert_eq!(code, 1);
    assert!(err.contains("/no/such/place"), "{err}");
}
