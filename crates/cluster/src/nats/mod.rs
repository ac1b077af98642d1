//! NATS JetStream: the stream of logs and snapshots, the bucket of owners, and pings.

mod directory;
mod reads;
mod writes;

pub(crate) use self::{
    directory::{DirectoryEntry, parse_owner, parse_placement},
    reads::{Filter, LastError, ReadError},
    writes::{Record, RoomRecord},
};

use self::writes::{MAX_BATCH, MAX_BATCHES};
use crate::{
    config::ClusterConfig,
    error::ClusterError,
    format::{RecordHeader, RoomHeader, room_token},
    protocol::{LastRecord, Limits},
    shard::{NodeId, Shard},
};
use async_nats::{
    Client,
    jetstream::{self, kv, stream},
};
use core::time::Duration;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What a cluster has in NATS.
#[derive(Clone)]
pub(crate) struct Nats {
    client: Client,
    kv: kv::Store,
    names: Arc<Names>,
    /// Batches that may be on their way at once.
    batches: Arc<Semaphore>,
    max_bytes: usize,
}

struct Names {
    stream: String,
    /// Of all subjects.
    prefix: String,
}

/// A record of a shard's log.
#[derive(Clone, Debug)]
pub(crate) struct StoredRecord {
    pub(crate) sequence: u64,
    pub(crate) header: RecordHeader,
    /// As `LogEntries`.
    pub(crate) events: Vec<u8>,
}

impl StoredRecord {
    /// As the last record of the log.
    pub(crate) fn last(&self) -> LastRecord {
        let RecordHeader { id, needed } = self.header;
        let itself = (!self.events.is_empty()).then_some(self.sequence);
        LastRecord {
            sequence: self.sequence,
            id,
            needed: needed.into_iter().chain(itself).min(),
        }
    }
}

/// What was read of a shard.
pub(crate) enum Stored {
    /// A record of the log.
    Record(StoredRecord),
    /// The first part of a snapshot; none in place of one that was removed.
    Room {
        sequence: u64,
        id: String,
        header: Option<RoomHeader>,
        /// The part itself, if it is wanted.
        part: Option<Box<[u8]>>,
    },
    /// It is of no known form.
    Unknown { sequence: u64, subject: String },
}

/// Time for a request.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What describes a snapshot, and which part of it a message is.
const ROOM_HEADER: &str = "Stateroom-Room";

impl Names {
    fn new(name: &str) -> Self {
        Self {
            stream: format!("STATEROOM_{name}"),
            prefix: format!("stateroom.{name}"),
        }
    }
}

impl Stored {
    pub(crate) const fn sequence(&self) -> u64 {
        match self {
            Self::Record(StoredRecord { sequence, .. })
            | Self::Room { sequence, .. }
            | Self::Unknown { sequence, .. } => *sequence,
        }
    }
}

impl Nats {
    /// Opens what is there, or makes it.
    pub(crate) async fn open(client: Client, config: &ClusterConfig) -> Result<Self, ClusterError> {
        let (names, replicas) = (Names::new(&config.name), config.replicas);
        let mut context = jetstream::new(client.clone());
        context.set_timeout(Duration::from_secs(2));
        let stream = stream::Config {
            name: names.stream.clone(),
            subjects: vec![
                format!("{}.s.>", names.prefix),
                format!("{}.module.>", names.prefix),
            ],
            num_replicas: replicas,
            storage: stream::StorageType::File,
            discard: stream::DiscardPolicy::New,
            // Nothing is deleted but what a node deletes.
            max_messages: -1,
            max_bytes: -1,
            duplicate_window: Duration::from_secs(1),
            allow_rollup: true,
            allow_direct: true,
            allow_atomic_publish: true,
            ..stream::Config::default()
        };
        let setup = |error: &dyn core::fmt::Display| ClusterError::Setup(error.to_string());
        let stream = context
            .get_or_create_stream(stream)
            .await
            .map_err(|error| setup(&error))?;
        let found = &stream.cached_info().config;
        if !(found.allow_atomic_publish && found.allow_rollup && found.allow_direct) {
            let reason = format!("the stream {} is another program's", names.stream);
            return Err(ClusterError::Storage(reason));
        }
        if found.max_messages_per_subject > 0 {
            let reason = format!("the stream {} keeps only the last records", names.stream);
            return Err(ClusterError::Storage(reason));
        }
        check_kept(found, config)?;
        let bucket = names.stream.clone();
        let kv = match context.get_key_value(&bucket).await {
            Ok(kv) => kv,
            Err(_) => {
                let bucket = kv::Config {
                    bucket,
                    history: 1,
                    num_replicas: replicas,
                    ..kv::Config::default()
                };
                // Another node may make it at the same time, which is the same.
                context
                    .create_key_value(bucket)
                    .await
                    .map_err(|error| setup(&error))?
            }
        };
        check_kept(&kv.stream.cached_info().config, config)?;
        Ok(Self::with(client, kv, names))
    }

    /// Opens what is there.
    pub(crate) async fn open_existing(client: Client, name: &str) -> Result<Self, ClusterError> {
        let names = Names::new(name);
        let kv = jetstream::new(client.clone())
            .get_key_value(&names.stream)
            .await
            .map_err(|error| ClusterError::Setup(error.to_string()))?;
        Ok(Self::with(client, kv, names))
    }

    fn with(client: Client, kv: kv::Store, names: Names) -> Self {
        /// For headers.
        const SLACK: usize = 16 << 10;
        // It stays as it is, since what is stored is in pieces of this length.
        let max_bytes = client.max_payload().saturating_sub(SLACK).max(SLACK);
        Self {
            client,
            kv,
            names: Arc::new(names),
            batches: Arc::new(Semaphore::new(MAX_BATCHES)),
            max_bytes,
        }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn kv(&self) -> &kv::Store {
        &self.kv
    }

    /// The subject of pings.
    pub(crate) fn pings(&self) -> String {
        format!("{}.pings", self.names.prefix)
    }

    /// The subject of new owners.
    pub(crate) fn owners(&self) -> String {
        format!("{}.owners", self.names.prefix)
    }

    /// The subject of a node's requests.
    pub(crate) fn node(&self, node: NodeId) -> String {
        format!("{}.node.{node}", self.names.prefix)
    }

    /// The subject of a leaf's pings; `*` is all of them.
    pub(crate) fn leaf(&self, name: &str) -> String {
        format!("{}.leaf.{name}", self.names.prefix)
    }

    fn log(&self, shard: Shard) -> String {
        format!("{}.s.{shard}.log", self.names.prefix)
    }

    fn room(&self, shard: Shard, id: &str, part: usize) -> String {
        let token = room_token(id);
        format!("{}.s.{shard}.room.{token}.{part}", self.names.prefix)
    }

    /// Bytes of events, or of a part of a snapshot, that a message can have.
    pub(crate) const fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// What a record can have.
    pub(crate) const fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_bytes,
            messages: MAX_BATCH,
        }
    }

    fn module(&self, hash: &str, part: usize) -> String {
        format!("{}.module.{hash}.{part}", self.names.prefix)
    }
}

/// Whether a stream that is there keeps what it has, as one that was made by this node does.
fn check_kept(found: &stream::Config, config: &ClusterConfig) -> Result<(), ClusterError> {
    let is_bounded = found.max_bytes > 0 || found.max_messages > 0;
    let reason = if found.num_replicas < config.replicas {
        format!(
            "has {} copies, and not {}",
            found.num_replicas, config.replicas
        )
    } else if found.storage != stream::StorageType::File {
        "is in memory".into()
    } else if found.persist_mode == Some(stream::PersistenceMode::Async) {
        "acknowledges what is not on the disk".into()
    } else if found.retention != stream::RetentionPolicy::Limits || !found.max_age.is_zero() {
        "does not keep messages until they are deleted".into()
    } else if is_bounded && found.discard != stream::DiscardPolicy::New {
        "deletes messages when it is full".into()
    } else {
        return Ok(());
    };
    let reason = format!("the stream {} {reason}", found.name);
    if config.is_unsafe {
        log::warn!("{reason}; what clients have seen may be lost");
        return Ok(());
    }
    Err(ClusterError::Storage(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_loses_something_is_refused() {
        let config = ClusterConfig::new("nats://localhost", "a");
        assert_eq!(config.replicas, 3);
        let good = stream::Config {
            name: "STATEROOM_main".into(),
            num_replicas: 3,
            ..stream::Config::default()
        };
        let check = |change: &dyn Fn(&mut stream::Config)| {
            let mut found = good.clone();
            change(&mut found);
            check_kept(&found, &config)
        };
        check(&|_| {}).expect("it is right");
        // What is full may refuse more.
        check(&|found| {
            found.num_replicas = 5;
            found.max_bytes = 1 << 40;
            found.discard = stream::DiscardPolicy::New;
        })
        .expect("it is right");
        let bad: [&dyn Fn(&mut stream::Config); 7] = [
            &|found| found.num_replicas = 1,
            &|found| found.storage = stream::StorageType::Memory,
            &|found| found.persist_mode = Some(stream::PersistenceMode::Async),
            &|found| found.retention = stream::RetentionPolicy::WorkQueue,
            &|found| found.max_age = Duration::from_secs(3600),
            &|found| found.max_bytes = 1 << 40,
            &|found| found.max_messages = 1000,
        ];
        for (at, bad) in bad.into_iter().enumerate() {
            let refused = check(bad);
            assert!(matches!(refused, Err(ClusterError::Storage(_))), "{at}");
        }
    }
}
