//! Ingest bodies: either form is refused as a whole, or taken apart into entries that can be judged one by one.

use causeway::domain::limits;
use causeway::protocol::envelope::{Reader, TerminalTypes};
use causeway::services::ingest::{IngestBody, parse_json, parse_ndjson};

/// The body, read in both forms.
pub(crate) fn run(data: &[u8]) {
    parse_json(data).into_iter().chain(parse_ndjson(data)).for_each(judge);
}

fn judge(body: IngestBody<'_>) {
    assert!((1..=limits::INGEST_EVENTS).contains(&body.entries.len()));
    let terminal = TerminalTypes::new();
    let mut reader = Reader::new(&terminal);
    for entry in body.entries.into_iter().flatten() {
        let text = entry.get().as_bytes();
        let after_others = reader.read(text);
        let alone = Reader::new(&terminal).read(text);
        assert_eq!(format!("{after_others:?}"), format!("{alone:?}"), "what was read before leaves nothing");
    }
}
