//! One run: everything that happens, in the order of its time.

use super::{
    client::{Client, MESSAGES, Reply, Seen},
    nats::{Entry, Nats, Record, RoomWrite},
    node::{Node, Owned},
    poison::Poisons,
    random::Random,
};
use stateroom_wasmi_cluster::{
    Epoch, NodeId, Shard,
    protocol::{
        Action, Appended, CasResult, Gate, LastRecord, Limits, Load, MAX_DEATHS, Membership,
        MembershipOptions, Note, Owner, Phase, Placement, RecordId, Request, ShardState,
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

const SHARDS: usize = 4;
pub(crate) const ROOMS: usize = 6;
const MAX_NODES: usize = 4;

/// How long things go wrong, and how long it may take until all messages are counted when they do not.
const FAULTS_UNTIL: Duration = Duration::from_secs(12);
const END: Duration = Duration::from_secs(60);

const REQUEST_TIMEOUT: Duration = Duration::from_millis(400);
const CLIENT_TIMEOUT: Duration = Duration::from_millis(150);

pub(crate) fn room_shard(room: usize) -> Shard {
    Shard((room % SHARDS) as u8)
}

pub(crate) struct World {
    random: Random,
    /// Of a record.
    limits: Limits,
    now: Duration,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    nats: Nats,
    /// None if its process does not run.
    nodes: Vec<Option<Node>>,
    runs: u64,
    requests: u64,
    clients: Vec<Client>,
    seen: Seen,
    poisons: Poisons,
    /// Rooms of which a client was closed.
    closed: BTreeSet<usize>,
    /// Whether some nodes are of a later version than others.
    is_updated: bool,
    rebalance_after: Duration,
    coverage: BTreeMap<&'static str, usize>,
}

struct Queued {
    at: Duration,
    order: u64,
    event: WorldEvent,
}

enum WorldEvent {
    /// For a node, if that still runs.
    Node(usize, NodeId, NodeEvent),
    /// A request arrives at NATS.
    Nats(usize, NodeId, NatsRequest),
    /// A client has a reply, or sends again.
    Reply(Reply),
    Client(usize),
    Fault,
    Heal(Fault),
    Start(usize),
}

#[derive(Clone)]
pub(crate) enum NodeEvent {
    Timeout,
    Ping(NodeId, String, Phase, u8),
    Gone(NodeId),
    Owner(Shard, Option<Owner>, u64),
    /// The owner runs the rooms.
    Active(Shard, Owner),
    Placement(Shard, Option<Placement>, u64),
    Claimed(Shard, Epoch, CasResult),
    Transferred(Shard, Epoch, CasResult),
    Last(Shard, u64, Result<Option<LastRecord>, ()>),
    /// The last record is of this version, which the node cannot read.
    Unreadable(Shard, u64, u8),
    Appended(Shard, u64, Appended),
    /// A message from a gateway, or from a client of this one.
    Message(usize, usize, u64, u64),
    /// A room has done again what it had done before.
    Restored(Shard, Epoch, usize),
    /// A suspect is not loaded for long.
    Slow(Shard, Epoch, usize),
    /// A reply of an owner on its way to a client of this gateway.
    Reply(Reply),
}

enum NatsRequest {
    Claim(Shard, Owner, u64),
    Transfer(Shard, Owner, u64),
    ReadLast(Shard, u64),
    Append(Shard, u64, u64, RecordId, Option<u64>, u8, Option<Record>),
    Trim(Shard, u64),
    Ping(String, Phase, u8),
    /// Tells all nodes that this one runs the rooms of a shard.
    Active(Shard, Owner),
    Place(Shard, String, u64),
}

#[derive(Clone, Copy)]
enum Fault {
    Pause(usize, NodeId),
    CutOff(usize, NodeId),
    Drain(usize, NodeId),
    NatsDown,
    Refusal,
}

impl World {
    pub(crate) fn new(mut random: Random, with_poison: bool) -> Self {
        let poisons = match with_poison {
            true => Poisons::new(&mut random),
            false => Poisons::default(),
        };
        let limits = Limits {
            bytes: 1 + random.below(3),
            messages: 2 + random.below(4),
        };
        let is_updated = random.one_in(3);
        let rebalance_after = Duration::from_millis(100 << random.below(5));
        let mut world = Self {
            random,
            limits,
            is_updated,
            rebalance_after,
            now: Duration::from_secs(1),
            queue: BinaryHeap::new(),
            queued: 0,
            nats: Nats::new(SHARDS),
            nodes: Vec::new(),
            runs: 0,
            requests: 0,
            clients: Vec::new(),
            seen: Seen::default(),
            poisons,
            closed: BTreeSet::new(),
            coverage: BTreeMap::new(),
        };
        let nodes = 2 + world.random.below(MAX_NODES - 1);
        for slot in 0..nodes {
            world.nodes.push(None);
            let delay = world.random.micros(2_000_000);
            world.after(delay, WorldEvent::Start(slot));
        }
        for client in 0..2 * ROOMS {
            world.clients.push(Client {
                room: client % ROOMS,
                number: 1,
                gateway: client % nodes,
                sent_at: Duration::ZERO,
                deaths: 0,
            });
            world.after(Duration::from_secs(1), WorldEvent::Client(client));
        }
        world.after(Duration::from_secs(1), WorldEvent::Fault);
        world
    }

    /// Runs until all messages are counted.
    pub(crate) fn run(mut self) -> BTreeMap<&'static str, usize> {
        while self.clients.iter().any(|client| client.number <= MESSAGES) {
            let Some(Reverse(queued)) = self.queue.pop() else {
                panic!("nothing happens any more");
            };
            self.now = queued.at;
            assert!(
                self.now < END,
                "clients wait: {:?}",
                self.clients
                    .iter()
                    .map(|client| client.number)
                    .collect::<Vec<_>>()
            );
            self.handle(queued.event);
        }
        self.check_log();
        self.poisons.check(&self.ended_rooms());
        self.coverage
    }

    /// Rooms in quarantine, also if their clients were told so and then it did not become durable.
    fn ended_rooms(&self) -> BTreeSet<usize> {
        let quarantined = self.nats.quarantined.iter();
        quarantined.chain(&self.closed).copied().collect()
    }

    /// What is durable has each message once.
    fn check_log(&self) {
        let ended = self.ended_rooms();
        for shard in Shard::all().take(SHARDS) {
            let last = self.nats.last(shard).map_or(0, |last| last.sequence);
            let records = self.nats.records(shard, 0..=last);
            let events = records.flat_map(|(_, _, entries)| entries);
            let events: Vec<_> = events
                .filter_map(|entry| match entry {
                    Entry::Event(event) => Some(*event),
                    Entry::Note(..) => None,
                })
                .collect();
            let rooms = (0..ROOMS).filter(|room| room_shard(*room) == shard);
            // Of those in quarantine there is what came before.
            let rooms = rooms.filter(|room| !ended.contains(room));
            for room in rooms {
                let mut state = self.nats.snapshots[&room].clone();
                for event in events.iter().filter(|event| event.room == room) {
                    if event.event >= state.events {
                        assert_eq!(event.event, state.events, "an event of {room} is missing");
                        assert!(state.apply(event.client, event.number));
                    }
                }
                assert_eq!(state.count, 2 * MESSAGES, "room {room}");
            }
        }
    }

    fn after(&mut self, delay: Duration, event: WorldEvent) {
        self.queued += 1;
        self.queue.push(Reverse(Queued {
            at: self.now + delay,
            order: self.queued,
            event,
        }));
    }

    fn count(&mut self, point: &'static str) {
        *self.coverage.entry(point).or_insert(0) += 1;
    }

    fn are_faults_over(&self) -> bool {
        self.now > FAULTS_UNTIL
    }

    fn handle(&mut self, event: WorldEvent) {
        match event {
            WorldEvent::Node(slot, id, event) => {
                let Some(node) = self.nodes[slot].as_mut().filter(|node| node.id == id) else {
                    return;
                };
                if node.is_paused {
                    node.deferred.push(event);
                } else {
                    self.handle_node(slot, event);
                }
            }
            WorldEvent::Nats(slot, id, request) => self.handle_nats(slot, id, request),
            WorldEvent::Reply(reply) => self.handle_reply(reply),
            WorldEvent::Client(client) => self.client_sends(client),
            WorldEvent::Fault => self.fault(),
            WorldEvent::Heal(fault) => self.heal(fault),
            WorldEvent::Start(slot) => self.start(slot),
        }
    }

    // Clients.

    fn client_sends(&mut self, at: usize) {
        self.after(CLIENT_TIMEOUT / 2, WorldEvent::Client(at));
        let client = &mut self.clients[at];
        if client.number > MESSAGES || self.now < client.sent_at + CLIENT_TIMEOUT {
            return;
        }
        if client.sent_at > Duration::ZERO || self.nodes[client.gateway].is_none() {
            client.gateway = self.random.below(self.nodes.len());
        }
        self.send(at);
    }

    fn send(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.sent_at = self.now;
        let (gateway, room, number) = (client.gateway, client.room, client.number);
        let message = NodeEvent::Message(gateway, room, at as u64, number);
        if let Some(node) = &self.nodes[gateway] {
            let id = node.id;
            let delay = self.random.micros(2_000);
            self.after(delay, WorldEvent::Node(gateway, id, message));
        }
    }

    fn handle_reply(&mut self, reply: Reply) {
        self.seen.see(reply);
        let client = &mut self.clients[reply.client];
        if reply.number == client.number {
            client.number += 1;
            if client.number <= MESSAGES {
                // Spread over the time of the faults.
                client.sent_at = self.now + self.random.micros(600_000);
            }
        }
    }

    // Nodes.

    fn start(&mut self, slot: usize) {
        if self.nodes[slot].is_some() {
            return;
        }
        self.runs += 1;
        let id = NodeId(self.runs);
        // The first one is updated, and others may be.
        let is_late = self.is_updated && (slot == 0 || self.random.one_in(2));
        let version = 1 + u8::from(is_late);
        let options = MembershipOptions {
            shards: SHARDS,
            version,
            // Nodes come and go all the time, and shards are to be moved all the same.
            rebalance_after: self.rebalance_after,
            place_after: 2 * self.rebalance_after,
            ..MembershipOptions::new(&format!("node-{slot}"))
        };
        let clock_offset = self.random.micros(10_000_000);
        self.nodes[slot] = Some(Node {
            id,
            membership: Membership::new(id, options, self.now + clock_offset),
            version,
            owned: BTreeMap::new(),
            // Few, so that others wait.
            gate: Gate::new(3),
            claimed: BTreeMap::new(),
            clock_offset,
            is_cut_off: false,
            is_paused: false,
            deferred: Vec::new(),
        });
        self.read_directory(slot);
        let now = self.now + clock_offset;
        if let Some(node) = &mut self.nodes[slot] {
            node.membership.handle_directory_read(now);
        }
        self.after(
            Duration::ZERO,
            WorldEvent::Node(slot, id, NodeEvent::Timeout),
        );
    }

    /// What a watch of the directory delivers when it begins.
    fn read_directory(&mut self, slot: usize) {
        let now = self.now;
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        for shard in Shard::all().take(SHARDS) {
            let (owner, revision) = self.nats.owner(shard);
            let now = now + node.clock_offset;
            node.membership.handle_owner(shard, owner, revision, now);
            let (placement, revision) = self.nats.placement(shard);
            let membership = &mut node.membership;
            membership.handle_placement(shard, placement, revision, now);
        }
        self.act(slot);
    }

    fn handle_node(&mut self, slot: usize, event: NodeEvent) {
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        let (id, now) = (node.id, self.now + node.clock_offset);
        match event {
            NodeEvent::Timeout => {
                node.membership.handle_timeout(now);
                let delay = node.membership.poll_timeout().saturating_sub(now);
                let delay = delay + self.random.micros(1_000);
                self.after(delay, WorldEvent::Node(slot, id, NodeEvent::Timeout));
                self.write_ends(slot, true);
            }
            NodeEvent::Ping(other, name, phase, version) => {
                node.membership.handle_ping(other, &name, phase, now);
                node.membership.handle_version(other, version);
                // Who is busy says so when it is measured.
                let load = Load::default();
                node.membership.handle_load(other, load, false);
            }
            NodeEvent::Gone(other) => node.membership.handle_gone(other, now),
            NodeEvent::Owner(shard, owner, revision) => {
                node.membership.handle_owner(shard, owner, revision, now);
            }
            NodeEvent::Placement(shard, placement, revision) => {
                let membership = &mut node.membership;
                membership.handle_placement(shard, placement, revision, now);
            }
            NodeEvent::Active(shard, owner) => {
                node.membership.handle_active(shard, owner, now);
            }
            NodeEvent::Claimed(shard, epoch, result) => {
                node.membership.handle_claimed(shard, epoch, result, now);
            }
            NodeEvent::Transferred(shard, epoch, result) => {
                node.membership
                    .handle_transferred(shard, epoch, result, now);
            }
            NodeEvent::Last(shard, request, last) => {
                if let Some(owned) = node.owned.get_mut(&shard)
                    && owned.request == request
                {
                    let durable = owned.log.handle_last(last);
                    if let Ok(Some(last)) = last
                        && owned.log.is_fenced()
                    {
                        node.membership.handle_epoch(shard, last.id.epoch);
                    }
                    self.appended(slot, shard, durable);
                }
            }
            NodeEvent::Unreadable(shard, request, version) => {
                if let Some(owned) = node.owned.get(&shard)
                    && owned.request == request
                {
                    let epoch = owned.epoch;
                    // It is asked again in any case.
                    if owned.is_active {
                        node.membership.handle_fenced(shard, epoch, now);
                    } else {
                        node.membership
                            .handle_unreadable(shard, epoch, version, now);
                    }
                    self.count("unreadable");
                }
            }
            NodeEvent::Appended(shard, request, result) => {
                if let Some(owned) = node.owned.get_mut(&shard)
                    && owned.request == request
                {
                    match result {
                        Appended::Done(_) => owned.refused = 0,
                        Appended::Refused => owned.refused += 1,
                        Appended::WrongSequence | Appended::Unknown => {}
                    }
                    if owned.refused >= 5 && owned.is_active {
                        // It is given up: others must not wait for it.
                        let epoch = owned.epoch;
                        node.membership.handle_fenced(shard, epoch, now);
                        self.count("given up");
                    } else {
                        let durable = owned.log.handle_appended(result);
                        self.appended(slot, shard, durable);
                    }
                }
            }
            NodeEvent::Message(gateway, room, client, number) => {
                self.message(slot, gateway, room, client, number);
            }
            NodeEvent::Reply(reply) => {
                let delay = self.random.micros(2_000);
                self.after(delay, WorldEvent::Reply(reply));
            }
            NodeEvent::Restored(shard, epoch, room) => self.restored(slot, shard, epoch, room),
            NodeEvent::Slow(shard, epoch, room) => self.give_back(slot, shard, epoch, room),
        }
        self.act(slot);
    }

    /// Notes which rooms are restored next.
    fn open_gate(&mut self, slot: usize) {
        while let Some(node) = &mut self.nodes[slot]
            && let Some(room) = node.gate.poll()
        {
            let shard = room_shard(room);
            match node.owned.get_mut(&shard) {
                Some(owned) => owned.restoring(room),
                None => node.gate.remove(|other| *other == room),
            }
            self.write(slot, shard);
        }
    }

    /// A room is restored, unless that ends the process.
    fn restored(&mut self, slot: usize, shard: Shard, epoch: Epoch, room: usize) {
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        if let Some(owned) = node.owned.get_mut(&shard)
            && owned.epoch == epoch
            && node.gate.is_open(&room)
            && let Some(state) = owned.stored.get(&room)
        {
            if self.poisons.ends_restoration(room, state.count) {
                return self.dies_of(slot, room);
            }
            if owned.needs.suspects.deaths(&room) > 0 && self.poisons.has_some() {
                *self.coverage.entry("suspect restored").or_insert(0) += 1;
            }
            owned.rooms.extend(owned.stored.remove_entry(&room));
            owned.notes.push((room, Note::RESTORED));
            node.gate.end(room);
            self.count("restored");
            self.write_ends(slot, false);
        }
    }

    /// Has it written which rooms are restored.
    fn write_ends(&mut self, slot: usize, have_waited: bool) {
        let node = self.nodes[slot].as_mut();
        let ended = node.map(|node| node.gate.take_ended(have_waited));
        for room in ended.unwrap_or_default() {
            self.write(slot, room_shard(room));
        }
        self.open_gate(slot);
    }

    /// A suspect takes too long to load.
    fn give_back(&mut self, slot: usize, shard: Shard, epoch: Epoch, room: usize) {
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        if let Some(owned) = node.owned.get_mut(&shard)
            && owned.epoch == epoch
            && node.gate.give_back(room)
        {
            let deaths = owned.needs.suspects.deaths(&room);
            owned.notes.push((room, Note::Stopped { deaths }));
            self.count("given back");
            self.write(slot, shard);
        }
    }

    /// Goes on with what has waited for notes that are durable now.
    fn noted(&mut self, slot: usize, shard: Shard, notes: &[(usize, Note)]) {
        for (room, note) in notes {
            let Some(node) = &mut self.nodes[slot] else {
                return;
            };
            let Some(owned) = node.owned.get_mut(&shard) else {
                return;
            };
            match note {
                Note::Restoring { deaths } => {
                    let is_slow = *deaths > 0 && self.poisons.has_some() && self.random.one_in(5);
                    let event = match is_slow {
                        true => NodeEvent::Slow(shard, owned.epoch, *room),
                        false => NodeEvent::Restored(shard, owned.epoch, *room),
                    };
                    let id = node.id;
                    let delay = self.random.micros(20_000);
                    self.after(delay, WorldEvent::Node(slot, id, event));
                }
                Note::Stopped { .. } => node.gate.end_is_durable(*room),
            }
        }
        self.open_gate(slot);
    }

    /// A node ends of what is in one of its rooms.
    fn dies_of(&mut self, slot: usize, room: usize) {
        self.count("ended by a room");
        self.poisons.has_ended_one(room);
        self.kill(slot, Some(room));
    }

    fn message(&mut self, slot: usize, gateway: usize, room: usize, client: u64, number: u64) {
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        let shard = room_shard(room);
        if node.membership.state(shard) == ShardState::Active
            && let Some(owned) = node.owned.get_mut(&shard)
            && owned.is_active
        {
            let sender = &mut self.clients[client as usize];
            if sender.deaths >= MAX_DEATHS {
                owned.condemn(room);
            }
            if owned.condemned.contains(&room) {
                self.closed.insert(room);
                sender.number = MESSAGES + 1;
                return self.write(slot, shard);
            }
            if owned.stored.contains_key(&room) {
                // It waits, and sends again.
                return;
            }
            if self.poisons.ends_message(room, client as usize, number) {
                sender.deaths += 1;
                return self.dies_of(slot, room);
            }
            owned.message(gateway, room, client as usize, number);
            self.write(slot, shard);
            return;
        }
        if gateway != slot {
            return;
        }
        let owner = node
            .membership
            .owner(shard)
            .filter(|owner| *owner != node.id);
        if let Some(owner) = owner {
            let message = NodeEvent::Message(gateway, room, client, number);
            self.send_to(owner, message);
            self.count("forwarded");
        }
    }

    /// Sends something to a node directly, not over NATS.
    fn send_to(&mut self, to: NodeId, event: NodeEvent) {
        let slot = self
            .nodes
            .iter()
            .position(|node| node.as_ref().is_some_and(|node| node.id == to));
        if let Some(slot) = slot
            && !self.random.one_in(200)
        {
            let delay = self.random.micros(2_000);
            self.after(delay, WorldEvent::Node(slot, to, event));
        }
    }

    /// Passes what has come to the log, if that is idle.
    fn write(&mut self, slot: usize, shard: Shard) {
        let (saves, ends) = (self.random.one_in(8), self.random.one_in(3));
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        let Some(owned) = node.owned.get_mut(&shard) else {
            return;
        };
        let is_idle = owned.log.is_idle();
        if owned.is_active && !owned.next.is_empty() && (is_idle || ends) {
            if saves {
                let random = &mut self.random;
                owned.save(|| !random.one_in(3));
            }
            owned.push();
        }
        let has_some = !owned.notes.is_empty() || !owned.pending.is_empty();
        if owned.is_active && is_idle && has_some {
            owned.append();
        }
        self.drive(slot, shard);
    }

    /// Does what the log's appender asks for.
    fn drive(&mut self, slot: usize, shard: Shard) {
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        let Some(owned) = node.owned.get_mut(&shard) else {
            return;
        };
        let (node_id, epoch, version) = (node.id, owned.epoch, node.version);
        self.requests += 1;
        let number = self.requests;
        if owned.log.is_fenced() {
            let now = self.now + node.clock_offset;
            if owned.is_active {
                self.poisons.disturb(node.restoring(Some(shard)), None);
                node.membership.handle_fenced(shard, epoch, now);
            } else {
                node.end(shard);
                node.membership.handle_acquired(shard, epoch, false, now);
            }
            self.count("fenced");
            return;
        }
        let (request, timeout) = match owned.log.poll() {
            None => return,
            Some(Request::ReadLast) => (
                NatsRequest::ReadLast(shard, number),
                NodeEvent::Last(shard, number, Err(())),
            ),
            Some(Request::Append {
                expected,
                id,
                payload,
            }) => {
                let record = payload.cloned();
                let needed = owned.first_needed(record.as_ref());
                (
                    NatsRequest::Append(shard, number, expected, id, needed, version, record),
                    NodeEvent::Appended(shard, number, Appended::Unknown),
                )
            }
        };
        owned.request = number;
        self.request(slot, request);
        self.after(REQUEST_TIMEOUT, WorldEvent::Node(slot, node_id, timeout));
    }

    /// The log's appender has had an answer.
    fn appended(&mut self, slot: usize, shard: Shard, durable: Option<Option<Record>>) {
        let now = self.now;
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        let now = now + node.clock_offset;
        let Some(owned) = node.owned.get_mut(&shard) else {
            return;
        };
        match durable {
            None => {}
            // The epoch has begun.
            Some(None) => {
                let epoch = owned.epoch;
                let was_given = node.claimed.get(&shard) != Some(&epoch);
                let membership = &node.membership;
                let is_alive = |node| membership.nodes().any(|(other, _)| other == node);
                let unfinished = owned.activate(shard, &self.nats, was_given, is_alive);
                for (room, _) in &owned.notes {
                    self.poisons.take_for_alive(*room);
                }
                if let Some(unfinished) = unfinished {
                    for room in unfinished {
                        node.gate.push(room, owned.needs.suspects.deaths(&room));
                    }
                    node.membership.handle_acquired(shard, epoch, true, now);
                    let node = node.id;
                    self.request(slot, NatsRequest::Active(shard, Owner { node, epoch }));
                    self.open_gate(slot);
                } else {
                    let last = self.nats.last(shard).map(|last| last.id.node);
                    assert_ne!(last, Some(node.id), "an event is missing");
                    node.end(shard);
                    node.membership.handle_acquired(shard, epoch, false, now);
                }
            }
            Some(Some(record)) => {
                let sent = owned.durable(&record);
                let deletable = owned.needs.deletable(&owned.log);
                let (is_split, is_merged) = (owned.is_split(), record.parts.len() > 1);
                for (gateway, reply) in sent {
                    if let Some(node) = &self.nodes[gateway] {
                        let id = node.id;
                        self.send_to(id, NodeEvent::Reply(reply));
                    }
                }
                let is_quarantined = |(_, write): &_| matches!(write, RoomWrite::Quarantine);
                let quarantines = record.rooms.iter().filter(|it| is_quarantined(it)).count();
                if record.rooms.len() > quarantines {
                    self.count("saved");
                    let deletable = deletable.expect("all was read");
                    self.request(slot, NatsRequest::Trim(shard, deletable));
                }
                // Of others it is rare: see what is checked in the end.
                if quarantines > 0 && self.poisons.has_some() {
                    self.count("quarantined");
                }
                if is_split {
                    self.count("split");
                }
                if is_merged {
                    self.count("put together");
                }
                self.noted(slot, shard, &record.notes);
            }
        }
        self.write(slot, shard);
        self.finish_release(slot, shard);
    }

    /// Gives a shard away when all of it is durable.
    fn finish_release(&mut self, slot: usize, shard: Shard) {
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        let Some(owned) = node.owned.get_mut(&shard) else {
            return;
        };
        if owned.is_releasing && (!owned.is_active || !owned.has_some()) {
            let epoch = owned.epoch;
            node.end(shard);
            node.membership.handle_released(shard, epoch);
        }
    }

    /// Does what the membership asks for.
    fn act(&mut self, slot: usize) {
        while let Some(node) = &mut self.nodes[slot]
            && let Some(action) = node.membership.poll_action()
        {
            let id = node.id;
            match action {
                Action::Ping(phase) => {
                    let name = format!("node-{slot}");
                    let version = node.version;
                    self.request(slot, NatsRequest::Ping(name, phase, version));
                }
                Action::Claim {
                    shard,
                    epoch,
                    revision,
                } => {
                    node.claimed.insert(shard, epoch);
                    self.count("claimed");
                    let owner = Owner { node: id, epoch };
                    self.request(slot, NatsRequest::Claim(shard, owner, revision));
                    let unknown = NodeEvent::Claimed(shard, epoch, CasResult::Failed);
                    self.after(REQUEST_TIMEOUT, WorldEvent::Node(slot, id, unknown));
                }
                Action::Acquire { shard, epoch } => {
                    node.end(shard);
                    node.owned.insert(shard, Owned::new(id, epoch, self.limits));
                    self.drive(slot, shard);
                }
                Action::Release { shard, .. } => {
                    if let Some(owned) = node.owned.get_mut(&shard) {
                        owned.is_releasing = true;
                        owned.save(|| true);
                        // Those that are being restored are given up.
                        for room in owned.stored.keys().filter(|room| node.gate.is_open(room)) {
                            self.poisons.give_up(*room);
                            owned.notes.push((*room, Note::RESTORED));
                        }
                        node.gate.remove(|room| room_shard(*room) == shard);
                    }
                    self.write(slot, shard);
                    self.finish_release(slot, shard);
                }
                Action::Transfer {
                    shard,
                    to,
                    epoch,
                    revision,
                } => {
                    let (version, may_stay) = (node.version, node.membership.phase() == Phase::Up);
                    let next = self
                        .nodes
                        .iter()
                        .flatten()
                        .find(|it| it.id == to)
                        .map_or(version, |it| it.version);
                    assert!(!may_stay || next >= version, "it cannot be read there");
                    self.count("transferred");
                    let owner = Owner { node: to, epoch };
                    self.request(slot, NatsRequest::Transfer(shard, owner, revision));
                    let unknown = NodeEvent::Transferred(shard, epoch, CasResult::Failed);
                    self.after(REQUEST_TIMEOUT, WorldEvent::Node(slot, id, unknown));
                }
                Action::Place {
                    shard,
                    node,
                    revision,
                } => self.request(slot, NatsRequest::Place(shard, node, revision)),
                Action::Abandon { shard } => {
                    self.poisons.disturb(node.restoring(Some(shard)), None);
                    node.end(shard);
                    self.count("abandoned");
                }
            }
        }
    }

    // NATS.

    /// Sends a request to NATS, which may not arrive, or arrive late.
    fn request(&mut self, slot: usize, request: NatsRequest) {
        let Some(node) = &self.nodes[slot] else {
            return;
        };
        let id = node.id;
        if node.is_cut_off || self.nats.is_down {
            return;
        }
        let is_late = !self.are_faults_over() && self.random.one_in(100);
        let delay = match is_late {
            true => self.random.micros(3_000_000),
            false => self.random.micros(3_000),
        };
        self.after(delay, WorldEvent::Nats(slot, id, request));
    }

    /// Sends something from NATS to a node, which may get lost.
    fn answer(&mut self, slot: usize, id: NodeId, event: NodeEvent) {
        let is_connected = |node: &Node| node.id == id && !node.is_cut_off;
        if !self.nodes[slot].as_ref().is_some_and(is_connected) || self.nats.is_down {
            return;
        }
        if !self.are_faults_over() && self.random.one_in(100) {
            self.count("lost");
            return;
        }
        let delay = self.random.micros(3_000);
        self.after(delay, WorldEvent::Node(slot, id, event));
    }

    /// The same to all nodes.
    fn answer_all(&mut self, event: &NodeEvent) {
        for slot in 0..self.nodes.len() {
            if let Some(node) = &self.nodes[slot] {
                self.answer(slot, node.id, event.clone());
            }
        }
    }

    fn handle_nats(&mut self, slot: usize, id: NodeId, request: NatsRequest) {
        let event = match request {
            NatsRequest::Claim(shard, owner, revision) => {
                let result = self.set_owner(shard, owner, revision);
                NodeEvent::Claimed(shard, owner.epoch, result)
            }
            NatsRequest::Transfer(shard, owner, revision) => {
                let result = self.set_owner(shard, owner, revision);
                NodeEvent::Transferred(shard, owner.epoch, result)
            }
            NatsRequest::ReadLast(shard, request) => {
                let last = self.nats.stale_last(shard, &mut self.random);
                let can_read = self.nodes[slot].as_ref().map_or(0, |node| node.version);
                let version = last.map(|last| self.nats.version(shard, &last));
                match version.filter(|version| *version > can_read) {
                    Some(version) => NodeEvent::Unreadable(shard, request, version),
                    None => NodeEvent::Last(shard, request, Ok(last)),
                }
            }
            NatsRequest::Append(shard, request, expected, id, needed, version, record) => {
                // Epochs begin rarely, so that is to go wrong more often.
                let lies = if record.is_some() { 300 } else { 10 };
                let mut result = self
                    .nats
                    .append(shard, expected, id, needed, version, record);
                if result == Appended::WrongSequence {
                    self.count("wrong sequence");
                } else if self.random.one_in(lies) {
                    // NATS has said so of records that it has stored.
                    result = Appended::WrongSequence;
                }
                NodeEvent::Appended(shard, request, result)
            }
            NatsRequest::Trim(shard, before) => {
                self.nats.trim(shard, before);
                return;
            }
            NatsRequest::Ping(name, phase, version) => {
                self.answer_all(&NodeEvent::Ping(id, name, phase, version));
                return;
            }
            NatsRequest::Place(shard, name, revision) => {
                let placement = Placement {
                    node: name,
                    is_pinned: false,
                };
                let placed = self.nats.place(shard, placement.clone(), revision);
                if let Some(revision) = placed {
                    self.count("placed");
                    let placed = NodeEvent::Placement(shard, Some(placement), revision);
                    self.tell_all(placed);
                }
                return;
            }
            NatsRequest::Active(shard, owner) => {
                self.answer_all(&NodeEvent::Active(shard, owner));
                return;
            }
        };
        self.answer(slot, id, event);
    }

    fn set_owner(&mut self, shard: Shard, owner: Owner, revision: u64) -> CasResult {
        let result = self.nats.set_owner(shard, owner, revision);
        match result {
            CasResult::Failed => self.count("claim refused"),
            CasResult::Done(revision) => {
                self.tell_all(NodeEvent::Owner(shard, Some(owner), revision));
            }
        }
        result
    }

    /// The directory has something new.
    fn tell_all(&mut self, event: NodeEvent) {
        for slot in 0..self.nodes.len() {
            // Those that are cut off read all of it when they are back.
            let Some(node) = &self.nodes[slot] else {
                continue;
            };
            let (id, is_cut_off) = (node.id, node.is_cut_off);
            if !is_cut_off {
                let is_late = self.random.one_in(3);
                let most = if is_late { 2_000_000 } else { 20_000 };
                let delay = self.random.micros(most);
                self.after(delay, WorldEvent::Node(slot, id, event.clone()));
            }
        }
    }

    // Faults.

    fn fault(&mut self) {
        let delay = Duration::from_millis(50) + self.random.micros(1_500_000);
        if self.now + delay < FAULTS_UNTIL {
            self.after(delay, WorldEvent::Fault);
        }
        let slot = self.random.below(self.nodes.len());
        let heals_in = self.random.micros(2_500_000);
        let kind = self.random.below(9);
        let now = self.now;
        let Some(node) = &mut self.nodes[slot] else {
            return;
        };
        let (id, node_now) = (node.id, now + node.clock_offset);
        match kind {
            0 => {
                self.kill(slot, None);
                self.count("killed");
            }
            1 => {
                node.is_paused = true;
                self.count("paused");
                self.after(heals_in, WorldEvent::Heal(Fault::Pause(slot, id)));
            }
            2 => {
                node.is_cut_off = true;
                self.count("cut off");
                self.after(heals_in, WorldEvent::Heal(Fault::CutOff(slot, id)));
            }
            3 => {
                node.clock_offset += heals_in * 4;
                self.count("clock jumped");
            }
            4 => {
                node.membership.drain(node_now);
                self.act(slot);
                self.count("drained");
                self.after(heals_in, WorldEvent::Heal(Fault::Drain(slot, id)));
            }
            5 => {
                // A message that is wrong: the node is there.
                for other in 0..self.nodes.len() {
                    if let Some(node) = &self.nodes[other]
                        && other != slot
                        && self.random.one_in(3)
                    {
                        let to = node.id;
                        self.after(
                            Duration::ZERO,
                            WorldEvent::Node(other, to, NodeEvent::Gone(id)),
                        );
                    }
                }
                self.count("said to be gone");
            }
            6 => {
                if self.nats.refuses.is_none() {
                    self.nats.refuses = Some(Shard(self.random.below(SHARDS) as u8));
                    self.count("refused");
                    self.after(heals_in / 2, WorldEvent::Heal(Fault::Refusal));
                }
            }
            7 => {
                // All of the time of its threads, shared by its shards.
                let shards = Shard::all().take(SHARDS);
                let active = shards.filter(|it| node.membership.state(*it) == ShardState::Active);
                let active: Vec<_> = active.collect();
                let busy = |processor| Load {
                    processor,
                    ..Load::default()
                };
                let each = busy(1_000_000 / active.len().max(1) as u32);
                let loads: Vec<_> = active.iter().map(|shard| (*shard, each)).collect();
                let membership = &mut node.membership;
                membership.handle_measured(busy(1_000_000), &loads, node_now);
                self.act(slot);
            }
            _ => {
                if !self.nats.is_down {
                    self.nats.is_down = true;
                    self.count("NATS down");
                    self.after(heals_in / 2, WorldEvent::Heal(Fault::NatsDown));
                }
            }
        }
    }

    /// Ends a process, which starts again later.
    fn kill(&mut self, slot: usize, by: Option<usize>) {
        let Some(node) = self.nodes[slot].take() else {
            return;
        };
        self.poisons.disturb(node.restoring(None), by);
        let id = node.id;
        // Others may notice at once.
        if self.random.one_in(2) {
            for other in 0..self.nodes.len() {
                if let Some(node) = &self.nodes[other] {
                    let to = node.id;
                    let delay = self.random.micros(50_000);
                    self.after(delay, WorldEvent::Node(other, to, NodeEvent::Gone(id)));
                }
            }
        }
        let delay = self.random.micros(2_500_000);
        self.after(delay, WorldEvent::Start(slot));
    }

    fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::Pause(slot, id) => {
                if let Some(node) = &mut self.nodes[slot]
                    && node.id == id
                {
                    node.is_paused = false;
                    for event in core::mem::take(&mut node.deferred) {
                        self.after(Duration::ZERO, WorldEvent::Node(slot, id, event));
                    }
                }
            }
            Fault::CutOff(slot, id) => {
                if let Some(node) = &mut self.nodes[slot]
                    && node.id == id
                {
                    node.is_cut_off = false;
                    self.read_directory(slot);
                }
            }
            // It ends whether it is empty by then or not.
            Fault::Drain(slot, id) => {
                if let Some(node) = &self.nodes[slot]
                    && node.id == id
                {
                    self.poisons.disturb(node.restoring(None), None);
                    if node.membership.is_empty() {
                        self.count("drained to the end");
                    }
                    self.nodes[slot] = None;
                    let delay = self.random.micros(500_000);
                    self.after(delay, WorldEvent::Start(slot));
                }
            }
            Fault::NatsDown => self.nats.is_down = false,
            Fault::Refusal => self.nats.refuses = None,
        }
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
