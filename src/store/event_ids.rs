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
use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::StoreError;
use super::position::{position, position_before, sequence_at};
use super::rows::Rows;
use super::scan::{self, Places};
use super::writer::Unit;
use crate::domain::event::{MAX_SEQUENCE, Sequence};
use crate::domain::stream::StreamNo;
use crate::mutants::mutant;

/// Ids that a stream keeps out of the index, at least; fewer than twice as many at most.
const UNINDEXED: usize = 64;

const INSERT: &str = "INSERT INTO event_ids (stream_no, event_key, sequence) VALUES (?1, ?2, ?3)";

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

    fn read(
        connection: &Connection,
        rows: &mut Rows<'_>,
        stream_no: StreamNo,
        ids: &Ids,
    ) -> Result<Self, StoreError> {
        let mut recent = Recent::default();
        let (_, to) = ids.sorted_places(stream_no);
        if ids.sorted_to > 0 {
            // The last of them, unless retention took it with all others.
            rows.each_key((to - 1, to), &mut |event| {
                recent.highest_sorted = event.note.key.to_vec();
                Ok(scan::ON)
            })?;
        }
        let indexed: Option<Vec<u8>> = connection
            .prepare_cached("SELECT max(event_key) FROM event_ids WHERE stream_no = ?1")?
            .query_row([stream_no], |row| row.get(0))?;
        recent.highest = indexed.unwrap_or_default().max(recent.highest_sorted.clone());
        rows.each_key(ids.places(stream_no), &mut |event| {
            recent.add(event.note.key);
            Ok(scan::ON)
        })?;
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

    /// The same of the events whose ids are among the sorted ones.
    fn sorted_places(&self, stream_no: StreamNo) -> (i64, i64) {
        let before = position_before(stream_no);
        (before, before | self.sorted_to as i64)
    }

    fn recent(
        &mut self,
        connection: &Connection,
        rows: &mut Rows<'_>,
        stream_no: StreamNo,
    ) -> Result<&mut Recent, StoreError> {
        if self.recent.is_none() {
            self.recent = Some(Recent::read(connection, rows, stream_no, self)?);
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
        let places = ids.places(stream_no);
        let sorted = ids.sorted_places(stream_no);
        let (is_sorted, is_indexed) = (ids.sorted_to > 0, ids.indexed_to > ids.sorted_to);
        let recent = ids.recent(self.connection, &mut self.rows, stream_no)?;
        if *key > *recent.highest {
            return Ok(None);
        }
        if recent.hashes.contains(&hash(key)) {
            let mut held = None;
            self.rows.each_key(places, &mut |event| {
                let is_it = event.note.key == key;
                held = is_it.then_some(event.position);
                Ok(if is_it { ControlFlow::Break(()) } else { scan::ON })
            })?;
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
        let Some(place) = find_sorted(&mut self.rows, sorted, key, near)? else { return Ok(None) };
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
        let places = head.ids.places(stream_no);
        let recent = head.ids.recent(self.connection, &mut self.rows, stream_no)?;
        if sequence.get() <= indexed_to {
            recent.raise(key);
            self.connection.prepare_cached(INSERT)?.execute(params![
                stream_no,
                key,
                sequence.get() as i64
            ])?;
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
        let mut index = self.connection.prepare_cached(INSERT)?;
        self.rows.each_key(places, &mut |event| {
            let sequence = sequence_at(event.position)?.get() as i64;
            index.execute(params![stream_no, event.note.key, sequence])?;
            Ok(scan::ON)
        })
    }
}

/// The place of an id among those that ascend with their places, in halves. `near` is looked at first.
fn find_sorted(
    rows: &mut Rows<'_>,
    (mut after, mut to): Places,
    key: &[u8],
    near: i64,
) -> Result<Option<i64>, StoreError> {
    let mut middle = near.clamp(after + 1, to);
    if rows.event_at(middle)?.is_some_and(|event| event.note.key == key) {
        return Ok(Some(middle));
    }
    while after < to {
        let mut next = None;
        rows.each_key((middle - 1, to), &mut |event| {
            next = Some((event.position, event.note.key.cmp(key)));
            Ok(ControlFlow::Break(()))
        })?;
        match next {
            Some((place, Ordering::Equal)) => return Ok(Some(place)),
            Some((place, Ordering::Less)) => after = place,
            // Retention may have been there.
            Some((_, Ordering::Greater)) | None => to = middle - 1,
        }
        middle = after + 1 + (to - after - 1) / 2;
    }
    Ok(None)
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}
