//! Backup and restore: a copy that is whole, checked and named last.
//!
//! A backup may be taken while a gateway runs. A restore gives the log a new incarnation, so that a cursor
//! of the lost log is refused instead of being answered with other events.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::{DATABASE_FILE, OpenError, lock_directory};
use crate::entropy::Entropy;

/// Pages copied in one step, between which writers may write.
const PAGES_PER_STEP: i32 = 1024;

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
    let part = part_of(target);
    copy(&data_dir.join(DATABASE_FILE), &part)?;
    check(&part)?;
    publish(&part, target)
}

/// Makes `data_dir` hold what the backup holds, under a new incarnation. The directory must be free of a
/// database and of a running gateway.
pub fn restore(backup: &Path, data_dir: &Path, entropy: &Entropy) -> Result<(), BackupError> {
    let _lock = lock_directory(data_dir)?;
    let target = data_dir.join(DATABASE_FILE);
    if target.exists() {
        return Err(BackupError::Exists(target));
    }
    let part = part_of(&target);
    copy(backup, &part)?;
    check(&part)?;
    let copied = Connection::open(&part)?;
    copied
        .execute("UPDATE meta SET value = ?1 WHERE key = 'incarnation'", [super::random_hex(entropy, 8)])?;
    copied.close().map_err(|(_, error)| error)?;
    publish(&part, &target)
}

fn part_of(target: &Path) -> PathBuf {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    part.into()
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
    let mut to = Connection::open(part)?;
    Backup::new(&from, &mut to)?.run_to_completion(PAGES_PER_STEP, Duration::from_millis(1), None)?;
    // The copy is one file: no write-ahead log beside it.
    to.pragma_update(None, "journal_mode", "DELETE")?;
    to.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn check(part: &Path) -> Result<(), BackupError> {
    let copied = Connection::open(part)?;
    let finding: String = copied.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if finding == "ok" {
        return Ok(());
    }
    drop(copied);
    std::fs::remove_file(part)?;
    Err(BackupError::Damaged { path: part.to_owned(), finding })
}

/// Makes the copy durable, then gives it its name.
fn publish(part: &Path, target: &Path) -> Result<(), BackupError> {
    File::open(part)?.sync_all()?;
    std::fs::rename(part, target)?;
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}
