//! Shards, and the names of nodes.

use core::fmt;

/// How many shards there are. A constant of the stored format: a room's shard must never change.
pub const SHARDS: usize = 256;

/// A part of the rooms: the unit of ownership, of the log and of failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u8);

impl Shard {
    /// The shard of a room.
    #[must_use]
    pub fn of_room(id: &str) -> Self {
        // The upper bits are the better ones of this hash.
        Self((mix(hash(id.as_bytes())) >> 56) as u8)
    }

    /// All of them.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// Its place among all shards.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of a process: a node that starts again has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Counts the owners of a shard: each has a higher one than those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next owner.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much a node is preferred for a shard (rendezvous hashing): when a node comes or goes, only its own
/// shards move.
pub(crate) fn preference(name: &str, shard: Shard) -> u64 {
    mix(hash(name.as_bytes()) ^ mix(u64::from(shard.0) + 1))
}

/// FNV-1a. A part of the stored format, as it decides a room's shard.
const fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

/// The finaliser of SplitMix64: spreads what differs over all bits.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_a_room_is_a_part_of_the_format() {
        let shards = ["", "lobby", "game-1", "ü"].map(|id| Shard::of_room(id).0);
        assert_eq!(shards, [245, 156, 93, 119]);
    }

    #[test]
    fn rooms_and_shards_are_spread() {
        let mut rooms = [0_u32; SHARDS];
        for n in 0..100_000 {
            rooms[Shard::of_room(&format!("room-{n}")).index()] += 1;
        }
        assert!(rooms.iter().all(|n| (250..550).contains(n)), "{rooms:?}");
        let names = ["a", "b", "c"];
        let mut owned = [0; 3];
        for shard in Shard::all() {
            let best = (0..3).max_by_key(|i| preference(names[*i], shard));
            owned[best.expect("not empty")] += 1;
        }
        assert!(owned.iter().all(|n| (60..120).contains(n)), "{owned:?}");
    }
}
