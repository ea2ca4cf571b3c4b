//! Retention: removes what is old, in steps, and never in silence.
//!
//! Invariant: a stream's `oldest_sequence` is raised, durably and visibly, before the first row below it
//! goes. A crash in between leaves rows that nobody can read and that the next sweep removes.

use std::ops::ControlFlow;

use rusqlite::params;

use super::Store;
use super::error::StoreError;
use super::position::{places_of, position_before};
use super::scan;
use super::writer::Unit;
use crate::domain::stream::StreamNo;
use crate::failpoint;
use crate::mutants::mutant;

/// Rows removed in one unit: appends run between two of them.
pub(super) const ROWS_PER_UNIT: u32 = 2000;
/// Streams looked at in one unit.
const STREAMS_PER_UNIT: u32 = 64;

impl Store {
    /// Removes the events of runs that finished before `before_ms`. Answers how many streams it emptied;
    /// call again until it answers 0.
    pub async fn expire_finished(&self, before_ms: i64) -> Result<usize, StoreError> {
        let streams = self
            .writer
            .run(0, move |unit| {
                let due = unit.streams(
                    "SELECT stream_no FROM streams
                     WHERE finished_at IS NOT NULL AND holds_events = 1 AND finished_at < ?1
                     ORDER BY finished_at LIMIT ?2",
                    params![before_ms, STREAMS_PER_UNIT],
                )?;
                for stream_no in &due {
                    unit.empty_stream(*stream_no)?;
                }
                Ok(due)
            })
            .await?;
        failpoint::reached("retention::after_floor");
        for stream_no in &streams {
            self.remove_expired_rows(*stream_no).await?;
        }
        Ok(streams.len())
    }

    /// Brings every tenant under `max_events`: its oldest finished runs go whole, then the oldest events
    /// of unfinished ones. Answers how many streams it touched; call again until it answers 0.
    pub async fn expire_surplus(&self, max_events: u64) -> Result<usize, StoreError> {
        let streams = self
            .writer
            .run(0, move |unit| {
                let over: Vec<(String, i64)> = unit
                    .connection
                    .prepare_cached(
                        "SELECT tenant_id, sum(event_count) AS held FROM streams WHERE holds_events = 1
                         GROUP BY tenant_id HAVING held > ?1",
                    )?
                    .query_map([max_events as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<_, _>>()?;
                let mut touched = Vec::new();
                for (tenant, held) in over {
                    touched.extend(unit.shrink_tenant(&tenant, held as u64 - max_events)?);
                }
                Ok(touched)
            })
            .await?;
        failpoint::reached("retention::after_floor");
        for stream_no in &streams {
            self.remove_expired_rows(*stream_no).await?;
        }
        Ok(streams.len())
    }

    async fn remove_expired_rows(&self, stream_no: StreamNo) -> Result<(), StoreError> {
        while self.writer.run(0, move |unit| unit.remove_some(stream_no)).await? {
            failpoint::reached("retention::between_deletes");
        }
        Ok(())
    }

    /// Forgets idempotency keys and nonces past their time, the use of days long past, and forwards at rest
    /// since before `before_ms`. Answers 0 when nothing is left to do.
    pub async fn sweep_forwards(&self, before_ms: i64) -> Result<usize, StoreError> {
        self.writer
            .run(0, move |unit| {
                let keys = unit.sweep_keys(ROWS_PER_UNIT)?;
                let old = "SELECT forward_no FROM forwards WHERE next_attempt_at IS NULL AND updated_at < ?1
                           ORDER BY updated_at, forward_no LIMIT ?2";
                let mut forwards = 0;
                for table in ["forward_results", "forwards"] {
                    let delete = format!("DELETE FROM {table} WHERE forward_no IN ({old})");
                    forwards = unit
                        .connection
                        .prepare_cached(&delete)?
                        .execute(params![before_ms, ROWS_PER_UNIT])?;
                }
                unit.sweep_usage()?;
                let nonces = unit.sweep_nonces()?;
                // Under load some run out at any moment: only a full step means that there is more to do.
                let nonces = if nonces < ROWS_PER_UNIT as usize { 0 } else { nonces };
                Ok(keys + forwards + nonces)
            })
            .await
    }
}

impl Unit<'_> {
    fn streams(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<StreamNo>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Everything in the stream is gone from now on.
    fn empty_stream(&mut self, stream_no: StreamNo) -> Result<(), StoreError> {
        let last = self.heads.get(self.connection, stream_no)?.head.last();
        self.raise_oldest(stream_no, last + 1)
    }

    fn shrink_tenant(&mut self, tenant: &str, mut surplus: u64) -> Result<Vec<StreamNo>, StoreError> {
        let candidates = self.streams(
            "SELECT stream_no FROM streams WHERE tenant_id = ?1 AND holds_events = 1
             ORDER BY finished_at IS NULL, finished_at, stream_no LIMIT ?2",
            params![tenant, STREAMS_PER_UNIT],
        )?;
        let mut touched = Vec::new();
        for stream_no in candidates {
            if surplus == 0 {
                break;
            }
            let head = self.heads.get(self.connection, stream_no)?;
            let (count, finished) = (head.event_count, head.finished_at_ms.is_some());
            if finished || count <= surplus {
                self.empty_stream(stream_no)?;
            } else {
                self.trim_stream(stream_no, surplus)?;
            }
            surplus = surplus.saturating_sub(count);
            touched.push(stream_no);
        }
        Ok(touched)
    }

    /// Gives up the oldest `count` events of an unfinished stream.
    fn trim_stream(&mut self, stream_no: StreamNo, count: u64) -> Result<(), StoreError> {
        let first = position_before(stream_no);
        let (mut left, mut last_gone) = (count, first);
        self.rows.each_length(places_of(stream_no), &mut |event| {
            (left, last_gone) = (left.saturating_sub(1), event.position);
            Ok(if left == 0 { ControlFlow::Break(()) } else { scan::ON })
        })?;
        self.raise_oldest(stream_no, (last_gone - first) as u64 + 1)
    }

    /// Removes some events below the stream's oldest sequence; answers whether there may be more.
    fn remove_some(&mut self, stream_no: StreamNo) -> Result<bool, StoreError> {
        let first = position_before(stream_no);
        let end = first + self.heads.get(self.connection, stream_no)?.head.oldest() as i64;
        let end = end + i64::from(mutant("retention_off_by_one"));
        let (connection, mut events, mut bytes, mut last) = (self.connection, 0, 0, first);
        let mut forget =
            connection.prepare_cached("DELETE FROM event_ids WHERE stream_no = ?1 AND event_key = ?2")?;
        self.rows.each_length((first, end - 1), &mut |event| {
            forget.execute(params![stream_no, event.note.key])?;
            (events, bytes, last) = (events + 1, bytes + event.note.length as u64, event.position);
            Ok(if events == ROWS_PER_UNIT { ControlFlow::Break(()) } else { scan::ON })
        })?;
        if events == 0 {
            return Ok(false);
        }
        connection.execute_batch("INSERT INTO retention_window (open) VALUES (1)")?;
        self.rows.remove((first, last))?;
        failpoint::reached("retention::mid_delete");
        self.connection.execute_batch("DELETE FROM retention_window")?;
        let head = self.heads.change(self.connection, stream_no)?;
        head.event_count = head.event_count.saturating_sub(events.into());
        head.byte_count = head.byte_count.saturating_sub(bytes);
        Ok(events == ROWS_PER_UNIT)
    }
}
