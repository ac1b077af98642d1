//! Randomised simulation of a cluster: nodes that own shards, gateways and clients that count, a log and a
//! directory that answer late, not at all, or with what was true before; partitions, processes that are
//! stopped and killed, clocks that jump, nodes that are drained or have much to do and give shards away, shards of
//! which NATS takes nothing.
//!
//! What rooms do in a turn is a batch, which may be too much for a record, and then is in several; and batches that
//! wait share one. An owner reads no more of a log than the owner before has said to be needed, and deletes what is
//! before that.
//!
//! A room counts its messages, and replies to each with the count. So what clients see tells whether a
//! message was lost or counted twice, and whether two owners were seen: then a count would be seen for two
//! messages.
//!
//! In one of the tests some rooms end their owners' processes: by a message, or when they are restored. Then they
//! are in quarantine in the end, and no other room is that was restored in peace.
//!
//! Each run has a seed, which is printed when it fails; `TEST_SEED=n` runs only that seed, and
//! `TEST_SEEDS=n` runs the first n.

mod client;
mod nats;
mod node;
mod poison;
mod random;
mod world;

use self::{random::Random, world::World};
use std::collections::BTreeMap;

/// Number of runs without `TEST_SEEDS`.
const SEEDS: u64 = 300;

#[test]
fn no_message_is_lost_or_counted_twice() {
    run(19, |random| World::new(random, false));
}

#[test]
fn rooms_that_end_their_owners_are_put_in_quarantine_and_no_others() {
    run(23, |random| World::new(random, true));
}

/// Runs all seeds, which must come to at least so many points.
fn run(points: usize, world: impl Fn(Random) -> World) {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    let seeds = match number("TEST_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("TEST_SEEDS").unwrap_or(SEEDS),
    };
    let mut coverage = BTreeMap::new();
    for seed in seeds.clone() {
        let _shown = ShownOnPanic(seed);
        for (point, count) in world(Random::new(seed)).run() {
            *coverage.entry(point).or_insert(0) += count;
        }
    }
    // Guards against a simulation that no longer reaches what it is to test.
    let rare: Vec<_> = coverage.iter().filter(|(_, count)| **count < 10).collect();
    assert!(
        seeds.count() == 1 || rare.is_empty() && coverage.len() >= points,
        "{rare:?} of {coverage:?}"
    );
    println!("{coverage:?}");
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
