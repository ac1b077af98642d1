//! What of a shard's log its rooms still need.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// For each room with events since its snapshot, the first record that has one of them.
#[derive(Debug)]
pub struct Tails<R> {
    rooms: HashMap<R, Tail>,
    /// How many rooms need the log from a record on.
    needed: BTreeMap<u64, usize>,
}

#[derive(Debug)]
struct Tail {
    first_record: u64,
    /// The number of the event after the last.
    next_event: u64,
}

impl<R> Default for Tails<R> {
    fn default() -> Self {
        Self {
            rooms: HashMap::new(),
            needed: BTreeMap::new(),
        }
    }
}

impl<R: Hash + Eq> Tails<R> {
    /// An event of a room is in the record of this sequence number. It is needed if it is not in the room's snapshot,
    /// which contains so many; those of rooms that have none, or are in quarantine, are not. Returns whether it is.
    pub fn add(&mut self, room: R, event: u64, record: u64, snapshot: Option<u64>) -> bool {
        // Those of a room that was released from quarantine may be there twice, and are the same.
        let next = self.next_event(&room).unwrap_or(0);
        if snapshot.is_none_or(|events| event < events.max(next)) {
            return false;
        }
        let needed = &mut self.needed;
        let tail = self.rooms.entry(room).or_insert_with(|| {
            *needed.entry(record).or_default() += 1;
            Tail {
                first_record: record,
                next_event: 0,
            }
        });
        tail.next_event = event.saturating_add(1);
        true
    }

    /// A room's snapshot contains this many events.
    pub fn saved(&mut self, room: &R, events: u64) {
        if self
            .rooms
            .get(room)
            .is_some_and(|tail| tail.next_event <= events)
        {
            self.remove(room);
        }
    }

    /// A room needs its events no longer.
    pub fn remove(&mut self, room: &R) {
        if let Some(tail) = self.rooms.remove(room)
            && let Some(count) = self.needed.get_mut(&tail.first_record)
        {
            *count -= 1;
            if *count == 0 {
                self.needed.remove(&tail.first_record);
            }
        }
    }

    /// The first record that has an event of this room since its snapshot.
    #[must_use]
    pub fn first_of(&self, room: &R) -> Option<u64> {
        self.rooms.get(room).map(|tail| tail.first_record)
    }

    /// The number of the event after the last of this room, if it has some since its snapshot.
    #[must_use]
    pub fn next_event(&self, room: &R) -> Option<u64> {
        self.rooms.get(room).map(|tail| tail.next_event)
    }

    /// The first record that a room needs once these snapshots are stored, of a room each, which contain so many
    /// events.
    pub fn first_after(&self, snapshots: impl IntoIterator<Item = (R, u64)>) -> Option<u64> {
        let mut saved: BTreeMap<u64, usize> = BTreeMap::new();
        for (room, events) in snapshots {
            let tail = self.rooms.get(&room);
            if let Some(tail) = tail.filter(|tail| tail.next_event <= events) {
                *saved.entry(tail.first_record).or_default() += 1;
            }
        }
        let mut needed = self.needed.iter();
        let is_needed = |(record, rooms): &(&u64, &usize)| saved.get(record) != Some(rooms);
        needed.find(is_needed).map(|(record, _)| *record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_needs_nothing_of_rooms_whose_snapshots_it_has() {
        let mut tails = Tails::default();
        for (room, event, record) in [("a", 0, 5), ("b", 0, 5), ("a", 1, 6), ("c", 7, 8)] {
            assert!(tails.add(room, event, record, Some(0)));
        }
        let first_after = |snapshots: &[_]| tails.first_after(snapshots.iter().copied());
        assert_eq!(first_after(&[]), Some(5));
        assert_eq!(first_after(&[("a", 2), ("d", 9)]), Some(5));
        assert_eq!(first_after(&[("a", 2), ("b", 1)]), Some(8));
        // It does not have all of the room's events.
        assert_eq!(first_after(&[("a", 1), ("b", 1)]), Some(5));
        assert_eq!(first_after(&[("a", 2), ("b", 1), ("c", 8)]), None);
    }
}
