//! Time as a value: the one place that reads a clock.
//!
//! Wall time is only ever stored or shown; every wait and every decision about elapsed time uses
//! monotonic time, so a clock that jumps cannot expire a deadline or wake a retry.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

/// A source of time, cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Instant,
    wall: Wall,
}

#[derive(Clone, Debug)]
enum Wall {
    System,
    Manual(Arc<AtomicI64>),
    Running(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Clock { origin: Instant::now(), wall: Wall::System }
    }

    /// A wall clock that stands at `unix_ms` until [`Clock::advance`] moves it (tests).
    pub fn manual(unix_ms: i64) -> Self {
        Clock { origin: Instant::now(), wall: Wall::Manual(Arc::new(AtomicI64::new(unix_ms))) }
    }

    /// A wall clock that shows `unix_ms` now and goes on with monotonic time (simulation).
    pub fn running(unix_ms: i64) -> Self {
        Clock { origin: Instant::now(), wall: Wall::Running(Arc::new(AtomicI64::new(unix_ms))) }
    }

    /// Moves a manual or running wall clock forward; the machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        self.jump(millis(by));
    }

    /// Moves a manual or running wall clock, backwards too.
    pub fn jump(&self, by_ms: i64) {
        if let Wall::Manual(now) | Wall::Running(now) = &self.wall {
            now.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// Wall time in milliseconds since the Unix epoch.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks what time it is")]
    pub fn now_ms(&self) -> i64 {
        match &self.wall {
            Wall::Manual(now) => now.load(Ordering::SeqCst),
            Wall::Running(start) => start.load(Ordering::SeqCst).saturating_add(millis(self.monotonic())),
            Wall::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                millis(since)
            }
        }
    }

    /// Monotonic time since this clock was made.
    pub fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// How long it is from now until a moment, both in milliseconds since the Unix epoch; zero once it is past.
pub fn left(until_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(until_ms.saturating_sub(now_ms)).unwrap_or(0))
}

/// A duration in whole milliseconds, saturating.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Formats milliseconds since the Unix epoch as RFC 3339 in UTC, with milliseconds.
pub fn rfc3339(unix_ms: i64) -> String {
    let nanos = i128::from(unix_ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_766_182_536_042), "2025-12-19T22:15:36.042Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z", "a time no calendar holds is not a panic");
    }

    #[tokio::test]
    async fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1000);
        let other = clock.clone();
        clock.advance(Duration::from_secs(2));
        assert_eq!(other.now_ms(), 3000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_clock_goes_with_monotonic_time_and_jumps() {
        let clock = Clock::running(10_000);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now_ms(), 12_000);
        clock.jump(-5_000);
        assert_eq!((clock.now_ms(), clock.monotonic()), (7_000, Duration::from_secs(2)));
    }
}
