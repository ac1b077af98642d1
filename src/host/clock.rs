//! The clocks of hosts.

use crate::time::Instant;
use core::{cell::Cell, time::Duration};

/// A monotonic clock.
///
/// On a microcontroller, read a hardware timer:
///
/// ```
/// use stateroom_wasmi_host::{Clock, Instant};
///
/// struct Timer;
///
/// impl Clock for Timer {
///     fn now(&self) -> Instant {
///         # let read_microseconds = || 0;
///         Instant::from_micros(read_microseconds())
///     }
/// }
/// ```
pub trait Clock {
    /// The present time. If it is earlier than it was before, time stands still for the rooms.
    fn now(&self) -> Instant;

    /// The wall time at [`Instant::ZERO`] since the Unix epoch, if it is known.
    fn unix_time_at_zero(&self) -> Option<Duration> {
        None
    }
}

macro_rules! forward_clock {
    ($($pointer:ty),*) => {
        $(
            impl<C: Clock + ?Sized> Clock for $pointer {
                fn now(&self) -> Instant {
                    (**self).now()
                }

                fn unix_time_at_zero(&self) -> Option<Duration> {
                    (**self).unix_time_at_zero()
                }
            }
        )*
    };
}

forward_clock!(&C, &mut C, alloc::boxed::Box<C>);

/// A clock that is set by hand: for tests, and for games that count time in ticks. Give the host a
/// reference to keep access to it.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Cell<Instant>,
}

impl ManualClock {
    /// A clock at [`Instant::ZERO`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            now: Cell::new(Instant::ZERO),
        }
    }

    /// Sets the time, which may be in the past.
    pub fn set(&self, now: Instant) {
        self.now.set(now);
    }

    /// Advances the time.
    pub fn advance(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.now.get()
    }
}

/// The clock of the operating system. Its origin is its creation.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
    unix_time_at_origin: Duration,
}

#[cfg(feature = "std")]
impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        let unix_time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            origin: std::time::Instant::now(),
            unix_time_at_origin: unix_time.unwrap_or_default(),
        }
    }
}

#[cfg(feature = "std")]
impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "std")]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    fn unix_time_at_zero(&self) -> Option<Duration> {
        Some(self.unix_time_at_origin)
    }
}
