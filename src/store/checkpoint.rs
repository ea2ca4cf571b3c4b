//! Moves the write-ahead log into the database file, off the commit path.
//!
//! A checkpoint inside COMMIT is the p99 of every write. This one runs on a connection and a thread of
//! its own: PASSIVE while there is traffic (it waits for nobody), TRUNCATE once the log has been idle.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::Connection;

use super::connection;
use super::error::StoreError;

/// Bytes of write-ahead log after which a checkpoint starts (about 4000 pages).
const START_AT_BYTES: u64 = 16 * 1024 * 1024;
/// Commits between two looks at the size of the write-ahead log.
const LOOK_EVERY: u32 = 64;
/// Without a commit for this long, the write-ahead log is emptied.
const IDLE: Duration = Duration::from_secs(5);

enum Nudge {
    Large,
    Written,
}

/// The writer's side: says that there is something to move.
pub(super) struct Checkpointer {
    wal: PathBuf,
    nudges: SyncSender<Nudge>,
    commits: u32,
}

impl Checkpointer {
    /// Starts the checkpointer's thread; it ends when this handle is dropped.
    pub(super) fn start(database: &Path) -> Result<Self, StoreError> {
        let connection = connection::open_checkpointer(database)?;
        let (nudges, received) = sync_channel(2);
        std::thread::Builder::new()
            .name("log-checkpoint".to_owned())
            .spawn(move || serve(&connection, &received))
            .map_err(|error| StoreError::Failed(format!("the checkpoint thread cannot start: {error}")))?;
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        Ok(Checkpointer { wal: wal.into(), nudges, commits: 0 })
    }

    /// Looks now and then at the size of the write-ahead log. Never waits.
    pub(super) fn after_commit(&mut self) {
        self.commits = self.commits.wrapping_add(1);
        if self.commits % LOOK_EVERY == 1 {
            let bytes = std::fs::metadata(&self.wal).map_or(0, |file| file.len());
            let nudge = if bytes >= START_AT_BYTES { Nudge::Large } else { Nudge::Written };
            // A full channel means that the thread knows already.
            let _ = self.nudges.try_send(nudge);
        }
    }
}

fn serve(connection: &Connection, nudges: &Receiver<Nudge>) {
    let mut pending = false;
    loop {
        match nudges.recv_timeout(IDLE) {
            Ok(Nudge::Large) => pending = !checkpoint(connection, "PASSIVE"),
            Ok(Nudge::Written) => pending = true,
            Err(RecvTimeoutError::Timeout) if pending => pending = !checkpoint(connection, "TRUNCATE"),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Answers true when everything was moved.
fn checkpoint(connection: &Connection, mode: &str) -> bool {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    match connection.query_row(&sql, [], |row| row.get::<_, i64>(0)) {
        Ok(busy) => busy == 0 && mode == "TRUNCATE",
        Err(error) => {
            tracing::warn!(error = %error, "the write-ahead log could not be checkpointed; it is tried again");
            false
        }
    }
}
