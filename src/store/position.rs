//! How streams and the places of events stand in columns: a stream is its number, and an event's `position` is
//! that number above the sequence.

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};

use super::error::StoreError;
use crate::domain::cursor::Cursor;
use crate::domain::event::{MAX_SEQUENCE, Sequence};
use crate::domain::stream::StreamNo;

/// Bits of a position that hold the sequence.
const SEQUENCE_BITS: u32 = 32;

/// The place of an event in this log.
pub(super) fn position(stream_no: StreamNo, sequence: Sequence) -> i64 {
    position_before(stream_no) | sequence.get() as i64
}

/// Below the places of all events of a stream, and above those of the stream before.
pub(super) fn position_before(stream_no: StreamNo) -> i64 {
    stream_no.get() << SEQUENCE_BITS
}

/// All places of a stream: above the one and up to the other.
pub(super) fn places_of(stream_no: StreamNo) -> (i64, i64) {
    let before = position_before(stream_no);
    (before, before | MAX_SEQUENCE as i64)
}

/// The place of the last event that a reader there has seen.
pub(super) fn position_at(stream_no: StreamNo, cursor: Cursor) -> i64 {
    position_before(stream_no) | cursor.get().min(MAX_SEQUENCE) as i64
}

fn stream_at(position: i64) -> StreamNo {
    StreamNo::new(position >> SEQUENCE_BITS)
}

/// The place, for people.
pub(super) fn described(position: i64) -> String {
    format!("stream {}, sequence {}", stream_at(position), position as u64 & MAX_SEQUENCE)
}

pub(super) fn sequence_at(position: i64) -> Result<Sequence, StoreError> {
    Sequence::new(position as u64 & MAX_SEQUENCE).ok_or_else(|| StoreError::Inconsistent {
        table: "events",
        column: "position",
        row: described(position),
    })
}

impl ToSql for StreamNo {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.get().into())
    }
}

impl FromSql for StreamNo {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(StreamNo::new)
    }
}
