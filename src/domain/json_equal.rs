//! Two JSON texts compared by value, because honest relays re-encode.
//!
//! Nothing recurses; time is `O(n log n)` and memory `O(n)` in the length of the texts, whatever they say.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;

use super::json_text::unescaped_character;

/// A value whose parts are replaced by their classes; alike exactly when the values are equal.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Node<'a> {
    /// A string or a literal, unescaped; strings keep their quotes.
    Text(Cow<'a, [u8]>),
    /// Sign, digits without zeros at either end, and the power of ten before the first digit.
    Number(bool, Vec<u8>, Vec<i128>),
    Array(Vec<usize>),
    Object(BTreeMap<Cow<'a, [u8]>, usize>),
}

/// Whether two texts are the same JSON value: members in any order (of a repeated key the last counts),
/// strings unescaped, numbers by exact decimal value, arrays in order.
///
/// Both texts must be valid; for others the answer means nothing, but it comes. Identical bytes are equal.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    let mut classes = BTreeMap::new();
    let mut class = |text| class_of(text, &mut classes);
    left == right || class(left).is_some_and(|left| class(right) == Some(left))
}

/// Length in bytes of the token at the start of a text that is not empty; at least 1.
fn token_length(text: &[u8]) -> usize {
    if text.first() == Some(&b'"') {
        let mut escaped = true; // the opening quote closes nothing
        let end = text.iter().position(|byte| {
            let closes = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            closes
        });
        return end.map_or(text.len(), |end| end + 1);
    }
    let ends = |byte: &u8| {
        matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'"' | b'[' | b']' | b'{' | b'}')
    };
    text.iter().position(ends).unwrap_or(text.len()).max(1)
}

/// Gives every value of `text` a class, equal ones the same, from the inside out; returns that of the whole.
fn class_of<'a>(text: &'a [u8], classes: &mut BTreeMap<Node<'a>, usize>) -> Option<usize> {
    // Arrays and objects not closed yet: the key each has outside, and its members so far.
    let mut open = Vec::new();
    let (mut rest, mut key, mut whole) = (text, Cow::default(), None);
    while let Some(&first) = rest.first() {
        let (token, after) = rest.split_at(token_length(rest));
        rest = after;
        let node = match first {
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => continue,
            b'[' | b'{' => {
                open.push((mem::take(&mut key), Vec::new()));
                continue;
            }
            b'"' if after.trim_ascii_start().first() == Some(&b':') => {
                key = unescaped(token);
                continue;
            }
            b']' | b'}' => {
                let (own_key, members) = open.pop()?;
                key = own_key;
                if first == b']' {
                    Node::Array(members.into_iter().map(|(_, class)| class).collect())
                } else {
                    let mut object = BTreeMap::new();
                    members.into_iter().for_each(|(key, class)| _ = object.insert(key, class));
                    Node::Object(object)
                }
            }
            b'-' | b'0'..=b'9' => decimal(token),
            _ => Node::Text(unescaped(token)),
        };
        let next = classes.len();
        let class = *classes.entry(node).or_insert(next);
        match open.last_mut() {
            Some((_, members)) => members.push((mem::take(&mut key), class)),
            None => whole = Some(class),
        }
    }
    whole
}

/// A string with its escapes resolved, as UTF-8.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        let run = rest.iter().position(|byte| *byte == b'\\').unwrap_or(rest.len());
        let (verbatim, escape) = rest.split_at(run);
        plain.extend_from_slice(verbatim);
        let Ok((character, length)) = unescaped_character(escape) else { return Cow::Owned(plain) };
        plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = escape.get(length..).unwrap_or_default();
    }
}

/// A number in a form that is the same for equal numbers; all zeros are alike.
fn decimal<'a>(text: &[u8]) -> Node<'a> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let mut parts = text.splitn(2, |byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
    let mut digits: Vec<u8> = mantissa.iter().copied().filter(u8::is_ascii_digit).collect();
    while digits.pop_if(|digit| *digit == b'0').is_some() {}
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.drain(..zeros);
    if digits.is_empty() {
        return Node::Number(false, digits, Vec::new());
    }
    Node::Number(negative, digits, sum_in_limbs(exponent, point as i128 - zeros as i128))
}

/// `exponent + offset` as limbs, lowest first and in complement: exact, and in time and memory proportional
/// to the length of the exponent's text, not to its value.
fn sum_in_limbs(exponent: &[u8], offset: i128) -> Vec<i128> {
    const DIGITS: usize = 30;
    const LIMB: i128 = 10i128.pow(DIGITS as u32);
    let (sign, exponent) = match exponent.split_first() {
        Some((b'-', digits)) => (-1, digits),
        Some((b'+', digits)) => (1, digits),
        _ => (1, exponent),
    };
    let mut limbs = Vec::new();
    let mut carry = offset;
    // One empty chunk more, so that an offset alone fills its limb too.
    for chunk in exponent.rchunks(DIGITS).chain([&[][..]]) {
        let limb = chunk.iter().fold(0, |limb, digit| limb * 10 + i128::from(digit.wrapping_sub(b'0')));
        let sum = carry + sign * limb;
        limbs.push(sum.rem_euclid(LIMB));
        carry = sum.div_euclid(LIMB);
    }
    let extension = carry.rem_euclid(LIMB);
    while limbs.pop_if(|limb| *limb == extension).is_some() {}
    limbs.push(carry);
    limbs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::json_samples::{any_json, dice, respelt};
    use crate::domain::json_text::normalise;

    const DEPTH: usize = 100;

    #[test]
    fn values_are_compared_not_their_spelling() {
        // A-17: every line is one value, in spellings separated by spaces.
        let values = r#"
            100 1e2 1E+02 100.0 0.1e3 10000e-0002
            0 -0 0.0e5 -0e-9
            -1 -10e-1
            0.1 1e-1
            0.10000000000000001
            1e400 10e399
            9007199254740993 9007199254740993.0
            9007199254740992
            1e999999999999
            1e1000000000000000000000000000000000000000 100e999999999999999999999999999999999999998
            1e-1000000000000000000000000000000000000000 0.01e-999999999999999999999999999999999999998
            {"a":1,"b":[{}]} {"\u0062":[{}],"a":1.0} {"a":2,"b":0,"b":[{}],"\u0061":1}
            {"a":1,"b":[[]]}
            {"a":1} {"a":2,"a":1}
            {"a":2} {"a":1,"a":2}
            {"b":1}
            "😀/\n\"" "\ud83d\uDE00\/\u000A\u0022"
            "1"
            null
            true
            []
            {}
            [[]]
            [1,2]
            [2,1]
            [1,1]
            [[1],[2]]
            [[1],[1]]"#;
        let lines = values.lines().map(str::split_whitespace).enumerate();
        let spelt: Vec<_> = lines.flat_map(|(line, texts)| texts.map(move |text| (line, text))).collect();
        for (one, left) in &spelt {
            for (other, right) in &spelt {
                assert_eq!(equal(left.as_bytes(), right.as_bytes()), one == other, "{left} {right}");
            }
        }
    }

    #[test]
    fn hostile_texts_end_soon_and_without_recursion() {
        let same = |left: &str, right: &str| equal(left.as_bytes(), right.as_bytes());
        let deep = |inner: &str| "[".repeat(100_000) + inner + &"]".repeat(100_000);
        assert!(same(&deep("1"), &deep("1.0")) && !same(&deep("1"), &deep("2")));
        let member = |number: u32| format!("\"\\u0061{number}\":0,");
        let forth = format!("{{{}\"\":0}}", (0..20_000).map(member).collect::<String>());
        let back = format!("{{{}\"\":0}}", (0..20_000).rev().map(member).collect::<String>());
        assert!(same(&forth, &back));
        let power = |nines: usize| format!("1e{}", "9".repeat(nines));
        assert!(!same(&power(500_000), &power(499_999)));
        assert!(same(&power(500_000), &format!("0.1e1{}", "0".repeat(500_000))));
    }

    proptest! {
        #[test]
        fn a_relay_that_re_encodes_still_sends_the_same_value(
            left in any_json(), right in any_json(), seed: u64,
        ) {
            let mut dice = dice(seed);
            let mut text = |value| normalise(respelt(value, &mut dice).as_bytes(), DEPTH).expect("valid");
            let (one, other, third) = (text(&left), text(&left), text(&right));
            prop_assert_eq!(normalise(&one, DEPTH), Ok(one.clone()));
            prop_assert!(equal(&one, &other));
            prop_assert_eq!(equal(&other, &third), left == right);
        }
    }
}
