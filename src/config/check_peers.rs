//! What must hold of each peer, beside this gateway and beside the other peers.
//!
//! A peer of the configuration is judged as one that is enrolled over the API: by the same functions, in the
//! same words.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use url::{Host, Url};

use super::boundary;
use super::check::{is_label, not_a_label, outside};
use super::draft::{Draft, GivenPeer, peer_key};
use super::sections::Config;
use crate::domain::id::{PeerId, is_id};
use crate::domain::peer::PeerKind;
use crate::domain::units::quoted;
use crate::services::peer_options::{self, PeerOptions};
use crate::tls::SpkiPin;

/// Keeps every mistake of the peers.
pub(super) fn check(config: &Config, draft: &mut Draft) {
    // A boundary that could not be read as it was meant says nothing about peers.
    let is_known = !draft.is_refused_below("policy.") && !draft.is_refused_below("bridges");
    let policy = is_known.then(|| config.to_policy());
    let has_authority = config.peering.ca_file.is_some() || draft.is_refused("peering.ca_file");
    let mut mistakes = Vec::new();
    let mut first_local = None;
    let mut identities = BTreeMap::new();
    for given in draft.peers() {
        let peer = &given.options;
        let mut refuse = |key: &str, message: String| {
            mistakes.push((given.origin(key), format!("{}.{key}", peer_key(&peer.peer_id)), message));
        };
        check_form(peer, &mut refuse);
        check_entry(given, config, &mut refuse);
        if let Some(reason) = policy.as_ref().and_then(|policy| boundary::refusal(config, policy, peer)) {
            refuse("domain", reason);
        }
        if peer.peer_id == config.gateway.stack_id && !peer.local {
            refuse("peer_id", "is this gateway's own id: only its local orchestrator may bear it".to_owned());
        }
        if let Some(key) = own_address(&peer.base_url, config) {
            refuse("base_url", format!("{} is this gateway itself ({key})", peer.base_url));
        }
        if config.peering.require_mtls && peer.kind == PeerKind::Gateway && peer.base_url.scheme() == "http" {
            let message = "plain http is not allowed: peering.require_mtls asks for mutual TLS, so use https";
            refuse("base_url", message.to_owned());
        }
        if !peer.tls_name.is_empty() && !has_authority {
            let message = "needs peering.ca_file, the certificates that vouch for this name";
            refuse("tls_name", message.to_owned());
        }
        for (key, identity) in identities_of(peer) {
            let first: &PeerId = identities.entry(identity).or_insert(&peer.peer_id);
            if *first != peer.peer_id {
                refuse(key, format!("is that of peer {first} already: each peer has its own"));
            }
        }
        if peer.local
            && let Some(first) = first_local.replace(&peer.peer_id)
        {
            refuse("local", format!("{first} is local already: at most one peer is"));
        }
    }
    for (origin, key, message) in mistakes {
        draft.refuse(origin, &key, &message);
    }
}

fn check_form(peer: &PeerOptions, refuse: &mut impl FnMut(&str, String)) {
    for (key, label) in [("region", &peer.region), ("environment", &peer.environment)] {
        if !is_label(label) {
            refuse(key, not_a_label(label));
        }
    }
    for name in peer.capabilities.iter().filter(|name| !is_id(name)) {
        refuse(
            "capabilities",
            format!("{} is not a capability's name, such as \"runs.forward\"", quoted(name)),
        );
    }
    if let Some(message) = outside(peer.idempotency_retention, Duration::from_nanos(1)) {
        refuse("idempotency_retention", message);
    }
}

/// What the API checks of an entry by itself.
fn check_entry(given: &GivenPeer, config: &Config, refuse: &mut impl FnMut(&str, String)) {
    for (key, mut message) in peer_options::mistakes(&given.options, config.gateway.profile) {
        if given.is_listed() {
            message.push_str("; an AgentOS peers file cannot say it, so write the peer as [[peers]]");
        }
        refuse(key, message);
    }
}

/// What a peer proves itself with, each in a form that is the same for the same thing.
fn identities_of(peer: &PeerOptions) -> Vec<(&'static str, String)> {
    let of_key = peer.public_key.map(|key| ("public_key", SpkiPin::of_ed25519(key.as_bytes()).to_string()));
    let of_certificate = peer.certificate.map(|pin| ("certificate", pin.to_string()));
    let of_name =
        (!peer.tls_name.is_empty()).then(|| ("tls_name", format!("name:{}", peer.tls_name.to_lowercase())));
    [of_key, of_certificate, of_name].into_iter().flatten().collect()
}

/// The key of the listener that is at this URL.
fn own_address(base_url: &Url, config: &Config) -> Option<&'static str> {
    let doors = [("server.listen", Some(config.server.listen)), ("peering.listen", config.peering.listen)];
    let mut doors = doors.into_iter().filter_map(|(key, address)| Some((key, address?)));
    doors.find(|(_, address)| is_at(base_url, *address)).map(|(key, _)| key)
}

fn is_at(base_url: &Url, listen: SocketAddr) -> bool {
    let is_own_host = match base_url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address) == listen.ip(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address) == listen.ip(),
        Some(Host::Domain(name)) => name == "localhost" && listen.ip().is_loopback(),
        None => false,
    };
    is_own_host && listen.port() != 0 && base_url.port_or_known_default() == Some(listen.port())
}
