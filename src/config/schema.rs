//! What the keys are, taken from the options themselves: their serde form and their defaults.
//!
//! Invariant: one value is read exactly as the whole configuration would read it, alone, so that one mistake
//! hides no other.

use toml::{Table, Value};

use super::sections::Config;
use crate::domain::units::quoted;

/// One slip of the hand in so many characters, and at least one, is still taken for the name it is near.
const CHARACTERS_PER_SLIP: usize = 3;

/// Maps and lists beside the sections, whose keys an operator makes up.
const COLLECTIONS: [&str; 2] = ["bridges", "peers"];

/// The native keys `section.key` with their defaults.
pub(super) struct Schema {
    sections: Vec<(String, Table)>,
}

impl Schema {
    /// The keys of [`Config`], bridges and peers aside.
    pub(super) fn new() -> Self {
        let defaults = as_table(&Config::default());
        let sections = defaults.into_iter().filter_map(|(name, value)| match value {
            Value::Table(keys) if !COLLECTIONS.contains(&name.as_str()) => Some((name, keys)),
            _ => None,
        });
        Self { sections: sections.collect() }
    }

    /// True for a section's name.
    pub(super) fn has_section(&self, section: &str) -> bool {
        self.sections.iter().any(|(name, _)| name == section)
    }

    /// Every key, as `section.key`.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        self.sections
            .iter()
            .flat_map(|(section, keys)| keys.keys().map(move |key| format!("{section}.{key}")))
    }

    /// The default of `section.key`.
    pub(super) fn find_default(&self, key: &str) -> Option<&Value> {
        let (section, name) = key.split_once('.')?;
        self.sections.iter().find(|(known, _)| known == section)?.1.get(name)
    }

    /// Reads one value for `section.key` and gives it back in its canonical form.
    pub(super) fn read(&self, key: &str, value: Value) -> Result<Value, String> {
        refuse_material(&value)?;
        match self.find_default(key) {
            Some(Value::Integer(_)) if !is_count(&value) => {
                return Err(format!("{} is not a whole number, zero or more", shown(&value)));
            }
            Some(Value::Boolean(_)) if !value.is_bool() => {
                return Err(format!("{} is neither true nor false", shown(&value)));
            }
            _ => {}
        }
        let (section, name) = key.split_once('.').expect("a key of this schema has a section");
        let alone = Table::from_iter([(name.to_owned(), value)]);
        let document = Table::from_iter([(section.to_owned(), Value::Table(alone))]);
        let config: Config =
            document.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        Ok(as_table(&config)[section][name].clone())
    }

    /// Reads one value for `section.key` from the text of a variable; lists are parted by commas.
    pub(super) fn read_text(&self, key: &str, text: &str) -> Result<Value, String> {
        let value = match self.find_default(key) {
            Some(Value::Integer(_)) => text.parse().map_or_else(|_| text.into(), Value::Integer),
            Some(Value::Boolean(_)) => as_switch(text).map_or_else(|| text.into(), Value::Boolean),
            Some(Value::Array(_)) => {
                text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>().into()
            }
            _ => text.into(),
        };
        self.read(key, value)
    }

    /// What to say of an unknown `section.key`.
    pub(super) fn advise_on_key(&self, section: &str, name: &str) -> String {
        let keys: Vec<_> = self.keys().collect();
        let here: Vec<_> =
            keys.iter().filter_map(|key| key.strip_prefix(section)?.strip_prefix('.')).collect();
        let elsewhere = self.places_of(name);
        match (find_nearest(name, here.iter().copied()), elsewhere) {
            (Some(near), _) => format!("unknown key; did you mean `{section}.{near}`?"),
            (None, Some(elsewhere)) => format!("unknown key; did you mean {elsewhere}?"),
            (None, None) => format!("unknown key; [{section}] has {}", here.join(", ")),
        }
    }

    /// Every key of this name, wherever it is.
    fn places_of(&self, name: &str) -> Option<String> {
        let keys = self.keys().filter(|key| key.split_once('.').is_some_and(|(_, other)| other == name));
        let keys: Vec<_> = keys.map(|key| format!("`{key}`")).collect();
        (!keys.is_empty()).then(|| keys.join(" or "))
    }

    /// What to say of an unknown section, or of a key outside of all sections.
    pub(super) fn advise_on_section(&self, name: &str) -> String {
        let names = || self.sections.iter().map(|(name, _)| name.as_str()).chain(COLLECTIONS);
        let stray = self.places_of(name);
        match (find_nearest(name, names()), stray) {
            (Some(near), _) => format!("unknown section; did you mean `{near}`?"),
            (None, Some(keys)) => format!("unknown section; did you mean {keys}?"),
            (None, None) => format!("unknown section; there are {}", names().collect::<Vec<_>>().join(", ")),
        }
    }
}

/// What to say of a key that an entry of a list or a map does not have.
pub(super) fn advise_on_entry(name: &str, known: &Table, entry: &str) -> String {
    match find_nearest(name, known.keys().map(String::as_str)) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => format!(
            "unknown key; a {entry} has {}",
            known.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Keys and certificates belong into files. Nothing of one that stands here is repeated.
pub(super) fn refuse_material(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if text.contains("-----BEGIN") => {
            Err("holds a key or a certificate itself: write it to a file, and name the file here".to_owned())
        }
        _ => Ok(()),
    }
}

/// What a variable that switches something says.
pub(super) fn as_switch(text: &str) -> Option<bool> {
    let is_one_of = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match (is_one_of(["1", "true", "yes", "on"]), is_one_of(["0", "false", "no", "off"])) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// A value as an error repeats it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        scalar => scalar.to_string(),
    }
}

/// The candidate closest to `word`, when one is close.
pub(super) fn find_nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let reach = (word.chars().count() / CHARACTERS_PER_SLIP).max(1);
    let measured = candidates.map(|candidate| (distance(word, candidate), candidate));
    measured.filter(|(distance, _)| *distance <= reach).min().map(|(_, candidate)| candidate)
}

/// How many characters must be put in, taken out or exchanged to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for column in 0..other.len() {
            let exchanged = diagonal + usize::from(letter != other[column]);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

fn is_count(value: &Value) -> bool {
    value.as_integer().is_some_and(|number| number >= 0)
}

fn as_table(config: &Config) -> Table {
    Table::try_from(config).expect("options are tables of texts, numbers and lists")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_words_is_that_of_levenshtein() {
        for (one, other, expected) in
            [("", "abc", 3), ("kitten", "sitting", 3), ("listen", "listen", 0), ("lisen", "listen", 1)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn every_default_reads_back_as_itself() {
        let schema = Schema::new();
        for key in schema.keys() {
            let default = schema.find_default(&key).expect("listed").clone();
            assert_eq!(schema.read(&key, default.clone()), Ok(default), "{key}");
        }
    }
}
