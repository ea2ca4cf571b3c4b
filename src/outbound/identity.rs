//! What this gateway shows of itself to peers: its name, its process, its signatures, its certificate.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use crate::clock::Clock;
use crate::domain::key::SigningKey;
use crate::domain::succession::Succession;
use crate::entropy::Entropy;
use crate::protocol::headers;
use crate::protocol::signature::{self, When};
use crate::tls::{Authority, Credentials};

/// How long a signature may be used, in seconds.
const LIFETIME_S: i64 = 60;

/// This gateway, as its peers see it.
pub struct OwnIdentity {
    /// Its peer id.
    pub peer_id: String,
    /// The domain it belongs to.
    pub domain: String,
    /// A digest of its policy.
    pub policy_digest: String,
    /// This process: two gateways started from one copied directory differ in it.
    pub instance: String,
    /// Signs requests to gateways.
    pub signer: ArcSwap<SigningKey>,
    /// What every gateway that is called hears of the key to come.
    pub succession: ArcSwapOption<Succession>,
    /// The certificate shown to peers.
    pub credentials: Arc<Credentials>,
    /// Vouches for peers enrolled by name.
    pub authority: Option<Arc<Authority>>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
}

impl OwnIdentity {
    /// Says who calls whom, and signs the request as it will leave; answers its nonce.
    pub(super) fn sign(
        &self,
        destination: &str,
        method: &Method,
        url: &Url,
        fields: &mut HeaderMap,
        body: Option<&[u8]>,
    ) -> Option<String> {
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                fields.insert(name, value);
            }
        };
        put(headers::ORIGIN, &self.peer_id);
        put(headers::DESTINATION, destination);
        put(headers::INSTANCE, &self.instance);
        if let Some(succession) = self.succession.load().as_deref() {
            put(headers::KEY_SUCCESSION, &succession.to_text());
        }
        let mut nonce = [0; 16];
        self.entropy.fill(&mut nonce);
        let when = When { created_s: self.clock.now_ms().div_euclid(1000), lifetime_s: LIFETIME_S, nonce };
        let key = self.signer.load();
        let signed = signature::sign(method.as_str(), url.path(), url.query(), fields, body, &key, &when);
        match signed {
            Ok(()) => Some(URL_SAFE_NO_PAD.encode(nonce)),
            Err(error) => {
                // The other side refuses what is not signed, and says so.
                tracing::error!(error = %error, "a request could not be signed");
                None
            }
        }
    }
}

impl fmt::Debug for OwnIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "OwnIdentity({}, {})", self.peer_id, self.instance)
    }
}
