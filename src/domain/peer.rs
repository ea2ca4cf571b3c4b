//! What a peer is, what it can do, and how it is doing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What kind of server answers at a peer's base URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerKind {
    /// Another Causeway.
    Gateway,
    /// A plain orchestrator (AgentOS calls it Stack A).
    Orchestrator,
}

impl PeerKind {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            PeerKind::Gateway => "gateway",
            PeerKind::Orchestrator => "orchestrator",
        }
    }
}

/// The capabilities this gateway declares, in our words.
pub const FEATURES: [&str; 5] =
    ["runs.forward", "events.ingest", "events.sse_proxy", "tenant_isolation", "idempotent_create"];

/// The capabilities a plain orchestrator has without being asked.
pub const ORCHESTRATOR_FEATURES: [&str; 3] = ["runs.forward", "events.sse_proxy", "tenant_isolation"];

/// A set of capability names, whatever vocabulary they were said in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    names: BTreeSet<String>,
    /// Model tiers the peer says it has; empty when it did not say.
    pub model_tiers: BTreeSet<String>,
}

impl Capabilities {
    /// Collects names, each brought to our word for it.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.into_iter().map(|name| canonical(name).to_owned()).collect();
        Capabilities { names, model_tiers: BTreeSet::new() }
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Those of `required` that are missing, as the caller spelt them.
    pub fn missing<'a>(&self, required: &'a [String]) -> Vec<&'a str> {
        required.iter().map(String::as_str).filter(|name| !self.names.contains(canonical(name))).collect()
    }
}

/// Brings both AgentOS vocabularies to one word per capability.
fn canonical(name: &str) -> &str {
    match name {
        "runs_forward" | "forward" => "runs.forward",
        "events_stream" | "events.stream" | "sse_proxy" => "events.sse_proxy",
        "events_ingest" => "events.ingest",
        "tenant.isolation" => "tenant_isolation",
        "tool.hosting" | "tools.hosting" => "tool_hosting",
        other => other,
    }
}

/// How a peer is doing, from real calls only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Not asked yet.
    Unknown,
    /// The last call succeeded.
    Healthy,
    /// It answers, but not as it should.
    Degraded,
    /// Recent calls failed.
    Failing,
    /// The breaker is open: no call is made until it is tried again.
    Open,
}

impl HealthState {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthState::Unknown => "unknown",
            HealthState::Healthy => "healthy",
            HealthState::Degraded => "degraded",
            HealthState::Failing => "failing",
            HealthState::Open => "open",
        }
    }

    /// True when a forward that names no peer may choose this one.
    pub fn may_be_chosen(self) -> bool {
        matches!(self, HealthState::Healthy | HealthState::Unknown | HealthState::Degraded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_capability_vocabularies_are_understood() {
        //
        let capabilities = Capabilities::new(["runs_forward", "events.sse_proxy", "tool_hosting"]);
        let asked = ["runs.forward", "events_stream", "tool_hosting", "gpu"].map(String::from);
        assert_eq!(capabilities.missing(&asked), ["gpu"]);
    }
}
