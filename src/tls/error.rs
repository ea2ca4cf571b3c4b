//! What is wrong with TLS material, naming the file and the reason, never the material.

use std::path::{Path, PathBuf};

/// Why TLS cannot be set up or renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The gateway's key is of another kind or form.
    #[error("the gateway's key must be an Ed25519 private key in unencrypted PKCS#8 PEM")]
    NotEd25519,
    /// No certificate can be made from the gateway's key.
    #[error("no certificate can be issued: {0}")]
    Issue(String),
    /// A peer to be pinned, and no pin.
    #[error("a pinned peer needs at least one pin (`sha256:` and 64 hex digits)")]
    NoPins,
    /// rustls refuses the combination.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl TlsError {
    pub(super) fn file(path: &Path, reason: impl Into<String>) -> Self {
        TlsError::File { path: path.to_owned(), reason: reason.into() }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        TlsError::Setup(error.to_string())
    }
}
