//! Causeway itself, measured by its own `causeway bench`, which starts a gateway and verifies what it counts.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::window::{Sample, Times};

/// Where the numbers of a workload stand in the result of `causeway bench`.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// What is counted, in the plural.
    items: &'static str,
    /// What the latency is of; empty: of nothing.
    latency: &'static str,
    memory: &'static str,
}

impl Names {
    pub const INGEST: Names = Names::new("events", "request_ms_");
    pub const FANOUT: Names = Names::new("deliveries", "delivery_ms_");
    pub const REPLAY: Names = Names::new("events", "first_event_ms_");
    pub const PROXY: Names = Names::new("events", "added_ms_");
    pub const BULK: Names = Names::new("events", "delivery_ms_");
    pub const FORWARD: Names = Names::new("runs", "create_ms_");
    pub const IDLE: Names = Names { items: "", latency: "", memory: "server_resident_bytes_per_subscriber" };

    const fn new(items: &'static str, latency: &'static str) -> Self {
        Names { items, latency, memory: "server_resident_bytes" }
    }
}

/// The command line of a measurement.
pub fn arguments(workload: &str, parent: &Path, times: Times) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["bench"].into_iter().chain(workload.split(' ')).map(str::to_owned).collect();
    arguments.extend([
        "--spawn".to_owned(),
        "--json".to_owned(),
        "--dir".to_owned(),
        parent.display().to_string(),
    ]);
    arguments.extend(["--duration".to_owned(), format!("{}ms", times.duration.as_millis())]);
    arguments.extend(["--warmup".to_owned(), format!("{}ms", times.warmup.as_millis())]);
    arguments
}

/// Measures.
pub async fn measure(
    binary: &Path,
    (workload, names): (&str, Names),
    parent: &Path,
    times: Times,
) -> Result<Sample> {
    let mut command = Command::new(binary);
    command.args(arguments(workload, parent, times)).kill_on_drop(true);
    let done = command.output().await.with_context(|| binary.display().to_string())?;
    ensure!(done.status.success(), "causeway bench: {}", String::from_utf8_lossy(&done.stderr).trim_end());
    let result: Value = serde_json::from_slice(&done.stdout)?;
    ensure!(result["optimized"] == true, "{} is not a release binary", binary.display());
    let metric = |name: String| result["metrics"][name].as_f64();
    let (items, latency) = (names.items, names.latency);
    Ok(Sample {
        throughput: metric(format!("{items}_per_second")),
        p50_ms: metric(format!("{latency}p50")),
        p99_ms: metric(format!("{latency}p99")),
        cpu_per_million: metric(format!("server_cpu_seconds_per_million_{items}")),
        memory: metric(names.memory.to_owned()),
    })
}
