//! Tests of the cluster: simulated, and on a real server of NATS, which is `NATS_SERVER` or `nats-server` on the
//! path; without one they are skipped.

mod journal;
#[path = "../../../server/tests/support/journals.rs"]
mod journals;
mod leaves;
mod nats;
mod nodes;
mod proxy;
mod sim;

use journals::{TIMEOUT, events, log, save, snapshot, wait};
use nats::NatsServer;
use stateroom_wasmi_cluster::{
    Abandoned, Cluster, ClusterConfig, ClusterError, ClusterMetrics, Measured, Released, Rooms,
    SHARDS, Shard,
};
use stateroom_wasmi_server::{
    Directory, Location, ServerLoad,
    journal::{Batch, Journal, JournalError, RoomNumber, Stored, StoredRoom, UnfinishedRoom},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
};
use tokio::{io::AsyncWriteExt, net::TcpListener, runtime::Runtime};

/// A node without a server.
struct Node {
    runtime: Runtime,
    cluster: Option<Cluster>,
    journal: Arc<dyn Journal>,
    directory: Arc<dyn Directory>,
    rooms: Arc<FakeRooms>,
    /// Where other nodes find something that they take for the server.
    address: SocketAddr,
}

/// What was asked of a server that is not there.
#[derive(Default)]
struct FakeRooms {
    adopted: Mutex<Vec<UnfinishedRoom>>,
    load: Mutex<ServerLoad>,
}

impl Rooms for FakeRooms {
    fn adopt(&self, rooms: Vec<UnfinishedRoom>) {
        self.adopted.lock().expect("no panic").extend(rooms);
    }

    fn release(&self, _: Shard) -> Released {
        Box::pin(async { Ok(()) })
    }

    fn abandon(&self, _: Shard) -> Abandoned {
        Box::pin(async {})
    }

    fn load(&self) -> Measured {
        let load = self.load.lock().expect("no panic").clone();
        Box::pin(async { load })
    }
}

fn config(url: &str, name: &str) -> ClusterConfig {
    let mut config = ClusterConfig::new(url, name);
    config.replicas = 1;
    config.is_unsafe = true;
    config
}

impl Node {
    fn join(server: &NatsServer, name: &str) -> Self {
        Self::join_with(config(&server.url, name)).expect("it joins")
    }

    fn join_with(config: ClusterConfig) -> Result<Self, ClusterError> {
        let runtime = Runtime::new().expect("it starts");
        let cluster = runtime.block_on(Cluster::join(config))?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(say_who_listens(listener));
        let rooms = Arc::<FakeRooms>::default();
        cluster.start(rooms.clone(), address);
        Ok(Self {
            runtime,
            journal: cluster.journal(),
            directory: cluster.directory(),
            cluster: Some(cluster),
            rooms,
            address,
        })
    }

    /// Waits until so many shards are here.
    fn wait_for_shards(&self, is_enough: impl Fn(usize) -> bool) {
        self.wait(|node| is_enough(node.here()));
    }

    fn here(&self) -> usize {
        let shards = (0..SHARDS).filter(|shard| {
            let room = room_of(Shard(*shard as u8));
            self.directory.locate(&room) == Location::Here
        });
        shards.count()
    }

    /// Waits until this is so, which may be after any change of the directory.
    fn wait(&self, is_so: impl Fn(&Self) -> bool) {
        let mut changes = self.directory.changes();
        self.runtime.block_on(async {
            let waiting = async {
                while !is_so(self) {
                    changes.changed().await.expect("it runs");
                }
            };
            tokio::time::timeout(TIMEOUT, waiting)
                .await
                .expect("it happens");
        });
    }

    /// The same of what may change at any time.
    fn poll(&self, is_so: impl Fn(&Self) -> bool) {
        let until = std::time::Instant::now() + TIMEOUT;
        while !is_so(self) {
            assert!(std::time::Instant::now() < until, "it does not happen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn metrics(&self) -> ClusterMetrics {
        self.cluster.as_ref().expect("it runs").metrics()
    }

    fn drain(&self) {
        let cluster = self.cluster.as_ref().expect("it runs");
        let drained = async { tokio::time::timeout(TIMEOUT, cluster.drain()).await };
        self.runtime.block_on(drained).expect("it is drained");
    }

    /// Ends as a process that is killed, whose connections the kernel closes.
    fn kill(mut self) {
        self.cluster = None;
    }

    fn write(&self, batch: Batch) -> Result<(), JournalError> {
        wait(|done| self.journal.write(batch, done))
    }

    /// Loads a room, which is not restored yet.
    fn begin_restoring(&self, id: &str) -> Stored {
        wait(|done| self.journal.load(id, done)).expect("it is loaded")
    }

    fn load(&self, id: &str) -> Stored {
        let loaded = self.begin_restoring(id);
        if let Stored::Room(room) = &loaded {
            self.journal.restored(room.number);
        }
        loaded
    }

    /// The number of a new room.
    fn new_room(&self, id: &str) -> RoomNumber {
        match self.load(id) {
            Stored::New(number) => number,
            other => panic!("it is there: {other:?}"),
        }
    }

    fn stored(&self, id: &str) -> StoredRoom {
        match self.load(id) {
            Stored::Room(room) => room,
            other => panic!("no room: {other:?}"),
        }
    }
}

/// Says to each node that connects which process this is, until the runtime ends.
async fn say_who_listens(listener: TcpListener) {
    let id = listener.local_addr().expect("it is bound").port();
    let mut connections = Vec::new();
    while let Ok((mut connection, _)) = listener.accept().await {
        let _ = connection.write_u64(id.into()).await;
        connections.push(connection);
    }
}

/// A room of this shard.
fn room_of(shard: Shard) -> String {
    use std::sync::OnceLock;
    static ROOMS: OnceLock<Vec<String>> = OnceLock::new();
    let rooms = ROOMS.get_or_init(|| {
        let mut rooms = vec![String::new(); SHARDS];
        let mut left = SHARDS;
        for n in 0.. {
            let id = format!("room-{n}");
            let room = &mut rooms[Shard::of_room(&id).index()];
            if room.is_empty() {
                *room = id;
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        rooms
    });
    rooms[shard.index()].clone()
}

/// Writes a batch; what is returned waits until it is done.
fn write_later(node: &Node, batch: Batch) -> impl FnOnce() -> Result<(), JournalError> + use<> {
    let (send, receive) = mpsc::channel();
    let done = move |result| drop(send.send(result));
    node.journal.write(batch, Box::new(done));
    move || receive.recv_timeout(TIMEOUT).expect("it calls back")
}

/// Loads a room; what is returned waits until it is done.
fn load_later(node: &Node, id: &str) -> impl FnOnce() -> Result<Stored, JournalError> + use<> {
    let (send, receive) = mpsc::channel();
    let done = move |result| drop(send.send(result));
    node.journal.load(id, Box::new(done));
    move || receive.recv_timeout(TIMEOUT).expect("it calls back")
}
