//! The authentication layer: before any handler, it is known who calls.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::extract::Context;
use super::state::State;
use crate::domain::policy::{Denial, Rule};
use crate::services::admission::{Action, Head, client_address};
use crate::services::identity::{Arrival, Door, Who};
use crate::services::rates;

/// Lets a request on to its handler once its caller is known.
pub(super) async fn authenticate(Shared(state): Shared<State>, mut request: Request, next: Next) -> Response {
    let arrival = arrival_of(&state, &request);
    let correlation_id = request
        .extensions()
        .get::<Context>()
        .map(|context| context.correlation_id.clone())
        .unwrap_or_default();
    let head = Head {
        method: request.method(),
        uri: request.uri(),
        headers: request.headers(),
        correlation_id: &correlation_id,
    };
    let identity = match state.admission.authenticate(&arrival, head).await {
        Ok(identity) => Arc::new(identity),
        Err(problem) => return ApiError(problem).into_response(),
    };
    if let Who::Peer(peer) = &identity.who {
        if let Some(claim) = &identity.claim {
            state.roster.note_use(peer, claim.key_id);
        }
        if let Some(succession) = &identity.succession {
            state.roster.hear(peer, succession);
        }
    }
    if matches!(identity.who, Who::Unproven) && is_foreign_page(&state, &request) {
        return refuse_page(&state, &correlation_id);
    }
    let fields = rates::headers(&identity.allowances);
    request.extensions_mut().insert(identity);
    let mut response = next.run(request).await;
    for (name, value) in fields.into_iter().flatten() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().entry(HeaderName::from_static(name)).or_insert(value);
        }
    }
    response
}

/// True for what a page changes here that is neither of this gateway nor of an origin it allows. Whoever opened
/// the page did not ask for it, and under profile dev no credential would tell.
fn is_foreign_page(state: &State, request: &Request) -> bool {
    let Some(origin) = request.headers().get(ORIGIN).filter(|_| !request.method().is_safe()) else {
        return false;
    };
    let origin = origin.to_str().unwrap_or("");
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let is_own = origin.split_once("://").is_some_and(|(_, own)| own == host);
    !is_own && !state.options.cors_origins.iter().any(|allowed| allowed == origin)
}

fn refuse_page(state: &State, correlation_id: &str) -> Response {
    let reason = "a page of this origin may change nothing here: name it in server.cors_origins".to_owned();
    let denial = Denial { rule: Rule::OperationNotGranted, reason };
    let audited = (Who::Unproven.subject(), "");
    ApiError(state.admission.refuse(denial, audited, Action::Administer, correlation_id)).into_response()
}

/// Where a request came in; where nobody said, by the front door.
fn arrival_of(state: &State, request: &Request) -> Arrival {
    let arrival = request.extensions().get::<Arc<Arrival>>().map(|arrival| (**arrival).clone());
    let mut arrival = arrival.unwrap_or(Arrival { door: Door::Public, address: None, certificate: None });
    if let Some(connection) = arrival.address.filter(|_| arrival.door == Door::Public) {
        let is_proxy = |address: IpAddr| state.options.is_trusted_proxy(address);
        arrival.address = Some(client_address(connection, request.headers(), is_proxy));
    }
    arrival
}
