//! Header values as RFC 9421 reads them: joined raw values, and one member of a dictionary.
//!
//! A member is only used when it stands in canonical form, so its text, what it means and what was signed
//! are one and the same.

use http::HeaderMap;
use sfv::{Dictionary, FieldType, ListEntry, Parser, Version};

use super::SignatureError;

/// The most members a dictionary may hold.
pub(super) const MAX_MEMBERS: usize = 4;
/// The longest value read, all lines of a header together.
pub(super) const MAX_VALUE_BYTES: usize = 8 * 1024;

const NOT_CANONICAL: SignatureError = SignatureError::Malformed(
    "its members must be in the canonical form of RFC 8941: no extra spaces, no repeated parameters, padded base64",
);

/// The lines of a header without the blanks around them, joined by `, `; nothing when there are none.
pub(super) fn joined(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, SignatureError> {
    let mut value = String::new();
    let mut lines = 0_usize;
    for line in headers.get_all(name) {
        let line = std::str::from_utf8(line.as_bytes()).map_err(|_| SignatureError::Value(name))?;
        value.push_str(if lines > 0 { ", " } else { "" });
        value.push_str(line.trim_matches([' ', '\t']));
        if value.len() > MAX_VALUE_BYTES {
            return Err(SignatureError::Value(name));
        }
        lines += 1;
    }
    if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
        return Err(SignatureError::Value(name));
    }
    Ok((lines > 0).then_some(value))
}

/// The member `label` of a dictionary: its text after `label=`, and what that means.
pub(super) fn member<'a>(
    value: &'a str,
    label: &str,
) -> Result<Option<(&'a str, ListEntry)>, SignatureError> {
    let members = split(value);
    if members.len() > MAX_MEMBERS {
        return Err(SignatureError::TooManyLabels);
    }
    let mut dictionary: Dictionary =
        Parser::new(value).with_version(Version::Rfc8941).parse().map_err(|_| {
            SignatureError::Malformed("`Signature-Input` and `Signature` must be RFC 8941 dictionaries")
        })?;
    let mut ours = members.iter().filter(|member| key(member) == label);
    let Some(member) = ours.next() else { return Ok(None) };
    if ours.next().is_some() {
        return Err(SignatureError::Malformed("its label must be given once"));
    }
    dictionary.retain(|key, _| key.as_str() == label);
    if dictionary.serialize().as_deref() != Some(*member) {
        return Err(NOT_CANONICAL);
    }
    let text = member.strip_prefix(label).and_then(|rest| rest.strip_prefix('=')).ok_or(NOT_CANONICAL)?;
    Ok(dictionary.into_values().next().map(|entry| (text, entry)))
}

/// Cuts at commas outside of strings.
fn split(value: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let comma = |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == ',' && !quoted
    };
    value.split(comma).map(|member| member.trim_matches([' ', '\t'])).collect()
}

fn key(member: &str) -> &str {
    member.split(['=', ';']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Result<Option<&str>, SignatureError> {
        Ok(member(value, "a")?.map(|(text, _)| text))
    }

    #[test]
    fn one_member_is_found_as_it_was_written() {
        assert_eq!(text("a=(\"x\" \"y\");n=1"), Ok(Some("(\"x\" \"y\");n=1")));
        assert_eq!(text("b=\"a=1, a=\\\"2\", a=:AA==:"), Ok(Some(":AA==:")));
        assert_eq!(text("b=( \"x\"  );  n=1 ,\ta=2"), Ok(Some("2")), "others may be written as they like");
        assert_eq!(text("b=1, ab=2, a-=3, b;a=4"), Ok(None));
    }

    #[test]
    fn what_is_not_canonical_or_not_one_is_refused() {
        for bad in [
            "a=1, a=1",
            "a=1, b=2, a=1",
            "a=( \"x\")",
            "a=(\"x\"  \"y\")",
            "a=(\"x\" );n=1",
            "a=1; n=2",
            "a=1;n=1;n=2",
            "a=:AA:",
            "a=:AB==:",
            "a=01",
            "a=1.50",
            "a=?1",
            "a",
            "a;n=1",
            "a=1;n=?1",
        ] {
            assert!(matches!(text(bad), Err(SignatureError::Malformed(_))), "{bad:?}: {:?}", text(bad));
        }
        for bad in ["a=", "a=1,", "a=1 b=2", "A=1", "a=\"x", "a=(1", "a=@1", "a=%\"x\"", "=1", "a=1,,b=1", ""]
        {
            assert!(!matches!(text(bad), Ok(Some(_))), "{bad:?}");
        }
        assert_eq!(text("a=1, b, c, d, e"), Err(SignatureError::TooManyLabels));
    }
}
