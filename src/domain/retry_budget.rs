//! How many retries a peer may be sent: a share of the requests and a small floor, so that retries never
//! become the outage.
//!
//! Invariant: in **every** span as long as the window, wherever it begins, retries are at most `ratio *
//! requests in that span + floor_per_second * window`. To look only at the window behind each retry would not
//! give this: many requests, then all their retries ten seconds later, would be a span with retries alone.
//!
//! Memory is constant: a ring of buckets. A span that ends now begins in some bucket, and each bucket knows
//! the dearest place to begin in it. So the check is exact, but that the oldest bucket is forgotten as a
//! whole, up to a tenth of the window late.

use std::time::Duration;

/// Buckets per window; with the usual window of 10 s, one per second.
const BUCKETS_PER_WINDOW: u32 = 10;

/// One more than a window holds, because a window that ends inside a bucket also begins inside one.
const RING: u64 = BUCKETS_PER_WINDOW as u64 + 1;

/// What one retry costs; a request pays `ratio` of it. Whole numbers, so that sums are exact.
const RETRY_COST: i64 = 1_000_000;

/// The retry budget of one peer. Not shared: one peer's failures must not use up another's retries.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    request_credit: i64,
    allowance: i64,
    bucket_nanos: u128,
    newest: u64,
    ring: [Bucket; RING as usize],
}

/// Costs in one tenth of the window.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    tick: u64,
    /// Retries minus credits of everything in the bucket.
    net: i64,
    /// The largest `net` of any tail of the bucket, at least zero (the empty tail).
    dearest_tail: i64,
}

impl RetryBudget {
    /// A budget of `ratio` retries per request (0.2) plus `floor_per_second` (3.0) over each `window` (10 s).
    ///
    /// Ratio and floor are kept to a millionth; negative ones count as zero, a ratio above 1 as 1.
    pub fn new(ratio: f64, floor_per_second: f64, window: Duration) -> Self {
        let cost = RETRY_COST as f64;
        let floor = (floor_per_second * window.as_secs_f64()).max(0.0);
        Self {
            request_credit: (ratio.clamp(0.0, 1.0) * cost).round() as i64,
            // Half of what the type holds leaves room for every sum below.
            allowance: ((floor * cost).round() as i64).min(i64::MAX / 2),
            bucket_nanos: (window / BUCKETS_PER_WINDOW).as_nanos().max(1),
            newest: 0,
            ring: [Bucket::default(); RING as usize],
        }
    }

    /// Counts a first attempt, which earns a share of a retry. `now` is monotonic since any fixed origin; one
    /// that lags behind counts as the newest.
    pub fn record_request(&mut self, now: Duration) {
        let credit = self.request_credit;
        self.charge(now, -credit);
    }

    /// Whether one more retry fits the budget; if so it is counted at once. `now` as in
    /// [`Self::record_request`].
    pub fn try_retry(&mut self, now: Duration) -> bool {
        self.newest = self.tick(now);
        let fits = self.dearest_span().saturating_add(RETRY_COST) <= self.allowance;
        if fits {
            self.charge(now, RETRY_COST);
        }
        fits
    }

    fn tick(&self, now: Duration) -> u64 {
        let tick = now.as_nanos() / self.bucket_nanos;
        u64::try_from(tick).unwrap_or(u64::MAX).max(self.newest)
    }

    fn charge(&mut self, now: Duration, cost: i64) {
        let tick = self.tick(now);
        self.newest = tick;
        let bucket = &mut self.ring[(tick % RING) as usize];
        if bucket.tick != tick {
            *bucket = Bucket { tick, ..Bucket::default() };
        }
        bucket.net = bucket.net.saturating_add(cost);
        bucket.dearest_tail = bucket.dearest_tail.saturating_add(cost).max(0);
    }

    /// The largest balance of any span that ends now and is no longer than the ring, at least zero.
    fn dearest_span(&self) -> i64 {
        let mut dearest = 0;
        let mut since = 0i64;
        for age in 0..RING.min(self.newest.saturating_add(1)) {
            let tick = self.newest - age;
            let bucket = self.ring[(tick % RING) as usize];
            if bucket.tick == tick {
                dearest = since.saturating_add(bucket.dearest_tail).max(dearest);
                since = since.saturating_add(bucket.net);
            }
        }
        dearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn budget() -> RetryBudget {
        RetryBudget::new(0.2, 3.0, WINDOW)
    }

    fn granted(budget: &mut RetryBudget, asked: usize, now: Duration) -> usize {
        (0..asked).filter(|_| budget.try_retry(now)).count()
    }

    #[test]
    fn a_quiet_peer_may_be_retried_up_to_the_floor() {
        let mut budget = budget();
        assert_eq!(granted(&mut budget, 100, Duration::from_secs(1)), 30);
        assert_eq!(granted(&mut budget, 100, Duration::ZERO), 0, "a clock read late hides nothing");
        assert_eq!(granted(&mut budget, 100, Duration::from_secs(11)), 0);
        assert_eq!(granted(&mut budget, 100, Duration::from_secs(12)), 30);
    }

    #[test]
    fn a_steady_share_of_failures_is_retried_in_full() {
        let mut budget = budget();
        for millis in (0..60_000u64).step_by(10) {
            let now = Duration::from_millis(millis);
            budget.record_request(now);
            if millis % 50 == 0 {
                assert!(budget.try_retry(now), "refused at {millis} ms");
            }
        }
    }

    #[test]
    fn a_peer_that_fails_every_request_gets_a_fifth_more_load_not_twice() {
        //
        let mut budget = budget();
        let mut retries = 0;
        for millis in (0..60_000u64).step_by(10) {
            let now = Duration::from_millis(millis);
            budget.record_request(now);
            retries += granted(&mut budget, 1, now);
        }
        assert!((1_200..=1_200 + 6 * 30).contains(&retries), "{retries}");
    }

    #[test]
    fn credit_does_not_pile_up_for_a_burst_long_after_the_requests() {
        let mut budget = budget();
        (0..10_000).for_each(|_| budget.record_request(Duration::ZERO));
        assert_eq!(granted(&mut budget, 10_000, Duration::from_secs(9)), 30);
    }

    #[test]
    fn extreme_arguments_neither_panic_nor_grant_without_end() {
        let mut none = RetryBudget::new(-1.0, f64::NAN, Duration::ZERO);
        none.record_request(Duration::MAX);
        assert!(!none.try_retry(Duration::MAX));
        assert!(!none.try_retry(Duration::ZERO));
        let mut all = RetryBudget::new(f64::INFINITY, f64::INFINITY, Duration::MAX);
        all.record_request(Duration::MAX);
        assert!(all.try_retry(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn no_window_anywhere_holds_more_retries_than_its_requests_allow(
            steps in prop::collection::vec((0..900u64, 0..12usize, 0..12usize), 1..120),
        ) {
            let mut budget = budget();
            let mut now = Duration::ZERO;
            let mut history = Vec::new();
            for (wait_ms, requests, retries) in steps {
                now += Duration::from_millis(wait_ms);
                for _ in 0..requests {
                    budget.record_request(now);
                    history.push((now, 1i64));
                }
                let granted = granted(&mut budget, retries, now);
                history.extend(vec![(now, -5i64); granted]);
            }
            // In fifths of a retry. The dearest windows begin at an event and end at another one.
            for (first, &(begin, _)) in history.iter().enumerate() {
                let mut balance = 30 * 5;
                for &(at, credit) in history[first..].iter().take_while(|(at, _)| *at <= begin + WINDOW) {
                    balance += credit;
                    prop_assert!(balance >= 0, "window from {begin:?} is overdrawn at {at:?}");
                }
            }
        }
    }
}
