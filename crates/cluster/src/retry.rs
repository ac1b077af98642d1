//! How long to wait before a request is made again that has failed, and which of the failures are told.

use core::time::Duration;

/// Of the requests for one shard.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
    /// How many it had been when that was told last.
    told: u32,
}

impl Retry {
    /// Time until the next request if this one fails: longer and longer, since those of all shards keep NATS from
    /// what it has to do before it can answer.
    pub(crate) fn pause(&self) -> Duration {
        const FIRST: Duration = Duration::from_millis(20);
        const DOUBLINGS: u32 = 4;
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
