//! Deliberate bugs, one at a time, which the tests must find. Without the feature `faults` there are none.
//!
//! `tests/mutants` says which test finds which; the environment says which bug is wanted.

/// Every bug there is.
pub const ALL: &[&str] = &[
    "ack_without_commit",
    "arrivals_unread",
    "audit_end_kept",
    "breaker_never_opens",
    "closed_at_once",
    "conflict_accepted",
    "cursor_ahead_served",
    "cursor_inclusive",
    "cursor_ignored",
    "dedupe_skipped",
    "destination_unchecked",
    "draining_takes_work",
    "fingerprint_ignored",
    "gap_omitted",
    "heads_kept",
    "hole_given_up_early",
    "key_per_attempt",
    "list_repeats",
    "nonce_not_noted",
    "older_keys_unread",
    "process_before_nonce",
    "published_before_commit",
    "quota_not_held",
    "reads_not_resumed",
    "rest_of_row_removed",
    "restored_numbers_again",
    "retention_off_by_one",
    "retries_without_budget",
    "revocation_forgotten",
    "revocation_keeps_streams",
    "revoked_still_read",
    "run_not_indexed",
    "silence_not_noticed",
    "sorted_ids_unread",
    "successor_not_learned",
    "synchronous_normal",
    "tail_skips",
    "tenant_ignored",
    "unknown_called_failed",
    "wake_up_lost",
];

/// Selects the bug.
pub const VARIABLE: &str = "MUTANT";

/// True when this bug is wanted.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) const fn mutant(_: &str) -> bool {
    false
}

/// True when this bug is wanted.
#[cfg(feature = "faults")]
pub(crate) fn mutant(name: &str) -> bool {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(ALL.contains(&name), "{name} is no known bug");
    let wanted = WANTED.get_or_init(|| std::env::var(VARIABLE).ok());
    if let Some(unknown) = wanted.as_deref().filter(|wanted| !ALL.contains(wanted)) {
        panic!("{VARIABLE}={unknown} is no known bug");
    }
    wanted.as_deref() == Some(name)
}

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` makes bugs: it is for tests, never for a release");
