//! What is allowed and still worth saying at start.

use std::time::Duration;

use url::{Host, Url};

use super::sections::Config;
use crate::domain::units::TextForm;
use crate::services::options::Profile;

/// Other gateways take a stream for dead after this silence, unless told otherwise.
const USUAL_IDLE_TIMEOUT: Duration = Duration::from_secs(45);

impl Config {
    /// What an operator should know about this configuration, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        match self.gateway.profile {
            Profile::Dev => warnings.push(
                "profile dev: identity headers are believed from anyone who can connect, so the gateway \
                 listens on loopback only; do not put a proxy in front of it"
                    .to_owned(),
            ),
        }
        if let Some(tenant) = &self.gateway.default_tenant {
            warnings.push(format!("gateway.default_tenant: requests that name no tenant act as {tenant}"));
        }
        if !self.peers.iter().any(|peer| peer.local) {
            warnings.push(
                "no peer is marked local: the orchestrator paths (POST /v1/agents/{agent_id}/runs) have \
                 nowhere to send runs"
                    .to_owned(),
            );
        }
        if self.events.heartbeat >= USUAL_IDLE_TIMEOUT {
            warnings.push(format!(
                "events.heartbeat is {}: gateways that read from here reconnect after {} of silence",
                self.events.heartbeat.write(),
                USUAL_IDLE_TIMEOUT.write()
            ));
        }
        self.warn_of_peers(&mut warnings);
        warnings
    }

    fn warn_of_peers(&self, warnings: &mut Vec<String>) {
        let on_loopback = self.peers.iter().filter(|peer| is_loopback(&peer.base_url)).count();
        if on_loopback > 0 {
            warnings.push(format!("profile dev allows peers on loopback: {on_loopback} configured"));
        }
        for peer in &self.peers {
            if peer.token.is_some() && peer.base_url.scheme() == "http" && !is_loopback(&peer.base_url) {
                warnings.push(format!("peer {}: its credential is sent over plain http", peer.peer_id));
            }
            if !peer.idempotent_create {
                warnings.push(format!(
                    "peer {}: idempotent_create is false, so an attempt with an unknown outcome is final",
                    peer.peer_id
                ));
            }
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}
