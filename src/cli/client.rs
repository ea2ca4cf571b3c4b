//! One gateway's HTTP API, as the client commands use it: whole calls, whole bounded answers, open streams.
//!
//! Invariant: one call is one request; who calls decides whether another is safe. No redirect is followed and
//! no proxy is asked.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, redirect, retry};
use serde_json::Value;
use url::Url;

use super::access::Access;
use super::exit::{Exit, Failure};
use super::output::shell_word;
use crate::domain::base_url;
use crate::domain::id::{PrincipalId, TenantId};
use crate::domain::limits;
use crate::protocol::{headers, paths};

/// Where a gateway listens unless told otherwise.
pub(super) const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take. A gateway lets a caller wait for 15 s before it says what it knows.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer; a longer one is an error.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Which gateway, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct GatewayArgs {
    /// The gateway
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL, value_parser = base_url::parse)]
    pub(super) url: Url,
    /// Your tenant (X-Tenant-Id). Left out: the gateway's default tenant
    #[arg(long, value_name = "TENANT", value_parser = TenantId::parse)]
    pub(super) tenant: Option<TenantId>,
    /// Who you are in it (X-Principal-Id). Left out: anonymous
    #[arg(long, value_name = "PRINCIPAL", value_parser = PrincipalId::parse)]
    pub(super) principal: Option<PrincipalId>,
    #[command(flatten)]
    pub(super) access: Access,
}

/// As whom calls are made.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    /// Sent as `X-Tenant-Id`.
    pub(super) tenant: Option<TenantId>,
    /// Sent as `X-Principal-Id`.
    pub(super) principal: Option<PrincipalId>,
    /// Proven by this; nothing is shown without it, whatever the environment holds.
    pub(super) access: Option<Access>,
}

/// The way to one gateway.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    identity: Identity,
    authorization: Option<HeaderValue>,
    patience: Duration,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// HTTP status.
    pub(super) status: u16,
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// Its body.
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// No byte of the request left.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The request may have arrived.
    #[error("{0}")]
    Broken(String),
}

/// What an error body says. The texts are from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Complaint {
    /// `error.code`.
    pub(super) code: Option<String>,
    /// `error.message`, else `detail`.
    pub(super) message: Option<String>,
    /// `error.retryable`.
    pub(super) retryable: Option<bool>,
    /// `error.details.forward_id`.
    pub(super) forward_id: Option<String>,
}

impl GatewayArgs {
    /// The way to that gateway.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let identity = Identity {
            tenant: self.tenant.clone(),
            principal: self.principal.clone(),
            access: Some(self.access.clone()),
        };
        Client::new(self.url.clone(), identity, PATIENCE)
    }
}

impl Client {
    /// A client for the gateway at `base`.
    pub(super) fn new(base: Url, identity: Identity, patience: Duration) -> Result<Self, Failure> {
        let access = identity.access.as_ref();
        let authorization = access.map(|access| access.authorization(&base)).transpose()?.flatten();
        let authorities = access.map(Access::authorities).transpose()?.flatten();
        let mut builder = builder(patience);
        if base.scheme() == "http" {
            // No certificate will be looked at, so a machine without any is fine.
            builder = builder.tls_certs_only([]);
        } else if let Some(authorities) = authorities {
            builder = builder.tls_certs_only(authorities);
        }
        let http = builder.build().map_err(no_client)?;
        Ok(Client { http, base, identity, authorization, patience })
    }

    /// A client for the gateway that listens on a socket of this machine.
    pub(super) fn on_socket(socket: &Path, patience: Duration) -> Result<Self, Failure> {
        let base = Url::parse("http://localhost").map_err(Failure::failed)?;
        let http = builder(patience).tls_certs_only([]).unix_socket(socket).build().map_err(no_client)?;
        Ok(Client { http, base, identity: Identity::default(), authorization: None, patience })
    }

    /// A client for a gateway of this machine, whoever its certificate is for: nothing is told to it.
    pub(super) fn unchecked(base: Url, patience: Duration) -> Result<Self, Failure> {
        let http = builder(patience).tls_danger_accept_invalid_certs(true).build().map_err(no_client)?;
        Ok(Client { http, base, identity: Identity::default(), authorization: None, patience })
    }

    /// The gateway's base URL.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// A URL of the gateway, from path segments.
    pub(super) fn url(&self, segments: &[&str]) -> Url {
        paths::below(&self.base, segments)
    }

    /// Asks for a URL of the gateway.
    pub(super) async fn get(&self, url: Url) -> Result<Reply, CallError> {
        self.call(self.request(Method::GET, url)).await
    }

    /// Sends JSON to a URL of the gateway.
    pub(super) async fn post(
        &self,
        url: Url,
        extra: &[(HeaderName, HeaderValue)],
        body: Vec<u8>,
    ) -> Result<Reply, CallError> {
        let mut request = self.request(Method::POST, url).header(CONTENT_TYPE, "application/json").body(body);
        for (name, value) in extra {
            request = request.header(name, value);
        }
        self.call(request).await
    }

    /// Asks for a stream; only the head of the answer is waited for.
    pub(super) async fn open(
        &self,
        url: Url,
        extra: &[(HeaderName, HeaderValue)],
    ) -> Result<Response, CallError> {
        let mut request = self.request(Method::GET, url);
        for (name, value) in extra {
            request = request.header(name, value);
        }
        self.within(async { request.send().await.map_err(|error| failure(&error)) }).await
    }

    /// Reads an answer to its end.
    pub(super) async fn finish(&self, response: Response) -> Result<Reply, CallError> {
        self.within(read(response)).await
    }

    /// The flags that make another command talk to the same gateway as the same caller.
    pub(super) fn flags(&self) -> String {
        let mut flags = String::new();
        let base = self.base.as_str().trim_end_matches('/');
        if base != DEFAULT_URL {
            flags.push_str(&format!(" --url {}", shell_word(base)));
        }
        if let Some(tenant) = &self.identity.tenant {
            flags.push_str(&format!(" --tenant {}", shell_word(tenant.as_str())));
        }
        if let Some(principal) = &self.identity.principal {
            flags.push_str(&format!(" --principal {}", shell_word(principal.as_str())));
        }
        flags.extend(self.identity.access.as_ref().map(Access::flags));
        flags
    }

    /// Makes a call with a body of JSON, or with none.
    pub(super) async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Reply, CallError> {
        let mut request = self.request(method, url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        self.call(request).await
    }

    fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(tenant) = &self.identity.tenant {
            request = request.header(headers::TENANT, tenant.as_str());
        }
        if let Some(principal) = &self.identity.principal {
            request = request.header(headers::PRINCIPAL, principal.as_str());
        }
        request
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<Reply, CallError> {
        self.within(async { read(request.send().await.map_err(|error| failure(&error))?).await }).await
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        tokio::time::timeout(self.patience, work).await.unwrap_or_else(|_| {
            let patience = humantime::format_duration(self.patience);
            Err(CallError::Broken(format!("no answer within {patience}")))
        })
    }
}

fn builder(patience: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("causeway-cli/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT.min(patience))
}

fn no_client(error: reqwest::Error) -> Failure {
    Failure::failed(format!("no HTTP client: {}", failure(&error)))
}

impl CallError {
    /// What to say, and the exit code, when a call to a place came to nothing.
    pub(super) fn told(&self, place: &str) -> Failure {
        match self {
            CallError::Unreachable(reason) => {
                Failure::new(Exit::Unreachable, format!("{place} cannot be reached: {reason}"))
            }
            CallError::Broken(reason) => Failure::new(Exit::TryAgain, format!("{place}: {reason}")),
        }
    }
}

impl Reply {
    /// True for 2xx.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// How long the gateway asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.header(RETRY_AFTER.as_str()).and_then(headers::retry_after)
    }

    /// A header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; `Null` when it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// What an error body says.
    pub(super) fn complaint(&self) -> Complaint {
        Complaint::of(&self.json())
    }
}

impl Complaint {
    /// Reads a problem body; anything else says nothing.
    pub(super) fn of(body: &Value) -> Self {
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(limits::clean_reason);
        Complaint {
            code: text("/error/code"),
            message: text("/error/message").or_else(|| text("/detail")),
            retryable: body.pointer("/error/retryable").and_then(Value::as_bool),
            forward_id: text("/error/details/forward_id"),
        }
    }

    /// The code and the sentence, as far as there are such.
    pub(super) fn sentence(&self) -> String {
        let parts = [self.message.as_deref(), self.code.as_deref()].into_iter().flatten();
        match parts.collect::<Vec<_>>()[..] {
            [message, code] => format!("{message} ({code})"),
            [one] => one.to_owned(),
            _ => "no reason given".to_owned(),
        }
    }
}

async fn read(mut response: Response) -> Result<Reply, CallError> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES {
            return Err(CallError::Broken(format!("the answer is longer than {ANSWER_BYTES} bytes")));
        }
    }
    Ok(Reply { status, headers, body: body.freeze() })
}

/// Sorts a failure by whether bytes may have left.
pub(super) fn failure(error: &reqwest::Error) -> CallError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let reason = limits::clean_reason(&cause.to_string());
    if error.is_connect() || error.is_builder() {
        CallError::Unreachable(reason)
    } else {
        CallError::Broken(format!("the connection broke: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_complaint_is_data_without_control_characters() {
        let body =
            json!({"detail": "d", "error": {"code": "busy", "message": "a\u{1b}[2J", "retryable": true}});
        let complaint = Complaint::of(&body);
        assert_eq!(complaint.sentence(), "a [2J (busy)");
        assert_eq!(complaint.retryable, Some(true));
        assert_eq!(Complaint::of(&json!("<html>")).sentence(), "no reason given");
    }

    #[test]
    fn flags_repeat_only_what_is_not_the_default() {
        let client = |url: &str, tenant: Option<&str>| {
            let tenant = tenant.map(|text| TenantId::parse(text).expect("an id"));
            let base = base_url::parse(url).expect("a URL");
            Client::new(base, Identity { tenant, ..Identity::default() }, PATIENCE).expect("a client")
        };
        assert_eq!(client(DEFAULT_URL, None).flags(), "");
        let flags = client("http://127.0.0.1:81", Some("it's")).flags();
        assert_eq!(flags, r" --url http://127.0.0.1:81 --tenant 'it'\''s'");
    }
}
