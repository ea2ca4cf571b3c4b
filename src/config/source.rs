//! The files a configuration comes from: read whole, within a bound, and every key with its place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::Origin;

/// The largest configuration file or peers file, in bytes; a larger one is an error.
pub(super) const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Where each key of a file begins.
pub(super) struct Places<'a> {
    path: &'a Path,
    text: &'a str,
    offsets: BTreeMap<String, usize>,
}

impl<'a> Places<'a> {
    /// The places of a parsed file's keys.
    pub(super) fn new(path: &'a Path, text: &'a str, document: &DeTable<'_>) -> Self {
        let mut offsets = BTreeMap::new();
        collect_offsets("", document, &mut offsets);
        Self { path, text, offsets }
    }

    /// Where a key begins, `peers[0].base_url` for a peer's.
    pub(super) fn origin(&self, key: &str) -> Origin {
        match self.offsets.get(key) {
            Some(offset) => Origin::place(self.path, self.text, *offset),
            None => Origin::file(self.path),
        }
    }
}

fn collect_offsets(prefix: &str, table: &DeTable<'_>, offsets: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        offsets.insert(key.clone(), name.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => collect_offsets(&key, inner, offsets),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let key = format!("{key}[{index}]");
                    if let DeValue::Table(inner) = item.get_ref() {
                        collect_offsets(&key, inner, offsets);
                    }
                    offsets.insert(key, item.span().start);
                }
            }
            _ => {}
        }
    }
}

/// Reads a whole text file of at most `limit` bytes.
pub(super) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
    }
    Ok(text)
}
