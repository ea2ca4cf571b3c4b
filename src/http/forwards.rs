//! `POST /v1/federation/runs:forward` and `GET /v1/federation/forwards/{forward_id}`.

use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::header::HeaderMap;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::error::ApiError;
use super::extract::{Context, Known, idempotency_key, read_body, require_json, via};
use super::reply;
use super::state::State;
use crate::clock::rfc3339;
use crate::domain::forward::ForwardState;
use crate::domain::id::{ForwardId, TenantId};
use crate::domain::run::RunStatus;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::forward_request::ForwardRequest;
use crate::protocol::problem::Problem;
use crate::protocol::{headers, json_fields, trace};
use crate::services::admission::Action;
use crate::services::forward::{AttemptRecord, ForwardCommand, ForwardRecord, Target};

/// Creates a run at a peer.
pub(super) async fn create(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    require_json(&sent)?;
    let bytes = read_body((&known, &sent), body, state.options.max_body, state.options.body_timeout).await?;
    let request = ForwardRequest::parse(&json_fields::normalised(&bytes)?)?;
    let claimed = request.claimed_tenant.as_deref();
    let caller = state.admission.admit(
        &known,
        claimed,
        Action::CreateRun,
        Some(request.run.agent.as_str()),
        &context.correlation_id,
    )?;
    let tenant_said = caller.tenant_said.clone();
    let traces = [context.traceparent.as_deref(), request.traceparent.as_deref()];
    let command = ForwardCommand {
        caller,
        meaning: request.meaning(),
        key: idempotency_key(&sent, request.run.idempotency_key.clone())?,
        agent: request.run.agent,
        target: Target::Selected(request.selector),
        operation: "runs:forward",
        respond_async: prefers_async(&sent),
        correlation_id: context.correlation_id.to_string(),
        traceparent: trace::continue_or_start(traces.into_iter().flatten(), &state.entropy),
        via: via(&sent),
    };
    let forwarded = state.forwarder.create(command).await?;
    let record = &forwarded.record;
    if record.state != ForwardState::Forwarded {
        return Ok(accepted(&context, &tenant_said, record));
    }
    let response =
        reply::json(StatusCode::OK, &context, json!({ "forwarded": result(&tenant_said, record) }));
    Ok(if forwarded.replayed { replayed(response) } else { response })
}

fn prefers_async(sent: &HeaderMap) -> bool {
    sent.get_all("prefer").iter().any(|value| value.to_str().is_ok_and(headers::prefers_async))
}

/// Marks an answer that an earlier request with the same key made.
pub(super) fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert(headers::IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    response
}

fn result(tenant: &TenantId, record: &ForwardRecord) -> Value {
    json!({
        "tenant_id": tenant,
        "remote_stack_id": record.peer,
        "remote_run_id": record.remote_run_id,
        "remote_events_url": record.remote_events_url,
        "status": record.run_status.unwrap_or(RunStatus::Queued).as_str(),
        "run_id": record.run_id,
        "forward_id": record.forward_id,
    })
}

fn accepted(context: &Context, tenant: &TenantId, record: &ForwardRecord) -> Response {
    let mut response = reply::json(StatusCode::ACCEPTED, context, json!({ "forward": view(tenant, record) }));
    response.headers_mut().insert("preference-applied", HeaderValue::from_static("respond-async"));
    let location = format!("/v1/federation/forwards/{}", record.forward_id);
    reply::with_header(response, "location", &location)
}

/// Shows a forward: its state, its attempts, its run when it is known.
pub(super) async fn show(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    Path(forward_id): Path<String>,
) -> Result<Response, ApiError> {
    let caller = state.admission.admit(&known, None, Action::ReadRuns, None, &context.correlation_id)?;
    let id = ForwardId::parse(&forward_id).map_err(|_| {
        Problem::new(ErrorCode::NotFound, "there is no such forward").with("field", "forward_id")
    })?;
    let record = state.forwarder.find(&caller, &id).await?;
    Ok(reply::json(StatusCode::OK, &context, json!({ "forward": view(&caller.tenant_said, &record) })))
}

/// A forward as its caller may know it, under the name the caller has for the tenant.
fn view(tenant: &TenantId, record: &ForwardRecord) -> Value {
    let outcome = match record.state {
        ForwardState::Forwarded => Some("forwarded"),
        ForwardState::Refused => Some(record.outcome.as_deref().unwrap_or("refused")),
        _ => record.outcome.as_deref(),
    };
    // While an attempt is under way its end decides when the next one is.
    let waits = matches!(record.state, ForwardState::Reserved | ForwardState::Unknown);
    json!({
        "forward_id": record.forward_id,
        "tenant_id": tenant,
        "principal_id": record.principal,
        "stack_id": record.peer,
        "agent_id": record.agent,
        "state": record.state.as_str(),
        "outcome": outcome,
        "created_at": rfc3339(record.created_at_ms),
        "updated_at": rfc3339(record.updated_at_ms),
        "deadline_at": rfc3339(record.deadline_at_ms),
        "next_attempt_at": record.next_attempt_at_ms.filter(|_| waits).map(rfc3339),
        "attempts": record.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "attempts_total": record.attempts_total,
        "run_id": record.run_id,
        "remote_run_id": record.remote_run_id,
        "remote_events_url": record.remote_events_url,
        "error": record.error.as_deref().and_then(stored_error),
    })
}

fn attempt(attempt: &AttemptRecord) -> Value {
    json!({
        "attempt": attempt.attempt,
        "started_at": rfc3339(attempt.started_at_ms),
        "finished_at": rfc3339(attempt.finished_at_ms),
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "upstream_status": attempt.upstream_status,
    })
}

/// The error the caller heard, in the shape of every error.
fn stored_error(text: &str) -> Option<Value> {
    let problem: Problem = serde_json::from_str(text).ok()?;
    Some(problem.to_json("")["error"].clone())
}
