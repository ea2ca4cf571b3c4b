//! How the store fails, sorted by what the caller can do about it.

use rusqlite::ErrorCode;

use super::quotas::QuotaExceeded;

/// Why a unit of work or a read did not happen. Nothing of a failed unit is kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. Writes resume by themselves when space returns.
    #[error("the disk of the data directory is full")]
    Full,
    /// The writer's queue is full.
    #[error("the event log has more work waiting than it may hold")]
    Overloaded,
    /// The tenant may not have more. Nothing of the unit was kept.
    #[error("the tenant's quota `{}` of {} is used up: {}", .0.quota, .0.limit, .0.used)]
    QuotaExceeded(QuotaExceeded),
    /// The store has stopped: the gateway is going down.
    #[error("the event log is closed")]
    Closed,
    /// The disk failed underneath. The gateway stops.
    #[error("the disk failed: {0}")]
    Fatal(String),
    /// A stored row is not what this code wrote.
    #[error("inconsistent row in {table}.{column} at {row}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// Its key, for a person.
        row: String,
    },
    /// Anything else SQLite said.
    #[error("the event log failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// True when the log cannot be trusted with another write.
    pub fn is_fatal(&self) -> bool {
        matches!(self, StoreError::Fatal(_))
    }

    fn from_code(code: ErrorCode, message: String) -> Self {
        match code {
            ErrorCode::DiskFull => StoreError::Full,
            ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                StoreError::Fatal(message)
            }
            _ => StoreError::Failed(message),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(code) => StoreError::from_code(code, error.to_string()),
            None => StoreError::Failed(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let primary = error
            .as_database_error()
            .and_then(|database| database.code())
            .and_then(|code| code.parse::<i32>().ok());
        match primary {
            Some(code) => StoreError::from_code(rusqlite::ffi::Error::new(code).code, error.to_string()),
            None => StoreError::Failed(error.to_string()),
        }
    }
}
