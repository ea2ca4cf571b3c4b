//! The audit: one row per mutation and security decision, in the transaction of its effect.

use rusqlite::params;

use super::error::StoreError;
use super::writer::Unit;

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
}

impl Unit<'_> {
    /// Adds a record; it is kept if and only if the unit is.
    pub(super) fn audit(&self, record: &AuditRecord<'_>) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO audit (time, correlation_id, tenant_id, subject, action, object, outcome, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.now_ms,
                record.correlation_id,
                record.tenant,
                record.subject,
                record.action,
                record.object,
                record.outcome,
                record.reason
            ])?;
        Ok(())
    }
}
