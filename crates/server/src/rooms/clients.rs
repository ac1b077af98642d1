//! Who is connected to the rooms of a worker, and how messages reach them.

use crate::rooms::tokens::{TokenHasher, Tokens};
use axum::extract::ws::{CloseFrame, Message};
use core::convert::Infallible;
use hashbrown::HashMap;
use stateroom_wasmi_host::{ClientId, MessagePayload, Output, RoomKey, SendError, Transport};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    vec::Vec,
};
use tokio::sync::{Notify, mpsc, oneshot};

/// The end of a connection that a worker holds: where it queues messages, and says when to close.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Tells connections of one client apart.
    pub(crate) number: u64,
    /// Whether its room knows of it; what the room says before is not for it.
    is_known: bool,
    queue: mpsc::Sender<Message>,
    gauge: Arc<QueueUsage>,
    close: oneshot::Sender<Close>,
}

/// How a connection is to end.
#[derive(Debug)]
pub(crate) struct Close {
    pub(crate) frame: CloseFrame,
    /// Whether what is queued is sent before.
    pub(crate) after_queue: bool,
}

/// The other end.
pub(crate) struct Mailbox {
    pub(crate) queue: Queue,
    pub(crate) close: oneshot::Receiver<Close>,
}

/// The messages that wait for a client.
pub(crate) struct Queue {
    messages: mpsc::Receiver<Message>,
    pub(crate) gauge: Arc<QueueUsage>,
}

/// How much may wait for one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// How full a client's queue is.
#[derive(Debug)]
pub(crate) struct QueueUsage {
    limits: QueueLimits,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    fell: Notify,
}

/// Both ends, with a queue between them.
pub(crate) fn connection(limits: QueueLimits) -> (Connection, Mailbox) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (queue, messages) = mpsc::channel(limits.messages);
    let gauge = Arc::new(QueueUsage {
        limits,
        messages: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        fell: Notify::new(),
    });
    let (close, told) = oneshot::channel();
    let connection = Connection {
        number,
        is_known: false,
        queue,
        gauge: gauge.clone(),
        close,
    };
    (
        connection,
        Mailbox {
            queue: Queue { messages, gauge },
            close: told,
        },
    )
}

impl QueueUsage {
    /// Whether a message of this length may wait, too. One that waits alone may be of any length.
    fn fits(&self, bytes: usize) -> bool {
        let waiting = self.bytes.load(Ordering::Acquire);
        waiting == 0 || waiting.saturating_add(bytes) <= self.limits.bytes
    }

    fn rise(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn fall(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if self.is_half_empty() {
            self.fell.notify_one();
        }
    }

    fn is_half_empty(&self) -> bool {
        self.messages.load(Ordering::Acquire) <= self.limits.messages / 2
            && self.bytes.load(Ordering::Acquire) <= self.limits.bytes / 2
    }

    /// Waits until no more than half of the queue is in use. For one waiter.
    pub(crate) async fn half_empty(&self) {
        while !self.is_half_empty() {
            // If it falls before this waits, the notification is kept.
            self.fell.notified().await;
        }
    }
}

impl Queue {
    /// Takes up to `limit` messages, at least one unless there are no more and never will be.
    /// If this is cancelled, nothing was taken.
    pub(crate) async fn take(&mut self, batch: &mut Vec<Message>, limit: usize) -> usize {
        let before = batch.len();
        let taken = self.messages.recv_many(batch, limit).await;
        let bytes = batch[before..].iter().map(message_bytes).sum();
        self.gauge.fall(taken, bytes);
        taken
    }
}

/// The length of what a room says.
fn message_bytes(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

impl Connection {
    /// Queues a message; answers whether there was room for it.
    fn send(&self, message: Message) -> bool {
        let bytes = message_bytes(&message);
        match self.queue.try_reserve() {
            Ok(_) if !self.gauge.fits(bytes) => false,
            Ok(place) => {
                // Before the other end can take it.
                self.gauge.rise(bytes);
                place.send(message);
                true
            }
            Err(mpsc::error::TrySendError::Full(())) => false,
            // One that has ended by itself is about to leave.
            Err(mpsc::error::TrySendError::Closed(())) => true,
        }
    }

    /// Closes; there is nothing more to queue.
    pub(crate) fn close(self, code: u16, reason: &str, after_queue: bool) {
        // RFC 6455: a close frame has 125 bytes, two of which are the code.
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame {
            code,
            reason: reason[..end].into(),
        };
        // A connection that has ended by itself needs no telling.
        let _ = self.close.send(Close { frame, after_queue });
    }
}

/// The clients of all rooms of a worker, as their transport.
#[derive(Debug)]
pub(crate) struct Clients {
    rooms: HashMap<RoomKey, RoomMembers>,
    hasher: TokenHasher,
    /// Tokens that a room remembers.
    max_tokens: usize,
    /// Clients whose queue was full; they are closed, and their rooms are yet to be told.
    too_slow: Vec<(RoomKey, ClientId)>,
}

#[derive(Debug, Default)]
struct RoomMembers {
    connections: Vec<(ClientId, Connection)>,
    last_id: u32,
    tokens: Tokens,
}

impl Clients {
    pub(crate) fn new(max_tokens: usize) -> Self {
        Self {
            rooms: HashMap::new(),
            hasher: TokenHasher::default(),
            max_tokens,
            too_slow: Vec::new(),
        }
    }

    /// The id for a new client, or the one that the holder of this token had.
    pub(crate) fn client_id(&mut self, room: RoomKey, token: Option<&str>) -> ClientId {
        let token = token.map(|token| self.hasher.token(token));
        let members = self.rooms.entry(room).or_default();
        if let Some(client) = token.and_then(|token| members.tokens.client(token)) {
            return client;
        }
        // At a thousand clients a second, ids last for 24 days; then they begin anew.
        loop {
            members.last_id = members.last_id % ClientId::MAX.0 + 1;
            let client = ClientId(members.last_id);
            let is_connected = |client| {
                members
                    .connections
                    .iter()
                    .any(|(connected, _)| *connected == client)
            };
            if !is_connected(client) && !members.tokens.has(client) {
                if let Some(token) = token {
                    members
                        .tokens
                        .remember(token, client, self.max_tokens, is_connected);
                }
                return client;
            }
        }
    }

    pub(crate) fn join(&mut self, room: RoomKey, client: ClientId, connection: Connection) {
        self.rooms
            .entry(room)
            .or_default()
            .connections
            .push((client, connection));
    }

    /// Takes a client out; only if it is this connection of it, where one is named.
    pub(crate) fn leave(
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

    /// How many clients a room has.
    pub(crate) fn count(&self, room: RoomKey) -> usize {
        self.rooms
            .get(&room)
            .map_or(0, |members| members.connections.len())
    }

    /// Closes all clients of a room, after what is queued for them, and forgets it.
    pub(crate) fn close_room(&mut self, room: RoomKey, code: u16, reason: &str) {
        let members = self.rooms.remove(&room).unwrap_or_default();
        for (_, connection) in members.connections {
            connection.close(code, reason, true);
        }
    }

    /// Takes the clients that were closed because they were too slow.
    pub(crate) fn take_too_slow(&mut self) -> Vec<(RoomKey, ClientId)> {
        core::mem::take(&mut self.too_slow)
    }
}

/// Never refuses: a client whose queue is full is closed, so that it delays nobody.
impl Transport for Clients {
    type Error = Infallible;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<Infallible>> {
        let Some(members) = self.rooms.get_mut(&room) else {
            return Ok(());
        };
        // Copied once; the clients share it.
        let message = match output.payload {
            MessagePayload::Text(text) => Message::text(text),
            MessagePayload::Bytes(bytes) => Message::binary(bytes.to_vec()),
        };
        let mut i = 0;
        while let Some((client, connection)) = members.connections.get(i) {
            let client = *client;
            if !connection.is_known || !output.recipient.includes(client) {
                i += 1;
                continue;
            }
            if connection.send(message.clone()) {
                i += 1;
            } else {
                let (_, connection) = members.connections.swap_remove(i);
                connection.close(1013, "too slow: too many messages were waiting", false);
                self.too_slow.push((room, client));
            }
        }
        Ok(())
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) {
        let members = self
            .rooms
            .get_mut(&room)
            .map(|members| &mut members.connections);
        let newest = members
            .into_iter()
            .flatten()
            .rfind(|(member, _)| *member == client);
        if let Some((_, connection)) = newest {
            connection.is_known = true;
        }
    }
}
