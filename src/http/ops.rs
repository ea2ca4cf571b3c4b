//! What operators and their machines ask: alive, ready, well, how much.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::error::ApiError;
use super::extract::{Context, Operator};
use super::reply;
use super::state::State;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use std::time::Duration;

/// The process answers. Says nothing about its disk or peers: a restart would mend neither.
pub(super) async fn livez(context: Context) -> Response {
    reply::json(StatusCode::OK, &context, json!({ "status": "ok" }))
}

/// New work is welcome: the log can be written, and the gateway does not drain. Peers do not count: a
/// gateway whose peers are down still serves what it holds.
pub(super) async fn readyz(Shared(state): Shared<State>, context: Context) -> Result<Response, ApiError> {
    ready(&state).await?;
    let checks = json!([
        { "name": "event_log", "ok": true, "reason": null },
        { "name": "draining", "ok": true, "reason": null },
    ]);
    Ok(reply::json(StatusCode::OK, &context, json!({ "status": "ready", "checks": checks })))
}

async fn ready(state: &State) -> Result<(), Problem> {
    let draining = !state.tasks.takes_work();
    let written = state.sweep.store.check_writable().await;
    let log_reason = written.as_ref().err().map(ToString::to_string);
    if log_reason.is_none() && !draining {
        return Ok(());
    }
    let (code, message) = match &log_reason {
        Some(reason) => (ErrorCode::Unavailable, format!("the event log cannot be written: {reason}")),
        None => (ErrorCode::Draining, "the gateway takes no new work".to_owned()),
    };
    let checks = json!([
        { "name": "event_log", "ok": log_reason.is_none(), "reason": log_reason },
        { "name": "draining", "ok": !draining, "reason": draining.then_some("new work is held off") },
    ]);
    Err(Problem::new(code, message).with("checks", checks).retry_after(Duration::from_secs(5)))
}

/// Health of the federation API, as AgentOS asks for it. No credential.
pub(super) async fn federation_health(
    Shared(state): Shared<State>,
    context: Context,
) -> Result<Response, ApiError> {
    health(&state, &context, "federation").await
}

/// Health of the orchestrator face, as AgentOS asks for it. No credential.
pub(super) async fn orchestrator_health(
    Shared(state): Shared<State>,
    context: Context,
) -> Result<Response, ApiError> {
    health(&state, &context, "agent-orchestrator").await
}

async fn health(state: &State, context: &Context, service: &str) -> Result<Response, ApiError> {
    ready(state).await?;
    let body = json!({ "status": "ok", "service": service, "version": env!("CARGO_PKG_VERSION") });
    Ok(reply::json(StatusCode::OK, context, body))
}

/// The same, for operators only.
pub(super) async fn metrics_for_operators(
    shared: Shared<State>,
    _operator: Operator,
) -> Result<Response, ApiError> {
    Ok(metrics(shared).await)
}

/// Every metric, in the OpenMetrics text format.
pub(super) async fn metrics(Shared(state): Shared<State>) -> Response {
    state.sweep.measure();
    state.metrics.draining.set(i64::from(!state.tasks.takes_work()));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], state.metrics.page()).into_response()
}
