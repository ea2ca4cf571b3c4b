//! Verifying the audit of a database: beside a running gateway, or where none runs.
//!
//! Invariant: it only reads, a page at a time, so that it never holds the write-ahead log back.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::audit::unchained;
use super::audit_log::{AuditRow, all_checkpoints, page_to};
use super::error::StoreError;
use crate::domain::audit::{AuditEntry, Checkpoint, Checkpoints, Finding, SignedCheckpoint, Verifier};

/// Records read at a time.
const PAGE: u32 = 1000;

/// What verifying came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// Records of the chain that were read.
    pub records: u64,
    /// Records from before the chain: nothing vouches for them.
    pub unchained: u64,
    /// Signed checkpoints there are.
    pub checkpoints: usize,
    /// The newest record that a checkpoint vouches for, when nothing is wrong.
    pub signed_through: Option<i64>,
    /// The first thing that is wrong.
    pub finding: Option<Finding>,
}

/// Reads the audit of `database` from its beginning. `verify` is asked about each checkpoint's key, text and
/// signature: whether the key is one of this gateway's and the signature is the key's.
pub fn verify_audit(
    database: &Path,
    verify: impl Fn(&str, &[u8], &[u8]) -> bool,
) -> Result<AuditReport, StoreError> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let origin = find_origin(&connection)?;
    let unchained = unchained(&origin)?;
    // Before the records: one that is signed for is there by then, whatever the gateway goes on writing.
    let signed = all_checkpoints(&connection)?;
    let last: i64 =
        connection.query_row("SELECT coalesce(max(audit_id), 0) FROM audit", [], |row| row.get(0))?;
    let mut report = AuditReport {
        records: 0,
        unchained: 0,
        checkpoints: signed.len(),
        signed_through: None,
        finding: None,
    };
    let first = signed.iter().find_map(|checkpoint| Checkpoint::parse(&checkpoint.text).ok());
    let mut checkpoints = Checkpoints::new(first.as_ref().map_or("", |first| &first.origin), &origin);
    for one in signed {
        let one = SignedCheckpoint { text: one.text, key_id: one.key_id, signature: one.signature };
        if let Err(finding) = checkpoints.add(&one, &verify) {
            report.finding = Some(finding);
            return Ok(report);
        }
    }
    let mut verifier = Verifier::after_unchained(checkpoints, unchained);
    let mut after = i64::MIN;
    loop {
        let page = page_to(&connection, after, last, PAGE)?;
        let Some(end) = page.last() else { break };
        after = end.audit_id;
        for row in &page {
            if row.audit_id <= unchained {
                report.unchained += 1;
                continue;
            }
            report.records += 1;
            verifier.push(row.audit_id, &entry(row), &row.hash.unwrap_or_default());
        }
    }
    match verifier.finish(None) {
        Ok(verified) => report.signed_through = verified.signed_through,
        Err(finding) => report.finding = Some(finding),
    }
    Ok(report)
}

/// Reads records of `database` after `after`, oldest first: beside a running gateway, or where none runs.
pub fn read_audit(database: &Path, after: i64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    page_to(&connection, after, i64::MAX, limit)
}

fn find_origin(connection: &Connection) -> Result<String, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = 'audit_origin'";
    let found: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    found.ok_or_else(|| StoreError::Inconsistent {
        table: "meta",
        column: "value",
        row: "audit_origin".to_owned(),
    })
}

fn entry(row: &AuditRow) -> AuditEntry<'_> {
    AuditEntry {
        time_ms: row.time_ms,
        correlation_id: &row.correlation_id,
        tenant: &row.tenant,
        subject: &row.subject,
        action: &row.action,
        object: &row.object,
        outcome: &row.outcome,
        reason: &row.reason,
        meta: &row.meta,
    }
}
