//! The events that peers are given: as long as those of `causeway bench`, and as easily told apart.

use anyhow::{Result, ensure};

const BEFORE_NUMBER: &[u8] = b"{\"event_id\":\"evt_5eed5eed5eed5eed";
const BEFORE_STAMP: &[u8] = b"\",\"time\":\"2026-01-05T10:00:00Z\",\"type\":\"bench.tick\",\"tenant_id\":\"tnt_bench\",\
    \"agent_id\":\"agt_bench\",\"run_id\":\"run_bench_5eed5eed5eed5eed_1\",\"trace\":{},\"payload\":{\"at\":\"";
const AFTER_STAMP: &[u8] = b"\",\"data\":\"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv\
    wxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\
    abcdefghijklmnopqr\"}}";
const DIGITS: usize = 16;

/// Bytes of an event.
pub const BYTES: usize = BEFORE_NUMBER.len() + DIGITS + BEFORE_STAMP.len() + DIGITS + AFTER_STAMP.len();

/// Writes an event: JSON in one line, without anything that a protocol would have to escape.
pub fn write(out: &mut Vec<u8>, number: u64, stamp: u64) {
    out.extend_from_slice(BEFORE_NUMBER);
    out.extend_from_slice(&hex(number));
    out.extend_from_slice(BEFORE_STAMP);
    out.extend_from_slice(&hex(stamp));
    out.extend_from_slice(AFTER_STAMP);
}

/// Holds an event against the one it must be; answers its stamp.
pub fn check(event: &[u8], number: u64) -> Result<u64> {
    let stamp = find_stamp(event, number);
    ensure!(
        stamp.is_some(),
        "event {number} was due, and this came: {}",
        String::from_utf8_lossy(&event[..event.len().min(200)])
    );
    Ok(stamp.unwrap_or_default())
}

fn find_stamp(event: &[u8], number: u64) -> Option<u64> {
    let rest = event.strip_prefix(BEFORE_NUMBER)?.strip_prefix(&hex(number))?;
    let (stamp, rest) = rest.strip_prefix(BEFORE_STAMP)?.split_at_checked(DIGITS)?;
    if rest != AFTER_STAMP {
        return None;
    }
    stamp.iter().try_fold(0, |value, byte| Some(value << 4 | u64::from(char::from(*byte).to_digit(16)?)))
}

fn hex(value: u64) -> [u8; DIGITS] {
    std::array::from_fn(|place| b"0123456789abcdef"[(value >> (60 - 4 * place)) as usize & 15])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_event_that_was_sent_is_taken_for_it() {
        let mut event = Vec::new();
        write(&mut event, 7, 99);
        assert_eq!(event.len(), BYTES);
        assert!(serde_json::from_slice::<serde_json::Value>(&event).is_ok());
        assert_eq!(check(&event, 7).unwrap(), 99);
        assert!(check(&event, 8).is_err());
        for at in 0..event.len() {
            let mut wrong = event.clone();
            wrong[at] ^= 1;
            assert!(check(&wrong, 7).is_err() || check(&wrong, 7).unwrap() != 99);
        }
    }
}
