//! The one field of a JSON object that bears a tenant's name, on its way between two that name it differently.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::ParsedEvent;
use crate::domain::tenant_names::TenantNames;

/// One tenant's name on the side that wrote, and on the side that reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renaming {
    from: String,
    to: String,
}

/// What is looked at.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    tenant_id: Option<&'a RawValue>,
}

impl Renaming {
    /// From one name to the other; none where they are the same.
    pub fn between(from: &str, to: &str) -> Option<Self> {
        (from != to).then(|| Renaming { from: from.to_owned(), to: to.to_owned() })
    }

    /// The object under the other name. Every other byte stays, and so does all of an object that names
    /// another tenant, or none.
    pub fn apply<'a>(&self, object: &'a [u8]) -> Cow<'a, [u8]> {
        let field = serde_json::from_slice::<Named<'_>>(object).ok().and_then(|named| named.tenant_id);
        let Some(field) = field.map(RawValue::get) else { return Cow::Borrowed(object) };
        if !serde_json::from_str::<String>(field).is_ok_and(|name| name == self.from) {
            return Cow::Borrowed(object);
        }
        let begin = field.as_ptr().addr() - object.as_ptr().addr();
        let name = serde_json::Value::from(self.to.as_str()).to_string();
        Cow::Owned([&object[..begin], name.as_bytes(), &object[begin + field.len()..]].concat())
    }
}

impl ParsedEvent {
    /// Brings an event from the words of the peer that sent it into ours; false when its tenant is none of ours.
    pub fn translate(&mut self, names: &TenantNames) -> bool {
        let Some(ours) = names.ours(&self.tenant) else { return false };
        if let Some(renaming) = Renaming::between(self.tenant.as_str(), ours.as_str()) {
            self.event.json = Bytes::from(renaming.apply(&self.event.json).into_owned());
            self.tenant = ours;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::envelope::{Reader, TerminalTypes};
    use super::*;

    #[test]
    fn one_field_changes_and_no_other_byte() {
        let renaming = Renaming::between("acme", "acme-\"eu\"").expect("two names");
        let apply = |text: &'static str| String::from_utf8(renaming.apply(text.as_bytes()).into_owned());
        for (before, after) in [
            (
                r#"{"n":1.50,"tenant_id":"acme","payload":{"tenant_id":"acme"}}"#,
                r#"{"n":1.50,"tenant_id":"acme-\"eu\"","payload":{"tenant_id":"acme"}}"#,
            ),
            (r#"{"tenant\u005fid" : "\u0061cme"}"#, r#"{"tenant\u005fid" : "acme-\"eu\""}"#),
        ] {
            assert_eq!(apply(before).as_deref(), Ok(after));
        }
        for other in [r#"{"tenant_id":"beta"}"#, r#"{"tenant_id":7}"#, "{}", "[]", "no JSON"] {
            assert_eq!(apply(other).as_deref(), Ok(other));
        }
        assert_eq!(Renaming::between("acme", "acme"), None);
    }

    #[test]
    fn an_event_in_a_peers_words_becomes_one_in_ours() {
        let names: TenantNames = serde_json::from_str(r#"{"acme":"acme-eu"}"#).expect("names");
        let event = |tenant: &str| {
            let text = format!(r#"{{"event_id":"e","type":"x","tenant_id":"{tenant}","run_id":"r"}}"#);
            Reader::new(&TerminalTypes::new()).read(text.as_bytes()).expect("an event")
        };
        let mut mapped = event("acme-eu");
        assert!(mapped.translate(&names));
        assert_eq!((&mapped.tenant, &mapped.event.json), (&event("acme").tenant, &event("acme").event.json));
        let mut other = event("beta");
        assert!(other.translate(&names));
        assert_eq!(other.event.json, event("beta").event.json);
        assert!(!event("acme").translate(&names), "our own word is none of theirs");
    }
}
