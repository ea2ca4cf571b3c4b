//! The history: what was asked, answered, seen and done to the machines, one JSON object per line.
//!
//! Every request is an `Asked` and then, unless the test ended first, an `Answered`: ok, fail (the gateway said
//! that it did nothing) or unknown (nobody can tell). Unknown is never counted as fail.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Microseconds since the history began.
    pub(crate) at: u64,
    /// What happened.
    pub(crate) what: What,
}

/// How a request ended, as far as its caller can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It was done.
    Ok,
    /// It was not done.
    Fail,
    /// Nobody can tell.
    Unknown,
}

/// One event as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The run, by its name at the gateway.
    pub(crate) run: String,
    /// Its place.
    pub(crate) sequence: u64,
    /// Its id.
    pub(crate) id: String,
    /// CRC-32 of the event object.
    pub(crate) digest: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum What {
    /// A client sends a request that changes something.
    Asked { operation: u64, gateway: String, request: Request },
    /// It heard of it: the run, or where each event of a push lies.
    Answered { operation: u64, outcome: Outcome, run: Option<String>, sequence: Option<u64>, said: String },
    /// A reader opened a stream after this sequence.
    Opened { reader: u64, gateway: String, run: String, after: u64 },
    /// It was sent an event.
    Saw { reader: u64, gateway: String, seen: Seen },
    /// It was told that these sequences are missing.
    Gap { reader: u64, from: u64, to: u64, reason: String },
    /// It was told that the run is over, after this sequence.
    Ended { reader: u64, gateway: String, run: String, sequence: u64 },
    /// It was refused: the status and the code.
    Refused { reader: u64, gateway: String, run: String, after: u64, code: String },
    /// A gateway's database was copied.
    BackedUp { gateway: String },
    /// A gateway goes on with the copy: what came after it is gone, and it knows that.
    Restored { gateway: String },
    /// Something was done to a machine, a process or the network.
    Fault { text: String },
    /// At the end: an event that a gateway holds.
    Held { gateway: String, seen: Seen },
    /// At the end: everything below this sequence was given up by retention.
    Floor { gateway: String, run: String, oldest: u64 },
    /// At the end: a run in a gateway's forward index, and what it is called at its home.
    Indexed { gateway: String, run: String, remote: String },
    /// The truth: an orchestrator made a run for a client's key.
    Made { home: String, key: String, run: String },
    /// The truth: an event of a run at its home.
    True { home: String, seen: Seen },
    /// At the end: what the audit's proof said.
    Audit { gateway: String, sound: bool, said: String },
}

/// A request that changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A run is forwarded under a key.
    Create { key: String },
    /// One event is pushed.
    Push { run: String, id: String },
    /// A run is cancelled.
    Cancel { run: String },
}

/// Where everybody writes.
#[derive(Debug, Clone)]
pub(crate) struct History {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    file: Mutex<(BufWriter<File>, u64)>,
    path: PathBuf,
}

impl History {
    /// An empty one.
    pub(crate) fn new(path: PathBuf) -> Self {
        let file = BufWriter::new(File::create(&path).expect("a file"));
        History { shared: Arc::new(Shared { began: Instant::now(), file: Mutex::new((file, 0)), path }) }
    }

    /// Writes a line.
    pub(crate) fn note(&self, what: What) {
        self.note_at(Instant::now(), what);
    }

    /// Writes a line about something that was a while ago.
    pub(crate) fn note_at(&self, when: Instant, what: What) {
        let at = when.saturating_duration_since(self.shared.began).as_micros() as u64;
        let line = serde_json::to_string(&Entry { at, what }).expect("JSON");
        writeln!(self.lock().0, "{line}").expect("a line");
    }

    /// Writes that a request is about to leave; answers its number.
    pub(crate) fn ask(&self, gateway: &str, request: Request) -> u64 {
        let operation = self.number();
        self.note(What::Asked { operation, gateway: gateway.to_owned(), request });
        operation
    }

    /// A number nobody has.
    pub(crate) fn number(&self) -> u64 {
        let mut file = self.lock();
        file.1 += 1;
        file.1
    }

    /// Everything so far, in the order of time, as the file has it.
    pub(crate) fn read(&self) -> Vec<Entry> {
        self.lock().0.flush().expect("written");
        read(&self.shared.path)
    }

    fn lock(&self) -> MutexGuard<'_, (BufWriter<File>, u64)> {
        self.shared.file.lock().expect("nobody panics while writing")
    }
}

/// Reads a history.
pub(crate) fn read(path: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(path).expect("a history");
    let mut entries: Vec<Entry> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of a history")).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

/// How often what happened, for a person.
pub(crate) fn summary(entries: &[Entry]) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut kinds = BTreeMap::new();
    for Entry { what, .. } in entries {
        let name = match what {
            What::Asked { operation, request, .. } => {
                let kind = match request {
                    Request::Create { .. } => "create",
                    Request::Push { .. } => "push",
                    Request::Cancel { .. } => "cancel",
                };
                kinds.insert(*operation, kind);
                continue;
            }
            What::Answered { operation, outcome, .. } => {
                format!("{} {outcome:?}", kinds.get(operation).copied().unwrap_or("?")).to_lowercase()
            }
            What::Fault { .. } => "faults".to_owned(),
            What::Opened { .. } => "streams opened".to_owned(),
            What::Saw { .. } => "events seen".to_owned(),
            What::Gap { .. } => "gaps told".to_owned(),
            What::Ended { .. } => "ends told".to_owned(),
            What::Refused { .. } => "readers refused".to_owned(),
            What::Restored { .. } => "restores".to_owned(),
            What::Held { .. } => "events held".to_owned(),
            What::Indexed { .. } => "runs indexed".to_owned(),
            What::Made { .. } => "runs made".to_owned(),
            _ => continue,
        };
        *counts.entry(name).or_default() += 1;
    }
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}
