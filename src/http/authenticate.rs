//! The authentication layer: before any handler, it is known who calls.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{self, Poll};

use axum::extract::Request;
use axum::http::Extensions;
use axum::http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use axum::http::uri::Authority;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use tower::Service;

use super::error::ApiError;
use super::extract::Context;
use super::state::State;
use crate::domain::policy::{Denial, Rule};
use crate::services::admission::{Action, Head, client_address};
use crate::services::identity::{Arrival, Door, Who};
use crate::services::rates;

/// Lets a request on to its handler once its caller is known.
#[derive(Clone)]
pub(super) struct Authenticating<S> {
    pub(super) state: State,
    pub(super) inner: S,
}

impl<S> Service<Request> for Authenticating<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let rest = self.inner.clone();
        // The one that is ready goes on.
        let inner = std::mem::replace(&mut self.inner, rest);
        Box::pin(authenticate(self.state.clone(), request, inner))
    }
}

async fn authenticate<S>(state: State, mut request: Request, mut inner: S) -> Result<Response, Infallible>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let arrival = arrival_of(&state, request.extensions(), request.headers());
    let context = request.extensions().get::<Context>();
    let correlation_id = context.map(|context| Arc::clone(&context.correlation_id)).unwrap_or_default();
    let head = Head {
        method: request.method(),
        uri: request.uri(),
        headers: request.headers(),
        correlation_id: &correlation_id,
    };
    let identity = match state.admission.authenticate(&arrival, head).await {
        Ok(identity) => Arc::new(identity),
        Err(problem) => return Ok(ApiError(problem).into_response()),
    };
    if let Who::Peer(peer) = &identity.who {
        if let Some(claim) = &identity.claim {
            state.roster.note_use(peer, claim.key_id);
        }
        if let Some(succession) = &identity.succession {
            state.roster.hear(peer, succession);
        }
    }
    if matches!(identity.who, Who::Unproven)
        && let Some(reason) = foreign_page(&state, &request)
    {
        return Ok(refuse_page(&state, &correlation_id, reason));
    }
    let fields = rates::headers(&identity.allowances);
    request.extensions_mut().insert(identity);
    let mut response = inner.call(request).await?;
    for (name, value) in fields.into_iter().flatten() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().entry(HeaderName::from_static(name)).or_insert(value);
        }
    }
    Ok(response)
}

/// Why a page may not do this: it changes something here and is neither of this gateway nor of an origin that is
/// allowed, or its own name was made to lead here. Whoever opened it did not ask for that, and under profile dev
/// no credential would tell.
fn foreign_page(state: &State, request: &Request) -> Option<&'static str> {
    let sent = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or(""));
    let named = request.uri().authority().map(Authority::as_str);
    let (host, allowed) = (sent(HOST).or(named), &state.options.cors_origins);
    if host.is_some_and(|host| !is_own_name(host, allowed)) {
        return Some("this gateway is not reached by that name: call it by its address, or as localhost");
    }
    let origin = sent(ORIGIN).filter(|_| !request.method().is_safe())?;
    let is_own = origin.split_once("://").is_some_and(|(_, own)| own == host.unwrap_or(""));
    let is_foreign = !is_own && !allowed.iter().any(|allowed| allowed == origin);
    is_foreign.then_some("a page of this origin may change nothing here: name it in server.cors_origins")
}

/// False for a name that anybody on the internet may have bound to this machine's address (DNS rebinding): one
/// with a dot in it that is neither an address, nor below localhost, nor of an allowed origin.
fn is_own_name(host: &str, allowed: &[String]) -> bool {
    // Mostly it is an address, and needs no taking apart.
    if host.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let is_local = !name.contains('.') || name.ends_with(".localhost");
    let is_of_origin = |origin: &String| origin.split_once("://").is_some_and(|(_, own)| own == host);
    is_address || is_local || allowed.iter().any(is_of_origin)
}

fn refuse_page(state: &State, correlation_id: &str, reason: &str) -> Response {
    let reason = reason.to_owned();
    let denial = Denial { rule: Rule::OperationNotGranted, reason };
    let audited = (Who::Unproven.subject(), "");
    ApiError(state.admission.refuse(denial, audited, Action::Administer, correlation_id)).into_response()
}

/// Where a request came in; where nobody said, by the front door.
pub(super) fn arrival_of(state: &State, extensions: &Extensions, sent: &HeaderMap) -> Arrival {
    let arrival = extensions.get::<Arc<Arrival>>().map(|arrival| (**arrival).clone());
    let mut arrival = arrival.unwrap_or(Arrival { door: Door::Public, address: None, certificate: None });
    if let Some(connection) = arrival.address.filter(|_| arrival.door == Door::Public) {
        let is_proxy = |address: IpAddr| state.options.is_trusted_proxy(address);
        arrival.address = Some(client_address(connection, sent, is_proxy));
    }
    arrival
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_lead_nowhere_else_are_ours() {
        let allowed = ["https://app.example.com".to_owned(), "http://app.example.com:8080".to_owned()];
        for own in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "localhost",
            "LOCALHOST:80",
            "a.localhost",
            "gateway:8080",
            "app.example.com",
            "app.example.com:8080",
            "localhost.",
        ] {
            assert!(is_own_name(own, &allowed), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "app.example.com:81",
            "evil.example.",
            "",
            "a b",
            "localhost@evil.example",
        ] {
            assert!(!is_own_name(foreign, &allowed), "{foreign}");
        }
    }
}
