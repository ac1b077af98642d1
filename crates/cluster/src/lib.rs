//! Stateroom rooms on many machines: which node owns which rooms, and a log of what they do, on NATS
//! JetStream, so that the rooms of a node that dies go on elsewhere.
//!
//! Rooms are hashed to [`SHARDS`] *shards*. A shard has one owner at a time, a log of the events of its rooms
//! and their snapshots. [`protocol`] is what decides who that is; `docs/cluster.md` says what is promised.
//!
//! ```no_run
//! use stateroom_wasmi_cluster::{Cluster, ClusterConfig};
//! use stateroom_wasmi_server::{Server, ServerConfig};
//! use std::sync::Arc;
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::join(ClusterConfig::new("nats://10.0.0.1", "node-1")).await?;
//! let config = ServerConfig::new(std::fs::read("chat.wasm")?)
//!     .journal(Some(cluster.journal()))
//!     .directory(Some(cluster.directory()))
//!     .peer_listen(Some(("10.0.0.11", 9100)))
//!     .peer_secret(Some(cluster.peer_secret().as_str().into()));
//! let server = Server::bind(config).await?;
//! cluster.start(Arc::new(server.control()), server.peer_addrs()[0]);
//! server.run(async move { cluster.drain().await }).await?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod admin;
mod checks;
mod config;
mod directory;
mod error;
mod format;
mod leaf;
mod metrics;
mod nats;
mod node;
mod owned;
pub mod protocol;
mod reading;
mod retry;
mod shard;

pub use self::{
    admin::{Admin, LeafStatus, NodeStatus, ShardStatus},
    config::ClusterConfig,
    error::ClusterError,
    leaf::Leaf,
    metrics::ClusterMetrics,
    shard::{Epoch, NodeId, SHARDS, Shard},
};

use self::{
    directory::{ShardLocation, ShardTable},
    metrics::NodeMetrics,
    nats::Nats,
    node::{Event, Node, NodeConfig},
    protocol::{Membership, MembershipOptions},
};
use core::{fmt, future::Future, pin::Pin, time::Duration};
use stateroom_wasmi_host::ModuleHash;
use stateroom_wasmi_server::{
    Directory, MoreMetrics, ServerControl, ServerLoad,
    journal::{Batch, Done, Journal, JournalError, ReplayCost, RoomNumber, Stored, UnfinishedRoom},
};
use std::{error::Error, net::SocketAddr, sync::Arc, thread, time::Instant};
use tokio::sync::{mpsc, oneshot};

/// A node of a cluster. When it is dropped, the node ends at once, as if its process had been killed; what it
/// has not said to be durable may be or not.
pub struct Cluster {
    events: mpsc::UnboundedSender<Event>,
    table: Arc<ShardTable>,
    metrics: Arc<NodeMetrics>,
    secrets: Secrets,
    id: NodeId,
}

/// What is random, and the same at all nodes.
struct Secrets {
    journal: [u8; 32],
    peers: [u8; 32],
}

/// What runs a node's rooms.
pub trait Rooms: Send + Sync + 'static {
    /// Restores rooms of a shard that was taken.
    fn adopt(&self, rooms: Vec<UnfinishedRoom>);

    /// Saves the rooms of a shard and ends them; resolves when that is durable.
    fn release(&self, shard: Shard) -> Released;

    /// Ends the rooms of a shard at once; resolves when they are gone.
    fn abandon(&self, shard: Shard) -> Abandoned;

    /// What the rooms do and take, with the shards as groups.
    fn load(&self) -> Measured;
}

/// Of [`Rooms::release`].
pub type Released = Pin<Box<dyn Future<Output = Result<(), JournalError>> + Send>>;

/// Of [`Rooms::abandon`].
pub type Abandoned = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Of [`Rooms::load`].
pub type Measured = Pin<Box<dyn Future<Output = ServerLoad> + Send>>;

impl Rooms for ServerControl {
    fn adopt(&self, rooms: Vec<UnfinishedRoom>) {
        self.adopt(rooms);
    }

    fn release(&self, shard: Shard) -> Released {
        Box::pin(self.release(move |room| Shard::of_room(room) == shard))
    }

    fn abandon(&self, shard: Shard) -> Abandoned {
        Box::pin(self.abandon(move |room| Shard::of_room(room) == shard))
    }

    fn load(&self) -> Measured {
        Box::pin(self.load(SHARDS, |room| Shard::of_room(room).index()))
    }
}

impl Cluster {
    /// Connects to NATS, and checks that it can keep what is promised. Then the node is there, but has no
    /// rooms before it is [started](Self::start).
    ///
    /// # Errors
    ///
    /// If NATS cannot be reached, or is not fit for this.
    pub async fn join(config: ClusterConfig) -> Result<Self, ClusterError> {
        let id = random_id()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let (table, metrics) = (Arc::new(ShardTable::new()), Arc::<NodeMetrics>::default());
        let node = (sender.clone(), receiver);
        let shared = (table.clone(), metrics.clone());
        let (joined, has_joined) = oneshot::channel();
        // A thread of its own: what it does must not wait for what the server's thread does.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClusterError::Io)?;
        thread::Builder::new()
            .name("cluster".into())
            .spawn(move || {
                let _gone = Gone(shared.0.clone());
                runtime.block_on(async {
                    match prepare(&config).await {
                        Ok((nats, secrets)) => {
                            let _ = joined.send(Ok(secrets));
                            let (table, metrics) = shared;
                            let options = membership_options(&config);
                            let membership = Membership::new(id, options, Duration::ZERO);
                            let config = NodeConfig {
                                id,
                                name: config.node,
                                max_rooms: config.max_rooms,
                                max_stored_rooms: config.max_stored_rooms,
                            };
                            Node::new(nats, membership, config, node, table, metrics)
                                .run()
                                .await;
                        }
                        Err(error) => drop(joined.send(Err(error))),
                    }
                });
            })
            .map_err(ClusterError::Io)?;
        let ended = |_| ClusterError::Setup("the node has ended".into());
        let secrets = has_joined.await.map_err(ended)??;
        Ok(Self {
            events: sender,
            table,
            metrics,
            secrets,
            id,
        })
    }

    /// This run of the node.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// What nodes know each other by, for [`ServerConfig::peer_secret`](stateroom_wasmi_server::ServerConfig):
    /// who can read what the cluster has in NATS has it.
    #[must_use]
    pub fn peer_secret(&self) -> String {
        use core::fmt::Write;
        let mut text = String::new();
        for byte in self.secrets.peers {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// What the server keeps its rooms in.
    #[must_use]
    pub fn journal(&self) -> Arc<dyn Journal> {
        Arc::new(ClusterJournal {
            events: self.events.clone(),
            secret: self.secrets.journal,
        })
    }

    /// What tells the server where rooms are.
    #[must_use]
    pub fn directory(&self) -> Arc<dyn Directory> {
        self.table.clone()
    }

    /// The server runs: the node takes its shards. Other nodes reach the server at this address.
    pub fn start(&self, rooms: Arc<dyn Rooms>, address: SocketAddr) {
        self.send(Event::Start(rooms, address));
    }

    /// Gives all shards to other nodes; resolves when that is so, or at once if there is no other. The node
    /// takes none any more, but is there, for clients whose rooms are elsewhere.
    pub async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        self.send(Event::Drain(done));
        let _ = drained.await;
    }

    /// Says to the others that this node has ended, so that they need not find out.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        self.send(Event::Leave(done));
        let _ = left.await;
    }

    /// What it has done.
    #[must_use]
    pub fn metrics(&self) -> ClusterMetrics {
        self.metrics.read()
    }

    /// The same, for the server's metrics.
    #[must_use]
    pub fn more_metrics(&self) -> MoreMetrics {
        let metrics = self.metrics.clone();
        MoreMetrics::new(move || metrics.read().exposition())
    }

    fn send(&self, event: Event) {
        // Fails if the thread has panicked, which was reported.
        let _ = self.events.send(event);
    }
}

/// When the node's thread ends, also by a panic, its rooms are not here any more.
struct Gone(Arc<ShardTable>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.set(vec![ShardLocation::UNKNOWN; SHARDS]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.send(Event::End);
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

async fn prepare(config: &ClusterConfig) -> Result<(Nats, Secrets), ClusterError> {
    config.check()?;
    // It may start at the same time, and its servers need some seconds to find each other.
    const TIMEOUT: Duration = Duration::from_secs(30);
    const INTERVAL: Duration = Duration::from_millis(200);
    // What was just made may not be there for a moment.
    const USUAL: Duration = Duration::from_secs(2);
    let (began_at, mut is_said) = (Instant::now(), false);
    loop {
        match open(config).await {
            Err(error) if error.is_temporary() && began_at.elapsed() < TIMEOUT => {
                if !is_said && began_at.elapsed() > USUAL {
                    is_said = true;
                    let source = error.source().map(|source| format!(": {source}"));
                    let source = source.unwrap_or_default();
                    log::warn!("waiting for NATS, for {TIMEOUT:?} at most: {error}{source}");
                }
                tokio::time::sleep(INTERVAL).await;
            }
            opened => return opened,
        }
    }
}

async fn open(config: &ClusterConfig) -> Result<(Nats, Secrets), ClusterError> {
    let client = config.connect().await?;
    checks::check(&client, config).await?;
    let nats = Nats::open(client, config).await?;
    let secrets = Secrets {
        journal: nats.secret("secret").await?,
        peers: nats.secret("peer-secret").await?,
    };
    Ok((nats, secrets))
}

fn membership_options(config: &ClusterConfig) -> MembershipOptions {
    MembershipOptions {
        ping_interval: (config.silence / 6).min(MAX_PING_INTERVAL),
        silence: config.silence,
        ..MembershipOptions::new(&config.node)
    }
}

/// Whoever looks for nodes does not know their silence, and hears all of them soon.
const MAX_PING_INTERVAL: Duration = Duration::from_millis(100);

fn random_id() -> Result<NodeId, ClusterError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| ClusterError::Setup(error.to_string()))?;
    Ok(NodeId(u64::from_le_bytes(bytes)))
}

/// The journal of a node.
struct ClusterJournal {
    events: mpsc::UnboundedSender<Event>,
    secret: [u8; 32],
}

impl Journal for ClusterJournal {
    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    /// None: the server is told of them when their shards are taken.
    fn unfinished(&self) -> Vec<UnfinishedRoom> {
        Vec::new()
    }

    /// Whoever takes a shard reads all events of its rooms since their snapshots, each in a message of NATS as a
    /// rule, before the first of the rooms can be restored.
    fn replay_cost(&self) -> ReplayCost {
        ReplayCost {
            event: 20_000,
            limit: 8_000_000,
        }
    }

    fn load(&self, id: &str, done: Done<Stored>) {
        if let Err(mpsc::error::SendError(Event::Load(_, done))) =
            self.events.send(Event::Load(id.into(), done))
        {
            done(Err(JournalError::Closed));
        }
    }

    fn peek(&self, id: &str, done: Done<Stored>) {
        if let Err(mpsc::error::SendError(Event::Peek(_, done))) =
            self.events.send(Event::Peek(id.into(), done))
        {
            done(Err(JournalError::Closed));
        }
    }

    fn restored(&self, room: RoomNumber) {
        // Fails if the node has ended.
        let _ = self.events.send(Event::Restored(room));
    }

    fn keep_module(&self, hash: ModuleHash, wasm: &[u8]) {
        let wasm = bytes::Bytes::copy_from_slice(wasm);
        // Fails if the node has ended.
        let _ = self.events.send(Event::KeepModule(hash, wasm));
    }

    fn load_module(&self, hash: ModuleHash, done: Done<Option<Vec<u8>>>) {
        if let Err(mpsc::error::SendError(Event::LoadModule(_, done))) =
            self.events.send(Event::LoadModule(hash, done))
        {
            done(Err(JournalError::Closed));
        }
    }

    fn write(&self, batch: Batch, done: Done<()>) {
        if let Err(mpsc::error::SendError(Event::Write(_, done))) =
            self.events.send(Event::Write(batch, done))
        {
            done(Err(JournalError::Closed));
        }
    }
}

impl fmt::Debug for ClusterJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterJournal").finish_non_exhaustive()
    }
}
