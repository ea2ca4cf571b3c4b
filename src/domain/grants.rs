//! What a peer may do: an operator's words, checked once.

use serde::{Deserialize, Serialize};

use super::tenant_names::TenantNames;

/// Something a peer may be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// It may create runs here, and look at, follow and cancel those it created.
    ForwardIn,
    /// Runs may be created there.
    ForwardOut,
    /// It may push events of runs it is the home of.
    Ingest,
    /// It may look at and follow every run of the tenants it is granted.
    Subscribe,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Operation; 4] =
        [Operation::ForwardIn, Operation::ForwardOut, Operation::Ingest, Operation::Subscribe];

    /// The name in configuration and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::ForwardIn => "forward_in",
            Operation::ForwardOut => "forward_out",
            Operation::Ingest => "ingest",
            Operation::Subscribe => "subscribe",
        }
    }
}

/// The grants of one peer. Empty lists grant nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// What may be done.
    pub operations: Vec<Operation>,
    /// On whose behalf: tenant ids, or `*`.
    pub tenants: Vec<String>,
    /// What it calls them, where it has other names.
    pub tenant_names: TenantNames,
    /// With which agents: agent ids, `prefix*`, or `*`.
    pub agents: Vec<String>,
    /// Where the runs run: regions, `prefix*`, or `*`.
    pub regions: Vec<String>,
}

impl Grants {
    /// True when the tenant is granted: one that has no name at the peer is not.
    pub fn has_tenant(&self, tenant: &str) -> bool {
        let is_listed = self.tenants.iter().any(|granted| granted == "*" || granted == tenant);
        is_listed && self.tenant_names.theirs(tenant).is_some()
    }

    /// The tenants as the peer calls them.
    pub fn tenants_in_its_words(&self) -> impl Iterator<Item = &str> {
        self.tenants.iter().filter_map(|tenant| self.tenant_names.theirs(tenant))
    }

    /// True when the agent is granted.
    pub fn has_agent(&self, agent: &str) -> bool {
        any_matches(&self.agents, agent)
    }

    /// True when the region is granted; one that nobody knows, empty, only where every region is.
    pub fn has_region(&self, region: &str) -> bool {
        any_matches(&self.regions, region)
    }
}

/// True when one of the patterns, each a name, `prefix*` or `*`, fits.
fn any_matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_name_what_they_grant() {
        // A-27
        let grants = Grants {
            operations: vec![Operation::ForwardIn],
            tenants: vec!["acme".to_owned()],
            agents: vec!["billing-*".to_owned(), "mail".to_owned()],
            regions: vec!["eu-*".to_owned(), "home".to_owned()],
            ..Grants::default()
        };
        assert!(grants.has_tenant("acme") && !grants.has_tenant("acme2") && !grants.has_tenant("*"));
        assert!(grants.has_agent("billing-eu") && grants.has_agent("mail"));
        assert!(!grants.has_agent("mail2") && !grants.has_agent("bill"));
        assert!(grants.has_region("eu-west") && grants.has_region("home"));
        assert!(!grants.has_region("us-eu-") && !grants.has_region("home2") && !grants.has_region(""));
        let nothing = Grants::default();
        assert!(!nothing.has_tenant("acme") && !nothing.has_agent("mail") && !nothing.has_region(""));
        assert!(Grants { regions: vec!["*".to_owned()], ..nothing }.has_region(""));
    }

    #[test]
    fn a_tenant_without_a_name_at_the_peer_is_not_granted() {
        let grants = Grants {
            tenants: vec!["*".to_owned()],
            tenant_names: serde_json::from_str(r#"{"acme":"acme-eu"}"#).expect("names"),
            ..Grants::default()
        };
        assert!(grants.has_tenant("acme") && grants.has_tenant("beta") && !grants.has_tenant("acme-eu"));
    }
}
