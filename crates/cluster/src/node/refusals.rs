//! Whether NATS refuses what it should not.

use crate::shard::Shard;
use core::time::Duration;
use std::collections::BTreeMap;

/// Writes that were refused for no reason. `now` is a time since any fixed moment.
#[derive(Default)]
pub(super) struct Refusals {
    /// How many of each shard since the last that was not, and since when.
    shards: BTreeMap<Shard, (u32, Duration)>,
    /// When another server was asked to lead, and how long not again.
    asked: Option<(Duration, Duration)>,
}

impl Refusals {
    /// One of this shard; returns whether there have been so many that the leader should be another one.
    pub(super) fn count(&mut self, shard: Shard, now: Duration) -> bool {
        const COUNT: u32 = 10;
        const TIME: Duration = Duration::from_secs(5);
        const MAX_PAUSE: Duration = Duration::from_secs(300);
        let (count, since) = self.shards.entry(shard).or_insert((0, now));
        *count += 1;
        if *count < COUNT || now < *since + TIME {
            return false;
        }
        let pause = match self.asked {
            Some((at, pause)) if now < at + pause => return false,
            // It did not help for long, and each time all wait for the next leader.
            Some((at, pause)) if now < at + 4 * pause => MAX_PAUSE.min(2 * pause),
            _ => TIME,
        };
        self.asked = Some((now, pause));
        self.shards.clear();
        true
    }

    /// A write of a shard was not refused.
    pub(super) fn succeeded(&mut self, shard: Shard) {
        self.shards.remove(&shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When, in seconds, another leader is asked for, of an hour of refusals.
    fn asked(refusals: &mut Refusals, succeeds: impl Fn(u64) -> bool) -> Vec<u64> {
        (0..36_000)
            .filter(|tenths| {
                if succeeds(*tenths) {
                    refusals.succeeded(Shard(1));
                }
                refusals.count(Shard(1), Duration::from_millis(100 * tenths))
            })
            .map(|tenths| tenths / 10)
            .collect()
    }

    #[test]
    fn another_leader_is_asked_for_less_and_less_often() {
        let asked = asked(&mut Refusals::default(), |_| false);
        assert_eq!(asked[..4], [5, 10, 20, 40]);
        let last: Vec<_> = asked.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(last.is_sorted());
        assert_eq!(last.last(), Some(&300));
    }

    #[test]
    fn none_is_asked_for_where_writes_succeed() {
        // Each four seconds.
        let asked = asked(&mut Refusals::default(), |tenths| tenths % 40 == 0);
        assert!(asked.is_empty(), "{asked:?}");
    }

    #[test]
    fn what_is_refused_of_one_shard_counts_whatever_is_of_others() {
        let mut refusals = Refusals::default();
        let mut is_asked = false;
        for tenths in 0..100 {
            refusals.succeeded(Shard(2));
            is_asked |= refusals.count(Shard(1), Duration::from_millis(100 * tenths));
        }
        assert!(is_asked);
    }
}
