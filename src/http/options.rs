//! What an operator may turn on the server side: where it listens, and how much it takes from whom.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::address::AddressRange;
use crate::domain::units;

/// `[server]`: addresses and inbound bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerOptions {
    /// Address and port of the API. Left out: `127.0.0.1:8080`. Port 0 takes a free one.
    #[serde(with = "units::text")]
    pub listen: SocketAddr,
    /// Address and port of metrics and admin paths. Left out or empty: they are served on `listen`.
    #[serde(with = "units::optional_text")]
    pub admin_listen: Option<SocketAddr>,
    /// How `listen` is protected. Left out: `none`, which profile prod allows on loopback only.
    pub tls: TlsMode,
    /// Certificate chain (PEM) shown to clients when `tls` is `own`; read again when it changes.
    #[serde(with = "units::optional_text")]
    pub tls_cert_file: Option<PathBuf>,
    /// The private key (PEM) of `tls_cert_file`.
    #[serde(with = "units::optional_text")]
    pub tls_key_file: Option<PathBuf>,
    /// Addresses of the proxies that end TLS when `tls` is `terminated-upstream`: only they may connect, and
    /// their `X-Forwarded-For` is believed. Left out: none.
    #[serde(with = "units::texts")]
    pub trusted_proxies: Vec<AddressRange>,
    /// How long a TLS handshake may take. Left out: 5 s.
    #[serde(with = "units::text")]
    pub handshake_timeout: Duration,
    /// Largest request body in bytes, except ingest; more is 413. Left out: 1 MiB.
    #[serde(with = "units::size")]
    pub max_body: usize,
    /// Largest `events:ingest` body in bytes; more is 413. Left out: 8 MiB.
    #[serde(with = "units::size")]
    pub max_ingest_body: usize,
    /// How long a connection may take to send a request's head, the wait for its first byte included; then it
    /// closes. Left out: 10 s.
    #[serde(with = "units::text")]
    pub header_timeout: Duration,
    /// How long a request's body may take; then 408. Left out: 15 s.
    #[serde(with = "units::text")]
    pub body_timeout: Duration,
    /// Open connections; at the cap no further one is accepted until one closes. Left out: 4096.
    pub max_connections: usize,
    /// Open connections from one network (a /24, or a /56 of IPv6), loopback and trusted proxies aside; one more
    /// is closed at once. Left out: 256.
    pub max_connections_per_network: usize,
    /// Open event streams in all; more is 503. Left out: 10 000.
    pub max_streams: usize,
    /// Open event streams of one principal; more is 429. Left out: 1000.
    pub max_streams_per_principal: usize,
    /// How long a subscriber may take no byte before its connection is closed. Left out: 30 s.
    #[serde(with = "units::text")]
    pub write_stall: Duration,
    /// How long a stopping gateway waits for requests in flight. Zero: not at all. Left out: 30 s.
    #[serde(with = "units::text")]
    pub shutdown_timeout: Duration,
    /// Origins whose browser pages may call, such as `https://app.example.com`. Left out or empty: none.
    pub cors_origins: Vec<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            admin_listen: None,
            tls: TlsMode::None,
            tls_cert_file: None,
            tls_key_file: None,
            trusted_proxies: Vec::new(),
            handshake_timeout: Duration::from_secs(5),
            max_body: 1024 * 1024,
            max_ingest_body: 8 * 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
            max_connections: 4096,
            max_connections_per_network: 256,
            max_streams: 10_000,
            max_streams_per_principal: 1000,
            write_stall: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
            cors_origins: Vec::new(),
        }
    }
}

/// How the listener of clients is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Plain HTTP.
    #[default]
    None,
    /// TLS 1.3 with the certificate of `tls_cert_file`; HTTP/1.1 and HTTP/2.
    Own,
    /// A proxy of `trusted_proxies` ends it.
    TerminatedUpstream,
}

impl ServerOptions {
    /// True for a proxy whose word is believed.
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|range| range.holds(address))
    }
}
