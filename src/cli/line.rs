//! How one item of a stream looks: a line for eyes, or a line of JSON for programs.
//!
//! The JSON lines are those of the API's own NDJSON: an event is its envelope, anything else an object with its
//! name as the only key.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::output::{Style, Tone, shortened, visible};
use super::stream::Item;
use crate::domain::run::RunStatus;

/// Characters shown of an event's payload.
const PAYLOAD_CHARS: usize = 100;
/// Characters shown of one value inside of a payload.
const VALUE_CHARS: usize = 60;
/// Characters shown of an event's type; the usual ones fit.
const KIND_CHARS: usize = 24;
/// What every AgentOS type begins with, and nobody needs to read.
const KIND_PREFIX: &str = "agentos.";
/// Shown where no time is known; as wide as one.
const NO_TIME: &str = "--:--:--.---";

/// What is shown of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Time of day, UTC.
    pub(super) time: String,
    /// Its sequence.
    pub(super) sequence: u64,
    /// Its type, without the usual prefix.
    pub(super) kind: String,
    /// Its payload, in short.
    pub(super) payload: String,
}

impl Row {
    /// Picks what is shown out of an envelope. Whatever is missing there is left empty.
    pub(super) fn of(sequence: u64, envelope: &str) -> Self {
        let envelope: Value = serde_json::from_str(envelope).unwrap_or(Value::Null);
        let text = |pointer: &str| envelope.pointer(pointer).and_then(Value::as_str);
        let time = text("/event/time").and_then(time_of_day);
        let time = time.or_else(|| text("/federation/received_at").and_then(time_of_day));
        let kind = text("/event/type").unwrap_or("?");
        let kind = visible(kind.strip_prefix(KIND_PREFIX).unwrap_or(kind)).into_owned();
        let payload = envelope.pointer("/event/payload").map(members).unwrap_or_default();
        Row {
            time: time.unwrap_or_else(|| NO_TIME.to_owned()),
            sequence,
            kind: shortened(&kind, KIND_CHARS * 2).into_owned(),
            payload: shortened(&payload, PAYLOAD_CHARS).into_owned(),
        }
    }

    /// The line, with `when` in the place of its time.
    pub(super) fn to_line(&self, when: &str, style: Style) -> String {
        let tone = match RunStatus::from_terminal_event_type(&format!("{KIND_PREFIX}{}", self.kind)) {
            Some(RunStatus::Completed) => Tone::Good,
            Some(_) => Tone::Bad,
            None => Tone::Name,
        };
        let line = format!(
            "{} {:>5}  {} {}",
            style.paint(Tone::Faint, when),
            self.sequence,
            style.paint(tone, format!("{:<KIND_CHARS$}", self.kind)),
            self.payload
        );
        line.trim_end().to_owned()
    }
}

/// An item for eyes; nothing where there is nothing to see.
pub(super) fn for_eyes(item: &Item, style: Style) -> Option<String> {
    let about = |tone, text: String| Some(format!("{:12}        {}", "", style.paint(tone, text)));
    match item {
        Item::Event { sequence, json } => {
            let row = Row::of(*sequence, json);
            Some(row.to_line(&row.time, style))
        }
        Item::CaughtUp { .. } => None,
        Item::Gap { from, to, reason, .. } => {
            about(Tone::Odd, format!("gap: {} ({})", sequences(*from, *to), visible(reason)))
        }
        Item::End { sequence, status, .. } => {
            about(tone_of(status), format!("end: {} at {sequence}", visible(status)))
        }
        Item::StreamError { complaint, .. } => {
            about(Tone::Bad, format!("stream error: {}", visible(&complaint.sentence())))
        }
    }
}

/// An item for programs.
pub(super) fn for_programs(item: &Item) -> String {
    match item {
        Item::Event { json, .. } => json.clone(),
        Item::CaughtUp { json } => format!("{{\"caught_up\":{json}}}"),
        Item::Gap { json, .. } => format!("{{\"gap\":{json}}}"),
        Item::End { json, .. } => format!("{{\"end\":{json}}}"),
        Item::StreamError { json, .. } => format!("{{\"stream_error\":{json}}}"),
    }
}

/// Good news or bad.
pub(super) fn tone_of(status: &str) -> Tone {
    match RunStatus::find(status) {
        Some(RunStatus::Completed) => Tone::Good,
        Some(RunStatus::Queued | RunStatus::Running) => Tone::Name,
        _ => Tone::Bad,
    }
}

fn sequences(from: u64, to: u64) -> String {
    if from == to {
        format!("event {from} is not held here")
    } else {
        format!("events {from} to {to} are not held here")
    }
}

fn time_of_day(rfc3339: &str) -> Option<String> {
    let time = OffsetDateTime::parse(rfc3339, &Rfc3339).ok()?;
    let time = time.checked_to_utc()?;
    time.format(format_description!("[hour]:[minute]:[second].[subsecond digits:3]")).ok()
}

/// A payload as `name=value` pairs.
fn members(payload: &Value) -> String {
    match payload {
        Value::Object(members) => {
            let pair = |(name, value): (&String, &Value)| format!("{}={}", visible(name), short(value));
            members.iter().map(pair).collect::<Vec<_>>().join(" ")
        }
        Value::Null => String::new(),
        other => short(other),
    }
}

/// One value; a text part (`{"type":"text","text":…}`) is its text.
fn short(value: &Value) -> String {
    let text = value.as_str().or_else(|| value.get("text").and_then(Value::as_str));
    let (text, quoted) = match text {
        Some(text) => (text.to_owned(), text.is_empty() || text.contains([' ', '"', '=', '\n', '\t'])),
        None => (value.to_string(), false),
    };
    // Cut first: what is from outside may be long.
    let text = visible(&shortened(&text, VALUE_CHARS)).into_owned();
    if quoted { format!("\"{}\"", text.replace('"', "\\\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::Complaint;

    fn event(json: &str) -> Item {
        Item::Event { sequence: 12, json: json.to_owned() }
    }

    fn shown(item: &Item) -> String {
        for_eyes(item, Style::Plain).expect("something to see")
    }

    #[test]
    fn an_event_is_one_line_with_time_sequence_type_and_payload() {
        let json = r#"{"event":{"type":"agentos.run.step.started","time":"2026-01-05T12:00:02.5+02:00",
            "payload":{"name":"plan","message":"Planning next actions","n":3,"in":{"type":"text","text":"a b"}}}}"#;
        assert_eq!(
            shown(&event(json)),
            "10:00:02.500    12  run.step.started         in=\"a b\" message=\"Planning next actions\" n=3 name=plan"
        );
    }

    #[test]
    fn an_event_that_says_nothing_is_still_a_line() {
        for json in ["{}", "null", "[]", r#"{"event":{"type":7,"time":"yesterday","payload":null}}"#] {
            assert_eq!(shown(&event(json)), "--:--:--.---    12  ?");
        }
    }

    #[test]
    fn no_payload_reaches_the_terminal_raw() {
        let json = r#"{"event":{"type":"agentos.x\u001b[2J\r\n","time":"\u001b]0;t\u0007","payload":
            {"a\u001b[1m":"\u001b[31m\r\nforged 13 line","b":["\u009b2J"],"c":"\u202egnp.exe"}}}"#;
        let line = shown(&event(json));
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(!line.contains('\u{202e}'), "{line:?}");
        let gap = Item::Gap { from: 1, to: 2, reason: "\u{1b}[2J".to_owned(), json: "{}".to_owned() };
        assert!(!shown(&gap).contains('\u{1b}'));
        let complaint = Complaint { message: Some("\u{9b}2J".to_owned()), ..Complaint::default() };
        let error = Item::StreamError { complaint, json: "{}".to_owned() };
        assert!(!shown(&error).contains('\u{9b}'));
    }

    #[test]
    fn a_huge_payload_is_a_short_line() {
        let json = format!(
            r#"{{"event":{{"type":"{}","payload":{{"a":"{}"}}}}}}"#,
            "t".repeat(500),
            "é".repeat(1_000_000)
        );
        assert!(shown(&event(&json)).chars().count() < 250);
    }

    #[test]
    fn control_frames_are_lines_too() {
        let gap = Item::Gap { from: 12, to: 40, reason: "retention".to_owned(), json: "{}".to_owned() };
        assert_eq!(shown(&gap).trim(), "gap: events 12 to 40 are not held here (retention)");
        let end = Item::End { sequence: 60, status: "completed".to_owned(), json: "{\"s\":1}".to_owned() };
        assert_eq!(shown(&end).trim(), "end: completed at 60");
        assert_eq!(for_programs(&end), r#"{"end":{"s":1}}"#);
        assert_eq!(for_eyes(&Item::CaughtUp { json: "{}".to_owned() }, Style::Plain), None);
    }
}
