//! Coverage counters: a simulation that never reaches these situations proves nothing.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoverPoint {
    Timer,
    SendRefused,
    InboxFull,
    ClockWentBackwards,
    /// The driver closed a room in the middle of an event.
    ClosedMidEvent,
    /// A fault that closed its room, under `FaultPolicy::Close`.
    ClosedByFault,
    /// The same during `initialize`.
    FailedInitialize,
    Restart,
    /// A restarted guest that failed before the connects of all present clients were delivered.
    FailedDuringStartup,
    /// A fault that started a new streak, since the guest had run for long enough.
    NewStreak,
    /// A fault over the limit of restarts.
    RestartsExhausted,
    /// A fault after which the guest went on with the state that was left.
    Continued,
    #[cfg(feature = "snapshot")]
    RolledBack,
    #[cfg(feature = "snapshot")]
    TimerRolledBack,
    #[cfg(feature = "snapshot")]
    ConnectRolledBack,
}

impl CoverPoint {
    const ALL: &[Self] = &[
        Self::Timer,
        Self::SendRefused,
        Self::InboxFull,
        Self::ClockWentBackwards,
        Self::ClosedMidEvent,
        Self::ClosedByFault,
        Self::FailedInitialize,
        Self::Restart,
        Self::FailedDuringStartup,
        Self::NewStreak,
        Self::RestartsExhausted,
        Self::Continued,
        #[cfg(feature = "snapshot")]
        Self::RolledBack,
        #[cfg(feature = "snapshot")]
        Self::TimerRolledBack,
        #[cfg(feature = "snapshot")]
        Self::ConnectRolledBack,
    ];
}

/// Hits of each cover point.
#[derive(Debug, Default)]
pub struct Coverage(BTreeMap<CoverPoint, usize>);

impl Coverage {
    pub fn count(&mut self, point: CoverPoint) {
        *self.0.entry(point).or_default() += 1;
    }

    pub fn add(&mut self, other: Self) {
        for (point, hits) in other.0 {
            *self.0.entry(point).or_default() += hits;
        }
    }

    /// The cover points with fewer hits than `min_hits`.
    pub fn rarely_hit(&self, min_hits: usize) -> Vec<CoverPoint> {
        let hits = |point: &&CoverPoint| self.0.get(point).copied().unwrap_or_default();
        CoverPoint::ALL
            .iter()
            .filter(|point| hits(point) < min_hits)
            .copied()
            .collect()
    }
}
