//! The configuration as the gateway uses it: each layer's options side by side.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::http::options::ServerOptions;
use crate::outbound::options::OutboundOptions;
use crate::services::alert_options::AlertsOptions;
use crate::services::introductions::IntroductionOptions;
use crate::services::jwt::JwtOptions;
use crate::services::options::{
    EventsOptions, ForwardOptions, GatewayOptions, ReaderOptions, RetentionOptions,
};
use crate::services::peer_options::PeerOptions;
use crate::services::trust_options::{
    AuditOptions, BridgeOptions, LimitsOptions, PeeringOptions, PolicyOptions,
};

/// Everything an operator may turn. A loaded one has been checked as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who this gateway is and where its files lie.
    pub gateway: GatewayOptions,
    /// Addresses and inbound bounds.
    pub server: ServerOptions,
    /// How event streams are served.
    pub events: EventsOptions,
    /// How a run-create is sent to its home.
    pub forward: ForwardOptions,
    /// Bounds of one call to a peer.
    pub outbound: OutboundOptions,
    /// How the events of a forwarded run are read from its home.
    pub reader: ReaderOptions,
    /// How long events are kept.
    pub retention: RetentionOptions,
    /// The domain, and which others it works with.
    pub policy: PolicyOptions,
    /// How this gateway proves itself to peers, and where they come in.
    pub peering: PeeringOptions,
    /// Which JWTs clients may bear.
    pub jwt: JwtOptions,
    /// Which hubs may introduce peers.
    pub introductions: IntroductionOptions,
    /// How much one caller may ask for.
    pub limits: LimitsOptions,
    /// The trail of decisions and changes.
    pub audit: AuditOptions,
    /// When a condition is an alert, and who hears of it.
    pub alerts: AlertsOptions,
    /// What is logged, and how.
    pub log: LogOptions,
    /// Permissions for foreign domains, by domain. Left out: none.
    pub bridges: BTreeMap<String, BridgeOptions>,
    /// The peers, native ones first. Left out: none.
    pub peers: Vec<PeerOptions>,
}

/// `[log]`: what is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// Shape of a log line. Left out: `auto`.
    pub format: LogFormat,
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or such with levels per module:
    /// `info,causeway::services=debug`. Left out: `info`.
    pub level: String,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For eyes.
    Text,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// The whole configuration as a file that loads to the same. Credentials are not in it: only the files
    /// they came from are named.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("options are tables of texts, numbers and lists")
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}
