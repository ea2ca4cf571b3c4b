//! Runs as this gateway knows them: list, show, cancel.

use axum::extract::{Path, State as Shared};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use super::error::ApiError;
use super::extract::{Context, Known, Named, Query, ToCancel};
use super::reply;
use super::state::State;
use crate::clock::rfc3339;
use crate::domain::limits;
use crate::domain::run::RunStatus;
use crate::services::admission::Action;
use crate::services::identity::Caller;
use crate::services::runs::RunView;

/// Lists a tenant's runs, newest first.
pub(super) async fn list(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    uri: Uri,
) -> Result<Response, ApiError> {
    let caller = state.admission.admit(&known, None, Action::ReadRuns, None, &context.correlation_id)?;
    let query = Query::of(&uri);
    let limit = query.limit(limits::LIST_PAGE_DEFAULT, limits::LIST_PAGE)?;
    let statuses = ["queued", "running", "completed", "failed", "canceled", "lost"];
    let words = statuses.map(|name| (name, RunStatus::find(name)));
    let status = query.one_of("status", None, &words)?;
    let page =
        state.runs.list(&caller, status, (query.find("cursor")?, limit), &context.correlation_id).await?;
    let items: Vec<Value> = page.runs.iter().map(|run| view(&state, &caller, run)).collect();
    let limit = limit.to_string();
    let asked = [("limit", Some(limit.as_str())), ("status", status.map(RunStatus::as_str))];
    Ok(reply::page(&context, "/v1/federation/runs", &asked, items, page.next_cursor))
}

/// Shows one run.
pub(super) async fn show(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    Named(run_id): Named,
) -> Result<Response, ApiError> {
    let caller = state.admission.admit(&known, None, Action::ReadRuns, None, &context.correlation_id)?;
    let record = state.runs.find(&caller, &run_id).await?;
    let run = state.runs.view(record).await?;
    Ok(reply::json(StatusCode::OK, &context, json!({ "run": view(&state, &caller, &run) })))
}

/// Asks the home to cancel a run.
pub(super) async fn cancel(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    Path(run_id): Path<String>,
) -> Result<Response, ApiError> {
    let caller = state.admission.admit(&known, None, Action::CancelRun, None, &context.correlation_id)?;
    let record = state.runs.find(&caller, &run_id).await?;
    let home = state.runs.cancel(&caller, &record, &context.correlation_id).await?;
    let run = state.runs.view(record).await?;
    let mut shown = view(&state, &caller, &run);
    // The home's word; the terminal event follows in the run's own stream.
    shown["status"] = Value::from(home.status.as_str());
    Ok(reply::json(StatusCode::OK, &context, json!({ "run": shown })))
}

/// The same, written `POST …/{run_id}:cancel`.
pub(super) async fn cancel_by_verb(
    shared: Shared<State>,
    context: Context,
    known: Known,
    ToCancel(run_id): ToCancel,
) -> Result<Response, ApiError> {
    cancel(shared, context, known, Path(run_id)).await
}

fn view(state: &State, caller: &Caller, run: &RunView) -> Value {
    let (record, stream) = (&run.record, &run.state);
    let gaps: Vec<Value> = stream
        .holes
        .iter()
        .map(|hole| {
            json!({
                "from_sequence": hole.from,
                "to_sequence": hole.to,
                "reason": hole.reason.map(|reason| reason.as_str()),
            })
        })
        .collect();
    json!({
        "run_id": record.key.run,
        "tenant_id": caller.tenant_said,
        "agent_id": record.agent,
        "status": stream.status.as_str(),
        "home": state.follow.home_of(record),
        "remote_run_id": record.home.as_ref().map(|_| &record.remote_run_id),
        "remote_stack_id": record.home,
        "forward_id": record.forward_id,
        "events_url": format!("/v1/federation/runs/{}/events", segment(record.key.run.as_str())),
        "created_at": rfc3339(record.created_at_ms),
        "updated_at": rfc3339(record.updated_at_ms),
        "finished_at": record.finished_at_ms.map(rfc3339),
        "oldest_sequence": stream.oldest,
        "high_water": stream.high_water,
        "last_sequence": stream.last,
        "gaps": gaps,
        "follow": { "state": run.follow.as_str(), "reason": record.lost_reason },
    })
}

/// An id as one segment of a path.
pub(super) fn segment(id: &str) -> String {
    let mut url = url::Url::parse("http://x/").expect("a constant URL parses");
    if let Ok(mut path) = url.path_segments_mut() {
        path.clear().push(id);
    }
    url.path().trim_start_matches('/').to_owned()
}
