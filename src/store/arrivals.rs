//! Where an event is put: sorted by stream, where pages are read from, or first in the order of arrival.
//!
//! Where many streams write in turn, an event put in its place at once costs more than a page of the write-ahead
//! log, for the pages of no two streams are the same. So what comes in a crowd is written behind what came before
//! it, and put in its place with some hundreds of others.
//!
//! Invariant: an event lies in one of the two tables, and both together, the view `events`, are the log.

use rusqlite::{Connection, params};

use super::error::StoreError;
use super::event_log::misplaced;
use super::writer::Unit;

/// When events are written in the order of their arrival, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Arrivals {
    /// Units in a group that make a crowd. Default 4: fewer share no page that is worth the second write.
    pub crowd: usize,
    /// Arrivals after which all are put in their places. Default 1024: more cost their group a long wait.
    pub most: i64,
}

impl Default for Arrivals {
    fn default() -> Self {
        Arrivals { crowd: 4, most: 1024 }
    }
}

/// A unit with as many bytes of events fills pages of its own.
const PAGE_BYTES: usize = 4096;

// Where the other table has the place, the checksum is missing, and the row is ignored as one whose place is taken is.
const INSERT_SORTED: &str = "INSERT OR IGNORE INTO events_sorted
        (position, event_key, received_at, flags, checksum, json)
    VALUES (?1, ?2, ?3, ?4,
        (SELECT ?5 WHERE NOT EXISTS (SELECT 1 FROM events_arrived WHERE position = ?1)), ?6)";
const INSERT_ARRIVED: &str = "INSERT OR IGNORE INTO events_arrived
        (position, event_key, received_at, flags, checksum, json)
    VALUES (?1, ?2, ?3, ?4,
        (SELECT ?5 WHERE NOT EXISTS (SELECT 1 FROM events_sorted WHERE position = ?1)), ?6)";
// OR FAIL: what failed is undone with the whole group, so SQLite need not copy each page to undo this alone.
const SORT_IN: &str = "INSERT OR FAIL INTO events_sorted
        (position, event_key, received_at, flags, checksum, json)
    SELECT position, event_key, received_at, flags, checksum, json FROM events_arrived ORDER BY position";

impl Arrivals {
    /// True when a unit with so many bytes of events, in a group of so many units, writes them as they arrive.
    pub(super) fn are_kept(&self, units: usize, bytes: usize) -> bool {
        units >= self.crowd && bytes < PAGE_BYTES
    }

    /// Puts all arrivals in their places, once there are many; in the transaction of a group.
    pub(super) fn sort_in(&self, connection: &Connection) -> Result<(), StoreError> {
        let most: Option<i64> = connection
            .prepare_cached("SELECT max(arrival) FROM events_arrived")?
            .query_row([], |row| row.get(0))?;
        if most.is_none_or(|most| most < self.most) {
            return Ok(());
        }
        connection.prepare_cached(SORT_IN)?.execute([])?;
        // Without a condition, and without a trigger, SQLite drops the pages and looks at no row.
        connection.prepare_cached("DELETE FROM events_arrived")?.execute([])?;
        Ok(())
    }
}

impl Unit<'_> {
    /// Writes an event whose place is free, as its head said.
    pub(super) fn insert_event(
        &mut self,
        place: i64,
        key: &[u8],
        flags: i64,
        json: &[u8],
    ) -> Result<(), StoreError> {
        let insert = match &mut self.insert {
            Some(insert) => insert,
            none => {
                let sql = if self.as_they_arrive { INSERT_ARRIVED } else { INSERT_SORTED };
                none.insert(self.connection.prepare_cached(sql)?)
            }
        };
        let checksum = i64::from(crc32fast::hash(json));
        let inserted = insert.execute(params![place, key, self.now_ms, flags, checksum, json])?;
        if inserted == 1 { Ok(()) } else { Err(misplaced(place)) }
    }
}
