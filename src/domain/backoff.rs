//! How long to wait before the next try: exponential with full jitter, or what the peer asked for.
//!
//! Invariant: a delay lies between zero and the cap, whatever the retry number and the chance; nothing
//! overflows.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// A validated pair of base and cap. Full jitter: every delay between zero and the ceiling is equally
/// likely, so callers who failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

/// Why a pair of base and cap is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackoffError {
    /// The base is zero, so that retries would never wait.
    ZeroBase,
    /// The cap is smaller than the base.
    CapBelowBase {
        /// The base given.
        base: Duration,
        /// The cap given.
        cap: Duration,
    },
}

impl Backoff {
    /// A backoff whose first ceiling is `base` and whose ceilings double up to `cap`.
    ///
    /// # Errors
    ///
    /// The base is zero, or the cap is below the base.
    pub fn try_new(base: Duration, cap: Duration) -> Result<Self, BackoffError> {
        if base.is_zero() {
            return Err(BackoffError::ZeroBase);
        }
        if cap < base {
            return Err(BackoffError::CapBelowBase { base, cap });
        }
        Ok(Self { base, cap })
    }

    /// The wait before retry number `attempt` (0 is the first retry): `chance * min(cap, base * 2^attempt)`.
    ///
    /// `chance` is uniform in `[0, 1)`. Outside of that it is clamped; not a number means the full ceiling.
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let ceiling = doubled(self.base, self.cap, attempt);
        scaled(ceiling, chance.clamp(0.0, 1.0)).min(ceiling)
    }
}

impl fmt::Display for BackoffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroBase => f.write_str("the base of a backoff must be longer than zero"),
            Self::CapBelowBase { base, cap } => {
                write!(f, "the cap of a backoff ({cap:?}) must not be below its base ({base:?})")
            }
        }
    }
}

impl Error for BackoffError {}

/// `min(cap, base * 2^times)`, exact and without overflow for any `times`.
pub fn doubled(base: Duration, cap: Duration, times: u32) -> Duration {
    let nanos = base.as_nanos();
    if nanos == 0 {
        return Duration::ZERO;
    }
    if nanos.leading_zeros() <= times || (nanos << times) >= cap.as_nanos() {
        return cap;
    }
    Duration::from_nanos_u128(nanos << times)
}

/// `duration * factor`; a product that no duration can hold (negative, too long, not a number) leaves it
/// unscaled.
pub fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(duration)
}

/// What the peer asked for in `Retry-After`, or nothing when the deadline leaves less than that: coming back
/// sooner than asked is worse than giving up.
pub fn clamp_retry_after(retry_after: Duration, remaining: Duration) -> Option<Duration> {
    (retry_after <= remaining).then_some(retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Duration = Duration::from_millis(250);
    const CAP: Duration = Duration::from_secs(10);

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0..100_000u64).prop_map(Duration::from_nanos),
            (0..100_000u64).prop_map(Duration::from_millis),
            (any::<u64>(), 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n)),
        ]
    }

    #[test]
    fn a_base_of_zero_or_a_cap_below_the_base_is_refused() {
        assert_eq!(Backoff::try_new(Duration::ZERO, CAP), Err(BackoffError::ZeroBase));
        let refused = Backoff::try_new(CAP, BASE);
        assert_eq!(refused, Err(BackoffError::CapBelowBase { base: CAP, cap: BASE }));
        assert!(Backoff::try_new(BASE, BASE).is_ok());
    }

    #[test]
    fn ceilings_double_from_the_base_up_to_the_cap() {
        // the origin grew linearly and without jitter.
        let expected_ms = [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000];
        for (attempt, expected) in (0u32..).zip(expected_ms) {
            assert_eq!(doubled(BASE, CAP, attempt), Duration::from_millis(expected));
        }
    }

    #[test]
    fn chance_picks_evenly_between_zero_and_the_ceiling() {
        // defect 11: without jitter, callers who failed together come back together.
        let backoff = Backoff::try_new(BASE, CAP).expect("a valid pair");
        assert_eq!(backoff.delay(2, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(2, 0.25), Duration::from_millis(250));
        assert_eq!(backoff.delay(2, 0.5), Duration::from_millis(500));
        assert_eq!(backoff.delay(u32::MAX, 0.5), Duration::from_secs(5));
    }

    #[test]
    fn a_chance_that_is_none_still_gives_a_bounded_delay() {
        let backoff = Backoff::try_new(BASE, CAP).expect("a valid pair");
        assert_eq!(backoff.delay(0, -1.0), Duration::ZERO);
        for chance in [1.0, 2.0, f64::INFINITY, f64::NAN] {
            assert_eq!(backoff.delay(0, chance), BASE);
        }
    }

    #[test]
    fn retry_after_is_honoured_whole_or_not_at_all() {
        // defect 11: the origin ignored Retry-After.
        assert_eq!(clamp_retry_after(BASE, CAP), Some(BASE));
        assert_eq!(clamp_retry_after(CAP, CAP), Some(CAP));
        assert_eq!(clamp_retry_after(CAP, BASE), None);
    }

    proptest! {
        #[test]
        fn a_delay_never_exceeds_the_ceiling_or_the_cap(
            base in any_duration(), cap in any_duration(), attempt: u32, small in 0..130u32,
            chance in 0.0..1.0f64,
        ) {
            if let Ok(backoff) = Backoff::try_new(base, cap) {
                prop_assert!(backoff.delay(attempt, chance) <= cap);
                prop_assert!(backoff.delay(small, chance) <= doubled(base, cap, small));
            }
        }

        #[test]
        fn doubling_is_exact_and_never_shrinks(
            base in any_duration(), cap in any_duration(), times in 0..200u32,
        ) {
            let cap = cap.max(base);
            let now = doubled(base, cap, times);
            prop_assert!(base <= now && now <= cap);
            prop_assert_eq!(doubled(base, cap, times + 1), now.saturating_mul(2).min(cap));
        }
    }
}
