//! Limits of log lines that clients and guests can cause at will, with counts of what is left out.

use crate::rate_limit::{Rate, TokenBucket, nanos_since};
use core::{
    fmt,
    hash::{BuildHasher, Hash},
    mem,
};
use hashbrown::HashMap;
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};
/// Limits log lines of one kind that clients can cause at will, and counts those that it suppresses.
pub(crate) struct LogLimiter {
    since: Instant,
    bucket: Mutex<LineBucket>,
}

/// The same for lines that are about something, such as a room, so that what one causes does not
/// suppress the lines about another.
pub(crate) struct KeyedLogLimiter {
    since: Instant,
    buckets: Mutex<LineBuckets>,
}

/// Allows a log line. Displayed at its end, it says how many like it were suppressed since the last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LogPermit {
    suppressed: u64,
    /// The same, of other keys than this line's.
    suppressed_elsewhere: u64,
}

/// What one says, those that follow it soon say, too.
const LOG_RATE: Rate = Rate::new(1, 10);

impl LogLimiter {
    /// One line a second, bursts of ten.
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            bucket: Mutex::new(LineBucket::new(LOG_RATE)),
        }
    }

    /// Whether to log this line.
    pub(crate) fn permit(&self) -> Option<LogPermit> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.permit(nanos_since(self.since))
    }
}

impl KeyedLogLimiter {
    /// One line a second for each key, bursts of ten.
    pub(crate) fn new() -> Self {
        // Some hundred KiB, more than rooms that cause lines at the same time.
        Self::with_keys(1024)
    }

    /// The same with a bucket for each of so many keys, and one for all others. As many lines a second
    /// are possible for whoever chooses the keys.
    pub(crate) fn with_keys(max_keys: usize) -> Self {
        Self {
            since: Instant::now(),
            buckets: Mutex::new(LineBuckets::new(LOG_RATE, max_keys)),
        }
    }

    /// Whether to log this line, which is about `key`.
    pub(crate) fn permit(&self, key: impl Hash) -> Option<LogPermit> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.permit(nanos_since(self.since), key)
    }
}

/// A token bucket that counts what it suppresses.
struct LineBucket {
    bucket: TokenBucket,
    suppressed: u64,
}

impl LineBucket {
    fn new(rate: Rate) -> Self {
        Self {
            bucket: TokenBucket::new(rate),
            suppressed: 0,
        }
    }

    fn permit(&mut self, now: u64) -> Option<LogPermit> {
        if !self.bucket.try_consume(now) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        Some(LogPermit {
            suppressed: mem::take(&mut self.suppressed),
            suppressed_elsewhere: 0,
        })
    }
}

/// A bucket for each key that caused lines lately, and one for all keys beyond the bound: taking a
/// bucket from a key that still uses it would let many keys cause lines without end.
struct LineBuckets {
    rate: Rate,
    max_keys: usize,
    /// By the hash of the key, so that their memory does not depend on what a key is. Keys with the
    /// same hash share a bucket.
    buckets: HashMap<u64, LineBucket>,
    shared: TokenBucket,
    /// Lines that were suppressed, of keys that have no bucket any more or had none.
    suppressed_elsewhere: u64,
    /// When to look again for buckets that are not needed, so that this costs little while there are
    /// none.
    sweep_at: u64,
}

impl LineBuckets {
    fn new(rate: Rate, max_keys: usize) -> Self {
        Self {
            rate,
            max_keys,
            buckets: HashMap::new(),
            shared: TokenBucket::new(rate),
            suppressed_elsewhere: 0,
            sweep_at: 0,
        }
    }

    fn permit(&mut self, now: u64, key: impl Hash) -> Option<LogPermit> {
        let key = self.buckets.hasher().hash_one(key);
        if self.buckets.len() >= self.max_keys && !self.buckets.contains_key(&key) {
            self.sweep(now);
            if self.buckets.len() >= self.max_keys {
                return self.permit_shared(now);
            }
        }
        let bucket = self.buckets.entry(key);
        let bucket = bucket.or_insert_with(|| LineBucket::new(self.rate));
        let permit = bucket.permit(now)?;
        Some(LogPermit {
            suppressed_elsewhere: mem::take(&mut self.suppressed_elsewhere),
            ..permit
        })
    }

    fn permit_shared(&mut self, now: u64) -> Option<LogPermit> {
        if !self.shared.try_consume(now) {
            self.suppressed_elsewhere = self.suppressed_elsewhere.saturating_add(1);
            return None;
        }
        Some(LogPermit {
            suppressed: 0,
            suppressed_elsewhere: mem::take(&mut self.suppressed_elsewhere),
        })
    }

    /// Removes the buckets that are full, as those of new keys are, and keeps what they counted.
    fn sweep(&mut self, now: u64) {
        const SWEEP_INTERVAL: u64 = 1_000_000_000;
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now.saturating_add(SWEEP_INTERVAL);
        let suppressed = &mut self.suppressed_elsewhere;
        self.buckets.retain(|_, bucket| {
            let is_needed = !bucket.bucket.is_full(now);
            if !is_needed {
                *suppressed = suppressed.saturating_add(bucket.suppressed);
            }
            is_needed
        });
    }
}

impl fmt::Display for LogPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.suppressed, self.suppressed_elsewhere) {
            (0, 0) => Ok(()),
            (more, 0) => write!(f, " (and {more} more like it)"),
            (0, others) => write!(f, " (and {others} about others)"),
            (more, others) => write!(f, " (and {more} more like it, and {others} about others)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn permit(suppressed: u64, suppressed_elsewhere: u64) -> Option<LogPermit> {
        Some(LogPermit {
            suppressed,
            suppressed_elsewhere,
        })
    }

    #[test]
    fn a_flood_of_lines_is_a_burst_and_a_line_a_second_with_the_count() {
        let mut bucket = LineBucket::new(Rate::new(1, 10));
        for _ in 0..10 {
            assert_eq!(bucket.permit(0), permit(0, 0));
        }
        let (mut logged, mut suppressed) = (0, 0);
        // A thousand lines a second for a minute.
        for millisecond in 0..60_000 {
            if let Some(permit) = bucket.permit(millisecond * SECOND / 1000) {
                logged += 1;
                suppressed += permit.suppressed;
            }
        }
        assert_eq!(logged, 59);
        // All but those after the last line.
        assert_eq!(logged + suppressed + bucket.suppressed, 60_000);
        assert_eq!(bucket.suppressed, 999);
        // After a pause there may be a burst again.
        assert_eq!(bucket.permit(100 * SECOND), permit(999, 0));
        for _ in 1..10 {
            assert_eq!(bucket.permit(100 * SECOND), permit(0, 0));
        }
        assert_eq!(bucket.permit(100 * SECOND), None);
    }

    #[test]
    fn a_permit_displays_what_was_suppressed() {
        let displayed = |suppressed, suppressed_elsewhere| {
            permit(suppressed, suppressed_elsewhere).map(|permit| permit.to_string())
        };
        assert_eq!(displayed(0, 0).as_deref(), Some(""));
        assert_eq!(displayed(7, 0).as_deref(), Some(" (and 7 more like it)"));
        assert_eq!(displayed(0, 3).as_deref(), Some(" (and 3 about others)"));
        assert_eq!(
            displayed(7, 3).as_deref(),
            Some(" (and 7 more like it, and 3 about others)")
        );
    }

    #[test]
    fn a_limiter_counts_by_the_clock() {
        let limiter = LogLimiter::new();
        let permits = (0..1_000).filter_map(|_| limiter.permit()).count();
        // More than ten only if this took seconds.
        let seconds = limiter.since.elapsed().as_secs() as usize;
        assert!((10..=11 + seconds).contains(&permits), "{permits}");
        let limiter = KeyedLogLimiter::new();
        for room in ["one", "other"] {
            let permits = (0..1_000).filter_map(|_| limiter.permit(room)).count();
            let seconds = limiter.since.elapsed().as_secs() as usize;
            assert!((10..=11 + seconds).contains(&permits), "{permits}");
        }
    }

    #[test]
    fn no_key_suppresses_the_lines_of_another() {
        let mut buckets = LineBuckets::new(Rate::new(1, 10), 100);
        for _ in 0..1_000 {
            buckets.permit(0, "loud");
        }
        for _ in 0..10 {
            assert_eq!(buckets.permit(0, "quiet"), permit(0, 0));
        }
        assert_eq!(buckets.permit(SECOND, "loud"), permit(990, 0));
    }

    #[test]
    fn keys_beyond_the_bound_share_a_bucket_and_are_counted() {
        let mut buckets = LineBuckets::new(Rate::new(1, 10), 100);
        let mut logged = 0;
        let mut suppressed = 0;
        let mut count = |permit: Option<LogPermit>| {
            if let Some(permit) = permit {
                logged += 1;
                suppressed += permit.suppressed + permit.suppressed_elsewhere;
            }
        };
        for key in 0..10_000 {
            count(buckets.permit(0, key));
        }
        assert_eq!(buckets.buckets.len(), 100);
        // A line of a key with a bucket tells of the others.
        count(buckets.permit(0, 0));
        assert_eq!((logged, suppressed), (100 + 10 + 1, 10_000 - 110));
    }

    #[test]
    fn a_bucket_that_is_full_makes_space_and_its_count_is_kept() {
        let mut buckets = LineBuckets::new(Rate::new(1, 10), 2);
        for _ in 0..15 {
            buckets.permit(0, "loud");
        }
        buckets.permit(0, "quiet");
        // Both are in use.
        assert_eq!(buckets.permit(0, "new"), permit(0, 0));
        assert_eq!(buckets.buckets.len(), 2);
        assert!(!buckets.shared.is_full(0));
        // Only the quiet one's is full again; then both.
        assert_eq!(buckets.permit(2 * SECOND, "new"), permit(0, 0));
        assert_eq!(buckets.buckets.len(), 2);
        assert_eq!(buckets.permit(11 * SECOND, "newer"), permit(0, 5));
        assert_eq!(buckets.buckets.len(), 1);
    }

    #[test]
    fn there_is_no_search_for_full_buckets_at_each_line() {
        let mut buckets = LineBuckets::new(Rate::new(1, 1), 1);
        buckets.permit(0, "one");
        buckets.permit(SECOND / 2, "two");
        assert_eq!(buckets.sweep_at, SECOND * 3 / 2);
        buckets.permit(SECOND, "three");
        assert_eq!(buckets.sweep_at, SECOND * 3 / 2);
    }
}
