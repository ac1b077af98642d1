//! Sessions of clients that come back; `docs/resume.md` is the protocol.

use super::{Client, Clients};
use crate::{
    rooms::{Claim, Hello, JoinRejection, LATE, SESSION_LOST, sessions::Session},
    ws::connection::{Connection, ConnectionKey},
};
use core::net::IpAddr;
use stateroom_wasmi_host::{ClientId, Instant as HostTime, RoomKey};
use stateroom_wasmi_resume::{Frame, InvalidCount};

/// A client that has come back; or its count cannot be, and so it has not.
type CameBack = (ClientId, Result<(), InvalidCount>);

impl Clients {
    fn client_mut(&mut self, room: RoomKey, id: ClientId) -> Option<&mut Client> {
        let clients = self.rooms.get_mut(&room)?;
        let index = clients.index(id).ok()?;
        clients.connected.get_mut(index)
    }

    fn session_mut(&mut self, room: RoomKey, id: ClientId) -> Option<&mut Session> {
        self.client_mut(room, id)?.session.as_deref_mut()
    }

    /// The client whose session has this secret.
    fn find_session(&self, room: RoomKey, secret: &str) -> Option<ClientId> {
        let hash = self.hasher_of(room).hash_session(secret);
        let clients = &self.rooms.get(&room)?.connected;
        let has_session = |client: &&Client| {
            let session = client.session.as_ref();
            session.is_some_and(|session| session.hash == hash)
        };
        clients.iter().find(has_session).map(|client| client.id)
    }

    /// The session of a client, if it is without a connection, for this time.
    pub(super) fn absent_session(
        &self,
        room: RoomKey,
        id: ClientId,
        absence: u64,
    ) -> Option<&Session> {
        let client = self.rooms.get(&room)?.get(id)?;
        let session = client.session.as_deref()?;
        let is_absent =
            session.absence == absence && !self.connections.contains_key(client.connection);
        is_absent.then_some(session)
    }

    /// Ends the session that has been without a connection for the longest time, of this address or of all.
    fn end_oldest_absent(&mut self, peer: Option<IpAddr>) {
        let oldest = self.absent.iter().find(|(_, room, id, absence)| {
            let session = self.absent_session(*room, *id, *absence);
            session.is_some_and(|session| peer.is_none() || session.peer() == peer)
        });
        if let Some((_, room, id, _)) = oldest.copied() {
            self.leave(room, id);
            self.removed.push((room, id));
        }
    }

    /// Begins a session of a client that has just joined. It is told the secret when the room starts
    /// handling its connect, since until then a crash could undo that.
    pub(crate) fn begin_session(&mut self, room: RoomKey, id: ClientId, secret: Box<str>) {
        let clients = self.rooms.get(&room);
        let connection = clients.and_then(|clients| Some(clients.get(id)?.connection));
        let connection = connection.and_then(|key| self.connections.get(key));
        let Some(connection) = connection else {
            return;
        };
        let (peer, sequence) = (connection.peer(), connection.order.sequence);
        let of_peer = peer.map_or(0, |peer| self.session_counts.of_peer(peer));
        if of_peer >= self.limits.sessions_per_address {
            self.end_oldest_absent(peer);
        } else if self.session_counts.all() >= self.limits.sessions {
            self.end_oldest_absent(None);
        }
        let permit = self.session_counts.permit(peer);
        let hash = self.hasher_of(room).hash_session(&secret);
        self.last_number += 1;
        let (number, limits, total) = (
            self.last_number,
            self.limits.of_session,
            self.queued.clone(),
        );
        if let Some(client) = self.client_mut(room, id) {
            let mut session = Session::new(hash, number, limits, total, permit);
            session.unannounced = Some(secret);
            session.sequence = sequence;
            client.session = Some(Box::new(session));
        }
    }

    /// The room starts handling the connect of a client.
    pub(super) fn announce_session(&mut self, room: RoomKey, id: ClientId) {
        let session = self.session_mut(room, id);
        if let Some(secret) = session.and_then(|session| session.unannounced.take()) {
            self.send_control(room, id, Frame::New(&secret));
        }
    }

    /// The client whose session is claimed.
    fn claimed(&self, room: RoomKey, claim: &Claim) -> Option<ClientId> {
        let secret = match (&claim.hello, &claim.session) {
            (Some(Hello(Some((secret, _)))), _) | (_, Some(secret)) => secret,
            (_, None) => return None,
        };
        self.find_session(room, secret)
    }

    /// The client that claims a session waits until it may go on with that over this connection. As long as it does,
    /// the session is not over.
    pub(crate) fn wait_for_turn(
        &mut self,
        room: RoomKey,
        connection: ConnectionKey,
        claim: &Claim,
    ) {
        let client = self.claimed(room, claim);
        if let Some(session) = client.and_then(|client| self.session_mut(room, client)) {
            session.waiting = Some(connection);
        }
    }

    /// Goes on with the session that a client claims, over this connection; returns whose it is, and whether
    /// its count can be. None if the client is to join as a new one.
    pub(crate) fn come_back(
        &mut self,
        room: RoomKey,
        connection: ConnectionKey,
        claim: &Claim,
    ) -> Result<Option<CameBack>, JoinRejection> {
        let received = match &claim.hello {
            Some(Hello(Some((_, received)))) => Some(*received),
            _ => None,
        };
        let Some(client) = self.claimed(room, claim) else {
            return match (received, &claim.session) {
                (Some(_), Some(_)) => Err(SESSION_LOST.into()),
                _ => Ok(None),
            };
        };
        if self.is_late(room, client, connection) {
            return Err(LATE.into());
        }
        let resumed = match (received, &claim.session) {
            (None, Some(secret)) => self.begin_again(room, client, connection, secret),
            (received, _) => self.resume(room, client, connection, received.unwrap_or(0)),
        };
        Ok(Some((client, resumed)))
    }

    /// As [`resume`](Self::resume), for a client that does not know whether it has joined, and so has sent
    /// nothing.
    fn begin_again(
        &mut self,
        room: RoomKey,
        id: ClientId,
        connection: ConnectionKey,
        secret: &str,
    ) -> Result<(), InvalidCount> {
        let Some(client) = self.client_mut(room, id) else {
            return Ok(());
        };
        let is_announced = client.outputs_enabled;
        let Some(session) = &mut client.session else {
            return Ok(());
        };
        session.resume(0)?;
        if !is_announced {
            session.unannounced = Some(secret.into());
        }
        self.go_on(
            room,
            id,
            connection,
            is_announced.then_some(Frame::New(secret)),
        );
        Ok(())
    }

    /// Whether a client's session has gone on over a connection that is newer, and still there. It is not over for
    /// the client, whose clock may have been wrong.
    fn is_late(&self, room: RoomKey, id: ClientId, connection: ConnectionKey) -> bool {
        let present = self.connection_of(room, id);
        let present = present.and_then(|present| self.order_of(present));
        let coming = self.order_of(connection);
        present
            .zip(coming)
            .is_some_and(|(present, coming)| coming.is_before(present, self.limits.clock_skew))
    }

    /// Goes on with a session over another connection; the client has received so many messages.
    fn resume(
        &mut self,
        room: RoomKey,
        id: ClientId,
        connection: ConnectionKey,
        received: u64,
    ) -> Result<(), InvalidCount> {
        let Some(client) = self.client_mut(room, id) else {
            return Ok(());
        };
        let Some(session) = &mut client.session else {
            return Ok(());
        };
        let handled = session.resume(received)?;
        self.go_on(room, id, connection, Some(Frame::Resumed(handled)));
        self.end_trial(room, id);
        Ok(())
    }

    /// Goes on with a session over another connection, by this frame, and sends again what the client does
    /// not have.
    fn go_on(
        &mut self,
        room: RoomKey,
        id: ClientId,
        connection: ConnectionKey,
        frame: Option<Frame<'_>>,
    ) {
        let Some(client) = self.client_mut(room, id) else {
            return;
        };
        let older = core::mem::replace(&mut client.connection, connection);
        if older != connection {
            self.replace(room, older);
        }
        if let Some(joining) = self.connections.get_mut(connection) {
            joining.member = Some((room, id));
            let sequence = joining.order.sequence;
            self.metrics.clients.count_join();
            if let Some(session) = self.session_mut(room, id) {
                session.sequence = session.sequence.max(sequence);
            }
        }
        if let Some(frame) = frame {
            self.send_control(room, id, frame);
        }
        let clients = self.rooms.get(&room);
        let session = clients.and_then(|clients| clients.get(id)?.session.as_ref());
        if let (Some(session), Some(connection)) = (session, self.connections.get_mut(connection)) {
            let fits = session
                .unacknowledged()
                .all(|message| connection.queue.push_prefixed(message.payload()).is_ok());
            if !fits {
                self.remove_as_too_slow(room, id, "too slow: the send queue is full");
            }
        }
    }

    /// Queues a control frame for a client. What it says is as durable as what the room has done.
    fn send_control(&mut self, room: RoomKey, id: ClientId, frame: Frame<'_>) {
        let Some(key) = self.connection_of(room, id) else {
            return;
        };
        if self.connections.get(key).is_none_or(Connection::is_ending) {
            return;
        }
        self.hold(room, key);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.queue.push_control(&frame.to_string());
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push_back(key);
        }
    }

    /// Whether a client's next message was accepted over an earlier connection.
    pub(crate) fn is_duplicate(&mut self, room: RoomKey, id: ClientId) -> bool {
        let session = self.session_mut(room, id);
        session.is_some_and(Session::take_duplicate)
    }

    fn is_on_trial(&self, room: RoomKey, id: ClientId) -> bool {
        let client = self.rooms.get(&room).and_then(|clients| clients.get(id));
        let connection = client.and_then(|client| self.connections.get(client.connection));
        connection.is_some_and(|connection| connection.trial.is_some())
    }

    /// The trial of a client may be over.
    fn end_trial(&mut self, room: RoomKey, id: ClientId) {
        let client = self.rooms.get(&room).and_then(|clients| clients.get(id));
        if let Some(client) = client
            && let Some(session) = &client.session
            && let Some(connection) = self.connections.get_mut(client.connection)
        {
            let handled = session.handled_count();
            if let Some(trial) = &mut connection.trial {
                trial.handled(handled);
            }
        }
    }

    /// The room has accepted a client's message. Returns the number of its session.
    pub(crate) fn accepted(&mut self, room: RoomKey, id: ClientId) -> Option<u64> {
        let session = self.session_mut(room, id)?;
        session.accepted();
        Some(session.number)
    }

    /// The room has handled a message of this session, of this cost in flight.
    pub(crate) fn handled(&mut self, room: RoomKey, id: ClientId, number: u64, cost: u32) {
        let is_on_trial = self.is_on_trial(room, id);
        let session = self.session_mut(room, id);
        let session = session.filter(|session| session.number == number);
        let Some(session) = session else {
            return;
        };
        let ack = session.handled(cost, is_on_trial);
        let is_over = session.has_ended() && session.is_settled();
        match ack {
            Some(handled) => self.send_control(room, id, Frame::Ack(handled)),
            None => {
                if let Some(connection) = self.connection_of(room, id)
                    && let Some(connection) = self.connections.get_mut(connection)
                {
                    connection.acknowledge_soon();
                }
            }
        }
        if is_over {
            self.set_waiting_to_end(room, id, false);
        }
        if is_on_trial {
            self.end_trial(room, id);
        }
    }

    /// A client has received so many messages of its session.
    pub(crate) fn acknowledged(
        &mut self,
        (room, id): (RoomKey, ClientId),
        received: u64,
    ) -> Result<(), InvalidCount> {
        match self.session_mut(room, id) {
            Some(session) => session.acknowledge(received),
            None => Ok(()),
        }
    }

    /// Ends a client's session, which then leaves its room as others do. All that the client has said is
    /// acknowledged first, so that its connection ends when that is durable: nobody would send it again.
    pub(crate) fn end_session(&mut self, (room, id): (RoomKey, ClientId)) {
        let Some(session) = self.session_mut(room, id) else {
            return;
        };
        let ack = session.end();
        let is_settled = session.is_settled();
        if let Some(handled) = ack {
            self.send_control(room, id, Frame::Ack(handled));
        }
        // An earlier connection may have brought what is still to be handled.
        self.set_waiting_to_end(room, id, !is_settled);
    }

    /// Acknowledges what was not acknowledged yet, some time after it was handled.
    pub(crate) fn acknowledge(&mut self, (room, id): (RoomKey, ClientId)) {
        let session = self.session_mut(room, id);
        if let Some(handled) = session.and_then(Session::acknowledge_all) {
            self.send_control(room, id, Frame::Ack(handled));
        }
    }

    fn set_waiting_to_end(&mut self, room: RoomKey, id: ClientId, waits: bool) {
        let client = self.rooms.get(&room).and_then(|clients| clients.get(id));
        let connection = client.and_then(|client| self.connections.get_mut(client.connection));
        if let Some(connection) = connection {
            connection.waits_to_end = waits;
            connection.wake();
        }
    }

    /// Keeps a client whose connection has ended in its room, if it has a session; returns whether it has.
    pub(crate) fn keep_session(&mut self, room: RoomKey, id: ClientId, now: HostTime) -> bool {
        self.last_number += 1;
        let number = self.last_number;
        let session = self.session_mut(room, id);
        let Some(session) = session.filter(|session| !session.has_ended()) else {
            return false;
        };
        session.absence = number;
        let ends_at = now + self.limits.resume_window;
        self.absent.push_back((ends_at, room, id, number));
        true
    }

    /// Ends the sessions that keep most, while all queues are beyond their limit and a session keeps more
    /// than any queue.
    pub(super) fn shed_sessions(&mut self) {
        while self.queued.get() > self.limits.max_queued_bytes {
            let of_queues = self.connections.values();
            let longest = of_queues.map(|connection| connection.queue.len()).max();
            let rooms = self.rooms.iter();
            let sessions = rooms.flat_map(|(room, clients)| {
                clients.connected.iter().filter_map(|client| {
                    let session = client.session.as_ref()?;
                    Some((session.bytes(), *room, client.id))
                })
            });
            let Some((bytes, room, id)) = sessions.max_by_key(|(bytes, ..)| *bytes) else {
                return;
            };
            if bytes == 0 || bytes < longest.unwrap_or(0) {
                return;
            }
            self.remove_as_too_slow(room, id, "too slow: the send queues are full");
        }
    }

    fn remove_as_too_slow(&mut self, room: RoomKey, id: ClientId, reason: &str) {
        if let Some(key) = self.leave(room, id) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.close_as_too_slow(reason);
            }
            self.removed.push((room, id));
        }
    }

    /// How many clients of a room have a session.
    pub(crate) fn count_sessions(&self, room: RoomKey) -> usize {
        let clients = self.rooms.get(&room).map(|room| &room.connected);
        let has_session = |client: &&Client| client.session.is_some();
        clients.map_or(0, |clients| clients.iter().filter(has_session).count())
    }

    /// Whether a client has a session.
    pub(crate) fn has_session(&self, room: RoomKey, id: ClientId) -> bool {
        let client = self.rooms.get(&room).and_then(|clients| clients.get(id));
        client.is_some_and(|client| client.session.is_some())
    }
}
