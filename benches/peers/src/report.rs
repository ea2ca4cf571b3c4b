//! Tables for eyes and JSON for programs: medians and ranges over rounds, and ratios to Causeway of the same round.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::window::Sample;

/// One server under one workload, in all rounds.
#[derive(Debug, Clone)]
pub struct Row {
    pub server: String,
    pub promise: &'static str,
    /// One for each round; none: it failed.
    pub samples: Vec<Option<Sample>>,
    /// Why it failed, the last time it did.
    pub failure: Option<String>,
}

/// One workload with its rows, Causeway's first.
#[derive(Debug, Clone)]
pub struct Table {
    pub title: String,
    pub throughput: &'static str,
    pub latency: &'static str,
    pub memory: &'static str,
    pub command: String,
    pub rows: Vec<Row>,
}

type Figure = fn(&Sample) -> Option<f64>;

const FIGURES: [(&str, Figure); 5] = [
    ("throughput", |sample| sample.throughput),
    ("p50_ms", |sample| sample.p50_ms),
    ("p99_ms", |sample| sample.p99_ms),
    ("cpu_seconds_per_million", |sample| sample.cpu_per_million),
    ("memory_bytes", |sample| sample.memory),
];

/// Median, least and most.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Spread { median, least, most })
    }
}

impl Row {
    fn spread(&self, figure: Figure) -> Option<Spread> {
        Spread::of(self.samples.iter().flatten().filter_map(figure))
    }

    /// Its figure over that of another in the same round.
    fn ratio(&self, to: &Row, figure: Figure) -> Option<Spread> {
        let rounds = self.samples.iter().zip(&to.samples);
        let ratios =
            rounds.filter_map(|(own, other)| Some(figure(own.as_ref()?)? / figure(other.as_ref()?)?));
        Spread::of(ratios.filter(|ratio| ratio.is_finite()))
    }
}

impl Table {
    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let mut out = format!("### {}\n\n`{}`\n\n", self.title, self.command);
        let Some(causeway) = self.rows.first() else { return out };
        let memory = format!("{}, KiB", self.memory);
        let latency = format!("{}: p50 ms", self.latency);
        let columns: [(&str, &str, Figure); 5] = [
            (self.throughput, self.throughput, FIGURES[0].1),
            (self.latency, &latency, FIGURES[1].1),
            (self.latency, "p99 ms", FIGURES[2].1),
            ("cpu", "server CPU s/M", FIGURES[3].1),
            (self.memory, &memory, |sample| Some(sample.memory? / 1024.0)),
        ];
        // What is on a schedule has no throughput to compare.
        let paced = if self.command.contains("--rate") { "" } else { self.throughput };
        let compared = [
            (paced, "throughput", FIGURES[0].1),
            ("cpu", "CPU", FIGURES[3].1),
            (self.memory, "memory", FIGURES[4].1),
        ];
        let columns = columns.into_iter().filter(|column| self.tells(*column));
        let columns: Vec<(String, bool, Figure)> = columns
            .map(|(_, head, figure)| (head.to_owned(), false, figure))
            .chain(
                compared
                    .into_iter()
                    .filter(|column| self.rows.len() > 1 && self.tells(*column))
                    .map(|(_, head, figure)| (format!("{head}: × Causeway"), true, figure)),
            )
            .collect();
        let heads: Vec<&str> = columns.iter().map(|(head, ..)| head.as_str()).collect();
        let _ = writeln!(out, "| | guarantee | {} |", heads.join(" | "));
        let _ = writeln!(out, "|---|---|{}", "--:|".repeat(columns.len()));
        for row in &self.rows {
            let cell = |(_, ratio, figure): &(String, bool, Figure)| match ratio {
                true => times(row.ratio(causeway, *figure)),
                false => shown(row.spread(*figure)),
            };
            let cells: Vec<String> = columns.iter().map(cell).collect();
            let (failed, of) =
                (row.samples.iter().filter(|sample| sample.is_none()).count(), row.samples.len());
            let failed =
                if failed > 0 { format!(" (failed in {failed} of {of} rounds)") } else { String::new() };
            let _ = writeln!(out, "| {}{failed} | {} | {} |", row.server, row.promise, cells.join(" | "));
        }
        out
    }

    /// True for a column that has a name, and a figure in some row.
    fn tells(&self, (name, _, figure): (&str, &str, Figure)) -> bool {
        !name.is_empty() && self.rows.iter().any(|row| row.spread(figure).is_some())
    }

    /// The table for programs, with every round.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            let samples = row.samples.iter().map(|sample| {
                let sample = sample.as_ref()?;
                let figures = FIGURES
                    .iter()
                    .filter_map(|(name, figure)| Some(((*name).to_owned(), json!(figure(sample)?))));
                Some(Value::Object(figures.collect()))
            });
            let (rounds, failure): (Vec<_>, _) = (samples.collect(), &row.failure);
            json!({"server": row.server, "guarantee": row.promise, "rounds": rounds, "failure": failure})
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({"title": self.title, "throughput": self.throughput, "latency": self.latency,
               "memory": self.memory, "command": self.command, "rows": rows})
    }
}

/// A median with its range.
fn shown(spread: Option<Spread>) -> String {
    let Some(Spread { median, least, most }) = spread else { return "–".to_owned() };
    match figure(least) == figure(most) {
        true => figure(median),
        false => format!("{} ({}–{})", figure(median), figure(least), figure(most)),
    }
}

fn times(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| format!("{}×", figure(spread.median)))
}

/// A number with about three digits.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 999_500.0 => format!("{:.2} M", value / 1e6),
        size if size >= 99_950.0 => format!("{:.0} k", value / 1e3),
        size if size >= 9_995.0 => format!("{:.1} k", value / 1e3),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(server: &str, throughput: &[Option<f64>]) -> Row {
        let sample = |value: &Option<f64>| value.map(|_| Sample { throughput: *value, ..Sample::default() });
        let samples = throughput.iter().map(sample).collect();
        Row { server: server.to_owned(), promise: "none", samples, failure: None }
    }

    #[test]
    fn ratios_are_those_of_a_round_and_not_of_medians() {
        let causeway = row("Causeway", &[Some(10.0), Some(1000.0), Some(20.0)]);
        let other = row("other", &[Some(20.0), Some(1000.0), None]);
        assert_eq!(other.ratio(&causeway, FIGURES[0].1), Some(Spread { median: 1.5, least: 1.0, most: 2.0 }));
        assert_eq!(causeway.spread(FIGURES[0].1).map(|spread| spread.median), Some(20.0));
        assert_eq!(causeway.spread(FIGURES[1].1), None);
    }

    #[test]
    fn numbers_have_about_three_digits() {
        for (value, text) in
            [(0.123, "0.12"), (12.34, "12.3"), (1234.0, "1234"), (12_345.0, "12.3 k"), (2.5e6, "2.50 M")]
        {
            assert_eq!(figure(value), text);
        }
    }
}
