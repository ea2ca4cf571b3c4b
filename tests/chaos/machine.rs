//! The failing machine (`machine.c`) as a test holds it: compiled once, told what to do through a file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The words of the control file, in order.
#[derive(Debug, Clone, Copy)]
enum Word {
    ClockOffsetMs,
    DiskIsFull,
    FailSync,
    Refused,
}

/// What one process's machine is told, and what it counts.
#[derive(Debug)]
pub(crate) struct Machine {
    control: File,
    path: PathBuf,
    data: PathBuf,
}

impl Machine {
    /// A sound machine for a process with its files below `data`.
    pub(crate) fn new(control: &Path, data: &Path) -> Self {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(control);
        let file = file.expect("a control file");
        file.set_len(4096).expect("room");
        Machine { control: file, path: control.to_owned(), data: data.to_owned() }
    }

    /// What a process must have in its environment to run on this machine.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("LD_PRELOAD", library().to_owned()),
            ("CHAOS_CONTROL", self.path.clone()),
            ("CHAOS_DATA", self.data.clone()),
        ]
    }

    /// Puts the wall clock off by this much.
    pub(crate) fn set_clock_offset_ms(&self, offset: i64) {
        self.set(Word::ClockOffsetMs, offset);
    }

    /// Fills the disk up, or makes room again.
    pub(crate) fn set_disk_full(&self, full: bool) {
        self.set(Word::DiskIsFull, i64::from(full));
    }

    /// Lets the n-th sync from now on fail with EIO, and none with 0.
    pub(crate) fn fail_sync(&self, nth: i64) {
        self.set(Word::FailSync, nth);
    }

    /// True when the sync that was to fail has failed.
    pub(crate) fn has_failed_sync(&self) -> bool {
        self.get(Word::FailSync) == 0
    }

    /// How many writes found the disk full.
    pub(crate) fn refused(&self) -> i64 {
        self.get(Word::Refused)
    }

    fn set(&self, word: Word, value: i64) {
        self.control.write_all_at(&value.to_ne_bytes(), word as u64 * 8).expect("the control file");
    }

    fn get(&self, word: Word) -> i64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, word as u64 * 8).expect("the control file");
        i64::from_ne_bytes(bytes)
    }
}

/// The compiled shim.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/machine.c");
        let target =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("machine-{}.so", std::process::id()));
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let built = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&target)
            .arg(&source)
            .args(["-ldl", "-lpthread"])
            .status();
        let built = built.unwrap_or_else(|error| panic!("{compiler}: {error}; set CC to a C compiler"));
        assert!(built.success(), "{} does not compile", source.display());
        target
    })
}
