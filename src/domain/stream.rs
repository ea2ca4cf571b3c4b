//! One event stream as a reader sees it at one moment.

use std::fmt;
use std::sync::Arc;

use super::cursor::Cursor;
use super::holes::Hole;
use super::run::RunStatus;

/// One stream of this log, by the number that its rows bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamNo(i64);

impl StreamNo {
    /// The stream whose rows bear this number.
    pub fn new(number: i64) -> Self {
        StreamNo(number)
    }

    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for StreamNo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A copy of a stream's head: small, shared, replaced as a whole when the stream moves.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// Grows with every change, so that of two copies the newer one is known.
    pub revision: u64,
    /// The first sequence retention kept.
    pub oldest: u64,
    /// The largest sequence stored, 0 for none.
    pub last: u64,
    /// The largest sequence with no hole below it.
    pub high_water: u64,
    /// The ranges not held between `oldest` and `last`, in order.
    pub holes: Arc<[Hole]>,
    /// A terminal event is stored: nothing follows `last`.
    pub ended: bool,
    /// How far the run has come.
    pub status: RunStatus,
    /// Why the run is lost, when its home forgot it.
    pub lost: Option<Arc<str>>,
}

impl StreamState {
    /// The first hole that may still be filled.
    pub fn open_hole(&self) -> Option<&Hole> {
        self.holes.iter().find(|hole| hole.reason.is_none())
    }

    /// Where a reader of the home goes on: everything up to here is held or missing for good.
    pub fn resume_from(&self) -> Cursor {
        Cursor::at(self.open_hole().map_or(self.last.max(self.oldest - 1), |hole| hole.from - 1))
    }

    /// The run's end is held, and nothing below it can still come.
    pub fn is_complete(&self) -> bool {
        self.ended && self.open_hole().is_none()
    }

    /// The hole that a reader at `cursor` meets next, if one lies ahead.
    pub fn next_hole(&self, cursor: Cursor) -> Option<&Hole> {
        let at = self.holes.partition_point(|hole| hole.to <= cursor.get());
        self.holes.get(at)
    }

    /// How far can be read from `cursor` before a hole or the end.
    pub fn readable_to(&self, cursor: Cursor) -> Cursor {
        Cursor::at(self.next_hole(cursor).map_or(self.last, |hole| (hole.from - 1).min(self.last)))
    }
}
