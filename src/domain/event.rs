//! An event on its way into the log, and as the log holds it.

use bytes::Bytes;

use super::id::{EventId, PeerId, RunId, TenantId};
use super::run::RunStatus;

/// The largest sequence the log can hold: 2³² − 1. A home that counts further is refused.
pub const MAX_SEQUENCE: u64 = u32::MAX as u64;

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
    pub sequence: Option<u64>,
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
    pub sequence: u64,
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
    Stored(u64),
    /// The log held it already, at this sequence.
    Duplicate(u64),
    /// Another event holds its id or its sequence: the first stays, this one was set aside.
    Conflict(ConflictKind, u64),
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
    /// Zero, or beyond [`MAX_SEQUENCE`].
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
