//! A power cut: reads a journal of `machine.c` and leaves on disk what was synced, and nothing else but what
//! leaks.
//!
//! A file's surviving content is what it was when the journal began, plus every write that a later sync of it
//! covers, in order. Of the others a random part reaches the disk all the same, by sectors and out of order,
//! as a disk's cache does it. A write whose sync failed is lost even if a later sync succeeds: the kernel calls
//! its pages clean. Names follow their directory's sync; without one only a leaked prefix of the changes
//! stays.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a disk writes whole.
const SECTOR: usize = 512;
const MAGIC: u32 = 0x4c4f_5353;
/// Bytes of a record before its contents.
const HEAD: usize = 48;

/// What a cut took away.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Writes that no sync covered.
    pub(crate) writes: usize,
    /// Names made, moved or removed that no sync of their directory covered.
    pub(crate) names: usize,
    /// Everything that was written down.
    pub(crate) records: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Truncate,
    Sync,
    FailedSync,
    Create,
    Rename,
    Unlink,
    SyncDirectory,
}

const KINDS: [Kind; 8] = [
    Kind::Write,
    Kind::Truncate,
    Kind::Sync,
    Kind::FailedSync,
    Kind::Create,
    Kind::Rename,
    Kind::Unlink,
    Kind::SyncDirectory,
];

#[derive(Debug)]
struct Record {
    kind: Kind,
    inode: u64,
    offset: u64,
    size: u64,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// Cuts the power of a machine whose process is dead: rewrites the files below `data`. `leak` is the part of
/// the unsynced that reaches the disk, 0 to 1.
pub(crate) fn cut(journal: &Path, data: &Path, seed: u64, leak: f64) -> Loss {
    let mut chance = StdRng::seed_from_u64(seed);
    let records = read(journal);
    let files = open_all(journal, data);
    let mut loss = Loss { records: records.len(), ..Loss::default() };
    for (inode, file) in &files {
        let of_file: Vec<&Record> = records.iter().filter(|record| record.inode == *inode).collect();
        loss.writes += rewrite(file, &of_file, &mut chance, leak);
    }
    loss.names = take_names_back(&records, &mut chance, leak);
    loss
}

/// The whole records; a kill may have torn the last one, whose change was not made then.
fn read(journal: &Path) -> Vec<Record> {
    let bytes = fs::read(journal).expect("a journal");
    let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
    while rest.len() >= HEAD {
        let short = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_ne_bytes(rest[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(short(0), MAGIC, "the journal is no journal after {} records", records.len());
        let (before, after) = (long(32) as usize, long(40) as usize);
        if rest.len() < HEAD + before + after {
            break;
        }
        records.push(Record {
            kind: KINDS[short(4) as usize - 1],
            inode: long(8),
            offset: long(16),
            size: long(24),
            before: rest[HEAD..HEAD + before].to_vec(),
            after: rest[HEAD + before..HEAD + before + after].to_vec(),
        });
        rest = &rest[HEAD + before + after..];
    }
    records
}

/// Every file there is, those kept beside the journal included.
fn open_all(journal: &Path, data: &Path) -> HashMap<u64, File> {
    let (mut found, mut directories) = (HashMap::new(), vec![data.to_owned()]);
    let mut open = |path: &Path| {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("a file");
        found.insert(file.metadata().expect("facts").ino(), file);
    };
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                open(&entry.path());
            }
        }
    }
    let beside = journal.parent().expect("a directory");
    let prefix = format!("{}.saved-", journal.file_name().expect("a name").to_string_lossy());
    for entry in fs::read_dir(beside).expect("a directory") {
        let entry = entry.expect("an entry");
        let is_file = entry.file_type().expect("a kind").is_file();
        if is_file && entry.file_name().to_string_lossy().starts_with(&prefix) {
            open(&entry.path());
        }
    }
    found
}

/// Gives a file the content that survives; answers how many of its writes were not synced.
fn rewrite(file: &File, records: &[&Record], chance: &mut StdRng, leak: f64) -> usize {
    let changes = |kind| matches!(kind, Kind::Write | Kind::Truncate);
    for record in records.iter().rev().filter(|record| changes(record.kind)) {
        file.write_all_at(&record.before, record.offset).expect("a write");
        file.set_len(record.size).expect("a size");
    }
    let mut lost = 0;
    for (at, record) in records.iter().enumerate().filter(|(_, record)| changes(record.kind)) {
        let next = records[at..].iter().find(|later| matches!(later.kind, Kind::Sync | Kind::FailedSync));
        let synced = next.is_some_and(|later| later.kind == Kind::Sync);
        lost += usize::from(!synced);
        match record.kind {
            Kind::Truncate if synced || chance.random_bool(leak) => {
                file.set_len(record.offset).expect("a size");
            }
            Kind::Write if synced => file.write_all_at(&record.after, record.offset).expect("a write"),
            Kind::Write => leak_sectors(file, record, chance, leak),
            _ => {}
        }
    }
    lost
}

fn leak_sectors(file: &File, record: &Record, chance: &mut StdRng, leak: f64) {
    for (at, sector) in record.after.chunks(SECTOR).enumerate() {
        if chance.random_bool(leak) {
            file.write_all_at(sector, record.offset + (at * SECTOR) as u64).expect("a write");
        }
    }
}

/// Undoes the changes of names that did not survive, the newest first; answers how many were not synced.
fn take_names_back(records: &[Record], chance: &mut StdRng, leak: f64) -> usize {
    let is_synced = |at: usize, name: &Path| {
        let directory = name.parent().expect("a directory");
        records[at..]
            .iter()
            .any(|later| later.kind == Kind::SyncDirectory && path(&later.before) == directory)
    };
    let unsynced: Vec<&Record> = records
        .iter()
        .enumerate()
        .filter(|(_, record)| matches!(record.kind, Kind::Create | Kind::Rename | Kind::Unlink))
        .filter(|(at, record)| !is_synced(*at, names(record).last().expect("a name")))
        .map(|(_, record)| record)
        .collect();
    let stay = if leak > 0.0 { chance.random_range(0..=unsynced.len()) } else { 0 };
    for record in unsynced[stay..].iter().rev() {
        let names = names(record);
        let (first, last) = (&names[0], &names[names.len() - 1]);
        let kept = path(&record.before);
        // A call that failed changed nothing: there is nothing to undo then.
        let undone = match record.kind {
            Kind::Create => fs::remove_file(last),
            Kind::Rename => fs::rename(last, first),
            _ => Ok(()),
        };
        assert!(undone.as_ref().is_ok_and(|()| true) || !last.exists(), "{last:?}: {undone:?}");
        if !record.before.is_empty() && !last.exists() {
            fs::hard_link(&kept, last).expect("the name is free again");
        }
    }
    unsynced.len()
}

/// The one name, or from and to.
fn names(record: &Record) -> Vec<PathBuf> {
    record.after.split(|byte| *byte == 0).map(path).collect()
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes.to_vec()).expect("a path of ours"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;
    use crate::machine::Machine;

    const ACTS: &str = "CHAOS_ACTS";

    /// Does what its environment says in the working directory: letters, one act each.
    #[test]
    #[ignore = "the tests below run it on a failing machine"]
    fn actor() {
        let mut file = File::options().read(true).write(true).open("f").expect("a file");
        for act in std::env::var(ACTS).expect("acts").chars() {
            let done = match act {
                'w' => file.write_all(b"new"),
                's' => file.sync_all(),
                't' => file.set_len(1),
                'm' => fs::write("g", "moved").and_then(|()| File::open("g")?.sync_all()),
                'r' => fs::rename(data().join("g"), data().join("f")),
                'u' => fs::remove_file(data().join("f")),
                'd' => File::open(".").and_then(|directory| directory.sync_all()),
                _ => panic!("no act {act}"),
            };
            done.expect("done");
        }
    }

    fn data() -> PathBuf {
        PathBuf::from(std::env::var("CHAOS_DATA").expect("a directory"))
    }

    /// What a cut leaves of the file `f`, which held `old`, after these acts.
    fn left_by(acts: &str, leak: f64) -> Option<String> {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().canonicalize().expect("a path").join("data");
        fs::create_dir(&data).expect("a directory");
        fs::write(data.join("f"), "old").expect("a file");
        let machine = Machine::new(&directory.path().join("control"), &data);
        let journal = directory.path().join("journal");
        let mut actor = Command::new(std::env::current_exe().expect("this test"));
        actor.args(["--exact", "power::tests::actor", "--ignored"]).current_dir(&data);
        actor.envs(machine.environment()).env("CHAOS_JOURNAL", &journal).env(ACTS, acts);
        let output = actor.output().expect("the actor");
        assert!(output.status.success(), "{acts}: {}", String::from_utf8_lossy(&output.stdout));
        cut(&journal, &data, 1, leak);
        fs::read_to_string(data.join("f")).ok()
    }

    #[test]
    fn what_was_not_synced_is_lost_and_what_was_is_not() {
        assert_eq!(left_by("w", 0.0).as_deref(), Some("old"));
        assert_eq!(left_by("ws", 0.0).as_deref(), Some("new"));
        assert_eq!(left_by("wsw", 0.0).as_deref(), Some("new"));
        assert_eq!(left_by("wsw", 1.0).as_deref(), Some("newnew"), "all of it leaks");
        assert_eq!(left_by("wst", 0.0).as_deref(), Some("new"));
        assert_eq!(left_by("wsts", 0.0).as_deref(), Some("n"));
    }

    #[test]
    fn names_follow_the_sync_of_their_directory() {
        assert_eq!(left_by("u", 0.0).as_deref(), Some("old"));
        assert_eq!(left_by("ud", 0.0), None);
        assert_eq!(left_by("mr", 0.0).as_deref(), Some("old"));
        assert_eq!(left_by("mrd", 0.0).as_deref(), Some("moved"));
    }
}
