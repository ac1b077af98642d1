//! Rooms on their way from the journal into a host, and the connections that wait for them.

use crate::{
    journal::{JournalError, LogEntries, RoomNumber, StoredRoom, UnfinishedRoom},
    rooms::{Claim, Closed, RoomFilter, hosted::Import, stored_clients::StoredClients},
    ws::connection::ConnectionKey,
};
use core::{cmp::Reverse, fmt, time::Duration};
use hashbrown::HashMap;
use stateroom_wasmi_host::{
    EventRecord, Module, ModuleHash, ReplayError, Room, SnapshotError, SnapshotInfo,
    SnapshotOptions,
};
use std::{
    collections::{BinaryHeap, VecDeque},
    error::Error,
};
use tokio::sync::OwnedSemaphorePermit;

/// The rooms that a worker restores.
#[derive(Default)]
pub(super) struct Restorations {
    rooms: HashMap<Box<str>, Restoration>,
    /// Rooms that nobody has asked for yet.
    unfinished: VecDeque<Box<str>>,
    /// Rooms to restore later, by the wall time.
    sleeping: BinaryHeap<Reverse<(Duration, Box<str>)>>,
    /// Rooms that are replayed, in turns.
    replaying: VecDeque<Box<str>>,
    /// Numbers loads.
    last_load: u64,
    /// Rooms that were loaded, and are not restored after all.
    given_up: Vec<RoomNumber>,
}

/// A room that is restored.
struct Restoration {
    number: Option<RoomNumber>,
    /// Which load is its own.
    load: u64,
    permit: OwnedSemaphorePermit,
    /// Connections that wait to join.
    joins: Vec<Join>,
    /// Set if it is not restored from the journal, but from a file.
    import: Option<Import>,
    /// Operators who have it discarded instead, when it is loaded.
    closing: Vec<Closed>,
    /// Its module, and what was loaded, while that is loaded, too.
    waits_for: Option<(ModuleHash, StoredRoom)>,
    /// None while it is loaded.
    replay: Option<Replaying>,
    /// The steps of its turn.
    steps: usize,
}

/// A connection that waits to join.
pub(super) struct Join {
    pub(super) connection: ConnectionKey,
    pub(super) claim: Claim,
}

/// What became of a restoration.
pub(super) struct Restored {
    pub(super) id: Box<str>,
    /// None if the journal did not load it.
    pub(super) number: Option<RoomNumber>,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) joins: Vec<Join>,
    pub(super) import: Option<Import>,
    pub(super) outcome: Result<RestoredRoom, RestoreError>,
}

/// A room that goes on.
pub(super) struct RestoredRoom {
    pub(super) number: RoomNumber,
    /// Events that are in the journal.
    pub(super) events: u64,
    /// None if it is to begin anew, with another module.
    pub(super) room: Option<Room>,
    /// The wall time at the room's present time.
    pub(super) unix_time: Option<Duration>,
    pub(super) clients: StoredClients,
}

impl RestoredRoom {
    /// One that the journal does not have.
    pub(super) fn new(number: RoomNumber) -> Self {
        Self {
            number,
            events: 0,
            room: None,
            unix_time: None,
            clients: StoredClients::default(),
        }
    }

    /// Lets it hibernate, as one that has done nothing since its snapshot does: nobody has asked for it. So the next
    /// room has the guest's memory, which is faster than to have pages of its own, and many of them take little. Not
    /// if clients are still to leave it.
    pub(super) fn hibernate(&mut self) {
        let sessions = &self.clients.sessions;
        if let Some(room) = &mut self.room
            && room
                .clients()
                .iter()
                .all(|client| sessions.contains_key(client))
        {
            // One that has something to do does not.
            let _ = room.hibernate();
        }
    }
}

/// Rooms that are restored at once without being asked for: a journal may take some time for each, during which there
/// is to be enough to replay. A cluster has 64 of them restored, and begins with half as many together.
const MAX_CONCURRENT: usize = 96;

/// Steps of a room's turn at least: most have done all that they did by then.
const MIN_STEPS: usize = 16;

impl Restorations {
    pub(super) fn new(rooms: Vec<UnfinishedRoom>) -> Self {
        let mut restorations = Self::default();
        restorations.adopt(rooms);
        restorations
    }

    /// Adds rooms to restore.
    pub(super) fn adopt(&mut self, rooms: Vec<UnfinishedRoom>) {
        for UnfinishedRoom { id, wake_at } in rooms {
            match wake_at {
                None => self.unfinished.push_back(id),
                Some(at) => self.sleeping.push(Reverse((at, id))),
            }
        }
    }

    /// Removes rooms that are not to be restored here any more, and returns the connections that wait for
    /// them.
    pub(super) fn remove(&mut self, filter: &RoomFilter) -> Vec<ConnectionKey> {
        self.unfinished.retain(|id| !filter(id));
        self.sleeping.retain(|Reverse((_, id))| !filter(id));
        self.replaying.retain(|id| !filter(id));
        let removed = self.rooms.extract_if(|id, _| filter(id));
        let mut connections = Vec::new();
        for (_, restoration) in removed {
            self.given_up.extend(restoration.number);
            let joins = restoration.joins.into_iter();
            connections.extend(joins.map(|join| join.connection));
        }
        connections
    }

    /// The journal has loaded a room, which has this number.
    pub(super) fn set_number(&mut self, id: &str, number: RoomNumber) {
        if let Some(restoration) = self.rooms.get_mut(id) {
            restoration.number = Some(number);
        }
    }

    /// Rooms that were loaded, and are not restored after all.
    pub(super) fn take_given_up(&mut self) -> Vec<RoomNumber> {
        core::mem::take(&mut self.given_up)
    }

    /// A room that was loaded is not restored.
    pub(super) fn give_up(&mut self, room: RoomNumber) {
        self.given_up.push(room);
    }

    /// Whether a room is being restored.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.rooms.contains_key(id)
    }

    /// Whether a room waits for this load.
    pub(super) fn is_loading(&self, id: &str, load: u64) -> bool {
        let restoration = self.rooms.get(id);
        restoration.is_some_and(|restoration| restoration.load == load)
    }

    /// Rooms that must be restored now and are not yet.
    pub(super) fn count(&self) -> usize {
        self.rooms.len() + self.unfinished.len()
    }

    /// The number of a room that is being restored, if it was loaded.
    pub(super) fn number(&self, id: &str) -> Option<RoomNumber> {
        self.rooms.get(id)?.number
    }

    /// Has a room discarded when it is loaded.
    pub(super) fn close(&mut self, id: &str, done: Closed) {
        if let Some(restoration) = self.rooms.get_mut(id) {
            restoration.closing.push(done);
        }
    }

    /// Those that have a room discarded which was just loaded.
    pub(super) fn take_closing(&mut self, id: &str) -> Vec<Closed> {
        let restoration = self.rooms.get_mut(id);
        restoration.map_or_else(Vec::new, |restoration| {
            core::mem::take(&mut restoration.closing)
        })
    }

    /// Gives up a room that nobody waits for; returns whether that is so.
    pub(super) fn forget(&mut self, id: &str) -> bool {
        let is_unwanted = |restoration: &Restoration| restoration.joins.is_empty();
        let is_unwanted = self.rooms.get(id).is_some_and(is_unwanted);
        if is_unwanted {
            self.rooms.remove(id);
        }
        is_unwanted
    }

    /// Whether a room is being restored, or is to be.
    pub(super) fn awaits(&self, id: &str) -> bool {
        let is_sleeping = |Reverse((_, other)): &Reverse<(Duration, Box<str>)>| &**other == id;
        self.contains(id)
            || self.unfinished.iter().any(|other| &**other == id)
            || self.sleeping.iter().any(is_sleeping)
    }

    /// Lets a connection wait for a room, if that is restored; it is the next then.
    pub(super) fn join(&mut self, id: &str, join: Join) -> Result<(), Join> {
        let Some(restoration) = self.rooms.get_mut(id) else {
            return Err(join);
        };
        restoration.joins.push(join);
        if let Some(at) = self.replaying.iter().position(|other| &**other == id)
            && let Some(id) = self.replaying.remove(at)
        {
            self.replaying.push_front(id);
        }
        Ok(())
    }

    /// Adds a room that is being loaded, and returns the number of that load.
    pub(super) fn add(
        &mut self,
        id: &str,
        permit: OwnedSemaphorePermit,
        join: Option<Join>,
    ) -> u64 {
        self.last_load += 1;
        let restoration = Restoration {
            number: None,
            load: self.last_load,
            permit,
            joins: Vec::from_iter(join),
            import: None,
            closing: Vec::new(),
            waits_for: None,
            replay: None,
            steps: 0,
        };
        self.rooms.insert(id.into(), restoration);
        self.last_load
    }

    /// Adds a room that comes from a file, and returns the number of its load.
    pub(super) fn add_import(
        &mut self,
        id: &str,
        permit: OwnedSemaphorePermit,
        import: Import,
    ) -> u64 {
        let load = self.add(id, permit, None);
        if let Some(restoration) = self.rooms.get_mut(id) {
            restoration.import = Some(import);
        }
        load
    }

    /// Where a room comes from, if it is a file.
    pub(super) fn import(&self, id: &str) -> Option<&Import> {
        self.rooms.get(id)?.import.as_ref()
    }

    /// A room is restored from the journal after all.
    pub(super) fn take_import(&mut self, id: &str) -> Option<Import> {
        self.rooms.get_mut(id)?.import.take()
    }

    /// The next room to load that nobody has asked for; `now` is the wall time.
    pub(super) fn next_unfinished(&mut self, now: Duration) -> Option<Box<str>> {
        if self.rooms.len() >= MAX_CONCURRENT {
            return None;
        }
        self.unfinished.pop_front().or_else(|| {
            let Reverse((at, _)) = self.sleeping.peek()?;
            let is_due = *at <= now;
            is_due
                .then(|| self.sleeping.pop())
                .flatten()
                .map(|Reverse((_, id))| id)
        })
    }

    /// Puts back a room that cannot be loaded now.
    pub(super) fn put_back(&mut self, id: Box<str>) {
        self.unfinished.push_front(id);
    }

    /// The wall time when there is a room to load; it is `now`.
    pub(super) fn next_wake(&self, now: Duration) -> Option<Duration> {
        /// Time until rooms are tried again for which there was no space.
        const RETRY_INTERVAL: Duration = Duration::from_secs(1);
        if !self.unfinished.is_empty() {
            return Some(now + RETRY_INTERVAL);
        }
        self.sleeping.peek().map(|Reverse((at, _))| *at)
    }

    /// Whether the journal must hear of rooms.
    pub(super) fn has_given_up(&self) -> bool {
        !self.given_up.is_empty()
    }

    /// Whether there is something to replay.
    pub(super) fn has_work(&self) -> bool {
        !self.replaying.is_empty()
    }

    /// A room was loaded, and cannot be replayed before its module is.
    pub(super) fn wait_for(&mut self, id: &str, module: ModuleHash, stored: StoredRoom) {
        if let Some(restoration) = self.rooms.get_mut(id) {
            restoration.waits_for = Some((module, stored));
        }
    }

    /// Whether a room waits for this module.
    pub(super) fn is_waiting_for(&self, module: ModuleHash) -> bool {
        self.rooms.values().any(|room| room.waits_for(module))
    }

    /// Takes the rooms that wait for this module.
    pub(super) fn take_waiting_for(&mut self, module: ModuleHash) -> Vec<(Box<str>, StoredRoom)> {
        let rooms = self.rooms.iter_mut();
        let waiting = rooms.filter(|(_, room)| room.waits_for(module));
        let waiting = waiting.filter_map(|(id, room)| Some((id.clone(), room.waits_for.take()?.1)));
        waiting.collect()
    }

    /// A room was loaded, and can be replayed; without a module it begins anew.
    pub(super) fn loaded(&mut self, id: &str, stored: StoredRoom, module: Option<&Module>) {
        let Some(restoration) = self.rooms.get_mut(id) else {
            return;
        };
        restoration.number = Some(stored.number);
        restoration.replay = Some(Replaying::Loaded(stored, module.cloned()));
        match restoration.joins.is_empty() {
            true => self.replaying.push_back(id.into()),
            false => self.replaying.push_front(id.into()),
        }
    }

    /// Ends a restoration.
    pub(super) fn finish(
        &mut self,
        id: &str,
        outcome: Result<RestoredRoom, RestoreError>,
    ) -> Option<Restored> {
        let (id, restoration) = self.rooms.remove_entry(id)?;
        Some(Restored {
            id,
            number: restoration.number,
            permit: restoration.permit,
            joins: restoration.joins,
            import: restoration.import,
            outcome,
        })
    }

    /// The event that the next [`step`](Self::step) replays.
    pub(super) fn next_event(&self) -> Option<(RoomNumber, u64)> {
        match self.rooms.get(self.replaying.front()?)?.replay.as_ref()? {
            Replaying::Loaded(..) => None,
            Replaying::Begun(replay) => Some((replay.number, replay.next_event)),
        }
    }

    /// Lets the next room go on, of those that are asked for if there are any; unless it is still this one's turn.
    pub(super) fn end_turn(&mut self) {
        let first = self.replaying.front().and_then(|id| self.rooms.get_mut(id));
        let Some(room) = first.filter(|room| room.steps >= MIN_STEPS) else {
            return;
        };
        room.steps = 0;
        let is_asked_for = |id| {
            let room = self.rooms.get(id);
            room.is_some_and(|room: &Restoration| !room.joins.is_empty())
        };
        let others = self.replaying.iter().skip(1);
        let before = match self.replaying.front().is_some_and(is_asked_for) {
            true => others.take_while(|id| is_asked_for(id)).count(),
            false => others.len(),
        };
        if let Some(id) = self.replaying.pop_front() {
            self.replaying.insert(before, id);
        }
    }

    /// Loads one room's snapshot, or replays one of its events, or a slice of it. The next step is one of the same
    /// room, so that rooms use the same memory one after the other, until its turn [ends](Self::end_turn). Returns a
    /// room that is restored.
    pub(super) fn step(&mut self, max_tokens: usize) -> Option<Restored> {
        let id = self.replaying.pop_front()?;
        let replaying = self.rooms.get_mut(&id)?.replay.take()?;
        match replaying.step(max_tokens) {
            Ok(Step::More(replay)) => {
                let room = self.rooms.get_mut(&id)?;
                room.replay = Some(Replaying::Begun(replay));
                room.steps += 1;
                self.replaying.push_front(id);
                None
            }
            Ok(Step::Done(room)) => self.finish(&id, Ok(*room)),
            Err(error) => self.finish(&id, Err(error)),
        }
    }

    /// Ends all restorations, and returns the connections that wait.
    pub(super) fn clear(&mut self) -> Vec<ConnectionKey> {
        let rooms = core::mem::take(self).rooms;
        rooms
            .into_values()
            .flat_map(|restoration| restoration.joins)
            .map(|join| join.connection)
            .collect()
    }
}

impl Restoration {
    fn waits_for(&self, module: ModuleHash) -> bool {
        let waits_for = self.waits_for.as_ref();
        waits_for.is_some_and(|(hash, _)| *hash == module)
    }
}

/// How far a room is that was loaded.
enum Replaying {
    /// Its snapshot is to be loaded, which takes as long as many events.
    Loaded(StoredRoom, Option<Module>),
    Begun(Box<Replay>),
}

/// What there is after a step.
enum Step {
    More(Box<Replay>),
    Done(Box<RestoredRoom>),
}

impl Replaying {
    fn step(self, max_tokens: usize) -> Result<Step, RestoreError> {
        let mut replay = match self {
            Self::Loaded(stored, module) => {
                let replay = Replay::new(stored, module.as_ref(), max_tokens)?;
                return Ok(Step::More(Box::new(replay)));
            }
            Self::Begun(replay) => replay,
        };
        Ok(match replay.step(max_tokens)? {
            true => Step::More(replay),
            false => Step::Done(Box::new(replay.finish())),
        })
    }
}

/// A room that does again what it did since its snapshot.
struct Replay {
    number: RoomNumber,
    /// None if it begins anew.
    room: Option<Room>,
    /// The wall time when the snapshot was taken, and the room's time then.
    saved_at: Option<Duration>,
    saved_room_time: stateroom_wasmi_host::Instant,
    clients: StoredClients,
    tail: Vec<u8>,
    /// How much of the tail was read.
    read: usize,
    /// The number of the next event.
    next_event: u64,
}

impl Replay {
    fn new(
        stored: StoredRoom,
        module: Option<&Module>,
        max_tokens: usize,
    ) -> Result<Self, RestoreError> {
        let StoredRoom {
            number,
            snapshot,
            tail,
        } = stored;
        let info = SnapshotInfo::read(&snapshot.room).map_err(RestoreError::Snapshot)?;
        let clients = StoredClients::decode(&snapshot.clients, max_tokens)
            .map_err(|error| RestoreError::Clients(error.into()))?;
        // Under other limits, what has happened since the snapshot might happen otherwise.
        let snapshot_options = SnapshotOptions::new().other_limits(tail.is_empty());
        let room = module.map(|module| Room::load(module, &snapshot.room, snapshot_options));
        let room = room.transpose().map_err(RestoreError::Snapshot)?;
        Ok(Self {
            number,
            room,
            saved_at: info.saved_at,
            saved_room_time: info.now,
            clients,
            tail,
            read: 0,
            next_event: snapshot.events,
        })
    }

    /// Replays one event, or a slice of it; returns whether there is more.
    fn step(&mut self, max_tokens: usize) -> Result<bool, RestoreError> {
        if let Some(room) = &mut self.room
            && room.is_unfinished()
        {
            room.resume(room.now());
            take_outputs(room, &mut self.clients);
            return Ok(true);
        }
        let mut entries = LogEntries::new(&self.tail[self.read..]);
        let Some(entry) = entries.next() else {
            return Ok(false);
        };
        let malformed = |_| RestoreError::Malformed(self.next_event);
        let entry = entry.map_err(malformed)?;
        if (entry.room, entry.number) != (self.number, self.next_event) {
            return Err(RestoreError::Gap(self.next_event));
        }
        let (record, credentials) = EventRecord::decode(entry.event)
            .map_err(|_| RestoreError::Malformed(self.next_event))?;
        let was_waiting = match &mut self.room {
            Some(room) => room
                .replay(&record)
                .map_err(|error| RestoreError::Replay(self.next_event, error))?,
            None => false,
        };
        self.clients
            .replay(record.event, credentials, was_waiting, max_tokens)
            .map_err(|error| RestoreError::Clients(error.into()))?;
        if let Some(room) = &mut self.room {
            take_outputs(room, &mut self.clients);
        }
        self.next_event += 1;
        self.read = self.tail.len() - entries.rest().len();
        Ok(true)
    }

    fn finish(self) -> RestoredRoom {
        let unix_time = self
            .room
            .as_ref()
            .zip(self.saved_at)
            .map(|(room, saved_at)| {
                saved_at + room.now().saturating_duration_since(self.saved_room_time)
            });
        RestoredRoom {
            number: self.number,
            events: self.next_event,
            room: self.room,
            unix_time,
            clients: self.clients,
        }
    }
}

/// Takes what a room sends again: for clients that may come back.
fn take_outputs(room: &mut Room, clients: &mut StoredClients) {
    while let Some(output) = room.poll_output() {
        clients.output(output);
    }
}

/// Why a room is not restored. What is stored of it stays.
#[derive(Debug)]
pub(super) enum RestoreError {
    /// The journal could not load it.
    Journal(JournalError),
    Quarantined(String),
    /// It is one of another module, which the journal does not have.
    NoModule(ModuleHash),
    Snapshot(SnapshotError),
    Clients(Box<dyn Error + Send + Sync>),
    Malformed(u64),
    Gap(u64),
    Replay(u64, ReplayError),
}

impl RestoreError {
    /// The close code of clients that ask for the room.
    pub(super) const fn close_code(&self) -> u16 {
        match self {
            Self::Journal(JournalError::TooManyRooms { .. }) => 1013,
            _ => 1011,
        }
    }

    /// Whether it is of no use to try again, with this module or another.
    pub(super) const fn is_final(&self) -> bool {
        match self {
            Self::Clients(_) | Self::Malformed(_) | Self::Gap(_) | Self::Replay(..) => true,
            Self::Snapshot(error) => matches!(error, SnapshotError::Damaged),
            Self::Journal(_) | Self::Quarantined(_) | Self::NoModule(_) => false,
        }
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(_) => f.write_str("the room cannot be loaded"),
            Self::Quarantined(reason) => write!(f, "the room is in quarantine: {reason}"),
            Self::NoModule(hash) => write!(f, "the room's module was not kept: {hash}"),
            Self::Snapshot(SnapshotError::Module(_)) => {
                f.write_str("the stored room is one of another module")
            }
            Self::Snapshot(_) => f.write_str("the stored room cannot be restored"),
            Self::Clients(_) => f.write_str("the stored room's clients cannot be restored"),
            Self::Malformed(event) => write!(f, "the stored room's event {event} is malformed"),
            Self::Gap(event) => write!(f, "the stored room's event {event} is missing"),
            Self::Replay(event, _) => {
                write!(f, "the stored room's event {event} cannot be replayed")
            }
        }
    }
}

impl Error for RestoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Clients(error) => Some(&**error),
            Self::Journal(error) => Some(error),
            Self::Snapshot(error) => Some(error),
            Self::Replay(_, error) => Some(error),
            Self::Quarantined(_) | Self::NoModule(_) | Self::Malformed(_) | Self::Gap(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        journal::{LogEntry, RoomSnapshot},
        rooms::echo,
    };
    use stateroom_wasmi_host::{ClientId, Event, RoomOptions};
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    const ROOMS: usize = 200;

    fn permits() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(2 * ROOMS))
    }

    fn add(
        restorations: &mut Restorations,
        permits: &Arc<Semaphore>,
        id: &str,
        is_asked_for: bool,
    ) {
        let permit = permits.clone().try_acquire_owned();
        let join = is_asked_for.then(|| Join {
            connection: ConnectionKey::default(),
            claim: Claim::default(),
        });
        restorations.add(id, permit.expect("there are enough"), join);
    }

    /// One whose snapshot is none, which is found when it is loaded.
    fn malformed(number: u64) -> StoredRoom {
        let snapshot = RoomSnapshot {
            events: 0,
            room: b"nonsense".into(),
            clients: Vec::new(),
            wake_at: None,
        };
        StoredRoom {
            number: RoomNumber(number),
            snapshot,
            tail: Vec::new(),
        }
    }

    /// One to whose client so many messages were sent since its snapshot.
    fn recorded(module: &Module, number: u64, messages: u64) -> StoredRoom {
        let number = RoomNumber(number);
        let mut room = Room::new(module, "room", RoomOptions::new()).expect("there is memory");
        let saved = room.save().expect("nothing has happened");
        room.set_recording(true);
        let (mut tail, mut event) = (Vec::new(), Vec::new());
        let client = ClientId(1);
        for n in 0..=messages {
            let next = match n {
                0 => Event::Connect(client),
                _ => Event::message(client, "hello"),
            };
            room.handle_event(room.now(), next)
                .expect("it has nothing to do");
            event.clear();
            let record = room.poll_record().expect("it has begun");
            record.encode(&mut event);
            while room.poll_output().is_some() {}
            let entry = LogEntry {
                room: number,
                number: n,
                event: &event,
            };
            entry.encode(&mut tail);
        }
        let snapshot = RoomSnapshot {
            events: 0,
            room: saved,
            clients: StoredClients::default().encode(),
            wake_at: None,
        };
        StoredRoom {
            number,
            snapshot,
            tail,
        }
    }

    #[test]
    fn rooms_are_replayed_one_after_the_other_and_in_turns() {
        let (mut restorations, permits) = (Restorations::default(), permits());
        let module = echo();
        let long = 2 * MIN_STEPS as u64;
        let messages = [long, 3, 3, long];
        for (number, messages) in (0..).zip(messages) {
            let id = number.to_string();
            add(&mut restorations, &permits, &id, false);
            restorations.loaded(&id, recorded(&module, number, messages), Some(&module));
        }
        let mut turns = Vec::new();
        for step in 1.. {
            if !restorations.has_work() {
                break;
            }
            let number = restorations.next_event().map(|(room, _)| room.0);
            if let Some(number) = number
                && turns.last() != Some(&number)
            {
                turns.push(number);
            }
            if let Some(ended) = restorations.step(16) {
                let room = ended.outcome.expect("it is what was recorded");
                let events = 1 + messages[room.number.0 as usize];
                assert_eq!(room.events, events);
            }
            // On a busy machine it ends after each step.
            restorations.end_turn();
            if step == MIN_STEPS {
                for id in ["1", "3"] {
                    let join = Join {
                        connection: ConnectionKey::default(),
                        claim: Claim::default(),
                    };
                    assert!(restorations.join(id, join).is_ok());
                }
            }
        }
        assert_eq!(turns, [0, 3, 1, 3, 2, 0]);
    }

    #[test]
    fn each_step_loads_one_room_and_those_that_are_asked_for_first() {
        let (mut restorations, permits) = (Restorations::default(), permits());
        for (number, id) in (0..).zip(["unasked", "asked for", "other"]) {
            add(&mut restorations, &permits, id, id == "asked for");
            // However many are there at once, that takes no time.
            restorations.loaded(id, malformed(number), None);
            assert_eq!(restorations.number(id), Some(RoomNumber(number)));
        }
        for expected in ["asked for", "unasked", "other"] {
            assert!(restorations.has_work());
            assert_eq!(restorations.next_event(), None);
            let ended = restorations.step(0).expect("it cannot be loaded");
            assert_eq!(&*ended.id, expected);
            assert!(matches!(ended.outcome, Err(RestoreError::Snapshot(_))));
        }
        assert!(!restorations.has_work());
        assert_eq!(restorations.count(), 0);
    }

    #[test]
    fn no_more_are_loaded_at_once_than_a_bound_unless_they_are_asked_for() {
        let unfinished = (0..ROOMS).map(|n| UnfinishedRoom {
            id: n.to_string().into(),
            wake_at: None,
        });
        let mut restorations = Restorations::new(unfinished.collect());
        let permits = permits();
        add(&mut restorations, &permits, "asked for", true);
        let mut count = 1;
        while let Some(id) = restorations.next_unfinished(Duration::ZERO) {
            add(&mut restorations, &permits, &id, false);
            count += 1;
        }
        assert_eq!(count, MAX_CONCURRENT);
        add(&mut restorations, &permits, "another", true);
        assert!(restorations.contains("another"));
        for id in ["asked for", "another"] {
            let moved = Err(RestoreError::Journal(JournalError::Closed));
            assert!(restorations.finish(id, moved).is_some());
        }
        assert!(restorations.next_unfinished(Duration::ZERO).is_some());
    }
}
