//! The way to each peer as it stands: one view for the list of links, for the topology and for alerts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admission::{Action, Admission, Direction, Object};
use super::doing::Doing;
use super::peer::Peer;
use super::peers::Peers;
use super::pull::Pull;
use super::readers::ReaderCounts;
use crate::domain::grants::Operation;
use crate::domain::id::PeerId;
use crate::domain::policy::Rule;

/// The way to one peer.
pub struct Link {
    /// The peer.
    pub peer: Arc<Peer>,
    /// How it is doing, and since when.
    pub doing: Doing,
    /// The readers there.
    pub readers: ReaderCounts,
    /// How many may have a place there.
    pub reader_places: usize,
    /// What it is granted, and the rule of the policy that refuses it all the same, if one does.
    pub operations: Vec<(Operation, Option<Rule>)>,
    /// How this gateway proves itself there.
    pub proofs_out: Vec<&'static str>,
    /// How the peer proves itself here.
    pub proofs_in: Vec<&'static str>,
}

/// Looks at links.
#[derive(Clone)]
pub struct Links {
    admission: Admission,
    peers: Peers,
    pull: Pull,
    /// Peers can come in with mutual TLS.
    has_peer_door: bool,
}

impl Links {
    /// Over `peers` and the readers of `pull`.
    pub fn new(admission: Admission, peers: Peers, pull: Pull, has_peer_door: bool) -> Self {
        Links { admission, peers, pull, has_peer_door }
    }

    /// Every link, by peer id.
    pub fn all(&self) -> Vec<Link> {
        let mut readers = self.pull.counts();
        self.peers.all().iter().map(|peer| self.of(Arc::clone(peer), &mut readers)).collect()
    }

    /// The link to one peer.
    pub fn find(&self, id: &PeerId) -> Option<Link> {
        let peer = self.peers.find(id)?;
        Some(self.of(peer, &mut self.pull.counts()))
    }

    fn of(&self, peer: Arc<Peer>, readers: &mut BTreeMap<PeerId, ReaderCounts>) -> Link {
        let operations = peer.enrolment.grants.operations.iter();
        let operations = operations.map(|granted| (*granted, self.refusal(&peer, *granted))).collect();
        Link {
            doing: peer.doing(),
            readers: readers.remove(peer.id()).unwrap_or_default(),
            reader_places: self.pull.places(),
            operations,
            proofs_out: proofs_out(&peer),
            proofs_in: self.proofs_in(&peer),
            peer,
        }
    }

    /// Why policy refuses what is granted: the standing, or the boundary between domains.
    fn refusal(&self, peer: &Peer, operation: Operation) -> Option<Rule> {
        let (direction, action) = match operation {
            Operation::ForwardOut => (Direction::Out, Action::ReadEvents),
            Operation::ForwardIn => (Direction::In, Action::ReadRuns),
            Operation::Ingest => (Direction::In, Action::IngestEvents),
            Operation::Subscribe => (Direction::In, Action::ReadEvents),
        };
        let object =
            Object { region: peer.enrolment.grants.regions.first().map(String::as_str), ..Object::default() };
        self.admission.judge(direction, action, peer, object).err().map(|denial| denial.rule)
    }

    fn proofs_in(&self, peer: &Peer) -> Vec<&'static str> {
        let options = &peer.options;
        let mtls = (options.has_identity() && self.has_peer_door).then_some("mtls");
        let signature = options.public_key.is_some().then_some("signature");
        mtls.into_iter().chain(signature).filter(|_| options.comes_in()).collect()
    }
}

fn proofs_out(peer: &Peer) -> Vec<&'static str> {
    let signs = peer.is_gateway();
    let mtls = (signs && peer.options.base_url.scheme() == "https").then_some("mtls");
    let bearer = peer.options.token.is_some().then_some("bearer");
    mtls.into_iter().chain(signs.then_some("signature")).chain(bearer).collect()
}
