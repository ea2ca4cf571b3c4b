//! Who may do what: one pure decision for clients, operators and peers alike.
//!
//! ```text
//! standing ─▶ boundary between domains ─▶ operation ─▶ tenant ─▶ agent ─▶ region
//! ```
//!
//! Deny by default, and every answer has a rule and a reason. A peer that was configured, enrolled while the
//! gateway runs, or that comes in by itself is judged by the same lines.

use std::collections::BTreeMap;
use std::fmt;

use super::grants::{Grants, Operation};
use super::id::{PeerId, TenantId};
use super::limits::clean_reason;
use super::scope::{Scope, Scopes};

/// How a gateway treats peers of other domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FederationMode {
    /// Peers of the own domain only.
    #[default]
    Strict,
    /// Also the domains that are allowed or bridged.
    Bridging,
    /// Every domain.
    Open,
}

impl FederationMode {
    /// The name in configuration and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            FederationMode::Strict => "strict",
            FederationMode::Bridging => "bridging",
            FederationMode::Open => "open",
        }
    }
}

/// An explicit permission between two domains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bridge {
    /// The peers that may use it; empty: every enrolled peer of the domain.
    pub allowed_peers: Vec<PeerId>,
    /// What may be done over it, within each peer's own grants; empty: everything.
    pub operations: Vec<Operation>,
}

/// What the operator said of domains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The domain this gateway belongs to.
    pub domain: String,
    /// How strict the boundary is.
    pub mode: FederationMode,
    /// Foreign domains allowed in mode bridging.
    pub allowed_foreign_domains: Vec<String>,
    /// Bridges, by foreign domain.
    pub bridges: BTreeMap<String, Bridge>,
}

/// Whether a peer takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Active,
    /// Nothing new is begun with it; what runs goes on.
    Draining,
    /// It is cut off.
    Revoked,
    /// A hub introduced it, and no operator has accepted it: it takes no part yet.
    Introduced,
}

impl Standing {
    /// The name in the store and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Draining => "draining",
            Standing::Revoked => "revoked",
            Standing::Introduced => "introduced",
        }
    }

    /// The standing of this name.
    pub fn find(name: &str) -> Option<Self> {
        [Standing::Active, Standing::Draining, Standing::Revoked, Standing::Introduced]
            .into_iter()
            .find(|standing| standing.as_str() == name)
    }
}

/// What policy knows of a peer; a display name is not in it.
#[derive(Debug, Clone, Copy)]
pub struct PeerFacts<'a> {
    /// Its proven id.
    pub id: &'a PeerId,
    /// The domain it is enrolled in.
    pub domain: &'a str,
    /// The region it is placed in, which is where its runs run; empty: nobody said.
    pub region: &'a str,
    /// Whether it takes part.
    pub standing: Standing,
    /// What its operator-made entry grants.
    pub grants: &'a Grants,
}

/// Who wants something.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// Believed without proof: profile dev.
    Unproven,
    /// The gateway itself, about work it has let in.
    Own,
    /// A tenant's principal.
    Client(Scopes),
    /// Somebody who runs this gateway.
    Operator,
    /// Another gateway or orchestrator.
    Peer(PeerFacts<'a>),
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Create a run, here or at a peer.
    CreateRun,
    /// Look at runs and forwards.
    ReadRuns,
    /// Cancel a run.
    CancelRun,
    /// Follow events.
    ReadEvents,
    /// Push events.
    IngestEvents,
    /// Look at peers.
    ReadPeers,
    /// Enrol a peer, or let it in at start.
    EnrolPeer,
    /// Change or see what only operators may.
    Administer,
}

impl Action {
    /// The name in the audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::CreateRun => "run.create",
            Action::ReadRuns => "run.read",
            Action::CancelRun => "run.cancel",
            Action::ReadEvents => "events.read",
            Action::IngestEvents => "events.ingest",
            Action::ReadPeers => "peers.read",
            Action::EnrolPeer => "peer.enrol",
            Action::Administer => "administer",
        }
    }

    /// Every action, for whoever must know them all.
    pub const ALL: [Action; 8] = [
        Action::CreateRun,
        Action::ReadRuns,
        Action::CancelRun,
        Action::ReadEvents,
        Action::IngestEvents,
        Action::ReadPeers,
        Action::EnrolPeer,
        Action::Administer,
    ];

    fn scope(self) -> Scope {
        match self {
            Action::CreateRun => Scope::RunsForward,
            Action::ReadRuns | Action::ReadPeers => Scope::RunsRead,
            Action::CancelRun => Scope::RunsCancel,
            Action::ReadEvents => Scope::EventsRead,
            Action::IngestEvents => Scope::EventsIngest,
            Action::EnrolPeer | Action::Administer => Scope::Admin,
        }
    }
}

/// What it is wanted on. What is not known yet is left out, and not judged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Object<'a> {
    /// The tenant it belongs to.
    pub tenant: Option<&'a str>,
    /// The agent that is to run.
    pub agent: Option<&'a str>,
    /// Where the run is asked to run, or runs; whoever runs it knows better, where it is placed.
    pub region: Option<&'a str>,
    /// The peer the work goes to, or that is enrolled.
    pub peer: Option<PeerFacts<'a>>,
}

/// Which line of the policy refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The peer was cut off.
    PeerRevoked,
    /// The peer was introduced only.
    PeerIntroduced,
    /// The peer takes nothing new.
    PeerDraining,
    /// The boundary between domains.
    FederationBoundary,
    /// The peer has no grant for the operation.
    OperationNotGranted,
    /// The peer has no grant for the tenant.
    TenantNotGranted,
    /// The peer has no grant for the agent.
    AgentNotGranted,
    /// The peer has no grant for the region.
    RegionNotGranted,
    /// The credential lacks the scope.
    InsufficientScope,
    /// This is for operators.
    OperatorsOnly,
}

impl Rule {
    /// The name on the wire and in the audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::PeerRevoked => "peer_revoked",
            Rule::PeerIntroduced => "peer_introduced",
            Rule::PeerDraining => "peer_draining",
            Rule::FederationBoundary => "federation_boundary",
            Rule::OperationNotGranted => "operation_not_granted",
            Rule::TenantNotGranted => "tenant_not_granted",
            Rule::AgentNotGranted => "agent_not_granted",
            Rule::RegionNotGranted => "region_not_granted",
            Rule::InsufficientScope => "insufficient_scope",
            Rule::OperatorsOnly => "operators_only",
        }
    }
}

/// A refusal: the rule, and a sentence that says what would change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The rule.
    pub rule: Rule,
    /// The sentence.
    pub reason: String,
}

impl fmt::Display for Denial {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)
    }
}

/// Decides. Nothing else in the gateway does.
pub fn decide(
    policy: &Policy,
    subject: Subject<'_>,
    action: Action,
    object: Object<'_>,
) -> Result<(), Denial> {
    match subject {
        Subject::Unproven | Subject::Own => {}
        Subject::Client(scopes) => check_scope(scopes, action)?,
        Subject::Operator => check_operator(action)?,
        Subject::Peer(peer) => check_inbound(policy, peer, action, object)?,
    }
    match object.peer {
        None => Ok(()),
        Some(peer) if action == Action::EnrolPeer => check_boundary(policy, peer, None),
        Some(peer) => check_outbound(policy, peer, action, object),
    }
}

/// The tenant that a peer means, in our words: before anything is looked up or decided.
pub fn tenant_meant(peer: PeerFacts<'_>, said: &TenantId) -> Result<TenantId, Denial> {
    match peer.grants.tenant_names.ours(said) {
        Some(tenant) => Ok(tenant),
        None => deny_tenant(peer, said.as_str()),
    }
}

fn deny<T>(rule: Rule, reason: String) -> Result<T, Denial> {
    Err(Denial { rule, reason })
}

fn check_scope(scopes: Scopes, action: Action) -> Result<(), Denial> {
    let needed = action.scope();
    if scopes.allows(needed) {
        return Ok(());
    }
    deny(Rule::InsufficientScope, format!("the credential lacks the scope {}", needed.as_str()))
}

/// Operators run the gateway; what belongs to tenants is not theirs.
fn check_operator(action: Action) -> Result<(), Denial> {
    match action {
        Action::EnrolPeer | Action::Administer | Action::ReadPeers => Ok(()),
        _ => check_scope(Scopes::default(), action),
    }
}

fn check_inbound(
    policy: &Policy,
    peer: PeerFacts<'_>,
    action: Action,
    object: Object<'_>,
) -> Result<(), Denial> {
    check_standing(peer, action == Action::CreateRun)?;
    let operation = match action {
        Action::CreateRun | Action::CancelRun | Action::ReadRuns | Action::ReadEvents => Operation::ForwardIn,
        Action::IngestEvents => Operation::Ingest,
        // Every enrolled peer may ask who this gateway is.
        Action::ReadPeers => return check_boundary(policy, peer, None),
        Action::EnrolPeer | Action::Administer => {
            return deny(Rule::OperatorsOnly, "this is for operators; a peer cannot be one".to_owned());
        }
    };
    let also = matches!(action, Action::ReadRuns | Action::ReadEvents).then_some(Operation::Subscribe);
    let operation = also.filter(|also| peer.grants.operations.contains(also)).unwrap_or(operation);
    check_boundary(policy, peer, Some(operation))?;
    let runner = match action {
        Action::CreateRun => object.peer,
        Action::IngestEvents => Some(peer),
        _ => None,
    };
    // Where a run that is only asked for is to run is not known before somebody is chosen to run it.
    let unknown = runner.map(|_| "");
    check_grants(peer, operation, Object { region: region_of(object, runner).or(unknown), ..object })
}

fn check_outbound(
    policy: &Policy,
    peer: PeerFacts<'_>,
    action: Action,
    object: Object<'_>,
) -> Result<(), Denial> {
    check_standing(peer, action == Action::CreateRun)?;
    check_boundary(policy, peer, Some(Operation::ForwardOut))?;
    // A run that was begun there was judged by the region that was asked for then.
    let unknown = (action == Action::CreateRun).then_some("");
    let region = region_of(object, Some(peer)).or(unknown);
    check_grants(peer, Operation::ForwardOut, Object { region, ..object })
}

/// Where a run runs: where the one that runs it is placed, else as it was asked for.
fn region_of<'a>(object: Object<'a>, runner: Option<PeerFacts<'a>>) -> Option<&'a str> {
    runner.map(|peer| peer.region).filter(|region| !region.is_empty()).or(object.region)
}

fn check_standing(peer: PeerFacts<'_>, begins: bool) -> Result<(), Denial> {
    match peer.standing {
        Standing::Revoked => deny(Rule::PeerRevoked, format!("peer `{}` is revoked", peer.id)),
        Standing::Introduced => deny(
            Rule::PeerIntroduced,
            format!("peer `{}` was introduced by a hub, and no operator has accepted it", peer.id),
        ),
        Standing::Draining if begins => {
            deny(Rule::PeerDraining, format!("peer `{}` is drained: it takes nothing new", peer.id))
        }
        Standing::Active | Standing::Draining => Ok(()),
    }
}

/// The boundary between domains; `operation` narrows what a bridge allows.
fn check_boundary(policy: &Policy, peer: PeerFacts<'_>, operation: Option<Operation>) -> Result<(), Denial> {
    if peer.domain == policy.domain {
        return Ok(());
    }
    let between =
        format!("peer `{}` is in domain `{}`, this gateway in `{}`", peer.id, peer.domain, policy.domain);
    let refuse = |why: &str| deny(Rule::FederationBoundary, format!("{between}: {why}"));
    match policy.mode {
        FederationMode::Open => return Ok(()),
        FederationMode::Strict => {
            return refuse(
                "cross-federation connections are not supported in policy.federation_mode = \"strict\"; set \
                 \"bridging\" and add the domain to policy.allowed_foreign_domains or as a bridge",
            );
        }
        FederationMode::Bridging => {}
    }
    let Some(bridge) = policy.bridges.get(peer.domain) else {
        let is_allowed = policy.allowed_foreign_domains.iter().any(|domain| domain == peer.domain);
        return if is_allowed {
            Ok(())
        } else {
            refuse("the domain is neither in policy.allowed_foreign_domains nor a bridge")
        };
    };
    if !bridge.allowed_peers.is_empty() && !bridge.allowed_peers.contains(peer.id) {
        return refuse("the bridge's allowed_peers do not name it");
    }
    match operation {
        Some(operation) if !bridge.operations.is_empty() && !bridge.operations.contains(&operation) => {
            refuse(&format!("the bridge's operations do not include {}", operation.as_str()))
        }
        _ => Ok(()),
    }
}

fn check_grants(peer: PeerFacts<'_>, operation: Operation, object: Object<'_>) -> Result<(), Denial> {
    let grants = peer.grants;
    if !grants.operations.contains(&operation) {
        return deny(
            Rule::OperationNotGranted,
            format!("peer `{}` is not granted {}", peer.id, operation.as_str()),
        );
    }
    if let Some(tenant) = object.tenant.filter(|tenant| !grants.has_tenant(tenant)) {
        return deny_tenant(peer, tenant);
    }
    if let Some(agent) = object.agent.filter(|agent| !grants.has_agent(agent)) {
        return deny(Rule::AgentNotGranted, format!("peer `{}` is not granted agent `{agent}`", peer.id));
    }
    if let Some(region) = object.region.filter(|region| !grants.has_region(region)) {
        let regions = grants.regions.join(", ");
        let reason = match region {
            "" => format!(
                "peer `{}` is granted the regions {regions} only, and nobody says where the run would run: set \
                 `region` of the peer that runs it",
                peer.id
            ),
            _ => format!(
                "peer `{}` is granted the regions {regions}, and not `{}`",
                peer.id,
                clean_reason(region)
            ),
        };
        return deny(Rule::RegionNotGranted, reason);
    }
    Ok(())
}

fn deny_tenant<T>(peer: PeerFacts<'_>, tenant: &str) -> Result<T, Denial> {
    deny(Rule::TenantNotGranted, format!("peer `{}` is not granted tenant `{tenant}`", peer.id))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
