//! Connections that read pages of events: a few, each used off the async threads.
//!
//! Invariant: what one call reads is the log as it was at one moment, and no read transaction outlives the call,
//! so the write-ahead log can always be moved.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection;
use super::damage::Damage;
use super::error::StoreError;
use crate::tasks::Tasks;

/// Pages read at the same time: more would only fight for the two or four cores of a small machine.
const READERS: usize = 4;

/// A read under way. It goes on when this is dropped.
pub type Reading<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// The pool.
#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<Path>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    damage: Damage,
    tasks: Tasks,
}

impl Readers {
    /// Opens the connections.
    pub(super) fn open(path: &Path, damage: Damage, tasks: Tasks) -> Result<Self, StoreError> {
        let count = if tasks.stay_on_one_thread() { 1 } else { READERS };
        let idle = (0..count).map(|_| connection::open_reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Readers {
            path: Arc::from(path),
            idle: Arc::new(Mutex::new(idle)),
            permits: Arc::new(Semaphore::new(count)),
            damage,
            tasks,
        })
    }

    /// Lends a connection to `read`. Waits for one in the order of asking.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        self.lend(permit, read).await
    }

    /// Starts `read` now, whether or not anybody waits for it, if a connection is free and nobody else wants it.
    pub(super) fn start<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Option<Reading<T>> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(self.lend(permit, read))
    }

    fn lend<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Reading<T> {
        let (idle, path, damage) = (Arc::clone(&self.idle), Arc::clone(&self.path), self.damage.clone());
        let work = self.tasks.blocking(move || {
            let _permit = permit;
            let lent = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match lent {
                Some(connection) => connection,
                None => connection::open_reader(&path)?, // one was lost to a panic
            };
            // Dropped, and so ended, before the connection is given back.
            let result = match connection.unchecked_transaction() {
                Ok(moment) => read(&moment),
                Err(error) => Err(error.into()),
            };
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            damage.note(result)
        });
        Box::pin(async move { work.await.map_err(|_| StoreError::Closed)? })
    }
}
