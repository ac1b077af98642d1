//! What waits to be appended to a shard's log.

use std::collections::VecDeque;

/// What a record can have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of its events.
    pub bytes: usize,
    /// Messages of which it consists: itself, and those of its snapshots.
    pub messages: usize,
}

/// Batches that wait to be appended, in parts that a record can have each. What a batch does is not to be seen
/// before all of its parts are durable.
#[derive(Debug)]
pub struct Pending<T, E, R> {
    limits: Limits,
    parts: VecDeque<Part<T, E, R>>,
}

/// A part of a batch.
#[derive(Debug)]
pub struct Part<T, E, R> {
    /// What it is a part of.
    pub tag: T,
    /// Its events.
    pub events: E,
    /// What it stores of rooms.
    pub rooms: Vec<R>,
    bytes: usize,
    /// Besides the record itself.
    messages: usize,
}

impl<T: Clone, E: Default, R> Pending<T, E, R> {
    /// Nothing waits.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            parts: VecDeque::new(),
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds a batch: what it stores of rooms, with the messages that each takes, and its events, in pieces that a
    /// record can have, with their bytes. Returns in how many parts: one at least.
    ///
    /// Rooms come first: an event is kept if it is not in its room's snapshot, and its room is known.
    pub fn push(
        &mut self,
        tag: &T,
        rooms: impl IntoIterator<Item = (R, usize)>,
        pieces: impl IntoIterator<Item = (E, usize)>,
    ) -> usize {
        let before = self.parts.len();
        let empty = || Part {
            tag: tag.clone(),
            events: E::default(),
            rooms: Vec::new(),
            bytes: 0,
            messages: 0,
        };
        let mut part = empty();
        for (room, messages) in rooms {
            if 1 + part.messages + messages > self.limits.messages && !part.rooms.is_empty() {
                self.parts.push_back(core::mem::replace(&mut part, empty()));
            }
            part.rooms.push(room);
            part.messages += messages;
        }
        let mut pieces = pieces.into_iter();
        if let Some((events, bytes)) = pieces.next() {
            (part.events, part.bytes) = (events, bytes);
        }
        self.parts.push_back(part);
        for (events, bytes) in pieces {
            self.parts.push_back(Part {
                events,
                bytes,
                ..empty()
            });
        }
        self.parts.len() - before
    }

    /// Takes as much as the next record can have that has so many bytes already: a part at least if it has none.
    pub fn take(&mut self, mut bytes: usize) -> Vec<Part<T, E, R>> {
        let (mut parts, mut messages) = (Vec::new(), 1);
        let has_some = bytes > 0;
        while let Some(part) = self.parts.front() {
            bytes += part.bytes;
            messages += part.messages;
            let is_too_much = bytes > self.limits.bytes || messages > self.limits.messages;
            if is_too_much && (has_some || !parts.is_empty()) {
                break;
            }
            parts.extend(self.parts.pop_front());
        }
        parts
    }

    /// Ends: what all that waits is a part of.
    pub fn into_tags(self) -> impl Iterator<Item = T> {
        self.parts.into_iter().map(|part| part.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Record = (Vec<&'static str>, Vec<&'static str>, Vec<u32>);

    fn records(pending: &mut Pending<u32, &'static str, &'static str>) -> Vec<Record> {
        let mut records = Vec::new();
        while !pending.is_empty() {
            let parts = pending.take(0);
            records.push((
                parts.iter().flat_map(|part| part.rooms.clone()).collect(),
                parts.iter().map(|part| part.events).collect(),
                parts.iter().map(|part| part.tag).collect(),
            ));
        }
        records
    }

    #[test]
    fn batches_are_split_and_put_together() {
        let limits = Limits {
            bytes: 10,
            messages: 4,
        };
        let mut pending = Pending::new(limits);
        assert_eq!(pending.push(&1, [], [("a", 4)]), 1);
        assert_eq!(pending.push(&2, [("x", 3)], [("b", 5)]), 1);
        // Its rooms do not fit into one, and neither do its events.
        let rooms = [("y", 1), ("z", 3)];
        assert_eq!(pending.push(&3, rooms, [("c", 9), ("d", 9)]), 3);
        // Something too large goes by itself.
        assert_eq!(pending.push(&4, [("huge", 9)], [("e", 99)]), 1);
        assert_eq!(pending.push(&5, [], []), 1);
        let expected = [
            (vec!["x"], vec!["a", "b"], vec![1, 2]),
            (vec!["y"], vec![""], vec![3]),
            (vec!["z"], vec!["c"], vec![3]),
            (vec![], vec!["d"], vec![3]),
            (vec!["huge"], vec!["e"], vec![4]),
            (vec![], vec![""], vec![5]),
        ];
        assert_eq!(records(&mut pending), expected);
    }

    #[test]
    fn what_is_in_a_record_already_counts() {
        let limits = Limits {
            bytes: 10,
            messages: 4,
        };
        let mut pending = Pending::<_, _, ()>::new(limits);
        pending.push(&1, [], [("a", 8)]);
        assert!(pending.take(3).is_empty());
        assert_eq!(pending.take(2).len(), 1);
        pending.push(&1, [], [("a", 80)]);
        assert!(pending.take(1).is_empty());
        assert_eq!(pending.take(0).len(), 1);
    }
}
