//! Answers: JSON with the correlation id in it, as every body has.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::extract::Context;

/// A JSON answer. `body` must be an object.
pub(super) fn json(status: StatusCode, context: &Context, mut body: Value) -> Response {
    if let Some(object) = body.as_object_mut() {
        object.insert("correlation_id".to_owned(), Value::from(&*context.correlation_id));
    }
    raw_json(status, body.to_string().into_bytes())
}

/// The same, written as it is read: for answers that may be long.
pub(super) fn long_json(status: StatusCode, context: &Context, body: &impl Serialize) -> Response {
    let body = WithCorrelation { body, correlation_id: &context.correlation_id };
    let mut text = Vec::with_capacity(512);
    // Nothing that is answered fails to be written, nor does memory fail to take it.
    let written = serde_json::to_writer(&mut text, &body);
    debug_assert!(written.is_ok(), "{written:?}");
    raw_json(status, text)
}

#[derive(Serialize)]
struct WithCorrelation<'a, T> {
    #[serde(flatten)]
    body: &'a T,
    correlation_id: &'a str,
}

/// A page of a list at `path`. The link to the next one repeats what was asked for.
pub(super) fn page(
    context: &Context,
    path: &str,
    asked: &[(&str, Option<&str>)],
    items: Vec<Value>,
    next: Option<String>,
) -> Response {
    let response = json(StatusCode::OK, context, json!({ "items": items, "next_cursor": next }));
    let Some(cursor) = next else { return response };
    let asked = asked.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(asked.chain([("cursor", cursor.as_str())]))
        .finish();
    with_header(response, "link", &format!("<{path}?{query}>; rel=\"next\""))
}

/// An answer that is JSON text already.
pub(super) fn raw_json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Adds a header whose value comes from checked parts; one that cannot be a header is left out.
pub(super) fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
