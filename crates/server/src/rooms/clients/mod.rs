//! The clients of a worker's rooms, and the transport to them.

mod journaled;
mod resuming;

use crate::{
    config::ServerConfig,
    metrics::{Metrics, WorkerMetrics},
    rooms::{
        JoinRejection, LATE, MOVED, Order, REPLACED,
        journaling::{Journaling, RoomLog},
        sessions::{Session, SessionCounts, SessionLimits},
        stored_clients::Credentials,
        tokens::{TokenHasher, Tokens},
        watches::Watches,
    },
    ws::{
        connection::{Connection, ConnectionKey},
        send_queue::{QueueFull, QueueLimits, QueuedBytes, SendQueue, SharedFrame},
    },
};
use core::{convert::Infallible, time::Duration};
use hashbrown::HashMap;
use slotmap::SlotMap;
use stateroom_wasmi_host::{
    ClientId, Event, EventRecord, Instant as HostTime, MessagePayload, MessageRecipient,
    OutputMessage, RecordedEvent, RoomKey, SendError, Slice, Transport,
};
use stateroom_wasmi_resume::WindowFull;
use std::collections::VecDeque;
use tokio::time::Instant;

/// The connections of a worker and the clients of its rooms, as their transport.
pub(crate) struct Clients {
    connections: SlotMap<ConnectionKey, Connection>,
    rooms: HashMap<RoomKey, RoomClients>,
    hasher: TokenHasher,
    limits: ClientLimits,
    /// Bytes in the queues of all connections, also of those that are closing.
    queued: QueuedBytes,
    /// Connections with something new in their queues.
    dirty: VecDeque<ConnectionKey>,
    /// Clients that were disconnected for their queues, or whose sessions have ended; their rooms get a
    /// disconnect.
    removed: Vec<(RoomKey, ClientId)>,
    /// Sessions without a connection, by the time when they end, with the number of the absence. In order,
    /// since the time is constant.
    absent: VecDeque<(HostTime, RoomKey, ClientId, u64)>,
    /// Numbers sessions and absences.
    last_number: u64,
    session_counts: SessionCounts,
    pub(crate) metrics: WorkerMetrics,
    /// What sending has cost, until the host asks; see [`Transport::take_cost`].
    cost: u64,
    /// What the rooms write into the journal, if there is one.
    pub(crate) journaling: Option<Journaling>,
    /// The time of the host's present turn.
    pub(crate) now: HostTime,
    pub(crate) watches: Watches,
}

/// The limits of a worker's clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLimits {
    /// Tokens that a room remembers.
    pub(crate) max_tokens: usize,
    /// Bytes that may be queued for all of the worker's clients.
    pub(crate) max_queued_bytes: usize,
    /// Messages and bytes that may be queued for one client.
    pub(crate) of_queue: QueueLimits,
    /// What is kept of a session.
    pub(crate) of_session: SessionLimits,
    /// Sessions in all and of one address, as of connections; beyond, those end that have been without a
    /// connection for the longest time.
    pub(crate) sessions: usize,
    pub(crate) sessions_per_address: usize,
    /// How long a session has no connection before it ends.
    pub(crate) resume_window: Duration,
    /// What the wall clocks of nodes may differ, in microseconds.
    pub(crate) clock_skew: u64,
}

impl ClientLimits {
    /// A worker's share.
    pub(crate) fn of_worker(config: &ServerConfig) -> Self {
        let workers = config.workers.max(1);
        let mut shares = workers;
        let mut of_session = SessionLimits {
            messages: config.max_resume_messages,
            bytes: config.max_resume_bytes,
        };
        if config.directory.is_some() {
            // As many gateways as workers.
            shares += workers;
        }
        let has_gateways = config.directory.is_some() || config.leaf.is_some();
        if has_gateways {
            // Sessions of gateways stand for queues of clients.
            of_session.messages = of_session.messages.max(config.max_queued_messages);
            of_session.bytes = of_session.bytes.max(config.max_queued_bytes);
        }
        Self {
            max_tokens: config.max_tokens,
            max_queued_bytes: config.max_total_queued_bytes / shares,
            of_queue: QueueLimits::new(config),
            of_session,
            sessions: config.max_connections,
            sessions_per_address: config.max_connections_per_address,
            resume_window: config.resume_window,
            clock_skew: if has_gateways { MAX_CLOCK_SKEW } else { 0 },
        }
    }
}

#[derive(Debug, Default)]
struct RoomClients {
    /// In the order of their ids.
    connected: Vec<Client>,
    /// Clients whose disconnects the room was given and has not handled, in order. One of them may be
    /// connected again: what the room sends until then is for its earlier connection.
    leaving: VecDeque<ClientId>,
    last_id: u32,
    tokens: Tokens,
    /// If its tokens are hashed with the secret of the server that it came from.
    hasher: Option<Box<TokenHasher>>,
    /// Whether it is on its way to or from another server.
    is_held: bool,
    /// What the room has written into the journal, if it does.
    log: Option<RoomLog>,
}

impl RoomClients {
    /// Where a client is, or would be.
    fn index(&self, id: ClientId) -> Result<usize, usize> {
        self.connected.binary_search_by_key(&id, |client| client.id)
    }

    fn get(&self, id: ClientId) -> Option<&Client> {
        self.index(id).ok().map(|index| &self.connected[index])
    }
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    /// That of a session may be gone.
    connection: ConnectionKey,
    session: Option<Box<Session>>,
    /// Set when the room starts handling the connect; earlier outputs are not for this client.
    outputs_enabled: bool,
}

/// Within it, the last of a client's connections to reach its room counts.
const MAX_CLOCK_SKEW: u64 = 500_000;

/// Fuel that it is worth to look at a client of a room, to put a message into its queue, to write a queue
/// to its socket, and to log an event, and bytes that are copied for a unit.
const COST_OF_CLIENT: u64 = 4;
const COST_OF_SEND: u64 = 150;
const COST_OF_FLUSH: u64 = 5000;
const COST_OF_RECORD: u64 = 300;
const BYTES_PER_FUEL: u64 = 16;

/// Sessions that end in one turn: after a restoration, those of many rooms end at the same time.
const ENDS_PER_TURN: usize = 64;

/// From this length on, a message for several clients is kept once for all of them. Shorter ones are
/// copied, so that they are sent together with others.
const SHARED_BYTES: usize = 4 << 10;

impl Clients {
    /// Tokens are hashed with `secret`.
    pub(crate) fn new(
        limits: ClientLimits,
        secret: [u8; 32],
        journaling: Option<Journaling>,
    ) -> Self {
        Self {
            connections: SlotMap::with_key(),
            rooms: HashMap::new(),
            hasher: TokenHasher::new(secret),
            limits,
            queued: QueuedBytes::default(),
            dirty: VecDeque::new(),
            removed: Vec::new(),
            absent: VecDeque::new(),
            last_number: 0,
            session_counts: SessionCounts::default(),
            metrics: WorkerMetrics::new(),
            cost: 0,
            journaling,
            now: HostTime::ZERO,
            watches: Watches::default(),
        }
    }

    /// The counter of bytes in all queues.
    pub(crate) fn queued(&self) -> QueuedBytes {
        self.queued.clone()
    }

    /// What was counted so far, without the rooms.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::of_worker(&self.metrics);
        metrics.connections = self.connections.len();
        metrics.sessions = self.session_counts.all();
        metrics.queued_bytes = self.queued.get();
        if let Some(journaling) = &self.journaling {
            metrics.journal_in_flight_bytes = journaling.in_flight_bytes();
        }
        metrics
    }

    pub(crate) fn insert(&mut self, connection: Connection) -> ConnectionKey {
        self.connections.insert(connection)
    }

    pub(crate) fn get(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.connections.get_mut(key)
    }

    /// Removes a connection that is about to be closed. What is queued for it is discarded if all queues
    /// are more than half of their limit, so that those that are closing leave the others their half.
    pub(crate) fn remove(&mut self, key: ConnectionKey) -> Option<Connection> {
        let mut connection = self.connections.remove(key)?;
        if self.queued.get() > self.limits.max_queued_bytes / 2 {
            connection.queue.discard_unsent();
        }
        Some(connection)
    }

    /// The id that this token had before, or a new one.
    pub(crate) fn client_id(&mut self, room: RoomKey, token: Option<&str>) -> ClientId {
        let clients = self.rooms.entry(room).or_default();
        let hasher = clients.hasher.as_deref().unwrap_or(&self.hasher);
        let token = token.map(|token| hasher.hash(token));
        if let Some(client) = token.and_then(|token| clients.tokens.client(token)) {
            return client;
        }
        // At a thousand clients a second, ids last for 24 days; then they wrap around.
        loop {
            clients.last_id = clients.last_id % ClientId::MAX.0 + 1;
            let id = ClientId(clients.last_id);
            if clients.get(id).is_none() && !clients.tokens.contains(id) {
                if let Some(token) = token {
                    let limit = self.limits.max_tokens;
                    let mut tokens = core::mem::take(&mut clients.tokens);
                    tokens.insert(token, id, limit, |id| clients.get(id).is_some());
                    clients.tokens = tokens;
                }
                return id;
            }
        }
    }

    /// Refuses a connection that is older than the client's present one, or the last one of its session, if it
    /// has any: on their way to a worker, one may overtake another. Those of several nodes are compared as far as
    /// their clocks agree: a node that was stopped must not bring back a client that has gone to another one.
    pub(crate) fn check_order(
        &self,
        room: RoomKey,
        id: ClientId,
        connection: ConnectionKey,
    ) -> Result<(), JoinRejection> {
        let present = self.rooms.get(&room).and_then(|clients| clients.get(id));
        let last = present.and_then(|client| client.session.as_ref()?.last_order());
        // A server by itself has none that it has not seen the end of, and its clock may begin anew.
        let last = last.filter(|_| self.limits.clock_skew > 0);
        let present = present.and_then(|client| self.order_of(client.connection));
        let Some(joining) = self.order_of(connection) else {
            return Ok(());
        };
        let is_before = |order| joining.is_before(order, self.limits.clock_skew);
        match (present, last) {
            (Some(present), _) if is_before(present) => Err(JoinRejection::new(1008, REPLACED)),
            // Nobody else is there. The clock of a node that has ended may have been wrong, and the client may come
            // back until that session is over.
            (None, Some(last)) if is_before(last) => Err(LATE.into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn order_of(&self, connection: ConnectionKey) -> Option<Order> {
        let connection = self.connections.get(connection)?;
        Some(connection.order)
    }

    pub(crate) fn join(&mut self, room: RoomKey, id: ClientId, connection: ConnectionKey) {
        if let Some(joining) = self.connections.get_mut(connection) {
            joining.member = Some((room, id));
            self.metrics.clients.count_join();
            let clients = self.rooms.entry(room).or_default();
            // It is in no room yet, and its id was free.
            let (Ok(index) | Err(index)) = clients.index(id);
            clients.connected.insert(
                index,
                Client {
                    id,
                    connection,
                    session: None,
                    outputs_enabled: false,
                },
            );
        }
    }

    /// Lets a client's messages through to its room.
    #[cfg(feature = "board")]
    pub(crate) fn admit(&mut self, room: RoomKey, id: ClientId) {
        let client = self.rooms.get(&room).and_then(|clients| clients.get(id));
        if let Some(connection) =
            client.and_then(|client| self.connections.get_mut(client.connection))
        {
            connection.admit();
        }
    }

    /// Removes a client from its room, with its session if it has one, and returns its connection, which
    /// may be gone; the room is to be given its disconnect.
    pub(crate) fn leave(&mut self, room: RoomKey, id: ClientId) -> Option<ConnectionKey> {
        let clients = self.rooms.get_mut(&room)?;
        let index = clients.index(id).ok()?;
        let client = clients.connected.remove(index);
        if let Some(connection) = self.connections.get_mut(client.connection) {
            connection.member = None;
        }
        Some(client.connection)
    }

    /// The connection of a client of a room; that of a session may be gone.
    pub(crate) fn connection_of(&self, room: RoomKey, id: ClientId) -> Option<ConnectionKey> {
        let client = self.rooms.get(&room)?.get(id)?;
        Some(client.connection)
    }

    /// Notes that a room was given the disconnect of a client that was removed.
    pub(crate) fn note_leaving(&mut self, room: RoomKey, id: ClientId) {
        if let Some(clients) = self.rooms.get_mut(&room) {
            clients.leaving.push_back(id);
        }
    }

    /// The clients of a room.
    #[cfg(feature = "board")]
    pub(crate) fn ids(&self, room: RoomKey) -> Vec<ClientId> {
        let clients = self.rooms.get(&room).map(|clients| &clients.connected);
        clients.map_or_else(Vec::new, |clients| {
            clients.iter().map(|client| client.id).collect()
        })
    }

    /// Lets a room have no turns from now on, or again.
    pub(crate) fn set_held(&mut self, room: RoomKey, is_held: bool) {
        self.rooms.entry(room).or_default().is_held = is_held;
    }

    /// What the tokens of a room are hashed with.
    fn hasher_of(&self, room: RoomKey) -> &TokenHasher {
        let of_room = self
            .rooms
            .get(&room)
            .and_then(|room| room.hasher.as_deref());
        of_room.unwrap_or(&self.hasher)
    }

    /// How many clients a room has.
    pub(crate) fn count(&self, room: RoomKey) -> usize {
        self.rooms
            .get(&room)
            .map_or(0, |clients| clients.connected.len())
    }

    /// Whether a client of a room has a connection.
    pub(crate) fn is_attended(&self, room: RoomKey) -> bool {
        let clients = self.rooms.get(&room);
        let is_connected = |client: &Client| self.connections.contains_key(client.connection);
        clients.is_some_and(|clients| clients.connected.iter().any(is_connected))
    }

    /// Removes a room that has ended, also from the journal, and closes its clients, after sending what is queued:
    /// when that is durable.
    pub(crate) fn end_room(&mut self, room: RoomKey, code: u16, reason: &str) {
        self.hold_all(room);
        self.remove_log(room);
        self.close_room(room, code, reason);
    }

    /// Closes a connection whose client has another one, when that is durable.
    pub(crate) fn replace(&mut self, room: RoomKey, older: ConnectionKey) {
        self.hold(room, older);
        if let Some(older) = self.connections.get_mut(older) {
            older.close(1008, REPLACED, true);
        }
    }

    /// Removes a room and closes its clients, after sending what is queued.
    pub(crate) fn close_room(&mut self, room: RoomKey, code: u16, reason: &str) {
        self.watches.remove(room);
        let clients = self.rooms.remove(&room).unwrap_or_default();
        for client in &clients.connected {
            if let Some(connection) = self.connections.get_mut(client.connection) {
                connection.close(code, reason, true);
            }
        }
    }

    /// Closes the clients that wait for their turn, before they join a room.
    pub(crate) fn close_waiting(&mut self, code: u16, reason: &str) {
        for connection in self.connections.values_mut() {
            if connection.waiting.is_some() {
                connection.close(code, reason, true);
            }
        }
    }

    /// Removes a room that another node has, and closes its clients without what is queued.
    pub(crate) fn abandon_room(&mut self, room: RoomKey) {
        self.watches.remove(room);
        let clients = self.rooms.remove(&room).unwrap_or_default();
        for client in &clients.connected {
            self.abandon_connection(client.connection);
        }
    }

    /// Closes the connection of a client whose room another node has, without what is queued.
    pub(crate) fn abandon_connection(&mut self, connection: ConnectionKey) {
        let (code, reason) = MOVED;
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.abandon(code, reason);
        }
    }

    /// The connections of a room's clients.
    fn connections_of(&self, room: RoomKey) -> Vec<ConnectionKey> {
        let clients = self.rooms.get(&room).into_iter();
        let clients = clients.flat_map(|clients| &clients.connected);
        clients.map(|client| client.connection).collect()
    }

    /// Queues a message for a connection and sends it, with others that are queued, if it can be at once;
    /// this is for what no room of this worker sends. One that is too slow is closed, and removed from its
    /// room.
    pub(crate) fn deliver(&mut self, key: ConnectionKey, payload: MessagePayload<'_>) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Some((room, client)) = connection.member else {
            // It is about to be closed.
            return;
        };
        let pushed = connection.queue.push(payload).or_else(|QueueFull| {
            connection.flush(Instant::now());
            connection.queue.push(payload)
        });
        if pushed.is_err() {
            connection.close_as_too_slow("too slow: the send queue is full");
            self.leave(room, client);
            self.removed.push((room, client));
            return;
        }
        if self.queued.get() > self.limits.max_queued_bytes {
            // A client that reads takes it now.
            connection.flush(Instant::now());
        }
        self.metrics.messages_sent += 1;
        self.metrics.bytes_sent += payload.len() as u64;
        self.shed();
    }

    /// The clients that were removed since the last call: as too slow, or since their sessions have ended
    /// by this time; of these, no more than a bound.
    pub(crate) fn take_removed(&mut self, now: HostTime) -> Vec<(RoomKey, ClientId)> {
        for _ in 0..ENDS_PER_TURN {
            let first = self.absent.front().copied();
            let Some((_, room, id, number)) = first.filter(|it| it.0 <= now) else {
                break;
            };
            self.absent.pop_front();
            let Some(session) = self.absent_session(room, id, number) else {
                continue;
            };
            let waiting = session.waiting;
            if waiting.is_some_and(|waiting| self.connections.contains_key(waiting)) {
                let ends_at = now + self.limits.resume_window;
                self.absent.push_back((ends_at, room, id, number));
            } else {
                self.leave(room, id);
                self.removed.push((room, id));
            }
        }
        core::mem::take(&mut self.removed)
    }

    /// When the next session ends that has no connection.
    pub(crate) fn next_end(&self) -> Option<HostTime> {
        self.absent.front().map(|(at, ..)| *at)
    }

    /// Sends what is new in the queues, for no longer than `budget`; returns whether all of it was tried.
    /// What a client does not take at once, its own task sends later.
    pub(crate) fn flush(&mut self, budget: Duration) -> bool {
        let mut now = Instant::now();
        let until = now + budget;
        while let Some(key) = self.dirty.pop_front() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.is_dirty = false;
                connection.flush(now);
            }
            if self.dirty.is_empty() {
                break;
            }
            now = Instant::now();
            if now >= until {
                return false;
            }
        }
        true
    }

    /// Disconnects the clients with the fullest queues until all queues together are within their limit.
    fn shed(&mut self) {
        if self.queued.get() <= self.limits.max_queued_bytes {
            return;
        }
        // Nothing was sent in this turn yet: clients that read take it now.
        self.cost += COST_OF_FLUSH * self.dirty.len() as u64;
        let now = Instant::now();
        for key in self.dirty.drain(..) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.is_dirty = false;
                connection.flush(now);
            }
        }
        self.shed_sessions();
        while self.queued.get() > self.limits.max_queued_bytes {
            let fullest = self
                .connections
                .values_mut()
                .filter(|connection| !connection.queue.is_empty())
                .max_by_key(|connection| connection.queue.len());
            // The rest is of connections that are closing, which takes a bounded time.
            let Some(fullest) = fullest else { return };
            match fullest.member {
                Some((room, id)) => {
                    fullest.close_as_too_slow("too slow: the send queues are full");
                    if self.leave(room, id).is_some() {
                        self.removed.push((room, id));
                    }
                }
                // It is about to be closed.
                None if fullest.queue.has_unsent() => fullest.queue.discard_unsent(),
                None => return,
            }
        }
    }
}

/// Never blocks: a client whose queue is full is disconnected, so that it delays no other.
impl Transport for Clients {
    type Error = Infallible;

    fn send(
        &mut self,
        room: RoomKey,
        output: OutputMessage<'_>,
    ) -> Result<(), SendError<Infallible>> {
        if !self.watches.is_empty() {
            self.watches.output(room, &output);
        }
        let Some(clients) = self.rooms.get_mut(&room) else {
            return Ok(());
        };
        let copy_cost = output.payload.len() as u64 / BYTES_PER_FUEL;
        if let (Some(journaling), Some(log)) = (&mut self.journaling, &mut clients.log)
            && log.holds_outputs()
        {
            journaling.note_sent(room, log, output.payload.len());
        }
        let mut shared = None;
        // One recipient is looked up.
        let (mut i, mut end) = match output.recipient {
            MessageRecipient::Client(id) => match clients.index(id) {
                Ok(index) => (index, index + 1),
                Err(_) => return Ok(()),
            },
            _ => (0, clients.connected.len()),
        };
        let is_shared = output.payload.len() >= SHARED_BYTES && end - i > 1;
        while i < end {
            let client = &clients.connected[i];
            self.cost += COST_OF_CLIENT;
            let is_recipient = client.outputs_enabled && output.recipient.includes(client.id);
            if !is_recipient {
                i += 1;
                continue;
            }
            let is_kept = match &mut clients.connected[i].session {
                None => Ok(false),
                Some(session) => {
                    self.cost += COST_OF_SEND + copy_cost;
                    session.push(output.payload).map(|()| true)
                }
            };
            let client = &clients.connected[i];
            let connection = match (self.connections.get_mut(client.connection), is_kept) {
                (connection, Err(WindowFull)) => {
                    if let Some(connection) = connection {
                        connection.close_as_too_slow("too slow: too much is not acknowledged");
                    }
                    self.removed.push((room, client.id));
                    clients.connected.remove(i);
                    end -= 1;
                    continue;
                }
                (Some(connection), Ok(_)) if !connection.is_ending() => connection,
                // It is away, or about to end: what is held for it would keep it from that.
                (_, Ok(_)) => {
                    i += 1;
                    continue;
                }
            };
            let is_prefixed = client.session.is_some();
            self.cost += COST_OF_SEND;
            let frame = (is_shared && !is_prefixed).then(|| {
                &*shared.get_or_insert_with(|| {
                    self.cost += copy_cost;
                    SharedFrame::new(output.payload, self.queued.clone())
                })
            });
            if let (Some(journaling), Some(log)) = (&mut self.journaling, &clients.log) {
                journaling.hold(log, client.connection, connection);
            }
            let push = |queue: &mut SendQueue| match frame {
                Some(frame) => queue.push_shared(frame),
                None if is_prefixed => queue.push_prefixed(output.payload),
                None => queue.push(output.payload),
            };
            if frame.is_none() {
                self.cost += copy_cost;
            }
            let pushed = push(&mut connection.queue).or_else(|QueueFull| {
                // Nothing was sent in this turn yet: a client that reads takes it now.
                self.cost += COST_OF_FLUSH;
                connection.flush(Instant::now());
                push(&mut connection.queue)
            });
            if pushed.is_ok() {
                self.metrics.messages_sent += 1;
                self.metrics.bytes_sent += output.payload.len() as u64;
                if !connection.is_dirty {
                    connection.is_dirty = true;
                    self.dirty.push_back(client.connection);
                }
                i += 1;
            } else {
                connection.close_as_too_slow("too slow: the send queue is full");
                self.removed.push((room, client.id));
                clients.connected.remove(i);
                end -= 1;
            }
        }
        self.shed();
        Ok(())
    }

    fn connected(&mut self, room: RoomKey, id: ClientId) -> Result<(), SendError<Infallible>> {
        if let Some(clients) = self.rooms.get_mut(&room)
            && !clients.leaving.contains(&id)
            && let Ok(index) = clients.index(id)
        {
            clients.connected[index].outputs_enabled = true;
            self.announce_session(room, id);
        }
        Ok(())
    }

    fn disconnected(&mut self, room: RoomKey, id: ClientId) -> Result<(), SendError<Infallible>> {
        if let Some(clients) = self.rooms.get_mut(&room)
            && let Some(index) = clients.leaving.iter().position(|leaving| *leaving == id)
        {
            clients.leaving.remove(index);
        }
        Ok(())
    }

    fn recorded(&mut self, room: RoomKey, record: EventRecord<'_>) {
        if !self.watches.is_empty() {
            self.watches.event(room, &record.event);
        }
        let Some(clients) = self.rooms.get_mut(&room) else {
            return;
        };
        let credentials = match record.event {
            RecordedEvent::Outside(Event::Connect(id)) => {
                let client = clients.get(id);
                let session = client.and_then(|client| client.session.as_ref());
                Credentials {
                    token: clients.tokens.hash_of(id),
                    session: session.map(|session| (session.hash, session.sequence)),
                }
            }
            _ => Credentials::default(),
        };
        if let (Some(journaling), Some(log)) = (&mut self.journaling, &mut clients.log) {
            self.cost += COST_OF_RECORD;
            if let RecordedEvent::Outside(Event::Message(_, payload)) = record.event {
                self.cost += payload.len() as u64 / BYTES_PER_FUEL;
            }
            journaling.log(room, log, &record, &credentials, self.now);
        }
    }

    fn slice_ended(&mut self, room: RoomKey, slice: Slice<'_>) {
        self.metrics.slice_ended(room, &slice);
    }

    fn is_ready(&self, room: RoomKey) -> bool {
        if self.rooms.get(&room).is_some_and(|room| room.is_held) {
            return false;
        }
        let Some(journaling) = &self.journaling else {
            return true;
        };
        let QueueLimits { messages, bytes } = self.limits.of_queue;
        self.log(room)
            .is_none_or(|log| journaling.is_ready(log, messages / 2, bytes / 2))
    }

    fn take_cost(&mut self) -> u64 {
        core::mem::take(&mut self.cost)
    }
}
