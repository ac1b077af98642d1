//! Counters of a room.

use super::event_kind::EventKind;

/// Counters and figures of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomStats {
    /// Connected clients.
    pub clients: usize,
    /// Events that wait in the inbox. The one that the guest is in the middle of does not wait.
    pub waiting_events: usize,
    /// Events that were accepted and are over: handled, failed, or dropped when the room closed.
    /// Events end in the order in which they were accepted, so that a driver which counts what it
    /// put in knows which are over.
    pub events_handled: u64,
    /// Messages of clients that the room accepted.
    pub messages_in: u64,
    /// Messages that the room sent; a broadcast counts once.
    pub messages_out: u64,
    /// Fuel that the guest used, including what was undone and replayed.
    pub fuel_used: u64,
    /// Bytes of the guest's linear memory; of a closed room, what its guest had last.
    pub memory_bytes: usize,
    /// Bytes of the host's heap for what the module declares: functions, globals, exports, segments and
    /// table elements. An upper bound; zero while there is no guest.
    pub instance_bytes: usize,
    /// Bytes of the host's heap that the state of a hibernating room takes; zero while there is a guest.
    pub hibernated_bytes: usize,
    /// How often the guest failed.
    pub faults: u64,
}

impl RoomStats {
    /// Counts an event that is over, if it came from outside.
    pub(super) fn count_handled(&mut self, event: EventKind) {
        self.events_handled += u64::from(matches!(event, EventKind::Outside(_)));
    }
}
