//! One gateway, put together: opened, started, drained, stopped.

mod control;
mod doors;
mod ground;
mod trust;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::doors::Doors;
use self::trust::Trust;
use crate::clock::{Clock, millis};
use crate::config::Config;
use crate::domain::backoff::BackoffError;
use crate::entropy::Entropy;
use crate::http::{GatewayIdentity, House, Services, StreamSlots};
use crate::keyring::KeyringError;
use crate::metrics::Metrics;
use crate::outbound::BuildError;
use crate::services::alerts::{Alerts, Watched, WebhookError, WebhookGround};
use crate::services::deliveries::Deliveries;
use crate::services::drive::Driver;
use crate::services::follow::Follow;
use crate::services::forward::Forwarder;
use crate::services::hub::Hub;
use crate::services::index_file::{self, IndexFileError};
use crate::services::ingest::Ingest;
use crate::services::introductions::Introductions;
use crate::services::links::Links;
use crate::services::pull::Pull;
use crate::services::quota_gate::QuotaGate;
use crate::services::recall::RosterError;
use crate::services::reconcile;
use crate::services::roster::Roster;
use crate::services::runs::Runs;
use crate::services::sweep::Sweep;
use crate::store::{DATABASE_FILE, OpenError, Quotas, Store, StoreError};
use crate::tasks::Tasks;
use crate::tls::TlsError;

pub use self::control::Control;
pub use self::doors::CONTROL_SOCKET;
pub use self::ground::Ground;

/// How long tasks may take to end once everything is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a gateway does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory or its database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The forward index file.
    #[error(transparent)]
    Index(#[from] IndexFileError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A peer's client.
    #[error(transparent)]
    Client(#[from] BuildError),
    /// A configured backoff.
    #[error("a configured backoff is impossible: {0}")]
    Backoff(#[from] BackoffError),
    /// The roster of peers.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// The gateway's own key.
    #[error(transparent)]
    Key(#[from] KeyringError),
    /// A certificate.
    #[error("{key}: {source}")]
    Tls {
        /// The configuration key.
        key: &'static str,
        /// What is wrong.
        source: TlsError,
    },
    /// The keys of JWTs.
    #[error("jwt: {0}")]
    Jwt(String),
    /// A webhook.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// The control socket.
    #[error("the control socket {path} cannot be made: {source}")]
    Control {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A port.
    #[error("cannot listen on {address}: {source}; choose another address with {key}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The configuration key.
        key: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running gateway.
pub struct Gateway {
    doors: Doors,
    roster: Roster,
    store: Store,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    shutdown_timeout: Duration,
}

impl Gateway {
    /// Opens the log, takes up what was unfinished, and listens. On return it serves.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Clock::system(), Entropy::from_os()).await
    }

    /// As [`Gateway::start`], with a given clock and source of chance.
    pub async fn start_with(config: Config, clock: Clock, entropy: Entropy) -> Result<Self, StartError> {
        Self::start_on(Ground::system(clock, entropy), config).await
    }

    /// As [`Gateway::start`], on a given ground.
    pub async fn start_on(ground: Ground, config: Config) -> Result<Self, StartError> {
        let (tasks, entropy) = (ground.tasks.clone(), &ground.entropy);
        let hub = Arc::new(Hub::default());
        let data_dir = &config.gateway.data_dir;
        let observer = Arc::clone(&hub) as Arc<_>;
        let metrics = Arc::new(Metrics::default());
        let heard = (observer, Arc::clone(&metrics));
        let (disk, clock) = (ground.disk.clone(), ground.clock.clone());
        let store = Store::open_on(disk, data_dir, clock, entropy, tasks.clone(), heard).await?;
        let counted = Arc::clone(&metrics);
        let started = async {
            let parts = Parts::assemble(&config, &ground, &store, (hub, metrics), &tasks).await?;
            let roster = parts.services.roster.clone();
            Ok::<_, StartError>((parts.start(&config, &store, &tasks).await?, roster))
        };
        let (doors, roster) = match started.await {
            Ok(started) => started,
            Err(error) => {
                tasks.stop().await;
                store.close().await;
                return Err(error);
            }
        };
        let shutdown_timeout = config.server.shutdown_timeout;
        Ok(Gateway { doors, roster, store, metrics: counted, tasks, shutdown_timeout })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.doors.public.address
    }

    /// Where peers come in with mutual TLS, when they have a door of their own.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.doors.peers.as_ref().map(|peers| peers.address)
    }

    /// Where metrics and admin paths listen, when they have an address of their own.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.doors.admin.as_ref().map(|admin| admin.address)
    }

    /// The peers, to be enrolled and asked.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// All that was counted so far, as the metrics path shows it.
    pub fn metrics_page(&self) -> String {
        self.metrics.page()
    }

    /// Resolves when the disk failed underneath: the gateway can only go down.
    pub async fn failed(&self) {
        self.store.failed().cancelled().await;
    }

    /// Drains (new work is refused, streams end at a frame boundary, requests in flight finish, up to the
    /// shutdown timeout), then stops.
    pub async fn shutdown(self) {
        self.tasks.drain();
        let drained = async {
            for door in self.doors.all() {
                door.drained.cancelled().await;
            }
        };
        if tokio::time::timeout(self.shutdown_timeout, drained).await.is_err() {
            tracing::warn!("some requests did not end within the shutdown timeout and are cut off");
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.stop()).await.is_err() {
            tracing::warn!(tasks = self.tasks.running(), "some tasks did not stop in time");
        }
        self.store.close().await;
    }
}

/// A gateway with every door closed.
struct Parts {
    trust: Trust,
    services: Arc<Services>,
    house: House,
    pull: Pull,
    driver: Driver,
}

impl Parts {
    /// Puts everything together; `readers` is told when those who read at peers must end.
    async fn assemble(
        config: &Config,
        ground: &Ground,
        store: &Store,
        (hub, metrics): (Arc<Hub>, Arc<Metrics>),
        readers: &Tasks,
    ) -> Result<Self, StartError> {
        let Ground { clock, entropy, tasks, .. } = ground;
        let stack_id = config.gateway.stack_id.as_str();
        let chance = || (clock.clone(), entropy.clone());
        let trust = Trust::establish(config, store, ground, &metrics).await?;
        let Trust { peers, admission, .. } = &trust;
        let pull = Pull::new(
            store.clone(),
            &hub,
            (admission.clone(), peers.clone()),
            chance(),
            Arc::clone(&metrics),
            config.reader.clone(),
            readers.clone(),
        )?;
        let driver = Driver::new(
            store.clone(),
            (admission.clone(), peers.clone()),
            pull.clone(),
            chance(),
            Arc::clone(&metrics),
            config.forward.clone(),
            tasks.clone(),
        )?;
        let quotas = QuotaGate::new(quotas(config), clock.clone(), Arc::clone(&metrics));
        let forwarder = Forwarder::new(
            driver.clone(),
            admission.clone(),
            (store.clone(), peers.clone()),
            chance(),
            Arc::clone(&metrics),
            (config.forward.clone(), quotas.clone(), stack_id),
            tasks.clone(),
        );
        let follow = Follow::new(
            store.clone(),
            hub,
            chance(),
            Arc::clone(&metrics),
            config.events.clone(),
            stack_id,
            tasks,
        );
        let roster = Roster::new(
            (store.clone(), admission.clone()),
            (peers.clone(), pull.clone()),
            config.outbound.health_interval,
            readers.clone(),
        );
        let sweep = Sweep {
            store: store.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            admission: admission.clone(),
            retention: config.retention.clone(),
            forward: config.forward.clone(),
            database: config.gateway.data_dir.join(DATABASE_FILE),
        };
        let has_peer_door = config.peering.listen.is_some();
        let links = Links::new(admission.clone(), peers.clone(), pull.clone(), has_peer_door);
        let watched = Watched {
            sweep: sweep.clone(),
            links: links.clone(),
            own_keys: trust.own_keys.clone(),
            audit: trust.audit.clone(),
            quotas: quotas.clone(),
            tasks: tasks.clone(),
        };
        let alerts = alerts(config, ground, (watched, &trust.identity.instance), &metrics)?;
        let slots = StreamSlots::new(
            config.server.max_streams,
            config.server.max_streams_per_principal,
            Arc::clone(&metrics),
        );
        let services = Arc::new(Services {
            admission: admission.clone(),
            tokens: trust.tokens.clone(),
            introductions: Introductions::new(&config.introductions, stack_id, &roster, clock),
            roster,
            own_keys: trust.own_keys.clone(),
            audit: trust.audit.clone(),
            runs: Runs::new(store.clone(), admission.clone(), peers.clone(), pull.clone()),
            ingest: Ingest::new(store.clone(), quotas, Arc::clone(&metrics)),
            forwarder,
            follow,
            peers: peers.clone(),
            links,
            deliveries: Deliveries::new(store.clone(), clock.clone()),
            alerts,
            sweep,
            identity: identity(config, &trust),
            slots,
            options: config.server.clone(),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            entropy: entropy.clone(),
            tasks: tasks.clone(),
        });
        let house = House {
            options: config.server.clone(),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            tasks: tasks.clone(),
            ports: ground.ports.clone(),
        };
        Ok(Parts { trust, services, house, pull, driver })
    }

    /// Opens every door and takes up what was unfinished.
    async fn start(self, config: &Config, store: &Store, tasks: &Tasks) -> Result<Doors, StartError> {
        let Parts { trust, services, house, pull, driver } = self;
        let index = config.gateway.forward_index_to_import();
        let imported = index_file::import(index, store, &trust.peers).await?;
        if imported > 0 {
            tracing::info!(runs = imported, file = %index.display(), "runs were imported from the forward index file");
        }
        let doors = doors::open(config, &services, &trust, &house).await?;
        // Only now, with every port bound, is work taken up: a start that fails has done nothing.
        if let Some(file) = config.gateway.forward_index_file.clone() {
            index_file::snapshot(&file, store, tasks).await?;
            index_file::keep(file, store.clone(), driver.indexed(), tasks);
        }
        let resumed = pull.resume_all().await?;
        tracing::info!(runs = resumed, "unfinished runs are read again");
        reconcile::start(store, &driver, &house.clock, tasks).await?;
        services.roster.start();
        trust.start(config, tasks)?;
        services.sweep.clone().start(tasks);
        services.alerts.start(tasks);
        Ok(doors)
    }
}

fn alerts(
    config: &Config,
    ground: &Ground,
    (watched, instance): (Watched, &str),
    metrics: &Arc<Metrics>,
) -> Result<Alerts, WebhookError> {
    let webhooks = WebhookGround {
        profile: config.gateway.profile,
        outbound: config.outbound.clone(),
        network: ground.network.clone(),
        clock: ground.clock.clone(),
        entropy: ground.entropy.clone(),
        metrics: Arc::clone(metrics),
    };
    Alerts::new(watched, config.alerts.clone(), &webhooks, (config.gateway.stack_id.as_str(), instance))
}

fn identity(config: &Config, trust: &Trust) -> GatewayIdentity {
    let ms = |duration| u64::try_from(millis(duration)).unwrap_or(0);
    GatewayIdentity {
        stack_id: config.gateway.stack_id.to_string(),
        environment: config.gateway.environment.clone(),
        region: config.gateway.region.clone(),
        idempotency_retention_ms: ms(config.forward.idempotency_retention),
        replay_window_ms: ms(config.retention.events),
        instance: trust.identity.instance.clone(),
        domain: config.policy.domain.clone(),
        policy_digest: trust.identity.policy_digest.clone(),
    }
}

fn quotas(config: &Config) -> Quotas {
    let limits = &config.limits;
    Quotas {
        runs_per_day: limits.runs_per_day,
        concurrent_runs: limits.concurrent_runs,
        stored_bytes: limits.stored_bytes as u64,
    }
}
