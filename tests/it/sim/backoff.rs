//! When a room is to start again.

use stateroom_wasmi_host::{Backoff, Instant};
use std::time::Duration;

/// Faults in a row, as the documentation of [`Backoff`] has them.
pub struct Row {
    backoff: Backoff,
    faults: u32,
}

/// What is known of a fault from outside.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// The earliest and the latest time at which it may have been.
    pub between: (Instant, Instant),
    /// When the room says that it starts again; never, if it has closed.
    pub restart_at: Option<Instant>,
}

/// What is to be known of a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    First,
    /// The first after others, since the guest had run for long.
    FirstAgain,
    Later,
    /// There was one too many before it.
    Last,
}

impl Row {
    pub const fn new(backoff: Backoff) -> Self {
        Self { backoff, faults: 0 }
    }

    /// Checks what a room says that it does about the fault of a guest that was started then.
    pub fn check(&mut self, started: Instant, failed: Failed) -> Place {
        let (from, to) = failed.between;
        // From here on it begins a new row.
        let enough = started + self.backoff.longest;
        let just_before = Instant::from_nanos(enough.as_nanos() - 1);
        let later = (self.faults + 1, from, to.min(just_before));
        let first = (1, from.max(enough), to);
        let is_right = |(faults, from, to): &(u32, Instant, Instant)| {
            from <= to
                && match (self.wait(*faults), failed.restart_at) {
                    (Some(wait), Some(at)) => (*from + wait..=*to + wait).contains(&at),
                    (None, None) => true,
                    _ => false,
                }
        };
        let Some((faults, ..)) = [later, first].into_iter().find(is_right) else {
            panic!(
                "{failed:?} of a guest that started at {started}, {} before: {:?}",
                self.faults, self.backoff
            )
        };
        let place = match failed.restart_at {
            None => Place::Last,
            Some(_) if faults > 1 => Place::Later,
            Some(_) if self.faults > 0 => Place::FirstAgain,
            Some(_) => Place::First,
        };
        self.faults = faults;
        place
    }

    fn wait(&self, faults: u32) -> Option<Duration> {
        let Backoff { first, longest, restarts } = self.backoff;
        let doubled = (1..faults).fold(first, |wait, _| wait * 2);
        (faults <= restarts).then(|| doubled.min(longest))
    }
}
