//! The clock that a guest sees.

use crate::{abi::wasi::ClockId, time::Instant};
use core::time::Duration;

/// What the monotonic clock shows when a room is created. Some runtimes, such as Go's, refuse to
/// start at zero; a second is more than zero in any unit.
const MONOTONIC_AT_ZERO: Duration = Duration::from_secs(1);

/// How far a guest's clock may move on within one event, by what the guest sleeps.
const MAX_SLEEP_PER_EVENT: Duration = Duration::from_secs(60);

/// A guest's clock. It shows the time of the running event, and what the guest has slept since:
/// nobody waits for a guest that sleeps, but a runtime that looks at the clock again sees that the
/// time has passed.
///
/// An event that begins before the time that the guest has slept to begins at that time for the
/// guest, as if it had waited for the guest to wake up; so the clock never runs backwards. It is
/// ahead of the room's time until that has caught up. Timers do not depend on it.
#[derive(Clone, Copy)]
pub(super) struct GuestClock {
    now: Instant,
    /// Until when the running event may sleep.
    latest: Instant,
    /// The wall time at [`Instant::ZERO`], since the Unix epoch.
    unix_time_at_zero: Duration,
}

impl GuestClock {
    pub(super) const fn new(unix_time_at_zero: Duration) -> Self {
        Self {
            now: Instant::ZERO,
            latest: Instant::ZERO,
            unix_time_at_zero,
        }
    }

    pub(super) fn begin_event(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.latest = self.now + MAX_SLEEP_PER_EVENT;
    }

    #[cfg(feature = "snapshot")]
    pub(super) const fn set(&mut self, now: Instant) {
        self.now = now;
    }

    pub(super) const fn now(&self) -> Instant {
        self.now
    }

    /// What a clock of WASI shows, in nanoseconds. The CPU's time is the monotonic clock's, as in
    /// wasi-libc, since a room has no process.
    pub(super) fn show(&self, clock: ClockId) -> u64 {
        (self.now + self.offset(clock)).as_nanos()
    }

    /// When a clock of WASI shows this time, in nanoseconds.
    pub(super) fn when(&self, clock: ClockId, time: u64) -> Instant {
        let time = Duration::from_nanos(time).saturating_sub(self.offset(clock));
        Instant::ZERO + time
    }

    /// Moves on to this time, as far as the running event may sleep.
    pub(super) fn sleep_until(&mut self, time: Instant) {
        self.now = self.now.max(time.min(self.latest));
    }

    const fn offset(&self, clock: ClockId) -> Duration {
        match clock {
            ClockId::Realtime => self.unix_time_at_zero,
            ClockId::Monotonic | ClockId::CpuTime => MONOTONIC_AT_ZERO,
        }
    }
}
