//! What a client command shows of its user, and whom it believes: a token, and the authority of certificates.
//!
//! Invariant: a token is read from a file or a variable, never from an argument that every user of the machine
//! can see; it leaves in one header, over TLS or within this machine.

use std::fs;
use std::path::PathBuf;

use reqwest::Certificate;
use reqwest::header::HeaderValue;
use url::{Host, Url};

use super::exit::Failure;
use super::output::{shell_word, visible};

/// The variable that may hold a token.
const TOKEN_VARIABLE: &str = "CAUSEWAY_TOKEN";
/// Bytes of a token, or of a file of certificates; more are a mistake.
const MOST_BYTES: u64 = 1024 * 1024;

/// How the user proves who they are, and the gateway who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(super) struct Access {
    /// File with your token (Authorization: Bearer). Left out: the variable CAUSEWAY_TOKEN, or none
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates (PEM) that may vouch for the gateway. Left out: those this machine trusts
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Access {
    /// The header that carries the token to `base`, when there is one.
    pub(super) fn authorization(&self, base: &Url) -> Result<Option<HeaderValue>, Failure> {
        let (origin, text) = match &self.token_file {
            Some(path) => (path.display().to_string(), Some(read(path)?)),
            None => (TOKEN_VARIABLE.to_owned(), std::env::var(TOKEN_VARIABLE).ok()),
        };
        let text = text.as_deref().map(str::trim);
        let origin = visible(&origin);
        let token = match text {
            None => return Ok(None),
            Some("") if self.token_file.is_none() => return Ok(None),
            Some(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => token,
            Some(_) => {
                return Err(Failure::usage(format!(
                    "{origin}: this is not a token: one word, and nothing else"
                )));
            }
        };
        if base.scheme() == "http" && !is_this_machine(base) {
            let message = "a token is not sent over plain http to another machine: use https";
            return Err(Failure::usage(format!("{base}: {message}")));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(Failure::failed)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// The certificates that may vouch for a gateway, when the user names them.
    pub(super) fn authorities(&self) -> Result<Option<Vec<Certificate>>, Failure> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        let name = path.display().to_string();
        let name = visible(&name);
        match Certificate::from_pem_bundle(read(path)?.as_bytes()) {
            Ok(certificates) if !certificates.is_empty() => Ok(Some(certificates)),
            _ => Err(Failure::usage(format!("{name} holds no certificate in PEM"))),
        }
    }

    /// The flags that repeat it in another command.
    pub(super) fn flags(&self) -> String {
        let flag = |name: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| format!(" {name} {}", shell_word(&path.to_string_lossy())))
        };
        [flag("--token-file", &self.token_file), flag("--ca-file", &self.ca_file)]
            .into_iter()
            .flatten()
            .collect()
    }
}

fn read(path: &PathBuf) -> Result<String, Failure> {
    let name = path.display().to_string();
    let name = visible(&name);
    let cannot = |error: std::io::Error| Failure::usage(format!("{name} cannot be read: {error}"));
    if fs::metadata(path).map_err(cannot)?.len() > MOST_BYTES {
        return Err(Failure::usage(format!("{name} is longer than {MOST_BYTES} bytes")));
    }
    fs::read_to_string(path).map_err(cannot)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(content: &str) -> (tempfile::NamedTempFile, Access) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), content).expect("written");
        let access = Access { token_file: Some(file.path().to_owned()), ca_file: None };
        (file, access)
    }

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn a_token_leaves_over_tls_or_within_this_machine() {
        let (_file, access) = access("cw_x_y_z\n");
        for base in ["https://gw.example.com", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost"] {
            let header = access.authorization(&url(base)).expect("allowed").expect("a token");
            assert_eq!(header.as_bytes(), b"Bearer cw_x_y_z");
            assert!(header.is_sensitive());
        }
        for base in ["http://gw.example.com", "http://10.0.0.1", "http://localhost.example.com"] {
            assert!(access.authorization(&url(base)).is_err(), "{base}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_sent() {
        for content in ["", "two words", "a\nb", "é"] {
            let (_file, access) = access(content);
            assert!(access.authorization(&url("https://x")).is_err(), "{content:?}");
        }
        let nowhere = Access { token_file: Some("/nonexistent/token".into()), ca_file: None };
        assert!(nowhere.authorization(&url("https://x")).is_err());
        let (_file, access) = access("no certificate");
        let access = Access { ca_file: access.token_file, token_file: None };
        assert!(access.authorities().is_err());
    }
}
