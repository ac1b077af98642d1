//! A histogram of durations.

use core::{ops::AddAssign, time::Duration};

/// Upper bounds of the buckets, in nanoseconds: from what a message to a small room takes to what nobody
/// waits for.
const BOUNDS: [u64; 15] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    250_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// How many durations fell into each bucket, and their sum.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    /// The last is of those beyond all bounds.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    pub(crate) fn observe(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Most are short.
        let bucket = BOUNDS.iter().position(|bound| nanos <= *bound);
        self.counts[bucket.unwrap_or(BOUNDS.len())] += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// Each bound in seconds, with how many durations are within it.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut count = 0;
        let counts = BOUNDS.iter().zip(&self.counts);
        counts.map(move |(bound, counted)| {
            count += counted;
            (Duration::from_nanos(*bound).as_secs_f64(), count)
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) const fn sum(&self) -> Duration {
        self.sum
    }
}

impl AddAssign for Histogram {
    fn add_assign(&mut self, other: Self) {
        for (count, added) in self.counts.iter_mut().zip(other.counts) {
            *count += added;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_contain_what_is_within_their_bounds() {
        let mut histogram = Histogram::default();
        for nanos in [0, 5_000, 5_001, 10_000_000_000, 10_000_000_001] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative[0], (0.000_005, 2));
        assert_eq!(cumulative[1], (0.000_01, 3));
        assert_eq!(cumulative[13], (1.0, 3));
        assert_eq!(cumulative[14], (10.0, 4));
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), Duration::from_nanos(20_000_010_002));
    }
}
