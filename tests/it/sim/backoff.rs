//! Oracle for when a room with backoff restarts.

use stateroom_wasmi_host::{Backoff, Instant};
use std::{collections::BTreeSet, time::Duration};

/// The current streak of faults, as documented on [`Backoff`].
pub struct FaultStreak {
    backoff: Backoff,
    /// The possible lengths of the streak: more than one while the exact time of a fault is unknown.
    faults: BTreeSet<u32>,
}

/// What can be observed of a fault from outside.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// Its earliest and latest possible time.
    pub between: (Instant, Instant),
    /// The restart time that the room reports; none if it has closed.
    pub restart_at: Option<Instant>,
}

/// What a fault does to the streak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StreakChange {
    Continued,
    /// It starts a new streak, since the guest had run for long enough.
    Reset,
    /// It is over the limit of restarts.
    Exhausted,
}

impl FaultStreak {
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            faults: BTreeSet::from([0]),
        }
    }

    /// Checks the reported restart time after a fault of a guest started at `started`.
    pub fn check(&mut self, started: Instant, failure: Failure) -> StreakChange {
        let (from, to) = failure.between;
        // From here on a fault starts a new streak.
        let enough = started + self.backoff.longest;
        let just_before = Instant::from_nanos(enough.as_nanos() - 1);
        let is_later = |before: &u32| {
            self.is_right(before + 1, (from, to.min(just_before)), failure.restart_at)
        };
        let mut faults: BTreeSet<_> = self
            .faults
            .iter()
            .filter(|it| is_later(it))
            .map(|it| it + 1)
            .collect();
        let is_later = !faults.is_empty();
        if self.is_right(1, (from.max(enough), to), failure.restart_at) {
            faults.insert(1);
        }
        let before = std::mem::replace(&mut self.faults, faults);
        assert!(
            !self.faults.is_empty(),
            "{failure:?}, started at {started}, {before:?}: {:?}",
            self.backoff
        );
        match failure.restart_at {
            None => StreakChange::Exhausted,
            Some(_) if is_later || before.contains(&0) => StreakChange::Continued,
            Some(_) => StreakChange::Reset,
        }
    }

    /// Whether `restart_at` is right for the last of `faults` faults, which was in this interval.
    fn is_right(
        &self,
        faults: u32,
        (from, to): (Instant, Instant),
        restart_at: Option<Instant>,
    ) -> bool {
        from <= to
            && match (self.wait(faults), restart_at) {
                (Some(wait), Some(at)) => (from + wait..=to + wait).contains(&at),
                (None, None) => true,
                _ => false,
            }
    }

    fn wait(&self, faults: u32) -> Option<Duration> {
        let Backoff {
            first,
            longest,
            restarts,
        } = self.backoff;
        let doubled = (1..faults).fold(first, |wait, _| wait * 2);
        (faults <= restarts).then(|| doubled.min(longest))
    }
}
