//! How long to wait before a request is made again that has failed, and which of the failures are told.

use core::time::Duration;

/// Of the requests for one shard.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
    /// How many it had been when that was told last.
    told: u32,
    /// How many were refused, and since when.
    refused: Option<(u32, Duration)>,
}

impl Retry {
    /// Time until the next request if this one fails: longer and longer, since those of all shards keep NATS from
    /// what it has to do before it can answer.
    pub(crate) fn pause(&self) -> Duration {
        const FIRST: Duration = Duration::from_millis(20);
        const DOUBLINGS: u32 = 4;
        FIRST * (1 << self.failures.min(DOUBLINGS))
    }

    /// The same where a replica is late, which most are by some milliseconds.
    pub(crate) fn pause_for_replica(&self) -> Duration {
        const FIRST: Duration = Duration::from_millis(1);
        const DOUBLINGS: u32 = 8;
        FIRST * (1 << self.failures.min(DOUBLINGS))
    }

    /// Requests have failed for long, or for long again: an operator should know.
    pub(crate) fn is_told(&mut self) -> bool {
        const FIRST: u32 = 5;
        const INTERVAL: u32 = 100;
        let next = match self.told {
            0 => FIRST,
            told => told.saturating_add(INTERVAL),
        };
        let is_told = self.failures >= next;
        if is_told {
            self.told = self.failures;
        }
        is_told
    }

    pub(crate) const fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Whether so many have failed that it may be for what is in them, and not for NATS.
    pub(crate) const fn is_doubtful(&self) -> bool {
        const COUNT: u32 = 5;
        self.failures >= COUNT
    }

    /// A request was refused for its own sake; `now` is a time since any fixed moment. Returns whether that is so
    /// for long.
    pub(crate) fn is_stuck(&mut self, now: Duration) -> bool {
        const COUNT: u32 = 5;
        const TIME: Duration = Duration::from_secs(5);
        let (count, since) = self.refused.get_or_insert((0, now));
        *count = count.saturating_add(1);
        *count >= COUNT && now.saturating_sub(*since) >= TIME
    }

    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_get_longer_up_to_a_bound_and_short_again() {
        let mut retry = Retry::default();
        let mut pauses = Vec::new();
        for _ in 0..1000 {
            assert!(retry.pause_for_replica() <= retry.pause());
            pauses.push(retry.pause());
            retry.failed();
        }
        assert!(pauses.is_sorted());
        assert!(pauses[0] < pauses[1]);
        assert!(*pauses.last().expect("some") < Duration::from_millis(500));
        retry.succeeded();
        assert_eq!(retry.pause(), pauses[0]);
    }

    #[test]
    fn one_that_is_refused_for_long_is_stuck() {
        let mut retry = Retry::default();
        let at = Duration::from_millis;
        // However often, in a short time, and however long, a few times.
        assert!((0..100).all(|n| !retry.is_stuck(at(n))));
        retry.succeeded();
        assert!((0..4).all(|n| !retry.is_stuck(at(10_000 * n))));
        assert!(retry.is_stuck(at(50_000)));
        retry.succeeded();
        assert!(!retry.is_stuck(at(90_000)));
    }

    #[test]
    fn few_failures_of_many_are_told() {
        let mut retry = Retry::default();
        let mut told = 0;
        for failures in 1..=1000 {
            retry.failed();
            // Only every other request can tell.
            if failures % 2 == 0 {
                told += u32::from(retry.is_told());
            }
        }
        assert_eq!(told, 10);
    }
}
