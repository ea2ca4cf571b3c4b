//! One peer's HTTP API: whole calls in, whole bounded answers out.
//!
//! Invariant: a call goes to the peer's configured base and nowhere else, with this gateway's own
//! credential and never a caller's; no redirect is followed and nothing is retried below this line.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::tls::TlsInfo;
use reqwest::{Body, Method, Request, Response};
use url::Url;

use super::failure::CallFailure;
use super::identity::OwnIdentity;
use super::network::Network;
use super::options::OutboundOptions;
use super::way::{Way, retry_after};
use crate::domain::address::AddressRule;
use crate::domain::id::{PrincipalId, TenantId};
use crate::domain::limits;
use crate::domain::tenant_names::TenantNames;
use crate::protocol::tenant_field::Renaming;
use crate::protocol::{headers, paths};
use crate::tls::{self, LivePins};

/// What every call but an event stream accepts.
const JSON: &str = "application/json";

/// On whose behalf a call is made, and what it belongs to, in our words.
#[derive(Debug, Clone, Copy)]
pub struct CallContext<'a> {
    /// Sent as `X-Tenant-Id`, under the name it has there.
    pub tenant: Option<&'a TenantId>,
    /// Sent as `X-Principal-Id`.
    pub principal: Option<&'a PrincipalId>,
    /// Sent as `X-Correlation-Id` and `X-Request-Id`.
    pub correlation_id: Option<&'a str>,
    /// Sent as `traceparent`.
    pub traceparent: Option<&'a str>,
    /// Sent as `Causeway-Via`.
    pub via: Option<&'a str>,
}

impl CallContext<'_> {
    /// A call of the gateway's own.
    pub const OWN: CallContext<'static> =
        CallContext { tenant: None, principal: None, correlation_id: None, traceparent: None, via: None };
}

/// A peer's whole answer. A body that broke off, or went over the limit, is what had come by then.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// What the peer asks to wait.
    pub retry_after: Option<Duration>,
    /// At most [`limits::PEER_ANSWER_BYTES`].
    pub body: Bytes,
    /// The body came to its end within the limits.
    pub complete: bool,
    /// Of the request, when it was signed.
    pub nonce: Option<String>,
}

impl Answer {
    /// True for 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for peer {peer} cannot be made: {reason}")]
pub struct BuildError {
    peer: String,
    reason: String,
}

/// A peer as it is dialled.
pub struct Dialled<'a> {
    /// Its id.
    pub peer: &'a str,
    /// Its configured base.
    pub base: &'a Url,
    /// This gateway's bearer credential there.
    pub token: Option<&'a str>,
    /// It checks signatures: requests to it are signed.
    pub signs: bool,
    /// The public keys its certificate may have; empty: its name decides.
    pub pins: Arc<LivePins>,
    /// The name in its certificate, from our authority; empty: that of the URL, from public ones.
    pub tls_name: &'a str,
    /// Where it may be dialled.
    pub addresses: AddressRule,
    /// What it calls our tenants.
    pub tenant_names: &'a TenantNames,
    /// Bounds of one call.
    pub options: &'a OutboundOptions,
    /// What this gateway shows of itself.
    pub identity: &'a Arc<OwnIdentity>,
    /// How requests leave.
    pub network: &'a Network,
}

/// The way to one peer.
#[derive(Clone)]
pub struct PeerClient {
    way: Way,
    peer: Arc<str>,
    base: Url,
    authorization: Option<HeaderValue>,
    identity: Arc<OwnIdentity>,
    signs: bool,
    tenant_names: TenantNames,
    pub(super) options: OutboundOptions,
}

/// A request, ready to be sent.
pub(super) struct Prepared {
    pub(super) request: Request,
    /// Names the request, when it is signed: a gateway proves itself by signing it in turn.
    pub(super) nonce: Option<String>,
}

impl PeerClient {
    /// A client for one peer.
    pub fn new(dialled: Dialled<'_>) -> Result<Self, BuildError> {
        let options = dialled.options;
        let failed = |reason: String| BuildError { peer: dialled.peer.to_owned(), reason };
        let way = Way::to_peer(&dialled).map_err(failed)?;
        let authorization = dialled.token.and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(PeerClient {
            way,
            peer: Arc::from(dialled.peer),
            base: dialled.base.clone(),
            authorization,
            identity: Arc::clone(dialled.identity),
            signs: dialled.signs,
            tenant_names: dialled.tenant_names.clone(),
            options: options.clone(),
        })
    }

    /// The configured base.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Asks the peer to create a run.
    pub async fn create_run(
        &self,
        context: CallContext<'_>,
        agent: &str,
        key: &str,
        body: Vec<u8>,
    ) -> Result<Answer, CallFailure> {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        if let Ok(key) = HeaderValue::from_str(&format!("\"{key}\"")) {
            fields.insert(headers::IDEMPOTENCY_KEY, key);
        }
        let url = paths::create_run(&self.base, agent);
        let body = self.in_its_words(context, body);
        self.call(self.prepare((Method::POST, url), context, fields, JSON, Some(body))?).await
    }

    /// Asks the peer how a run stands.
    pub async fn get_run(&self, context: CallContext<'_>, run_id: &str) -> Result<Answer, CallFailure> {
        self.plain(Method::GET, paths::run(&self.base, run_id), context).await
    }

    /// Asks the peer to cancel a run.
    pub async fn cancel_run(&self, context: CallContext<'_>, run_id: &str) -> Result<Answer, CallFailure> {
        self.plain(Method::POST, paths::cancel_run(&self.base, run_id), context).await
    }

    /// Makes a `GET` below the base; also says when the certificate that was shown ends, in milliseconds since
    /// the Unix epoch.
    pub async fn get(&self, segments: &[&str]) -> Result<(Answer, Option<i64>), CallFailure> {
        let target = (Method::GET, paths::below(&self.base, segments));
        let prepared = self.prepare(target, CallContext::OWN, HeaderMap::new(), JSON, None)?;
        let (answer, shown) = self.exchange(prepared).await?;
        let certificate = shown.as_ref().and_then(TlsInfo::peer_certificate);
        Ok((answer, certificate.and_then(tls::ends_ms)))
    }

    async fn plain(&self, method: Method, url: Url, context: CallContext<'_>) -> Result<Answer, CallFailure> {
        self.call(self.prepare((method, url), context, HeaderMap::new(), JSON, None)?).await
    }

    /// What the peer calls a tenant. Policy lets none go there that has no name.
    fn name_of<'a>(&'a self, tenant: &'a TenantId) -> Result<&'a str, CallFailure> {
        let nameless =
            || CallFailure::Denied(format!("tenant `{tenant}` has no name at peer `{}`", self.peer));
        self.tenant_names.theirs(tenant.as_str()).ok_or_else(nameless)
    }

    /// A body that names the tenant, under the name it has there.
    fn in_its_words(&self, context: CallContext<'_>, body: Vec<u8>) -> Vec<u8> {
        let ours = context.tenant.map_or("", TenantId::as_str);
        match self.tenant_names.theirs(ours).and_then(|theirs| Renaming::between(ours, theirs)) {
            Some(renaming) => renaming.apply(&body).into_owned(),
            None => body,
        }
    }

    /// A request to the peer that accepts one media type: two, in two headers, would leave the choice to it.
    pub(super) fn prepare(
        &self,
        (method, url): (Method, Url),
        context: CallContext<'_>,
        mut sent: HeaderMap,
        accept: &'static str,
        body: Option<Vec<u8>>,
    ) -> Result<Prepared, CallFailure> {
        let tenant = context.tenant.map(|tenant| self.name_of(tenant)).transpose()?;
        sent.insert(ACCEPT, HeaderValue::from_static(accept));
        let mut put = |name: &'static str, value: Option<&str>| {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                sent.insert(name, value);
            }
        };
        put(headers::TENANT, tenant);
        put(headers::PRINCIPAL, context.principal.map(PrincipalId::as_str));
        put(headers::CORRELATION_ID, context.correlation_id);
        put(headers::REQUEST_ID, context.correlation_id);
        put(headers::TRACEPARENT, context.traceparent);
        put(headers::VIA, context.via);
        if let Some(authorization) = &self.authorization {
            sent.insert(AUTHORIZATION, authorization.clone());
        }
        // Last: what is signed is what leaves.
        let nonce = if self.signs {
            self.identity.sign(&self.peer, &method, &url, &mut sent, body.as_deref())
        } else {
            None
        };
        let mut request = Request::new(method, url);
        *request.headers_mut() = sent;
        *request.body_mut() = body.map(Body::from);
        Ok(Prepared { request, nonce })
    }

    async fn call(&self, prepared: Prepared) -> Result<Answer, CallFailure> {
        self.exchange(prepared).await.map(|(answer, _)| answer)
    }

    /// The answer, and what its connection showed.
    async fn exchange(&self, prepared: Prepared) -> Result<(Answer, Option<TlsInfo>), CallFailure> {
        let mut response = self.send(prepared.request, self.options.answer_timeout).await?;
        let shown = response.extensions_mut().remove::<TlsInfo>();
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let plain = !response.headers().contains_key(CONTENT_ENCODING);
        let (body, complete) = self.read_body(response).await;
        let complete = complete && plain;
        Ok((Answer { status, retry_after, body, complete, nonce: prepared.nonce }, shown))
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(&self, request: Request, wait: Duration) -> Result<Response, CallFailure> {
        self.way.send(request, wait).await
    }

    async fn read_body(&self, mut response: Response) -> (Bytes, bool) {
        let mut body = BytesMut::new();
        let read = async {
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) if body.len() + chunk.len() <= limits::PEER_ANSWER_BYTES => {
                        body.extend_from_slice(&chunk);
                    }
                    Ok(None) => return true,
                    Ok(Some(_)) | Err(_) => return false,
                }
            }
        };
        let complete = tokio::time::timeout(self.options.body_timeout, read).await.unwrap_or(false);
        (body.freeze(), complete)
    }
}
