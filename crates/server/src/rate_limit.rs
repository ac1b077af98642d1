//! How often something may happen.

use core::time::Duration;
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// How often something may happen, over a long time and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// Over a long time, so many in a second; at most 1,000 million, and 0 for as many as come.
    pub per_second: u64,
    /// So many may come at once, after a time without any; at least one.
    pub burst: u64,
}

impl Rate {
    /// As many as come.
    pub const UNLIMITED: Self = Self::new(0, 1);

    /// So many in a second, and so many at once.
    #[must_use]
    pub const fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst }
    }
}

/// A token bucket that keeps to a rate.
///
/// Instead of tokens it keeps the time at which it would be full again: then there is nothing to
/// refill (the *generic cell rate algorithm*). Times are in nanoseconds from any origin.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    /// Time that one costs; 0 if it is not limited.
    cost: u64,
    /// Time that a full bucket is worth.
    burst: u64,
    full_at: u64,
}

impl TokenBucket {
    pub(crate) fn new(rate: Rate) -> Self {
        const SECOND: u64 = 1_000_000_000;
        let cost = SECOND.checked_div(rate.per_second).unwrap_or(0);
        Self {
            cost,
            burst: cost.saturating_mul(rate.burst.max(1)),
            full_at: 0,
        }
    }

    /// Takes so many, whether they are there or not; answers how long to wait before going on.
    pub(crate) fn take(&mut self, now: u64, count: u64) -> Duration {
        self.full_at = self.after(now, count);
        Duration::from_nanos(self.full_at.saturating_sub(now.saturating_add(self.burst)))
    }

    /// Takes one if it is there.
    pub(crate) fn try_take(&mut self, now: u64) -> bool {
        let full_at = self.after(now, 1);
        let is_there = full_at <= now.saturating_add(self.burst);
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }

    /// Whether it is as a new one.
    pub(crate) const fn is_full(&self, now: u64) -> bool {
        self.full_at <= now
    }

    /// When it would be full if so many were taken.
    fn after(&self, now: u64, count: u64) -> u64 {
        self.full_at
            .max(now)
            .saturating_add(self.cost.saturating_mul(count))
    }
}

/// Lets through a few of many, for what clients can have logged as often as they like.
pub(crate) struct LogLimiter {
    since: Instant,
    bucket: Mutex<TokenBucket>,
}

impl LogLimiter {
    /// Ten at once, and then one in a second.
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            bucket: Mutex::new(TokenBucket::new(Rate::new(1, 10))),
        }
    }

    /// Whether this is one of the few.
    pub(crate) fn may(&self) -> bool {
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_take(now)
    }
}
