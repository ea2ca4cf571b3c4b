//! An event on its way into the log, and as the log holds it.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use super::cursor::Cursor;
use super::id::{EventId, PeerId, RunId, TenantId};
use super::run::RunStatus;

/// The largest sequence the log can hold: 2³² − 1. A home that counts further is refused.
pub const MAX_SEQUENCE: u64 = u32::MAX as u64;

/// The place of an event in its stream: 1 to [`MAX_SEQUENCE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Sequence(u64);

impl Sequence {
    /// This place, if there is such a one.
    pub fn new(place: u64) -> Option<Self> {
        (1..=MAX_SEQUENCE).contains(&place).then_some(Sequence(place))
    }

    /// The place as a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Where a reader stands who has seen this event.
    pub fn cursor(self) -> Cursor {
        Cursor::at(self.0)
    }

    /// True when nothing lies between a reader there and this event.
    pub fn is_next_after(self, cursor: Cursor) -> bool {
        self.0 == cursor.next()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Where an event came from; the log checks it against the home of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A client of this gateway: its runs are homed here.
    Client,
    /// The peer with this proven id.
    Peer(PeerId),
}

/// An event that passed the door: valid, normalised, not yet stored.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Unique within its run.
    pub event_id: EventId,
    /// Given by the home; `None` asks this gateway, as the home, for the next.
    pub sequence: Option<Sequence>,
    /// The status the event's type says, when it ends the run.
    pub terminal: Option<RunStatus>,
    /// The type says that the run has begun to work.
    pub starts_work: bool,
    /// Made by a gateway from the home's status rather than by the home.
    pub derived: bool,
    /// The normalised JSON object.
    pub json: Bytes,
}

/// The run an event belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunKey {
    /// The isolation boundary.
    pub tenant: TenantId,
    /// The run, as this gateway names it.
    pub run: RunId,
}

/// An event as the log holds it.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its position in the stream.
    pub sequence: Sequence,
    /// When the log took it, in milliseconds since the Unix epoch.
    pub received_at_ms: i64,
    /// Made by a gateway from the home's status.
    pub derived: bool,
    /// The normalised JSON object.
    pub json: Bytes,
}

/// What became of one event of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// Now durable, at this sequence.
    Stored(Sequence),
    /// The log held it already, at this sequence.
    Duplicate(Sequence),
    /// Another event holds its id or its sequence: the first stays, this one was set aside.
    Conflict(ConflictKind, Sequence),
    /// Not taken.
    Rejected(Rejection),
}

/// How an event contradicts the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// Same id, other content.
    EventId,
    /// Same sequence, other id.
    Sequence,
}

/// Why an event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The sender is not the home of the run.
    #[error("the run has another home: only its home adds events to it")]
    OriginMismatch,
    /// The run has ended and the event lies after its end.
    #[error("the run has ended before this sequence")]
    StreamEnded,
    /// Retention has removed this part of the run.
    #[error("the sequence lies below what retention kept")]
    Expired,
    /// The stream is full: there is no place beyond [`MAX_SEQUENCE`].
    #[error("`sequence` must be an integer from 1 to {MAX_SEQUENCE}")]
    SequenceOutOfRange,
    /// The stream would have more separate holes than the limit.
    #[error("the run has too many holes below this sequence: send the missing events first")]
    TooManyHoles,
    /// Only the home may leave the sequence out.
    #[error("`sequence` is required: this gateway is not the home of the run")]
    SequenceRequired,
}

impl Rejection {
    /// The wire code of an ingest result.
    pub fn code(self) -> &'static str {
        match self {
            Rejection::OriginMismatch => "origin_mismatch",
            Rejection::StreamEnded => "stream_ended",
            Rejection::Expired => "cursor_expired",
            Rejection::SequenceOutOfRange | Rejection::SequenceRequired | Rejection::TooManyHoles => {
                "invalid_event"
            }
        }
    }
}
