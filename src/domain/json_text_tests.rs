//! What is normal form, what is refused, and where members lie.

use std::ops::Range;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::json_equal::equal;
use super::json_samples::{any_json, dice, respelt};
use super::json_text::*;

const DEPTH: usize = 100;

#[test]
fn only_whitespace_and_line_ends_change() {
    //
    let text =
        " { \"b\" : [ 1.0e+2 , -0 ] ,\r\n\t\"a\":\"\\u0041 \\/ \u{2028}\u{2029}\u{85}é\", \"b\":{ } } ";
    let expected = "{\"b\":[1.0e+2,-0],\"a\":\"\\u0041 \\/ \\u2028\\u2029\\u0085é\",\"b\":{}}";
    assert_eq!(normalise(text.as_bytes(), DEPTH).as_deref(), Ok(expected.as_bytes()));
    let mut output = b"before".to_vec();
    assert!(normalise_into(&mut output, b"[1, 2, x]", DEPTH).is_err());
    assert_eq!(output, b"before");
}

#[test]
fn what_is_not_strict_json_is_refused_with_its_place() {
    use JsonTextErrorKind::*;
    let cases: [(_, usize, &[&[u8]]); 12] = [
        (UnexpectedEnd, 0, &[b""]),
        (UnexpectedEnd, 2, &[b"\"a", b"1.", b"[1", b"tr", b"1e", b"{ "]),
        (UnexpectedByte, 0, &[b"NaN", b"+1", b".5", b"\xEF\xBB\xBF1", b"'a'", b"]"]),
        (UnexpectedByte, 1, &[b"{a:1}", b"-x", b"[,1]", b"{]", b"nUll", b"{1:2}"]),
        (UnexpectedByte, 3, &[b"[1,]", b"[1 2]", b"[[]}"]),
        (TrailingBytes, 1, &[b"01", b"1]", b"1\0"]),
        (ControlCharacter, 1, &[b"\"\n\"", b"\"\0\""]),
        (InvalidEscape, 1, &[b"\"\\x\"", b"\"\\u12\"", b"\"\\u+123\""]),
        (LoneSurrogate, 1, &[b"\"\\ud800\"", b"\"\\udc00\\ud800\"", b"\"\\ud800\\u0041\""]),
        (InvalidUtf8, 1, &[b"\"\xC0\x80\"", b"\"\xED\xA0\x80\"", b"\"\x80\"", b"\"\xE2\x80\""]),
        (InvalidUtf8, 3, &[b"\"\xC3\xA9\x80\"", b"[\"a\xFF\"]"]),
        (TooDeep, 2, &[b"[[[]]]", b"[[{}]]"]),
    ];
    for (kind, offset, texts) in cases {
        for text in texts {
            let refused = Err(JsonTextError { kind, offset });
            assert_eq!(normalise(text, 2), refused, "{}", text.escape_ascii());
        }
    }
    assert!(normalise(b"[{}]", 2).is_ok() && normalise(b"1", 0).is_ok());
    let error = JsonTextError { kind: TooDeep, offset: 2 };
    assert_eq!(error.to_string(), "the JSON text is nested too deeply at byte 2");
}

#[test]
fn a_deep_text_ends_without_recursion() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(normalise(deep.as_bytes(), usize::MAX).is_ok());
}

proptest! {
    #[test]
    fn it_accepts_what_serde_json_accepts_and_numbers_of_any_size(
        value in any_json(), seed: u64,
        edits in prop::collection::vec((any::<usize>(), 0..30usize, 0..3u8), 0..4),
    ) {
        let mut text = respelt(&value, &mut dice(seed)).into_bytes();
        for (at, byte, act) in edits {
            let at = at % (text.len() + 1);
            let byte = b"{}[]:,\"\\ud8cEe+-.019 \n\x00\x1f\x7f\x80\xa8\xc2\xe2\xf0tf"[byte];
            match act {
                0 => text.insert(at, byte),
                1 => text.truncate(at),
                _ => drop(text.splice(at..text.len().min(at + 1), [byte])),
            }
        }
        let (oracle, got) = (serde_json::from_slice::<Json>(&text), normalise(&text, DEPTH));
        equal(&text, b"[{\"a\":0}]"); // an answer comes, whatever the text
        if !oracle.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")) {
            prop_assert_eq!(oracle.is_ok(), got.is_ok(), "{} {:?}", text.escape_ascii(), got);
        }
        if let (Ok(value), Ok(got)) = (oracle, got) {
            prop_assert_eq!(serde_json::from_slice::<Json>(&got).ok(), Some(value));
            prop_assert_eq!(normalise(&got, DEPTH), Ok(got.clone()));
        }
    }

    #[test]
    fn members_lie_where_they_are_said_to(
        value in any_json(), before in prop_oneof![any_json().prop_map(|json| json.to_string()), "[\\[{}\": ]{0,9}"],
        seed: u64,
    ) {
        let text = respelt(&value, &mut dice(seed));
        let mut normal = Normal::default();
        let _ = normal.read(before.as_bytes(), DEPTH); // what was read before leaves nothing
        normal.read(text.as_bytes(), DEPTH).expect("JSON");
        prop_assert_eq!(Ok(normal.text.clone()), normalise(text.as_bytes(), DEPTH));
        prop_assert!(normalise(text.as_bytes(), normal.depth).is_ok());
        prop_assert!(normal.depth == 0 || normalise(text.as_bytes(), normal.depth - 1).is_err());
        let read = |range: &Range<usize>| serde_json::from_slice::<Json>(&normal.text[range.clone()]).ok();
        let within = |depth: usize, place: &Range<usize>| {
            let inside = |member: &&Member| {
                member.depth == depth && place.start <= member.name.start && member.value.end <= place.end
            };
            let members = normal.members.iter().filter(inside);
            members
                .map(|Member { name, value, .. }| match (read(name), read(value)) {
                    (Some(Json::String(name)), Some(value)) => (name, value),
                    other => panic!("{other:?} in {text}"),
                })
                .collect::<serde_json::Map<_, _>>()
        };
        let found = within(1, &(0..normal.text.len()));
        for member in normal.members.iter().filter(|member| member.depth == 1) {
            let value = read(&member.value).expect("a value");
            prop_assert_eq!(value.as_object().cloned().unwrap_or_default(), within(2, &member.value));
        }
        let whole: Json = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(whole.as_object().cloned().unwrap_or_default(), found);
    }
}
