//! Rate limits.

use core::time::Duration;
use std::time::Instant;

/// A sustained rate and a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// The sustained rate, at most 1,000 million a second; 0 is unlimited.
    pub per_second: u64,
    /// How many may come at once after a pause; at least one.
    pub burst: u64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self::new(0, 1);

    /// A sustained rate and a burst.
    #[must_use]
    pub const fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst }
    }
}

/// A token bucket, as the *generic cell rate algorithm*.
///
/// It stores the time at which the bucket would be full again instead of a number of tokens, so
/// that nothing needs refilling. Times are in nanoseconds from any origin.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    /// Time in which one token is refilled; 0 if unlimited.
    token_nanos: u64,
    /// Time in which an empty bucket is refilled.
    burst_nanos: u64,
    full_at: u64,
}

impl TokenBucket {
    pub(crate) fn new(rate: Rate) -> Self {
        const SECOND: u64 = 1_000_000_000;
        let token_nanos = SECOND.checked_div(rate.per_second).unwrap_or(0);
        Self {
            token_nanos,
            burst_nanos: token_nanos.saturating_mul(rate.burst.max(1)),
            full_at: 0,
        }
    }

    /// Consumes tokens, going into debt if there are too few; returns how long to pause.
    pub(crate) fn consume(&mut self, now: u64, tokens: u64) -> Duration {
        self.full_at = self.full_at_after(now, tokens);
        Duration::from_nanos(
            self.full_at
                .saturating_sub(now.saturating_add(self.burst_nanos)),
        )
    }

    /// Consumes one token if there is one.
    pub(crate) fn try_consume(&mut self, now: u64) -> bool {
        let full_at = self.full_at_after(now, 1);
        // Of two threads, the one with the later time may be the first.
        let is_unlimited = self.token_nanos == 0;
        let has_token = is_unlimited || full_at <= now.saturating_add(self.burst_nanos);
        if has_token {
            self.full_at = full_at;
        }
        has_token
    }

    pub(crate) const fn is_full(&self, now: u64) -> bool {
        self.full_at <= now
    }

    /// When the bucket would be full again after consuming this many.
    fn full_at_after(&self, now: u64, tokens: u64) -> u64 {
        self.full_at
            .max(now)
            .saturating_add(self.token_nanos.saturating_mul(tokens))
    }
}

/// The time of a [`TokenBucket`].
pub(crate) fn nanos_since(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_times_need_not_be_in_order() {
        let mut bucket = TokenBucket::new(Rate::UNLIMITED);
        assert!(bucket.try_consume(10));
        assert!(bucket.try_consume(9));
    }
}
