//! Reads `[[peers]]` of the configuration file, and the credentials the peers name.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::draft::{Draft, GivenPeer, peer_key};
use super::schema::{advise_on_entry, refuse_material, shown};
use super::source::Places;
use crate::domain::base_url;
use crate::domain::id::PeerId;
use crate::services::peer_options::PeerOptions;

/// What a peer cannot be without.
const REQUIRED: [&str; 2] = ["peer_id", "base_url"];
/// What AgentOS calls `peer_id`.
const PEER_ID_ALIAS: &str = "stack_id";

/// Takes each peer into the draft, or its mistakes.
pub(super) fn read(peers: Vec<Value>, places: &Places<'_>, draft: &mut Draft) {
    for (index, peer) in peers.into_iter().enumerate() {
        let place = format!("peers[{index}]");
        match peer {
            Value::Table(keys) => read_peer(keys, &place, places, draft),
            other => {
                let message = format!("{} is not a peer: write [[peers]] before each", shown(&other));
                draft.refuse(places.origin(&place), "peers", &message);
            }
        }
    }
}

fn read_peer(keys: Table, place: &str, places: &Places<'_>, draft: &mut Draft) {
    let mut origins = BTreeMap::new();
    let mut good = Table::new();
    let mut mistakes = Vec::new();
    for (written, value) in keys {
        let name = if written == PEER_ID_ALIAS { REQUIRED[0] } else { written.as_str() };
        let origin = places.origin(&format!("{place}.{written}"));
        match read_key(name, &value) {
            Ok(()) if good.contains_key(name) => {
                mistakes.push((
                    origin.clone(),
                    name.to_owned(),
                    "peer_id and stack_id are one key: give one".to_owned(),
                ));
            }
            Ok(()) => {
                good.insert(name.to_owned(), value);
            }
            Err(message) => mistakes.push((origin.clone(), name.to_owned(), message)),
        }
        origins.insert(name.to_owned(), origin);
    }
    for name in REQUIRED.into_iter().filter(|name| !origins.contains_key(*name)) {
        mistakes.push((places.origin(place), name.to_owned(), "is required".to_owned()));
    }
    if mistakes.is_empty() {
        let options: PeerOptions = good.try_into().expect("each key was read alone and none is missing");
        let peer = GivenPeer { options, origin: places.origin(place), keys: origins };
        return add(peer, draft);
    }
    let label =
        good.get(REQUIRED[0]).and_then(Value::as_str).map_or(place.to_owned(), |id| format!("peers.{id}"));
    for (origin, name, message) in mistakes {
        draft.refuse(origin, &format!("{label}.{name}"), &message);
    }
}

/// Reads one key as a whole peer would.
fn read_key(name: &str, value: &Value) -> Result<(), String> {
    let mut peer = Table::try_from(example()).expect("options are a table of texts, numbers and lists");
    if !peer.contains_key(name) {
        return Err(advise_on_entry(name, &peer, "peer"));
    }
    refuse_material(value)?;
    peer.insert(name.to_owned(), value.clone());
    peer.try_into::<PeerOptions>().map(|_| ()).map_err(|error| error.message().to_owned())
}

/// Adds a peer with the credential its file holds.
fn add(mut peer: GivenPeer, draft: &mut Draft) {
    if let Err(message) = peer.options.read_token() {
        let key = format!("{}.token_file", peer_key(&peer.options.peer_id));
        draft.refuse(peer.origin("token_file"), &key, &message);
    }
    draft.add_peer(peer);
}

fn example() -> PeerOptions {
    let id = PeerId::parse("example").expect("a valid id");
    PeerOptions::new(id, base_url::parse("http://127.0.0.1").expect("a valid URL"))
}
