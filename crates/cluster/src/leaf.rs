//! A leaf: a server that takes no shards, but has rooms of its own, which clients of all nodes reach.

use crate::{
    config::ClusterConfig, error::ClusterError, nats::Nats, node::Ping, protocol::LeafPing,
    random_id, shard::NodeId,
};
use async_nats::{Message, Subscriber, jetstream::kv::Operation};
use core::{fmt, fmt::Write, time::Duration};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stateroom_wasmi_server::Secret;
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};

/// Time between a leaf's pings.
pub(crate) const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Time after which a leaf that is not heard is away: longer than for nodes, as nobody takes its rooms, and
/// it may be far away.
pub(crate) const LEAF_SILENCE: Duration = Duration::from_secs(3);

/// A leaf of a cluster. When it is dropped, it ends at once, as if its process had been killed.
///
/// It has claimed its name, and no other leaf gets it while this one is heard.
pub struct Leaf {
    id: NodeId,
    name: String,
    secret: String,
    nodes: watch::Receiver<Vec<SocketAddr>>,
    leave: mpsc::UnboundedSender<oneshot::Sender<()>>,
    task: AbortHandle,
}

impl Leaf {
    /// Connects to NATS, where there must be a cluster of this name, and claims the name of the
    /// [`node`](ClusterConfig::node). Of the other settings, the addresses and credentials of NATS count.
    ///
    /// # Errors
    ///
    /// If NATS cannot be reached, has no such cluster, or another leaf has the name.
    pub async fn join(config: ClusterConfig) -> Result<Self, ClusterError> {
        config.check()?;
        let client = config.connect_leaf().await?;
        let nats = Nats::open_existing(client, &config.name).await?;
        let id = random_id()?;
        let secret = random_secret()?;
        let (sender, nodes) = watch::channel(Vec::new());
        let (leave, leaving) = mpsc::unbounded_channel();
        let uplink = Uplink {
            nats,
            id,
            name: config.node.clone(),
            secret_hash: Sha256::digest(secret.as_bytes()).into(),
            nodes: sender,
        };
        let revision = uplink.claim().await?;
        let task = tokio::spawn(uplink.run(revision, leaving)).abort_handle();
        Ok(Self {
            id,
            name: config.node,
            secret,
            nodes,
            leave,
            task,
        })
    }

    /// This run of the leaf.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// What makes a server this leaf, for
    /// [`ServerConfig::leaf`](stateroom_wasmi_server::ServerConfig::leaf).
    #[must_use]
    pub fn server(&self) -> stateroom_wasmi_server::Leaf {
        stateroom_wasmi_server::Leaf {
            name: self.name.clone(),
            secret: Secret::from(self.secret.as_str()),
            nodes: self.nodes.clone(),
        }
    }

    /// Says to the nodes that this leaf has ended, and gives up its name.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.leave.send(done).is_ok() {
            let _ = left.await;
        }
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What keeps the nodes informed, and finds them.
struct Uplink {
    nats: Nats,
    id: NodeId,
    name: String,
    secret_hash: [u8; 32],
    nodes: watch::Sender<Vec<SocketAddr>>,
}

/// Told when the leaf is to leave; what is sent is told when it has.
type Leaving = mpsc::UnboundedReceiver<oneshot::Sender<()>>;

/// Why a leaf does not hold its name any more.
enum Ended {
    /// Another one has claimed it.
    Lost,
    Leaves(oneshot::Sender<()>),
    /// The connection to NATS has ended for good.
    Closed,
}

impl Uplink {
    async fn run(self, mut revision: u64, mut leaving: Leaving) {
        loop {
            match self.hold(revision, &mut leaving).await {
                Ended::Closed => return log::error!("the connection to NATS has ended"),
                Ended::Leaves(done) => {
                    self.say(revision, true).await;
                    let _ = self.nats.client().flush().await;
                    self.nats.release_leaf(&self.name, revision).await;
                    let _ = done.send(());
                    return;
                }
                Ended::Lost => {}
            }
            log::error!(
                "another leaf has the name {:?} now: clients of the cluster do not reach this one",
                self.name
            );
            self.nodes.send_replace(Vec::new());
            revision = loop {
                tokio::select! {
                    claimed = self.claim() => match claimed {
                        Ok(revision) => break revision,
                        Err(error) => log::debug!("{error}"),
                    },
                    // It has nothing to leave.
                    _ = leaving.recv() => return,
                }
                sleep(PING_INTERVAL).await;
            };
            log::info!("this leaf has its name again");
        }
    }

    /// Claims the name, unless a leaf is heard that has it.
    async fn claim(&self) -> Result<u64, ClusterError> {
        const ATTEMPTS: usize = 10;
        const INTERVAL: Duration = Duration::from_millis(200);
        let mut pings = self.subscribe(self.nats.leaf(&self.name)).await?;
        for _ in 0..ATTEMPTS {
            let found = self.nats.leaf_claim(&self.name).await?;
            let (holder, revision) = found.unwrap_or((None, 0));
            if holder.as_deref() == Some(&*self.id.to_string()) {
                return Ok(revision);
            }
            if holder.is_some() && is_heard(&mut pings, revision).await {
                return Err(ClusterError::LeafTaken(self.name.clone()));
            }
            match self.nats.claim_leaf(&self.name, self.id, revision).await {
                Ok(revision) => return Ok(revision),
                // Another one was faster, or NATS refuses it for no reason.
                Err(error) => log::debug!("the name is not claimed: {error}"),
            }
            sleep(INTERVAL).await;
        }
        Err(ClusterError::Setup("the name cannot be claimed".into()))
    }

    async fn subscribe(&self, subject: String) -> Result<Subscriber, ClusterError> {
        let subscribed = self.nats.client().subscribe(subject).await;
        subscribed.map_err(|error| ClusterError::Setup(error.to_string()))
    }

    /// Says that this leaf is there, and hears which nodes are, until that ends.
    async fn hold(&self, revision: u64, leaving: &mut Leaving) -> Ended {
        let subscribed = tokio::try_join!(
            self.subscribe(self.nats.pings()),
            self.subscribe(self.nats.leaf(&self.name)),
        );
        let Ok((mut pings, mut own)) = subscribed else {
            return Ended::Closed;
        };
        let mut nodes = Nodes::default();
        let mut ticks = interval(PING_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.say(revision, false).await;
                    nodes.forget_silent();
                }
                ping = pings.next() => match ping {
                    Some(ping) => nodes.hear(&ping),
                    None => return Ended::Closed,
                },
                ping = own.next() => {
                    let Some(ping) = ping else { return Ended::Closed };
                    let other = LeafMessage::parse(&ping.payload);
                    if other.is_some_and(|other| other.revision > revision) {
                        return Ended::Lost;
                    }
                }
                done = leaving.recv() => match done {
                    Some(done) => return Ended::Leaves(done),
                    None => return Ended::Closed,
                },
            }
            let addresses = nodes.addresses();
            self.nodes.send_if_modified(|known| {
                let has_changed = *known != addresses;
                *known = addresses;
                has_changed
            });
        }
    }

    async fn say(&self, revision: u64, is_leaving: bool) {
        let message = LeafMessage {
            leaf: self.id.to_string(),
            revision,
            secret_hash: self.secret_hash,
            is_leaving,
        };
        let message = serde_json::to_vec(&message).unwrap_or_default();
        let subject = self.nats.leaf(&self.name);
        // Fails if the connection has ended for good.
        let _ = self.nats.client().publish(subject, message.into()).await;
    }
}

/// Whether a leaf is there that has claimed its name with this revision, or later.
async fn is_heard(pings: &mut Subscriber, revision: u64) -> bool {
    let until = Instant::now() + LEAF_SILENCE;
    while let Ok(Some(ping)) = timeout_at(until, pings.next()).await {
        match LeafMessage::parse(&ping.payload) {
            Some(ping) if ping.revision >= revision => return !ping.is_leaving,
            _ => {}
        }
    }
    false
}

/// The nodes that were heard.
#[derive(Default)]
struct Nodes(BTreeMap<String, (SocketAddr, Instant)>);

impl Nodes {
    fn hear(&mut self, message: &Message) {
        // What is none is another version's.
        let Ok(ping) = serde_json::from_slice::<Ping>(&message.payload) else {
            return;
        };
        match ping.is_leaving {
            true => drop(self.0.remove(&ping.node)),
            false => drop(self.0.insert(ping.node, (ping.address, Instant::now()))),
        }
    }

    fn forget_silent(&mut self) {
        /// The longest time for which a node may be silent and alive.
        const SILENCE: Duration = Duration::from_secs(60);
        self.0
            .retain(|_, (_, heard_at)| heard_at.elapsed() < SILENCE);
    }

    /// Each once: a node that has started again may be known twice.
    fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.0.values().map(|(address, _)| *address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// A leaf's ping.
#[derive(Serialize, Deserialize)]
pub(crate) struct LeafMessage {
    leaf: String,
    revision: u64,
    secret_hash: [u8; 32],
    is_leaving: bool,
}

impl LeafMessage {
    /// None if it is another version's.
    pub(crate) fn parse(payload: &[u8]) -> Option<LeafPing> {
        let message: Self = serde_json::from_slice(payload).ok()?;
        Some(LeafPing {
            leaf: NodeId(u64::from_str_radix(&message.leaf, 16).ok()?),
            revision: message.revision,
            secret_hash: message.secret_hash,
            is_leaving: message.is_leaving,
        })
    }
}

/// The value of a claim, and its revision; none in place of one that was given up.
type Claim = (Option<String>, u64);

impl Nats {
    /// Who has claimed the name of a leaf.
    async fn leaf_claim(&self, name: &str) -> Result<Option<Claim>, ClusterError> {
        let found = self.kv().entry(leaf_key(name)).await;
        let found = found.map_err(|error| ClusterError::Setup(error.to_string()))?;
        Ok(found.map(|entry| {
            let is_put = entry.operation == Operation::Put;
            let holder = is_put.then(|| String::from_utf8_lossy(&entry.value).into_owned());
            (holder, entry.revision)
        }))
    }

    /// Claims it by compare-and-set.
    async fn claim_leaf(&self, name: &str, id: NodeId, revision: u64) -> Result<u64, ClusterError> {
        let claimed = self
            .kv()
            .update(leaf_key(name), id.to_string().into(), revision);
        let claimed = claimed.await;
        claimed.map_err(|error| ClusterError::Setup(error.to_string()))
    }

    /// Gives it up.
    async fn release_leaf(&self, name: &str, revision: u64) {
        let deleted = self
            .kv()
            .delete_expect_revision(leaf_key(name), Some(revision));
        if let Err(error) = deleted.await {
            log::debug!("the name is not given up: {error}");
        }
    }
}

fn leaf_key(name: &str) -> String {
    format!("leaf.{name}")
}

/// 256 random bits, as text.
fn random_secret() -> Result<String, ClusterError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| ClusterError::Setup(error.to_string()))?;
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
