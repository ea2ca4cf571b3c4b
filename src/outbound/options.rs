//! What an operator may turn on the client side: how long a peer may take.
//!
//! Redirects, retries, referer and system proxies are off and no option turns them on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::units;

/// `[outbound]`: bounds of one call to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundOptions {
    /// How long name resolution, connect and TLS may take together. Left out: 2 s.
    #[serde(with = "units::text")]
    pub connect_timeout: Duration,
    /// How long a peer may take to send response headers. Left out: 8 s.
    #[serde(with = "units::text")]
    pub answer_timeout: Duration,
    /// How long a response body that is not an event stream may take. Left out: 10 s.
    #[serde(with = "units::text")]
    pub body_timeout: Duration,
    /// Time between health checks of one peer. Left out: 10 s.
    #[serde(with = "units::text")]
    pub health_interval: Duration,
}

impl Default for OutboundOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(8),
            body_timeout: Duration::from_secs(10),
            health_interval: Duration::from_secs(10),
        }
    }
}
