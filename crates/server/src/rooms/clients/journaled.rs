//! What rooms write into the journal, and what is held for their clients until it is durable.

use super::{Client, Clients};
use crate::{
    journal::{RoomNumber, RoomSnapshot},
    rooms::{
        journaling::RoomLog, sessions::Session, stored_clients::StoredClients, tokens::TokenHasher,
    },
    ws::connection::ConnectionKey,
};
use core::time::Duration;
use hashbrown::HashSet;
use stateroom_wasmi_host::RoomKey;
use tokio::time::Instant;

impl Clients {
    /// Begins to log what a room does.
    pub(crate) fn set_log(&mut self, room: RoomKey, log: RoomLog) {
        self.rooms.entry(room).or_default().log = Some(log);
    }

    pub(crate) fn log(&self, room: RoomKey) -> Option<&RoomLog> {
        self.rooms.get(&room)?.log.as_ref()
    }

    /// What a room has written, which ends here without leaving the journal.
    pub(crate) fn take_log(&mut self, room: RoomKey) -> Option<RoomLog> {
        self.rooms.get_mut(&room)?.log.take()
    }

    /// What the journal is to keep of a room's clients.
    pub(crate) fn store(&self, room: RoomKey) -> Vec<u8> {
        let secret = self.rooms.get(&room).and_then(|room| room.hasher.as_ref());
        self.store_with(room, secret.map(|hasher| hasher.key()))
    }

    /// The same for another server, which does not have this one's secret.
    pub(crate) fn store_for_transfer(&self, room: RoomKey) -> Vec<u8> {
        self.store_with(room, Some(self.hasher_of(room).key()))
    }

    fn store_with(&self, room: RoomKey, secret: Option<[u8; 32]>) -> Vec<u8> {
        let Some(room) = self.rooms.get(&room) else {
            return StoredClients::default().encode();
        };
        let sessions = room.connected.iter().filter_map(|client| {
            let session = client.session.as_ref()?;
            Some((client.id, session.store(client.outputs_enabled)))
        });
        StoredClients {
            last_id: room.last_id,
            tokens: room.tokens.clone(),
            sessions: sessions.collect(),
            secret,
        }
        .encode()
    }

    /// Takes over what was kept of a room's clients.
    pub(crate) fn restore(&mut self, room: RoomKey, stored: StoredClients) {
        let clients = self.rooms.entry(room).or_default();
        clients.last_id = stored.last_id;
        clients.tokens = stored.tokens;
        clients.hasher = stored.secret.map(TokenHasher::new).map(Box::new);
        if self.limits.resume_window.is_zero() {
            return;
        }
        let ends_at = self.now + self.limits.resume_window;
        for (id, session) in stored.sessions {
            self.last_number += 1;
            self.absent.push_back((ends_at, room, id, self.last_number));
            clients.connected.push(Client {
                id,
                connection: ConnectionKey::default(),
                outputs_enabled: session.outputs_enabled,
                session: Some(Box::new(Session::restore(
                    session,
                    self.last_number,
                    self.limits.of_session,
                    self.queued.clone(),
                    self.session_counts.permit(None),
                ))),
            });
        }
    }

    /// Writes a snapshot of a room into the journal.
    pub(crate) fn save(
        &mut self,
        room: RoomKey,
        id: &str,
        snapshot: Vec<u8>,
        wake_at: Option<Duration>,
    ) {
        let clients = self.store(room);
        let log = self.rooms.get_mut(&room).and_then(|room| room.log.as_mut());
        if let (Some(journaling), Some(log)) = (&mut self.journaling, log) {
            journaling.save(
                log,
                id,
                RoomSnapshot {
                    events: 0,
                    room: snapshot,
                    clients,
                    wake_at,
                },
            );
        }
    }

    /// Nothing of a room is kept when it has ended.
    pub(crate) fn forget_at_end(&mut self, room: RoomKey) {
        if let Some(log) = self.rooms.get_mut(&room).and_then(|room| room.log.as_mut()) {
            log.is_unwanted = true;
        }
    }

    /// Holds what a connection is sent of a room from now on until what has happened so far is durable.
    pub(super) fn hold(&mut self, room: RoomKey, key: ConnectionKey) {
        let log = self.rooms.get(&room).and_then(|room| room.log.as_ref());
        if let (Some(journaling), Some(log), Some(connection)) =
            (&mut self.journaling, log, self.connections.get_mut(key))
        {
            journaling.hold(log, key, connection);
        }
    }

    /// The same for all clients of a room, which is about to end.
    pub(crate) fn hold_all(&mut self, room: RoomKey) {
        for connection in self.connections_of(room) {
            self.hold(room, connection);
        }
    }

    /// Closes the connections that hold something of these rooms, of which a batch has written nothing.
    pub(crate) fn abandon_held(&mut self, batch: u64, rooms: &HashSet<RoomNumber>) {
        let journaling = self.journaling.iter();
        let lost = journaling.flat_map(|journaling| journaling.held_of(batch, rooms));
        for connection in lost.collect::<Vec<_>>() {
            self.abandon_connection(connection);
        }
    }

    /// Removes a room that has ended from the journal.
    pub(super) fn remove_log(&mut self, room: RoomKey) {
        let log = self.rooms.get_mut(&room).and_then(|room| room.log.take());
        if let (Some(journaling), Some(log)) = (&mut self.journaling, log) {
            journaling.remove(&log);
        }
    }

    /// Passes what has happened in this turn to the journal.
    pub(crate) fn submit(&mut self) {
        let Some(journaling) = &mut self.journaling else {
            return;
        };
        for key in journaling.take_sending() {
            if let Some(log) = self.rooms.get_mut(&key).and_then(|room| room.log.as_mut()) {
                journaling.hold_outputs(key, log);
            }
        }
        journaling.submit();
    }

    /// Sends what was held for batches up to this one, which are durable.
    pub(crate) fn on_durable(&mut self, batch: u64) {
        let Some(journaling) = &mut self.journaling else {
            return;
        };
        let now = Instant::now();
        let metrics = &mut self.metrics;
        let took = |took| metrics.journal.observe(took);
        journaling.durable(batch, took, |key| {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.release(batch, now);
            }
        });
        while let Some((room, outputs)) = journaling.next_released(batch) {
            if let Some(log) = self.rooms.get_mut(&room).and_then(|room| room.log.as_mut()) {
                log.release(outputs);
            }
        }
    }

    /// Discards what is held, which will never be durable, and closes whom it was for.
    pub(crate) fn discard_held(&mut self, code: u16, reason: &str) {
        let Some(journaling) = &mut self.journaling else {
            return;
        };
        for key in journaling.take_held() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.abandon(code, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ENDS_PER_TURN, *};
    use crate::{
        config::ServerConfig,
        rooms::{clients::ClientLimits, sessions::StoredSession, tokens::TokenHash},
    };
    use stateroom_wasmi_host::{ClientId, Instant as HostTime};

    #[test]
    fn of_sessions_that_end_at_the_same_time_each_turn_ends_some() {
        const ALL: usize = 3 * ENDS_PER_TURN - 1;
        let limits = ClientLimits::of_worker(&ServerConfig::new(Vec::new()));
        let ends_at = HostTime::ZERO + limits.resume_window;
        let mut clients = Clients::new(limits, [0; 32], None);
        let room = RoomKey::from_bits(1);
        let session = || StoredSession::new(TokenHash([0; TokenHash::BYTES]), 0);
        let ids = (1..).map(ClientId).take(ALL);
        let stored = StoredClients {
            sessions: ids.map(|id| (id, session())).collect(),
            ..StoredClients::default()
        };
        clients.restore(room, stored);
        assert!(clients.take_removed(HostTime::ZERO).is_empty());
        for ended in [ENDS_PER_TURN, ENDS_PER_TURN, ENDS_PER_TURN - 1] {
            // The next turn is due at once.
            assert_eq!(clients.next_end(), Some(ends_at));
            assert_eq!(clients.take_removed(ends_at).len(), ended);
        }
        assert_eq!(clients.next_end(), None);
        assert_eq!(clients.count(room), 0);
    }
}
