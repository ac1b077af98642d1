//! What follows when a guest fails.

use core::{fmt, time::Duration};

/// What becomes of a room whose guest has failed. Chosen for a host
/// ([`Host::with_fault_policy`](crate::Host::with_fault_policy)) and for each room
/// ([`RoomOptions::on_fault`](crate::RoomOptions::on_fault)).
///
/// Whatever is chosen, the event that broke the guest is over, and no other room notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultPolicy {
    /// The room closes, with what had been sent before still going out. The default.
    #[default]
    Close,
    /// The room goes on with a fresh guest, after a while that grows with each fault.
    ///
    /// The fresh guest is initialised and told of the clients that are there, in the order of
    /// their numbers; then of what had waited and what came meanwhile. Its memory and its timer are
    /// lost, and its random numbers are others. The transport hears of each client
    /// [once more](crate::Transport::connected). A guest that fails while it is opened (in its
    /// start function) makes no room in the first place.
    Restart(Backoff),
    /// The event is undone: memory, globals and random numbers are as they were before it, and
    /// nothing that it sent goes out. The room goes on as if the event had not been; a client whose
    /// connect is undone stays connected without the guest having heard of it, and a timer that ran
    /// off is not set any more. A guest that fails when it is initialised has nothing to go back to:
    /// that closes the room.
    ///
    /// It needs a module that was loaded
    /// [for it](crate::LoadOptions::rollback). What an event sends is held back until the event has
    /// ended. The room keeps a copy of the guest's memory that is not zero, taken when the events
    /// since the last copy have used a unit of fuel for each byte of memory, and those
    /// events. To undo one is to fetch the copy and to run these again, slice by slice, unheard.
    #[cfg(feature = "rollback")]
    Rollback,
}

impl fmt::Display for FaultPolicy {
    /// `close`, `restart` or `rollback`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Close => "close",
            Self::Restart(_) => "restart",
            #[cfg(feature = "rollback")]
            Self::Rollback => "rollback",
        })
    }
}

/// How long a room waits before it starts again.
///
/// Faults are in a row until a guest has run for the longest wait without one. A wait of zero ends
/// when time has gone on by a nanosecond.
///
/// ```
/// use stateroom_wasmi_host::Backoff;
/// let backoff = Backoff::default();
/// let waits: Vec<_> = (1..=3).filter_map(|fault| backoff.wait(fault)).map(|wait| wait.as_millis()).collect();
/// assert_eq!(waits, [100, 200, 400]);
/// assert_eq!(backoff.wait(9), None, "the room is closed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first fault; each further one doubles it. Default 100 ms.
    pub first: Duration,
    /// The longest wait. Default 30 s.
    pub longest: Duration,
    /// How many faults in a row are each followed by a restart; one more closes the room.
    /// Default 8.
    pub restarts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            restarts: 8,
        }
    }

    setters! { first: Duration, longest: Duration, restarts: u32 }

    /// The wait after this many faults in a row, counted from 1; none if the room is to be closed.
    #[must_use]
    pub fn wait(&self, faults: u32) -> Option<Duration> {
        if faults > self.restarts {
            return None;
        }
        // A hundred doublings make the shortest wait longer than time can be.
        let doubled = (1..faults)
            .take(100)
            .fold(self.first, |wait, _| wait.saturating_mul(2));
        Some(doubled.min(self.longest))
    }
}
