//! Every fixed bound that no operator needs to turn, in one place, with what happens when it is reached.
//!
//! Bounds that operators do turn live in the `Options` beside the code they bound.

use std::time::Duration;

/// Events in one `events:ingest` request; more → 400.
pub const INGEST_EVENTS: usize = 500;
/// One event, in bytes of its normal form; more → the entry is rejected, an upstream frame is set aside.
pub const EVENT_BYTES: usize = 1024 * 1024;
/// Nesting of one JSON text; deeper → 400, or the entry is rejected.
pub const JSON_DEPTH: usize = 64;
/// Separate holes in one stream; more → the event that would open another is rejected.
pub const HOLES_PER_STREAM: usize = 1024;
/// Contradicting or unreadable events kept aside per stream; more are only counted.
pub const ASIDE_PER_STREAM: u64 = 64;
/// Bytes kept of one event set aside.
pub const ASIDE_BYTES: usize = 64 * 1024;
/// Items of one list page; a larger `limit` → 400.
pub const LIST_PAGE: u32 = 200;
/// Items of one list page when `limit` is absent.
pub const LIST_PAGE_DEFAULT: u32 = 50;
/// Events of one JSON page; a larger `limit` → 400.
pub const EVENTS_PAGE: u32 = 1000;
/// Events of one JSON page when `limit` is absent.
pub const EVENTS_PAGE_DEFAULT: u32 = 500;
/// Bytes of one page read from the log, whatever the number of events.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// An idempotency key, in bytes; longer → 400.
pub const IDEMPOTENCY_KEY_BYTES: usize = 256;
/// A correlation id taken from a caller, in bytes; longer ones are replaced by a minted one.
pub const CORRELATION_ID_BYTES: usize = 128;
/// Attempts kept with a forward; older ones are dropped, the total is still counted.
pub const ATTEMPTS_KEPT: usize = 32;
/// Gateways a run-create may come through; more → 508.
pub const HOPS: usize = 8;
/// Text kept of a reason, in characters.
pub const REASON_CHARS: usize = 300;
/// A peer's answer to a call, in bytes; a longer one is cut and counts as unreadable.
pub const PEER_ANSWER_BYTES: usize = 1024 * 1024;
/// How long a live subscriber may take no byte before its connection is closed.
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// Frames of one stream kept in memory for live subscribers, in bytes; a slower one reads the log.
pub const TAIL_BYTES: usize = 512 * 1024;

/// Cuts a text for keeping: control characters become spaces, length is bounded.
pub fn clean_reason(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS).collect()
}

/// Characters of a label an operator writes.
const LABEL_CHARS: usize = 128;

/// True for a text that an operator may write for people: short, on one line.
pub fn is_label(text: &str) -> bool {
    text.chars().count() <= LABEL_CHARS && !text.chars().any(char::is_control)
}

/// What a label must be, as the end of a sentence.
pub const LABEL_RULE: &str = "has at most 128 characters and no control characters";
