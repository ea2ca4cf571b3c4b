//! Named places at which a test ends the process. Without the feature `faults` there are none.
//!
//! `FAILPOINT=log::before_commit=3` ends it, without a word and without unwinding, the third time it comes to
//! that place. The name of the variable is none of the configuration's, which refuses what it does not know.

/// Selects the place, and which passing of it.
pub const VARIABLE: &str = "FAILPOINT";

/// A place that a build for tests may end at.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn reached(_: &str) {}

/// Ends the process here, if this is the place and the time.
#[cfg(feature = "faults")]
pub fn reached(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (place, nth) = text.rsplit_once('=').expect("the variable is <place>=<nth>");
        Some((place.to_owned(), nth.parse().expect("the variable ends in a number")))
    });
    if let Some((_, nth)) = armed.as_ref().filter(|(place, _)| place == name)
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
    {
        std::process::abort();
    }
}

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` makes failures: it is for tests, never for a release");
