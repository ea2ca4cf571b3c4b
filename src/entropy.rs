//! Chance as a value: the one place that draws random numbers and mints ids.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use uuid::{Builder, Uuid};

/// A source of randomness, cheap to clone. Seeded ones repeat exactly.
#[derive(Clone, Debug)]
pub struct Entropy {
    source: Arc<Mutex<StdRng>>,
}

impl Entropy {
    /// Seeded by the operating system.
    #[expect(clippy::disallowed_methods, reason = "the one place that draws from the system")]
    pub fn from_os() -> Self {
        Self::wrap(StdRng::from_rng(&mut rand::rng()))
    }

    /// The same draws for the same seed (tests and simulation).
    pub fn seeded(seed: u64) -> Self {
        Self::wrap(StdRng::seed_from_u64(seed))
    }

    fn wrap(source: StdRng) -> Self {
        Entropy { source: Arc::new(Mutex::new(source)) }
    }

    /// A number in `[0, 1)`.
    pub fn fraction(&self) -> f64 {
        self.with(|source| source.random::<f64>())
    }

    /// Fills a buffer.
    pub fn fill(&self, buffer: &mut [u8]) {
        self.with(|source| source.fill_bytes(buffer));
    }

    /// Mints an id `<prefix>_<32 hex digits>`: a UUID version 7, so ids of one prefix sort by time.
    pub fn id(&self, prefix: &str, now_ms: i64) -> String {
        let mut random = [0_u8; 10];
        self.fill(&mut random);
        let millis = u64::try_from(now_ms).unwrap_or(0);
        let uuid = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        let digits = &mut Uuid::encode_buffer();
        [prefix, "_", uuid.simple().encode_lower(digits)].concat()
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.source.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_repeats_its_draws() {
        let (left, right) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!(left.id("run", 5), right.id("run", 5));
        assert!((0.0..1.0).contains(&left.fraction()));
    }

    #[test]
    fn ids_sort_by_time() {
        let entropy = Entropy::from_os();
        assert!(entropy.id("evt", 1_000) < entropy.id("evt", 2_000));
    }
}
