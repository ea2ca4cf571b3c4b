//! How the way to a peer stands, in one word: what an operator decided, what the last health call found, and
//! what the breaker learned from real work.

use serde::Serialize;

use super::peer::HealthState;
use super::policy::Standing;

/// The one word. What is worse outweighs what is better; the parts are shown beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Not asked yet.
    Unknown,
    /// It answers, and is well.
    Connected,
    /// It answers, and nothing new is begun with it: an operator said so.
    Draining,
    /// It answers, but not as it should.
    Degraded,
    /// Its breaker is not closed: calls failed, and it rests until a probe succeeds.
    CircuitOpen,
    /// It answers and does not let this gateway in, or does not prove who it is.
    Refused,
    /// It does not answer.
    Unreachable,
    /// An operator cut it off.
    Revoked,
    /// A hub introduced it, and no operator has accepted it.
    Introduced,
}

impl LinkState {
    /// Every state, for whoever must know them all.
    pub const ALL: [LinkState; 9] = [
        LinkState::Unknown,
        LinkState::Connected,
        LinkState::Draining,
        LinkState::Degraded,
        LinkState::CircuitOpen,
        LinkState::Refused,
        LinkState::Unreachable,
        LinkState::Revoked,
        LinkState::Introduced,
    ];

    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Unknown => "unknown",
            LinkState::Connected => "connected",
            LinkState::Draining => "draining",
            LinkState::Degraded => "degraded",
            LinkState::CircuitOpen => "circuit_open",
            LinkState::Refused => "refused",
            LinkState::Unreachable => "unreachable",
            LinkState::Revoked => "revoked",
            LinkState::Introduced => "introduced",
        }
    }
}

/// A breaker, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Calls pass.
    Closed,
    /// One call probes, or the next one will.
    HalfOpen,
    /// Nothing passes.
    Open,
}

/// What the word is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFacts {
    /// What an operator decided.
    pub standing: Standing,
    /// What the last health call found.
    pub health: HealthState,
    /// That call was answered, with whatever.
    pub answered: bool,
    /// What the breaker learned.
    pub circuit: Circuit,
}

impl LinkFacts {
    /// The word.
    pub fn state(&self) -> LinkState {
        match (self.standing, self.health, self.circuit) {
            (Standing::Revoked, _, _) => LinkState::Revoked,
            (Standing::Introduced, _, _) => LinkState::Introduced,
            (_, HealthState::Failing, _) if self.answered => LinkState::Refused,
            (_, HealthState::Failing, _) => LinkState::Unreachable,
            (_, _, Circuit::Open | Circuit::HalfOpen) | (_, HealthState::Open, _) => LinkState::CircuitOpen,
            (_, HealthState::Degraded, _) => LinkState::Degraded,
            (_, HealthState::Unknown, _) => LinkState::Unknown,
            (Standing::Draining, HealthState::Healthy, _) => LinkState::Draining,
            (Standing::Active, HealthState::Healthy, _) => LinkState::Connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(standing: Standing, health: HealthState, answered: bool, circuit: Circuit) -> &'static str {
        LinkFacts { standing, health, answered, circuit }.state().as_str()
    }

    // M-03
    #[test]
    fn what_is_worse_outweighs_what_is_better() {
        use Circuit::{Closed, HalfOpen, Open};
        use HealthState::{Degraded, Failing, Healthy, Unknown};
        use Standing::{Active, Draining, Introduced, Revoked};
        assert_eq!(word(Active, Healthy, true, Closed), "connected");
        assert_eq!(word(Active, Unknown, false, Closed), "unknown");
        assert_eq!(word(Draining, Healthy, true, Closed), "draining");
        assert_eq!(word(Draining, Degraded, true, Closed), "degraded");
        assert_eq!(word(Active, Healthy, true, Open), "circuit_open");
        assert_eq!(word(Active, Degraded, true, HalfOpen), "circuit_open");
        assert_eq!(word(Active, Failing, false, Open), "unreachable");
        assert_eq!(word(Draining, Failing, true, Closed), "refused");
        assert_eq!(word(Revoked, Healthy, true, Closed), "revoked");
        assert_eq!(word(Introduced, Unknown, false, Closed), "introduced");
    }
}
