//! What is wrong with a configuration, where, and what is allowed instead.

use std::fmt;
use std::path::{Path, PathBuf};

/// Characters of a key that a mistake repeats; an id and what is around it fit.
const KEY_CHARS: usize = 200;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: the built-in default.
    Default,
    /// A file, and the place in it where one is known.
    File {
        /// As it was named.
        path: PathBuf,
        /// Line and column.
        place: Option<Place>,
    },
    /// An environment variable, by name.
    Variable(String),
}

/// A place in a text file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{origin}: {}{message}", if key.is_empty() { String::new() } else { format!("{key}: ") })]
pub struct ConfigError {
    /// Where the value was given.
    pub origin: Origin,
    /// The native key, such as `forward.max_attempts`; empty when a whole file is at fault.
    pub key: String,
    /// What was given, unless it is secret, and what is allowed.
    pub message: String,
}

/// Every mistake of a configuration, at least one, in the order of where they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl Origin {
    /// A file as a whole.
    pub(super) fn file(path: &Path) -> Self {
        Self::File { path: path.to_owned(), place: None }
    }

    /// A place in a file, by its offset in bytes.
    pub(super) fn place(path: &Path, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        Self::File { path: path.to_owned(), place: Some(Place { line, column }) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, place: None } => write!(out, "{}", path.display()),
            Self::File { path, place: Some(place) } => {
                write!(out, "{}:{}:{}", path.display(), place.line, place.column)
            }
            Self::Variable(name) => out.write_str(name),
        }
    }
}

impl ConfigError {
    /// A mistake at a key. Both texts become one line, whatever they repeat of what was given.
    pub(super) fn new(origin: Origin, key: &str, message: &str) -> Self {
        let message = message.lines().map(str::trim).filter(|line| !line.is_empty());
        let key = key.chars().map(|c| if c.is_control() { ' ' } else { c }).take(KEY_CHARS).collect();
        Self { origin, key, message: message.collect::<Vec<_>>().join("; ") }
    }
}

impl ConfigErrors {
    /// Nothing when there is no mistake.
    pub(super) fn find(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort();
        errors.dedup();
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// The mistakes.
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(out, "{line_end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let text = "a\nbü c\n";
        let place = |offset| match Origin::place(Path::new("f"), text, offset) {
            Origin::File { place: Some(place), .. } => (place.line, place.column),
            other => panic!("{other}"),
        };
        assert_eq!([place(0), place(2), place(6), place(99)], [(1, 1), (2, 1), (2, 4), (3, 1)]);
    }
}
