//! The frames we send, as bytes.
//!
//! The invariant: what leaves here is read alike by every client measured (browsers, the SDKs, `curl`). So
//! each frame is `id:`, `event:` and exactly one `data:` line, ended by LF; an `id:` stands on every event
//! and on nothing else (a control frame with one would move a client's cursor over events it never saw); no
//! frame lacks data; there is no byte order mark. The functions append to a buffer of the caller's, allocate
//! nothing beside its growth, and write no bytes but whole lines; the caller hands each frame to the
//! connection in one piece.
//!
//! The JSON given is taken as it is: on one line, with U+2028, U+2029 and U+0085 escaped, because clients
//! that split text at those cut the payload. A raw LF or CR would forge a frame; it is caught where it would
//! be our own mistake, in debug builds.

use std::time::Duration;

use memchr::memchr2;

/// What keeps an idle connection alive: a comment with **one** newline.
///
/// A second one would be a blank line, on which some clients deliver an empty event and one crashes.
pub const HEARTBEAT: &[u8] = b":hb\n";

/// The `event:` name of every frame that carries an event.
pub const EVENT_NAME: &str = "agentos.event";

/// Room for the field names, line ends and the longest number and name of one frame.
const FRAME_OVERHEAD_BYTES: usize = 96;

/// The most decimal digits a `u64` has.
const DECIMAL_DIGITS: usize = 20;

/// A frame about the stream itself. It has no `id:`, so it never moves a client's cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Control {
    /// History ends here and live events begin. Once per connection.
    CaughtUp,
    /// A range of sequences is not held, and is announced instead of skipped.
    Gap,
    /// The run has finished and all of it was sent; the server closes.
    End,
    /// The stream cannot go on; the server closes. Not named `error`: EventSource gives that name to its own
    /// failures.
    StreamError,
}

impl Control {
    /// Every control frame there is.
    pub const ALL: [Self; 4] = [Self::CaughtUp, Self::Gap, Self::End, Self::StreamError];

    /// The `event:` name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CaughtUp => "caught_up",
            Self::Gap => "gap",
            Self::End => "end",
            Self::StreamError => "stream_error",
        }
    }
}

/// Writes `retry: N\n`, the time a client waits before it connects again, in whole milliseconds.
///
/// Only at the start of a connection's first frame, directly followed by that frame: a `retry:` with a blank
/// line of its own is an empty event to some clients and a crash to one.
pub fn retry_prefix(out: &mut Vec<u8>, retry: Duration) {
    out.extend_from_slice(b"retry: ");
    push_decimal(out, u64::try_from(retry.as_millis()).unwrap_or(u64::MAX));
    out.push(b'\n');
}

/// Writes one event: its sequence as the `id:`, the envelope `{"event":…,"federation":…}` as the data.
///
/// `event` and `federation` are each one JSON value on one line (see the head of this file).
pub fn event_frame(out: &mut Vec<u8>, sequence: u64, event: &[u8], federation: &[u8]) {
    debug_assert!(is_one_line(event), "an event with a raw line end");
    debug_assert!(is_one_line(federation), "federation metadata with a raw line end");
    out.reserve(event.len() + federation.len() + FRAME_OVERHEAD_BYTES);
    out.extend_from_slice(b"id: ");
    push_decimal(out, sequence);
    out.extend_from_slice(b"\nevent: ");
    out.extend_from_slice(EVENT_NAME.as_bytes());
    out.extend_from_slice(b"\ndata: {\"event\":");
    out.extend_from_slice(event);
    out.extend_from_slice(b",\"federation\":");
    out.extend_from_slice(federation);
    out.extend_from_slice(b"}\n\n");
}

/// Writes one control frame. `json` is one JSON value on one line (see the head of this file).
pub fn control_frame(out: &mut Vec<u8>, control: Control, json: &[u8]) {
    debug_assert!(is_one_line(json), "control data with a raw line end");
    out.reserve(json.len() + FRAME_OVERHEAD_BYTES);
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(control.name().as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
}

/// Whether `json` is something, and has no byte that would end its `data:` line early.
fn is_one_line(json: &[u8]) -> bool {
    !json.is_empty() && memchr2(b'\n', b'\r', json).is_none()
}

/// Appends `number` in base ten, without the allocation and the formatter of `to_string`.
fn push_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0_u8; DECIMAL_DIGITS];
    let mut rest = number;
    let mut first = DECIMAL_DIGITS;
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        first = place;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits.iter().skip(first));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_frame_is_id_event_and_one_data_line() {
        let mut out = Vec::new();
        event_frame(&mut out, 12, br#"{"a":1}"#, br#"{"home":"stk_b"}"#);
        let expected = "id: 12\nevent: agentos.event\n\
            data: {\"event\":{\"a\":1},\"federation\":{\"home\":\"stk_b\"}}\n\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn a_control_frame_has_its_wire_name_and_no_id() {
        for (control, name) in Control::ALL.into_iter().zip(["caught_up", "gap", "end", "stream_error"]) {
            let mut out = Vec::new();
            control_frame(&mut out, control, b"{}");
            let expected = format!("event: {name}\ndata: {{}}\n\n");
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn retry_is_a_line_without_a_blank_line() {
        let mut out = Vec::new();
        retry_prefix(&mut out, Duration::from_millis(2000));
        assert_eq!(out, b"retry: 2000\n");
    }

    #[test]
    fn a_heartbeat_has_one_newline() {
        assert_eq!(HEARTBEAT, b":hb\n");
    }

    #[test]
    fn a_number_is_written_as_the_formatter_would() {
        let mut numbers = vec![0, 9, 10, 99, 100, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        numbers.extend((0..64).map(|bit| 1_u64 << bit));
        for number in numbers {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            assert_eq!(String::from_utf8_lossy(&out), number.to_string());
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "raw line end")]
    fn a_raw_line_end_in_our_own_json_is_our_mistake() {
        event_frame(&mut Vec::new(), 1, b"{\n}", b"null");
    }
}
