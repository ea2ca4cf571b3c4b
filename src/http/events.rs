//! `GET …/runs/{run_id}/events`: SSE, NDJSON, or a JSON page.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::accept::{Representation, representation};
use super::error::ApiError;
use super::extract::{Context, Known, Query};
use super::reply;
use super::state::State;
use super::streams::StreamSlot;
use crate::domain::cursor::{self, Cursor, CursorInput};
use crate::domain::limits;
use crate::domain::stream::StreamState;
use crate::mutants::mutant;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::headers;
use crate::protocol::problem::Problem;
use crate::services::admission::Action;
use crate::services::follow::{EventFlow, FollowRequest, Opened};
use crate::services::frames::Format;
use crate::services::identity::Caller;
use crate::services::runs::RunRecord;

/// The names of the one cursor of a stream.
const CURSOR_NAMES: [&str; 3] = ["from_sequence", "after_sequence", "starting_after"];

/// Serves a run's events after a cursor.
pub(super) async fn follow(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    Path(run_id): Path<String>,
    uri: Uri,
    sent: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = state.admission.admit(&known, None, Action::ReadEvents, None, &context.correlation_id)?;
    let wanted = representation(&sent).ok_or_else(not_acceptable)?;
    let query = Query::of(&uri);
    let format = if wanted == Representation::Ndjson { Format::Ndjson } else { Format::Sse };
    let request = FollowRequest {
        after: ticket_cursor(&known, &run_id)?.map_or_else(|| start_after(&query, &sent), Ok)?,
        format,
        live: query.one_of("follow", true, &[("true", true), ("false", false)])?,
        skip_gaps: query.one_of("on_gap", false, &[("fail", false), ("skip", true)])?,
    };
    let limit = query.limit(limits::EVENTS_PAGE_DEFAULT, limits::EVENTS_PAGE)?;
    let run = state.runs.find(&caller, &run_id).await?;
    if wanted == Representation::Page {
        return page((&state, &caller), &context, &run, request, limit).await;
    }
    let slot = state.slots.take(&caller)?;
    match state.follow.open(&run, request, &caller, &context.correlation_id).await? {
        Opened::NothingMore(at) => Ok(described(StatusCode::NO_CONTENT.into_response(), &at)),
        Opened::Flow(at, flow) => Ok(described(streaming(format, *flow, slot), &at)),
    }
}

/// A stream ticket is for one run, and may be for one cursor.
fn ticket_cursor(known: &Known, run_id: &str) -> Result<Option<Cursor>, Problem> {
    match known.only() {
        None => Ok(None),
        Some((run, after)) if run.as_str() == run_id => Ok(*after),
        Some(_) => Err(Problem::new(ErrorCode::TicketInvalid, "the stream ticket is for another run")),
    }
}

fn start_after(query: &Query, sent: &HeaderMap) -> Result<Cursor, Problem> {
    let input = CursorInput {
        query: query.pairs().filter(|(name, _)| CURSOR_NAMES.contains(name)).collect(),
        last_event_id: if mutant("cursor_ignored") { Vec::new() } else { last_event_ids(sent) },
    };
    cursor::start_after(&input).map_err(|error| {
        Problem::new(ErrorCode::InvalidCursor, error.to_string()).with("field", error.field())
    })
}

fn last_event_ids(sent: &HeaderMap) -> Vec<&[u8]> {
    sent.get_all(headers::LAST_EVENT_ID).iter().map(HeaderValue::as_bytes).collect()
}

fn not_acceptable() -> Problem {
    let allowed = ["text/event-stream", "application/x-ndjson", "application/json"];
    Problem::new(ErrorCode::NotAcceptable, format!("events can be had as: {}", allowed.join(", ")))
        .with("allowed", allowed.as_slice())
}

fn streaming(format: Format, flow: EventFlow, slot: StreamSlot) -> Response {
    // The slot lives as long as the stream: it is given back when the client goes or the flow ends.
    let frames = stream::unfold((flow, slot), |(mut flow, slot)| async {
        let bytes = flow.next().await?;
        Some((Ok::<_, Infallible>(bytes), (flow, slot)))
    });
    let kind = match format {
        Format::Sse => "text/event-stream",
        Format::Ndjson => "application/x-ndjson",
    };
    ([(CONTENT_TYPE, kind)], Body::from_stream(frames)).into_response()
}

/// Says where the stream stands, and keeps intermediaries from holding it back.
fn described(mut response: Response, at: &StreamState) -> Response {
    let fields = response.headers_mut();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    fields.insert("x-accel-buffering", HeaderValue::from_static("no"));
    fields.append(VARY, HeaderValue::from_static("accept"));
    fields.insert(headers::OLDEST_SEQUENCE, HeaderValue::from(at.oldest));
    fields.insert(headers::HIGH_WATER, HeaderValue::from(at.high_water));
    fields.insert(headers::RUN_STATUS, HeaderValue::from_static(at.status.as_str()));
    response
}

async fn page(
    (state, caller): (&State, &Caller),
    context: &Context,
    run: &RunRecord,
    request: FollowRequest,
    limit: u32,
) -> Result<Response, ApiError> {
    let page = state.follow.page(run, (request, caller), limit).await?;
    let facts = serde_json::json!({
        "oldest_sequence": page.state.oldest,
        "high_water": page.state.high_water,
        "next_from_sequence": page.next_after,
        "has_more": page.has_more,
        "gaps": page.gaps,
        "run": { "status": page.state.status.as_str() },
        "correlation_id": context.correlation_id,
    });
    // The events are text already, and stay as they are.
    let mut body = b"{\"events\":[".to_vec();
    body.extend_from_slice(&page.events);
    body.extend_from_slice(b"],");
    body.extend_from_slice(facts.to_string().trim_start_matches('{').as_bytes());
    Ok(described(reply::raw_json(StatusCode::OK, body), &page.state))
}
