//! What the server counts and measures, and how that is written for Prometheus.

mod exposition;
mod fault_kind;
mod histogram;
mod http_counts;

pub(crate) use self::{exposition::Exposition, http_counts::HttpCounts};

use self::{fault_kind::FaultKind, histogram::Histogram};
use crate::rooms::client_counts::ClientCounts;
use core::{ops::AddAssign, time::Duration};
use hashbrown::HashMap;
use stateroom_wasmi_host::{Clock, Host, Room, RoomKey, RoomStats, Slice, Transport};
use std::{collections::BTreeMap, time::Instant};

/// What a worker counts while it runs: plain numbers, which nothing is shared for.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    pub(crate) clients: ClientCounts,
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
    faults: BTreeMap<FaultKind, u64>,
    upgrades: BTreeMap<Upgraded, u64>,
    slices: Histogram,
    events: Histogram,
    pub(crate) journal: Histogram,
    /// Sums over rooms that are gone, less what loaded rooms had done before.
    past_rooms: RoomTotals,
    /// When the present slice began.
    slice_began: Instant,
    /// Time that events have taken which are not over.
    unfinished: HashMap<RoomKey, Duration>,
}

/// Sums over rooms. They wrap around, so that what a loaded room had done before can be taken off first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoomTotals {
    rooms: u64,
    events: u64,
    fuel: u64,
    outputs: u64,
}

/// The metrics of a worker, or the sums of all of them.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    clients: ClientCounts,
    pub(crate) connections: usize,
    pub(crate) sessions: usize,
    messages_received: u64,
    bytes_received: u64,
    messages_sent: u64,
    bytes_sent: u64,
    pub(crate) queued_bytes: usize,
    faults: BTreeMap<FaultKind, u64>,
    upgrades: BTreeMap<Upgraded, u64>,
    slices: Histogram,
    events: Histogram,
    journal: Histogram,
    /// Batches that are not durable yet.
    pub(crate) journal_in_flight_bytes: usize,
    /// Rooms that wait to be restored.
    pub(crate) restoring: usize,
    totals: RoomTotals,
    /// By state.
    rooms: BTreeMap<&'static str, u64>,
    waiting_events: usize,
    memory_bytes: usize,
    instance_bytes: usize,
    hibernated_bytes: usize,
    busiest: Vec<BusyRoom>,
    /// At a node of a cluster.
    pub(crate) gateways: Option<GatewayMetrics>,
}

/// What became of a room when the module changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Upgraded {
    /// It goes on with the new module, and its state.
    Passed,
    /// It goes on with the module that it had.
    Kept,
    /// It began anew with the new module.
    Restarted,
}

impl Upgraded {
    const ALL: [Self; 3] = [Self::Passed, Self::Kept, Self::Restarted];

    /// As the metrics name it.
    fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Kept => "kept",
            Self::Restarted => "restarted",
        }
    }
}

/// What the gateways of a node count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GatewayMetrics {
    /// Clients that are forwarded.
    pub(crate) clients: usize,
    /// Those of them that have no connection to the node of their room now.
    pub(crate) waiting: usize,
    /// How often a client's session has gone on over another connection.
    pub(crate) resumed: u64,
}

impl AddAssign for GatewayMetrics {
    fn add_assign(&mut self, other: Self) {
        self.clients += other.clients;
        self.waiting += other.waiting;
        self.resumed += other.resumed;
    }
}

/// A room that has a series of its own.
#[derive(Clone, Debug)]
struct BusyRoom {
    id: String,
    stats: RoomStats,
}

impl WorkerMetrics {
    pub(crate) fn new() -> Self {
        Self {
            clients: ClientCounts::default(),
            messages_received: 0,
            bytes_received: 0,
            messages_sent: 0,
            bytes_sent: 0,
            faults: BTreeMap::new(),
            upgrades: BTreeMap::new(),
            slices: Histogram::default(),
            events: Histogram::default(),
            journal: Histogram::default(),
            past_rooms: RoomTotals::default(),
            slice_began: Instant::now(),
            unfinished: HashMap::new(),
        }
    }

    /// The rooms have their turn.
    pub(crate) fn begin_turn(&mut self) {
        self.slice_began = Instant::now();
    }

    /// The next slice has begun when this one ended: sending what the one before has sent is a part of it.
    pub(crate) fn slice_ended(&mut self, room: RoomKey, slice: &Slice<'_>) {
        let now = Instant::now();
        let took = now - self.slice_began;
        self.slice_began = now;
        self.slices.observe(took);
        if slice.is_event_over {
            // Few events take more than one slice.
            let before = match self.unfinished.is_empty() {
                true => None,
                false => self.unfinished.remove(&room),
            };
            self.events.observe(took + before.unwrap_or_default());
        } else {
            *self.unfinished.entry(room).or_default() += took;
        }
        if let Some(fault) = slice.fault {
            let kind = FaultKind::of(&fault.cause);
            *self.faults.entry(kind).or_default() += 1;
        }
    }

    /// How long guests have run.
    pub(crate) const fn guest_time(&self) -> Duration {
        self.slices.sum()
    }

    /// The module of a room changed, or was to change.
    pub(crate) fn upgraded(&mut self, result: Upgraded) {
        *self.upgrades.entry(result).or_default() += 1;
    }

    /// A room was loaded that had done this before: others have counted it.
    pub(crate) fn room_loaded(&mut self, stats: &RoomStats) {
        let before = RoomTotals::of(stats);
        let past = &mut self.past_rooms;
        past.events = past.events.wrapping_sub(before.events);
        past.fuel = past.fuel.wrapping_sub(before.fuel);
        past.outputs = past.outputs.wrapping_sub(before.outputs);
    }

    /// A room is gone.
    pub(crate) fn room_gone(&mut self, room: RoomKey, stats: &RoomStats) {
        self.past_rooms += RoomTotals::of(stats);
        self.unfinished.remove(&room);
    }
}

impl RoomTotals {
    fn of(stats: &RoomStats) -> Self {
        Self {
            rooms: 1,
            events: stats.events_handled,
            fuel: stats.fuel_used,
            outputs: stats.messages_out,
        }
    }
}

impl AddAssign for RoomTotals {
    fn add_assign(&mut self, other: Self) {
        self.rooms = self.rooms.wrapping_add(other.rooms);
        self.events = self.events.wrapping_add(other.events);
        self.fuel = self.fuel.wrapping_add(other.fuel);
        self.outputs = self.outputs.wrapping_add(other.outputs);
    }
}

impl Metrics {
    /// What a worker has counted.
    pub(crate) fn of_worker(worker: &WorkerMetrics) -> Self {
        Self {
            clients: worker.clients.clone(),
            messages_received: worker.messages_received,
            bytes_received: worker.bytes_received,
            messages_sent: worker.messages_sent,
            bytes_sent: worker.bytes_sent,
            faults: worker.faults.clone(),
            upgrades: worker.upgrades.clone(),
            slices: worker.slices.clone(),
            events: worker.events.clone(),
            journal: worker.journal.clone(),
            totals: worker.past_rooms,
            ..Self::default()
        }
    }

    /// What a gateway has counted, and the bytes in its queues. Who has joined and what was said is counted
    /// where the rooms are.
    pub(crate) fn of_gateway(gateway: GatewayMetrics, queued_bytes: usize) -> Self {
        Self {
            queued_bytes,
            gateways: Some(gateway),
            ..Self::default()
        }
    }

    /// Adds the open rooms of a host; the `busiest` of them that have used the most fuel one by one.
    pub(crate) fn add_rooms<C: Clock, T: Transport>(&mut self, host: &Host<C, T>, busiest: usize) {
        let mut rooms: Vec<(u64, &Room)> = Vec::new();
        for (_, room) in host.rooms() {
            let stats = room.stats();
            self.totals += RoomTotals::of(&stats);
            *self.rooms.entry(state_of(room)).or_default() += 1;
            self.waiting_events += stats.waiting_events;
            self.memory_bytes += stats.memory_bytes;
            self.instance_bytes += stats.instance_bytes;
            self.hibernated_bytes += stats.hibernated_bytes;
            if busiest > 0 {
                rooms.push((stats.fuel_used, room));
            }
        }
        if rooms.len() > busiest {
            rooms.select_nth_unstable_by_key(busiest, |(fuel, _)| core::cmp::Reverse(*fuel));
            rooms.truncate(busiest);
        }
        self.busiest = rooms
            .into_iter()
            .map(|(_, room)| BusyRoom {
                id: room.id().into(),
                stats: room.stats(),
            })
            .collect();
    }

    /// Adds rooms of a board, of which nothing else is known.
    #[cfg(feature = "board")]
    pub(crate) fn add_remote_rooms(&mut self, rooms: usize) {
        *self.rooms.entry("open").or_default() += rooms as u64;
    }

    /// Adds those of another worker, and keeps the `busiest` rooms of both.
    pub(crate) fn add(&mut self, other: Self, busiest: usize) {
        self.clients += other.clients;
        self.connections += other.connections;
        self.sessions += other.sessions;
        self.messages_received += other.messages_received;
        self.bytes_received += other.bytes_received;
        self.messages_sent += other.messages_sent;
        self.bytes_sent += other.bytes_sent;
        self.queued_bytes += other.queued_bytes;
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (result, count) in other.upgrades {
            *self.upgrades.entry(result).or_default() += count;
        }
        self.slices += other.slices;
        self.events += other.events;
        self.journal += other.journal;
        self.journal_in_flight_bytes += other.journal_in_flight_bytes;
        self.restoring += other.restoring;
        self.totals += other.totals;
        for (state, count) in other.rooms {
            *self.rooms.entry(state).or_default() += count;
        }
        self.waiting_events += other.waiting_events;
        self.memory_bytes += other.memory_bytes;
        self.instance_bytes += other.instance_bytes;
        self.hibernated_bytes += other.hibernated_bytes;
        if let Some(gateways) = other.gateways {
            *self.gateways.get_or_insert_default() += gateways;
        }
        self.busiest.extend(other.busiest);
        let fuel = |room: &BusyRoom| core::cmp::Reverse(room.stats.fuel_used);
        self.busiest.sort_by_key(fuel);
        self.busiest.truncate(busiest);
    }
}

/// The state of a room, as `/rooms` and the metrics name it.
pub(crate) fn state_of(room: &Room) -> &'static str {
    match room {
        // Ended, with messages still to be sent.
        room if room.is_closed() => "closed",
        // Its guest failed; a fresh one will be started.
        room if room.is_restarting() => "restarting",
        // Handling an event, or with events in its inbox.
        room if room.is_runnable() => "busy",
        // Its guest was replaced by its state until it is needed.
        room if room.is_hibernating() => "hibernating",
        // Idle.
        _ => "open",
    }
}
