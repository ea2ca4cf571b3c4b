//! TLS 1.3 toward clients and peers: who we are, whom we let in, whom we call.
//!
//! No session is ever resumed: a resumed session skips the verifier, so a revoked peer would come back.
//! The cryptography is named explicitly and never the process default.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::clock::Clock;

mod accept;
mod client;
mod error;
mod identity;
mod pin;
mod presented;
mod reload;
mod roots;
mod server;
#[cfg(test)]
mod tests;

pub use accept::{HandshakeError, handshake};
pub use client::{Expectation, toward_peer};
pub use error::TlsError;
pub use identity::Identity;
pub use pin::{InvalidPin, SpkiPin};
pub use presented::{PeerDirectory, Presented, ends_ms, presented};
pub use reload::{FileBytes, Reloadable};
pub use roots::Roots;
pub use server::{client_facing, peer_facing};

/// What this gateway shows of itself; replaced while connections go on.
pub type Credentials = Reloadable<Identity>;

/// The private authority whose certificates count; replaced while connections go on.
pub type Authority = Reloadable<Roots>;

/// The keys a peer's certificate may have; replaced while connections go on.
pub type LivePins = arc_swap::ArcSwap<Vec<SpkiPin>>;

/// The only protocol version spoken.
static VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The one source of cryptography.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The gateway's clock, as rustls asks for it.
#[derive(Debug)]
struct WallTime(Clock);

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now_ms()))
    }
}

fn unix_time(unix_ms: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0)))
}
