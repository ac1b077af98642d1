//! Clients that count, and what all of them have seen.

use crate::{
    machines::{NODES, TIMEOUT},
    support::Random,
};
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

const CLIENTS_OF_ROOM: usize = 2;

/// All clients.
pub struct Population {
    shared: Arc<Shared>,
    clients: JoinSet<Client>,
}

struct Shared {
    addresses: Vec<SocketAddr>,
    /// How often each node has begun to end, and how often it has ended: connections end meanwhile, and only then.
    ends: Vec<AtomicUsize>,
    /// Replies of each client.
    replies: Vec<watch::Sender<u64>>,
    is_finishing: AtomicBool,
    /// Whether a client has failed.
    has_failed: watch::Sender<bool>,
    reconnects: AtomicUsize,
    longest_wait_micros: AtomicU64,
    /// For each room, who has seen which count of all messages.
    seen: Mutex<HashMap<(usize, u32), (usize, u32)>>,
}

struct Client {
    number: usize,
    room: usize,
    sent: u32,
    /// What the room has counted of it, and of all, as it has last seen.
    seen: u32,
    total: u32,
}

/// What happened.
pub struct Totals {
    pub messages: u64,
    pub reconnects: usize,
    pub longest_wait: Duration,
}

impl Population {
    pub fn start(rooms: usize, addresses: Vec<SocketAddr>, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            addresses,
            ends: (0..NODES).map(|_| AtomicUsize::new(0)).collect(),
            replies: (0..rooms * CLIENTS_OF_ROOM)
                .map(|_| watch::Sender::new(0))
                .collect(),
            is_finishing: AtomicBool::new(false),
            has_failed: watch::Sender::new(false),
            reconnects: AtomicUsize::new(0),
            longest_wait_micros: AtomicU64::new(0),
            seen: Mutex::default(),
        });
        let mut clients = JoinSet::new();
        for number in 0..rooms * CLIENTS_OF_ROOM {
            let client = Client {
                number,
                room: number % rooms,
                sent: 0,
                seen: 0,
                total: 0,
            };
            let random = Random::of_seed(seed ^ (number as u64 + 1));
            clients.spawn(client.run(shared.clone(), random));
        }
        Self { shared, clients }
    }

    /// Waits until each client has had two more replies.
    pub async fn wait_for_progress(&self) {
        let replies = self.shared.replies.iter();
        let more = replies.map(|replies| (replies.subscribe(), *replies.borrow() + 2));
        for (mut replies, more) in more.collect::<Vec<_>>() {
            let mut has_failed = self.shared.has_failed.subscribe();
            tokio::select! {
                waited = timeout(TIMEOUT, replies.wait_for(|replies| *replies >= more)) => {
                    waited.expect("clients have replies").expect("clients run");
                }
                _ = has_failed.wait_for(|has_failed| *has_failed) => panic!("a client has failed"),
            }
        }
    }

    /// The connections of this node's clients may end from now on, also those that begin until it has ended.
    pub fn node_ends(&self, node: usize) {
        let ends = self.shared.ends[node].fetch_add(1, SeqCst);
        assert!(!is_ending(ends), "it ends already");
    }

    /// A node has ended.
    pub fn node_has_ended(&self, node: usize) {
        let ends = self.shared.ends[node].fetch_add(1, SeqCst);
        assert!(is_ending(ends), "it was not to end");
    }

    /// Lets all clients finish, and compares what they have seen.
    pub async fn finish(mut self) -> Totals {
        self.shared.is_finishing.store(true, SeqCst);
        let (mut counts, mut totals) = (HashMap::new(), HashMap::new());
        let mut messages = 0;
        while let Some(client) = self.clients.join_next().await {
            let client = client.expect("clients do not fail");
            *counts.entry(client.room).or_insert(0) += client.seen;
            let total = totals.entry(client.room).or_insert(0);
            *total = client.total.max(*total);
            messages += u64::from(client.seen);
        }
        assert_eq!(
            counts, totals,
            "what rooms have counted of each client, and of all"
        );
        Totals {
            messages,
            reconnects: self.shared.reconnects.load(SeqCst),
            longest_wait: Duration::from_micros(self.shared.longest_wait_micros.load(SeqCst)),
        }
    }
}

/// Whether a node was ending when this was its count.
const fn is_ending(ends: usize) -> bool {
    ends % 2 == 1
}

/// Tells that a client has failed.
struct ToldOnPanic(Arc<Shared>);

impl Drop for ToldOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.has_failed.send_replace(true);
        }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Client {
    async fn run(mut self, shared: Arc<Shared>, mut random: Random) -> Self {
        let _told = ToldOnPanic(shared.clone());
        // The node that it is connected to, and how often that had ended by then.
        let mut connection: Option<(Socket, usize, usize)> = None;
        let mut is_first = true;
        loop {
            if connection.is_none() {
                let node = random.below(NODES);
                let ends = shared.ends[node].load(SeqCst);
                let url = format!(
                    "ws://{}/ws/room-{}?token=client-{}",
                    shared.addresses[node], self.room, self.number
                );
                // A node that is stopped accepts connections, and says nothing until it goes on. To give up one
                // and open another would be to race with oneself.
                match timeout(TIMEOUT, connect_async(url)).await {
                    Ok(Ok((socket, _))) => connection = Some((socket, node, ends)),
                    _ => sleep(Duration::from_millis(50)).await,
                }
                is_first = true;
                continue;
            }
            let Some((socket, node, ends)) = &mut connection else {
                continue;
            };
            let sent_at = Instant::now();
            self.sent += 1;
            let reply = match socket.send(Message::text("count")).await {
                Ok(()) => timeout(TIMEOUT, reply(socket)).await,
                Err(error) => Ok(Err(error.to_string())),
            };
            let reply = reply
                .unwrap_or_else(|_| panic!("client {} of room {} waits", self.number, self.room));
            match reply {
                Ok((count, total)) => {
                    self.check(count, total, is_first, &shared);
                    is_first = false;
                    let waited = sent_at.elapsed().as_micros() as u64;
                    shared.longest_wait_micros.fetch_max(waited, SeqCst);
                    shared.replies[self.number].send_modify(|replies| *replies += 1);
                    if shared.is_finishing.load(SeqCst) {
                        return self;
                    }
                    sleep(Duration::from_millis(50 + random.below(300) as u64)).await;
                }
                Err(error) => {
                    let has_ended = is_ending(*ends) || shared.ends[*node].load(SeqCst) != *ends;
                    assert!(
                        has_ended,
                        "client {} of room {} has lost its connection to node {node}, which runs: {error}",
                        self.number, self.room
                    );
                    shared.reconnects.fetch_add(1, SeqCst);
                    connection = None;
                }
            }
        }
    }

    /// Each count must be the next one; only after a connection was lost, what was sent last may have been
    /// lost with it, or not.
    fn check(&mut self, count: u32, total: u32, is_first: bool, shared: &Shared) {
        let expected = self.seen + 1..=if is_first { self.sent } else { self.seen + 1 };
        assert!(
            expected.contains(&count),
            "client {} of room {} has count {count} after {} of {} sent",
            self.number,
            self.room,
            self.seen,
            self.sent
        );
        assert!(
            total > self.total,
            "the count of room {} is {total} again",
            self.room
        );
        (self.seen, self.total) = (count, total);
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let message = (self.number, count);
        let before = *seen.entry((self.room, total)).or_insert(message);
        assert_eq!(
            before, message,
            "two owners of room {} were seen",
            self.room
        );
    }
}

/// What the room says next, or why the connection has ended.
async fn reply(socket: &mut Socket) -> Result<(u32, u32), String> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                let bytes: [u8; 8] = bytes[..].try_into().map_err(|_| "eight bytes")?;
                let [a, b, c, d, e, f, g, h] = bytes;
                return Ok((
                    u32::from_le_bytes([a, b, c, d]),
                    u32::from_le_bytes([e, f, g, h]),
                ));
            }
            Some(Ok(Message::Close(frame))) => return Err(format!("{frame:?}")),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("the end".into()),
        }
    }
}
