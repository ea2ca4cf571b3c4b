//! Health as a real call: each peer is asked, on its own schedule, what it can do and whether it is well.

use std::sync::Arc;
use std::time::Duration;

use super::peers::{Peer, Peers};
use crate::domain::peer::{Capabilities, HealthState, ORCHESTRATOR_FEATURES};
use crate::entropy::Entropy;
use crate::outbound::{Answer, CallFailure};
use crate::protocol::capabilities;
use crate::tasks::Tasks;

/// Starts to ask every peer, now and then every `interval`, a little out of step.
pub fn start(peers: &Peers, interval: Duration, entropy: &Entropy, tasks: &Tasks) {
    for peer in peers.all() {
        let (peer, entropy, stopping) = (Arc::clone(peer), entropy.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = ask(&peer) => {}
                    () = stopping.cancelled() => return,
                }
                let pause = interval.mul_f64(0.9 + 0.2 * entropy.fraction());
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stopping.cancelled() => return,
                }
            }
        });
    }
}

/// Asks one peer and keeps what it answers.
pub async fn ask(peer: &Peer) {
    let answer = if peer.is_gateway() {
        peer.client.get(&["v1", "federation", "peer", "capabilities"]).await
    } else {
        peer.client.get(&["v1", "health"]).await
    };
    match answer {
        Ok(answer) if answer.is_success() => well(peer, &answer),
        // An orchestrator need not have a health endpoint: that it answers is what counts.
        Ok(answer) if answer.status == 404 && !peer.is_gateway() => {
            peer.set_health(HealthState::Healthy, None)
        }
        Ok(answer) => {
            let reason = format!("the health call was answered with {}", answer.status);
            peer.set_health(HealthState::Degraded, Some(reason));
        }
        Err(CallFailure::NeverLeft(reason) | CallFailure::Interrupted(reason)) => {
            peer.set_health(HealthState::Failing, Some(reason));
        }
    }
}

fn well(peer: &Peer, answer: &Answer) {
    if !peer.is_gateway() {
        peer.set_capabilities(Capabilities::new(ORCHESTRATOR_FEATURES), None);
        return peer.set_health(HealthState::Healthy, None);
    }
    let Some(document) = capabilities::parse(&answer.body) else {
        let reason = "its capabilities cannot be read".to_owned();
        return peer.set_health(HealthState::Degraded, Some(reason));
    };
    let other = document.peer_id.filter(|name| name != peer.id().as_str());
    peer.set_capabilities(document.capabilities, document.idempotency_retention);
    match other {
        Some(name) => {
            let name = crate::domain::limits::clean_reason(&name);
            let reason = format!("it calls itself `{name}`; it is enrolled as `{}`", peer.id());
            peer.set_health(HealthState::Degraded, Some(reason));
        }
        None => peer.set_health(HealthState::Healthy, None),
    }
}
