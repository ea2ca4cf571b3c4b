//! HTTP message signatures (RFC 9421) in one fixed profile, with RFC 9530 digests of bodies.
//!
//! The signature covers every part of a request that decides what it does and where, so nothing of it can
//! be changed, added, taken away or sent to another gateway; a covered header that is not listed refuses.
//!
//! Verifying: [`parse`], find the key that [`Claim::key_id`] names, [`Claim::check_time`],
//! [`Claim::verify`], remember `(key_id, nonce)` until 120 s have passed, read the body,
//! [`Claim::check_digest`].

#[cfg(test)]
mod change_tests;
mod claim;
mod components;
mod digest;
mod error;
mod fields;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;

pub use claim::{Claim, parse};
pub use components::SignedParts;
pub use error::SignatureError;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};

use crate::domain::key::SigningKey;

/// The one label that is looked at.
pub const LABEL: &str = "causeway";
/// What `tag` must say.
pub const TAG: &str = "causeway-v1";
/// What `alg` must say.
pub const ALGORITHM: &str = "ed25519";
/// The longest a signature may hold, in seconds.
pub const MAX_LIFETIME_S: i64 = 60;
/// The furthest `created` may lie from the receiver's clock, in seconds.
pub const MAX_SKEW_S: i64 = 60;

const SIGNATURE: &str = "signature";
const SIGNATURE_INPUT: &str = "signature-input";
const CONTENT_DIGEST: &str = "content-digest";

/// When a signature is made, how long it holds, and what makes it one of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// Seconds since the Unix epoch.
    pub created_s: i64,
    /// 0 to [`MAX_LIFETIME_S`] seconds.
    pub lifetime_s: i64,
    /// Random, never used twice.
    pub nonce: [u8; 16],
}

/// Signs a request: sets `Content-Digest` (for a body), `Signature-Input` and `Signature`. All other headers
/// must be in place, `causeway-origin` and `causeway-destination` among them; `query` is without its `?`.
pub fn sign(
    method: &str,
    path: &str,
    query: Option<&str>,
    headers: &mut HeaderMap,
    body: Option<&[u8]>,
    key: &SigningKey,
    when: &When,
) -> Result<(), SignatureError> {
    let When { created_s, lifetime_s, nonce } = *when;
    let expires_s = created_s.saturating_add(lifetime_s);
    if !(0..=999_999_999_999_999).contains(&created_s) || !(0..=MAX_LIFETIME_S).contains(&lifetime_s) {
        return Err(SignatureError::Lifetime);
    }
    if let Some(body) = body {
        headers.insert(CONTENT_DIGEST, header(digest::content_digest(body))?);
    }
    let components = components::covered(&SignedParts { method, path, query, headers })?;
    let names: Vec<String> = components.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let params = format!(
        "({});created={created_s};expires={expires_s};nonce=\"{}\";alg=\"{ALGORITHM}\";keyid=\"{}\";tag=\"{TAG}\"",
        names.join(" "),
        URL_SAFE_NO_PAD.encode(nonce),
        key.public().key_id(),
    );
    let signature = key.sign(components::base(&components, &params).as_bytes());
    headers.insert(SIGNATURE_INPUT, header(format!("{LABEL}={params}"))?);
    headers.insert(SIGNATURE, header(format!("{LABEL}=:{}:", STANDARD.encode(signature)))?);
    Ok(())
}

fn header(text: String) -> Result<HeaderValue, SignatureError> {
    HeaderValue::try_from(text).map_err(|_| SignatureError::Value(SIGNATURE_INPUT))
}

/// True when the request carries `Signature` or `Signature-Input`, good or bad.
pub fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key(SIGNATURE) || headers.contains_key(SIGNATURE_INPUT)
}
