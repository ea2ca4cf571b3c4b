//! Who this gateway is, what it can do, and the peers it knows.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State as Shared};
use axum::http::header::HeaderMap;
use axum::http::request::Parts;
use axum::http::{Extensions, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::extract::{Context, Known, Operator, Query, method_not_allowed, read_json};
use super::reply;
use super::runs::segment;
use super::state::State;
use crate::clock::rfc3339;
use crate::domain::id::PeerId;
use crate::domain::limits;
use crate::domain::peer::FEATURES;
use crate::domain::policy::Standing;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::protocol::proof;
use crate::services::admission::Action;
use crate::services::identity::{Arrival, Door, Who};
use crate::services::options::Profile;
use crate::services::peer::Peer;
use crate::services::peer_options::PeerOptions;

/// Who this gateway is, as AgentOS says it.
pub(super) async fn info(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
) -> Result<Response, ApiError> {
    state.admission.admit_untenanted(&known, Action::ReadPeers, &context.correlation_id)?;
    let identity = &state.identity;
    let local = state.peers.local().map(|peer| peer.options.base_url.to_string()).unwrap_or_default();
    let body = json!({ "peer": {
        "stack_id": identity.stack_id,
        "environment": identity.environment,
        "region": identity.region,
        "domain": identity.domain,
        "instance_id": identity.instance,
        "policy_digest": identity.policy_digest,
        "public_key": state.own_keys.keys().present.public(),
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
    known: Known,
) -> Result<Response, ApiError> {
    state.admission.admit_untenanted(&known, Action::ReadPeers, &context.correlation_id)?;
    let options = &state.options;
    let mut body = json!({
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
        "domain": state.identity.domain,
        "instance_id": state.identity.instance,
        "policy_digest": state.identity.policy_digest,
    });
    if let Who::Peer(peer) = &known.who {
        prove(&state, &known, peer, &mut body);
    }
    Ok(reply::json(StatusCode::OK, &context, body))
}

/// Tells an enrolled gateway that it is known, proves who answers, and announces the key to come.
fn prove(state: &State, known: &Known, peer: &Peer, body: &mut Value) {
    let own = state.identity.stack_id.as_str();
    let keys = state.own_keys.keys();
    body["you"] = Value::from(peer.id().as_str());
    if let Some(claim) = &known.claim {
        let proof = proof::make(&keys.present, (own, peer.id().as_str()), &claim.nonce);
        body["proof"] = Value::from(proof);
    }
    body["key_succession"] = serde_json::to_value(keys.succession(own)).unwrap_or_default();
}

/// Lists the enrolled peers.
pub(super) async fn list(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    uri: Uri,
) -> Result<Response, ApiError> {
    state.admission.admit_untenanted(&known, Action::ReadPeers, &context.correlation_id)?;
    let all = state.peers.all();
    let seen: Vec<&Arc<Peer>> = all.iter().filter(|peer| may_see(&known, peer)).collect();
    page_by_peer(&context, &uri, seen, |peer| peer.id(), |peer| view(&state, &known, peer))
}

/// A page of what there is one of per peer, ordered by peer id.
pub(super) fn page_by_peer<T>(
    context: &Context,
    uri: &Uri,
    all: Vec<T>,
    id: impl Fn(&T) -> &PeerId,
    view: impl Fn(&T) -> Value,
) -> Result<Response, ApiError> {
    let query = Query::of(uri);
    let limit = query.limit(limits::LIST_PAGE_DEFAULT, limits::LIST_PAGE)?;
    let after = query.find("cursor")?.map(open_cursor).transpose()?;
    let mut left = all;
    left.retain(|one| after.as_ref().is_none_or(|after| id(one) > after));
    let more = left.len() > limit as usize;
    left.truncate(limit as usize);
    let next = left.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(id(last).as_str()));
    let items = left.iter().map(view).collect();
    Ok(reply::page(context, uri.path(), &[("limit", Some(&limit.to_string()))], items, next))
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
    known: Known,
    PeerNamed(peer_id): PeerNamed,
) -> Result<Response, ApiError> {
    state.admission.admit_untenanted(&known, Action::ReadPeers, &context.correlation_id)?;
    let found = state.peers.find(&parse_id(&peer_id)?);
    let peer = found.filter(|peer| may_see(&known, peer)).ok_or_else(no_such_peer)?;
    Ok(reply::json(StatusCode::OK, &context, json!({ "peer": view(&state, &known, &peer) })))
}

/// A client sees the peers its tenant may use, a peer itself, an operator all.
fn may_see(known: &Known, peer: &Peer) -> bool {
    match &known.who {
        Who::Operator { .. } | Who::Unproven => true,
        Who::Client(client) => {
            !peer.options.awaits_acceptance() && peer.enrolment.grants.has_tenant(client.tenant.as_str())
        }
        Who::Peer(own) => own.id() == peer.id(),
    }
}

/// A peer as the caller may know it: whom else it serves, and how it proves itself, is not for clients.
fn view(state: &State, known: &Known, peer: &Peer) -> Value {
    let mut shown = common_view(state, peer);
    if matches!(known.who, Who::Client(_)) {
        return shown;
    }
    shown["identity"] = json!({
        "public_keys": peer.keys(),
        "certificate": peer.options.certificate,
        "tls_name": peer.options.tls_name,
    });
    let grants = &peer.enrolment.grants;
    shown["grants"] = json!({
        "operations": grants.operations,
        "tenants": grants.tenants_in_its_words().collect::<Vec<_>>(),
        "agents": grants.agents,
        "regions": grants.regions,
        "allowed_addresses": peer.options.allowed_addresses,
    });
    if !matches!(known.who, Who::Peer(_)) {
        // Our own words, and what the peer calls them, are not for the peer.
        shown["grants"]["tenants"] = Value::from(grants.tenants.as_slice());
        shown["grants"]["tenant_names"] = serde_json::to_value(&grants.tenant_names).unwrap_or_default();
        shown["vouched_by"] = Value::from(peer.options.vouched_by.as_str());
        shown["entry"] = serde_json::to_value(&peer.options).unwrap_or_default();
    }
    shown
}

fn common_view(state: &State, peer: &Peer) -> Value {
    let (health, decided) = (peer.health(), peer.decided());
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
            "retry_at": peer.retry_at_ms().map(rfc3339),
        },
        "name": peer.options.name,
        "domain": peer.enrolment.domain,
        "standing": decided.standing.as_str(),
        "standing_reason": decided.reason,
        "source": if peer.enrolment.is_configured { "configuration" } else { "enrolled" },
        "config_drift": peer.doing().drifts,
        "capabilities": peer.capability_names(),
        "in_flight": peer.in_flight(),
        "streams": state.runs.streams_of(peer.id()),
    })
}

pub(super) fn parse_id(text: &str) -> Result<PeerId, Problem> {
    PeerId::parse(text).map_err(|_| no_such_peer())
}

pub(super) fn no_such_peer() -> Problem {
    Problem::new(ErrorCode::PeerNotFound, "there is no such peer").with("field", "peer_id")
}

/// Enrols a peer.
pub(super) async fn enrol(
    Shared(state): Shared<State>,
    context: Context,
    Operator { by, known }: Operator,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let options = read_entry(&state, (&known, &sent), body).await?;
    let roster = state.roster.clone();
    let peer = state.see_through(async move { roster.enrol(options, &by).await }).await?;
    let response = reply::json(StatusCode::CREATED, &context, json!({ "peer": view(&state, &known, &peer) }));
    Ok(reply::with_header(
        response,
        "location",
        &format!("/v1/federation/peers/{}", segment(peer.id().as_str())),
    ))
}

/// Changes an enrolled peer's entry.
pub(super) async fn update(
    Shared(state): Shared<State>,
    context: Context,
    Operator { by, known }: Operator,
    PeerNamed(peer_id): PeerNamed,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let options = read_entry(&state, (&known, &sent), body).await?;
    if options.peer_id != parse_id(&peer_id)? {
        let message = "`peer_id` is not the peer of the path: an id does not change";
        return Err(Problem::new(ErrorCode::InvalidRequest, message).with("field", "peer_id").into());
    }
    let roster = state.roster.clone();
    let peer = state.see_through(async move { roster.update(options, &by).await }).await?;
    Ok(reply::json(StatusCode::OK, &context, json!({ "peer": view(&state, &known, &peer) })))
}

/// Removes an enrolled peer.
pub(super) async fn remove(
    Shared(state): Shared<State>,
    Operator { by, .. }: Operator,
    PeerNamed(peer_id): PeerNamed,
) -> Result<Response, ApiError> {
    let (roster, id) = (state.roster.clone(), parse_id(&peer_id)?);
    state.see_through(async move { roster.remove(&id, &by).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Why a peer's standing changes.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ReasonBody {
    reason: Option<String>,
}

/// What can be done with a peer, written after its id.
const VERBS: [&str; 4] = ["revoke", "drain", "reinstate", "verify"];

/// The verb a path literally ends in: an id may end like it, percent-encoded.
fn verb_of(path: &str) -> Option<&'static str> {
    let (_, written) = path.rsplit_once(':')?;
    VERBS.into_iter().find(|verb| *verb == written)
}

/// The peer of a path that ends in `{peer_id}` and no verb.
pub(super) struct PeerNamed(String);

impl FromRequestParts<State> for PeerNamed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Response> {
        if verb_of(parts.uri.path()).is_some() {
            return Err(other_method(state, &parts.uri, &parts.extensions).into_response());
        }
        let named = Path::<String>::from_request_parts(parts, state).await;
        named.map(|Path(peer_id)| PeerNamed(peer_id)).map_err(IntoResponse::into_response)
    }
}

/// The refusal of a method on a path that names a peer, with or without a verb.
pub(super) async fn refuse_method(
    Shared(state): Shared<State>,
    uri: Uri,
    extensions: Extensions,
) -> ApiError {
    other_method(&state, &uri, &extensions)
}

fn other_method(state: &State, uri: &Uri, extensions: &Extensions) -> ApiError {
    let problem = match (verb_of(uri.path()), serves_operators(state, extensions)) {
        (Some(_), true) => method_not_allowed(&["POST"]),
        (Some(_), false) => super::router::nothing_here(),
        (None, true) => method_not_allowed(&["GET", "HEAD", "PUT", "DELETE"]),
        (None, false) => method_not_allowed(&["GET", "HEAD"]),
    };
    problem.into()
}

/// True where operators are served: not at the peers' door, nor at the front door when they have their own.
pub(super) fn serves_operators(state: &State, extensions: &Extensions) -> bool {
    match extensions.get::<Arc<Arrival>>().map(|arrival| arrival.door) {
        Some(Door::Peers) => false,
        Some(Door::Admin | Door::Control) => true,
        Some(Door::Public) | None => state.options.admin_listen.is_none(),
    }
}

/// `POST …/{peer_id}:revoke`, `:drain`, `:reinstate` and `:verify`.
pub(super) async fn by_verb(
    Shared(state): Shared<State>,
    context: Context,
    operator: Result<Operator, ApiError>,
    uri: Uri,
    Path(segment): Path<String>,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Some(verb) = verb_of(uri.path()) else {
        return Err(method_not_allowed(&["GET", "HEAD", "PUT", "DELETE"]).into());
    };
    let Operator { by, known } = operator?;
    let id = parse_id(segment.strip_suffix(&format!(":{verb}")).unwrap_or(&segment))?;
    let standing = match verb {
        "revoke" => Standing::Revoked,
        "drain" => Standing::Draining,
        "reinstate" => Standing::Active,
        _ => {
            let peer = state.roster.verify(&id).await?;
            return Ok(reply::json(StatusCode::OK, &context, json!({ "peer": view(&state, &known, &peer) })));
        }
    };
    let body: ReasonBody = read_json(&state, (&known, &sent), body).await?;
    let reason = body.reason.unwrap_or_default();
    if !limits::is_label(&reason) {
        let message = format!("`reason` {}", limits::LABEL_RULE);
        return Err(Problem::new(ErrorCode::InvalidRequest, message).with("field", "reason").into());
    }
    let roster = state.roster.clone();
    let changed = async move { roster.set_standing(&id, standing, &reason, &by).await };
    let peer = state.see_through(changed).await?;
    Ok(reply::json(StatusCode::OK, &context, json!({ "peer": view(&state, &known, &peer) })))
}

async fn read_entry(
    state: &State,
    request: (&Known, &HeaderMap),
    body: Body,
) -> Result<PeerOptions, Problem> {
    let door = request.0.door;
    let mut options: PeerOptions = read_json(state, request, body).await?;
    // A file of this machine, to be sent to a place of the caller's choice: only for who can read it anyway.
    if options.token_file.is_some() && door != Door::Control && state.admission.profile() == Profile::Prod {
        let message = "token_file names a file of the gateway's machine: enrol such a peer there";
        return Err(Problem::new(ErrorCode::PolicyDenied, message).with("field", "token_file"));
    }
    options
        .read_token()
        .map_err(|message| Problem::new(ErrorCode::InvalidRequest, message).with("field", "token_file"))?;
    Ok(options)
}
