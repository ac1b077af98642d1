//! Rooms that go to another node, and those that come from one.

use super::HostedRooms;
use crate::{
    directory::Location,
    journal::{JournalError, RoomNumber, UnfinishedRoom},
    rooms::{
        JoinRejection, MOVED, Released, RoomFilter,
        journaling::{Journaling, RoomLog},
    },
};
use hashbrown::HashSet;
use stateroom_wasmi_host::{Clock, Escaped, Instant, RoomKey};
use std::collections::VecDeque;

/// Rooms that are given up together.
pub(super) struct Release {
    /// Those that are still here.
    rooms: VecDeque<RoomKey>,
    /// Set when none is: the batch in which the last of them was saved.
    batch: Option<u64>,
    /// What those have written that are not.
    released: Vec<RoomLog>,
    /// Rooms that were another node's meanwhile.
    lost: Vec<RoomNumber>,
    done: Released,
}

impl HostedRooms {
    /// Whether the room of this id is at this node, as far as this node knows.
    pub(super) fn is_here(&self, id: &str) -> bool {
        let directory = self.options.directory.as_ref();
        directory.is_none_or(|directory| directory.locate(id) == Location::Here)
    }

    /// Whether clients may join the room of this id at this node, which perhaps wait until it is here.
    pub(super) fn is_here_soon(&self, id: &str) -> bool {
        let directory = self.options.directory.as_ref();
        let is_coming = || directory.is_some_and(|directory| directory.is_coming(id));
        self.is_here(id) || self.is_journaled(id) && is_coming()
    }

    pub(super) fn adopt_rooms(&mut self, rooms: Vec<UnfinishedRoom>) {
        self.restorations.adopt(rooms);
    }

    /// Begins to give up rooms.
    pub(super) fn begin_release(&mut self, moves: &RoomFilter, done: Released) {
        self.stop_restoring(moves);
        let release = Release {
            rooms: self.keys_of(moves).into(),
            batch: None,
            released: Vec::new(),
            lost: Vec::new(),
            done,
        };
        self.releases.push_back(release);
    }

    /// Gives up rooms, until this time.
    pub(super) fn release_rooms(&mut self, until: Instant) {
        let Some(index) = self.releases.iter().position(|it| it.batch.is_none()) else {
            return;
        };
        for _ in 0..self.releases[index].rooms.len() {
            let Some(key) = self.releases[index].rooms.pop_front() else {
                break;
            };
            match self.host.room(key) {
                None => {}
                // It is removed from the journal when its last outputs were sent.
                Some(room) if room.is_closed() => self.releases[index].rooms.push_back(key),
                Some(_) => {
                    let log = self.release_room(key);
                    self.releases[index].released.extend(log);
                }
            }
            if self.host.clock().now() >= until {
                return;
            }
        }
        if !self.releases[index].rooms.is_empty() {
            return;
        }
        let journaling = self.host.transport().journaling.as_ref();
        let batch = journaling.map_or(0, Journaling::last_batch);
        self.releases[index].batch = Some(batch);
    }

    fn release_room(&mut self, key: RoomKey) -> Option<RoomLog> {
        // What it has done is in the journal in any case.
        if self.host.transport().log(key).is_some()
            && let Err(error) = self.save_for_later(key)
        {
            log::debug!("room {key} is not saved: {error}");
        }
        let (code, reason) = MOVED;
        let clients = self.host.transport_mut();
        let log = clients.take_log(key);
        // What is held for its clients is sent before they are closed.
        clients.close_room(key, code, reason);
        self.drop_room(key);
        log
    }

    /// Whether [`release_rooms`](Self::release_rooms) has something to do.
    pub(super) fn is_releasing(&self) -> bool {
        // Rooms that are closed end by themselves, when the journal is ready.
        let has_ended = |key: &RoomKey| self.host.room(*key).is_some_and(|room| room.is_closed());
        let mut releases = self.releases.iter();
        let release = releases.find(|release| release.batch.is_none());
        release.is_some_and(|it| it.rooms.is_empty() || !it.rooms.iter().all(has_ended))
    }

    /// Ends releases that are durable.
    pub(super) fn end_releases(&mut self) {
        let journaling = self.host.transport().journaling.as_ref();
        let durable = journaling.map_or(u64::MAX, Journaling::last_durable);
        let is_durable = |release: &Release| release.batch.is_some_and(|batch| batch <= durable);
        while self.releases.front().is_some_and(is_durable) {
            let Some(release) = self.releases.pop_front() else {
                return;
            };
            let outcome = match release.lost.is_empty() {
                true => Ok(()),
                false => Err(JournalError::NotOwned {
                    rooms: release.lost,
                }),
            };
            // Fails if nobody waits for it.
            let _ = release.done.send(outcome);
        }
    }

    /// Drops rooms as they are.
    pub(super) fn abandon_rooms(&mut self, is_lost: &RoomFilter) {
        self.stop_restoring(is_lost);
        for key in self.keys_of(is_lost) {
            self.abandon_room(key);
        }
    }

    /// Of a batch, what is of these rooms was not written, since another node has them.
    pub(super) fn lose_rooms(&mut self, batch: u64, numbers: &[RoomNumber]) {
        let numbers: HashSet<_> = numbers.iter().copied().collect();
        // Not of one that was taken over again since.
        let is_lost = |log: &RoomLog| log.is_in(batch) && numbers.contains(&log.number);
        let transport = self.host.transport();
        let lost: Vec<_> = self
            .host
            .rooms()
            .filter(|(key, _)| transport.log(*key).is_some_and(is_lost))
            .map(|(key, room)| (key, String::from(room.id())))
            .collect();
        for release in &mut self.releases {
            let releasing: HashSet<_> = release.rooms.iter().copied().collect();
            let keys = lost.iter().map(|(key, _)| *key);
            let logs = keys
                .filter(|key| releasing.contains(key))
                .filter_map(|key| transport.log(key));
            let logs = logs.chain(release.released.iter().filter(|log| is_lost(log)));
            release.lost.extend(logs.map(|log| log.number));
        }
        for (key, id) in lost {
            if let Some(permit) = self.log.rejected.permit() {
                let id = Escaped::new(&id).at_most(256);
                log::warn!("dropped room {id:?}, which another node has{permit}");
            }
            self.abandon_room(key);
        }
        // Also of rooms that are not here any more: what waits for this batch must not be sent when that is done.
        self.host.transport_mut().abandon_held(batch, &numbers);
    }

    fn abandon_room(&mut self, key: RoomKey) {
        self.host.transport_mut().abandon_room(key);
        self.drop_room(key);
    }

    /// Drops a room whose clients are gone.
    pub(super) fn drop_room(&mut self, key: RoomKey) {
        if let Ok(room) = self.host.discard(key) {
            let metrics = &mut self.host.transport_mut().metrics;
            metrics.room_gone(key, &room.stats);
        }
        if let Some(until) = self.rooms.remove(&key).and_then(|room| room.idle_until) {
            self.idle.remove(&(until, key));
        }
    }

    fn keys_of(&self, filter: &RoomFilter) -> Vec<RoomKey> {
        let rooms = self.host.rooms();
        let matching = rooms.filter(|(_, room)| filter(room.id()));
        matching.map(|(key, _)| key).collect()
    }

    /// Gives up rooms on their way from the journal; those who wait for them are told.
    fn stop_restoring(&mut self, filter: &RoomFilter) {
        let JoinRejection { code, reason } = JoinRejection::moved();
        for connection in self.restorations.remove(filter) {
            if let Some(connection) = self.host.transport_mut().get(connection) {
                connection.close(code, &reason, true);
            }
        }
    }
}
