//! Which event ids a stream holds: how the writer knows an event that it has stored before.
//!
//! Ids that are ordered by time, as those of ULIDs and of UUIDs of version 7 are, need no index: as long as they
//! ascend with the sequences, one is found among the events by halves, and one beyond all others is new without a
//! look. From the first that does not, they are indexed, some dozens at a time, since with many streams one id alone
//! costs a page of the write-ahead log. Those of a stream's last events are neither sorted nor indexed yet: they are
//! remembered by hash, and read again from the events themselves.
//!
//! Invariants: up to `ids_sorted_to` ids ascend, and no event is missing; every event from there up to `ids_to` is in
//! `event_ids`, whenever it came; every event above is among the recent ones, once they are read. What is remembered
//! may be of an event that is gone, which costs a look.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hasher};

use rusqlite::{Connection, OptionalExtension, params};

use super::error::StoreError;
use super::position::{position, position_before, sequence_at};
use super::writer::Unit;
use crate::domain::event::{MAX_SEQUENCE, Sequence};
use crate::domain::stream::StreamNo;
use crate::mutants::mutant;

/// Ids that a stream keeps out of the index, at least; fewer than twice as many at most.
const UNINDEXED: usize = 64;

/// What is remembered of a stream's ids.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    /// Up to this sequence they ascend, and none is missing or in the index.
    pub(super) sorted_to: u64,
    /// From there up to this sequence the index knows them all.
    pub(super) indexed_to: u64,
    /// `None` before anybody asked.
    recent: Option<Recent>,
}

#[derive(Debug, Clone, Default)]
struct Recent {
    /// Of the ids above.
    hashes: Vec<u64>,
    /// One of them is not greater than all before it, or came after one of a higher sequence.
    unsorted: bool,
    /// No id of the stream is greater.
    highest: Vec<u8>,
    /// No id of the sorted ones is greater.
    highest_sorted: Vec<u8>,
    /// Behind the place where a sorted one was last found: mostly whoever repeats one repeats the next.
    next_place: i64,
}

impl Recent {
    fn raise(&mut self, key: &[u8]) {
        if *key > *self.highest {
            self.highest.clear();
            self.highest.extend_from_slice(key);
        }
    }

    fn add(&mut self, key: &[u8]) {
        self.unsorted |= *key <= *self.highest;
        self.raise(key);
        self.hashes.push(hash(key));
    }

    fn read(connection: &Connection, stream_no: StreamNo, ids: &Ids) -> Result<Self, StoreError> {
        let mut recent = Recent::default();
        let (first, to) = ids.sorted_places(stream_no);
        let mut statement = connection.prepare_cached(
            "SELECT position, event_key FROM events WHERE position >= ?1 AND position <= ?2
             ORDER BY position DESC LIMIT 1",
        )?;
        let sorted: Option<Vec<u8>> = statement.query_row([first, to], |row| row.get(1)).optional()?;
        recent.highest_sorted = sorted.unwrap_or_default();
        let indexed: Option<Vec<u8>> = connection
            .prepare_cached("SELECT max(event_key) FROM event_ids WHERE stream_no = ?1")?
            .query_row([stream_no], |row| row.get(0))?;
        recent.highest = indexed.unwrap_or_default().max(recent.highest_sorted.clone());
        let (after, to) = ids.places(stream_no);
        let mut statement = connection.prepare_cached(
            "SELECT position, event_key FROM events WHERE position > ?1 AND position <= ?2 ORDER BY position",
        )?;
        let mut rows = statement.query([after, to])?;
        while let Some(row) = rows.next()? {
            recent.add(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
        }
        Ok(recent)
    }
}

impl Ids {
    /// Of a stream without events.
    pub(super) fn none() -> Self {
        Ids { sorted_to: 0, indexed_to: 0, recent: Some(Recent::default()) }
    }

    /// Of a stream whose row says so.
    pub(super) fn up_to(sorted_to: u64, indexed_to: u64) -> Self {
        Ids { sorted_to, indexed_to, recent: None }
    }

    /// Above the one and up to the other are the events whose ids are not in the index, and recent.
    fn places(&self, stream_no: StreamNo) -> (i64, i64) {
        let before = position_before(stream_no);
        (before | self.indexed_to as i64, before | MAX_SEQUENCE as i64)
    }

    /// The first and the last place of an event whose id is among the sorted ones.
    fn sorted_places(&self, stream_no: StreamNo) -> (i64, i64) {
        let before = position_before(stream_no);
        (before + 1, before | self.sorted_to as i64)
    }

    fn recent(&mut self, connection: &Connection, stream_no: StreamNo) -> Result<&mut Recent, StoreError> {
        if self.recent.is_none() {
            self.recent = Some(Recent::read(connection, stream_no, self)?);
        }
        Ok(self.recent.get_or_insert_default())
    }
}

impl Unit<'_> {
    /// Where the stream holds this id; `expected` is where the event says that it is.
    pub(super) fn sequence_of(
        &mut self,
        stream_no: StreamNo,
        key: &[u8],
        expected: Option<Sequence>,
    ) -> Result<Option<Sequence>, StoreError> {
        let ids = self.heads.ids(self.connection, stream_no)?;
        let (after, to) = ids.places(stream_no);
        let sorted = ids.sorted_places(stream_no);
        let (is_sorted, is_indexed) = (ids.sorted_to > 0, ids.indexed_to > ids.sorted_to);
        let recent = ids.recent(self.connection, stream_no)?;
        if *key > *recent.highest {
            return Ok(None);
        }
        if recent.hashes.contains(&hash(key)) {
            let mut statement = self.connection.prepare_cached(
                "SELECT position FROM events WHERE position > ?1 AND position <= ?2 AND event_key = ?3",
            )?;
            let held = statement.query_row(params![after, to, key], |row| row.get(0)).optional()?;
            if let Some(position) = held {
                return sequence_at(position).map(Some);
            }
        }
        if is_indexed {
            let mut statement = self
                .connection
                .prepare_cached("SELECT sequence FROM event_ids WHERE stream_no = ?1 AND event_key = ?2")?;
            let held: Option<i64> =
                statement.query_row(params![stream_no, key], |row| row.get(0)).optional()?;
            if let Some(sequence) = held {
                return sequence_at(position_before(stream_no) | sequence).map(Some);
            }
        }
        if !is_sorted || *key > *recent.highest_sorted || mutant("sorted_ids_unread") {
            return Ok(None);
        }
        let near = expected.map_or(recent.next_place, |expected| position(stream_no, expected));
        let Some(place) = find_sorted(self.connection, sorted, key, near)? else { return Ok(None) };
        recent.next_place = place + 1;
        sequence_at(place).map(Some)
    }

    /// Remembers the id of an event that was stored, once the head knows the event.
    pub(super) fn remember_id(
        &mut self,
        stream_no: StreamNo,
        sequence: Sequence,
        key: &[u8],
    ) -> Result<(), StoreError> {
        let head = self.heads.change(self.connection, stream_no)?;
        let (sorted_to, indexed_to, last) = (head.ids.sorted_to, head.ids.indexed_to, head.head.last());
        let (after, to) = head.ids.places(stream_no);
        let recent = head.ids.recent(self.connection, stream_no)?;
        if sequence.get() <= indexed_to {
            recent.raise(key);
            self.connection
                .prepare_cached("INSERT INTO event_ids (stream_no, event_key, sequence) VALUES (?1, ?2, ?3)")?
                .execute(params![stream_no, key, sequence.get() as i64])?;
            return Ok(());
        }
        recent.unsorted |= sequence.get() != last;
        recent.add(key);
        // Streams that began together are not indexed together.
        if recent.hashes.len() < UNINDEXED + stream_no.get() as usize % UNINDEXED {
            return Ok(());
        }
        recent.hashes.clear();
        let unsorted = std::mem::take(&mut recent.unsorted);
        // Without a hole, nothing will come between them.
        if sorted_to == indexed_to && !unsorted && head.head.holes().is_empty() {
            recent.highest_sorted.clone_from(&recent.highest);
            (head.ids.sorted_to, head.ids.indexed_to) = (last, last);
            return Ok(());
        }
        head.ids.indexed_to = last;
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

/// The place of an id among those that ascend with their places, in halves. `near` is looked at first.
fn find_sorted(
    connection: &Connection,
    (mut first, mut last): (i64, i64),
    key: &[u8],
    near: i64,
) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT position, event_key FROM events WHERE position >= ?1 AND position <= ?2
         ORDER BY position LIMIT 1",
    )?;
    let mut middle = near.clamp(first, last);
    while first <= last {
        let next = statement.query_row([middle, last], |row| {
            let found = row.get_ref(1)?.as_blob()?;
            Ok((row.get::<_, i64>(0)?, found.cmp(key)))
        });
        match next.optional()? {
            Some((place, Ordering::Equal)) => return Ok(Some(place)),
            Some((place, Ordering::Less)) => first = place + 1,
            // Retention may have been there.
            Some((_, Ordering::Greater)) | None => last = middle - 1,
        }
        middle = first + (last - first) / 2;
    }
    Ok(None)
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}
