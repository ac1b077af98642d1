//! When a room is to start again.

use stateroom_wasmi_host::{Backoff, Instant};
use std::{collections::BTreeSet, time::Duration};

/// Faults in a row, as the documentation of [`Backoff`] has them.
pub struct Row {
    backoff: Backoff,
    /// How many there may have been: more than one number where nobody knows at what time a fault
    /// was.
    faults: BTreeSet<u32>,
}

/// What is known of a fault from outside.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// The earliest and the latest time at which it may have been.
    pub between: (Instant, Instant),
    /// When the room says that it starts again; never, if it has closed.
    pub restart_at: Option<Instant>,
}

/// Where a fault stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    InRow,
    /// The first of another row, since the guest had run for long.
    FirstAgain,
    /// There was one too many before it.
    Last,
}

impl Row {
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            faults: BTreeSet::from([0]),
        }
    }

    /// Checks what a room says that it does about the fault of a guest that was started then.
    pub fn check(&mut self, started: Instant, failed: Failed) -> Place {
        let (from, to) = failed.between;
        // From here on it begins a new row.
        let enough = started + self.backoff.longest;
        let just_before = Instant::from_nanos(enough.as_nanos() - 1);
        let is_later = |before: &u32| {
            self.is_right(before + 1, (from, to.min(just_before)), failed.restart_at)
        };
        let mut faults: BTreeSet<_> = self
            .faults
            .iter()
            .filter(|it| is_later(it))
            .map(|it| it + 1)
            .collect();
        let is_later = !faults.is_empty();
        if self.is_right(1, (from.max(enough), to), failed.restart_at) {
            faults.insert(1);
        }
        let before = std::mem::replace(&mut self.faults, faults);
        assert!(
            !self.faults.is_empty(),
            "{failed:?}, started at {started}, {before:?}: {:?}",
            self.backoff
        );
        match failed.restart_at {
            None => Place::Last,
            Some(_) if is_later || before.contains(&0) => Place::InRow,
            Some(_) => Place::FirstAgain,
        }
    }

    /// Whether a room that has failed so many times, last between these times, starts again then.
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
