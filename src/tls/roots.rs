//! The private authority: the roots to which peers' certificates may chain, checked by webpki.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, RootCertStore};

use super::reload::FileBytes;
use super::{TlsError, provider};

/// Trust anchors, with the verifiers built on them.
pub struct Roots {
    count: usize,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

impl Roots {
    pub(super) fn from_pem(file: &FileBytes) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for (at, root) in file.certificates()?.into_iter().enumerate() {
            store
                .add(root)
                .map_err(|_| file.fault(format!("its certificate no. {} is malformed", at + 1)))?;
        }
        let store = Arc::new(store);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), provider()).build();
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&store), provider()).build();
        Ok(Roots {
            count: store.len(),
            clients: clients.map_err(|error| file.fault(error.to_string()))?,
            servers: servers.map_err(|error| file.fault(error.to_string()))?,
        })
    }

    /// Checks chain, dates and the usage `clientAuth`.
    pub(super) fn vouch_for_client(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.clients
            .verify_client_cert(end_entity, intermediates, now)
            .map(|_| ())
            .map_err(unsigned_is_foreign)
    }

    /// Checks chain, dates, the usage `serverAuth` and the name.
    pub(super) fn vouch_for_server(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        self.servers
            .verify_server_cert(end_entity, intermediates, name, &[], now)
            .map(|_| ())
            .map_err(unsigned_is_foreign)
    }
}

/// A signature that is not our authority's makes the issuer another one, whatever it calls itself.
fn unsigned_is_foreign(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => CertificateError::UnknownIssuer.into(),
        other => other,
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Roots({})", self.count)
    }
}
