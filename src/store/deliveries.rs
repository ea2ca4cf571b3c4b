//! Forwards as operators see them: whose, where to, how it goes. What was asked and answered is never read.
//!
//! Invariant: a page looks at a bounded number of rows, whatever is filtered; where it stopped, the next goes on.

use rusqlite::{Connection, Row, params};

use super::Store;
use super::error::StoreError;
use super::forwards::AttemptRecord;
use crate::domain::forward::ForwardState;
use crate::domain::id::{AgentId, ForwardId, PeerId, RunId, TenantId};

/// Forwards one page looks at; a filter that finds less among them gives a short page and a cursor.
const LOOKED_AT: u32 = 1000;
/// Forwards that are looked at to find those in trouble.
const EXAMINED: u32 = 2000;

/// A forward without its content.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// Its id.
    pub forward_id: ForwardId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where it goes.
    pub peer: PeerId,
    /// The agent that is to run.
    pub agent: AgentId,
    /// Where it stands.
    pub state: ForwardState,
    /// `not_started` or `unknown`, when that is what is known.
    pub outcome: Option<String>,
    /// Nobody waits for it.
    pub background: bool,
    /// Of the request that made it.
    pub correlation_id: String,
    /// How many attempts there were.
    pub attempts_total: u64,
    /// The newest.
    pub last_attempt: Option<AttemptRecord>,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    /// Until when it is tried.
    pub deadline_at_ms: i64,
    /// When it is tried next.
    pub next_attempt_at_ms: Option<i64>,
    /// The run here.
    pub run_id: Option<RunId>,
}

/// Which forwards are wanted: those that equal everything given.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Where they go.
    pub peer: Option<PeerId>,
    /// Whose they are.
    pub tenant: Option<TenantId>,
    /// Where they stand.
    pub state: Option<ForwardState>,
}

/// Forwards in trouble at one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardTrouble {
    /// The peer.
    pub peer: String,
    /// How many.
    pub count: u64,
    /// The oldest, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

impl Store {
    /// At most `limit` forwards made before the one that `before` names, the newest first, and where to go on if
    /// there may be more.
    pub async fn list_deliveries(
        &self,
        filter: DeliveryFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<(Vec<DeliveryRecord>, Option<i64>), StoreError> {
        self.readers
            .with(move |connection| page(connection, &filter, before.unwrap_or(i64::MAX), limit as usize))
            .await
    }

    /// By peer: unfinished forwards made before `stuck_before_ms`, and those given up since `given_up_since_ms`
    /// while their run may exist. Where there are very many, as many as a look can count.
    pub async fn forward_troubles(
        &self,
        stuck_before_ms: i64,
        given_up_since_ms: i64,
    ) -> Result<(Vec<ForwardTrouble>, Vec<ForwardTrouble>), StoreError> {
        self.readers
            .with(move |connection| {
                let stuck = troubles(
                    connection,
                    "SELECT peer_id, count(*), min(created_at) FROM
                         (SELECT peer_id, created_at FROM forwards INDEXED BY forwards_not_at_rest
                          WHERE next_attempt_at IS NOT NULL ORDER BY next_attempt_at LIMIT ?2)
                     WHERE created_at < ?1 GROUP BY peer_id",
                    stuck_before_ms,
                )?;
                let given_up = troubles(
                    connection,
                    "SELECT peer_id, count(*), min(updated_at) FROM
                         (SELECT peer_id, updated_at FROM forwards INDEXED BY forwards_given_up
                          WHERE state = 'expired' AND outcome = 'unknown' AND updated_at >= ?1
                          ORDER BY updated_at DESC LIMIT ?2)
                     GROUP BY peer_id",
                    given_up_since_ms,
                )?;
                Ok((stuck, given_up))
            })
            .await
    }
}

fn troubles(connection: &Connection, sql: &str, at_ms: i64) -> Result<Vec<ForwardTrouble>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![at_ms, EXAMINED], |row| {
        let count: i64 = row.get(1)?;
        Ok(ForwardTrouble { peer: row.get(0)?, count: count as u64, since_ms: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Selects the columns of a [`DeliveryRecord`], for `concat!` with what follows.
macro_rules! select_rows {
    ($index:literal, $condition:literal) => {
        concat!(
            "SELECT forward_no, tenant_id, peer_id, state, forward_id, agent_id, outcome, background, correlation_id,
                    coalesce(attempts_total, 0), coalesce(attempts, '[]'), created_at, updated_at, deadline_at,
                    next_attempt_at, run_id
             FROM forwards ",
            $index,
            " LEFT JOIN forward_results USING (forward_no)
              WHERE ",
            $condition,
            " AND forward_no < ?1 ORDER BY forward_no DESC LIMIT ?2"
        )
    };
}

/// Rows lie in the order they were made in. Those not at rest are few among all, and have an index.
fn page(
    connection: &Connection,
    filter: &DeliveryFilter,
    before: i64,
    limit: usize,
) -> Result<(Vec<DeliveryRecord>, Option<i64>), StoreError> {
    let sql = match filter.state {
        Some(state) if !state.is_at_rest() => {
            select_rows!("INDEXED BY forwards_not_at_rest", "next_attempt_at IS NOT NULL")
        }
        _ => select_rows!("", "true"),
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![before, LOOKED_AT])?;
    let (mut found, mut looked_at, mut last) = (Vec::new(), 0, before);
    while let Some(row) = rows.next()? {
        looked_at += 1;
        if is_wanted(row, filter)? {
            if found.len() == limit {
                return Ok((found, Some(last)));
            }
            found.push(decode(row)??);
        }
        last = row.get(0)?;
    }
    Ok((found, (looked_at == LOOKED_AT).then_some(last)))
}

fn is_wanted(row: &Row<'_>, filter: &DeliveryFilter) -> rusqlite::Result<bool> {
    let is = |at: usize, wanted: Option<&str>| -> rusqlite::Result<bool> {
        let Some(wanted) = wanted else { return Ok(true) };
        Ok(row.get_ref(at)?.as_str().is_ok_and(|value| value == wanted))
    };
    Ok(is(1, filter.tenant.as_ref().map(TenantId::as_str))?
        && is(2, filter.peer.as_ref().map(PeerId::as_str))?
        && is(3, filter.state.map(ForwardState::as_str))?)
}

/// Two layers of failure: what SQLite says, and what the row says.
fn decode(row: &Row<'_>) -> rusqlite::Result<Result<DeliveryRecord, StoreError>> {
    let id: String = row.get(4)?;
    let inconsistent = |column| StoreError::Inconsistent { table: "forwards", column, row: id.clone() };
    macro_rules! parse {
        ($column:literal, $at:literal, $parse:expr) => {{
            let text: String = row.get($at)?;
            match $parse(&text) {
                Some(value) => value,
                None => return Ok(Err(inconsistent($column))),
            }
        }};
    }
    let attempts: Vec<AttemptRecord> = parse!("attempts", 10, |text| serde_json::from_str(text).ok());
    Ok(Ok(DeliveryRecord {
        forward_id: parse!("forward_id", 4, |text| ForwardId::parse(text).ok()),
        tenant: parse!("tenant_id", 1, |text| TenantId::parse(text).ok()),
        peer: parse!("peer_id", 2, |text| PeerId::parse(text).ok()),
        agent: parse!("agent_id", 5, |text| AgentId::parse(text).ok()),
        state: parse!("state", 3, ForwardState::find),
        outcome: row.get(6)?,
        background: row.get(7)?,
        correlation_id: row.get(8)?,
        attempts_total: row.get::<_, i64>(9)? as u64,
        last_attempt: attempts.into_iter().next_back(),
        created_at_ms: row.get(11)?,
        updated_at_ms: row.get(12)?,
        deadline_at_ms: row.get(13)?,
        next_attempt_at_ms: row.get(14)?,
        run_id: row.get::<_, Option<String>>(15)?.and_then(|id| RunId::parse(&id).ok()),
    }))
}
