//! Reading the log back, in pages: rows as they are stored, checked, in order.
//!
//! Invariant: a row whose checksum fails is never served.

use rusqlite::{Connection, params};

use super::Store;
use super::error::StoreError;
use super::event_log::DERIVED;
use super::position::{described, position_at, sequence_at};
use super::readers::Reading;
use crate::domain::cursor::Cursor;
use crate::domain::event::Sequence;
use crate::domain::stream::StreamNo;

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
    /// As [`Store::read_events`], but now, before anybody waits for it; `None` while every reader is busy.
    pub fn start_reading<T: Send + 'static>(
        &self,
        stream_no: StreamNo,
        range: PageRange,
        mut made: T,
        mut visit: impl FnMut(&mut T, EventRow<'_>) + Send + 'static,
    ) -> Option<Reading<(T, Option<Sequence>)>> {
        self.readers.start(move |connection| {
            let last = read_page(connection, stream_no, range, &mut |row| visit(&mut made, row))?;
            Ok((made, last))
        })
    }
}

/// Reads a page in order, handing each event to `visit`. Answers the last sequence visited.
pub(super) fn read_page(
    connection: &Connection,
    stream_no: StreamNo,
    range: PageRange,
    visit: &mut dyn FnMut(EventRow<'_>),
) -> Result<Option<Sequence>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT position, received_at, flags, checksum, json FROM events
         WHERE position > ?1 AND position <= ?2 ORDER BY position LIMIT ?3",
    )?;
    let mut rows = statement.query(params![
        position_at(stream_no, range.after),
        position_at(stream_no, range.to),
        range.max_events
    ])?;
    let mut last = None;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let sequence = sequence_at(row.get(0)?)?;
        let json = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
        if i64::from(crc32fast::hash(json)) != row.get::<_, i64>(3)? {
            return Err(StoreError::Inconsistent {
                table: "events",
                column: "checksum",
                row: format!("stream {stream_no}, sequence {sequence}"),
            });
        }
        let derived = row.get::<_, i64>(2)? & DERIVED != 0;
        visit(EventRow { sequence, received_at_ms: row.get(1)?, derived, json });
        last = Some(sequence);
        bytes += json.len();
        if bytes >= range.max_bytes {
            break;
        }
    }
    Ok(last)
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
