//! The connections to one peer, and what is shown and expected when one is made.
//!
//! Invariant: no request leaves over a connection that was made with a certificate that is not shown any more:
//! the peer will forget the key of it, and a busy connection lives for ever.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use reqwest::{Client, redirect, retry};
use rustls::pki_types::ServerName;

use super::client::Dialled;
use super::failure::root_cause;
use super::identity::OwnIdentity;
use super::resolver::PeerResolver;
use crate::domain::address::AddressRule;
use crate::tls::{self, Expectation, Identity, LivePins, TlsError};

/// How long an idle connection is kept: less than any server keeps it, so that no request meets a connection
/// that is being closed, which would leave its outcome unknown.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Idle connections kept per peer.
const IDLE_CONNECTIONS: usize = 64;

/// The pool of one peer.
pub(super) struct Connections {
    recipe: Recipe,
    made: ArcSwap<Made>,
}

/// A client, and the certificate its connections were made with.
struct Made {
    http: Client,
    shown: Arc<Identity>,
}

/// How a client is made.
struct Recipe {
    peer: String,
    is_https: bool,
    tls_name: String,
    signs: bool,
    pins: Arc<LivePins>,
    addresses: AddressRule,
    connect_timeout: Duration,
    identity: Arc<OwnIdentity>,
}

impl Connections {
    /// None yet.
    pub(super) fn new(dialled: &Dialled<'_>) -> Result<Self, String> {
        let recipe = Recipe {
            peer: dialled.peer.to_owned(),
            is_https: dialled.base.scheme() == "https",
            tls_name: dialled.tls_name.to_owned(),
            signs: dialled.signs,
            pins: Arc::clone(&dialled.pins),
            addresses: dialled.addresses.clone(),
            connect_timeout: dialled.options.connect_timeout,
            identity: Arc::clone(dialled.identity),
        };
        let made = ArcSwap::from_pointee(recipe.make()?);
        Ok(Connections { recipe, made })
    }

    /// The client to use now. What is under way over older connections goes on.
    pub(super) fn http(&self) -> Client {
        let made = self.made.load();
        let shown = self.recipe.identity.credentials.current();
        if !self.recipe.is_https || !self.recipe.signs || Arc::ptr_eq(&made.shown, &shown) {
            return made.http.clone();
        }
        match self.recipe.make() {
            Ok(made) => {
                let http = made.http.clone();
                self.made.store(Arc::new(made));
                http
            }
            Err(reason) => {
                tracing::error!(
                    peer.id = self.recipe.peer,
                    reason,
                    "no connections can be made with the new certificate; the ones before are used"
                );
                made.http.clone()
            }
        }
    }
}

impl Recipe {
    fn make(&self) -> Result<Made, String> {
        // Before the handshakes that read it: a client may be newer than it says, never older.
        let shown = self.identity.credentials.current();
        let http = client(self.is_https, &self.addresses, self.connect_timeout, || self.tls())?;
        Ok(Made { http, shown })
    }

    /// What the peer's certificate must be, and ours.
    fn tls(&self) -> Result<rustls::ClientConfig, TlsError> {
        let identity = &self.identity;
        let name = ServerName::try_from(self.tls_name.clone()).ok();
        let expectation = match (&identity.authority, name) {
            _ if !self.pins.load().is_empty() => Expectation::Pins(Arc::clone(&self.pins)),
            (Some(authority), Some(name)) => Expectation::Authority(Arc::clone(authority), name),
            _ => Expectation::PublicRoots,
        };
        let credentials = self.signs.then(|| Arc::clone(&identity.credentials));
        tls::toward_peer(credentials, expectation, &identity.clock)
    }
}

/// A client that goes where `rule` lets it, over TLS as `tls` says where it `is_https`.
pub(super) fn client(
    is_https: bool,
    rule: &AddressRule,
    connect_timeout: Duration,
    tls: impl FnOnce() -> Result<rustls::ClientConfig, TlsError>,
) -> Result<Client, String> {
    let builder = Client::builder()
        .user_agent(concat!("causeway/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .tcp_nodelay(true)
        .tls_info(true)
        .connect_timeout(connect_timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .dns_resolver(Arc::new(PeerResolver::system(rule.clone())));
    // A place without TLS needs no certificates, and a machine without any is no reason not to start.
    let builder = if is_https {
        builder.tls_backend_preconfigured(tls().map_err(|error| error.to_string())?)
    } else {
        builder.tls_certs_only([])
    };
    builder.build().map_err(|error| root_cause(&error))
}
