//! Rooms that may be why their owners end, as a shard's log tells.
//!
//! An owner notes in the log which rooms it is about to restore, before it does, and that they are restored when
//! they are. If it ends in between, the next owner finds the notes open, and one of these rooms may be why.

use core::hash::Hash;
use std::collections::{HashMap, HashSet, VecDeque};

/// Owners that have ended while they restored a room, after which it is not restored any more, if it was not
/// restored in between. All but the first were restoring nothing else. Less could be coincidence, where something
/// ends owners again and again.
pub const MAX_DEATHS: u32 = 3;

/// What the notes of a shard's log come to.
#[derive(Clone, Debug)]
pub struct Suspects<R> {
    rooms: HashMap<R, Suspect>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// Owners that have ended while they restored the room.
    deaths: u32,
    /// Whether the present owner restores it.
    is_open: bool,
    /// The record by which that is known.
    record: u64,
}

/// What an owner notes of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It is about to be restored; so many owners have ended of that before.
    Restoring {
        /// How many.
        deaths: u32,
    },
    /// It is not restored now. If it has survived that, there are no deaths.
    Stopped {
        /// How many owners have ended of it.
        deaths: u32,
    },
}

impl Note {
    /// It has survived.
    pub const RESTORED: Self = Self::Stopped { deaths: 0 };
}

impl<R> Default for Suspects<R> {
    fn default() -> Self {
        Self {
            rooms: HashMap::new(),
        }
    }
}

impl<R: Copy + Eq + Hash + Ord> Suspects<R> {
    /// The next owner begins. The one before may have ended of the rooms that it was restoring, unless it has
    /// given the shard away, or is alive. Returns the rooms whose notes must be followed by others for those who
    /// read the log later, and cannot know that, in order.
    pub fn begin_epoch(&mut self, is_alive: bool) -> Vec<(R, Note)> {
        let mut notes = Vec::new();
        for (room, suspect) in &mut self.rooms {
            let is_open = core::mem::take(&mut suspect.is_open);
            if is_open && is_alive {
                let deaths = suspect.deaths;
                notes.push((*room, Note::Stopped { deaths }));
            } else if is_open {
                suspect.deaths = suspect.deaths.saturating_add(1);
            }
        }
        self.rooms.retain(|_, suspect| suspect.deaths > 0);
        notes.sort_unstable_by_key(|(room, _)| *room);
        notes
    }

    /// The record of this sequence number has this note.
    pub fn note(&mut self, room: R, note: Note, record: u64) {
        let (deaths, is_open) = match note {
            Note::Restoring { deaths } => (deaths, true),
            Note::RESTORED => {
                self.rooms.remove(&room);
                return;
            }
            Note::Stopped { deaths } => (deaths, false),
        };
        let suspect = Suspect {
            deaths,
            is_open,
            record,
        };
        self.rooms.insert(room, suspect);
    }

    /// Nothing is known of a room any more: it has gone, or is in quarantine.
    pub fn remove(&mut self, room: &R) {
        self.rooms.remove(room);
    }

    /// How many owners in a row have ended while they restored it.
    #[must_use]
    pub fn deaths(&self, room: &R) -> u32 {
        self.rooms.get(room).map_or(0, |suspect| suspect.deaths)
    }

    /// The rooms that are not to be restored any more, in order.
    #[must_use]
    pub fn convicted(&self) -> Vec<R> {
        let rooms = self.rooms.iter();
        let convicted = rooms.filter(|(_, suspect)| suspect.deaths >= MAX_DEATHS);
        let mut convicted: Vec<_> = convicted.map(|(room, _)| *room).collect();
        convicted.sort_unstable();
        convicted
    }

    /// The first record that is still needed.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.rooms.values().map(|suspect| suspect.record).min()
    }
}

/// Which rooms a node restores next, of those that may be why it ends.
///
/// Those of which no owner has ended are restored in groups; one of which an owner has, by itself: so the next
/// death tells which it was. These come last, so that the others are not kept from coming back.
#[derive(Debug)]
pub struct Gate<R> {
    /// How many are restored at once. The ends of half as many are written at once, since each write costs NATS the
    /// time in which several rooms are restored; while it is written, there is the other half.
    max_open: usize,
    /// Rooms of which no owner has ended.
    waiting: VecDeque<R>,
    suspects: VecDeque<R>,
    open: HashSet<R>,
    /// Rooms that are restored, or not to be, whose ends are not due to be written yet. A death makes suspects of
    /// them, so they count as open.
    ended: Vec<R>,
    /// Those whose ends are written, which may not be durable yet. No suspect is restored beside them.
    ending: HashSet<R>,
    /// A suspect, which is by itself.
    alone: Option<(R, Alone)>,
}

/// How far a suspect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alone {
    /// What is stored of it is read.
    Loading,
    /// It does again what it did.
    Restoring,
    /// It has done that, or is not to; but that is not durable.
    Ended,
}

/// Rooms that a node restores at once, of shards whose owners have ended: a death makes suspects of no more, but for
/// those whose ends are just being written.
pub const MAX_OPEN: usize = 64;

impl<R> Gate<R> {
    /// Of a node that restores at most so many at once.
    #[must_use]
    pub fn new(max_open: usize) -> Self {
        Self {
            max_open,
            waiting: VecDeque::new(),
            suspects: VecDeque::new(),
            open: HashSet::new(),
            ended: Vec::new(),
            ending: HashSet::new(),
            alone: None,
        }
    }
}

impl<R: Copy + Eq + Hash> Gate<R> {
    /// A room is to be restored, of which so many owners have ended.
    pub fn push(&mut self, room: R, deaths: u32) {
        match deaths {
            0 => self.waiting.push_back(room),
            _ => self.suspects.push_back(room),
        }
    }

    /// The next room whose turn it is.
    pub fn poll(&mut self) -> Option<R> {
        if self.alone.is_some() || self.open.len() + self.ended.len() >= self.max_open {
            return None;
        }
        let room = match self.waiting.pop_front() {
            Some(room) => room,
            None if self.open.is_empty() && self.ended.is_empty() && self.ending.is_empty() => {
                let room = self.suspects.pop_front()?;
                self.alone = Some((room, Alone::Loading));
                room
            }
            None => return None,
        };
        self.open.insert(room);
        Some(room)
    }

    /// A room is restored, or not to be; one that is by itself is done when that [is
    /// durable](Self::end_is_durable).
    pub fn end(&mut self, room: R) {
        match &mut self.alone {
            Some((alone, state)) if *alone == room => {
                *state = Alone::Ended;
                self.ended.push(room);
            }
            _ if self.open.remove(&room) => self.ended.push(room),
            _ => {}
        }
    }

    /// The rooms whose ends are to be written now: when there are enough of them, when no other room is open, or
    /// when they have waited for long.
    pub fn take_ended(&mut self, have_waited: bool) -> Vec<R> {
        let is_full = 2 * self.ended.len() >= self.max_open;
        if !(is_full || self.open.is_empty() || self.alone.is_some() || have_waited) {
            return Vec::new();
        }
        self.ending.extend(&self.ended);
        core::mem::take(&mut self.ended)
    }

    /// It is durable that a room is not being restored: now, or by an owner before this one. It may have been written
    /// with something else before that was due.
    pub fn end_is_durable(&mut self, room: R) {
        self.ended.retain(|ended| *ended != room);
        self.ending.remove(&room);
        if self.alone == Some((room, Alone::Ended)) {
            self.alone = None;
            self.open.remove(&room);
        }
    }

    /// What is stored of a suspect was read. Returns whether it may be restored with that now; or else it was given
    /// back meanwhile, and has another turn.
    pub fn loaded(&mut self, room: R) -> bool {
        match &mut self.alone {
            Some((alone, state)) if *alone == room && *state != Alone::Ended => {
                *state = Alone::Restoring;
                true
            }
            _ => false,
        }
    }

    /// Puts a suspect behind all others, if it is still being loaded, so that they do not wait for that. They do
    /// until it is [durable](Self::end_is_durable). Returns whether that is so.
    pub fn give_back(&mut self, room: R) -> bool {
        if self.alone != Some((room, Alone::Loading)) {
            return false;
        }
        self.alone = Some((room, Alone::Ended));
        self.open.remove(&room);
        self.suspects.push_back(room);
        true
    }

    /// Forgets rooms.
    pub fn remove(&mut self, filter: impl Fn(&R) -> bool) {
        self.waiting.retain(|room| !filter(room));
        self.suspects.retain(|room| !filter(room));
        self.open.retain(|room| !filter(room));
        self.ended.retain(|room| !filter(room));
        self.ending.retain(|room| !filter(room));
        self.alone = self.alone.filter(|(room, _)| !filter(room));
    }

    /// Whether a room is restored.
    #[must_use]
    pub fn is_open(&self, room: &R) -> bool {
        self.open.contains(room)
    }

    /// Whether a room waits, or is restored.
    #[must_use]
    pub fn has(&self, room: &R) -> bool {
        self.open.contains(room) || self.waiting.contains(room) || self.suspects.contains(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOT: usize = MAX_OPEN / 2;

    /// What is in a log.
    #[derive(Default)]
    struct Shard {
        suspects: Suspects<u32>,
        sequence: u64,
    }

    impl Shard {
        fn note(&mut self, room: u32, note: Note) {
            self.sequence += 1;
            self.suspects.note(room, note, self.sequence);
        }
    }

    /// Owners that end at `fatal`, and never else, until all that can be is restored. Returns how many ended.
    fn restore(shard: &mut Shard, rooms: core::ops::Range<u32>, fatal: u32) -> u32 {
        let mut deaths = 0;
        loop {
            let mut gate = Gate::new(MAX_OPEN);
            let convicted = shard.suspects.convicted();
            for room in rooms.clone().filter(|room| !convicted.contains(room)) {
                gate.push(room, shard.suspects.deaths(&room));
            }
            let mut has_ended = false;
            while !has_ended {
                let mut group = Vec::new();
                while let Some(room) = gate.poll() {
                    let deaths = shard.suspects.deaths(&room);
                    shard.note(room, Note::Restoring { deaths });
                    group.push(room);
                }
                if group.is_empty() {
                    return deaths;
                }
                has_ended = group.contains(&fatal);
                for room in group.into_iter().take_while(|room| *room != fatal) {
                    gate.end(room);
                    for ended in gate.take_ended(false) {
                        shard.note(ended, Note::RESTORED);
                        gate.end_is_durable(ended);
                    }
                }
            }
            deaths += 1;
            shard.suspects.begin_epoch(false);
        }
    }

    #[test]
    fn the_room_that_ends_its_owners_is_found_and_no_other() {
        for fatal in [0, 31, 63, 64, 150] {
            let mut shard = Shard::default();
            assert_eq!(restore(&mut shard, 0..200, fatal), MAX_DEATHS);
            assert_eq!(shard.suspects.convicted(), [fatal]);
            shard.suspects.remove(&fatal);
            assert_eq!(shard.suspects.first(), None);
        }
    }

    #[test]
    fn an_owner_that_gives_its_shard_away_has_not_ended() {
        let mut shard = Shard::default();
        for _ in 0..10 {
            shard.note(1, Note::Restoring { deaths: 0 });
            let notes = shard.suspects.begin_epoch(true);
            assert_eq!(notes, [(1, Note::RESTORED)]);
        }
        assert_eq!(shard.suspects.deaths(&1), 0);
        assert_eq!(shard.suspects.first(), None);
    }

    #[test]
    fn what_survives_is_no_suspect_any_more() {
        let mut shard = Shard::default();
        for _ in 0..10 {
            for _ in 1..MAX_DEATHS {
                let deaths = shard.suspects.deaths(&1);
                shard.note(1, Note::Restoring { deaths });
                shard.suspects.begin_epoch(false);
            }
            // Owners that have not come to it do not count.
            shard.suspects.begin_epoch(false);
            assert_eq!(shard.suspects.deaths(&1), MAX_DEATHS - 1);
            assert!(shard.suspects.convicted().is_empty());
            shard.note(1, Note::RESTORED);
        }
        assert_eq!(shard.suspects.deaths(&1), 0);
    }

    #[test]
    fn suspects_are_restored_by_themselves_and_last() {
        let mut gate = Gate::new(MAX_OPEN);
        gate.push(1, 1);
        gate.push(2, 2);
        gate.push(3, 0);
        assert_eq!(gate.poll(), Some(3));
        assert_eq!(gate.poll(), None);
        gate.end(3);
        assert_eq!(gate.take_ended(false), [3]);
        assert_eq!(gate.poll(), None);
        gate.end_is_durable(3);
        assert_eq!(gate.poll(), Some(1));
        // That an owner before has stopped says nothing of this one.
        gate.end_is_durable(1);
        assert_eq!(gate.poll(), None);
        gate.push(4, 0);
        assert_eq!(gate.poll(), None);
        // Before it is durable that it has survived, the next one must not begin.
        gate.end(1);
        assert_eq!(gate.take_ended(false), [1]);
        assert_eq!(gate.poll(), None);
        gate.end_is_durable(1);
        assert_eq!(gate.poll(), Some(4));
        gate.remove(|room| *room == 4);
        assert!(gate.has(&2));
        assert_eq!(gate.poll(), Some(2));
        assert_eq!(gate.poll(), None);
    }

    #[test]
    fn a_suspect_that_takes_long_to_load_keeps_nobody_from_coming_back() {
        let mut gate = Gate::new(MAX_OPEN);
        gate.push(1, 2);
        assert_eq!(gate.poll(), Some(1));
        gate.push(2, 1);
        gate.push(3, 0);
        assert!(!gate.give_back(2));
        assert!(gate.give_back(1));
        assert!(gate.has(&1) && !gate.is_open(&1));
        // It is still noted as one that is restored.
        assert_eq!(gate.poll(), None);
        gate.end_is_durable(1);
        assert_eq!(gate.poll(), Some(3));
        // It is loaded by now, and nobody is restored beside it.
        assert!(!gate.loaded(1));
        gate.end(3);
        assert_eq!(gate.take_ended(false), [3]);
        gate.end_is_durable(3);
        assert_eq!(gate.poll(), Some(2));
        gate.end(2);
        assert_eq!(gate.take_ended(false), [2]);
        gate.end_is_durable(2);
        assert_eq!(gate.poll(), Some(1));
        assert!(gate.loaded(1));
        assert!(!gate.give_back(1));
        gate.end(1);
        gate.end_is_durable(1);
        assert!(!gate.has(&1));
    }

    #[test]
    fn no_more_are_restored_at_once_than_a_bound() {
        let mut gate = Gate::new(MAX_OPEN);
        for room in 0..2 * MAX_OPEN {
            gate.push(room, 0);
        }
        for room in 0..MAX_OPEN {
            assert_eq!(gate.poll(), Some(room));
        }
        assert_eq!(gate.poll(), None);
        // Before it is written that they have ended, a death would make suspects of them, too.
        for room in 1..LOT {
            gate.end(room);
            assert!(!gate.is_open(&room));
            assert!(gate.take_ended(false).is_empty());
            assert_eq!(gate.poll(), None);
        }
        gate.end(0);
        assert_eq!(gate.take_ended(false).len(), LOT);
        for room in MAX_OPEN..MAX_OPEN + LOT {
            assert_eq!(gate.poll(), Some(room));
        }
        assert_eq!(gate.poll(), None);
    }

    #[test]
    fn ends_are_written_although_other_rooms_are_restored_for_long() {
        let mut gate = Gate::new(MAX_OPEN);
        for room in 0..MAX_OPEN {
            gate.push(room, 0);
            assert_eq!(gate.poll(), Some(room));
        }
        gate.push(MAX_OPEN, 0);
        gate.end(7);
        assert!(gate.take_ended(false).is_empty());
        assert_eq!(gate.take_ended(true), [7]);
        assert_eq!(gate.poll(), Some(MAX_OPEN));
        // A room is noted once.
        gate.end(7);
        assert!(gate.take_ended(true).is_empty());
    }

    #[test]
    fn no_suspect_is_restored_before_all_other_ends_are_durable() {
        let mut gate = Gate::new(MAX_OPEN);
        for room in 0..4 {
            gate.push(room, 0);
            assert_eq!(gate.poll(), Some(room));
        }
        gate.push(9, 1);
        // One is written with something else, and one is given up with its shard.
        gate.end(0);
        gate.end_is_durable(0);
        gate.end(1);
        gate.remove(|room| *room == 1);
        gate.end(2);
        assert_eq!(gate.take_ended(true), [2]);
        gate.end(3);
        assert_eq!(gate.poll(), None);
        assert_eq!(gate.take_ended(false), [3]);
        gate.end_is_durable(3);
        assert_eq!(gate.poll(), None);
        gate.end_is_durable(2);
        assert_eq!(gate.poll(), Some(9));
    }
}
