//! A configuration while it is put together: what was given, where, and what is wrong with it so far.
//!
//! Invariant: a value that was refused is left out and its mistake kept, so that reading goes on to the end
//! and all mistakes are told at once.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::error::{ConfigError, ConfigErrors, Origin};
use super::schema::{Schema, shown};
use super::sections::Config;
use crate::domain::id::PeerId;
use crate::services::peer_options::PeerOptions;
use crate::services::trust_options::BridgeOptions;

/// Peers in all; more are refused.
const MAX_PEERS: usize = 4096;

/// What has been given so far.
pub(super) struct Draft {
    schema: Schema,
    settings: BTreeMap<String, Setting>,
    bridges: Vec<GivenBridge>,
    peers: Vec<GivenPeer>,
    switches: BTreeSet<&'static str>,
    errors: Vec<ConfigError>,
}

/// A value in its canonical form, and where it was given.
struct Setting {
    value: Value,
    origin: Origin,
}

/// A peer, and where it was given.
pub(super) struct GivenPeer {
    /// The peer.
    pub(super) options: PeerOptions,
    /// Where it begins.
    pub(super) origin: Origin,
    /// Where its keys are, as far as they were given one by one.
    pub(super) keys: BTreeMap<String, Origin>,
}

/// A bridge, and where it was given.
pub(super) struct GivenBridge {
    /// The foreign domain.
    pub(super) domain: String,
    /// The permission.
    pub(super) options: BridgeOptions,
    /// Where it begins.
    pub(super) origin: Origin,
}

/// What a value does when its key has one already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precedence {
    /// It takes its place.
    Overrides,
    /// It must be the same.
    MustAgree,
    /// It gives way.
    Yields,
}

impl Draft {
    /// Nothing given yet.
    pub(super) fn new() -> Self {
        Self {
            schema: Schema::new(),
            settings: BTreeMap::new(),
            bridges: Vec::new(),
            peers: Vec::new(),
            switches: BTreeSet::new(),
            errors: Vec::new(),
        }
    }

    /// The known keys.
    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Takes a value for a known key, or its mistake.
    pub(super) fn set(&mut self, key: &str, value: Value, origin: Origin, precedence: Precedence) {
        self.settle(key, self.schema.read(key, value), origin, precedence);
    }

    /// Takes a value for a known key from the text of a variable, or its mistake.
    pub(super) fn set_text(&mut self, key: &str, text: &str, origin: Origin, precedence: Precedence) {
        self.settle(key, self.schema.read_text(key, text), origin, precedence);
    }

    fn settle(&mut self, key: &str, read: Result<Value, String>, origin: Origin, precedence: Precedence) {
        let previous = self.settings.get(key);
        if previous.is_some() && precedence == Precedence::Yields {
            return;
        }
        let value = match read {
            Ok(value) => value,
            Err(message) => return self.refuse(origin, key, &message),
        };
        if let (Some(previous), Precedence::MustAgree) = (previous, precedence) {
            if previous.value != value {
                let message = format!(
                    "{} contradicts {} from {}: set one of the two, or both to the same",
                    shown(&value),
                    shown(&previous.value),
                    previous.origin
                );
                self.refuse(origin, key, &message);
            }
            return;
        }
        // An empty text where none is the default says no more than leaving the key out.
        if value.as_str() != Some("") || self.schema.find_default(key) != Some(&value) {
            self.settings.insert(key.to_owned(), Setting { value, origin });
        }
    }

    /// The text a key was given.
    pub(super) fn find_text(&self, key: &str) -> Option<&str> {
        self.settings.get(key)?.value.as_str()
    }

    /// Where a key was given.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.settings.get(key).map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// True when somebody gave the key a value.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.settings.contains_key(key)
    }

    /// Keeps a mistake.
    pub(super) fn refuse(&mut self, origin: Origin, key: &str, message: &str) {
        self.errors.push(ConfigError::new(origin, key, message));
    }

    /// Keeps a mistake found in the finished configuration, unless the key has one already.
    pub(super) fn refuse_checked(&mut self, key: &str, message: &str) {
        if !self.is_refused(key) {
            self.refuse(self.origin(key), key, message);
        }
    }

    /// True when a mistake at this key is known.
    pub(super) fn is_refused(&self, key: &str) -> bool {
        self.errors.iter().any(|error| error.key == key)
    }

    /// True when a mistake at a key that begins so is known.
    pub(super) fn is_refused_below(&self, start: &str) -> bool {
        self.errors.iter().any(|error| error.key.starts_with(start))
    }

    /// Notes that a switch of AgentOS without a key of its own is on.
    pub(super) fn note_switch(&mut self, name: &'static str) {
        self.switches.insert(name);
    }

    /// True when the switch of this name is on.
    pub(super) fn has_switch(&self, name: &str) -> bool {
        self.switches.contains(name)
    }

    /// Takes a bridge; domains are given once, under whichever name.
    pub(super) fn add_bridge(&mut self, bridge: GivenBridge) {
        match self.bridges.iter().find(|first| first.domain == bridge.domain) {
            Some(first) => {
                let message = format!("is given twice, first at {}: a domain has one bridge", first.origin);
                self.refuse(bridge.origin, &bridge_key(&bridge.domain), &message);
            }
            None => self.bridges.push(bridge),
        }
    }

    /// The bridges so far.
    pub(super) fn bridges(&self) -> &[GivenBridge] {
        &self.bridges
    }

    /// Takes a peer of the configuration file; ids are given once.
    pub(super) fn add_peer(&mut self, peer: GivenPeer) {
        match self.find_peer(&peer.options.peer_id) {
            Some(first) => {
                let message = format!("is given twice, first at {}: peer ids are unique", first.origin);
                self.refuse(peer.origin, &peer_key(&peer.options.peer_id), &message);
            }
            None => self.push_peer(peer),
        }
    }

    /// Takes a peer of the peers file, which gives way to one that is known already at the same place.
    pub(super) fn add_listed_peer(&mut self, peer: GivenPeer) {
        match self.find_peer(&peer.options.peer_id) {
            Some(first) if first.options.base_url != peer.options.base_url => {
                let message = format!(
                    "{} contradicts {} from {}: give one base URL per peer",
                    peer.options.base_url, first.options.base_url, first.origin
                );
                self.refuse(peer.origin, &format!("{}.base_url", peer_key(&peer.options.peer_id)), &message);
            }
            Some(_) => {}
            None => self.push_peer(peer),
        }
    }

    fn push_peer(&mut self, peer: GivenPeer) {
        if self.peers.len() < MAX_PEERS {
            self.peers.push(peer);
        } else if !self.is_refused("peers") {
            self.refuse(peer.origin, "peers", &format!("at most {MAX_PEERS} peers are allowed"));
        }
    }

    /// The peers so far.
    pub(super) fn peers(&self) -> &[GivenPeer] {
        &self.peers
    }

    /// Everything given, over the defaults.
    pub(super) fn to_config(&self) -> Config {
        let mut document = Table::new();
        for (key, setting) in &self.settings {
            let (section, name) = key.split_once('.').expect("settings have keys of the schema");
            let section = document.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(keys) = section {
                keys.insert(name.to_owned(), setting.value.clone());
            }
        }
        let mut config: Config = document.try_into().expect("each setting was read alone");
        let bridge = |bridge: &GivenBridge| (bridge.domain.clone(), bridge.options.clone());
        config.bridges = self.bridges.iter().map(bridge).collect();
        config.peers = self.peers.iter().map(|peer| peer.options.clone()).collect();
        config
    }

    /// The mistakes, when there are any.
    pub(super) fn into_errors(self) -> Option<ConfigErrors> {
        ConfigErrors::find(self.errors)
    }

    fn find_peer(&self, id: &PeerId) -> Option<&GivenPeer> {
        self.peers.iter().find(|peer| peer.options.peer_id == *id)
    }
}

impl GivenPeer {
    /// A peer given as a whole.
    pub(super) fn new(options: PeerOptions, origin: Origin) -> Self {
        Self { options, origin, keys: BTreeMap::new() }
    }

    /// True for an entry of an AgentOS peers file, which has no more keys than AgentOS knows.
    pub(super) fn is_listed(&self) -> bool {
        self.keys.is_empty()
    }

    /// Where one of its keys was given.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.keys.get(key).unwrap_or(&self.origin).clone()
    }
}

/// How mistakes name a peer.
pub(super) fn peer_key(id: &PeerId) -> String {
    format!("peers.{id}")
}

/// How mistakes name a bridge.
pub(super) fn bridge_key(domain: &str) -> String {
    format!("bridges.{domain}")
}
