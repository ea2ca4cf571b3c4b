//! Backup and restore: a copy that is whole, checked and named last.
//!
//! A backup may be taken while a gateway runs. A restore gives the log a new incarnation, so that a cursor
//! of the lost log is refused instead of being answered with other events. The audit's chain goes on, bound
//! to where it began. Tokens and peers are as they were: what was revoked since the backup is to be revoked
//! again, and nonces taken since are not known.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::scan;
use super::{DATABASE_FILE, OpenError, lock_directory, private_file};
use crate::entropy::Entropy;
use crate::failpoint;

/// All pages in one step. The copy reads one snapshot, beside which writers go on writing; between two steps
/// a write of theirs would start it again from the first page, for ever under load.
const ALL_PAGES: i32 = i32::MAX;
/// Between two tries to get hold of a busy database.
const RETRY: Duration = Duration::from_millis(50);

/// Why no copy was made. Nothing half-made is left under the wanted name.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The source has no database.
    #[error("there is no database at {0}")]
    Missing(PathBuf),
    /// The target exists.
    #[error("{0} exists; choose another name, or move it away")]
    Exists(PathBuf),
    /// The copy, or the source, is damaged.
    #[error("{path} is damaged: {finding}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the check found.
        finding: String,
    },
    /// The data directory is in use, or cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The target's write-ahead log would be taken for the copy's own.
    #[error("{0} belongs to a database that is gone; move it away too")]
    LeftOver(PathBuf),
    /// Its events cannot be read.
    #[error("the copy failed: {0}")]
    Log(StoreError),
    /// SQLite failed.
    #[error("the copy failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file system failed.
    #[error("the copy failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Copies the database of `data_dir` to the file `target`.
pub fn backup(data_dir: &Path, target: &Path) -> Result<(), BackupError> {
    if target.exists() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    let source = data_dir.join(DATABASE_FILE);
    make(target, |part| {
        copy(&source, part)?;
        check(part)
    })
}

/// Makes `data_dir` hold what the backup holds, under a new incarnation. The directory must be free of a
/// database and of a running gateway.
pub fn restore(backup: &Path, data_dir: &Path, entropy: &Entropy) -> Result<(), BackupError> {
    let _lock = lock_directory(data_dir)?;
    let target = data_dir.join(DATABASE_FILE);
    if target.exists() {
        return Err(BackupError::Exists(target));
    }
    let write_ahead_log = beside(&target, "-wal");
    if write_ahead_log.exists() {
        return Err(BackupError::LeftOver(write_ahead_log));
    }
    make(&target, |part| {
        copy(backup, part)?;
        check(part)?;
        failpoint::reached("restore::before_incarnation");
        let incarnation = super::random_hex(entropy, 8);
        let copied = Connection::open(part)?;
        copied.execute("UPDATE meta SET value = ?1 WHERE key = 'incarnation'", [incarnation])?;
        copied.execute_batch(
            "CREATE TABLE IF NOT EXISTS restored_streams (stream_no INTEGER PRIMARY KEY) STRICT;
             INSERT OR IGNORE INTO restored_streams
                 SELECT stream_no FROM streams WHERE home = '' AND ended = 0",
        )?;
        copied.close().map_err(|(_, error)| error)?;
        Ok(())
    })
}

/// Makes a file under another name first; what failed half-way is removed.
fn make(target: &Path, fill: impl FnOnce(&Path) -> Result<(), BackupError>) -> Result<(), BackupError> {
    let part = beside(target, ".part");
    let made = fill(&part).and_then(|()| publish(&part, target));
    if made.is_err() && part.exists() {
        std::fs::remove_file(&part)?;
    }
    made
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn copy(source: &Path, part: &Path) -> Result<(), BackupError> {
    if !source.is_file() {
        return Err(BackupError::Missing(source.to_owned()));
    }
    if part.exists() {
        std::fs::remove_file(part)?;
    }
    let from = Connection::open_with_flags(source, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    from.busy_timeout(Duration::from_secs(5))?;
    private_file().open(part)?;
    let mut to = Connection::open(part)?;
    Backup::new(&from, &mut to)?.run_to_completion(ALL_PAGES, RETRY, None)?;
    // The copy is one file: no write-ahead log beside it.
    to.pragma_update(None, "journal_mode", "DELETE")?;
    to.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn check(part: &Path) -> Result<(), BackupError> {
    let copied = Connection::open(part)?;
    let finding: String = copied.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if finding != "ok" {
        return Err(BackupError::Damaged { path: part.to_owned(), finding });
    }
    // SQLite's pages have no checksums of their own; each event has one.
    scan::check_all(&copied).map_err(|error| match error {
        StoreError::Inconsistent { row, .. } => BackupError::Damaged {
            path: part.to_owned(),
            finding: format!("the bytes of the event at {row} have changed"),
        },
        error => BackupError::Log(error),
    })
}

/// Makes the copy durable, then gives it its name.
fn publish(part: &Path, target: &Path) -> Result<(), BackupError> {
    File::open(part)?.sync_all()?;
    failpoint::reached("restore::before_name");
    std::fs::rename(part, target)?;
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}
