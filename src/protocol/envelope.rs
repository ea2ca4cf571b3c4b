//! Events on the wire: an envelope `{event, federation?}`, or the event alone, brought into normal form.
//!
//! The event object keeps its bytes, but for insignificant whitespace. Only the fields the gateway needs
//! are read; everything else passes through unseen.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json_fields::{Fields, InvalidBody};
use crate::domain::event::NewEvent;
use crate::domain::id::{AgentId, EventId, RunId, TenantId};
use crate::domain::run::RunStatus;
use crate::domain::{json_text, limits};

/// Event types that end a run, with the status they say, beside AgentOS' own.
pub type TerminalTypes = BTreeMap<String, RunStatus>;

/// An event that can be stored, and the run it says it belongs to.
#[derive(Debug, Clone)]
pub struct ParsedEvent {
    /// The tenant it names.
    pub tenant: TenantId,
    /// The run it names.
    pub run: RunId,
    /// The agent it names, when it does.
    pub agent: Option<AgentId>,
    /// The peer that its envelope says it comes from.
    pub origin: Option<String>,
    /// The rest.
    pub event: NewEvent,
}

/// Why a text is not an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidEvent {
    /// Its id, when that much could be read.
    pub event_id: Option<String>,
    /// The field at fault.
    pub field: String,
    /// A sentence.
    pub reason: String,
    /// It is an event, but too large.
    pub too_large: bool,
}

/// What a gateway says beside an event.
#[derive(Debug, Default, Deserialize)]
struct FederationFields {
    #[serde(default)]
    derived: bool,
    /// The peer it says it comes from.
    #[serde(default)]
    origin_peer: Option<String>,
}

/// Reads one entry: an envelope, or a flat event.
pub fn parse(raw: &RawValue, terminal: &TerminalTypes) -> Result<ParsedEvent, InvalidEvent> {
    let outer = Fields::of("event".to_owned(), raw).map_err(|error| invalid(None, &error))?;
    let inner = outer.find("event").filter(|inner| inner.get().starts_with('{'));
    let federation = outer
        .find("federation")
        .filter(|_| inner.is_some())
        .and_then(|federation| serde_json::from_str::<FederationFields>(federation.get()).ok())
        .unwrap_or_default();
    let parsed = parse_event(inner.unwrap_or(raw).get().as_bytes(), terminal, federation.derived)?;
    Ok(ParsedEvent { origin: federation.origin_peer, ..parsed })
}

fn parse_event(text: &[u8], terminal: &TerminalTypes, derived: bool) -> Result<ParsedEvent, InvalidEvent> {
    let json = json_text::normalise(text, limits::JSON_DEPTH)
        .map_err(|error| invalid(None, &InvalidBody::NotJson(error.to_string())))?;
    let fields = EventFields::read(&json)?;
    // Counted as it is stored and sent on, so that what one gateway takes the next one takes too.
    if json.len() > limits::EVENT_BYTES {
        return Err(too_large(fields.known_id()));
    }
    let kind = fields.id("type", |text| Some(text.to_owned()))?;
    let said = RunStatus::from_terminal_event_type(&kind).or_else(|| terminal.get(&kind).copied());
    let (tenant, run) = (
        fields.id("tenant_id", |t| TenantId::parse(t).ok())?,
        fields.id("run_id", |t| RunId::parse(t).ok())?,
    );
    let agent = fields.text("agent_id").and_then(|text| AgentId::parse(&text).ok());
    let event = NewEvent {
        event_id: fields.id("event_id", |t| EventId::parse(t).ok())?,
        sequence: fields.sequence()?,
        terminal: said,
        starts_work: kind != "agentos.run.created" && kind != "agentos.run.queued",
        derived,
        json: Bytes::new(),
    };
    Ok(ParsedEvent { tenant, run, agent, origin: None, event: NewEvent { json: Bytes::from(json), ..event } })
}

/// The fields the gateway reads, still as text. Duplicate names are refused by the derived reader.
#[derive(Deserialize)]
struct EventFields<'a> {
    #[serde(borrow, default)]
    event_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tenant_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    run_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    agent_id: Option<&'a RawValue>,
    // `null` is a value here: the sequence given to the event would stand beside it, under the same name.
    #[serde(borrow, default, deserialize_with = "even_null")]
    sequence: Option<&'a RawValue>,
}

impl<'a> EventFields<'a> {
    fn read(json: &'a [u8]) -> Result<Self, InvalidEvent> {
        serde_json::from_slice(json)
            .map_err(|error| invalid(None, &InvalidBody::field("event", error.to_string())))
    }

    fn text(&self, name: &str) -> Option<String> {
        let raw = match name {
            "event_id" => self.event_id,
            "type" => self.kind,
            "tenant_id" => self.tenant_id,
            "run_id" => self.run_id,
            _ => self.agent_id,
        };
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// A required field with the form of an id.
    fn id<T>(&self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, InvalidEvent> {
        self.text(name)
            .filter(|text| crate::domain::id::is_id(text))
            .and_then(|text| parse(&text))
            .ok_or_else(|| {
                let expected = "is required and must be 1 to 128 visible ASCII characters (! to ~)";
                invalid(self.known_id(), &InvalidBody::field(name, expected))
            })
    }

    fn sequence(&self) -> Result<Option<u64>, InvalidEvent> {
        let Some(raw) = self.sequence else { return Ok(None) };
        let plain = raw.get().bytes().all(|byte| byte.is_ascii_digit());
        let value = plain.then(|| raw.get().parse::<u64>().ok()).flatten();
        value.filter(|value| (1..=crate::domain::event::MAX_SEQUENCE).contains(value)).map(Some).ok_or_else(
            || {
                let most = crate::domain::event::MAX_SEQUENCE;
                let expected = format!("must be an integer from 1 to {most}, or be left out");
                invalid(self.known_id(), &InvalidBody::field("sequence", expected))
            },
        )
    }

    fn known_id(&self) -> Option<String> {
        self.text("event_id").filter(|text| crate::domain::id::is_id(text))
    }
}

fn invalid(event_id: Option<String>, error: &InvalidBody) -> InvalidEvent {
    let field = match error {
        InvalidBody::NotJson(_) => "event".to_owned(),
        InvalidBody::Field { field, .. } => field.clone(),
    };
    InvalidEvent { event_id, field, reason: limits::clean_reason(&error.to_string()), too_large: false }
}

fn even_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn too_large(event_id: Option<String>) -> InvalidEvent {
    InvalidEvent {
        event_id,
        field: "event".to_owned(),
        reason: format!("an event may have at most {} bytes", limits::EVENT_BYTES),
        too_large: true,
    }
}

/// What this gateway says beside an event it serves, as JSON.
#[derive(Debug, Serialize)]
pub struct Federation<'a> {
    /// The peer that gave the sequence.
    pub home: &'a str,
    /// When this gateway's log took the event, RFC 3339.
    pub received_at: &'a str,
    /// A gateway made the event from the home's status.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub derived: bool,
}

/// The event that closes a run whose home never said so in its stream.
pub fn derived_terminal(
    event_id: &str,
    (tenant, agent, run): (&str, &str, &str),
    status: RunStatus,
    (time, sequence, traceparent): (&str, u64, &str),
    home_run: &serde_json::Value,
) -> Option<Bytes> {
    let kind = status.terminal_event_type()?;
    let event = serde_json::json!({
        "event_id": event_id,
        "sequence": sequence,
        "time": time,
        "type": kind,
        "tenant_id": tenant,
        "agent_id": agent,
        "run_id": run,
        "step_id": null,
        "trace": { "traceparent": traceparent },
        "payload": {
            "status": status.as_str(),
            "output": home_run.get("output").unwrap_or(&serde_json::Value::Null),
            "error": home_run.get("error").unwrap_or(&serde_json::Value::Null),
            "reason": "the home reports this status; its stream ended without saying so",
        },
    });
    json_text::normalise(event.to_string().as_bytes(), limits::JSON_DEPTH).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ParsedEvent, InvalidEvent> {
        let raw: &RawValue = serde_json::from_str(text).expect("JSON");
        parse(raw, &TerminalTypes::new())
    }

    const FLAT: &str = r#"{ "event_id":"e1", "sequence":3, "type":"agentos.run.completed",
        "tenant_id":"t", "run_id":"r", "agent_id":"a", "payload":{"n":1.50,"big":12345678901234567890} }"#;

    #[test]
    fn nested_and_flat_events_are_the_same_event() {
        let flat = read(FLAT).expect("flat");
        let nested = read(&format!(r#"{{"event":{FLAT},"federation":{{"home":"x"}}}}"#)).expect("nested");
        assert_eq!(flat.event.json, nested.event.json);
        assert_eq!(flat.event.terminal, Some(RunStatus::Completed));
        let json = std::str::from_utf8(&flat.event.json).expect("UTF-8");
        assert!(json.contains(r#""n":1.50,"big":12345678901234567890"#), "numbers keep their text: {json}");
    }

    #[test]
    fn what_cannot_be_an_event_says_which_field() {
        // defect 3, reliability 4d.43
        for (from, to, field) in [
            (r#""event_id":"e1""#, r#""event_id":"e\n1""#, "event_id"),
            (r#""event_id":"e1","#, "", "event_id"),
            (r#""tenant_id":"t","#, "", "tenant_id"),
            (r#""run_id":"r""#, r#""run_id":7"#, "run_id"),
            (r#""type":"agentos.run.completed""#, r#""type":"""#, "type"),
            (r#""sequence":3"#, r#""sequence":"3""#, "sequence"),
            (r#""sequence":3"#, r#""sequence":0"#, "sequence"),
            (r#""sequence":3"#, r#""sequence":null"#, "sequence"),
            (r#""sequence":3"#, r#""sequence":-1"#, "sequence"),
            (r#""sequence":3"#, r#""sequence":3.0"#, "sequence"),
            (r#""sequence":3"#, r#""sequence":4294967296"#, "sequence"),
        ] {
            let error = read(&FLAT.replace(from, to)).expect_err(to);
            assert_eq!(error.field, field, "{error:?}");
        }
        assert!(read(r#"[1]"#).is_err());
        assert!(
            read(&FLAT.replace(r#""payload":{"#, r#""run_id":"x","payload":{"#)).is_err(),
            "a field twice"
        );
    }
}
