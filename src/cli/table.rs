//! Rows for eyes: columns as wide as they must be, and names with their values.

use std::borrow::Cow;

use serde_json::Value;

use super::exit::Failure;
use super::output::{Output, Tone, visible};

/// Columns are this far apart.
const BETWEEN: usize = 2;
/// Names before values are this wide.
const NAME_CHARS: usize = 12;

/// Prints rows under their heads; what comes from outside is made harmless here. The last column is as long as
/// it is.
pub(super) fn print<const N: usize>(
    output: Output,
    heads: [&str; N],
    rows: &[[String; N]],
) -> Result<(), Failure> {
    let rows: Vec<[Cow<'_, str>; N]> =
        rows.iter().map(|row| std::array::from_fn(|at| visible(&row[at]))).collect();
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([heads[at].len()]).max().unwrap_or(0) + BETWEEN
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<String>().trim_end().to_owned()
    };
    output.line(output.style.paint(Tone::Faint, line(heads)))?;
    rows.iter().try_for_each(|row| output.line(line(std::array::from_fn(|at| &*row[at]))))
}

/// Prints a name and its value; nothing for an empty one.
pub(super) fn field(output: Output, name: &str, value: &str) -> Result<(), Failure> {
    if value.is_empty() {
        return Ok(());
    }
    let name = output.style.paint(Tone::Faint, format!("{name:<NAME_CHARS$}"));
    output.line(format_args!("{name} {}", visible(value)))
}

/// A text inside of an answer; nothing where there is none.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Some(Value::Object(pairs)) => {
            let pair = |(name, value): (&String, &Value)| Some(format!("{name}={}", value.as_str()?));
            pairs.iter().filter_map(pair).collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    }
}

/// As [`text`], with a dash where there is none: a cell must hold something.
pub(super) fn cell(value: &Value, pointer: &str) -> String {
    match text(value, pointer) {
        empty if empty.is_empty() => "-".to_owned(),
        text => text,
    }
}
