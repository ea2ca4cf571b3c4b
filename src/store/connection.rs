//! Connections to SQLite: the pragmas, each with its reason, in one place.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::error::StoreError;

use crate::mutants::mutant;

/// The first SQLite without the WAL-reset bug, which could corrupt a database that has a checkpointer
/// beside its writer.
const MIN_SQLITE: i32 = 3_051_003;

/// Pages the page cache of each connection may hold, in KiB (negative means KiB to SQLite).
const CACHE_KIB: i64 = -16 * 1024;

/// Refuses to run on an SQLite that can corrupt the log.
pub(super) fn check_version() -> Result<(), StoreError> {
    let version = rusqlite::version_number();
    if version >= MIN_SQLITE {
        return Ok(());
    }
    Err(StoreError::Failed(format!("SQLite {} is too old: 3.51.3 or newer is required", rusqlite::version())))
}

/// Opens the one connection that writes.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = open(path)?;
    // FULL: the answer leaves after the commit is on disk, not after it is in the page cache.
    connection.pragma_update(
        None,
        "synchronous",
        if mutant("synchronous_normal") { "NORMAL" } else { "FULL" },
    )?;
    // The checkpoint is the slowest thing a commit can do; a connection of its own does it instead.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens a connection that reads pages of events.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = open(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens the connection that moves the write-ahead log into the database file.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection, StoreError> {
    let connection = open(path)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// One thread at a time uses a connection, which Rust sees to: SQLite need not lock it at every call.
fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Another connection may hold a lock for the moment of a checkpoint.
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A database file is data: no function or view in it may run code of ours.
    connection.pragma_update(None, "trusted_schema", false)?;
    // Finds a damaged page when it is read, not when it has spread.
    connection.pragma_update(None, "cell_size_check", true)?;
    // After a burst the write-ahead log gives its disk space back.
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    Ok(connection)
}

/// Creates the file if there is none and brings the schema up to date, before anybody else works on it.
pub(super) async fn open_migrated(path: &Path) -> Result<SqlitePool, StoreError> {
    let options = options(path).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    let options = options.synchronous(SqliteSynchronous::Full);
    let alone = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    let migrated = sqlx::migrate!("./migrations").run(&alone).await;
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::Failed(format!(
            "a later version of causeway has written to it (step {version} of its schema); run that version"
        )),
        error => StoreError::Failed(format!("the schema cannot be brought up to date: {error}")),
    })?;
    Ok(alone)
}

/// Opens the pool for the lists. It reads: the writer is the only one that writes.
pub(super) async fn open_pool(path: &Path) -> Result<SqlitePool, StoreError> {
    let options = options(path).pragma("query_only", "ON");
    Ok(SqlitePoolOptions::new().max_connections(4).connect_with(options).await?)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(std::time::Duration::from_secs(5))
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
}

#[cfg(test)]
mod tests {
    use super::*;

    // L1: with less, a power cut takes back what was acknowledged.
    #[test]
    fn the_writer_syncs_every_commit_and_never_checkpoints_in_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.db");
        drop(Connection::open(&path).expect("a database"));
        let writer = open_writer(&path).expect("the writer's connection");
        let read = |pragma: &str| writer.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        assert_eq!(read("synchronous").expect("a pragma"), 2);
        assert_eq!(read("wal_autocheckpoint").expect("a pragma"), 0);
    }
    // F-25
    #[tokio::test]
    async fn only_the_writers_connection_writes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.db");
        let migrated = open_migrated(&path).await.expect("a database");
        let pool = open_pool(&path).await.expect("the pool");
        migrated.close().await;
        let write = "INSERT INTO meta (key, value) VALUES ('a', 'b')";
        for _ in 0..8 {
            let refused = sqlx::query(write).execute(&pool).await.expect_err("a pool that writes");
            assert!(refused.to_string().contains("readonly"), "{refused}");
        }
        let refused = open_reader(&path).expect("a reader").execute(write, []).expect_err("a reader writes");
        assert!(refused.to_string().contains("readonly"), "{refused}");
        let writer = open_writer(&path).expect("the writer's connection");
        assert_eq!(writer.execute(write, []), Ok(1));
    }
}
