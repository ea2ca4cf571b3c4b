//! Run objects in a peer's answers.

use std::collections::BTreeMap;

use serde_json::{Value, value::RawValue};

use super::json_fields::Fields;
use crate::domain::id::RunId;
use crate::domain::run::RunStatus;
use crate::domain::{json_text, limits};

/// A run as its home describes it.
#[derive(Debug, Clone)]
pub struct HomeRun {
    /// The id the home gives it.
    pub run_id: RunId,
    /// How far it has come; a home that does not say, or says something new, is taken to be at work.
    pub status: RunStatus,
    /// Where the home says its events are.
    pub events_url: Option<String>,
    /// The whole object, normalised.
    pub json: Vec<u8>,
}

/// Reads `{"run":{…}}`, or the run alone. Anything without a usable id is no run.
pub fn parse_answer(body: &[u8]) -> Option<HomeRun> {
    let body = json_text::normalise(body, limits::JSON_DEPTH).ok()?;
    let raw: &RawValue = serde_json::from_slice(&body).ok()?;
    let root = Fields::of(String::new(), raw).ok()?;
    let (run, json) = match root.find("run") {
        Some(inner) => (Fields::of("run".to_owned(), inner).ok()?, inner.get()),
        None => (root, raw.get()),
    };
    let text = |name: &str| run.find_string(name).ok().flatten();
    let run_id = RunId::parse(&text("run_id").or_else(|| text("id"))?).ok()?;
    let status = text("status").and_then(|name| RunStatus::find(&name)).unwrap_or(RunStatus::Queued);
    Some(HomeRun { run_id, status, events_url: text("events_url"), json: json.as_bytes().to_vec() })
}

impl HomeRun {
    /// The object, to pick from. A member with a number beyond every float is null, and spoils none beside it.
    pub fn value(&self) -> Value {
        let members: BTreeMap<String, &RawValue> = serde_json::from_slice(&self.json).unwrap_or_default();
        let read = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or(Value::Null);
        Value::Object(members.into_iter().map(|(name, raw)| (name, read(raw))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_wrapped_or_alone() {
        let wrapped = parse_answer(br#"{"run":{"run_id":"r1","status":"running","events_url":"/e"}}"#);
        let wrapped = wrapped.expect("a run");
        assert_eq!((wrapped.run_id.as_str(), wrapped.status), ("r1", RunStatus::Running));
        assert_eq!(parse_answer(br#"{"id":"r2"}"#).expect("a run").status, RunStatus::Queued);
        for none in [&b"<html>"[..], b"{}", b"[]", br#"{"run":{}}"#, br#"{"run_id":"a b"}"#, b"\xff"] {
            assert!(parse_answer(none).is_none());
        }
    }

    #[test]
    fn a_number_beyond_every_float_spoils_no_other_member() {
        let run = parse_answer(br#"{"run_id":"r1","output":{"text":"done"},"cost":[1e2089]}"#);
        let value = run.expect("a run").value();
        assert_eq!((&value["output"]["text"], &value["cost"]), (&Value::from("done"), &Value::Null));
    }
}
