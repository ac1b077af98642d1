//! Rooms of a leaf, which clients of all nodes of a cluster reach over connections that the leaf has opened.

use super::{
    clients::{check, echo},
    nodes::{Cluster, Node, SECRET, Wire},
};
use crate::journaled::eventually;
use core::time::Duration;
use sha2::{Digest, Sha256};
use stateroom_wasmi_server::{
    ConfigError, Directory, Leaf, Location, Secret, ServeError, Server, ServerConfig,
    journal::{Journal, MemoryJournal},
    leaf_room,
};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// What nodes know of leaves, and nothing else: all other rooms are here.
#[derive(Debug)]
struct Leaves {
    /// By name: the number, and the hash of the secret.
    known: Mutex<BTreeMap<String, (u64, [u8; 32])>>,
    changes: watch::Sender<()>,
}

impl Leaves {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            known: Mutex::default(),
            changes: watch::Sender::new(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (u64, [u8; 32])>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &str, leaf: Option<u64>) {
        match leaf {
            Some(number) => {
                let hash = Sha256::digest(secret_of(number).as_bytes()).into();
                self.lock().insert(name.into(), (number, hash))
            }
            None => self.lock().remove(name),
        };
        self.changes.send_replace(());
    }
}

impl Directory for Leaves {
    fn locate(&self, room: &str) -> Location {
        let Some((name, _)) = leaf_room(room) else {
            return Location::Here;
        };
        let known = self.lock();
        let leaf = known.get(name);
        leaf.map_or(Location::Unknown, |(number, _)| Location::Leaf(*number))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn leaf(&self, secret_hash: [u8; 32]) -> Option<u64> {
        let known = self.lock();
        let found = known.values().find(|(_, hash)| *hash == secret_hash);
        found.map(|(number, _)| *number)
    }
}

fn secret_of(leaf: u64) -> String {
    format!("of the leaf {leaf}")
}

/// A leaf that runs.
struct RunningLeaf {
    address: SocketAddr,
    nodes: watch::Sender<Vec<SocketAddr>>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<io::Result<()>>,
}

impl RunningLeaf {
    async fn start(number: u64, nodes: Vec<SocketAddr>, journal: Option<MemoryJournal>) -> Self {
        let (sender, nodes) = watch::channel(nodes);
        let leaf = Leaf {
            name: "den".into(),
            secret: secret_of(number).as_str().into(),
            nodes,
        };
        let journal = journal.map(|journal| Arc::new(journal) as Arc<dyn Journal>);
        let config = ServerConfig::new(echo())
            .port(0)
            .workers(2)
            .journal(journal)
            .leaf(Some(leaf));
        let server = Server::bind(config).await.expect("it starts");
        let address = server.local_addrs()[0];
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            nodes: sender,
            stop,
            ended,
        }
    }

    async fn stop(self) {
        drop(self.stop);
        let ended = eventually("the end", self.ended).await;
        ended.expect("no panic").expect("no error");
    }
}

async fn node(number: usize, leaves: &Arc<Leaves>, owner_timeout: Duration) -> Node {
    let directory: Arc<dyn Directory> = leaves.clone();
    Node::start(&Cluster::new(), number, |config| {
        config.directory = Some(directory);
        config.journal = None;
        config.owner_timeout = owner_timeout;
    })
    .await
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_all_nodes_and_of_the_leaf_are_in_the_same_room() {
    let leaves = Leaves::new();
    let nodes = [node(0, &leaves, LONG).await, node(1, &leaves, LONG).await];
    // It waits for the leaf.
    let mut first = nodes[0].join("@den.lobby").await;
    first.say().await;
    leaves.set("den", Some(1));
    let leaf = RunningLeaf::start(1, nodes.iter().map(|node| node.peer).collect(), None).await;
    first.see(&[1001]).await;
    let mut second = nodes[1].join("@den.lobby").await;
    second.see(&[1002]).await;
    let mut own = super::nodes::join(leaf.address, "lobby").await;
    own.see(&[1003]).await;
    for client in [&mut first, &mut second, &mut own] {
        for _ in 0..100 {
            client.say().await;
        }
        client.hear_all().await;
    }
    // More than there are connections that wait.
    let mut more = Vec::new();
    for _ in 0..30 {
        more.push(nodes[0].join("@den").await);
    }
    for client in &mut more {
        client.say().await;
        client.hear_all().await;
    }
    // Rooms of the nodes are others.
    let mut elsewhere = nodes[0].join("lobby").await;
    elsewhere.see(&[1001]).await;
    drop(second);
    first.see(&[1001, 1002, 1003, 2002]).await;
    leaf.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_a_leaf_restarts_or_its_connections_break() {
    let leaves = Leaves::new();
    let nodes = [node(0, &leaves, LONG).await, node(1, &leaves, LONG).await];
    let wires = async || {
        let wires = [
            Wire::new(nodes[0].peer, watch::Sender::new(false)).await,
            Wire::new(nodes[1].peer, watch::Sender::new(false)).await,
        ];
        let addresses: Vec<_> = wires.iter().map(|wire| wire.address).collect();
        (wires, addresses)
    };
    let journal = MemoryJournal::new();
    let (mut current, addresses) = wires().await;
    leaves.set("den", Some(1));
    let mut leaf = RunningLeaf::start(1, addresses, Some(journal.clone())).await;
    let stop = Arc::<AtomicBool>::default();
    let mut talking = Vec::new();
    for node in &nodes {
        for room in ["@den.a", "@den.b"] {
            let client = node.join(room).await;
            talking.push(tokio::spawn(client.talk(40, stop.clone())));
        }
    }
    for run in 2..6 {
        sleep(Duration::from_millis(50)).await;
        // The network changes.
        for wire in &current {
            wire.cut.send_replace(true);
        }
        let (next, addresses) = wires().await;
        current = next;
        leaf.nodes.send_replace(addresses.clone());
        sleep(Duration::from_millis(50)).await;
        // And the leaf starts again.
        leaves.set("den", None);
        leaf.stop().await;
        leaf = RunningLeaf::start(run, addresses, Some(journal.clone())).await;
        leaves.set("den", Some(run));
    }
    stop.store(true, Ordering::SeqCst);
    check(talking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_that_a_leaf_which_is_back_has_lost_them_or_does_not_come() {
    let leaves = Leaves::new();
    let gateway = node(0, &leaves, Duration::from_secs(2)).await;
    leaves.set("den", Some(1));
    let leaf = RunningLeaf::start(1, vec![gateway.peer], None).await;
    let mut client = gateway.join("@den.lobby").await;
    client.see(&[1001]).await;
    // Its rooms are in memory.
    leaf.stop().await;
    leaves.set("den", Some(2));
    let leaf = RunningLeaf::start(2, vec![gateway.peer], None).await;
    let lost = (1012, "the room has lost its clients".into());
    assert_eq!(client.closed().await, lost);
    let client = gateway.join("@den.lobby").await;
    leaf.stop().await;
    leaves.set("den", None);
    let away = (1013, "the node of the room cannot be reached".into());
    assert_eq!(client.closed().await, away);
    assert_eq!(gateway.join("@nobody.lobby").await.closed().await, away);
    assert_eq!(gateway.join("@").await.closed().await, away);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_gets_no_clients_but_its_own() {
    let leaves = Leaves::new();
    let gateway = node(0, &leaves, LONG).await;
    leaves.set("den", Some(1));
    // Neither with a secret that nobody has, nor with its own as if it were a node.
    for introduction in [
        introduction("of nobody", true, ""),
        introduction("", true, ""),
        introduction(SECRET, true, ""),
        introduction(&secret_of(1), false, "lobby"),
    ] {
        let mut stream = gateway.connect_peer().await;
        stream.write_all(&introduction).await.expect("it is taken");
        let mut answer = Vec::new();
        let closed = eventually("the end", stream.read_to_end(&mut answer)).await;
        assert!(closed.is_err() || answer.is_empty(), "{answer:?}");
    }
    // One that is dead, and then one that is alive.
    let mut dead = gateway.connect_peer().await;
    let offer = introduction(&secret_of(1), true, "");
    dead.write_all(&offer).await.expect("it is taken");
    drop(dead);
    let leaf = RunningLeaf::start(1, vec![gateway.peer], None).await;
    let mut client = gateway.join("@den.lobby").await;
    client.see(&[1001]).await;
    leaf.stop().await;
}

#[tokio::test]
async fn a_leaf_refuses_what_is_not_its_own_and_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    let leaf = RunningLeaf::start(1, vec![address], None).await;
    let long = [0xff; 200];
    for said in [
        introduction("", false, "lobby"),
        introduction("", false, "@other.lobby"),
        introduction("", false, "@denlobby"),
        long.to_vec(),
        b"\0\0\0\x04null".to_vec(),
    ] {
        let (mut stream, _) = eventually("a connection", listener.accept())
            .await
            .expect("it connects");
        stream.write_all(b"process1").await.expect("it is taken");
        let length = stream.read_u32().await.expect("it introduces itself");
        let mut offer = vec![0; length as usize];
        stream.read_exact(&mut offer).await.expect("all of it");
        let offer = String::from_utf8(offer).expect("text");
        assert!(offer.contains(&secret_of(1)), "{offer}");
        stream.write_all(&said).await.expect("it is taken");
        let mut answer = Vec::new();
        let closed = eventually("the end", stream.read_to_end(&mut answer)).await;
        assert!(closed.is_err() || answer.is_empty(), "{answer:?}");
    }
    leaf.stop().await;
}

#[tokio::test]
async fn a_server_cannot_be_a_node_and_a_leaf() {
    let config = ServerConfig::new(echo())
        .port(0)
        .directory(Some(Leaves::new() as Arc<dyn Directory>))
        .peer_secret(Some(Secret::from(SECRET)))
        .leaf(Some(Leaf {
            name: "den".into(),
            secret: "s".into(),
            nodes: watch::channel(Vec::new()).1,
        }));
    let refused = Server::bind(config).await.err();
    let refused = refused.expect("it is refused");
    assert!(
        matches!(refused, ServeError::Config(ConfigError::LeafAndNode)),
        "{refused:?}"
    );
}

/// What is said first over a connection between nodes.
fn introduction(secret: &str, leaf: bool, room: &str) -> Vec<u8> {
    let json = format!(
        r#"{{"version":2,"secret":"{secret}","leaf":{leaf},"room":"{room}","token":null,"address":null,"session":null,"sequence":1}}"#
    );
    [&(json.len() as u32).to_be_bytes()[..], json.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_that_asks_for_pongs_and_takes_none_is_not_read_from_for_ever() {
    /// More than the system keeps between the two.
    const ENOUGH: usize = 64 << 20;
    let leaves = Leaves::new();
    let node = node(0, &leaves, LONG).await;
    leaves.set("den", Some(1));
    let mut leaf = node.connect_peer().await;
    let introduction = format!(
        r#"{{"version":2,"secret":"{}","leaf":true,"room":"","sequence":0}}"#,
        secret_of(1)
    );
    let length = introduction.len() as u32;
    leaf.write_u32(length).await.expect("it is read");
    let written = leaf.write_all(introduction.as_bytes()).await;
    written.expect("it is read");
    let _client = node.join("@den.lobby").await;
    // For whom it is.
    let read = eventually("the client", leaf.read_u8()).await;
    read.expect("it is used");
    let pings = [&[0x89, 125][..], &[7; 125]].concat().repeat(1000);
    let mut total = 0;
    while let Ok(written) = timeout(Duration::from_secs(3), leaf.write(&pings)).await {
        total += written.expect("the connection stays");
        assert!(total < ENOUGH, "pongs are kept without end");
    }
}
