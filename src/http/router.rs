//! One list of routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::MatchedPath;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use super::error::ApiError;
use super::extract::{method_not_allowed, other_method};
use super::state::{Services, State};
use super::streams::StreamSlots;
use super::{events, forwards, ingest, layers, openapi, ops, orchestrator, peers, runs};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;

/// Every route of the API, as `METHOD path`, for the contract test.
pub const ROUTES: &[&str] = &[
    "GET /v1/federation/health",
    "GET /v1/federation/peer",
    "GET /v1/federation/peer/capabilities",
    "GET /v1/peer/info",
    "GET /v1/peer/capabilities",
    "GET /v1/federation/peers",
    "GET /v1/federation/peers/{peer_id}",
    "POST /v1/federation/runs:forward",
    "GET /v1/federation/forwards/{forward_id}",
    "GET /v1/federation/runs",
    "GET /v1/federation/runs/{run_id}",
    "POST /v1/federation/runs/{run_id}:cancel",
    "POST /v1/federation/runs/{run_id}/cancel",
    "GET /v1/federation/runs/{run_id}/events",
    "POST /v1/federation/events:ingest",
    "POST /v1/agents/{agent_id}/runs",
    "GET /v1/runs/{run_id}",
    "POST /v1/runs/{run_id}:cancel",
    "POST /v1/runs/{run_id}/cancel",
    "GET /v1/runs/{run_id}/events",
    "GET /v1/health",
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /openapi.yaml",
];

/// The API. Metrics are left to the admin listener when there is one.
pub fn router(services: Arc<Services>) -> Router {
    let options = &services.options;
    let with_metrics = options.admin_listen.is_none();
    let routes = Router::new()
        .merge(federation())
        .merge(orchestrator_face())
        .merge(operations(with_metrics))
        .route("/openapi.json", get(openapi::serve_json))
        .route("/openapi.yaml", get(openapi::serve_yaml));
    layered(routes, services)
}

/// What the admin listener serves.
pub fn admin_router(services: Arc<Services>) -> Router {
    layered(operations(true), services)
}

/// For clients, and for the gateways of other places.
fn federation() -> Router<State> {
    Router::new()
        .route("/v1/federation/health", get(ops::federation_health))
        .route("/v1/federation/peer", get(peers::info))
        .route("/v1/federation/peer/capabilities", get(peers::capabilities))
        .route("/v1/peer/info", get(peers::info))
        .route("/v1/peer/capabilities", get(peers::capabilities))
        .route("/v1/federation/peers", get(peers::list))
        .route("/v1/federation/peers/{peer_id}", get(peers::show))
        .route("/v1/federation/runs:forward", post(forwards::create))
        .route("/v1/federation/forwards/{forward_id}", get(forwards::show))
        .route("/v1/federation/runs", get(runs::list))
        .route("/v1/federation/runs/{run_id}", run_segment(get(runs::show), post(runs::cancel_by_verb)))
        .route("/v1/federation/runs/{run_id}/cancel", post(runs::cancel))
        .route("/v1/federation/runs/{run_id}/events", get(events::follow))
        .route("/v1/federation/events:ingest", post(ingest::push))
}

/// For AgentOS clients, and for gateways that forward to this one.
fn orchestrator_face() -> Router<State> {
    Router::new()
        .route("/v1/health", get(ops::orchestrator_health))
        .route("/v1/agents/{agent_id}/runs", post(orchestrator::create))
        .route("/v1/runs/{run_id}", run_segment(get(orchestrator::show), post(orchestrator::cancel_by_verb)))
        .route("/v1/runs/{run_id}/cancel", post(orchestrator::cancel))
        .route("/v1/runs/{run_id}/events", get(events::follow))
}

/// For operators and their machines.
fn operations(with_metrics: bool) -> Router<State> {
    let routes = Router::new().route("/livez", get(ops::livez)).route("/readyz", get(ops::readyz));
    if with_metrics { routes.route("/metrics", get(ops::metrics)) } else { routes }
}

/// The router cannot tell `{run_id}` from `{run_id}:cancel`; the handlers can.
fn run_segment(show: MethodRouter<State>, cancel: MethodRouter<State>) -> MethodRouter<State> {
    show.merge(cancel).fallback(|uri: Uri| async move { other_method(&uri) })
}

fn layered(routes: Router<State>, services: Arc<Services>) -> Router {
    let options = &services.options;
    let slots = StreamSlots::new(
        options.max_streams,
        options.max_streams_per_principal,
        Arc::clone(&services.metrics),
    );
    let cors = layers::cors(&options.cors_origins);
    let state = State { services, slots };
    let mut router = routes
        .fallback(not_found)
        .method_not_allowed_fallback(refuse_method)
        .with_state(state.clone())
        .layer(CatchPanicLayer::custom(layers::panicked));
    if let Some(cors) = cors {
        router = router.layer(cors);
    }
    router.layer(from_fn_with_state(state, layers::answer))
}

/// The framework names the methods only after the last layer has written the body: the list does it here.
async fn refuse_method(path: MatchedPath) -> ApiError {
    let mut allowed = Vec::new();
    for (method, _) in
        ROUTES.iter().filter_map(|route| route.split_once(' ')).filter(|(_, at)| *at == path.as_str())
    {
        allowed.push(method);
        if method == "GET" {
            allowed.push("HEAD");
        }
    }
    method_not_allowed(&allowed).into()
}

async fn not_found() -> Response {
    let message = "there is nothing at this path; /openapi.json lists what there is";
    ApiError(Problem::new(ErrorCode::NotFound, message)).into_response()
}
