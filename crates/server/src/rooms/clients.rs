//! The clients of a worker's rooms, and the transport to them.

use crate::{
    rooms::tokens::{TokenHasher, Tokens},
    ws::send_queue::ClientSender,
};
use core::convert::Infallible;
use hashbrown::HashMap;
use stateroom_wasmi_host::{
    ClientId, MessagePayload, OutputMessage, RoomKey, SendError, Transport,
};
use std::collections::VecDeque;
use tungstenite::Message;

/// The clients of all rooms of a worker, as their transport.
#[derive(Debug)]
pub(crate) struct Clients {
    rooms: HashMap<RoomKey, RoomClients>,
    hasher: TokenHasher,
    /// Tokens that a room remembers.
    max_tokens: usize,
    /// Clients that were disconnected because their queue was full; their rooms get a disconnect.
    too_slow: Vec<(RoomKey, ClientId)>,
    /// What sending has cost, until the host asks; see [`Transport::take_cost`].
    cost: u64,
}

#[derive(Debug, Default)]
struct RoomClients {
    connected: Vec<Client>,
    /// Clients whose disconnects the room was given and has not handled, in order. One of them may be
    /// connected again: what the room sends until then is for its earlier connection.
    leaving: VecDeque<ClientId>,
    last_id: u32,
    tokens: Tokens,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    sender: ClientSender,
    /// Set when the room starts handling the connect; earlier outputs are not for this client.
    outputs_enabled: bool,
}

/// Fuel that it is worth to look at a client of a room, to put a message into its queue, and bytes that
/// are copied for a unit.
const COST_OF_CLIENT: u64 = 4;
const COST_OF_SEND: u64 = 150;
const BYTES_PER_FUEL: u64 = 16;

impl Clients {
    pub(crate) fn new(max_tokens: usize) -> Self {
        Self {
            rooms: HashMap::new(),
            hasher: TokenHasher::default(),
            max_tokens,
            too_slow: Vec::new(),
            cost: 0,
        }
    }

    /// The id that this token had before, or a new one.
    pub(crate) fn client_id(&mut self, room: RoomKey, token: Option<&str>) -> ClientId {
        let token = token.map(|token| self.hasher.hash(token));
        let clients = self.rooms.entry(room).or_default();
        if let Some(client) = token.and_then(|token| clients.tokens.client(token)) {
            return client;
        }
        // At a thousand clients a second, ids last for 24 days; then they wrap around.
        loop {
            clients.last_id = clients.last_id % ClientId::MAX.0 + 1;
            let id = ClientId(clients.last_id);
            let is_connected = |id| clients.connected.iter().any(|client| client.id == id);
            if !is_connected(id) && !clients.tokens.contains(id) {
                if let Some(token) = token {
                    clients
                        .tokens
                        .insert(token, id, self.max_tokens, is_connected);
                }
                return id;
            }
        }
    }

    pub(crate) fn join(&mut self, room: RoomKey, id: ClientId, sender: ClientSender) {
        self.rooms.entry(room).or_default().connected.push(Client {
            id,
            sender,
            outputs_enabled: false,
        });
    }

    /// Removes a client; if `connection_id` is given, only while that is its connection. The room is
    /// to be given its disconnect.
    pub(crate) fn leave(
        &mut self,
        room: RoomKey,
        id: ClientId,
        connection_id: Option<u64>,
    ) -> Option<ClientSender> {
        let connected = &mut self.rooms.get_mut(&room)?.connected;
        let index = connected.iter().position(|client| {
            client.id == id
                && connection_id.is_none_or(|connection| connection == client.sender.connection_id)
        })?;
        Some(connected.swap_remove(index).sender)
    }

    /// Notes that a room was given the disconnect of a client that was removed.
    pub(crate) fn note_leaving(&mut self, room: RoomKey, id: ClientId) {
        if let Some(clients) = self.rooms.get_mut(&room) {
            clients.leaving.push_back(id);
        }
    }

    /// How many clients a room has.
    pub(crate) fn count(&self, room: RoomKey) -> usize {
        self.rooms
            .get(&room)
            .map_or(0, |clients| clients.connected.len())
    }

    /// Removes a room and closes its clients, after draining their queues.
    pub(crate) fn close_room(&mut self, room: RoomKey, code: u16, reason: &str) {
        let clients = self.rooms.remove(&room).unwrap_or_default();
        for client in clients.connected {
            client.sender.close(code, reason, true);
        }
    }

    /// The clients that were disconnected as too slow since the last call.
    pub(crate) fn take_too_slow(&mut self) -> Vec<(RoomKey, ClientId)> {
        core::mem::take(&mut self.too_slow)
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
        let Some(clients) = self.rooms.get_mut(&room) else {
            return Ok(());
        };
        // Copied once; all recipients share it.
        let message = match output.payload {
            MessagePayload::Text(text) => Message::text(text),
            MessagePayload::Bytes(bytes) => Message::binary(bytes.to_vec()),
        };
        self.cost += output.payload.len() as u64 / BYTES_PER_FUEL;
        let mut i = 0;
        while let Some(client) = clients.connected.get(i) {
            let id = client.id;
            self.cost += COST_OF_CLIENT;
            if !client.outputs_enabled || !output.recipient.includes(id) {
                i += 1;
                continue;
            }
            self.cost += COST_OF_SEND;
            if client.sender.send(message.clone()) {
                i += 1;
            } else {
                let client = clients.connected.swap_remove(i);
                let reason = "too slow: the send queue is full";
                client.sender.close(1013, reason, false);
                self.too_slow.push((room, id));
            }
        }
        Ok(())
    }

    fn connected(&mut self, room: RoomKey, id: ClientId) -> Result<(), SendError<Infallible>> {
        if let Some(clients) = self.rooms.get_mut(&room)
            && !clients.leaving.contains(&id)
            && let Some(client) = clients.connected.iter_mut().find(|client| client.id == id)
        {
            client.outputs_enabled = true;
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

    fn take_cost(&mut self) -> u64 {
        core::mem::take(&mut self.cost)
    }
}
