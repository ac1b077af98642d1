//! The clock that a guest sees.

use crate::time::Instant;
use core::time::Duration;

/// What the monotonic clock shows when a room is created. Some runtimes, such as Go's, refuse to
/// start at zero; a second is more than zero in any unit.
const MONOTONIC_AT_ZERO: Duration = Duration::from_secs(1);

/// A guest's clock: it shows the time of the running event.
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

    /// Nanoseconds since the Unix epoch.
    pub(super) fn realtime(&self) -> u64 {
        (self.now + self.unix_time_at_zero).as_nanos()
    }

    /// Nanoseconds since a second before the room was created.
    pub(super) fn monotonic(&self) -> u64 {
        (self.now + MONOTONIC_AT_ZERO).as_nanos()
    }
}
