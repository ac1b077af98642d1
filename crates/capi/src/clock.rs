//! The time that the program passes in.

use crate::host::stateroom_host_options;
use core::{cell::Cell, ffi::c_void, time::Duration};
use stateroom_wasmi_host::{Clock, Instant};

/// A host's clock: what the program passes in, and within a poll, what has passed since.
pub(crate) struct EngineClock {
    now: Cell<Instant>,
    polling: Cell<Polling>,
    /// The program's own clock, and what it is given.
    read: Option<unsafe extern "C-unwind" fn(user: *mut c_void) -> u64>,
    user: *mut c_void,
    unix_time_at_zero: Duration,
}

/// Where a poll is.
#[derive(Clone, Copy)]
enum Polling {
    /// There is none.
    Not,
    /// Its first look at the clock, which sees exactly what the program said, so that rooms do, too.
    Starts,
    /// Later looks, which are for its deadline.
    Runs(#[cfg(feature = "std")] std::time::Instant),
}

// SAFETY: as for `Callbacks`: the pointer is the program's, given back to its function.
unsafe impl Send for EngineClock {}

impl EngineClock {
    pub(crate) const fn new(options: &stateroom_host_options) -> Self {
        Self {
            now: Cell::new(Instant::ZERO),
            polling: Cell::new(Polling::Not),
            read: options.clock,
            user: options.user,
            unix_time_at_zero: Duration::from_nanos(options.unix_time_at_zero),
        }
    }

    /// Sets the time.
    pub(crate) fn set(&self, now: u64) {
        self.now.set(Instant::from_nanos(now));
        self.polling.set(Polling::Not);
    }

    /// Sets the time at which a poll starts.
    pub(crate) fn start(&self, now: u64) {
        self.set(now);
        self.polling.set(Polling::Starts);
    }
}

impl Clock for EngineClock {
    fn now(&self) -> Instant {
        match (self.polling.get(), self.read) {
            (Polling::Not, _) => self.now.get(),
            (Polling::Starts, _) => {
                #[cfg(feature = "std")]
                self.polling.set(Polling::Runs(std::time::Instant::now()));
                #[cfg(not(feature = "std"))]
                self.polling.set(Polling::Runs());
                self.now.get()
            }
            // SAFETY: the program's promise for its callbacks.
            (Polling::Runs(..), Some(read)) => Instant::from_nanos(unsafe { read(self.user) }),
            #[cfg(feature = "std")]
            (Polling::Runs(start), None) => self.now.get() + start.elapsed(),
            #[cfg(not(feature = "std"))]
            (Polling::Runs(), None) => self.now.get(),
        }
    }

    fn unix_time_at_zero(&self) -> Option<Duration> {
        Some(self.unix_time_at_zero)
    }
}
