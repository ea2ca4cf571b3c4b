//! Which event ids a stream holds: how the writer knows an event that it has stored before.
//!
//! The index is written some dozens of ids at a time, since with many streams one id alone costs a page of the
//! write-ahead log. The ids that are not in it yet are those of the stream's last events: they are remembered
//! by hash, and read again from the events themselves. An id beyond all others of its stream, as ids that are
//! ordered by time are, is new without a look at either.
//!
//! Invariants: every event up to `ids_to` is in `event_ids`, whenever it came; every event above is among the
//! recent ones, once they are read. What is remembered may be of an event that is gone, which costs a look.

use std::hash::{DefaultHasher, Hasher};

use rusqlite::{Connection, OptionalExtension, params};

use super::error::StoreError;
use super::position::{position_before, sequence_at};
use super::writer::Unit;
use crate::domain::event::{MAX_SEQUENCE, Sequence};
use crate::domain::stream::StreamNo;

/// Ids that a stream keeps out of the index, at least; fewer than twice as many at most.
const UNINDEXED: usize = 64;

/// What is remembered of a stream's ids.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    /// Up to this sequence the index knows them all.
    pub(super) indexed_to: u64,
    /// `None` before anybody asked.
    recent: Option<Recent>,
}

#[derive(Debug, Clone, Default)]
struct Recent {
    /// Of the ids that are not in the index.
    hashes: Vec<u64>,
    /// No id of the stream is greater.
    highest: Vec<u8>,
}

impl Recent {
    fn raise(&mut self, key: &[u8]) {
        if *key > *self.highest {
            self.highest.clear();
            self.highest.extend_from_slice(key);
        }
    }

    fn read(
        connection: &Connection,
        stream_no: StreamNo,
        (after, to): (i64, i64),
    ) -> Result<Self, StoreError> {
        let highest: Option<Vec<u8>> = connection
            .prepare_cached("SELECT max(event_key) FROM event_ids WHERE stream_no = ?1")?
            .query_row([stream_no], |row| row.get(0))?;
        let mut recent = Recent { hashes: Vec::new(), highest: highest.unwrap_or_default() };
        let mut statement = connection
            .prepare_cached("SELECT event_key FROM events WHERE position > ?1 AND position <= ?2")?;
        let mut rows = statement.query([after, to])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
            recent.raise(key);
            recent.hashes.push(hash(key));
        }
        Ok(recent)
    }
}

impl Ids {
    /// Of a stream without events.
    pub(super) fn none() -> Self {
        Ids { indexed_to: 0, recent: Some(Recent::default()) }
    }

    /// Of a stream whose row says how far the index goes.
    pub(super) fn indexed_to(indexed_to: u64) -> Self {
        Ids { indexed_to, recent: None }
    }

    /// Places of the events that are not in the index.
    fn places(&self, stream_no: StreamNo) -> (i64, i64) {
        let before = position_before(stream_no);
        (before | self.indexed_to as i64, before | MAX_SEQUENCE as i64)
    }

    fn recent(&mut self, connection: &Connection, stream_no: StreamNo) -> Result<&mut Recent, StoreError> {
        let places = self.places(stream_no);
        match &mut self.recent {
            Some(recent) => Ok(recent),
            unread => Ok(unread.insert(Recent::read(connection, stream_no, places)?)),
        }
    }
}

impl Unit<'_> {
    /// Where the stream holds this id.
    pub(super) fn sequence_of(
        &mut self,
        stream_no: StreamNo,
        key: &[u8],
    ) -> Result<Option<Sequence>, StoreError> {
        let ids = self.heads.ids(self.connection, stream_no)?;
        let recent = ids.recent(self.connection, stream_no)?;
        if *key > *recent.highest {
            return Ok(None);
        }
        if recent.hashes.contains(&hash(key)) {
            let (after, to) = ids.places(stream_no);
            let mut statement = self.connection.prepare_cached(
                "SELECT position FROM events WHERE position > ?1 AND position <= ?2 AND event_key = ?3",
            )?;
            let held = statement.query_row(params![after, to, key], |row| row.get(0)).optional()?;
            if let Some(position) = held {
                return sequence_at(position).map(Some);
            }
        }
        if ids.indexed_to == 0 {
            return Ok(None);
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT sequence FROM event_ids WHERE stream_no = ?1 AND event_key = ?2")?;
        let held = statement.query_row(params![stream_no, key], |row| row.get(0)).optional()?;
        held.map(|sequence: i64| sequence_at(position_before(stream_no) | sequence)).transpose()
    }

    /// Remembers the id of an event that was stored, once the head knows the event.
    pub(super) fn remember_id(
        &mut self,
        stream_no: StreamNo,
        sequence: Sequence,
        key: &[u8],
    ) -> Result<(), StoreError> {
        let head = self.heads.change(self.connection, stream_no)?;
        let indexed_to = head.ids.indexed_to;
        let recent = head.ids.recent(self.connection, stream_no)?;
        recent.raise(key);
        if sequence.get() <= indexed_to {
            self.connection
                .prepare_cached("INSERT INTO event_ids (stream_no, event_key, sequence) VALUES (?1, ?2, ?3)")?
                .execute(params![stream_no, key, sequence.get() as i64])?;
            return Ok(());
        }
        recent.hashes.push(hash(key));
        // Streams that began together are not indexed together.
        if recent.hashes.len() < UNINDEXED + stream_no.get() as usize % UNINDEXED {
            return Ok(());
        }
        recent.hashes.clear();
        let (after, to) = head.ids.places(stream_no);
        head.ids.indexed_to = head.head.last();
        self.connection
            .prepare_cached(
                "INSERT INTO event_ids (stream_no, event_key, sequence)
                 SELECT ?1, event_key, position & 0xffffffff FROM events
                 WHERE position > ?2 AND position <= ?3",
            )?
            .execute(params![stream_no, after, to])?;
        Ok(())
    }

    /// Forgets the ids of events that go, whose places are above `after` and up to `to`.
    pub(super) fn forget_ids(&self, stream_no: StreamNo, (after, to): (i64, i64)) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "DELETE FROM event_ids WHERE stream_no = ?1 AND event_key IN
                     (SELECT event_key FROM events WHERE position > ?2 AND position <= ?3)",
            )?
            .execute(params![stream_no, after, to])?;
        Ok(())
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}
