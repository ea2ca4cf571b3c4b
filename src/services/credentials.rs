//! Who calls: the credential that a request shows, checked cheap things first.
//!
//! Clients come with a token, a JWT or a stream ticket; peers with a certificate, a signature or both. Invariant:
//! a credential that is shown and does not hold admits nobody, whatever else the request has.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Uri};
use tokio_util::sync::CancellationToken;

use super::identity::{Arrival, Client, Door, Identity, Who, is_reserved};
use super::jwt::JwtVerifier;
use super::options::Profile;
use super::peer::Peer;
use super::peers::Peers;
use super::refusal::{signature, unauthorized};
use super::replay::Replay;
use super::tickets::Tickets;
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::domain::api_token;
use crate::domain::id::{PeerId, TenantId};
use crate::domain::policy::{Policy, Standing};
use crate::domain::succession::Succession;
use crate::mutants::mutant;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::headers;
use crate::protocol::problem::Problem;
use crate::protocol::signature::{self as message, MAX_SKEW_S, SignedParts};

/// The head of a request, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target, with path and query exactly as sent.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What follows it over all hops.
    pub correlation_id: &'a str,
}

/// What the door is told by the operator.
pub struct AdmissionRules {
    /// How strict it is.
    pub profile: Profile,
    /// Tenant of requests that name none, in profile dev.
    pub default_tenant: Option<TenantId>,
    /// This gateway's own peer id: what signed requests must be meant for.
    pub stack_id: String,
    /// Domains and bridges.
    pub policy: Policy,
    /// Verifies JWTs, if they are accepted.
    pub jwt: Option<Arc<JwtVerifier>>,
    /// Peers must come with mutual TLS.
    pub require_mtls: bool,
    /// How long a stream ticket holds.
    pub ticket_lifetime: Duration,
}

/// Where credentials are checked.
pub(super) struct Gate {
    pub(super) rules: AdmissionRules,
    pub(super) peers: Peers,
    pub(super) tokens: Tokens,
    pub(super) tickets: Tickets,
    pub(super) replay: Replay,
    pub(super) clock: Clock,
}

impl Gate {
    /// Who calls, from the credential that a request shows.
    pub(super) async fn identify(&self, arrival: &Arrival, head: Head<'_>) -> Result<Identity, Problem> {
        let is_signed = message::is_signed(head.headers);
        match arrival.door {
            Door::Control => return Ok(Identity::of(Who::Operator { name: "local".to_owned() })),
            Door::Peers => return self.peer(arrival, head, is_signed).await,
            Door::Public if is_signed => return self.peer(arrival, head, true).await,
            Door::Public | Door::Admin => {}
        }
        if let Some(text) = bearer(head.headers)? {
            return self.bearer(&text).map(Identity::of);
        }
        if let Some(ticket) = ticket(head.uri) {
            let client = self.tickets.take(&ticket).ok_or_else(|| {
                Problem::new(
                    ErrorCode::TicketInvalid,
                    "the stream ticket is used, over, or none: get another",
                )
            })?;
            return Ok(Identity::of(Who::Client(client)));
        }
        match self.rules.profile {
            Profile::Dev => Ok(Identity::of(Who::Unproven)),
            Profile::Prod => Err(unauthorized()),
        }
    }

    fn bearer(&self, text: &str) -> Result<Who, Problem> {
        if let Some(who) = self.tokens.verify(text) {
            return Ok(who);
        }
        let Some(jwt) = self.rules.jwt.as_ref().filter(|_| text.contains('.')) else {
            // Nobody asked for it: profile dev passes over credentials that are not of this gateway.
            let is_foreign = self.rules.profile == Profile::Dev && !text.starts_with(api_token::PREFIX);
            return if is_foreign { Ok(Who::Unproven) } else { Err(unauthorized()) };
        };
        match jwt.verify(text, self.clock.now_ms()) {
            Ok(claims) if !is_reserved(&claims.principal) => Ok(Who::Client(Client {
                tenant: claims.tenant,
                principal: claims.principal,
                scopes: claims.scopes,
                ended: CancellationToken::new(),
                until_ms: Some(claims.expires_at_ms),
                only: None,
            })),
            Ok(_) => Err(unauthorized()),
            Err(error) => {
                tracing::debug!(reason = error.reason(), "a JWT was not believed");
                Err(unauthorized())
            }
        }
    }

    /// A peer proves everything it is enrolled with: its certificate, its signature, or both.
    async fn peer(&self, arrival: &Arrival, head: Head<'_>, is_signed: bool) -> Result<Identity, Problem> {
        let by_certificate = match &arrival.certificate {
            None if self.rules.require_mtls => {
                let message = "peers come in with mutual TLS only, at peering.listen";
                return Err(Problem::new(ErrorCode::PeerNotAllowed, message));
            }
            None => None,
            Some(presented) => Some(self.peers.find_by_certificate(presented).ok_or_else(not_enrolled)?),
        };
        let parts = SignedParts {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query(),
            headers: head.headers,
        };
        if let Some(peer) = by_certificate.as_ref().filter(|peer| peer.options.public_key.is_none()) {
            let found = self.certified(peer, head)?;
            // Nobody vouches for it but the connection; it names the request, and its digest must hold.
            let claim = message::parse(&parts).ok().map(Arc::new);
            return Ok(Identity { claim, ..found });
        }
        if !is_signed {
            by_certificate.ok_or_else(not_enrolled)?;
            return Err(signature(message::SignatureError::Missing));
        }
        let claim = message::parse(&parts).map_err(signature)?;
        let origin = text(head.headers, headers::ORIGIN);
        let Some((peer, key)) = self.peers.find_by_key(&claim.key_id) else {
            return self.unknown_key(origin, by_certificate.is_some());
        };
        if origin != peer.id().as_str() {
            let message = format!("the key is that of peer `{}`, the request says another", peer.id());
            return Err(Problem::new(ErrorCode::PeerIdentityMismatch, message));
        }
        if by_certificate.is_some_and(|other| other.id() != peer.id()) {
            let message = "the certificate and the signature are those of two peers";
            return Err(Problem::new(ErrorCode::PeerIdentityMismatch, message));
        }
        if text(head.headers, headers::DESTINATION) != self.rules.stack_id && !mutant("destination_unchecked")
        {
            return Err(self.wrong_destination());
        }
        claim.check_time(self.clock.now_ms()).map_err(signature)?;
        claim.verify(&key).map_err(signature)?;
        let until_ms = claim.expires_s.saturating_add(MAX_SKEW_S).saturating_mul(1000);
        if mutant("process_before_nonce") {
            check_instance(&peer, head)?;
        }
        let is_noted = !mutant("nonce_not_noted");
        if is_noted && !self.replay.note(claim.key_id, &claim.nonce, until_ms, !head.method.is_safe()).await?
        {
            let message = "the signature was used before: sign each request anew";
            return Err(Problem::new(ErrorCode::SignatureReplayed, message));
        }
        // Only now: what a revoked peer sent must not be taken once it is reinstated.
        check_standing(&peer)?;
        // Only now: a request that is heard again must not bring its process back.
        check_instance(&peer, head)?;
        let succession = Succession::from_text(text(head.headers, headers::KEY_SUCCESSION));
        let found = Identity::of(Who::Peer(peer));
        Ok(Identity { claim: Some(Arc::new(claim)), succession, ..found })
    }

    /// A peer that is enrolled by its certificate alone: every gateway signs, and here no key is known to check
    /// the signature with. The connection is what proves it.
    fn certified(&self, peer: &Arc<Peer>, head: Head<'_>) -> Result<Identity, Problem> {
        let (origin, destination) =
            (text(head.headers, headers::ORIGIN), text(head.headers, headers::DESTINATION));
        if !origin.is_empty() && origin != peer.id().as_str() {
            return Err(Problem::new(
                ErrorCode::PeerIdentityMismatch,
                format!("the certificate is that of peer `{}`, the request says another", peer.id()),
            ));
        }
        if !destination.is_empty() && destination != self.rules.stack_id {
            return Err(self.wrong_destination());
        }
        check_standing(peer)?;
        check_instance(peer, head)?;
        Ok(Identity::of(Who::Peer(Arc::clone(peer))))
    }

    fn wrong_destination(&self) -> Problem {
        let message = format!("the request is meant for another gateway; this is `{}`", self.rules.stack_id);
        Problem::new(ErrorCode::WrongDestination, message)
    }

    /// A key nobody here knows: of somebody who takes another's name, or of nobody. Profile dev believes
    /// strangers, signed or not.
    fn unknown_key(&self, origin: &str, is_peer: bool) -> Result<Identity, Problem> {
        let Gate { rules, peers, .. } = self;
        let enrolled = PeerId::parse(origin).ok().and_then(|id| peers.find(&id));
        let is_taken = enrolled.is_some_and(|peer| peer.options.public_key.is_some());
        let is_strict = rules.profile == Profile::Prod || is_peer;
        if is_taken || (is_strict && origin == rules.stack_id) {
            let message = "the peer id is enrolled with another key: two gateways bear one id, or a key was \
                           changed without an announcement; `causeway peer update` takes a new key";
            return Err(Problem::new(ErrorCode::PeerIdConflict, message));
        }
        if is_strict {
            return Err(Problem::new(ErrorCode::UnknownKey, "no enrolled peer has this key"));
        }
        Ok(Identity::of(Who::Unproven))
    }
}

/// True when checking the credential that a request shows takes public-key cryptography.
pub(super) fn is_costly(sent: &HeaderMap) -> bool {
    let is_jwt = |text: String| text.contains('.');
    message::is_signed(sent) || bearer(sent).ok().flatten().is_some_and(is_jwt)
}

fn text<'a>(sent: &'a HeaderMap, name: &str) -> &'a str {
    sent.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// The bearer credential of a request, from `Authorization` or `X-API-Key`; never from the query.
fn bearer(sent: &HeaderMap) -> Result<Option<String>, Problem> {
    let given = ["authorization", "x-api-key"].map(|name| sent.get_all(name).iter().count());
    if given.iter().sum::<usize>() > 1 {
        return Err(unauthorized());
    }
    if let Some(value) = sent.get("x-api-key") {
        return value.to_str().map(|text| Some(text.trim().to_owned())).map_err(|_| unauthorized());
    }
    let Some(value) = sent.get("authorization") else { return Ok(None) };
    let (scheme, text) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthorized());
    }
    Ok(Some(text.trim().to_owned()))
}

/// The stream ticket in a query.
fn ticket(uri: &Uri) -> Option<String> {
    let pairs = url::form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.into_owned().find(|(name, _)| name == "ticket").map(|(_, value)| value)
}

fn check_standing(peer: &Peer) -> Result<(), Problem> {
    if peer.takes_part() { Ok(()) } else { Err(not_allowed(peer)) }
}

fn check_instance(peer: &Peer, head: Head<'_>) -> Result<(), Problem> {
    let instance = text(head.headers, headers::INSTANCE);
    if instance.is_empty() || peer.note_instance(instance) { Ok(()) } else { Err(two_instances(peer)) }
}

fn not_enrolled() -> Problem {
    Problem::new(ErrorCode::PeerNotAllowed, "no peer is enrolled with this certificate")
}

fn not_allowed(peer: &Peer) -> Problem {
    let message = match peer.standing() {
        Standing::Introduced => {
            format!("peer `{}` was introduced here; its operator has not accepted it", peer.id())
        }
        _ => format!("peer `{}` is revoked here", peer.id()),
    };
    Problem::new(ErrorCode::PeerNotAllowed, message)
}

fn two_instances(peer: &Peer) -> Problem {
    let message = format!(
        "two processes speak as peer `{}`: one that another had superseded came back; a data directory was \
         copied, or an old process still runs",
        peer.id()
    );
    Problem::new(ErrorCode::PeerIdConflict, message)
}
