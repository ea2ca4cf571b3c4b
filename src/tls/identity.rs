//! What this gateway shows of itself: a certificate chain and the key it belongs to.
//!
//! By default the certificate is one the gateway issues to itself from its Ed25519 key, and peers pin the key.
//! The private key is never shown.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::InconsistentKeys;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

use super::presented::validity;
use super::reload::FileBytes;
use super::{SpkiPin, TlsError, provider};

/// How far a self-issued certificate reaches back, for peers whose clock is behind.
const VALID_BEFORE: Duration = Duration::days(1);
/// How long a self-issued certificate lasts; it is made anew at every start.
const VALID_AFTER: Duration = Duration::days(3652);
/// Stands in the certificate for a name that is no DNS name.
const NAMELESS: &str = "causeway.invalid";

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    pin: SpkiPin,
    not_after_ms: i64,
}

impl Identity {
    /// Issues a certificate to ourselves from an Ed25519 key, valid from a day ago for ten years.
    pub fn self_issued(pkcs8_pem: &str, name: &str, now_ms: i64) -> Result<Self, TlsError> {
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(pkcs8_pem.as_bytes()).map_err(|_| TlsError::NotEd25519)?;
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519)
            .map_err(|_| TlsError::NotEd25519)?;
        let issued = self_issued_params(name, now_ms)?
            .self_signed(&pair)
            .map_err(|error| TlsError::Issue(error.to_string()))?;
        let key = CertifiedKey::from_der(vec![issued.der().clone()], PrivateKeyDer::from(key), &provider())?;
        Self::of(key).map_err(TlsError::Issue)
    }

    /// Reads a PEM chain, leaf first, and its unencrypted PEM key.
    ///
    /// A certificate past its date is taken: see [`Identity::not_after_ms`].
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::from_pem(&FileBytes::read(certificate)?, &FileBytes::read(key)?)
    }

    pub(super) fn from_pem(certificate: &FileBytes, key: &FileBytes) -> Result<Self, TlsError> {
        let chain = certificate.certificates()?;
        let private = PrivateKeyDer::from_pem_slice(&key.bytes)
            .map_err(|_| key.fault("holds no unencrypted private key in PEM (PKCS#8, PKCS#1 or SEC1)"))?;
        let certified = CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                key.fault(format!("does not belong to the certificate in {}", certificate.path.display()))
            }
            rustls::Error::InvalidCertificate(_) => certificate.fault("its first certificate is malformed"),
            _ => key.fault("its private key is malformed or of a kind not supported (Ed25519, ECDSA or RSA)"),
        })?;
        Self::of(certified).map_err(|reason| certificate.fault(reason))
    }

    fn of(key: CertifiedKey) -> Result<Self, String> {
        let leaf = key.end_entity_cert().map_err(|error| error.to_string())?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
        let pin = SpkiPin::of_spki(&parsed.subject_public_key_info());
        let (_, not_after) = validity(leaf).ok_or("its first certificate is malformed")?;
        Ok(Identity { pin, not_after_ms: not_after.saturating_mul(1000), key: Arc::new(key) })
    }

    /// The pin by which peers know us.
    pub fn pin(&self) -> SpkiPin {
        self.pin
    }

    /// The end of the certificate's validity, in milliseconds since the epoch.
    pub fn not_after_ms(&self) -> i64 {
        self.not_after_ms
    }

    /// The chain shown in handshakes, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identity")
            .field("pin", &self.pin)
            .field("not_after_ms", &self.not_after_ms)
            .finish_non_exhaustive()
    }
}

fn self_issued_params(name: &str, now_ms: i64) -> Result<CertificateParams, TlsError> {
    let now = OffsetDateTime::from_unix_timestamp(now_ms.max(0) / 1000)
        .map_err(|_| TlsError::Issue("the clock shows a date no calendar holds".to_owned()))?;
    let dns = if DnsName::try_from(name).is_ok() { name } else { NAMELESS };
    let dns = Ia5String::try_from(dns).map_err(|error| TlsError::Issue(error.to_string()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::DnsName(dns)];
    params.not_before = now.checked_sub(VALID_BEFORE).unwrap_or(now);
    params.not_after = now.checked_add(VALID_AFTER).unwrap_or(now);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}
