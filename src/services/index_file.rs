//! The AgentOS forward index file: imported at start, and kept up to date as a snapshot when asked for.
//!
//! SQLite is the truth. A file that cannot be read is an error at start and is never replaced in silence.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::peers::Peers;
use crate::domain::event::RunKey;
use crate::protocol::index_file::{self, IndexRecord, InvalidIndex};
use crate::protocol::paths;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// Runs read from the store at once.
const PAGE: u32 = 1000;
/// News that come within this time share one snapshot.
const SETTLE: Duration = Duration::from_millis(100);

/// Why the index file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexFileError {
    /// It cannot be read or written.
    #[error("forward index file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error(
        "forward index file {path} is damaged at {source}; repair it, or move it away to start without it \
         (the runs already in the database are kept)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        source: InvalidIndex,
    },
    /// The store failed.
    #[error("forward index: {0}")]
    Store(#[from] StoreError),
}

/// Takes every run of the file that is not known yet. Answers how many were new.
pub async fn import(path: &Path, store: &Store, peers: &Peers) -> Result<usize, IndexFileError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(IndexFileError::Io { path: path.to_owned(), source }),
    };
    let damaged = |source| IndexFileError::Damaged { path: path.to_owned(), source };
    let records = index_file::parse(&text).map_err(damaged)?;
    let mut new = 0;
    for record in records {
        let (peer, url) = (record.remote_stack_id, record.remote_events_url);
        let key = RunKey { tenant: record.tenant_id, run: record.run_id };
        let events_path = match peers.find(&peer) {
            Some(peer) => {
                let base = peer.client.base();
                paths::events_path(base, &url)
                    .unwrap_or_else(|_| paths::default_events_path(base, key.run.as_str()))
            }
            None => format!("/v1/runs/{}/events", key.run),
        };
        new += usize::from(store.import_run(&key, &peer, &events_path, &url).await?);
    }
    Ok(new)
}

/// Keeps a snapshot of the index in `path`, written anew whenever `news` rings, until the gateway stops.
pub fn keep(path: PathBuf, store: Store, news: Arc<Notify>, tasks: &Tasks) {
    let stopping = tasks.stopping().clone();
    let blocking = tasks.clone();
    tasks.spawn(async move {
        loop {
            let stop = tokio::select! {
                biased;
                () = news.notified() => tokio::time::timeout(SETTLE, stopping.cancelled()).await.is_ok(),
                () = stopping.cancelled() => true,
            };
            if let Err(error) = snapshot(&path, &store, &blocking).await {
                tracing::error!(error = %error, "the forward index file could not be written; it is older than the database");
            }
            if stop {
                return;
            }
        }
    });
}

/// Writes the whole index, atomically: readers see the old file or the new one, never a part.
pub async fn snapshot(path: &Path, store: &Store, tasks: &Tasks) -> Result<(), IndexFileError> {
    let mut records = Vec::new();
    let mut after = (String::new(), String::new());
    loop {
        let page = store.indexed_runs((&after.0, &after.1), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = (last.key.tenant.to_string(), last.key.run.to_string());
        records.extend(page.into_iter().filter_map(|run| {
            Some(IndexRecord {
                tenant_id: run.key.tenant,
                run_id: run.remote_run_id,
                remote_stack_id: run.home?,
                remote_events_url: run.remote_events_url,
            })
        }));
    }
    let target = path.to_owned();
    let written = tasks.blocking(move || replace(&target, &records)).await;
    written
        .unwrap_or_else(|_| Err(std::io::Error::other("the snapshot task ended early")))
        .map_err(|source| IndexFileError::Io { path: path.to_owned(), source })
}

fn replace(path: &Path, records: &[IndexRecord]) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = File::create(&part)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(&serde_json::to_vec_pretty(records)?)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    File::open(parent)?.sync_all()
}
