//! What happens at a node, and where that comes from.

use super::RETRY_INTERVAL;
use crate::{
    Rooms,
    format::Quarantine,
    leaf::LeafMessage,
    nats::{DirectoryEntry, LastError, Nats, Stored as StoredMessage, StoredRecord},
    protocol::{Appended, CasResult, LeafPing, Load, Owner, Placement},
    shard::{Epoch, NodeId, Shard},
};
use bytes::Bytes;
use core::time::Duration;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use stateroom_wasmi_host::ModuleHash;
use stateroom_wasmi_server::ServerLoad;
use stateroom_wasmi_server::journal::{Batch, Done, JournalError, RoomNumber, Stored, StoredRoom};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::sleep,
};

/// What happens at a node.
pub(crate) enum Event {
    // Of the server.
    Load(Box<str>, Done<Stored>),
    Peek(Box<str>, Done<Stored>),
    /// A room is restored, or not to be.
    Restored(RoomNumber),
    /// A room is loaded that may be why owners have ended.
    SuspectLoaded(RoomNumber, Result<Stored, JournalError>, Done<Stored>),
    /// It takes long.
    SuspectIsSlow(RoomNumber),
    Write(Batch, Done<()>),
    KeepModule(ModuleHash, Bytes),
    LoadModule(ModuleHash, Done<Option<Vec<u8>>>),
    /// The server runs: shards may be taken.
    Start(Arc<dyn Rooms>, SocketAddr),
    /// Give all shards away; told when that is so, or cannot be.
    Drain(oneshot::Sender<()>),
    /// Say that this node ends.
    Leave(oneshot::Sender<()>),
    /// End.
    End,
    Released(Shard, Epoch, Result<(), JournalError>),
    Abandoned(Shard),

    // Of operators.
    /// Which rooms are in quarantine.
    ListQuarantined(oneshot::Sender<Vec<String>>),
    /// Let a room go on that is in quarantine, or discard it.
    EndQuarantine(EndQuarantine),
    /// For that, it was read.
    QuarantinedRead(EndQuarantine, Option<Box<(StoredRoom, Quarantine)>>),

    // Of other nodes.
    Ping(Ping),
    Gone(NodeId),
    Announced(Announcement),
    /// A leaf of this name has said something; others wait until there is room for them.
    Leaf(String, LeafPing, OwnedSemaphorePermit),

    // Of NATS.
    ModuleKept(u64),
    /// A claim was refused, though it was the right one.
    ClaimRefused(Shard),
    Owner(Shard, Option<Owner>, u64),
    Placement(Shard, Option<Placement>, u64),
    /// What the rooms do and take.
    Measured(ServerLoad),
    DirectoryRead,
    Claimed(Shard, Epoch, CasResult),
    Transferred(Shard, Epoch, CasResult),
    Last(Shard, u64, Result<Option<StoredRecord>, LastError>),
    Appended(Shard, u64, Appended),
    Read(Shard, Epoch, Vec<StoredMessage>),
    QuarantineRead(
        Shard,
        u64,
        RoomNumber,
        String,
        Option<Box<(StoredRoom, Quarantine)>>,
    ),
}

/// A room that is to be in quarantine no longer.
pub(crate) struct EndQuarantine {
    pub(crate) room: Box<str>,
    /// Whether nothing of it is kept.
    pub(crate) discards: bool,
    pub(crate) done: oneshot::Sender<Result<(), String>>,
}

impl Event {
    /// Whether it changes nothing but logs of shards, as most do.
    pub(super) const fn is_of_log(&self) -> bool {
        matches!(
            self,
            Self::Load(..)
                | Self::Peek(..)
                | Self::Restored(..)
                | Self::Write(..)
                | Self::Last(..)
                | Self::Appended(..)
                | Self::Leaf(..)
                | Self::Measured(..)
        )
    }
}

/// What a node says of itself, several times a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ping {
    pub(crate) node: String,
    pub(crate) name: String,
    /// Where it listens for other nodes.
    pub(crate) address: SocketAddr,
    pub(crate) is_draining: bool,
    pub(crate) is_leaving: bool,
    pub(crate) shards: usize,
    /// Shards that it owns by the directory, with its epochs and the revisions.
    #[serde(default)]
    pub(crate) owned: Vec<(u8, u64, u64)>,
    /// Shards that its clients wait for.
    #[serde(default)]
    pub(crate) wanted: Vec<u8>,
    /// What its rooms do and take: [`Load`]'s parts.
    #[serde(default)]
    pub(crate) load: Option<(u32, u32, u32)>,
    /// Whether it has as many rooms as it may.
    #[serde(default)]
    pub(crate) is_full: bool,
    /// Which version of records it can read.
    #[serde(default = "second_version")]
    pub(crate) version: u8,
}

/// That of nodes that say nothing of it.
const fn second_version() -> u8 {
    2
}

impl Ping {
    pub(crate) fn load(&self) -> Option<Load> {
        let (processor, memory, rooms) = self.load?;
        Some(Load {
            processor,
            memory,
            rooms,
        })
    }
}

/// Reads the directory now and then: what it says is in pings, too, but these get lost.
pub(super) fn watch_directory(nats: Nats, sender: mpsc::UnboundedSender<Event>) {
    const INTERVAL: Duration = Duration::from_secs(1);
    tokio::spawn(async move {
        while !sender.is_closed() {
            match nats.directory().await {
                Ok(entries) => {
                    for entry in entries {
                        let _ = sender.send(entry.into());
                    }
                    let _ = sender.send(Event::DirectoryRead);
                    sleep(INTERVAL).await;
                }
                Err(()) => sleep(RETRY_INTERVAL).await,
            }
        }
    });
}

impl From<DirectoryEntry> for Event {
    fn from(entry: DirectoryEntry) -> Self {
        match entry {
            DirectoryEntry::Owner(shard, owner, revision) => Self::Owner(shard, owner, revision),
            DirectoryEntry::Placement(shard, placement, revision) => {
                Self::Placement(shard, placement, revision)
            }
        }
    }
}

pub(super) fn watch_pings(nats: Nats, sender: mpsc::UnboundedSender<Event>) {
    tokio::spawn(async move {
        while !sender.is_closed() {
            if let Ok(mut pings) = nats.client().subscribe(nats.pings()).await {
                while let Some(ping) = pings.next().await {
                    // What is none is another version's.
                    if let Ok(ping) = serde_json::from_slice(&ping.payload) {
                        let _ = sender.send(Event::Ping(ping));
                    }
                }
            }
            sleep(RETRY_INTERVAL).await;
        }
    });
}

pub(super) fn watch_leaves(nats: Nats, sender: mpsc::UnboundedSender<Event>) {
    /// Of all leaves, said and not heard yet; what NATS cannot deliver meanwhile is lost.
    const MAX_WAITING: usize = 256;
    let waiting = Arc::new(Semaphore::new(MAX_WAITING));
    tokio::spawn(async move {
        while !sender.is_closed() {
            if let Ok(mut pings) = nats.client().subscribe(nats.leaf("*")).await {
                while let Some(message) = pings.next().await {
                    let name = message.subject.rsplit('.').next();
                    // What is none is another version's.
                    let ping = LeafMessage::parse(&message.payload);
                    if let (Some(name), Some(ping)) = (name, ping)
                        && let Ok(permit) = waiting.clone().acquire_owned().await
                    {
                        let _ = sender.send(Event::Leaf(name.into(), ping, permit));
                    }
                }
            }
            sleep(RETRY_INTERVAL).await;
        }
    });
}

/// What is said of a shard's owner as soon as it is known.
#[derive(Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) shard: u8,
    pub(crate) node: u64,
    pub(crate) epoch: u64,
    /// Of the directory's entry.
    pub(crate) revision: u64,
    /// Whether the owner says so, and runs the rooms.
    pub(crate) is_active: bool,
}

/// Hears the [announcements](Announcement) of all nodes.
pub(super) fn watch_owners(nats: Nats, sender: mpsc::UnboundedSender<Event>) {
    tokio::spawn(async move {
        while !sender.is_closed() {
            if let Ok(mut owners) = nats.client().subscribe(nats.owners()).await {
                while let Some(message) = owners.next().await {
                    // What is none is another version's.
                    if let Ok(announcement) = serde_json::from_slice(&message.payload) {
                        let _ = sender.send(Event::Announced(announcement));
                    }
                }
            }
            sleep(RETRY_INTERVAL).await;
        }
    });
}

/// What an operator asks of a node. The answer is JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NodeRequest {
    /// The ids of the rooms in quarantine that this node has, up to [`MAX_LISTED`].
    Quarantined,
    /// Let a room go on that is in quarantine; the answer is null or why not.
    Release { room: String, discard: bool },
}

/// Rooms in quarantine that a node lists.
const MAX_LISTED: usize = 1000;

/// Does what operators ask for.
pub(super) fn watch_requests(nats: Nats, id: NodeId, sender: mpsc::UnboundedSender<Event>) {
    tokio::spawn(async move {
        while !sender.is_closed() {
            if let Ok(mut requests) = nats.client().subscribe(nats.node(id)).await {
                while let Some(request) = requests.next().await {
                    let Some(answer) = ask(&request.payload, &sender) else {
                        continue;
                    };
                    let Some(reply) = request.reply else { continue };
                    let nats = nats.clone();
                    tokio::spawn(async move {
                        if let Some(answer) = answer.await {
                            let _ = nats.client().publish(reply, answer.into()).await;
                        }
                    });
                }
            }
            sleep(RETRY_INTERVAL).await;
        }
    });
}

/// Passes a request on; returns its answer, or nothing if it is none.
fn ask(
    request: &[u8],
    sender: &mpsc::UnboundedSender<Event>,
) -> Option<impl Future<Output = Option<Vec<u8>>> + Send + use<>> {
    let (mut drained, mut listed, mut ended) = (None, None, None);
    let event = match serde_json::from_slice(request) {
        _ if request == b"drain" => {
            let (done, answer) = oneshot::channel();
            drained = Some(answer);
            Event::Drain(done)
        }
        Ok(NodeRequest::Quarantined) => {
            let (done, answer) = oneshot::channel();
            listed = Some(answer);
            Event::ListQuarantined(done)
        }
        Ok(NodeRequest::Release { room, discard }) => {
            let (done, answer) = oneshot::channel();
            ended = Some(answer);
            Event::EndQuarantine(EndQuarantine {
                room: room.into(),
                discards: discard,
                done,
            })
        }
        // Another version's.
        Err(_) => return None,
    };
    sender.send(event).ok()?;
    Some(async move {
        if let Some(drained) = drained {
            let _ = drained.await;
            return Some(b"drained".to_vec());
        }
        if let Some(listed) = listed {
            let mut rooms = listed.await.ok()?;
            rooms.truncate(MAX_LISTED);
            return serde_json::to_vec(&rooms).ok();
        }
        let result = ended?.await.ok()?;
        serde_json::to_vec(&result.err()).ok()
    })
}
