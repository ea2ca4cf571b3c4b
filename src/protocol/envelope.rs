//! Events on the wire: an envelope `{event, federation?}`, or the event alone, brought into normal form.
//!
//! The event object keeps its bytes, but for insignificant whitespace. Only the fields the gateway needs
//! are read; everything else passes through unseen.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::json_fields::InvalidBody;
use crate::domain::event::{MAX_SEQUENCE, NewEvent, Sequence};
use crate::domain::id::{AgentId, EventId, RunId, TenantId};
use crate::domain::json_text::{self, Member, Normal};
use crate::domain::limits;
use crate::domain::run::RunStatus;

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

/// Reads one entry after the other, in the same room. A name that is the same as in the entry before, as most are,
/// shares its memory.
#[derive(Debug)]
pub struct Reader<'a> {
    terminal: &'a TerminalTypes,
    normal: Normal,
    tenant: Option<TenantId>,
    run: Option<RunId>,
    agent: Option<AgentId>,
}

impl<'a> Reader<'a> {
    /// Reads entries in which these types end a run, too.
    pub fn new(terminal: &'a TerminalTypes) -> Self {
        Reader { terminal, normal: Normal::default(), tenant: None, run: None, agent: None }
    }

    /// Reads one entry: an envelope, or a flat event.
    pub fn read(&mut self, text: &[u8]) -> Result<ParsedEvent, InvalidEvent> {
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(invalid(None, &InvalidBody::field("event", "must be an object")));
        }
        // An envelope is one level more than the event in it.
        self.normal
            .read(text, limits::JSON_DEPTH + 1)
            .map_err(|error| invalid(None, &InvalidBody::NotJson(error.to_string())))?;
        let whole = 0..self.normal.text.len();
        let envelope = Object::at(&self.normal, 1, &whole);
        let inner = envelope.place("event").filter(|place| self.normal.text[place.clone()].starts_with(b"{"));
        let Some(inner) = inner else {
            if self.normal.depth > limits::JSON_DEPTH {
                return Err(too_deep());
            }
            return self.event((1, whole), FederationFields::default());
        };
        let federation = envelope.find("federation").and_then(|text| serde_json::from_slice(text).ok());
        self.event((2, inner), federation.unwrap_or_default())
    }

    /// The event that lies so deep, and there.
    fn event(
        &mut self,
        (depth, place): (usize, Range<usize>),
        federation: FederationFields,
    ) -> Result<ParsedEvent, InvalidEvent> {
        let text = Object::at(&self.normal, depth, &place);
        // Two readers of an event must not see two runs in it.
        if let Some(name) = text.repeated {
            return Err(invalid(None, &InvalidBody::field("event", format!("has `{name}` twice"))));
        }
        // Counted as it is stored and sent on, so that what one gateway takes the next one takes too.
        if place.len() > limits::EVENT_BYTES {
            return Err(too_large(text.known_id()));
        }
        let kind = text.id("type", Some)?;
        let said = RunStatus::from_terminal_event_type(&kind).or_else(|| self.terminal.get(&*kind).copied());
        let starts_work = kind != "agentos.run.created" && kind != "agentos.run.queued";
        let tenant = text.id("tenant_id", |text| TenantId::parse_after(&mut self.tenant, &text).ok())?;
        let run = text.id("run_id", |text| RunId::parse_after(&mut self.run, &text).ok())?;
        let agent = text.string("agent_id");
        let agent = agent.and_then(|text| AgentId::parse_after(&mut self.agent, &text).ok());
        let (event_id, sequence) = (text.id("event_id", |t| EventId::parse(&t).ok())?, text.sequence()?);
        // A copy, as large as what it holds: the room is for the next one.
        let (derived, json) = (federation.derived, Bytes::copy_from_slice(&self.normal.text[place]));
        let event = NewEvent { event_id, sequence, terminal: said, starts_work, derived, json };
        Ok(ParsedEvent { tenant, run, agent, origin: federation.origin_peer, event })
    }
}

/// The fields the gateway reads: of an event, and of an envelope.
const FIELDS: [&str; 8] =
    ["event_id", "type", "tenant_id", "run_id", "agent_id", "sequence", "event", "federation"];

/// An object in a text in normal form, whose fields are read where they lie.
struct Object<'a> {
    text: &'a [u8],
    /// Where the value of each of [`FIELDS`] lies. Of a name that comes twice, the last one counts.
    values: [Option<Range<usize>>; FIELDS.len()],
    repeated: Option<&'static str>,
}

impl<'a> Object<'a> {
    fn at(normal: &'a Normal, depth: usize, place: &Range<usize>) -> Self {
        let (mut values, mut repeated) = ([const { None }; FIELDS.len()], None);
        let is_its = |member: &&Member| member.depth == depth && place.contains(&member.name.start);
        for member in normal.members.iter().filter(is_its) {
            if let Some(at) = normal.text.get(member.name.clone()).and_then(field)
                && values[at].replace(member.value.clone()).is_some()
            {
                repeated = Some(FIELDS[at]);
            }
        }
        Object { text: &normal.text, values, repeated }
    }

    fn place(&self, name: &str) -> Option<Range<usize>> {
        let at = FIELDS.iter().position(|field| *field == name)?;
        self.values[at].clone()
    }

    /// The text of a field; `null` counts as one.
    fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.text.get(self.place(name)?)
    }

    fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        unquoted(self.find(name)?)
    }

    /// A required field with the form of an id.
    fn id<T>(&self, name: &str, parse: impl FnOnce(Cow<'a, str>) -> Option<T>) -> Result<T, InvalidEvent> {
        self.string(name).filter(|text| crate::domain::id::is_id(text)).and_then(parse).ok_or_else(|| {
            let expected = "is required and must be 1 to 128 visible ASCII characters (! to ~)";
            invalid(self.known_id(), &InvalidBody::field(name, expected))
        })
    }

    fn sequence(&self) -> Result<Option<Sequence>, InvalidEvent> {
        // `null` is a value here: the sequence given to the event would stand beside it, under the same name.
        let Some(text) = self.find("sequence") else { return Ok(None) };
        let plain =
            std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let value = plain.and_then(|text| text.parse::<u64>().ok());
        value.and_then(Sequence::new).map(Some).ok_or_else(|| {
            let expected = format!("must be an integer from 1 to {MAX_SEQUENCE}, or be left out");
            invalid(self.known_id(), &InvalidBody::field("sequence", expected))
        })
    }

    fn known_id(&self) -> Option<String> {
        self.string("event_id").filter(|text| crate::domain::id::is_id(text)).map(Cow::into_owned)
    }
}

/// Which of [`FIELDS`] has this name, a JSON string.
fn field(name: &[u8]) -> Option<usize> {
    let inner = name.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let at = |name: &[u8]| FIELDS.iter().position(|field| field.as_bytes() == name);
    at(inner).or_else(|| if inner.contains(&b'\\') { at(unquoted(name)?.as_bytes()) } else { None })
}

/// The string that a JSON text is, if it is one; copied only if it has escapes.
fn unquoted(text: &[u8]) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice(text).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

fn invalid(event_id: Option<String>, error: &InvalidBody) -> InvalidEvent {
    let field = match error {
        InvalidBody::NotJson(_) => "event".to_owned(),
        InvalidBody::Field { field, .. } => field.clone(),
    };
    InvalidEvent { event_id, field, reason: limits::clean_reason(&error.to_string()), too_large: false }
}

fn too_deep() -> InvalidEvent {
    let reason = format!("the JSON text is nested more than {} deep", limits::JSON_DEPTH);
    invalid(None, &InvalidBody::NotJson(reason))
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
    (time, sequence, traceparent): (&str, Sequence, &str),
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
        Reader::new(&TerminalTypes::new()).read(text.as_bytes())
    }

    const FLAT: &str = r#"{ "event_id":"e1", "sequence":3, "type":"agentos.run.completed",
        "tenant_id":"t", "run_id":"r", "agent_id":"a", "payload":{"n":1.50,"big":12345678901234567890} }"#;

    #[test]
    fn nested_and_flat_events_are_the_same_event() {
        let flat = read(FLAT).expect("flat");
        let nested = read(&format!(r#"{{"event":{FLAT},"federation":{{"home":"x"}}}}"#)).expect("nested");
        assert_eq!(flat.event.json, nested.event.json);
        assert_eq!((&flat.run, flat.event.sequence), (&nested.run, nested.event.sequence));
        assert_eq!(flat.event.terminal, Some(RunStatus::Completed));
        let json = std::str::from_utf8(&flat.event.json).expect("UTF-8");
        assert!(json.contains(r#""n":1.50,"big":12345678901234567890"#), "numbers keep their text: {json}");
    }

    // What was read before, good or bad, leaves nothing behind but names that are the same.
    #[test]
    fn one_entry_after_the_other_is_read_as_by_itself() {
        let terminal = TerminalTypes::new();
        let others = FLAT.replace(r#""t""#, r#""u""#).replace(r#""r""#, r#""s""#).replace(r#""a""#, r#""b""#);
        let nested = format!(r#"{{"event":{others},"federation":{{"origin_peer":"x","derived":true}}}}"#);
        let nameless = FLAT.replace(r#""agent_id":"a","#, "");
        let (deep, cut) = (format!(r#"{{"payload":{}"#, "[".repeat(300)), &FLAT[..FLAT.len() - 9]);
        let spelt = FLAT.replace(r#""run_id""#, r#""run\u005fid""#);
        let texts = [FLAT, &others, &deep, &nested, cut, &nameless, "7", &spelt, "{}", &nested, FLAT];
        let mut reader = Reader::new(&terminal);
        for text in texts {
            let after_others = reader.read(text.as_bytes());
            assert_eq!(format!("{after_others:?}"), format!("{:?}", read(text)), "{text}");
        }
        assert_eq!(texts.iter().filter(|text| read(text).is_ok()).count(), 7);
    }

    // Followers have events in memory, counted by their length.
    #[test]
    fn an_event_holds_no_more_memory_than_it_has_bytes() {
        let (spaces, filling) = (" ".repeat(100_000), "x".repeat(100_000));
        let flat = FLAT.replacen(' ', &spaces, 1);
        let nested = format!(r#"{{"event":{FLAT},"filling":"{filling}"}}"#);
        for text in [FLAT, &flat, &nested] {
            let json = read(text).expect("an event").event.json;
            let length = json.len();
            let held = json.try_into_mut().expect("nobody else has it").capacity();
            assert_eq!(held, length);
        }
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
