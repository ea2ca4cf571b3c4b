//! The orchestrator face: any AgentOS client, or another gateway, can use this gateway as its orchestrator.
//! The run goes to the peer marked `local`, by the same forward path as every other.

use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::extract::{Context, Known, Named, ToCancel, idempotency_key, read_body, require_json, via};
use super::forwards::replayed;
use super::reply;
use super::runs::segment;
use super::state::State;
use crate::clock::rfc3339;
use crate::domain::id::{AgentId, TenantId};
use crate::domain::run::RunStatus;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::forward_request::RunRequest;
use crate::protocol::problem::Problem;
use crate::protocol::run::HomeRun;
use crate::protocol::{json_fields, trace};
use crate::services::admission::Action;
use crate::services::forward::{ForwardCommand, ForwardRecord, Target};
use crate::services::identity::Caller;
use crate::services::runs::RunRecord;

/// Creates a run at the local orchestrator.
pub(super) async fn create(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    Path(agent_id): Path<String>,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    require_json(&sent)?;
    let agent = AgentId::parse(&agent_id).map_err(|error| {
        Problem::new(ErrorCode::InvalidRequest, format!("`agent_id` {error}")).with("field", "agent_id")
    })?;
    let bytes = read_body((&known, &sent), body, state.options.max_body, state.options.body_timeout).await?;
    let request = RunRequest::parse_create(&json_fields::normalised(&bytes)?, agent)?;
    let caller = state.admission.admit(
        &known,
        None,
        Action::CreateRun,
        Some(request.agent.as_str()),
        &context.correlation_id,
    )?;
    let tenant_said = caller.tenant_said.clone();
    let command = ForwardCommand {
        caller,
        meaning: request.meaning(),
        key: idempotency_key(&sent, request.idempotency_key.clone())?,
        agent: request.agent,
        target: Target::Local,
        operation: "runs:create",
        respond_async: false,
        correlation_id: context.correlation_id.to_string(),
        traceparent: trace::continue_or_start(context.traceparent.as_deref(), &state.entropy),
        via: via(&sent),
    };
    let forwarded = state.forwarder.create(command).await?;
    let run = created(&tenant_said, &forwarded.record);
    let location = format!("/v1/runs/{}", run["run_id"].as_str().map(segment).unwrap_or_default());
    let status = if forwarded.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let response = reply::json(status, &context, json!({ "run": run }));
    let response = reply::with_header(response, "location", &location);
    Ok(if forwarded.replayed { replayed(response) } else { response })
}

/// The run object of a create: what the home answered, under the names it has here.
fn created(tenant: &TenantId, record: &ForwardRecord) -> Value {
    let run_id = record.run_id.as_ref().map_or("", |id| id.as_str());
    let home = record.answer.as_deref().and_then(|text| serde_json::from_slice(text).ok());
    let status = record.run_status.unwrap_or(RunStatus::Queued);
    let names = (tenant.as_str(), record.agent.as_str(), run_id);
    run_object(home, names, status, record.created_at_ms)
}

fn run_object(
    home: Option<Map<String, Value>>,
    (tenant, agent, run_id): (&str, &str, &str),
    status: RunStatus,
    created_at_ms: i64,
) -> Value {
    let mut run = home.unwrap_or_default();
    run.insert("tenant_id".to_owned(), Value::from(tenant));
    run.insert("agent_id".to_owned(), Value::from(agent));
    run.insert("run_id".to_owned(), Value::from(run_id));
    run.insert("status".to_owned(), Value::from(status.as_str()));
    run.insert("events_url".to_owned(), Value::from(format!("/v1/runs/{}/events", segment(run_id))));
    if !run.get("created_at").is_some_and(Value::is_string) {
        run.insert("created_at".to_owned(), Value::from(rfc3339(created_at_ms)));
    }
    for name in ["output", "error"] {
        run.entry(name.to_owned()).or_insert(Value::Null);
    }
    Value::Object(run)
}

/// Shows a run: what its home says of it now, else what is known here.
pub(super) async fn show(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    Named(run_id): Named,
) -> Result<Response, ApiError> {
    let caller = state.admission.admit(&known, None, Action::ReadRuns, None, &context.correlation_id)?;
    let record = state.runs.find(&caller, &run_id).await?;
    if let Some(reason) = &record.lost_reason {
        return Err(Problem::new(ErrorCode::RunLost, reason.clone()).into());
    }
    let home = state.runs.ask_home(&record).await;
    Ok(reply::json(StatusCode::OK, &context, json!({ "run": face(&caller, &record, home.as_ref()) })))
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
    Ok(reply::json(StatusCode::OK, &context, json!({ "run": face(&caller, &record, Some(&home)) })))
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

fn face(caller: &Caller, record: &RunRecord, home: Option<&HomeRun>) -> Value {
    // A run that ended here has ended, whatever its home says later.
    let status = match home {
        Some(home) if !record.status.is_finished() => home.status,
        _ => record.status,
    };
    let agent = record.agent.as_ref().map_or("", |agent| agent.as_str());
    let names = (caller.tenant_said.as_str(), agent, record.key.run.as_str());
    let object = home.and_then(|home| home.value().as_object().cloned());
    run_object(object, names, status, record.created_at_ms)
}
