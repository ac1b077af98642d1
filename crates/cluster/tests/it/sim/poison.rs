//! Rooms that end their owners.

use super::{random::Random, world::ROOMS};
use stateroom_wasmi_cluster::protocol::MAX_DEATHS;
use std::collections::{BTreeMap, BTreeSet};

/// What of a room ends the process of its owner.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Poison {
    /// To handle the message of this number of its first client.
    Message(u64),
    /// To restore it once it has counted so many.
    Restoration(u64),
}

/// Which rooms end their owners, and what comes of that.
#[derive(Default)]
pub(crate) struct Poisons {
    rooms: BTreeMap<usize, Poison>,
    /// Owners that have ended of each room.
    deaths: BTreeMap<usize, u32>,
    /// How often the owner of a room ended while it restored the room, and not because of it, or lost the room to
    /// another: the log does not tell that from the death of an owner.
    disturbed: BTreeMap<usize, u32>,
    /// How often a room was given up while it was restored, which is noted as if it had survived.
    given_up: BTreeMap<usize, u32>,
    /// How often an owner that had ended was still heard when the next one began.
    taken_for_alive: BTreeMap<usize, u32>,
}

impl Poisons {
    /// One room of three or so.
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut rooms = BTreeMap::new();
        for room in 0..ROOMS {
            let number = 1 + random.below(20) as u64;
            match random.below(6) {
                0 => drop(rooms.insert(room, Poison::Message(number))),
                1 => drop(rooms.insert(room, Poison::Restoration(number))),
                _ => {}
            }
        }
        Self {
            rooms,
            ..Self::default()
        }
    }

    /// Whether there are any.
    pub(crate) fn has_some(&self) -> bool {
        !self.rooms.is_empty()
    }

    /// Whether a room ends its owner when it is restored.
    pub(crate) fn ends_restoration(&self, room: usize, count: u64) -> bool {
        matches!(self.rooms.get(&room), Some(Poison::Restoration(from)) if count >= *from)
    }

    /// Whether a room ends its owner when it handles a message.
    pub(crate) fn ends_message(&self, room: usize, client: usize, number: u64) -> bool {
        let poison = self.rooms.get(&room);
        client == room && matches!(poison, Some(Poison::Message(fatal)) if *fatal == number)
    }

    pub(crate) fn has_ended_one(&mut self, room: usize) {
        *self.deaths.entry(room).or_default() += 1;
    }

    /// A node ends, because of this room or of something else, or loses a shard, while it restores rooms.
    pub(crate) fn disturb(&mut self, rooms: Vec<usize>, by: Option<usize>) {
        for room in rooms.into_iter().filter(|room| Some(*room) != by) {
            *self.disturbed.entry(room).or_default() += 1;
        }
    }

    pub(crate) fn give_up(&mut self, room: usize) {
        *self.given_up.entry(room).or_default() += 1;
    }

    /// The owner before was restoring a room, and is heard, though perhaps only late.
    pub(crate) fn take_for_alive(&mut self, room: usize) {
        *self.taken_for_alive.entry(room).or_default() += 1;
    }

    /// Nobody but those who end their owners is in quarantine, and none of them has ended more than that takes.
    pub(crate) fn check(&self, quarantined: &BTreeSet<usize>) {
        let of = |counts: &BTreeMap<usize, u32>, room| counts.get(&room).copied().unwrap_or(0);
        for room in quarantined
            .iter()
            .filter(|room| !self.rooms.contains_key(room))
        {
            let disturbed = of(&self.disturbed, *room);
            assert!(
                disturbed >= MAX_DEATHS,
                "room {room} is in quarantine, and was restored in peace but {disturbed} times"
            );
        }
        for (room, poison) in &self.rooms {
            let (deaths, given_up) = (of(&self.deaths, *room), of(&self.given_up, *room));
            let not_counted = of(&self.taken_for_alive, *room);
            assert!(
                deaths <= MAX_DEATHS * (1 + given_up) + not_counted,
                "room {room} has ended {deaths} owners: {poison:?}, {given_up} times given up"
            );
        }
    }
}
