//! A copy of the audit, held against the database: whoever cuts off the end of the one must also have the other.
//!
//! The copy is read line by line and the database page by page, so that neither has to fit in memory. A last
//! line without an end is being written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use super::exit::Failure;
use super::output::visible;
use crate::services::audit_log::shown;
use crate::store::{AuditRow, read_audit};

/// Bytes of one line; a longer one is no record.
const LINE_BYTES: u64 = 1024 * 1024;
/// Records read from the database at once.
const PAGE: u32 = 1000;

/// What comparing came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Lines that are as the database has them.
    pub(super) records: u64,
    /// The last record of the copy.
    pub(super) last: Option<i64>,
    /// The first thing that is wrong.
    pub(super) finding: Option<String>,
}

/// Holds every whole line of `copy` against `database`.
pub(super) fn compare(copy: &Path, database: &Path) -> Result<Compared, Failure> {
    let name = copy.to_string_lossy();
    let name = visible(&name);
    let failed = |error: &dyn std::fmt::Display| Failure::usage(format!("{name} cannot be read: {error}"));
    let mut lines = BufReader::new(File::open(copy).map_err(|error| failed(&error))?);
    let mut kept = Kept { database, page: VecDeque::new() };
    let mut compared = Compared::default();
    for number in 1_u64.. {
        let mut line = Vec::new();
        let read = lines.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line);
        read.map_err(|error| failed(&error))?;
        let is_whole = line.last() == Some(&b'\n');
        if !is_whole && (line.len() as u64) < LINE_BYTES {
            break;
        }
        let found = look(&line, compared.last, &mut kept)?;
        match found {
            Ok(audit_id) => {
                compared.records += 1;
                compared.last = Some(audit_id);
            }
            Err(finding) => {
                compared.finding = Some(format!("{name}, line {number}: {finding}"));
                break;
            }
        }
    }
    Ok(compared)
}

/// The number of a line's record, or what is wrong with it.
fn look(line: &[u8], last: Option<i64>, kept: &mut Kept<'_>) -> Result<Result<i64, String>, Failure> {
    let record: Option<Value> = serde_json::from_slice(line).ok();
    let audit_id = record.as_ref().and_then(|record| record.get("audit_id")?.as_i64());
    let Some((record, audit_id)) = record.zip(audit_id) else {
        return Ok(Err("this is no record of an audit".to_owned()));
    };
    if let Some(last) = last.filter(|last| audit_id != last + 1) {
        return Ok(Err(format!(
            "record {audit_id} comes after record {last}: lines of the copy are missing or moved"
        )));
    }
    Ok(match kept.find(audit_id)? {
        None => {
            Err(format!("record {audit_id} is in the copy and not in the database: it was removed there"))
        }
        Some(row) if shown(&row) != record => {
            Err(format!("record {audit_id} is another one in the database: one of the two was changed"))
        }
        Some(_) => Ok(audit_id),
    })
}

/// The database's records, a page at a time.
struct Kept<'a> {
    database: &'a Path,
    page: VecDeque<AuditRow>,
}

impl Kept<'_> {
    /// The record of a number; asked for in rising order, each page is read once.
    fn find(&mut self, audit_id: i64) -> Result<Option<AuditRow>, Failure> {
        while self.page.front().is_some_and(|row| row.audit_id < audit_id) {
            self.page.pop_front();
        }
        if self.page.is_empty() {
            let page = read_audit(self.database, audit_id.saturating_sub(1), PAGE);
            self.page = page.map_err(Failure::failed)?.into();
        }
        Ok(self.page.pop_front_if(|row| row.audit_id == audit_id))
    }
}
