//! The circuit breaker of one peer: whether a call may be made now, learnt from how the last ones ended.
//!
//! Invariants: while open nothing passes; afterwards exactly one probe is out at a time, and a probe that
//! never reports gives its place back; what was sent before a change of state has no say after it.

use std::time::Duration;

use super::backoff::{doubled, scaled};

/// Buckets of the sliding window; it covers the current tenth of itself and the nine before.
const BUCKETS: u64 = 10;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerOptions {
    /// Failures in a row that open it. Default 5.
    pub consecutive_failures: u32,
    /// Share of failed calls in the window that opens it, 0 to 1. Default 0.5.
    pub failure_ratio: f64,
    /// Calls the window must hold before the share counts. Default 20.
    pub minimum_calls: u32,
    /// Length of the window. Default 10 s.
    pub window: Duration,
    /// How long it stays open the first time; each failed probe doubles it. Default 5 s.
    pub open_base: Duration,
    /// Where doubling ends, before jitter. Default 60 s.
    pub open_cap: Duration,
    /// Share, 0 to 1, by which each open time is spread to both sides, so that gateways which lost a peer
    /// together do not probe it together. Default 0.2 (±20 %).
    pub jitter: f64,
    /// A probe that has not reported after this long is taken for lost, and another may go. Default 20 s.
    pub probe_timeout: Duration,
}

/// The breaker itself; one owner, who calls [`Breaker::try_acquire`] before and [`Breaker::record`] after
/// each call. `now` is monotonic since any fixed origin; `chance` is uniform in `[0, 1)`.
#[derive(Debug, Clone)]
pub struct Breaker {
    options: BreakerOptions,
    phase: Phase,
    /// Raised when it opens and with every probe, which makes earlier permits stale.
    epoch: u64,
    /// Times it opened since it was last closed.
    trips: u32,
    window: [Bucket; BUCKETS as usize],
}

/// Leave to make one call. Dropping it unreported is allowed.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a call made under a permit must be recorded, or the breaker learns nothing"]
pub struct Permit {
    /// What the call is for.
    pub kind: PermitKind,
    epoch: u64,
}

/// What a permit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermitKind {
    /// The breaker is closed: an ordinary call.
    Normal,
    /// The breaker is half-open: this call alone decides whether it closes.
    Probe,
}

/// How a call ended, as far as the peer's health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The peer answered, be it with a 4xx or 429.
    Success,
    /// Transport error, timeout or 5xx.
    Failure,
    /// Says nothing about the peer: cancelled, or never sent for reasons of our own.
    Ignored,
}

/// What an operator sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Nothing passes.
    Open {
        /// When it becomes half-open, on the clock of `now`.
        until: Duration,
    },
    /// One probe is out, or the next call will be one.
    HalfOpen,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed { failures_in_a_row: u32 },
    Open { until: Duration },
    Probing { expires: Duration },
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    tick: u64,
    calls: u32,
    failures: u32,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_ratio: 0.5,
            minimum_calls: 20,
            window: Duration::from_secs(10),
            open_base: Duration::from_secs(5),
            open_cap: Duration::from_secs(60),
            jitter: 0.2,
            probe_timeout: Duration::from_secs(20),
        }
    }
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    pub fn new(options: BreakerOptions) -> Self {
        let phase = Phase::Closed { failures_in_a_row: 0 };
        Self { options, phase, epoch: 0, trips: 0, window: Default::default() }
    }

    /// Leave to call now, or how long to wait before asking again: as long as it stays open, or while a probe
    /// is out, which mostly ends long before it is taken for lost, as long as it opens the first time. Spread
    /// beyond that by up to the jitter, so that waiting callers do not return together.
    pub fn try_acquire(&mut self, now: Duration, chance: f64) -> Result<Permit, Duration> {
        let busy_until = match self.phase {
            Phase::Closed { .. } => return Ok(Permit { kind: PermitKind::Normal, epoch: self.epoch }),
            Phase::Open { until } => until,
            Phase::Probing { expires } => expires,
        };
        if now < busy_until {
            let wait = match self.phase {
                Phase::Probing { .. } => self.options.open_base.min(busy_until - now),
                _ => busy_until - now,
            };
            return Err(scaled(wait, 1.0 + self.options.jitter * chance));
        }
        self.epoch += 1;
        self.phase = Phase::Probing { expires: now.saturating_add(self.options.probe_timeout) };
        Ok(Permit { kind: PermitKind::Probe, epoch: self.epoch })
    }

    /// Takes in how the call under `permit` ended. A permit from before the last change of state, or a probe
    /// that has been replaced, is ignored. Only a failure opens; only a probe's success closes.
    pub fn record(&mut self, permit: Permit, outcome: Outcome, now: Duration, chance: f64) {
        if permit.epoch != self.epoch {
            return;
        }
        match (self.phase, outcome) {
            (Phase::Closed { .. }, Outcome::Ignored) | (Phase::Open { .. }, _) => {}
            (Phase::Closed { .. }, Outcome::Success) => {
                self.count(now, 0);
                self.phase = Phase::Closed { failures_in_a_row: 0 };
            }
            (Phase::Closed { failures_in_a_row }, Outcome::Failure) => {
                self.count(now, 1);
                let failures_in_a_row = failures_in_a_row.saturating_add(1);
                self.phase = Phase::Closed { failures_in_a_row };
                if failures_in_a_row >= self.options.consecutive_failures || self.window_is_bad(now) {
                    self.open(now, chance);
                }
            }
            (Phase::Probing { .. }, Outcome::Success) => self.close(),
            (Phase::Probing { .. }, Outcome::Failure) => self.open(now, chance),
            // The place is free at once: the next call is the probe.
            (Phase::Probing { .. }, Outcome::Ignored) => self.phase = Phase::Open { until: now },
        }
    }

    /// The state at `now`.
    pub fn state(&self, now: Duration) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open { until },
            Phase::Open { .. } | Phase::Probing { .. } => BreakerState::HalfOpen,
        }
    }

    fn open(&mut self, now: Duration, chance: f64) {
        let length = doubled(self.options.open_base, self.options.open_cap, self.trips);
        let spread = self.options.jitter * (2.0 * chance - 1.0);
        self.phase = Phase::Open { until: now.saturating_add(scaled(length, 1.0 + spread)) };
        self.trips = self.trips.saturating_add(1);
        self.epoch += 1;
    }

    fn close(&mut self) {
        self.phase = Phase::Closed { failures_in_a_row: 0 };
        self.trips = 0;
        self.window = Default::default();
    }

    fn tick(&self, now: Duration) -> u64 {
        let bucket_nanos = (self.options.window.as_nanos() / u128::from(BUCKETS)).max(1);
        u64::try_from(now.as_nanos() / bucket_nanos).unwrap_or(u64::MAX)
    }

    fn count(&mut self, now: Duration, failures: u32) {
        let tick = self.tick(now);
        let bucket = &mut self.window[(tick % BUCKETS) as usize];
        if bucket.tick != tick {
            *bucket = Bucket { tick, ..Bucket::default() };
        }
        bucket.calls = bucket.calls.saturating_add(1);
        bucket.failures = bucket.failures.saturating_add(failures);
    }

    fn window_is_bad(&self, now: Duration) -> bool {
        let now = self.tick(now);
        let recent = self.window.iter().filter(|bucket| now.saturating_sub(bucket.tick) < BUCKETS);
        let calls: f64 = recent.clone().map(|bucket| f64::from(bucket.calls)).sum();
        let failures: f64 = recent.map(|bucket| f64::from(bucket.failures)).sum();
        calls >= f64::from(self.options.minimum_calls) && failures >= self.options.failure_ratio * calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIDDLE: f64 = 0.5;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn call(breaker: &mut Breaker, outcome: Outcome, now: Duration) {
        let permit = breaker.try_acquire(now, MIDDLE).expect("the breaker lets calls through");
        breaker.record(permit, outcome, now, MIDDLE);
    }

    fn opened_at(now: Duration) -> Breaker {
        let mut breaker = Breaker::new(BreakerOptions::default());
        (0..5).for_each(|_| call(&mut breaker, Outcome::Failure, now));
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_for_five_seconds() {
        //
        let mut breaker = opened_at(at(1));
        assert_eq!(breaker.state(at(1)), BreakerState::Open { until: at(6) });
        assert_eq!(breaker.try_acquire(at(2), 0.0), Err(at(4)));
        assert_eq!(breaker.try_acquire(at(2), 0.5), Err(Duration::from_millis(4_400)));
        assert_eq!(breaker.state(at(6)), BreakerState::HalfOpen);
    }

    #[test]
    fn half_of_twenty_calls_failing_within_the_window_opens_it() {
        let mut breaker = Breaker::new(BreakerOptions::default());
        for call_number in 0..19 {
            let outcome = if call_number % 2 == 0 { Outcome::Success } else { Outcome::Failure };
            call(&mut breaker, outcome, at(5 + call_number / 4));
        }
        let mut later = breaker.clone();
        call(&mut breaker, Outcome::Failure, at(9));
        assert_eq!(breaker.state(at(9)), BreakerState::Open { until: at(14) });
        call(&mut later, Outcome::Failure, at(15));
        assert_eq!(later.state(at(15)), BreakerState::Closed, "the first calls have left the window");
        call(&mut breaker, Outcome::Success, at(14));
        call(&mut breaker, Outcome::Failure, at(14));
        assert_eq!(breaker.state(at(14)), BreakerState::Closed, "the probe made a fresh start");
    }

    #[test]
    fn a_lost_probe_gives_its_place_back_and_has_no_say_afterwards() {
        let mut breaker = opened_at(at(0));
        let lost = breaker.try_acquire(at(5), MIDDLE).expect("half-open lets one through");
        assert_eq!(lost.kind, PermitKind::Probe);
        assert_eq!(
            breaker.try_acquire(at(5), 0.0),
            Err(at(5)),
            "a probe mostly ends before it is taken for lost"
        );
        assert_eq!(breaker.try_acquire(at(24), 0.0), Err(at(1)));
        let second = breaker.try_acquire(at(25), MIDDLE).expect("the place expired");
        breaker.record(lost, Outcome::Failure, at(26), MIDDLE);
        assert_eq!(breaker.state(at(26)), BreakerState::HalfOpen);
        breaker.record(second, Outcome::Success, at(27), MIDDLE);
        assert_eq!(breaker.state(at(27)), BreakerState::Closed);
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_and_a_success_resets_it() {
        let mut breaker = opened_at(at(0));
        let mut now = at(5);
        for expected in [10, 20, 40, 60, 60] {
            call(&mut breaker, Outcome::Failure, now);
            assert_eq!(breaker.state(now), BreakerState::Open { until: now + at(expected) });
            now += at(expected);
        }
        call(&mut breaker, Outcome::Ignored, now);
        call(&mut breaker, Outcome::Success, now);
        (0..5).for_each(|_| call(&mut breaker, Outcome::Failure, now));
        assert_eq!(breaker.state(now), BreakerState::Open { until: now + at(5) });
    }

    #[test]
    fn calls_sent_before_it_opened_neither_close_nor_prolong_it() {
        let mut breaker = Breaker::new(BreakerOptions::default());
        let early: Vec<_> = (0..7).filter_map(|_| breaker.try_acquire(at(0), MIDDLE).ok()).collect();
        for (permit, now) in early.into_iter().zip([0, 0, 0, 0, 0, 3, 5]) {
            breaker.record(permit, Outcome::Failure, at(now), MIDDLE);
            assert!(now == 0 || breaker.state(at(4)) == BreakerState::Open { until: at(5) });
        }
    }

    proptest! {
        #[test]
        fn it_decides_as_a_model_that_keeps_the_whole_history(
            steps in prop::collection::vec(
                (0..4u8, prop_oneof![9 => 0..2_500u64, 1 => 0..40_000u64], 0..10usize, 0.0..1.0f64),
                1..400,
            ),
        ) {
            let mut breaker = Breaker::new(BreakerOptions::default());
            // Calls ended since it closed; when it may be probed again, unless closed; permits not reported.
            let (mut history, mut gate, mut out) = (Vec::<(u64, bool)>::new(), None::<Duration>, Vec::new());
            let (mut trips, mut era, mut now, mut probing) = (0u32, 0u32, Duration::ZERO, false);
            for (step, wait_ms, pick, chance) in steps {
                now += Duration::from_millis(wait_ms / 20);
                if step == 0 || out.is_empty() {
                    now += Duration::from_millis(wait_ms);
                    let got = breaker.try_acquire(now, chance);
                    if let Some(gate) = gate.filter(|gate| now < *gate) {
                        // Who is turned away by a probe asks again before long: its end lets all through.
                        let soonest = if probing { gate.min(now + at(5)) } else { gate };
                        let latest = now + (soonest - now).mul_f64(1.2);
                        prop_assert!(got.is_err_and(|wait| (soonest..=latest).contains(&(now + wait))));
                        continue;
                    }
                    if gate.is_some() {
                        (gate, era, probing) = (Some(now + at(20)), era + 1, true);
                    }
                    out.push((got.expect("the model lets it through"), gate.is_some(), era));
                    continue;
                }
                let (permit, probe, sent_in) = out.swap_remove(pick % out.len());
                prop_assert_eq!(permit.kind == PermitKind::Probe, probe);
                let outcome = [Outcome::Success, Outcome::Failure, Outcome::Ignored][usize::from(step) - 1];
                breaker.record(permit, outcome, now, chance);
                if sent_in != era {
                    continue;
                }
                if outcome == Outcome::Ignored {
                    (gate, probing) = (gate.map(|_| now), false);
                    continue;
                }
                let failed = outcome == Outcome::Failure;
                history.push((now.as_secs(), failed));
                let in_a_row = history.iter().rev().take_while(|(_, failed)| *failed).count();
                let recent: Vec<_> = history.iter().filter(|(s, _)| s + 10 > now.as_secs()).collect();
                let bad = recent.iter().filter(|(_, failed)| *failed).count();
                if failed && (probe || in_a_row >= 5 || (recent.len() >= 20 && bad * 2 >= recent.len())) {
                    let length = 5.0 * 2f64.powi(trips as i32).min(12.0) * (0.8 + 0.4 * chance);
                    let until = now + Duration::from_secs_f64(length);
                    (gate, trips, era, probing) = (Some(until), trips + 1, era + 1, false);
                    prop_assert_eq!(breaker.state(now), BreakerState::Open { until });
                } else if probe {
                    history.clear();
                    (gate, trips, era, probing) = (None, 0, era + 1, false);
                    prop_assert_eq!(breaker.state(now), BreakerState::Closed);
                }
            }
        }
    }
}
