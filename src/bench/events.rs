//! The events that are sent, and what must come out: the same bytes, in the same order, once.
//!
//! An event is made from its number and a time alone, so that any reader can tell what it must be.

use super::frames::{Frame, decimal};
use crate::protocol::sse::EVENT_NAME;

/// Where event ids lie: next to each other, or anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ids {
    /// In the order of time, as UUID version 7 and ULID are.
    #[default]
    Ordered,
    /// Anywhere, as UUID version 4 is.
    Random,
}

/// The events of one run.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    ids: Ids,
    seed: u64,
    /// From the id to the time it was sent.
    middle: Vec<u8>,
    end: Vec<u8>,
}

/// What all runs of a measurement have in common.
#[derive(Debug, Clone)]
pub(super) struct Mould {
    /// The tenant of the runs.
    pub(super) tenant: String,
    /// How ids lie.
    pub(super) ids: Ids,
    /// Bytes of filling in each event.
    pub(super) payload: usize,
    /// Differs from measurement to measurement.
    pub(super) seed: u64,
}

const ID: &[u8] = b"\"event_id\":\"evt_";
const BEFORE: &[u8] = b"{\"event\":{\"sequence\":";
const AFTER: &[u8] = b",\"federation\":";
/// An event that goes on, and the one that ends its run.
const TICK: &str = "bench.tick";
const LAST: &str = "agentos.run.completed";

impl Mould {
    /// The events of one run.
    pub(super) fn shape(&self, run: &str, number: u64) -> Shape {
        self.of_type(run, number, TICK)
    }

    /// The event that ends one run.
    pub(super) fn last(&self, run: &str, number: u64) -> Shape {
        self.of_type(run, number, LAST)
    }

    fn of_type(&self, run: &str, number: u64, kind: &str) -> Shape {
        let middle = format!(
            "\",\"time\":\"2026-01-05T10:00:00Z\",\"type\":\"{kind}\",\"tenant_id\":\"{}\",\
             \"agent_id\":\"agt_bench\",\"run_id\":\"{run}\",\"trace\":{{}},\"payload\":{{\"at\":\"",
            self.tenant
        );
        let filling: String = ('a'..='z').cycle().take(self.payload).collect();
        let end = format!("\",\"data\":\"{filling}\"}}}}");
        // So that runs of one measurement share no id, whichever way they are made.
        let seed = self.seed.wrapping_add(number << 20);
        Shape { ids: self.ids, seed, middle: middle.into_bytes(), end: end.into_bytes() }
    }
}

impl Shape {
    /// Writes an event without a sequence, as one who pushes does.
    pub(super) fn push(&self, out: &mut Vec<u8>, number: u64, at: u64) {
        out.push(b'{');
        self.rest(out, number, at);
    }

    /// Writes an event with its sequence, as its home does.
    pub(super) fn numbered(&self, out: &mut Vec<u8>, number: u64, at: u64) {
        out.extend_from_slice(b"{\"sequence\":");
        out.extend_from_slice(number.to_string().as_bytes());
        out.push(b',');
        self.rest(out, number, at);
    }

    fn rest(&self, out: &mut Vec<u8>, number: u64, at: u64) {
        out.extend_from_slice(ID);
        out.extend_from_slice(&self.id(number));
        out.extend_from_slice(&self.middle);
        out.extend_from_slice(&hex(at));
        out.extend_from_slice(&self.end);
    }

    fn id(&self, number: u64) -> [u8; 32] {
        let (high, low) = match self.ids {
            Ids::Ordered => (self.seed, number),
            Ids::Random => (mixed(self.seed ^ mixed(number)), mixed(mixed(self.seed).wrapping_add(number))),
        };
        let mut id = [0; 32];
        id[..16].copy_from_slice(&hex(high));
        id[16..].copy_from_slice(&hex(low));
        id
    }

    /// True when the frame carries an event, and not news about the stream.
    pub(super) fn is_event(frame: &Frame<'_>) -> bool {
        frame.event == EVENT_NAME.as_bytes()
    }

    /// Holds a frame against the event it must be; answers when that was sent.
    pub(super) fn check(&self, frame: &Frame<'_>, number: u64) -> Result<u64, String> {
        self.find_at(frame, number).ok_or_else(|| match frame.id {
            Some(id) if id < number => format!("event {id} came again where {number} was due"),
            Some(id) if id > number => format!("event {id} came where {number} was due"),
            _ => {
                let shown = String::from_utf8_lossy(&frame.data[..frame.data.len().min(1000)]).into_owned();
                format!("event {number} is not the one that was sent: {shown}")
            }
        })
    }

    fn find_at(&self, frame: &Frame<'_>, number: u64) -> Option<u64> {
        if frame.id != Some(number) {
            return None;
        }
        let rest = frame.data.strip_prefix(BEFORE)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if decimal(&rest[..digits]) != Some(number) {
            return None;
        }
        let rest = rest[digits..].strip_prefix(b",")?.strip_prefix(ID)?;
        let rest = rest.strip_prefix(&self.id(number))?.strip_prefix(self.middle.as_slice())?;
        let (at, rest) = rest.split_at_checked(16)?;
        rest.strip_prefix(self.end.as_slice())?.starts_with(AFTER).then(|| unhex(at))?
    }
}

/// Spreads a number over all 64 bits (the finaliser of SplitMix64).
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

fn hex(value: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (place, digit) in text.iter_mut().enumerate() {
        *digit = DIGITS[(value >> (60 - 4 * place)) as usize & 15];
    }
    text
}

fn unhex(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |value, byte| Some(value << 4 | u64::from((*byte as char).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(data: &[u8], id: u64) -> Frame<'_> {
        Frame { id: Some(id), event: EVENT_NAME.as_bytes(), data }
    }

    #[test]
    fn only_the_event_that_was_sent_is_taken_for_it() {
        for ids in [Ids::Ordered, Ids::Random] {
            let mould = Mould { tenant: "t".to_owned(), ids, payload: 20, seed: 7 };
            let shape = mould.shape("run_1", 3);
            let mut json = Vec::new();
            shape.numbered(&mut json, 12, 99);
            let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            assert_eq!(value["sequence"], 12);
            let mut pushed = Vec::new();
            shape.push(&mut pushed, 12, 99);
            assert_eq!(json, [b"{\"sequence\":12,", &pushed[1..]].concat());
            let sent = [b"{\"event\":", json.as_slice(), b",\"federation\":{}}"].concat();
            assert_eq!(shape.check(&frame(&sent, 12), 12), Ok(99));
            for (at, byte) in sent.iter().enumerate().take(sent.len() - 3) {
                let mut wrong = sent.clone();
                wrong[at] = byte ^ 1;
                let checked = shape.check(&frame(&wrong, 12), 12);
                assert!(checked.is_err() || checked != Ok(99), "{}", String::from_utf8_lossy(&wrong));
            }
            assert!(shape.check(&frame(&sent, 12), 13).expect_err("again").contains("came again"));
            assert!(shape.check(&frame(&sent, 12), 11).expect_err("early").contains("where 11 was due"));
            assert!(mould.shape("run_1", 4).check(&frame(&sent, 12), 12).is_err(), "another run's ids");
        }
    }
}
