//! One list of routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, State as Shared};
use axum::http::{Extensions, Uri};
use axum::routing::{MethodRouter, delete, get, post, put};
use tower::ServiceBuilder;
use tower::layer::layer_fn;
use tower_http::catch_panic::CatchPanicLayer;

use super::authenticate::Authenticating;
use super::error::ApiError;
use super::extract::{method_not_allowed, other_method};
use super::layers::Answering;
use super::state::{Services, State};
use super::{
    events, forwards, ingest, introductions, layers, monitoring, openapi, operators, ops, orchestrator,
    peers, runs,
};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::services::options::Profile;

/// Every route of the API, as `METHOD path`, for the contract test.
pub const ROUTES: &[&str] = &[
    "GET /v1/federation/health",
    "GET /v1/federation/peer",
    "GET /v1/federation/peer/capabilities",
    "GET /v1/peer/info",
    "GET /v1/peer/capabilities",
    "GET /v1/federation/peers",
    "POST /v1/federation/peers",
    "POST /v1/federation/peers:introduce",
    "GET /v1/federation/peers/{peer_id}",
    "PUT /v1/federation/peers/{peer_id}",
    "DELETE /v1/federation/peers/{peer_id}",
    "POST /v1/federation/peers/{peer_id}:revoke",
    "POST /v1/federation/peers/{peer_id}:drain",
    "POST /v1/federation/peers/{peer_id}:reinstate",
    "POST /v1/federation/peers/{peer_id}:verify",
    "GET /v1/federation/policy",
    "POST /v1/federation/policy:evaluate",
    "GET /v1/federation/tokens",
    "POST /v1/federation/tokens",
    "DELETE /v1/federation/tokens/{token_id}",
    "GET /v1/federation/keys",
    "POST /v1/federation/keys:rotate",
    "POST /v1/federation/keys:cancel-rotation",
    "POST /v1/federation/gateway:drain",
    "POST /v1/federation/gateway:resume",
    "GET /v1/federation/audit",
    "GET /v1/federation/topology",
    "GET /v1/federation/links",
    "GET /v1/federation/links/{peer_id}",
    "GET /v1/federation/deliveries",
    "GET /v1/federation/alerts",
    "POST /v1/federation/stream-tickets",
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

/// The API. Metrics and what operators do are left to the admin listener when there is one.
pub fn router(services: Arc<Services>) -> Router {
    let is_whole = services.options.admin_listen.is_none();
    let mut known = federation().merge(orchestrator_face());
    let mut open = open_to_all().merge(introductions());
    if is_whole {
        known = known.merge(operators());
        let is_open = services.admission.profile() == Profile::Dev;
        if is_open { open = open.merge(metrics()) } else { known = known.merge(metrics_for_operators()) }
    }
    layered(known, open, services)
}

/// What peers may use at their own door.
pub fn peer_router(services: Arc<Services>) -> Router {
    layered(federation().merge(orchestrator_face()), open_to_all(), services)
}

/// What the admin listener serves.
pub fn admin_router(services: Arc<Services>) -> Router {
    layered(operators().merge(peers_seen()), open_to_all().merge(metrics()), services)
}

/// What the control socket serves: whoever may use it is an operator.
pub fn control_router(services: Arc<Services>) -> Router {
    layered(operators().merge(peers_seen()), open_to_all().merge(metrics()), services)
}

/// For clients, and for the gateways of other places.
fn federation() -> Router<State> {
    peers_seen()
        .route("/v1/federation/peer", get(peers::info))
        .route("/v1/federation/peer/capabilities", get(peers::capabilities))
        .route("/v1/peer/info", get(peers::info))
        .route("/v1/peer/capabilities", get(peers::capabilities))
        .route("/v1/federation/stream-tickets", post(operators::create_ticket))
        .route("/v1/federation/runs:forward", post(forwards::create))
        .route("/v1/federation/forwards/{forward_id}", get(forwards::show))
        .route("/v1/federation/runs", get(runs::list))
        .route("/v1/federation/runs/{run_id}", run_segment(get(runs::show), post(runs::cancel_by_verb)))
        .route("/v1/federation/runs/{run_id}/cancel", post(runs::cancel))
        .route("/v1/federation/runs/{run_id}/events", get(events::follow))
        .route("/v1/federation/events:ingest", post(ingest::push))
}

/// The peers, to look at.
fn peers_seen() -> Router<State> {
    Router::new()
        .route("/v1/federation/peers", get(peers::list))
        .route("/v1/federation/peers/{peer_id}", get(peers::show).fallback(peers::refuse_method))
}

/// For operators.
fn operators() -> Router<State> {
    Router::new()
        .route("/v1/federation/peers", post(peers::enrol))
        .route(
            "/v1/federation/peers/{peer_id}",
            put(peers::update).delete(peers::remove).post(peers::by_verb),
        )
        .route("/v1/federation/policy", get(operators::policy))
        .route("/v1/federation/policy:evaluate", post(operators::evaluate))
        .route("/v1/federation/tokens", get(operators::list_tokens).post(operators::create_token))
        .route("/v1/federation/tokens/{token_id}", delete(operators::revoke_token))
        .route("/v1/federation/keys", get(operators::list_keys))
        .route("/v1/federation/keys:rotate", post(operators::rotate_key))
        .route("/v1/federation/keys:cancel-rotation", post(operators::cancel_rotation))
        .route("/v1/federation/gateway:drain", post(operators::drain))
        .route("/v1/federation/gateway:resume", post(operators::resume))
        .route("/v1/federation/audit", get(operators::list_audit))
        .route("/v1/federation/topology", get(monitoring::topology))
        .route("/v1/federation/links", get(monitoring::list_links))
        .route("/v1/federation/links/{peer_id}", get(monitoring::show_link))
        .route("/v1/federation/deliveries", get(monitoring::list_deliveries))
        .route("/v1/federation/alerts", get(monitoring::list_alerts))
}

/// For AgentOS clients, and for gateways that forward to this one.
fn orchestrator_face() -> Router<State> {
    Router::new()
        .route("/v1/agents/{agent_id}/runs", post(orchestrator::create))
        .route("/v1/runs/{run_id}", run_segment(get(orchestrator::show), post(orchestrator::cancel_by_verb)))
        .route("/v1/runs/{run_id}/cancel", post(orchestrator::cancel))
        .route("/v1/runs/{run_id}/events", get(events::follow))
}

/// Without a credential: alive, ready, well, and what there is.
fn open_to_all() -> Router<State> {
    Router::new()
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/v1/federation/health", get(ops::federation_health))
        .route("/v1/health", get(ops::orchestrator_health))
        .route("/openapi.json", get(openapi::serve_json))
        .route("/openapi.yaml", get(openapi::serve_yaml))
}

/// For hubs: what they show stands in the body.
fn introductions() -> Router<State> {
    Router::new().route("/v1/federation/peers:introduce", post(introductions::introduce))
}

fn metrics() -> Router<State> {
    Router::new().route("/metrics", get(ops::metrics))
}

/// On a listener that strangers reach, metrics are for operators.
fn metrics_for_operators() -> Router<State> {
    Router::new().route("/metrics", get(ops::metrics_for_operators))
}

/// The router cannot tell `{run_id}` from `{run_id}:cancel`; the handlers can.
fn run_segment(show: MethodRouter<State>, cancel: MethodRouter<State>) -> MethodRouter<State> {
    show.merge(cancel).fallback(|uri: Uri| async move { other_method(&uri) })
}

/// `known` routes have a known caller; `open` ones have any.
fn layered(known: Router<State>, open: Router<State>, services: Arc<Services>) -> Router {
    let cors = layers::cors(&services.options.cors_origins);
    let state = State { services };
    let (asks, answers) = (state.clone(), state.clone());
    // One layer to the router, which boxes what each of its layers answers.
    let layers = ServiceBuilder::new()
        .layer_fn(move |inner| Answering { state: answers.clone(), inner })
        .option_layer(cors)
        .layer(CatchPanicLayer::custom(layers::panicked));
    known
        .route_layer(layer_fn(move |inner| Authenticating { state: asks.clone(), inner }))
        .merge(open)
        .fallback(not_found)
        .method_not_allowed_fallback(refuse_method)
        .with_state(state)
        .layer(layers)
}

/// The framework names the methods only after the last layer has written the body: the list does it here.
async fn refuse_method(Shared(state): Shared<State>, path: MatchedPath, extensions: Extensions) -> ApiError {
    let is_whole = peers::serves_operators(&state, &extensions);
    let is_served = |method: &str| is_whole || method == "GET" || path.as_str() != "/v1/federation/peers";
    let mut allowed = Vec::new();
    for (method, at) in ROUTES.iter().filter_map(|route| route.split_once(' ')) {
        if at != path.as_str() || !is_served(method) {
            continue;
        }
        allowed.push(method);
        if method == "GET" {
            allowed.push("HEAD");
        }
    }
    method_not_allowed(&allowed).into()
}

async fn not_found() -> ApiError {
    nothing_here().into()
}

/// The refusal of a path that leads nowhere.
pub(super) fn nothing_here() -> Problem {
    let message = "there is nothing at this path; /openapi.json lists what there is";
    Problem::new(ErrorCode::NotFound, message)
}
