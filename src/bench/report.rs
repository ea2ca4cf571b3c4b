//! What came of a measurement: numbers with stable names, for programs, and in rows, for eyes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::course::{Latency, Measured};
use super::server::Server;
use super::{Common, Ids};

/// Version of the form of a result.
const FORM: u64 = 1;
const NANOS_PER_MS: f64 = 1e6;
/// The shares of requests whose latency is told.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)];

/// Which way a number should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its stable name, which says its unit.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Which way it should go.
    pub better: Better,
}

/// What came of a measurement.
#[derive(Debug, Clone)]
pub struct Report {
    /// The name of the workload.
    pub workload: &'static str,
    /// What it was asked for.
    pub parameters: Map<String, Value>,
    /// What was measured.
    pub metrics: Vec<Metric>,
    /// What did not work at first, and how often.
    pub errors: BTreeMap<String, u64>,
    /// How many were held against what had been sent.
    pub verified: u64,
}

impl Report {
    /// A report of what was done in the window. `item` names what is counted, in the plural.
    pub(super) fn new(
        workload: &'static str,
        item: &str,
        measured: &Measured,
        common: &Common,
        server: &Server,
    ) -> Self {
        let mut parameters = Map::new();
        let ids = if common.ids == Ids::Ordered { "ordered" } else { "random" };
        let mut say = |name: &str, value: Value| drop(parameters.insert(name.to_owned(), value));
        say("spawned_gateways", server.spawned().into());
        say("payload_bytes", common.payload.into());
        say("ids", ids.into());
        say("rate_per_second", common.rate.into());
        say("measured_seconds", rounded(measured.seconds).into());
        if let Some(syncs) = server.disk_syncs {
            say("disk_syncs_per_second", rounded(syncs).into());
        }
        let errors = measured.errors.clone();
        let mut report = Report { workload, parameters, metrics: Vec::new(), errors, verified: 0 };
        report.add(&format!("{item}_per_second"), measured.items as f64 / measured.seconds, Better::Higher);
        if let Some(usage) = measured.usage {
            let millions = (measured.items as f64 / 1e6).max(f64::MIN_POSITIVE);
            if measured.items > 0 {
                report.add(
                    &format!("server_cpu_seconds_per_million_{item}"),
                    usage.cpu / millions,
                    Better::Lower,
                );
                let written = usage.written / measured.items as f64;
                report.add(&format!("server_written_bytes_per_{}", singular(item)), written, Better::Lower);
            }
            report.add("server_cpu_cores", usage.cpu / measured.seconds, Better::Lower);
            report.add("server_resident_bytes", usage.resident, Better::Lower);
            report.add("server_peak_resident_bytes", usage.peak, Better::Lower);
        }
        report
    }

    /// Says what was asked for.
    pub(super) fn parameter(&mut self, name: &str, value: impl Into<Value>) {
        self.parameters.insert(name.to_owned(), value.into());
    }

    /// Adds a number.
    pub(super) fn add(&mut self, name: &str, value: f64, better: Better) {
        self.metrics.push(Metric { name: name.to_owned(), value, better });
    }

    /// Adds how long something took, in milliseconds.
    pub(super) fn latency(&mut self, of: &str, latency: &Latency) {
        if latency.is_empty() {
            return;
        }
        for (name, quantile) in QUANTILES {
            let value = latency.value_at_quantile(quantile) as f64 / NANOS_PER_MS;
            self.add(&format!("{of}_ms_{name}"), value, Better::Lower);
        }
    }

    /// One number by its name.
    pub fn find(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    /// The whole of it, for programs.
    pub fn to_json(&self, date: &str) -> Value {
        let metrics: Map<String, Value> =
            self.metrics.iter().map(|metric| (metric.name.clone(), json!(metric.value))).collect();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        json!({
            "causeway_bench": FORM,
            "version": env!("CARGO_PKG_VERSION"),
            "optimized": !cfg!(debug_assertions),
            "date": date,
            "cores": cores,
            "workload": self.workload,
            "parameters": self.parameters,
            "metrics": metrics,
            "errors": self.errors,
            "verified": self.verified,
        })
    }

    /// The rows of a table: a name and a number for eyes.
    pub fn rows(&self) -> Vec<(String, String)> {
        let shown =
            |metric: &Metric| (metric.name.replace('_', " ").replace("p99 9", "p99.9"), figure(metric.value));
        self.metrics.iter().map(shown).collect()
    }
}

/// A number as one reads it: groups of digits when large, few decimals when small.
fn figure(value: f64) -> String {
    if value.abs() < 1000.0 {
        let decimals = if value.abs() >= 100.0 { 0 } else { 3 - usize::from(value.abs() >= 10.0) };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn singular(item: &str) -> &str {
    match item {
        "deliveries" => "delivery",
        other => other.strip_suffix('s').unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_one_reads_them() {
        for (value, shown) in
            [(0.1234, "0.123"), (12.345, "12.35"), (123.4, "123"), (1234.5, "1 234"), (1e6, "1 000 000")]
        {
            assert_eq!(figure(value), shown);
        }
        assert_eq!([singular("deliveries"), singular("events")], ["delivery", "event"]);
    }
}
