//! A hub introduces a peer: no credential but the hub's word, which grants nothing.

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::header::HeaderMap;
use axum::http::{Extensions, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::authenticate::arrival_of;
use super::error::ApiError;
use super::extract::{Context, read_strangers_json};
use super::reply;
use super::state::State;
use crate::services::jwt::MAX_TOKEN_BYTES;

/// The token and what stands around it.
const MOST_BYTES: usize = MAX_TOKEN_BYTES + 1024;

/// What is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    introduction: String,
}

/// Keeps the peer that a hub introduces until an operator accepts it.
pub(super) async fn introduce(
    Shared(state): Shared<State>,
    context: Context,
    extensions: Extensions,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    state.introductions.check_on()?;
    let arrival = arrival_of(&state, &extensions, &sent);
    state.admission.hear(&arrival)?;
    let Sent { introduction } = read_strangers_json(&state, &sent, body, MOST_BYTES).await?;
    let (introductions, correlation_id) = (state.introductions.clone(), context.correlation_id.clone());
    let taken = async move { introductions.take(&introduction, &correlation_id).await };
    let peer = state.see_through(taken).await.map_err(|problem| {
        state.admission.refuse_unproven(&arrival, "peer.introduce", &context.correlation_id, problem)
    })?;
    let body = json!({ "introduced": {
        "peer_id": peer.id(),
        "standing": peer.standing().as_str(),
        "vouched_by": peer.options.vouched_by,
    }});
    Ok(reply::json(StatusCode::CREATED, &context, body))
}
