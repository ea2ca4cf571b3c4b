//! Where it was measured: the machine, what runs on it, and how often its disk can be synced.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use procfs::{CpuInfo, Current, LoadAverage, Meminfo};

use crate::window::{Sample, latency, note, since};

/// Appends 4 KiB and syncs them, one after the other: nothing that is durable can be acknowledged faster one at a time.
pub fn disk(parent: &Path, duration: Duration) -> Result<Sample> {
    let path = parent.join("disk");
    let (mut file, block) = (File::create(&path)?, [0x5a; 4096]);
    let (mut times, start, mut syncs) = (latency(), Instant::now(), 0_u64);
    while start.elapsed() < duration {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        note(&mut times, since(begun), 1)?;
        syncs += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(Sample { throughput: Some(syncs as f64 / seconds), ..Sample::default() }.with_latency(&times))
}

/// The machine in one line.
pub fn describe(parent: &Path) -> Result<String> {
    let cpus = CpuInfo::current()?;
    let model = cpus.model_name(0).unwrap_or("unknown processor").to_owned();
    let memory = Meminfo::current()?.mem_total as f64 / f64::from(1 << 30);
    let place = parent.display().to_string();
    let disk = said("findmnt", &["--noheadings", "--output", "FSTYPE", "--target", &place]);
    let (kernel, system) =
        (said("uname", &["-sr"]), said("sh", &["-c", ". /etc/os-release && echo \"$PRETTY_NAME\""]));
    let cores = cpus.num_cores();
    Ok(format!("{model}, {cores} cores, {memory:.0} GiB, {disk}, {kernel}, {system}"))
}

/// How many processes wanted to run, over the last minute.
pub fn load() -> Result<f64> {
    Ok(f64::from(LoadAverage::current()?.one))
}

/// The date, in UTC.
pub fn date() -> String {
    said("date", &["--utc", "+%Y-%m-%d"])
}

/// Has everything on disk that was written so far.
pub fn settle() {
    said("sync", &[]);
}

/// The first line that a command says.
pub fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").trim().to_owned()
}
