//! Run-creates: each fault on its side of the commit, keys, rules, quotas.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;

use super::{create, create_request, json_of, send_in_vain};
use crate::support::orchestrator::{
    CreateFault, CreateOutcome, CreateSeen, Garbage, InputRule, KeyRule, Rules, RunCreated, RunStatus,
    ScriptedOrchestrator, Truth,
};

const SHORT: Duration = Duration::from_millis(50);

/// Sends a create under this fault and again under none; returns the first answer's status, if it was whole.
async fn twice(orchestrator: &ScriptedOrchestrator, fault: CreateFault) -> Option<u16> {
    orchestrator.next_creates([fault]);
    let first = create_request(orchestrator, "k1").send().await.ok();
    let status = first.as_ref().map(|answer| answer.status().as_u16());
    let whole = match first {
        Some(answer) => answer.bytes().await.is_ok(),
        None => false,
    };
    create(orchestrator, "k1").await;
    status.filter(|_| whole)
}

async fn answer(orchestrator: &ScriptedOrchestrator) -> (u16, String) {
    let answer = create_request(orchestrator, "k1").send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

fn outcomes(orchestrator: &ScriptedOrchestrator) -> Vec<&'static str> {
    let truth = orchestrator.truth();
    truth.assert_one_run_per_key();
    truth.assert_every_create_bore("k1");
    let name = |create: &CreateSeen| match create.outcome {
        CreateOutcome::NotCommitted => "not committed",
        CreateOutcome::Committed(_) => "committed",
        CreateOutcome::Replayed(_) => "replayed",
    };
    truth.creates().iter().map(name).collect()
}

#[tokio::test]
async fn a_create_answers_201_and_its_replay_200_with_the_same_run() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let request = || {
        let request = create_request(&orchestrator, "k1").header("x-correlation-id", "corr_1");
        request.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    };
    let first = request().send().await.expect("an answer");
    assert_eq!(
        (first.status().as_u16(), &first.headers()["x-request-id"]),
        (201, &"corr_1".parse().expect("header"))
    );
    let first = json_of(first).await;
    let second = request().send().await.expect("an answer");
    assert_eq!(second.status(), 200);
    let second = json_of(second).await;
    assert_eq!((&first, &first["correlation_id"]), (&second, &json!("corr_1")));
    let run_id = first["run"]["run_id"].as_str().expect("a run id");
    assert_eq!(first["run"]["events_url"], format!("/v1/runs/{run_id}/events"));

    let truth = orchestrator.truth();
    let create = truth.creates_for_key("k1")[1];
    assert_eq!(create.outcome, CreateOutcome::Replayed(run_id.to_owned()));
    assert_eq!((create.agent_id.as_str(), create.request.method.as_str()), ("agt_a", "POST"));
    assert!(create.request.header("traceparent").is_some_and(|trace| trace.contains("0af7651916cd")));
    assert!(truth.creates()[0].request.at <= create.request.at);
    let run: &RunCreated = &truth.runs_created()[0];
    assert_eq!((run.agent_id.as_str(), run.key.as_deref()), ("agt_a", Some("k1")));
    orchestrator.emit(run_id, "agentos.run.step.started", json!({}));
    assert!(orchestrator.events(run_id)[0].text.contains("0af7651916cd43dd8448eb211c80319c"));
}

#[tokio::test]
async fn a_fault_before_the_commit_leaves_no_run() {
    for (fault, status) in [
        (CreateFault::DropRequest, None),
        (CreateFault::status(503), Some(503)),
        (CreateFault::Redirect("http://169.254.169.254/".to_owned()), Some(307)),
    ] {
        let orchestrator = ScriptedOrchestrator::start().await;
        assert_eq!(twice(&orchestrator, fault.clone()).await, status, "{fault:?}");
        assert_eq!(outcomes(&orchestrator), ["not committed", "committed"], "{fault:?}");
    }
}

#[tokio::test]
async fn a_fault_after_the_commit_leaves_one_run_that_the_key_finds() {
    for (fault, status) in [
        (CreateFault::DropAnswer, None),
        (CreateFault::CutAnswerAt(9), None),
        (CreateFault::CutAnswerAt(150), None),
        (CreateFault::Garbage(Garbage::Html), Some(200)),
        (CreateFault::Garbage(Garbage::Empty), Some(200)),
        (CreateFault::Garbage(Garbage::UnreadableJson), Some(200)),
        (CreateFault::Garbage(Garbage::HugeBody(100_000)), Some(200)),
        (CreateFault::Garbage(Garbage::Trickle(Duration::ZERO)), Some(201)),
        (CreateFault::DelayAnswer(SHORT), Some(201)),
        (CreateFault::StatusAfterCommit(500), Some(500)),
        (CreateFault::MissingRunId, Some(201)),
    ] {
        let orchestrator = ScriptedOrchestrator::start().await;
        assert_eq!(twice(&orchestrator, fault.clone()).await, status, "{fault:?}");
        assert_eq!(outcomes(&orchestrator), ["committed", "replayed"], "{fault:?}");
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_on_the_scripted_side_of_the_commit() {
    let minute = Duration::from_secs(60);
    for (fault, outcome) in [
        (CreateFault::HangForever, "not committed"),
        (CreateFault::Hold, "not committed"),
        (CreateFault::Delay(minute), "not committed"),
        (CreateFault::HangAfterCommit, "committed"),
        (CreateFault::HoldAnswer, "committed"),
        (CreateFault::DelayAnswer(minute), "committed"),
        (CreateFault::Garbage(Garbage::Trickle(minute)), "committed"),
    ] {
        let orchestrator = ScriptedOrchestrator::start().await;
        orchestrator.creates(fault.clone());
        let runs = usize::from(outcome == "committed");
        let arrived = |truth: &Truth| truth.creates().len() == 1 && truth.runs_created().len() == runs;
        send_in_vain(&orchestrator, create_request(&orchestrator, "k1"), arrived).await;
        let truth = orchestrator.truth();
        let committed = truth.creates()[0].outcome != CreateOutcome::NotCommitted;
        assert_eq!((committed, truth.runs_created().len()), (runs == 1, runs), "{fault:?}");
    }
}

#[tokio::test]
async fn held_creates_go_on_when_they_are_released() {
    let orchestrator = ScriptedOrchestrator::start().await;
    orchestrator.next_creates([CreateFault::Hold, CreateFault::HoldAnswer]);
    let held = async { tokio::join!(create(&orchestrator, "k1"), create(&orchestrator, "k1")) };
    let release = async {
        let arrived = |truth: &Truth| truth.creates().len() == 2 && truth.runs_created().len() == 1;
        orchestrator.until("both", arrived).await;
        orchestrator.release_creates();
    };
    let ((first, second), ()) = tokio::join!(held, release);
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_status_bears_the_retry_after_and_body_it_was_given() {
    let orchestrator = ScriptedOrchestrator::start().await;
    orchestrator.creates(CreateFault::status(429));
    let body = Some(json!({"odd": true}));
    let refused = CreateFault::Status { code: 422, retry_after: None, body };
    orchestrator.next_creates([CreateFault::status_retry_after(503, "7"), refused]);
    let busy = create_request(&orchestrator, "k1").send().await.expect("an answer");
    assert_eq!(
        (busy.status().as_u16(), &busy.headers()["retry-after"]),
        (503, &"7".parse().expect("header"))
    );
    let (status, text) = answer(&orchestrator).await;
    assert_eq!((status, text.as_str()), (422, "{\"odd\":true}"));
    let limited = create_request(&orchestrator, "k1").send().await.expect("an answer");
    assert!(limited.headers().get("retry-after").is_none());
    let error = json_of(limited).await;
    assert_eq!(
        (&error["error"]["code"], &error["error"]["retryable"]),
        (&json!("quota_exceeded"), &json!(true))
    );
}

#[tokio::test]
async fn faults_that_wait_can_be_dropped() {
    let orchestrator = ScriptedOrchestrator::start().await;
    orchestrator.next_creates([CreateFault::status(503), CreateFault::status(503)]);
    assert_eq!(answer(&orchestrator).await.0, 503);
    orchestrator.forgive_creates();
    assert_eq!(answer(&orchestrator).await.0, 201);
}

#[tokio::test]
async fn a_delayed_create_commits_after_the_delay_even_if_the_caller_left() {
    let orchestrator = ScriptedOrchestrator::start().await;
    orchestrator.next_creates([CreateFault::Delay(SHORT)]);
    send_in_vain(&orchestrator, create_request(&orchestrator, "k1"), |truth| truth.creates().len() == 1)
        .await;
    orchestrator.until("the run", |truth| truth.runs_created().len() == 1).await;
}

#[tokio::test]
async fn run_id_and_events_url_are_what_the_test_says() {
    let orchestrator = ScriptedOrchestrator::start().await;
    let evil = "http://169.254.169.254/latest";
    orchestrator.next_creates([
        CreateFault::Ok,
        CreateFault::RunId("run_same".to_owned()),
        CreateFault::EventsUrl(evil.to_owned()),
    ]);
    create(&orchestrator, "k1").await;
    assert_eq!(create(&orchestrator, "k2").await, "run_same");
    let answer = create_request(&orchestrator, "k3").send().await.expect("an answer");
    let answer = json_of(answer).await;
    assert_eq!(answer["run"]["events_url"], evil);
    assert_eq!(orchestrator.truth().keys(), BTreeSet::from(["k1", "k2", "k3"]));
}

#[tokio::test]
async fn ignored_keys_make_a_run_each_time_and_the_truth_says_for_which_key() {
    let orchestrator = ScriptedOrchestrator::start().await;
    orchestrator.rules(Rules { keys: KeyRule::Ignored, ..Rules::default() });
    create(&orchestrator, "k1").await;
    create(&orchestrator, "k1").await;
    assert_eq!(orchestrator.truth().runs_for_key("k1").len(), 2);
}

#[tokio::test]
async fn a_body_key_orchestrator_does_not_see_the_header() {
    let orchestrator = ScriptedOrchestrator::start().await;
    orchestrator.rules(Rules { keys: KeyRule::BodyOnly, input: InputRule::Any, ..Rules::default() });
    for _ in 0..2 {
        let request = create_request(&orchestrator, "k1").body(json!({"input": {}}).to_string());
        assert_eq!(request.send().await.expect("an answer").status(), 201);
    }
    assert!(orchestrator.truth().runs_created().iter().all(|run| run.key.is_none()));
    assert_eq!(create(&orchestrator, "k1").await, create(&orchestrator, "k1").await);
}

#[tokio::test]
async fn agentos_refuses_odd_inputs_and_too_many_new_keys_but_not_replays() {
    let orchestrator = ScriptedOrchestrator::agentos().await;
    let text = create_request(&orchestrator, "k1").body(json!({"input": "hello"}).to_string());
    assert_eq!(text.send().await.expect("an answer").status(), 400);
    for number in 0..10 {
        create(&orchestrator, &format!("k{number}")).await;
    }
    let eleventh = create_request(&orchestrator, "k11").send().await.expect("an answer");
    assert_eq!(eleventh.status(), 429);
    assert!(eleventh.headers().get("retry-after").is_none());
    assert_eq!(create_request(&orchestrator, "k1").send().await.expect("an answer").status(), 200);
    let stranger = create_request(&orchestrator, "k12").header("x-tenant-id", "tnt_other");
    assert_eq!(stranger.send().await.expect("an answer").status(), 403);
    let run_id = orchestrator.first_run().await;
    assert_eq!(orchestrator.events(&run_id)[0].event_type, "agentos.run.created");
}

#[tokio::test]
async fn a_quota_slot_is_free_once_the_finished_run_was_asked_for() {
    let orchestrator = ScriptedOrchestrator::start().await;
    orchestrator.rules(Rules { concurrent_runs: Some(1), ..Rules::default() });
    let run_id = create(&orchestrator, "k1").await;
    assert_eq!(create_request(&orchestrator, "k2").send().await.expect("an answer").status(), 429);
    orchestrator.finish_silently(&run_id, RunStatus::Failed);
    create(&orchestrator, "k2").await;
}
