//! The clock that a guest sees.

use crate::{abi::ClockId, time::Instant};
use core::time::Duration;

/// What the monotonic clock shows when a room is created. Some runtimes, such as Go's, refuse to
/// start at zero; a second is more than zero in any unit.
const MONOTONIC_AT_ZERO: Duration = Duration::from_secs(1);

/// A guest's clock. It shows the time of the running event.
#[derive(Clone, Copy)]
pub(super) struct GuestClock {
    now: Instant,
    /// The wall time at [`Instant::ZERO`], since the Unix epoch.
    unix_time_at_zero: Duration,
}

impl GuestClock {
    pub(super) const fn new(unix_time_at_zero: Duration) -> Self {
        Self {
            now: Instant::ZERO,
            unix_time_at_zero,
        }
    }

    pub(super) const fn begin_event(&mut self, now: Instant) {
        self.now = now;
    }

    /// What a clock of WASI shows, in nanoseconds. The CPU's time is the monotonic clock's, as in
    /// wasi-libc, since a room has no process.
    pub(super) fn show(&self, clock: ClockId) -> u64 {
        (self.now + self.offset(clock)).as_nanos()
    }

    const fn offset(&self, clock: ClockId) -> Duration {
        match clock {
            ClockId::Realtime => self.unix_time_at_zero,
            ClockId::Monotonic | ClockId::CpuTime => MONOTONIC_AT_ZERO,
        }
    }
}
