//! A journal in memory: for tests.

use super::{
    Batch, Done, Journal, JournalError, LogEntries, RoomNumber, RoomSnapshot, RoomWrite, Stored,
    StoredRoom, UnfinishedRoom,
};
use stateroom_wasmi_host::ModuleHash;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A journal that ends with the process, for tests: a [copy](Self::fork) of it is what a crash would leave,
/// and it can be [as slow](Self::pause) as a disk. Its clones are the same journal.
#[derive(Clone, Default)]
pub struct MemoryJournal(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    rooms: BTreeMap<RoomNumber, Entry>,
    modules: HashMap<ModuleHash, Vec<u8>>,
    next_number: u64,
    is_paused: bool,
    waiting: VecDeque<Job>,
    failure: Option<String>,
}

#[derive(Clone)]
struct Entry {
    id: Box<str>,
    snapshot: RoomSnapshot,
    tail: Vec<u8>,
    quarantine: Option<String>,
}

enum Job {
    Load(Box<str>, Done<Stored>),
    Write(Batch, Done<()>),
}

impl MemoryJournal {
    /// A journal without rooms.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A journal with a room.
    #[must_use]
    pub fn with_room(id: &str, room: StoredRoom) -> Self {
        let journal = Self::new();
        let mut inner = journal.lock();
        inner.next_number = room.number.0;
        let entry = Entry {
            id: id.into(),
            snapshot: room.snapshot,
            tail: room.tail,
            quarantine: None,
        };
        inner.rooms.insert(room.number, entry);
        drop(inner);
        journal
    }

    /// Another journal with what is durable in this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        let inner = self.lock();
        Self(Arc::new(Mutex::new(Inner {
            rooms: inner.rooms.clone(),
            modules: inner.modules.clone(),
            next_number: inner.next_number,
            ..Inner::default()
        })))
    }

    /// Does nothing from now on: what comes waits.
    pub fn pause(&self) {
        self.lock().is_paused = true;
    }

    /// Does what waits, and does not wait any more.
    pub fn resume(&self) {
        self.lock().is_paused = false;
        while self.step() {}
    }

    /// Does the first thing that waits; returns false if nothing waits.
    pub fn step(&self) -> bool {
        let job = self.lock().waiting.pop_front();
        let is_some = job.is_some();
        if let Some(job) = job {
            self.run(job);
        }
        is_some
    }

    /// How much waits.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Fails to write from now on.
    pub fn fail(&self, reason: &str) {
        self.lock().failure = Some(reason.into());
    }

    /// What is stored of a room, as it would be loaded.
    #[must_use]
    pub fn stored(&self, id: &str) -> Option<StoredRoom> {
        let inner = self.lock();
        let mut rooms = inner.rooms.iter();
        let (number, entry) = rooms.find(|(_, entry)| &*entry.id == id)?;
        Some(StoredRoom {
            number: *number,
            snapshot: entry.snapshot.clone(),
            tail: entry.tail.clone(),
        })
    }

    /// Why a room is not restored.
    #[must_use]
    pub fn quarantine(&self, id: &str) -> Option<String> {
        let inner = self.lock();
        let mut rooms = inner.rooms.values();
        rooms.find(|room| &*room.id == id)?.quarantine.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, job: Job) {
        let mut inner = self.lock();
        if inner.is_paused || !inner.waiting.is_empty() {
            inner.waiting.push_back(job);
            return;
        }
        drop(inner);
        self.run(job);
    }

    fn run(&self, job: Job) {
        match job {
            Job::Load(id, done) => {
                let quarantine = self.quarantine(&id).map(Stored::Quarantined);
                let stored = quarantine.or_else(|| self.stored(&id).map(Stored::Room));
                done(Ok(stored.unwrap_or_else(|| {
                    let mut inner = self.lock();
                    inner.next_number += 1;
                    Stored::New(RoomNumber(inner.next_number))
                })));
            }
            Job::Write(batch, done) => {
                let failure = self.lock().failure.clone();
                match failure {
                    Some(reason) => done(Err(JournalError::Failed(reason.into()))),
                    None => {
                        self.lock().apply(&batch);
                        done(Ok(()));
                    }
                }
            }
        }
    }
}

impl Inner {
    fn apply(&mut self, batch: &Batch) {
        for (number, write) in batch.rooms() {
            match write {
                RoomWrite::Snapshot { id, snapshot } => {
                    let tail = self.rooms.remove(number).map(|entry| entry.tail);
                    let mut entry = Entry {
                        id: id.clone(),
                        snapshot: snapshot.clone(),
                        tail: tail.unwrap_or_default(),
                        quarantine: None,
                    };
                    entry.trim();
                    self.rooms.insert(*number, entry);
                }
                RoomWrite::Remove | RoomWrite::Discard => drop(self.rooms.remove(number)),
                RoomWrite::Quarantine(reason) => {
                    if let Some(room) = self.rooms.get_mut(number) {
                        room.quarantine = Some(reason.clone());
                    }
                }
            }
        }
        for entry in LogEntries::new(batch.events()).flatten() {
            if let Some(room) = self.rooms.get_mut(&entry.room)
                && entry.number >= room.snapshot.events
            {
                let mut log = Batch::default();
                log.log(entry.room, entry.number, entry.event);
                room.tail.extend_from_slice(log.events());
            }
        }
    }
}

impl Entry {
    /// Drops the events that the snapshot contains.
    fn trim(&mut self) {
        let mut kept = Batch::default();
        for entry in LogEntries::new(&self.tail).flatten() {
            if entry.number >= self.snapshot.events {
                kept.log(entry.room, entry.number, entry.event);
            }
        }
        self.tail = kept.events().into();
    }
}

impl Journal for MemoryJournal {
    fn secret(&self) -> [u8; 32] {
        [7; 32]
    }

    fn unfinished(&self) -> Vec<UnfinishedRoom> {
        let inner = self.lock();
        let rooms = inner.rooms.values();
        rooms
            .filter(|room| room.quarantine.is_none())
            .filter(|room| !room.tail.is_empty() || room.snapshot.wake_at.is_some())
            .map(|room| UnfinishedRoom {
                id: room.id.clone(),
                wake_at: room.snapshot.wake_at.filter(|_| room.tail.is_empty()),
            })
            .collect()
    }

    fn load(&self, id: &str, done: Done<Stored>) {
        self.submit(Job::Load(id.into(), done));
    }

    fn keep_module(&self, hash: ModuleHash, wasm: &[u8]) {
        self.lock().modules.insert(hash, wasm.into());
    }

    fn load_module(&self, hash: ModuleHash, done: Done<Option<Vec<u8>>>) {
        let module = self.lock().modules.get(&hash).cloned();
        done(Ok(module));
    }

    fn write(&self, batch: Batch, done: Done<()>) {
        self.submit(Job::Write(batch, done));
    }
}

impl fmt::Debug for MemoryJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryJournal").finish_non_exhaustive()
    }
}
