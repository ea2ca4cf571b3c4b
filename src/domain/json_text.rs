//! JSON as bytes: one strict text copied with only the insignificant changed.
//!
//! Invariants: what [`normalise`] gives is a valid JSON text (RFC 8259) of the same value, the same bytes but
//! for whitespace outside strings and three line-ending characters, and normalising it changes nothing.
//! Nothing recurses; time and memory are `O(n)` in the length of the text, whatever it says.

use std::error::Error;
use std::fmt;
use std::ops::Range;

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

/// Members that an event has, with those of its payload; more take more memory.
const USUAL_MEMBERS: usize = 16;

/// A JSON text in normal form, and where its members lie, if it is an object.
#[derive(Debug, Default)]
pub struct Normal {
    /// The text.
    pub text: Vec<u8>,
    /// The members of all objects that are nested at most two deep, in order.
    pub members: Vec<Member>,
    /// How deep arrays and objects are nested in it.
    pub depth: usize,
    /// Room for what is open during a walk.
    closers: Vec<u8>,
}

/// A member of an object: where its name (with the quotes) and its value lie in the text.
#[derive(Debug, Clone)]
pub struct Member {
    /// How deep its object is nested: 1 is the outermost.
    pub depth: usize,
    /// The name.
    pub name: Range<usize>,
    /// The value.
    pub value: Range<usize>,
}

/// Objects nested deeper than this are not taken apart.
const MEMBERS_DEPTH: usize = 2;

/// One walk over a text, copying it in runs as long as nothing needs replacing.
struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
    output: &'a mut Vec<u8>,
    copied: usize,
    /// Members of objects nested deeper are not written down.
    members_depth: usize,
    members: Vec<Member>,
    /// The member at whose value the walk is, of the object at each depth.
    open: [Option<usize>; MEMBERS_DEPTH],
    /// How the arrays and objects end in which the walk is.
    closers: Vec<u8>,
    depth: usize,
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
    let mut scanner = Scanner::new(input, output, 0);
    let scanned = scanner.document(max_depth);
    match scanned {
        Ok(()) => scanner.replace_since(input.len(), b""),
        Err(_) => output.truncate(before),
    }
    scanned
}

impl Normal {
    /// Becomes the normal form of another text ([`normalise`]), in the memory that it has, and says in the same walk
    /// where the members of an object lie, and those of the objects in it. An error leaves it with no meaning.
    ///
    /// # Errors
    ///
    /// As [`normalise`].
    pub fn read(&mut self, input: &[u8], max_depth: usize) -> Result<(), JsonTextError> {
        self.text.clear();
        self.members.clear();
        self.closers.clear();
        self.text.reserve(input.len());
        self.members.reserve(USUAL_MEMBERS);
        let mut scanner = Scanner::new(input, &mut self.text, MEMBERS_DEPTH);
        scanner.members = std::mem::take(&mut self.members);
        scanner.closers = std::mem::take(&mut self.closers);
        let scanned = scanner.document(max_depth);
        scanner.replace_since(input.len(), b"");
        let Scanner { members, closers, depth, .. } = scanner;
        (self.members, self.closers, self.depth) = (members, closers, depth);
        scanned
    }
}

impl<'a> Scanner<'a> {
    fn new(input: &'a [u8], output: &'a mut Vec<u8>, members_depth: usize) -> Self {
        let (members, closers, open) = (Vec::new(), Vec::new(), [None; MEMBERS_DEPTH]);
        Scanner { input, at: 0, output, copied: 0, members_depth, members, open, closers, depth: 0 }
    }

    fn document(&mut self, max_depth: usize) -> Result<(), JsonTextError> {
        loop {
            self.whitespace();
            let closer = match self.peek() {
                Some(b'[') => Some(b']'),
                Some(b'{') => Some(b'}'),
                _ => None,
            };
            match closer {
                Some(_) if self.closers.len() >= max_depth => return self.fail(JsonTextErrorKind::TooDeep),
                Some(closer) => {
                    self.at += 1;
                    self.closers.push(closer);
                    self.depth = self.depth.max(self.closers.len());
                    self.now_at(None);
                    self.whitespace();
                    if self.peek() != Some(closer) {
                        self.key_before_value()?;
                        continue;
                    }
                }
                None => self.scalar()?,
            }
            if !self.next_value()? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here, and says whether another value follows.
    fn next_value(&mut self) -> Result<bool, JsonTextError> {
        loop {
            self.whitespace();
            let place = self.place();
            if let Some(member) = self.open_member() {
                member.value.end = place;
            }
            match (self.peek(), self.closers.last()) {
                (None, None) => return Ok(false),
                (Some(_), None) => return self.fail(JsonTextErrorKind::TrailingBytes),
                (Some(b','), Some(_)) => {
                    self.at += 1;
                    return self.key_before_value().map(|()| true);
                }
                (_, Some(&closer)) => {
                    self.expect(closer)?;
                    self.closers.pop();
                }
            }
        }
    }

    /// In an object, reads the key and the colon.
    fn key_before_value(&mut self) -> Result<(), JsonTextError> {
        if self.closers.last() == Some(&b'}') {
            self.whitespace();
            let begin = self.place();
            self.string()?;
            let end = self.place();
            self.whitespace();
            self.expect(b':')?;
            let depth = self.closers.len();
            if depth <= self.members_depth {
                self.now_at(Some(self.members.len()));
                let value = self.place()..self.place();
                self.members.push(Member { depth, name: begin..end, value });
            }
        }
        Ok(())
    }

    /// The member at whose value the walk is, if it is one that is written down.
    fn open_member(&mut self) -> Option<&mut Member> {
        let open = self.open.get(self.closers.len().checked_sub(1)?)?;
        self.members.get_mut((*open)?)
    }

    fn now_at(&mut self, member: Option<usize>) {
        let level = self.closers.len().checked_sub(1);
        if let Some(open) = level.and_then(|level| self.open.get_mut(level)) {
            *open = member;
        }
    }

    /// Where what comes next will lie in the output.
    fn place(&self) -> usize {
        self.output.len() + self.at - self.copied
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
            self.at += plain_run(self.rest());
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
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
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
        if self.peek() != Some(byte) {
            return self.unexpected();
        }
        self.at += 1;
        Ok(())
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

/// Bytes at the beginning of `text` that stand for themselves inside a string.
fn plain_run(text: &[u8]) -> usize {
    // Without a branch for each byte, so that the compiler compares many at once.
    let (strides, _) = text.as_chunks::<16>();
    let all_plain = |stride: &&[u8; 16]| stride.iter().fold(true, |all, byte| all & is_plain(*byte));
    let strides = 16 * strides.iter().take_while(all_plain).count();
    strides + text[strides..].iter().take_while(|byte| is_plain(**byte)).count()
}

/// Whether a byte stands for itself inside a string, on its own.
fn is_plain(byte: u8) -> bool {
    (b' '..=0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
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
