//! The bucket of owners, of where shards are to be, and of secrets.

use super::{Nats, TIMEOUT, reads::sequence};
use crate::{
    error::ClusterError,
    protocol::{CasResult, Owner, Placement},
    shard::{Epoch, NodeId, Shard},
};
use bytes::Bytes;
use core::time::Duration;
use tokio::time::timeout;

/// An entry of the directory.
pub(crate) enum DirectoryEntry {
    Owner(Shard, Option<Owner>, u64),
    /// Where a shard is to be.
    Placement(Shard, Option<Placement>, u64),
}

/// Behind the name of the node, in an entry that no operator has made.
const BY_LOAD: &str = " load";

impl Nats {
    /// A secret that is the same at all nodes, and random.
    pub(crate) async fn secret(&self, key: &str) -> Result<[u8; 32], ClusterError> {
        let failed = |error: &dyn core::fmt::Display| ClusterError::Setup(error.to_string());
        for _ in 0..20 {
            let found = self.kv.get(key).await.map_err(|error| failed(&error))?;
            if let Some(secret) = found {
                let secret = secret.as_ref().try_into();
                return secret.map_err(|_| ClusterError::Setup("the secret is damaged".into()));
            }
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(|error| failed(&error))?;
            // Fails if another node was faster.
            if self.kv.create(key, secret.to_vec().into()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Err(ClusterError::Setup("the secret cannot be read".into()))
    }

    /// What the directory says, as far as the server that is asked knows. A consumer would say it sooner, but
    /// ends with its server, which is noticed late.
    pub(crate) async fn directory(&self) -> Result<Vec<DirectoryEntry>, ()> {
        let bucket = format!("$KV.{}", self.names.stream);
        let request =
            format!("{{\"multi_last\":[\"{bucket}.own.*\",\"{bucket}.pin.*\"],\"batch\":1024}}");
        let subject = format!("$JS.API.DIRECT.GET.KV_{}", self.names.stream);
        let read = self.get_all(subject, request).await.map_err(drop)?;
        let entries = read.messages.iter().filter_map(|message| {
            let headers = message.headers.as_ref()?;
            let key = headers.get("Nats-Subject")?.as_str();
            let key = key.strip_prefix(&*bucket)?.strip_prefix('.')?;
            let is_put = headers.get("KV-Operation").is_none();
            DirectoryEntry::parse(key, is_put.then_some(&message.payload), sequence(message)?)
        });
        Ok(entries.collect())
    }

    /// What the directory says of one shard now.
    pub(crate) async fn owner(&self, shard: Shard) -> Option<DirectoryEntry> {
        let key = format!("own.{shard}");
        let entry = timeout(TIMEOUT, self.kv.entry(&*key)).await;
        let entry = entry.ok()?.ok()??;
        DirectoryEntry::parse(&key, Some(&entry.value), entry.revision)
    }

    /// Sets a shard's owner by compare-and-set; also returns whether it was refused, and did not just fail.
    pub(crate) async fn set_owner(
        &self,
        shard: Shard,
        owner: Owner,
        revision: u64,
    ) -> (CasResult, bool) {
        let value = format!("{} {}", owner.node, owner.epoch);
        let update = self
            .kv
            .update(format!("own.{shard}"), value.into(), revision);
        match timeout(TIMEOUT, update).await {
            Ok(Ok(revision)) => (CasResult::Done(revision), false),
            Ok(Err(error)) => {
                log::debug!("shard {shard} is not claimed: {error}");
                // Of two codes, one has no kind of its own.
                let is_refused = error.to_string().contains("wrong last sequence");
                (CasResult::Failed, is_refused)
            }
            Err(_) => (CasResult::Failed, false),
        }
    }

    /// Says where a shard is to be because of its load, by compare-and-set; returns the revision, or none.
    pub(crate) async fn place(&self, shard: Shard, node: &str, revision: u64) -> Option<u64> {
        let value = format!("{node}{BY_LOAD}");
        let update = self
            .kv
            .update(format!("pin.{shard}"), value.into(), revision);
        match timeout(TIMEOUT, update).await.ok()? {
            Ok(revision) => Some(revision),
            Err(error) => {
                log::debug!("shard {shard} is not placed: {error}");
                None
            }
        }
    }
}

impl DirectoryEntry {
    fn parse(key: &str, value: Option<&Bytes>, revision: u64) -> Option<Self> {
        let (kind, shard) = key.split_once('.')?;
        let shard = Shard(shard.parse().ok()?);
        match kind {
            "own" => {
                let owner = value.and_then(|value| parse_owner(value));
                Some(Self::Owner(shard, owner, revision))
            }
            "pin" => {
                let placement = value.and_then(|value| parse_placement(value));
                Some(Self::Placement(shard, placement, revision))
            }
            _ => None,
        }
    }
}

/// Where a shard is to be, in an entry.
pub(crate) fn parse_placement(value: &[u8]) -> Option<Placement> {
    let text = core::str::from_utf8(value).ok()?;
    let by_load = text.strip_suffix(BY_LOAD);
    Some(Placement {
        node: by_load.unwrap_or(text).into(),
        is_pinned: by_load.is_none(),
    })
}

/// The owner in an entry.
pub(crate) fn parse_owner(value: &[u8]) -> Option<Owner> {
    let (node, epoch) = core::str::from_utf8(value).ok()?.split_once(' ')?;
    Some(Owner {
        node: NodeId(u64::from_str_radix(node, 16).ok()?),
        epoch: Epoch(epoch.parse().ok()?),
    })
}
