//! The trust of one gateway, put together: its keys, its peers, its callers, its audit.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use sha2::{Digest, Sha256};

use super::{Ground, StartError};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::policy::Policy;
use crate::domain::succession::to_hex;
use crate::entropy::Entropy;
use crate::http::options::TlsMode;
use crate::keyring::Keyring;
use crate::metrics::Metrics;
use crate::outbound::OwnIdentity;
use crate::services::admission::{Admission, AdmissionRules};
use crate::services::audit_log::{AuditLog, Sink};
use crate::services::jwt::JwtVerifier;
use crate::services::own_keys::{self, OwnKeys};
use crate::services::peers::{PeerMaker, Peers};
use crate::services::rates::{RateLimits, Rates};
use crate::services::recall;
use crate::services::tokens::Tokens;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::tls::{Authority, Credentials, TlsError};

/// Everything that decides who may do what.
pub(super) struct Trust {
    pub(super) identity: Arc<OwnIdentity>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) own_keys: OwnKeys,
    pub(super) for_clients: Option<Arc<Credentials>>,
    pub(super) peers: Peers,
    pub(super) tokens: Tokens,
    pub(super) admission: Admission,
    pub(super) audit: AuditLog,
}

impl Trust {
    /// Reads keys, peers and tokens; nobody is called and nothing listens yet.
    pub(super) async fn establish(
        config: &Config,
        store: &Store,
        ground: &Ground,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let Ground { clock, entropy, tasks, .. } = ground;
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        entropy.fill(&mut *seed);
        let key_file = config.peering.key_file.as_deref();
        let keyring = Arc::new(Keyring::open(&config.gateway.data_dir, key_file, &seed)?);
        let identity = Arc::new(own_identity(config, &keyring, (clock, entropy))?);
        let peers = Peers::new(PeerMaker {
            profile: config.gateway.profile,
            domain: config.policy.domain.clone(),
            region: config.gateway.region.clone(),
            outbound: config.outbound.clone(),
            forward: config.forward.clone(),
            identity: Arc::clone(&identity),
            clock: clock.clone(),
            entropy: entropy.clone(),
            metrics: Arc::clone(metrics),
            network: ground.network.clone(),
        });
        recall::load(store, &peers, &config.peers).await?;
        let tokens = Tokens::load(store, clock, entropy).await?;
        let audit = AuditLog::start(store, clock, metrics, tasks);
        let jwt = jwt(config)?;
        let rules = AdmissionRules {
            profile: config.gateway.profile,
            default_tenant: config.gateway.default_tenant.clone(),
            stack_id: config.gateway.stack_id.to_string(),
            policy: config.to_policy(),
            jwt: jwt.clone(),
            require_mtls: config.peering.require_mtls,
            ticket_lifetime: config.limits.ticket_lifetime,
        };
        let admission = Admission::new(
            rules,
            (store, &peers, tokens.clone()),
            (rates(config, clock), audit.clone()),
            tasks,
        );
        let for_clients = for_clients(config)?;
        let own_keys = OwnKeys::new(
            (Arc::clone(&keyring), Arc::clone(&identity)),
            (for_clients.clone(), jwt),
            (&config.peering, config.outbound.health_interval),
            store.clone(),
        );
        Ok(Trust { identity, keyring, own_keys, for_clients, peers, tokens, admission, audit })
    }

    /// Starts what looks after keys, tokens and the audit.
    pub(super) fn start(&self, config: &Config, tasks: &Tasks) -> Result<(), StartError> {
        self.own_keys.start(tasks);
        self.tokens.start(tasks);
        let origin = config.gateway.stack_id.as_str();
        self.audit.keep_checkpoints(&self.keyring, origin, &config.audit, tasks);
        if let Ok(Some(sink)) = Sink::parse(&config.audit.sink) {
            self.audit.copy_to(sink, tasks);
        }
        Ok(())
    }
}

fn own_identity(
    config: &Config,
    keyring: &Keyring,
    (clock, entropy): (&Clock, &Entropy),
) -> Result<OwnIdentity, StartError> {
    let peer_id = config.gateway.stack_id.to_string();
    let shown = own_keys::credentials(&config.peering, keyring, &peer_id, clock.now_ms());
    let credentials = shown.map_err(|source| StartError::Tls { key: "peering.cert_file", source })?;
    let authority = config.peering.ca_file.as_deref().map(Authority::from_file).transpose();
    Ok(OwnIdentity {
        domain: config.policy.domain.clone(),
        policy_digest: digest(&config.to_policy()),
        instance: entropy.id("ins", clock.now_ms()),
        signer: ArcSwap::new(Arc::clone(&keyring.keys().present)),
        succession: ArcSwapOption::from(keyring.keys().succession(&peer_id).map(Arc::new)),
        credentials: Arc::new(credentials),
        authority: authority
            .map_err(|source| StartError::Tls { key: "peering.ca_file", source })?
            .map(Arc::new),
        clock: clock.clone(),
        entropy: entropy.clone(),
        peer_id,
    })
}

fn for_clients(config: &Config) -> Result<Option<Arc<Credentials>>, StartError> {
    let server = &config.server;
    if server.tls != TlsMode::Own {
        return Ok(None);
    }
    let failed = |source| StartError::Tls { key: "server.tls_cert_file", source };
    let (Some(certificate), Some(key)) = (&server.tls_cert_file, &server.tls_key_file) else {
        let missing = "server.tls = \"own\" needs server.tls_cert_file and server.tls_key_file";
        return Err(failed(TlsError::Setup(missing.to_owned())));
    };
    Ok(Some(Arc::new(Credentials::from_files(certificate, key).map_err(failed)?)))
}

fn jwt(config: &Config) -> Result<Option<Arc<JwtVerifier>>, StartError> {
    if !config.jwt.is_on() {
        return Ok(None);
    }
    let verifier = JwtVerifier::from_file(config.jwt.clone());
    verifier.map(|verifier| Some(Arc::new(verifier))).map_err(|error| StartError::Jwt(error.to_string()))
}

fn rates(config: &Config, clock: &Clock) -> Rates {
    let limits = &config.limits;
    let options = RateLimits {
        peer: limits.peer,
        tenant: limits.tenant,
        principal: limits.principal,
        preauth: limits.failed_logins,
        ..RateLimits::default()
    };
    let clock = clock.clone();
    Rates::new(&options, move || clock.monotonic())
}

/// Short, and the same for policies that say the same.
fn digest(policy: &Policy) -> String {
    let mut foreign = policy.allowed_foreign_domains.clone();
    foreign.sort();
    let mut text = format!("{}\n{}\n{}\n", policy.domain, policy.mode.as_str(), foreign.join(","));
    for (domain, bridge) in &policy.bridges {
        let mut peers: Vec<&str> = bridge.allowed_peers.iter().map(|peer| peer.as_str()).collect();
        let mut operations: Vec<&str> =
            bridge.operations.iter().map(|operation| operation.as_str()).collect();
        peers.sort_unstable();
        operations.sort_unstable();
        text.push_str(&format!("{domain} {} {}\n", peers.join(","), operations.join(",")));
    }
    to_hex(&Sha256::digest(text.as_bytes())[..8])
}
