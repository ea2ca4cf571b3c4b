//! The roster at start: the configured peers and the enrolled ones, as they were left.

use super::enrolment::Enrolment;
use super::peer_options::PeerOptions;
use super::peers::Peers;
use crate::domain::id::PeerId;
use crate::domain::policy::Standing;
use crate::mutants::mutant;
use crate::outbound::BuildError;
use crate::store::{PeerEntry, Store, StoreError};

/// Why the roster cannot be read at start.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A peer's client.
    #[error(transparent)]
    Client(#[from] BuildError),
}

/// Fills the table with the configured peers and the enrolled ones, as they were left.
pub async fn load(store: &Store, peers: &Peers, configured: &[PeerOptions]) -> Result<(), RosterError> {
    let entries = store.peer_entries().await?;
    let decided = |id: &PeerId| entries.iter().find(|entry| entry.peer_id == *id);
    for options in configured {
        let mut enrolment = peers.maker().enrolment(options.clone(), true);
        // To name a peer in the configuration is to accept it, whoever introduced it before.
        let entry = decided(&options.peer_id).filter(|entry| entry.state != Standing::Introduced.as_str());
        if let Some(entry) = entry {
            recall(&mut enrolment, entry);
        }
        peers.put(peers.prepare(enrolment)?);
    }
    for entry in
        entries.iter().filter(|entry| !entry.entry.is_empty() && peers.find(&entry.peer_id).is_none())
    {
        let read = serde_json::from_str::<PeerOptions>(&entry.entry).map_err(|error| error.to_string());
        let options = match read.and_then(|mut options| options.read_token().map(|()| options)) {
            Ok(options) => options,
            Err(error) => {
                tracing::error!(peer.id = %entry.peer_id, error, "an enrolled peer cannot be used");
                continue;
            }
        };
        let mut enrolment = peers.maker().enrolment(options, false);
        recall(&mut enrolment, entry);
        peers.put(peers.prepare(enrolment)?);
    }
    Ok(())
}

/// What was decided of a peer before.
fn recall(enrolment: &mut Enrolment, entry: &PeerEntry) {
    if !mutant("revocation_forgotten") {
        enrolment.standing = Standing::find(&entry.state).unwrap_or(Standing::Revoked);
    }
    enrolment.reason.clone_from(&entry.reason);
    enrolment.learned = serde_json::from_str(&entry.keys).unwrap_or_default();
}
