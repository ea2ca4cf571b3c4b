//! The first orchestrator that must work, and a hard one: AgentOS' own, as it was observed.

use std::time::Duration;

use serde_json::json;

use crate::support::gateway::{TestGateway, events_path, forward_body};
use crate::support::orchestrator::{Rules, RunStatus, ScriptedOrchestrator, StatusRule};
use crate::support::sse_client::{Follower, RunEnd, SseClient};

/// AgentOS, ten times as fast.
async fn agentos() -> (ScriptedOrchestrator, TestGateway) {
    let home = ScriptedOrchestrator::agentos().await;
    let (running_after, completed_after) = (Duration::from_millis(100), Duration::from_millis(500));
    let status = StatusRule::Asked { running_after, completed_after };
    home.rules(Rules { status, ..Rules::agentos() });
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    (home, gateway)
}

// defects 10 and 16: one frame without id, EOF at once, no terminal event ever, another event id
// on each read, and a status that moves only when somebody asks.
#[tokio::test]
async fn a_run_of_agentos_is_created_followed_and_closed_with_the_status_its_home_gives() {
    let (home, gateway) = agentos().await;
    let run = gateway.forward_run("stk_b").await;
    let mut stream = SseClient::connect(gateway.address(), &events_path(&run), &[]).await;
    let first = stream.next_event().await;
    assert_eq!((first.sequence(), &first.data["event"]["type"]), (1, &json!("agentos.run.created")));
    let frames = stream.collect_until_end().await;
    let end = frames.last().expect("an end");
    assert_eq!(end.data, json!({"sequence": 2, "status": "completed"}));
    let derived = frames.iter().find(|frame| frame.is_event()).expect("a terminal event");
    assert_eq!(derived.data["event"]["type"], "agentos.run.completed");
    assert_eq!(derived.data["federation"]["derived"], true);
    assert_eq!(derived.data["event"]["run_id"], run.as_str());
    assert_eq!(home.find_status(&run), Some(RunStatus::Completed), "its quota slot is free");

    let truth = home.truth();
    let (reads, asked) = (truth.events_requests(&run).len(), truth.status_requests(&run).len());
    assert!(reads <= asked + 3, "{reads} reads for {asked} questions: the stream is not polled in a loop");
    assert!(asked <= 20, "{asked} questions within half a second");
    gateway.until_metric("events_conflict_total", |count| count >= 1.0).await;
    assert_eq!(gateway.count_rows("audit WHERE action = 'events.set_aside'"), 1);
    let mut replay = Follower::new(gateway.address(), &events_path(&run));
    let ended = RunEnd::Ended { sequence: 2, status: "completed".to_owned() };
    assert_eq!((replay.follow_to_end().await, replay.sequences()), (ended, vec![1, 2]));
}

#[tokio::test]
async fn a_cancel_at_agentos_ends_the_stream_though_no_event_says_so() {
    let (_home, gateway) = agentos().await;
    let run = gateway.forward_run("stk_b").await;
    let canceled = gateway.post(&format!("/v1/runs/{run}:cancel"), &json!({})).await.expect(200);
    assert_eq!(canceled.json["run"]["status"], "canceled");
    let mut live = Follower::new(gateway.address(), &events_path(&run));
    let ended = RunEnd::Ended { sequence: 2, status: "canceled".to_owned() };
    assert_eq!(live.follow_to_end().await, ended);
}

//
#[tokio::test]
async fn a_restart_amid_a_run_of_agentos_changes_nothing() {
    let (home, mut gateway) = agentos().await;
    let run = gateway.forward_run("stk_b").await;
    let mut live = Follower::new(gateway.address(), &events_path(&run));
    live.follow_events(1).await;
    gateway.restart().await;
    home.restart().await;
    let ended = RunEnd::Ended { sequence: 2, status: "completed".to_owned() };
    assert_eq!(live.follow_to_end().await, ended);
}

#[tokio::test]
async fn what_agentos_refuses_is_refused_here_in_its_words() {
    let (_home, gateway) = agentos().await;
    let mut body = forward_body("stk_b");
    body["forward"]["run_request"]["input"] = json!("no object");
    gateway.post("/v1/federation/runs:forward", &body).await.expect(400);
    let foreign = [("x-tenant-id", "tnt_other")];
    gateway.post_with("/v1/federation/runs:forward", &forward_body("stk_b"), &foreign).await.expect(403);
}
