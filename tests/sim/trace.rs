//! What happened, as one hash and, when asked for, as text; and chance, from the seed alone.

use std::fmt::Arguments;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway::entropy::Entropy;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// The story of one seed. What happens at one instant has no order: tokio wakes those who watch one thing in
/// an order of its own.
pub(crate) struct Trace {
    hash: Mutex<u128>,
    lines: Mutex<Vec<String>>,
    begun: Instant,
    verbose: bool,
}

impl Trace {
    /// Nothing has happened yet.
    pub(crate) fn new(verbose: bool) -> Arc<Self> {
        let (hash, lines) = (Mutex::default(), Mutex::default());
        Arc::new(Trace { hash, lines, begun: Instant::now(), verbose })
    }

    /// One thing happened.
    pub(crate) fn say(&self, what: Arguments<'_>) {
        let line = format!("{:>9.3} {what}", self.begun.elapsed().as_secs_f64());
        let digest: [u8; 32] = Sha256::digest(line.as_bytes()).into();
        let (half, _) = digest.split_at(16);
        let value = half.iter().fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
        let mut hash = lock(&self.hash);
        *hash = hash.wrapping_add(value);
        if self.verbose {
            lock(&self.lines).push(line);
        }
    }

    /// Stands for all of it.
    pub(crate) fn hash(&self) -> String {
        format!("{:032x}", *lock(&self.hash))
    }

    /// All of it, when it is kept.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = lock(&self.lines).clone();
        lines.sort();
        lines
    }
}

/// A source of decisions.
#[derive(Clone)]
pub(crate) struct Dice(Entropy);

impl Dice {
    /// The decisions of one part of one seed.
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        Dice(Entropy::seeded(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(part)))
    }

    /// True this often.
    pub(crate) fn chance(&self, probability: f64) -> bool {
        self.0.fraction() < probability
    }

    /// A number from `from` to below `to`.
    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        from + (self.0.fraction() * (to.saturating_sub(from)) as f64) as u64
    }

    /// A time up to this.
    pub(crate) fn up_to(&self, most: Duration) -> Duration {
        most.mul_f64(self.0.fraction())
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.between(0, of.len() as u64) as usize]
    }
}

/// A mutex that a panic elsewhere does not close.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
