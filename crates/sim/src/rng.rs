//! Seeded randomness: the only source of chance in a simulation.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// A stream of random numbers that depends on nothing but its seed.
#[derive(Clone, Debug)]
pub struct SimRng(ChaCha8Rng);

impl SimRng {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A stream of its own for one part of a simulation, so that a part which
    /// draws more numbers does not change what the others draw.
    #[must_use]
    pub fn of(seed: u64, part: &str) -> Self {
        let salt = part.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::new(seed ^ salt)
    }

    /// The same for one of several alike parts.
    #[must_use]
    pub fn nth(seed: u64, part: &str, nth: usize) -> Self {
        Self::of(seed ^ (nth as u64 + 1) << 32, part)
    }

    /// A number from `range`.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// True `percent` times in a hundred.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent.min(100), 100)
    }

    /// True `parts` times in a million.
    pub fn per_million(&mut self, parts: u32) -> bool {
        parts > 0 && self.0.random_ratio(parts.min(1_000_000), 1_000_000)
    }

    /// Any 64 bits: a seed for a part.
    pub fn bits(&mut self) -> u64 {
        self.0.random()
    }
}
