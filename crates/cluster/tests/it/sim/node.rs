//! A node: its membership, and the shards that it owns with their rooms.

use super::{
    client::Reply,
    nats::{Batch, Entry, Event, Nats},
    world::room_shard,
};
use stateroom_wasmi_cluster::{
    Epoch, NodeId, Shard,
    protocol::{Appender, Gate, MAX_DEATHS, Membership, Note, Suspects, Tails},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) membership: Membership,
    pub(crate) owned: BTreeMap<Shard, Owned>,
    /// Which rooms it restores.
    pub(crate) gate: Gate<usize>,
    /// Shards that it has claimed itself, and was not given.
    pub(crate) claimed: BTreeMap<Shard, Epoch>,
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
    /// Rooms that are not restored yet.
    pub(crate) stored: BTreeMap<usize, RoomState>,
    /// Rooms that are in quarantine, or are about to be.
    pub(crate) condemned: BTreeSet<usize>,
    pub(crate) suspects: Suspects<usize>,
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
            stored: BTreeMap::new(),
            condemned: BTreeSet::new(),
            suspects: Suspects::default(),
            tails: Tails::default(),
            next: Batch::default(),
            held_for_next: Vec::new(),
            held: Vec::new(),
            request: 0,
        }
    }

    /// Reads the rooms as of the record by which the epoch has begun. Returns those that are to be restored by
    /// the gate, or nothing if something is missing, which may be so if there is a later owner. The owner before
    /// has not ended if it has given the shard away, or `is_alive` says so.
    pub(crate) fn activate(
        &mut self,
        shard: Shard,
        nats: &Nats,
        was_given: bool,
        is_alive: impl Fn(NodeId) -> bool,
    ) -> Option<Vec<usize>> {
        let snapshots = nats.snapshots.iter();
        let own = snapshots.filter(|(room, _)| room_shard(**room) == shard);
        self.rooms = own.map(|(room, state)| (*room, state.clone())).collect();
        let mut owner: Option<(NodeId, Epoch)> = None;
        for (sequence, id, entries) in nats.records(shard, self.log.last()) {
            if let Some((node, epoch)) = owner
                && epoch < id.epoch
            {
                let is_mine = id.epoch == self.epoch;
                let has_not_ended = is_mine && (was_given || is_alive(node));
                let stopped = self.suspects.begin_epoch(has_not_ended);
                self.next.notes.extend(stopped);
            }
            owner = Some((id.node, id.epoch));
            for entry in entries {
                let event = match entry {
                    Entry::Note(room, note) => {
                        self.suspects.note(*room, *note, sequence);
                        continue;
                    }
                    // It is kept beside the log.
                    Entry::Event(event) if nats.quarantined.contains(&event.room) => continue,
                    Entry::Event(event) => event,
                };
                let room = self.rooms.entry(event.room).or_default();
                if event.event < room.events {
                    continue;
                }
                if event.event > room.events || !room.apply(event.client, event.number) {
                    return None;
                }
                self.tails.add(event.room, event.event, sequence);
            }
        }
        self.is_active = true;
        let quarantined = nats.quarantined.iter();
        for room in quarantined.filter(|room| room_shard(**room) == shard) {
            self.suspects.remove(room);
            self.tails.remove(room);
            self.condemned.insert(*room);
        }
        for room in self.suspects.convicted() {
            self.condemn(room);
        }
        let rooms: Vec<_> = self.rooms.keys().copied().collect();
        let mut unfinished = Vec::new();
        for room in rooms {
            let is_doubtful =
                self.tails.first_of(&room).is_some() || self.suspects.deaths(&room) > 0;
            if self.condemned.contains(&room) || is_doubtful {
                self.stored.extend(self.rooms.remove_entry(&room));
            }
            if is_doubtful && !self.condemned.contains(&room) {
                assert!(self.suspects.deaths(&room) < MAX_DEATHS);
                unfinished.push(room);
            }
        }
        Some(unfinished)
    }

    /// Puts a room in quarantine with the next record.
    pub(crate) fn condemn(&mut self, room: usize) {
        if self.condemned.insert(room) {
            self.stored.extend(self.rooms.remove_entry(&room));
            self.next.quarantines.push(room);
        }
    }

    /// Notes that a room is about to be restored.
    pub(crate) fn restoring(&mut self, room: usize) {
        let deaths = self.suspects.deaths(&room);
        self.next.notes.push((room, Note::Restoring { deaths }));
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
            || !self.next.notes.is_empty()
            || !self.next.quarantines.is_empty()
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

impl Node {
    /// Forgets a shard.
    pub(crate) fn end(&mut self, shard: Shard) {
        self.owned.remove(&shard);
        self.gate.remove(|room| room_shard(*room) == shard);
    }
}
