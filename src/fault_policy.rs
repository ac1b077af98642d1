//! What follows when a guest fails.

use core::{fmt, time::Duration};

/// What follows when the guest of a room fails. Set for a host
/// ([`Host::with_fault_policy`](crate::Host::with_fault_policy)) or for one room
/// ([`RoomOptions::on_fault`](crate::RoomOptions::on_fault)).
///
/// With any policy, the event that caused the fault is over, and no other room is affected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultPolicy {
    /// The room closes. What the guest had sent is still delivered. The default.
    #[default]
    Close,
    /// The room continues with a fresh guest, after a delay that grows with each fault.
    ///
    /// The fresh guest is initialised and handles a connect for each client that is connected, in
    /// the order of their ids; then the events that waited. Memory and timer are lost, and random
    /// numbers differ. The transport's [`connected`](crate::Transport::connected) is called again
    /// for each client.
    Restart(Backoff),
    /// The room goes on with whatever state the guest is left in, as under the published host 0.2.9.
    /// What the event had sent goes out, and a timer that it set stays set. A guest that fails while
    /// it is initialised has no state to go on with: the room closes.
    ///
    /// It is for guests that were made for that host, or that fail before they change anything: in
    /// rooms of the SDK 0.2 that pass texts on, an empty text is a trap, and nothing else is lost.
    /// Nothing is put in order: what the guest had half changed stays so, and what was allocated for
    /// the event is not freed. A compiled guest also keeps the part of its own stack that it was
    /// using; after many faults there is none left, and all events fail. The room stays open all the
    /// same, and each failed event costs the fuel that it used.
    Continue,
    /// The event is undone: memory, globals and random numbers are as they were before it, and
    /// nothing that it sent is delivered. The room continues as if the event had not happened,
    /// except that a client whose connect is undone stays connected although the guest does not know
    /// it, and that a timer which fired is not set any more. A guest that fails while it is
    /// initialised has no earlier state: the room closes.
    ///
    /// It needs a module that was loaded [for it](crate::LoadOptions::snapshots). An event's outputs
    /// are held until it ends. The room keeps a checkpoint (what the guest's memory has besides that of a
    /// fresh one) and a log of the events since; the next checkpoint is taken when these have used a
    /// unit of fuel for each byte of memory. Rolling back restores the checkpoint and replays the log
    /// with output suppressed, slice by slice.
    #[cfg(feature = "snapshot")]
    Rollback,
}

impl fmt::Display for FaultPolicy {
    /// `close`, `restart`, `continue` or `rollback`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Close => "close",
            Self::Restart(_) => "restart",
            Self::Continue => "continue",
            #[cfg(feature = "snapshot")]
            Self::Rollback => "rollback",
        })
    }
}

/// Exponential backoff: how long a room waits before it restarts.
///
/// Faults are consecutive until a guest has run for the longest wait without one, up to the event that
/// fails. A wait of zero lasts a nanosecond, so that a clock which stands still does not restart a room
/// without end.
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
    /// How many consecutive faults are followed by a restart; one more closes the room. Default 8.
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

    /// The wait after this many consecutive faults, counted from 1; none if the room closes.
    #[must_use]
    pub fn wait(&self, faults: u32) -> Option<Duration> {
        if faults > self.restarts {
            return None;
        }
        // A hundred doublings exceed the range of `Duration`.
        let doubled = (1..faults)
            .take(100)
            .fold(self.first, |wait, _| wait.saturating_mul(2));
        Some(doubled.min(self.longest))
    }
}
