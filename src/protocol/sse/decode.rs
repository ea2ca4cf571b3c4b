//! Peers' bytes into frames: a push parser of WHATWG HTML §9.2.6 that a hostile peer cannot hurt.
//!
//! The invariant: whatever the bytes and however they are cut into chunks, the same frames come out, in time
//! linear in the bytes and memory bounded by [`Limits`] plus one chunk; nothing panics; and nothing comes out
//! that a blank line did not end, so a connection cut in mid-frame never surfaces as data.
//!
//! Where this differs from a browser's EventSource, on purpose:
//!
//! - [`Frame::id`] is what the frame itself said. The standard lets a frame inherit the last id seen, and
//!   then whoever drops repeated ids drops real events. The id of a frame without data goes with the frame.
//! - A line or an event over its limit is an error in the frame's place. The rest of that frame is passed over
//!   without being kept, and the stream goes on behind it.
//! - A `retry` too large for a `u64` of milliseconds is the largest one. An empty `retry` is ignored.
//! - A frame without data is not a frame, as in the standard, but [`Decoder::last_retry`] still shows its
//!   `retry`.
//!
//! Bytes that are not UTF-8 become U+FFFD, as the standard has it. This is done per field value; it is the
//! same as doing it on the stream, since the bytes that delimit (LF, CR, colon, space) are never inside a
//! longer sequence.

use std::str;
use std::time::Duration;

use memchr::{memchr, memchr2};
use thiserror::Error;

/// The byte order mark, dropped once, at the start of the stream.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An empty input buffer larger than this is given back: a big chunk must not weigh on an idle stream.
const RETAINED_BYTES: usize = 64 * 1024;

/// How much of a peer's stream the decoder is willing to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest line, comments too, in bytes without its end. A longer one is
    /// [`DecodeError::LineTooLong`], as soon as so many bytes have come, whether its end has or not.
    pub line_bytes: usize,
    /// The largest frame: its data, event name and id together, in bytes of UTF-8 after replacement. A larger
    /// one is [`DecodeError::EventTooLarge`]. Comments and unknown fields do not count; they are not kept.
    pub event_bytes: usize,
}

/// One dispatched frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// The `id` this frame gave, never one inherited. `Some("")` is an `id` field without a value.
    pub id: Option<String>,
    /// The `event` name; `None` where it is absent or empty, which is the type `message`.
    pub event: Option<String>,
    /// The `data` lines, joined by LF. A frame has at least one, but that one may be empty.
    pub data: String,
    /// The `retry` this frame gave. The peer chose it: clamp before waiting.
    pub retry: Option<Duration>,
}

/// Why a frame was passed over. The peer is at fault; what follows is read as ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A line is longer than [`Limits::line_bytes`].
    #[error("a line of the event stream is longer than {limit_bytes} bytes")]
    LineTooLong {
        /// The limit that was in force.
        limit_bytes: usize,
    },
    /// A frame is larger than [`Limits::event_bytes`].
    #[error("an event of the event stream is larger than {limit_bytes} bytes")]
    EventTooLarge {
        /// The limit that was in force.
        limit_bytes: usize,
    },
}

/// Reads one event stream: [`push`](Self::push) what has arrived, then take frames until there are none.
pub struct Decoder {
    limits: Limits,
    lines: Lines,
    pending: Pending,
    last_retry: Option<Duration>,
}

/// The bytes not yet decoded, cut into lines.
///
/// `start <= scanned <= bytes.len()`; between `start` and `scanned` there is no line end, so no byte is
/// looked at twice.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Where the current line starts.
    start: usize,
    /// How far a line end has been looked for.
    scanned: usize,
    /// The last line ended in CR, so an LF right behind it belongs to that end.
    after_carriage_return: bool,
    /// The current line is over its limit: it is dropped as it comes, up to its end.
    too_long: bool,
    /// The first bytes are known to be, or not to be, the byte order mark.
    started: bool,
    /// Bytes looked at and bytes moved, to prove that the work is linear.
    #[cfg(test)]
    work: usize,
}

/// The frame under way, until a blank line dispatches it.
#[derive(Default)]
struct Pending {
    frame: Frame,
    /// A `data` field came, even an empty one: that is what makes a frame dispatch.
    has_data: bool,
    /// Something in it was over a limit: nothing of it is kept.
    spoiled: bool,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, lines: Lines::default(), pending: Pending::default(), last_retry: None }
    }

    /// Takes the next bytes of the stream, cut anywhere.
    ///
    /// Take every frame before the next push: the bound on memory counts one chunk, not several.
    pub fn push(&mut self, chunk: &[u8]) {
        self.lines.bytes.extend_from_slice(chunk);
    }

    /// Bytes that were added and are not decoded yet.
    pub fn buffered(&self) -> usize {
        self.lines.bytes.len() - self.lines.start
    }

    /// The next frame that the bytes so far complete; `None` when more are needed.
    ///
    /// # Errors
    ///
    /// A line or a frame over its limit, once per frame. What was held of that frame is let go, the rest of it
    /// is passed over, and the next call goes on behind it.
    pub fn next_frame(&mut self) -> Option<Result<Frame, DecodeError>> {
        loop {
            match self.advance() {
                Ok(frame) => return frame.map(Ok),
                Err(_) if self.pending.spoiled => {} // said already
                Err(error) => {
                    self.pending = Pending { spoiled: true, ..Pending::default() };
                    return Some(Err(error));
                }
            }
        }
    }

    /// The last `retry` the stream gave, on a frame or between frames. To be clamped, as on a frame.
    #[must_use]
    pub fn last_retry(&self) -> Option<Duration> {
        self.last_retry
    }

    /// The memory allocated for input and for the frame under way, in bytes.
    ///
    /// At most twice (for growth) the sum of [`Limits::line_bytes`], [`Limits::event_bytes`] and the largest
    /// chunk.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.lines.bytes.capacity() + self.pending.text_bytes(String::capacity)
    }

    /// Handles lines until one dispatches a frame, or no whole line is left.
    fn advance(&mut self) -> Result<Option<Frame>, DecodeError> {
        while let Some(line) = self.lines.next_line(self.limits.line_bytes)? {
            if line.is_empty() {
                if let Some(frame) = self.pending.dispatch() {
                    return Ok(Some(frame));
                }
                continue;
            }
            if self.pending.spoiled {
                continue;
            }
            let (name, value) = split_field(line);
            match name {
                b"data" => self.pending.add_data(value, self.limits.event_bytes)?,
                b"event" => self.pending.set_event(value, self.limits.event_bytes)?,
                b"id" => self.pending.set_id(value, self.limits.event_bytes)?,
                b"retry" => {
                    if let Some(retry) = parse_retry(value) {
                        self.pending.frame.retry = Some(retry);
                        self.last_retry = Some(retry);
                    }
                }
                // A comment (its name is empty) or a field the standard does not know.
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Lines {
    /// The next whole line, without its end.
    fn next_line(&mut self, limit_bytes: usize) -> Result<Option<&[u8]>, DecodeError> {
        if !self.pass_byte_order_mark() {
            return Ok(None);
        }
        loop {
            self.pass_line_feed();
            let unscanned = self.bytes.get(self.scanned..).unwrap_or_default();
            let found = memchr2(b'\n', b'\r', unscanned);
            let end = self.scanned + found.unwrap_or(unscanned.len());
            self.note_work(end - self.scanned);
            if self.too_long {
                self.start_line_at(end);
            } else if end - self.start > limit_bytes {
                self.too_long = true;
                self.start_line_at(end);
                if found.is_none() {
                    self.drop_decoded();
                }
                return Err(DecodeError::LineTooLong { limit_bytes });
            }
            if found.is_none() {
                self.scanned = end;
                self.drop_decoded();
                return Ok(None);
            }
            let line = self.start..end;
            self.after_carriage_return = self.bytes.get(end) == Some(&b'\r');
            self.start_line_at(end + 1);
            if !std::mem::take(&mut self.too_long) {
                return Ok(self.bytes.get(line));
            }
        }
    }

    fn start_line_at(&mut self, start: usize) {
        self.start = start;
        self.scanned = start;
    }

    /// Drops the byte order mark; false while the first bytes may still become one.
    fn pass_byte_order_mark(&mut self) -> bool {
        if !self.started {
            if self.bytes.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&self.bytes) {
                return false;
            }
            self.started = true;
            if self.bytes.starts_with(BYTE_ORDER_MARK) {
                self.start_line_at(BYTE_ORDER_MARK.len());
            }
        }
        true
    }

    /// Drops an LF that completes a CRLF. The CR has already ended its line: waiting for this byte would hold
    /// back a frame that is complete.
    fn pass_line_feed(&mut self) {
        if self.after_carriage_return
            && let Some(byte) = self.bytes.get(self.start)
        {
            self.after_carriage_return = false;
            self.start_line_at(self.start + usize::from(*byte == b'\n'));
        }
    }

    /// Moves the unfinished line to the front.
    ///
    /// Only called when no line is left, so each byte moves at most once: the unfinished line came with, or
    /// after, the chunk that ended the line before it.
    fn drop_decoded(&mut self) {
        if self.start == 0 {
            return;
        }
        self.bytes.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.note_work(self.bytes.len());
        if self.bytes.is_empty() {
            self.bytes.shrink_to(RETAINED_BYTES);
        }
    }

    #[cfg(test)]
    fn note_work(&mut self, bytes: usize) {
        self.work += bytes;
    }

    #[cfg(not(test))]
    fn note_work(&self, _bytes: usize) {}
}

impl Pending {
    /// Appends one line of data.
    fn add_data(&mut self, value: &[u8], limit_bytes: usize) -> Result<(), DecodeError> {
        let others = self.text_bytes(String::len) - self.frame.data.len();
        if self.has_data {
            self.frame.data.push('\n');
        }
        self.has_data = true;
        append_text(&mut self.frame.data, value, limit_bytes.saturating_sub(others))
            .ok_or(DecodeError::EventTooLarge { limit_bytes })
    }

    /// Replaces the event name; an empty one is none.
    fn set_event(&mut self, value: &[u8], limit_bytes: usize) -> Result<(), DecodeError> {
        self.frame.event = None;
        let name = self.text(value, limit_bytes)?;
        self.frame.event = Some(name).filter(|name| !name.is_empty());
        Ok(())
    }

    /// Replaces the id; one with a NUL is ignored, as the standard has it.
    fn set_id(&mut self, value: &[u8], limit_bytes: usize) -> Result<(), DecodeError> {
        if memchr(0, value).is_none() {
            self.frame.id = None;
            self.frame.id = Some(self.text(value, limit_bytes)?);
        }
        Ok(())
    }

    /// What a blank line does: the frame if it has data, nothing otherwise; in both cases a clean start.
    fn dispatch(&mut self) -> Option<Frame> {
        let Self { frame, has_data, spoiled: _ } = std::mem::take(self);
        has_data.then_some(frame)
    }

    /// A value as text, if the frame has room for it.
    fn text(&self, value: &[u8], limit_bytes: usize) -> Result<String, DecodeError> {
        let mut text = String::new();
        append_text(&mut text, value, limit_bytes.saturating_sub(self.text_bytes(String::len)))
            .ok_or(DecodeError::EventTooLarge { limit_bytes })?;
        Ok(text)
    }

    /// The frame's texts together, each measured by `size`.
    fn text_bytes(&self, size: fn(&String) -> usize) -> usize {
        let Frame { id, event, data, retry: _ } = &self.frame;
        id.as_ref().map_or(0, size) + event.as_ref().map_or(0, size) + size(data)
    }
}

/// A field's name and value. No colon means no value; one space behind the colon is not part of the value.
fn split_field(line: &[u8]) -> (&[u8], &[u8]) {
    let Some((name, value)) = memchr(b':', line).and_then(|colon| line.split_at_checked(colon)) else {
        return (line, b"");
    };
    let value = value.strip_prefix(b":").unwrap_or(value);
    (name, value.strip_prefix(b" ").unwrap_or(value))
}

/// Appends `bytes`, U+FFFD for what is not UTF-8; `None` where `text` would grow past `longest` bytes.
fn append_text(text: &mut String, bytes: &[u8], longest: usize) -> Option<()> {
    if let Ok(valid) = str::from_utf8(bytes) {
        return append_within(text, valid, longest);
    }
    for chunk in bytes.utf8_chunks() {
        append_within(text, chunk.valid(), longest)?;
        if !chunk.invalid().is_empty() {
            append_within(text, "\u{FFFD}", longest)?;
        }
    }
    Some(())
}

/// Appends `more`; `None` where `text` would grow past `longest` bytes.
fn append_within(text: &mut String, more: &str, longest: usize) -> Option<()> {
    if text.len().saturating_add(more.len()) > longest {
        return None;
    }
    text.push_str(more);
    Some(())
}

/// A `retry` value: one or more ASCII digits and nothing else.
fn parse_retry(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let milliseconds = value
        .iter()
        .fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Limits = Limits { line_bytes: 8 * 1024 * 1024, event_bytes: 8 * 1024 * 1024 };

    /// Bytes looked at and moved while `stream` is decoded in chunks of `chunk_bytes`.
    fn work(stream: &[u8], chunk_bytes: usize) -> usize {
        let mut decoder = Decoder::new(ROOMY);
        for chunk in stream.chunks(chunk_bytes) {
            decoder.push(chunk);
            while decoder.next_frame().is_some() {}
        }
        decoder.lines.work
    }

    // defect 10 (no line limit in the origin), and the quadratic re-parse of `eventsource-stream`.
    #[test]
    fn the_work_is_linear_in_the_bytes_however_they_arrive() {
        let four_mebibytes = 4 * 1024 * 1024;
        let unterminated = vec![b'x'; four_mebibytes];
        assert_eq!(work(&unterminated, 1024), four_mebibytes);

        let frames = b"id: 1\ndata: {\"a\":1}\n\n".repeat(2000);
        let comments = b":\n".repeat(100_000);
        for stream in [&frames, &comments] {
            for chunk_bytes in [1, 7, 1024, stream.len()] {
                // Each byte is looked at once and, as part of an unfinished line, moved once.
                assert!(work(stream, chunk_bytes) <= 2 * stream.len());
            }
        }
    }
}
