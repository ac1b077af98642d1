//! The random number generator of a guest.

use alloc::boxed::Box;
use chacha20::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A seeded generator, created on first use: most guests never use it, and it is larger than the
/// rest of their state.
pub(super) struct Random {
    pub(super) seed: u64,
    pub(super) generator: Option<Box<ChaCha8Rng>>,
}

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            seed,
            generator: None,
        }
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        self.generator
            .get_or_insert_with(|| generator(self.seed))
            .fill_bytes(bytes);
    }
}

pub(super) fn generator(seed: u64) -> Box<ChaCha8Rng> {
    Box::new(ChaCha8Rng::seed_from_u64(seed))
}
