//! The main job, end to end, once.

use serde_json::json;

use crate::support::gateway::TestGateway;
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::sse_client::Follower;
use causeway::domain::run::RunStatus;

//
#[tokio::test]
async fn a_run_is_forwarded_followed_and_its_envelope_ingested_again() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 3);
    home.finish(&run, crate::support::orchestrator::RunStatus::Completed);
    let path = format!("/v1/federation/runs/{run}/events");
    let mut follower = Follower::new(gateway.address(), &path);
    let end = follower.follow_to_end().await;
    println!("{end:?} {:?}", follower.sequences());
    let first = follower.seen()[0].text.clone();
    let event: serde_json::Value = serde_json::from_str(&first).unwrap();
    let body = json!({"events":[{"event":event},{"event":event}]});
    let answer = gateway.post("/v1/federation/events:ingest", &body).await.expect(200);
    assert_eq!((answer.json["accepted"].as_u64(), answer.json["rejected"].as_u64()), (Some(1), Some(1)));
    println!("{}", answer.text);
    println!("{}", gateway.get(&format!("/v1/federation/runs/{run}")).await.text);
    println!("{}", gateway.get(&format!("/v1/runs/{run}")).await.text);
    let _ = RunStatus::Completed;
}
