//! Material read from files and exchanged while connections go on.
//!
//! A reader always holds one consistent value; a bad new file changes nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::{Identity, Roots, TlsError};

/// A value and, when it came from files, how to read it again.
pub struct Reloadable<T> {
    current: ArcSwap<T>,
    source: Option<Source<T>>,
}

struct Source<T> {
    paths: Vec<PathBuf>,
    build: fn(&[FileBytes]) -> Result<T, TlsError>,
    /// Of the content `current` was built from. Held through a reload, so that two cannot overtake each other.
    digest: Mutex<[u8; 32]>,
}

impl<T> Reloadable<T> {
    /// A value that does not come from files.
    pub fn fixed(value: T) -> Self {
        Reloadable { current: ArcSwap::from_pointee(value), source: None }
    }

    /// What `build` makes of these files.
    pub fn watched(
        paths: Vec<PathBuf>,
        build: fn(&[FileBytes]) -> Result<T, TlsError>,
    ) -> Result<Self, TlsError> {
        let files = read_all(&paths)?;
        let current = ArcSwap::from_pointee(build(&files)?);
        let digest = Mutex::new(digest_of(&files));
        Ok(Reloadable { current, source: Some(Source { paths, build, digest }) })
    }

    /// Puts another value in force: a key that took over, say.
    pub fn replace(&self, value: T) {
        self.current.store(Arc::new(value));
    }

    /// The value in force.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files again; true when their content had changed and now counts. Handshakes from here on see
    /// the new value, connections in place go on. On an error the old value stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some(source) = &self.source else { return Ok(false) };
        let mut known = source.digest.lock().unwrap_or_else(PoisonError::into_inner);
        let files = read_all(&source.paths)?;
        let digest = digest_of(&files);
        if digest == *known {
            return Ok(false);
        }
        self.current.store(Arc::new((source.build)(&files)?));
        *known = digest;
        Ok(true)
    }
}

impl Reloadable<Identity> {
    /// A certificate chain and its key, in PEM files.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::watched(vec![certificate.to_owned(), key.to_owned()], |files| match files {
            [certificate, key] => Identity::from_pem(certificate, key),
            _ => Err(TlsError::Setup("a certificate and a key file are needed".to_owned())),
        })
    }
}

impl Reloadable<Roots> {
    /// The certificates of the authority, in one PEM file.
    pub fn from_file(path: &Path) -> Result<Self, TlsError> {
        Self::watched(vec![path.to_owned()], |files| match files {
            [file] => Roots::from_pem(file),
            _ => Err(TlsError::Setup("a CA file is needed".to_owned())),
        })
    }
}

impl<T: fmt::Debug> fmt::Debug for Reloadable<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.source.as_ref().map(|source| &source.paths);
        out.debug_struct("Reloadable").field("current", &self.current).field("paths", &paths).finish()
    }
}

impl ResolvesServerCert for Reloadable<Identity> {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified_key())
    }
}

impl ResolvesClientCert for Reloadable<Identity> {
    /// The hints of the server are passed over: it may know us by our pin.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified_key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A file's content, with its path for errors.
pub struct FileBytes {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl FileBytes {
    pub(super) fn read(path: &Path) -> Result<Self, TlsError> {
        let bytes = std::fs::read(path).map_err(|error| TlsError::file(path, error.to_string()))?;
        Ok(FileBytes { path: path.to_owned(), bytes })
    }

    /// What is wrong with it.
    pub fn fault(&self, reason: impl Into<String>) -> TlsError {
        TlsError::file(&self.path, reason)
    }

    /// The file as text.
    pub fn text(&self) -> Result<&str, TlsError> {
        std::str::from_utf8(&self.bytes).map_err(|_| self.fault("is not text"))
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(self.fault("holds no certificate in PEM")),
            Err(_) => Err(self.fault("is not well-formed PEM")),
        }
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<FileBytes>, TlsError> {
    paths.iter().map(|path| FileBytes::read(path)).collect()
}

fn digest_of(files: &[FileBytes]) -> [u8; 32] {
    let each = files.iter().map(|file| Sha256::digest(&file.bytes));
    each.fold(Sha256::new(), |all, one| all.chain_update(one)).finalize().into()
}
