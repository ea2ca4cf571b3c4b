//! The two kinds of listener: toward clients, who show no certificate, and toward peers, who must.
//!
//! Every handshake is a full one and asks the live table of peers.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig, SignatureScheme,
};

use super::presented::examine;
use super::{Authority, Credentials, PeerDirectory, TlsError, VERSIONS, WallTime, provider};
use crate::clock::Clock;

/// What may be spoken inside, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// For the listener of clients: no certificate is asked for.
pub fn client_facing(credentials: Arc<Credentials>, clock: &Clock) -> Result<Arc<ServerConfig>, TlsError> {
    config(credentials, WebPkiClientVerifier::no_client_auth(), clock)
}

/// For the listener of peers: a certificate is required, in date, and known to the directory by its key or,
/// when it chains to the authority, by its name.
pub fn peer_facing(
    credentials: Arc<Credentials>,
    authority: Option<Arc<Authority>>,
    directory: Arc<dyn PeerDirectory>,
    clock: &Clock,
) -> Result<Arc<ServerConfig>, TlsError> {
    config(credentials, Arc::new(PeerClients { authority, directory }), clock)
}

fn config(
    credentials: Arc<Credentials>,
    verifier: Arc<dyn ClientCertVerifier>,
    clock: &Clock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(WallTime(clock.clone())))
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(credentials);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Judges the certificates of peers that connect.
#[derive(Debug)]
struct PeerClients {
    authority: Option<Arc<Authority>>,
    directory: Arc<dyn PeerDirectory>,
}

impl ClientCertVerifier for PeerClients {
    /// None: a peer known by its pin has no authority we could name.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let roots = self.authority.as_ref().map(|authority| authority.current());
        let examined = examine(end_entity, intermediates, roots.as_deref(), now)?;
        if self.directory.knows(&examined.presented) {
            return Ok(ClientCertVerified::assertion());
        }
        examined.chain?;
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
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
