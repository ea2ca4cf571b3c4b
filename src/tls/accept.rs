//! One handshake on an accepted socket, within a time limit, and in a few words why one failed.
//!
//! The other side gets its alert before the socket is closed, and never more than the time limit of ours.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long and how much a refused socket is listened to, so that the alert is not lost to a reset.
const LINGER: Duration = Duration::from_millis(200);
const LINGER_READS: usize = 16;

/// Why a handshake failed, in words fit for a log line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not done within the time limit.
    #[error("timeout")]
    Timeout,
    /// The other side hung up.
    #[error("connection closed during the handshake")]
    Closed,
    /// What came is no TLS.
    #[error("not TLS")]
    NotTls,
    /// An older version of TLS only.
    #[error("TLS 1.3 not offered")]
    NoTls13,
    /// ALPN offered, and nothing of ours.
    #[error("neither h2 nor http/1.1 offered")]
    NoProtocol,
    /// A certificate is required and none was shown.
    #[error("no certificate")]
    NoCertificate,
    /// From an authority that is not ours.
    #[error("foreign certificate")]
    Foreign,
    /// Past its validity.
    #[error("certificate expired")]
    Expired,
    /// Before its validity.
    #[error("certificate not valid yet")]
    NotYetValid,
    /// Not meant for this role.
    #[error("certificate is not meant for this usage")]
    WrongUsage,
    /// For another name.
    #[error("certificate is for another name")]
    WrongName,
    /// Of an unknown or revoked peer, or not of the pinned key.
    #[error("certificate of no enrolled peer")]
    NotEnrolled,
    /// Malformed, or badly signed.
    #[error("bad certificate")]
    BadCertificate,
    /// The other side ended it.
    #[error("refused by the other side: {0:?}")]
    Alert(AlertDescription),
    /// A breach of the protocol.
    #[error("TLS protocol error: {0}")]
    Protocol(String),
}

impl HandshakeError {
    /// True when a certificate was refused, ours by the other side or theirs by us: nothing but the handshake was
    /// exchanged.
    pub fn is_of_certificate(&self) -> bool {
        use AlertDescription as Of;
        match self {
            HandshakeError::Alert(alert) => matches!(
                alert,
                Of::AccessDenied
                    | Of::BadCertificate
                    | Of::CertificateExpired
                    | Of::CertificateRequired
                    | Of::CertificateUnknown
                    | Of::CertificateRevoked
                    | Of::UnknownCA
                    | Of::UnsupportedCertificate
            ),
            HandshakeError::NoCertificate
            | HandshakeError::Foreign
            | HandshakeError::Expired
            | HandshakeError::NotYetValid
            | HandshakeError::WrongUsage
            | HandshakeError::WrongName
            | HandshakeError::NotEnrolled
            | HandshakeError::BadCertificate => true,
            _ => false,
        }
    }

    /// The reason in one word, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            HandshakeError::Timeout => "timeout",
            HandshakeError::Closed => "closed",
            HandshakeError::NotTls => "not_tls",
            HandshakeError::NoTls13 => "no_tls13",
            HandshakeError::NoProtocol => "no_protocol",
            HandshakeError::NoCertificate => "no_certificate",
            HandshakeError::Foreign => "foreign",
            HandshakeError::Expired => "expired",
            HandshakeError::NotYetValid => "not_yet_valid",
            HandshakeError::WrongUsage => "wrong_usage",
            HandshakeError::WrongName => "wrong_name",
            HandshakeError::NotEnrolled => "not_enrolled",
            HandshakeError::BadCertificate => "bad_certificate",
            HandshakeError::Alert(_) => "alert",
            HandshakeError::Protocol(_) => "protocol",
        }
    }

    /// Finds the TLS error among the causes of another, such as one of an HTTP client.
    pub fn find(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(tls) = error.downcast_ref::<Error>() {
                return Some(Self::from(tls));
            }
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}

impl From<&Error> for HandshakeError {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => HandshakeError::NotTls,
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => HandshakeError::NoTls13,
            Error::NoApplicationProtocol => HandshakeError::NoProtocol,
            Error::NoCertificatesPresented => HandshakeError::NoCertificate,
            Error::InvalidCertificate(reason) => Self::from(reason),
            Error::AlertReceived(alert) => HandshakeError::Alert(*alert),
            other => HandshakeError::Protocol(other.to_string()),
        }
    }
}

impl From<&CertificateError> for HandshakeError {
    fn from(reason: &CertificateError) -> Self {
        use CertificateError::{
            ApplicationVerificationFailure, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext,
            NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext, UnknownIssuer,
        };
        match reason {
            UnknownIssuer => HandshakeError::Foreign,
            Expired | ExpiredContext { .. } => HandshakeError::Expired,
            NotValidYet | NotValidYetContext { .. } => HandshakeError::NotYetValid,
            InvalidPurpose | InvalidPurposeContext { .. } => HandshakeError::WrongUsage,
            NotValidForName | NotValidForNameContext { .. } => HandshakeError::WrongName,
            ApplicationVerificationFailure => HandshakeError::NotEnrolled,
            _ => HandshakeError::BadCertificate,
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::find(&error).unwrap_or(HandshakeError::Closed)
    }
}

/// Does the server's part of one handshake on `stream`, within `timeout`.
pub async fn handshake<IO>(
    stream: IO,
    config: Arc<ServerConfig>,
    timeout: Duration,
) -> Result<TlsStream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let start = Instant::now();
    let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
    match timeout_at(start + timeout, accepting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err((error, stream))) => {
            let until = (start + timeout).min(Instant::now() + LINGER);
            // When the time is over the socket is dropped as it is.
            let _ = timeout_at(until, take_leave(stream)).await;
            Err(error.into())
        }
        Err(_) => Err(HandshakeError::Timeout),
    }
}

/// Ends our side, then reads what was on its way: unread bytes would turn the close into a reset.
async fn take_leave<IO>(mut stream: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut scrap = [0_u8; 4096];
    for _ in 0..LINGER_READS {
        match stream.read(&mut scrap).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
