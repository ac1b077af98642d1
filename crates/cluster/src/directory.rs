//! Where rooms are, for the server.

use crate::{
    protocol::LeafPing,
    shard::{SHARDS, Shard},
};
use core::fmt;
use stateroom_wasmi_server::{Directory, Location, leaf_room};
use std::{
    collections::BTreeMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::{Notify, watch};

/// Where the shards are, as this node knows.
pub(crate) struct ShardTable {
    shards: RwLock<Vec<ShardLocation>>,
    leaves: RwLock<BTreeMap<String, LeafPing>>,
    /// Which shards were asked for while nobody had them.
    wanted: [AtomicBool; SHARDS],
    /// Told of the first of them.
    is_wanted: Notify,
    changes: watch::Sender<()>,
}

/// Where a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardLocation {
    pub(crate) location: Location,
    /// Whether this node is about to have it.
    pub(crate) is_coming: bool,
}

impl ShardLocation {
    pub(crate) const UNKNOWN: Self = Self {
        location: Location::Unknown,
        is_coming: false,
    };
}

impl ShardTable {
    pub(crate) fn new() -> Self {
        Self {
            shards: RwLock::new(vec![ShardLocation::UNKNOWN; SHARDS]),
            leaves: RwLock::default(),
            wanted: [const { AtomicBool::new(false) }; SHARDS],
            is_wanted: Notify::new(),
            changes: watch::Sender::new(()),
        }
    }

    /// Replaces the leaves that are there.
    pub(crate) fn set_leaves<'l>(&self, leaves: impl Iterator<Item = (&'l str, &'l LeafPing)>) {
        let leaves = leaves.map(|(name, leaf)| (name.into(), *leaf));
        *self.leaves.write().unwrap_or_else(PoisonError::into_inner) = leaves.collect();
        self.changes.send_replace(());
    }

    /// Waits until a shard is asked for that nobody has.
    pub(crate) async fn wanted(&self) {
        self.is_wanted.notified().await;
    }

    /// The shards that were asked for since the last time while nobody had them.
    pub(crate) fn take_wanted(&self) -> impl Iterator<Item = Shard> {
        let shards = Shard::all().zip(&self.wanted);
        shards.filter_map(|(shard, is_wanted)| {
            (is_wanted.load(Relaxed) && is_wanted.swap(false, Relaxed)).then_some(shard)
        })
    }

    /// Replaces all of them, and says so if some are elsewhere now.
    pub(crate) fn set(&self, shards: Vec<ShardLocation>) {
        let mut current = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        let mut both = current.iter().zip(&shards);
        // Nobody waits for what is coming.
        let is_changed = both.any(|(before, now)| before.location != now.location);
        *current = shards;
        drop(current);
        if is_changed {
            self.changes.send_replace(());
        }
    }

    fn get(&self, shard: Shard) -> ShardLocation {
        self.shards.read().unwrap_or_else(PoisonError::into_inner)[shard.index()]
    }
}

impl Directory for ShardTable {
    fn locate(&self, room: &str) -> Location {
        if let Some((name, _)) = leaf_room(room) {
            let leaves = self.leaves.read().unwrap_or_else(PoisonError::into_inner);
            let leaf = leaves.get(name);
            return leaf.map_or(Location::Unknown, |leaf| Location::Leaf(leaf.leaf.0));
        }
        let shard = Shard::of_room(room);
        let location = self.get(shard).location;
        if location == Location::Unknown && !self.wanted[shard.index()].swap(true, Relaxed) {
            self.is_wanted.notify_one();
        }
        location
    }

    fn is_coming(&self, room: &str) -> bool {
        leaf_room(room).is_none() && self.get(Shard::of_room(room)).is_coming
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn leaf(&self, secret_hash: [u8; 32]) -> Option<u64> {
        let leaves = self.leaves.read().unwrap_or_else(PoisonError::into_inner);
        let mut leaves = leaves.values();
        let found = leaves.find(|leaf| leaf.secret_hash == secret_hash);
        found.map(|leaf| leaf.leaf.0)
    }
}

impl fmt::Debug for ShardTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardTable").finish_non_exhaustive()
    }
}
