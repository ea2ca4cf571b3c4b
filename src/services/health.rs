//! Health as a real call: each peer is asked, on its own schedule, what it can do and whether it is well.
//!
//! A gateway that is enrolled with a key must prove it: it signs the nonce of the very request that asks. So
//! "healthy" says that each side knows the other, never only that a port is open.

use super::peer::Peer;
use crate::domain::key::KeyId;
use crate::domain::limits;
use crate::domain::peer::{Capabilities, HealthState, ORCHESTRATOR_FEATURES};
use crate::domain::succession::Succession;
use crate::outbound::{Answer, CallFailure, OwnIdentity};
use crate::protocol::capabilities::{self, CapabilityDocument};
use crate::protocol::problem::PeerError;
use crate::protocol::proof;

/// What a peer's answer says of its keys.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The key it proved itself with.
    pub(super) proven_by: Option<KeyId>,
    /// The key it announces.
    pub(super) succession: Option<Succession>,
}

/// Asks one peer, keeps what it answers, and gives back what it says of its keys.
pub(super) async fn ask(peer: &Peer, own: &OwnIdentity) -> Heard {
    let begun = own.clock.monotonic();
    let answer = if peer.is_gateway() {
        peer.client.get(&["v1", "federation", "peer", "capabilities"]).await
    } else {
        peer.client.get(&["v1", "health"]).await
    };
    let answer = answer.map(|(answer, certificate_ends_ms)| {
        peer.note_answer(own.clock.monotonic().saturating_sub(begun), certificate_ends_ms);
        answer
    });
    match answer {
        Ok(answer) if answer.is_success() && peer.is_gateway() => return gateway(peer, own, &answer),
        Ok(answer) if answer.is_success() => {
            peer.set_capabilities(Capabilities::new(ORCHESTRATOR_FEATURES), None);
            peer.set_health(HealthState::Healthy, None, true);
        }
        // An orchestrator need not have a health endpoint: that it answers is what counts.
        Ok(answer) if answer.status == 404 && !peer.is_gateway() => {
            peer.set_health(HealthState::Healthy, None, true);
        }
        Ok(answer) => {
            let error = PeerError::parse(&answer.body);
            let said = error.message.map(|said| format!(": {said}")).unwrap_or_default();
            let reason = format!("the health call was answered with {}{said}", answer.status);
            // Who does not let us in takes no work from us either.
            let refused = matches!(answer.status, 401 | 403 | 409);
            let state = if refused { HealthState::Failing } else { HealthState::Degraded };
            peer.set_health(state, Some(reason), true);
        }
        Err(
            CallFailure::NeverLeft(reason) | CallFailure::Denied(reason) | CallFailure::Interrupted(reason),
        ) => {
            peer.set_health(HealthState::Failing, Some(reason), false);
        }
    }
    Heard::default()
}

fn gateway(peer: &Peer, own: &OwnIdentity, answer: &Answer) -> Heard {
    let Some(document) = capabilities::parse(&answer.body) else {
        peer.set_health(HealthState::Degraded, Some("its capabilities cannot be read".to_owned()), true);
        return Heard::default();
    };
    let proven_by = match prove(peer, &own.peer_id, &document, answer.nonce.as_deref()) {
        Ok(key) => key,
        Err(reason) => {
            peer.set_health(HealthState::Failing, Some(reason), true);
            return Heard::default();
        }
    };
    let oddity = oddity(peer, &document);
    peer.set_policy_digest(document.policy_digest, own);
    peer.set_max_body(document.max_body);
    peer.set_capabilities(document.capabilities, document.idempotency_retention);
    match oddity {
        Some(reason) => peer.set_health(HealthState::Degraded, Some(reason), true),
        None => peer.set_health(HealthState::Healthy, None, true),
    }
    Heard { proven_by, succession: document.succession }
}

/// The key with which the peer proves to be the enrolled one, if it is enrolled with a key; or why it is not
/// believed.
fn prove(
    peer: &Peer,
    own: &str,
    document: &CapabilityDocument,
    nonce: Option<&str>,
) -> Result<Option<KeyId>, String> {
    let keys = peer.keys();
    if keys.is_empty() {
        return Ok(None);
    }
    if document.you.as_deref() != Some(own) {
        return Err(format!("it does not know this gateway as `{own}`: enrol it there"));
    }
    let proven = nonce.zip(document.proof.as_deref()).and_then(|(nonce, signature)| {
        keys.iter().find(|key| proof::holds(key, (peer.id().as_str(), own), nonce, signature))
    });
    let Some(key) = proven else {
        return Err("it does not prove that it holds the key it is enrolled with".to_owned());
    };
    let instance = document.instance.as_deref().unwrap_or("");
    if !instance.is_empty() && !peer.note_instance(instance) {
        return Err("two processes answer under its identity".to_owned());
    }
    Ok(Some(key.key_id()))
}

/// What is not as the operator said, and no reason to cut the peer off.
fn oddity(peer: &Peer, document: &CapabilityDocument) -> Option<String> {
    let other = |said: &Option<String>, expected: &str| {
        said.as_deref().filter(|said| *said != expected).map(limits::clean_reason)
    };
    if let Some(name) = other(&document.peer_id, peer.id().as_str()) {
        return Some(format!("it calls itself `{name}`; it is enrolled as `{}`", peer.id()));
    }
    let domain = &peer.enrolment.domain;
    other(&document.domain, domain)
        .map(|said| format!("it says it is in domain `{said}`; it is enrolled in `{domain}`"))
}
