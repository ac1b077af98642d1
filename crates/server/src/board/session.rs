//! The bridge's view of a board: its rooms, and their clients.

use crate::{
    http::RoomSummary,
    log_limit::KeyedLogLimiter,
    rooms::{
        Busy, FailedRooms, JoinRejection, REPLACED, Rooms, STOPPING,
        clients::{ClientLimits, Clients},
        handover::Listing,
    },
    ws::connection::{ConnectionKey, message_cost},
};
use core::{fmt, time::Duration};
use stateroom_wasmi_host::{ClientId, Escaped, MessagePayload, OwnedEvent, RoomKey, Transport};
use stateroom_wasmi_link::{BoardMessage, Bridge, BridgeSendError, RefusalReason, SessionError};
use std::{collections::VecDeque, io};
use tokio::time::Instant;

/// Why the board cannot be reached.
#[derive(Debug)]
pub(super) enum LinkError {
    Broken(io::Error),
    Session(SessionError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the link is broken: {error}"),
            Self::Session(error) => error.fmt(f),
        }
    }
}

/// The rooms of a board.
pub(crate) struct BoardRooms {
    clients: Clients,
    rooms: Vec<BoardRoom>,
    next_key: u64,
    /// Events that the bridge cannot take yet, in order. Bounded: messages by what their connections
    /// may have in flight, others by the number of connections.
    backlog: VecDeque<QueuedEvent>,
    /// Connects that the board has not confirmed yet, in order.
    pending_joins: VecDeque<PendingJoin>,
    is_established: bool,
    is_stopping: bool,
    failed: FailedRooms,
    log: BoardLog,
}

/// Limits of the lines that clients, and rooms that end again and again, can cause at will.
struct BoardLog {
    opened_rooms: KeyedLogLimiter,
    closed_rooms: KeyedLogLimiter,
}

struct BoardRoom {
    key: RoomKey,
    number: u8,
    id: Box<str>,
    max_message_bytes: usize,
}

struct QueuedEvent {
    room: RoomKey,
    event: OwnedEvent,
    /// Of a message: whose it is.
    connection: Option<ConnectionKey>,
}

struct PendingJoin {
    room: RoomKey,
    client: ClientId,
    /// When the board should have confirmed it.
    deadline: Instant,
}

/// Time for the board to confirm a join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

impl BoardRooms {
    pub(crate) fn new(limits: ClientLimits) -> Self {
        Self {
            clients: Clients::new(limits),
            rooms: Vec::new(),
            next_key: 0,
            backlog: VecDeque::new(),
            pending_joins: VecDeque::new(),
            is_established: false,
            is_stopping: false,
            failed: FailedRooms::default(),
            log: BoardLog {
                opened_rooms: KeyedLogLimiter::new(),
                closed_rooms: KeyedLogLimiter::new(),
            },
        }
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// The room of this id; for the empty id, if the board has none, its first room.
    fn room_to_join(&self, id: &str) -> Result<RoomKey, JoinRejection> {
        if !self.is_established {
            return Err(JoinRejection::new(1013, "the board is not connected"));
        }
        let room = self.rooms.iter().find(|room| *room.id == *id);
        room.or_else(|| self.rooms.first().filter(|_| id.is_empty()))
            .map(|room| room.key)
            .ok_or_else(|| {
                JoinRejection::new(
                    1008,
                    format!("the board has no room {:?}", Escaped::new(id)),
                )
            })
    }

    fn room(&self, key: RoomKey) -> Option<&BoardRoom> {
        self.rooms.iter().find(|room| room.key == key)
    }

    fn queue(&mut self, room: RoomKey, event: OwnedEvent, connection: Option<ConnectionKey>) {
        self.backlog.push_back(QueuedEvent {
            room,
            event,
            connection,
        });
    }

    /// Closes a client's connection, and removes it from its room.
    fn disconnect(&mut self, room: RoomKey, client: ClientId, code: u16, reason: &str) {
        if let Some(connection) = self.clients.leave(room, client) {
            connection.close(code, reason, true);
            self.queue(room, OwnedEvent::Disconnect(client), None);
        }
    }

    /// Passes queued events to the bridge, as far as it takes them.
    pub(super) fn send_backlog(&mut self, bridge: &mut Bridge) {
        while let Some(queued) = self.backlog.front() {
            let (event, key) = (queued.event.as_event(), queued.room);
            // Events of a room that has ended are dropped.
            let room = self.room(key);
            let sent = room.map(|room| bridge.send(room.number, event));
            if sent == Some(Err(BridgeSendError::QueueFull)) {
                return;
            }
            let cost = message_cost(event.payload_len());
            let client = event.client();
            let connection = queued.connection;
            self.backlog.pop_front();
            if let Some(connection) = connection.and_then(|key| self.clients.get(key)) {
                connection.handled_by_room(cost);
            }
            if sent == Some(Err(BridgeSendError::TooLong)) {
                let reason = "the message is longer than the link to the board takes";
                self.disconnect(key, client, 1009, reason);
            }
        }
    }

    /// Sends what is queued for clients; returns whether all of it was tried.
    pub(super) fn flush(&mut self, until: Instant) -> bool {
        self.clients.flush(until)
    }

    /// Closes clients whose joins the board does not confirm; returns when to call it again.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Instant> {
        while let Some(join) = self.pending_joins.front() {
            if join.deadline > now {
                return Some(join.deadline);
            }
            let (room, client) = (join.room, join.client);
            self.pending_joins.pop_front();
            self.disconnect(room, client, 1013, "the board does not answer");
        }
        None
    }

    /// Handles a message of the board.
    pub(super) fn handle_message(&mut self, message: BoardMessage<'_>) {
        match message {
            BoardMessage::SessionStarted => self.is_established = true,
            BoardMessage::RoomOpened {
                room,
                max_message_bytes,
                id,
            } => self.on_opened(room, max_message_bytes, id),
            BoardMessage::RoomClosed { room, fault } => self.on_closed(room, fault),
            BoardMessage::Joined { room, client } => {
                if let Some(key) = self.key(room) {
                    self.on_joined(key, client);
                }
            }
            BoardMessage::Refused {
                room,
                client,
                reason,
            } => {
                if let Some(key) = self.key(room) {
                    self.on_rejected(key, client, reason);
                }
            }
            BoardMessage::Output { room, output } => {
                if let Some(key) = self.key(room) {
                    // The transport never blocks and never fails.
                    let Ok(()) = self.clients.send(key, output) else {
                        return;
                    };
                    for (room, client) in self.clients.take_too_slow() {
                        self.queue(room, OwnedEvent::Disconnect(client), None);
                    }
                }
            }
            // Messages that a later version adds.
            _ => {}
        }
    }

    fn key(&self, number: u8) -> Option<RoomKey> {
        Some(self.rooms.iter().find(|room| room.number == number)?.key)
    }

    fn on_opened(&mut self, number: u8, max_message_bytes: usize, id: &str) {
        if self.key(number).is_some() {
            if let Some(permit) = self.log.opened_rooms.permit(number) {
                log::warn!("the board has opened room number {number} twice{permit}");
            }
            self.on_closed(number, None);
        }
        if let Some(permit) = self.log.opened_rooms.permit(id) {
            log::info!("the board has the room {:?}{permit}", Escaped::new(id));
        }
        let key = RoomKey::from_bits(self.next_key);
        self.next_key += 1;
        self.rooms.push(BoardRoom {
            key,
            number,
            id: id.into(),
            max_message_bytes,
        });
    }

    fn on_closed(&mut self, number: u8, fault: Option<&str>) {
        let Some(index) = self.rooms.iter().position(|room| room.number == number) else {
            return;
        };
        let BoardRoom { key, id, .. } = self.rooms.remove(index);
        let (code, reason) = match fault {
            Some(fault) => {
                self.failed.push(&id, fault, Instant::now());
                (1011, fault)
            }
            None => (1001, "the room is closed"),
        };
        if let Some(permit) = self.log.closed_rooms.permit(&id) {
            log::info!(
                "the board closed the room {:?}: {}{permit}",
                Escaped::new(&id),
                Escaped::new(reason)
            );
        }
        self.pending_joins.retain(|join| join.room != key);
        self.clients.close_room(key, code, reason);
    }

    fn on_joined(&mut self, key: RoomKey, client: ClientId) {
        let is_pending = |join: &PendingJoin| join.is_of(key, client);
        let Some(index) = self.pending_joins.iter().position(is_pending) else {
            return;
        };
        self.pending_joins.remove(index);
        // The confirmed connection was replaced by one that is still pending.
        if self.pending_joins.iter().any(is_pending) {
            return;
        }
        // The transport never blocks and never fails.
        let _ = self.clients.connected(key, client);
        self.clients.admit(key, client);
    }

    fn on_rejected(&mut self, key: RoomKey, client: ClientId, reason: RefusalReason) {
        let (code, text) = match reason {
            RefusalReason::NoSuchRoom => (1001, "the room is closed"),
            RefusalReason::RoomFull => (1013, "the room is full"),
            RefusalReason::MessageTooLong => (1009, "the message exceeds the room's limit"),
            RefusalReason::InvalidUtf8 => (1007, "the text is not UTF-8"),
            _ => (1011, "the board and the bridge disagree"),
        };
        let is_pending = |join: &PendingJoin| join.is_of(key, client);
        let pending = self.pending_joins.iter().position(is_pending);
        match pending.and_then(|index| self.pending_joins.remove(index)) {
            // The board does not have the client.
            Some(_) => {
                if let Some(connection) = self.clients.leave(key, client) {
                    connection.close(code, text, true);
                }
            }
            None => self.disconnect(key, client, code, text),
        }
    }

    /// Closes all clients, since the link is lost.
    pub(super) fn on_link_lost(&mut self, reason: &LinkError) {
        self.is_established = false;
        self.close_all(1012, &reason.to_string());
    }

    fn close_all(&mut self, code: u16, reason: &str) {
        self.pending_joins.clear();
        for room in self.rooms.drain(..) {
            self.clients.close_room(room.key, code, reason);
        }
        self.backlog.clear();
    }
}

impl PendingJoin {
    fn is_of(&self, room: RoomKey, client: ClientId) -> bool {
        (self.room, self.client) == (room, client)
    }
}

impl Rooms for BoardRooms {
    fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    /// Starts a join, which the board confirms or rejects.
    fn join(
        &mut self,
        connection: ConnectionKey,
        id: &str,
        token: Option<&str>,
    ) -> Result<(), JoinRejection> {
        if self.is_stopping {
            return Err(JoinRejection::stopping());
        }
        let room = self.room_to_join(id)?;
        let client = self.clients.client_id(room, token);
        if !self.clients.is_newest(room, client, connection) {
            return Err(JoinRejection::new(1008, REPLACED));
        }
        self.disconnect(room, client, 1008, REPLACED);
        self.clients.join(room, client, connection);
        self.pending_joins.push_back(PendingJoin {
            room,
            client,
            deadline: Instant::now() + JOIN_TIMEOUT,
        });
        self.queue(room, OwnedEvent::Connect(client), None);
        Ok(())
    }

    fn message(
        &mut self,
        connection: ConnectionKey,
        (key, client): (RoomKey, ClientId),
        payload: MessagePayload<'_>,
    ) -> Result<(), Busy> {
        let Some(room) = self.room(key) else {
            return Ok(());
        };
        let (bytes, limit) = (payload.len(), room.max_message_bytes);
        if bytes > limit {
            let reason = format!("the message has {bytes} bytes; the board's limit is {limit}");
            self.disconnect(key, client, 1009, &reason);
        } else {
            if let Some(connection) = self.clients.get(connection) {
                connection.sent_to_room(message_cost(bytes));
            }
            let event = OwnedEvent::message(client, payload.to_owned());
            self.queue(key, event, Some(connection));
        }
        Ok(())
    }

    fn leave(&mut self, (room, client): (RoomKey, ClientId)) {
        if self.clients.leave(room, client).is_some() {
            self.queue(room, OwnedEvent::Disconnect(client), None);
        }
    }

    fn list(&self) -> Listing {
        let summary =
            |room: &BoardRoom| RoomSummary::remote(&room.id, self.clients.count(room.key));
        Listing {
            rooms: self.rooms.iter().map(summary).collect(),
            failed: self.failed.list(Instant::now()),
        }
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        let (code, reason) = STOPPING;
        self.close_all(code, reason);
    }
}
