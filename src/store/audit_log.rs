//! The audit as it is read, recorded from outside the store, and signed for now and then.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use sqlx::sqlite::SqlitePool;
use tokio::sync::Notify;

use super::audit::{NewAudit, name_origin};
use super::error::StoreError;
use super::{Store, remember};
use crate::domain::audit::ChainHash;

/// A record as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number: from 1, without holes.
    pub audit_id: i64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Of the request.
    pub correlation_id: String,
    /// Whose things were touched.
    pub tenant: String,
    /// Who acted.
    pub subject: String,
    /// What was asked for.
    pub action: String,
    /// What it was asked of.
    pub object: String,
    /// How it ended.
    pub outcome: String,
    /// Why it ended so.
    pub reason: String,
    /// JSON, or nothing.
    pub meta: String,
    /// Stands for it and all before it; `None` for records from before the chain.
    pub hash: Option<ChainHash>,
}

/// Which records are wanted: those that equal everything given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Who acted.
    pub subject: Option<String>,
    /// What was asked for.
    pub action: Option<String>,
    /// What it was asked of.
    pub object: Option<String>,
    /// Whose things were touched.
    pub tenant: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Not before, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Before, in milliseconds since the Unix epoch.
    pub until_ms: Option<i64>,
}

/// A signed statement of where the chain stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCheckpoint {
    /// The newest record then.
    pub audit_id: i64,
    /// Its hash.
    pub hash: ChainHash,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Whose signature it is.
    pub key_id: String,
    /// What was signed. Only this is believed when the audit is verified.
    pub text: String,
    /// The signature of the text.
    pub signature: Vec<u8>,
}

/// What the chain is bound to, decided once: the first time that a gateway with a chain opens the log. A
/// restore gives the log a new incarnation and leaves this as it is, so that the chain goes on.
pub(super) async fn origin(pool: &SqlitePool, incarnation: &str) -> Result<String, StoreError> {
    let unchained: i64 =
        sqlx::query_scalar("SELECT coalesce(max(audit_id), 0) FROM audit WHERE hash IS NULL")
            .fetch_one(pool)
            .await?;
    remember(pool, "audit_origin", &name_origin(incarnation, unchained)).await
}

/// Selects the columns of an [`AuditRow`] by number and filter, for `concat!` with the order.
macro_rules! select_rows {
    ($numbers:literal) => {
        concat!(
            "SELECT audit_id, time, correlation_id, tenant_id, subject, action, object, outcome, reason, meta, \
                    hash
             FROM audit
             WHERE ",
            $numbers,
            " AND (?3 IS NULL OR subject = ?3) AND (?4 IS NULL OR action = ?4)
               AND (?5 IS NULL OR object = ?5) AND (?6 IS NULL OR tenant_id = ?6)
               AND (?7 IS NULL OR outcome = ?7) AND (?8 IS NULL OR time >= ?8) AND (?9 IS NULL OR time < ?9)"
        )
    };
}

impl Store {
    /// Records decisions that have no other effect, in one unit.
    pub async fn audit(&self, records: Vec<NewAudit>) -> Result<(), StoreError> {
        self.writer
            .run(0, move |unit| records.iter().try_for_each(|record| unit.audit(&record.record())))
            .await
    }

    /// Records after `after`, oldest first.
    pub async fn audit_rows(
        &self,
        after: i64,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.readers
            .with(move |connection| {
                let sql = concat!(select_rows!("audit_id > ?1"), " ORDER BY audit_id LIMIT ?2");
                select(connection, sql, after, &filter, limit)
            })
            .await
    }

    /// Records before `before`, newest first. `i64::MAX` begins at the end.
    pub async fn audit_rows_before(
        &self,
        before: i64,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.readers
            .with(move |connection| {
                let sql = concat!(select_rows!("audit_id < ?1"), " ORDER BY audit_id DESC LIMIT ?2");
                select(connection, sql, before, &filter, limit)
            })
            .await
    }

    /// Rung after commits that have records. It wakes those who wait already: ask for `notified()` first,
    /// then read, then wait.
    pub fn audit_moved(&self) -> Arc<Notify> {
        Arc::clone(&self.audit_moved)
    }

    /// What the chain is bound to: goes into checkpoints as the incarnation.
    pub fn audit_origin(&self) -> &str {
        &self.audit_origin
    }

    /// The newest record of the chain and its hash.
    pub async fn audit_head(&self) -> Result<Option<(i64, ChainHash)>, StoreError> {
        self.readers
            .with(|connection| {
                let sql = "SELECT audit_id, hash FROM audit ORDER BY audit_id DESC LIMIT 1";
                let head: Option<(i64, Option<ChainHash>)> = connection
                    .prepare_cached(sql)?
                    .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                Ok(head.and_then(|(audit_id, hash)| Some((audit_id, hash?))))
            })
            .await
    }

    /// Keeps a checkpoint. One for each record is kept, the first.
    pub async fn save_audit_checkpoint(&self, checkpoint: AuditCheckpoint) -> Result<(), StoreError> {
        self.writer
            .run(checkpoint.text.len(), move |unit| {
                unit.connection
                    .prepare_cached(
                        "INSERT INTO audit_checkpoints (audit_id, hash, time, key_id, text, signature)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                         ON CONFLICT (audit_id) DO NOTHING",
                    )?
                    .execute(params![
                        checkpoint.audit_id,
                        checkpoint.hash,
                        checkpoint.time_ms,
                        checkpoint.key_id,
                        checkpoint.text,
                        checkpoint.signature
                    ])?;
                Ok(())
            })
            .await
    }

    /// Every checkpoint, oldest first.
    pub async fn audit_checkpoints(&self) -> Result<Vec<AuditCheckpoint>, StoreError> {
        self.readers.with(all_checkpoints).await
    }

    /// The newest checkpoint.
    pub async fn last_audit_checkpoint(&self) -> Result<Option<AuditCheckpoint>, StoreError> {
        self.readers
            .with(|connection| {
                let sql = "SELECT audit_id, hash, time, key_id, text, signature FROM audit_checkpoints
                           ORDER BY audit_id DESC LIMIT 1";
                Ok(connection.prepare_cached(sql)?.query_row([], decode_checkpoint).optional()?)
            })
            .await
    }
}

/// Every checkpoint, oldest first.
pub(super) fn all_checkpoints(connection: &Connection) -> Result<Vec<AuditCheckpoint>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT audit_id, hash, time, key_id, text, signature FROM audit_checkpoints ORDER BY audit_id",
    )?;
    let rows = statement.query_map([], decode_checkpoint)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn select(
    connection: &Connection,
    sql: &str,
    from: i64,
    filter: &AuditFilter,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let values = params![
        from,
        limit,
        filter.subject,
        filter.action,
        filter.object,
        filter.tenant,
        filter.outcome,
        filter.since_ms,
        filter.until_ms
    ];
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, decode)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A hash of the wrong length is no hash.
fn decode(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        audit_id: row.get(0)?,
        time_ms: row.get(1)?,
        correlation_id: row.get(2)?,
        tenant: row.get(3)?,
        subject: row.get(4)?,
        action: row.get(5)?,
        object: row.get(6)?,
        outcome: row.get(7)?,
        reason: row.get(8)?,
        meta: row.get(9)?,
        hash: row.get::<_, Option<Vec<u8>>>(10)?.and_then(|hash| hash.try_into().ok()),
    })
}

fn decode_checkpoint(row: &Row<'_>) -> rusqlite::Result<AuditCheckpoint> {
    Ok(AuditCheckpoint {
        audit_id: row.get(0)?,
        hash: row.get(1)?,
        time_ms: row.get(2)?,
        key_id: row.get(3)?,
        text: row.get(4)?,
        signature: row.get(5)?,
    })
}

/// A page of the audit for whoever verifies it: records after `after`, up to `to`.
pub(super) fn page_to(
    connection: &Connection,
    after: i64,
    to: i64,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT audit_id, time, correlation_id, tenant_id, subject, action, object, outcome, reason, meta, hash
         FROM audit WHERE audit_id > ?1 AND audit_id <= ?2 ORDER BY audit_id LIMIT ?3",
    )?;
    let rows = statement.query_map(params![after, to, limit], decode)?;
    Ok(rows.collect::<Result<_, _>>()?)
}
