//! Where an event is put: sorted by stream, where pages are read from, or first in the order of arrival.
//!
//! Where many streams write in turn, an event put in its place at once costs more than a page of the write-ahead
//! log, for the pages of no two streams are the same. So what comes in a crowd is written behind what came before
//! it, and put in its place with some hundreds of others.
//!
//! Invariant: an event lies in one of the two tables, and both together, the view `events`, are the log.

use rusqlite::Connection;

use super::error::StoreError;
use super::rows;

/// When events are written in the order of their arrival, and for how long; and how many share a row.
#[derive(Debug, Clone, Copy)]
pub struct Placing {
    /// Units in a group that make a crowd. Default 4: fewer share no page that is worth the second write.
    pub crowd: usize,
    /// Arrivals after which all are put in their places. Default 1024: more cost their group a long wait.
    pub most: i64,
    /// Bytes of events beyond which a row takes no other. Default 64 KiB: with more, little is saved, and whoever
    /// begins in the middle of a row reads more for nothing.
    pub row_bytes: usize,
}

impl Default for Placing {
    fn default() -> Self {
        Placing { crowd: 4, most: 1024, row_bytes: 64 * 1024 }
    }
}

/// A unit with as many bytes of events fills pages of its own.
const PAGE_BYTES: usize = 4096;

impl Placing {
    /// True when a unit with so many bytes of events, in a group of so many units, writes them as they arrive.
    pub(super) fn is_crowded(&self, units: usize, bytes: usize) -> bool {
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
        rows::sort_in(connection, self.row_bytes)?;
        // Without a condition, and without a trigger, SQLite drops the pages and looks at no row.
        connection.prepare_cached("DELETE FROM events_arrived")?.execute([])?;
        Ok(())
    }
}
