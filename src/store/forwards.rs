//! Forwards: the intent before the first byte, what each attempt proved, and the settlement.
//!
//! Invariant: the intent and its idempotency key are one transaction, and so are the answer, the run and
//! its place in the forward index. There is no moment at which one exists without the other.

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::StoreError;
use super::quotas::{QuotaExceeded, Quotas};
use super::settle::FreshRun;
use crate::domain::forward::{AttemptOutcome, ForwardState};
use crate::domain::id::{AgentId, ForwardId, PeerId, PrincipalId, RunId, TenantId};
use crate::domain::json_equal;
use crate::domain::limits;
use crate::domain::run::RunStatus;
use crate::mutants::mutant;

/// Between an attempt and the next that a repeated key asks for; what a caller is told to wait as well.
const WAKE_PAUSE_MS: i64 = 1000;

/// One attempt, as kept with its forward.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Counted from 1 over the whole life of the forward.
    pub attempt: u64,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub finished_at_ms: i64,
    /// What it proved.
    pub outcome: AttemptOutcome,
    /// A sentence.
    pub reason: String,
    /// The peer's HTTP status, when it answered.
    pub upstream_status: Option<u16>,
}

/// A forward as stored.
#[derive(Debug, Clone)]
pub struct ForwardRecord {
    /// Its id.
    pub forward_id: ForwardId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Who asked.
    pub principal: PrincipalId,
    /// Where it goes.
    pub peer: PeerId,
    /// The agent that is to run.
    pub agent: AgentId,
    /// The request without its idempotency key, normalised.
    pub request: Vec<u8>,
    /// The key sent with every attempt.
    pub downstream_key: String,
    /// Where it stands.
    pub state: ForwardState,
    /// `not_started` or `unknown`, when that is what is known.
    pub outcome: Option<String>,
    /// Nobody waits for it.
    pub background: bool,
    /// Of the request that made it.
    pub correlation_id: String,
    /// Sent with every attempt.
    pub traceparent: String,
    /// The gateways the request came through, comma-separated; sent on with this one added.
    pub via: String,
    /// The newest attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// How many there were.
    pub attempts_total: u64,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    /// When bytes may first have left.
    pub first_sent_at_ms: Option<i64>,
    /// Until when it is tried.
    pub deadline_at_ms: i64,
    /// When the reconciler looks at it next: always known, unless it is at rest.
    pub next_attempt_at_ms: Option<i64>,
    /// The run's name here.
    pub run_id: Option<RunId>,
    /// The run's name at its home.
    pub remote_run_id: Option<String>,
    /// As the home gave it.
    pub remote_events_url: Option<String>,
    /// As the home answered it.
    pub run_status: Option<RunStatus>,
    /// The run object of the home's answer.
    pub answer: Option<Vec<u8>>,
    /// What the caller heard, as JSON, when it was an error.
    pub error: Option<String>,
}

impl ForwardRecord {
    /// True when a request with this meaning is the one that made the forward.
    pub fn means(&self, meaning: &[u8]) -> bool {
        mutant("fingerprint_ignored") || json_equal::equal(&self.request, meaning)
    }

    /// Adds an attempt to those kept.
    pub(super) fn add_attempt(&mut self, mut attempt: AttemptRecord) {
        self.attempts_total += 1;
        attempt.attempt = self.attempts_total;
        self.attempts.push(attempt);
        let surplus = self.attempts.len().saturating_sub(limits::ATTEMPTS_KEPT);
        self.attempts.drain(..surplus);
    }

    /// Nothing was started under its key: the same request may be tried again.
    pub fn may_be_tried_again(&self) -> bool {
        self.state.is_at_rest() && self.outcome.as_deref() == Some("not_started")
    }
}

/// What reserving a forward came to.
#[derive(Debug)]
pub enum Reserved {
    /// The intent is on disk.
    New(Box<ForwardRecord>),
    /// The caller's key led to this forward, with the same request.
    Known(Box<ForwardRecord>),
    /// The caller's key was used for another request.
    KeyReused,
    /// The tenant may not have another. Nothing was kept.
    QuotaExceeded(QuotaExceeded),
}

/// How a forward comes to rest, or is handed to the reconciler.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The state it enters.
    pub state: ForwardState,
    /// `not_started` or `unknown`.
    pub outcome: Option<&'static str>,
    /// The attempt that led here.
    pub attempt: Option<AttemptRecord>,
    /// What the caller hears, as JSON.
    pub error: Option<String>,
    /// When the reconciler is to look at it, unless it is at rest; left out: now.
    pub next_attempt_at_ms: Option<i64>,
    /// Before when the peer asked not to be asked again.
    pub not_before_ms: Option<i64>,
    /// Until when it is tried from now on.
    pub deadline_at_ms: i64,
}

/// The run a peer answered.
#[derive(Debug, Clone)]
pub struct ForwardedRun {
    /// The id the peer gave.
    pub remote_run_id: RunId,
    /// Where its events are, below the peer's base.
    pub events_path: String,
    /// As the peer gave it.
    pub remote_events_url: String,
    /// Why the URL the peer gave is not used, if it is not.
    pub events_url_refused: Option<String>,
    /// As the peer answered it.
    pub status: RunStatus,
    /// The run object, normalised.
    pub answer: Vec<u8>,
}

impl Store {
    /// Writes the intent, unless the caller's key is known or a quota is used up. Nothing may leave before
    /// this has answered. A caller that gave a key has it remembered until `key_expires_at_ms`.
    pub async fn reserve_forward(
        &self,
        forward: ForwardRecord,
        key_expires_at_ms: Option<i64>,
        quotas: Quotas,
    ) -> Result<Reserved, StoreError> {
        let bytes = forward.request.len();
        self.writer.run_or_refuse(bytes, move |unit| unit.reserve(&forward, key_expires_at_ms, quotas)).await
    }

    /// Records that an attempt is about to leave; false when the forward is not any more where `record` has
    /// it, so that nothing may leave.
    pub async fn mark_sending(&self, record: &ForwardRecord) -> Result<bool, StoreError> {
        let (id, state) = (record.forward_id.clone(), record.state);
        self.writer
            .run(0, move |unit| {
                let changed = unit
                    .connection
                    .prepare_cached(
                        "UPDATE forwards SET state = 'sending', updated_at = ?2, next_attempt_at = ?2 + 60000,
                                first_sent_at = coalesce(first_sent_at, ?2)
                         WHERE forward_id = ?1 AND state = ?3",
                    )?
                    .execute(params![id.as_str(), unit.now_ms, state.as_str()])?;
                Ok(changed > 0)
            })
            .await
    }

    /// Keeps an attempt that did not end the forward.
    pub async fn save_attempt(
        &self,
        forward_id: &ForwardId,
        attempt: AttemptRecord,
    ) -> Result<(), StoreError> {
        let id = forward_id.clone();
        self.writer
            .run(0, move |unit| {
                let mut forward = unit.forward(&id)?;
                forward.add_attempt(attempt.clone());
                unit.save_result(&forward)?;
                unit.connection
                    .prepare_cached("UPDATE forwards SET updated_at = ?2 WHERE forward_id = ?1")?
                    .execute(params![id.as_str(), unit.now_ms])?;
                Ok(())
            })
            .await
    }

    /// Ends a forward without a run, or hands it to the reconciler.
    pub async fn settle_without_run(
        &self,
        forward_id: &ForwardId,
        settlement: Settlement,
    ) -> Result<ForwardRecord, StoreError> {
        let id = forward_id.clone();
        self.writer.run(0, move |unit| unit.settle_without_run(&id, &settlement)).await
    }

    /// Ends a forward with its run: the answer, the run and its place in the index, in one unit.
    pub async fn settle_forwarded(
        &self,
        forward_id: &ForwardId,
        attempt: AttemptRecord,
        run: ForwardedRun,
    ) -> Result<(ForwardRecord, Option<FreshRun>), StoreError> {
        let id = forward_id.clone();
        self.writer.run(run.answer.len(), move |unit| unit.settle_forwarded(&id, &attempt, &run)).await
    }

    /// The forward, if this tenant has it.
    pub async fn find_forward(
        &self,
        tenant: &TenantId,
        forward_id: &ForwardId,
    ) -> Result<Option<ForwardRecord>, StoreError> {
        let (tenant, id) = (tenant.clone(), forward_id.clone());
        self.readers
            .with(move |connection| {
                let sql = format!("{SELECT} WHERE forward_id = ?1 AND tenant_id = ?2");
                let mut statement = connection.prepare_cached(&sql)?;
                statement.query_row(params![id.as_str(), tenant.as_str()], decode).optional()?.transpose()
            })
            .await
    }

    /// Makes a forward due now, if it is not at rest: no sooner than the peer allows, nor than a
    /// second after its last attempt.
    pub async fn wake_forward(&self, forward_id: &ForwardId) -> Result<(), StoreError> {
        let id = forward_id.clone();
        self.writer
            .run(0, move |unit| {
                unit.connection
                    .prepare_cached(
                        "UPDATE forwards
                         SET next_attempt_at = min(next_attempt_at,
                                                   max(?2, coalesce(not_before, 0), updated_at + ?3))
                         WHERE forward_id = ?1 AND next_attempt_at IS NOT NULL",
                    )?
                    .execute(params![id.as_str(), unit.now_ms, WAKE_PAUSE_MS])?;
                Ok(())
            })
            .await
    }

    /// Makes every forward that is not at rest due, as soon as its peer allows: whoever was at work on it is
    /// gone.
    pub async fn wake_all_forwards(&self) -> Result<(), StoreError> {
        self.writer
            .run(0, move |unit| {
                unit.connection
                    .prepare_cached(
                        "UPDATE forwards SET next_attempt_at = max(?1, coalesce(not_before, 0))
                         WHERE next_attempt_at IS NOT NULL",
                    )?
                    .execute([unit.now_ms])?;
                Ok(())
            })
            .await
    }

    /// What was dated by a clock that was ahead, and is not any more, keeps its distances and begins now: a
    /// forward must not wait for as long as the clock was off.
    pub async fn redate_forwards(&self) -> Result<usize, StoreError> {
        self.writer
            .run(0, move |unit| {
                let redated = unit
                    .connection
                    .prepare_cached(
                        "UPDATE forwards
                         SET next_attempt_at = next_attempt_at - (updated_at - ?1),
                             not_before = not_before - (updated_at - ?1), updated_at = ?1
                         WHERE next_attempt_at IS NOT NULL AND updated_at > ?1",
                    )?
                    .execute([unit.now_ms])?;
                Ok(redated)
            })
            .await
    }

    /// Forwards not at rest whose time has come, most urgent first.
    pub async fn due_forwards(&self, limit: u32) -> Result<Vec<ForwardRecord>, StoreError> {
        let now_ms = self.clock.now_ms();
        self.readers
            .with(move |connection| {
                let sql = format!("{SELECT} WHERE next_attempt_at <= ?1 ORDER BY next_attempt_at LIMIT ?2");
                let mut statement = connection.prepare_cached(&sql)?;
                let rows = statement.query_map(params![now_ms, limit], decode)?;
                rows.map(|row| row.map_err(StoreError::from)?).collect()
            })
            .await
    }

    /// When the next forward that is not at rest is due, in milliseconds since the Unix epoch.
    pub async fn next_due_ms(&self) -> Result<Option<i64>, StoreError> {
        self.readers
            .with(|connection| {
                let sql = "SELECT min(next_attempt_at) FROM forwards WHERE next_attempt_at IS NOT NULL";
                Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
            })
            .await
    }
}

/// Selects the columns of a [`ForwardRecord`].
pub(super) const SELECT: &str = "SELECT forward_id, tenant_id, principal_id, peer_id, agent_id, request, \
     downstream_key, state, outcome, background, correlation_id, traceparent, coalesce(attempts, '[]'), \
     coalesce(attempts_total, 0), created_at, updated_at, first_sent_at, deadline_at, next_attempt_at, run_id, \
     remote_run_id, remote_events_url, run_status, answer, error, via \
     FROM forwards LEFT JOIN forward_results USING (forward_no)";

pub(super) fn load(connection: &Connection, id: &ForwardId) -> Result<ForwardRecord, StoreError> {
    let sql = format!("{SELECT} WHERE forward_id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row([id.as_str()], decode).optional()?.transpose()?.ok_or_else(|| {
        StoreError::Inconsistent { table: "forwards", column: "forward_id", row: id.to_string() }
    })
}

/// The columns of a row, taken in the order of [`SELECT`]: to find each by its name costs more than the rest.
struct InOrder<'a, 'stmt> {
    row: &'a Row<'stmt>,
    next: usize,
}

impl InOrder<'_, '_> {
    fn take<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }
}

/// Two layers of failure: what SQLite says, and what the row says.
pub(super) fn decode(row: &Row<'_>) -> rusqlite::Result<Result<ForwardRecord, StoreError>> {
    let mut columns = InOrder { row, next: 0 };
    let id: String = columns.take()?;
    let inconsistent = |column| StoreError::Inconsistent { table: "forwards", column, row: id.clone() };
    macro_rules! parse {
        ($column:literal, $parse:expr) => {{
            let text: String = columns.take()?;
            match $parse(&text) {
                Some(value) => value,
                None => return Ok(Err(inconsistent($column))),
            }
        }};
    }
    let Ok(forward_id) = ForwardId::parse(&id) else { return Ok(Err(inconsistent("forward_id"))) };
    Ok(Ok(ForwardRecord {
        forward_id,
        tenant: parse!("tenant_id", |text| TenantId::parse(text).ok()),
        principal: parse!("principal_id", |text| PrincipalId::parse(text).ok()),
        peer: parse!("peer_id", |text| PeerId::parse(text).ok()),
        agent: parse!("agent_id", |text| AgentId::parse(text).ok()),
        request: columns.take()?,
        downstream_key: columns.take()?,
        state: parse!("state", ForwardState::find),
        outcome: columns.take()?,
        background: columns.take()?,
        correlation_id: columns.take()?,
        traceparent: columns.take()?,
        attempts: parse!("attempts", |text| serde_json::from_str(text).ok()),
        attempts_total: columns.take::<i64>()? as u64,
        created_at_ms: columns.take()?,
        updated_at_ms: columns.take()?,
        first_sent_at_ms: columns.take()?,
        deadline_at_ms: columns.take()?,
        next_attempt_at_ms: columns.take()?,
        run_id: columns.take::<Option<String>>()?.and_then(|id| RunId::parse(&id).ok()),
        remote_run_id: columns.take()?,
        remote_events_url: columns.take()?,
        run_status: columns.take::<Option<String>>()?.as_deref().and_then(RunStatus::find),
        answer: columns.take()?,
        error: columns.take()?,
        via: columns.take()?,
    }))
}
