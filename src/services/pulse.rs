//! How a peer is doing, as calls go to it and answers come: its breaker, its health, and the word for both.

use std::time::Duration;

use super::doing::{Doing, Health, Mishap};
use super::peer::{Peer, Refusal, lock};
use crate::clock::millis;
use crate::domain::breaker::{BreakerState, Outcome, Permit};
use crate::domain::link::{Circuit, LinkFacts};
use crate::domain::peer::HealthState;
use crate::mutants::mutant;
use crate::outbound::OwnIdentity;

impl Peer {
    /// Asks the breaker for leave to call.
    pub fn ask_breaker(&self) -> Result<Permit, Refusal> {
        let chance = self.entropy.fraction();
        let answer = lock(&self.breaker).try_acquire(self.clock.monotonic(), chance);
        self.show_circuit();
        answer.map_err(Refusal::CircuitOpen)
    }

    /// Tells the breaker how a call went.
    pub fn tell_breaker(&self, permit: Permit, outcome: Outcome) {
        let chance = self.entropy.fraction();
        let outcome = if mutant("breaker_never_opens") { Outcome::Ignored } else { outcome };
        lock(&self.breaker).record(permit, outcome, self.clock.monotonic(), chance);
        if outcome == Outcome::Success {
            lock(&self.doing).answered_at_ms = Some(self.clock.now_ms());
        }
        self.show_circuit();
    }

    fn show_circuit(&self) {
        let (circuit, value) = match lock(&self.breaker).state(self.clock.monotonic()) {
            BreakerState::Closed => (Circuit::Closed, 0),
            BreakerState::HalfOpen => (Circuit::HalfOpen, 1),
            BreakerState::Open { .. } => (Circuit::Open, 2),
        };
        self.metrics.circuit_state.get_or_create(&self.label()).set(value);
        lock(&self.doing).set_circuit(circuit, self.clock.now_ms());
        self.note_link();
    }

    /// How it is doing; an open breaker outweighs the last health call.
    pub fn health(&self) -> Health {
        let health = lock(&self.doing).health.clone();
        match lock(&self.breaker).state(self.clock.monotonic()) {
            BreakerState::Open { .. } => Health {
                state: HealthState::Open,
                reason: Some("recent calls failed; the peer rests before it is tried again".to_owned()),
                ..health
            },
            BreakerState::Closed | BreakerState::HalfOpen => health,
        }
    }

    /// When the open breaker lets a probe through, from now.
    pub fn retry_in(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        match lock(&self.breaker).state(now) {
            BreakerState::Open { until } => Some(until.saturating_sub(now)),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        }
    }

    /// The same, in milliseconds since the Unix epoch.
    pub fn retry_at_ms(&self) -> Option<i64> {
        self.retry_in().map(|wait| self.clock.now_ms().saturating_add(millis(wait)))
    }

    /// Takes that a health call was answered, and how long that took.
    pub(super) fn note_answer(&self, latency: Duration, certificate_ends_ms: Option<i64>) {
        let mut doing = lock(&self.doing);
        doing.latency = Some(latency);
        doing.answered_at_ms = Some(self.clock.now_ms());
        doing.certificate_ends_ms = certificate_ends_ms;
        self.metrics.peer_latency.get_or_create(&self.label()).set(latency.as_secs_f64());
    }

    /// Takes the result of a health call; `answered` with whatever.
    pub fn set_health(&self, state: HealthState, reason: Option<String>, answered: bool) {
        let now_ms = self.clock.now_ms();
        let before = {
            let mut doing = lock(&self.doing);
            if let Some(reason) = &reason {
                doing.last_error = Some(Mishap { at_ms: now_ms, reason: reason.clone() });
            }
            let health = Health { state, reason: reason.clone(), checked_at_ms: Some(now_ms), answered };
            std::mem::replace(&mut doing.health, health)
        };
        self.note_link();
        self.metrics.peer_state.get_or_create(&self.label()).set(state as i64);
        if before.state != state {
            let reason = reason.unwrap_or_default();
            tracing::info!(peer.id = %self.id(), from = before.state.as_str(), to = state.as_str(), reason,
                "a peer's health changed");
        }
    }

    /// Brings the one word for it up to date.
    pub(super) fn note_link(&self) {
        let standing = self.standing();
        let mut doing = lock(&self.doing);
        let (health, answered) = (doing.health.state, doing.health.answered);
        let facts = LinkFacts { standing, health, answered, circuit: doing.circuit };
        doing.judge(facts, self.clock.now_ms());
    }

    /// All that is known of how it is doing.
    pub fn doing(&self) -> Doing {
        // A breaker turns half open by time alone.
        self.show_circuit();
        lock(&self.doing).clone()
    }

    /// Takes note of the process that speaks as this peer; false when it is one that another had superseded:
    /// then two processes share one identity.
    pub fn note_instance(&self, instance: &str) -> bool {
        lock(&self.doing).note_instance(instance, self.clock.now_ms())
    }

    /// Takes that a reader gave up so many sequences, which it passed over for good.
    pub(super) fn note_given_up(&self, sequences: u64) {
        let mut doing = lock(&self.doing);
        doing.given_up.sequences = doing.given_up.sequences.saturating_add(sequences);
        doing.given_up.at_ms = Some(self.clock.now_ms());
        self.metrics.events_given_up.get_or_create(&self.label()).inc_by(sequences);
    }

    /// Takes the digest of its policy; says so when two gateways of one domain begin to differ.
    pub(super) fn set_policy_digest(&self, digest: Option<String>, own: &OwnIdentity) {
        let mut doing = lock(&self.doing);
        let same_domain = self.enrolment.domain == own.domain;
        let drifts = same_domain && digest.as_ref().is_some_and(|digest| *digest != own.policy_digest);
        if drifts && doing.policy_digest != digest {
            tracing::warn!(peer.id = %self.id(), theirs = digest, ours = own.policy_digest,
                "config drift: a peer of this domain has another policy");
        }
        self.metrics.config_drift.get_or_create(&self.label()).set(i64::from(drifts));
        (doing.policy_digest, doing.drifts) = (digest, drifts);
    }
}
