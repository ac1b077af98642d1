//! What a node has done.

use crate::{nats::Record, owned::Owned};
use core::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use std::fmt::Write;

/// Counts, kept by the node's thread.
#[derive(Debug, Default)]
pub(crate) struct NodeMetrics {
    shards: AtomicU64,
    rooms: AtomicU64,
    quarantined: AtomicU64,
    damaged: AtomicU64,
    nodes: AtomicU64,
    leaves: AtomicU64,
    acquired: AtomicU64,
    failovers: AtomicU64,
    abandoned: AtomicU64,
    placed: AtomicU64,
    waiting: AtomicU64,
    records: AtomicU64,
    record_bytes: AtomicU64,
    append_errors: AtomicU64,
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
    /// Those of them that are in quarantine.
    pub quarantined_rooms: u64,
    /// Shards of which something cannot be read, so that their rooms cannot be opened.
    pub damaged_shards: u64,
    /// Nodes that are alive, as far as this one knows, also itself.
    pub nodes: u64,
    /// Leaves that are there.
    pub leaves: u64,
    /// Shards that it has taken.
    pub shards_acquired: u64,
    /// Those that it has taken because their owner was dead.
    pub failovers: u64,
    /// The sum of the times that these took, from the claim until the rooms could be opened.
    pub failover_time: Duration,
    /// Shards that it has lost to others without having given them away.
    pub shards_abandoned: u64,
    /// Shards that it was to give to others which had less to do.
    pub shards_placed: u64,
    /// Batches that are not durable.
    pub waiting_batches: u64,
    /// Records that were appended.
    pub records: u64,
    /// Bytes of events in them.
    pub record_bytes: u64,
    /// Requests to append one that failed, were refused without a reason, or were not answered in time.
    pub append_errors: u64,
}

impl NodeMetrics {
    pub(crate) fn read(&self) -> ClusterMetrics {
        ClusterMetrics {
            shards: self.shards.load(Relaxed),
            stored_rooms: self.rooms.load(Relaxed),
            quarantined_rooms: self.quarantined.load(Relaxed),
            damaged_shards: self.damaged.load(Relaxed),
            nodes: self.nodes.load(Relaxed),
            leaves: self.leaves.load(Relaxed),
            shards_acquired: self.acquired.load(Relaxed),
            failovers: self.failovers.load(Relaxed),
            failover_time: Duration::from_micros(self.acquire_micros.load(Relaxed)),
            shards_abandoned: self.abandoned.load(Relaxed),
            shards_placed: self.placed.load(Relaxed),
            waiting_batches: self.waiting.load(Relaxed),
            records: self.records.load(Relaxed),
            record_bytes: self.record_bytes.load(Relaxed),
            append_errors: self.append_errors.load(Relaxed),
        }
    }

    pub(crate) fn update<'a>(
        &self,
        owned: impl Iterator<Item = &'a Owned>,
        nodes: usize,
        waiting: usize,
    ) {
        let (mut shards, mut rooms, mut quarantined, mut damaged) = (0, 0, 0, 0);
        for owned in owned {
            damaged += u64::from(owned.damage().is_some());
            shards += u64::from(owned.is_active);
            quarantined += owned.quarantined_count() as u64;
            rooms += owned.room_count() as u64;
        }
        self.shards.store(shards, Relaxed);
        self.rooms.store(rooms, Relaxed);
        self.quarantined.store(quarantined, Relaxed);
        self.damaged.store(damaged, Relaxed);
        self.nodes.store(nodes as u64, Relaxed);
        self.waiting.store(waiting as u64, Relaxed);
    }

    pub(crate) fn leaves(&self, leaves: usize) {
        self.leaves.store(leaves as u64, Relaxed);
    }

    /// A shard is here; `failover` is how long that took, if its owner was dead.
    pub(crate) fn acquired(&self, failover: Option<Duration>) {
        self.acquired.fetch_add(1, Relaxed);
        if let Some(took) = failover {
            self.failovers.fetch_add(1, Relaxed);
            self.acquire_micros
                .fetch_add(took.as_micros() as u64, Relaxed);
        }
    }

    pub(crate) fn abandoned(&self) {
        self.abandoned.fetch_add(1, Relaxed);
    }

    pub(crate) fn placed(&self) {
        self.placed.fetch_add(1, Relaxed);
    }

    pub(crate) fn appended(&self, record: &Record) {
        self.records.fetch_add(1, Relaxed);
        self.record_bytes
            .fetch_add(record.events.len() as u64, Relaxed);
    }

    pub(crate) fn append_failed(&self) {
        self.append_errors.fetch_add(1, Relaxed);
    }
}

impl ClusterMetrics {
    /// In the text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, value: &dyn core::fmt::Display| {
            let _ = write!(
                text,
                "# HELP stateroom_cluster_{name} {help}\n# TYPE stateroom_cluster_{name} {kind}\n\
                 stateroom_cluster_{name} {value}\n"
            );
        };
        metric(
            "nodes",
            "gauge",
            "Nodes that are alive, also this one.",
            &self.nodes,
        );
        metric("leaves", "gauge", "Leaves that are there.", &self.leaves);
        metric(
            "shards",
            "gauge",
            "Shards that this node owns.",
            &self.shards,
        );
        metric(
            "stored_rooms",
            "gauge",
            "Rooms that are stored in them.",
            &self.stored_rooms,
        );
        metric(
            "quarantined_rooms",
            "gauge",
            "Stored rooms that are not restored, since that has ended nodes or cannot be done.",
            &self.quarantined_rooms,
        );
        metric(
            "damaged_shards",
            "gauge",
            "Shards of which something cannot be read, so that their rooms cannot be opened.",
            &self.damaged_shards,
        );
        metric(
            "waiting_batches",
            "gauge",
            "Batches that NATS has not made durable.",
            &self.waiting_batches,
        );
        metric(
            "shards_acquired_total",
            "counter",
            "Shards that this node has taken.",
            &self.shards_acquired,
        );
        metric(
            "failovers_total",
            "counter",
            "Shards that this node has taken because their owner was dead.",
            &self.failovers,
        );
        metric(
            "failover_seconds_total",
            "counter",
            "Time that these took, from the claim until their rooms could be opened.",
            &self.failover_time.as_secs_f64(),
        );
        metric(
            "shards_abandoned_total",
            "counter",
            "Shards that others have taken from this node.",
            &self.shards_abandoned,
        );
        metric(
            "shards_placed_total",
            "counter",
            "Shards that this node gave to others which had less to do.",
            &self.shards_placed,
        );
        metric(
            "records_total",
            "counter",
            "Records that were appended to logs.",
            &self.records,
        );
        metric(
            "record_bytes_total",
            "counter",
            "Bytes of events in these.",
            &self.record_bytes,
        );
        metric(
            "append_errors_total",
            "counter",
            "Requests to append that NATS refused, or did not answer in time.",
            &self.append_errors,
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_in_the_format_of_prometheus() {
        let metrics = ClusterMetrics {
            shards: 7,
            failover_time: Duration::from_millis(250),
            ..ClusterMetrics::default()
        };
        let text = metrics.exposition();
        assert!(
            text.contains("# TYPE stateroom_cluster_shards gauge\nstateroom_cluster_shards 7\n")
        );
        assert!(text.contains("\nstateroom_cluster_failover_seconds_total 0.25\n"));
        assert!(text.ends_with('\n'));
    }
}
