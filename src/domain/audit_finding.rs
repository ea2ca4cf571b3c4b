//! What can be wrong with an audit, each as a plain sentence that says where.

use super::units::quoted;

/// What is wrong with an audit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A record does not match its hash.
    #[error(
        "record {audit_id} does not match its hash: it was changed after it was written, or it stands in the \
         place of another"
    )]
    Edited {
        /// The record.
        audit_id: i64,
    },
    /// Records are gone from the beginning or the middle.
    #[error("{} missing", gap(*after, *before))]
    Missing {
        /// The last record before the hole; 0 for the beginning of the audit.
        after: i64,
        /// The first record after the hole.
        before: i64,
    },
    /// A record stands somewhere else.
    #[error("the records are out of order: record {audit_id} stands in the place of record {place}")]
    Reordered {
        /// The record.
        audit_id: i64,
        /// Whose place it has.
        place: i64,
    },
    /// A record's number comes again.
    #[error("a record numbered {audit_id} comes after record {after}")]
    Repeated {
        /// The number.
        audit_id: i64,
        /// The last record before it.
        after: i64,
    },
    /// The end is gone.
    #[error(
        "{}, but a signed checkpoint says that there was a record {checkpoint_id}: the end of the audit is gone",
        ended(*last_present)
    )]
    Truncated {
        /// The last record there is; 0 when there is none.
        last_present: i64,
        /// The newest signed checkpoint.
        checkpoint_id: i64,
    },
    /// The head kept beside the records is not the last record.
    #[error("{}, but its head names {}", ended(*last_present), head_named(*head_id, *last_present))]
    HeadMismatch {
        /// The last record there is; 0 when there is none.
        last_present: i64,
        /// The head.
        head_id: i64,
    },
    /// A chain that holds together, but is not the one that was signed.
    #[error(
        "record {audit_id} is not the one in the signed checkpoint: this record or records before it were \
         written anew"
    )]
    CheckpointMismatch {
        /// The record.
        audit_id: i64,
    },
    /// Two signed checkpoints of one record.
    #[error(
        "two signed checkpoints disagree about record {audit_id}: the audit was written anew, or two \
         gateways share one key"
    )]
    ForkedCheckpoints {
        /// The record.
        audit_id: i64,
    },
    /// The signature is not the key's.
    #[error("a checkpoint is forged: its signature is not one of key {}", quoted(key_id))]
    ForgedCheckpoint {
        /// The key named.
        key_id: String,
    },
    /// The signature is good, the text is none of ours.
    #[error("a text signed with key {} is kept as a checkpoint and is none", quoted(key_id))]
    UnreadableCheckpoint {
        /// The key.
        key_id: String,
    },
    /// A true checkpoint of another audit.
    #[error("a checkpoint is of another audit: gateway {origin}, log {incarnation}")]
    ForeignCheckpoint {
        /// The gateway.
        origin: String,
        /// The log.
        incarnation: String,
    },
    /// Nothing signed vouches for what a pruned audit begins with.
    #[error(
        "the audit is said to be pruned through record {pruned_through}, and no signed checkpoint is of that \
         record"
    )]
    UnprovenStart {
        /// The last record that was pruned.
        pruned_through: i64,
    },
}

fn gap(after: i64, before: i64) -> String {
    match (after.saturating_add(1), before.saturating_sub(1)) {
        (first, last) if first == last => format!("record {first} is"),
        (first, last) => format!("records {first} to {last} are"),
    }
}

fn ended(last_present: i64) -> String {
    match last_present {
        0 => "the audit is empty".to_owned(),
        last => format!("the audit ends at record {last}"),
    }
}

fn head_named(head_id: i64, last_present: i64) -> String {
    match head_id == last_present {
        true => "another hash for it".to_owned(),
        false => format!("record {head_id}"),
    }
}
