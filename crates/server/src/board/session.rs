//! The bridge's view of a board: its rooms, and their clients.

use crate::{
    http::RoomSummary,
    rooms::{
        clients::Clients,
        command::{Command, JoinRejection, REPLACED, STOPPING},
    },
    ws::send_queue::ClientSender,
};
use core::fmt;
use stateroom_wasmi_host::{ClientId, Escaped, OwnedEvent, RoomKey, Transport};
use stateroom_wasmi_link::{BoardMessage, Bridge, BridgeSendError, RefusalReason, SessionError};
use std::{collections::VecDeque, io};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

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

pub(super) struct BoardSession {
    clients: Clients,
    rooms: Vec<BoardRoom>,
    next_key: u64,
    /// Events that the bridge cannot take yet, in order. Bounded: messages by their connections'
    /// credits, others by the number of connections.
    backlog: VecDeque<QueuedEvent>,
    /// Connects that the board has not confirmed yet, in order.
    pending_joins: Vec<PendingJoin>,
    is_established: bool,
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
    /// Returned when the event is passed to the bridge.
    _credit: Option<OwnedSemaphorePermit>,
}

/// Tells a connection the outcome of its join.
type Reply = oneshot::Sender<Result<(RoomKey, ClientId), JoinRejection>>;

struct PendingJoin {
    room: RoomKey,
    client: ClientId,
    /// None once it was rejected.
    reply: Option<Reply>,
}

impl PendingJoin {
    fn is_of(&self, room: RoomKey, client: ClientId) -> bool {
        (self.room, self.client) == (room, client)
    }

    fn reject(&mut self, code: u16, reason: &str) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(JoinRejection::new(code, reason)));
        }
    }
}

impl BoardSession {
    pub(super) fn new(max_tokens: usize) -> Self {
        Self {
            clients: Clients::new(max_tokens),
            rooms: Vec::new(),
            next_key: 0,
            backlog: VecDeque::new(),
            pending_joins: Vec::new(),
            is_established: false,
        }
    }

    /// Handles a connection's command; for a stop, returns where to confirm it.
    pub(super) fn handle_command(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Join {
                room,
                token,
                sender,
                reply,
            } => match self.room_to_join(&room) {
                Ok(room) => self.join(room, token, sender, reply),
                Err(rejection) => drop(reply.send(Err(rejection))),
            },
            Command::Message {
                room,
                event,
                credit,
            } => self.message(room, event, credit),
            Command::Leave {
                room,
                client,
                connection_id,
            } => {
                if self
                    .clients
                    .leave(room, client, Some(connection_id))
                    .is_some()
                {
                    self.queue(room, OwnedEvent::Disconnect(client), None);
                }
            }
            Command::List(reply) => {
                let summary =
                    |room: &BoardRoom| RoomSummary::remote(&room.id, self.clients.count(room.key));
                let _ = reply.send(self.rooms.iter().map(summary).collect());
            }
            Command::Stop(reply) => return Some(reply),
        }
        None
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

    /// Starts a join, which the board confirms or rejects.
    fn join(&mut self, room: RoomKey, token: Option<Box<str>>, sender: ClientSender, reply: Reply) {
        let client = self.clients.client_id(room, token.as_deref());
        if let Some(older) = self.clients.leave(room, client, None) {
            older.close(1008, REPLACED, true);
            self.pending_joins
                .iter_mut()
                .filter(|join| join.is_of(room, client))
                .for_each(|join| join.reject(1008, REPLACED));
            self.queue(room, OwnedEvent::Disconnect(client), None);
        }
        self.clients.join(room, client, sender);
        self.pending_joins.push(PendingJoin {
            room,
            client,
            reply: Some(reply),
        });
        self.queue(room, OwnedEvent::Connect(client), None);
    }

    fn message(&mut self, key: RoomKey, event: OwnedEvent, credit: OwnedSemaphorePermit) {
        let Some(room) = self.rooms.iter().find(|room| room.key == key) else {
            return;
        };
        let (client, bytes) = (event.as_event().client(), event.as_event().payload_len());
        let limit = room.max_message_bytes;
        if bytes > limit {
            let reason = format!("the message has {bytes} bytes; the board's limit is {limit}");
            self.disconnect(key, client, 1009, &reason);
        } else {
            self.queue(key, event, Some(credit));
        }
    }

    fn queue(&mut self, room: RoomKey, event: OwnedEvent, credit: Option<OwnedSemaphorePermit>) {
        self.backlog.push_back(QueuedEvent {
            room,
            event,
            _credit: credit,
        });
    }

    /// Closes a client's connection, and removes it from its room.
    fn disconnect(&mut self, room: RoomKey, client: ClientId, code: u16, reason: &str) {
        if let Some(sender) = self.clients.leave(room, client, None) {
            sender.close(code, reason, true);
            self.queue(room, OwnedEvent::Disconnect(client), None);
        }
    }

    /// Passes queued events to the bridge, as far as it takes them.
    pub(super) fn send_backlog(&mut self, bridge: &mut Bridge) {
        while let Some(queued) = self.backlog.front() {
            // Events of a room that has ended are dropped.
            let room = self.rooms.iter().find(|room| room.key == queued.room);
            let sent = room.map(|room| bridge.send(room.number, queued.event.as_event()));
            if sent == Some(Err(BridgeSendError::QueueFull)) {
                return;
            }
            self.backlog.pop_front();
        }
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
                        log::info!("disconnected client {client} of room {room}: too slow");
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
        log::info!("the board has the room {:?}", Escaped::new(id));
        let key = RoomKey::from_bits(self.next_key);
        self.next_key += 1;
        self.rooms.retain(|room| room.number != number);
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
            Some(fault) => (1011, fault),
            None => (1001, "the room is closed"),
        };
        log::info!(
            "the board closed the room {:?}: {}",
            Escaped::new(&id),
            Escaped::new(reason)
        );
        self.pending_joins.retain_mut(|join| {
            let is_of_room = join.room == key;
            if is_of_room {
                join.reject(code, reason);
            }
            !is_of_room
        });
        self.clients.close_room(key, code, reason);
    }

    fn on_joined(&mut self, key: RoomKey, client: ClientId) {
        let is_pending = |join: &PendingJoin| join.is_of(key, client);
        let Some(index) = self.pending_joins.iter().position(is_pending) else {
            return;
        };
        let join = self.pending_joins.remove(index);
        // The confirmed connection was replaced by one that is still pending.
        if self.pending_joins.iter().any(is_pending) {
            return;
        }
        // The transport never blocks and never fails.
        let Ok(()) = self.clients.connected(key, client) else {
            return;
        };
        let has_left = join
            .reply
            .is_some_and(|reply| reply.send(Ok((key, client))).is_err());
        if has_left && self.clients.leave(key, client, None).is_some() {
            self.queue(key, OwnedEvent::Disconnect(client), None);
        }
    }

    fn on_rejected(&mut self, key: RoomKey, client: ClientId, reason: RefusalReason) {
        let (code, text) = match reason {
            RefusalReason::NoSuchRoom => (1001, "the room is closed"),
            RefusalReason::RoomFull => (1013, "the room is full"),
            RefusalReason::MessageTooLong => (1009, "the message exceeds the room's limit"),
            RefusalReason::InvalidUtf8 => (1007, "the text is not UTF-8"),
            _ => (1011, "the board and the bridge disagree"),
        };
        let index = self
            .pending_joins
            .iter()
            .position(|join| join.is_of(key, client));
        match index {
            Some(index) => {
                self.pending_joins.remove(index).reject(code, text);
                self.clients.leave(key, client, None);
            }
            None => self.disconnect(key, client, code, text),
        }
    }

    /// Closes all clients, since the link is lost.
    pub(super) fn on_link_lost(&mut self, reason: &LinkError) {
        self.is_established = false;
        self.close_all(1012, &reason.to_string());
    }

    /// Closes all clients, since the server stops.
    pub(super) fn stop(&mut self) {
        let (code, reason) = STOPPING;
        self.close_all(code, reason);
    }

    fn close_all(&mut self, code: u16, reason: &str) {
        for mut join in self.pending_joins.drain(..) {
            join.reject(code, reason);
        }
        for room in self.rooms.drain(..) {
            self.clients.close_room(room.key, code, reason);
        }
        self.backlog.clear();
    }
}
