//! The SSE decoder and encoder from outside: against each other, against the standard, against another
//! parser, and against bytes that mean harm.
//!
//! The oracle is `eventsource-stream` 0.2.3. Where it is known to be wrong the streams given to both avoid
//! the case, and a test here says what ours does instead:
//!
//! - it panics on a byte order mark, and one byte that is not UTF-8 stalls it for ever;
//! - a frame without an id inherits the last one: ids are compared where the frame gave one;
//! - it accepts `retry: +5`, and ignores one too large for a `u64`;
//! - it waits for the byte behind a CR, so a CR that ends the stream ends no line: a comment is put behind
//!   it.

use std::convert::Infallible;
use std::time::Duration;

use causeway::protocol::sse::{
    Control, DecodeError, Decoder, EVENT_NAME, Frame, HEARTBEAT, Limits, control_frame, event_frame,
    retry_prefix,
};
use eventsource_stream::{Event, EventStream};
use futures_util::{FutureExt, StreamExt, stream};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const ROOMY: Limits = Limits { line_bytes: 1024 * 1024, event_bytes: 1024 * 1024 };
const TIGHT: Limits = Limits { line_bytes: 24, event_bytes: 40 };

/// Everything one stream gave: its frames, and the first of those that were too large.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    frames: Vec<Frame>,
    error: Option<DecodeError>,
    last_retry: Option<Duration>,
}

/// How a stream reaches the decoder: these sizes in turn, over and over.
type Cuts = Vec<usize>;

#[derive(Debug, Clone, Copy)]
enum LineEnd {
    LineFeed,
    CarriageReturn,
    Both,
}

/// Something the encoder writes.
#[derive(Debug, Clone)]
enum Piece {
    Event { sequence: u64, event: Vec<u8>, federation: Vec<u8> },
    Control { control: Control, json: Vec<u8> },
    Heartbeat,
}

impl LineEnd {
    const ALL: [Self; 3] = [Self::LineFeed, Self::CarriageReturn, Self::Both];

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::LineFeed => b"\n",
            Self::CarriageReturn => b"\r",
            Self::Both => b"\r\n",
        }
    }

    /// The stream with each LF written as this line end.
    fn rewrite(self, wire: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(wire.len() * 2);
        for byte in wire {
            match byte {
                b'\n' => out.extend_from_slice(self.bytes()),
                other => out.push(*other),
            }
        }
        out
    }
}

impl Piece {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Event { sequence, event, federation } => event_frame(out, *sequence, event, federation),
            Self::Control { control, json } => control_frame(out, *control, json),
            Self::Heartbeat => out.extend_from_slice(HEARTBEAT),
        }
    }

    /// The frame a reader is to see.
    fn expected(&self) -> Option<Frame> {
        match self {
            Self::Event { sequence, event, federation } => {
                let (event, federation) =
                    (String::from_utf8_lossy(event), String::from_utf8_lossy(federation));
                Some(Frame {
                    id: Some(sequence.to_string()),
                    event: Some(EVENT_NAME.to_owned()),
                    data: format!("{{\"event\":{event},\"federation\":{federation}}}"),
                    retry: None,
                })
            }
            Self::Control { control, json } => Some(Frame {
                id: None,
                event: Some(control.name().to_owned()),
                data: String::from_utf8_lossy(json).into_owned(),
                retry: None,
            }),
            Self::Heartbeat => None,
        }
    }
}

/// Decodes chunks until they end or the decoder fails.
fn decode<'a>(limits: Limits, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(limits);
    let mut outcome = Outcome::default();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(result) = decoder.next_frame() {
            match result {
                Ok(frame) => outcome.frames.push(frame),
                Err(error) => outcome.error = outcome.error.or(Some(error)),
            }
        }
    }
    outcome.last_retry = decoder.last_retry();
    outcome
}

fn decode_whole(stream: &[u8]) -> Outcome {
    decode(ROOMY, [stream])
}

/// `stream` in chunks of these sizes, over and over.
fn chunks<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    let mut rest = stream;
    for size in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, behind) = rest.split_at(rest.len().min(*size));
        chunks.push(chunk);
        rest = behind;
    }
    chunks
}

/// What the oracle makes of the stream.
fn oracle(stream: &[u8], cuts: &[usize]) -> Vec<Event> {
    let chunks = chunks(stream, cuts).into_iter().map(Ok::<_, Infallible>);
    EventStream::new(stream::iter(chunks))
        .map(|event| event.expect("the streams given to the oracle are valid UTF-8"))
        .collect()
        .now_or_never()
        .expect("a stream of ready chunks never waits")
}

fn cuts() -> impl Strategy<Value = Cuts> {
    prop_oneof![Just(vec![1]), Just(vec![usize::MAX]), vec(1_usize..80, 1..6), vec(1_usize..4, 1..4)]
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

/// Text that may stand on one line.
fn line_text() -> impl Strategy<Value = String> {
    let awkward = select(vec![' ', ':', '\0', '\u{FEFF}', '\u{2028}', '\u{85}', '\t', '7', 'd']);
    vec(prop_oneof![awkward, any::<char>()], 0..12)
        .prop_map(|text| text.into_iter().filter(|c| !matches!(c, '\n' | '\r')).collect())
}

fn json() -> impl Strategy<Value = Vec<u8>> {
    (text(), any::<u64>()).prop_map(|(text, number)| {
        serde_json::json!({ "payload": text, "number": number }).to_string().into_bytes()
    })
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        4 => (any::<u64>(), json(), json())
            .prop_map(|(sequence, event, federation)| Piece::Event { sequence, event, federation }),
        2 => (select(Control::ALL.to_vec()), json())
            .prop_map(|(control, json)| Piece::Control { control, json }),
        1 => Just(Piece::Heartbeat),
    ]
}

fn line_end() -> impl Strategy<Value = LineEnd> {
    select(LineEnd::ALL.to_vec())
}

/// One line of a stream, ended; the fields, values and oddities that the oracle is right about.
fn valid_line() -> impl Strategy<Value = Vec<u8>> {
    let name = select(vec!["data", "event", "id", "", "Data", "dat", "data ", " data", "unknown"]);
    let separator = select(vec![":", ": ", ":  "]);
    let field = (name, separator, line_text())
        .prop_map(|(name, separator, value)| format!("{name}{separator}{value}"));
    let retry =
        select(vec!["retry: 2000", "retry:7", "retry: 007", "retry: x", "retry: 1.5", "retry:", "retry"]);
    let line = prop_oneof![
        6 => field,
        3 => Just(String::new()),
        2 => select(vec!["data", "data:", "event", "id", ":", ":hb"]).prop_map(str::to_owned),
        1 => retry.prop_map(str::to_owned),
    ];
    (line, line_end()).prop_map(|(line, end)| [line.as_bytes(), end.bytes()].concat())
}

/// What the grammar is made of, cut short and doubled, and what is not text at all; between bars.
const HOSTILE_TOKENS: &[u8] = b"\n|\r|\r\n|\n\n|:| |data|data:|data: x|id:|id: 1|id: \0|event: e|retry: 9|\
    \xEF\xBB\xBF|\xEF\xBB|\xFF|\xC3|\xA9|\xF0\x9F\x92|\xED\xA0\x80|\0|0123456789";

fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    let tokens: Vec<&[u8]> = HOSTILE_TOKENS.split(|byte| *byte == b'|').collect();
    let piece = prop_oneof![4 => select(tokens).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..12)];
    vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // peers §3.1
    #[test]
    fn what_is_encoded_is_decoded_again_whatever_the_line_ends_and_chunks(
        pieces in vec(piece(), 0..8), retry_ms in any::<u32>(), end in line_end(), cuts in cuts(),
    ) {
        let mut wire = Vec::new();
        retry_prefix(&mut wire, Duration::from_millis(retry_ms.into()));
        pieces.iter().for_each(|piece| piece.encode(&mut wire));
        let mut expected: Vec<Frame> = pieces.iter().filter_map(Piece::expected).collect();
        if let Some(first) = expected.first_mut() {
            first.retry = Some(Duration::from_millis(retry_ms.into()));
        }

        let wire = end.rewrite(&wire);
        let outcome = decode(ROOMY, chunks(&wire, &cuts));
        prop_assert_eq!(outcome.frames, expected);
        prop_assert_eq!(outcome.error, None);
        prop_assert_eq!(outcome.last_retry, Some(Duration::from_millis(retry_ms.into())));
    }

    // L6: a connection cut after any byte
    #[test]
    fn a_frame_comes_out_at_its_blank_line_and_never_before(
        pieces in vec(piece(), 1..6), end in line_end(), cut in any::<Index>(), cuts in cuts(),
    ) {
        let mut wire = Vec::new();
        let mut complete_at = Vec::new();
        for piece in &pieces {
            piece.encode(&mut wire);
            let written = end.rewrite(&wire).len();
            // The CR of a CRLF already ends the blank line.
            let last_byte_needed = match end {
                LineEnd::Both => written - 1,
                LineEnd::LineFeed | LineEnd::CarriageReturn => written,
            };
            complete_at.extend(piece.expected().map(|frame| (last_byte_needed, frame)));
        }
        let wire = end.rewrite(&wire);
        let (received, _lost) = wire.split_at(cut.index(wire.len() + 1));
        let expected: Vec<Frame> = complete_at
            .into_iter()
            .filter(|(last_byte_needed, _)| *last_byte_needed <= received.len())
            .map(|(_, frame)| frame)
            .collect();
        prop_assert_eq!(decode(ROOMY, chunks(received, &cuts)).frames, expected);
    }

    #[test]
    fn the_decoder_agrees_with_eventsource_stream(lines in vec(valid_line(), 0..40), cuts in cuts()) {
        let stream = [&b":start\n"[..], &lines.concat(), b":end\n"].concat();
        let ours = decode(ROOMY, chunks(&stream, &cuts)).frames;
        let theirs = oracle(&stream, &cuts);
        prop_assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            prop_assert_eq!(ours.event.as_deref().unwrap_or("message"), &theirs.event);
            prop_assert_eq!(&ours.data, &theirs.data);
            prop_assert_eq!(ours.retry, theirs.retry);
            if let Some(id) = &ours.id {
                prop_assert_eq!(id, &theirs.id);
            }
        }
    }

    // L12, attack 50
    #[test]
    fn hostile_bytes_neither_panic_nor_pass_the_limits(stream in hostile_bytes(), cuts in cuts()) {
        let mut decoder = Decoder::new(TIGHT);
        let mut largest_chunk = 0;
        for chunk in chunks(&stream, &cuts) {
            largest_chunk = largest_chunk.max(chunk.len());
            decoder.push(chunk);
            while let Some(result) = decoder.next_frame() {
                let Ok(frame) = result else { continue };
                let id_bytes = frame.id.as_ref().map_or(0, String::len);
                let event_bytes = frame.event.as_ref().map_or(0, String::len);
                prop_assert!(id_bytes + event_bytes + frame.data.len() <= TIGHT.event_bytes);
            }
            let bound = 2 * (TIGHT.line_bytes + TIGHT.event_bytes + largest_chunk);
            prop_assert!(decoder.allocated_bytes() <= bound, "{} > {bound}", decoder.allocated_bytes());
        }
    }

    #[test]
    fn hostile_bytes_mean_the_same_however_they_are_cut(stream in hostile_bytes(), cuts in cuts()) {
        for limits in [TIGHT, ROOMY] {
            prop_assert_eq!(decode(limits, chunks(&stream, &cuts)), decode(limits, [&stream[..]]));
        }
    }

    // WHATWG §9.2.5: the stream is decoded as UTF-8, with replacement, before it is read as lines.
    #[test]
    fn bytes_that_are_not_text_read_as_their_replacement_would(stream in hostile_bytes(), cuts in cuts()) {
        let replaced = String::from_utf8_lossy(&stream);
        prop_assert_eq!(decode(ROOMY, chunks(&stream, &cuts)), decode_whole(replaced.as_bytes()));
    }

    // A-24: an id on every event. A-15: the event, verbatim. C-30: its name.
    #[test]
    fn each_frame_written_has_one_data_line_and_an_id_exactly_if_it_is_an_event(piece in piece()) {
        let mut wire = Vec::new();
        piece.encode(&mut wire);
        let wire = String::from_utf8(wire).expect("JSON is UTF-8");
        let lines: Vec<&str> = wire.split('\n').collect();
        match &piece {
            Piece::Event { sequence, event, .. } => {
                let id = format!("id: {sequence}");
                prop_assert_eq!(&lines[..2], &[id.as_str(), "event: agentos.event"]);
                let data = format!("data: {{\"event\":{}", String::from_utf8_lossy(event));
                prop_assert!(lines[2].starts_with(&data));
                prop_assert_eq!(&lines[3..], &["", ""]);
            }
            Piece::Control { control, json } => {
                let (name, data) = (control.name(), String::from_utf8_lossy(json));
                prop_assert_eq!(&wire, &format!("event: {name}\ndata: {data}\n\n"));
            }
            Piece::Heartbeat => prop_assert_eq!(&lines, &[":hb", ""]),
        }
    }
}

#[test]
fn every_cut_of_a_small_stream_in_three_gives_the_same_frames() {
    let stream = "\u{FEFF}:hb\nretry: 5\nid: 1\nevent: e\ndata: \u{E9}\ndata:  b\n\n\
        data\n\n:hb\nid: 2\ndata: \u{1F4A5}\n\n";
    for end in LineEnd::ALL {
        let wire = end.rewrite(stream.as_bytes());
        let expected = decode_whole(&wire);
        let data: Vec<&str> = expected.frames.iter().map(|frame| frame.data.as_str()).collect();
        assert_eq!(data, ["\u{E9}\n b", "", "\u{1F4A5}"], "{end:?}");
        for first in 0..=wire.len() {
            let (head, rest) = wire.split_at(first);
            for second in 0..=rest.len() {
                let (middle, tail) = rest.split_at(second);
                assert_eq!(decode(ROOMY, [head, middle, tail]), expected, "{end:?}, {first} + {second}");
            }
        }
    }
}

// A-11: who drops repeated ids must not be made to drop real events.
#[test]
fn a_frame_has_the_last_id_it_gave_and_never_inherits_one() {
    let wire = b"id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\nid\ndata: d\n\n\
        id: 3\nid: x\0\ndata: e\n\nid: 4\nid: 5 6\ndata: f\n\n";
    let outcome = decode_whole(wire);
    let ids: Vec<Option<&str>> = outcome.frames.iter().map(|frame| frame.id.as_deref()).collect();
    assert_eq!(ids, [Some("1"), None, None, Some(""), Some("3"), Some("5 6")]);
}

// attack 50
#[test]
fn one_bad_byte_does_not_stall_the_events_behind_it() {
    let mut wire = b"data: a\xFFb\n\n\xFF\n\nid: \xC3\ndata: c\n\n".to_vec();
    for sequence in 0..10_000 {
        event_frame(&mut wire, sequence, b"{}", b"{}");
    }
    let frames = decode(ROOMY, wire.chunks(1024)).frames;
    assert_eq!(frames.len(), 10_002);
    assert_eq!(frames[0].data, "a\u{FFFD}b");
    assert_eq!(frames[1].id.as_deref(), Some("\u{FFFD}"));
}

// attack 50
#[test]
fn a_byte_order_mark_neither_panics_nor_loses_the_first_id() {
    let wire = b"\xEF\xBB\xBFid: 1\ndata: a\n\n";
    for size in 1..=wire.len() {
        let outcome = decode(ROOMY, wire.chunks(size));
        assert_eq!(outcome.frames.len(), 1, "chunks of {size}");
        assert_eq!(outcome.frames[0].id.as_deref(), Some("1"), "chunks of {size}");
    }
}

// defect 10: the origin reads a line of any length.
#[test]
fn a_frame_over_a_limit_is_one_error_and_spares_the_frames_around_it() {
    let (long, many) = (b"data: ".repeat(TIGHT.line_bytes), b"data: 0123456789\n".repeat(9));
    for too_much in [[&long, &b"\nid: 1\n"[..], &long].concat(), [&many, &b"id: 1\r\n"[..], &long].concat()] {
        let wire = [&b"data: a\n\n"[..], &too_much, b"\r\n\r\ndata: b\n\n"].concat();
        for size in [1, 5, wire.len()] {
            let mut decoder = Decoder::new(TIGHT);
            let mut said = Vec::new();
            for chunk in wire.chunks(size) {
                decoder.push(chunk);
                said.extend(
                    std::iter::from_fn(|| decoder.next_frame()).map(|item| item.map(|frame| frame.data)),
                );
            }
            assert!(matches!(&said[..], [Ok(a), Err(_), Ok(b)] if a == "a" && b == "b"), "{said:?}");
        }
    }
}

// defect 10
#[test]
fn a_line_at_its_limit_passes_and_one_byte_more_does_not() {
    let limits = Limits { line_bytes: 8, event_bytes: 64 };
    let too_long = Some(DecodeError::LineTooLong { limit_bytes: 8 });
    for (stream, error) in [
        (&b"data: ab\r\n\r\n"[..], None),
        (b"\xEF\xBB\xBFdata: ab\n:1234567\n", None),
        (b"data: abc\n", too_long),
        (b":12345678", too_long),
    ] {
        for size in [1, stream.len()] {
            assert_eq!(decode(limits, stream.chunks(size)).error, error, "{stream:?}");
        }
    }
}

// defect 10: many short lines make an event of any size as well.
#[test]
fn an_event_at_its_limit_passes_and_one_byte_more_does_not() {
    let limits = Limits { line_bytes: 64, event_bytes: 6 };
    // A value that is replaced does not count any more.
    let whole = b"id: abcdef\nid: 1\nevent: abcde\nevent: e\ndata: a\ndata: b\ndata:\n\n";
    let outcome = decode(limits, [&whole[..]]);
    assert_eq!(outcome.frames.len(), 1);
    assert_eq!(outcome.frames[0].data, "a\nb\n");
    for one_too_many in [
        &b"id: 1\nevent: e\ndata: a\ndata: b\ndata: c\n"[..],
        b"id: 1\nevent: e\ndata: a\ndata: b\ndata:\ndata:\n",
        b"data: 123456\nid: 1\n",
        b"data: 123456\nevent: e\n",
        b"data\ndata\ndata\ndata\ndata\ndata\ndata\ndata\n",
        // Three bytes that are not UTF-8 become nine.
        b"data: \xFF\xFF\xFF\n",
    ] {
        let outcome = decode(limits, [one_too_many]);
        assert_eq!(outcome.error, Some(DecodeError::EventTooLarge { limit_bytes: 6 }), "{one_too_many:?}");
    }
}

// defect 10, attack 50. That the work is linear is counted in the decoder's own unit tests.
#[test]
fn a_line_that_never_ends_is_refused_at_the_limit_and_held_no_further() {
    let mut decoder = Decoder::new(ROOMY);
    let chunk = [b'x'; 1024];
    let mut received = 0;
    let error = loop {
        decoder.push(&chunk);
        received += chunk.len();
        match decoder.next_frame() {
            None => assert!(decoder.allocated_bytes() <= 2 * (ROOMY.line_bytes + chunk.len())),
            Some(Ok(frame)) => panic!("no frame was ended, yet this came out: {frame:?}"),
            Some(Err(error)) => break error,
        }
    };
    assert_eq!(error, DecodeError::LineTooLong { limit_bytes: ROOMY.line_bytes });
    assert_eq!(received, ROOMY.line_bytes + chunk.len());
    decoder.push(&chunk);
    assert_eq!(decoder.next_frame(), None, "it is said once");
    assert!(decoder.allocated_bytes() <= 64 * 1024);
}

// attack 50
#[test]
fn a_million_comment_lines_hold_nothing_and_do_not_count_as_an_event() {
    let mut decoder = Decoder::new(TIGHT);
    decoder.push(b"data: a\n");
    let comments = HEARTBEAT.repeat(1000);
    for _ in 0..1000 {
        decoder.push(&comments);
        assert_eq!(decoder.next_frame(), None);
        assert!(decoder.allocated_bytes() <= 2 * (comments.len() + TIGHT.line_bytes + TIGHT.event_bytes));
    }
    decoder.push(b"\n");
    assert_eq!(decoder.next_frame(), Some(Ok(Frame { data: "a".to_owned(), ..Frame::default() })));
}

#[test]
fn one_big_chunk_does_not_weigh_on_an_idle_stream() {
    let mut decoder = Decoder::new(ROOMY);
    decoder.push(&HEARTBEAT.repeat(256 * 1024));
    assert_eq!(decoder.next_frame(), None);
    assert!(decoder.allocated_bytes() <= 64 * 1024);
}

#[test]
fn a_retry_is_digits_only_and_is_seen_between_frames_too() {
    let retry = |wire: &str| decode_whole(wire.as_bytes()).last_retry.map(|retry| retry.as_millis());
    assert_eq!(retry("data: a\n\n"), None);
    assert_eq!(retry("retry: 2000\n\n"), Some(2000));
    assert_eq!(retry("retry: 2000\n"), Some(2000));
    assert_eq!(retry("retry: 0\ndata: a\n\n"), Some(0));
    assert_eq!(retry("retry: 0002000\n"), Some(2000));
    assert_eq!(retry("retry: 99999999999999999999999\n"), Some(u128::from(u64::MAX)));
    for bogus in ["", "+5", "-1", "1.5", "1e3", "2 ", " 2", "0x10", "\u{663}"] {
        assert_eq!(retry(&format!("retry: 7\nretry: {bogus}\n")), Some(7), "{bogus:?}");
    }
}

/// After the cases of web-platform-tests `eventsource/format-*` and `event-data`, in our words: the name of a
/// case, its stream, and the data of each frame that comes out.
const FORMAT_CASES: &[(&str, &str, &[&str])] = &[
    ("bom", "\u{FEFF}data: 1\n\ndata: 2\n\n", &["1", "2"]),
    ("bom-twice", "\u{FEFF}\u{FEFF}data: 1\n\ndata: 2\n\n", &["2"]),
    ("bom-later", "data: 1\n\n\u{FEFF}data: 2\n\ndata: 3\n\n", &["1", "3"]),
    ("comments", "data: 1\r:\0\n: a: b\ndata: 2\n:: x\rdata: 3\n:data: no\n\n", &["1\n2\n3"]),
    ("comments-only", ":\n\n:hb\n\n", &[]),
    ("frame-not-ended", "retry: 1000\ndata: 1\n\nid: 2\ndata: lost\n", &["1"]),
    ("line-not-ended", "data: 1\n\ndata: lost", &["1"]),
    ("empty-data", "data:\n\ndata\ndata\n\ndata:1\n\n", &["", "\n", "1"]),
    ("no-data", "event: a\nid: 1\n\ndata: 1\n\n", &["1"]),
    ("names", "data:1\nDATA:2\ndata\0:3\nda-ta:4\rdata_5\n data:6\ndata:7\n\n", &["1\n7"]),
    ("unknown", "data:test\n data\ndata\nfoobar:x\njustsometext\n:a\ndata: 2\n\n", &["test\n\n2"]),
    ("space", "data:\ttest\rdata: \ndata:test\ndata:  x\ndata :y\n\n", &["\ttest\n\ntest\n x"]),
    ("newlines", "data:a\r\ndata\ndata:b\r\n\r\n\n\r\r\ndata:2\r\r", &["a\n\nb", "2"]),
    ("nul", "data:\0\n\n\n\n", &["\0"]),
    ("colons", "data:a:b: c\n\n", &["a:b: c"]),
    ("retry", "retry:3000\nretry:1000x\ndata:x\n\n", &["x"]),
    ("utf-8", "data:ok\u{2026}\u{1F680}\n\n", &["ok\u{2026}\u{1F680}"]),
    ("not-line-ends", "data:a\u{2028}b\u{85}c\u{B}d\u{C}e\n\n", &["a\u{2028}b\u{85}c\u{B}d\u{C}e"]),
];

// WHATWG §9.2.6
#[test]
fn the_stream_format_is_that_of_the_standard() {
    for (name, stream, expected) in FORMAT_CASES {
        for cuts in [vec![1], vec![2, 3], vec![usize::MAX]] {
            let outcome = decode(ROOMY, chunks(stream.as_bytes(), &cuts));
            let data: Vec<&str> = outcome.frames.iter().map(|frame| frame.data.as_str()).collect();
            assert_eq!(&data[..], *expected, "{name}, chunks of {cuts:?}");
            assert_eq!(outcome.error, None, "{name}");
        }
    }
}

// WHATWG §9.2.6
#[test]
fn the_event_name_is_the_last_one_and_does_not_outlive_its_frame() {
    let wire = b"event: a\ndata: 1\n\ndata: 2\n\nevent: b\n\ndata: 3\n\n\
        event: c\nevent: d\ndata: 4\n\nevent: e\nevent\ndata: 5\n\n";
    let outcome = decode_whole(wire);
    let names: Vec<Option<&str>> = outcome.frames.iter().map(|frame| frame.event.as_deref()).collect();
    assert_eq!(names, [Some("a"), None, None, Some("d"), None]);
}
