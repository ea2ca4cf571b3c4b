//! Reading events out of their rows, one by one, in order, wherever they lie.
//!
//! Who scans must be in a transaction: an event that is put in its place meanwhile would be in neither table.

use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension, Row};

use super::error::StoreError;
use super::rows::{Note, Notes, Placed, damaged, more};
use crate::mutants::mutant;

/// Above the one and up to the other, within one stream.
pub(super) type Places = (i64, i64);
/// Sees an event, and says whether to go on.
pub(super) type Visit<'a> = dyn FnMut(Placed<'_>) -> Result<ControlFlow<()>, StoreError> + 'a;
/// Go on.
pub(super) const ON: ControlFlow<()> = ControlFlow::Continue(());

/// Shows every event of these places, in order. One whose bytes have changed ends it.
pub(super) fn each_event(
    connection: &Connection,
    places: Places,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    each_as_it_is(connection, places, &mut |event| visit(sound(event)?))
}

/// The event, unless its bytes have changed.
fn sound(event: Placed<'_>) -> Result<Placed<'_>, StoreError> {
    let is_sound = i64::from(crc32fast::hash(event.json)) == event.note.checksum;
    if is_sound { Ok(event) } else { Err(damaged(event.position)) }
}

/// As [`each_event`], whether or not bytes have changed.
pub(super) fn each_as_it_is(
    connection: &Connection,
    places: Places,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    Scan { connection, content: Content::Json, places, visit }.run()
}

/// As [`each_event`], but without their bytes.
pub(super) fn each_key(
    connection: &Connection,
    places: Places,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    Scan { connection, content: Content::Notes, places, visit }.run()
}

/// As [`each_key`]. Where a row's notes have changed, the keys are empty, and only the sum of the lengths is right:
/// retention does not stop at damage.
pub(super) fn each_length(
    connection: &Connection,
    places: Places,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    Scan { connection, content: Content::Lengths, places, visit }.run()
}

/// Shows every event of a table, in the order of their places, as it is.
pub(super) fn each_in(connection: &Connection, table: &str, visit: &mut Visit<'_>) -> Result<(), StoreError> {
    let content = Content::Json;
    let sql = format!("SELECT {} FROM {table} ORDER BY position", content.columns());
    Scan { connection, content, places: (i64::MIN, i64::MAX), visit }.each_row(&sql, []).map(drop)
}

/// Looks at every event, as a log of an earlier version holds them too. One whose bytes have changed ends it.
pub(super) fn check_all(connection: &Connection) -> Result<(), StoreError> {
    let tables = "SELECT name FROM sqlite_schema
                  WHERE type = 'table' AND name IN ('events', 'events_sorted', 'events_arrived')";
    let mut statement = connection.prepare(tables)?;
    let tables = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    tables.iter().try_for_each(|table| each_in(connection, table, &mut |event| sound(event).map(|_| ON)))
}

/// The last place in the row that holds this one, which may be this one.
pub(super) fn end_of_row(connection: &Connection, position: i64) -> Result<i64, StoreError> {
    let row = row_before(connection, position)?;
    Ok(row.map_or(position, |(_, end)| end.max(position)))
}

/// The first and the last place of the last row of a stream that begins at this place or before it.
fn row_before(connection: &Connection, position: i64) -> Result<Option<Places>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT position, flags FROM events_sorted WHERE position > (?1 >> 32 << 32) AND position <= ?1
         ORDER BY position DESC LIMIT 1",
    )?;
    let row = statement.query_row([position], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?))).optional()?;
    Ok(row.map(|(first, flags)| (first, first + more(flags))))
}

/// What is read of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Json,
    Notes,
    Lengths,
}

impl Content {
    fn columns(self) -> &'static str {
        match self {
            Content::Json => "position, event_key, received_at, flags, checksum, length(json), json",
            // The bytes of events stay where they are.
            Content::Notes | Content::Lengths => {
                "position, event_key, received_at, flags, checksum, length(json), x''"
            }
        }
    }
}

/// Rows being read.
struct Scan<'a, 'v> {
    connection: &'a Connection,
    content: Content,
    places: Places,
    visit: &'a mut Visit<'v>,
}

impl Scan<'_, '_> {
    fn run(mut self) -> Result<(), StoreError> {
        let (connection, columns, (after, to)) = (self.connection, self.content.columns(), self.places);
        let first_arrived: Option<i64> = connection
            .prepare_cached(
                "SELECT min(position) FROM events_arrived WHERE position > ?1 AND position <= ?2",
            )?
            .query_row([after, to], |row| row.get(0))?;
        let first_arrived = first_arrived.filter(|_| !mutant("arrivals_unread"));
        // A row that begins before these places may hold the first of them.
        let row_before = row_before(connection, after)?.filter(|(_, end)| *end > after);
        let first = row_before.map_or(after + 1, |(first, _)| first);
        let sorted = format!("SELECT {columns} FROM events_sorted WHERE position >= ?1 AND position <= ?2");
        let Some(arrived) = first_arrived else {
            return self.each_row(&format!("{sorted} ORDER BY position"), (first, to)).map(drop);
        };
        // Mostly all before it lies in its place, and needs no merging.
        if self.each_row(&format!("{sorted} ORDER BY position"), (first, arrived - 1))?.is_break() {
            return Ok(());
        }
        let both = format!(
            "{sorted} UNION ALL
             SELECT {columns} FROM events_arrived WHERE position >= ?1 AND position <= ?2 ORDER BY position"
        );
        self.each_row(&both, (arrived, to)).map(drop)
    }

    fn each_row(&mut self, sql: &str, range: impl rusqlite::Params) -> Result<ControlFlow<()>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            if self.row(row)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ON)
    }

    /// Shows the events of a row.
    fn row(&mut self, row: &Row<'_>) -> Result<ControlFlow<()>, StoreError> {
        let blob = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
        let (first, keys, received_at_ms) = (row.get(0)?, blob(1)?, row.get(2)?);
        let (flags, checksum, mut json) = (row.get(3)?, row.get(4)?, blob(6)?);
        let length = row.get::<_, i64>(5)? as usize;
        let note = Note { flags, received_at_ms, checksum, length, key: keys };
        let more = more(flags);
        if more == 0 {
            return self.event(Placed { position: first, note, json });
        }
        if i64::from(crc32fast::hash(keys)) != checksum {
            return self.unreadable(first, more, length);
        }
        let mut position = first;
        for note in Notes(keys) {
            let mut event: &[u8] = &[];
            if self.content == Content::Json {
                (event, json) = json.split_at_checked(note.length).ok_or_else(|| damaged(position))?;
                // The end of the line.
                json = json.get(1..).unwrap_or_default();
            }
            if self.event(Placed { position, note, json: event })?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            position += 1;
        }
        if position == first + more + 1 { Ok(ON) } else { Err(damaged(first)) }
    }

    /// Shows what is known of a row whose notes have changed.
    fn unreadable(&mut self, first: i64, more: i64, length: usize) -> Result<ControlFlow<()>, StoreError> {
        if self.content != Content::Lengths {
            return Err(damaged(first));
        }
        for position in first..=first + more {
            let length = if position == first { length.saturating_sub(more as usize) } else { 0 };
            let note = Note { flags: 0, received_at_ms: 0, checksum: 0, length, key: &[] };
            if self.event(Placed { position, note, json: &[] })?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ON)
    }

    fn event(&mut self, event: Placed<'_>) -> Result<ControlFlow<()>, StoreError> {
        let (after, to) = self.places;
        if event.position <= after {
            Ok(ON)
        } else if event.position > to {
            Ok(ControlFlow::Break(()))
        } else {
            (self.visit)(event)
        }
    }
}
