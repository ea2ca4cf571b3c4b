//! GET /v1/runs/{run_id} and POST /v1/runs/{run_id}:cancel, with their faults.
//!
//! Invariant: being asked is the only thing that moves an asked status; a cancel takes effect at most once
//! and never on a finished run.

use std::sync::Arc;

use serde_json::json;

use super::{
    http::{Answer, correlation_id},
    reply::Reply,
    runs::{Run, RunStatus},
    script::{PlainFault, StatusRule},
    server::tenant_of,
    state::Shared,
    truth::{RequestSeen, RunRequest},
};

/// Answers a status request, or does not.
pub(super) fn answer_status(shared: &Shared, request: &Arc<RequestSeen>, run_id: &str) -> Reply {
    let fault = shared.change(|state| {
        state.truth.statuses.push(seen(request, run_id));
        state.script.statuses.take()
    });
    answer_with(&fault, request, || {
        shared.change(|state| {
            let rule = state.script.rules.status;
            let Some(run) = state.book.find_for(tenant_of(request), run_id) else {
                return Answer::refusal(404, request);
            };
            run.be_asked(rule);
            run_answer(run, request)
        })
    })
}

/// Answers a cancel request, or does not.
pub(super) fn answer_cancel(shared: &Shared, request: &Arc<RequestSeen>, run_id: &str) -> Reply {
    let fault = shared.change(|state| {
        state.truth.cancels.push(seen(request, run_id));
        state.script.cancels.take()
    });
    answer_with(&fault, request, || {
        shared.change(|state| {
            let rule = state.script.rules.status;
            let Some(run) = state.book.find_for(tenant_of(request), run_id) else {
                return Answer::refusal(404, request);
            };
            if run.status.is_terminal() {
                return Answer::error(409, "invalid_state_transition", request);
            }
            match rule {
                StatusRule::Told => {
                    run.finish(RunStatus::Canceled);
                }
                StatusRule::Asked { .. } => run.settle(RunStatus::Canceled),
            }
            run_answer(run, request)
        })
    })
}

/// Does what was asked, on the side of the answer that the fault says.
fn answer_with(fault: &PlainFault, request: &RequestSeen, act: impl FnOnce() -> Answer) -> Reply {
    match fault {
        PlainFault::Ok => Reply::Whole(act()),
        PlainFault::Status(code) => Reply::refusal(*code, request),
        PlainFault::DropRequest => Reply::Drop,
        PlainFault::DropAnswer => {
            act();
            Reply::Drop
        }
        PlainFault::HangForever => Reply::Hang,
        PlainFault::Garbage(garbage) => Reply::garbage(garbage, act()),
    }
}

fn run_answer(run: &Run, request: &RequestSeen) -> Answer {
    Answer::json(200, &json!({"run": run.to_json(), "correlation_id": correlation_id(request)}))
}

fn seen(request: &Arc<RequestSeen>, run_id: &str) -> RunRequest {
    RunRequest { request: Arc::clone(request), run_id: run_id.to_owned() }
}
