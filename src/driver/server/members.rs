//! Who is connected to the rooms of a worker, and how messages reach them.

use crate::{ClientId, MessagePayload, Output, RoomKey, SendError, Transport};
use axum::extract::ws::{CloseFrame, Message};
use core::convert::Infallible;
use hashbrown::HashMap;
use std::{
    boxed::Box,
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    vec::Vec,
};
use tokio::sync::{mpsc, oneshot};

/// The end of a connection that a worker holds: where it queues messages, and says when to close.
#[derive(Debug)]
pub(super) struct Connection {
    /// Tells connections of one client apart.
    pub(super) number: u64,
    queue: mpsc::Sender<Message>,
    close: oneshot::Sender<Close>,
}

/// How a connection is to end.
#[derive(Debug)]
pub(super) struct Close {
    pub(super) frame: CloseFrame,
    /// Whether what is queued is sent before.
    pub(super) after_queue: bool,
}

/// The other end.
pub(super) struct Mailbox {
    pub(super) queue: mpsc::Receiver<Message>,
    pub(super) close: oneshot::Receiver<Close>,
}

/// Both ends, with a queue of this many messages.
pub(super) fn connection(queue: usize) -> (Connection, Mailbox) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (queue, messages) = mpsc::channel(queue);
    let (close, told) = oneshot::channel();
    (Connection { number, queue, close }, Mailbox { queue: messages, close: told })
}

impl Connection {
    /// Closes; there is nothing more to queue.
    pub(super) fn close(self, code: u16, reason: &str, after_queue: bool) {
        // RFC 6455: a close frame has 125 bytes, two of which are the code.
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame { code, reason: reason[..end].into() };
        // A connection that has ended by itself needs no telling.
        let _ = self.close.send(Close { frame, after_queue });
    }
}

/// The clients of all rooms of a worker, as their transport.
#[derive(Debug, Default)]
pub(super) struct Members {
    rooms: HashMap<RoomKey, RoomMembers>,
    /// Clients whose queue was full; they are closed, and their rooms are yet to be told.
    too_slow: Vec<(RoomKey, ClientId)>,
}

#[derive(Debug, Default)]
struct RoomMembers {
    connections: Vec<(ClientId, Connection)>,
    last_id: u32,
    /// The ids of clients that gave a token, latest last.
    tokens: VecDeque<(Box<str>, ClientId)>,
}

impl Members {
    /// The id for a new client, or the one that the holder of this token had.
    pub(super) fn client_id(&mut self, room: RoomKey, token: Option<Box<str>>) -> ClientId {
        /// Older tokens are forgotten, so that they are no way to fill the memory.
        const MAX_TOKENS: usize = 4096;
        let members = self.rooms.entry(room).or_default();
        let known = token.as_ref().and_then(|token| {
            members.tokens.iter().find(|(known, _)| known == token).map(|(_, client)| *client)
        });
        if let Some(client) = known {
            return client;
        }
        // At a thousand clients a second, ids last for 24 days; then they begin anew.
        loop {
            members.last_id = members.last_id % ClientId::MAX.0 + 1;
            let client = ClientId(members.last_id);
            let is_free = members.connections.iter().all(|(taken, _)| *taken != client)
                && members.tokens.iter().all(|(_, taken)| *taken != client);
            if is_free {
                if let Some(token) = token {
                    if members.tokens.len() >= MAX_TOKENS {
                        members.tokens.pop_front();
                    }
                    members.tokens.push_back((token, client));
                }
                return client;
            }
        }
    }

    pub(super) fn join(&mut self, room: RoomKey, client: ClientId, connection: Connection) {
        self.rooms.entry(room).or_default().connections.push((client, connection));
    }

    /// Takes a client out; only if it is this connection of it, where one is named.
    pub(super) fn leave(
        &mut self,
        room: RoomKey,
        client: ClientId,
        number: Option<u64>,
    ) -> Option<Connection> {
        let connections = &mut self.rooms.get_mut(&room)?.connections;
        let place = connections.iter().position(|(member, connection)| {
            *member == client && number.is_none_or(|number| number == connection.number)
        })?;
        Some(connections.swap_remove(place).1)
    }

    pub(super) fn is_empty(&self, room: RoomKey) -> bool {
        self.rooms.get(&room).is_none_or(|members| members.connections.is_empty())
    }

    /// Closes all clients of a room, after what is queued for them, and forgets it.
    pub(super) fn close_room(&mut self, room: RoomKey, code: u16, reason: &str) {
        let members = self.rooms.remove(&room).unwrap_or_default();
        for (_, connection) in members.connections {
            connection.close(code, reason, true);
        }
    }

    /// Takes the clients that were closed because they were too slow.
    pub(super) fn take_too_slow(&mut self) -> Vec<(RoomKey, ClientId)> {
        core::mem::take(&mut self.too_slow)
    }
}

/// Never refuses: a client whose queue is full is closed, so that it delays nobody.
impl Transport for Members {
    type Error = Infallible;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<Infallible>> {
        let Some(members) = self.rooms.get_mut(&room) else { return Ok(()) };
        // Copied once; the clients share it.
        let message = match output.payload {
            MessagePayload::Text(text) => Message::text(text),
            MessagePayload::Bytes(bytes) => Message::binary(bytes.to_vec()),
        };
        let mut i = 0;
        while let Some((client, connection)) = members.connections.get(i) {
            let client = *client;
            if !output.recipient.includes(client) {
                i += 1;
                continue;
            }
            match connection.queue.try_send(message.clone()) {
                Err(mpsc::error::TrySendError::Full(_)) => {
                    let (_, connection) = members.connections.swap_remove(i);
                    connection.close(1013, "too slow: too many messages were waiting", false);
                    self.too_slow.push((room, client));
                }
                // One that has ended by itself is about to leave.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => i += 1,
            }
        }
        Ok(())
    }
}
