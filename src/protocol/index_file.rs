//! The AgentOS forward index file: `[{tenant_id, run_id, remote_stack_id, remote_events_url}]`.

use serde::{Deserialize, Serialize};

use crate::domain::id::{PeerId, RunId, TenantId};
use crate::domain::units;

/// One record of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// Whose run.
    #[serde(with = "units::text")]
    pub tenant_id: TenantId,
    /// The run, by its home's id.
    #[serde(with = "units::text")]
    pub run_id: RunId,
    /// The home.
    #[serde(with = "units::text")]
    pub remote_stack_id: PeerId,
    /// Where the home said its events are.
    #[serde(default)]
    pub remote_events_url: String,
}

/// A file that cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct InvalidIndex {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

/// Reads a whole file: a list, or an object with the list under `entries`, or a map of records.
pub fn parse(text: &[u8]) -> Result<Vec<IndexRecord>, InvalidIndex> {
    #[derive(Deserialize)]
    struct Wrapped {
        entries: Vec<IndexRecord>,
    }
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    let parsed = if first == Some(&b'{') {
        serde_json::from_slice::<Wrapped>(text).map(|wrapped| wrapped.entries)
    } else {
        serde_json::from_slice(text)
    };
    parsed.map_err(|error| InvalidIndex {
        line: error.line(),
        column: error.column(),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_says_where() {
        // defect 7
        let error = parse(b"[\n {\"tenant_id\": \"t\",\n  \"run_id\": ]").expect_err("damaged");
        assert_eq!(error.line, 3);
        assert!(parse(b"").is_err());
        assert_eq!(parse(b"[]"), Ok(Vec::new()));
    }
}
