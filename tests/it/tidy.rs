//! The tree holds the architecture: layers, order, homes, headers, lengths, names.
//!
//! Each rule reads the source as text and lists every offence with its file, so that one run shows all.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What lies below names nothing of what lies above. Names on one line are siblings.
const LAYERS: [&[&str]; 9] = [
    &["failpoint", "mutants"],
    &["clock", "entropy", "metrics", "seldom", "tasks"],
    &["domain"],
    &["store", "protocol", "tls", "keyring"],
    &["outbound"],
    &["services"],
    &["http"],
    &["config"],
    &["main", "cli", "app", "demo", "bench"],
];

/// A word that may stand in these places of `src` only: a path, or the start of one.
const HOMES: [(&str, &[&str]); 9] = [
    ("axum::", &["http/", "demo/orchestrator.rs"]),
    ("reqwest::", &["outbound/", "cli/"]),
    ("sqlx::", &["store/"]),
    ("rusqlite::", &["store/"]),
    ("tokio::spawn(", &["tasks.rs"]),
    ("spawn_blocking(", &["tasks.rs", "store/", "cli/"]),
    ("SystemTime::now(", &["clock.rs"]),
    ("std::time::Instant::now(", &["clock.rs"]),
    ("rand::", &["entropy.rs"]),
];

/// A word of the integration tests that may stand in these places below `tests/it` only: whatever a gateway or
/// a child says is read there, and searched for secrets.
const EARS: [(&str, &[&str]); 9] = [
    ("TcpStream::connect(", &["support/ears.rs", "support/fault_proxy/"]),
    ("Client::builder(", &["support/ears.rs", "support/orchestrator/tests/"]),
    ("Client::new(", &[]),
    ("reqwest::get(", &[]),
    (".chunk().await", &["support/ears.rs"]),
    (".bytes().await", &["support/orchestrator/tests/"]),
    (".text().await", &["support/ears.rs", "support/orchestrator/tests/"]),
    (".stdout.take()", &["cli/mod.rs", "cli/serve.rs"]),
    ("CARGO_BIN_EXE_causeway", &["cli/mod.rs", "crash.rs"]),
];

/// The beginnings of SQL statements.
const SQL: [&str; 7] =
    ["SELECT ", "INSERT INTO ", "INSERT OR ", "DELETE FROM ", "CREATE TABLE ", "PRAGMA ", "ON CONFLICT "];

/// Lines of one source file, and of one with its unit tests.
const MOST_LINES: (usize, usize) = (450, 500);
/// Files that are longer, with their length: they may shrink.
const LONG_FILES: [(&str, usize); 0] = [];

/// Rows of the seeds that tests bear by number; none may vanish.
const ROWS: &[&str] = &[
    "A-01", "A-02", "A-03", "A-04", "A-05", "A-06", "A-07", "A-08", "A-09", "A-10", "A-11", "A-12", "A-13",
    "A-14", "A-15", "A-16", "A-17", "A-18", "A-19", "A-20", "A-21", "A-22", "A-23", "A-24", "A-25", "A-26",
    "A-27", "A-28", "A-29", "A-30", "A-31", "R-11", "R-12", "R-13", "R-14", "R-15", "R-16", "R-17", "R-18",
    "R-25", "R-29", "R-30", "R-31", "R-34", "R-36", "R-38", "R-41", "R-42", "M-01", "M-02", "M-03", "M-04",
    "M-05", "M-08", "M-14", "M-15", "M-16", "M-17", "M-19", "M-20", "M-21", "M-22", "M-23", "M-24", "M-25",
    "F-03", "F-04", "F-06", "F-25", "F-26", "Z-39", "Z-40", "Z-41", "Z-42", "Z-43", "Z-44", "Z-47", "Z-48",
];

/// One file under `src`.
struct Source {
    /// Its path below `src`.
    name: String,
    /// All of it.
    text: String,
    /// Without comments, and without its unit tests.
    code: String,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a readable file");
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or("");
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>();
        Source { name, code: code.join("\n"), text }
    }

    /// The layer it belongs to.
    fn module(&self) -> &str {
        self.name.split('/').next().unwrap_or("").trim_end_matches(".rs")
    }

    /// A file of unit tests: its own rules are those of tests.
    fn is_test(&self) -> bool {
        let stem = self.name.trim_end_matches(".rs");
        stem.ends_with("_tests") || stem.ends_with("_samples") || self.name.contains("/tests")
    }

    /// Every module of the crate that its code names.
    fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            names.extend(first_segments(&self.code[at + "crate::".len()..]));
        }
        names
    }
}

/// The first name of each path in `a::b` or `{a::b, c::{d, e}}`.
fn first_segments(text: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = text.strip_prefix('{') else { return vec![name(text)] };
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(name(&group[from..]));
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let directory = root().join("src");
    let mut paths = Vec::new();
    files_below(&directory, "rs", &mut paths);
    paths.iter().map(|path| Source::read(&directory, path)).collect()
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[track_caller]
fn assert_none(offences: &[String], rule: &str) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn imports_point_strictly_down() {
    let top = LAYERS.len() - 1;
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.name != "lib.rs" && !source.is_test()) {
        let own = source.module();
        let Some(height) = rank(own) else {
            offences.push(format!("{} is in no layer", source.name));
            continue;
        };
        for named in source.names().iter().filter(|named| *named != own) {
            match rank(named) {
                Some(other) if other < height || height == top => {}
                Some(_) => offences.push(format!("{} names {named}, which is not below it", source.name)),
                // A macro or a test module of its own; the compiler knows it.
                None => {}
            }
        }
    }
    assert_none(&offences, "the arrow");
}

#[test]
fn the_server_does_not_know_the_store() {
    let offences: Vec<String> = sources()
        .iter()
        .filter(|source| source.module() == "http" && source.names().contains("store"))
        .map(|source| source.name.clone())
        .collect();
    assert_none(&offences, "http names services, and never the store");
}

#[test]
fn a_service_names_only_services_above_it() {
    let sources = sources();
    let list = sources.iter().find(|source| source.name == "services/mod.rs").expect("the list of services");
    let order: Vec<String> = list
        .code
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    assert!(order.len() > 10, "{order:?}");
    let place = |name: &str| order.iter().position(|listed| listed == name);
    let mut offences = Vec::new();
    let is_service = |source: &&Source| source.module() == "services" && source.name != list.name;
    for source in sources.iter().filter(is_service).filter(|source| !source.is_test()) {
        let own = source.name.split('/').nth(1).unwrap_or("").trim_end_matches(".rs");
        let at = place(own).unwrap_or_else(|| panic!("{own} is listed"));
        for marker in ["super::", "crate::services::"] {
            for (found, _) in source.code.match_indices(marker) {
                for named in first_segments(&source.code[found + marker.len()..]) {
                    if place(&named).is_some_and(|above| above >= at && named != own) {
                        offences.push(format!("{own} names {named}"));
                    }
                }
            }
        }
    }
    assert_none(&offences, "the order of services/mod.rs");
}

#[test]
fn every_file_says_what_it_is_and_is_not_too_long() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > 1 && !source.text.starts_with("//! ") {
            offences.push(format!("{} does not begin with a //! header", source.name));
        }
        let without_tests = source.text.split("#[cfg(test)]\nmod ").next().unwrap_or("").lines().count();
        let known = LONG_FILES.iter().find(|(name, _)| *name == source.name).map(|(_, length)| *length);
        let (most, most_with_tests) = known.map_or(MOST_LINES, |length| (length, length));
        if without_tests > most || lines > most_with_tests {
            offences.push(format!("{} has {lines} lines, {without_tests} without tests", source.name));
        }
    }
    for (name, _) in LONG_FILES {
        let path = root().join("src").join(name);
        let lines = fs::read_to_string(path).map_or(0, |text| text.lines().count());
        if lines <= MOST_LINES.0 {
            offences.push(format!("{name} is no long file any more: take it off the list"));
        }
    }
    let mut tests = Vec::new();
    files_below(&root().join("tests"), "rs", &mut tests);
    for path in tests {
        if !fs::read_to_string(&path).expect("a test").starts_with("//! ") {
            offences.push(format!("{} does not begin with a //! header", path.display()));
        }
    }
    assert_none(&offences, "files");
}

#[test]
fn everything_lives_in_its_home() {
    let mut offences = Vec::new();
    for source in sources().into_iter().filter(|source| !source.is_test()) {
        for (word, homes) in HOMES {
            let at_home = homes.iter().any(|home| source.name.starts_with(home));
            if !at_home && has_word(&source.code, word) {
                offences.push(format!("{} has {word}", source.name));
            }
        }
        let speaks_sql = SQL.iter().any(|statement| source.code.contains(statement));
        if speaks_sql && source.module() != "store" {
            offences.push(format!("{} speaks SQL", source.name));
        }
    }
    assert_none(&offences, "homes");
}

//
#[test]
fn all_that_tests_read_is_searched_for_secrets() {
    let directory = root().join("tests/it");
    let mut paths = Vec::new();
    files_below(&directory, "rs", &mut paths);
    let mut offences = Vec::new();
    for source in paths.iter().map(|path| Source::read(&directory, path)) {
        for (word, homes) in EARS {
            let at_home = source.name == "tidy.rs" || homes.iter().any(|home| source.name.starts_with(home));
            if !at_home && source.code.contains(word) {
                offences.push(format!("{} has {word}", source.name));
            }
        }
    }
    assert_none(&offences, "what is read goes through support::ears");
}

/// The word, not as the end of a longer one (`operand::` is not `rand::`).
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

//
#[test]
fn every_queue_is_bounded_and_its_bound_is_written_down() {
    let promises = fs::read_to_string(root().join("docs/reliability.md")).expect("the promises");
    let queues = [" mpsc::channel", "sync_channel(", "VecDeque<", "Semaphore::new(", "const MOST: usize"];
    let served = ["store", "services", "http", "outbound"];
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if ["unbounded", "sync::mpsc::channel("].iter().any(|word| source.code.contains(word)) {
            offences.push(format!("{} has a queue without a bound", source.name));
        }
        let waits =
            served.contains(&source.module()) && queues.iter().any(|queue| source.code.contains(queue));
        if waits && !promises.contains(&format!("`{}`", source.name)) {
            offences.push(format!("{} has a queue that docs/reliability.md does not list", source.name));
        }
    }
    assert_none(&offences, "queues");
}

// F-25
#[test]
fn no_lock_is_held_while_waiting_and_one_connection_writes_the_log() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let checks = fs::read_to_string(root().join(".ci/run")).expect("the checks");
    assert!(
        manifest.contains("await_holding_lock = \"warn\"")
            && checks.contains("clippy --locked --all-targets -- -D warnings")
    );
    let sources = sources();
    let named_in = |word: &str| -> Vec<_> {
        let code = sources.iter().filter(|source| !source.is_test() && source.code.contains(word));
        code.map(|source| source.name.as_str()).collect()
    };
    assert_eq!(named_in("connection::open_writer("), ["store/mod.rs"]);
    assert_eq!(named_in("BEGIN IMMEDIATE"), ["store/writer.rs"]);
}

// M-08: two numbers that mean different things cannot change places, for each has its type.
#[test]
fn what_stands_for_a_stream_an_event_or_a_reader_is_no_bare_number() {
    let bare = ["stream_no: i64", "sequence: u64", "sequence: Option<u64>", "cursor: u64", "after: u64"];
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| ["store", "services"].contains(&source.module())) {
        for word in bare.into_iter().filter(|word| source.code.contains(word)) {
            offences.push(format!("{} has {word}", source.name));
        }
    }
    assert_none(&offences, "StreamNo, Sequence and Cursor");
}

#[test]
fn nothing_is_put_off_waved_through_or_named_for_nothing() {
    let put_off = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut offences = Vec::new();
    for source in sources() {
        for word in put_off {
            if source.text.contains(word) {
                offences.push(format!("{} has {word}", source.name));
            }
        }
        if source.is_test() {
            continue;
        }
        for word in ["#[allow(", "#![allow(", ".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
            if source.code.contains(word) {
                offences.push(format!("{} has {word}", source.name));
            }
        }
        let stem = source.name.rsplit('/').next().unwrap_or("").trim_end_matches(".rs");
        if ["util", "utils", "common", "helper", "helpers", "types", "manager"].contains(&stem) {
            offences.push(format!("{} is named for nothing", source.name));
        }
    }
    assert_none(&offences, "words");
}

#[test]
fn the_rows_of_the_seeds_keep_their_tests() {
    let mut paths = Vec::new();
    files_below(&root().join("src"), "rs", &mut paths);
    files_below(&root().join("tests"), "rs", &mut paths);
    let texts: Vec<String> =
        paths.iter().map(|path| fs::read_to_string(path).expect("a readable file")).collect();
    let borne = |row: &str| {
        texts.iter().any(|text| {
            text.lines().any(|line| line.split_once("//").is_some_and(|(_, comment)| comment.contains(row)))
        })
    };
    let offences: Vec<String> =
        ROWS.iter().filter(|row| !borne(row)).map(|row| format!("no test bears {row}")).collect();
    assert_none(&offences, "rows");
}

#[test]
fn first_segments_are_found_in_groups() {
    assert_eq!(first_segments("store::Store;"), ["store"]);
    assert_eq!(
        first_segments("{clock::{Clock, rfc3339}, store::Store,\n    tasks};"),
        ["clock", "store", "tasks"]
    );
    assert!(has_word("use rand::Rng", "rand::"));
    assert!(!has_word("operand::x", "rand::"));
}
