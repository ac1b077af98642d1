//! What the simulation is about, counted.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    Timer,
    Refusal,
    FullInbox,
    JumpBackwards,
    /// A room was closed in the middle of an event.
    CutOff,
    /// A fault that closed its room, at once.
    Closed,
    /// The same of a guest that was being initialised.
    NeverOpened,
    Restart,
    /// A guest that failed before it had heard of all clients that were there.
    FailedEarly,
    /// A fault that began a new row, since the guest had run for long.
    NewRow,
    /// One fault too many in a row.
    Exhausted,
    #[cfg(feature = "rollback")]
    Undone,
    #[cfg(feature = "rollback")]
    TimerUndone,
    #[cfg(feature = "rollback")]
    ConnectUndone,
}

impl Happening {
    const ALL: &[Self] = &[
        Self::Timer,
        Self::Refusal,
        Self::FullInbox,
        Self::JumpBackwards,
        Self::CutOff,
        Self::Closed,
        Self::NeverOpened,
        Self::Restart,
        Self::FailedEarly,
        Self::NewRow,
        Self::Exhausted,
        #[cfg(feature = "rollback")]
        Self::Undone,
        #[cfg(feature = "rollback")]
        Self::TimerUndone,
        #[cfg(feature = "rollback")]
        Self::ConnectUndone,
    ];
}

/// How often each has happened.
#[derive(Debug, Default)]
pub struct Happened(BTreeMap<Happening, usize>);

impl Happened {
    pub fn count(&mut self, what: Happening) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: Self) {
        for (what, times) in other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// What has happened less often than it should.
    pub fn seldom(&self, least: usize) -> Vec<Happening> {
        let times = |what: &&Happening| self.0.get(what).copied().unwrap_or_default();
        Happening::ALL
            .iter()
            .filter(|what| times(what) < least)
            .copied()
            .collect()
    }
}
