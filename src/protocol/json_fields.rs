//! Reading requests field by field, without losing a byte of what is passed on.
//!
//! Values stay raw text until a field is asked for, so numbers never pass through floats, and an error
//! can name the field and what is allowed there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
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

/// One JSON object whose values are still text. Of a name that comes twice, the last one counts.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    path: String,
    members: Members<'a>,
}

/// The members, in the order of the text.
#[derive(Debug, Clone)]
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A name that is copied only if it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnObject;

        impl<'de> Visitor<'de> for AnObject {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(AnObject)
    }
}

/// Brings a body into normal form (see [`json_text::normalise`]), or says why it is not JSON.
pub fn normalised(body: &[u8]) -> Result<Vec<u8>, InvalidBody> {
    json_text::normalise(body, limits::JSON_DEPTH).map_err(|error| InvalidBody::NotJson(error.to_string()))
}

impl<'a> Fields<'a> {
    /// The object a whole body is.
    pub fn of_body(body: &'a [u8]) -> Result<Self, InvalidBody> {
        match serde_json::from_slice(body) {
            Ok(members) => Ok(Fields { path: String::new(), members }),
            Err(error) if error.classify() == Category::Data => {
                Err(InvalidBody::field("body", "must be a JSON object"))
            }
            Err(error) => Err(InvalidBody::NotJson(error.to_string())),
        }
    }

    /// The object at `path`.
    pub fn of(path: String, raw: &'a RawValue) -> Result<Self, InvalidBody> {
        match serde_json::from_str(raw.get()) {
            Ok(members) => Ok(Fields { path, members }),
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
        self.get(name).filter(|raw| raw.get() != "null")
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Whether the field is there at all, be it `null`.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
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
        self.members.0.into_iter().map(|(name, value)| (name.into_owned(), value)).collect()
    }

    fn parse<T: serde::Deserialize<'a>>(&self, name: &str, expected: &str) -> Result<Option<T>, InvalidBody> {
        self.find(name)
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|_| InvalidBody::field(self.path_of(name), expected))
    }
}
