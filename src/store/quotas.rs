//! What a tenant may use, counted in the transaction of the work itself.
//!
//! Invariant: a check and the work it permits are one unit, and units run one after another, so any number
//! of requests at once is given exactly what is left. What is refused leaves nothing.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::append::BatchEntry;
use super::error::StoreError;
use super::forwards::ForwardRecord;
use super::writer::Unit;
use crate::domain::id::TenantId;
use crate::mutants::mutant;

/// A quota's day begins and ends at midnight UTC.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Days of use that are remembered.
const DAYS_KEPT: i64 = 35;

/// A tenant's limits; 0 means none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Runs asked for on one day, UTC. One that was never started is given back.
    pub runs_per_day: u64,
    /// Runs whose end is not here yet, and forwards that may become one.
    pub concurrent_runs: u64,
    /// Bytes of events kept.
    pub stored_bytes: u64,
}

/// A quota that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaExceeded {
    /// Its name, as in [`Quotas`].
    pub quota: &'static str,
    /// What is allowed.
    pub limit: u64,
    /// What is used; for bytes refused in a push, what would have been.
    pub used: u64,
    /// When it starts anew, in milliseconds since the Unix epoch, if time alone frees it.
    pub resets_at_ms: Option<i64>,
}

impl QuotaExceeded {
    fn until_freed(quota: &'static str, limit: u64, used: u64) -> Self {
        QuotaExceeded { quota, limit, used, resets_at_ms: None }
    }
}

impl Unit<'_> {
    /// Counts a new forward against its tenant's quotas, or answers which one is used up.
    pub(super) fn take_quotas(
        &self,
        tenant: &str,
        quotas: Quotas,
    ) -> Result<Option<QuotaExceeded>, StoreError> {
        if quotas.stored_bytes > 0 {
            let used = self.heads.stored_bytes(self.connection, tenant)?;
            if used >= quotas.stored_bytes {
                let limit = quotas.stored_bytes;
                return Ok(Some(QuotaExceeded::until_freed("stored_bytes", limit, used)));
            }
        }
        if quotas.concurrent_runs > 0 {
            let limit = quotas.concurrent_runs;
            let used = self.count_running(tenant, limit)?;
            if used >= limit {
                return Ok(Some(QuotaExceeded::until_freed("concurrent_runs", limit, used)));
            }
        }
        // Last, because it writes.
        self.take_run_of_day(tenant, quotas.runs_per_day)
    }

    /// Runs of the tenant under way, counted no further than `limit`. Each index is named because it holds
    /// these rows and no others: the planner would walk every run the tenant ever had.
    fn count_running(&self, tenant: &str, limit: u64) -> Result<u64, StoreError> {
        let count = |sql: &str, limit: u64| -> Result<u64, StoreError> {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let counted: i64 =
                self.connection.prepare_cached(sql)?.query_row(params![tenant, limit], |row| row.get(0))?;
            Ok(counted as u64)
        };
        let followed = count(
            "SELECT count(*) FROM
                 (SELECT 1 FROM runs INDEXED BY runs_followed
                  WHERE tenant_id = ?1 AND follow = 'following' LIMIT ?2)",
            limit,
        )?;
        // A forward that has its run is counted as the run.
        let forwards = count(
            "SELECT count(*) FROM
                 (SELECT 1 FROM forwards INDEXED BY forwards_of_tenant_not_at_rest
                  WHERE tenant_id = ?1 AND next_attempt_at IS NOT NULL LIMIT ?2)",
            limit - followed,
        )?;
        Ok(followed + forwards)
    }

    /// Counts one run of today. Without a limit too: it costs one row that is in the cache, and a limit
    /// set at noon then knows of the morning.
    fn take_run_of_day(&self, tenant: &str, limit: u64) -> Result<Option<QuotaExceeded>, StoreError> {
        let day = self.now_ms.div_euclid(DAY_MS);
        let most = if limit == 0 || mutant("quota_not_held") {
            i64::MAX
        } else {
            i64::try_from(limit).unwrap_or(i64::MAX)
        };
        let taken = self
            .connection
            .prepare_cached(
                "INSERT INTO usage_daily (tenant_id, day, runs) VALUES (?1, ?2, 1)
                 ON CONFLICT (tenant_id, day) DO UPDATE SET runs = runs + 1 WHERE runs < ?3",
            )?
            .execute(params![tenant, day, most])?;
        if taken > 0 {
            return Ok(None);
        }
        let used: i64 = self
            .connection
            .prepare_cached("SELECT runs FROM usage_daily WHERE tenant_id = ?1 AND day = ?2")?
            .query_row(params![tenant, day], |row| row.get(0))?;
        Ok(Some(QuotaExceeded {
            quota: "runs_per_day",
            limit,
            used: used as u64,
            resets_at_ms: Some((day + 1) * DAY_MS),
        }))
    }

    /// Gives a run back to the day it was counted on: it was never started.
    pub(super) fn give_run_back(&self, forward: &ForwardRecord) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE usage_daily SET runs = runs - 1 WHERE tenant_id = ?1 AND day = ?2 AND runs > 0",
            )?
            .execute(params![forward.tenant.as_str(), forward.created_at_ms.div_euclid(DAY_MS)])?;
        Ok(())
    }

    /// What the tenants of a batch hold before it, if there is a limit to hold it against.
    pub(super) fn bytes_before(
        &self,
        entries: &[BatchEntry],
        quotas: Quotas,
    ) -> Result<BTreeMap<TenantId, u64>, StoreError> {
        let mut held = BTreeMap::new();
        for entry in entries.iter().filter(|_| quotas.stored_bytes > 0) {
            let tenant = &entry.key.tenant;
            if !held.contains_key(tenant) {
                held.insert(tenant.clone(), self.heads.stored_bytes(self.connection, tenant.as_str())?);
            }
        }
        Ok(held)
    }

    /// Refuses the unit when it made its tenant's bytes grow beyond the limit.
    pub(super) fn check_growth(&self, tenant: &TenantId, before: u64, limit: u64) -> Result<(), StoreError> {
        let used = self.heads.stored_bytes(self.connection, tenant.as_str())?;
        if used > before && used > limit {
            let exceeded = QuotaExceeded::until_freed("stored_bytes", limit, used);
            return Err(StoreError::QuotaExceeded(exceeded));
        }
        Ok(())
    }

    /// Forgets the use of days long past.
    pub(super) fn sweep_usage(&self) -> Result<(), StoreError> {
        let oldest = self.now_ms.div_euclid(DAY_MS) - DAYS_KEPT;
        self.connection.prepare_cached("DELETE FROM usage_daily WHERE day < ?1")?.execute([oldest])?;
        Ok(())
    }
}

/// The bytes of a tenant's events as of the last group.
pub(super) fn committed_bytes(connection: &Connection, tenant: &str) -> Result<i64, StoreError> {
    let bytes = connection
        .prepare_cached("SELECT bytes FROM usage WHERE tenant_id = ?1")?
        .query_row([tenant], |row| row.get(0))
        .optional()?;
    Ok(bytes.unwrap_or(0))
}

/// Moves the bytes of a tenant's events.
pub(super) fn move_bytes(connection: &Connection, tenant: &str, by: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO usage (tenant_id, bytes) VALUES (?1, ?2)
             ON CONFLICT (tenant_id) DO UPDATE SET bytes = bytes + excluded.bytes",
        )?
        .execute(params![tenant, by])?;
    Ok(())
}
