//! The log and the directory, as far as the protocol relies on them.

use super::{node::RoomState, random::Random};
use stateroom_wasmi_cluster::{
    Shard,
    protocol::{Appended, CasResult, LastRecord, Note, Owner, RecordId},
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    pub(crate) snapshots: Vec<(usize, RoomState)>,
    pub(crate) notes: Vec<(usize, Note)>,
    /// Rooms that are in quarantine from now on.
    pub(crate) quarantines: Vec<usize>,
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
    records: BTreeMap<(usize, u64), (RecordId, Vec<Entry>)>,
    pub(crate) snapshots: BTreeMap<usize, RoomState>,
    pub(crate) quarantined: BTreeSet<usize>,
    last_sequence: u64,
    directory: Vec<(Option<Owner>, u64)>,
    revision: u64,
    pub(crate) is_down: bool,
}

impl Nats {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            last_sequence: 0,
            directory: vec![(None, 0); shards],
            revision: 0,
            is_down: false,
        }
    }

    pub(crate) fn append(
        &mut self,
        shard: Shard,
        expected: u64,
        id: RecordId,
        batch: Option<&Batch>,
    ) -> Appended {
        if self.last(shard).map_or(0, |last| last.sequence) != expected {
            return Appended::WrongSequence;
        }
        self.last_sequence += 1;
        let batch = batch.cloned().unwrap_or_default();
        let notes = batch.notes.into_iter();
        let notes = notes.map(|(room, note)| Entry::Note(room, note));
        let entries = notes.chain(batch.events.into_iter().map(Entry::Event));
        self.records
            .insert((shard.index(), self.last_sequence), (id, entries.collect()));
        self.snapshots.extend(batch.snapshots);
        self.quarantined.extend(batch.quarantines);
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
        let record = |(&(_, sequence), &(id, _)): (&(usize, u64), &(RecordId, _))| LastRecord {
            sequence,
            id,
        };
        self.records.range(range).map(record)
    }

    /// The records of a shard up to one.
    pub(crate) fn records(
        &self,
        shard: Shard,
        up_to: u64,
    ) -> impl Iterator<Item = (u64, RecordId, &[Entry])> {
        let range = (shard.index(), 0)..=(shard.index(), up_to);
        let records = self.records.range(range);
        records.map(|((_, sequence), (id, entries))| (*sequence, *id, &**entries))
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
}
