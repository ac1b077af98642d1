//! What a node has done.

use crate::{nats::Record, owned::Owned};
use core::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts, kept by the node's thread.
#[derive(Debug, Default)]
pub(crate) struct NodeMetrics {
    shards: AtomicU64,
    rooms: AtomicU64,
    nodes: AtomicU64,
    acquired: AtomicU64,
    abandoned: AtomicU64,
    waiting: AtomicU64,
    records: AtomicU64,
    record_bytes: AtomicU64,
    acquire_micros: AtomicU64,
}

/// What a node has done since it began, and what it has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterMetrics {
    /// Shards that this node owns.
    pub shards: u64,
    /// Rooms that are stored in them.
    pub stored_rooms: u64,
    /// Nodes that are alive, as far as this one knows, also itself.
    pub nodes: u64,
    /// Shards that it has taken.
    pub shards_acquired: u64,
    /// The sum of the times from the claim of a shard until its rooms could be opened.
    pub acquire_time: Duration,
    /// Shards that it has lost to others without having given them away.
    pub shards_abandoned: u64,
    /// Batches that are not durable.
    pub waiting_batches: u64,
    /// Records that were appended.
    pub records: u64,
    /// Bytes of events in them.
    pub record_bytes: u64,
}

impl NodeMetrics {
    pub(crate) fn read(&self) -> ClusterMetrics {
        ClusterMetrics {
            shards: self.shards.load(Relaxed),
            stored_rooms: self.rooms.load(Relaxed),
            nodes: self.nodes.load(Relaxed),
            shards_acquired: self.acquired.load(Relaxed),
            acquire_time: Duration::from_micros(self.acquire_micros.load(Relaxed)),
            shards_abandoned: self.abandoned.load(Relaxed),
            waiting_batches: self.waiting.load(Relaxed),
            records: self.records.load(Relaxed),
            record_bytes: self.record_bytes.load(Relaxed),
        }
    }

    pub(crate) fn update<'a>(
        &self,
        owned: impl Iterator<Item = &'a Owned>,
        nodes: usize,
        waiting: usize,
    ) {
        let (mut shards, mut rooms) = (0, 0);
        for owned in owned {
            shards += 1;
            rooms += owned.room_count() as u64;
        }
        self.shards.store(shards, Relaxed);
        self.rooms.store(rooms, Relaxed);
        self.nodes.store(nodes as u64, Relaxed);
        self.waiting.store(waiting as u64, Relaxed);
    }

    pub(crate) fn acquired(&self, took: Option<Duration>) {
        self.acquired.fetch_add(1, Relaxed);
        let micros = took.map_or(0, |took| took.as_micros() as u64);
        self.acquire_micros.fetch_add(micros, Relaxed);
    }

    pub(crate) fn abandoned(&self) {
        self.abandoned.fetch_add(1, Relaxed);
    }

    pub(crate) fn appended(&self, record: &Record) {
        self.records.fetch_add(1, Relaxed);
        self.record_bytes
            .fetch_add(record.events.len() as u64, Relaxed);
    }
}
