//! Oracle for when a room with backoff restarts.

use stateroom_wasmi_host::{Backoff, Instant};
use std::time::Duration;

/// The current streak of faults, as documented on [`Backoff`].
pub struct FaultStreak {
    backoff: Backoff,
    faults: u32,
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
        Self { backoff, faults: 0 }
    }

    /// Checks the reported restart time after a fault in an event that began at `event_time`, of a guest
    /// started at `started`.
    pub fn check(
        &mut self,
        started: Instant,
        event_time: Instant,
        failure: Failure,
    ) -> StreakChange {
        let is_reset = event_time >= started + self.backoff.longest;
        let before = if is_reset { 0 } else { self.faults };
        self.faults = before + 1;
        assert!(
            self.is_right(failure),
            "{failure:?}, started at {started}, event at {event_time}, {} faults: {:?}",
            self.faults,
            self.backoff
        );
        match failure.restart_at {
            None => StreakChange::Exhausted,
            Some(_) if is_reset => StreakChange::Reset,
            Some(_) => StreakChange::Continued,
        }
    }

    /// Whether the restart time is right for a fault in that interval.
    fn is_right(&self, failure: Failure) -> bool {
        let (from, to) = failure.between;
        match (self.wait(self.faults), failure.restart_at) {
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
