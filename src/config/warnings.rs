//! What is allowed and still worth saying at start.

use std::time::Duration;

use url::{Host, Url};

use super::sections::Config;
use crate::domain::policy::FederationMode;
use crate::domain::units::TextForm;
use crate::http::options::TlsMode;
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
            Profile::Prod => self.warn_of_prod(&mut warnings),
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
        self.warn_of_domains(&mut warnings);
        self.warn_of_peers(&mut warnings);
        warnings
    }

    fn warn_of_prod(&self, warnings: &mut Vec<String>) {
        let limits = &self.limits;
        if self.server.tls == TlsMode::None {
            warnings.push(format!(
                "server.tls is \"none\": only clients on this machine reach {}; set it to \"own\" for others",
                self.server.listen
            ));
        }
        let rates = [
            ("failed_logins", limits.failed_logins.is_none()),
            ("peer", limits.peer.is_none()),
            ("tenant", limits.tenant.is_none()),
            ("principal", limits.principal.is_none()),
        ];
        let quotas = [
            ("runs_per_day", limits.runs_per_day == 0),
            ("concurrent_runs", limits.concurrent_runs == 0),
            ("stored_bytes", limits.stored_bytes == 0),
        ];
        for (unset, consequence) in [
            (names_of(&rates), "whoever has a credential may ask as often as it likes"),
            (names_of(&quotas), "one tenant may use up what all of them share"),
        ] {
            if !unset.is_empty() {
                warnings.push(format!("no limit is set by {unset}: {consequence}"));
            }
        }
    }

    fn warn_of_domains(&self, warnings: &mut Vec<String>) {
        let (mode, foreign) = (self.policy.federation_mode, &self.policy.allowed_foreign_domains);
        if mode == FederationMode::Strict && !(foreign.is_empty() && self.bridges.is_empty()) {
            warnings.push(
                "policy.federation_mode is \"strict\": allowed foreign domains and bridges do nothing before it is \
                 \"bridging\""
                    .to_owned(),
            );
        }
        if mode == FederationMode::Open {
            warnings.push(
                "policy.federation_mode is \"open\": peers of every domain are taken, whatever bridges say"
                    .to_owned(),
            );
        }
    }

    fn warn_of_peers(&self, warnings: &mut Vec<String>) {
        let on_loopback = self.peers.iter().filter(|peer| is_loopback(&peer.base_url)).count();
        if on_loopback > 0 && self.gateway.profile == Profile::Dev {
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

/// The limits that are not set, as keys.
fn names_of(limits: &[(&str, bool)]) -> String {
    let unset = limits.iter().filter(|(_, is_unset)| *is_unset);
    unset.map(|(name, _)| format!("limits.{name}")).collect::<Vec<_>>().join(", ")
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}
