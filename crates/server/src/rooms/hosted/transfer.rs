//! Rooms that go from one server to another, as a file that an operator carries.
//!
//! A room must never run at both, and never be at none. So the one holds it while the other loads it and
//! holds it as well; then the one gives it up, which is durable before anybody is told, and the other lets it
//! go on. A hold ends by itself: a room that was to leave goes on, and one that was to arrive is dropped.

use super::HostedRooms;
use crate::{
    journal::{RoomFile, RoomNumber, RoomSnapshot, StoredRoom},
    rooms::{
        AdminError, JoinRejection, TransferReply, journaling::Journaling,
        stored_clients::StoredClients,
    },
};
use core::time::Duration;
use hashbrown::HashMap;
use stateroom_wasmi_host::{Clock, Escaped, Instant, RoomKey, SnapshotInfo, WithSources};
use std::collections::VecDeque;

/// The rooms of a worker that come or go.
#[derive(Default)]
pub(super) struct Transfers {
    holds: HashMap<RoomKey, Hold>,
    last_hold: u64,
    /// Rooms that have left, latest last, with what their clients are told.
    gone: VecDeque<(Box<str>, String)>,
    /// Replies, each with the batch that it waits for.
    replies: VecDeque<(u64, TransferReply)>,
}

/// A room that waits.
struct Hold {
    number: u64,
    until: Instant,
    direction: Direction,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Leaving,
    /// The journal does not have it yet.
    Arriving,
}

/// Rooms that have left and are remembered, so that their clients are not given a new one.
const MAX_GONE: usize = 1024;

/// A room that is loaded from a file.
pub(in crate::rooms) struct Import {
    file: Box<RoomFile>,
    /// How long it waits for the other server to give it up; none if it goes on at once.
    hold: Option<Duration>,
    reply: TransferReply,
}

impl Transfers {
    pub(super) fn is_held(&self, room: RoomKey) -> bool {
        self.holds.contains_key(&room)
    }

    /// Whether a room is held that another server may still have.
    pub(super) fn is_arriving(&self, room: RoomKey) -> bool {
        let hold = self.holds.get(&room);
        hold.is_some_and(|hold| hold.direction == Direction::Arriving)
    }

    /// Why nobody can join a room that has left.
    pub(super) fn rejection(&self, id: &str) -> Option<JoinRejection> {
        let mut gone = self.gone.iter();
        let (_, reason) = gone.find(|(gone, _)| &**gone == id)?;
        Some(JoinRejection::new(GONE, reason.clone()))
    }

    /// When the next hold ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.holds.values().map(|hold| hold.until).min()
    }

    fn remember_gone(&mut self, id: &str, reason: String) {
        self.forget_gone(id);
        if self.gone.len() == MAX_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back((id.into(), reason));
    }

    fn forget_gone(&mut self, id: &str) {
        self.gone.retain(|(gone, _)| &**gone != id);
    }
}

/// The close code of clients whose room has left.
const GONE: u16 = 1012;

impl HostedRooms {
    /// Lets a room wait for up to this time, and returns the number of the hold with the room as it is.
    pub(super) fn hold_room(
        &mut self,
        id: &str,
        time: Duration,
    ) -> Result<(u64, Vec<u8>), AdminError> {
        let key = match self.host.find(id) {
            Some(key) => key,
            None if self.restorations.contains(id) => return Err(AdminError::Restoring),
            None => return Err(AdminError::UnknownRoom),
        };
        if self.transfers.is_held(key) {
            return Err(AdminError::Held);
        }
        let room = self.host.save(key).map_err(AdminError::Save)?;
        let clients = self.host.transport().store_for_transfer(key);
        let log = self.host.transport().log(key);
        let file = RoomFile {
            id: id.into(),
            snapshot: RoomSnapshot {
                events: log.map_or(0, |log| log.next_event()),
                room,
                clients,
                wake_at: None,
            },
            tail: Vec::new(),
        };
        let number = self.begin_hold(key, time, Direction::Leaving);
        Ok((number, file.encode()))
    }

    fn begin_hold(&mut self, key: RoomKey, time: Duration, direction: Direction) -> u64 {
        self.transfers.last_hold += 1;
        let hold = Hold {
            number: self.transfers.last_hold,
            until: self.host.clock().now() + time,
            direction,
        };
        let number = hold.number;
        self.transfers.holds.insert(key, hold);
        self.set_held(key, true);
        number
    }

    fn set_held(&mut self, key: RoomKey, is_held: bool) {
        self.host.transport_mut().set_held(key, is_held);
        // Fails if it is no more.
        let _ = self.with_inbox(key, |inbox, host| inbox.set_held(host, is_held));
    }

    /// The room of this id, if it is held by this number.
    fn held(&self, id: &str, number: u64) -> Result<(RoomKey, Direction), AdminError> {
        let key = self.host.find(id).ok_or(AdminError::UnknownRoom)?;
        let hold = self.transfers.holds.get(&key);
        let hold = hold.filter(|hold| hold.number == number);
        hold.map(|hold| (key, hold.direction))
            .ok_or(AdminError::NotHeld)
    }

    /// Lets a room go on that is held, for good.
    pub(super) fn end_hold(&mut self, id: &str, number: u64, reply: TransferReply) {
        match self.held(id, number) {
            Ok((key, direction)) => {
                self.transfers.holds.remove(&key);
                // One that arrives is in the journal from its first snapshot on.
                if direction == Direction::Arriving {
                    self.transfers.forget_gone(id);
                    self.save_replaced(key);
                    if self
                        .host
                        .room(key)
                        .is_none_or(stateroom_wasmi_host::Room::is_closed)
                    {
                        return reply(Err(AdminError::UnknownRoom));
                    }
                }
                self.set_held(key, false);
                self.reply_when_durable(reply);
            }
            Err(error) => reply(Err(error)),
        }
    }

    /// Gives up a room that is held, since it is at another server. Its clients are told where, if that is
    /// known.
    pub(super) fn give_up(
        &mut self,
        id: &str,
        number: u64,
        location: Option<&str>,
        reply: TransferReply,
    ) {
        let key = match self.held(id, number) {
            Ok((key, Direction::Leaving)) => key,
            Ok((_, Direction::Arriving)) => return reply(Err(AdminError::NotHeld)),
            Err(error) => return reply(Err(error)),
        };
        self.transfers.holds.remove(&key);
        let reason = match location {
            Some(location) => format!("moved to {location}"),
            None => "the room has moved to another server".into(),
        };
        let clients = self.host.transport_mut();
        clients.forget_at_end(key);
        clients.end_room(key, GONE, &reason);
        self.drop_room(key);
        self.transfers.remember_gone(id, reason);
        self.reply_when_durable(reply);
    }

    /// Ends the holds that have lasted too long.
    pub(super) fn end_expired_holds(&mut self, now: Instant) {
        let holds = &mut self.transfers.holds;
        let expired: Vec<_> = holds.extract_if(|_, hold| hold.until <= now).collect();
        for (key, hold) in expired {
            // It may have been closed meanwhile.
            let Some(room) = self.host.room(key) else {
                continue;
            };
            let id = String::from(room.id());
            let id = Escaped::new(&id).at_most(256);
            match hold.direction {
                Direction::Leaving => {
                    log::warn!("room {id:?} was not taken over, and goes on");
                    self.set_held(key, false);
                }
                Direction::Arriving => {
                    log::warn!("room {id:?} was not given up by its server, and is dropped");
                    let clients = self.host.transport_mut();
                    clients.close_room(key, 1013, "the room has not arrived");
                    self.drop_room(key);
                }
            }
        }
    }

    /// Calls with success when all that has happened so far is durable.
    fn reply_when_durable(&mut self, reply: TransferReply) {
        let journaling = self.host.transport().journaling.as_ref();
        let batch = journaling.map_or(0, Journaling::batch_to_hold_for);
        self.transfers.replies.push_back((batch, reply));
    }

    pub(super) fn send_replies(&mut self) {
        let journaling = self.host.transport().journaling.as_ref();
        let durable = journaling.map_or(u64::MAX, Journaling::last_durable);
        // The last batch may have been empty, and was then not submitted.
        let is_idle = journaling.is_none_or(Journaling::is_idle);
        let replies = &mut self.transfers.replies;
        let is_durable = |(batch, _): &(u64, TransferReply)| is_idle || *batch <= durable;
        while replies.front().is_some_and(is_durable) {
            if let Some((_, reply)) = replies.pop_front() {
                reply(Ok(0));
            }
        }
    }

    /// Loads a room from a file, which may be a snapshot alone.
    pub(super) fn import_room(
        &mut self,
        id: &str,
        bytes: &[u8],
        hold: Option<Duration>,
        reply: TransferReply,
    ) {
        let file = match read_file(bytes) {
            Ok(file) if &*file.id == id && file.is_of_its_id() => Box::new(file),
            Ok(_) => return reply(Err(AdminError::Unreadable("it is of another room".into()))),
            Err(reason) => return reply(Err(AdminError::Unreadable(reason))),
        };
        if self.stop_at.is_some() {
            return reply(Err(AdminError::Restoring));
        }
        if self.host.find(id).is_some() || self.restorations.contains(id) {
            return reply(Err(AdminError::Exists));
        }
        let import = Import { file, hold, reply };
        match (self.permit(), &self.host.transport().journaling) {
            (Err(error), _) => {
                let reason = WithSources(&error).to_string();
                (import.reply)(Err(AdminError::Unavailable(reason)));
            }
            (Ok(permit), Some(journaling)) if self.is_journaled(id) => {
                let load = self.restorations.add_import(id, permit, import);
                journaling.load(id, load);
            }
            (Ok(permit), _) => {
                self.restorations.add_import(id, permit, import);
                self.restore_import(id, RoomNumber(0));
            }
        }
    }

    /// Restores a room from its file, which is new here, under this number.
    pub(super) fn restore_import(&mut self, id: &str, number: RoomNumber) {
        let Some(import) = self.restorations.import(id) else {
            return;
        };
        let stored = StoredRoom {
            number,
            snapshot: import.file.snapshot.clone(),
            tail: import.file.tail_of(number).events().to_vec(),
        };
        self.restore_stored(id, stored);
    }

    /// A room that was loaded from a file is in the host, or why it is not.
    pub(super) fn imported(&mut self, id: &str, import: Import, room: Result<RoomKey, String>) {
        let Import { hold, reply, .. } = import;
        let key = match room {
            Ok(key) => key,
            Err(reason) => return reply(Err(AdminError::Unreadable(reason))),
        };
        match hold {
            Some(time) => {
                let number = self.begin_hold(key, time, Direction::Arriving);
                reply(Ok(number));
            }
            None => {
                self.transfers.forget_gone(id);
                self.save_replaced(key);
                self.reply_when_durable(reply);
            }
        }
    }
}

impl Import {
    /// There is such a room already.
    pub(in crate::rooms) fn refuse(self) {
        (self.reply)(Err(AdminError::Exists));
    }
}

/// A room from what [`RoomFile::encode`] or a snapshot's bytes are.
pub(crate) fn read_file(bytes: &[u8]) -> Result<RoomFile, String> {
    if let Some(file) = RoomFile::decode(bytes) {
        return Ok(file);
    }
    let info = SnapshotInfo::read(bytes).map_err(|error| WithSources(&error).to_string())?;
    Ok(file_of(&info.room_id, bytes.into()))
}

/// The file of a room of which there is a snapshot, and nothing is known of its clients.
pub(crate) fn file_of(id: &str, snapshot: Vec<u8>) -> RoomFile {
    RoomFile {
        id: id.into(),
        snapshot: RoomSnapshot {
            events: 0,
            room: snapshot,
            clients: StoredClients::default().encode(),
            wake_at: None,
        },
        tail: Vec::new(),
    }
}
