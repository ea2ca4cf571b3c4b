//! An event id in the compact form the dedupe index holds.
//!
//! Stored for ever: a change here is a migration. The form is injective, and keeps the order of
//! time-ordered ids, so that appends touch neighbouring index pages.
//!
//! ```text
//! 0x01 prefix 16 bytes   <prefix> + 26 characters of a canonical ULID
//! 0x02 prefix 16 bytes   <prefix> + 32 lower-case hex digits
//! 0x03 prefix 16 bytes   <prefix> + a lower-case hyphenated UUID
//! 0x00 id                anything else, as it is
//! ```

const ULID_DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// What each byte stands for among them; [`u8::MAX`] for none.
const ULID_VALUES: [u8; 256] = {
    let (mut values, mut digit) = ([u8::MAX; 256], 0);
    while digit < ULID_DIGITS.len() {
        values[ULID_DIGITS[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

/// Packs an event id for the index.
pub(super) fn pack(event_id: &str) -> Vec<u8> {
    packed(event_id, 36, 3, parse_uuid)
        .or_else(|| packed(event_id, 32, 2, parse_hex))
        .or_else(|| packed(event_id, 26, 1, parse_ulid))
        .unwrap_or_else(|| [&[0], event_id.as_bytes()].concat())
}

fn packed(
    event_id: &str,
    digits: usize,
    form: u8,
    parse: impl FnOnce(&str) -> Option<u128>,
) -> Option<Vec<u8>> {
    let split = event_id.len().checked_sub(digits)?;
    let (prefix, tail) = (event_id.get(..split)?, event_id.get(split..)?);
    let value = parse(tail)?;
    Some([&[form], prefix.as_bytes(), &value.to_be_bytes()].concat())
}

fn parse_hex(text: &str) -> Option<u128> {
    text.bytes().try_fold(0, hex_digit)
}

fn parse_uuid(text: &str) -> Option<u128> {
    text.bytes().enumerate().try_fold(0, |value, (at, byte)| match at {
        8 | 13 | 18 | 23 => (byte == b'-').then_some(value),
        _ => hex_digit(value, byte),
    })
}

fn hex_digit(value: u128, byte: u8) -> Option<u128> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => return None,
    };
    Some(value << 4 | u128::from(digit))
}

fn parse_ulid(text: &str) -> Option<u128> {
    // 26 digits hold 130 bits: the first may only use three.
    if !matches!(text.bytes().next(), Some(b'0'..=b'7')) {
        return None;
    }
    text.bytes().try_fold(0, |value: u128, byte| {
        let digit = ULID_VALUES[usize::from(byte)];
        (digit < 32).then_some(value << 5 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn well_known_forms_are_compact() {
        assert_eq!(pack("evt_01JH9Y0Q7T1WZ5C0J1D8K9R0MN").len(), 1 + 4 + 16);
        assert_eq!(pack("evt_0193e9f07c7d7a3bb3f1a2b3c4d5e6f7").len(), 1 + 4 + 16);
        assert_eq!(pack("0193e9f0-7c7d-7a3b-b3f1-a2b3c4d5e6f7").len(), 1 + 16);
        assert_eq!(pack("plain"), b"\0plain");
        assert_eq!(pack("evt_01jh9y0q7t1wz5c0j1d8k9r0mn")[0], 0, "lower case is another id");
    }

    #[test]
    fn time_ordered_ids_keep_their_order() {
        let (first, second) = ("evt_01JH9Y0Q7T1WZ5C0J1D8K9R0MN", "evt_01JH9Y0Q7T1WZ5C0J1D8K9R0MP");
        assert!(pack(first) < pack(second));
    }

    proptest! {
        #[test]
        fn two_ids_never_share_a_key(ids in prop::collection::vec(
            prop_oneof!["[!-~]{1,40}", "evt_[0-7][0-9A-HJKMNP-TV-Z]{25}", "[0-9a-f]{30,34}",
                        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"], 1..40)) {
            let mut seen: HashMap<Vec<u8>, String> = HashMap::new();
            for id in ids {
                if let Some(other) = seen.insert(pack(&id), id.clone()) {
                    prop_assert_eq!(other, id);
                }
            }
        }
    }
}
