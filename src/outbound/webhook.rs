//! The way to a webhook: a body goes there once per call, and only whether it was taken comes back.

use std::fmt;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Body, Method, Request};
use url::Url;

use super::failure::CallFailure;
use super::network::Network;
use super::options::OutboundOptions;
use super::way::{Way, retry_after};
use crate::clock::Clock;
use crate::domain::address::AddressRule;

/// One webhook.
#[derive(Clone)]
pub struct WebhookClient {
    way: Way,
    url: Url,
    answer_timeout: Duration,
}

/// What a webhook answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// HTTP status.
    pub status: u16,
    /// What it asks to wait.
    pub retry_after: Option<Duration>,
}

impl WebhookClient {
    /// The way to `url`, at addresses that `rule` allows; over TLS its certificate is one the system trusts.
    pub fn new(
        url: &Url,
        rule: &AddressRule,
        options: &OutboundOptions,
        network: &Network,
        clock: &Clock,
    ) -> Result<Self, String> {
        let way = Way::to_stranger(url, rule, options.connect_timeout, (network, clock))?;
        Ok(WebhookClient { way, url: url.clone(), answer_timeout: options.answer_timeout })
    }

    /// Posts a body of JSON once.
    pub async fn post(&self, fields: &[(&'static str, String)], body: Vec<u8>) -> Result<Taken, CallFailure> {
        let mut request = Request::new(Method::POST, self.url.clone());
        let sent = request.headers_mut();
        sent.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::from_str(value) {
                sent.insert(HeaderName::from_static(name), value);
            }
        }
        *request.body_mut() = Some(Body::from(body));
        let answer = self.way.send(request, self.answer_timeout).await?;
        Ok(Taken { status: answer.status().as_u16(), retry_after: retry_after(answer.headers()) })
    }

    /// Whose it is; paths and queries of webhooks are often secrets, and stay out of logs.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }
}

impl fmt::Debug for WebhookClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "WebhookClient({})", self.host())
    }
}
