//! The heads of active streams, owned by the writer: where each stream ends and what it lacks.
//!
//! Invariant: what is cached equals what the open transaction would read. A unit that fails gives back
//! every head it touched; a group that fails empties the cache.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::StoreError;
use super::event_ids::Ids;
use super::quotas;
use crate::domain::event::Sequence;
use crate::domain::holes::{GapReason, Head, Hole};
use crate::domain::run::RunStatus;
use crate::domain::stream::{StreamNo, StreamState};

/// Heads kept in memory. Beyond it the clean ones are dropped and read again when needed.
const CACHED_HEADS: usize = 10_000;

/// The row of a stream, and its holes.
#[derive(Debug, Clone)]
pub(super) struct StreamHead {
    pub(super) stream_no: StreamNo,
    pub(super) tenant: Arc<str>,
    /// The peer that gives sequences; empty means this gateway.
    pub(super) home: Arc<str>,
    pub(super) head: Head,
    pub(super) revision: u64,
    pub(super) status: RunStatus,
    pub(super) ended: bool,
    pub(super) lost: Option<Arc<str>>,
    pub(super) event_count: u64,
    pub(super) byte_count: u64,
    pub(super) finished_at_ms: Option<i64>,
    /// It is from a copy, and was given sequences since that are not known here.
    pub(super) restored: bool,
    pub(super) ids: Ids,
    saved: Saved,
}

/// What the row of a stream knows of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Saved {
    /// Its tenant's usage knows them too.
    bytes: u64,
    oldest: u64,
    status: Option<RunStatus>,
    ended: bool,
    lost: Option<Arc<str>>,
    finished_at_ms: Option<i64>,
    holds_events: bool,
    ids_to: (u64, u64),
}

impl StreamHead {
    /// A stream nothing was appended to yet.
    pub(super) fn new(stream_no: StreamNo, tenant: &str, home: &str, status: RunStatus) -> Self {
        StreamHead {
            stream_no,
            tenant: Arc::from(tenant),
            home: Arc::from(home),
            head: Head::default(),
            revision: 0,
            status,
            ended: false,
            lost: None,
            event_count: 0,
            byte_count: 0,
            finished_at_ms: None,
            restored: false,
            ids: Ids::none(),
            saved: Saved::default(),
        }
    }

    fn as_saved(&self) -> Saved {
        Saved {
            bytes: self.byte_count,
            oldest: self.head.oldest(),
            status: Some(self.status),
            ended: self.ended,
            lost: self.lost.clone(),
            finished_at_ms: self.finished_at_ms,
            holds_events: self.event_count > 0,
            ids_to: (self.ids.sorted_to, self.ids.indexed_to),
        }
    }

    /// The run's end is held, and nothing below it can still come.
    pub(super) fn is_complete(&self) -> bool {
        self.ended && self.head.holes().iter().all(|hole| hole.reason.is_some())
    }

    /// Followers were told that this sequence will not come.
    pub(super) fn is_given_up(&self, sequence: Sequence) -> bool {
        let mut holes = self.head.holes().iter();
        holes.any(|hole| hole.reason.is_some() && (hole.from..=hole.to).contains(&sequence.get()))
    }

    /// By how many bytes it has moved since its row was written.
    fn growth(&self) -> i64 {
        self.byte_count as i64 - self.saved.bytes as i64
    }

    /// What readers may know.
    pub(super) fn state(&self) -> StreamState {
        StreamState {
            revision: self.revision,
            oldest: self.head.oldest(),
            last: self.head.last(),
            high_water: self.head.high_water(),
            holes: Arc::from(self.head.holes()),
            ended: self.ended,
            status: self.status,
            lost: self.lost.clone(),
        }
    }
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Heads {
    by_number: HashMap<StreamNo, StreamHead>,
    /// The streams of runs: by tenant, then by run.
    numbers: HashMap<Box<str>, HashMap<Box<str>, StreamNo>>,
    /// Changed in this group, not yet written.
    dirty: BTreeSet<StreamNo>,
    /// What the unit at work touched, as it was before; `None` while nothing can be undone.
    undo: Option<Vec<Touched>>,
}

/// A head that the unit at work touched.
#[derive(Debug)]
struct Touched {
    number: StreamNo,
    /// `None` when the unit created it.
    before: Option<StreamHead>,
    was_dirty: bool,
}

impl Heads {
    /// A unit of work begins that can be undone.
    pub(super) fn begin_unit(&mut self) {
        self.undo.get_or_insert_default().clear();
    }

    /// Nothing is undone any more but by [`Heads::clear`].
    pub(super) fn end_units(&mut self) {
        self.undo = None;
    }

    /// The unit failed: everything it touched is as before.
    pub(super) fn undo_unit(&mut self) {
        for Touched { number, before, was_dirty } in self.undo.take().into_iter().flatten().rev() {
            if !was_dirty {
                self.dirty.remove(&number);
            }
            match before {
                Some(head) => drop(self.by_number.insert(number, head)),
                None => {
                    self.by_number.remove(&number);
                    for streams in self.numbers.values_mut() {
                        streams.retain(|_, known| *known != number);
                    }
                }
            }
        }
    }

    /// The group failed, or somebody changed rows behind the cache: forget everything.
    pub(super) fn clear(&mut self) {
        *self = Heads::default();
    }

    /// The stream of a run, by the run's name.
    pub(super) fn find(
        &mut self,
        connection: &Connection,
        tenant: &str,
        run: &str,
    ) -> Result<Option<StreamNo>, StoreError> {
        if let Some(number) = self.numbers.get(tenant).and_then(|streams| streams.get(run)) {
            return Ok(Some(*number));
        }
        let number: Option<StreamNo> = connection
            .prepare_cached("SELECT stream_no FROM runs WHERE tenant_id = ?1 AND run_id = ?2")?
            .query_row(params![tenant, run], |row| row.get(0))
            .optional()?;
        if let Some(number) = number {
            self.remember(tenant, run, number);
        }
        Ok(number)
    }

    fn remember(&mut self, tenant: &str, run: &str, number: StreamNo) {
        let streams = self.numbers.entry(Box::from(tenant)).or_default();
        streams.insert(Box::from(run), number);
    }

    /// Creates the stream of a run that is new, empty, with its row.
    pub(super) fn create(
        &mut self,
        connection: &Connection,
        (tenant, run): (&str, &str),
        home: &str,
        status: RunStatus,
        now_ms: i64,
    ) -> Result<StreamNo, StoreError> {
        connection
            .prepare_cached(
                "INSERT INTO streams (tenant_id, stream_id, home, status, created_at, updated_at)
                 VALUES (?1, 'run/' || ?2, ?3, ?4, ?5, ?5)",
            )?
            .execute(params![tenant, run, home, status.as_str(), now_ms])?;
        let number = StreamNo::new(connection.last_insert_rowid());
        self.remember(tenant, run, number);
        self.by_number.insert(number, StreamHead::new(number, tenant, home, status));
        if let Some(undo) = &mut self.undo {
            undo.push(Touched { number, before: None, was_dirty: false });
        }
        Ok(number)
    }

    /// A head, to look at.
    pub(super) fn get(
        &mut self,
        connection: &Connection,
        number: StreamNo,
    ) -> Result<&StreamHead, StoreError> {
        self.cached(connection, number).map(|head| &*head)
    }

    /// The ids of a stream, which are read when they are first asked for.
    pub(super) fn ids(&mut self, connection: &Connection, number: StreamNo) -> Result<&mut Ids, StoreError> {
        self.cached(connection, number).map(|head| &mut head.ids)
    }

    fn cached(&mut self, connection: &Connection, number: StreamNo) -> Result<&mut StreamHead, StoreError> {
        match self.by_number.entry(number) {
            Entry::Occupied(held) => Ok(held.into_mut()),
            Entry::Vacant(free) => Ok(free.insert(load(connection, number)?)),
        }
    }

    /// A head, to change: its row is written when the group commits.
    pub(super) fn change(
        &mut self,
        connection: &Connection,
        number: StreamNo,
    ) -> Result<&mut StreamHead, StoreError> {
        self.get(connection, number)?;
        let head = self.by_number.get_mut(&number).ok_or_else(|| missing(number))?;
        let was_dirty = !self.dirty.insert(number);
        if let Some(undo) = &mut self.undo
            && !undo.iter().any(|touched| touched.number == number)
        {
            undo.push(Touched { number, before: Some(head.clone()), was_dirty });
        }
        Ok(head)
    }

    /// Writes every changed head, and what that changes for their tenants, and answers which moved.
    pub(super) fn flush(
        &mut self,
        connection: &Connection,
        now_ms: i64,
    ) -> Result<Vec<StreamNo>, StoreError> {
        let moved: Vec<StreamNo> = std::mem::take(&mut self.dirty).into_iter().collect();
        let mut grown: BTreeMap<Arc<str>, i64> = BTreeMap::new();
        for number in &moved {
            if let Some(head) = self.by_number.get_mut(number) {
                head.revision += 1;
                save(connection, head, now_ms)?;
                *grown.entry(Arc::clone(&head.tenant)).or_default() += head.growth();
                head.saved = head.as_saved();
            }
        }
        for (tenant, by) in grown.iter().filter(|(_, by)| **by != 0) {
            quotas::move_bytes(connection, tenant, *by)?;
        }
        Ok(moved)
    }

    /// Keeps the cache small, once the group is committed and published.
    pub(super) fn trim(&mut self) {
        if self.by_number.len() > CACHED_HEADS {
            self.clear();
        }
    }

    /// The bytes of a tenant's events, with what this group has changed so far.
    pub(super) fn stored_bytes(&self, connection: &Connection, tenant: &str) -> Result<u64, StoreError> {
        let committed = quotas::committed_bytes(connection, tenant)?;
        let changed = self.dirty.iter().filter_map(|number| self.by_number.get(number));
        let growth: i64 = changed.filter(|head| *head.tenant == *tenant).map(StreamHead::growth).sum();
        Ok((committed + growth).max(0) as u64)
    }

    /// A head that is in the cache.
    pub(super) fn peek(&self, number: StreamNo) -> Option<&StreamHead> {
        self.by_number.get(&number)
    }
}

fn missing(number: StreamNo) -> StoreError {
    StoreError::Inconsistent { table: "streams", column: "stream_no", row: number.to_string() }
}

/// Writes the row of a stream: what every append moves, and the rest, which indexes look at, if it has moved.
fn save(connection: &Connection, head: &StreamHead, now_ms: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE streams
             SET last_sequence = ?2, revision = ?3, event_count = ?4, byte_count = ?5, updated_at = ?6
             WHERE stream_no = ?1",
        )?
        .execute(params![
            head.stream_no,
            head.head.last() as i64,
            head.revision as i64,
            head.event_count as i64,
            head.byte_count as i64,
            now_ms,
        ])?;
    let now = head.as_saved();
    if now == (Saved { bytes: now.bytes, ..head.saved.clone() }) {
        return Ok(());
    }
    connection
        .prepare_cached(
            "UPDATE streams
             SET oldest_sequence = ?2, status = ?3, ended = ?4, lost_reason = ?5, finished_at = ?6,
                 holds_events = ?7, ids_sorted_to = ?8, ids_to = ?9
             WHERE stream_no = ?1",
        )?
        .execute(params![
            head.stream_no,
            now.oldest as i64,
            head.status.as_str(),
            now.ended,
            now.lost.as_deref(),
            now.finished_at_ms,
            now.holds_events,
            now.ids_to.0 as i64,
            now.ids_to.1 as i64,
        ])?;
    Ok(())
}

/// Reads a stream's row and holes.
pub(super) fn load(connection: &Connection, number: StreamNo) -> Result<StreamHead, StoreError> {
    let holes = load_holes(connection, number)?;
    let mut statement = connection.prepare_cached(
        "SELECT home, oldest_sequence, last_sequence, revision, status, ended, lost_reason,
                event_count, byte_count, finished_at, tenant_id, ids_sorted_to, ids_to,
                EXISTS (SELECT 1 FROM restored_streams WHERE restored_streams.stream_no = streams.stream_no)
         FROM streams WHERE stream_no = ?1",
    )?;
    let row = statement
        .query_row([number], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, i64>(3)?,
                row.get::<_, String>(4)?,
                row.get::<_, bool>(5)?,
                row.get::<_, Option<String>>(6)?,
                (row.get::<_, i64>(7)?, row.get::<_, i64>(8)?, row.get::<_, Option<i64>>(9)?),
                row.get::<_, String>(10)?,
                (row.get::<_, i64>(11)?, row.get::<_, i64>(12)?),
                row.get::<_, bool>(13)?,
            ))
        })
        .optional()?
        .ok_or_else(|| missing(number))?;
    let (home, oldest, last, revision, status, ended, lost, counts, tenant, ids_to, restored) = row;
    let (event_count, byte_count, finished_at_ms) = counts;
    let inconsistent =
        |column| StoreError::Inconsistent { table: "streams", column, row: number.to_string() };
    let head = StreamHead {
        stream_no: number,
        tenant: Arc::from(tenant),
        home: Arc::from(home),
        head: Head::restore(oldest as u64, last as u64, holes).map_err(|_| inconsistent("last_sequence"))?,
        revision: revision as u64,
        status: RunStatus::find(&status).ok_or_else(|| inconsistent("status"))?,
        ended,
        lost: lost.map(Arc::from),
        event_count: event_count as u64,
        byte_count: byte_count as u64,
        finished_at_ms,
        restored,
        ids: Ids::up_to(ids_to.0 as u64, ids_to.1 as u64),
        saved: Saved::default(),
    };
    Ok(StreamHead { saved: head.as_saved(), ..head })
}

fn load_holes(connection: &Connection, number: StreamNo) -> Result<Vec<Hole>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT from_sequence, to_sequence, since, reason FROM holes
         WHERE stream_no = ?1 ORDER BY from_sequence",
    )?;
    let rows = statement.query_map([number], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?, row.get::<_, Option<String>>(3)?))
    })?;
    rows.map(|row| {
        let (from, to, since_ms, reason) = row?;
        let reason = match reason {
            None => None,
            Some(name) => Some(GapReason::parse(&name).ok_or_else(|| StoreError::Inconsistent {
                table: "holes",
                column: "reason",
                row: format!("{number}/{from}"),
            })?),
        };
        Ok(Hole { from: from as u64, to: to as u64, since_ms, reason })
    })
    .collect()
}
