//! POST /v1/agents/{agent_id}/runs: the run-create, with its faults.
//!
//! Invariant: a fault says on which side of the commit the answer is lost; the commit itself is one change of
//! the state, so a key never makes two runs while keys count.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    event::mint,
    http::{Answer, correlation_id},
    reply::Reply,
    runs::{Run, RunStatus},
    script::{AutoEvents, Birth, CreateFault, InputRule, KeyRule},
    server::tenant_of,
    state::{Shared, State},
    truth::{CreateOutcome, CreateSeen, RequestSeen, RunCreated},
};

/// Answers a run-create request, or does not.
pub(super) async fn answer_create(shared: &Arc<Shared>, request: &Arc<RequestSeen>, agent_id: &str) -> Reply {
    let (number, fault, gate) = shared.change(|state| state.begin_create(request, agent_id));
    if let Some(reply) = before_commit(&fault, &gate, request).await {
        return reply;
    }
    match shared.change(|state| state.commit_create(number, &fault)) {
        Ok(commit) => {
            if let Some(auto) = commit.auto {
                shared.executor.spawn(emit_by_itself(Arc::clone(shared), commit.run_id.clone(), auto));
            }
            after_commit(&fault, &gate, commit.to_answer(&fault, request), request).await
        }
        Err(refusal) => Reply::Whole(refusal),
    }
}

/// A run that now exists, or already did.
struct Commit {
    status: u16,
    run_id: String,
    run: Value,
    /// The events it is yet to emit by itself.
    auto: Option<AutoEvents>,
}

impl State {
    /// Records the request; takes its fault, and the gate that may hold it.
    fn begin_create(
        &mut self,
        request: &Arc<RequestSeen>,
        agent_id: &str,
    ) -> (usize, CreateFault, CancellationToken) {
        let outcome = CreateOutcome::NotCommitted;
        let seen = CreateSeen { request: Arc::clone(request), agent_id: agent_id.to_owned(), outcome };
        self.truth.creates.push(seen);
        (self.truth.creates.len() - 1, self.script.creates.take(), self.gate.clone())
    }

    /// Makes the run, or finds the one its key names, or refuses by the rules.
    fn commit_create(&mut self, number: usize, fault: &CreateFault) -> Result<Commit, Answer> {
        let CreateSeen { request, agent_id, .. } = self.truth.creates[number].clone();
        let tenant_id = tenant_of(&request);
        if self.script.rules.input == InputRule::Object && !request.body["input"].is_object() {
            return Err(Answer::refusal(400, &request));
        }
        let key = self.key_of(&request).map(str::to_owned);
        let known = key.as_ref().and_then(|key| self.book.find_by_key(tenant_id, key));
        if let Some(run) = known {
            let commit = Commit { status: 200, run_id: run.run_id.clone(), run: run.to_json(), auto: None };
            self.truth.creates[number].outcome = CreateOutcome::Replayed(commit.run_id.clone());
            return Ok(commit);
        }
        if self.quota_is_spent() {
            return Err(Answer::refusal(429, &request));
        }
        let run_id = match fault {
            CreateFault::RunId(run_id) => run_id.clone(),
            _ => mint("run"),
        };
        let mut run = Run::new(run_id.clone(), tenant_id, &agent_id, request.header("traceparent"));
        if self.script.rules.birth == Birth::CreatedEvent {
            run.give_birth();
        }
        let status_then = run.to_json();
        let auto = self.script.auto.filter(|auto| !run.emit_at_once(*auto));
        self.truth.creates[number].outcome = CreateOutcome::Committed(run_id.clone());
        self.truth.runs.push(RunCreated {
            run_id: run_id.clone(),
            tenant_id: tenant_id.to_owned(),
            agent_id,
            key: key.clone().or_else(|| self.ignored_key_of(&request)),
        });
        self.book.add(run, key.as_deref());
        Ok(Commit { status: 201, run_id, run: status_then, auto })
    }

    /// The key that counts, by the rule in force.
    fn key_of<'a>(&self, request: &'a RequestSeen) -> Option<&'a str> {
        let body = request.body["idempotency_key"].as_str();
        match self.script.rules.keys {
            KeyRule::HeaderOrBody => header_key(request).or(body),
            KeyRule::BodyOnly => body,
            KeyRule::Ignored => None,
        }
    }

    /// Where keys are ignored, the truth log still says which one a run's create bore.
    fn ignored_key_of(&self, request: &RequestSeen) -> Option<String> {
        let ignored = self.script.rules.keys == KeyRule::Ignored;
        let key = header_key(request).or(request.body["idempotency_key"].as_str());
        key.filter(|_| ignored).map(str::to_owned)
    }

    fn quota_is_spent(&self) -> bool {
        let rules = &self.script.rules;
        let in_a_second = self.book.made_within(Duration::from_secs(1));
        rules.creates_per_second.is_some_and(|limit| in_a_second >= limit)
            || rules.concurrent_runs.is_some_and(|limit| self.book.unfinished() >= limit)
    }
}

impl Commit {
    fn to_answer(&self, fault: &CreateFault, request: &RequestSeen) -> Answer {
        let mut run = self.run.clone();
        match fault {
            CreateFault::EventsUrl(url) => run["events_url"] = json!(url),
            CreateFault::MissingRunId => {
                run.as_object_mut().expect("a run is an object").remove("run_id");
            }
            _ => {}
        }
        let correlation_id = correlation_id(request);
        Answer::json(self.status, &json!({"run": run, "correlation_id": correlation_id}))
            .with_header("x-request-id", &correlation_id)
    }
}

/// The reply of a fault that prevents the commit.
async fn before_commit(
    fault: &CreateFault,
    gate: &CancellationToken,
    request: &RequestSeen,
) -> Option<Reply> {
    match fault {
        CreateFault::Delay(delay) => {
            tokio::time::sleep(*delay).await;
            None
        }
        CreateFault::Hold => {
            gate.cancelled().await;
            None
        }
        CreateFault::DropRequest => Some(Reply::Drop),
        CreateFault::HangForever => Some(Reply::Hang),
        CreateFault::Redirect(location) => Some(Reply::redirect(location)),
        CreateFault::Status { code, retry_after, body } => {
            let refusal = Answer::refusal(*code, request);
            let answer = body.as_ref().map_or(refusal, |body| Answer::json(*code, body));
            Some(Reply::Whole(match retry_after {
                Some(value) => answer.with_header("retry-after", value),
                None => answer,
            }))
        }
        CreateFault::Ok
        | CreateFault::DelayAnswer(_)
        | CreateFault::HoldAnswer
        | CreateFault::DropAnswer
        | CreateFault::CutAnswerAt(_)
        | CreateFault::StatusAfterCommit(_)
        | CreateFault::Garbage(_)
        | CreateFault::HangAfterCommit
        | CreateFault::MissingRunId
        | CreateFault::RunId(_)
        | CreateFault::EventsUrl(_) => None,
    }
}

/// The reply once the run exists; `answer` is the right one.
async fn after_commit(
    fault: &CreateFault,
    gate: &CancellationToken,
    answer: Answer,
    request: &RequestSeen,
) -> Reply {
    match fault {
        CreateFault::DelayAnswer(delay) => {
            tokio::time::sleep(*delay).await;
            Reply::Whole(answer)
        }
        CreateFault::HoldAnswer => {
            gate.cancelled().await;
            Reply::Whole(answer)
        }
        CreateFault::DropAnswer => Reply::Drop,
        CreateFault::HangAfterCommit => Reply::Hang,
        CreateFault::CutAnswerAt(bytes) => {
            let mut kept = answer.to_bytes();
            kept.truncate(*bytes);
            Reply::Cut(kept)
        }
        CreateFault::StatusAfterCommit(code) => Reply::refusal(*code, request),
        CreateFault::Garbage(garbage) => Reply::garbage(garbage, answer),
        CreateFault::Ok
        | CreateFault::Delay(_)
        | CreateFault::Hold
        | CreateFault::DropRequest
        | CreateFault::Status { .. }
        | CreateFault::Redirect(_)
        | CreateFault::HangForever
        | CreateFault::MissingRunId
        | CreateFault::RunId(_)
        | CreateFault::EventsUrl(_) => Reply::Whole(answer),
    }
}

/// Emits the scripted events with their interval, then completes the run, unless it ended or went before.
async fn emit_by_itself(shared: Arc<Shared>, run_id: String, auto: AutoEvents) {
    for step in 0..=auto.count {
        tokio::select! {
            () = shared.life.cancelled() => return,
            () = tokio::time::sleep(auto.interval) => {}
        }
        let goes_on = shared.change(|state| {
            let Some(run) = state.book.find_mut(&run_id).filter(|run| !run.status.is_terminal()) else {
                return false;
            };
            if step == auto.count {
                run.finish(RunStatus::Completed);
            } else {
                run.emit_step(step);
            }
            true
        });
        if !goes_on {
            return;
        }
    }
}

/// The key of the header, without the quotes of a structured-field string.
fn header_key(request: &RequestSeen) -> Option<&str> {
    request.header("idempotency-key").map(|key| key.trim_matches('"'))
}
