//! Reads the configuration file: sections of known keys, each key with its place.

use std::path::Path;

use toml::Table;
use toml::de::DeTable;

use super::draft::{Draft, Precedence};
use super::error::Origin;
use super::policy_names;
use super::schema::shown;
use super::source::{MAX_FILE_BYTES, Places, read_text};
use super::{native_bridges, native_peers};

/// Takes everything the file gives into the draft.
pub(super) fn read(path: &Path, draft: &mut Draft) {
    let text = match read_text(path, MAX_FILE_BYTES) {
        Ok(text) => text,
        Err(error) => return draft.refuse(Origin::file(path), "", &format!("cannot be read: {error}")),
    };
    let (spanned, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        draft.refuse(Origin::place(path, &text, offset), "", error.message());
    }
    if !errors.is_empty() {
        return;
    }
    let places = Places::new(path, &text, spanned.get_ref());
    match text.parse::<Table>() {
        Ok(document) => read_sections(document, &places, draft),
        Err(error) => draft.refuse(Origin::file(path), "", error.message()),
    }
}

fn read_sections(document: Table, places: &Places<'_>, draft: &mut Draft) {
    for (section, value) in document {
        let origin = places.origin(&section);
        match value {
            toml::Value::Table(keys) if draft.schema().has_section(&section) => {
                read_keys(&section, keys, places, draft);
            }
            toml::Value::Table(bridges) if section == "bridges" => {
                native_bridges::read(&section, bridges, places, draft);
            }
            other if section == "bridges" => {
                let message = format!(
                    "{} is not a table of bridges: write [bridges.\"<domain>\"] before each",
                    shown(&other)
                );
                draft.refuse(origin, &section, &message);
            }
            toml::Value::Array(peers) if section == "peers" => native_peers::read(peers, places, draft),
            other if section == "peers" => {
                let message =
                    format!("{} is not a list of peers: write [[peers]] before each", shown(&other));
                draft.refuse(origin, &section, &message);
            }
            other if draft.schema().has_section(&section) => {
                let message = format!("{} is not a section: write [{section}]", shown(&other));
                draft.refuse(origin, &section, &message);
            }
            _ => draft.refuse(origin, &section, &draft.schema().advise_on_section(&section)),
        }
    }
}

fn read_keys(section: &str, keys: Table, places: &Places<'_>, draft: &mut Draft) {
    let (others, native): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|(name, _)| policy_names::is_one(section, name));
    for (name, value) in native {
        let key = format!("{section}.{name}");
        let origin = places.origin(&key);
        if draft.schema().find_default(&key).is_some() {
            draft.set(&key, value, origin, Precedence::Overrides);
        } else {
            draft.refuse(origin, &key, &draft.schema().advise_on_key(section, &name));
        }
    }
    for (name, value) in others {
        policy_names::read(&name, value, places, draft);
    }
}
