//! Rooms that go from node to node while their clients talk: no message is lost, none comes twice, and no
//! socket is closed. The nodes are servers in this process with one journal, which refuses what a node writes
//! of a room that is not its own any more.

use crate::{
    journaled::eventually,
    resuming::Connection,
    support::{ENV, Random, SAY, assemble, guest_0_2},
};
use core::{pin::pin, time::Duration};
use futures_util::{FutureExt, SinkExt, StreamExt};
use stateroom_wasmi_resume::{ClientSession, Incoming, Message as SessionMessage};
use stateroom_wasmi_server::{
    Directory, Location, Rate, Secret, Server, ServerConfig, ServerControl,
    journal::{
        Batch, Done, Durability, Journal, JournalError, LogEntries, MemoryJournal, RoomNumber,
        Stored, UnfinishedRoom,
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
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// What all nodes know: who has which room.
struct Cluster {
    journal: MemoryJournal,
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// Of each room the node that has it, as all know; none while it is on its way.
    owners: BTreeMap<String, Option<usize>>,
    /// And the node that may write, with the number of that change.
    writers: BTreeMap<String, (usize, u64)>,
    /// Where each node is reached by the others.
    addresses: BTreeMap<usize, SocketAddr>,
    ids: BTreeMap<RoomNumber, String>,
}

impl Cluster {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            journal: MemoryJournal::new(),
            state: Mutex::default(),
            changes: watch::Sender::new(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this node may write, and no other; or nobody knows who has the room.
    fn set_owner(&self, room: &str, owner: Option<usize>) {
        let mut state = self.lock();
        state.owners.insert(room.into(), owner);
        if let Some(owner) = owner {
            let epoch = state.writers.get(room).map_or(0, |(_, epoch)| epoch + 1);
            state.writers.insert(room.into(), (owner, epoch));
        }
        drop(state);
        self.changes.send_replace(());
    }

    fn owner(&self, room: &str) -> Option<usize> {
        self.lock().owners.get(room).copied().flatten()
    }

    fn unfinished(&self, room: &str) -> Vec<UnfinishedRoom> {
        let unfinished = self.journal.unfinished().into_iter();
        unfinished.filter(|it| &*it.id == room).collect()
    }

    /// A node gives a room up, and another takes it over.
    async fn hand_over(&self, room: &str, from: &Node, to: &Node) {
        self.set_owner(room, None);
        let id = String::from(room);
        let released = from.control.release(move |room| room == id);
        let released = eventually("the release", released).await;
        released.expect("it is durable");
        self.take_over(room, to).await;
    }

    /// A node takes a room over, whatever the one that has it does.
    async fn take_over(&self, room: &str, to: &Node) {
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
            Some(owner) if owner == self.node => Location::Here,
            Some(owner) => {
                let address = state.addresses.get(&owner).copied();
                address.map_or(Location::Unknown, Location::Node)
            }
            None => Location::Unknown,
        }
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
struct NodeJournal {
    cluster: Arc<Cluster>,
    node: usize,
    epochs: Mutex<BTreeMap<RoomNumber, u64>>,
    /// Whether the node has died: what it writes is lost.
    is_dead: Arc<AtomicBool>,
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
struct Wire {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Wire {
    async fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let address = listener.local_addr().expect("an address");
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            let mut cut = is_cut.clone();
            let passing = async {
                let mut passing = JoinSet::new();
                loop {
                    let (mut from, _) = listener.accept().await.expect("it accepts");
                    passing.spawn(async move {
                        if let Ok(mut to) = TcpStream::connect(to).await {
                            let _ = to.set_nodelay(true);
                            let _ = from.set_nodelay(true);
                            let _ = copy_bidirectional(&mut from, &mut to).await;
                        }
                    });
                }
            };
            tokio::select! {
                () = passing => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
        });
        Self { address, cut }
    }
}

struct Node {
    number: usize,
    address: SocketAddr,
    peer: SocketAddr,
    control: ServerControl,
    wire: Wire,
    is_dead: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<io::Result<()>>,
}

const SECRET: &str = "of the cluster";

impl Node {
    async fn start(
        cluster: &Arc<Cluster>,
        number: usize,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let is_dead = Arc::<AtomicBool>::default();
        let journal = NodeJournal {
            cluster: cluster.clone(),
            node: number,
            epochs: Mutex::default(),
            is_dead: is_dead.clone(),
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
        let wire = Wire::new(peer).await;
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

    /// As far as the others can tell, it ends at once.
    fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.wire.cut.send_replace(true);
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        let ended = eventually("the end", self.ended).await;
        ended.expect("no panic").expect("no error");
    }

    /// A value of the node's metrics.
    async fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it is taken");
        let mut response = String::new();
        let read = eventually("metrics", stream.read_to_string(&mut response));
        read.await.expect("it is text");
        let mut lines = response.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no {name}: {response}"))
    }

    async fn join(&self, path: &str) -> Client {
        let url = format!("ws://{}/ws/{path}", self.address);
        let (socket, _) = eventually("the handshake", connect_async(url))
            .await
            .expect("the handshake succeeds");
        Client {
            socket,
            said: 0,
            heard: 0,
            seen: Vec::new(),
        }
    }
}

async fn nodes<const N: usize>(cluster: &Arc<Cluster>) -> [Node; N] {
    let mut nodes = Vec::new();
    for number in 0..N {
        nodes.push(Node::start(cluster, number, |_| {}).await);
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!())
}

/// A guest that sends each message back to its sender, and says to all who comes (1,000 and the id) and
/// who leaves (2,000 and the id).
fn echo() -> Vec<u8> {
    let echo = |send: &str| format!("(call {send} (local.get 0) (local.get 1) (local.get 2))");
    let say = |base: u32| format!("(call $say (i32.add (i32.const {base}) (local.get 0)))");
    assemble(&guest_0_2(
        ENV,
        &[
            ("connect", &say(1000)),
            ("disconnect", &say(2000)),
            ("message", &echo("$send_message")),
            ("binary", &echo("$send_binary")),
        ],
        SAY,
    ))
}

/// A client that knows of no cluster, and counts.
struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    said: u32,
    heard: u32,
    /// Who was seen to come and to leave.
    seen: Vec<i32>,
}

impl Client {
    /// Every third message is binary.
    fn message(number: u32) -> Message {
        let text = format!("message {number}");
        match number % 3 {
            0 => Message::binary(text.into_bytes()),
            _ => Message::text(text),
        }
    }

    async fn say(&mut self) {
        self.said += 1;
        let message = Self::message(self.said);
        self.socket.send(message).await.expect("it is connected");
    }

    /// Hears the next message: an echo, or who comes or leaves.
    async fn hear(&mut self) {
        let message = eventually("a message", self.socket.next()).await;
        match message.expect("it is connected").expect("no error") {
            Message::Binary(bytes) if bytes.len() == 4 => {
                let number = bytes[..].try_into().expect("four bytes");
                self.seen.push(i32::from_le_bytes(number));
            }
            Message::Ping(_) => {}
            echo => {
                self.heard += 1;
                assert_eq!(echo, Self::message(self.heard));
            }
        }
    }

    async fn hear_all(&mut self) {
        while self.heard < self.said {
            self.hear().await;
        }
    }

    async fn see(&mut self, seen: &[i32]) {
        while self.seen.len() < seen.len() {
            self.hear().await;
        }
        assert_eq!(self.seen, seen);
    }

    /// Talks until it is told to stop, with up to so many messages on their way, and hears all replies.
    async fn talk(mut self, on_its_way: u32, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::SeqCst) {
            while self.said < self.heard + on_its_way {
                self.say().await;
            }
            self.hear().await;
        }
        self.hear_all().await;
        self
    }

    async fn closed(mut self) -> (u16, String) {
        loop {
            match eventually("a close", self.socket.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }
}

/// All have heard what they must, and nobody has seen another leave.
async fn check(talking: Vec<JoinHandle<Client>>) {
    let mut clients = Vec::new();
    for client in talking {
        clients.push(eventually("the end", client).await.expect("no panic"));
    }
    for client in &clients {
        assert!(client.heard > 40, "{} heard", client.heard);
        let is_leave = |seen: &&i32| **seen >= 2000;
        assert_eq!(client.seen.iter().find(is_leave), None, "{:?}", client.seen);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_any_node_is_in_the_same_room() {
    let cluster = Cluster::new();
    let nodes: [Node; 3] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut clients = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let mut client = node.join("lobby").await;
        client.see(&[1001 + index as i32]).await;
        for _ in 0..100 {
            client.say().await;
        }
        client.hear_all().await;
        clients.push(client);
    }
    clients[0].see(&[1001, 1002, 1003]).await;
    // One closes and one is lost; what they have said before is replied to, or at least handled.
    let mut last = clients.pop().expect("a client");
    for _ in 0..50 {
        last.say().await;
    }
    last.socket.close(None).await.expect("it is connected");
    while last.heard < last.said {
        last.hear().await;
    }
    clients[0].see(&[1001, 1002, 1003, 2003]).await;
    drop(clients.pop());
    clients[0].see(&[1001, 1002, 1003, 2003, 2002]).await;
    let last = clients.pop().expect("a client");
    let [first, _, _] = nodes;
    let (closed, ()) = tokio::join!(last.closed(), first.stop());
    assert_eq!(closed.0, 1001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_rooms_are_handed_over() {
    let cluster = Cluster::new();
    let nodes: [Node; 3] = nodes(&cluster).await;
    let rooms = ["a", "b", "c", "d"];
    let stop = Arc::<AtomicBool>::default();
    let mut talking = Vec::new();
    for (index, room) in rooms.iter().enumerate() {
        cluster.set_owner(room, Some(index % 3));
        for node in &nodes {
            let client = node.join(room).await;
            talking.push(tokio::spawn(client.talk(40, stop.clone())));
        }
    }
    let mut random = Random::new();
    for _ in 0..60 {
        let room = rooms[random.below(rooms.len())];
        let from = cluster.owner(room).expect("an owner");
        let to = random.below(3);
        cluster.hand_over(room, &nodes[from], &nodes[to]).await;
        sleep(Duration::from_millis(random.below(20) as u64)).await;
    }
    stop.store(true, Ordering::SeqCst);
    check(talking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_owners_die() {
    let cluster = Cluster::new();
    let gateway = Node::start(&cluster, 0, |_| {}).await;
    let mut owner = Node::start(&cluster, 1, |_| {}).await;
    let rooms = ["a", "b", "c"];
    let stop = Arc::<AtomicBool>::default();
    let mut talking = Vec::new();
    for room in rooms {
        cluster.set_owner(room, Some(1));
        for _ in 0..3 {
            let client = gateway.join(room).await;
            talking.push(tokio::spawn(client.talk(40, stop.clone())));
        }
    }
    let mut random = Random::new();
    for number in 2..14 {
        sleep(Duration::from_millis(random.below(60) as u64)).await;
        let next = Node::start(&cluster, number, |_| {}).await;
        owner.die();
        for room in rooms {
            cluster.take_over(room, &next).await;
        }
        owner = next;
    }
    stop.store(true, Ordering::SeqCst);
    check(talking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_has_lost_its_rooms_shows_nothing_more() {
    let cluster = Cluster::new();
    let nodes: [Node; 3] = nodes(&cluster).await;
    let stop = Arc::<AtomicBool>::default();
    cluster.set_owner("lobby", Some(0));
    cluster.set_owner("other", Some(0));
    let mut talking = Vec::new();
    for node in &nodes {
        for room in ["lobby", "other"] {
            let client = node.join(room).await;
            talking.push(tokio::spawn(client.talk(40, stop.clone())));
        }
    }
    let mut random = Random::new();
    for round in 1..40 {
        sleep(Duration::from_millis(random.below(20) as u64)).await;
        // The node that has it finds out when it writes, and sometimes is told.
        let before = cluster.owner("lobby").expect("an owner");
        let to = (before + 1) % 3;
        cluster.take_over("lobby", &nodes[to]).await;
        if round % 3 == 0 {
            let abandoned = nodes[before].control.abandon(|room| room == "lobby");
            eventually("the end of the room", abandoned).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    check(talking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_for_an_owner_and_not_for_ever() {
    let cluster = Cluster::new();
    let [gateway, owner]: [Node; 2] = nodes(&cluster).await;
    // Before there is one.
    let mut client = gateway.join("lobby").await;
    client.say().await;
    cluster.set_owner("lobby", Some(1));
    client.hear_all().await;
    // And while there is none for a moment.
    cluster.set_owner("lobby", None);
    eventually("the end of the room", owner.control.abandon(|_| true)).await;
    for _ in 0..100 {
        client.say().await;
    }
    eventually("a client that waits", async {
        while gateway.metric("stateroom_gateway_clients_waiting").await == 0 {}
    })
    .await;
    cluster.take_over("lobby", &owner).await;
    client.hear_all().await;
    assert_eq!(client.seen, [1001]);
    let resumed = gateway.metric("stateroom_gateway_sessions_resumed_total");
    assert_eq!(resumed.await, 1);
    assert_eq!(gateway.metric("stateroom_gateway_clients_waiting").await, 0);
    assert_eq!(gateway.metric("stateroom_gateway_clients").await, 1);
    assert_eq!(owner.metric("stateroom_sessions").await, 1);
    assert_eq!(owner.metric("stateroom_gateway_clients").await, 0);

    let impatient = Node::start(&cluster, 2, |config| {
        config.owner_timeout = Duration::from_millis(50);
    })
    .await;
    let mut client = impatient.join("lobby").await;
    client.see(&[1002]).await;
    let (code, reason) = impatient.join("nowhere").await.closed().await;
    assert_eq!(code, 1013, "{reason}");
    let gone = impatient.join("lobby").await;
    owner.die();
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1013, "{reason}");
    // Nobody is left whose node is to be told that a client has left.
    drop(gone);
    eventually("the end of what is done for them", async {
        while impatient.metric("stateroom_gateway_clients").await > 0 {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_messages_need_no_acknowledgement_to_pass() {
    let cluster = Cluster::new();
    let [gateway, owner]: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    // The default limit of a guest's memory for a message is less.
    for length in [1, 60_000, 1, 30_000, 60_000, 60_000, 60_000, 60_000, 1] {
        for _ in 0..3 {
            let text = "x".repeat(length);
            let message = Message::text(text.clone());
            client.socket.send(message).await.expect("it is connected");
            let echo = eventually("an echo", client.socket.next()).await;
            let echo = echo.expect("it is connected").expect("no error");
            assert_eq!(echo, Message::text(text));
        }
    }
    drop(owner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_no_node_is_not_served() {
    let cluster = Cluster::new();
    let node = Node::start(&cluster, 0, |config| {
        config.handshake_timeout = Duration::from_secs(2);
    })
    .await;
    cluster.set_owner("lobby", Some(0));
    let mut watcher = node.join("lobby").await;
    watcher.see(&[1001]).await;
    let introduce = |secret: &str, version: u32| {
        format!(
            r#"{{"version":{version},"secret":"{secret}","room":"lobby","token":null,"address":"1.2.3.4","session":"0123","sequence":1}}"#
        )
        .into_bytes()
    };
    let framed = |json: &[u8]| [&(json.len() as u32).to_be_bytes()[..], json].concat();
    let hello = b"\x81\x01h";
    for bytes in [
        framed(&introduce("wrong", 1)),
        framed(&introduce("", 1)),
        framed(&introduce(SECRET, 2)),
        framed(b"{}"),
        framed(b""),
        [0xff; 4].into(),
        b"GET / HTTP/1.1\r\n\r\n".into(),
        introduce(SECRET, 1),
        // It stops in the middle.
        framed(&introduce(SECRET, 1))[..20].into(),
        Vec::new(),
    ] {
        let mut stream = TcpStream::connect(node.peer).await.expect("it listens");
        // It may be closed before.
        let _ = stream.write_all(&[&bytes[..], hello].concat()).await;
        let mut received = Vec::new();
        let _ = eventually("the end", stream.read_to_end(&mut received)).await;
        assert_eq!(received, b"", "{bytes:?}");
    }
    // Nobody has joined.
    let mut stream = TcpStream::connect(node.peer).await.expect("it listens");
    let bytes = [&framed(&introduce(SECRET, 1))[..], hello].concat();
    stream.write_all(&bytes).await.expect("it is taken");
    watcher.see(&[1001, 1002]).await;
}

/// A client that speaks `stateroom.resume.1`, over connections to any node. Talks until it is told to stop.
/// Returns how often it has said something, heard something, and asked for a session.
async fn come_back(
    addresses: Vec<String>,
    path: &'static str,
    stop: Arc<AtomicBool>,
) -> (u32, u32, usize) {
    let mut random = Random::new();
    let mut session = ClientSession::new(1000, 1 << 20);
    let (mut said, mut heard) = (0, 0);
    let mut has_begun = false;
    let mut asked = 0;
    while !stop.load(Ordering::SeqCst) || heard < said {
        let address = &addresses[random.below(addresses.len())];
        let mut connection = Connection::open_at(address, path).await;
        let hello = session.hello();
        asked += usize::from(!has_begun);
        connection.send_text(&hello).await;
        let Some(reply) = connection.receive().await else {
            continue;
        };
        match session.receive(&reply).expect("of the protocol") {
            Incoming::New { was_lost } => {
                assert!(!was_lost && !has_begun);
                has_begun = true;
            }
            Incoming::Resumed => {}
            other => panic!("no reply to a hello: {other:?}"),
        }
        for frame in session.unacknowledged().collect::<Vec<_>>() {
            connection.send(frame).await;
        }
        let mut steps = random.below(300);
        while steps > 0 || (stop.load(Ordering::SeqCst) && heard < said) {
            steps = steps.saturating_sub(1);
            let is_stopping = stop.load(Ordering::SeqCst);
            if !is_stopping && said < heard + 40 {
                said += 1;
                let frame = session.send(SessionMessage::Text(format!("{said}")));
                connection.send(frame.expect("space")).await;
                continue;
            }
            if heard == said {
                break;
            }
            let Some(message) = connection.receive().await else {
                break;
            };
            match session.receive(&message).expect("of the protocol") {
                Incoming::Message(SessionMessage::Text(echo)) => {
                    heard += 1;
                    assert_eq!(echo, format!("{heard}"));
                }
                // Who comes and leaves.
                Incoming::Message(SessionMessage::Binary(_)) | Incoming::Nothing => {}
                other => panic!("not now: {other:?}"),
            }
            if let Some(ack) = session.ack(false) {
                connection.send_text(&ack).await;
            }
        }
    }
    (said, heard, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_back_do_so_at_any_node() {
    let cluster = Cluster::new();
    let nodes: [Node; 3] = nodes(&cluster).await;
    let addresses: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    cluster.set_owner("lobby", Some(0));
    let stop = Arc::<AtomicBool>::default();
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(come_back(addresses.clone(), "lobby", stop.clone())))
        .collect();
    let mut watcher = nodes[0].join("lobby").await;
    let mut random = Random::new();
    for round in 0..30 {
        sleep(Duration::from_millis(random.below(30) as u64)).await;
        let from = cluster.owner("lobby").expect("an owner");
        let to = random.below(3);
        match round % 2 {
            0 => cluster.hand_over("lobby", &nodes[from], &nodes[to]).await,
            _ => cluster.take_over("lobby", &nodes[to]).await,
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut all_asked = 0;
    for client in clients {
        let (said, heard, asked) = eventually("the end", client).await.expect("no panic");
        assert_eq!(said, heard);
        assert!(heard > 40, "{heard} heard");
        all_asked += asked;
    }
    // None has joined again that had a session.
    for _ in 0..10 {
        watcher.say().await;
    }
    watcher.hear_all().await;
    let joined = watcher.seen.iter().filter(|seen| **seen < 2000).count();
    assert!(joined <= 1 + all_asked, "{joined} joins of {all_asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_leaves_its_rooms_to_another() {
    let cluster = Cluster::new();
    let [gateway, first, second]: [Node; 3] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    for _ in 0..50 {
        client.say().await;
    }
    first.stop().await;
    for _ in 0..50 {
        client.say().await;
    }
    cluster.take_over("lobby", &second).await;
    client.hear_all().await;
    assert_eq!(client.seen, [1001]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_delays_nobody() {
    let cluster = Cluster::new();
    let change = |config: &mut ServerConfig| {
        config.max_queued_bytes = 256 << 10;
        config.max_resume_bytes = 256 << 10;
    };
    let gateway = Node::start(&cluster, 0, change).await;
    let owner = Node::start(&cluster, 1, change).await;
    cluster.set_owner("lobby", Some(1));
    let mut watcher = owner.join("lobby").await;
    watcher.see(&[1001]).await;
    let mut slow = gateway.join("lobby").await;
    watcher.see(&[1001, 1002]).await;
    // Each is sent back, and it reads none of them.
    let text = Message::text("x".repeat(30_000));
    let saying = async {
        while slow.socket.send(text.clone()).await.is_ok() {}
        // It was disconnected.
        core::future::pending::<()>().await;
    };
    let watching = async {
        // It still gets its own.
        for _ in 0..20 {
            watcher.say().await;
            watcher.hear_all().await;
        }
        watcher.see(&[1001, 1002, 2002]).await;
    };
    tokio::select! {
        () = watching => {}
        () = saying => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_again_replaces_its_connection_at_another_node() {
    let cluster = Cluster::new();
    let nodes: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut first = nodes[0].join("lobby?token=ann").await;
    first.see(&[1001]).await;
    let mut second = nodes[1].join("lobby?token=ann").await;
    let (code, reason) = first.closed().await;
    assert_eq!((code, &*reason), (1008, "replaced by a newer connection"));
    second.see(&[1001]).await;
}

/// A node that was stopped goes on with what it had begun; its clients are at other nodes by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_begun_earlier_at_another_node_replaces_nobody() {
    let cluster = Cluster::new();
    let node = Node::start(&cluster, 0, |_| {}).await;
    cluster.set_owner("lobby", Some(0));
    let mut client = node.join("lobby?token=ann").await;
    client.see(&[1001]).await;
    let introduce = |session: &str, sequence: u64| {
        let json = format!(
            r#"{{"version":1,"secret":"{SECRET}","room":"lobby","token":"ann","address":null,"session":"{session}","sequence":{sequence}}}"#
        );
        [
            &(json.len() as u32).to_be_bytes()[..],
            json.as_bytes(),
            b"\x81\x01h",
        ]
        .concat()
    };
    let mut stale = TcpStream::connect(node.peer).await.expect("it listens");
    stale
        .write_all(&introduce("01", 1))
        .await
        .expect("it is taken");
    let mut received = Vec::new();
    eventually("the end", stale.read_to_end(&mut received))
        .await
        .expect("it is closed");
    let reason = b"replaced by a newer connection";
    let is_refused = received
        .windows(reason.len())
        .any(|window| window == reason);
    assert!(is_refused, "{received:?}");
    // The client is still there, and a later connection replaces it.
    client.say().await;
    client.hear().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_micros() as u64;
    let mut later = TcpStream::connect(node.peer).await.expect("it listens");
    later
        .write_all(&introduce("02", now))
        .await
        .expect("it is taken");
    let (code, reason) = client.closed().await;
    assert_eq!((code, &*reason), (1008, "replaced by a newer connection"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_room_in_memory_are_told_that_it_is_gone() {
    let cluster = Cluster::new();
    let change = |config: &mut ServerConfig| config.durability = Durability::Memory;
    let first = Node::start(&cluster, 0, change).await;
    let second = Node::start(&cluster, 1, change).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = first.join("lobby").await;
    client.see(&[1001]).await;
    cluster.hand_over("lobby", &second, &first).await;
    assert_eq!(client.closed().await.0, 1012);
    let mut client = first.join("lobby").await;
    client.see(&[1001]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_owner_is_backpressure_and_disconnects_nobody() {
    let cluster = Cluster::new();
    let [gateway, _owner]: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    cluster.journal.pause();
    let (mut sink, mut stream) = client.socket.split();
    const MESSAGES: usize = 20_000;
    let text = "x".repeat(500);
    let said = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let message = Message::text(format!("{number} {text}"));
            sink.send(message).await.expect("it is connected");
        }
        sink
    });
    // What nobody takes fills the queues on the way.
    let mut queued = 0;
    eventually("backpressure", async {
        loop {
            sleep(Duration::from_millis(50)).await;
            let now = gateway.metric("stateroom_send_queue_bytes").await;
            if now > 0 && now == queued {
                break;
            }
            queued = now;
        }
    })
    .await;
    assert!(queued < 2 << 20, "{queued} bytes are kept");
    assert!(!said.is_finished());
    cluster.journal.resume();
    for number in 0..MESSAGES {
        let echo = eventually("an echo", stream.next()).await;
        let echo = echo.expect("it is connected").expect("no error");
        let echo = echo.to_text().expect("text");
        assert_eq!(echo.split(' ').next(), Some(&*number.to_string()));
    }
    let _sink = said.await.expect("all was said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rooms_go_at_once() {
    let cluster = Cluster::new();
    let [gateway, first, second]: [Node; 3] = nodes(&cluster).await;
    let rooms: Vec<_> = (0..200).map(|number| format!("room-{number}")).collect();
    let mut clients = Vec::new();
    for room in &rooms {
        cluster.set_owner(room, Some(1));
        let mut client = gateway.join(room).await;
        client.see(&[1001]).await;
        clients.push(client);
    }
    for round in 0..4 {
        for client in &mut clients {
            client.say().await;
        }
        let (from, to) = match round % 2 {
            0 => (&first, &second),
            _ => (&second, &first),
        };
        for room in &rooms {
            cluster.set_owner(room, None);
        }
        let released = from.control.release(|room| room.starts_with("room-"));
        let released = eventually("the release", released).await;
        released.expect("it is durable");
        let mut unfinished = cluster.journal.unfinished();
        assert_eq!(unfinished.len(), rooms.len());
        // In no order, as far as their node can tell.
        unfinished.rotate_left(round * 13);
        for room in &rooms {
            cluster.set_owner(room, Some(to.number));
        }
        to.control.adopt(unfinished);
        for client in &mut clients {
            client.hear_all().await;
        }
    }
    for client in &clients {
        assert_eq!(client.seen, [1001]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_released_when_that_is_durable() {
    let cluster = Cluster::new();
    let journal = cluster.journal.clone();
    let node = Node::start(&cluster, 0, |config| {
        config.journal = Some(Arc::new(journal))
    })
    .await;
    cluster.set_owner("lobby", Some(0));
    let mut client = node.join("lobby").await;
    client.see(&[1001]).await;
    cluster.journal.pause();
    client.say().await;
    eventually("the message", async {
        while cluster.journal.waiting() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    cluster.set_owner("lobby", None);
    let mut released = pin!(node.control.release(|room| room == "lobby"));
    while cluster.journal.waiting() > 0 {
        // However slowly the journal takes it.
        assert!((&mut released).now_or_never().is_none());
        if cluster.journal.waiting() == 1 {
            // The message; the room's snapshot follows.
            sleep(Duration::from_millis(20)).await;
        }
        cluster.journal.step();
    }
    let released = eventually("the release", released).await;
    released.expect("it is durable");
    let stored = cluster.journal.stored("lobby").expect("it is stored");
    assert_eq!((stored.snapshot.events, &*stored.tail), (3, &[][..]));
    cluster.journal.resume();
    cluster.set_owner("lobby", Some(0));
    client.hear_all().await;
    assert_eq!(client.seen, [1001]);
}

/// Prints how long a message and its reply take, and how many a second there can be: to a server by itself,
/// by way of a gateway to a room at the same node, and at another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it prints figures"]
async fn what_a_gateway_costs() {
    let cluster = Cluster::new();
    let alone = crate::journaled::RunningServer::without_journal(|config| {
        config.module = echo();
        config.message_rate = Rate::new(0, 0);
        config.journal = Some(Arc::new(MemoryJournal::new()));
    })
    .await;
    let [first, second]: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("here", Some(0));
    cluster.set_owner("there", Some(1));
    let ways = [
        ("alone", alone.address.clone(), "here"),
        ("here", first.address.to_string(), "here"),
        ("there", first.address.to_string(), "there"),
    ];
    for round in 0..3 {
        for (way, address, room) in &ways {
            let url = format!("ws://{address}/ws/{room}");
            let (mut socket, _) = connect_async(url).await.expect("the handshake succeeds");
            socket.next().await.expect("a join").expect("no error");
            let mut took = Vec::new();
            for number in 0..3000 {
                let start = std::time::Instant::now();
                let message = Client::message(number);
                socket.send(message.clone()).await.expect("connected");
                while socket.next().await.expect("connected").expect("no error") != message {}
                took.push(start.elapsed());
            }
            took.sort_unstable();
            let (p50, p99) = (took[1500], took[2970]);
            let start = std::time::Instant::now();
            let (mut said, mut heard) = (0, 0);
            while heard < 50_000 {
                while said < heard + 200 {
                    socket.feed(Message::text("text")).await.expect("connected");
                    said += 1;
                }
                socket.flush().await.expect("connected");
                socket.next().await.expect("connected").expect("no error");
                heard += 1;
            }
            let rate = 50_000.0 / start.elapsed().as_secs_f64();
            println!("{round} {way}: p50 {p50:?}, p99 {p99:?}, {rate:.0} messages a second");
        }
    }
    // A client of a third node, whose room goes to and fro: the longest that it waits each time.
    let third = Node::start(&cluster, 2, |_| {}).await;
    let mut client = third.join("here").await;
    let mut took = Vec::new();
    for round in 0..200 {
        let (from, to) = match round % 2 {
            0 => (&first, &second),
            _ => (&second, &first),
        };
        let mut longest = Duration::ZERO;
        let mut handing_over = pin!(cluster.hand_over("here", from, to));
        let mut is_over = false;
        // And some that come after it.
        for _ in 0..20 {
            let start = std::time::Instant::now();
            let mut said = pin!(async {
                client.say().await;
                client.hear_all().await;
            });
            while !is_over {
                tokio::select! {
                    () = &mut handing_over, if !is_over => is_over = true,
                    () = &mut said => break,
                }
            }
            if is_over {
                said.await;
            }
            longest = longest.max(start.elapsed());
        }
        took.push(longest);
        if !is_over {
            handing_over.await;
        }
    }
    took.sort_unstable();
    println!("hand-over: p50 {:?}, p99 {:?}", took[100], took[198]);
}
