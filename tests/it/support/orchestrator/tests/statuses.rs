//! Status and cancel requests: what moves a run, and what does not.

use std::time::Duration;

use serde_json::{Value, json};

use super::{client, create, get, json_of};
use crate::support::orchestrator::{
    Garbage, PlainFault, Rules, RunRequest, RunStatus, ScriptedOrchestrator, StatusRule,
};

async fn cancel(orchestrator: &ScriptedOrchestrator, run_id: &str) -> Option<(u16, Value)> {
    let url = format!("{}/v1/runs/{run_id}:cancel", orchestrator.base_url());
    let answer = client().post(url).send().await.ok()?;
    Some((answer.status().as_u16(), json_of(answer).await))
}

#[tokio::test]
async fn a_told_status_is_what_the_test_tells() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let run_id = create(&orchestrator, "k1").await;
    let path = format!("/v1/runs/{run_id}");
    assert_eq!(get(&orchestrator, &path).await.1["run"]["status"], "queued");
    orchestrator.emit_steps(&run_id, 1);
    assert_eq!(get(&orchestrator, &path).await.1["run"]["status"], "running");
    orchestrator.finish(&run_id, RunStatus::Failed);
    let (status, body) = get(&orchestrator, &path).await;
    assert_eq!((status, &body["run"]["status"]), (200, &json!("failed")));
    assert!(body["run"]["completed_at"].is_string() && body["correlation_id"].is_string());
    assert_eq!(orchestrator.truth().status_requests(&run_id).len(), 3);
}

#[tokio::test]
async fn an_asked_status_moves_by_being_asked_and_emits_nothing() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let status =
        StatusRule::Asked { running_after: Duration::ZERO, completed_after: Duration::from_millis(5) };
    orchestrator.rules(Rules { status, ..Rules::default() });
    let run_id = create(&orchestrator, "k1").await;
    assert_eq!(orchestrator.find_status(&run_id), Some(RunStatus::Queued));
    let path = format!("/v1/runs/{run_id}");
    while get(&orchestrator, &path).await.1["run"]["status"] != "completed" {}
    assert!(orchestrator.events(&run_id).is_empty());

    let canceled = create(&orchestrator, "k2").await;
    cancel(&orchestrator, &canceled).await.expect("an answer");
    assert!(orchestrator.events(&canceled).is_empty());
}

#[tokio::test]
async fn a_cancel_ends_the_run_once_with_its_event() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let run_id = create(&orchestrator, "k1").await;
    let (status, body) = cancel(&orchestrator, &run_id).await.expect("an answer");
    assert_eq!((status, &body["run"]["status"]), (200, &json!("canceled")));
    let (status, body) = cancel(&orchestrator, &run_id).await.expect("an answer");
    assert_eq!((status, &body["error"]["code"]), (409, &json!("invalid_state_transition")));
    assert_eq!(orchestrator.events(&run_id)[0].event_type, "agentos.run.canceled");
    assert_eq!(cancel(&orchestrator, "run_none").await.expect("an answer").0, 404);
    let truth = orchestrator.truth();
    let seen: Vec<&RunRequest> = truth.cancel_requests(&run_id);
    assert_eq!(
        (seen.len(), seen[0].request.method.as_str(), seen[0].run_id.as_str()),
        (2, "POST", run_id.as_str())
    );
}

#[tokio::test]
async fn faults_strike_before_or_after_the_effect() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let run_id = create(&orchestrator, "k1").await;
    orchestrator.next_cancels([PlainFault::DropRequest, PlainFault::DropAnswer]);
    assert_eq!(cancel(&orchestrator, &run_id).await, None);
    assert_eq!(orchestrator.find_status(&run_id), Some(RunStatus::Queued));
    assert_eq!(cancel(&orchestrator, &run_id).await, None);
    assert_eq!(orchestrator.find_status(&run_id), Some(RunStatus::Canceled));

    let path = format!("/v1/runs/{run_id}");
    orchestrator.next_statuses([PlainFault::Ok, PlainFault::Garbage(Garbage::Html)]);
    orchestrator.statuses(PlainFault::Status(500));
    assert_eq!(get(&orchestrator, &path).await.0, 200);
    assert_eq!(get(&orchestrator, &path).await, (200, Value::Null));
    assert_eq!(get(&orchestrator, &path).await.0, 500);
    orchestrator.statuses(PlainFault::HangForever);
    let hangs = client().get(orchestrator.base_url() + &path).timeout(Duration::from_millis(30));
    assert!(hangs.send().await.expect_err("no answer").is_timeout());
}

#[tokio::test]
async fn a_run_of_another_tenant_does_not_exist() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let run_id = create(&orchestrator, "k1").await;
    let url = format!("{}/v1/runs/{run_id}", orchestrator.base_url());
    let answer = client().get(url).header("x-tenant-id", "tnt_other").send().await.expect("an answer");
    assert_eq!(answer.status(), 404);
}
