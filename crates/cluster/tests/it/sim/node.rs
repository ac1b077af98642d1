//! A node: its membership, and the shards that it owns with their rooms.

use super::{
    client::Reply,
    nats::{Batch, Event, Nats},
    world::room_shard,
};
use stateroom_wasmi_cluster::{
    Epoch, NodeId, Shard,
    protocol::{Appender, Membership, Tails},
};
use std::{collections::BTreeMap, time::Duration};

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) membership: Membership,
    pub(crate) owned: BTreeMap<Shard, Owned>,
    /// How far its clock is ahead.
    pub(crate) clock_offset: Duration,
    /// Whether it cannot reach NATS.
    pub(crate) is_cut_off: bool,
    /// Whether it is stopped; what comes meanwhile.
    pub(crate) is_paused: bool,
    pub(crate) deferred: Vec<super::world::NodeEvent>,
}

/// A shard that a node owns, or has begun to.
pub(crate) struct Owned {
    pub(crate) epoch: Epoch,
    pub(crate) log: Appender<Batch>,
    pub(crate) is_active: bool,
    pub(crate) is_releasing: bool,
    pub(crate) rooms: BTreeMap<usize, RoomState>,
    pub(crate) tails: Tails<usize>,
    /// What the next record will have, and what is sent when it is durable.
    pub(crate) next: Batch,
    pub(crate) held_for_next: Vec<(usize, Reply)>,
    pub(crate) held: Vec<(usize, Reply)>,
    /// Of the request that is under way.
    pub(crate) request: u64,
}

/// A room: for each client the last message with the count at which it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoomState {
    pub(crate) events: u64,
    pub(crate) count: u64,
    pub(crate) clients: BTreeMap<usize, (u64, u64)>,
}

impl RoomState {
    /// Counts a message, unless it came before.
    pub(crate) fn apply(&mut self, client: usize, number: u64) -> bool {
        let last = self.clients.get(&client).map_or(0, |(last, _)| *last);
        if number <= last {
            return false;
        }
        assert_eq!(number, last + 1, "a message is missing");
        self.events += 1;
        self.count += 1;
        self.clients.insert(client, (number, self.count));
        true
    }
}

impl Owned {
    pub(crate) fn new(node: NodeId, epoch: Epoch) -> Self {
        Self {
            epoch,
            log: Appender::new(node, epoch),
            is_active: false,
            is_releasing: false,
            rooms: BTreeMap::new(),
            tails: Tails::default(),
            next: Batch::default(),
            held_for_next: Vec::new(),
            held: Vec::new(),
            request: 0,
        }
    }

    /// Restores the rooms as of the record by which the epoch has begun. Returns false if something is
    /// missing, which may be so if there is a later owner.
    pub(crate) fn restore(&mut self, shard: Shard, nats: &Nats) -> bool {
        let snapshots = nats.snapshots.iter();
        let own = snapshots.filter(|(room, _)| room_shard(**room) == shard);
        self.rooms = own.map(|(room, state)| (*room, state.clone())).collect();
        for (sequence, event) in nats.events(shard, self.log.last()) {
            let room = self.rooms.entry(event.room).or_default();
            if event.event < room.events {
                continue;
            }
            if event.event > room.events || !room.apply(event.client, event.number) {
                return false;
            }
            self.tails.add(event.room, event.event, sequence);
        }
        self.is_active = true;
        true
    }

    /// Handles a message of a client that came through a gateway.
    pub(crate) fn message(&mut self, gateway: usize, room: usize, client: usize, number: u64) {
        let state = self.rooms.entry(room).or_default();
        let event = state.events;
        let last = state.clients.get(&client).map_or(0, |(last, _)| *last);
        if number > last + 1 {
            // The client has seen more than this owner knows: there is a later one.
            return;
        }
        if state.apply(client, number) {
            self.next.events.push(Event {
                room,
                event,
                client,
                number,
            });
        }
        let (last, count) = state.clients[&client];
        if last == number {
            let reply = Reply {
                room,
                client,
                number,
                count,
            };
            self.held_for_next.push((gateway, reply));
        }
    }

    /// Whether there is something for the next record.
    pub(crate) fn has_next(&self) -> bool {
        !self.next.events.is_empty()
            || !self.next.snapshots.is_empty()
            || !self.held_for_next.is_empty()
    }

    /// Adds snapshots of some rooms to the next record.
    pub(crate) fn save(&mut self, mut is_saved: impl FnMut() -> bool) {
        for (room, state) in &self.rooms {
            if is_saved() {
                self.next.snapshots.retain(|(other, _)| other != room);
                self.next.snapshots.push((*room, state.clone()));
            }
        }
    }
}
