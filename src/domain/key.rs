//! Ed25519 keys: a public key is checked once when it is read, and a secret key is never shown.
//!
//! Every [`PublicKey`] is the one canonical encoding of a point of the large prime order, so two keys
//! that are equal as keys are equal as bytes and as text, and no key exists for which anybody can sign.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, KeypairBytes, PublicKeyBytes};
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What a public key's text starts with.
const PREFIX: &str = "ed25519:";
/// Everything of an RFC 8410 `SubjectPublicKeyInfo` that stands before the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Everything of an RFC 8410 `PrivateKeyInfo` that stands before the 32 bytes of the seed.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The longest PEM text read; an Ed25519 key takes less than 200 bytes.
const MAX_PEM_BYTES: usize = 4096;

/// Why something is not a key. The text itself is not repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not the text form.
    #[error("a public key must be written `ed25519:` and 43 characters of base64url without padding")]
    Text,
    /// Not a point of the curve, or not its canonical encoding.
    #[error("the 32 bytes must be the canonical encoding of a point of Ed25519")]
    NotAPoint,
    /// A point for which anybody can make signatures, or one outside the group Ed25519 uses.
    #[error("the public key is weak: it must lie in the prime-order group and not be the neutral element")]
    Weak,
    /// Not an Ed25519 public key as PEM.
    #[error("must be one PEM block `BEGIN PUBLIC KEY` that holds an Ed25519 key (RFC 8410)")]
    PublicPem,
    /// Not an Ed25519 private key as PEM.
    #[error("must be one PEM block `BEGIN PRIVATE KEY` (PKCS#8, not encrypted) that holds an Ed25519 key")]
    PrivatePem,
    /// Not a key id.
    #[error("a key id must be 16 characters of base64url (A-Z a-z 0-9 - _)")]
    KeyId,
}

/// A public key; its text is `ed25519:<43 characters of base64url>`.
#[derive(Clone, Copy)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() == 43);
        let bytes = encoded.and_then(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok());
        let bytes: [u8; 32] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidKey::Text)?;
        Self::from_bytes(&bytes)
    }

    /// Checks the 32 bytes of RFC 8032.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidKey> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| InvalidKey::NotAPoint)?;
        let point = key.to_edwards();
        if point.compress().as_bytes() != bytes {
            return Err(InvalidKey::NotAPoint);
        }
        if key.is_weak() || !point.is_torsion_free() {
            return Err(InvalidKey::Weak);
        }
        Ok(PublicKey(key))
    }

    /// Reads a PEM block `BEGIN PUBLIC KEY`.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        if pem.len() > MAX_PEM_BYTES {
            return Err(InvalidKey::PublicPem);
        }
        let key = PublicKeyBytes::from_public_key_pem(pem);
        Self::from_bytes(&key.map_err(|_| InvalidKey::PublicPem)?.0)
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The name the key goes by in signatures.
    pub fn key_id(&self) -> KeyId {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(self.as_bytes()));
        let mut id = [b'A'; KeyId::LEN];
        id.iter_mut().zip(digest.bytes()).for_each(|(to, from)| *to = from);
        KeyId(id)
    }

    /// True when `signature` is this key's signature of `message`, by the strictest reading of RFC 8032.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }

    /// The key as a DER `SubjectPublicKeyInfo` (44 bytes), as it stands in certificates.
    pub fn spki_der(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), self.as_bytes()].concat()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::parse(text)
    }
}

/// A public key's short name: the first 16 characters of base64url(SHA-256(key)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; Self::LEN]);

impl KeyId {
    /// How many characters every key id has.
    pub const LEN: usize = 16;

    /// Checks the alphabet and the length.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let id: [u8; Self::LEN] = text.as_bytes().try_into().map_err(|_| InvalidKey::KeyId)?;
        let plain = id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        plain.then_some(KeyId(id)).ok_or(InvalidKey::KeyId)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::parse(text)
    }
}

macro_rules! serde_as_text {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(PublicKey KeyId);

/// A secret key with its public half. It is wiped from memory when dropped, and `Debug` shows the key id.
#[derive(Clone)]
pub struct SigningKey {
    secret: ed25519_dalek::SigningKey,
    public: PublicKey,
}

impl SigningKey {
    /// The key that grows from the 32 bytes of RFC 8032.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let secret = ed25519_dalek::SigningKey::from_bytes(seed);
        let public = PublicKey(secret.verifying_key());
        SigningKey { secret, public }
    }

    /// Reads a PEM block `BEGIN PRIVATE KEY`; a public key inside it must belong to the secret.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, InvalidKey> {
        if pem.len() > MAX_PEM_BYTES {
            return Err(InvalidKey::PrivatePem);
        }
        let pair = KeypairBytes::from_pkcs8_pem(pem).map_err(|_| InvalidKey::PrivatePem)?;
        let key = Self::from_seed(&pair.secret_key);
        match pair.public_key {
            Some(public) if public.to_bytes() != *key.public.as_bytes() => Err(InvalidKey::PrivatePem),
            _ => Ok(key),
        }
    }

    /// The key as a PEM block `BEGIN PRIVATE KEY`, in the form every tool reads.
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new([0_u8; 48]);
        der[..16].copy_from_slice(&PKCS8_PREFIX);
        der[16..].copy_from_slice(self.secret.as_bytes());
        let encoded = Zeroizing::new(STANDARD.encode(der.as_slice()));
        Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *encoded))
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.secret.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SigningKey({})", self.public.key_id())
    }
}
