//! One gateway, put together: opened, started, drained, stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, millis};
use crate::config::Config;
use crate::domain::backoff::BackoffError;
use crate::entropy::Entropy;
use crate::http::{GatewayIdentity, Listening, Services, admin_router, router, serve};
use crate::metrics::Metrics;
use crate::outbound::BuildError;
use crate::services::admission::Admission;
use crate::services::drive::Driver;
use crate::services::follow::Follow;
use crate::services::forward::Forwarder;
use crate::services::hub::Hub;
use crate::services::index_file::{self, IndexFileError};
use crate::services::ingest::Ingest;
use crate::services::peers::Peers;
use crate::services::pull::Pull;
use crate::services::runs::Runs;
use crate::services::sweep::Sweep;
use crate::services::{health, reconcile};
use crate::store::{DATABASE_FILE, OpenError, Store, StoreError};
use crate::tasks::Tasks;

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
    public: Listening,
    admin: Option<Listening>,
    store: Store,
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
        let tasks = Tasks::default();
        let hub = Arc::new(Hub::default());
        let data_dir = &config.gateway.data_dir;
        let observer = Arc::clone(&hub) as Arc<_>;
        let metrics = Arc::new(Metrics::default());
        let heard = (observer, Arc::clone(&metrics));
        let store = Store::open(data_dir, clock.clone(), &entropy, tasks.clone(), heard).await?;
        let started = Self::assemble(&config, (clock, entropy), &store, (hub, metrics), &tasks).await;
        let (public, admin) = match started {
            Ok(listening) => listening,
            Err(error) => {
                tasks.stop().await;
                store.close().await;
                return Err(error);
            }
        };
        let shutdown_timeout = config.server.shutdown_timeout;
        Ok(Gateway { public, admin, store, tasks, shutdown_timeout })
    }

    async fn assemble(
        config: &Config,
        (clock, entropy): (Clock, Entropy),
        store: &Store,
        (hub, metrics): (Arc<Hub>, Arc<Metrics>),
        tasks: &Tasks,
    ) -> Result<(Listening, Option<Listening>), StartError> {
        let stack_id = config.gateway.stack_id.as_str();
        let chance = || (clock.clone(), entropy.clone());
        let peers =
            Peers::new(&config.peers, &config.outbound, &config.forward, (&clock, &entropy), &metrics)?;
        let index = config.gateway.forward_index_to_import();
        let imported = index_file::import(index, store, &peers).await?;
        if imported > 0 {
            tracing::info!(runs = imported, file = %index.display(), "runs were imported from the forward index file");
        }
        let pull = Pull::new(
            store.clone(),
            &hub,
            peers.clone(),
            chance(),
            Arc::clone(&metrics),
            config.reader.clone(),
            tasks.clone(),
        )?;
        let driver = Driver::new(
            store.clone(),
            peers.clone(),
            pull.clone(),
            chance(),
            Arc::clone(&metrics),
            config.forward.clone(),
            tasks.clone(),
        )?;
        let forwarder = Forwarder::new(
            driver.clone(),
            (store.clone(), peers.clone()),
            chance(),
            Arc::clone(&metrics),
            (config.forward.clone(), stack_id),
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
        let sweep = Sweep {
            store: store.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            retention: config.retention.clone(),
            forward: config.forward.clone(),
            database: config.gateway.data_dir.join(DATABASE_FILE),
        };
        let services = Arc::new(Services {
            admission: Admission::dev(config.gateway.default_tenant.clone()),
            runs: Runs::new(store.clone(), peers.clone(), pull.clone()),
            ingest: Ingest::new(store.clone(), Arc::clone(&metrics)),
            forwarder,
            follow,
            peers: peers.clone(),
            sweep: sweep.clone(),
            identity: identity(config),
            options: config.server.clone(),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            entropy: entropy.clone(),
            tasks: tasks.clone(),
        });
        let listening = listen(config, &services, &metrics, tasks).await?;
        // Only now, with every port bound, is work taken up: a start that fails has done nothing.
        if let Some(file) = config.gateway.forward_index_file.clone() {
            index_file::snapshot(&file, store, tasks).await?;
            index_file::keep(file, store.clone(), driver.indexed(), tasks);
        }
        let resumed = pull.resume_all().await?;
        tracing::info!(runs = resumed, "unfinished runs are read again");
        reconcile::start(store, &driver, &clock, tasks).await?;
        health::start(&peers, config.outbound.health_interval, &entropy, tasks);
        sweep.start(tasks);
        Ok(listening)
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.public.address
    }

    /// Where metrics and admin paths listen, when they have an address of their own.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
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
            self.public.drained.cancelled().await;
            if let Some(admin) = &self.admin {
                admin.drained.cancelled().await;
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

fn identity(config: &Config) -> GatewayIdentity {
    let ms = |duration| u64::try_from(millis(duration)).unwrap_or(0);
    GatewayIdentity {
        stack_id: config.gateway.stack_id.to_string(),
        environment: config.gateway.environment.clone(),
        region: config.gateway.region.clone(),
        idempotency_retention_ms: ms(config.forward.idempotency_retention),
        replay_window_ms: ms(config.retention.events),
    }
}

async fn listen(
    config: &Config,
    services: &Arc<Services>,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Result<(Listening, Option<Listening>), StartError> {
    let server = &config.server;
    let public = serve(server.listen, router(Arc::clone(services)), server, Arc::clone(metrics), tasks)
        .await
        .map_err(|source| StartError::Listen { address: server.listen, key: "server.listen", source })?;
    tracing::info!(address = %public.address, "the gateway listens");
    let Some(address) = server.admin_listen else { return Ok((public, None)) };
    let admin = serve(address, admin_router(Arc::clone(services)), server, Arc::clone(metrics), tasks)
        .await
        .map_err(|source| StartError::Listen { address, key: "server.admin_listen", source })?;
    tracing::info!(address = %admin.address, "metrics and admin paths are served");
    Ok((public, Some(admin)))
}
