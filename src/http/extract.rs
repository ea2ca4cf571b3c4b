//! What a handler takes from a request: its context, its caller's credentials, its query, its body.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::Uri;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::error::ApiError;
use super::state::State;
use crate::domain::cursor::Cursor;
use crate::domain::id::{RunId, is_id};
use crate::domain::limits;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::headers;
use crate::protocol::problem::Problem;
use crate::services::admission::Action;
use crate::services::identity::{Identity, Who};
use crate::services::roster::Actor;

/// What follows a request over all hops.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// Echoed, stored, sent on.
    pub(super) correlation_id: Arc<str>,
    /// As the caller sent it, unchecked.
    pub(super) traceparent: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let found = parts.extensions.get::<Context>().cloned();
        Ok(found.unwrap_or(Context { correlation_id: Arc::default(), traceparent: None }))
    }
}

/// Who calls, as the authentication layer found out before any handler ran.
pub(super) struct Known(Arc<Identity>);

impl Known {
    /// The one run and cursor a stream ticket is for.
    pub(super) fn only(&self) -> Option<&(RunId, Option<Cursor>)> {
        match &self.0.who {
            Who::Client(client) => client.only.as_ref(),
            _ => None,
        }
    }
}

impl std::ops::Deref for Known {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Known {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        // A route outside the authentication layer has no callers.
        let unknown = || Problem::new(ErrorCode::InternalError, "the caller was not asked who it is");
        Ok(Known(parts.extensions.get::<Arc<Identity>>().cloned().ok_or_else(unknown)?))
    }
}

/// An operator who calls: nobody else gets past it.
pub(super) struct Operator {
    /// Who it is, for the audit.
    pub(super) by: Actor,
    pub(super) known: Known,
}

impl FromRequestParts<State> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let known = Known::from_request_parts(parts, state).await?;
        let Ok(context) = Context::from_request_parts(parts, state).await;
        state.admission.admit_untenanted(&known, Action::Administer, &context.correlation_id)?;
        let by = Actor {
            tenant: String::new(),
            subject: known.who.subject(),
            correlation_id: context.correlation_id.to_string(),
        };
        Ok(Operator { by, known })
    }
}

/// Query parameters, decoded, in order.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a URI.
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or("").as_bytes());
        Query(pairs.into_owned().collect())
    }

    /// Every pair.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A parameter that may be given once.
    pub(super) fn find(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut given = self.pairs().filter(|(given, _)| *given == name).map(|(_, value)| value);
        let value = given.next();
        if given.next().is_some() {
            return Err(invalid(name, "may be given once"));
        }
        Ok(value)
    }

    /// A whole number between 1 and `most`.
    pub(super) fn limit(&self, default: u32, most: u32) -> Result<u32, Problem> {
        let Some(text) = self.find("limit")? else { return Ok(default) };
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = if plain { text.parse().ok() } else { None };
        value
            .filter(|value| (1..=most).contains(value))
            .ok_or_else(|| invalid("limit", &format!("must be a whole number from 1 to {most}")))
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, name: &str, default: T, words: &[(&str, T)]) -> Result<T, Problem> {
        let Some(text) = self.find(name)? else { return Ok(default) };
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let allowed = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            invalid(name, &format!("must be one of: {allowed}"))
        })
    }
}

fn invalid(field: &str, expected: &str) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, format!("`{field}` {expected}"))
        .with("field", field)
        .with("expected", expected)
}

/// The media type of a request body, without parameters, in lower case.
pub(super) fn media_type(sent: &HeaderMap) -> Cow<'_, str> {
    let value = sent.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = value.split(';').next().unwrap_or("").trim();
    let is_upper = kind.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_upper { kind.to_ascii_lowercase().into() } else { kind.into() }
}

/// Requires a body that says it is JSON. A browser form cannot, so it cannot act for its user here.
pub(super) fn require_json(sent: &HeaderMap) -> Result<(), ApiError> {
    let kind = media_type(sent);
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    Err(unsupported(&["application/json"]).into())
}

/// The refusal of any other media type.
pub(super) fn unsupported(allowed: &[&str]) -> Problem {
    let message = format!("send the body with Content-Type: {}", allowed.join(" or "));
    Problem::new(ErrorCode::UnsupportedMediaType, message).with("allowed", allowed)
}

/// The run of a path that ends in `{run_id}`.
pub(super) struct Named(pub(super) String);

/// The run of a path that ends in `{run_id}:cancel`.
pub(super) struct ToCancel(pub(super) String);

/// The verb is written literally: an id may end like it, percent-encoded.
const CANCEL: &str = ":cancel";

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        if parts.uri.path().ends_with(CANCEL) {
            return Err(other_method(&parts.uri).into_response());
        }
        let Path(run) = Path::<String>::from_request_parts(parts, state).await.map_err(into_response)?;
        Ok(Named(run))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ToCancel {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        if !parts.uri.path().ends_with(CANCEL) {
            return Err(other_method(&parts.uri).into_response());
        }
        let Path(segment) = Path::<String>::from_request_parts(parts, state).await.map_err(into_response)?;
        Ok(ToCancel(segment.strip_suffix(CANCEL).unwrap_or(&segment).to_owned()))
    }
}

fn into_response(rejection: PathRejection) -> Response {
    rejection.into_response()
}

/// The refusal of a method on a path that names a run, with or without the verb.
pub(super) fn other_method(uri: &Uri) -> ApiError {
    let allowed: &[&str] = if uri.path().ends_with(CANCEL) { &["POST"] } else { &["GET", "HEAD"] };
    method_not_allowed(allowed).into()
}

/// The refusal of a method, with those the path takes.
pub(super) fn method_not_allowed(allowed: &[&str]) -> Problem {
    let message = format!("this path takes: {}", allowed.join(", "));
    Problem::new(ErrorCode::MethodNotAllowed, message).with("allowed", allowed)
}

/// Reads a body within its bounds, and only the one that was signed.
pub(super) async fn read_body(
    (known, sent): (&Known, &HeaderMap),
    body: Body,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, Problem> {
    let bytes = collect(sent, body, limit, timeout).await?;
    known.check_body(&bytes)?;
    Ok(bytes)
}

async fn collect(sent: &HeaderMap, body: Body, limit: usize, timeout: Duration) -> Result<Bytes, Problem> {
    if sent.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let message = "send the body without Content-Encoding";
        return Err(Problem::new(ErrorCode::UnsupportedMediaType, message).with("header", "content-encoding"));
    }
    let read = Limited::new(body, limit).collect();
    match tokio::time::timeout(timeout, read).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            let message = format!("the body may have at most {limit} bytes");
            Err(Problem::new(ErrorCode::PayloadTooLarge, message).with("limit_bytes", limit))
        }
        Ok(Err(error)) => {
            let reason = limits::clean_reason(&error.to_string());
            Err(Problem::new(ErrorCode::InvalidRequest, format!("the body cannot be read: {reason}"))
                .with("field", "body"))
        }
        Err(_) => {
            let message = format!("the body did not come within {}", humantime::format_duration(timeout));
            Err(Problem::new(ErrorCode::RequestTimeout, message))
        }
    }
}

/// Reads a small JSON body into what a handler expects; an empty one counts as `{}`. Anything else must say
/// that it is JSON, as everywhere.
pub(super) async fn read_json<T: serde::de::DeserializeOwned>(
    state: &State,
    (known, sent): (&Known, &HeaderMap),
    body: Body,
) -> Result<T, Problem> {
    let bytes = read_body((known, sent), body, state.options.max_body, state.options.body_timeout).await?;
    parse_json(sent, &bytes)
}

/// The same, of somebody who shows no credential and has signed nothing.
pub(super) async fn read_strangers_json<T: serde::de::DeserializeOwned>(
    state: &State,
    sent: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<T, Problem> {
    let limit = limit.min(state.options.max_body);
    parse_json(sent, &collect(sent, body, limit, state.options.body_timeout).await?)
}

fn parse_json<T: serde::de::DeserializeOwned>(sent: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    let is_empty = bytes.trim_ascii().is_empty();
    if !is_empty {
        require_json(sent).map_err(|ApiError(problem)| problem)?;
    }
    let text: &[u8] = if is_empty { b"{}" } else { bytes };
    serde_json::from_slice(text).map_err(|error| {
        let code = if error.is_data() { ErrorCode::InvalidRequest } else { ErrorCode::InvalidJson };
        let reason = limits::clean_reason(&error.to_string());
        Problem::new(code, format!("the body is not as it must be: {reason}")).with("field", "body")
    })
}

/// The idempotency key of a request: header and body must agree where both are given.
pub(super) fn idempotency_key(sent: &HeaderMap, body: Option<String>) -> Result<Option<String>, Problem> {
    let mut given = sent.get_all(headers::IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(body) };
    let parsed = value.to_str().ok().and_then(headers::idempotency_key).filter(|_| given.next().is_none());
    let Some(header) = parsed else {
        let expected = format!(
            "must be one quoted string or token of 1 to {} visible ASCII characters",
            limits::IDEMPOTENCY_KEY_BYTES
        );
        return Err(invalid("Idempotency-Key", &expected));
    };
    match body {
        Some(body) if body != header => {
            Err(invalid("idempotency_key", "differs from the Idempotency-Key header: send one, or the same"))
        }
        _ => Ok(Some(header)),
    }
}

/// The gateways a run-create came through. Names that are none are dropped: they only ever refuse.
pub(super) fn via(sent: &HeaderMap) -> Vec<String> {
    let values = sent.get_all(headers::VIA).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim);
    names.filter(|name| is_id(name)).take(limits::HOPS + 1).map(str::to_owned).collect()
}
