//! What an operator may turn on the server side: where it listens, and how much it takes from whom.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
            max_body: 1024 * 1024,
            max_ingest_body: 8 * 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
            max_connections: 4096,
            max_streams: 10_000,
            max_streams_per_principal: 1000,
            write_stall: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
            cors_origins: Vec::new(),
        }
    }
}
