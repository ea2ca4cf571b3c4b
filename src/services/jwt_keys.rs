//! The public keys client JWTs are verified with, read from a PEM or a JWKS file.
//!
//! Each key has one algorithm, which follows from the key alone: Ed25519 → EdDSA, P-256 → ES256, RSA → RS256.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::crypto::aws_lc;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::domain::units::quoted;

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// SubjectPublicKeyInfo of an Ed25519 key, up to the 32 bytes of the key.
const ED25519_SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// SubjectPublicKeyInfo of a P-256 key, up to the 65 bytes of the uncompressed point.
const P256_SPKI: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// Why a file holds no key that tokens can be verified with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM at all, or more than one block, or damaged.
    #[error(
        "holds no PEM public key: exactly one block is allowed, `-----BEGIN PUBLIC KEY-----` or \
         `-----BEGIN RSA PUBLIC KEY-----`"
    )]
    NotPem,
    /// A PEM block of another kind.
    #[error(
        "holds a block {}: allowed are `PUBLIC KEY` and `RSA PUBLIC KEY`; from a private key `openssl pkey -pubout` \
         writes the public one",
        quoted(.0)
    )]
    Label(String),
    /// A key of another kind.
    #[error("the key must be Ed25519, ECDSA on P-256 (uncompressed) or RSA with {} to {} bits", RSA_BITS.start(), RSA_BITS.end())]
    Unsupported,
    /// An RSA key that is too small or too large.
    #[error("the RSA key has {} bits: {} to {} are allowed", .0, RSA_BITS.start(), RSA_BITS.end())]
    RsaSize(usize),
    /// An RSA exponent nobody should use.
    #[error("the RSA key's exponent must be odd, at least 3 and at most 32 bits")]
    RsaExponent,
    /// Not a key set.
    #[error(
        "is not a JWK set at line {line}, column {column}: expected {{\"keys\": [...]}}, each key with its `kty`"
    )]
    NotJwks {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// A key set without a key for this.
    #[error(
        "holds no key for signatures: allowed are `kty` OKP with `crv` Ed25519, EC with P-256, and RSA, with \
         `use` sig or none and `alg` EdDSA, ES256, RS256 or none"
    )]
    NoKey,
    /// One key of a set is not right.
    #[error("key {} of the set: {}", quoted(.0), .1)]
    InSet(String, Box<KeyError>),
    /// A member of a key is missing or not base64url of the right length.
    #[error("`{0}` is missing or not unpadded base64url of the right length")]
    Member(&'static str),
    /// A private or symmetric part where only public ones belong.
    #[error("holds its private part `d`: put only public keys in the file")]
    Private,
    /// Several keys and no way to tell them apart.
    #[error("each key of a set of several needs its own `kid`: {} is missing or used twice", quoted(.0))]
    Kid(String),
}

/// A public key and the one algorithm it verifies.
#[derive(Debug, Clone)]
pub(super) struct VerifyingKey {
    /// What the key verifies.
    pub(super) algorithm: Algorithm,
    /// The key.
    pub(super) key: DecodingKey,
}

/// The keys of one file.
#[derive(Debug, Clone)]
pub(super) enum KeySet {
    /// The key of a PEM file. It has no name, so a token's `kid` selects nothing.
    One(VerifyingKey),
    /// The keys of a JWKS file by `kid`.
    Named(Vec<(Option<String>, VerifyingKey)>),
}

impl KeySet {
    /// Reads a PEM file with one public key.
    pub(super) fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (label, body) = pem_block(text)?;
        let key = match label {
            "PUBLIC KEY" => from_spki(&pem_bytes(body)?),
            "RSA PUBLIC KEY" => from_rsa_der(&pem_bytes(body)?),
            _ => Err(KeyError::Label(label.to_owned())),
        };
        key.map(KeySet::One)
    }

    /// Reads a JWKS file. Keys that are for something else are passed over, weak and damaged ones are errors.
    pub(super) fn from_jwks(text: &str) -> Result<Self, KeyError> {
        let set: Jwks = serde_json::from_str(text)
            .map_err(|error| KeyError::NotJwks { line: error.line(), column: error.column() })?;
        let mut named: Vec<(Option<String>, VerifyingKey)> = Vec::new();
        for (at, jwk) in set.keys.into_iter().enumerate() {
            let name = || jwk.kid.clone().unwrap_or_else(|| format!("number {}", at + 1));
            let key = jwk.verifying_key().map_err(|error| KeyError::InSet(name(), Box::new(error)))?;
            if let Some(key) = key {
                named.push((jwk.kid, key));
            }
        }
        if named.is_empty() {
            return Err(KeyError::NoKey);
        }
        let repeats = |at: usize, kid: &Option<String>| {
            kid.is_none() || named[..at].iter().any(|(earlier, _)| earlier == kid)
        };
        match named.iter().enumerate().find(|(at, (kid, _))| repeats(*at, kid)) {
            Some((_, (kid, _))) if named.len() > 1 => Err(KeyError::Kid(kid.clone().unwrap_or_default())),
            _ => Ok(KeySet::Named(named)),
        }
    }

    /// The key a token with this `kid` is verified with. Without a `kid` there must be only one to choose.
    pub(super) fn select(&self, kid: Option<&str>) -> Option<&VerifyingKey> {
        match (self, kid) {
            (KeySet::One(key), _) => Some(key),
            (KeySet::Named(keys), Some(kid)) => {
                keys.iter().find(|(name, _)| name.as_deref() == Some(kid)).map(|(_, key)| key)
            }
            (KeySet::Named(keys), None) => match keys.as_slice() {
                [(_, key)] => Some(key),
                _ => None,
            },
        }
    }
}

/// The one block of a PEM text: its label and its body.
fn pem_block(text: &str) -> Result<(&str, &str), KeyError> {
    let block = || {
        let (_, rest) = text.split_once("-----BEGIN ")?;
        let (label, rest) = rest.split_once("-----")?;
        let (body, rest) = rest.split_once(&format!("-----END {label}-----"))?;
        (!rest.contains("-----BEGIN ")).then_some((label, body))
    };
    block().ok_or(KeyError::NotPem)
}

fn pem_bytes(body: &str) -> Result<Vec<u8>, KeyError> {
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).map_err(|_| KeyError::NotPem)
}

fn from_spki(der: &[u8]) -> Result<VerifyingKey, KeyError> {
    match (der.strip_prefix(ED25519_SPKI), der.strip_prefix(P256_SPKI)) {
        (Some(key), _) => ed25519(key),
        (_, Some(point)) => p256(point),
        _ => from_rsa_der(der),
    }
}

fn from_rsa_der(der: &[u8]) -> Result<VerifyingKey, KeyError> {
    let components = aws_lc::DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
    let (modulus, exponent) = components(der).map_err(|_| KeyError::Unsupported)?;
    rsa(&modulus, &exponent)
}

fn ed25519(key: &[u8]) -> Result<VerifyingKey, KeyError> {
    if key.len() != 32 {
        return Err(KeyError::Unsupported);
    }
    Ok(VerifyingKey { algorithm: Algorithm::EdDSA, key: DecodingKey::from_ed_der(key) })
}

fn p256(point: &[u8]) -> Result<VerifyingKey, KeyError> {
    if point.len() != 65 || point[0] != 4 {
        return Err(KeyError::Unsupported);
    }
    Ok(VerifyingKey { algorithm: Algorithm::ES256, key: DecodingKey::from_ec_der(point) })
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<VerifyingKey, KeyError> {
    let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
    let bits = modulus.first().map_or(0, |byte| modulus.len() * 8 - byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(KeyError::RsaSize(bits));
    }
    let odd = exponent.last().is_some_and(|byte| byte % 2 == 1);
    if !odd || exponent == [1] || exponent.len() > 4 {
        return Err(KeyError::RsaExponent);
    }
    Ok(VerifyingKey {
        algorithm: Algorithm::RS256,
        key: DecodingKey::from_rsa_raw_components(modulus, exponent),
    })
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

/// The members of a JSON Web Key that matter here (RFC 7517, 7518, 8037).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
}

impl Jwk {
    /// The key, or none when it is for something else.
    fn verifying_key(&self) -> Result<Option<VerifyingKey>, KeyError> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => "EdDSA",
            ("EC", Some("P-256")) => "ES256",
            ("RSA", _) => "RS256",
            _ => return Ok(None),
        };
        let for_this = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"))
            && self.alg.as_deref().is_none_or(|alg| alg == algorithm);
        if !for_this {
            return Ok(None);
        }
        if self.d.is_some() {
            return Err(KeyError::Private);
        }
        match algorithm {
            "EdDSA" => ed25519(&bytes("x", &self.x, Some(32))?),
            "ES256" => {
                p256(&[&[4], &*bytes("x", &self.x, Some(32))?, &*bytes("y", &self.y, Some(32))?].concat())
            }
            _ => rsa(&bytes("n", &self.n, None)?, &bytes("e", &self.e, None)?),
        }
        .map(Some)
    }
}

fn bytes(name: &'static str, value: &Option<String>, length: Option<usize>) -> Result<Vec<u8>, KeyError> {
    let bytes = value.as_ref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes.filter(|bytes| length.is_none_or(|length| bytes.len() == length)).ok_or(KeyError::Member(name))
}

#[cfg(test)]
#[path = "jwt_keys_tests.rs"]
mod tests;
