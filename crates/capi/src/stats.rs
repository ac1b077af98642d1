//! Figures of rooms and hosts.

use crate::ffi::Versioned;
use crate::number::any_stateroom_room_state;
use stateroom_wasmi_host::{Room, RoomStats};

/// Whether a room runs.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_room_state {
    /// It is open.
    Open = 0,
    /// It waits for its restart after a fault.
    Restarting = 1,
    /// It is closed; the callback `closed` is called when its outputs have been sent.
    Closed = 2,
    /// It is open, and hibernates.
    Hibernating = 3,
}

/// Counters and figures of a room.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_room_stats {
    /// Set by the caller: sizeof (stateroom_room_stats).
    pub size: usize,
    /// Whether it runs.
    pub state: any_stateroom_room_state,
    /// Not 0: the guest's allocator returned null for a payload. The library works around it, but
    /// it is a mistake of the module's.
    pub has_null_allocator: i32,
    /// Connected clients.
    pub clients: usize,
    /// Events that wait in the inbox.
    pub waiting_events: usize,
    /// Bytes of the guest's linear memory.
    pub memory_bytes: usize,
    /// Bytes of heap for what the module declares: an upper bound.
    pub instance_bytes: usize,
    /// Bytes of heap for the state of a room that hibernates.
    pub hibernated_bytes: usize,
    /// Events that were accepted and are over: handled, failed, or dropped when the room closed.
    pub events_handled: u64,
    /// Messages of clients that the room accepted.
    pub messages_in: u64,
    /// Messages that the room sent; a broadcast counts once.
    pub messages_out: u64,
    /// Fuel that the guest used, including what was undone and replayed.
    pub fuel_used: u64,
    /// What the library did for the room besides running its guest, in units of fuel that take as
    /// long.
    pub host_work: u64,
    /// How often the guest failed.
    pub faults: u64,
}

/// Figures of a host. The sums are over the rooms that it has.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_host_stats {
    /// Set by the caller: sizeof (stateroom_host_stats).
    pub size: usize,
    /// Not 0: a callback returned WOULD_BLOCK, and the output is kept. Poll when there is space
    /// again.
    pub is_blocked: i32,
    /// Rooms.
    pub rooms: usize,
    /// Connected clients.
    pub clients: usize,
    /// Events that wait in inboxes.
    pub waiting_events: usize,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Bytes of heap for what modules declare: an upper bound.
    pub instance_bytes: usize,
}

impl From<&Room> for stateroom_room_stats {
    fn from(room: &Room) -> Self {
        let state = match room {
            room if room.is_closed() => stateroom_room_state::Closed,
            room if room.is_restarting() => stateroom_room_state::Restarting,
            room if room.stats().hibernated_bytes > 0 => stateroom_room_state::Hibernating,
            _ => stateroom_room_state::Open,
        };
        Self {
            state: state as i32,
            has_null_allocator: room.has_null_allocator().into(),
            host_work: room.host_work(),
            ..Self::closed(&room.stats())
        }
    }
}

impl stateroom_room_stats {
    /// The final figures of a room that is gone.
    pub(crate) fn closed(stats: &RoomStats) -> Self {
        Self {
            size: size_of::<Self>(),
            state: stateroom_room_state::Closed as i32,
            has_null_allocator: 0,
            clients: stats.clients,
            waiting_events: stats.waiting_events,
            memory_bytes: stats.memory_bytes,
            instance_bytes: stats.instance_bytes,
            hibernated_bytes: stats.hibernated_bytes,
            events_handled: stats.events_handled,
            messages_in: stats.messages_in,
            messages_out: stats.messages_out,
            fuel_used: stats.fuel_used,
            host_work: 0,
            faults: stats.faults,
        }
    }
}

impl stateroom_host_stats {
    /// The figures of a host with these rooms.
    pub(crate) fn new<'a>(is_blocked: bool, rooms: impl Iterator<Item = &'a Room>) -> Self {
        let mut sums = Self {
            size: size_of::<Self>(),
            is_blocked: is_blocked.into(),
            rooms: 0,
            clients: 0,
            waiting_events: 0,
            memory_bytes: 0,
            instance_bytes: 0,
        };
        for stats in rooms.map(Room::stats) {
            sums.rooms += 1;
            sums.clients += stats.clients;
            sums.waiting_events += stats.waiting_events;
            sums.memory_bytes += stats.memory_bytes;
            sums.instance_bytes += stats.instance_bytes;
        }
        sums
    }
}

// SAFETY: it begins with its size, and consists of integers.
unsafe impl Versioned for stateroom_room_stats {}
// SAFETY: it begins with its size, and consists of integers.
unsafe impl Versioned for stateroom_host_stats {}
