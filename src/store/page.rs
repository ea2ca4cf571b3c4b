//! Reading the log back, in pages: rows as they are stored, checked, in order.
//!
//! Invariant: a row whose checksum fails is never served.

use std::ops::ControlFlow;

use rusqlite::Connection;

use super::Store;
use super::error::StoreError;
use super::position::{position_at, sequence_at};
use super::readers::{Pages, Rest};
use super::rows::DERIVED;
use super::scan;
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
    let places = (position_at(stream_no, range.after), position_at(stream_no, range.to));
    let (mut events, mut bytes, mut last) = (0, 0, None);
    scan::each_event(connection, places, &mut |event| {
        let (sequence, json) = (sequence_at(event.position)?, event.json);
        let derived = event.note.flags & DERIVED != 0;
        visit(EventRow { sequence, received_at_ms: event.note.received_at_ms, derived, json });
        (events, bytes, last) = (events + 1, bytes + json.len(), Some(sequence));
        let is_full = events >= range.max_events || bytes >= range.max_bytes;
        Ok(if is_full { ControlFlow::Break(()) } else { scan::ON })
    })?;
    Ok(last)
}
