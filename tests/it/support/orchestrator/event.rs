//! Events and how they look on the wire, the good frames and the bad ones.
//!
//! Invariant: an event's text is what the test gave, byte for byte, in every read, unless the script asks for
//! an identity minted per read.

use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    runs::Run,
    stream_script::{EnvelopeShape, FrameId, Identity, LineEnding, StreamScript},
};

/// One event as its home holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its position in the run's stream.
    pub(crate) sequence: u64,
    /// Its id.
    pub(crate) event_id: String,
    /// Its type.
    pub(crate) event_type: String,
    /// The event object (not the envelope), verbatim.
    pub(crate) text: String,
}

/// What no reader may take for an event, and what must not disturb those around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GarbageFrame {
    /// Data that is not JSON.
    NotJson,
    /// A sound envelope of another tenant, at the sequence of the next good event.
    WrongTenant,
    /// A sound envelope of another run, at the sequence of the next good event.
    WrongRun,
    /// An envelope whose event has no `event_id`.
    WithoutEventId,
    /// One `data:` line of this many bytes.
    OversizedLine(usize),
    /// A byte-order mark in the middle of the stream.
    Bom,
    /// Data that is not UTF-8.
    InvalidUtf8,
    /// A frame without `id:` whose data is JSON, but no event.
    WithoutId,
    /// The same, its lines ended by a lone CR.
    CarriageReturns,
    /// `data: {"done":true}`, as the successor of AgentOS ends its streams.
    DoneMarker,
}

impl GarbageFrame {
    /// One of each, the oversized line with this many bytes.
    pub(crate) fn one_of_each(oversized: usize) -> Vec<Self> {
        vec![
            Self::NotJson,
            Self::WrongTenant,
            Self::WrongRun,
            Self::WithoutEventId,
            Self::OversizedLine(oversized),
            Self::Bom,
            Self::InvalidUtf8,
            Self::WithoutId,
            Self::CarriageReturns,
            Self::DoneMarker,
        ]
    }

    /// The bytes of the frame, as it stands before the event with this sequence of this run.
    pub(super) fn to_bytes(self, run: &Run, sequence: u64) -> Vec<u8> {
        let envelope = |change: fn(&mut Value)| {
            let mut event = run.event_value(sequence, "agentos.run.step.completed", json!({"garbage": true}));
            change(&mut event);
            format!("id: {sequence}\nevent: agentos.event\ndata: {}\n\n", json!({ "event": event }))
                .into_bytes()
        };
        match self {
            Self::NotJson => b"event: agentos.event\ndata: {\"event\": oops\n\n".to_vec(),
            Self::WrongTenant => envelope(|event| event["tenant_id"] = json!("tnt_other")),
            Self::WrongRun => envelope(|event| event["run_id"] = json!("run_other")),
            Self::WithoutEventId => envelope(|event| {
                event.as_object_mut().expect("an event is an object").remove("event_id");
            }),
            Self::OversizedLine(bytes) => {
                let filler = "x".repeat(bytes.saturating_sub("data: ".len()));
                format!("event: agentos.event\ndata: {filler}\n\n").into_bytes()
            }
            Self::Bom => "\u{feff}event: agentos.event\ndata: {\"note\":\"bom\"}\n\n".into(),
            Self::InvalidUtf8 => b"event: agentos.event\ndata: {\"note\":\"\xff\xfe\"}\n\n".to_vec(),
            Self::WithoutId => b"event: agentos.event\ndata: {\"note\":\"no id\"}\n\n".to_vec(),
            Self::CarriageReturns => b"event: agentos.event\rdata: {\"note\":\"cr\"}\r\r".to_vec(),
            Self::DoneMarker => b"data: {\"done\":true}\n\n".to_vec(),
        }
    }
}

impl Event {
    /// The event this text is; it must be an object with `sequence`, `event_id` and `type`.
    pub(super) fn from_text(text: &str) -> Self {
        #[derive(Deserialize)]
        struct Probe {
            sequence: u64,
            event_id: String,
            #[serde(rename = "type")]
            event_type: String,
        }
        let probe: Probe =
            serde_json::from_str(text).expect("an event object with sequence, event_id and type");
        let Probe { sequence, event_id, event_type } = probe;
        Self { sequence, event_id, event_type, text: text.to_owned() }
    }

    /// Whether it ends its run.
    pub(super) fn is_terminal(&self) -> bool {
        ["agentos.run.completed", "agentos.run.failed", "agentos.run.canceled"]
            .contains(&self.event_type.as_str())
    }

    /// The SSE frame the script makes of it.
    pub(super) fn to_frame(&self, script: &StreamScript) -> Vec<u8> {
        let text = match script.identity {
            Identity::Stable => self.text.clone(),
            Identity::MintedPerRead => self.text_minted_anew(),
        };
        let data = match script.envelope {
            EnvelopeShape::Nested => format!("{{\"event\":{text}}}"),
            EnvelopeShape::Flat => text,
        };
        let mut frame = match script.frame_id {
            FrameId::Sequence => format!("id: {}\n", self.sequence),
            FrameId::Absent => String::new(),
        };
        frame.push_str("event: agentos.event\n");
        for line in data.lines() {
            frame.push_str("data: ");
            frame.push_str(line);
            frame.push('\n');
        }
        frame.push('\n');
        match script.line_ending {
            LineEnding::Lf => frame.into_bytes(),
            LineEnding::CrLf => frame.replace('\n', "\r\n").into_bytes(),
            LineEnding::Cr => frame.replace('\n', "\r").into_bytes(),
        }
    }

    fn text_minted_anew(&self) -> String {
        let mut event: Value = serde_json::from_str(&self.text).expect("an event's text is JSON");
        event["event_id"] = json!(mint("evt"));
        event["time"] = json!(rfc3339(OffsetDateTime::now_utc()));
        event.to_string()
    }
}

/// A fresh id with this prefix, ordered by time.
pub(super) fn mint(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::now_v7().simple())
}

/// A time as the wire writes it.
pub(super) fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).expect("a present time can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = r#"{"type":"a.b", "sequence":3,"n":1.50e1,"event_id":"evt_a","time":"then"}"#;

    #[test]
    fn a_stable_event_keeps_its_text_byte_for_byte() {
        let frame = Event::from_text(ODD).to_frame(&StreamScript::default());
        let expected = format!("id: 3\nevent: agentos.event\ndata: {{\"event\":{ODD}}}\n\n");
        assert_eq!(String::from_utf8(frame).expect("text"), expected);
    }

    #[test]
    fn an_event_minted_per_read_keeps_its_sequence_and_changes_id_and_time() {
        let event = Event::from_text(ODD);
        let (first, second) = (event.text_minted_anew(), event.text_minted_anew());
        let (first, second) = (Event::from_text(&first), Event::from_text(&second));
        assert_eq!((first.sequence, second.sequence), (3, 3));
        assert_ne!(first.event_id, second.event_id);
        assert!(!first.text.contains("then"));
    }

    #[test]
    fn a_flat_event_without_id_can_end_its_lines_with_a_lone_cr_or_crlf() {
        let flat = StreamScript {
            envelope: EnvelopeShape::Flat,
            frame_id: FrameId::Absent,
            line_ending: LineEnding::Cr,
            ..StreamScript::default()
        };
        let frame = Event::from_text(ODD).to_frame(&flat);
        assert_eq!(frame, format!("event: agentos.event\rdata: {ODD}\r\r").into_bytes());
        let windows = StreamScript { line_ending: LineEnding::CrLf, ..flat };
        let frame = Event::from_text(ODD).to_frame(&windows);
        assert_eq!(frame, format!("event: agentos.event\r\ndata: {ODD}\r\n\r\n").into_bytes());
    }
}
