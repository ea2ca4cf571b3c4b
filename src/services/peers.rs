//! Every enrolled peer, from the configuration and from the store: one table behind one swap.
//!
//! Invariant: who asks gets the peer as it stands now; an entry that was changed, revoked or removed tells
//! everybody who still holds it (`Peer::gone`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::enrolment::{Enrolment, pins};
use super::options::{ForwardOptions, Profile};
use super::peer::{Peer, lock, shown};
use super::peer_options::PeerOptions;
use crate::clock::Clock;
use crate::domain::address::AddressRule;
use crate::domain::id::PeerId;
use crate::domain::key::{KeyId, PublicKey};
use crate::domain::peer::PeerKind;
use crate::domain::policy::{Denial, Standing};
use crate::domain::secret::Secret;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::outbound::options::OutboundOptions;
use crate::outbound::{BuildError, Dialled, Network, OwnIdentity, PeerClient};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::forward_request::TargetSelector;
use crate::protocol::problem::Problem;
use crate::tls::{LivePins, PeerDirectory, Presented};

pub use super::doing::Health;
pub use super::peer::Refusal;

/// What every peer is made with.
pub struct PeerMaker {
    /// How strict the gateway is.
    pub profile: Profile,
    /// The domain of peers whose entry names none.
    pub domain: String,
    /// Where the gateway is, and so is the local peer whose entry names no region.
    pub region: String,
    /// Bounds of one call.
    pub outbound: OutboundOptions,
    /// Bounds of work at one peer.
    pub forward: ForwardOptions,
    /// What this gateway shows of itself.
    pub identity: Arc<OwnIdentity>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How requests to them leave.
    pub network: Network,
}

/// Every enrolled peer, cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    maker: PeerMaker,
    table: ArcSwap<Table>,
    /// Held while the table is replaced.
    changing: Mutex<()>,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<PeerId, Arc<Peer>>,
    sorted: Arc<[Arc<Peer>]>,
}

impl PeerMaker {
    /// An entry as an operator's decision, taken part in until said otherwise.
    pub fn enrolment(&self, options: PeerOptions, is_configured: bool) -> Enrolment {
        let domain = if options.domain.is_empty() { self.domain.clone() } else { options.domain.clone() };
        let is_placed = !options.region.is_empty() || !options.local;
        let region = if is_placed { options.region.clone() } else { self.region.clone() };
        Enrolment {
            grants: options.grants(self.profile),
            domain,
            region,
            options,
            standing: Standing::Active,
            reason: String::new(),
            learned: Vec::new(),
            is_configured,
        }
    }

    /// A peer, and the way to it; it is not in the table yet.
    fn make(&self, enrolment: Enrolment) -> Result<Peer, BuildError> {
        let pins = Arc::new(LivePins::from_pointee(pins(&enrolment, self.clock.now_ms())));
        let options = &enrolment.options;
        let rule = match self.profile {
            Profile::Dev if options.allowed_addresses.is_empty() => AddressRule::any(),
            Profile::Dev | Profile::Prod => AddressRule::new(options.allowed_addresses.clone()),
        };
        let client = PeerClient::new(Dialled {
            peer: options.peer_id.as_str(),
            base: &options.base_url,
            token: options.token.as_ref().map(Secret::expose),
            signs: options.kind == PeerKind::Gateway,
            pins: Arc::clone(&pins),
            tls_name: &options.tls_name,
            addresses: rule,
            tenant_names: &enrolment.grants.tenant_names,
            options: &self.outbound,
            identity: &self.identity,
            network: &self.network,
        })?;
        Ok(Peer::new(enrolment, (client, pins), &self.forward, (&self.clock, &self.entropy), &self.metrics))
    }
}

impl Peers {
    /// No peer yet.
    pub fn new(maker: PeerMaker) -> Self {
        let (table, changing) = (ArcSwap::default(), Mutex::default());
        Peers { shared: Arc::new(Shared { maker, table, changing }) }
    }

    /// What peers are made with.
    pub fn maker(&self) -> &PeerMaker {
        &self.shared.maker
    }

    /// A peer that is not in the table yet.
    pub(super) fn prepare(&self, enrolment: Enrolment) -> Result<Arc<Peer>, BuildError> {
        self.shared.maker.make(enrolment).map(Arc::new)
    }

    /// Lets a peer in, or takes the place of its entry: who holds the old one is told.
    pub(super) fn put(&self, peer: Arc<Peer>) {
        let _changing = lock(&self.shared.changing);
        let mut by_id = self.shared.table.load().by_id.clone();
        let before = by_id.insert(peer.id().clone(), Arc::clone(&peer));
        self.publish(by_id);
        if let Some(before) = before {
            before.gone().cancel();
        }
    }

    /// Removes a peer; who holds it is told.
    pub fn remove(&self, id: &PeerId) {
        let _changing = lock(&self.shared.changing);
        let mut by_id = self.shared.table.load().by_id.clone();
        let before = by_id.remove(id);
        self.publish(by_id);
        if let Some(before) = before {
            before.gone().cancel();
        }
    }

    fn publish(&self, by_id: HashMap<PeerId, Arc<Peer>>) {
        let mut sorted: Vec<Arc<Peer>> = by_id.values().cloned().collect();
        sorted.sort_by(|left, right| left.id().cmp(right.id()));
        self.shared.table.store(Arc::new(Table { by_id, sorted: Arc::from(sorted) }));
    }

    /// The peer with this id.
    pub fn find(&self, id: &PeerId) -> Option<Arc<Peer>> {
        self.shared.table.load().by_id.get(id).cloned()
    }

    /// All of them, by id.
    pub fn all(&self) -> Arc<[Arc<Peer>]> {
        Arc::clone(&self.shared.table.load().sorted)
    }

    /// The peer that may use this key now.
    pub fn find_by_key(&self, id: &KeyId) -> Option<(Arc<Peer>, PublicKey)> {
        self.all().iter().find_map(|peer| Some((Arc::clone(peer), peer.key(id)?)))
    }

    /// The peer whose certificate this is.
    pub fn find_by_certificate(&self, presented: &Presented) -> Option<Arc<Peer>> {
        self.all().iter().find(|peer| peer.shows(presented)).cloned()
    }

    /// The peer marked `local`: the orchestrator face forwards to it.
    pub fn local(&self) -> Result<Arc<Peer>, Problem> {
        self.all().iter().find(|peer| peer.options.local).cloned().ok_or_else(|| {
            Problem::new(
                ErrorCode::PeerNotFound,
                "this gateway has no local orchestrator: mark one of its peers `local = true`",
            )
        })
    }

    /// Chooses where a forward goes among the peers that `may` take it: the named peer if it fits, else the
    /// fitting peer with the fewest forwards in flight.
    pub fn select(
        &self,
        selector: &TargetSelector,
        may: impl Fn(&Peer) -> Result<(), Denial>,
        refused: impl Fn(&Peer, Denial) -> Problem,
    ) -> Result<Arc<Peer>, Problem> {
        if let Some(name) = &selector.stack_id {
            let peer =
                PeerId::parse(name).ok().and_then(|id| self.find(&id)).ok_or_else(|| no_such_peer(name))?;
            may(&peer).map_err(|denial| refused(&peer, denial))?;
            return match peer.misfit(selector) {
                None => Ok(peer),
                Some(problem) => Err(problem),
            };
        }
        let all = self.all();
        let mut misfit = None;
        let mut fitting: Vec<&Arc<Peer>> = Vec::new();
        for peer in all.iter() {
            match may(peer).map_err(|denial| refused(peer, denial)).err().or_else(|| peer.misfit(selector)) {
                None => fitting.push(peer),
                Some(problem) => misfit = Some(problem),
            }
        }
        let healthy = fitting.iter().filter(|peer| peer.health().state.may_be_chosen());
        if let Some(peer) = healthy.min_by_key(|peer| (peer.in_flight(), !prefers(peer, selector))) {
            return Ok(Arc::clone(peer));
        }
        match misfit {
            Some(problem) if fitting.is_empty() => Err(problem),
            None if fitting.is_empty() => {
                Err(Problem::new(ErrorCode::PeerNotFound, "this gateway has no peers"))
            }
            _ => Err(Problem::new(ErrorCode::Unavailable, "no peer that fits is healthy")
                .with("outcome", "not_started")
                .retry_after(Duration::from_secs(5))),
        }
    }
}

/// What a caller hears of a peer that is not there, and of one that is not there for its tenant.
pub(super) fn no_such_peer(name: &str) -> Problem {
    Problem::new(ErrorCode::PeerNotFound, format!("no peer `{}` is enrolled", shown(name)))
        .with("field", "forward.target_selector.stack_id")
}

fn prefers(peer: &Peer, selector: &TargetSelector) -> bool {
    selector.preferred_model_tier.as_ref().is_none_or(|tier| peer.has_tier(tier))
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Peers({})", self.all().len())
    }
}

impl PeerDirectory for Peers {
    fn knows(&self, presented: &Presented) -> bool {
        self.find_by_certificate(presented).is_some_and(|peer| peer.takes_part())
    }
}
