//! What a peer's certificate shows, and who says whether we know it.
//!
//! A name counts only when our authority vouches for it: anyone can write any name into a certificate of
//! his own making.

use rustls::pki_types::{CertificateDer, DnsName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, ServerConnection};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::{Authority, Roots, SpkiPin, unix_time};

/// What a peer's certificate shows, after its own validity was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The public key's fingerprint; the handshake proves that the peer holds the key.
    pub pin: SpkiPin,
    /// The DNS names in the certificate, lower case; empty unless `by_authority`.
    pub names: Vec<String>,
    /// True when the certificate chains to our authority, is in date and meant for clients.
    pub by_authority: bool,
}

/// Asked at every handshake; answered from the live table of peers, without waiting.
///
/// The peer has not yet proved that it holds the key: a `true` is no sign of life of that peer.
pub trait PeerDirectory: Send + Sync + std::fmt::Debug {
    /// True when a peer is enrolled, and not revoked, by this key or one of these names.
    fn knows(&self, presented: &Presented) -> bool;
}

/// What the client of an accepted connection presented; none where no certificate is asked for, or when it
/// does not hold any more.
pub fn presented(
    connection: &ServerConnection,
    authority: Option<&Authority>,
    now_ms: i64,
) -> Option<Presented> {
    let (end_entity, intermediates) = connection.peer_certificates()?.split_first()?;
    let roots = authority.map(Authority::current);
    let examined = examine(end_entity, intermediates, roots.as_deref(), unix_time(now_ms)).ok()?;
    Some(examined.presented)
}

/// What a certificate shows, and why it does not chain to our authority if so.
pub(super) struct Examined {
    pub(super) presented: Presented,
    pub(super) chain: Result<(), Error>,
}

/// Refuses what is malformed or out of date; the rest is for the directory to judge.
pub(super) fn examine(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: Option<&Roots>,
    now: UnixTime,
) -> Result<Examined, Error> {
    let pin = pin_in_date(end_entity, now)?;
    let chain = match roots {
        Some(roots) => roots.vouch_for_client(end_entity, intermediates, now),
        None => Err(CertificateError::ApplicationVerificationFailure.into()),
    };
    let by_authority = chain.is_ok();
    let names = if by_authority { dns_names(end_entity) } else { Vec::new() };
    Ok(Examined { presented: Presented { pin, names, by_authority }, chain })
}

/// The pin of a well-formed certificate that is in date.
pub(super) fn pin_in_date(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<SpkiPin, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let (not_before, not_after) = validity(certificate).ok_or(CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > not_after {
        return Err(CertificateError::Expired.into());
    }
    Ok(SpkiPin::of_spki(&parsed.subject_public_key_info()))
}

/// The end of a certificate's validity, in milliseconds since the Unix epoch; `None` for what is no certificate.
pub fn ends_ms(der: &[u8]) -> Option<i64> {
    validity(&CertificateDer::from(der)).map(|(_, end)| end.saturating_mul(1000))
}

/// First and last second of validity, since the epoch.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Names that are no plain DNS name (wildcards too) are left out: none of them names one peer.
fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else { return Vec::new() };
    let plain = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) if DnsName::try_from(*name).is_ok() => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(plain).collect()
}
