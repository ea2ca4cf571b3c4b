//! Reading the log back, in pages: rows as they are stored, checked, in order.
//!
//! Invariant: a row whose checksum fails is never served.

use rusqlite::{Connection, params};

use super::Store;
use super::error::StoreError;
use super::event_log::DERIVED;
use super::position::{described, position_at, sequence_at};
use super::readers::{Pages, Rest};
use crate::domain::cursor::Cursor;
use crate::domain::event::Sequence;
use crate::domain::stream::StreamNo;
use crate::mutants::mutant;

/// One event of a page, borrowed from the database.
#[derive(Debug, Clone, Copy)]
pub struct EventRow<'a> {
    /// Its position in the stream.
    pub sequence: Sequence,
    /// When the log took it, in milliseconds since the Unix epoch.
    pub received_at_ms: i64,
    /// Made by a gateway from the home's status.
    pub derived: bool,
    /// The normalised event object.
    pub json: &'a [u8],
}

/// Which events of a stream to read.
#[derive(Debug, Clone, Copy)]
pub struct PageRange {
    /// Exclusive.
    pub after: Cursor,
    /// Inclusive.
    pub to: Cursor,
    /// At most this many.
    pub max_events: u32,
    /// At most about this many bytes, but always one event.
    pub max_bytes: usize,
}

impl Store {
    /// As [`Store::read_events`], but page after page up to the end of `range`, each made of what `next` makes of the
    /// one before, from now on and until `places` of them wait to be taken; `None` while every reader is busy. Whoever
    /// waits for a reader meanwhile gets this one, so that it may stop after any page.
    pub fn read_ahead<T: Send + 'static>(
        &self,
        stream_no: StreamNo,
        mut range: PageRange,
        places: usize,
        (mut made, mut next): (T, impl FnMut(&T) -> T + Send + 'static),
        mut visit: impl FnMut(&mut T, EventRow<'_>) + Send + 'static,
    ) -> Option<Pages<(T, Option<Sequence>)>> {
        self.readers.start(places, move |connection| {
            let last = read_page(connection, stream_no, range, &mut |row| visit(&mut made, row))?;
            let next = next(&made);
            let page = (std::mem::replace(&mut made, next), last);
            let Some(last) = last.filter(|last| last.cursor() < range.to) else {
                return Ok((page, Rest::Nothing));
            };
            range.after = last.cursor();
            Ok((page, Rest::More))
        })
    }
}

/// Reads a page in order, handing each event to `visit`. Answers the last sequence visited. `connection` must be in a
/// transaction: an event that is put in its place meanwhile would be in neither.
pub(super) fn read_page(
    connection: &Connection,
    stream_no: StreamNo,
    range: PageRange,
    visit: &mut dyn FnMut(EventRow<'_>),
) -> Result<Option<Sequence>, StoreError> {
    let (after, to) = (position_at(stream_no, range.after), position_at(stream_no, range.to));
    let mut page = Page { range, visit, events: 0, bytes: 0, last: None };
    let first_arrived: Option<i64> = connection
        .prepare_cached("SELECT min(position) FROM events_arrived WHERE position > ?1 AND position <= ?2")?
        .query_row([after, to], |row| row.get(0))?;
    match first_arrived.filter(|_| !mutant("arrivals_unread")) {
        None => page.read(connection, "events_sorted", (after, to))?,
        Some(first) => {
            // Mostly all before it lies in its place, and needs no merging.
            page.read(connection, "events_sorted", (after, first - 1))?;
            page.read(connection, "events", (first - 1, to))?;
        }
    }
    Ok(page.last)
}

/// A page that is being read.
struct Page<'a> {
    range: PageRange,
    visit: &'a mut dyn FnMut(EventRow<'_>),
    events: u32,
    bytes: usize,
    last: Option<Sequence>,
}

impl Page<'_> {
    /// Goes on with what `table` has above the one place and up to the other, unless the page is full.
    fn read(
        &mut self,
        connection: &Connection,
        table: &str,
        (after, to): (i64, i64),
    ) -> Result<(), StoreError> {
        if self.bytes >= self.range.max_bytes {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(&format!(
            "SELECT position, received_at, flags, checksum, json FROM {table}
             WHERE position > ?1 AND position <= ?2 ORDER BY position LIMIT ?3"
        ))?;
        let mut rows = statement.query(params![after, to, self.range.max_events - self.events])?;
        while let Some(row) = rows.next()? {
            let sequence = sequence_at(row.get(0)?)?;
            let json = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
            if i64::from(crc32fast::hash(json)) != row.get::<_, i64>(3)? {
                return Err(StoreError::Inconsistent {
                    table: "events",
                    column: "checksum",
                    row: described(row.get(0)?),
                });
            }
            let derived = row.get::<_, i64>(2)? & DERIVED != 0;
            (self.visit)(EventRow { sequence, received_at_ms: row.get(1)?, derived, json });
            self.last = Some(sequence);
            self.events += 1;
            self.bytes += json.len();
            if self.bytes >= self.range.max_bytes {
                break;
            }
        }
        Ok(())
    }
}

/// The first event of the whole log whose bytes are not those that were stored, by its place.
pub(super) fn find_damaged(connection: &Connection) -> Result<Option<String>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT position, checksum, json FROM events")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let json = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        if i64::from(crc32fast::hash(json)) != row.get::<_, i64>(1)? {
            return Ok(Some(described(row.get(0)?)));
        }
    }
    Ok(None)
}
