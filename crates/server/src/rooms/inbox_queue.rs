//! Flow control between the clients of a room and its inbox.

use crate::{
    rooms::{Busy, clients::Clients, wait_queue::WaitQueue},
    ws::connection::{ConnectionKey, message_cost},
};
use stateroom_wasmi_host::{ClientId, Clock, Event, EventError, Host, Room, RoomKey};
use std::collections::VecDeque;

/// What is in the inbox of one room, and what waits for space there.
///
/// A message that finds the inbox full stays with its connection, which is not read from meanwhile. A
/// disconnect that does stays here.
#[derive(Debug, Default)]
pub(super) struct InboxQueue {
    /// How many of the room's events were over when this was last brought up to date.
    events_handled: u64,
    /// For each event in the inbox, in order: the connection that it counts for, and how much; none for
    /// events of the server's own.
    in_flight: VecDeque<Option<InFlight>>,
    /// Disconnects, in order. No more than the room had clients, since nobody joins meanwhile.
    disconnects: VecDeque<ClientId>,
    /// Connections with a message.
    waiting: WaitQueue,
    /// Whether messages wait in any case.
    is_held: bool,
}

/// A client's message in the inbox.
#[derive(Debug)]
struct InFlight {
    connection: ConnectionKey,
    cost: u32,
    /// The client, and the number of its session.
    session: Option<(ClientId, u64)>,
}

impl InboxQueue {
    /// That of a room which is opened, or restored with what waits in its inbox.
    pub(super) fn of(room: &Room) -> Self {
        let events_handled = room.stats().events_handled;
        let left = room.events_accepted() - events_handled;
        Self {
            events_handled,
            in_flight: (0..left).map(|_| None).collect(),
            ..Self::default()
        }
    }

    /// Whether a disconnect waits.
    pub(super) fn has_disconnects(&self) -> bool {
        !self.disconnects.is_empty()
    }

    /// Lets messages wait from now on, or no longer.
    pub(super) fn set_held<C: Clock>(&mut self, host: &mut Host<C, Clients>, is_held: bool) {
        self.is_held = is_held;
        if !is_held {
            self.waiting.wake_first(host.transport_mut());
        }
    }

    /// Enqueues a connection's message, unless it has to wait.
    pub(super) fn message<C: Clock>(
        &mut self,
        host: &mut Host<C, Clients>,
        room: RoomKey,
        connection: ConnectionKey,
        event: Event<'_>,
    ) -> Result<(), Busy> {
        let first = self.waiting.first(host.transport_mut());
        let may_pass = first.is_none_or(|first| first == connection);
        if self.is_held || self.has_disconnects() || !may_pass {
            self.waiting.push(host.transport_mut(), connection);
            return Err(Busy);
        }
        let cost = message_cost(event.payload_len());
        match host.enqueue(room, event) {
            Ok(()) => {
                let clients = host.transport_mut();
                let mut session = None;
                if let Some(connection) = clients.get(connection) {
                    connection.sent_to_room(cost);
                    if connection.resumes() {
                        let client = event.client();
                        session = clients
                            .accepted(room, client)
                            .map(|number| (client, number));
                    }
                }
                self.in_flight.push_back(Some(InFlight {
                    connection,
                    cost,
                    session,
                }));
            }
            Err(EventError::InboxFull) => {
                self.waiting.push(host.transport_mut(), connection);
                return Err(Busy);
            }
            Err(error) => log::debug!("room {room} rejected a message: {error}"),
        }
        if first.is_some() {
            self.waiting.pop_first(host.transport_mut());
        }
        Ok(())
    }

    /// Enqueues an event of the server's own.
    pub(super) fn event<C: Clock>(
        &mut self,
        host: &mut Host<C, Clients>,
        room: RoomKey,
        event: Event<'static>,
    ) -> Result<(), EventError> {
        host.enqueue(room, event)?;
        self.in_flight.push_back(None);
        Ok(())
    }

    /// Enqueues a disconnect, now or as soon as there is space.
    pub(super) fn disconnect<C: Clock>(
        &mut self,
        host: &mut Host<C, Clients>,
        room: RoomKey,
        client: ClientId,
    ) {
        self.disconnects.push_back(client);
        self.send_disconnects(host, room);
        // Whoever waited behind the one that has left.
        self.waiting.wake_first(host.transport_mut());
    }

    fn send_disconnects<C: Clock>(&mut self, host: &mut Host<C, Clients>, room: RoomKey) {
        while let Some(client) = self.disconnects.front() {
            match self.event(host, room, Event::Disconnect(*client)) {
                Ok(()) => {}
                Err(EventError::InboxFull) => return,
                // The room was closed.
                Err(error) => log::debug!("room {room} rejected a disconnect: {error}"),
            }
            self.disconnects.pop_front();
        }
    }

    /// Takes note of the events that the room has handled, and whose outputs were sent; returns false if
    /// nothing is left.
    pub(super) fn update<C: Clock>(&mut self, host: &mut Host<C, Clients>, room: RoomKey) -> bool {
        let handled = host.room(room).map_or(0, |room| {
            // The outputs of the last one may not all be sent yet.
            let is_sending = room.peek_output().is_some();
            room.stats()
                .events_handled
                .saturating_sub(u64::from(is_sending))
        });
        let handled = handled.saturating_sub(self.events_handled);
        self.events_handled += handled;
        let handled = usize::try_from(handled).unwrap_or(usize::MAX);
        let handled = handled.min(self.in_flight.len());
        for message in self.in_flight.drain(..handled).flatten() {
            let clients = host.transport_mut();
            if let Some(connection) = clients.get(message.connection) {
                connection.handled_by_room(message.cost);
            }
            if let Some((client, number)) = message.session {
                clients.handled(room, client, number, message.cost);
            }
        }
        self.send_disconnects(host, room);
        if !self.is_held && !self.waiting.is_empty() && (handled > 0 || self.in_flight.is_empty()) {
            self.waiting.wake_first(host.transport_mut());
        }
        !(self.in_flight.is_empty() && self.disconnects.is_empty() && self.waiting.is_empty())
    }
}
