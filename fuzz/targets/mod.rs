//! What must hold for any bytes whatever, one target per file: a name and a function that panics when it does
//! not. `fuzz_targets/` runs each under libFuzzer; `tests/it/corpora.rs` replays what was found.

mod answers;
mod config;
mod cursor;
mod envelope;
mod forward;
mod ingest;
mod server;
mod signature;
mod sse;

/// A target's name, which is that of its corpus, and its check.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: [Target; 9] = [
    ("answers", answers::run),
    ("config", config::run),
    ("cursor", cursor::run),
    ("envelope", envelope::run),
    ("forward", forward::run),
    ("ingest", ingest::run),
    ("server", server::run),
    ("signature", signature::run),
    ("sse", sse::run),
];
