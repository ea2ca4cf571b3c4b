//! What operators watch: what the gateway is joined to, how each link is, what is on its way, what wants attention.

use axum::extract::{Path, State as Shared};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use super::error::ApiError;
use super::extract::{Context, Operator, Query};
use super::peers::{no_such_peer, page_by_peer, parse_id};
use super::reply;
use super::state::State;
use crate::clock::{millis, rfc3339};
use crate::domain::forward::ForwardState;
use crate::domain::grants::Operation;
use crate::domain::id::{PeerId, TenantId};
use crate::domain::limits;
use crate::domain::policy::Rule;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::services::alerts;
use crate::services::deliveries::{DeliveryFilter, DeliveryRecord};
use crate::services::links::Link;

/// Lists the way to each peer.
pub(super) async fn list_links(
    Shared(state): Shared<State>,
    context: Context,
    _operator: Operator,
    uri: Uri,
) -> Result<Response, ApiError> {
    page_by_peer(&context, &uri, state.links.all(), |link| link.peer.id(), link_view)
}

/// Shows the way to one peer.
pub(super) async fn show_link(
    Shared(state): Shared<State>,
    context: Context,
    _operator: Operator,
    Path(peer_id): Path<String>,
) -> Result<Response, ApiError> {
    let link = state.links.find(&parse_id(&peer_id)?).ok_or_else(no_such_peer)?;
    Ok(reply::json(StatusCode::OK, &context, json!({ "link": link_view(&link) })))
}

fn link_view(link: &Link) -> Value {
    let (peer, doing, readers) = (&link.peer, &link.doing, &link.readers);
    let decided = peer.decided();
    let mishap = doing.last_error.as_ref();
    json!({
        "peer_id": peer.id(),
        "kind": peer.options.kind.as_str(),
        "local": peer.options.local,
        "state": doing.link,
        "since": rfc3339(doing.since_ms),
        "standing": decided.standing.as_str(),
        "standing_reason": decided.reason,
        "health": {
            "state": doing.health.state.as_str(),
            "reason": doing.health.reason,
            "checked_at": doing.health.checked_at_ms.map(rfc3339),
            "answered_at": doing.answered_at_ms.map(rfc3339),
            "latency_ms": doing.latency.map(millis),
        },
        "circuit": {
            "state": doing.circuit,
            "since": doing.circuit_since_ms.map(rfc3339),
            "retry_at": peer.retry_at_ms().map(rfc3339),
        },
        "forwards": {
            "in_flight": peer.in_flight(),
            "in_flight_limit": peer.in_flight_limit(),
            "waiting": peer.waiting(),
        },
        "readers": {
            "running": readers.running,
            "placed": readers.placed,
            "places": link.reader_places,
            "failing": readers.failing,
            "failing_since": readers.failing_since_ms.map(rfc3339),
            "last_error": readers.last_error,
            "sequences_given_up": doing.given_up.sequences,
            "given_up_at": doing.given_up.at_ms.map(rfc3339),
        },
        "last_error": mishap.map(|mishap| json!({ "at": rfc3339(mishap.at_ms), "reason": mishap.reason })),
        "operations": link.operations.iter().map(operation_view).collect::<Vec<_>>(),
        "proofs": { "out": link.proofs_out, "in": link.proofs_in },
        "certificate_expires_at": doing.certificate_ends_ms.map(rfc3339),
        "config_drift": doing.drifts,
        "identity_conflict_at": doing.conflict_at_ms.map(rfc3339),
        "capabilities": peer.capability_names(),
    })
}

fn operation_view((operation, refusal): &(Operation, Option<Rule>)) -> Value {
    json!({
        "operation": operation,
        "allowed": refusal.is_none(),
        "rule": refusal.map(|rule| rule.as_str()),
    })
}

/// The gateway, what it is joined to, and which way work may go.
pub(super) async fn topology(
    Shared(state): Shared<State>,
    context: Context,
    _operator: Operator,
) -> Result<Response, ApiError> {
    let links = state.links.all();
    let own = state.identity.stack_id.as_str();
    let mut nodes = vec![own_node(&state)];
    nodes.extend(links.iter().map(|link| peer_node(own, link)));
    let edges: Vec<Value> = links.iter().flat_map(|link| edges(own, link)).collect();
    let body = json!({ "topology": {
        "generated_at": rfc3339(state.clock.now_ms()),
        "nodes": nodes,
        "edges": edges,
    }});
    Ok(reply::json(StatusCode::OK, &context, body))
}

fn own_node(state: &State) -> Value {
    let identity = &state.identity;
    json!({
        "node_id": identity.stack_id,
        "role": "self",
        "kind": "gateway",
        "name": "",
        "local": false,
        "domain": identity.domain,
        "region": identity.region,
        "environment": identity.environment,
        "state": if state.tasks.takes_work() { "serving" } else { "draining" },
        "version": env!("CARGO_PKG_VERSION"),
        "instance_id": identity.instance,
        "streams_open": state.metrics.streams_open.get(),
        "forwards_unsettled": state.metrics.forwards_unsettled.get(),
    })
}

fn peer_node(own: &str, link: &Link) -> Value {
    let (peer, doing) = (&link.peer, &link.doing);
    json!({
        "node_id": node_id(own, peer.id()),
        "role": "peer",
        "kind": peer.options.kind.as_str(),
        "name": peer.options.name,
        "local": peer.options.local,
        "domain": peer.enrolment.domain,
        "region": peer.enrolment.region,
        "environment": peer.options.environment,
        "state": doing.link,
        "version": Value::Null,
        "instance_id": Value::Null,
        "streams_open": Value::Null,
        "forwards_unsettled": Value::Null,
    })
}

/// A local orchestrator may bear the gateway's own id: it is another node all the same.
fn node_id(own: &str, peer: &PeerId) -> String {
    if peer.as_str() == own { format!("{own}/local") } else { peer.to_string() }
}

/// Work goes out to every peer's side of the link, and comes in where something is granted.
fn edges(own: &str, link: &Link) -> Vec<Value> {
    let far = node_id(own, link.peer.id());
    let (out, inward): (Vec<_>, Vec<_>) =
        link.operations.iter().partition(|(operation, _)| *operation == Operation::ForwardOut);
    let (doing, readers) = (&link.doing, &link.readers);
    let edge = |from: &str, to: &str, operations: &[&(Operation, Option<Rule>)]| {
        json!({
            "edge_id": format!("{from} -> {to}"),
            "from": from,
            "to": to,
            "operations": operations.iter().map(|one| operation_view(one)).collect::<Vec<_>>(),
        })
    };
    let mut there = edge(own, &far, &out);
    there["proofs"] = json!(link.proofs_out);
    there["state"] = json!(doing.link);
    there["since"] = json!(rfc3339(doing.since_ms));
    there["latency_ms"] = json!(doing.latency.map(millis));
    there["answered_at"] = json!(doing.answered_at_ms.map(rfc3339));
    there["flows"] = json!({
        "forwards_in_flight": link.peer.in_flight(),
        "forwards_waiting": link.peer.waiting(),
        "runs_read": readers.running,
        "streams_open": readers.placed,
    });
    if inward.is_empty() {
        return vec![there];
    }
    let mut here = edge(&far, own, &inward);
    here["proofs"] = json!(link.proofs_in);
    for unknown in ["state", "since", "latency_ms", "answered_at", "flows"] {
        here[unknown] = Value::Null;
    }
    vec![there, here]
}

/// Lists forwards, the newest first.
pub(super) async fn list_deliveries(
    Shared(state): Shared<State>,
    context: Context,
    _operator: Operator,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri);
    let limit = query.limit(limits::LIST_PAGE_DEFAULT, limits::LIST_PAGE)?;
    let states = ["reserved", "sending", "unknown", "forwarded", "refused", "expired"];
    let words = states.map(|name| (name, ForwardState::find(name)));
    let (peer, tenant) = (query.find("peer_id")?, query.find("tenant_id")?);
    let filter = DeliveryFilter {
        peer: peer.map(PeerId::parse).transpose().map_err(|error| field("peer_id", error))?,
        tenant: tenant.map(TenantId::parse).transpose().map_err(|error| field("tenant_id", error))?,
        state: query.one_of("state", None, &words)?,
    };
    let page = state.deliveries.list(filter, (query.find("cursor")?, limit)).await?;
    let view = |delivery: &DeliveryRecord| delivery_view(delivery, page.now_ms);
    let items: Vec<Value> = page.deliveries.iter().map(view).collect();
    let (limit, asked_state) = (limit.to_string(), query.find("state")?);
    let asked =
        [("limit", Some(limit.as_str())), ("peer_id", peer), ("tenant_id", tenant), ("state", asked_state)];
    Ok(reply::page(&context, uri.path(), &asked, items, page.next_cursor))
}

fn field(name: &str, error: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, format!("`{name}` {error}")).with("field", name)
}

/// Where it goes and how that goes; nothing of what is in it, and no principal.
fn delivery_view(delivery: &DeliveryRecord, now_ms: i64) -> Value {
    let last = delivery.last_attempt.as_ref();
    let waits = matches!(delivery.state, ForwardState::Reserved | ForwardState::Unknown);
    let failed = last.filter(|_| delivery.state != ForwardState::Forwarded);
    json!({
        "forward_id": delivery.forward_id,
        "tenant_id": delivery.tenant,
        "peer_id": delivery.peer,
        "agent_id": delivery.agent,
        "run_id": delivery.run_id,
        "correlation_id": delivery.correlation_id,
        "state": delivery.state.as_str(),
        "outcome": delivery.outcome,
        "background": delivery.background,
        "attempts": delivery.attempts_total,
        "last_attempt_at": last.map(|last| rfc3339(last.started_at_ms)),
        "next_attempt_at": delivery.next_attempt_at_ms.filter(|_| waits).map(rfc3339),
        "last_error": failed.map(|last| json!({
            "outcome": last.outcome, "reason": last.reason, "upstream_status": last.upstream_status,
        })),
        "created_at": rfc3339(delivery.created_at_ms),
        "updated_at": rfc3339(delivery.updated_at_ms),
        "deadline_at": rfc3339(delivery.deadline_at_ms),
        "age_ms": now_ms.saturating_sub(delivery.created_at_ms).max(0),
    })
}

/// What wants attention now.
pub(super) async fn list_alerts(
    Shared(state): Shared<State>,
    context: Context,
    _operator: Operator,
) -> Result<Response, ApiError> {
    let (held, now_ms) = state.alerts.now().await.map_err(Problem::from)?;
    let items: Vec<Value> = held.iter().map(alerts::shown).collect();
    let body = json!({ "items": items, "evaluated_at": rfc3339(now_ms) });
    Ok(reply::json(StatusCode::OK, &context, body))
}
