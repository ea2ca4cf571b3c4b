//! How events lie in rows: alone, or with those that follow them in their stream, each on a line of its own.
//!
//! A row costs SQLite several times what the bytes of an event in it do, so what a unit appends to a stream goes into
//! few of them. A row is known by its first event; `flags >> 8` says how many more there are. With any more, its
//! `event_key` holds a note on each, and its `checksum` is that of the notes:
//!
//! ```text
//! flags 1 byte, received_at 8, CRC-32 of the event 4, its length 4, the length of its key 2, its key
//! ```
//!
//! Numbers are big-endian. Stored for ever: a change here is a migration.
//!
//! Invariants: the events of a row follow each other without a hole; no place is in two rows; an event whose bytes
//! have changed is never handed out, and harms no other.

use rusqlite::{CachedStatement, Connection, params};

use super::error::StoreError;
use super::event_log::misplaced;
use super::position::described;
use super::scan::{self, Places};
use crate::mutants::mutant;

/// Flag: made by a gateway from the home's status.
pub(super) const DERIVED: i64 = 1;
/// Above the flags of an event: how many more the row holds.
const MORE_SHIFT: u32 = 8;

// Where a place is taken already, the checksum is missing, and the row is ignored.
const INSERT_SORTED: &str = "INSERT OR IGNORE INTO events_sorted
        (position, event_key, received_at, flags, checksum, json)
    VALUES (?1, ?2, ?3, ?4,
        (SELECT ?5 WHERE ?1 > coalesce(
                (SELECT position + (flags >> 8) FROM events_sorted
                 WHERE position > (?1 >> 32 << 32) AND position <= ?1 + (?4 >> 8)
                 ORDER BY position DESC LIMIT 1), 0)
             AND NOT EXISTS (SELECT 1 FROM events_arrived WHERE position BETWEEN ?1 AND ?1 + (?4 >> 8))), ?6)";
const INSERT_ARRIVED: &str = "INSERT OR IGNORE INTO events_arrived
        (position, event_key, received_at, flags, checksum, json)
    VALUES (?1, ?2, ?3, ?4,
        (SELECT ?5 WHERE ?1 > coalesce(
                (SELECT position + (flags >> 8) FROM events_sorted
                 WHERE position > (?1 >> 32 << 32) AND position <= ?1
                 ORDER BY position DESC LIMIT 1), 0)), ?6)";
// Of events that are moved. OR FAIL: what failed is undone with the whole group, so SQLite need not copy each page to
// undo this alone.
const MOVE: &str = "INSERT OR FAIL INTO events_sorted
        (position, event_key, received_at, flags, checksum, json) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// An event and its place, borrowed from whoever has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) position: i64,
    pub(super) note: Note<'a>,
    /// The normalised event object.
    pub(super) json: &'a [u8],
}

/// What a row says of one of its events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note<'a> {
    pub(super) flags: i64,
    pub(super) received_at_ms: i64,
    /// CRC-32 of the event.
    pub(super) checksum: i64,
    /// Bytes of the event.
    pub(super) length: usize,
    /// Its id in compact form (`event_key`).
    pub(super) key: &'a [u8],
}

impl<'a> Note<'a> {
    /// Of an event that is new.
    pub(super) fn of(json: &[u8], key: &'a [u8], received_at_ms: i64, flags: i64) -> Self {
        let (checksum, length) = (i64::from(crc32fast::hash(json)), json.len());
        Note { flags, received_at_ms, checksum, length, key }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.flags as u8);
        out.extend_from_slice(&self.received_at_ms.to_be_bytes());
        out.extend_from_slice(&(self.checksum as u32).to_be_bytes());
        out.extend_from_slice(&(self.length as u32).to_be_bytes());
        out.extend_from_slice(&(self.key.len() as u16).to_be_bytes());
        out.extend_from_slice(self.key);
    }
}

/// The notes of a row that holds several events.
pub(super) struct Notes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        let (flags, rest) = self.0.split_first()?;
        let (received_at, rest) = rest.split_first_chunk()?;
        let (checksum, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (key_length, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*key_length).into())?;
        self.0 = rest;
        Some(Note {
            flags: i64::from(*flags),
            received_at_ms: i64::from_be_bytes(*received_at),
            checksum: i64::from(u32::from_be_bytes(*checksum)),
            length: u32::from_be_bytes(*length) as usize,
            key,
        })
    }
}

/// How many events a row with these flags holds besides its first.
pub(super) fn more(flags: i64) -> i64 {
    flags >> MORE_SHIFT
}

/// Events that follow each other, as one row holds them.
#[derive(Debug, Default)]
pub(super) struct PackedRow {
    first: i64,
    events: i64,
    notes: Vec<u8>,
    json: Vec<u8>,
}

impl PackedRow {
    /// True when `event` follows those that are in it, and leaves it within `bytes`.
    fn takes(&self, event: &Placed<'_>, bytes: usize) -> bool {
        self.events == 0
            || (event.position == self.first + self.events && self.json.len() + event.json.len() < bytes)
    }

    fn add(&mut self, event: &Placed<'_>) {
        if self.events == 0 {
            self.first = event.position;
        } else {
            self.json.push(b'\n');
        }
        self.events += 1;
        event.note.write(&mut self.notes);
        self.json.extend_from_slice(event.json);
    }

    /// Writes it, if there is anything in it, and is empty again.
    fn write(&mut self, statement: &mut CachedStatement<'_>) -> Result<(), StoreError> {
        let Some(first) = Notes(&self.notes).next() else { return Ok(()) };
        let (keys, flags, checksum) = if self.events == 1 {
            (first.key, first.flags, first.checksum)
        } else {
            let checksum = i64::from(crc32fast::hash(&self.notes));
            (&self.notes[..], (self.events - 1) << MORE_SHIFT, checksum)
        };
        let values = params![self.first, keys, first.received_at_ms, flags, checksum, &self.json[..]];
        if statement.execute(values)? == 0 {
            return Err(misplaced(self.first));
        }
        self.clear();
        Ok(())
    }

    /// The event of this place, if it is in there.
    fn get(&self, position: i64) -> Option<Placed<'_>> {
        let nth = position.checked_sub(self.first).filter(|nth| (0..self.events).contains(nth))?;
        let mut start = 0;
        for note in Notes(&self.notes).take(nth as usize) {
            // The end of the line besides.
            start += note.length + 1;
        }
        let note = Notes(&self.notes).nth(nth as usize)?;
        let json = self.json.get(start..start + note.length)?;
        Some(Placed { position, note, json })
    }

    fn clear(&mut self) {
        self.events = 0;
        self.notes.clear();
        self.json.clear();
    }
}

/// The rows that a unit of work writes, and reads: what waits for its row is written before anything is read.
pub(super) struct Rows<'a> {
    connection: &'a Connection,
    /// Events are written one by one, in the order of their arrival.
    as_they_arrive: bool,
    /// A row takes no further event beyond as many bytes.
    row_bytes: usize,
    /// Kept at hand while a batch is appended.
    insert: Option<CachedStatement<'a>>,
    waiting: &'a mut PackedRow,
    /// Where an event was last looked for.
    found: PackedRow,
}

impl<'a> Rows<'a> {
    /// Whatever waits in `waiting` is of a unit that failed.
    pub(super) fn new(
        connection: &'a Connection,
        waiting: &'a mut PackedRow,
        as_they_arrive: bool,
        row_bytes: usize,
    ) -> Self {
        waiting.clear();
        Rows { connection, as_they_arrive, row_bytes, insert: None, waiting, found: PackedRow::default() }
    }

    /// Takes an event whose place is free, as its head said.
    pub(super) fn insert(&mut self, event: &Placed<'_>) -> Result<(), StoreError> {
        if self.as_they_arrive || !self.waiting.takes(event, self.row_bytes) {
            self.write()?;
        }
        self.waiting.add(event);
        Ok(())
    }

    /// Writes what waits for its row.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        if self.waiting.events == 0 {
            return Ok(());
        }
        let insert = match &mut self.insert {
            Some(insert) => insert,
            none => {
                let sql = if self.as_they_arrive { INSERT_ARRIVED } else { INSERT_SORTED };
                none.insert(self.connection.prepare_cached(sql)?)
            }
        };
        self.waiting.write(insert)
    }

    /// The event of this place, as it is. Whoever repeats one mostly repeats the next: the rest of its row is kept at
    /// hand.
    pub(super) fn event_at(&mut self, position: i64) -> Result<Option<Placed<'_>>, StoreError> {
        self.write()?;
        if self.found.get(position).is_none() {
            self.found.clear();
            let places = (position - 1, scan::end_of_row(self.connection, position)?);
            scan::each_as_it_is(self.connection, places, &mut |event| {
                self.found.add(&event);
                Ok(scan::ON)
            })?;
        }
        Ok(self.found.get(position))
    }

    /// As [`scan::each_length`].
    pub(super) fn each_length(
        &mut self,
        places: Places,
        visit: &mut scan::Visit<'_>,
    ) -> Result<(), StoreError> {
        self.write()?;
        scan::each_length(self.connection, places, visit)
    }

    /// As [`scan::each_key`].
    pub(super) fn each_key(&mut self, places: Places, visit: &mut scan::Visit<'_>) -> Result<(), StoreError> {
        self.write()?;
        scan::each_key(self.connection, places, visit)
    }

    /// Removes the events of these places, which retention alone may. What else is in their last row stays.
    pub(super) fn remove(&mut self, places: Places) -> Result<(), StoreError> {
        self.write()?;
        self.found.clear();
        let (after, to) = places;
        let rest_of_row = (to, scan::end_of_row(self.connection, to)?);
        let mut rest = PackedRow::default();
        let read = scan::each_as_it_is(self.connection, rest_of_row, &mut |event| {
            rest.add(&event);
            Ok(scan::ON)
        });
        match read {
            // What cannot be read any more goes with it.
            Ok(()) | Err(StoreError::Inconsistent { .. }) => {}
            Err(error) => return Err(error),
        }
        for table in ["events_sorted", "events_arrived"] {
            let delete = format!("DELETE FROM {table} WHERE position > ?1 AND position <= ?2");
            self.connection.prepare_cached(&delete)?.execute(params![after, to])?;
        }
        if mutant("rest_of_row_removed") {
            return Ok(());
        }
        rest.write(&mut self.connection.prepare_cached(MOVE)?)
    }
}

/// Puts all that lies in the order of its arrival in rows of up to `row_bytes`.
pub(super) fn sort_in(connection: &Connection, row_bytes: usize) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(MOVE)?;
    let mut row = PackedRow::default();
    scan::each_in(connection, "events_arrived", &mut |event| {
        if !row.takes(&event, row_bytes) {
            row.write(&mut insert)?;
        }
        row.add(&event);
        Ok(scan::ON)
    })?;
    row.write(&mut insert)
}

/// The row that holds this place contradicts itself.
pub(super) fn damaged(position: i64) -> StoreError {
    StoreError::Inconsistent { table: "events", column: "checksum", row: described(position) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Said = (u8, i64, u32, u32, Vec<u8>);

    fn said(note: &Note<'_>) -> Said {
        let &Note { flags, received_at_ms, checksum, length, key } = note;
        (flags as u8, received_at_ms, checksum as u32, length as u32, key.to_vec())
    }

    fn note((flags, received_at_ms, checksum, length, key): &Said) -> Note<'_> {
        let (flags, checksum, length) = ((*flags).into(), (*checksum).into(), *length as usize);
        Note { flags, received_at_ms: *received_at_ms, checksum, length, key }
    }

    fn any_note() -> impl Strategy<Value = Said> {
        any::<(u8, i64, u32, u32)>().prop_flat_map(|(a, b, c, d)| {
            prop::collection::vec(any::<u8>(), 0..300).prop_map(move |key| (a, b, c, d, key))
        })
    }

    proptest! {
        #[test]
        fn notes_are_read_as_they_were_written(all in prop::collection::vec(any_note(), 0..5)) {
            let mut bytes = Vec::new();
            all.iter().for_each(|one| note(one).write(&mut bytes));
            prop_assert_eq!(Notes(&bytes).map(|note| said(&note)).collect::<Vec<_>>(), all);
        }

        // A row that was damaged so that its checksum still fits.
        #[test]
        fn whatever_stands_there_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Notes(&bytes).count() <= bytes.len() / 19);
        }
    }
}
