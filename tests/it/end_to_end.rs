//! The main job, end to end, once: AgentOS' own check, and what an operator sees of it.

use causeway::domain::run::RunStatus;
use serde_json::{Value, json};

use crate::support::gateway::{TestGateway, events_path};
use crate::support::orchestrator::{RunStatus as HomeStatus, ScriptedOrchestrator};
use crate::support::pair::Pair;
use crate::support::sse_client::{Follower, RunEnd};

//
#[tokio::test]
async fn a_run_is_forwarded_followed_and_its_envelope_ingested_again() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 3);
    home.finish(&run, HomeStatus::Completed);
    let mut follower = Follower::new(gateway.address(), &format!("/v1/federation/runs/{run}/events"));
    let end = follower.follow_to_end().await;
    let completed = RunStatus::Completed.as_str();
    assert!(matches!(&end, RunEnd::Ended { sequence: 4, status } if status == completed), "{end:?}");
    assert_eq!(follower.sequences(), [1, 2, 3, 4]);

    let event: Value = serde_json::from_str(&follower.seen()[0].text).expect("an event");
    let twice = json!({ "events": [{ "event": event }, { "event": event }] });
    let answer = gateway.post("/v1/federation/events:ingest", &twice).await.expect(200);
    assert_eq!((answer.json["accepted"].as_u64(), answer.json["rejected"].as_u64()), (Some(1), Some(1)));

    let shown = gateway.get(&format!("/v1/federation/runs/{run}")).await.expect(200);
    assert_eq!(shown.json["run"]["status"], completed);
    assert_eq!(shown.json["run"]["high_water"], 4);
    let face = gateway.get(&format!("/v1/runs/{run}")).await.expect(200);
    assert_eq!(face.json["run"]["status"], completed);
}

// M-05
#[tokio::test]
async fn one_page_counts_forwards_streams_links_and_the_log() {
    let pair = Pair::start().await;
    let run = pair.a.forward_run("stk_b").await;
    pair.home_b.emit_steps(&run, 3);
    pair.home_b.finish(&run, HomeStatus::Completed);
    Follower::new(pair.a.address(), &events_path(&run)).follow_to_end().await;
    let counted = [
        "http_requests_total{",
        "federation_forwards_total{",
        "upstream_connects_total{",
        "events_stored_total ",
        "log_commits_total ",
        "peer_connection_state{peer=\"stk_b\"}",
        "db_file_bytes ",
    ];
    let is_counted = |page: &str, name: &str| {
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        page.lines().filter(|line| line.starts_with(name)).filter_map(value).any(|value| value > 0.0)
    };
    pair.a.until("/metrics", |page| counted.iter().all(|name| is_counted(&page.text, name))).await;
}
