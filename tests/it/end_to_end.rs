//! The main job, end to end, once: AgentOS' own check.

use causeway::domain::run::RunStatus;
use serde_json::{Value, json};

use crate::support::gateway::TestGateway;
use crate::support::orchestrator::{RunStatus as HomeStatus, ScriptedOrchestrator};
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
