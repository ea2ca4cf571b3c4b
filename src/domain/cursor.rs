//! Where a reader stands in one stream: the last sequence already seen, exclusive, everywhere.
//!
//! A browser keeps its first URL for ever and moves only `Last-Event-ID`, so the larger of the two wins.

use std::fmt;

use serde::Serialize;

/// The largest cursor: what every JSON reader with 64-bit integers can hold.
pub const MAX_CURSOR: u64 = i64::MAX as u64;

/// Where a reader stands: everything up to here was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct Cursor(u64);

impl Cursor {
    /// Before everything.
    pub const START: Self = Cursor(0);

    /// Right after this place; a place beyond [`MAX_CURSOR`] is as good as that one.
    pub fn at(place: u64) -> Self {
        Cursor(place.min(MAX_CURSOR))
    }

    /// The last place seen, 0 for none.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The place that is read next.
    pub fn next(self) -> u64 {
        self.0 + 1
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// What the request said, before it is checked.
#[derive(Debug, Default, Clone)]
pub struct CursorInput<'a> {
    /// Query parameters named `from_sequence`, `after_sequence` or `starting_after`, in order.
    pub query: Vec<(&'a str, &'a str)>,
    /// `Last-Event-ID` headers, in order.
    pub last_event_id: Vec<&'a [u8]>,
}

/// A cursor that is none, naming what was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursor {
    /// Not a plain non-negative integer.
    #[error("`{name}` must be a plain integer from 0 to {MAX_CURSOR}")]
    NotANumber {
        /// The parameter or header.
        name: String,
    },
    /// Given twice.
    #[error("`{name}` is given more than once")]
    Repeated {
        /// The parameter or header.
        name: String,
    },
    /// Two aliases that differ.
    #[error("`{first}` and `{second}` name the same cursor and differ")]
    Contradiction {
        /// One alias.
        first: String,
        /// The other.
        second: String,
    },
}

impl InvalidCursor {
    /// The parameter or header at fault.
    pub fn field(&self) -> &str {
        match self {
            InvalidCursor::NotANumber { name } | InvalidCursor::Repeated { name } => name,
            InvalidCursor::Contradiction { second, .. } => second,
        }
    }
}

/// Decides where a reader starts: the larger of query and header, 0 when neither is given.
pub fn start_after(input: &CursorInput<'_>) -> Result<Cursor, InvalidCursor> {
    let mut chosen: Option<(&str, u64)> = None;
    for (at, (name, value)) in input.query.iter().enumerate() {
        if input.query[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(InvalidCursor::Repeated { name: (*name).to_owned() });
        }
        let value = parse(name, value.as_bytes())?;
        match chosen {
            Some((first, other)) if other != value => {
                return Err(InvalidCursor::Contradiction {
                    first: first.to_owned(),
                    second: (*name).to_owned(),
                });
            }
            _ => chosen = Some((name, value)),
        }
    }
    let header = match input.last_event_id.as_slice() {
        [] => 0,
        [value] => parse("Last-Event-ID", value)?,
        _ => return Err(InvalidCursor::Repeated { name: "Last-Event-ID".to_owned() }),
    };
    Ok(Cursor(chosen.map_or(0, |(_, value)| value).max(header)))
}

fn parse(name: &str, value: &[u8]) -> Result<u64, InvalidCursor> {
    let plain = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    plain
        .then(|| std::str::from_utf8(value).ok()?.parse().ok())
        .flatten()
        .filter(|&cursor| cursor <= MAX_CURSOR)
        .ok_or_else(|| InvalidCursor::NotANumber { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start(query: &[(&'static str, &'static str)], header: &[&'static str]) -> Result<u64, InvalidCursor> {
        let last_event_id = header.iter().map(|value| value.as_bytes()).collect();
        start_after(&CursorInput { query: query.to_vec(), last_event_id }).map(Cursor::get)
    }

    proptest! {
        /// A browser keeps its query for ever and moves only the header: it never goes back.
        #[test]
        fn a_start_is_the_larger_of_what_is_said_and_never_less(
            query in proptest::option::of(0..=MAX_CURSOR), header in proptest::option::of(0..=MAX_CURSOR),
        ) {
            let (said, sent) = (query.map(|n| n.to_string()), header.map(|n| n.to_string()));
            let input = CursorInput {
                query: said.iter().map(|text| ("from_sequence", text.as_str())).collect(),
                last_event_id: sent.iter().map(|text| text.as_bytes()).collect(),
            };
            prop_assert_eq!(start_after(&input), Ok(Cursor(query.unwrap_or(0).max(header.unwrap_or(0)))));
        }

        /// A cursor is honoured exactly or refused, whatever the text; nothing is rounded, cut or guessed.
        #[test]
        fn a_text_is_the_number_it_spells_or_none(text in "[-+0-9a-fxe. ]{0,22}") {
            let input = CursorInput { query: vec![("after_sequence", &text)], last_event_id: Vec::new() };
            match start_after(&input) {
                Ok(number) => {
                    let plain = format!("{:0>width$}", number.get(), width = text.len());
                    prop_assert_eq!(plain, text);
                }
                Err(error) => prop_assert_eq!(error.field(), "after_sequence"),
            }
        }
    }

    #[test]
    fn absence_means_the_beginning() {
        assert_eq!(start(&[], &[]), Ok(0));
    }

    #[test]
    fn the_larger_of_query_and_header_wins() {
        assert_eq!(start(&[("from_sequence", "3")], &["7"]), Ok(7));
        assert_eq!(start(&[("from_sequence", "9")], &["7"]), Ok(9));
    }

    #[test]
    fn aliases_agree_or_are_refused() {
        assert_eq!(start(&[("from_sequence", "3"), ("after_sequence", "3")], &[]), Ok(3)); // defect 1
        assert!(matches!(
            start(&[("from_sequence", "3"), ("starting_after", "4")], &[]),
            Err(InvalidCursor::Contradiction { .. })
        ));
        assert!(matches!(
            start(&[("from_sequence", "3"), ("from_sequence", "3")], &[]),
            Err(InvalidCursor::Repeated { .. })
        ));
    }

    #[test]
    fn what_is_not_a_plain_integer_is_refused() {
        // A-12, reliability 4d.18
        for bad in ["-1", "abc", "1e3", "18446744073709551616", "", "+1", " 1", "1.0", "0x1"] {
            assert!(start(&[("from_sequence", bad)], &[]).is_err(), "{bad:?}");
        }
        assert_eq!(start(&[("from_sequence", "9223372036854775807")], &[]), Ok(MAX_CURSOR));
        assert!(start(&[("from_sequence", "9223372036854775808")], &[]).is_err());
        for bad in ["x", "", "\0", "1\n"] {
            assert!(start(&[], &[bad]).is_err(), "{bad:?}");
        }
        assert!(start(&[], &["1", "2"]).is_err());
    }
}
