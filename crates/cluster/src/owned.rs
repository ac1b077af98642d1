//! A shard that this node owns: what is stored of its rooms, and what waits to be appended to its log.

use crate::{
    format::{NOTES, RoomHeader, decode_notes, encode_notes, room_number},
    nats::{MAX_BATCH, Nats, Record, RoomRecord, Stored, StoredRecord},
    protocol::{Appender, LastRecord, MAX_DEATHS, Note, Suspects, Tails},
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
    tails: Tails<RoomNumber>,
    /// Events since their snapshots of rooms that were taken over.
    carried: HashMap<RoomNumber, Vec<u8>>,
    pending: VecDeque<Part>,
    /// How many parts have come, and how many are durable.
    parts: u64,
    durable_parts: u64,
    loads: VecDeque<Load>,
    /// Rooms that may be why owners before have ended.
    suspects: Suspects<RoomNumber>,
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
    /// The last record of the owner before.
    before: Option<StoredRecord>,
    /// The first record that was read.
    read_from: Option<u64>,
    /// Held until the shard is another node's.
    claim: Arc<()>,
}

/// A room to load.
pub(crate) struct Load {
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
}

/// What a batch has for a shard, or a piece of it.
pub(crate) struct Part {
    pub(crate) batch: u64,
    pub(crate) numbers: Vec<RoomNumber>,
    events: Vec<u8>,
    rooms: Vec<RoomRecord>,
    messages: usize,
}

/// What is being appended.
pub(crate) struct InFlight {
    pub(crate) record: Arc<Record>,
    pub(crate) parts: Vec<Part>,
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
    pub(crate) fn new(shard: Shard, node: NodeId, epoch: Epoch) -> Self {
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
            tails: Tails::default(),
            carried: HashMap::new(),
            pending: VecDeque::new(),
            parts: 0,
            durable_parts: 0,
            loads: VecDeque::new(),
            suspects: Suspects::default(),
            unrestored: HashSet::new(),
            gated: HashMap::new(),
            condemned: HashMap::new(),
            notes: Vec::new(),
            noted: Vec::new(),
            next_counter: 0,
            claim: Arc::default(),
            before: None,
            read_from: None,
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
                } => self.insert(id.into(), header, sequence),
                Stored::Room {
                    sequence,
                    id,
                    header: None,
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
                self.suspects.begin_epoch(false);
            }
            owner = Some((header.id.node, header.id.epoch));
            for entry in LogEntries::new(&record.events) {
                match entry {
                    Ok(entry) if entry.room == NOTES => {
                        for (room, note) in decode_notes(entry.event) {
                            self.suspects.note(room, note, sequence);
                        }
                    }
                    Ok(entry) => self.carry(&entry, sequence),
                    Err(error) => self.damaged(format!("{error} at {sequence}")),
                }
            }
        }
        if let Some((node, _)) = owner {
            self.notes = self.suspects.begin_epoch(was_given || is_alive(node));
        }
        self.is_active = true;
        self.trim.before = 0;
        for room in self.rooms.values() {
            if room.header.is_quarantined {
                self.suspects.remove(&room.header.number);
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
                let deaths = self.suspects.deaths(&number);
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

    /// The last record of the log, with this sequence number, cannot be read.
    pub(crate) fn unreadable(&mut self, sequence: u64) {
        self.damaged(format!(
            "the record {sequence} is damaged or of another version"
        ));
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
        self.suspects.convicted()
    }

    /// How many owners have ended while they restored a room.
    pub(crate) fn deaths(&self, number: RoomNumber) -> u32 {
        self.suspects.deaths(&number)
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
        // One that was released from quarantine may have events twice, which are the same.
        let next = self.tails.next_event(&entry.room).unwrap_or(header.events);
        if entry.number >= next && !header.is_quarantined {
            entry.encode(self.carried.entry(entry.room).or_default());
            self.tails.add(entry.room, entry.number, sequence);
        }
    }

    fn insert(&mut self, id: Box<str>, header: RoomHeader, sequence: u64) {
        if let Some(before) = self.rooms.get(&id)
            && before.header.number != header.number
        {
            self.ids.remove(&before.header.number);
        }
        self.ids.insert(header.number, id.clone());
        self.quarantined += usize::from(header.is_quarantined);
        let before = self.rooms.insert(id, RoomEntry { header, sequence });
        let was_quarantined = before.is_some_and(|room| room.header.is_quarantined);
        self.quarantined -= usize::from(was_quarantined);
    }

    fn remove(&mut self, id: &str) {
        if let Some(room) = self.rooms.remove(id) {
            self.quarantined -= usize::from(room.header.is_quarantined);
            let number = room.header.number;
            self.ids.remove(&number);
            self.tails.remove(&number);
            self.carried.remove(&number);
            self.suspects.remove(&number);
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

    /// Adds what a batch has for this shard; returns in how many parts.
    pub(crate) fn push(&mut self, batch: u64, mut events: ShardBatch, nats: &Nats) -> usize {
        let max_bytes = nats.max_bytes();
        let before = self.parts;
        let writes = core::mem::take(&mut events.writes);
        let rooms = writes
            .into_iter()
            .filter_map(|(number, write)| self.room_record(number, write))
            .collect();
        let (piece, mut rest) = events.events.split_at(prefix(&events.events, max_bytes));
        // Snapshots come first: an event is kept if it is not in its room's. Nothing of the batch is seen before all
        // of it is durable.
        self.push_parts(batch, piece, rooms, events.numbers.clone(), nats);
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(prefix(rest, max_bytes));
            rest = others;
            self.push_part(batch, piece.into(), Vec::new(), events.numbers.clone(), 1);
        }
        usize::try_from(self.parts - before).unwrap_or(usize::MAX)
    }

    /// Adds what is to be written of a room by itself; returns in how many parts.
    pub(crate) fn push_room(&mut self, batch: u64, room: RoomRecord, nats: &Nats) -> usize {
        let (numbers, before) = (vec![room.number], self.parts);
        self.push_parts(batch, &[], vec![room], numbers, nats);
        usize::try_from(self.parts - before).unwrap_or(usize::MAX)
    }

    fn push_parts(
        &mut self,
        batch: u64,
        events: &[u8],
        rooms: Vec<RoomRecord>,
        numbers: Vec<RoomNumber>,
        nats: &Nats,
    ) {
        let (mut part, mut count) = (Vec::new(), 1);
        for room in rooms {
            let messages = nats.parts_of(&room);
            if count + messages > MAX_BATCH && !part.is_empty() {
                let full = core::mem::take(&mut part);
                self.push_part(batch, Vec::new(), full, numbers.clone(), count);
                count = 1;
            }
            part.push(room);
            count += messages;
        }
        self.push_part(batch, events.into(), part, numbers, count);
    }

    fn push_part(
        &mut self,
        batch: u64,
        events: Vec<u8>,
        rooms: Vec<RoomRecord>,
        numbers: Vec<RoomNumber>,
        messages: usize,
    ) {
        self.parts += 1;
        self.pending.push_back(Part {
            batch,
            numbers,
            events,
            rooms,
            messages,
        });
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
    pub(crate) fn append_next(&mut self, nats: &Nats) {
        let max_bytes = nats.max_bytes();
        let mut parts = Vec::new();
        let (mut bytes, mut messages) = (0, 1);
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
            bytes += record.events.len();
        }
        while let Some(part) = self.pending.front() {
            bytes += part.events.len();
            messages += part.messages - 1;
            let is_first = parts.is_empty() && record.events.is_empty();
            if !is_first && (bytes > max_bytes || messages > MAX_BATCH) {
                break;
            }
            let Some(mut part) = self.pending.pop_front() else {
                break;
            };
            record.events.append(&mut part.events);
            for room in core::mem::take(&mut part.rooms) {
                // One message for each subject: the last counts.
                record.rooms.retain(|before| before.id != room.id);
                record.rooms.push(room);
            }
            parts.push(part);
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
                    self.suspects.note(room, note, sequence);
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
                self.tails.remove(&room.number);
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
            self.insert(room.id.clone(), header, next);
            if was_quarantined && room.quarantine.is_none() {
                // It may end its owners still.
                self.unrestored.insert(room.number);
            }
            next += u64::from(parts);
            if room.quarantine.is_some() {
                self.tails.remove(&room.number);
                self.suspects.remove(&room.number);
                self.unrestored.remove(&room.number);
            } else {
                self.tails.saved(&room.number, snapshot.events);
            }
            if self.tails.first_of(&room.number).is_none() {
                self.carried.remove(&room.number);
            }
        }
        // The snapshots of the same record may have some of its events, and not others.
        for entry in LogEntries::new(&record.events).flatten() {
            if let Some(room) = self.ids.get(&entry.room).and_then(|id| self.rooms.get(id))
                && !room.header.is_quarantined
                && entry.number >= room.header.events
            {
                self.tails.add(entry.room, entry.number, sequence);
            }
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
        // The last record must stay: it tells who owns the shard.
        let before = self.first_needed().unwrap_or(self.log.last());
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
        // A replica may be late: what was read before then is nearer to this epoch.
        if let Ok(Some(last)) = last
            && last.header.id.epoch < self.epoch
            && self
                .before
                .as_ref()
                .is_none_or(|before| before.sequence < last.sequence)
        {
            self.before = Some(last.clone());
        }
        let last = last.map(|last| {
            last.map(|last| LastRecord {
                sequence: last.sequence,
                id: last.header.id,
            })
        });
        self.log.handle_last(last)
    }

    /// The first record that somebody needs.
    pub(crate) fn first_needed(&self) -> Option<u64> {
        if self.is_active {
            // What is damaged must be found again by the next owner.
            let damaged = self.read_from.filter(|_| self.damage.is_some());
            let needed = self.tails.first().into_iter();
            return needed.chain(self.suspects.first()).chain(damaged).min();
        }
        let before = self.before.as_ref()?;
        let itself = (!before.events.is_empty()).then_some(before.sequence);
        before.header.needed.into_iter().chain(itself).min()
    }

    /// The epoch has begun: what is to be read.
    pub(crate) fn begin_reading(&mut self) -> Reading {
        self.read_from = self.first_needed();
        Reading {
            shard: self.shard,
            epoch: self.epoch,
            before: self.before.take(),
            last: self.log.last(),
            claim: self.claim(),
        }
    }

    /// Loads a room behind what has come before.
    pub(crate) fn load(&mut self, id: Box<str>, purpose: Purpose) {
        self.loads.push_back(Load {
            after: self.parts,
            id,
            purpose,
        });
    }

    /// The next room to load now.
    pub(crate) fn next_load(&mut self) -> Option<Load> {
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
        let Some(room) = self.rooms.get(id) else {
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
        let tail = match (self.carried.get(&number), self.tails.first_of(&number)) {
            (_, None) => Tail::None,
            // It is taken along, as long as nothing was added.
            (Some(tail), Some(_)) if self.is_complete(tail, number) => Tail::Known(tail.clone()),
            (_, Some(first)) => Tail::Read {
                from: first,
                to: self.log.last(),
                next_event: self.tails.next_event(&number).unwrap_or(0),
            },
        };
        Ok(LoadPlan::Read {
            header: room.header.clone(),
            sequence: room.sequence,
            tail,
        })
    }

    fn is_complete(&self, tail: &[u8], number: RoomNumber) -> bool {
        let last = LogEntries::new(tail).flatten().last();
        last.map(|entry| entry.number.saturating_add(1)) == self.tails.next_event(&number)
    }

    /// What is needed to write that a room is in quarantine.
    pub(crate) fn id_of(&self, number: RoomNumber) -> Option<Box<str>> {
        self.ids.get(&number).cloned()
    }

    /// Ends what waits: the shard is another node's. Returns the parts of batches that are not durable, and
    /// the loads.
    pub(crate) fn end(self) -> (Vec<Part>, Vec<Done<Loaded>>) {
        let in_flight = self.log.into_payload();
        let mut parts = in_flight.map_or_else(Vec::new, |in_flight| in_flight.parts);
        parts.extend(self.pending);
        let mut loads = Vec::new();
        for load in self.loads {
            match load.purpose {
                Purpose::Restore(done) | Purpose::Peek(done) => loads.push(done),
                Purpose::Quarantine { batch, number, .. } => parts.push(Part {
                    batch,
                    numbers: vec![number],
                    events: Vec::new(),
                    rooms: Vec::new(),
                    messages: 0,
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
        tail: Tail,
    },
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
    use crate::{
        format::RecordHeader,
        protocol::{Appended, RecordId, Request},
    };

    #[test]
    fn a_late_replica_does_not_hide_records_of_the_owner_before() {
        let record = |node, epoch, number, sequence, needed| StoredRecord {
            sequence,
            header: RecordHeader {
                id: RecordId {
                    node: NodeId(node),
                    epoch: Epoch(epoch),
                    number,
                },
                needed,
            },
            events: Vec::new(),
        };
        let mut owned = Owned::new(Shard(1), NodeId(2), Epoch(4));
        let read = |owned: &mut Owned, last: &StoredRecord| {
            assert!(matches!(owned.log.poll(), Some(Request::ReadLast)));
            owned.handle_last(Ok(Some(last)))
        };
        assert!(read(&mut owned, &record(1, 3, 2, 7, Some(6))).is_none());
        assert!(matches!(owned.log.poll(), Some(Request::Append { .. })));
        assert!(owned.log.handle_appended(Appended::Unknown).is_none());
        // It does not have what came since.
        assert!(read(&mut owned, &record(1, 3, 0, 5, None)).is_none());
        assert!(matches!(owned.log.poll(), Some(Request::Append { .. })));
        assert!(owned.log.handle_appended(Appended::WrongSequence).is_none());
        assert!(read(&mut owned, &record(2, 4, 0, 8, None)).is_some());
        let reading = owned.begin_reading();
        let before = reading.before.expect("there was an owner");
        assert_eq!((before.sequence, before.header.needed), (7, Some(6)));
        assert_eq!(reading.last, 8);
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
