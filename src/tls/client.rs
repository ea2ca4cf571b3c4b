//! The way to a peer: what we show, and what the peer must show.
//!
//! Every handshake is a full one, so a pin or an authority taken away counts at the next connection.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme,
};

use super::presented::pin_in_date;
use super::{Authority, Credentials, LivePins, SpkiPin, TlsError, VERSIONS, WallTime, provider};
use crate::clock::Clock;

/// What a peer must show when we call it.
#[derive(Debug, Clone)]
pub enum Expectation {
    /// One of these keys, in a certificate that is in date; its name and issuer do not matter.
    Pins(Arc<LivePins>),
    /// A certificate for this name, meant for servers, from our authority.
    Authority(Arc<Authority>, ServerName<'static>),
    /// A certificate for the URL's name from an authority this system trusts.
    PublicRoots,
}

impl Expectation {
    /// One of these keys, as long as the connections are made.
    pub fn pins(pins: Vec<SpkiPin>) -> Self {
        Expectation::Pins(Arc::new(LivePins::from_pointee(pins)))
    }
}

/// For connections to one peer, over HTTP/1.1. Without credentials no certificate is shown.
pub fn toward_peer(
    credentials: Option<Arc<Credentials>>,
    expectation: Expectation,
    clock: &Clock,
) -> Result<ClientConfig, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match expectation {
        Expectation::Pins(pins) if pins.load().is_empty() => return Err(TlsError::NoPins),
        Expectation::Pins(pins) => Arc::new(PeerServer::Pinned(pins)),
        Expectation::Authority(authority, name) => Arc::new(PeerServer::Vouched(authority, name)),
        Expectation::PublicRoots => Arc::new(rustls_platform_verifier::Verifier::new(provider())?),
    };
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(WallTime(clock.clone())))
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(credentials),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Judges the certificate of a peer we call.
#[derive(Debug)]
enum PeerServer {
    Pinned(Arc<LivePins>),
    Vouched(Arc<Authority>, ServerName<'static>),
}

impl ServerCertVerifier for PeerServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            PeerServer::Pinned(pins) if pins.load().contains(&pin_in_date(end_entity, now)?) => {
                Ok(ServerCertVerified::assertion())
            }
            PeerServer::Pinned(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            PeerServer::Vouched(authority, name) => authority
                .current()
                .vouch_for_server(end_entity, intermediates, name, now)
                .map(|()| ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
