//! The boundary between domains, as configured: the policy that decides, and configured peers before it.

use super::draft::Draft;
use super::sections::Config;
use crate::domain::id::{PeerId, is_id};
use crate::domain::policy::{Action, Bridge, Object, PeerFacts, Policy, Standing, Subject, decide};
use crate::domain::units::quoted;
use crate::services::peer_options::PeerOptions;
use crate::services::trust_options::BridgeOptions;

impl Config {
    /// The policy that the configuration says.
    ///
    /// # Panics
    ///
    /// When a bridge names a peer by what is no id, which no loaded configuration does: left out of the list,
    /// it would open the bridge to everybody.
    pub fn to_policy(&self) -> Policy {
        let id = |text: &String| PeerId::parse(text).expect("bridges name peers by their ids");
        let bridge = |options: &BridgeOptions| Bridge {
            allowed_peers: options.allowed_peers.iter().map(id).collect(),
            operations: options.operations.clone(),
        };
        Policy {
            domain: self.policy.domain.clone(),
            mode: self.policy.federation_mode,
            allowed_foreign_domains: self.policy.allowed_foreign_domains.clone(),
            bridges: self.bridges.iter().map(|(domain, options)| (domain.clone(), bridge(options))).collect(),
        }
    }
}

/// Keeps every mistake of the names of domains.
pub(super) fn check(config: &Config, draft: &mut Draft) {
    let policy = &config.policy;
    if !is_id(&policy.domain) {
        draft.refuse_checked("policy.domain", &not_a_domain(&policy.domain));
    }
    if let Some(bad) = policy.allowed_foreign_domains.iter().find(|domain| !is_id(domain)) {
        draft.refuse_checked("policy.allowed_foreign_domains", &not_a_domain(bad));
    }
    let own = draft.bridges().iter().find(|bridge| bridge.domain == policy.domain);
    if let Some(origin) = own.map(|bridge| bridge.origin.clone()) {
        let message = format!(
            "{} is this gateway's own domain (policy.domain): a bridge leads to a foreign one",
            quoted(&policy.domain)
        );
        draft.refuse(origin, "bridges", &message);
    }
}

/// What the boundary says of a configured peer, in the words the API has for one that is enrolled.
pub(super) fn refusal(config: &Config, policy: &Policy, peer: &PeerOptions) -> Option<String> {
    let grants = peer.grants(config.gateway.profile);
    let domain = if peer.domain.is_empty() { &policy.domain } else { &peer.domain };
    let (id, region) = (&peer.peer_id, peer.region.as_str());
    let facts = PeerFacts { id, domain, region, standing: Standing::Active, grants: &grants };
    let object = Object { peer: Some(facts), ..Object::default() };
    let decided = decide(policy, Subject::Operator, Action::EnrolPeer, object);
    decided.err().filter(|_| is_id(domain)).map(|denial| denial.reason)
}

/// What to say of a name that no domain can have.
pub(super) fn not_a_domain(text: &str) -> String {
    format!("{} is not a domain: write 1 to 128 visible ASCII characters", quoted(text))
}
