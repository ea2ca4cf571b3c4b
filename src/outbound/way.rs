//! The way to one place: a client that goes there and nowhere else, over the machine's network or a simulated one.
//!
//! Invariant: addresses are filtered when connecting; no redirect is followed, nothing is retried, and no proxy
//! of the system is used.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Request, Response};
use url::Url;

use super::client::Dialled;
use super::connections::{Connections, client};
use super::failure::{CallFailure, failure};
use super::network::{Carrier, Network};
use super::resolver;
use crate::clock::Clock;
use crate::domain::address::AddressRule;
use crate::protocol::headers;
use crate::tls::{self, Expectation};

/// The way to one place.
#[derive(Clone)]
pub(super) struct Way {
    over: Over,
    /// Why its literal address may not be dialled, if so.
    denied: Option<Arc<str>>,
}

#[derive(Clone)]
enum Over {
    Peer(Arc<Connections>),
    Http(Client),
    Carried(Arc<dyn Carrier>),
}

impl Way {
    /// The way to a peer.
    pub(super) fn to_peer(dialled: &Dialled<'_>) -> Result<Self, String> {
        let over = match dialled.network {
            Network::System => Over::Peer(Arc::new(Connections::new(dialled)?)),
            Network::Simulated(carrier) => Over::Carried(Arc::clone(carrier)),
        };
        Ok(Way { over, denied: denied(dialled.base, &dialled.addresses) })
    }

    /// The way to somebody who is no peer: nothing is shown there, and over TLS the system says who may be believed.
    pub(super) fn to_stranger(
        url: &Url,
        rule: &AddressRule,
        connect_timeout: Duration,
        (network, clock): (&Network, &Clock),
    ) -> Result<Self, String> {
        let over = match network {
            Network::System => {
                let tls = || tls::toward_peer(None, Expectation::PublicRoots, clock);
                Over::Http(client(url.scheme() == "https", rule, connect_timeout, tls)?)
            }
            Network::Simulated(carrier) => Over::Carried(Arc::clone(carrier)),
        };
        Ok(Way { over, denied: denied(url, rule) })
    }

    /// Sends a request once and waits for the head of the answer.
    pub(super) async fn send(&self, request: Request, wait: Duration) -> Result<Response, CallFailure> {
        if let Some(denied) = &self.denied {
            return Err(CallFailure::Denied(denied.to_string()));
        }
        let answer = async {
            match &self.over {
                Over::Peer(connections) => {
                    connections.http().execute(request).await.map_err(|error| failure(&error))
                }
                Over::Http(http) => http.execute(request).await.map_err(|error| failure(&error)),
                Over::Carried(carrier) => carrier.carry(request).await,
            }
        };
        match tokio::time::timeout(wait, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                let waited = humantime::format_duration(wait);
                Err(CallFailure::Interrupted(format!("no answer within {waited}")))
            }
        }
    }
}

fn denied(url: &Url, rule: &AddressRule) -> Option<Arc<str>> {
    resolver::check_literal(url, rule).err().map(|denied| Arc::from(denied.to_string()))
}

pub(super) fn retry_after(sent: &HeaderMap) -> Option<Duration> {
    sent.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(headers::retry_after)
}
