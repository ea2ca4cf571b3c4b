//! Which addresses a peer's name leads to: looked up for each connection, filtered, and dialled as they are.
//!
//! Invariant: what is dialled is what was checked. There is no second lookup between the check and the
//! connection, so a name that changes its address in between gains nothing. A literal address is never
//! looked up: [`check_literal`] is for those. Redirects must be off, for they may lead to a literal.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::domain::address::{AddressRule, DeniedAddress};

/// The addresses of a name, on their way. The port 0 stands for the URL's.
pub(super) type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The resolver of one peer's client.
#[derive(Clone)]
pub(super) struct PeerResolver {
    rule: Arc<AddressRule>,
    lookup: Arc<dyn Fn(String) -> Lookup + Send + Sync>,
}

impl PeerResolver {
    /// Looks names up as the system does.
    pub(super) fn system(rule: AddressRule) -> Self {
        Self::with_lookup(rule, |name| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
        })
    }

    /// Looks names up with `lookup` (tests and simulation).
    pub(super) fn with_lookup(
        rule: AddressRule,
        lookup: impl Fn(String) -> Lookup + Send + Sync + 'static,
    ) -> Self {
        PeerResolver { rule: Arc::new(rule), lookup: Arc::new(lookup) }
    }
}

impl fmt::Debug for PeerResolver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PeerResolver").field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl Resolve for PeerResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let looked_up = (self.lookup)(name.as_str().to_owned());
        let rule = Arc::clone(&self.rule);
        Box::pin(async move {
            let allowed = allowed(looked_up.await?, &rule)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Those of `found` that may be dialled; when there are none, why not the first.
fn allowed(
    found: Vec<SocketAddr>,
    rule: &AddressRule,
) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
    let mut allowed = Vec::with_capacity(found.len());
    let mut denied = None;
    for address in found {
        match rule.may_dial(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(reason) => denied = denied.or(Some(reason)),
        }
    }
    match denied {
        _ if !allowed.is_empty() => Ok(allowed),
        Some(reason) => Err(reason.into()),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into()),
    }
}

/// Checks a URL whose host is an address: such a host is dialled without asking a resolver.
pub(super) fn check_literal(url: &Url, rule: &AddressRule) -> Result<(), DeniedAddress> {
    match url.host() {
        Some(Host::Ipv4(address)) => rule.may_dial(address.into()),
        Some(Host::Ipv6(address)) => rule.may_dial(address.into()),
        Some(Host::Domain(name)) => name.parse::<IpAddr>().map_or(Ok(()), |address| rule.may_dial(address)),
        None => Ok(()),
    }
}

/// The denied address at the root of a failed call, which tells it from a failed lookup.
pub(super) fn denied_address<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a DeniedAddress> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(denied) = error.downcast_ref() {
            return Some(denied);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
