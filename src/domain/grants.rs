//! What a peer may do: an operator's words, checked once.

use serde::{Deserialize, Serialize};

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
    /// With which agents: agent ids, `prefix*`, or `*`.
    pub agents: Vec<String>,
}

impl Grants {
    /// True when the tenant is granted.
    pub fn has_tenant(&self, tenant: &str) -> bool {
        self.tenants.iter().any(|granted| granted == "*" || granted == tenant)
    }

    /// True when the agent is granted.
    pub fn has_agent(&self, agent: &str) -> bool {
        self.agents.iter().any(|granted| match granted.strip_suffix('*') {
            Some(prefix) => agent.starts_with(prefix),
            None => granted == agent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_name_what_they_grant() {
        //
        let grants = Grants {
            operations: vec![Operation::ForwardIn],
            tenants: vec!["acme".to_owned()],
            agents: vec!["billing-*".to_owned(), "mail".to_owned()],
        };
        assert!(grants.has_tenant("acme") && !grants.has_tenant("acme2") && !grants.has_tenant("*"));
        assert!(grants.has_agent("billing-eu") && grants.has_agent("mail"));
        assert!(!grants.has_agent("mail2") && !grants.has_agent("bill"));
        let nothing = Grants::default();
        assert!(!nothing.has_tenant("acme") && !nothing.has_agent("mail"));
    }
}
