//! The roster: which peers there are. Those of the configuration, those that operators enrolled, and what was
//! decided of either while the gateway ran; kept in the store, in force at once.

use std::sync::Arc;
use std::time::Duration;

use super::admission::{Action, Admission};
use super::enrolment::{Enrolment, LearnedKey};
use super::health;
use super::peer::Peer;
use super::peer_options::PeerOptions;
use super::peers::Peers;
use super::pull::Pull;
use crate::domain::id::PeerId;
use crate::domain::key::KeyId;
use crate::domain::policy::{Object, Standing, Subject, decide};
use crate::domain::succession::Succession;
use crate::entropy::Entropy;
use crate::mutants::mutant;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::store::{PeerEntry, Store};
use crate::tasks::Tasks;

pub use crate::store::Actor;

/// Keys learned of one peer; more are refused until it is enrolled anew.
const LEARNED_KEYS: usize = 16;

/// When it is worth asking again whether an operator has looked at those that wait.
const PENDING_RETRY: Duration = Duration::from_secs(600);

/// Keeps the roster, cheap to clone.
#[derive(Clone)]
pub struct Roster {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    admission: Admission,
    peers: Peers,
    pull: Pull,
    entropy: Entropy,
    health_interval: Duration,
    tasks: Tasks,
    /// Held from the look at an entry to its change: a key learned just then cannot undo a revocation.
    changing: tokio::sync::Mutex<()>,
}

impl Roster {
    /// Over the peers that [`super::recall::load`] put in place.
    pub fn new(
        (store, admission): (Store, Admission),
        (peers, pull): (Peers, Pull),
        health_interval: Duration,
        tasks: Tasks,
    ) -> Self {
        let entropy = peers.maker().entropy.clone();
        let changing = tokio::sync::Mutex::default();
        let shared = Shared { store, admission, peers, pull, entropy, health_interval, tasks, changing };
        Roster { shared: Arc::new(shared) }
    }

    /// Starts to ask every peer how it is.
    pub fn start(&self) {
        for peer in self.shared.peers.all().iter() {
            self.watch(Arc::clone(peer));
        }
    }

    /// Asks a peer now and then, a little out of step, for as long as its entry holds.
    fn watch(&self, peer: Arc<Peer>) {
        if !peer.takes_part() {
            return;
        }
        let (this, stopping) = (self.clone(), self.shared.tasks.stopping().clone());
        self.shared.tasks.spawn(async move {
            let asking = async {
                loop {
                    this.ask(&peer).await;
                    let out_of_step = 0.9 + 0.2 * this.shared.entropy.fraction();
                    tokio::time::sleep(this.shared.health_interval.mul_f64(out_of_step)).await;
                }
            };
            tokio::select! {
                biased;
                () = asking => {}
                () = peer.gone().cancelled() => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    async fn ask(&self, peer: &Arc<Peer>) {
        let own = &self.shared.peers.maker().identity;
        let heard = health::ask(peer, own).await;
        if let Some(key) = heard.proven_by {
            self.note_use(peer, key);
        }
        if let Some(succession) = heard.succession {
            self.hear(peer, &succession);
        }
        peer.refresh_pins();
    }

    /// Hears of the key that follows a peer's present one.
    pub fn hear(&self, peer: &Arc<Peer>, succession: &Succession) {
        if peer.keys().contains(&succession.next) {
            return;
        }
        // In a task of its own: a changed entry ends the one that asks.
        let (this, id, succession) = (self.clone(), peer.id().clone(), succession.clone());
        self.shared.tasks.spawn(async move { this.learn(&id, &succession).await });
    }

    /// The peers.
    pub fn peers(&self) -> &Peers {
        &self.shared.peers
    }

    /// Enrols a peer, or repeats an enrolment word for word.
    pub async fn enrol(&self, options: PeerOptions, by: &Actor) -> Result<Arc<Peer>, Problem> {
        let _changing = self.shared.changing.lock().await;
        if !options.vouched_by.is_empty() {
            let message = "only an introduction says who vouched for a peer: leave it out";
            return Err(Problem::new(ErrorCode::InvalidRequest, message).with("field", "vouched_by"));
        }
        if let Some(known) = self.shared.peers.find(&options.peer_id) {
            if known.options == options {
                return Ok(known);
            }
            let is_other_key = known.options.public_key != options.public_key
                || known.options.certificate != options.certificate;
            let code = if is_other_key { ErrorCode::PeerIdConflict } else { ErrorCode::Conflict };
            let message = format!("peer `{}` is enrolled already; change it with PUT", options.peer_id);
            return Err(Problem::new(code, message).with("field", "peer_id"));
        }
        let enrolment = self.shared.peers.maker().enrolment(options, false);
        self.check(&enrolment, by)?;
        self.keep(enrolment, by, "peer.enrol").await
    }

    /// Keeps a peer that a hub vouches for, until an operator accepts it: nobody calls it, and it may do nothing.
    /// An introduction is heard once, whatever comes of it; when too many peers wait, it is not heard yet.
    pub async fn introduce(
        &self,
        options: PeerOptions,
        (jti, until_ms): (&str, i64),
        max_pending: usize,
        by: &Actor,
    ) -> Result<Arc<Peer>, Problem> {
        let _changing = self.shared.changing.lock().await;
        let all = self.shared.peers.all();
        if all.iter().filter(|peer| peer.standing() == Standing::Introduced).count() >= max_pending {
            let message = format!("{max_pending} introduced peers wait for an operator: no more are taken");
            return Err(Problem::new(ErrorCode::Busy, message).retry_after(PENDING_RETRY));
        }
        if !self.shared.store.keep_nonce(&by.subject, jti, until_ms).await? {
            let message = "the introduction was used before: the hub makes another, with another `jti`";
            return Err(Problem::new(ErrorCode::SignatureReplayed, message));
        }
        if let Some(known) = self.shared.peers.find(&options.peer_id) {
            let message =
                format!("peer `{}` is known already: an introduction changes nothing of it", known.id());
            return Err(Problem::new(ErrorCode::PeerIdConflict, message).with("field", "peer_id"));
        }
        let mut enrolment = self.shared.peers.maker().enrolment(options, false);
        enrolment.standing = Standing::Introduced;
        self.check_place(&enrolment, by)?;
        self.keep(enrolment, by, "peer.introduce").await
    }

    /// Changes an enrolled peer's entry. Its standing and the keys it led to stay, unless its key is another; one
    /// that was introduced is accepted with it.
    pub async fn update(&self, mut options: PeerOptions, by: &Actor) -> Result<Arc<Peer>, Problem> {
        let _changing = self.shared.changing.lock().await;
        let known = self.find(&options.peer_id)?;
        if known.enrolment.is_configured {
            return Err(configured(&known));
        }
        options.vouched_by.clone_from(&known.options.vouched_by);
        if options.awaits_acceptance() {
            let message = "say what may be done with a peer that was introduced: `operations` is empty";
            return Err(Problem::new(ErrorCode::InvalidRequest, message).with("field", "operations"));
        }
        let mut enrolment = self.shared.peers.maker().enrolment(options, false);
        let decided = known.decided();
        let is_accepted = decided.standing == Standing::Introduced;
        if !is_accepted {
            enrolment.standing = decided.standing;
            enrolment.reason.clone_from(&decided.reason);
        }
        if enrolment.options.public_key == known.options.public_key {
            enrolment.learned = decided.learned;
        }
        self.check(&enrolment, by)?;
        let action = if is_accepted { "peer.accept" } else { "peer.update" };
        self.keep(enrolment, by, action).await
    }

    /// Revokes, drains or reinstates a peer.
    pub async fn set_standing(
        &self,
        id: &PeerId,
        standing: Standing,
        reason: &str,
        by: &Actor,
    ) -> Result<Arc<Peer>, Problem> {
        let _changing = self.shared.changing.lock().await;
        let known = self.find(id)?;
        if standing != Standing::Revoked && known.options.awaits_acceptance() {
            let message = format!("peer `{id}` was introduced: accept it first, with PUT and what it may do");
            return Err(Problem::new(ErrorCode::Conflict, message).with("field", "operations"));
        }
        let mut enrolment = known.decided();
        let before = std::mem::replace(&mut enrolment.standing, standing);
        reason.clone_into(&mut enrolment.reason);
        let action = match standing {
            Standing::Active => "peer.reinstate",
            Standing::Draining => "peer.drain",
            Standing::Revoked => "peer.revoke",
            Standing::Introduced => "peer.introduce",
        };
        if before == Standing::Revoked || standing == Standing::Revoked {
            return self.keep(enrolment, by, action).await;
        }
        // Whoever works under the entry goes on: a drain holds off what is new.
        self.save(&enrolment, by, action).await?;
        known.set_standing(standing, reason);
        known.note_link();
        note_change(&known, by, action);
        Ok(known)
    }

    /// Removes an enrolled peer.
    pub async fn remove(&self, id: &PeerId, by: &Actor) -> Result<(), Problem> {
        let _changing = self.shared.changing.lock().await;
        let known = self.find(id)?;
        if known.enrolment.is_configured {
            return Err(configured(&known));
        }
        self.shared.store.remove_peer(id, by).await?;
        self.shared.peers.remove(id);
        Ok(())
    }

    /// Asks a peer now, and answers with it as it stands then.
    pub async fn verify(&self, id: &PeerId) -> Result<Arc<Peer>, Problem> {
        let peer = self.find(id)?;
        if peer.takes_part() {
            self.ask(&peer).await;
        }
        self.find(id)
    }

    /// Takes the key that a peer announced, signed with one it has. Nothing under way is disturbed.
    async fn learn(&self, id: &PeerId, said: &Succession) {
        let _changing = self.shared.changing.lock().await;
        let Some(peer) = self.shared.peers.find(id).filter(|peer| !peer.keys().contains(&said.next)) else {
            return;
        };
        let keys = peer.keys();
        let next = keys.iter().rev().find_map(|key| said.verify(id.as_str(), key));
        let mut enrolment = peer.decided();
        // One that was never used was taken back: another is announced in its place.
        enrolment.learned.retain(|learned| learned.in_use);
        if mutant("successor_not_learned") {
            return;
        }
        let (Some(public_key), true) = (next, enrolment.learned.len() < LEARNED_KEYS) else {
            tracing::warn!(peer.id = %id, "a peer announced a key that none of its keys vouches for");
            return;
        };
        enrolment.learned.push(LearnedKey { public_key, replaces_at_ms: said.expires_at_ms, in_use: false });
        if self.keep_learned(&peer, enrolment, "peer.key").await {
            tracing::info!(peer.id = %id, key.id = %public_key.key_id(), "a peer announced its next key");
        }
    }

    /// A peer has proven itself with a key: from now on that key replaces the ones before.
    pub fn note_use(&self, peer: &Arc<Peer>, key: KeyId) {
        if !peer.is_first_use(&key) {
            return;
        }
        let (this, id) = (self.clone(), peer.id().clone());
        self.shared.tasks.spawn(async move {
            let _changing = this.shared.changing.lock().await;
            let Some(peer) = this.shared.peers.find(&id).filter(|peer| peer.is_first_use(&key)) else {
                return;
            };
            let mut enrolment = peer.decided();
            for learned in &mut enrolment.learned {
                learned.in_use |= learned.public_key.key_id() == key;
            }
            this.keep_learned(&peer, enrolment, "peer.key_in_use").await;
        });
    }

    async fn keep_learned(&self, peer: &Peer, enrolment: Enrolment, action: &str) -> bool {
        let own = &self.shared.peers.maker().identity.peer_id;
        let by =
            Actor { tenant: String::new(), subject: format!("gateway:{own}"), correlation_id: String::new() };
        match self.save(&enrolment, &by, action).await {
            Ok(()) => {
                peer.set_learned(enrolment.learned);
                true
            }
            Err(problem) => {
                tracing::warn!(peer.id = %peer.id(), reason = problem.message, "a peer's keys were not kept");
                false
            }
        }
    }

    fn find(&self, id: &PeerId) -> Result<Arc<Peer>, Problem> {
        self.shared.peers.find(id).ok_or_else(|| {
            Problem::new(ErrorCode::PeerNotFound, "there is no such peer").with("field", "peer_id")
        })
    }

    /// What must hold of an entry that an operator makes.
    fn check(&self, enrolment: &Enrolment, by: &Actor) -> Result<(), Problem> {
        super::peer_options::check(&enrolment.options, self.shared.peers.maker().profile).map_err(
            |(field, message)| Problem::new(ErrorCode::InvalidRequest, message).with("field", field),
        )?;
        self.check_place(enrolment, by)
    }

    /// What must hold of an entry beside this gateway and the other peers. The boundary between domains holds for
    /// those that are enrolled as for those that come in.
    fn check_place(&self, enrolment: &Enrolment, by: &Actor) -> Result<(), Problem> {
        let options = &enrolment.options;
        let keys_of = |peer: &Peer| options.public_key.is_some_and(|key| peer.keys().contains(&key));
        let pin_of = |peer: &Peer| options.certificate.is_some_and(|pin| peer.pins().contains(&pin));
        let all = self.shared.peers.all();
        let mut others = all.iter().filter(|peer| *peer.id() != options.peer_id);
        if let Some(other) = others.find(|peer| keys_of(peer) || pin_of(peer)) {
            let message = format!("peer `{}` has this key already: each peer has its own", other.id());
            return Err(Problem::new(ErrorCode::PeerIdConflict, message).with("field", "public_key"));
        }
        if options.peer_id.as_str() == self.shared.peers.maker().identity.peer_id && !options.local {
            let message = "this is the gateway's own id: only its local orchestrator may bear it";
            return Err(Problem::new(ErrorCode::PeerIdConflict, message).with("field", "peer_id"));
        }
        if options.local && all.iter().any(|peer| peer.options.local && *peer.id() != options.peer_id) {
            let message = "another peer is local already: at most one is";
            return Err(Problem::new(ErrorCode::Conflict, message).with("field", "local"));
        }
        let facts = crate::domain::policy::PeerFacts {
            id: &options.peer_id,
            domain: &enrolment.domain,
            region: &enrolment.region,
            standing: enrolment.standing,
            grants: &enrolment.grants,
        };
        let object = Object { peer: Some(facts), ..Object::default() };
        let admission = &self.shared.admission;
        decide(admission.policy(), Subject::Operator, Action::EnrolPeer, object).map_err(|denial| {
            admission.refuse(denial, (by.subject.clone(), ""), Action::EnrolPeer, &by.correlation_id)
        })
    }

    /// On disk first, then in force; whoever worked under the old entry starts anew or stops.
    async fn keep(&self, enrolment: Enrolment, by: &Actor, action: &str) -> Result<Arc<Peer>, Problem> {
        let peer = self.shared.peers.prepare(enrolment.clone()).map_err(|error| {
            Problem::new(ErrorCode::InvalidRequest, error.to_string()).with("field", "base_url")
        })?;
        self.save(&enrolment, by, action).await?;
        self.shared.peers.put(Arc::clone(&peer));
        note_change(&peer, by, action);
        self.watch(Arc::clone(&peer));
        if peer.takes_part() {
            self.shared.pull.resume_all().await?;
        }
        Ok(peer)
    }

    async fn save(&self, enrolment: &Enrolment, by: &Actor, action: &str) -> Result<(), Problem> {
        let entry = if enrolment.is_configured {
            String::new()
        } else {
            serde_json::to_string(&enrolment.options).unwrap_or_default()
        };
        let row = PeerEntry {
            peer_id: enrolment.options.peer_id.clone(),
            entry,
            state: enrolment.standing.as_str().to_owned(),
            reason: enrolment.reason.clone(),
            keys: serde_json::to_string(&enrolment.learned).unwrap_or_default(),
            revision: 0,
            created_at_ms: 0,
            updated_at_ms: 0,
        };
        self.shared.store.save_peer(row, by, action, &enrolment.reason).await?;
        Ok(())
    }
}

fn note_change(peer: &Peer, by: &Actor, action: &str) {
    tracing::info!(peer.id = %peer.id(), action, standing = peer.standing().as_str(), by = by.subject,
        "the roster changed");
}

fn configured(peer: &Peer) -> Problem {
    let message = format!(
        "peer `{}` is in the configuration file: change it there; it can be revoked, drained and reinstated here",
        peer.id()
    );
    Problem::new(ErrorCode::Conflict, message).with("field", "peer_id")
}
