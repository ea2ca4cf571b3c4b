//! W3C `traceparent`: continued if valid, else started; never a reason to refuse.

use crate::entropy::Entropy;

/// Takes the first candidate that is valid, else starts a trace.
pub fn continue_or_start<'a>(candidates: impl IntoIterator<Item = &'a str>, entropy: &Entropy) -> String {
    candidates.into_iter().find(|candidate| is_valid(candidate)).map_or_else(|| start(entropy), str::to_owned)
}

/// Version 00 as the recommendation has it; ids of all zeros are invalid, and so is version ff.
pub fn is_valid(traceparent: &str) -> bool {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return false };
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |text: &str| text.bytes().any(|byte| byte != b'0');
    hex(version, 2)
        && *version != "ff"
        && hex(trace, 32)
        && some(trace)
        && hex(parent, 16)
        && some(parent)
        && hex(flags, 2)
}

fn start(entropy: &Entropy) -> String {
    let mut ids = [0_u8; 24];
    entropy.fill(&mut ids);
    ids[0] |= 1; // an id of all zeros is invalid
    ids[16] |= 1;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("00-{}-{}-01", hex(&ids[..16]), hex(&ids[16..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_trace_is_continued_and_a_bad_one_replaced() {
        let entropy = Entropy::seeded(1);
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(continue_or_start(["00-...-...-01", good], &entropy), good); // defect 12
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            let started = continue_or_start([bad], &entropy);
            assert!(is_valid(&started) && started != bad);
        }
    }
}
