//! Event envelopes: what is taken is one line of strict JSON that means what was sent, and reads the same again.

use causeway::domain::{json_equal, limits};
use causeway::protocol::envelope::{Reader, TerminalTypes};
use serde_json::Value;
use serde_json::value::RawValue;

/// One entry of an ingest, or the data of one frame.
pub(crate) fn run(data: &[u8]) {
    let terminal = TerminalTypes::new();
    let mut reader = Reader::new(&terminal);
    let parsed = match reader.read(data) {
        Ok(parsed) => parsed,
        Err(invalid) => {
            assert!(!invalid.reason.is_empty() && !invalid.field.is_empty());
            assert!(!invalid.reason.chars().any(char::is_control), "{:?}", invalid.reason);
            return;
        }
    };
    assert!(serde_json::from_slice::<&RawValue>(data).is_ok(), "what is taken was JSON");
    let json = &parsed.event.json;
    assert!(json.len() <= limits::EVENT_BYTES);
    let text = std::str::from_utf8(json).expect("stored events are text");
    assert!(!text.contains(['\n', '\r', '\u{2028}', '\u{2029}', '\0']), "one line for any reader");
    let again = reader.read(json).expect("a stored event is an event");
    assert_eq!(again.event.json, *json, "stored events are in normal form");
    assert_eq!((again.tenant, again.run), (parsed.tenant, parsed.run));
    assert_eq!(again.event.event_id, parsed.event.event_id);
    assert_eq!(again.event.sequence, parsed.event.sequence);
    // A number may be larger than a map of values holds; repeated keys stay, and a map keeps the last of them.
    let (Ok(value), Ok(kept)) =
        (serde_json::from_slice::<Value>(data), serde_json::from_slice::<Value>(json))
    else {
        return;
    };
    let sent = value.get("event").filter(|inner| inner.is_object()).unwrap_or(&value);
    assert!(json_equal::equal(kept.to_string().as_bytes(), sent.to_string().as_bytes()));
}
