//! The nodes: servers in this process with one journal, which refuses what a node writes of a room that is not
//! its own any more.

use super::clients::{Client, echo};
use crate::journaled::eventually;
use core::time::Duration;
use stateroom_wasmi_server::{
    Directory, Location, Rate, Secret, Server, ServerConfig, ServerControl,
    journal::{
        Batch, Done, Journal, JournalError, LogEntries, MemoryJournal, RoomNumber, Stored,
        UnfinishedRoom,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_tungstenite::connect_async;
/// What all nodes know: who has which room.
pub(super) struct Cluster {
    pub(super) journal: MemoryJournal,
    state: Mutex<State>,
    changes: watch::Sender<()>,
    /// Counts nodes that have ended of [`FATAL`].
    pub(super) deaths: watch::Sender<usize>,
    /// Nothing is loaded before.
    loads_from: Mutex<Option<Instant>>,
}

/// A node ends when a room has handled a message that has this, before it is in the journal.
pub(super) const FATAL: &[u8] = b"end your node";

/// A message that has this is in the journal only after [`SLOWNESS`].
pub(super) const SLOW: &[u8] = b"take your time";

const SLOWNESS: Duration = Duration::from_secs(1);

/// Time in which a node ends.
const END: Duration = Duration::from_millis(50);

#[derive(Default)]
struct State {
    /// Of each room the node that has it, as all know; none while it is on its way.
    owners: BTreeMap<String, Option<usize>>,
    /// Rooms that their owners know to be about to be there, and how many loads have waited for each.
    coming: BTreeMap<String, usize>,
    /// And the node that may write, with the number of that change.
    writers: BTreeMap<String, (usize, u64)>,
    /// Where each node is reached by the others.
    addresses: BTreeMap<usize, SocketAddr>,
    ids: BTreeMap<RoomNumber, String>,
}

impl Cluster {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            journal: MemoryJournal::new(),
            state: Mutex::default(),
            changes: watch::Sender::new(()),
            deaths: watch::Sender::new(0),
            loads_from: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rooms that are asked for from now on are loaded after this time, and their workers wait for that.
    pub(super) fn delay_loads(&self, by: Duration) {
        *self.loads_from() = Some(Instant::now() + by);
    }

    fn loads_from(&self) -> MutexGuard<'_, Option<Instant>> {
        let loads_from = self.loads_from.lock();
        loads_from.unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this node may write, and no other; or nobody knows who has the room.
    pub(super) fn set_owner(&self, room: &str, owner: Option<usize>) {
        if let Some(owner) = owner {
            self.fence(room, owner);
        }
        self.lock().owners.insert(room.into(), owner);
        self.changes.send_replace(());
    }

    /// All know that this node is to have the room, which waits for its journal until
    /// [`arrive`](Self::arrive).
    pub(super) fn begin_to_arrive(&self, room: &str, owner: usize) {
        self.lock().coming.insert(room.into(), 0);
        self.set_owner(room, Some(owner));
    }

    /// The room is there.
    pub(super) fn arrive(&self, room: &str) {
        self.lock().coming.remove(room);
        self.changes.send_replace(());
    }

    /// Waits until so many loads wait for the room to arrive.
    pub(super) async fn waits_for_arrival(&self, room: &str, loads: usize) {
        let waiting = async {
            while self.lock().coming.get(room) != Some(&loads) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        eventually("the load", waiting).await;
    }

    /// From now on this node may write, and none that has the room knows it.
    pub(super) fn fence(&self, room: &str, writer: usize) {
        let mut state = self.lock();
        let epoch = state.writers.get(room).map_or(0, |(_, epoch)| epoch + 1);
        state.writers.insert(room.into(), (writer, epoch));
    }

    /// Nobody knows the owner of the room, which goes on.
    pub(super) fn suspect(&self, room: &str) {
        self.lock().owners.insert(room.into(), None);
        self.changes.send_replace(());
    }

    /// It is there after all.
    pub(super) fn trust(&self, room: &str, owner: usize) {
        self.lock().owners.insert(room.into(), Some(owner));
        self.changes.send_replace(());
    }

    pub(super) fn owner(&self, room: &str) -> Option<usize> {
        self.lock().owners.get(room).copied().flatten()
    }

    fn unfinished(&self, room: &str) -> Vec<UnfinishedRoom> {
        let unfinished = self.journal.unfinished().into_iter();
        unfinished.filter(|it| &*it.id == room).collect()
    }

    /// A node gives a room up, and another takes it over.
    pub(super) async fn hand_over(&self, room: &str, from: &Node, to: &Node) {
        self.release(room, from).await;
        self.take_over(room, to).await;
    }

    /// A node gives a room up, which nobody has then.
    pub(super) async fn release(&self, room: &str, from: &Node) {
        self.set_owner(room, None);
        let id = String::from(room);
        let released = from.control.release(move |room| room == id);
        let released = eventually("the release", released).await;
        released.expect("it is durable");
    }

    /// A node takes a room over, whatever the one that has it does.
    pub(super) async fn take_over(&self, room: &str, to: &Node) {
        // If it has had it before, it may not know yet that another has had it since.
        self.set_owner(room, None);
        let id = String::from(room);
        let abandoned = to.control.abandon(move |room| room == id);
        eventually("the end of the room", abandoned).await;
        self.set_owner(room, Some(to.number));
        to.control.adopt(self.unfinished(room));
    }
}

/// What one node knows.
struct NodeDirectory {
    cluster: Arc<Cluster>,
    node: usize,
}

impl Directory for NodeDirectory {
    fn locate(&self, room: &str) -> Location {
        let state = self.cluster.lock();
        match state.owners.get(room).copied().flatten() {
            Some(owner) if owner == self.node => match state.coming.contains_key(room) {
                true => Location::Unknown,
                false => Location::Here,
            },
            Some(owner) => {
                let address = state.addresses.get(&owner).copied();
                address.map_or(Location::Unknown, Location::Node)
            }
            None => Location::Unknown,
        }
    }

    fn is_coming(&self, room: &str) -> bool {
        let state = self.cluster.lock();
        let is_here = state.owners.get(room).copied().flatten() == Some(self.node);
        is_here && state.coming.contains_key(room)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.cluster.changes.subscribe()
    }
}

impl fmt::Debug for NodeDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeDirectory({})", self.node)
    }
}

/// The journal, as a node has it. What it writes is checked: as each room is loaded, the node gets to know
/// since when it may write.
#[derive(Clone)]
struct NodeJournal {
    cluster: Arc<Cluster>,
    node: usize,
    epochs: Arc<Mutex<BTreeMap<RoomNumber, u64>>>,
    /// Whether the node has died: what it writes is lost.
    is_dead: Arc<AtomicBool>,
    /// Cuts what other nodes connect to.
    cut: watch::Sender<bool>,
}

impl NodeJournal {
    /// Whether the node may still write what happens in a room.
    fn is_owned(&self, state: &State, number: RoomNumber) -> bool {
        let writer = state.ids.get(&number).and_then(|id| state.writers.get(id));
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = epochs.get(&number).copied();
        writer.copied() == epoch.map(|epoch| (self.node, epoch))
    }
}

impl Journal for NodeJournal {
    fn secret(&self) -> [u8; 32] {
        self.cluster.journal.secret()
    }

    fn unfinished(&self) -> Vec<UnfinishedRoom> {
        Vec::new()
    }

    fn load(&self, id: &str, done: Done<Stored>) {
        if self.is_dead.load(Ordering::SeqCst) {
            return;
        }
        if let Some(waiting) = self.cluster.lock().coming.get_mut(id) {
            *waiting += 1;
            let (journal, id) = (self.clone(), String::from(id));
            thread::spawn(move || {
                while journal.cluster.lock().coming.contains_key(&id) {
                    thread::sleep(Duration::from_millis(1));
                }
                journal.load(&id, done);
            });
            return;
        }
        let loads_from = *self.cluster.loads_from();
        if let Some(delay) = loads_from.and_then(|at| at.checked_duration_since(Instant::now())) {
            thread::sleep(delay);
        }
        // Nothing is written meanwhile.
        let mut state = self.cluster.lock();
        let epoch = match state.writers.get(id) {
            Some((writer, epoch)) if *writer == self.node => *epoch,
            _ => return done(Err(JournalError::NotOwned { rooms: Vec::new() })),
        };
        let (stored, loaded) = std::sync::mpsc::channel();
        let reply = move |result| {
            let _ = stored.send(result);
        };
        self.cluster.journal.load(id, Box::new(reply));
        let result = loaded.recv().expect("it replies at once");
        if let Ok(Stored::New(number)) = &result {
            state.ids.insert(*number, id.into());
        }
        if let Ok(
            Stored::New(number)
            | Stored::Room(stateroom_wasmi_server::journal::StoredRoom { number, .. }),
        ) = &result
        {
            let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
            epochs.insert(*number, epoch);
        }
        done(result);
    }

    fn write(&self, batch: Batch, done: Done<()>) {
        if self.is_dead.load(Ordering::SeqCst) {
            return;
        }
        let has = |text: &[u8]| {
            let mut windows = batch.events().windows(text.len());
            windows.any(|bytes| bytes == text)
        };
        if has(FATAL) {
            self.is_dead.store(true, Ordering::SeqCst);
            let (cluster, cut) = (self.cluster.clone(), self.cut.clone());
            thread::spawn(move || {
                thread::sleep(END);
                cut.send_replace(true);
                cluster.deaths.send_modify(|deaths| *deaths += 1);
            });
            return;
        }
        if has(SLOW) {
            let is_dead = self.is_dead.clone();
            let journal = self.cluster.journal.clone();
            thread::spawn(move || {
                thread::sleep(SLOWNESS);
                if !is_dead.load(Ordering::SeqCst) {
                    journal.write(batch, done);
                }
            });
            return;
        }
        // Nobody takes a room over between the check and the write.
        let state = self.cluster.lock();
        let mut owned = Batch::default();
        let mut lost = BTreeSet::new();
        for entry in LogEntries::new(batch.events()) {
            let entry = entry.expect("well-formed");
            match self.is_owned(&state, entry.room) {
                true => owned.log(entry.room, entry.number, entry.event),
                false => drop(lost.insert(entry.room)),
            }
        }
        for (number, write) in batch.rooms() {
            match self.is_owned(&state, *number) {
                true => owned.write(*number, write.clone()),
                false => drop(lost.insert(*number)),
            }
        }
        let rooms: Vec<_> = lost.into_iter().collect();
        let written = move |result: Result<(), JournalError>| match rooms.is_empty() {
            true => done(result),
            false => done(Err(JournalError::NotOwned { rooms })),
        };
        self.cluster.journal.write(owned, Box::new(written));
    }
}

impl fmt::Debug for NodeJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeJournal({})", self.node)
    }
}

/// What other nodes connect to, so that it can be cut.
pub(super) struct Wire {
    pub(super) address: SocketAddr,
    pub(super) cut: watch::Sender<bool>,
    /// Connections that were open when it was counted up pass nothing more.
    lost: watch::Sender<u32>,
}

impl Wire {
    pub(super) async fn new(to: SocketAddr, cut: watch::Sender<bool>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let address = listener.local_addr().expect("an address");
        let is_cut = cut.subscribe();
        let (lost, is_lost) = watch::channel(0);
        tokio::spawn(async move {
            let mut cut = is_cut.clone();
            let passing = async {
                let mut passing = JoinSet::new();
                loop {
                    let (mut from, _) = listener.accept().await.expect("it accepts");
                    let mut is_lost = is_lost.clone();
                    is_lost.mark_unchanged();
                    passing.spawn(async move {
                        if let Ok(mut to) = TcpStream::connect(to).await {
                            let _ = to.set_nodelay(true);
                            let _ = from.set_nodelay(true);
                            tokio::select! {
                                _ = copy_bidirectional(&mut from, &mut to) => {}
                                _ = is_lost.changed() => core::future::pending().await,
                            }
                        }
                    });
                }
            };
            tokio::select! {
                () = passing => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
        });
        Self { address, cut, lost }
    }
}

pub(super) struct Node {
    pub(super) number: usize,
    pub(super) address: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) control: ServerControl,
    wire: Wire,
    is_dead: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<io::Result<()>>,
}

pub(super) const SECRET: &str = "of the cluster";

impl Node {
    pub(super) async fn start(
        cluster: &Arc<Cluster>,
        number: usize,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let is_dead = Arc::<AtomicBool>::default();
        let cut = watch::Sender::new(false);
        let journal = NodeJournal {
            cluster: cluster.clone(),
            node: number,
            epochs: Arc::default(),
            is_dead: is_dead.clone(),
            cut: cut.clone(),
        };
        let directory = NodeDirectory {
            cluster: cluster.clone(),
            node: number,
        };
        let mut config = ServerConfig::new(echo())
            .port(0)
            .workers(2)
            .message_rate(Rate::new(0, 0))
            .journal(Some(Arc::new(journal)))
            .directory(Some(Arc::new(directory)))
            .peer_listen(Some(("127.0.0.1", 0)))
            .peer_secret(Some(Secret::from(SECRET)))
            .owner_timeout(Duration::from_secs(60));
        change(&mut config);
        let server = Server::bind(config).await.expect("it starts");
        let (address, peer) = (server.local_addrs()[0], server.peer_addrs()[0]);
        let wire = Wire::new(peer, cut).await;
        cluster.lock().addresses.insert(number, wire.address);
        let control = server.control();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            number,
            address,
            peer,
            control,
            wire,
            is_dead,
            stop: Some(stop),
            ended,
        }
    }

    /// A connection as another node opens it, which has heard which process this is.
    pub(super) async fn connect_peer(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.peer).await.expect("it listens");
        let process = eventually("the process", stream.read_u64()).await;
        process.expect("it is said");
        stream
    }

    /// As far as the others can tell, it ends at once.
    pub(super) fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.wire.cut.send_replace(true);
    }

    /// Waits until nobody listens at its address, as it is at once when a process has ended.
    pub(super) async fn has_ended(&self) {
        let ended = async {
            while TcpStream::connect(self.wire.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        eventually("the end of the node", ended).await;
    }

    /// What other nodes send over the connections that are open is lost from now on.
    pub(super) fn lose_connections(&self) {
        self.wire.lost.send_modify(|lost| *lost += 1);
    }

    pub(super) async fn stop(mut self) {
        drop(self.stop.take());
        let ended = eventually("the end", self.ended).await;
        ended.expect("no panic").expect("no error");
    }

    /// Asks for something; returns the response.
    async fn request(&self, what: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        let request = format!("{what} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it is taken");
        let mut response = String::new();
        let read = eventually("a response", stream.read_to_string(&mut response));
        read.await.expect("it is text");
        response
    }

    /// What operators ask for.
    pub(super) async fn post(&self, path: &str) {
        let response = self.request(&format!("POST {path}")).await;
        assert!(response.starts_with("HTTP/1.1 20"), "{response}");
    }

    /// A value of the node's metrics.
    pub(super) async fn metric(&self, name: &str) -> u64 {
        let response = self.request("GET /metrics").await;
        let mut lines = response.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no {name}: {response}"))
    }

    pub(super) async fn join(&self, path: &str) -> Client {
        join(self.address, path).await
    }
}

pub(super) async fn join(server: SocketAddr, path: &str) -> Client {
    let url = format!("ws://{server}/ws/{path}");
    let (socket, _) = eventually("the handshake", connect_async(url))
        .await
        .expect("the handshake succeeds");
    Client::new(socket)
}

pub(super) async fn nodes<const N: usize>(cluster: &Arc<Cluster>) -> [Node; N] {
    let mut nodes = Vec::new();
    for number in 0..N {
        nodes.push(Node::start(cluster, number, |_| {}).await);
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!())
}
