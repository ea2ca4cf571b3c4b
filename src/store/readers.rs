//! Connections that read pages of events: a few, each used off the async threads.
//!
//! Invariant: what one call reads is the log as it was at one moment, and no read transaction outlives the call,
//! so the write-ahead log can always be moved.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc};

use super::connection;
use super::damage::Damage;
use super::error::StoreError;
use crate::tasks::Tasks;

/// Pages read at the same time: more would only fight for the two or four cores of a small machine.
const READERS: usize = 4;

/// Pages in the order in which they are read, and no more once their reader has stopped. Dropped, it stops soon.
pub type Pages<T> = mpsc::Receiver<Result<T, StoreError>>;

/// What is left after a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Another page, perhaps.
    More,
    /// Nothing that was asked for.
    Nothing,
}

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
        let this = self.clone();
        let work = self.tasks.blocking(move || {
            let _permit = permit;
            this.read(read)
        });
        work.await.map_err(|_| StoreError::Closed)?
    }

    /// Lends a connection to `read` for page after page, from now on and ahead of whoever takes them: while there is
    /// a place for one more, `read` has more, and nobody else waits for the connection. `None` if none is free.
    pub(super) fn start<T: Send + 'static>(
        &self,
        places: usize,
        mut read: impl FnMut(&Connection) -> Result<(T, Rest), StoreError> + Send + 'static,
    ) -> Option<Pages<T>> {
        let mut permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let (out, pages) = mpsc::channel(places);
        let this = self.clone();
        // Nobody waits for its end: what it has read is in the channel, which it leaves when it ends.
        self.tasks.blocking(move || {
            while let Ok(place) = out.try_reserve() {
                let result = this.read(&mut read);
                let more = matches!(result, Ok((_, Rest::More)));
                place.send(result.map(|(page, _)| page));
                // Given back after each page: whoever waits is next.
                drop(permit);
                permit = match Arc::clone(&this.permits).try_acquire_owned() {
                    Ok(permit) if more => permit,
                    _ => return,
                };
            }
        });
        Some(pages)
    }

    /// Lends a connection for one read transaction.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let lent = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match lent {
            Some(connection) => connection,
            None => connection::open_reader(&self.path)?, // one was lost to a panic
        };
        // Dropped, and so ended, before the connection is given back.
        let result = match connection.unchecked_transaction() {
            Ok(moment) => read(&moment),
            Err(error) => Err(error.into()),
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        self.damage.note(result)
    }
}
