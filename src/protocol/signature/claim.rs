//! What a signed request claims, read without any cryptography, and the checks that prove it.
//!
//! A claim exists only when the signature covers the whole profile and names our algorithm and tag.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sfv::{BareItem, InnerList, ListEntry, Parameters};

use super::components::{self, Component, SignedParts};
use super::{
    ALGORITHM, CONTENT_DIGEST, LABEL, MAX_LIFETIME_S, MAX_SKEW_S, SIGNATURE, SIGNATURE_INPUT, SignatureError,
    TAG, digest, fields,
};
use crate::domain::key::{KeyId, PublicKey};

/// A signature that has the right shape and is not yet believed.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The key that is said to have signed.
    pub key_id: KeyId,
    /// When it was signed, in seconds since the Unix epoch.
    pub created_s: i64,
    /// When it ends.
    pub expires_s: i64,
    /// What makes it one of a kind: 22 characters of base64url.
    pub nonce: String,
    base: String,
    signature: [u8; 64],
    digest: Option<[u8; 32]>,
}

/// Reads a request's signature: shape, label, coverage, algorithm, tag, key id, digest algorithm.
pub fn parse(parts: &SignedParts<'_>) -> Result<Claim, SignatureError> {
    let input = fields::joined(parts.headers, SIGNATURE_INPUT)?.ok_or(SignatureError::Missing)?;
    let signatures = fields::joined(parts.headers, SIGNATURE)?.ok_or(SignatureError::Missing)?;
    let (text, entry) = fields::member(&input, LABEL)?.ok_or(SignatureError::Missing)?;
    let (_, signature) = fields::member(&signatures, LABEL)?.ok_or(SignatureError::Missing)?;
    let ListEntry::InnerList(list) = entry else {
        return Err(SignatureError::Malformed("`Signature-Input` must hold a list of components"));
    };
    let components = components::covered(parts)?;
    check_coverage(&list, &components)?;
    let params = Params::read(&list.params)?;
    let content_digest = components.iter().find(|(name, _)| *name == CONTENT_DIGEST);
    Ok(Claim {
        key_id: params.key_id,
        created_s: params.created_s,
        expires_s: params.expires_s,
        nonce: params.nonce,
        base: components::base(&components, text),
        signature: read_signature(&signature)?,
        digest: content_digest.map(|(_, value)| digest::read(value)).transpose()?,
    })
}

/// The list must be what the request makes it, neither more nor less.
fn check_coverage(list: &InnerList, components: &[Component]) -> Result<(), SignatureError> {
    let mut listed = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let name = item.bare_item.as_string().filter(|_| item.params.is_empty());
        listed.push(name.ok_or(SignatureError::Malformed("a component must be a name without parameters"))?);
    }
    let expected = components.iter().map(|(name, _)| *name);
    let left_out = expected.clone().find(|name| !listed.iter().any(|listed| listed.as_str() == *name));
    match left_out {
        Some(name) => Err(SignatureError::Coverage(name)),
        None if !listed.iter().map(|name| name.as_str()).eq(expected) => Err(SignatureError::Components),
        None => Ok(()),
    }
}

fn read_signature(entry: &ListEntry) -> Result<[u8; 64], SignatureError> {
    let bytes = match entry {
        ListEntry::Item(item) if item.params.is_empty() => item.bare_item.as_byte_sequence(),
        _ => None,
    };
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(SignatureError::Malformed("`Signature` must hold 64 bytes, written `:<base64>:`"))
}

struct Params {
    created_s: i64,
    expires_s: i64,
    nonce: String,
    key_id: KeyId,
}

impl Params {
    fn read(params: &Parameters) -> Result<Self, SignatureError> {
        const NAMES: [&str; 6] = ["created", "expires", "nonce", "keyid", "alg", "tag"];
        if !params.keys().all(|key| NAMES.contains(&key.as_str())) {
            return Err(SignatureError::Malformed(
                "its parameters must be `created`, `expires`, `nonce`, `keyid`, `alg` and `tag`",
            ));
        }
        let get = |name: &str| params.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value);
        let text = |name| get(name).and_then(BareItem::as_string).map(sfv::StringRef::as_str);
        let seconds =
            |name| get(name).and_then(BareItem::as_integer).map(i64::from).ok_or(SignatureError::Lifetime);
        if text("alg") != Some(ALGORITHM) {
            return Err(SignatureError::Algorithm);
        }
        if text("tag") != Some(TAG) {
            return Err(SignatureError::Tag);
        }
        let nonce =
            text("nonce").filter(|nonce| URL_SAFE_NO_PAD.decode(nonce).is_ok_and(|bytes| bytes.len() == 16));
        Ok(Params {
            created_s: seconds("created")?,
            expires_s: seconds("expires")?,
            nonce: nonce
                .ok_or(SignatureError::Malformed("`nonce` must be 16 bytes as 22 characters of base64url"))?
                .to_owned(),
            key_id: text("keyid")
                .and_then(|id| KeyId::parse(id).ok())
                .ok_or(SignatureError::Malformed("`keyid` must be 16 characters of base64url"))?,
        })
    }
}

impl Claim {
    /// Refuses what was signed too long ago, has ended, or comes from the future. A signature that passes
    /// once can pass for at most 120 s: that long its nonce must be kept.
    pub fn check_time(&self, now_ms: i64) -> Result<(), SignatureError> {
        let Claim { created_s, expires_s, .. } = *self;
        if !(0..=MAX_LIFETIME_S).contains(&expires_s.saturating_sub(created_s)) {
            return Err(SignatureError::Lifetime);
        }
        let age_ms = now_ms.saturating_sub(created_s.saturating_mul(1000));
        let near = (-MAX_SKEW_S * 1000..=MAX_SKEW_S * 1000).contains(&age_ms);
        if !near || now_ms > expires_s.saturating_mul(1000) {
            let now_s = now_ms.div_euclid(1000);
            return Err(SignatureError::Expired { created_s, expires_s, now_s });
        }
        Ok(())
    }

    /// Refuses what `key` did not sign, or was not said to sign.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureError> {
        let ours = key.key_id() == self.key_id && key.verify(self.base.as_bytes(), &self.signature);
        if ours { Ok(()) } else { Err(SignatureError::Invalid) }
    }

    /// Refuses any body but the one that was signed. Without a digest only an empty one is.
    pub fn check_digest(&self, body: &[u8]) -> Result<(), SignatureError> {
        match &self.digest {
            None if body.is_empty() => Ok(()),
            None => Err(SignatureError::Coverage(CONTENT_DIGEST)),
            Some(digest) if digest::matches(digest, body) => Ok(()),
            Some(_) => Err(SignatureError::DigestMismatch),
        }
    }
}
