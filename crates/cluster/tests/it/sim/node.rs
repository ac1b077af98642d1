//! A node: its membership, and the shards that it owns with their rooms.

use super::{
    client::Reply,
    nats::{Entry, Event, Nats, Record, RoomWrite},
    world::{ROOMS, room_shard},
};
use stateroom_wasmi_cluster::{
    Epoch, NodeId, Shard,
    protocol::{Appender, Gate, Limits, MAX_DEATHS, Membership, Needs, Note, Pending},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) membership: Membership,
    /// Of what it writes, and the last that it reads.
    pub(crate) version: u8,
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
    pub(crate) log: Appender<Record>,
    pub(crate) is_active: bool,
    pub(crate) is_releasing: bool,
    pub(crate) rooms: BTreeMap<usize, RoomState>,
    /// Rooms that are not restored yet.
    pub(crate) stored: BTreeMap<usize, RoomState>,
    /// Rooms that are in quarantine, or are about to be.
    pub(crate) condemned: BTreeSet<usize>,
    /// How many events the stored snapshots have, of rooms that are not in quarantine.
    pub(crate) saved: BTreeMap<usize, u64>,
    pub(crate) needs: Needs<usize>,
    /// Rooms of which the log says that they are restored.
    pub(crate) restoring: BTreeSet<usize>,
    /// What is noted with the next record.
    pub(crate) notes: Vec<(usize, Note)>,
    /// The next batch.
    pub(crate) next: Batch,
    limits: Limits,
    pub(crate) pending: Pending<u64, Vec<Event>, (usize, RoomWrite)>,
    /// How many batches there were, and those that are not durable.
    pub(crate) batches: u64,
    pub(crate) waiting: VecDeque<Waiting>,
    /// Of the request that is under way.
    pub(crate) request: u64,
    /// How often the record was refused.
    pub(crate) refused: u32,
}

/// What rooms do in one turn.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    pub(crate) rooms: Vec<(usize, RoomWrite)>,
    /// What is sent when it is durable, to which gateways.
    pub(crate) held: Vec<(usize, Reply)>,
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
    pub(crate) fn new(node: NodeId, epoch: Epoch, limits: Limits) -> Self {
        Self {
            epoch,
            log: Appender::new(node, epoch),
            is_active: false,
            is_releasing: false,
            rooms: BTreeMap::new(),
            stored: BTreeMap::new(),
            condemned: BTreeSet::new(),
            saved: BTreeMap::new(),
            needs: Needs::default(),
            restoring: BTreeSet::new(),
            notes: Vec::new(),
            next: Batch::default(),
            limits,
            pending: Pending::new(limits),
            batches: 0,
            waiting: VecDeque::new(),
            request: 0,
            refused: 0,
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
        let saved = self.rooms.iter().map(|(room, state)| (*room, state.events));
        self.saved = saved
            .filter(|(room, _)| !nats.quarantined.contains(room))
            .collect();
        let mut owner: Option<(NodeId, Epoch)> = None;
        let last = self.log.last();
        for (sequence, id, entries) in nats.records(shard, self.log.left().unwrap_or(last)..=last) {
            if let Some((node, epoch)) = owner
                && epoch < id.epoch
            {
                let is_mine = id.epoch == self.epoch;
                // It may also have been given by one that had not begun its own epoch.
                let has_given = was_given && epoch.next() == self.epoch;
                let has_not_ended = is_mine && (has_given || is_alive(node));
                let stopped = self.needs.suspects.begin_epoch(has_not_ended);
                self.notes.extend(stopped);
            }
            owner = Some((id.node, id.epoch));
            for entry in entries {
                let event = match entry {
                    Entry::Note(room, note) => {
                        self.needs.suspects.note(*room, *note, sequence);
                        continue;
                    }
                    Entry::Event(event) => event,
                };
                // Those of rooms in quarantine are kept beside the log.
                let saved = self.saved.get(&event.room).copied();
                let tails = &mut self.needs.tails;
                if !tails.add(event.room, event.event, sequence, saved) {
                    continue;
                }
                let room = self.rooms.get_mut(&event.room)?;
                if event.event > room.events || !room.apply(event.client, event.number) {
                    return None;
                }
            }
        }
        self.is_active = true;
        self.needs.is_read = true;
        let quarantined = nats.quarantined.iter();
        for room in quarantined.filter(|room| room_shard(**room) == shard) {
            self.needs.suspects.remove(room);
            self.needs.tails.remove(room);
            self.condemned.insert(*room);
        }
        for room in self.needs.suspects.convicted() {
            self.condemn(room);
        }
        let rooms: Vec<_> = self.rooms.keys().copied().collect();
        let mut unfinished = Vec::new();
        for room in rooms {
            let is_doubtful =
                self.needs.tails.first_of(&room).is_some() || self.needs.suspects.deaths(&room) > 0;
            if self.condemned.contains(&room) || is_doubtful {
                self.stored.extend(self.rooms.remove_entry(&room));
            }
            if is_doubtful && !self.condemned.contains(&room) {
                assert!(self.needs.suspects.deaths(&room) < MAX_DEATHS);
                unfinished.push(room);
            }
        }
        Some(unfinished)
    }

    /// Puts a room in quarantine with the next record.
    pub(crate) fn condemn(&mut self, room: usize) {
        if self.condemned.insert(room) {
            self.stored.extend(self.rooms.remove_entry(&room));
            self.next.rooms.push((room, RoomWrite::Quarantine));
        }
    }

    /// Notes that a room is about to be restored.
    pub(crate) fn restoring(&mut self, room: usize) {
        let deaths = self.needs.suspects.deaths(&room);
        self.notes.push((room, Note::Restoring { deaths }));
    }

    /// Handles a message of a client that came through a gateway.
    pub(crate) fn message(&mut self, gateway: usize, room: usize, client: usize, number: u64) {
        let state = self.rooms.get(&room);
        let last = state.and_then(|state| state.clients.get(&client));
        if number > last.map_or(0, |(last, _)| *last) + 1 {
            // The client has seen more than this owner knows: there is a later one.
            return;
        }
        let state = self.rooms.entry(room).or_insert_with(|| {
            let new = RoomState::default();
            self.next
                .rooms
                .push((room, RoomWrite::Snapshot(new.clone())));
            new
        });
        let event = state.events;
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
            self.next.held.push((gateway, reply));
        }
    }

    /// Whether something is not durable.
    pub(crate) fn has_some(&self) -> bool {
        !self.log.is_idle()
            || !self.notes.is_empty()
            || !self.next.is_empty()
            || !self.waiting.is_empty()
    }

    /// Ends the batch.
    pub(crate) fn push(&mut self) {
        let Batch {
            events,
            rooms,
            held,
        } = core::mem::take(&mut self.next);
        // Snapshots have one to three messages, and events a byte.
        let rooms = rooms.into_iter().map(|(room, write)| {
            let messages = match &write {
                RoomWrite::Snapshot(state) => 1 + state.count as usize % 3,
                RoomWrite::Quarantine => 1,
            };
            ((room, write), messages)
        });
        let pieces = events.chunks(self.limits.bytes);
        let pieces = pieces.map(|piece| (piece.to_vec(), piece.len()));
        let parts = self.pending.push(&self.batches, rooms, pieces);
        self.batches += 1;
        self.waiting.push_back(Waiting {
            left: parts,
            is_begun: false,
            held,
        });
    }

    /// Appends as much as a record can have.
    pub(crate) fn append(&mut self) {
        let mut record = Record {
            notes: core::mem::take(&mut self.notes),
            ..Record::default()
        };
        for part in self.pending.take(record.notes.len()) {
            record.events.extend(part.events);
            for (room, write) in part.rooms {
                record.rooms.retain(|(before, _)| *before != room);
                record.rooms.push((room, write));
            }
            record.parts.push(part.tag);
        }
        self.log.append(record);
    }

    /// Whether a part of a batch is durable, and another is not.
    pub(crate) fn is_split(&self) -> bool {
        self.waiting.front().is_some_and(|waiting| waiting.is_begun)
    }

    /// The first record that somebody needs when this one is stored, itself aside.
    pub(crate) fn first_needed(&self, record: Option<&Record>) -> Option<u64> {
        let rooms = record.into_iter().flat_map(|record| &record.rooms);
        let snapshots = rooms.map(|(room, write)| {
            let events = match write {
                RoomWrite::Snapshot(state) => state.events,
                RoomWrite::Quarantine => u64::MAX,
            };
            (*room, events)
        });
        self.needs.first_after(&self.log, snapshots)
    }

    /// A record is durable. Returns what is to be sent now.
    pub(crate) fn durable(&mut self, record: &Record) -> Vec<(usize, Reply)> {
        let sequence = self.log.last();
        let Needs {
            tails, suspects, ..
        } = &mut self.needs;
        for (room, note) in &record.notes {
            suspects.note(*room, *note, sequence);
            match note {
                Note::Restoring { .. } => self.restoring.insert(*room),
                Note::Stopped { .. } => self.restoring.remove(room),
            };
        }
        for (room, write) in &record.rooms {
            match write {
                RoomWrite::Snapshot(state) => {
                    self.saved.insert(*room, state.events);
                    tails.saved(room, state.events);
                }
                RoomWrite::Quarantine => {
                    self.saved.remove(room);
                    suspects.remove(room);
                    tails.remove(room);
                }
            }
        }
        for event in &record.events {
            let saved = self.saved.get(&event.room).copied();
            tails.add(event.room, event.event, sequence, saved);
        }
        let first = self.batches - self.waiting.len() as u64;
        for batch in &record.parts {
            let waiting = &mut self.waiting[(batch - first) as usize];
            waiting.left -= 1;
            waiting.is_begun = true;
        }
        let mut sent = Vec::new();
        while self.waiting.front().is_some_and(|it| it.left == 0)
            && let Some(waiting) = self.waiting.pop_front()
        {
            sent.extend(waiting.held);
        }
        sent
    }

    /// Adds snapshots of some rooms to the next record.
    pub(crate) fn save(&mut self, mut is_saved: impl FnMut() -> bool) {
        for (room, state) in &self.rooms {
            if is_saved() {
                self.next.rooms.retain(|(other, _)| other != room);
                let write = RoomWrite::Snapshot(state.clone());
                self.next.rooms.push((*room, write));
            }
        }
    }
}

/// A batch that is not durable.
pub(crate) struct Waiting {
    /// Parts that are not.
    left: usize,
    is_begun: bool,
    held: Vec<(usize, Reply)>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.rooms.is_empty() && self.held.is_empty()
    }
}

impl Node {
    /// Rooms of a shard, or of all, that are restored, or have been and that is not durable.
    pub(crate) fn restoring(&self, shard: Option<Shard>) -> Vec<usize> {
        let noted = |room: usize| {
            let owned = self.owned.get(&room_shard(room));
            owned.is_some_and(|owned| owned.restoring.contains(&room))
        };
        (0..ROOMS)
            .filter(|room| shard.is_none_or(|shard| room_shard(*room) == shard))
            .filter(|room| self.gate.is_open(room) || noted(*room))
            .collect()
    }

    /// Forgets a shard.
    pub(crate) fn end(&mut self, shard: Shard) {
        self.owned.remove(&shard);
        self.gate.remove(|room| room_shard(*room) == shard);
    }
}
