//! What a test may tell the orchestrator about its event streams: values only, no behaviour.
//!
//! Invariant: the default is a well-behaved home; every field changes one thing and can be combined with the
//! others.

use std::{ops::RangeInclusive, time::Duration};

use super::event::GarbageFrame;

/// How events requests are answered.
#[derive(Debug, Clone)]
pub(crate) struct StreamScript {
    /// What the answer is at all.
    pub(crate) answer: StreamAnswer,
    /// Which cursor counts.
    pub(crate) cursor: CursorRule,
    /// How often each event is sent, drawn from this range.
    pub(crate) repeat: RangeInclusive<u32>,
    /// Frames that are ready together are shuffled in windows of this many; 0 and 1 keep the order.
    pub(crate) shuffle_window: usize,
    /// The seed of everything drawn.
    pub(crate) seed: u64,
    /// Whether event frames bear an `id:`.
    pub(crate) frame_id: FrameId,
    /// The shape of the data.
    pub(crate) envelope: EnvelopeShape,
    /// Whether an event keeps its id and time from one read to the next.
    pub(crate) identity: Identity,
    /// The line terminator of event frames.
    pub(crate) line_ending: LineEnding,
    /// When the stream ends.
    pub(crate) end: StreamEnd,
    /// The connection is closed after this many body bytes, in the middle of a chunk.
    pub(crate) cut_after_bytes: Option<usize>,
    /// After this many event frames no byte follows, not even a heartbeat; the connection stays open.
    pub(crate) stall_after_events: Option<usize>,
    /// The silence after which `:hb` is sent.
    pub(crate) heartbeat: Option<Duration>,
    /// Sequences that are left out.
    pub(crate) omit: Vec<Omission>,
    /// Sent in turn, one before each event.
    pub(crate) garbage: Vec<GarbageFrame>,
    /// Raw bytes before everything else, such as a BOM or a comment.
    pub(crate) prelude: Vec<u8>,
    /// A pause before each frame.
    pub(crate) pace: Duration,
    /// The bytes of one HTTP chunk; one frame per chunk when `None`.
    pub(crate) chunk_bytes: Option<usize>,
}

/// What an events request is answered with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StreamAnswer {
    /// 200 and the stream.
    Stream,
    /// This status with an error body (404, 410, 503, …).
    Status(u16),
    /// 200 and the stream under this content type.
    ContentType(String),
    /// 307 with this `Location`.
    Redirect(String),
    /// The connection is closed without an answer.
    Drop,
    /// Not even a head; the connection stays open.
    Hang,
}

/// Which cursor an events request is served from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CursorRule {
    /// The largest of all that were given.
    Honour,
    /// The one under this name (`from_sequence`, `after_sequence`, `last-event-id`).
    Only(&'static str),
    /// None: every read starts from sequence 1.
    Ignore,
}

/// Whether event frames bear an `id:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameId {
    /// `id: <sequence>`.
    Sequence,
    /// None.
    Absent,
}

/// The shape of an event frame's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnvelopeShape {
    /// `{"event":{…}}`.
    Nested,
    /// `{…}`.
    Flat,
}

/// Whether an event keeps its id and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// It does.
    Stable,
    /// Each read mints both anew for the same sequence (AgentOS).
    MintedPerRead,
}

/// The line terminator of event frames; the standard allows all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnding {
    /// `\n`
    Lf,
    /// `\r\n`
    CrLf,
    /// `\r`
    Cr,
}

/// When a stream ends cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// Follows live and ends after the terminal event.
    AtTerminal,
    /// Follows live and never ends.
    Never,
    /// Ends once history is sent (AgentOS).
    WhenDrained,
    /// Follows live and ends after this many event frames, or after the terminal event.
    AfterEvents(usize),
}

/// A sequence that is left out of a run's streams: a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Omission {
    /// The sequence.
    pub(crate) sequence: u64,
    /// The read (the first is 1) from which on it is sent after all; never when `None`.
    pub(crate) until_read: Option<usize>,
}

impl StreamScript {
    /// AgentOS' own: one frame without id, then EOF; another event id and time on every read; no cursor.
    pub(crate) fn agentos() -> Self {
        Self {
            cursor: CursorRule::Ignore,
            frame_id: FrameId::Absent,
            identity: Identity::MintedPerRead,
            end: StreamEnd::WhenDrained,
            heartbeat: None,
            ..Self::default()
        }
    }
}

impl Default for StreamScript {
    fn default() -> Self {
        Self {
            answer: StreamAnswer::Stream,
            cursor: CursorRule::Honour,
            repeat: 1..=1,
            shuffle_window: 1,
            seed: 1,
            frame_id: FrameId::Sequence,
            envelope: EnvelopeShape::Nested,
            identity: Identity::Stable,
            line_ending: LineEnding::Lf,
            end: StreamEnd::AtTerminal,
            cut_after_bytes: None,
            stall_after_events: None,
            heartbeat: Some(Duration::from_secs(15)),
            omit: Vec::new(),
            garbage: Vec::new(),
            prelude: Vec::new(),
            pace: Duration::ZERO,
            chunk_bytes: None,
        }
    }
}
