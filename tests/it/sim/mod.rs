//! A simulation: many rooms and clients, guests that fail, rooms that close, start again or undo
//! what failed, a transport that refuses and recovers, a clock that jumps, budgets of all sizes;
//! everything that happens is checked against a model.
//!
//! The model knows nothing of slices, turns and queues. It knows which events were taken, and what
//! a guest says to each; since the guest says at which `now` it was called and what it remembers,
//! the model can tell whether timers fired and guests started when they were to, and whether
//! nothing is left of what was undone.
//!
//! Each run has a seed, which is printed when it fails; `TEST_SEED=n` runs that one alone, and
//! `TEST_SEEDS=n` runs so many.

mod backoff;
mod coverage;
mod faulty_transport;
mod guest;
mod model;
mod reference_guest;
mod rng_oracle;
mod run;

use self::{coverage::Happened, run::Sim};
use crate::support::Random;

/// Runs, if not told otherwise.
const SEEDS: u64 = 450;
const STEPS: usize = 300;

#[test]
fn what_happens_is_what_the_model_says() {
    let modules = [20, 100, 1_000, u64::MAX].map(guest::module);
    let seeds = match Random::given_seed() {
        Some(seed) => seed..=seed,
        None => {
            1..=std::env::var("TEST_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number"))
        }
    };
    let mut all = Happened::default();
    for seed in seeds.clone() {
        let _shown = ShownOnPanic(seed);
        let mut sim = Sim::new(seed, &modules);
        for _ in 0..STEPS {
            sim.step();
        }
        all.add(sim.end());
    }
    // Else it would say nothing.
    let seldom = all.seldom(10);
    assert!(
        seeds.count() == 1 || seldom.is_empty(),
        "{seldom:?} of {all:?}"
    );
}

/// Tells the seed of the run that failed.
struct ShownOnPanic(u64);

impl Drop for ShownOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("TEST_SEED={} fails", self.0);
        }
    }
}
