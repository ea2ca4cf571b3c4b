//! Peers that a hub vouches for: a JWT signed by a hub that the operator trusts to introduce peers, and nothing more.
//!
//! Invariant: an introduction grants nothing. It adds one entry that takes no part, which an operator accepts or
//! removes; nobody is called for it, and nothing of a token is believed before its signature is good.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, decode_header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jwt::{MAX_TOKEN_BYTES, date_ms, is_for, signed_claims};
use super::jwt_keys::VerifyingKey;
use super::peer::Peer;
use super::peer_options::{PeerOptions, has_plain_id};
use super::roster::{Actor, Roster};
use crate::clock::Clock;
use crate::domain::base_url;
use crate::domain::id::{PeerId, is_id};
use crate::domain::key::PublicKey;
use crate::domain::limits::is_label;
use crate::domain::peer::PeerKind;
use crate::domain::units;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;

/// From when a token is made to when it is over, at most.
const LONGEST_LIFE: Duration = Duration::from_secs(600);
/// How far a hub's clock may be off.
const LEEWAY: Duration = Duration::from_secs(30);

/// `[introductions]`: the hubs that may introduce peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntroductionOptions {
    /// The hubs. Left out: none, and nobody is introduced.
    pub hubs: Vec<HubOptions>,
    /// Introduced peers that may wait for an operator; more are refused. Left out: 16.
    pub max_pending: usize,
}

/// One hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubOptions {
    /// What it calls itself: the `iss` of its tokens, and `vouched_by` of the peers it introduces.
    pub name: String,
    /// Its Ed25519 key, `ed25519:…`.
    #[serde(with = "units::text")]
    pub public_key: PublicKey,
    /// The domains it may introduce peers of.
    pub domains: Vec<String>,
}

impl Default for IntroductionOptions {
    fn default() -> Self {
        Self { hubs: Vec::new(), max_pending: 16 }
    }
}

/// Takes introductions, cheap to clone.
#[derive(Clone)]
pub struct Introductions {
    hubs: Arc<[Hub]>,
    max_pending: usize,
    audience: Arc<str>,
    roster: Roster,
    clock: Clock,
}

struct Hub {
    options: HubOptions,
    key: VerifyingKey,
}

/// What a token says, once it is believed.
struct Introduction {
    peer: PeerOptions,
    jti: String,
    /// From then on the token is refused for its age.
    until_ms: i64,
}

impl Introductions {
    /// For the gateway that tokens name as `audience`.
    pub fn new(options: &IntroductionOptions, audience: &str, roster: &Roster, clock: &Clock) -> Self {
        let hub = |options: &HubOptions| Hub {
            options: options.clone(),
            key: VerifyingKey {
                algorithm: Algorithm::EdDSA,
                key: DecodingKey::from_ed_der(options.public_key.as_bytes()),
            },
        };
        Introductions {
            hubs: options.hubs.iter().map(hub).collect(),
            max_pending: options.max_pending,
            audience: audience.into(),
            roster: roster.clone(),
            clock: clock.clone(),
        }
    }

    /// Refuses where no hub is named.
    pub fn check_on(&self) -> Result<(), Problem> {
        if !self.hubs.is_empty() {
            return Ok(());
        }
        let message = "this gateway takes no introductions: introductions.hubs names no hub";
        Err(Problem::new(ErrorCode::NotFound, message))
    }

    /// Keeps the peer that a token introduces, for an operator to accept.
    pub async fn take(&self, token: &str, correlation_id: &str) -> Result<Arc<Peer>, Problem> {
        let Introduction { peer, jti, until_ms } = self.believe(token, self.clock.now_ms())?;
        let by = Actor {
            tenant: String::new(),
            subject: format!("hub:{}", peer.vouched_by),
            correlation_id: correlation_id.to_owned(),
        };
        self.roster.introduce(peer, (&jti, until_ms), self.max_pending, &by).await
    }

    fn believe(&self, token: &str, now_ms: i64) -> Result<Introduction, Problem> {
        let (hub, claims) = self.signed_by(token).ok_or_else(|| {
            let message = "the introduction is no JWT (EdDSA) that a hub of introductions.hubs signed";
            Problem::new(ErrorCode::SignatureInvalid, message)
        })?;
        if !is_for(&claims, &self.audience) {
            let message = format!("`aud` is another gateway; this is `{}`", self.audience);
            return Err(Problem::new(ErrorCode::WrongDestination, message));
        }
        let until_ms = check_time(&claims, now_ms)?;
        let jti = text(&claims, "jti")?.filter(|jti| is_id(jti)).ok_or_else(|| wrong("jti"))?.to_owned();
        Ok(Introduction { peer: introduced(hub, &claims)?, jti, until_ms })
    }

    /// The hub whose key made the signature and whose name the token bears, and what it says.
    fn signed_by(&self, token: &str) -> Option<(&HubOptions, Map<String, Value>)> {
        let header = decode_header(token).ok().filter(|_| token.len() <= MAX_TOKEN_BYTES)?;
        if header.alg != Algorithm::EdDSA || header.crit.is_some() {
            return None;
        }
        let (hub, claims) =
            self.hubs.iter().find_map(|hub| Some((&hub.options, signed_claims(token, &hub.key).ok()?)))?;
        let is_its_own = claims.get("iss").and_then(Value::as_str) == Some(&hub.name);
        is_its_own.then_some((hub, claims))
    }
}

/// Returns when the token is over for everybody.
fn check_time(claims: &Map<String, Value>, now_ms: i64) -> Result<i64, Problem> {
    let date = |name| date_ms(claims, name).ok().flatten().ok_or_else(|| wrong(name));
    let (made_ms, over_ms) = (date("iat")?, date("exp")?);
    let (life_ms, leeway_ms) = (LONGEST_LIFE.as_millis() as i64, LEEWAY.as_millis() as i64);
    let until_ms = over_ms.saturating_add(leeway_ms);
    let message = if over_ms.saturating_sub(made_ms) > life_ms {
        format!("an introduction holds for at most {}", humantime::format_duration(LONGEST_LIFE))
    } else if now_ms >= until_ms || now_ms < made_ms.saturating_sub(leeway_ms) {
        "the introduction is not of now: `iat` is to come, or `exp` is past".to_owned()
    } else {
        return Ok(until_ms);
    };
    Err(Problem::new(ErrorCode::SignatureExpired, message).with("server_time", now_ms / 1000))
}

/// The entry: a gateway that may do nothing.
fn introduced(hub: &HubOptions, claims: &Map<String, Value>) -> Result<PeerOptions, Problem> {
    let needed = |name| text(claims, name)?.ok_or_else(|| wrong(name));
    let peer_id = PeerId::parse(needed("peer_id")?).map_err(|_| wrong("peer_id"))?;
    let base_url = base_url::parse(needed("base_url")?).map_err(|_| wrong("base_url"))?;
    let mut peer = PeerOptions::new(peer_id, base_url);
    if !has_plain_id(&peer) {
        return Err(wrong("peer_id"));
    }
    peer.kind = PeerKind::Gateway;
    peer.public_key = Some(PublicKey::parse(needed("public_key")?).map_err(|_| wrong("public_key"))?);
    needed("domain")?.clone_into(&mut peer.domain);
    text(claims, "region")?.unwrap_or_default().clone_into(&mut peer.region);
    peer.vouched_by.clone_from(&hub.name);
    peer.operations = Vec::new();
    if !is_label(&peer.region) {
        return Err(wrong("region"));
    }
    if !hub.domains.contains(&peer.domain) {
        let message = format!("the hub `{}` may not introduce peers of this domain", hub.name);
        return Err(Problem::new(ErrorCode::PolicyDenied, message).with("field", "introduction.domain"));
    }
    Ok(peer)
}

/// A claim that is a text, where there is one.
fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Problem> {
    claims.get(name).map(|value| value.as_str().ok_or_else(|| wrong(name))).transpose()
}

/// Nothing of what the token says is repeated.
fn wrong(name: &str) -> Problem {
    let message = format!("the introduction's claim `{name}` is missing or has a wrong form");
    Problem::new(ErrorCode::InvalidRequest, message).with("field", format!("introduction.{name}"))
}
