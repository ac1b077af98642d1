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

    /// How many words were taken from the generator; none if it was never used. A word is four bytes,
    /// of which each costs fuel, so 64 bits are enough to count them.
    #[cfg(feature = "snapshot")]
    pub(super) fn words_taken(&self) -> Option<u64> {
        let generator = self.generator.as_ref()?;
        Some(generator.get_word_pos() as u64)
    }

    /// The generator of this seed after so many words.
    #[cfg(feature = "snapshot")]
    pub(super) fn at(seed: u64, words_taken: Option<u64>) -> Self {
        let generator = words_taken.map(|words| {
            let mut generator = generator(seed);
            generator.set_word_pos(words.into());
            generator
        });
        Self { seed, generator }
    }
}

fn generator(seed: u64) -> Box<ChaCha8Rng> {
    Box::new(ChaCha8Rng::seed_from_u64(seed))
}
