//! Standard output: results, line by line, and nothing that could take over a terminal.
//!
//! Invariant: text from outside goes through [`visible`] (for eyes) or [`one_json_line`] (for programs) first,
//! so that no event, agent or gateway moves a cursor, hides text or forges a line.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write as _};

use super::exit::{Exit, Failure};
use crate::domain::json_text::{self, JsonTextError};

/// Nesting of a JSON text that is repeated; as much as any gateway lets in, and room around it.
const JSON_DEPTH: usize = 128;

/// Whether words may be coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Bare text.
    Plain,
    /// With colours.
    Coloured,
}

/// What a colour is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// What matters on its line.
    Strong,
    /// What is only there for reference.
    Faint,
    /// A name.
    Name,
    /// Good news.
    Good,
    /// Bad news.
    Bad,
    /// Worth a look.
    Odd,
}

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    /// How its lines may look.
    pub(super) style: Style,
}

impl Output {
    /// Colours only on a terminal that has them, and never against `NO_COLOR`.
    pub(super) fn stdout() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        let coloured = io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb;
        Output { style: if coloured { Style::Coloured } else { Style::Plain } }
    }

    /// Writes one line, at once.
    pub(super) fn line(self, line: impl Display) -> Result<(), Failure> {
        writeln!(io::stdout().lock(), "{line}").map_err(|error| Failure::writing(&error))
    }

    /// Writes a text as it is, at once.
    pub(super) fn text(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::writing(&error))
    }

    /// Writes one JSON text as one line.
    pub(super) fn json(self, json: &[u8]) -> Result<(), Failure> {
        let line = one_json_line(json)
            .map_err(|_| Failure::new(Exit::Failed, "the gateway's answer is not the JSON it should be"))?;
        self.line(line)
    }
}

impl Style {
    /// The text in a tone, where tones can be shown.
    pub(super) fn paint(self, tone: Tone, text: impl Display) -> String {
        let code = match tone {
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Name => "36",
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Odd => "33",
        };
        match self {
            Style::Plain => text.to_string(),
            Style::Coloured => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// Says something on standard error; that nobody reads it is no failure.
pub(super) fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The text for eyes: whatever a terminal might obey, or not show, is spelled out.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    replaced(text, |c, out| out.extend(c.escape_unicode()))
}

/// The text cut to `most` characters, the last of which then says so.
pub(super) fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let kept: String = text.chars().take(most.saturating_sub(1)).collect();
            Cow::Owned(format!("{kept}…"))
        }
    }
}

/// One JSON text on one line, of the same value, without a character that a terminal might obey.
pub(super) fn one_json_line(json: &[u8]) -> Result<String, JsonTextError> {
    let line =
        String::from_utf8(json_text::normalise(json, JSON_DEPTH)?).expect("JSON that was read is UTF-8");
    // What is replaced can only stand inside a string, where an escape means the same.
    let line = replaced(&line, |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    });
    Ok(line.into_owned())
}

/// The text as one word of a shell's command line.
pub(super) fn shell_word(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

fn replaced(text: &str, replace: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) { replace(c, &mut out) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Controls, line separators, and what reorders or hides the text around it.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_obeys_is_left() {
        let hostile = "a\u{1b}[2J\rb\nc\u{9b}31m\u{7f}\u{202e}d\u{2028}\u{e0041}é🚀";
        let shown = visible(hostile);
        assert!(!shown.chars().any(is_unsafe), "{shown}");
        assert!(shown.starts_with(r"a\u{1b}[2J\u{d}b\u{a}c"), "{shown}");
        assert!(shown.ends_with("é🚀"), "{shown}");
        assert!(matches!(visible("plain é"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_keeps_its_value_on_one_safe_line() {
        let json = "{ \"a\" :\n \"x\u{7f}\u{9b}\u{202e}\u{e0041}é\", \"n\": 18446744073709551616.50 }";
        let line = one_json_line(json.as_bytes()).expect("JSON");
        assert!(!line.chars().any(is_unsafe), "{line}");
        assert!(json_text::equal(line.as_bytes(), json.as_bytes()), "{line}");
        assert!(line.contains("18446744073709551616.50"), "numbers keep their text");
        for bad in ["", "{", "\"\u{1b}[2J\"", "{} {}"] {
            assert!(one_json_line(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_shell_word_is_one_word() {
        for (text, word) in [
            ("run_1", "run_1"),
            ("", "''"),
            ("$(reboot)", "'$(reboot)'"),
            ("it's", r"'it'\''s'"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("éééé", 4), "éééé");
        assert_eq!(shortened("ééééé", 4), "ééé…");
    }

    #[test]
    fn colour_stands_around_the_text_and_only_where_it_is_shown() {
        assert_eq!(Style::Plain.paint(Tone::Good, "ok"), "ok");
        assert_eq!(Style::Coloured.paint(Tone::Good, "ok"), "\u{1b}[32mok\u{1b}[0m");
    }
}
