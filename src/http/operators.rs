//! What operators do while the gateway runs: tokens, the gateway's own keys, its intake, its policy, its audit.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::extract::{Context, Known, Operator, Query, read_json};
use super::peers::{no_such_peer, parse_id};
use super::reply;
use super::state::State;
use crate::clock::rfc3339;
use crate::domain::cursor::{Cursor, MAX_CURSOR};
use crate::domain::id::{PrincipalId, RunId, TenantId};
use crate::domain::policy::{Denial, Rule};
use crate::domain::scope::Scopes;
use crate::domain::units::TextForm;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::services::admission::{Action, Direction, Object};
use crate::services::identity::{Client, Who};
use crate::services::roster::Actor;
use crate::services::tokens::{NewToken, TokenRecord};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that a token may be said to hold; without a lifetime it holds until it is revoked.
const LONGEST_LIFETIME: Duration = DAY.saturating_mul(3650);
/// The longest that a key may announce its successor.
const LONGEST_OVERLAP: Duration = DAY.saturating_mul(365);

/// What makes a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    #[serde(default)]
    tenant_id: Option<String>,
    principal_id: String,
    scopes: Scopes,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    lifetime: Option<String>,
}

/// Makes a token; its text is in this answer and nowhere else.
pub(super) async fn create_token(
    Shared(state): Shared<State>,
    context: Context,
    Operator { by, known }: Operator,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body: TokenBody = read_json(&state, (&known, &sent), body).await?;
    let new = NewToken {
        tenant: match body.tenant_id.as_deref() {
            None | Some("") => None,
            Some(text) => Some(TenantId::parse(text).map_err(|error| field("tenant_id", error))?),
        },
        principal: PrincipalId::parse(&body.principal_id).map_err(|error| field("principal_id", error))?,
        scopes: body.scopes,
        label: body.label.unwrap_or_default(),
        lifetime: duration("lifetime", body.lifetime.as_deref(), LONGEST_LIFETIME)?,
    };
    let tokens = state.tokens.clone();
    let (token, record) = state.see_through(async move { tokens.create(new, &by).await }).await?;
    let mut shown = token_view(&record);
    shown["token"] = Value::from(token.expose());
    Ok(no_store(reply::json(StatusCode::CREATED, &context, json!({ "token": shown }))))
}

/// Lists tokens, the newest first.
pub(super) async fn list_tokens(
    Shared(state): Shared<State>,
    context: Context,
    _operator: Operator,
) -> Result<Response, ApiError> {
    let items: Vec<Value> = state.tokens.list().iter().map(token_view).collect();
    Ok(reply::json(StatusCode::OK, &context, json!({ "items": items })))
}

/// Ends a token at once.
pub(super) async fn revoke_token(
    Shared(state): Shared<State>,
    context: Context,
    Operator { by, .. }: Operator,
    Path(token_id): Path<String>,
) -> Result<Response, ApiError> {
    let tokens = state.tokens.clone();
    let record = state.see_through(async move { tokens.revoke(&token_id, &by).await }).await?;
    Ok(reply::json(StatusCode::OK, &context, json!({ "token": token_view(&record) })))
}

fn token_view(record: &TokenRecord) -> Value {
    json!({
        "token_id": record.token_id,
        "tenant_id": if record.tenant.is_empty() { Value::Null } else { Value::from(record.tenant.as_str()) },
        "principal_id": record.principal,
        "scopes": record.scopes.split(' ').collect::<Vec<_>>(),
        "label": record.label,
        "created_at": rfc3339(record.created_at_ms),
        "expires_at": record.expires_at_ms.map(rfc3339),
        "last_used_at": record.last_used_at_ms.map(rfc3339),
        "revoked_at": record.revoked_at_ms.map(rfc3339),
    })
}

/// What makes a stream ticket.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketBody {
    run_id: String,
    #[serde(default)]
    from_sequence: Option<u64>,
}

/// Makes a ticket that opens one run's stream once: for browsers, whose EventSource sends no header.
pub(super) async fn create_ticket(
    Shared(state): Shared<State>,
    context: Context,
    known: Known,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let caller = state.admission.admit(&known, None, Action::ReadEvents, None, &context.correlation_id)?;
    if caller.peer.is_some() || known.only().is_some() {
        let reason = "stream tickets are for clients that show a token".to_owned();
        let denial = Denial { rule: Rule::OperationNotGranted, reason };
        let audited = (known.who.subject(), caller.tenant.as_str());
        return Err(state
            .admission
            .refuse(denial, audited, Action::ReadEvents, &context.correlation_id)
            .into());
    }
    let body: TicketBody = read_json(&state, (&known, &sent), body).await?;
    if body.from_sequence.is_some_and(|cursor| cursor > MAX_CURSOR) {
        return Err(field("from_sequence", format!("must be at most {MAX_CURSOR}")).into());
    }
    let run = state.runs.find(&caller, &body.run_id).await?;
    let run_id: RunId = run.key.run;
    let (ended, until_ms) = match &known.who {
        Who::Client(client) => (client.ended.clone(), client.until_ms),
        _ => (caller.ended.clone(), None),
    };
    let client = Client {
        tenant: caller.tenant,
        principal: caller.principal,
        scopes: Scopes::parse_known("events:read"),
        ended,
        until_ms,
        only: Some((run_id.clone(), body.from_sequence.map(Cursor::at))),
    };
    let (ticket, ends_ms) = state.admission.tickets().issue(client)?;
    let url = format!("/v1/federation/runs/{}/events?ticket={ticket}", super::runs::segment(run_id.as_str()));
    let shown = json!({ "ticket": ticket, "expires_at": rfc3339(ends_ms), "events_url": url });
    Ok(no_store(reply::json(StatusCode::CREATED, &context, json!({ "stream_ticket": shown }))))
}

/// What rotates the key.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RotateBody {
    overlap: Option<String>,
}

/// Shows the gateway's keys; no private half is in it.
pub(super) async fn list_keys(
    Shared(state): Shared<State>,
    context: Context,
    _operator: Operator,
) -> Result<Response, ApiError> {
    Ok(reply::json(StatusCode::OK, &context, key_ring(&state)))
}

/// Announces the key's successor.
pub(super) async fn rotate_key(
    Shared(state): Shared<State>,
    context: Context,
    Operator { by, known }: Operator,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body: RotateBody = read_json(&state, (&known, &sent), body).await?;
    let overlap = duration("overlap", body.overlap.as_deref(), LONGEST_OVERLAP)?;
    let own_keys = state.own_keys.clone();
    state.see_through(async move { own_keys.rotate(overlap, &by).await }).await?;
    Ok(reply::json(StatusCode::OK, &context, key_ring(&state)))
}

/// Takes the announcement back.
pub(super) async fn cancel_rotation(
    Shared(state): Shared<State>,
    context: Context,
    Operator { by, .. }: Operator,
) -> Result<Response, ApiError> {
    let own_keys = state.own_keys.clone();
    state.see_through(async move { own_keys.cancel_rotation(&by).await }).await?;
    Ok(reply::json(StatusCode::OK, &context, key_ring(&state)))
}

/// Who the gateway is to its peers: its id, its keys, and the pin of the certificate it shows.
fn key_ring(state: &State) -> Value {
    json!({
        "peer_id": state.identity.stack_id,
        "certificate": state.own_keys.certificate(),
        "keys": key_views(state),
    })
}

fn key_views(state: &State) -> Vec<Value> {
    let keys = state.own_keys.keys();
    let view = |key: &crate::domain::key::PublicKey, standing: &str, at_ms: Option<i64>| {
        json!({
            "key_id": key.key_id(),
            "public_key": key,
            "state": standing,
            "at": at_ms.map(rfc3339),
        })
    };
    let mut views = vec![view(keys.present.public(), "present", None)];
    if let Some((next, at_ms)) = &keys.next {
        views.push(view(next.public(), "next", Some(*at_ms)));
    }
    views.extend(keys.retired.iter().map(|key| view(&key.public_key, "retired", Some(key.retired_at_ms))));
    views
}

/// Holds new work off: what runs goes on.
pub(super) async fn drain(
    shared: Shared<State>,
    context: Context,
    Operator { by, .. }: Operator,
) -> Result<Response, ApiError> {
    set_intake(&shared.0, &context, &by, true).await
}

/// Takes new work again.
pub(super) async fn resume(
    shared: Shared<State>,
    context: Context,
    Operator { by, .. }: Operator,
) -> Result<Response, ApiError> {
    set_intake(&shared.0, &context, &by, false).await
}

async fn set_intake(state: &State, context: &Context, by: &Actor, held: bool) -> Result<Response, ApiError> {
    state.own_keys.note_intake(held, by).await?;
    state.tasks.hold(held);
    let body = json!({ "intake": {
        "draining": !state.tasks.takes_work(),
        "forwards_unsettled": state.metrics.forwards_unsettled.get(),
        "streams_open": state.metrics.streams_open.get(),
        "readers": state.metrics.readers.get(),
    }});
    Ok(reply::json(StatusCode::OK, context, body))
}

/// The trail, the newest record first, or a stretch of it.
pub(super) async fn list_audit(
    Shared(state): Shared<State>,
    context: Context,
    _operator: Operator,
    uri: axum::http::Uri,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri);
    let limit = query.limit(100, 500)?;
    let text = |name: &str| query.find(name).map(|value| value.map(str::to_owned));
    let number = |name: &str| -> Result<Option<i64>, Problem> {
        let Some(text) = query.find(name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| *number >= 0);
        number.map(Some).ok_or_else(|| field(name, "must be a whole number"))
    };
    let filter = crate::services::audit_log::AuditFilter {
        subject: text("subject")?,
        action: text("action")?,
        object: text("object")?,
        tenant: text("tenant_id")?,
        outcome: text("outcome")?,
        ..Default::default()
    };
    let rows = state.audit.page(number("before")?, filter, limit).await?;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map(|last| last.audit_id);
    let items: Vec<Value> = rows.iter().map(crate::services::audit_log::shown).collect();
    Ok(reply::json(StatusCode::OK, &context, json!({ "items": items, "next_before": next })))
}

/// The policy, as it is in force.
pub(super) async fn policy(
    Shared(state): Shared<State>,
    context: Context,
    _operator: Operator,
) -> Result<Response, ApiError> {
    let policy = state.admission.policy();
    let bridges: Vec<Value> = policy
        .bridges
        .iter()
        .map(|(domain, bridge)| {
            json!({
                "remote_domain": domain,
                "allowed_peers": bridge.allowed_peers,
                "operations": bridge.operations,
            })
        })
        .collect();
    let body = json!({ "policy": {
        "domain": policy.domain,
        "federation_mode": policy.mode,
        "allowed_foreign_domains": policy.allowed_foreign_domains,
        "bridges": bridges,
        "digest": state.identity.policy_digest,
    }});
    Ok(reply::json(StatusCode::OK, &context, body))
}

/// A question to the policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvaluateBody {
    peer_id: String,
    action: String,
    direction: String,
    #[serde(default)]
    tenant_id: Option<String>,
    #[serde(default)]
    agent_id: Option<String>,
    #[serde(default)]
    region: Option<String>,
}

/// What the policy would say, without doing anything.
pub(super) async fn evaluate(
    Shared(state): Shared<State>,
    context: Context,
    Operator { known, .. }: Operator,
    sent: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body: EvaluateBody = read_json(&state, (&known, &sent), body).await?;
    let peer = state.peers.find(&parse_id(&body.peer_id)?).ok_or_else(no_such_peer)?;
    let one_of = |field: &str, words: &[&str]| {
        Problem::new(ErrorCode::InvalidRequest, format!("`{field}` must be one of: {}", words.join(", ")))
            .with("field", field)
    };
    let names = Action::ALL.map(Action::as_str);
    let action = Action::ALL.into_iter().find(|action| action.as_str() == body.action);
    let action = action.ok_or_else(|| one_of("action", &names))?;
    let (tenant, agent) = (body.tenant_id.as_deref(), body.agent_id.as_deref());
    let object = Object { tenant, agent, region: body.region.as_deref(), peer: None };
    let direction = match body.direction.as_str() {
        "out" => Direction::Out,
        "in" => Direction::In,
        _ => return Err(one_of("direction", &["in", "out"]).into()),
    };
    let decision = match state.admission.judge(direction, action, &peer, object) {
        Ok(()) => json!({ "allow": true, "rule": null, "reason": null }),
        Err(denial) => json!({ "allow": false, "rule": denial.rule.as_str(), "reason": denial.reason }),
    };
    Ok(reply::json(StatusCode::OK, &context, json!({ "decision": decision })))
}

/// A duration of at most so much; left out, none. An empty one is a mistake: a token would hold for ever.
fn duration(name: &str, text: Option<&str>, most: Duration) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let given = Duration::read(text).map_err(|error| field(name, error))?;
    if given > most {
        return Err(field(name, format!("must be at most {}", most.write())));
    }
    Ok(Some(given))
}

fn field(name: &str, error: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, format!("`{name}` {error}")).with("field", name)
}

/// A secret is in it: nobody keeps a copy on the way.
fn no_store(response: Response) -> Response {
    reply::with_header(response, "cache-control", "no-store")
}
