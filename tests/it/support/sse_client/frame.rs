//! SSE frames as the contract wants them.
//!
//! Invariant: a frame is taken only if it is plain: LF, UTF-8, known fields, each at most once, one line of
//! JSON data, or a comment on a line of its own. What a lenient parser would forgive is a panic here, with
//! the bytes.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// Its bytes, the final newline included.
    pub(crate) raw: Vec<u8>,
    /// The `id:` field.
    pub(crate) id: Option<String>,
    /// The `event:` field.
    pub(crate) event: Option<String>,
    /// The `data:` field; `Null` when there is none.
    pub(crate) data: Value,
    /// The `retry:` field.
    pub(crate) retry: Option<u64>,
    /// What follows the colon of a comment.
    pub(crate) comment: Option<String>,
}

impl Frame {
    /// The length of the first frame in these bytes, once it is whole.
    pub(super) fn find_end(bytes: &[u8]) -> Option<usize> {
        if bytes.first() == Some(&b':') {
            return Some(bytes.iter().position(|byte| *byte == b'\n')? + 1);
        }
        assert_ne!(bytes.first(), Some(&b'\n'), "an empty line outside a frame: {}", shown(bytes));
        Some(bytes.windows(2).position(|pair| pair == b"\n\n")? + 2)
    }

    /// The frame these bytes are; panics if it is not plain.
    pub(super) fn parse(raw: &[u8]) -> Self {
        let text = std::str::from_utf8(raw).unwrap_or_else(|_| panic!("not UTF-8: {}", shown(raw)));
        assert!(!text.contains(['\r', '\u{feff}']), "a CR or a BOM in {text:?}");
        let mut frame =
            Self { raw: raw.to_vec(), id: None, event: None, data: Value::Null, retry: None, comment: None };
        if let Some(comment) = text.strip_prefix(':') {
            frame.comment = Some(comment.trim_end_matches('\n').to_owned());
            return frame;
        }
        let mut data = None;
        for line in text.trim_end_matches('\n').split('\n') {
            let (name, value) =
                line.split_once(": ").unwrap_or_else(|| panic!("no field: {line:?} in {text:?}"));
            let value = value.to_owned();
            let before = match name {
                "id" => frame.id.replace(value),
                "event" => frame.event.replace(value),
                "data" => data.replace(value),
                "retry" => {
                    let retry = value.parse().unwrap_or_else(|_| panic!("retry in {text:?}"));
                    frame.retry.replace(retry).map(|retry| retry.to_string())
                }
                _ => panic!("unknown field {name:?} in {text:?}"),
            };
            assert_eq!(before, None, "{name:?} twice in {text:?}");
        }
        if let Some(data) = data {
            frame.data = serde_json::from_str(&data)
                .unwrap_or_else(|error| panic!("data is no JSON, {error}: {text:?}"));
        }
        frame
    }

    /// Whether it carries an event of the run.
    pub(crate) fn is_event(&self) -> bool {
        self.event.as_deref() == Some("agentos.event")
    }

    /// Whether it is a control frame of this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.event.as_deref() == Some(name)
    }

    /// The sequence of its event.
    pub(crate) fn sequence(&self) -> u64 {
        let sequence = self.data["event"]["sequence"].as_u64();
        sequence.unwrap_or_else(|| panic!("no sequence in {}", shown(&self.raw)))
    }

    /// The bytes of its event object, verbatim.
    pub(crate) fn event_text(&self) -> String {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            event: &'a RawValue,
        }
        let text = std::str::from_utf8(&self.raw).expect("a parsed frame is text");
        let data =
            text.lines().find_map(|line| line.strip_prefix("data: ")).expect("an event frame has data");
        let envelope: Envelope<'_> = serde_json::from_str(data).expect("data is an envelope");
        envelope.event.get().to_owned()
    }

    /// Panics unless it keeps to the gateway's contract; `number` counts the frames of the connection from 0.
    pub(super) fn assert_contract(&self, number: usize) {
        let text = shown(&self.raw);
        if self.comment.is_some() {
            assert_eq!(text, ":hb\n", "a heartbeat is :hb and one newline");
            return;
        }
        assert!(self.data.is_object(), "a frame without data: {text:?}");
        assert!(!text.contains(['\u{2028}', '\u{2029}', '\u{85}']), "a separator unescaped: {text:?}");
        assert!(self.retry.is_none() || number == 0, "retry after the first frame: {text:?}");
        let field = |name: &str| self.data[name].as_u64().is_some();
        let sound = match self.event.as_deref() {
            Some("agentos.event") => self.id == Some(self.sequence().to_string()),
            Some("caught_up") => field("sequence"),
            Some("end") => field("sequence") && self.data["status"].is_string(),
            Some("gap") => field("from_sequence") && field("to_sequence") && self.data["reason"].is_string(),
            Some("stream_error") => self.data["error"]["code"].is_string(),
            _ => false,
        };
        assert!(sound, "not a frame of the contract: {text:?}");
        assert!(self.is_event() || self.id.is_none(), "a control frame with an id: {text:?}");
    }
}

/// Bytes as a panic shows them.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_frame_yields_its_fields_and_the_event_verbatim() {
        let raw =
            b"retry: 2000\nid: 7\nevent: agentos.event\ndata: {\"event\":{\"sequence\":7, \"n\":1.50}}\n\n";
        assert_eq!(Frame::find_end(&[raw.as_slice(), b"id: 8"].concat()), Some(raw.len()));
        assert_eq!(Frame::find_end(&raw[..raw.len() - 1]), None);
        let frame = Frame::parse(raw);
        assert_eq!((frame.id.as_deref(), frame.sequence(), frame.retry), (Some("7"), 7, Some(2000)));
        assert_eq!(frame.event_text(), "{\"sequence\":7, \"n\":1.50}");
        frame.assert_contract(0);
    }

    #[test]
    fn a_comment_is_a_frame_of_one_line() {
        assert_eq!(Frame::find_end(b":hb\nid: 1"), Some(4));
        let frame = Frame::parse(b":hb\n");
        assert_eq!((frame.comment.as_deref(), &frame.data), (Some("hb"), &Value::Null));
        frame.assert_contract(3);
    }

    #[test]
    fn each_breach_of_the_grammar_is_a_panic() {
        let breaches: [&[u8]; 8] = [
            b"data: {}\r\n\r\n\n\n",
            b"\xef\xbb\xbfdata: {}\n\n",
            b"data: \xff\n\n",
            b"data: {}\ndata: {}\n\n",
            b"data: nonsense\n\n",
            b"data:{}\n\n",
            b"colour: red\n\n",
            b"id: 1\n:comment\ndata: {}\n\n",
        ];
        for breach in breaches {
            assert!(std::panic::catch_unwind(|| Frame::parse(breach)).is_err(), "{}", shown(breach));
        }
        assert!(std::panic::catch_unwind(|| Frame::find_end(b"\n\n")).is_err());
    }

    #[test]
    fn each_breach_of_the_contract_is_a_panic() {
        let event = json!({"event": {"sequence": 3}});
        let breaches = [
            ":heartbeat\n".to_owned(),
            "id: 3\n\n".to_owned(),
            "retry: 5\n\n".to_owned(),
            "event: error\ndata: {}\n\n".to_owned(),
            format!("event: agentos.event\ndata: {event}\n\n"),
            format!("id: 4\nevent: agentos.event\ndata: {event}\n\n"),
            format!("retry: 5\nid: 3\nevent: agentos.event\ndata: {event}\n\n"),
            "id: 3\nevent: end\ndata: {\"sequence\":3,\"status\":\"completed\"}\n\n".to_owned(),
            "event: end\ndata: {\"sequence\":3}\n\n".to_owned(),
            "event: gap\ndata: {\"from_sequence\":3}\n\n".to_owned(),
            "event: caught_up\ndata: {}\n\n".to_owned(),
            "event: stream_error\ndata: {\"error\":\"a\u{2028}b\"}\n\n".to_owned(),
        ];
        for breach in breaches {
            let frame = Frame::parse(breach.as_bytes());
            assert!(std::panic::catch_unwind(|| frame.assert_contract(1)).is_err(), "{breach}");
        }
    }
}
