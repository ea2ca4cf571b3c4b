//! Stored events as subscribers get them: encoded once, in the format they asked for.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::domain::event::Sequence;
use crate::domain::holes::GapReason;
use crate::protocol::envelope::Federation;
use crate::protocol::sse::{self, Control};
use crate::protocol::tenant_field::Renaming;

/// How a subscriber wants events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Server-sent events.
    Sse,
    /// One JSON envelope per line.
    Ndjson,
}

/// Writes envelopes for one stream. Remembers the metadata of the last event: events of one commit share it.
#[derive(Debug, Clone)]
pub struct Encoder {
    format: Format,
    home: String,
    /// The subscriber has another name for the tenant.
    renaming: Option<Renaming>,
    federation: Vec<u8>,
    federation_of: Option<(i64, bool)>,
}

impl Encoder {
    /// An encoder for a stream with this home.
    pub fn new(format: Format, home: &str) -> Self {
        Encoder { format, home: home.to_owned(), renaming: None, federation: Vec::new(), federation_of: None }
    }

    /// The same, for a subscriber that has another name for the tenant.
    pub fn renaming(self, renaming: Option<Renaming>) -> Self {
        Encoder { renaming, ..self }
    }

    /// True when its subscriber gets the same bytes as others do.
    pub fn is_for_all(&self) -> bool {
        self.renaming.is_none()
    }

    /// Adds one event.
    pub fn event(
        &mut self,
        out: &mut Vec<u8>,
        sequence: Sequence,
        received_at_ms: i64,
        derived: bool,
        event: &[u8],
    ) {
        if self.federation_of != Some((received_at_ms, derived)) {
            self.federation = federation(&self.home, received_at_ms, derived);
            self.federation_of = Some((received_at_ms, derived));
        }
        let event = in_words(self.renaming.as_ref(), event);
        match self.format {
            Format::Sse => sse::event_frame(out, sequence.get(), &event, &self.federation),
            Format::Ndjson => {
                envelope(out, &event, &self.federation);
                out.push(b'\n');
            }
        }
    }

    /// Adds a control frame. NDJSON says it as `{"<name>":{…}}`, where an event line has `event`.
    pub fn control(&self, out: &mut Vec<u8>, control: Control, body: &Value) {
        match self.format {
            Format::Sse => sse::control_frame(out, control, body.to_string().as_bytes()),
            Format::Ndjson => {
                out.extend_from_slice(json!({ control.name(): body }).to_string().as_bytes());
                out.push(b'\n');
            }
        }
    }

    /// What keeps an idle connection alive.
    pub fn heartbeat(&self) -> Bytes {
        match self.format {
            Format::Sse => Bytes::from_static(sse::HEARTBEAT),
            Format::Ndjson => Bytes::from_static(b"\n"),
        }
    }
}

/// An event in the words of who gets it.
pub fn in_words<'a>(renaming: Option<&Renaming>, event: &'a [u8]) -> Cow<'a, [u8]> {
    renaming.map_or(Cow::Borrowed(event), |renaming| renaming.apply(event))
}

/// Writes `{"event":…,"federation":…}`.
pub fn envelope(out: &mut Vec<u8>, event: &[u8], federation: &[u8]) {
    out.extend_from_slice(b"{\"event\":");
    out.extend_from_slice(event);
    out.extend_from_slice(b",\"federation\":");
    out.extend_from_slice(federation);
    out.push(b'}');
}

/// What this gateway says beside an event.
pub fn federation(home: &str, received_at_ms: i64, derived: bool) -> Vec<u8> {
    let received_at = rfc3339(received_at_ms);
    let said = Federation { home, received_at: &received_at, derived };
    serde_json::to_vec(&said).unwrap_or_else(|_| b"{}".to_vec())
}

/// A gap frame's body: the missing range, inclusive.
pub fn gap_body(from: u64, to: u64, reason: GapReason, oldest: u64) -> Value {
    json!({
        "from_sequence": from,
        "to_sequence": to,
        "reason": reason.as_str(),
        "oldest_sequence": oldest,
    })
}
