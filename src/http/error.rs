//! Errors become responses here and nowhere else.
//!
//! A handler's error travels as a [`Problem`] beside an empty body; the outermost layer, which knows the
//! correlation id, writes the body. So every error of every origin has the same shape.

use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;

use crate::protocol::error_code::ErrorCode;
use crate::protocol::headers;
use crate::protocol::problem::{CONTENT_TYPE as PROBLEM_JSON, Problem};

/// HTTP asks for a challenge with every 401.
const CHALLENGE: &str = "Bearer realm=\"causeway\"";

/// A handler's error.
#[derive(Debug)]
pub(super) struct ApiError(pub(super) Problem);

/// Rides in the response's extensions until the body is written. Boxed: most responses carry none.
#[derive(Clone)]
struct Pending(Box<Problem>);

impl<E: Into<Problem>> From<E> for ApiError {
    fn from(error: E) -> Self {
        ApiError(error.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        let status = StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(Pending(Box::new(self.0)));
        response
    }
}

/// Takes the error a response carries, if it carries one.
pub(super) fn take_problem<B>(response: &mut Response<B>) -> Option<Problem> {
    response.extensions_mut().remove::<Pending>().map(|pending| *pending.0)
}

/// Every 429 and 503 says when to come back, also where nobody knew better.
fn default_wait_ms(code: ErrorCode) -> Option<u64> {
    matches!(code.status(), 429 | 503).then_some(5000)
}

/// Writes an error's body and headers.
pub(super) fn render(
    mut response: axum::response::Response,
    problem: &Problem,
    correlation_id: &str,
) -> axum::response::Response {
    *response.body_mut() = problem.to_json(correlation_id).to_string().into();
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(after_ms) = problem.retry_after_ms.or(default_wait_ms(problem.code)) {
        fields.insert(RETRY_AFTER, HeaderValue::from(headers::retry_after_seconds(after_ms)));
    }
    for (name, value) in &problem.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(*name, value);
        }
    }
    if problem.code.status() == 401 {
        fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
    if problem.details.get("replayed").is_some() {
        fields.insert(headers::IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
