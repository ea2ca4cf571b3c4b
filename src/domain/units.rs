//! How configured values are written as text: durations `10s`, sizes `1MiB`, ids, addresses, paths.
//!
//! Serde helpers for `#[serde(with = "units::text")]` and its kin, so that options hold parsed values.
//! Invariant: what is written here reads back as the same value, and an error says what was given and what
//! is allowed.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::id::{PeerId, RunId, TenantId};

/// Characters of a value repeated in an error.
const QUOTED_CHARS: usize = 80;

/// A value with one text form.
pub trait TextForm: Sized {
    /// Reads the text form; the error is a sentence for the operator.
    fn read(text: &str) -> Result<Self, String>;

    /// Writes the text form.
    fn write(&self) -> String;
}

/// `with = "units::text"`: a value in its text form.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::TextForm;

    /// Writes the text form.
    pub fn serialize<T: TextForm, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.write())
    }

    /// Reads the text form.
    pub fn deserialize<'de, T: TextForm, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::read(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `with = "units::optional_text"`: a value in its text form, where the empty text means none.
pub mod optional_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::TextForm;

    /// Writes the text form, or the empty text.
    pub fn serialize<T: TextForm, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.as_ref().map(T::write).unwrap_or_default())
    }

    /// Reads the text form; the empty text is none.
    pub fn deserialize<'de, T: TextForm, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Ok(None) } else { T::read(&text).map(Some).map_err(D::Error::custom) }
    }
}

/// `with = "units::texts"`: a list of values in their text form.
pub mod texts {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::TextForm;

    /// Writes the text forms.
    pub fn serialize<T: TextForm, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(T::write))
    }

    /// Reads the text forms.
    pub fn deserialize<'de, T: TextForm, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| T::read(text).map_err(D::Error::custom)).collect()
    }
}

/// `with = "units::size"`: a number of bytes, written `1MiB`; a bare number of bytes is read too.
pub mod size {
    use serde::{Deserializer, Serializer};

    use super::{SizeVisitor, write_size};

    /// Writes the size with the largest unit that keeps it exact.
    pub fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write_size(*bytes))
    }

    /// Reads `1MiB`, `500kB` or `1048576`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl serde::de::Visitor<'_> for SizeVisitor {
    type Value = usize;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a size such as \"1MiB\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<usize, E> {
        read_size(text).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| not_a_size(&bytes.to_string())).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| not_a_size(&bytes.to_string())).map_err(E::custom)
    }
}

impl TextForm for Duration {
    fn read(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map_err(|_| {
            format!(
                "{} is not a duration: write a number and a unit, such as \"10s\" or \"250ms\"",
                quoted(text)
            )
        })
    }

    fn write(&self) -> String {
        const UNITS: [(u128, &str); 6] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
        ];
        let nanos = self.as_nanos();
        if nanos == 0 {
            return "0s".to_owned();
        }
        let (size, name) =
            UNITS.into_iter().find(|(size, _)| nanos.is_multiple_of(*size)).unwrap_or((1, "ns"));
        format!("{}{name}", nanos / size)
    }
}

impl TextForm for SocketAddr {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            format!(
                "{} is not a socket address: write an IP address and a port, such as \"127.0.0.1:8080\" or \
                 \"[::1]:8080\"",
                quoted(text)
            )
        })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl TextForm for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("\"\" is not a path: write one, or leave the key out".to_owned()),
            _ if text.contains('\0') => Err(format!("{} is not a path", quoted(text))),
            _ => Ok(PathBuf::from(text)),
        }
    }

    fn write(&self) -> String {
        self.to_string_lossy().into_owned()
    }
}

impl TextForm for PeerId {
    fn read(text: &str) -> Result<Self, String> {
        PeerId::parse(text).map_err(|error| format!("{} is not an id: {error}", quoted(text)))
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl TextForm for TenantId {
    fn read(text: &str) -> Result<Self, String> {
        TenantId::parse(text).map_err(|error| format!("{} is not an id: {error}", quoted(text)))
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl TextForm for RunId {
    fn read(text: &str) -> Result<Self, String> {
        RunId::parse(text).map_err(|error| format!("{} is not an id: {error}", quoted(text)))
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

/// Writes a number of bytes with the largest unit that keeps it exact.
pub fn write_size(bytes: usize) -> String {
    const UNITS: [(usize, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(size, _)| bytes > 0 && bytes.is_multiple_of(*size)) {
        Some((size, name)) => format!("{}{name}", bytes / size),
        None => format!("{bytes}B"),
    }
}

/// A value as an error repeats it: in quotes, without control characters, cut when long.
pub fn quoted(text: &str) -> String {
    let mut shown: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTED_CHARS).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

fn read_size(text: &str) -> Result<usize, String> {
    let size = text.parse::<bytesize::ByteSize>().map_err(|_| not_a_size(text))?;
    usize::try_from(size.as_u64()).map_err(|_| not_a_size(text))
}

fn not_a_size(text: &str) -> String {
    format!(
        "{} is not a size: write a number of bytes, or a number and a unit such as \"1MiB\"",
        quoted(text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for (text, duration) in [
            ("0s", Duration::ZERO),
            ("250ms", Duration::from_millis(250)),
            ("90s", Duration::from_secs(90)),
            ("5m", Duration::from_secs(300)),
            ("1d", Duration::from_secs(86_400)),
            ("30d", Duration::from_secs(30 * 86_400)),
            ("1500us", Duration::from_micros(1500)),
            ("7ns", Duration::from_nanos(7)),
        ] {
            assert_eq!(duration.write(), text);
            assert_eq!(Duration::read(text), Ok(duration));
        }
        assert_eq!(Duration::read("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "10", "ten seconds", "-1s", "99999999999999999999d"] {
            assert!(Duration::read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_read_back_as_written() {
        for (text, bytes) in [("0B", 0), ("1B", 1), ("1KiB", 1024), ("1500B", 1500), ("8MiB", 8 << 20)] {
            assert_eq!(write_size(bytes), text);
            assert_eq!(read_size(text), Ok(bytes));
        }
        assert_eq!(read_size("1048576"), Ok(1 << 20));
        assert_eq!(read_size("2MB"), Ok(2_000_000));
        for bad in ["", "MiB", "-1", "1 parsec", "1.2.3MiB"] {
            assert!(read_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_repeated_value_is_short_and_on_one_line() {
        assert_eq!(quoted("a\nb"), "\"a b\"");
        assert_eq!(quoted(&"x".repeat(200)).chars().count(), QUOTED_CHARS + 3);
    }
}
