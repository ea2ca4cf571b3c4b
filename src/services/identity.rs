//! Who calls: proven before any handler runs, and carried by every request after that.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use super::rates::Allowance;
use crate::domain::cursor::Cursor;
use crate::domain::grants::Operation;
use crate::domain::id::{PrincipalId, RunId, TenantId};
use crate::domain::policy::Subject;
use crate::domain::scope::Scopes;
use crate::domain::succession::Succession;
use crate::protocol::problem::Problem;
use crate::protocol::signature::Claim;
use crate::protocol::tenant_field::Renaming;
use crate::tls::Presented;

/// What begins the principal that a peer acts as; no client may bear it.
pub const PEER_PRINCIPAL: &str = "peer:";

/// True for a principal that the audit would take for somebody else than a client.
pub(super) fn is_reserved(principal: &PrincipalId) -> bool {
    [PEER_PRINCIPAL, "operator:", "gateway:", "address:", "hub:"]
        .iter()
        .any(|prefix| principal.as_str().starts_with(prefix))
}

/// The door a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `server.listen`: clients, and peers that sign.
    Public,
    /// `peering.listen`: peers, with mutual TLS.
    Peers,
    /// `server.admin_listen`: operators' machines.
    Admin,
    /// The control socket: whoever may use the data directory is an operator.
    Control,
}

/// What the connection of a request proved.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The door.
    pub door: Door,
    /// Where the connection comes from; none for the control socket.
    pub address: Option<IpAddr>,
    /// The certificate its other end showed.
    pub certificate: Option<Presented>,
}

/// Who calls.
#[derive(Clone)]
pub enum Who {
    /// Somebody who is believed: profile dev.
    Unproven,
    /// A tenant's principal, by token, JWT or ticket.
    Client(Client),
    /// Somebody who runs this gateway.
    Operator {
        /// Their name in the audit.
        name: String,
    },
    /// Another gateway or orchestrator.
    Peer(Arc<Peer>),
}

/// A client as its credential names it.
#[derive(Debug, Clone)]
pub struct Client {
    /// Whose things it may see.
    pub tenant: TenantId,
    /// Who acts.
    pub principal: PrincipalId,
    /// What for.
    pub scopes: Scopes,
    /// Cancelled when the credential is revoked.
    pub ended: CancellationToken,
    /// When the credential ends, in milliseconds since the Unix epoch.
    pub until_ms: Option<i64>,
    /// The one run and cursor it is for: a stream ticket.
    pub only: Option<(RunId, Option<Cursor>)>,
}

/// A caller whose credential was checked.
#[derive(Clone)]
pub struct Identity {
    /// Who.
    pub who: Who,
    /// `X-Tenant-Id`, which only some callers may choose.
    pub tenant: Option<String>,
    /// `X-Principal-Id`.
    pub principal: Option<String>,
    /// What its signature says, for the body.
    pub claim: Option<Arc<Claim>>,
    /// The key to come, as a peer announces it.
    pub succession: Option<Succession>,
    /// The door it came in by.
    pub door: Door,
    /// Where it stands under its limits.
    pub allowances: Vec<Allowance>,
}

/// A caller that may do what it asked.
#[derive(Clone)]
pub struct Caller {
    /// Whose things the caller may see.
    pub tenant: TenantId,
    /// What the caller calls this tenant: whatever it is answered says so.
    pub tenant_said: TenantId,
    /// Who acts.
    pub principal: PrincipalId,
    /// Which peer, when it is one.
    pub peer: Option<Arc<Peer>>,
    /// Cancelled when the caller may do no more.
    pub ended: CancellationToken,
    /// When that happens by itself, in milliseconds since the Unix epoch.
    pub until_ms: Option<i64>,
}

impl Who {
    /// As the audit names the caller.
    pub fn subject(&self) -> String {
        match self {
            Who::Unproven => "unproven".to_owned(),
            Who::Client(client) => client.principal.to_string(),
            Who::Operator { name } => format!("operator:{name}"),
            Who::Peer(peer) => format!("{PEER_PRINCIPAL}{}", peer.id()),
        }
    }

    /// As policy judges the caller.
    pub fn as_subject(&self) -> Subject<'_> {
        match self {
            Who::Unproven => Subject::Unproven,
            Who::Client(client) => Subject::Client(client.scopes),
            Who::Operator { .. } => Subject::Operator,
            Who::Peer(peer) => Subject::Peer(peer.facts()),
        }
    }
}

impl Identity {
    /// A caller without any of the rest.
    pub fn of(who: Who) -> Self {
        Identity {
            who,
            tenant: None,
            principal: None,
            claim: None,
            succession: None,
            door: Door::Public,
            allowances: Vec::new(),
        }
    }

    /// Refuses a body that is not the one that was signed.
    pub fn check_body(&self, body: &[u8]) -> Result<(), Problem> {
        match &self.claim {
            Some(claim) => claim.check_digest(body).map_err(super::refusal::signature),
            None => Ok(()),
        }
    }
}

impl Caller {
    /// As the audit names the caller.
    pub fn subject(&self) -> String {
        match &self.peer {
            Some(peer) => format!("{PEER_PRINCIPAL}{}", peer.id()),
            None => self.principal.to_string(),
        }
    }

    /// How what it is answered gets its own name of the tenant; none where that is ours.
    pub fn renaming(&self) -> Option<Renaming> {
        Renaming::between(self.tenant.as_str(), self.tenant_said.as_str())
    }

    /// True when a thing this principal made is the caller's to see. A client sees what its tenant has; a peer
    /// what it made itself, unless it may subscribe to all.
    pub fn may_see(&self, made_by: Option<&PrincipalId>) -> bool {
        let Some(peer) = &self.peer else { return true };
        peer.enrolment.grants.operations.contains(&Operation::Subscribe) || self.is_peer_that_made(made_by)
    }

    /// True for a peer, of a thing it made itself.
    pub fn is_peer_that_made(&self, made_by: Option<&PrincipalId>) -> bool {
        let (Some(peer), Some(principal)) = (&self.peer, made_by) else { return false };
        let own = format!("{PEER_PRINCIPAL}{}", peer.id());
        principal.as_str().strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Caller({} of {})", self.principal, self.tenant)
    }
}
