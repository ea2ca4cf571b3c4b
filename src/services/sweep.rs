//! Periodic chores, in one table: retention, old forwards, sizes for the metrics.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::admission::Admission;
use super::options::{ForwardOptions, RetentionOptions};
use crate::clock::{Clock, millis};
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// What the chores need.
#[derive(Clone)]
pub struct Sweep {
    /// The log.
    pub store: Store,
    /// For ages.
    pub clock: Clock,
    /// Counts what was removed, shows sizes.
    pub metrics: Arc<Metrics>,
    /// Forgets callers not seen of late.
    pub admission: Admission,
    /// How long events are kept.
    pub retention: RetentionOptions,
    /// How long forwards are kept.
    pub forward: ForwardOptions,
    /// The database file.
    pub database: PathBuf,
}

impl Sweep {
    /// Runs every chore now and then until the gateway stops.
    pub fn start(self, tasks: &Tasks) {
        let stopping = tasks.stopping().clone();
        let interval = self.retention.sweep_interval.max(Duration::from_millis(100));
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    result = self.round() => {
                        if let Err(error) = result {
                            tracing::warn!(error = %error, "a chore was put off to the next round");
                        }
                    }
                    () = stopping.cancelled() => return,
                }
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(interval) => {}
                    () = stopping.cancelled() => return,
                }
            }
        });
    }

    /// Every chore once, each until it has nothing left to do.
    pub async fn round(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        loop {
            let removed = self.store.expire_finished(now_ms - millis(self.retention.events)).await?;
            self.metrics.retained_removed.inc_by(removed as u64);
            if removed == 0 {
                break;
            }
        }
        if self.retention.max_events_per_tenant > 0 {
            while self.store.expire_surplus(self.retention.max_events_per_tenant).await? > 0 {}
        }
        while self.store.sweep_forwards(now_ms - millis(self.forward.kept)).await? > 0 {}
        self.admission.sweep();
        self.measure();
        Ok(())
    }

    /// Brings the size metrics up to date.
    pub fn measure(&self) {
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len() as i64);
        let mut wal = self.database.as_os_str().to_owned();
        wal.push("-wal");
        self.metrics.database_bytes.set(size(&self.database));
        self.metrics.log_bytes.set(size(&PathBuf::from(wal)));
    }
}
