//! The gateway's own keys at work: rotation on an operator's word, and the take-over when its time has come.
//! Files of keys and certificates are read again when they change.

use std::sync::Arc;
use std::time::Duration;

use super::jwt::JwtVerifier;
use super::trust_options::PeeringOptions;
use crate::clock::{Clock, millis, rfc3339};
use crate::entropy::Entropy;
use crate::failpoint;
use crate::keyring::{Keyring, KeyringError, Keys};
use crate::outbound::OwnIdentity;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::Problem;
use crate::store::{Actor, NewAudit, Store};
use crate::tasks::Tasks;
use crate::tls::{Credentials, Identity, SpkiPin, TlsError};

/// How often it is looked whether a key's time has come, or a certificate's file has changed.
const INTERVAL: Duration = Duration::from_millis(500);

/// The gateway's keys, cheap to clone.
#[derive(Clone)]
pub struct OwnKeys {
    shared: Arc<Shared>,
}

struct Shared {
    keyring: Arc<Keyring>,
    identity: Arc<OwnIdentity>,
    /// The certificate shown to clients, read again when its file changes.
    for_clients: Option<Arc<Credentials>>,
    /// The keys of clients' JWTs, read again when their file changes.
    jwt: Option<Arc<JwtVerifier>>,
    is_self_issued: bool,
    overlap: Duration,
    /// Every peer is called within it.
    least_overlap: Duration,
    store: Store,
    clock: Clock,
    entropy: Entropy,
}

/// The certificate shown to peers: from files, or issued by the gateway to itself for its key.
pub fn credentials(
    options: &PeeringOptions,
    keyring: &Keyring,
    peer_id: &str,
    now_ms: i64,
) -> Result<Credentials, TlsError> {
    match (&options.cert_file, &options.cert_key_file) {
        (Some(certificate), Some(key)) => Credentials::from_files(certificate, key),
        _ => self_issued(&keyring.keys(), peer_id, now_ms).map(Credentials::fixed),
    }
}

fn self_issued(keys: &Keys, peer_id: &str, now_ms: i64) -> Result<Identity, TlsError> {
    Identity::self_issued(&keys.present.to_pkcs8_pem(), peer_id, now_ms)
}

impl OwnKeys {
    /// Over an open keyring.
    pub fn new(
        (keyring, identity): (Arc<Keyring>, Arc<OwnIdentity>),
        (for_clients, jwt): (Option<Arc<Credentials>>, Option<Arc<JwtVerifier>>),
        (options, health_interval): (&PeeringOptions, Duration),
        store: Store,
    ) -> Self {
        let (clock, entropy) = (identity.clock.clone(), identity.entropy.clone());
        let is_self_issued = options.cert_file.is_none();
        let overlap = options.rotation_overlap;
        let least_overlap = health_interval.saturating_mul(3);
        #[rustfmt::skip]
        let shared = Shared {
            keyring, identity, for_clients, jwt, is_self_issued, overlap, least_overlap, store, clock, entropy,
        };
        OwnKeys { shared: Arc::new(shared) }
    }

    /// The keys as they stand.
    pub fn keys(&self) -> Arc<Keys> {
        self.shared.keyring.keys()
    }

    /// The pin of the certificate shown to peers.
    pub fn certificate(&self) -> SpkiPin {
        self.shared.identity.credentials.current().pin()
    }

    /// Who sees which certificate, and when it ends, in milliseconds since the Unix epoch.
    pub fn certificates(&self) -> Vec<(&'static str, i64)> {
        let for_peers = ("peers", &self.shared.identity.credentials);
        let for_clients = self.shared.for_clients.as_ref().map(|credentials| ("clients", credentials));
        let all = std::iter::once(for_peers).chain(for_clients);
        all.map(|(name, credentials)| (name, credentials.current().not_after_ms())).collect()
    }

    /// Announces a successor of the present key.
    pub async fn rotate(&self, overlap: Option<Duration>, by: &Actor) -> Result<(), Problem> {
        let shared = &self.shared;
        let overlap = overlap.unwrap_or(shared.overlap);
        if overlap < shared.least_overlap {
            let least = humantime::format_duration(shared.least_overlap);
            let message = format!("`overlap` must be at least {least}: by then every peer has been called");
            return Err(Problem::new(ErrorCode::InvalidRequest, message).with("field", "overlap"));
        }
        let activates_at_ms = shared.clock.now_ms() + millis(overlap);
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        shared.entropy.fill(&mut *seed);
        let keys = shared.keyring.rotate(&seed, activates_at_ms).map_err(problem)?;
        failpoint::reached("keys::after_announce");
        shared.announce(&keys);
        let next = keys.next.as_ref().map(|(key, _)| key.public().key_id().to_string()).unwrap_or_default();
        let reason = format!("takes over at {}", rfc3339(activates_at_ms));
        shared.store.audit(vec![record(by, "key.rotate", &next, &reason)]).await?;
        tracing::info!(key.id = next, reason, "the gateway's next key is announced");
        Ok(())
    }

    /// Takes an announcement back.
    pub async fn cancel_rotation(&self, by: &Actor) -> Result<(), Problem> {
        let key = self.keys().next.as_ref().map(|(key, _)| key.public().key_id().to_string());
        let Some(key) = key else {
            let message = "no successor is announced";
            return Err(Problem::new(ErrorCode::InvalidStateTransition, message));
        };
        let keys = self.shared.keyring.cancel_rotation().map_err(problem)?;
        self.shared.announce(&keys);
        self.shared.store.audit(vec![record(by, "key.cancel_rotation", &key, "")]).await?;
        Ok(())
    }

    /// Audits that new work is held off, or taken again.
    pub async fn note_intake(&self, held: bool, by: &Actor) -> Result<(), Problem> {
        let action = if held { "gateway.drain" } else { "gateway.resume" };
        self.shared.store.audit(vec![record(by, action, &self.shared.identity.peer_id, "")]).await?;
        Ok(())
    }

    /// Looks after keys and certificates until the gateway stops.
    pub fn start(&self, tasks: &Tasks) {
        let (this, stopping) = (self.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            loop {
                this.look().await;
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = stopping.cancelled() => return,
                }
            }
        });
    }

    async fn look(&self) {
        let shared = &self.shared;
        match shared.keyring.advance(shared.clock.now_ms()) {
            Ok(false) => {}
            Ok(true) => self.take_over().await,
            Err(error) => tracing::error!(error = %error, "the gateway's next key could not take over"),
        }
        let files = [Some(&shared.identity.credentials), shared.for_clients.as_ref()];
        for credentials in files.into_iter().flatten() {
            match credentials.reload() {
                Ok(true) => tracing::info!("a certificate was read again"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "a changed certificate is not used; the one before stays")
                }
            }
        }
        if let Some(Err(error)) = shared.identity.authority.as_ref().map(|authority| authority.reload()) {
            tracing::warn!(error = %error, "the changed CA file is not used; the one before stays");
        }
        match shared.jwt.as_ref().map(|jwt| jwt.reload()) {
            Some(Ok(true)) => tracing::info!("the keys of JWTs were read again"),
            Some(Err(error)) => {
                tracing::warn!(error = %error, "the changed keys of JWTs are not used; those before stay")
            }
            Some(Ok(false)) | None => {}
        }
    }

    async fn take_over(&self) {
        let shared = &self.shared;
        let keys = shared.keyring.keys();
        // The certificate first: who has heard a signature of the new key counts the old one's days.
        if shared.is_self_issued {
            match self_issued(&keys, &shared.identity.peer_id, shared.clock.now_ms()) {
                Ok(identity) => shared.identity.credentials.replace(identity),
                Err(error) => {
                    tracing::error!(error = %error, "no certificate could be issued for the new key")
                }
            }
        }
        shared.identity.signer.store(Arc::clone(&keys.present));
        shared.announce(&keys);
        let key = keys.present.public().key_id().to_string();
        tracing::info!(key.id = key, "the gateway's next key took over");
        let by = Actor {
            tenant: String::new(),
            subject: format!("gateway:{}", shared.identity.peer_id),
            correlation_id: String::new(),
        };
        if let Err(error) = shared.store.audit(vec![record(&by, "key.take_over", &key, "")]).await {
            tracing::warn!(error = %error, "a key's take-over was not audited");
        }
    }
}

impl Shared {
    /// Tells whoever is called from now on of the key to come.
    fn announce(&self, keys: &Keys) {
        self.identity.succession.store(keys.succession(&self.identity.peer_id).map(Arc::new));
    }
}

fn record(by: &Actor, action: &str, object: &str, reason: &str) -> NewAudit {
    NewAudit {
        correlation_id: by.correlation_id.clone(),
        tenant: by.tenant.clone(),
        subject: by.subject.clone(),
        action: action.to_owned(),
        object: object.to_owned(),
        outcome: "done".to_owned(),
        reason: reason.to_owned(),
        meta: String::new(),
    }
}

fn problem(error: KeyringError) -> Problem {
    let code = match &error {
        KeyringError::Announced(_) | KeyringError::Foreign => ErrorCode::InvalidStateTransition,
        _ => ErrorCode::InternalError,
    };
    Problem::new(code, error.to_string())
}
