//! The store: SQLite, and all SQL there is.
//!
//! Two crates share one bundled SQLite. `rusqlite` serves the writer and the page readers, whose cost per
//! statement decides what an event costs; `sqlx` migrates the schema and serves the lists.
//! Invariant: once it is open, the writer alone writes, and everything that is acknowledged went through
//! `queue::Writer` and is on disk.

mod append;
mod audit;
mod audit_log;
mod audit_verify;
mod backup;
mod caller_keys;
mod checkpoint;
mod connection;
mod damage;
mod deliveries;
mod disk;
mod error;
mod event_ids;
mod event_key;
mod event_log;
mod forwards;
mod heads;
mod nonces;
mod page;
mod peer_entries;
mod placing;
mod position;
mod queue;
mod quotas;
mod readers;
mod retention;
mod rows;
mod runs;
mod scan;
mod settle;
mod tokens;
mod writer;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::sqlite::SqlitePool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::append::{BatchEntry, ReaderBatch};
pub use self::audit::{Actor, NewAudit};
pub use self::audit_log::{AuditCheckpoint, AuditFilter, AuditRow};
pub use self::audit_verify::{AuditReport, read_audit, verify_audit};
pub use self::backup::{BackupError, backup, restore};
pub use self::deliveries::{DeliveryFilter, DeliveryRecord, ForwardTrouble};
pub use self::disk::{Disk, DiskFaults};
pub use self::error::StoreError;
pub use self::forwards::{AttemptRecord, ForwardRecord, ForwardedRun, Reserved, Settlement};
pub use self::page::{EventRow, PageRange};
pub use self::peer_entries::PeerEntry;
pub use self::placing::Placing;
pub use self::quotas::{QuotaExceeded, Quotas};
pub use self::readers::Pages;
pub use self::runs::RunRecord;
pub use self::settle::FreshRun;
pub use self::tokens::TokenRecord;
pub use self::writer::TailObserver;

use self::audit::AuditChain;
use self::damage::Damage;
use self::queue::Writer;
use self::readers::Readers;
use self::writer::WriterThread;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// The database inside the data directory.
pub const DATABASE_FILE: &str = "causeway.db";
/// Held for as long as a gateway uses the data directory.
pub const LOCK_FILE: &str = "causeway.lock";

/// Why the store cannot be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or used.
    #[error("data directory {path}: {source}; make it writable for this user, or set `gateway.data_dir`")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another gateway works on it.
    #[error(
        "data directory {path} is in use by another gateway; stop it, or give this one its own `gateway.data_dir`"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The database cannot be opened.
    #[error(
        "database {path}: {source}; restore a backup with `causeway restore`, or move the file away to start empty"
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: StoreError,
    },
}

/// The open store, cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: Readers,
    pool: SqlitePool,
    disk: Disk,
    clock: Clock,
    damage: Damage,
    incarnation: Arc<str>,
    audit_origin: Arc<str>,
    audit_moved: Arc<Notify>,
    gateway_secret: Arc<[u8]>,
    failed: CancellationToken,
    lock: Arc<File>,
}

impl Store {
    /// Locks the data directory, opens the database in it, brings its schema up to date and starts the
    /// writer. `observer` hears of every stream that moves; `metrics` counts the commits.
    pub async fn open(
        data_dir: &Path,
        clock: Clock,
        entropy: &Entropy,
        tasks: Tasks,
        heard: (Arc<dyn TailObserver>, Arc<Metrics>),
    ) -> Result<Self, OpenError> {
        Self::open_on(Disk::system(), data_dir, clock, entropy, tasks, heard).await
    }

    /// The same, on a disk of the caller's choice.
    pub async fn open_on(
        disk: Disk,
        data_dir: &Path,
        clock: Clock,
        entropy: &Entropy,
        tasks: Tasks,
        heard: (Arc<dyn TailObserver>, Arc<Metrics>),
    ) -> Result<Self, OpenError> {
        let lock = lock_directory(data_dir)?;
        let database = data_dir.join(DATABASE_FILE);
        let opened = Self::open_database(disk, &database, clock, entropy, tasks, heard, lock).await;
        opened.map_err(|source| OpenError::Database { path: database, source })
    }

    async fn open_database(
        disk: Disk,
        database: &Path,
        clock: Clock,
        entropy: &Entropy,
        tasks: Tasks,
        heard: (Arc<dyn TailObserver>, Arc<Metrics>),
        lock: File,
    ) -> Result<Self, StoreError> {
        connection::check_version()?;
        // Made before SQLite would: its companions (-wal, -shm) take over the mode.
        private_file().open(database).map_err(|error| StoreError::Failed(error.to_string()))?;
        let facts = disk.wait_for(async {
            let alone = connection::open_migrated(database).await?;
            let incarnation = remember(&alone, "incarnation", &random_hex(entropy, 8)).await?;
            let secret = remember(&alone, "gateway_secret", &random_hex(entropy, 32)).await?;
            let audit_origin = audit_log::origin(&alone, &incarnation).await?;
            let pool = connection::open_pool(database).await?;
            // Somebody else has the log open by now: the last to close it would move it, and tell nobody that a
            // sync failed.
            sqlx::query("SELECT count(*) FROM meta").fetch_one(&pool).await?;
            alone.close().await;
            Ok::<_, StoreError>((pool, incarnation, secret, audit_origin))
        });
        let (pool, incarnation, secret, audit_origin) = facts.await?;
        let audit_moved = Arc::new(Notify::new());
        let chain = AuditChain::new(&audit_origin, Arc::clone(&audit_moved))?;
        let failed = CancellationToken::new();
        let connection = connection::open_writer(database)?;
        let thread = WriterThread::new(connection, &disk, clock.clone(), heard, failed.clone(), chain);
        let damage = Damage::none(&clock);
        let writer = Writer::start(thread, database, damage.clone(), &tasks)?;
        Ok(Store {
            clock,
            writer,
            readers: Readers::open(database, damage.clone(), tasks)?,
            damage,
            pool,
            disk,
            incarnation: Arc::from(incarnation),
            audit_origin: Arc::from(audit_origin),
            audit_moved,
            gateway_secret: Arc::from(secret.into_bytes()),
            failed,
            lock: Arc::new(lock),
        })
    }

    /// Scopes this gateway's downstream idempotency keys.
    pub fn gateway_secret(&self) -> &[u8] {
        &self.gateway_secret
    }

    /// Cancelled when the disk failed underneath: nothing can be written any more.
    pub fn failed(&self) -> &CancellationToken {
        &self.failed
    }

    /// When a row was last met that contradicts another or its checksum, in milliseconds since the Unix epoch,
    /// and which.
    pub fn damage(&self) -> Option<(i64, String)> {
        self.damage.last()
    }

    /// Whether the log can be written. Costs nothing while writes succeed; after a failed one it tries, so
    /// that a gateway whose disk has space again says so without waiting for a caller.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        if self.failed.is_cancelled() {
            return Err(StoreError::Fatal("the disk failed".to_owned()));
        }
        if !self.writer.is_troubled() {
            return Ok(());
        }
        self.writer
            .run_or_refuse(0, |unit| {
                unit.connection.execute(
                    "INSERT INTO meta (key, value) VALUES ('last_probe', ?1)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    [unit.now_ms.to_string()],
                )?;
                Ok(())
            })
            .await
    }

    /// Closes the log: what was to be written is written, the database file holds everything by itself, and only
    /// then may another have the directory. Two writers at once would each go on from what it remembers.
    pub async fn close(&self) {
        self.writer.end().await;
        self.disk.wait_for(self.pool.close()).await;
        let _ = self.lock.unlock();
    }
}

/// Keeps a second gateway off the data directory.
fn lock_directory(data_dir: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Directory { path: data_dir.to_owned(), source };
    // What lies here is for this user only: the database holds the gateway's secret.
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let lock = private_file().open(data_dir.join(LOCK_FILE)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: data_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// How a file is made that only this user may read; one that exists keeps its content and its mode.
fn private_file() -> OpenOptions {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    options
}

/// Reads a fact about the database, or records it the first time.
async fn remember(pool: &SqlitePool, key: &str, value: &str) -> Result<String, StoreError> {
    sqlx::query("INSERT OR IGNORE INTO meta (key, value) VALUES (?1, ?2)")
        .bind(key)
        .bind(value)
        .execute(pool)
        .await?;
    Ok(sqlx::query_scalar("SELECT value FROM meta WHERE key = ?1").bind(key).fetch_one(pool).await?)
}

fn random_hex(entropy: &Entropy, bytes: usize) -> String {
    let mut random = vec![0; bytes];
    entropy.fill(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
