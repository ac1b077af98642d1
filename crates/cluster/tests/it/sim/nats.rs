//! The log and the directory, as far as the protocol relies on them.

use super::{node::RoomState, random::Random};
use stateroom_wasmi_cluster::{
    Shard,
    protocol::{Appended, CasResult, LastRecord, Note, Owner, Placement, RecordId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

/// A record with the snapshots that go with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) notes: Vec<(usize, Note)>,
    pub(crate) events: Vec<Event>,
    pub(crate) rooms: Vec<(usize, RoomWrite)>,
    /// The batches of which it has parts.
    pub(crate) parts: Vec<u64>,
}

/// What becomes of what is stored of a room.
#[derive(Clone, Debug)]
pub(crate) enum RoomWrite {
    Snapshot(RoomState),
    /// It is in quarantine from now on.
    Quarantine,
}

/// What is in a shard's log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    Event(Event),
    Note(usize, Note),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) room: usize,
    pub(crate) event: u64,
    pub(crate) client: usize,
    pub(crate) number: u64,
}

pub(crate) struct Nats {
    records: BTreeMap<(usize, u64), Stored>,
    pub(crate) snapshots: BTreeMap<usize, RoomState>,
    pub(crate) quarantined: BTreeSet<usize>,
    last_sequence: u64,
    directory: Vec<(Option<Owner>, u64)>,
    placements: Vec<(Option<Placement>, u64)>,
    revision: u64,
    pub(crate) is_down: bool,
    /// A shard of which it takes nothing but the records by which epochs begin.
    pub(crate) refuses: Option<Shard>,
}

struct Stored {
    id: RecordId,
    needed: Option<u64>,
    version: u8,
    entries: Vec<Entry>,
}

impl Nats {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            last_sequence: 0,
            directory: vec![(None, 0); shards],
            placements: vec![(None, 0); shards],
            revision: 0,
            is_down: false,
            refuses: None,
        }
    }

    pub(crate) fn append(
        &mut self,
        shard: Shard,
        expected: u64,
        id: RecordId,
        needed: Option<u64>,
        version: u8,
        record: Option<Record>,
    ) -> Appended {
        if self.last(shard).map_or(0, |last| last.sequence) != expected {
            return Appended::WrongSequence;
        }
        if record.is_some() && self.refuses == Some(shard) {
            return Appended::Refused;
        }
        self.last_sequence += 1;
        let record = record.unwrap_or_default();
        let notes = record.notes.into_iter();
        let notes = notes.map(|(room, note)| Entry::Note(room, note));
        let entries = notes.chain(record.events.into_iter().map(Entry::Event));
        let stored = Stored {
            id,
            needed,
            version,
            entries: entries.collect(),
        };
        self.records
            .insert((shard.index(), self.last_sequence), stored);
        for (room, write) in record.rooms {
            match write {
                RoomWrite::Snapshot(state) => drop(self.snapshots.insert(room, state)),
                RoomWrite::Quarantine => drop(self.quarantined.insert(room)),
            }
        }
        Appended::Done(self.last_sequence)
    }

    pub(crate) fn last(&self, shard: Shard) -> Option<LastRecord> {
        self.all(shard).next_back()
    }

    /// The last record, or one that was the last before.
    pub(crate) fn stale_last(&self, shard: Shard, random: &mut Random) -> Option<LastRecord> {
        let mut records = self.all(shard).rev();
        match random.below(6) {
            0 => records.nth(1),
            1 => records.nth(random.below(5)),
            _ => records.next(),
        }
    }

    fn all(&self, shard: Shard) -> impl DoubleEndedIterator<Item = LastRecord> {
        let range = (shard.index(), 0)..(shard.index() + 1, 0);
        let record = |(&(_, sequence), stored): (&(usize, u64), &Stored)| {
            let itself = (!stored.entries.is_empty()).then_some(sequence);
            LastRecord {
                sequence,
                id: stored.id,
                needed: stored.needed.into_iter().chain(itself).min(),
            }
        };
        self.records.range(range).map(record)
    }

    /// Of which version a record is.
    pub(crate) fn version(&self, shard: Shard, record: &LastRecord) -> u8 {
        self.records[&(shard.index(), record.sequence)].version
    }

    /// The records of a shard from one to another.
    pub(crate) fn records(
        &self,
        shard: Shard,
        sequences: RangeInclusive<u64>,
    ) -> impl Iterator<Item = (u64, RecordId, &[Entry])> {
        let (first, last) = sequences.into_inner();
        let range = (shard.index(), first)..=(shard.index(), last.max(first));
        let records = self.records.range(range);
        records.map(|((_, sequence), stored)| (*sequence, stored.id, &*stored.entries))
    }

    /// Removes the records before one.
    pub(crate) fn trim(&mut self, shard: Shard, before: u64) {
        let last = self.last(shard).map_or(0, |last| last.sequence);
        assert!(before <= last, "the last record must stay");
        self.records
            .retain(|(of, sequence), _| *of != shard.index() || *sequence >= before);
    }

    pub(crate) fn set_owner(&mut self, shard: Shard, owner: Owner, revision: u64) -> CasResult {
        let entry = &mut self.directory[shard.index()];
        if entry.1 != revision {
            return CasResult::Failed;
        }
        self.revision += 1;
        *entry = (Some(owner), self.revision);
        CasResult::Done(self.revision)
    }

    pub(crate) fn owner(&self, shard: Shard) -> (Option<Owner>, u64) {
        self.directory[shard.index()]
    }

    pub(crate) fn place(
        &mut self,
        shard: Shard,
        placement: Placement,
        revision: u64,
    ) -> Option<u64> {
        let entry = &mut self.placements[shard.index()];
        if entry.1 != revision {
            return None;
        }
        self.revision += 1;
        *entry = (Some(placement), self.revision);
        Some(self.revision)
    }

    pub(crate) fn placement(&self, shard: Shard) -> (Option<Placement>, u64) {
        self.placements[shard.index()].clone()
    }
}
