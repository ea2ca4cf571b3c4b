//! Which forward a caller's idempotency key leads to, in three levels.
//!
//! Callers' keys are random. In one large table each would be written with a page of its own, so they come in at a
//! small first level, all of which goes on to the second with every 256th forward, and from there to the last with
//! every 4096th: each page that is written then holds many of them.
//!
//! A key is known by the key that is sent downstream, a keyed hash of tenant, principal, operation and key: no two
//! tenants, nor two principals, ever meet in one.
//!
//! Invariant: what was written of a key last lies in an earlier level than what was written before, and the levels are
//! asked in their order. The view `idempotency` is all of them, for people.

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use super::error::StoreError;
use super::forwards::{ForwardRecord, SELECT, decode};
use super::writer::Unit;
use crate::mutants::mutant;

/// Characters that a key is known by: 132 bits of it.
const KEY_CHARS: usize = 22;
/// Forwards after which the first level is emptied, and the second.
const FORWARDS_PER_LEVEL: [i64; 2] = [256, 4096];
/// Each goes on to the next.
const LEVELS: [&str; 3] = ["idempotency_first", "idempotency_second", "idempotency_last"];

impl Store {
    /// The forward a caller's key leads to, while the key is remembered.
    pub async fn find_by_key(&self, downstream_key: &str) -> Result<Option<ForwardRecord>, StoreError> {
        let (key, now_ms) = (downstream_key.to_owned(), self.clock.now_ms());
        self.readers.with(move |connection| find_by_key(connection, &key, now_ms)).await
    }
}

/// The forward a caller's key leads to, while the key is remembered.
pub(super) fn find_by_key(
    connection: &Connection,
    downstream_key: &str,
    now_ms: i64,
) -> Result<Option<ForwardRecord>, StoreError> {
    let sql = if mutant("older_keys_unread") {
        "SELECT (SELECT forward_no FROM idempotency_first WHERE key = ?1 AND expires_at > ?2)"
    } else {
        "SELECT coalesce((SELECT forward_no FROM idempotency_first WHERE key = ?1 AND expires_at > ?2),
                         (SELECT forward_no FROM idempotency_second WHERE key = ?1 AND expires_at > ?2),
                         (SELECT forward_no FROM idempotency_last WHERE key = ?1 AND expires_at > ?2))"
    };
    let mut statement = connection.prepare_cached(sql)?;
    let number: Option<i64> =
        statement.query_row(params![short(downstream_key), now_ms], |row| row.get(0))?;
    let Some(number) = number else { return Ok(None) };
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE forward_no = ?1"))?;
    let forward = statement.query_row([number], decode).optional()?.transpose()?;
    // A forward that was swept before its key leaves its number to another.
    Ok(forward.filter(|forward| forward.downstream_key == downstream_key))
}

impl Unit<'_> {
    /// Remembers the key of the forward with this number, if its caller gave one.
    pub(super) fn keep_key(
        &self,
        downstream_key: &str,
        forward_no: i64,
        expires_at_ms: Option<i64>,
    ) -> Result<(), StoreError> {
        for (level, every) in FORWARDS_PER_LEVEL.iter().enumerate() {
            if forward_no % every == 0 {
                self.empty_level(level)?;
            }
        }
        let Some(expires_at_ms) = expires_at_ms else { return Ok(()) };
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO idempotency_first (key, forward_no, expires_at) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![short(downstream_key), forward_no, expires_at_ms])?;
        Ok(())
    }

    /// Moves all of a level to the next, in its order, and over what was written there of the same keys before.
    fn empty_level(&self, level: usize) -> Result<(), StoreError> {
        let (from, to) = (LEVELS[level], LEVELS[level + 1]);
        let sql = format!(
            "INSERT OR REPLACE INTO {to} (key, forward_no, expires_at)
             SELECT key, forward_no, expires_at FROM {from} ORDER BY key"
        );
        self.connection.prepare_cached(&sql)?.execute([])?;
        self.connection.prepare_cached(&format!("DELETE FROM {from}"))?.execute([])?;
        Ok(())
    }

    /// Forgets at most so many keys that have run out, and answers how many. Those that have not come to the last
    /// level are few, and wait.
    pub(super) fn sweep_keys(&self, most: u32) -> Result<usize, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM idempotency_last
             WHERE key IN (SELECT key FROM idempotency_last WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )?;
        Ok(statement.execute(params![self.now_ms, most])?)
    }
}

fn short(downstream_key: &str) -> &str {
    downstream_key.get(..KEY_CHARS).unwrap_or(downstream_key)
}
