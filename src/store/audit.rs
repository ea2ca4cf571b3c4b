//! The audit: one row per mutation and security decision, in the transaction of its effect, each chained to
//! the one before.
//!
//! Invariant: records are numbered without holes, and the end of the chain in memory is what the open
//! transaction would read. A unit that fails gives its records back, a group that fails forgets the end.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::Notify;

use super::error::StoreError;
use super::writer::Unit;
use crate::domain::audit::{AuditEntry, ChainHash, chain_start, link};

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Whose things they act on; empty for operators.
    pub tenant: String,
    /// A principal, a peer or an operator.
    pub subject: String,
    /// Of the request.
    pub correlation_id: String,
}

impl Actor {
    /// The record of what they did.
    pub(super) fn record<'a>(
        &'a self,
        action: &'a str,
        object: &'a str,
        outcome: &'a str,
        reason: &'a str,
    ) -> AuditRecord<'a> {
        AuditRecord {
            correlation_id: &self.correlation_id,
            tenant: &self.tenant,
            subject: &self.subject,
            action,
            object,
            outcome,
            reason,
            meta: "",
        }
    }
}

/// A decision without another effect, to be recorded. Never bodies, tokens or keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewAudit {
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
}

impl NewAudit {
    pub(super) fn record(&self) -> AuditRecord<'_> {
        AuditRecord {
            correlation_id: &self.correlation_id,
            tenant: &self.tenant,
            subject: &self.subject,
            action: &self.action,
            object: &self.object,
            outcome: &self.outcome,
            reason: &self.reason,
            meta: &self.meta,
        }
    }
}

/// Who did what to which thing, and what came of it. Never bodies, tokens or keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct AuditRecord<'a> {
    pub(super) correlation_id: &'a str,
    pub(super) tenant: &'a str,
    pub(super) subject: &'a str,
    pub(super) action: &'a str,
    pub(super) object: &'a str,
    pub(super) outcome: &'a str,
    pub(super) reason: &'a str,
    pub(super) meta: &'a str,
}

/// What the chain is bound to: the log's incarnation at the chain's beginning, and the last record before it.
pub(super) fn name_origin(incarnation: &str, unchained: i64) -> String {
    format!("{incarnation}/{unchained}")
}

/// The last record before the chain, as its origin names it.
pub(super) fn unchained(origin: &str) -> Result<i64, StoreError> {
    let number = origin.rsplit_once('/').and_then(|(_, number)| number.parse().ok());
    number.ok_or_else(|| StoreError::Inconsistent {
        table: "meta",
        column: "value",
        row: "audit_origin".to_owned(),
    })
}

/// The end of the chain, owned by the writer.
#[derive(Debug)]
pub(super) struct AuditChain {
    /// Stands before the first record of the chain.
    start: (i64, ChainHash),
    /// Read from the table when it is not known.
    last: Option<(i64, ChainHash)>,
    /// As it was before the unit at work.
    before: Option<(i64, ChainHash)>,
    /// The group has records.
    grew: bool,
    moved: Arc<Notify>,
}

impl AuditChain {
    /// The chain of this origin. `moved` is rung after every commit that has records.
    pub(super) fn new(origin: &str, moved: Arc<Notify>) -> Result<Self, StoreError> {
        let start = (unchained(origin)?, chain_start(origin));
        Ok(AuditChain { start, last: None, before: None, grew: false, moved })
    }

    /// A unit of work begins.
    pub(super) fn begin_unit(&mut self) {
        self.before = self.last;
    }

    /// The unit failed.
    pub(super) fn undo_unit(&mut self) {
        self.last = self.before;
    }

    /// The group failed.
    pub(super) fn clear(&mut self) {
        self.last = None;
        self.grew = false;
    }

    /// The group is on disk.
    pub(super) fn committed(&mut self) {
        if std::mem::take(&mut self.grew) {
            self.moved.notify_waiters();
        }
    }

    fn end(&self, connection: &Connection) -> Result<(i64, ChainHash), StoreError> {
        if let Some(last) = self.last {
            return Ok(last);
        }
        let last: Option<(i64, Option<Vec<u8>>)> = connection
            .prepare_cached("SELECT audit_id, hash FROM audit ORDER BY audit_id DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match last.filter(|(audit_id, _)| *audit_id > self.start.0) {
            None => Ok(self.start),
            Some((audit_id, hash)) => {
                let hash = hash.and_then(|hash| ChainHash::try_from(hash).ok());
                // Nothing is written after a record that was tampered with: it would seem to vouch for it.
                hash.map(|hash| (audit_id, hash)).ok_or_else(|| StoreError::Inconsistent {
                    table: "audit",
                    column: "hash",
                    row: audit_id.to_string(),
                })
            }
        }
    }
}

impl Unit<'_> {
    /// Adds a record at the end of the chain; it is kept if and only if the unit is.
    pub(super) fn audit(&mut self, record: &AuditRecord<'_>) -> Result<(), StoreError> {
        let (last_id, previous) = self.chain.end(self.connection)?;
        let audit_id = last_id + 1;
        let entry = AuditEntry {
            time_ms: self.now_ms,
            correlation_id: record.correlation_id,
            tenant: record.tenant,
            subject: record.subject,
            action: record.action,
            object: record.object,
            outcome: record.outcome,
            reason: record.reason,
            meta: record.meta,
        };
        let hash = link(&previous, audit_id, &entry);
        self.connection
            .prepare_cached(
                "INSERT INTO audit (audit_id, time, correlation_id, tenant_id, subject, action, object, outcome,
                                    reason, meta, hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                audit_id,
                entry.time_ms,
                entry.correlation_id,
                entry.tenant,
                entry.subject,
                entry.action,
                entry.object,
                entry.outcome,
                entry.reason,
                entry.meta,
                hash
            ])?;
        self.chain.last = Some((audit_id, hash));
        self.chain.grew = true;
        Ok(())
    }
}
