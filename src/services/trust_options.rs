//! What an operator may turn of trust: domains, how peers come in, how much callers may ask for, the audit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::grants::Operation;
use crate::domain::policy::FederationMode;
use crate::domain::rate::Rate;
use crate::domain::units;

/// `[policy]`: the domain this gateway belongs to, and which others it works with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyOptions {
    /// The domain (MPREG calls it `cluster_id`), 1 to 128 visible ASCII characters. Left out: `default`.
    pub domain: String,
    /// `strict`: peers of this domain only; `bridging`: also those of allowed and bridged domains; `open`: all,
    /// which profile prod refuses. Left out: `strict`.
    pub federation_mode: FederationMode,
    /// Foreign domains allowed in mode bridging. Left out: none.
    pub allowed_foreign_domains: Vec<String>,
}

/// `[bridges."<domain>"]`: an explicit permission for one foreign domain, in mode bridging.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeOptions {
    /// The peers that may use it. Left out or empty: every enrolled peer of the domain.
    pub allowed_peers: Vec<String>,
    /// What may be done over it, within each peer's grants. Left out or empty: everything.
    pub operations: Vec<Operation>,
}

/// `[peering]`: how this gateway proves itself to peers, and where they come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeeringOptions {
    /// Address and port where peers come in with mutual TLS. Left out or empty: there is none, and peers with a
    /// key may come in on `server.listen`, by signature.
    #[serde(with = "units::optional_text")]
    pub listen: Option<SocketAddr>,
    /// This gateway's Ed25519 key, PKCS#8 PEM. Left out or empty: `keys/gateway.pem` in the data directory, made
    /// at the first start.
    #[serde(with = "units::optional_text")]
    pub key_file: Option<PathBuf>,
    /// Certificate chain (PEM) shown to peers. Left out or empty: one that the gateway issues to itself for its
    /// key.
    #[serde(with = "units::optional_text")]
    pub cert_file: Option<PathBuf>,
    /// The private key (PEM) of `cert_file`.
    #[serde(with = "units::optional_text")]
    pub cert_key_file: Option<PathBuf>,
    /// Certificates (PEM) that vouch for peers enrolled with a `tls_name`. Left out or empty: none.
    #[serde(with = "units::optional_text")]
    pub ca_file: Option<PathBuf>,
    /// Peers may come in only with mutual TLS, on `listen`, and gateways are called only by https. Left out:
    /// false.
    pub require_mtls: bool,
    /// How long a rotated key announces its successor before it changes. Left out: 24 h.
    #[serde(with = "units::text")]
    pub rotation_overlap: Duration,
}

/// `[limits]`: how much one caller may ask for. Rates are written `100/s`, `600/m burst 50`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsOptions {
    /// Failed logins from one network (a /24, or a /56 of IPv6). Left out: `5/s burst 100`.
    #[serde(with = "units::optional_text")]
    pub failed_logins: Option<Rate>,
    /// Requests of one peer. Left out or empty: no limit.
    #[serde(with = "units::optional_text")]
    pub peer: Option<Rate>,
    /// Requests of one tenant. Left out or empty: no limit.
    #[serde(with = "units::optional_text")]
    pub tenant: Option<Rate>,
    /// Requests of one principal. Left out or empty: no limit.
    #[serde(with = "units::optional_text")]
    pub principal: Option<Rate>,
    /// Runs that one tenant may create in a day (UTC). Zero or left out: no limit.
    pub runs_per_day: u64,
    /// Unfinished runs of one tenant. Zero or left out: no limit.
    pub concurrent_runs: u64,
    /// Bytes of events kept of one tenant. Zero or left out: no limit.
    #[serde(with = "units::size")]
    pub stored_bytes: usize,
    /// How long a stream ticket may be used. Left out: 60 s.
    #[serde(with = "units::text")]
    pub ticket_lifetime: Duration,
}

/// `[audit]`: the trail of decisions and changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditOptions {
    /// Where each record also goes, as a line of JSON: `stdout`, `stderr` or `file:PATH`. Left out or empty:
    /// nowhere but the database.
    pub sink: String,
    /// Longest time between signed checkpoints. Left out: 60 s.
    #[serde(with = "units::text")]
    pub checkpoint_interval: Duration,
    /// Most records between signed checkpoints. Left out: 1000.
    pub checkpoint_records: u64,
}

impl Default for PolicyOptions {
    fn default() -> Self {
        Self {
            domain: "default".to_owned(),
            federation_mode: FederationMode::Strict,
            allowed_foreign_domains: Vec::new(),
        }
    }
}

impl Default for PeeringOptions {
    fn default() -> Self {
        Self {
            listen: None,
            key_file: None,
            cert_file: None,
            cert_key_file: None,
            ca_file: None,
            require_mtls: false,
            rotation_overlap: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Default for LimitsOptions {
    fn default() -> Self {
        Self {
            failed_logins: Rate::parse("5/s burst 100").ok(),
            peer: None,
            tenant: None,
            principal: None,
            runs_per_day: 0,
            concurrent_runs: 0,
            stored_bytes: 0,
            ticket_lifetime: Duration::from_secs(60),
        }
    }
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self { sink: String::new(), checkpoint_interval: Duration::from_secs(60), checkpoint_records: 1000 }
    }
}
