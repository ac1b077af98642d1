//! The rooms of a board as the bridge knows them, and their clients.

use crate::{
    http::rooms_endpoint::RoomSummary,
    rooms::clients::{Clients, Connection},
    rooms::command::{Command, Refusal},
};
use core::fmt;
use stateroom_wasmi_host::{ClientId, RoomKey, Transport, driver::tokio::OwnedEvent};
use stateroom_wasmi_link::{BoardMessage, Bridge, BridgeSendError, RefusalReason, SessionError};
use std::{boxed::Box, collections::VecDeque, format, io, string::ToString, vec::Vec};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Why the board cannot be reached.
#[derive(Debug)]
pub(crate) enum LinkError {
    Broken(io::Error),
    Session(SessionError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the line is broken: {error}"),
            Self::Session(error) => error.fmt(f),
        }
    }
}

pub(crate) struct BoardSession {
    members: Clients,
    rooms: Vec<BoardRoom>,
    next_key: u64,
    /// Events that there was no place for yet, in order. Their number is bounded: messages are by what
    /// each connection may have on its way, and others by the connections there are.
    waiting: VecDeque<Waiting>,
    /// Connects that the board has not answered, in order.
    joining: Vec<Joining>,
    has_session: bool,
}

struct BoardRoom {
    key: RoomKey,
    number: u8,
    id: Box<str>,
    message_bytes: usize,
}

struct Waiting {
    room: RoomKey,
    event: OwnedEvent,
    /// Given back when the event is on its way.
    _permit: Option<OwnedSemaphorePermit>,
}

/// To tell a connection whether it is in a room.
type Reply = oneshot::Sender<Result<(RoomKey, ClientId), Refusal>>;

struct Joining {
    room: RoomKey,
    client: ClientId,
    /// Gone when it was answered otherwise.
    reply: Option<Reply>,
}

impl Joining {
    fn refuse(&mut self, code: u16, reason: &str) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(Refusal {
                code,
                reason: reason.into(),
            }));
        }
    }
}

impl BoardSession {
    pub(crate) fn new(max_tokens: usize) -> Self {
        Self {
            members: Clients::new(max_tokens),
            rooms: Vec::new(),
            next_key: 0,
            waiting: VecDeque::new(),
            joining: Vec::new(),
            has_session: false,
        }
    }

    /// Does what a connection asks for; answers whom to tell when all is stopped, if that is asked for.
    pub(crate) fn command(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Join {
                room,
                token,
                connection,
                reply,
            } => {
                if let Err((reply, refusal)) = self.join(&room, token, connection, reply) {
                    let _ = reply.send(Err(refusal));
                }
            }
            Command::Message {
                room,
                event,
                permit,
            } => self.message(room, event, permit),
            Command::Leave {
                room,
                client,
                connection,
            } => {
                if self.members.leave(room, client, Some(connection)).is_some() {
                    self.event(room, OwnedEvent::Disconnect(client));
                }
            }
            Command::List(reply) => {
                let figures = |room: &BoardRoom| {
                    RoomSummary::elsewhere(&room.id, self.members.count(room.key))
                };
                let _ = reply.send(self.rooms.iter().map(figures).collect());
            }
            Command::Stop(reply) => return Some(reply),
        }
        None
    }

    /// Lets a client in, as soon as the board says so.
    fn join(
        &mut self,
        id: &str,
        token: Option<Box<str>>,
        connection: Connection,
        reply: Reply,
    ) -> Result<(), (Reply, Refusal)> {
        if !self.has_session {
            return Err((
                reply,
                Refusal {
                    code: 1013,
                    reason: "the board is not connected".into(),
                },
            ));
        }
        let Some(room) = self.find(id) else {
            let reason = format!("the board has no room {id:?}");
            return Err((reply, Refusal { code: 1008, reason }));
        };
        let client = self.members.client_id(room, token.as_deref());
        if let Some(older) = self.members.leave(room, client, None) {
            older.close(1008, REPLACED, true);
            let replaced = self
                .joining
                .iter_mut()
                .filter(|joining| (joining.room, joining.client) == (room, client));
            replaced.for_each(|joining| joining.refuse(1008, REPLACED));
            self.event(room, OwnedEvent::Disconnect(client));
        }
        self.members.join(room, client, connection);
        self.joining.push(Joining {
            room,
            client,
            reply: Some(reply),
        });
        self.event(room, OwnedEvent::Connect(client));
        Ok(())
    }

    /// The room of this id; for the empty id, which a board may not have, the first that it told of.
    fn find(&self, id: &str) -> Option<RoomKey> {
        let room = self.rooms.iter().find(|room| *room.id == *id);
        Some(
            room.or_else(|| self.rooms.first().filter(|_| id.is_empty()))?
                .key,
        )
    }

    fn message(&mut self, key: RoomKey, event: OwnedEvent, permit: OwnedSemaphorePermit) {
        let Some(room) = self.rooms.iter().find(|room| room.key == key) else {
            return;
        };
        let (client, bytes) = (event.as_event().client(), event.as_event().payload_len());
        if bytes > room.message_bytes {
            let reason = format!(
                "{bytes} bytes are more than the {} that the board takes",
                room.message_bytes
            );
            self.expel(key, client, 1009, &reason);
        } else {
            self.waiting.push_back(Waiting {
                room: key,
                event,
                _permit: Some(permit),
            });
        }
    }

    fn event(&mut self, room: RoomKey, event: OwnedEvent) {
        self.waiting.push_back(Waiting {
            room,
            event,
            _permit: None,
        });
    }

    /// Closes a client, and has it leave its room.
    fn expel(&mut self, room: RoomKey, client: ClientId, code: u16, reason: &str) {
        if let Some(connection) = self.members.leave(room, client, None) {
            connection.close(code, reason, true);
            self.event(room, OwnedEvent::Disconnect(client));
        }
    }

    /// Sends what waits, as far as there is place.
    pub(crate) fn send_waiting(&mut self, bridge: &mut Bridge) {
        while let Some(waiting) = self.waiting.front() {
            // What is for a room that has ended is for nobody.
            let room = self.rooms.iter().find(|room| room.key == waiting.room);
            if room.is_some_and(|room| {
                bridge.send(room.number, waiting.event.as_event())
                    == Err(BridgeSendError::QueueFull)
            }) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Does what the board tells.
    pub(crate) fn told(&mut self, told: BoardMessage<'_>) {
        match told {
            BoardMessage::SessionStarted => self.has_session = true,
            BoardMessage::RoomOpened {
                room,
                max_message_bytes,
                id,
            } => self.opened(room, max_message_bytes, id),
            BoardMessage::RoomClosed { room, fault } => self.closed(room, fault),
            BoardMessage::Joined { room, client } => {
                if let Some(key) = self.key(room) {
                    self.joined(key, client);
                }
            }
            BoardMessage::Refused {
                room,
                client,
                reason,
            } => {
                if let Some(key) = self.key(room) {
                    self.refused(key, client, reason);
                }
            }
            BoardMessage::Output { room, output } => {
                if let Some(key) = self.key(room) {
                    // It never refuses.
                    let Ok(()) = self.members.send(key, output) else {
                        return;
                    };
                    for (room, client) in self.members.take_too_slow() {
                        log::info!("client {client} of room {room} is closed: it was too slow");
                        self.event(room, OwnedEvent::Disconnect(client));
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

    fn opened(&mut self, number: u8, message_bytes: usize, id: &str) {
        log::info!("the board has the room {id:?}");
        let key = RoomKey::from_bits(self.next_key);
        self.next_key += 1;
        self.rooms.retain(|room| room.number != number);
        self.rooms.push(BoardRoom {
            key,
            number,
            id: id.into(),
            message_bytes,
        });
    }

    fn closed(&mut self, number: u8, fault: Option<&str>) {
        let Some(place) = self.rooms.iter().position(|room| room.number == number) else {
            return;
        };
        let BoardRoom { key, id, .. } = self.rooms.remove(place);
        let (code, reason) = match fault {
            Some(fault) => (1011, fault),
            None => (1001, "the room is closed"),
        };
        log::info!("the board has closed the room {id:?}: {reason}");
        self.joining.retain_mut(|joining| {
            let is_here = joining.room == key;
            if is_here {
                joining.refuse(code, reason);
            }
            !is_here
        });
        self.members.close_room(key, code, reason);
    }

    fn joined(&mut self, key: RoomKey, client: ClientId) {
        let is_it = |joining: &Joining| (joining.room, joining.client) == (key, client);
        let Some(place) = self.joining.iter().position(is_it) else {
            return;
        };
        let joining = self.joining.remove(place);
        // An older connection of the client was replaced meanwhile.
        if self.joining.iter().any(is_it) {
            return;
        }
        self.members.connected(key, client);
        let has_gone = joining
            .reply
            .is_some_and(|reply| reply.send(Ok((key, client))).is_err());
        if has_gone && self.members.leave(key, client, None).is_some() {
            self.event(key, OwnedEvent::Disconnect(client));
        }
    }

    fn refused(&mut self, key: RoomKey, client: ClientId, reason: RefusalReason) {
        let (code, text) = match reason {
            RefusalReason::NoSuchRoom => (1001, "the room is closed"),
            RefusalReason::RoomFull => (1013, "the room has its limit of clients"),
            RefusalReason::MessageTooLong => (1009, "the message is longer than the room takes"),
            RefusalReason::InvalidUtf8 => (1007, "the text is not UTF-8"),
            _ => (1011, "the board and the bridge disagree"),
        };
        let place = self
            .joining
            .iter()
            .position(|joining| (joining.room, joining.client) == (key, client));
        match place {
            Some(place) => {
                self.joining.remove(place).refuse(code, text);
                self.members.leave(key, client, None);
            }
            None => self.expel(key, client, code, text),
        }
    }

    /// Closes all clients, since their board is gone.
    pub(crate) fn lose(&mut self, reason: &LinkError) {
        self.has_session = false;
        self.end(1012, &reason.to_string());
    }

    /// Closes all clients, since the server stops.
    pub(crate) fn stop(&mut self) {
        self.end(1001, "the server is stopping");
    }

    fn end(&mut self, code: u16, reason: &str) {
        for mut joining in self.joining.drain(..) {
            joining.refuse(code, reason);
        }
        for room in self.rooms.drain(..) {
            self.members.close_room(room.key, code, reason);
        }
        self.waiting.clear();
    }
}

const REPLACED: &str = "replaced by a newer connection";
