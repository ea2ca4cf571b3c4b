//! Reading a stream as cheaply as it can be read: chunks, then frames, on the bytes as they came.
//!
//! Invariant: what is handed on is whole; nothing is copied but a frame that was cut between two reads.

use memchr::{memchr, memmem};

/// Takes the framing off a chunked body.
#[derive(Debug, Default)]
pub(super) struct Dechunker {
    state: Chunk,
    size: usize,
    seen_digit: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Chunk {
    #[default]
    Size,
    Extension,
    Data,
    DataEnd,
    Trailer,
    Over,
}

/// One frame of an event stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Its `id:`.
    pub(super) id: Option<u64>,
    /// Its `event:`.
    pub(super) event: &'a [u8],
    /// Its `data:`.
    pub(super) data: &'a [u8],
}

/// Finds the frames in a body that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    carried: Vec<u8>,
}

impl Dechunker {
    /// True once the body has ended.
    pub(super) fn is_over(&self) -> bool {
        self.state == Chunk::Over
    }

    /// Hands the body's bytes among `bytes` to `sink`, and answers how many were taken: all of them, unless the
    /// body ended before.
    pub(super) fn feed<E: From<String>>(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                Chunk::Size => {
                    self.size_byte(bytes[at])?;
                    at += 1;
                }
                Chunk::Extension => match memchr(b'\n', &bytes[at..]) {
                    Some(end) => {
                        at += end + 1;
                        self.state = if self.size == 0 { Chunk::Trailer } else { Chunk::Data };
                    }
                    None => at = bytes.len(),
                },
                Chunk::Data => {
                    let take = self.size.min(bytes.len() - at);
                    sink(&bytes[at..at + take])?;
                    at += take;
                    self.size -= take;
                    if self.size == 0 {
                        self.state = Chunk::DataEnd;
                    }
                }
                Chunk::DataEnd => {
                    if bytes[at] == b'\n' {
                        (self.state, self.size, self.seen_digit) = (Chunk::Size, 0, false);
                    }
                    at += 1;
                }
                // No server here sends trailers: the empty line follows at once.
                Chunk::Trailer => {
                    if bytes[at] == b'\n' {
                        self.state = Chunk::Over;
                    }
                    at += 1;
                }
                Chunk::Over => return Ok(at),
            }
        }
        Ok(at)
    }

    fn size_byte<E: From<String>>(&mut self, byte: u8) -> Result<(), E> {
        match (byte as char).to_digit(16) {
            Some(digit) if self.size < usize::MAX >> 8 => {
                self.size = self.size << 4 | digit as usize;
                self.seen_digit = true;
                Ok(())
            }
            None if self.seen_digit => {
                self.state = Chunk::Extension;
                if byte == b'\n' {
                    self.state = if self.size == 0 { Chunk::Trailer } else { Chunk::Data };
                }
                Ok(())
            }
            _ => Err(E::from("the body is not chunked as it says".to_owned())),
        }
    }
}

impl FrameReader {
    /// Hands every frame that is whole now to `sink`.
    pub(super) fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.carried.is_empty() {
            let cut = match (self.carried.last(), bytes.first()) {
                (Some(b'\n'), Some(b'\n')) => Some(1),
                _ => memmem::find(bytes, b"\n\n").map(|at| at + 2),
            };
            let Some(cut) = cut else {
                self.carried.extend_from_slice(bytes);
                return Ok(());
            };
            self.carried.extend_from_slice(&bytes[..cut]);
            let whole = std::mem::take(&mut self.carried);
            let rest = frames(&whole, &mut sink)?;
            debug_assert!(rest.is_empty(), "cut at the end of a frame");
            (self.carried, bytes) = (whole, &bytes[cut..]);
            self.carried.clear();
        }
        let rest = frames(bytes, &mut sink)?;
        if rest.is_empty() {
            // Ten thousand readers that each keep a buffer would be the memory that is measured elsewhere.
            self.carried = Vec::new();
        } else {
            self.carried.extend_from_slice(rest);
        }
        Ok(())
    }
}

/// Hands on the whole frames and answers what is left.
fn frames<'a, E>(bytes: &'a [u8], sink: &mut impl FnMut(Frame<'a>) -> Result<(), E>) -> Result<&'a [u8], E> {
    let (mut start, mut at) = (0, 0);
    let mut frame = Frame { id: None, event: b"", data: b"" };
    while let Some(length) = memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + length];
        at += length + 1;
        if line.is_empty() {
            if !frame.data.is_empty() {
                sink(frame)?;
            }
            frame = Frame { id: None, event: b"", data: b"" };
            start = at;
        } else if let Some(data) = line.strip_prefix(b"data: ") {
            frame.data = data;
        } else if let Some(id) = line.strip_prefix(b"id: ") {
            frame.id = decimal(id);
        } else if let Some(event) = line.strip_prefix(b"event: ") {
            frame.event = event;
        }
    }
    Ok(&bytes[start..])
}

/// A number of plain digits.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digit = |value: u64, byte: &u8| {
        byte.is_ascii_digit().then(|| value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))).flatten()
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, digit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"retry: 2000\nid: 1\nevent: agentos.event\ndata: {\"a\":1}\n\n:hb\n:hb\nid: 2\nevent: \
        agentos.event\ndata: {}\n\nevent: caught_up\ndata: {\"sequence\":2}\n\n";

    fn chunked(sizes: usize) -> Vec<u8> {
        let mut body = Vec::new();
        for chunk in STREAM.chunks(sizes) {
            body.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        body
    }

    #[test]
    fn frames_come_out_whole_wherever_the_bytes_are_cut() {
        for (chunk, cut) in (1..STREAM.len()).flat_map(|chunk| [1, 2, 3, 7, 50, 4096].map(|cut| (chunk, cut)))
        {
            let (mut chunks, mut reader, mut seen) =
                (Dechunker::default(), FrameReader::default(), Vec::new());
            for piece in chunked(chunk).chunks(cut) {
                let taken = chunks.feed::<String>(piece, |bytes| {
                    reader.feed(bytes, |frame| {
                        seen.push((frame.id, frame.event.to_vec(), frame.data.to_vec()));
                        Ok(())
                    })
                });
                assert_eq!(taken, Ok(piece.len()));
            }
            assert!(chunks.is_over());
            let event = b"agentos.event".to_vec();
            let expected = [
                (Some(1), event.clone(), b"{\"a\":1}".to_vec()),
                (Some(2), event, b"{}".to_vec()),
                (None, b"caught_up".to_vec(), b"{\"sequence\":2}".to_vec()),
            ];
            assert_eq!(seen, expected, "chunks of {chunk}, reads of {cut}");
        }
    }

    #[test]
    fn what_follows_the_body_is_left() {
        let mut chunks = Dechunker::default();
        let taken = chunks.feed::<String>(b"1\r\nx\r\n0\r\n\r\nHTTP/1.1", |_| Ok(()));
        assert_eq!(taken, Ok(11));
        assert!(Dechunker::default().feed::<String>(b"no\r\n", |_| Ok(())).is_err());
    }
}
