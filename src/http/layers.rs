//! The middleware, outermost first, each with its reason.
//!
//! 1. `Answering`: gives the request its correlation id, counts it, and writes error bodies, so that every
//!    answer of every origin, a panic included, has the same shape.
//! 2. CORS, when origins are configured: outside the routes, so that preflights need no handler.
//! 3. Panic guard: a bug in one handler is one 500, not a closed connection.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{self, Poll};

use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{self, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tower::Service;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::error::{ApiError, render, take_problem};
use super::extract::Context;
use super::state::State;
use crate::domain::api_token::PresentedToken;
use crate::metrics::{RequestLabels, RouteLabel};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::headers;
use crate::protocol::problem::Problem;

/// The longest URI, in bytes.
const MAX_URI: usize = 8 * 1024;
/// All header fields, in bytes.
const MAX_HEADERS_BYTES: usize = 24 * 1024;
static REQUEST_ID: HeaderName = HeaderName::from_static(headers::REQUEST_ID);

/// Gives a request its context, and its answer its last shape. A service by itself, for every request comes through
/// it: a function made into middleware copies all that is behind it for each of them.
#[derive(Clone)]
pub(super) struct Answering<S> {
    pub(super) state: State,
    pub(super) inner: S,
}

impl<S, B> Service<Request> for Answering<S>
where
    S: Service<Request, Response = http::Response<B>, Error = Infallible, Future: Send + 'static>,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let state = self.state.clone();
        let begun = state.clock.monotonic();
        let context = context_of(&state, &request);
        let method = request.method().clone();
        let path = tracing::enabled!(tracing::Level::DEBUG).then(|| without_tokens(request.uri().path()));
        let route = request.extensions().get::<MatchedPath>().cloned();
        let refused = refuse_head(&request);
        request.extensions_mut().insert(context.clone());
        let inner = refused.map_or_else(|| Ok(self.inner.call(request)), Err);
        Box::pin(async move {
            let response = match inner {
                Ok(answer) => answer.await?.map(Body::new),
                Err(problem) => ApiError(problem).into_response(),
            };
            let response = finish(response, &context.correlation_id, &method);
            let took = state.clock.monotonic().saturating_sub(begun);
            let route = route.as_ref().map_or("other", MatchedPath::as_str);
            observe(&state, &method, route, response.status(), took.as_secs_f64());
            tracing::debug!(method = %method, path,
                status = response.status().as_u16(), duration_ms = took.as_millis() as u64,
                correlation_id = &*context.correlation_id, "request answered");
            Ok(response)
        })
    }
}

/// A path as the log may show it: whoever puts a token there by mistake does not find it in a log.
fn without_tokens(path: &str) -> String {
    let shown = |segment| if PresentedToken::parse(segment).is_some() { "<token>" } else { segment };
    path.split('/').map(shown).collect::<Vec<_>>().join("/")
}

/// What the connection's own bound, which is on what it buffers, lets through.
fn refuse_head(request: &Request) -> Option<Problem> {
    if request.uri().path_and_query().is_some_and(|uri| uri.as_str().len() > MAX_URI) {
        let message = format!("the URI may have at most {MAX_URI} bytes");
        return Some(Problem::new(ErrorCode::UriTooLong, message).with("limit_bytes", MAX_URI));
    }
    let size: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (size > MAX_HEADERS_BYTES).then(|| {
        let message = format!("the headers may have at most {MAX_HEADERS_BYTES} bytes");
        Problem::new(ErrorCode::HeadersTooLarge, message).with("limit_bytes", MAX_HEADERS_BYTES)
    })
}

fn context_of(state: &State, request: &Request) -> Context {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let given = [headers::CORRELATION_ID, headers::REQUEST_ID]
        .into_iter()
        .find_map(|name| text(name).and_then(headers::correlation_id));
    Context {
        correlation_id: given.map_or_else(|| state.entropy.id("req", state.clock.now_ms()).into(), Arc::from),
        traceparent: text(headers::TRACEPARENT).map(str::to_owned),
    }
}

fn finish(mut response: Response, correlation_id: &str, method: &Method) -> Response {
    let mut problem = take_problem(&mut response);
    if let Some(allowed) = problem.as_ref().filter(|problem| problem.code == ErrorCode::MethodNotAllowed)
        && let Some(methods) = allowed.details.get("allowed").and_then(|value| value.as_array())
        && let Ok(value) =
            HeaderValue::from_str(&methods.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
    {
        response.headers_mut().insert(ALLOW, value);
    }
    // The framework's own refusals (a path that is no UTF-8, say) come as plain text.
    let is_text =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if problem.is_none() && response.status().is_client_error() && is_text {
        problem =
            Some(Problem::new(ErrorCode::InvalidRequest, "the request cannot be read").with("field", "path"));
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    if let Some(problem) = problem {
        response = render(response, &problem, correlation_id);
        if *method == Method::HEAD {
            *response.body_mut() = axum::body::Body::empty();
        }
    }
    if let Ok(value) = HeaderValue::from_str(correlation_id) {
        response.headers_mut().insert(&REQUEST_ID, value);
    }
    response
}

fn observe(state: &State, method: &Method, route: &str, status: StatusCode, seconds: f64) {
    let method = ["GET", "POST", "HEAD", "OPTIONS"].into_iter().find(|known| *known == method.as_str());
    let (method, code) = (method.unwrap_or("other"), status.as_u16());
    let labels = RequestLabels { method, route: route.to_owned(), code };
    state.metrics.http_requests.get_or_create(&labels).inc();
    let label = RouteLabel { route: labels.route };
    state.metrics.http_request_duration.get_or_create(&label).observe(seconds);
}

/// Lets pages of these origins call, and read our headers.
pub(super) fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> =
        origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let exposed = [
        headers::OLDEST_SEQUENCE,
        headers::HIGH_WATER,
        headers::RUN_STATUS,
        headers::REQUEST_ID,
        headers::IDEMPOTENCY_REPLAYED,
        "retry-after",
        "ratelimit",
        "ratelimit-policy",
        "www-authenticate",
        "location",
        "link",
    ];
    let allowed = [
        "authorization",
        "x-api-key",
        headers::TENANT,
        headers::PRINCIPAL,
        headers::CORRELATION_ID,
        headers::IDEMPOTENCY_KEY,
        headers::LAST_EVENT_ID,
        headers::TRACEPARENT,
        "authorization",
        "x-api-key",
        "content-type",
        "prefer",
    ];
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(allowed.map(HeaderName::from_static))
            .expose_headers(exposed.map(HeaderName::from_static)),
    )
}

/// A handler's bug, as its caller sees it.
pub(super) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let said = cause
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| cause.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(panic = said, "a handler panicked");
    ApiError(Problem::new(ErrorCode::InternalError, "the gateway failed; its log says why")).into_response()
}
