//! Reading requests field by field, without losing a byte of what is passed on.
//!
//! Values stay raw text until a field is asked for, so numbers never pass through floats, and an error
//! can name the field and what is allowed there.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::domain::{json_text, limits};

/// A body that cannot be taken, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    /// Not JSON at all, or nested too deep.
    #[error("the body is not valid JSON: {0}")]
    NotJson(String),
    /// A field is missing or wrong.
    #[error("`{field}` {expected}")]
    Field {
        /// Its path, dotted.
        field: String,
        /// What is allowed, as the rest of a sentence.
        expected: String,
    },
}

impl InvalidBody {
    /// An error at a field.
    pub fn field(field: impl Into<String>, expected: impl Into<String>) -> Self {
        InvalidBody::Field { field: field.into(), expected: expected.into() }
    }
}

/// One JSON object whose values are still text.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    path: String,
    values: BTreeMap<String, &'a RawValue>,
}

/// Brings a body into normal form (see [`json_text::normalise`]), or says why it is not JSON.
pub fn normalised(body: &[u8]) -> Result<Vec<u8>, InvalidBody> {
    json_text::normalise(body, limits::JSON_DEPTH).map_err(|error| InvalidBody::NotJson(error.to_string()))
}

impl<'a> Fields<'a> {
    /// The object a whole body is.
    pub fn of_body(body: &'a [u8]) -> Result<Self, InvalidBody> {
        let raw = serde_json::from_slice(body).map_err(|error| InvalidBody::NotJson(error.to_string()))?;
        Self::of(String::new(), raw)
    }

    /// The object at `path`.
    pub fn of(path: String, raw: &'a RawValue) -> Result<Self, InvalidBody> {
        match serde_json::from_str(raw.get()) {
            Ok(values) => Ok(Fields { path, values }),
            Err(_) if path.is_empty() => Err(InvalidBody::field("body", "must be a JSON object")),
            Err(_) => Err(InvalidBody::field(path, "must be an object")),
        }
    }

    /// The full name of a field of this object.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The text of a field; `null` counts as absent.
    pub fn find(&self, name: &str) -> Option<&'a RawValue> {
        self.values.get(name).copied().filter(|raw| raw.get() != "null")
    }

    /// Whether the field is there at all, be it `null`.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The object in a field, if it is there.
    pub fn find_object(&self, name: &str) -> Result<Option<Fields<'a>>, InvalidBody> {
        self.find(name).map(|raw| Fields::of(self.path_of(name), raw)).transpose()
    }

    /// The object in a field that must be there.
    pub fn object(&self, name: &str) -> Result<Fields<'a>, InvalidBody> {
        self.find_object(name)?
            .ok_or_else(|| InvalidBody::field(self.path_of(name), "is required and must be an object"))
    }

    /// The string in a field, if it is there.
    pub fn find_string(&self, name: &str) -> Result<Option<String>, InvalidBody> {
        self.parse(name, "must be a string")
    }

    /// The list of strings in a field, empty when it is absent.
    pub fn strings(&self, name: &str) -> Result<Vec<String>, InvalidBody> {
        Ok(self.parse(name, "must be a list of strings")?.unwrap_or_default())
    }

    /// The list in a field that must be there.
    pub fn list(&self, name: &str) -> Result<Vec<&'a RawValue>, InvalidBody> {
        self.parse(name, "must be a list")?
            .ok_or_else(|| InvalidBody::field(self.path_of(name), "is required and must be a list"))
    }

    /// The values, by name.
    pub fn into_values(self) -> BTreeMap<String, &'a RawValue> {
        self.values
    }

    fn parse<T: serde::Deserialize<'a>>(&self, name: &str, expected: &str) -> Result<Option<T>, InvalidBody> {
        self.find(name)
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|_| InvalidBody::field(self.path_of(name), expected))
    }
}
