//! JSON as bytes: one strict text copied with only the insignificant changed.
//!
//! Invariants: what [`normalise`] gives is a valid JSON text (RFC 8259) of the same value, the same bytes but
//! for whitespace outside strings and three line-ending characters, and normalising it changes nothing.
//! Nothing recurses; time and memory are `O(n)` in the length of the text, whatever it says.

use std::error::Error;
use std::fmt;

/// Why a text is not one strict JSON text, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonTextError {
    /// What is wrong.
    pub kind: JsonTextErrorKind,
    /// Bytes before the place where it was noticed.
    pub offset: usize,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonTextErrorKind {
    /// The text ends inside a value.
    UnexpectedEnd,
    /// A byte that cannot stand where it does.
    UnexpectedByte,
    /// Something follows the value.
    TrailingBytes,
    /// Arrays and objects are nested deeper than allowed.
    TooDeep,
    /// A string holds an unescaped control character.
    ControlCharacter,
    /// A backslash is followed by no known escape.
    InvalidEscape,
    /// A `\u` escape is half of a surrogate pair, which stands for no character.
    LoneSurrogate,
    /// A string is not UTF-8.
    InvalidUtf8,
}

/// One walk over a text, copying it in runs as long as nothing needs replacing.
struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
    output: &'a mut Vec<u8>,
    copied: usize,
}

/// Copies one JSON text without insignificant whitespace, and with U+2028, U+2029 and U+0085 inside strings
/// as escapes, because some readers of SSE take them for line ends. Number text, key order, other escapes and
/// repeated keys stay. `max_depth` counts nested arrays and objects; with 0 only a scalar passes.
///
/// # Errors
///
/// The text is not strict JSON, or nested too deeply.
pub fn normalise(input: &[u8], max_depth: usize) -> Result<Vec<u8>, JsonTextError> {
    let mut output = Vec::with_capacity(input.len());
    normalise_into(&mut output, input, max_depth)?;
    Ok(output)
}

/// [`normalise`], appending to `output`, which an error leaves as it was.
///
/// # Errors
///
/// As [`normalise`].
pub fn normalise_into(output: &mut Vec<u8>, input: &[u8], max_depth: usize) -> Result<(), JsonTextError> {
    let before = output.len();
    let mut scanner = Scanner { input, at: 0, output, copied: 0 };
    let scanned = scanner.document(max_depth);
    match scanned {
        Ok(()) => scanner.replace_since(input.len(), b""),
        Err(_) => output.truncate(before),
    }
    scanned
}

impl<'a> Scanner<'a> {
    fn document(&mut self, max_depth: usize) -> Result<(), JsonTextError> {
        let mut closers = Vec::new();
        loop {
            self.whitespace();
            let closer = match self.peek() {
                Some(b'[') => Some(b']'),
                Some(b'{') => Some(b'}'),
                _ => None,
            };
            match closer {
                Some(_) if closers.len() >= max_depth => return self.fail(JsonTextErrorKind::TooDeep),
                Some(closer) => {
                    self.at += 1;
                    closers.push(closer);
                    self.whitespace();
                    if self.peek() != Some(closer) {
                        self.key_before_value(closer)?;
                        continue;
                    }
                }
                None => self.scalar()?,
            }
            if !self.next_value(&mut closers)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here, and says whether another value follows.
    fn next_value(&mut self, closers: &mut Vec<u8>) -> Result<bool, JsonTextError> {
        loop {
            self.whitespace();
            match (self.peek(), closers.last()) {
                (None, None) => return Ok(false),
                (Some(_), None) => return self.fail(JsonTextErrorKind::TrailingBytes),
                (Some(b','), Some(&closer)) => {
                    self.at += 1;
                    return self.key_before_value(closer).map(|()| true);
                }
                (_, Some(&closer)) => {
                    self.expect(closer)?;
                    closers.pop();
                }
            }
        }
    }

    /// In an object, reads the key and the colon.
    fn key_before_value(&mut self, closer: u8) -> Result<(), JsonTextError> {
        if closer == b'}' {
            self.whitespace();
            self.string()?;
            self.whitespace();
            self.expect(b':')?;
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), JsonTextError> {
        let literal: &[u8] = match self.peek() {
            Some(b't') => b"true",
            Some(b'f') => b"false",
            Some(b'n') => b"null",
            Some(b'-' | b'0'..=b'9') => return self.number(),
            _ => return self.string(),
        };
        literal.iter().try_for_each(|byte| self.expect(*byte))
    }

    fn number(&mut self) -> Result<(), JsonTextError> {
        self.skip_one_of(b"-");
        if !self.skip_one_of(b"0") {
            self.digits()?;
        }
        if self.skip_one_of(b".") {
            self.digits()?;
        }
        if self.skip_one_of(b"eE") {
            self.skip_one_of(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonTextError> {
        let run = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += run;
        if run == 0 { self.unexpected() } else { Ok(()) }
    }

    fn string(&mut self) -> Result<(), JsonTextError> {
        self.expect(b'"')?;
        loop {
            let rest = self.rest();
            self.at += rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => match unescaped_character(self.rest()) {
                    Ok((_, length)) => self.at += length,
                    Err(kind) => return self.fail(kind),
                },
                Some(0x80..) => self.beyond_ascii()?,
                Some(_) => return self.fail(JsonTextErrorKind::ControlCharacter),
                None => return self.unexpected(),
            }
        }
    }

    /// A run of characters beyond ASCII inside a string.
    fn beyond_ascii(&mut self) -> Result<(), JsonTextError> {
        let rest = self.rest();
        let run = rest.iter().position(u8::is_ascii).map_or(rest, |end| &rest[..end]);
        let text = std::str::from_utf8(run).or_else(|error| {
            self.at += error.valid_up_to();
            self.fail(JsonTextErrorKind::InvalidUtf8)
        })?;
        for character in text.chars() {
            let from = self.at;
            self.at += character.len_utf8();
            match character {
                '\u{85}' => self.replace_since(from, b"\\u0085"),
                '\u{2028}' => self.replace_since(from, b"\\u2028"),
                '\u{2029}' => self.replace_since(from, b"\\u2029"),
                _ => {}
            }
        }
        Ok(())
    }

    fn whitespace(&mut self) {
        let from = self.at;
        while self.skip_one_of(b" \t\n\r") {}
        if self.at > from {
            self.replace_since(from, b"");
        }
    }

    /// What was read since `from` goes out as `normal`.
    fn replace_since(&mut self, from: usize, normal: &[u8]) {
        self.output.extend_from_slice(&self.input[self.copied..from]);
        self.output.extend_from_slice(normal);
        self.copied = self.at;
    }

    fn skip_one_of(&mut self, set: &[u8]) -> bool {
        let found = self.peek().is_some_and(|byte| set.contains(&byte));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonTextError> {
        if self.skip_one_of(&[byte]) { Ok(()) } else { self.unexpected() }
    }

    fn unexpected<T>(&self) -> Result<T, JsonTextError> {
        let kind =
            self.peek().map_or(JsonTextErrorKind::UnexpectedEnd, |_| JsonTextErrorKind::UnexpectedByte);
        self.fail(kind)
    }

    fn fail<T>(&self, kind: JsonTextErrorKind) -> Result<T, JsonTextError> {
        Err(JsonTextError { kind, offset: self.at })
    }

    fn rest(&self) -> &'a [u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }
}

impl fmt::Display for JsonTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            JsonTextErrorKind::UnexpectedEnd => "the JSON text ends too early",
            JsonTextErrorKind::UnexpectedByte => "the JSON text has an unexpected byte",
            JsonTextErrorKind::TrailingBytes => "something follows the JSON text",
            JsonTextErrorKind::TooDeep => "the JSON text is nested too deeply",
            JsonTextErrorKind::ControlCharacter => "a JSON string has an unescaped control character",
            JsonTextErrorKind::InvalidEscape => "a JSON string has an unknown escape",
            JsonTextErrorKind::LoneSurrogate => "a JSON string has half of a surrogate pair",
            JsonTextErrorKind::InvalidUtf8 => "a JSON string is not UTF-8",
        };
        write!(f, "{what} at byte {}", self.offset)
    }
}

impl Error for JsonTextError {}

/// Whether a byte stands for itself inside a string, on its own.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=0x7f)
}

/// The character that the escape at the start of `text` stands for, and the escape's length in bytes.
pub(super) fn unescaped_character(text: &[u8]) -> Result<(char, usize), JsonTextErrorKind> {
    let character = match text.get(1) {
        Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let first = code_unit(text).ok_or(JsonTextErrorKind::InvalidEscape)?;
            let second = text.get(6..).and_then(code_unit);
            let units = [Some(first), second].into_iter().flatten();
            let Some(Ok(character)) = char::decode_utf16(units).next() else {
                return Err(JsonTextErrorKind::LoneSurrogate);
            };
            return Ok((character, 6 * character.len_utf16()));
        }
        Some(_) => return Err(JsonTextErrorKind::InvalidEscape),
        None => return Err(JsonTextErrorKind::UnexpectedEnd),
    };
    Ok((character, 2))
}

/// The UTF-16 code unit of the `\uXXXX` at the start of `text`.
fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits
        .iter()
        .try_fold(0u16, |unit, digit| Some(unit << 4 | u16::try_from(char::from(*digit).to_digit(16)?).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::domain::json_equal::equal;
    use crate::domain::json_samples::{any_json, dice, respelt};

    const DEPTH: usize = 100;

    #[test]
    fn only_whitespace_and_line_ends_change() {
        // A-15
        let text =
            " { \"b\" : [ 1.0e+2 , -0 ] ,\r\n\t\"a\":\"\\u0041 \\/ \u{2028}\u{2029}\u{85}é\", \"b\":{ } } ";
        let expected = "{\"b\":[1.0e+2,-0],\"a\":\"\\u0041 \\/ \\u2028\\u2029\\u0085é\",\"b\":{}}";
        assert_eq!(normalise(text.as_bytes(), DEPTH).as_deref(), Ok(expected.as_bytes()));
        let mut output = b"before".to_vec();
        assert!(normalise_into(&mut output, b"[1, 2, x]", DEPTH).is_err());
        assert_eq!(output, b"before");
    }

    #[test]
    fn what_is_not_strict_json_is_refused_with_its_place() {
        use JsonTextErrorKind::*;
        let cases: [(_, usize, &[&[u8]]); 12] = [
            (UnexpectedEnd, 0, &[b""]),
            (UnexpectedEnd, 2, &[b"\"a", b"1.", b"[1", b"tr", b"1e", b"{ "]),
            (UnexpectedByte, 0, &[b"NaN", b"+1", b".5", b"\xEF\xBB\xBF1", b"'a'", b"]"]),
            (UnexpectedByte, 1, &[b"{a:1}", b"-x", b"[,1]", b"{]", b"nUll", b"{1:2}"]),
            (UnexpectedByte, 3, &[b"[1,]", b"[1 2]", b"[[]}"]),
            (TrailingBytes, 1, &[b"01", b"1]", b"1\0"]),
            (ControlCharacter, 1, &[b"\"\n\"", b"\"\0\""]),
            (InvalidEscape, 1, &[b"\"\\x\"", b"\"\\u12\"", b"\"\\u+123\""]),
            (LoneSurrogate, 1, &[b"\"\\ud800\"", b"\"\\udc00\\ud800\"", b"\"\\ud800\\u0041\""]),
            (InvalidUtf8, 1, &[b"\"\xC0\x80\"", b"\"\xED\xA0\x80\"", b"\"\x80\"", b"\"\xE2\x80\""]),
            (InvalidUtf8, 3, &[b"\"\xC3\xA9\x80\"", b"[\"a\xFF\"]"]),
            (TooDeep, 2, &[b"[[[]]]", b"[[{}]]"]),
        ];
        for (kind, offset, texts) in cases {
            for text in texts {
                let refused = Err(JsonTextError { kind, offset });
                assert_eq!(normalise(text, 2), refused, "{}", text.escape_ascii());
            }
        }
        assert!(normalise(b"[{}]", 2).is_ok() && normalise(b"1", 0).is_ok());
        let error = JsonTextError { kind: TooDeep, offset: 2 };
        assert_eq!(error.to_string(), "the JSON text is nested too deeply at byte 2");
    }

    #[test]
    fn a_deep_text_ends_without_recursion() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(normalise(deep.as_bytes(), usize::MAX).is_ok());
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_json_accepts_and_numbers_of_any_size(
            value in any_json(), seed: u64,
            edits in prop::collection::vec((any::<usize>(), 0..30usize, 0..3u8), 0..4),
        ) {
            let mut text = respelt(&value, &mut dice(seed)).into_bytes();
            for (at, byte, act) in edits {
                let at = at % (text.len() + 1);
                let byte = b"{}[]:,\"\\ud8cEe+-.019 \n\x00\x1f\x7f\x80\xa8\xc2\xe2\xf0tf"[byte];
                match act {
                    0 => text.insert(at, byte),
                    1 => text.truncate(at),
                    _ => drop(text.splice(at..text.len().min(at + 1), [byte])),
                }
            }
            let (oracle, got) = (serde_json::from_slice::<Json>(&text), normalise(&text, DEPTH));
            equal(&text, b"[{\"a\":0}]"); // an answer comes, whatever the text
            if !oracle.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")) {
                prop_assert_eq!(oracle.is_ok(), got.is_ok(), "{} {:?}", text.escape_ascii(), got);
            }
            if let (Ok(value), Ok(got)) = (oracle, got) {
                prop_assert_eq!(serde_json::from_slice::<Json>(&got).ok(), Some(value));
                prop_assert_eq!(normalise(&got, DEPTH), Ok(got.clone()));
            }
        }
    }
}
