//! The random number generator of a guest.

use alloc::boxed::Box;
use chacha20::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A seeded generator, created on first use: most guests never use it, and it is larger than the
/// rest of their state.
pub(super) struct Random {
    seed: u64,
    generator: Option<Box<ChaCha8Rng>>,
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

    /// A copy that returns the same numbers from here on.
    #[cfg(feature = "rollback")]
    pub(super) fn fork(&self) -> Self {
        let generator = self.generator.as_ref().map(|original| {
            let mut generator = generator(self.seed);
            generator.set_word_pos(original.get_word_pos());
            generator
        });
        Self {
            seed: self.seed,
            generator,
        }
    }
}

fn generator(seed: u64) -> Box<ChaCha8Rng> {
    Box::new(ChaCha8Rng::seed_from_u64(seed))
}
