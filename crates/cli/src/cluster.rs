//! Rooms over many machines: the flags of `serve`, and the command `cluster`.

use crate::{admin::parse_address, print};
use clap::{Args, Subcommand};
use stateroom_wasmi_cluster::{Admin, Cluster, ClusterConfig, ClusterError, Shard};
use stateroom_wasmi_host::Escaped;
use stateroom_wasmi_server::{Server, ServerConfig, leaf_room};
use std::{
    collections::BTreeMap, error::Error, fmt::Write, net::SocketAddr, path::PathBuf,
    process::ExitCode, sync::Arc, time::Duration,
};

/// The flags of `serve`.
#[derive(Args)]
#[command(next_help_heading = "Many machines")]
pub(crate) struct ClusterArgs {
    /// Run as a node of a cluster, whose rooms are kept in NATS JetStream: any node takes any client, and
    /// rooms go on elsewhere when their node dies; addresses of NATS, separated by commas
    #[arg(
        long,
        value_name = "nats://HOST:PORT,…",
        group = "kept",
        requires = "node_name",
        requires = "peer_listen",
        conflicts_with_all = ["leaf_of", "record"]
    )]
    cluster: Option<String>,
    /// This node's name: the same in each of its runs, and no other node's
    #[arg(long, value_name = "NAME", requires = "cluster")]
    node_name: Option<String>,
    /// Address and port for the other nodes, which nobody else should reach: what they send is not encrypted
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, requires = "cluster")]
    peer_listen: Option<(String, u16)>,
    /// Where the other nodes reach that [default: --peer-listen]
    #[arg(long, value_name = "IP:PORT", requires = "cluster")]
    peer_address: Option<SocketAddr>,
    /// The cluster's name, to have several in one NATS
    #[arg(
        long,
        value_name = "NAME",
        default_value = "main",
        requires = "cluster"
    )]
    cluster_name: String,
    /// File with the credentials for NATS
    #[arg(long, value_name = "FILE", requires = "cluster")]
    cluster_credentials: Option<PathBuf>,
    /// Address of the monitoring of a server of NATS, to see whether it waits for its disk; once for each
    #[arg(long, value_name = "HOST:PORT", requires = "cluster")]
    cluster_monitor: Vec<String>,
    /// Copies that NATS keeps
    #[arg(
        long,
        value_name = "COPIES",
        default_value_t = 3,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=5),
        requires = "cluster",
    )]
    cluster_replicas: usize,
    /// Milliseconds after which a node that is not heard is taken for dead
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(60..=60_000),
        requires = "cluster",
    )]
    cluster_silence: u64,
    /// Seconds that a client waits for a room that is at no node; then it is closed with 1013
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 15,
        value_parser = clap::value_parser!(u64).range(1..=3600),
        requires = "cluster",
    )]
    owner_timeout: u64,
    /// Go on although NATS can lose what it has acknowledged
    #[arg(long, requires = "cluster")]
    cluster_unsafe: bool,
}

impl ClusterArgs {
    /// Joins the cluster, if there is one, and sets what the server needs for it.
    pub(crate) async fn join(
        self,
        config: ServerConfig,
        max_stored_rooms: u64,
    ) -> Result<(ServerConfig, Option<Node>), Box<dyn Error>> {
        let (Some(servers), Some(name)) = (self.cluster, self.node_name) else {
            return Ok((config, None));
        };
        let mut cluster = ClusterConfig::new(&servers, &name);
        cluster.credentials = self.cluster_credentials;
        cluster.name = self.cluster_name;
        cluster.replicas = self.cluster_replicas;
        cluster.silence = Duration::from_millis(self.cluster_silence);
        cluster.monitors = self.cluster_monitor;
        cluster.is_unsafe = self.cluster_unsafe;
        cluster.max_message_bytes = config.limits.max_message_bytes;
        cluster.max_rooms = Some(config.max_rooms as u64);
        cluster.max_stored_rooms = Some(max_stored_rooms);
        let cluster = Arc::new(Cluster::join(cluster).await?);
        let config = config
            .journal(Some(cluster.journal()))
            .directory(Some(cluster.directory()))
            .peer_listen(self.peer_listen)
            .owner_timeout(Duration::from_secs(self.owner_timeout))
            .more_metrics(Some(cluster.more_metrics()))
            .peer_secret(Some(cluster.peer_secret().as_str().into()));
        let node = Node {
            cluster,
            address: self.peer_address,
        };
        Ok((config, Some(node)))
    }
}

/// A node that has joined.
pub(crate) struct Node {
    cluster: Arc<Cluster>,
    /// Where others reach it, if it is not where it listens.
    address: Option<SocketAddr>,
}

impl Node {
    /// Takes shards, which the server is to run.
    pub(crate) fn start(&self, server: &Server) -> Result<(), Box<dyn Error>> {
        let address = self.address.or_else(|| {
            let mut addresses = server.peer_addrs().into_iter();
            addresses.find(|address| !address.ip().is_unspecified())
        });
        let address = address.ok_or(
            "--peer-listen has all addresses of this machine: --peer-address must say which one \
             other nodes reach",
        )?;
        self.cluster.start(Arc::new(server.control()), address);
        Ok(())
    }

    /// Gives the rooms to other nodes, as long as that is possible within reason.
    pub(crate) fn drain(&self) -> impl Future<Output = ()> + Send + 'static {
        /// What is left is saved, and taken by the others afterwards.
        const TIMEOUT: Duration = Duration::from_secs(30);
        let cluster = self.cluster.clone();
        async move {
            if tokio::time::timeout(TIMEOUT, cluster.drain())
                .await
                .is_err()
            {
                log::warn!("not all rooms were given to other nodes in time");
            }
        }
    }

    /// Says that this node has ended.
    pub(crate) async fn leave(self) {
        const TIMEOUT: Duration = Duration::from_secs(1);
        let _ = tokio::time::timeout(TIMEOUT, self.cluster.leave()).await;
    }
}

/// Look at the nodes of `serve --cluster`, and move rooms between them
#[derive(Args)]
pub(crate) struct ClusterCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the nodes, and how many shards of the rooms each has, and the leaves
    Status {
        #[command(flatten)]
        nats: NatsArgs,
        /// Also each shard, with its owner
        #[arg(long)]
        shards: bool,
    },
    /// Move a room, and all others of its shard, to a node, which keeps them from now on
    Move {
        #[command(flatten)]
        nats: NatsArgs,
        /// The room's id
        room: String,
        /// The node's name; without one, the room goes where it would be by itself
        node: Option<String>,
    },
    /// Let a room be restored again that is in quarantine, since nodes ended while they restored it or handled
    /// what its clients sent
    Release {
        #[command(flatten)]
        nats: NatsArgs,
        /// The room's id
        room: String,
        /// Discard all that is stored of the room instead; the next who joins it begins anew
        #[arg(long)]
        discard: bool,
    },
    /// Let a node give all its rooms away; returns when that is done
    Drain {
        #[command(flatten)]
        nats: NatsArgs,
        /// The node's name
        node: String,
    },
}

/// Which cluster.
#[derive(Args)]
struct NatsArgs {
    /// Addresses of NATS, separated by commas
    #[arg(long, value_name = "nats://HOST:PORT,…")]
    cluster: String,
    /// The cluster's name
    #[arg(long, value_name = "NAME", default_value = "main")]
    cluster_name: String,
    /// File with the credentials for NATS
    #[arg(long, value_name = "FILE")]
    cluster_credentials: Option<PathBuf>,
}

impl NatsArgs {
    async fn connect(&self) -> Result<Admin, ClusterError> {
        let mut config = ClusterConfig::new(&self.cluster, "operator");
        config.name.clone_from(&self.cluster_name);
        config.credentials.clone_from(&self.cluster_credentials);
        Admin::connect(&config).await
    }
}

impl ClusterCommand {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match self.command {
                Command::Status { nats, shards } => {
                    print(&status(&nats.connect().await?, shards).await?)?;
                }
                Command::Move { room, .. } if leaf_room(&room).is_some() => {
                    return Err("rooms of leaves do not move".into());
                }
                Command::Move { nats, room, node } => {
                    let shard = Shard::of_room(&room);
                    nats.connect().await?.pin(shard, node.as_deref()).await?;
                }
                Command::Release {
                    nats,
                    room,
                    discard,
                } => nats.connect().await?.release(&room, discard).await?,
                Command::Drain { nats, node } => drain(&nats.connect().await?, &node).await?,
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

async fn status(admin: &Admin, with_shards: bool) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    let (nodes, leaves) = tokio::try_join!(admin.nodes(), admin.leaves())?;
    for node in &nodes {
        let draining = if node.is_draining { ", draining" } else { "" };
        let full = if node.is_full { ", full" } else { "" };
        let load = node.load.map_or_else(String::new, |load| {
            let (rooms, percent, mib) = (load.rooms, load.processor / 10_000, load.memory >> 10);
            format!(" with {rooms} rooms, {percent} % busy, {mib} MiB")
        });
        let _ = writeln!(
            text,
            "{:?}: {} shards{load} at {}, run {}{draining}{full}",
            Escaped::new(&node.name),
            node.shards,
            node.address,
            node.id,
        );
    }
    let _ = writeln!(text, "{} nodes", nodes.len());
    for room in admin.quarantined(&nodes).await? {
        let room = Escaped::new(&room).at_most(256);
        let _ = writeln!(text, "room {room:?} is in quarantine");
    }
    for leaf in &leaves {
        let name = Escaped::new(&leaf.name);
        let _ = writeln!(text, "leaf {name:?}: run {}", leaf.id);
    }
    if with_shards {
        let names: BTreeMap<_, _> = nodes.iter().map(|node| (node.id, &node.name)).collect();
        for shard in admin.shards().await? {
            let owner = shard.owner.map_or_else(
                || "nobody".to_owned(),
                |owner| match names.get(&owner.node) {
                    Some(name) => format!("{:?} in epoch {}", Escaped::new(name), owner.epoch),
                    None => format!(
                        "run {}, which is not there, in epoch {}",
                        owner.node, owner.epoch
                    ),
                },
            );
            let placement = shard.placement.map_or_else(String::new, |placement| {
                let node = Escaped::new(&placement.node);
                match placement.is_pinned {
                    true => format!(", wanted at {node:?}"),
                    false => format!(", at {node:?} because of its load"),
                }
            });
            let _ = writeln!(text, "shard {}: {owner}{placement}", shard.shard);
        }
    }
    Ok(text)
}

async fn drain(admin: &Admin, name: &str) -> Result<(), Box<dyn Error>> {
    const TIMEOUT: Duration = Duration::from_secs(60);
    let nodes = admin.nodes().await?;
    let node = nodes.iter().find(|node| node.name == name);
    let node = node.ok_or("there is no node of this name")?;
    Ok(admin.drain(node.id, TIMEOUT).await?)
}
