//! The one door: who calls, and whether they may. Every request goes through here and nowhere else.
//!
//! ```text
//! arrival ─▶ authenticate (credential, key, nonce, rate) ─▶ handler reads ─▶ admit (policy on the object)
//! ```
//!
//! Invariant: a refusal is counted and audited, and tells a client nothing of what is not its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::audit_log::AuditLog;
use super::credentials::{Gate, is_costly};
use super::identity::{Arrival, Caller, Door, Identity, PEER_PRINCIPAL, Who};
use super::options::Profile;
use super::peer::Peer;
use super::peers::Peers;
use super::rates::{Allowance, Exceeded, RateKey, Rates};
use super::refusal::{denied, unauthorized};
use super::replay::Replay;
use super::tickets::Tickets;
use super::tokens::Tokens;
use crate::domain::id::{MAX_ID_BYTES, PrincipalId, TenantId};
use crate::domain::policy::{Denial, Policy, Subject, decide, tenant_meant};
use crate::domain::rate::Rate;
use crate::metrics::{Metrics, Reason};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::headers;
use crate::protocol::problem::Problem;
use crate::store::{NewAudit, Store};
use crate::tasks::Tasks;

pub use super::credentials::{AdmissionRules, Head};
pub use crate::domain::policy::{Action, Object};

/// What a credential is checked for, as the audit names it.
const AUTHENTICATE: &str = "authenticate";

/// Which way an act between this gateway and a peer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer asks here.
    In,
    /// This gateway's work goes to the peer.
    Out,
}

/// The door.
#[derive(Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

struct Shared {
    gate: Gate,
    rates: Rates,
    /// For peers whose entry has a rate of its own: one for each such rate.
    own_rates: Mutex<HashMap<Rate, Arc<Rates>>>,
    audit: AuditLog,
    metrics: Arc<Metrics>,
}

impl Admission {
    /// Guards what `store` holds.
    pub fn new(
        rules: AdmissionRules,
        (store, peers, tokens): (&Store, &Peers, Tokens),
        (rates, audit): (Rates, AuditLog),
        tasks: &Tasks,
    ) -> Self {
        let maker = peers.maker();
        let (clock, metrics) = (maker.clock.clone(), Arc::clone(&maker.metrics));
        let replay = Replay::new(store.clone(), clock.clone(), tasks.clone());
        let tickets = Tickets::new(clock.clone(), maker.entropy.clone(), rules.ticket_lifetime);
        let gate = Gate { rules, peers: peers.clone(), tokens, tickets, replay, clock };
        let own_rates = Mutex::default();
        let shared = Shared { gate, rates, own_rates, audit, metrics };
        Admission { shared: Arc::new(shared) }
    }

    /// The tickets it takes.
    pub fn tickets(&self) -> &Tickets {
        &self.shared.gate.tickets
    }

    /// The domains and bridges it knows.
    pub fn policy(&self) -> &Policy {
        &self.shared.gate.rules.policy
    }

    /// How strict it is.
    pub fn profile(&self) -> Profile {
        self.shared.gate.rules.profile
    }

    /// Drops what has not been used of late.
    pub fn sweep(&self) {
        self.shared.rates.sweep();
        for rates in self.shared.own_rates.lock().unwrap_or_else(PoisonError::into_inner).values() {
            rates.sweep();
        }
    }

    /// Finds out who calls, from the credential a request shows, and counts the request.
    pub async fn authenticate(&self, arrival: &Arrival, head: Head<'_>) -> Result<Identity, Problem> {
        if is_costly(head.headers) {
            self.hear(arrival)?;
        }
        let refuse = |problem| self.refuse_unproven(arrival, AUTHENTICATE, head.correlation_id, problem);
        let found = self.shared.gate.identify(arrival, head).await.map_err(refuse)?;
        let text = |name: &str| Some(head.headers.get(name)?.to_str().unwrap_or("").to_owned());
        let mut identity = Identity {
            tenant: text(headers::TENANT),
            principal: text(headers::PRINCIPAL),
            door: arrival.door,
            ..found
        };
        match self.count(&identity) {
            Ok(allowances) => identity.allowances = allowances,
            Err(exceeded) => {
                self.shared.metrics.backpressure.get_or_create(&Reason { reason: "rate" }).inc();
                let subject = identity.who.subject();
                self.note_refusal(subject, AUTHENTICATE, head.correlation_id, ErrorCode::RateLimited);
                let facts = super::rates::headers([&exceeded.allowance]);
                return Err(Problem::new(ErrorCode::RateLimited, exceeded.to_string())
                    .with("limit", exceeded.allowance.kind.as_str())
                    .retry_after(exceeded.retry_after)
                    .with_headers(facts.into_iter().flatten()));
            }
        }
        Ok(identity)
    }

    /// A network that failed to prove itself too often is not worth a signature's check.
    pub fn hear(&self, arrival: &Arrival) -> Result<(), Problem> {
        let Some(address) = arrival.address.filter(|_| arrival.door == Door::Public) else { return Ok(()) };
        let peeked = self.shared.rates.peek(&RateKey::address(address));
        peeked.map(drop).map_err(|exceeded| failed_too_often(&exceeded))
    }

    fn count(&self, identity: &Identity) -> Result<Vec<Allowance>, Exceeded> {
        let keys = match &identity.who {
            Who::Operator { .. } => [None, None],
            Who::Peer(peer) => return Ok(self.count_peer(peer)?.into_iter().collect()),
            Who::Client(client) => {
                let (tenant, principal) = (client.tenant.clone(), client.principal.clone());
                // The narrow one first: what one caller asks too much is not counted against its neighbours.
                [RateKey::Principal(tenant.clone(), principal), RateKey::Tenant(tenant)].map(Some)
            }
            Who::Unproven => {
                let tenant = identity.tenant.as_deref().and_then(|tenant| TenantId::parse(tenant).ok());
                let tenant = tenant.or_else(|| self.shared.gate.rules.default_tenant.clone());
                [tenant.map(RateKey::Tenant), None]
            }
        };
        let mut allowances = Vec::new();
        for key in keys.into_iter().flatten() {
            allowances.extend(self.shared.rates.check(&key)?);
        }
        Ok(allowances)
    }

    /// The rate of a peer's own entry goes before the general one.
    fn count_peer(&self, peer: &Peer) -> Result<Option<Allowance>, Exceeded> {
        let key = RateKey::Peer(peer.id().clone());
        let Some(rate) = peer.options.rate else { return self.shared.rates.check(&key) };
        let rates = {
            let mut own = self.shared.own_rates.lock().unwrap_or_else(PoisonError::into_inner);
            let clock = self.shared.gate.clock.clone();
            let make = || Arc::new(Rates::of_peers(rate, move || clock.monotonic()));
            Arc::clone(own.entry(rate).or_insert_with(make))
        };
        rates.check(&key)
    }

    /// Counts and audits the refusal of a credential; too many from one network, and it hears no more.
    pub fn refuse_unproven(
        &self,
        arrival: &Arrival,
        action: &str,
        correlation_id: &str,
        problem: Problem,
    ) -> Problem {
        let reason = Reason { reason: problem.code.as_str() };
        self.shared.metrics.refusals.get_or_create(&reason).inc();
        let unknown = || "unknown".to_owned();
        let subject = arrival.address.map_or_else(unknown, |address| format!("address:{address}"));
        self.note_refusal(subject, action, correlation_id, problem.code);
        match arrival.address.map(|address| self.shared.rates.check(&RateKey::address(address))) {
            Some(Err(exceeded)) => failed_too_often(&exceeded),
            _ => problem,
        }
    }

    /// Notes a refusal that anybody can cause as often as they like: so many a second, the others counted.
    fn note_refusal(&self, subject: String, action: &str, correlation_id: &str, code: ErrorCode) {
        self.shared.audit.note_unproven(NewAudit {
            correlation_id: correlation_id.to_owned(),
            subject,
            action: action.to_owned(),
            outcome: "refused".to_owned(),
            reason: code.as_str().to_owned(),
            ..NewAudit::default()
        });
    }

    /// Decides whether a known caller may do this. `claimed` is the tenant that the body names: where the
    /// caller has none of its own it is believed, elsewhere it must agree.
    pub fn admit(
        &self,
        identity: &Identity,
        claimed: Option<&str>,
        action: Action,
        agent: Option<&str>,
        correlation_id: &str,
    ) -> Result<Caller, Problem> {
        let given = self.own_tenant(identity)?;
        let said = match &identity.who {
            Who::Operator { .. } => None,
            _ => Some(agreed_tenant(given, claimed)?),
        };
        let refuse = |denial: Denial, tenant: Option<&TenantId>| {
            let audited = (identity.who.subject(), tenant.map_or("", TenantId::as_str));
            self.refuse(denial, audited, action, correlation_id)
        };
        let tenant = match (&identity.who, &said) {
            (Who::Peer(peer), Some(said)) => {
                Some(tenant_meant(peer.facts(), said).map_err(|denial| refuse(denial, Some(said)))?)
            }
            _ => said.clone(),
        };
        let object = Object { tenant: tenant.as_ref().map(TenantId::as_str), agent, ..Object::default() };
        decide(self.policy(), identity.who.as_subject(), action, object)
            .map_err(|denial| refuse(denial, tenant.as_ref()))?;
        let (Some(tenant), Some(tenant_said)) = (tenant, said) else { return Err(unauthorized()) };
        let principal = self.principal(identity)?;
        let (peer, ended, until_ms) = match &identity.who {
            Who::Peer(peer) => (Some(Arc::clone(peer)), peer.gone().clone(), None),
            Who::Client(client) => (None, client.ended.clone(), client.until_ms),
            Who::Unproven | Who::Operator { .. } => (None, CancellationToken::new(), None),
        };
        Ok(Caller { tenant, tenant_said, principal, peer, ended, until_ms })
    }

    /// Decides whether a caller without a tenant may do this: an operator, or a peer that asks who we are.
    pub fn admit_untenanted(
        &self,
        identity: &Identity,
        action: Action,
        correlation_id: &str,
    ) -> Result<(), Problem> {
        decide(self.policy(), identity.who.as_subject(), action, Object::default())
            .map_err(|denial| self.refuse(denial, (identity.who.subject(), ""), action, correlation_id))
    }

    /// Decides whether a caller's work may go to a peer.
    pub fn may_send(
        &self,
        tenant: Option<&str>,
        action: Action,
        peer: &Peer,
        agent: Option<&str>,
    ) -> Result<(), Denial> {
        let object = Object { tenant, agent, ..Object::default() };
        self.judge(Direction::Out, action, peer, object)
    }

    /// Decides whether a caller's new run may go to a peer. Where a peer asks for it, what that one is granted
    /// counts too: only now is it known where the run is to run.
    pub fn may_forward(
        &self,
        caller: &Caller,
        peer: &Peer,
        agent: &str,
        region: Option<&str>,
    ) -> Result<(), Denial> {
        let subject = caller.peer.as_ref().map_or(Subject::Own, |from| Subject::Peer(from.facts()));
        let tenant = Some(caller.tenant.as_str());
        let object = Object { tenant, agent: Some(agent), region, peer: Some(peer.facts()) };
        decide(self.policy(), subject, Action::CreateRun, object)
    }

    /// Decides about one peer and one act: of this gateway there, or of the peer here.
    pub fn judge(
        &self,
        direction: Direction,
        action: Action,
        peer: &Peer,
        object: Object<'_>,
    ) -> Result<(), Denial> {
        match direction {
            Direction::Out => {
                let object = Object { peer: Some(peer.facts()), ..object };
                decide(self.policy(), Subject::Own, action, object)
            }
            Direction::In => decide(self.policy(), Subject::Peer(peer.facts()), action, object),
        }
    }

    /// Counts and audits a refusal, and puts it into the words of the wire.
    pub fn refuse(
        &self,
        denial: Denial,
        (subject, tenant): (String, &str),
        action: Action,
        correlation_id: &str,
    ) -> Problem {
        let reason = Reason { reason: denial.rule.as_str() };
        self.shared.metrics.refusals.get_or_create(&reason).inc();
        self.shared.audit.note(NewAudit {
            correlation_id: correlation_id.to_owned(),
            tenant: tenant.to_owned(),
            subject,
            action: action.as_str().to_owned(),
            object: String::new(),
            outcome: "refused".to_owned(),
            reason: format!("{}: {denial}", denial.rule.as_str()),
            meta: String::new(),
        });
        denied(&denial)
    }

    /// The tenant of the credential; where there is none of it, the one the headers name.
    fn own_tenant(&self, identity: &Identity) -> Result<Option<TenantId>, Problem> {
        let header =
            || identity.tenant.as_deref().map(|text| parse_tenant(text, headers::TENANT)).transpose();
        match &identity.who {
            Who::Client(client) => match header()? {
                Some(other) if other != client.tenant => Err(tenant_mismatch(&other, "X-Tenant-Id")),
                _ => Ok(Some(client.tenant.clone())),
            },
            Who::Peer(_) | Who::Operator { .. } => header(),
            Who::Unproven => Ok(header()?.or_else(|| self.shared.gate.rules.default_tenant.clone())),
        }
    }

    fn principal(&self, identity: &Identity) -> Result<PrincipalId, Problem> {
        let parse = |text: &str| {
            PrincipalId::parse(text).map_err(|error| {
                Problem::new(ErrorCode::InvalidRequest, format!("X-Principal-Id {error}"))
                    .with("field", headers::PRINCIPAL)
            })
        };
        let asserted = identity.principal.as_deref();
        asserted.map(parse).transpose()?;
        match &identity.who {
            Who::Client(client) => Ok(client.principal.clone()),
            // A peer vouches for its own principals; they can never be taken for ours.
            Who::Peer(peer) => {
                let own = format!("{PEER_PRINCIPAL}{}", peer.id());
                let of_peer = asserted.filter(|asserted| own.len() + 1 + asserted.len() <= MAX_ID_BYTES);
                parse(&of_peer.map_or(own.clone(), |asserted| format!("{own}/{asserted}")))
            }
            Who::Unproven => parse(asserted.unwrap_or("anonymous")),
            Who::Operator { name } => parse(name),
        }
    }
}

fn failed_too_often(exceeded: &Exceeded) -> Problem {
    let message = "too many failed logins from this network";
    Problem::new(ErrorCode::RateLimited, message)
        .with("limit", "failed_logins")
        .retry_after(exceeded.retry_after)
}

fn parse_tenant(text: &str, field: &str) -> Result<TenantId, Problem> {
    TenantId::parse(text).map_err(|error| {
        Problem::new(ErrorCode::InvalidRequest, format!("the tenant {error}")).with("field", field)
    })
}

fn tenant_mismatch(claimed: &TenantId, place: &str) -> Problem {
    let message = format!("{place} names tenant `{claimed}`, the request belongs to another");
    Problem::new(ErrorCode::TenantMismatch, message).with("field", place)
}

fn agreed_tenant(given: Option<TenantId>, claimed: Option<&str>) -> Result<TenantId, Problem> {
    let claimed = claimed
        .filter(|claimed| !claimed.is_empty())
        .map(|claimed| parse_tenant(claimed, "auth.tenant_id"))
        .transpose()?;
    match (given, claimed) {
        (Some(given), Some(claimed)) if given != claimed => Err(tenant_mismatch(&claimed, "auth.tenant_id")),
        (Some(tenant), _) | (None, Some(tenant)) => Ok(tenant),
        (None, None) => Err(Problem::new(
            ErrorCode::Unauthorized,
            "the request names no tenant: send X-Tenant-Id, or set gateway.default_tenant",
        )
        .with("header", headers::TENANT)),
    }
}

/// The address a request came from, where proxies that may be believed say it.
pub fn client_address(connection: IpAddr, sent: &HeaderMap, is_proxy: impl Fn(IpAddr) -> bool) -> IpAddr {
    if !is_proxy(connection) {
        return connection;
    }
    let values = sent.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<IpAddr> =
        values.flat_map(|value| value.split(',')).filter_map(|hop| hop.trim().parse().ok()).collect();
    // The last address that is no proxy of ours: what stands before it anybody may have written.
    hops.into_iter().rev().find(|hop| !is_proxy(*hop)).unwrap_or(connection)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn address(connection: &str, forwarded: &[&'static str]) -> String {
        let mut sent = HeaderMap::new();
        for value in forwarded {
            sent.append("x-forwarded-for", HeaderValue::from_static(value));
        }
        let is_proxy = |address: IpAddr| address.to_string().starts_with("10.");
        client_address(connection.parse().expect("an address"), &sent, is_proxy).to_string()
    }

    #[test]
    fn only_our_proxies_say_where_a_client_is() {
        // Z-48
        assert_eq!(address("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(address("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(address("10.0.0.1", &["6.6.6.6", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(address("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(address("10.0.0.1", &["garbage"]), "10.0.0.1");
    }

    #[test]
    fn a_tenant_is_agreed_on_or_refused() {
        // defect 14
        let agree = |given: Option<&str>, claimed| {
            let given = given.map(|tenant| TenantId::parse(tenant).expect("a tenant"));
            agreed_tenant(given, claimed).map(|tenant| tenant.to_string()).map_err(|problem| problem.code)
        };
        assert_eq!(agree(Some("a"), Some("a")), Ok("a".into()));
        assert_eq!(agree(Some("a"), Some("b")), Err(ErrorCode::TenantMismatch));
        assert_eq!(agree(Some("a"), None), Ok("a".into()));
        assert_eq!(agree(None, Some("b")), Ok("b".into()));
        assert_eq!(agree(None, None), Err(ErrorCode::Unauthorized));
        assert_eq!(agree(None, Some("a b")), Err(ErrorCode::InvalidRequest));
    }
}
