//! Events that the link to a board does not take yet.

use crate::{
    rooms::{Busy, JoinRejection, clients::Clients, wait_queue::WaitQueue},
    ws::connection::{ConnectionKey, message_cost},
};
use stateroom_wasmi_host::{ClientId, MessagePayload, OwnedEvent, RoomKey};
use std::collections::VecDeque;

/// Events that the link does not take yet, in order, for all rooms.
///
/// It is bounded: messages in bytes, connects in number; and there is a disconnect at most for each
/// connect that is or was in it.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    events: VecDeque<QueuedEvent>,
    /// What the messages among them take, also those of rooms that have ended.
    message_bytes: usize,
    connects: usize,
    waiting: WaitQueue,
}

#[derive(Debug)]
pub(super) struct QueuedEvent {
    pub(super) room: RoomKey,
    pub(super) event: OwnedEvent,
    /// Of a message: whose it is.
    pub(super) connection: Option<ConnectionKey>,
    /// Of a message: the number of its client's session, if it has one.
    session: Option<u64>,
}

/// What messages may take. A board's line is slow: this is more than it takes in minutes.
const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Connects that wait, besides those that are on the line; others are rejected. As many as the clients
/// of a large room.
const MAX_CONNECTS: usize = 1024;

impl Backlog {
    /// Whether there is space for a connect.
    pub(super) fn check_connect(&self) -> Result<(), JoinRejection> {
        match self.connects < MAX_CONNECTS {
            true => Ok(()),
            false => Err(JoinRejection::new(1013, "the board is busy")),
        }
    }

    /// Queues a connect, for which there must be space.
    pub(super) fn connect(&mut self, room: RoomKey, client: ClientId) {
        self.connects += 1;
        self.push(room, OwnedEvent::Connect(client), None, None);
    }

    /// Queues a disconnect.
    pub(super) fn disconnect(&mut self, room: RoomKey, client: ClientId) {
        self.push(room, OwnedEvent::Disconnect(client), None, None);
    }

    /// Queues a message, or lets its connection wait until there is space.
    pub(super) fn message(
        &mut self,
        clients: &mut Clients,
        connection: ConnectionKey,
        (room, client): (RoomKey, ClientId),
        payload: MessagePayload<'_>,
    ) -> Result<(), Busy> {
        let first = self.waiting.first(clients);
        let may_pass = first.is_none_or(|first| first == connection);
        if !may_pass || !self.has_space() {
            self.waiting.push(clients, connection);
            return Err(Busy);
        }
        if let Some(connection) = clients.get(connection) {
            connection.sent_to_room(message_cost(payload.len()));
        }
        let event = OwnedEvent::message(client, payload.to_owned());
        self.message_bytes += bytes(&event);
        let session = clients.accepted(room, client);
        self.push(room, event, Some(connection), session);
        if first.is_some() {
            self.waiting.pop_first(clients);
        }
        Ok(())
    }

    /// The event to send next, and where it is: the first that is not of a room whose events wait.
    pub(super) fn next(&self, held: Option<RoomKey>) -> Option<(usize, &QueuedEvent)> {
        let mut events = self.events.iter().enumerate();
        events.find(|(_, queued)| Some(queued.room) != held)
    }

    /// Removes an event, which was sent or dropped.
    pub(super) fn remove(&mut self, index: usize, clients: &mut Clients) -> Option<QueuedEvent> {
        let first = self.events.remove(index)?;
        match &first.event {
            OwnedEvent::Connect(_) => self.connects -= 1,
            OwnedEvent::Message(..) => self.message_bytes -= bytes(&first.event),
            _ => {}
        }
        let (client, bytes) = (
            first.event.as_event().client(),
            first.event.as_event().payload_len(),
        );
        if let Some(connection) = first.connection.and_then(|key| clients.get(key)) {
            connection.handled_by_room(message_cost(bytes));
        }
        if let Some(session) = first.session {
            clients.handled(first.room, client, session, message_cost(bytes));
        }
        Some(first)
    }

    /// Drops the messages of a connection.
    pub(super) fn drop_messages(&mut self, of: ConnectionKey) {
        let message_bytes = &mut self.message_bytes;
        self.events.retain(|queued| {
            let is_dropped = queued.connection == Some(of);
            if is_dropped {
                *message_bytes -= bytes(&queued.event);
            }
            !is_dropped
        });
    }

    /// Lets a connection that waits try again, if there is space.
    pub(super) fn wake_waiting(&mut self, clients: &mut Clients) {
        if !self.waiting.is_empty() && self.has_space() {
            self.waiting.wake_first(clients);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether there is space for a message of any length.
    fn has_space(&self) -> bool {
        self.message_bytes < MAX_MESSAGE_BYTES
    }

    fn push(
        &mut self,
        room: RoomKey,
        event: OwnedEvent,
        connection: Option<ConnectionKey>,
        session: Option<u64>,
    ) {
        self.events.push_back(QueuedEvent {
            room,
            event,
            connection,
            session,
        });
    }
}

/// What a message takes.
fn bytes(event: &OwnedEvent) -> usize {
    size_of::<QueuedEvent>() + event.as_event().payload_len()
}
