//! `POST /v1/federation/events:ingest`: events pushed by workers and peers.

use axum::extract::{Request, State as Shared};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;

use super::error::ApiError;
use super::extract::{Context, Known, media_type, read_body, require_json, unsupported};
use super::reply;
use super::state::State;
use crate::services::admission::Action;
use crate::services::ingest;

/// Takes a batch in any of the shapes found in the wild.
pub(super) async fn push(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    request: Request,
) -> Result<Response, ApiError> {
    let (Parts { headers: sent, .. }, body) = request.into_parts();
    let lines = matches!(&*media_type(&sent), "application/x-ndjson" | "application/jsonl");
    if !lines {
        require_json(&sent).map_err(|_| unsupported(&["application/json", "application/x-ndjson"]))?;
    }
    let options = &state.options;
    let bytes = read_body((&known, &sent), body, options.max_ingest_body, options.body_timeout).await?;
    let parsed = if lines { ingest::parse_ndjson(&bytes)? } else { ingest::parse_json(&bytes)? };
    let claimed = parsed.claimed_tenant.clone();
    let caller = state.admission.admit(
        &known,
        claimed.as_deref(),
        Action::IngestEvents,
        None,
        &context.correlation_id,
    )?;
    let answer = state.ingest.push(&caller, parsed, &context.correlation_id).await?;
    Ok(reply::long_json(StatusCode::OK, &context, &answer))
}
