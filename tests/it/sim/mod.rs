//! Randomised simulation of a host: many rooms and clients, guests that fail, rooms that close,
//! restart, continue or roll back, a transport that refuses and recovers, a clock that jumps, budgets of all
//! sizes. Every output and state is checked against a model.
//!
//! The model knows nothing of slices, turns and queues. It knows which events were accepted and
//! which outputs each produces. The guest's outputs contain the `now` of the call and a digest of
//! its state, so the model can check when timers fired and guests restarted, and that a rollback
//! leaves no trace.
//!
//! Each run has a seed, which is printed when it fails; `TEST_SEED=n` runs only that seed, and
//! `TEST_SEEDS=n` runs the first n.

mod backoff;
mod coverage;
mod faulty_transport;
mod guest;
mod model;
mod reference_guest;
mod rng_oracle;
mod run;

use self::{coverage::Coverage, run::Sim};
use crate::support::Random;
use stateroom_wasmi_host::PayloadBuffer;

/// Number of runs without `TEST_SEEDS`.
const SEEDS: u64 = 600;
const STEPS: usize = 300;

#[test]
fn a_host_behaves_as_the_model() {
    let modules = [20, 100, 1_000, u64::MAX].map(|slice| {
        [PayloadBuffer::PerEvent, PayloadBuffer::Keep]
            .map(|payload_buffer| guest::module(slice, payload_buffer))
    });
    let modules = modules.concat();
    let seeds = match Random::given_seed() {
        Some(seed) => seed..=seed,
        None => {
            1..=std::env::var("TEST_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number"))
        }
    };
    let mut all = Coverage::default();
    for seed in seeds.clone() {
        let _shown = ShownOnPanic(seed);
        let mut sim = Sim::new(seed, &modules);
        for _ in 0..STEPS {
            sim.step();
        }
        all.add(sim.end());
    }
    // Guards against a simulation that no longer reaches what it is to test.
    let rarely_hit = all.rarely_hit(10);
    assert!(
        seeds.count() == 1 || rarely_hit.is_empty(),
        "{rarely_hit:?} of {all:?}"
    );
}

/// Prints the seed of a failing run.
struct ShownOnPanic(u64);

impl Drop for ShownOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("TEST_SEED={} fails", self.0);
        }
    }
}
