//! Moves the write-ahead log into the database file, off the commit path.
//!
//! A checkpoint inside COMMIT is the p99 of every write, so a connection and a thread of its own move the
//! bulk. It never catches up with a writer that goes on, and only a log that was moved whole is begun anew:
//! the writer itself moves the last few pages, between two groups.
//!
//! Invariant: under any load the write-ahead log stays within a few times [`START_AT_PAGES`], and is written
//! in place, which costs a commit half of what growing it does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::connection;
use super::error::StoreError;

/// Pages in the write-ahead log after which they are moved (16 MiB).
const START_AT_PAGES: i64 = 4096;
/// Pages left to move that the writer may be asked for; moving them takes it about a millisecond.
const LAST_PAGES: i64 = 512;
/// Rounds of moving until so few are left; a writer faster than that is asked for more.
const ROUNDS: usize = 4;
/// Commits between two looks at the length of the write-ahead log.
const LOOK_EVERY: u32 = 64;
/// Without a look for this long, everything is moved: a restart then has nothing to recover.
const IDLE: Duration = Duration::from_secs(5);

/// The writer's side: says that there is something to move, and moves the last of it.
pub(super) struct Checkpointer {
    nudges: SyncSender<()>,
    thread: JoinHandle<()>,
    nearly_done: Arc<AtomicBool>,
    commits: u32,
}

impl Checkpointer {
    /// Starts the checkpointer's thread; it ends some time after this handle is dropped.
    pub(super) fn start(database: &Path) -> Result<Self, StoreError> {
        let connection = connection::open_checkpointer(database)?;
        let (nudges, received) = sync_channel(1);
        let nearly_done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&nearly_done);
        let thread = std::thread::Builder::new()
            .name("log-checkpoint".to_owned())
            .spawn(move || serve(&connection, &received, &told))
            .map_err(|error| StoreError::Failed(format!("the checkpoint thread cannot start: {error}")))?;
        Ok(Checkpointer { nudges, thread, nearly_done, commits: 0 })
    }

    /// Ends the thread, after what it is moving: nobody works on the files any more.
    pub(super) fn end(self) {
        drop(self.nudges);
        // A panic of its own has been reported by now, and moved nothing that is not safe.
        let _ = self.thread.join();
    }

    /// After a commit was answered: moves the last pages if they are few, and has the log looked at now and
    /// then.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        if self.nearly_done.swap(false, Ordering::Relaxed) {
            checkpoint(writer, "PASSIVE");
        }
        self.commits = self.commits.wrapping_add(1);
        if self.commits % LOOK_EVERY == 1 {
            // A full channel means that the thread knows already.
            let _ = self.nudges.try_send(());
        }
    }
}

fn serve(connection: &Connection, nudges: &Receiver<()>, nearly_done: &AtomicBool) {
    let mut pending = false;
    loop {
        match nudges.recv_timeout(IDLE) {
            Ok(()) => {
                pending = true;
                // Without this look every commit in 64 would be followed by a checkpoint, however small.
                if checkpoint(connection, "NOOP").is_some_and(|log| log.pages >= START_AT_PAGES) {
                    move_bulk(connection);
                    nearly_done.store(true, Ordering::Relaxed);
                }
            }
            Err(RecvTimeoutError::Timeout) if pending => {
                pending = checkpoint(connection, "PASSIVE").is_none_or(|log| log.left() > 0);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Moves the whole write-ahead log, so that the database file holds everything by itself. What cannot be moved stays
/// in the log, where it is as safe.
pub(super) fn empty(writer: &Connection) {
    checkpoint(writer, "TRUNCATE");
}

/// Moves until little is left of what came in the meantime.
fn move_bulk(connection: &Connection) {
    for _ in 0..ROUNDS {
        let moved = checkpoint(connection, "PASSIVE");
        let now = moved.and_then(|_| checkpoint(connection, "NOOP"));
        if now.is_none_or(|log| log.left() <= LAST_PAGES) {
            return;
        }
    }
}

/// How long the write-ahead log is.
#[derive(Debug, Clone, Copy)]
struct Log {
    pages: i64,
    moved: i64,
}

impl Log {
    fn left(self) -> i64 {
        self.pages - self.moved
    }
}

/// Runs a checkpoint that waits for nobody, and answers how the log stands then.
fn checkpoint(connection: &Connection, mode: &str) -> Option<Log> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let log = |row: &rusqlite::Row<'_>| Ok(Log { pages: row.get(1)?, moved: row.get(2)? });
    match connection.query_row(&sql, [], log) {
        Ok(log) => Some(log),
        Err(error) => {
            tracing::warn!(error = %error, "the write-ahead log could not be checkpointed; it is tried again");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_written_without_a_pause_is_begun_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = directory.path().join("test.db");
        let made = Connection::open(&database).expect("a database");
        made.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x BLOB) STRICT").expect("a table");
        let writer = connection::open_writer(&database).expect("a writer");
        writer.pragma_update(None, "synchronous", "OFF").expect("a pragma");
        let mut checkpointer = Checkpointer::start(&database).expect("a checkpointer");
        let write = || {
            writer.execute("INSERT INTO t VALUES (zeroblob(1000000))", []).expect("a commit");
            checkpoint(&writer, "NOOP").expect("a look").pages
        };
        while write() < START_AT_PAGES {}
        // The thread may move what this reader sees, and not what comes now: as with a writer that goes on.
        let reader = connection::open_reader(&database).expect("a reader");
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").expect("a snapshot");
        write();
        checkpointer.after_commit(&writer);
        let moved = (0..60_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1)); // why: polling another thread
            checkpointer.nearly_done.load(Ordering::Relaxed)
        });
        assert!(moved, "the bulk was not moved");
        drop(reader);
        checkpointer.after_commit(&writer);
        assert!(write() < START_AT_PAGES, "the next commit begins the log anew");
    }
}
