//! The random numbers of a guest.

use alloc::boxed::Box;
use chacha20::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A seeded generator. It is made when it is first asked, since most guests never do and it is
/// larger than all else that is kept for them.
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

    /// A generator that goes on as this one will.
    #[cfg(feature = "rollback")]
    pub(super) fn fork(&self) -> Self {
        let generator = self.generator.as_ref().map(|drawn_from| {
            let mut generator = generator(self.seed);
            generator.set_word_pos(drawn_from.get_word_pos());
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
