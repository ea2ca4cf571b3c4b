//! The SSE decoder: bounded, the same however a stream is cut, and of one mind with another parser.

use std::convert::Infallible;

use causeway::protocol::sse::{DecodeError, Decoder, Frame, Limits};
use eventsource_stream::EventStream;
use futures_util::{FutureExt, StreamExt, stream};

const ROOMY: Limits = Limits { line_bytes: 1024 * 1024, event_bytes: 1024 * 1024 };
const TIGHT: Limits = Limits { line_bytes: 24, event_bytes: 40 };

/// The first byte is the size of the chunks, the rest the stream.
pub(crate) fn run(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let size = usize::from(*size).max(1);
    for limits in [TIGHT, ROOMY] {
        assert_eq!(decode(limits, stream.chunks(size)), decode(limits, [stream]));
    }
    agree(stream, size);
}

/// Everything a stream gives, in order; what is held meanwhile is bounded.
fn decode<'a>(
    limits: Limits,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Frame>, Option<DecodeError>) {
    let mut decoder = Decoder::new(limits);
    let (mut frames, mut error, mut largest) = (Vec::new(), None, 0);
    for chunk in chunks {
        largest = largest.max(chunk.len());
        decoder.push(chunk);
        while let Some(result) = decoder.next_frame() {
            match result {
                Ok(frame) => frames.push(frame),
                Err(found) => error = error.or(Some(found)),
            }
        }
        assert!(decoder.allocated_bytes() <= 2 * (limits.line_bytes + limits.event_bytes + largest));
    }
    for frame in &frames {
        let named = frame.id.as_ref().map_or(0, String::len) + frame.event.as_ref().map_or(0, String::len);
        assert!(named + frame.data.len() <= limits.event_bytes);
    }
    (frames, error)
}

/// `eventsource-stream` sees the same events, where it is known to be right: text without byte order marks,
/// begun and ended by a comment.
fn agree(stream: &[u8], size: usize) {
    let Ok(text) = std::str::from_utf8(stream) else { return };
    if text.contains('\u{FEFF}') {
        return;
    }
    let text = format!(":start\n{text}\n:end\n");
    let ours = decode(ROOMY, text.as_bytes().chunks(size)).0;
    let chunks = text.as_bytes().chunks(size).map(Ok::<_, Infallible>);
    let theirs = EventStream::new(stream::iter(chunks))
        .map(|event| event.expect("text"))
        .collect::<Vec<_>>()
        .now_or_never()
        .expect("ready chunks");
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.event.as_deref().unwrap_or("message"), theirs.event);
        assert_eq!(ours.data, theirs.data);
        // A frame of theirs inherits the last id.
        if let Some(id) = &ours.id {
            assert_eq!(*id, theirs.id);
        }
    }
}
