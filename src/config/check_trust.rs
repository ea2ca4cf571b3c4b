//! What must hold of keys, certificates, tokens' issuers and the audit: files that can be read and fit together.
//!
//! Invariant: protection that was asked for and cannot be had is a mistake; nothing falls back to less.

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::sections::Config;
use super::source::{MAX_FILE_BYTES, read_text};
use crate::domain::id::is_id;
use crate::domain::units::{TextForm, quoted};
use crate::http::options::TlsMode;
use crate::services::audit_log::Sink;
use crate::services::jwt::{JwtSetupError, JwtVerifier, MAX_LEEWAY};
use crate::tls::{Authority, Identity, TlsError};

/// Hubs in all: each is tried with an introduction.
const MOST_HUBS: usize = 16;

/// A key, and the file that is named there.
type NamedFile<'a> = (&'static str, &'a Option<PathBuf>);

/// Keeps every such mistake.
pub(super) fn check(config: &Config, draft: &mut Draft) {
    check_peering(config, draft);
    check_server_tls(config, draft);
    check_jwt(config, draft);
    check_hubs(config, draft);
    if let Err(message) = Sink::parse(&config.audit.sink) {
        draft.refuse_checked("audit.sink", &message);
    }
}

fn check_peering(config: &Config, draft: &mut Draft) {
    let peering = &config.peering;
    let (certificate, key) =
        (("peering.cert_file", &peering.cert_file), ("peering.cert_key_file", &peering.cert_key_file));
    check_pair(certificate, key, draft);
    if let Some(Err(error)) = peering.ca_file.as_deref().map(Authority::from_file) {
        draft.refuse_checked("peering.ca_file", &error.to_string());
    }
    if peering.require_mtls && peering.listen.is_none() && !draft.is_refused("peering.listen") {
        let message = "true is not allowed without peering.listen: set it to where peers come in with mutual \
                       TLS, such as \"0.0.0.0:8443\"";
        draft.refuse_checked("peering.require_mtls", message);
    }
}

fn check_server_tls(config: &Config, draft: &mut Draft) {
    let server = &config.server;
    if draft.is_refused("server.tls") {
        return;
    }
    let (certificate, key) =
        (("server.tls_cert_file", &server.tls_cert_file), ("server.tls_key_file", &server.tls_key_file));
    if server.tls == TlsMode::Own {
        if certificate.1.is_none() && key.1.is_none() {
            let message = "\"own\" needs server.tls_cert_file and server.tls_key_file";
            return draft.refuse_checked("server.tls", message);
        }
        return check_pair(certificate, key, draft);
    }
    let mode = if server.tls == TlsMode::None { "none" } else { "terminated-upstream" };
    for (name, _) in [certificate, key].into_iter().filter(|(_, file)| file.is_some()) {
        let message =
            format!("is not used while server.tls is \"{mode}\": set server.tls to \"own\", or leave it out");
        draft.refuse_checked(name, &message);
    }
    if server.tls == TlsMode::TerminatedUpstream
        && server.trusted_proxies.is_empty()
        && !draft.is_refused("server.trusted_proxies")
    {
        let message = "\"terminated-upstream\" needs server.trusted_proxies, the addresses of the proxies that \
                       end TLS";
        draft.refuse_checked("server.tls", message);
    }
}

/// A certificate and its private key: both or neither, and they belong together.
fn check_pair(certificate: NamedFile<'_>, key: NamedFile<'_>, draft: &mut Draft) {
    if draft.is_refused(certificate.0) || draft.is_refused(key.0) {
        return;
    }
    match (certificate.1, key.1) {
        (None, None) => {}
        (Some(_), None) => {
            draft.refuse_checked(certificate.0, &format!("needs {}, its private key", key.0));
        }
        (None, Some(_)) => {
            let message = format!("needs {}, the certificate it belongs to", certificate.0);
            draft.refuse_checked(key.0, &message);
        }
        (Some(certificate_file), Some(key_file)) => {
            if let Err(error) = Identity::from_files(certificate_file, key_file) {
                let is_of_key = matches!(&error, TlsError::File { path, .. } if path == key_file);
                let at = if is_of_key { key.0 } else { certificate.0 };
                draft.refuse_checked(at, &error.to_string());
            }
        }
    }
}

fn check_jwt(config: &Config, draft: &mut Draft) {
    let jwt = &config.jwt;
    for (key, claim) in [
        ("jwt.tenant_claim", &jwt.tenant_claim),
        ("jwt.principal_claim", &jwt.principal_claim),
        ("jwt.scopes_claim", &jwt.scopes_claim),
    ] {
        if claim.is_empty() {
            draft.refuse_checked(key, "\"\" is not a claim: name one, or leave the key out");
        }
    }
    if jwt.leeway > MAX_LEEWAY {
        let (leeway, most) = (jwt.leeway.write(), MAX_LEEWAY.write());
        draft.refuse_checked("jwt.leeway", &format!("{leeway} is not allowed: it must be at most {most}"));
    }
    if draft.is_refused("jwt.public_key_file") || draft.is_refused("jwt.jwks_file") {
        return;
    }
    match (&jwt.public_key_file, &jwt.jwks_file) {
        (None, None) => {
            for (key, value) in [("jwt.issuer", &jwt.issuer), ("jwt.audience", &jwt.audience)] {
                if !value.is_empty() {
                    let message = "does nothing without keys: set jwt.public_key_file or jwt.jwks_file";
                    draft.refuse_checked(key, message);
                }
            }
        }
        (Some(_), Some(_)) => {
            let first = draft.origin("jwt.public_key_file");
            let message = format!("jwt.public_key_file is given too, at {first}: give one source of keys");
            draft.refuse_checked("jwt.jwks_file", &message);
        }
        (Some(file), None) => check_jwt_keys("jwt.public_key_file", file, config, draft),
        (None, Some(file)) => check_jwt_keys("jwt.jwks_file", file, config, draft),
    }
}

/// Each hub has a name and a key of its own, and domains.
fn check_hubs(config: &Config, draft: &mut Draft) {
    let hubs = &config.introductions.hubs;
    let mut refuse = |message: String| draft.refuse_checked("introductions.hubs", &message);
    if hubs.len() > MOST_HUBS {
        refuse(format!("at most {MOST_HUBS} hubs are allowed"));
    }
    for (index, hub) in hubs.iter().enumerate() {
        let name = quoted(&hub.name);
        if !is_id(&hub.name) {
            refuse(format!("{name} is not a hub's name: write 1 to 128 visible ASCII characters"));
        }
        if hub.domains.is_empty() || !hub.domains.iter().all(|domain| is_id(domain)) {
            refuse(format!("the hub {name} needs domains: name those it may introduce peers of"));
        }
        if hubs[..index].iter().any(|other| other.name == hub.name || other.public_key == hub.public_key) {
            refuse(format!("the hub {name} has the name or the public_key of another: each has its own"));
        }
    }
}

/// The file of keys, and what must be said with it.
fn check_jwt_keys(key: &str, file: &Path, config: &Config, draft: &mut Draft) {
    let jwt = &config.jwt;
    let mut mistakes = Vec::new();
    let missing: Vec<&str> = [("jwt.issuer", &jwt.issuer), ("jwt.audience", &jwt.audience)]
        .into_iter()
        .filter(|(key, value)| value.is_empty() && !draft.is_refused(key))
        .map(|(key, _)| key)
        .collect();
    if !missing.is_empty() {
        let needed = missing.join(" and ");
        mistakes.push(format!("needs {needed}: a token is believed only when it agrees with them"));
    }
    match read_text(file, MAX_FILE_BYTES) {
        Err(error) => mistakes.push(format!("{} cannot be read: {error}", file.display())),
        Ok(text) => {
            let is_pem = jwt.public_key_file.is_some();
            let (pem, jwks) = if is_pem { (Some(&*text), None) } else { (None, Some(&*text)) };
            if let Err(JwtSetupError::Keys { error, .. }) = JwtVerifier::new(jwt.clone(), pem, jwks) {
                mistakes.push(format!("{}: {error}", file.display()));
            }
        }
    }
    if !mistakes.is_empty() {
        draft.refuse_checked(key, &mistakes.join("; "));
    }
}
