//! A shard that this node owns: what is stored of its rooms, and what waits to be appended to its log.

use crate::{
    format::{NOTES, RoomHeader, decode_notes, encode_notes, room_number},
    nats::{Nats, Record, RoomRecord, Stored, StoredRecord},
    protocol::{Appender, Limits, MAX_DEATHS, Needs, Note, Pending},
    reading::{Claim, Reading, Tail},
    retry::Retry,
    shard::{Epoch, NodeId, Shard},
};
use core::time::Duration;
use stateroom_wasmi_server::journal::{
    Done, JournalError, LogEntries, LogEntry, RoomNumber, RoomWrite, Stored as Loaded,
    UnfinishedRoom,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

/// A shard that this node owns, or is about to.
pub(crate) struct Owned {
    pub(crate) shard: Shard,
    pub(crate) epoch: Epoch,
    pub(crate) log: Appender<InFlight>,
    /// The request of the log that is under way.
    pub(crate) request: u64,
    pub(crate) retry: Retry,
    /// Whether the last record was refused, and did not just fail.
    pub(crate) was_refused: bool,
    /// Whether what is stored was read.
    pub(crate) is_active: bool,
    /// What is stored cannot be read: this is why.
    damage: Option<String>,
    rooms: HashMap<Box<str>, RoomEntry>,
    ids: HashMap<RoomNumber, Box<str>>,
    /// How many of the rooms are in quarantine.
    quarantined: usize,
    /// Which rooms need the log, and which may be why owners before have ended.
    needs: Needs<RoomNumber>,
    /// Events since their snapshots of rooms that were taken over.
    carried: HashMap<RoomNumber, Vec<u8>>,
    pending: Pending<PartOf, Vec<u8>, RoomRecord>,
    /// How many parts have come, and how many are durable.
    parts: u64,
    durable_parts: u64,
    loads: VecDeque<LoadRequest>,
    /// Rooms with something to do that were not restored yet.
    unrestored: HashSet<RoomNumber>,
    /// Loads that wait until it is noted that their rooms are restored.
    gated: HashMap<RoomNumber, Vec<Gated>>,
    /// Rooms that are about to be stored as ones in quarantine, and why.
    condemned: HashMap<RoomNumber, String>,
    /// What is noted with the next record.
    notes: Vec<(RoomNumber, Note)>,
    /// What was noted.
    noted: Vec<(RoomNumber, Note)>,
    next_counter: u32,
    trim: Trim,
    /// What was found that nobody needs.
    left: Vec<Garbage>,
    /// The last record of the owner before, which is often all that is needed.
    before: Option<StoredRecord>,
    /// Held until the shard is another node's.
    claim: Arc<()>,
}

/// A room to load.
pub(crate) struct LoadRequest {
    /// So many parts must be durable before.
    after: u64,
    pub(crate) id: Box<str>,
    pub(crate) purpose: Purpose,
}

/// What a room is loaded for.
pub(crate) enum Purpose {
    /// To be restored.
    Restore(Done<Loaded>),
    /// To be looked at.
    Peek(Done<Loaded>),
    /// To be stored as one in quarantine, which a part of a batch waits for.
    Quarantine {
        batch: u64,
        number: RoomNumber,
        reason: String,
    },
}

/// What waits until it is noted that a room is restored.
pub(crate) enum Gated {
    /// To load it, by its id.
    Load(Box<str>, Done<Loaded>),
    /// To restore it; it is loaded.
    Loaded(Result<Loaded, JournalError>, Done<Loaded>),
}

struct RoomEntry {
    header: RoomHeader,
    /// The sequence number of the first message of its snapshot.
    sequence: u64,
    /// That message, if it was read, and is to be needed once.
    part: Option<Box<[u8]>>,
}

/// What of a batch waits.
#[derive(Clone)]
pub(crate) struct PartOf {
    pub(crate) batch: u64,
    /// The rooms that the batch is about.
    pub(crate) numbers: Vec<RoomNumber>,
}

/// What is being appended.
pub(crate) struct InFlight {
    pub(crate) record: Arc<Record>,
    pub(crate) parts: Vec<PartOf>,
}

struct Trim {
    records: u64,
    at: Instant,
    /// Records before this one were deleted.
    before: u64,
}

/// Something to delete that nobody needs.
pub(crate) enum Garbage {
    /// Records before this one.
    Log(u64),
    /// All of a room's messages before this one.
    Room(Box<str>, u64),
    /// Parts of its snapshot before this message.
    Parts(Box<str>, core::ops::Range<usize>, u64),
}

/// What a batch has for a shard.
#[derive(Default)]
pub(crate) struct ShardBatch {
    events: Vec<u8>,
    writes: Vec<(RoomNumber, RoomWrite)>,
    numbers: Vec<RoomNumber>,
}

impl ShardBatch {
    pub(crate) fn log(&mut self, entry: &LogEntry<'_>) {
        entry.encode(&mut self.events);
        self.note(entry.room);
    }

    pub(crate) fn write(&mut self, number: RoomNumber, write: RoomWrite) {
        self.writes.push((number, write));
        self.note(number);
    }

    fn note(&mut self, number: RoomNumber) {
        if self.numbers.last() != Some(&number) {
            self.numbers.push(number);
        }
    }

    pub(crate) fn into_numbers(self) -> Vec<RoomNumber> {
        self.numbers
    }
}

impl Owned {
    pub(crate) fn new(shard: Shard, node: NodeId, epoch: Epoch, limits: Limits) -> Self {
        Self {
            shard,
            epoch,
            log: Appender::new(node, epoch),
            request: 0,
            retry: Retry::default(),
            was_refused: false,
            is_active: false,
            damage: None,
            rooms: HashMap::new(),
            ids: HashMap::new(),
            quarantined: 0,
            needs: Needs::default(),
            carried: HashMap::new(),
            pending: Pending::new(limits),
            parts: 0,
            durable_parts: 0,
            loads: VecDeque::new(),
            unrestored: HashSet::new(),
            gated: HashMap::new(),
            condemned: HashMap::new(),
            notes: Vec::new(),
            noted: Vec::new(),
            next_counter: 0,
            claim: Arc::default(),
            before: None,
            left: Vec::new(),
            trim: Trim {
                records: 0,
                at: Instant::now(),
                before: 0,
            },
        }
    }

    /// What is stored was read, up to the record by which the epoch began, in order. Returns the rooms to restore. The
    /// owner before has not ended if it has given the shard away, or `is_alive` says so.
    pub(crate) fn activate(
        &mut self,
        stored: Vec<Stored>,
        was_given: bool,
        is_alive: impl Fn(NodeId) -> bool,
    ) -> Vec<UnfinishedRoom> {
        let mut records = Vec::new();
        for stored in stored {
            match stored {
                // The epoch begins behind all of them.
                Stored::Record(record) if record.header.id.epoch == self.epoch => {}
                Stored::Record(record) => records.push(record),
                Stored::Room {
                    sequence,
                    id,
                    header: Some(header),
                    part,
                } => self.insert(id.into(), header, sequence, part),
                Stored::Room {
                    sequence,
                    id,
                    header: None,
                    ..
                } => {
                    self.remove(&id);
                    // Its owner could not delete what is left of it.
                    self.left.push(Garbage::Room(id.into(), sequence + 1));
                }
                Stored::Unknown { subject, .. } if subject.is_empty() => {}
                Stored::Unknown { sequence, subject } => {
                    self.damaged(format!(
                        "{subject} is damaged or of another version ({sequence})"
                    ));
                }
            }
        }
        let mut owner: Option<(NodeId, Epoch)> = None;
        for record in records {
            let StoredRecord {
                sequence, header, ..
            } = record;
            if owner.is_some_and(|(_, epoch)| epoch < header.id.epoch) {
                self.needs.suspects.begin_epoch(false);
            }
            owner = Some((header.id.node, header.id.epoch));
            for entry in LogEntries::new(&record.events) {
                match entry {
                    Ok(entry) if entry.room == NOTES => {
                        for (room, note) in decode_notes(entry.event) {
                            self.needs.suspects.note(room, note, sequence);
                        }
                    }
                    Ok(entry) => self.carry(&entry, sequence),
                    Err(error) => self.damaged(format!("{error} at {sequence}")),
                }
            }
        }
        if let Some((node, epoch)) = owner {
            // It may also have been given by one that had not begun its own epoch.
            let has_given = was_given && epoch.next() == self.epoch;
            self.notes = self.needs.suspects.begin_epoch(has_given || is_alive(node));
        }
        self.is_active = true;
        self.needs.is_read = self.damage.is_none();
        self.trim.before = 0;
        for room in self.rooms.values() {
            if room.header.is_quarantined {
                self.needs.suspects.remove(&room.header.number);
            }
        }
        let rooms = self.rooms.iter();
        let rooms = rooms.filter(|(_, room)| !room.header.is_quarantined);
        let mut unfinished: Vec<_> = rooms
            .filter_map(|(id, room)| {
                let number = room.header.number;
                let has_tail = self.carried.contains_key(&number);
                let wake_at = room.header.wake_at.filter(|_| !has_tail);
                if !has_tail && wake_at.is_none() {
                    return None;
                }
                self.unrestored.insert(number);
                let deaths = self.needs.suspects.deaths(&number);
                let id = id.clone();
                (deaths < MAX_DEATHS).then_some((deaths, UnfinishedRoom { id, wake_at }))
            })
            .collect();
        // Those of which no owner has ended are not kept from coming back.
        unfinished.sort_by_key(|(deaths, _)| *deaths);
        unfinished.into_iter().map(|(_, room)| room).collect()
    }

    /// Why the rooms cannot be opened, if that is so.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// The last record of the log was read.
    pub(crate) fn readable(&mut self) {
        if !self.is_active {
            self.damage = None;
        }
    }

    /// The last record of the log, with this sequence number, cannot be read. Whoever has begun its epoch needs none
    /// of another's.
    pub(crate) fn unreadable(&mut self, sequence: u64) {
        if !self.is_active {
            self.damaged(format!(
                "the record {sequence} is damaged or of another version"
            ));
        }
    }

    fn damaged(&mut self, reason: String) {
        if self.damage.is_none() {
            log::error!("rooms of shard {} cannot be opened: {reason}", self.shard);
            self.damage = Some(reason);
        }
    }

    /// What the owners before have left that nobody needs.
    pub(crate) fn take_left(&mut self) -> Vec<Garbage> {
        core::mem::take(&mut self.left)
    }

    /// A room is about to be stored as one in quarantine; or that has failed, without a reason.
    pub(crate) fn condemn(&mut self, number: RoomNumber, reason: Option<String>) {
        match reason {
            Some(reason) => self.condemned.insert(number, reason),
            None => self.condemned.remove(&number),
        };
    }

    /// Why a room must not be restored any more that is not stored as one in quarantine yet.
    pub(crate) fn is_condemned(&self, number: RoomNumber) -> Option<String> {
        self.condemned.get(&number).cloned()
    }

    /// Rooms that have ended so many owners that they are not to be restored any more.
    pub(crate) fn convicted(&self) -> Vec<RoomNumber> {
        self.needs.suspects.convicted()
    }

    /// How many owners have ended while they restored a room.
    pub(crate) fn deaths(&self, number: RoomNumber) -> u32 {
        self.needs.suspects.deaths(&number)
    }

    /// Whether it must be noted that a room is restored, before it is.
    pub(crate) fn is_doubtful(&self, number: RoomNumber) -> bool {
        self.unrestored.contains(&number) || self.deaths(number) > 0
    }

    /// Whether loads of a room wait for that.
    pub(crate) fn has_gated(&self, number: RoomNumber) -> bool {
        self.gated.contains_key(&number)
    }

    /// The number of a stored room that may be restored.
    pub(crate) fn number_of(&self, id: &str) -> Option<RoomNumber> {
        let header = self.rooms.get(id).map(|room| &room.header);
        let header = header.filter(|header| !header.is_quarantined);
        header.map(|header| header.number)
    }

    /// Has something wait until that is noted.
    pub(crate) fn gate(&mut self, number: RoomNumber, gated: Gated) {
        self.gated.entry(number).or_default().push(gated);
    }

    /// Notes that a room is about to be restored.
    pub(crate) fn restoring(&mut self, number: RoomNumber) {
        let deaths = self.deaths(number);
        self.notes.push((number, Note::Restoring { deaths }));
    }

    /// Notes that a room has survived that, or was not restored.
    pub(crate) fn restored(&mut self, number: RoomNumber) {
        self.unrestored.remove(&number);
        self.notes.push((number, Note::RESTORED));
    }

    /// Notes that a room is not restored now, and may be later.
    pub(crate) fn given_back(&mut self, number: RoomNumber) {
        let deaths = self.deaths(number);
        self.notes.push((number, Note::Stopped { deaths }));
    }

    /// What was noted since this was asked last.
    pub(crate) fn take_noted(&mut self) -> Vec<(RoomNumber, Note)> {
        core::mem::take(&mut self.noted)
    }

    /// The loads that wait for a note.
    pub(crate) fn take_gated(&mut self, number: RoomNumber) -> Vec<Gated> {
        self.gated.remove(&number).unwrap_or_default()
    }

    /// Whether a room is in quarantine.
    pub(crate) fn is_quarantined(&self, id: &str) -> bool {
        let room = self.rooms.get(id);
        room.is_some_and(|room| room.header.is_quarantined)
    }

    /// What is needed to read a room that is in quarantine.
    pub(crate) fn read_quarantined(&self, id: &str) -> Option<(RoomHeader, u64)> {
        let room = self.rooms.get(id)?;
        let is_it = room.header.is_quarantined;
        is_it.then(|| (room.header.clone(), room.sequence))
    }

    /// How many rooms are in quarantine.
    pub(crate) const fn quarantined_count(&self) -> usize {
        self.quarantined
    }

    /// The rooms in quarantine.
    pub(crate) fn quarantined(&self) -> impl Iterator<Item = &str> {
        let rooms = self.rooms.iter();
        rooms
            .filter(|(_, room)| room.header.is_quarantined)
            .map(|(id, _)| &**id)
    }

    fn carry(&mut self, entry: &LogEntry<'_>, sequence: u64) {
        let Some(id) = self.ids.get(&entry.room) else {
            return;
        };
        let Some(header) = self.rooms.get(id).map(|room| &room.header) else {
            return;
        };
        let snapshot = (!header.is_quarantined).then_some(header.events);
        let tails = &mut self.needs.tails;
        if tails.add(entry.room, entry.number, sequence, snapshot) {
            entry.encode(self.carried.entry(entry.room).or_default());
        }
    }

    fn insert(&mut self, id: Box<str>, header: RoomHeader, sequence: u64, part: Option<Box<[u8]>>) {
        if let Some(before) = self.rooms.get(&id)
            && before.header.number != header.number
        {
            self.ids.remove(&before.header.number);
        }
        self.ids.insert(header.number, id.clone());
        self.quarantined += usize::from(header.is_quarantined);
        let room = RoomEntry {
            header,
            sequence,
            part,
        };
        let before = self.rooms.insert(id, room);
        let was_quarantined = before.is_some_and(|room| room.header.is_quarantined);
        self.quarantined -= usize::from(was_quarantined);
    }

    fn remove(&mut self, id: &str) {
        if let Some(room) = self.rooms.remove(id) {
            self.quarantined -= usize::from(room.header.is_quarantined);
            let number = room.header.number;
            self.ids.remove(&number);
            self.needs.tails.remove(&number);
            self.carried.remove(&number);
            self.needs.suspects.remove(&number);
            self.unrestored.remove(&number);
        }
    }

    /// Whether a room is stored.
    pub(crate) fn has_room(&self, id: &str) -> bool {
        self.rooms.contains_key(id)
    }

    /// How many rooms are stored.
    pub(crate) fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// How many rooms are stored, or about to be.
    pub(crate) fn number_count(&self) -> usize {
        self.ids.len()
    }

    /// Adds what a batch has for this shard; returns in how many parts.
    pub(crate) fn push(&mut self, batch: u64, mut changes: ShardBatch, nats: &Nats) -> usize {
        let writes = core::mem::take(&mut changes.writes);
        let rooms: Vec<_> = writes
            .into_iter()
            .filter_map(|(number, write)| self.room_record(number, write))
            .collect();
        let pieces = pieces(&changes.events, nats.limits().bytes);
        let tag = PartOf {
            batch,
            numbers: changes.numbers,
        };
        self.push_parts(&tag, rooms, pieces, nats)
    }

    /// Adds what is to be written of a room by itself; returns in how many parts.
    pub(crate) fn push_room(&mut self, batch: u64, room: RoomRecord, nats: &Nats) -> usize {
        let numbers = vec![room.number];
        let tag = PartOf { batch, numbers };
        self.push_parts(&tag, vec![room], [].into_iter(), nats)
    }

    fn push_parts<'a>(
        &mut self,
        tag: &PartOf,
        rooms: Vec<RoomRecord>,
        pieces: impl Iterator<Item = &'a [u8]>,
        nats: &Nats,
    ) -> usize {
        let rooms = rooms.into_iter().map(|room| {
            let messages = nats.parts_of(&room);
            (room, messages)
        });
        let pieces = pieces.map(|piece| (piece.to_vec(), piece.len()));
        let parts = self.pending.push(tag, rooms, pieces);
        self.parts += parts as u64;
        parts
    }

    fn room_record(&mut self, number: RoomNumber, write: RoomWrite) -> Option<RoomRecord> {
        match write {
            RoomWrite::Snapshot { id, snapshot } => {
                self.ids.insert(number, id.clone());
                Some(RoomRecord {
                    id,
                    number,
                    snapshot: Some(snapshot),
                    quarantine: None,
                })
            }
            // Those that have no snapshot yet are not stored.
            RoomWrite::Remove | RoomWrite::Discard => Some(RoomRecord {
                id: self.ids.get(&number)?.clone(),
                number,
                snapshot: None,
                quarantine: None,
            }),
            // What is stored must be read first.
            RoomWrite::Quarantine(_) => None,
        }
    }

    /// Whether something is to be appended.
    pub(crate) fn has_pending(&self) -> bool {
        let has_some = !self.pending.is_empty() || !self.notes.is_empty();
        self.is_active && self.log.is_idle() && has_some
    }

    /// Passes as much as a record can have to the log.
    pub(crate) fn append_next(&mut self) {
        let mut record = Record {
            events: Vec::new(),
            rooms: Vec::new(),
        };
        if !self.notes.is_empty() {
            let entry = LogEntry {
                room: NOTES,
                number: 0,
                event: &encode_notes(&core::mem::take(&mut self.notes)),
            };
            entry.encode(&mut record.events);
        }
        let mut parts = Vec::new();
        for mut part in self.pending.take(record.events.len()) {
            record.events.append(&mut part.events);
            for room in part.rooms {
                // One message for each subject: the last counts.
                record.rooms.retain(|before| before.id != room.id);
                record.rooms.push(room);
            }
            parts.push(part.tag);
        }
        self.log.append(InFlight {
            record: Arc::new(record),
            parts,
        });
    }

    /// A record is durable. Returns what nobody needs any more.
    pub(crate) fn durable(&mut self, in_flight: &InFlight, nats: &Nats) -> Vec<Garbage> {
        let mut garbage = Vec::new();
        let record = &in_flight.record;
        let sequence = self.log.last();
        self.durable_parts += in_flight.parts.len() as u64;
        for entry in LogEntries::new(&record.events).flatten() {
            if entry.room == NOTES {
                for (room, note) in decode_notes(entry.event) {
                    self.needs.suspects.note(room, note, sequence);
                    self.noted.push((room, note));
                }
            }
        }
        let mut next = sequence + 1;
        for room in &record.rooms {
            if room.quarantine.is_some() || room.snapshot.is_none() {
                self.condemned.remove(&room.number);
            }
            let Some(snapshot) = &room.snapshot else {
                if self.ids.get(&room.number) == Some(&room.id) {
                    self.remove(&room.id);
                }
                // Also if it was made in this record.
                self.ids.remove(&room.number);
                self.needs.tails.remove(&room.number);
                garbage.push(Garbage::Room(room.id.clone(), next + 1));
                next += 1;
                continue;
            };
            let parts = nats.parts_of(room) as u32;
            let before = self.rooms.get(&room.id).map_or(0, |room| room.header.parts);
            if before > parts {
                let rest = parts as usize..before as usize;
                garbage.push(Garbage::Parts(room.id.clone(), rest, next));
            }
            let header = RoomHeader {
                number: room.number,
                events: snapshot.events,
                wake_at: snapshot.wake_at,
                parts,
                is_quarantined: room.quarantine.is_some(),
            };
            let was_quarantined = self.is_quarantined(&room.id);
            self.insert(room.id.clone(), header, next, None);
            if was_quarantined && room.quarantine.is_none() {
                // It may end its owners still.
                self.unrestored.insert(room.number);
            }
            next += u64::from(parts);
            if room.quarantine.is_some() {
                self.needs.tails.remove(&room.number);
                self.needs.suspects.remove(&room.number);
                self.unrestored.remove(&room.number);
            } else {
                self.needs.tails.saved(&room.number, snapshot.events);
            }
            if self.needs.tails.first_of(&room.number).is_none() {
                self.carried.remove(&room.number);
            }
        }
        // The snapshots of the same record may have some of its events, and not others.
        for entry in LogEntries::new(&record.events).flatten() {
            let room = self.ids.get(&entry.room).and_then(|id| self.rooms.get(id));
            let room = room.filter(|room| !room.header.is_quarantined);
            let snapshot = room.map(|room| room.header.events);
            let tails = &mut self.needs.tails;
            tails.add(entry.room, entry.number, sequence, snapshot);
        }
        self.trim.records += 1;
        garbage.extend(self.trim_due());
        garbage
    }

    /// Records that can be deleted, if it is time for that.
    pub(crate) fn trim_due(&mut self) -> Option<Garbage> {
        const RECORDS: u64 = 500;
        const INTERVAL: Duration = Duration::from_secs(30);
        let is_due = self.trim.records >= RECORDS
            || self.trim.records > 0 && self.trim.at.elapsed() >= INTERVAL;
        if !is_due || !self.is_active || self.damage.is_some() {
            return None;
        }
        self.trim.records = 0;
        self.trim.at = Instant::now();
        let before = self.needs.deletable(&self.log)?;
        (before > self.trim.before).then(|| {
            self.trim.before = before;
            Garbage::Log(before)
        })
    }

    /// The last record was read, or could not be, as for [`Appender::handle_last`].
    pub(crate) fn handle_last(
        &mut self,
        last: Result<Option<&StoredRecord>, ()>,
    ) -> Option<Option<InFlight>> {
        let durable = self
            .log
            .handle_last(last.map(|last| last.map(StoredRecord::last)));
        if let Ok(Some(last)) = last
            && last.header.id.epoch < self.epoch
            && last.sequence == self.log.last()
        {
            self.before = Some(last.clone());
        }
        durable
    }

    /// The first record that somebody needs when this one is stored, itself aside.
    pub(crate) fn first_needed(&self, record: Option<&Record>) -> Option<u64> {
        let rooms = record.into_iter().flat_map(|record| &record.rooms);
        let snapshots = rooms.map(|room| {
            let is_kept = room.quarantine.is_none();
            let snapshot = room.snapshot.as_ref().filter(|_| is_kept);
            let events = snapshot.map(|snapshot| snapshot.events);
            // Those of rooms that are removed, or in quarantine, are not needed in the log.
            (room.number, events.unwrap_or(u64::MAX))
        });
        self.needs.first_after(&self.log, snapshots)
    }

    /// The epoch has begun: what is to be read.
    pub(crate) fn begin_reading(&mut self) -> Reading {
        Reading {
            shard: self.shard,
            epoch: self.epoch,
            from: self.log.left(),
            before: self.before.take(),
            last: self.log.last(),
            claim: self.claim(),
        }
    }

    /// Loads a room behind what has come before.
    pub(crate) fn load(&mut self, id: Box<str>, purpose: Purpose) {
        self.loads.push_back(LoadRequest {
            after: self.parts,
            id,
            purpose,
        });
    }

    /// Whether rooms may be loaded, perhaps later: nothing is known to be damaged that must be read before.
    pub(crate) const fn may_load(&self) -> bool {
        self.is_active || self.damage.is_none()
    }

    /// Takes the loads that wait for what is stored to be read. Nothing is in quarantine before that.
    pub(crate) fn take_waiting(&mut self) -> Vec<Done<Loaded>> {
        if self.is_active {
            return Vec::new();
        }
        let loads = core::mem::take(&mut self.loads).into_iter();
        let waiting = loads.filter_map(|load| match load.purpose {
            Purpose::Restore(done) | Purpose::Peek(done) => Some(done),
            Purpose::Quarantine { .. } => None,
        });
        waiting.collect()
    }

    /// The next room to load now.
    pub(crate) fn next_load(&mut self) -> Option<LoadRequest> {
        let load = self.loads.front()?;
        if !self.is_active || load.after > self.durable_parts {
            return None;
        }
        self.loads.pop_front()
    }

    /// Whether the shard is still this node's, as far as that is known.
    pub(crate) fn claim(&self) -> Claim {
        Claim::new(&self.claim)
    }

    /// What is needed to load a room; none if it is done already.
    pub(crate) fn begin_load(&mut self, id: &str) -> Result<LoadPlan, JournalError> {
        if let Some(reason) = &self.damage {
            return Err(JournalError::Damaged(reason.clone().into()));
        }
        let Some(room) = self.rooms.get_mut(id) else {
            self.next_counter =
                self.next_counter
                    .checked_add(1)
                    .ok_or_else(|| JournalError::TooManyRooms {
                        limit: u64::from(u32::MAX),
                    })?;
            let number = room_number(self.shard, self.epoch, self.next_counter);
            return Ok(LoadPlan::New(number));
        };
        let number = room.header.number;
        let (header, sequence) = (room.header.clone(), room.sequence);
        let part = room.part.take();
        let tail = match (
            self.carried.get(&number),
            self.needs.tails.first_of(&number),
        ) {
            (_, None) => Tail::None,
            // It is taken along, as long as nothing was added.
            (Some(tail), Some(_)) if self.is_complete(tail, number) => Tail::Known(tail.clone()),
            (_, Some(first)) => Tail::Read {
                from: first,
                to: self.log.last(),
                next_event: self.needs.tails.next_event(&number).unwrap_or(0),
            },
        };
        Ok(LoadPlan::Read {
            header,
            sequence,
            part,
            tail,
        })
    }

    fn is_complete(&self, tail: &[u8], number: RoomNumber) -> bool {
        let last = LogEntries::new(tail).flatten().last();
        last.map(|entry| entry.number.saturating_add(1)) == self.needs.tails.next_event(&number)
    }

    /// What is needed to write that a room is in quarantine.
    pub(crate) fn id_of(&self, number: RoomNumber) -> Option<Box<str>> {
        self.ids.get(&number).cloned()
    }

    /// Ends what waits: the shard is another node's. Returns the parts of batches that are not durable, and
    /// the loads.
    pub(crate) fn end(self) -> (Vec<PartOf>, Vec<Done<Loaded>>) {
        let in_flight = self.log.into_payload();
        let mut parts = in_flight.map_or_else(Vec::new, |in_flight| in_flight.parts);
        parts.extend(self.pending.into_tags());
        let mut loads = Vec::new();
        for load in self.loads {
            match load.purpose {
                Purpose::Restore(done) | Purpose::Peek(done) => loads.push(done),
                Purpose::Quarantine { batch, number, .. } => parts.push(PartOf {
                    batch,
                    numbers: vec![number],
                }),
            }
        }
        let gated = self.gated.into_values().flatten();
        loads.extend(gated.map(|gated| match gated {
            Gated::Load(_, done) | Gated::Loaded(_, done) => done,
        }));
        (parts, loads)
    }
}

/// How a room is loaded.
pub(crate) enum LoadPlan {
    New(RoomNumber),
    Read {
        header: RoomHeader,
        sequence: u64,
        /// All of the snapshot, if it was read when the shard was taken.
        part: Option<Box<[u8]>>,
        tail: Tail,
    },
}

/// Events in pieces that are no longer than this, but for those of one that is longer.
fn pieces(mut events: &[u8], max_bytes: usize) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let (piece, rest) = events.split_at(prefix(events, max_bytes));
        events = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The length of the events at the beginning that are no longer than this, or of the first one.
fn prefix(events: &[u8], max_bytes: usize) -> usize {
    if events.len() <= max_bytes {
        return events.len();
    }
    let mut entries = LogEntries::new(events);
    let mut length = 0;
    while let Some(Ok(_)) = entries.next() {
        let end = events.len() - entries.rest().len();
        if end > max_bytes && length > 0 {
            break;
        }
        length = end;
    }
    length.max(1).min(events.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{format::RecordHeader, protocol::RecordId};

    #[test]
    fn a_snapshot_that_was_read_with_its_shard_is_not_read_again_until_there_is_another() {
        let (shard, epoch) = (Shard(1), Epoch(4));
        let number = room_number(shard, Epoch(3), 7);
        let mut events = Vec::new();
        LogEntry {
            room: number,
            number: 5,
            event: b"event",
        }
        .encode(&mut events);
        let record = StoredRecord {
            sequence: 9,
            header: RecordHeader {
                id: RecordId {
                    node: NodeId(1),
                    epoch: Epoch(3),
                    number: 2,
                },
                needed: None,
            },
            events: events.clone(),
        };
        let header = RoomHeader {
            number,
            events: 5,
            wake_at: None,
            parts: 1,
            is_quarantined: false,
        };
        let limits = Limits {
            bytes: 1 << 20,
            messages: 100,
        };
        let mut owned = Owned::new(shard, NodeId(2), epoch, limits);
        let stored = vec![
            Stored::Room {
                sequence: 8,
                id: "lobby".into(),
                header: Some(header.clone()),
                part: Some(b"snapshot"[..].into()),
            },
            Stored::Record(record),
        ];
        assert_eq!(owned.activate(stored, false, |_| false).len(), 1);
        let load = |owned: &mut Owned| match owned.begin_load("lobby") {
            Ok(LoadPlan::Read {
                part,
                tail: Tail::Known(tail),
                ..
            }) => (part, tail),
            _ => panic!("it is stored, and its events are known"),
        };
        let (part, tail) = load(&mut owned);
        assert_eq!(part.as_deref(), Some(&b"snapshot"[..]));
        assert_eq!(tail, events);
        // It is not held for longer than until the room is there.
        assert_eq!(load(&mut owned).0, None);
        // Nor is an old one taken for the room's.
        owned.insert("lobby".into(), header.clone(), 8, Some([1].into()));
        owned.insert("lobby".into(), header, 10, None);
        assert_eq!(load(&mut owned).0, None);
    }

    #[test]
    fn loads_wait_until_what_is_stored_is_read_unless_it_is_damaged() {
        let (sender, results) = std::sync::mpsc::channel();
        let load = |owned: &mut Owned| {
            let sender = sender.clone();
            let done = move |loaded| drop(sender.send(loaded));
            owned.load("lobby".into(), Purpose::Restore(Box::new(done)));
        };
        let (bytes, messages) = (1 << 20, 100);
        let limits = Limits { bytes, messages };
        let mut owned = Owned::new(Shard(1), NodeId(2), Epoch(4), limits);
        assert!(owned.may_load());
        load(&mut owned);
        assert!(owned.next_load().is_none());
        owned.unreadable(7);
        assert!(!owned.may_load());
        let waiting = owned.take_waiting();
        assert_eq!(waiting.len(), 1);
        owned.readable();
        assert!(owned.may_load());
        load(&mut owned);
        owned.activate(Vec::new(), true, |_| true);
        assert!(owned.take_waiting().is_empty());
        assert!(owned.next_load().is_some());
        load(&mut owned);
        let (_, ended) = owned.end();
        assert_eq!(ended.len(), 1);
        assert!(results.try_recv().is_err());
    }

    #[test]
    fn events_are_split_between_two() {
        let mut events = Vec::new();
        let mut ends = Vec::new();
        for number in 0..5 {
            LogEntry {
                room: RoomNumber(1),
                number,
                event: &[7; 10],
            }
            .encode(&mut events);
            ends.push(events.len());
        }
        assert_eq!(prefix(&events, events.len()), events.len());
        assert_eq!(prefix(&events, ends[1]), ends[1]);
        assert_eq!(prefix(&events, ends[1] + 1), ends[1]);
        // One that is too long goes by itself.
        assert_eq!(prefix(&events, 3), ends[0]);
        assert_eq!(prefix(&[], 3), 0);
    }
}
