//! What a signature covers and the text that is signed (RFC 9421, section 2.5).
//!
//! The list follows from the request alone: a part of the profile that is there is covered, always.

use http::HeaderMap;

use super::fields::{self, MAX_VALUE_BYTES};
use super::{CONTENT_DIGEST, SignatureError};

/// The headers of the profile, in its order, and how each may come.
const HEADERS: [(&str, Presence); 10] = [
    ("content-type", Presence::Once),
    (CONTENT_DIGEST, Presence::Once),
    ("causeway-origin", Presence::Always),
    ("causeway-destination", Presence::Always),
    ("causeway-instance", Presence::Once),
    ("idempotency-key", Presence::Once),
    ("x-tenant-id", Presence::Once),
    ("x-principal-id", Presence::Once),
    ("causeway-via", Presence::Many),
    ("last-event-id", Presence::Once),
];

/// How often a header of the profile may come. A header with one meaning comes once: joined to one value for
/// the signature, two lines would still read as the first alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Exactly once.
    Always,
    /// At most once.
    Once,
    /// Any number of times.
    Many,
}

/// The parts of a request that a signature covers.
#[derive(Debug, Clone, Copy)]
pub struct SignedParts<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path, as sent, not decoded.
    pub path: &'a str,
    /// The query without its `?`, as sent; nothing and an empty one are the same to RFC 9421.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// A covered component and its value.
pub(super) type Component = (&'static str, String);

/// Every component a signature of this request must cover, in the order of the profile.
pub(super) fn covered(parts: &SignedParts<'_>) -> Result<Vec<Component>, SignatureError> {
    let query = format!("?{}", parts.query.unwrap_or_default());
    let mut components =
        vec![derived("@method", parts.method)?, derived("@path", parts.path)?, derived("@query", &query)?];
    if !parts.path.starts_with('/') {
        return Err(SignatureError::Malformed("the path must start with `/`"));
    }
    for (name, presence) in HEADERS {
        match fields::joined(parts.headers, name)? {
            None if presence == Presence::Always => return Err(SignatureError::Coverage(name)),
            None => {}
            Some(_) if presence != Presence::Many && parts.headers.get_all(name).iter().count() > 1 => {
                return Err(SignatureError::Repeated(name));
            }
            Some(value) => components.push((name, value)),
        }
    }
    Ok(components)
}

fn derived(name: &'static str, value: &str) -> Result<Component, SignatureError> {
    let plain = (1..=MAX_VALUE_BYTES).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    plain.then(|| (name, value.to_owned())).ok_or(SignatureError::Value(name))
}

/// The signature base: a line for each component, then the parameters as they stand in `Signature-Input`.
/// Names and values hold no line breaks.
pub(super) fn base(components: &[Component], params: &str) -> String {
    let mut base = String::new();
    for (name, value) in components {
        base.extend(["\"", name, "\": ", value, "\n"]);
    }
    base.extend(["\"@signature-params\": ", params]);
    base
}
