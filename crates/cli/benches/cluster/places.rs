//! Which rooms are where.

use crate::machines::NODES;
use core::net::SocketAddr;
use stateroom_wasmi_cluster::{Admin, ClusterConfig, NodeId, Shard};
use std::{collections::HashMap, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// Asks the cluster.
pub struct Places(Admin);

impl Places {
    pub async fn connect(nats: &[SocketAddr]) -> Self {
        let servers: Vec<_> = nats.iter().map(|it| format!("nats://{it}")).collect();
        let config = ClusterConfig::new(&servers.join(","), "operator");
        Self(Admin::connect(&config).await.expect("NATS is there"))
    }

    /// Waits until so many nodes have their shares of the shards, and no more is moved.
    pub async fn wait_until_shared(&self, nodes: usize) {
        let share = 256 / nodes;
        let mut before = Vec::new();
        loop {
            let shards: Vec<_> = self.nodes().await.iter().map(|(_, n)| *n).collect();
            let is_shared = shards.len() == nodes
                && shards.iter().sum::<usize>() == 256
                && shards.iter().all(|n| *n > share / 2);
            if is_shared && shards == before {
                return;
            }
            before = shards;
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// The nodes by their numbers, and how many shards each has.
    async fn nodes(&self) -> Vec<(NodeId, usize)> {
        let nodes = self.0.nodes().await.expect("NATS is there");
        let numbered = (0..NODES).filter_map(|n| {
            let name = format!("node-{n}");
            let node = nodes.iter().find(|node| node.name == name)?;
            Some((node.id, node.shards))
        });
        numbered.collect()
    }

    /// Ids of so many rooms that are at a node.
    pub async fn rooms_of(&self, node: usize, count: usize) -> Vec<String> {
        let id = self.nodes().await[node].0;
        let shards = self.0.shards().await.expect("NATS is there");
        let owners: HashMap<_, _> = shards.iter().map(|it| (it.shard, it.owner)).collect();
        let is_there = |room: &String| {
            let owner = owners.get(&Shard::of_room(room));
            owner.is_some_and(|owner| owner.is_some_and(|owner| owner.node == id))
        };
        let rooms = (0..).map(|n| format!("room-{n}"));
        rooms.filter(is_there).take(count).collect()
    }

    pub async fn move_to(&self, room: &str, node: usize) {
        let name = format!("node-{node}");
        let moved = self.0.pin(Shard::of_room(room), Some(&name));
        moved.await.expect("NATS is there");
    }

    pub async fn drain(&self, node: usize) {
        let id = self.nodes().await[node].0;
        let drained = self.0.drain(id, Duration::from_secs(60));
        drained.await.expect("it gives its rooms away");
    }

    /// How many rooms a node has.
    pub async fn rooms_at(&self, address: SocketAddr) -> usize {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let sent = stream.write_all(request.as_bytes());
        sent.await.expect("it listens");
        let mut response = String::new();
        let read = stream.read_to_string(&mut response);
        read.await.expect("it answers");
        let states = response.lines().filter_map(|line| {
            let (_, count) = line.strip_prefix("stateroom_rooms{")?.rsplit_once(' ')?;
            count.parse::<usize>().ok()
        });
        states.sum()
    }
}
