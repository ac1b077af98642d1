//! What operators ask for: who is there, and that shards move.

use crate::{
    config::ClusterConfig,
    error::ClusterError,
    leaf::{LEAF_SILENCE, LeafMessage, PING_INTERVAL as LEAF_PING_INTERVAL},
    nats::{Nats, parse_owner, parse_placement},
    node::{NodeRequest, Ping},
    protocol::{Leaves, Load, Owner, Placement},
    shard::{NodeId, Shard},
};
use async_nats::Request;
use core::time::Duration;
use futures_util::StreamExt;
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::time::{Instant, timeout_at};

/// Asks a cluster, without being a node of it.
pub struct Admin {
    nats: Nats,
    silence: Duration,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its run.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it listens for other nodes.
    pub address: SocketAddr,
    /// Whether it gives its shards away.
    pub is_draining: bool,
    /// Shards whose rooms it runs.
    pub shards: usize,
    /// What its rooms do and take, some seconds after its start.
    pub load: Option<Load>,
    /// Whether it has about as many rooms as it may.
    pub is_full: bool,
}

/// A leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafStatus {
    /// Its name.
    pub name: String,
    /// Its run.
    pub id: NodeId,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// The shard.
    pub shard: Shard,
    /// What the directory says.
    pub owner: Option<Owner>,
    /// Where it is to be, if not where it falls.
    pub placement: Option<Placement>,
}

impl Admin {
    /// Connects to NATS.
    ///
    /// # Errors
    ///
    /// If that cannot be reached, or has no such cluster.
    pub async fn connect(config: &ClusterConfig) -> Result<Self, ClusterError> {
        config.check()?;
        let client = config.connect().await?;
        Ok(Self {
            nats: Nats::open_existing(client, &config.name).await?,
            silence: config.silence,
        })
    }

    /// The nodes that are heard.
    ///
    /// # Errors
    ///
    /// If NATS cannot be used.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, ClusterError> {
        let pings = self.nats.client().subscribe(self.nats.pings()).await;
        let mut pings = pings.map_err(|error| ClusterError::Setup(error.to_string()))?;
        let until = Instant::now() + 2 * self.silence;
        let mut nodes = BTreeMap::new();
        while let Ok(Some(message)) = timeout_at(until, pings.next()).await {
            let Ok(ping) = serde_json::from_slice::<Ping>(&message.payload) else {
                continue;
            };
            let Ok(id) = u64::from_str_radix(&ping.node, 16).map(NodeId) else {
                continue;
            };
            if ping.is_leaving {
                nodes.remove(&id);
                continue;
            }
            let load = ping.load();
            let node = NodeStatus {
                id,
                name: ping.name,
                address: ping.address,
                is_draining: ping.is_draining,
                shards: ping.shards,
                load,
                is_full: ping.is_full,
            };
            nodes.insert(id, node);
        }
        let mut nodes: Vec<_> = nodes.into_values().collect();
        nodes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(nodes)
    }

    /// The leaves that are heard.
    ///
    /// # Errors
    ///
    /// If NATS cannot be used.
    pub async fn leaves(&self) -> Result<Vec<LeafStatus>, ClusterError> {
        let pings = self.nats.client().subscribe(self.nats.leaf("*")).await;
        let mut pings = pings.map_err(|error| ClusterError::Setup(error.to_string()))?;
        let until = Instant::now() + 3 * LEAF_PING_INTERVAL;
        let mut leaves = Leaves::new(LEAF_SILENCE);
        while let Ok(Some(message)) = timeout_at(until, pings.next()).await {
            let name = message.subject.rsplit('.').next();
            if let (Some(name), Some(ping)) = (name, LeafMessage::parse(&message.payload)) {
                leaves.handle_ping(name, ping, Duration::ZERO);
            }
        }
        let leaves = leaves.iter().map(|(name, ping)| LeafStatus {
            name: name.into(),
            id: ping.leaf,
        });
        Ok(leaves.collect())
    }

    /// What the directory says of all shards.
    ///
    /// # Errors
    ///
    /// If NATS cannot be used.
    pub async fn shards(&self) -> Result<Vec<ShardStatus>, ClusterError> {
        let mut shards = Vec::new();
        for shard in Shard::all() {
            let owner = self.get(&format!("own.{shard}")).await?;
            let pin = self.get(&format!("pin.{shard}")).await?;
            shards.push(ShardStatus {
                shard,
                owner: owner.and_then(|owner| parse_owner(&owner)),
                placement: pin.and_then(|pin| parse_placement(&pin)),
            });
        }
        Ok(shards)
    }

    async fn get(&self, key: &str) -> Result<Option<bytes::Bytes>, ClusterError> {
        let found = self.nats.kv().get(key).await;
        found.map_err(|error| ClusterError::Setup(error.to_string()))
    }

    /// Wants a shard to be at the node of this name from now on, whenever that is there; with none, where it
    /// falls by itself. It moves within seconds.
    ///
    /// # Errors
    ///
    /// If NATS cannot be used.
    pub async fn pin(&self, shard: Shard, node: Option<&str>) -> Result<(), ClusterError> {
        let key = format!("pin.{shard}");
        let failed = |error: &dyn core::fmt::Display| ClusterError::Setup(error.to_string());
        match node {
            Some(node) => {
                let put = self.nats.kv().put(key, node.to_owned().into()).await;
                put.map(drop).map_err(|error| failed(&error))
            }
            None => {
                let deleted = self.nats.kv().delete(key).await;
                deleted.map_err(|error| failed(&error))
            }
        }
    }

    /// Lets a node give its shards away, and waits until it has none, or this time has passed.
    ///
    /// # Errors
    ///
    /// If it does not answer in time.
    pub async fn drain(&self, node: NodeId, wait: Duration) -> Result<(), ClusterError> {
        let request = Request::new().payload("drain".into()).timeout(Some(wait));
        let reply = self
            .nats
            .client()
            .send_request(self.nats.node(node), request);
        let reply = reply.await.map(drop);
        reply.map_err(|error| ClusterError::Setup(format!("the node does not answer: {error}")))
    }

    /// The rooms in quarantine: what they did has ended nodes, and they are kept, but not restored. At most 1000
    /// of each node.
    ///
    /// # Errors
    ///
    /// If a node does not answer.
    pub async fn quarantined(&self, nodes: &[NodeStatus]) -> Result<Vec<String>, ClusterError> {
        let mut rooms = Vec::new();
        for node in nodes {
            let listed: Vec<String> = self.ask(node.id, &NodeRequest::Quarantined).await?;
            rooms.extend(listed);
        }
        rooms.sort_unstable();
        Ok(rooms)
    }

    /// Lets a room be restored again that is in quarantine, or discards all that is stored of it.
    ///
    /// # Errors
    ///
    /// If it is in none, or its node does not answer.
    pub async fn release(&self, room: &str, discard: bool) -> Result<(), ClusterError> {
        let owner = self.get(&format!("own.{}", Shard::of_room(room))).await?;
        let owner = owner.and_then(|owner| parse_owner(&owner));
        let owner = owner.ok_or_else(|| ClusterError::Setup("the room is at no node".into()))?;
        let room = room.into();
        let request = NodeRequest::Release { room, discard };
        match self.ask(owner.node, &request).await? {
            None => Ok(()),
            Some(why) => Err(ClusterError::Setup(why)),
        }
    }

    async fn ask<A: serde::de::DeserializeOwned>(
        &self,
        node: NodeId,
        request: &NodeRequest,
    ) -> Result<A, ClusterError> {
        const TIMEOUT: Duration = Duration::from_secs(10);
        let failed = |error: &dyn core::fmt::Display| {
            ClusterError::Setup(format!("the node does not answer: {error}"))
        };
        let json = serde_json::to_vec(request).map_err(|error| failed(&error))?;
        let request = Request::new().payload(json.into()).timeout(Some(TIMEOUT));
        let reply = self
            .nats
            .client()
            .send_request(self.nats.node(node), request);
        let reply = reply.await.map_err(|error| failed(&error))?;
        serde_json::from_slice(&reply.payload).map_err(|error| failed(&error))
    }
}
