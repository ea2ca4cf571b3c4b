//! What a process used, as Linux tells it. Elsewhere nothing is known, and nothing is reported.

use std::fs;
use std::ops::{Add, Sub};

/// Ticks per second in `/proc`: part of the kernel's interface, whatever its own timer does.
const TICKS: f64 = 100.0;

/// What a process used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// Seconds of processor time, in user and kernel mode.
    pub(super) cpu: f64,
    /// Resident memory now, in bytes.
    pub(super) resident: f64,
    /// The most resident memory there ever was, in bytes.
    pub(super) peak: f64,
    /// Bytes it caused to be written to disks.
    pub(super) written: f64,
}

impl Usage {
    /// All of these processes together; `None` when one of them cannot be looked at.
    pub(super) fn of(processes: &[u32]) -> Option<Self> {
        if processes.is_empty() {
            return None;
        }
        processes.iter().try_fold(Usage::default(), |sum, process| Some(sum + Self::of_one(*process)?))
    }

    fn of_one(process: u32) -> Option<Self> {
        let file = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).ok();
        let (status, io) = (file("status")?, file("io").unwrap_or_default());
        Some(Usage {
            cpu: cpu(&file("stat")?)?,
            resident: field(&status, "VmRSS:")? * 1024.0,
            peak: field(&status, "VmHWM:")? * 1024.0,
            written: field(&io, "write_bytes:").unwrap_or(0.0),
        })
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Usage {
            cpu: self.cpu + other.cpu,
            resident: self.resident + other.resident,
            peak: self.peak + other.peak,
            written: self.written + other.written,
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Usage {
            cpu: self.cpu - other.cpu,
            resident: self.resident - other.resident,
            peak: self.peak - other.peak,
            written: self.written - other.written,
        }
    }
}

/// The name of a process may hold anything, so fields are counted from the bracket behind it.
fn cpu(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_process_is_called() {
        assert_eq!(cpu("7 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0"), Some(2.0));
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12.0));
        assert_eq!(cpu("nothing"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(&[std::process::id()]).expect("Linux tells");
        assert!(usage.resident > 1024.0 && usage.peak >= usage.resident, "{usage:?}");
        assert_eq!(Usage::of(&[]), None);
        assert_eq!(Usage::of(&[u32::MAX]), None);
    }
}
