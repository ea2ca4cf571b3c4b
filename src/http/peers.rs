//! Who this gateway is, what it can do, and the peers it knows.

use std::sync::Arc;

use axum::extract::{Path, State as Shared};
use axum::http::header::HeaderMap;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::error::ApiError;
use super::extract::{Context, Query, credentials};
use super::reply;
use super::state::State;
use crate::clock::{millis, rfc3339};
use crate::domain::id::PeerId;
use crate::domain::limits;
use crate::domain::peer::FEATURES;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::services::admission::Action;
use crate::services::peers::Peer;

/// Who this gateway is, as AgentOS says it.
pub(super) async fn info(Shared(state): Shared<State>, context: Context) -> Result<Response, ApiError> {
    let identity = &state.identity;
    let local = state.peers.local().map(|peer| peer.options.base_url.to_string()).unwrap_or_default();
    let body = json!({ "peer": {
        "stack_id": identity.stack_id,
        "environment": identity.environment,
        "region": identity.region,
        "api_versions": ["v1"],
        "endpoints": {
            "agent-orchestrator_base_url": if local.is_empty() { "" } else { "/" },
            "model-policy_base_url": "",
        },
        "build": {
            "version": env!("CARGO_PKG_VERSION"),
            "git_sha": option_env!("CAUSEWAY_GIT_SHA").unwrap_or("unknown"),
            "timestamp": option_env!("CAUSEWAY_BUILD_TIME").unwrap_or("1970-01-01T00:00:00Z"),
        },
    }});
    Ok(reply::json(StatusCode::OK, &context, body))
}

/// What this gateway can do: the object of the AgentOS contract and the names its code uses, in one body.
pub(super) async fn capabilities(
    Shared(state): Shared<State>,
    context: Context,
) -> Result<Response, ApiError> {
    let options = &state.options;
    let body = json!({
        "capabilities": {
            "supports": {
                "runs_forward": true,
                "events_stream": true,
                "events_ingest": true,
                "tenant_isolation": true,
                "tool_hosting": false,
            },
            "limits": {
                "max_concurrent_runs": 0,
                "max_event_streams": options.max_streams,
                "max_event_bytes": limits::EVENT_BYTES,
                "max_ingest_events": limits::INGEST_EVENTS,
                "max_ingest_bytes": options.max_ingest_body,
                "max_body_bytes": options.max_body,
            },
            "models": { "tiers": [], "backends": [], "max_context_tokens": 0 },
        },
        "peer_id": state.identity.stack_id,
        "protocol": "1.0",
        "features": FEATURES,
        "idempotency_retention_ms": state.identity.idempotency_retention_ms,
        "replay_window_ms": state.identity.replay_window_ms,
        "event_backhaul": { "mode": "sse_proxy" },
    });
    Ok(reply::json(StatusCode::OK, &context, body))
}

/// Lists the configured peers.
pub(super) async fn list(
    Shared(state): Shared<State>,
    context: Context,
    uri: Uri,
    sent: HeaderMap,
) -> Result<Response, ApiError> {
    state.admission.admit(credentials(&sent), None, Action::ReadPeers)?;
    let query = Query::of(&uri);
    let limit = query.limit(limits::LIST_PAGE_DEFAULT, limits::LIST_PAGE)?;
    let after = query.find("cursor")?.map(open_cursor).transpose()?;
    let is_left = |peer: &&Arc<Peer>| after.as_ref().is_none_or(|after| peer.id() > after);
    let mut left: Vec<&Arc<Peer>> = state.peers.all().iter().filter(is_left).collect();
    let more = left.len() > limit as usize;
    left.truncate(limit as usize);
    let next = left.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(last.id().as_str()));
    let items: Vec<Value> = left.iter().map(|peer| view(&state, peer)).collect();
    let response = reply::json(StatusCode::OK, &context, json!({ "items": items, "next_cursor": next }));
    Ok(match next {
        None => response,
        Some(cursor) => {
            let link = format!("</v1/federation/peers?limit={limit}&cursor={cursor}>; rel=\"next\"");
            reply::with_header(response, "link", &link)
        }
    })
}

/// The last peer of the page before.
fn open_cursor(cursor: &str) -> Result<PeerId, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap_or_default();
    String::from_utf8(bytes).ok().and_then(|text| PeerId::parse(&text).ok()).ok_or_else(|| {
        Problem::new(ErrorCode::InvalidCursor, "`cursor` must be a next_cursor of this list")
            .with("field", "cursor")
    })
}

/// Shows one peer.
pub(super) async fn show(
    Shared(state): Shared<State>,
    context: Context,
    Path(peer_id): Path<String>,
    sent: HeaderMap,
) -> Result<Response, ApiError> {
    state.admission.admit(credentials(&sent), None, Action::ReadPeers)?;
    let peer = PeerId::parse(&peer_id).ok().and_then(|id| state.peers.find(&id)).ok_or_else(|| {
        Problem::new(ErrorCode::PeerNotFound, "there is no such peer").with("field", "peer_id")
    })?;
    Ok(reply::json(StatusCode::OK, &context, json!({ "peer": view(&state, peer) })))
}

fn view(state: &State, peer: &Peer) -> Value {
    let health = peer.health();
    let retry_at = peer.retry_in().map(|wait| rfc3339(state.clock.now_ms() + millis(wait)));
    json!({
        "peer_id": peer.id(),
        "stack_id": peer.id(),
        "kind": peer.options.kind.as_str(),
        "environment": peer.options.environment,
        "region": peer.options.region,
        "base_url": peer.options.base_url.as_str(),
        "local": peer.options.local,
        "health": {
            "state": health.state.as_str(),
            "reason": health.reason,
            "checked_at": health.checked_at_ms.map(rfc3339),
            "retry_at": retry_at,
        },
        "capabilities": peer.capability_names(),
        "in_flight": peer.in_flight(),
        "streams": state.runs.streams_of(peer.id()),
    })
}
