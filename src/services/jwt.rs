//! Verifying the JWTs of clients: who calls, for which tenant, with which scopes.
//!
//! The key decides the algorithm, the caller gives the time, and nothing of a token is believed before its
//! signature is good. No error repeats what a token says.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::verify;
use jsonwebtoken::decode_header;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jwt_keys::{KeyError, KeySet, VerifyingKey};
use crate::domain::id::{PrincipalId, TenantId};
use crate::domain::scope::{Scope, Scopes};
use crate::domain::units;
use crate::tls::{FileBytes, Reloadable, TlsError};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The longest leeway an operator may give.
pub const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// `[jwt]`: whose tokens are believed, and which claims say what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtOptions {
    /// A PEM file with the issuer's public key: Ed25519, ECDSA on P-256, or RSA. This or `jwks_file`.
    #[serde(with = "units::optional_text")]
    pub public_key_file: Option<PathBuf>,
    /// A JWKS file with the issuer's public keys. This or `public_key_file`.
    #[serde(with = "units::optional_text")]
    pub jwks_file: Option<PathBuf>,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be or hold.
    pub audience: String,
    /// The claim that names the tenant. Left out: `tenant_id`.
    pub tenant_claim: String,
    /// The claim that names the principal. Left out: `sub`.
    pub principal_claim: String,
    /// The claim with the scopes, separated by spaces or in a list. Left out: `scope`.
    pub scopes_claim: String,
    /// How far the issuer's clock may be off. Left out: 30 s.
    #[serde(with = "units::text")]
    pub leeway: Duration,
}

impl Default for JwtOptions {
    fn default() -> Self {
        Self {
            public_key_file: None,
            jwks_file: None,
            issuer: String::new(),
            audience: String::new(),
            tenant_claim: "tenant_id".to_owned(),
            principal_claim: "sub".to_owned(),
            scopes_claim: "scope".to_owned(),
            leeway: Duration::from_secs(30),
        }
    }
}

impl JwtOptions {
    /// True when a file with keys is named, so that JWTs are to be accepted.
    pub fn is_on(&self) -> bool {
        self.public_key_file.is_some() || self.jwks_file.is_some()
    }
}

/// Why JWTs cannot be verified as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtSetupError {
    /// No keys, or two sources of them.
    #[error("set either `public_key_file` or `jwks_file`, exactly one of them")]
    OneSource,
    /// A key file that is not right.
    #[error("`{option}`: {error}")]
    Keys {
        /// The option that names the file.
        option: &'static str,
        /// What is wrong with the file.
        error: KeyError,
    },
    /// A key file that cannot be used.
    #[error(transparent)]
    File(TlsError),
    /// Something that must be said.
    #[error("`{option}` must not be empty: tokens are only believed when it agrees with them")]
    Empty {
        /// The option.
        option: &'static str,
    },
    /// Too much leeway.
    #[error("`leeway` must be at most {} s", MAX_LEEWAY.as_secs())]
    Leeway,
}

/// Why a token is not believed; for logs and metrics, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not a JWT, or longer than allowed, or with an extension nobody here knows.
    #[error("not a JWT this gateway reads")]
    Malformed,
    /// No key has the token's `kid`.
    #[error("no configured key has the token's kid")]
    UnknownKey,
    /// The token names another algorithm than its key has.
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    Signature,
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYet,
    /// `iss` is missing or another.
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud` is missing or does not hold ours.
    #[error("the token is for another audience")]
    Audience,
    /// A claim is missing or has a wrong form.
    #[error("the claim `{0}` is missing or has a wrong form")]
    Claim(String),
}

impl JwtError {
    /// The reason in one word, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            JwtError::Malformed => "malformed",
            JwtError::UnknownKey => "unknown_key",
            JwtError::Algorithm => "algorithm",
            JwtError::Signature => "signature",
            JwtError::Expired => "expired",
            JwtError::NotYet => "not_yet",
            JwtError::Issuer => "issuer",
            JwtError::Audience => "audience",
            JwtError::Claim(_) => "claim",
        }
    }
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose things the caller may see.
    pub tenant: TenantId,
    /// Who acts.
    pub principal: PrincipalId,
    /// What for. Words that are no scope of ours are passed over, and so is `admin:*`: who has a tenant is no
    /// operator.
    pub scopes: Scopes,
    /// When the token ends, without leeway.
    pub expires_at_ms: i64,
}

/// Verifies tokens with the configured keys.
#[derive(Debug)]
pub struct JwtVerifier {
    options: JwtOptions,
    keys: Reloadable<KeySet>,
    leeway_ms: i64,
}

impl JwtVerifier {
    /// Takes the text of the one configured key file.
    pub fn new(options: JwtOptions, pem: Option<&str>, jwks: Option<&str>) -> Result<Self, JwtSetupError> {
        let (option, keys) = match (pem, jwks) {
            (Some(text), None) => ("public_key_file", KeySet::from_pem(text)),
            (None, Some(text)) => ("jwks_file", KeySet::from_jwks(text)),
            _ => return Err(JwtSetupError::OneSource),
        };
        let keys = keys.map_err(|error| JwtSetupError::Keys { option, error })?;
        Self::with_keys(options, Reloadable::fixed(keys))
    }

    /// Reads the one configured key file.
    pub fn from_file(options: JwtOptions) -> Result<Self, JwtSetupError> {
        type Build = fn(&[FileBytes]) -> Result<KeySet, TlsError>;
        let (path, build): (_, Build) = match (&options.public_key_file, &options.jwks_file) {
            (Some(path), None) => (path.clone(), |files| read_keys(files, KeySet::from_pem)),
            (None, Some(path)) => (path.clone(), |files| read_keys(files, KeySet::from_jwks)),
            _ => return Err(JwtSetupError::OneSource),
        };
        let keys = Reloadable::watched(vec![path], build).map_err(JwtSetupError::File)?;
        Self::with_keys(options, keys)
    }

    fn with_keys(options: JwtOptions, keys: Reloadable<KeySet>) -> Result<Self, JwtSetupError> {
        for (option, value) in [
            ("issuer", &options.issuer),
            ("audience", &options.audience),
            ("tenant_claim", &options.tenant_claim),
            ("principal_claim", &options.principal_claim),
            ("scopes_claim", &options.scopes_claim),
        ] {
            if value.is_empty() {
                return Err(JwtSetupError::Empty { option });
            }
        }
        if options.leeway > MAX_LEEWAY {
            return Err(JwtSetupError::Leeway);
        }
        let leeway_ms = i64::try_from(options.leeway.as_millis()).unwrap_or(0);
        Ok(JwtVerifier { options, keys, leeway_ms })
    }

    /// Reads the key file again; true when its content had changed and now counts. On an error the keys before
    /// stay.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.keys.reload()
    }

    /// Believes `token` at `now_ms`, or says why not.
    pub fn verify(&self, token: &str, now_ms: i64) -> Result<Claims, JwtError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtError::Malformed);
        }
        let header = decode_header(token).map_err(|_| JwtError::Malformed)?;
        if header.crit.is_some() {
            return Err(JwtError::Malformed);
        }
        let keys = self.keys.current();
        let key = keys.select(header.kid.as_deref()).ok_or(JwtError::UnknownKey)?;
        if header.alg != key.algorithm {
            return Err(JwtError::Algorithm);
        }
        let claims = signed_claims(token, key)?;
        self.check_origin(&claims)?;
        let expires_at_ms = self.check_time(&claims, now_ms)?;
        Ok(Claims {
            tenant: id(&claims, &self.options.tenant_claim, |text| TenantId::parse(text).ok())?,
            principal: id(&claims, &self.options.principal_claim, |text| PrincipalId::parse(text).ok())?,
            scopes: scopes(&claims, &self.options.scopes_claim)?.without(Scope::Admin),
            expires_at_ms,
        })
    }

    fn check_origin(&self, claims: &Map<String, Value>) -> Result<(), JwtError> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.options.issuer) {
            return Err(JwtError::Issuer);
        }
        if is_for(claims, &self.options.audience) { Ok(()) } else { Err(JwtError::Audience) }
    }

    /// Returns when the token ends.
    fn check_time(&self, claims: &Map<String, Value>, now_ms: i64) -> Result<i64, JwtError> {
        let expires_at_ms = date_ms(claims, "exp")?.ok_or_else(|| JwtError::Claim("exp".to_owned()))?;
        if now_ms >= expires_at_ms.saturating_add(self.leeway_ms) {
            return Err(JwtError::Expired);
        }
        match date_ms(claims, "nbf")? {
            Some(starts_at_ms) if now_ms.saturating_add(self.leeway_ms) < starts_at_ms => {
                Err(JwtError::NotYet)
            }
            _ => Ok(expires_at_ms),
        }
    }
}

fn read_keys(files: &[FileBytes], read: fn(&str) -> Result<KeySet, KeyError>) -> Result<KeySet, TlsError> {
    let [file] = files else { return Err(TlsError::Setup("one key file is needed".to_owned())) };
    read(file.text()?).map_err(|error| file.fault(error.to_string()))
}

/// True for a token whose audience is this one, or has it among others.
pub(super) fn is_for(claims: &Map<String, Value>, audience: &str) -> bool {
    let ours = |value: &Value| value.as_str() == Some(audience);
    match claims.get("aud") {
        Some(Value::Array(audiences)) => audiences.iter().any(ours),
        Some(audience) => ours(audience),
        None => false,
    }
}

/// The claims, when the signature is `key`'s. The library checks only that: its other checks read the clock
/// themselves and pass over claims that are missing.
pub(super) fn signed_claims(token: &str, key: &VerifyingKey) -> Result<Map<String, Value>, JwtError> {
    let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (_, payload) = message.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let good = verify(signature, message.as_bytes(), &key.key, key.algorithm);
    if !good.map_err(|_| JwtError::Malformed)? {
        return Err(JwtError::Signature);
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&payload).map_err(|_| JwtError::Malformed)
}

/// A NumericDate (seconds, perhaps with a fraction) in milliseconds.
pub(super) fn date_ms(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, JwtError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_i64() {
        return Ok(Some(seconds.saturating_mul(1000)));
    }
    let seconds = value.as_f64().ok_or_else(|| JwtError::Claim(name.to_owned()))?;
    Ok(Some((seconds * 1000.0) as i64))
}

fn id<T>(
    claims: &Map<String, Value>,
    name: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, JwtError> {
    let text = claims.get(name).and_then(Value::as_str);
    text.and_then(parse).ok_or_else(|| JwtError::Claim(name.to_owned()))
}

fn scopes(claims: &Map<String, Value>, name: &str) -> Result<Scopes, JwtError> {
    let wrong = || JwtError::Claim(name.to_owned());
    match claims.get(name) {
        None | Some(Value::Null) => Ok(Scopes::NONE),
        Some(Value::String(words)) => Ok(Scopes::parse_known(words)),
        Some(Value::Array(words)) => words
            .iter()
            .map(|word| word.as_str().map(|word| Scope::parse(word).ok()).ok_or_else(wrong))
            .filter_map(Result::transpose)
            .collect(),
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
