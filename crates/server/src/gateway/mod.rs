//! Clients whose rooms may be at other nodes of a cluster.
//!
//! A gateway is a worker without rooms. It has the sockets of clients, and for each of them a session of
//! `stateroom.resume.1` with the node that has its room, which may be this one. When that node dies, or gives
//! the room up, the gateway goes on with the session at the next one, and the client notices nothing.
//!
//! A client that speaks `stateroom.resume.1` itself needs no gateway: its bytes are passed on as they are
//! ([`pipe`]), and it connects again when its room is elsewhere. So its session is one with the room's
//! node, and outlives this one, too.

mod leaves;
mod link;
mod peers;
mod pipe;
mod process;
mod uplinks;

pub use self::process::wait_for_peer_end;
pub(crate) use self::{peers::Peers, uplinks::Uplinks};

use self::{
    leaves::Leaves,
    link::{Ended, Link},
    peers::{CONNECT_TIMEOUT, Forwarded, PeerSecret, new_connection, refusal},
    process::Process,
};
use crate::{
    config::ServerConfig,
    directory::{Directory, Location},
    http::ConnectionLimiter,
    leaf::leaf_room,
    metrics::{GatewayMetrics, Metrics},
    rooms::{
        AdminError, Busy, Claim, Closed, JoinRejection, Rooms, STOPPING,
        clients::{ClientLimits, Clients},
        handover::Listing,
        session_secret,
        trials::Suspicion,
        watches::Watch,
        worker::Worker,
        worker_pool::LocalRooms,
    },
    stream::Stream,
    ws::{
        connection::ConnectionKey,
        send_queue::{QueueLimits, QueuedBytes, SendQueue},
    },
};
use core::{task::Waker, time::Duration};
use hashbrown::HashMap;
use stateroom_wasmi_host::{ClientId, Instant as HostTime, MessagePayload, Module, RoomKey};
use stateroom_wasmi_resume::{ClientSession, Message};
use std::{io, net::SocketAddr, rc::Rc, sync::Arc};
use tokio::{
    task::spawn_local,
    time::{Instant, sleep, timeout, timeout_at},
};

/// How a gateway reaches rooms.
pub(crate) struct Routes {
    directory: Arc<dyn Directory>,
    rooms: LocalRooms,
    leaves: Leaves,
    secret: PeerSecret,
    /// Counts clients of rooms that are here.
    limiter: ConnectionLimiter,
    owner_timeout: Duration,
    /// After which a node that says nothing has gone.
    silence: Duration,
    max_message_bytes: usize,
}

impl Routes {
    pub(crate) fn new(
        config: &ServerConfig,
        directory: Arc<dyn Directory>,
        rooms: LocalRooms,
        limiter: ConnectionLimiter,
    ) -> Self {
        Self {
            directory,
            rooms,
            leaves: Leaves::default(),
            secret: PeerSecret::new(config),
            limiter,
            owner_timeout: config.owner_timeout,
            silence: config.heartbeat_timeout,
            max_message_bytes: config.limits.max_message_bytes,
        }
    }

    /// Closes connections of leaves when these have gone: they count, and nobody will use them.
    async fn forget_leaves(&self) {
        const INTERVAL: Duration = Duration::from_secs(1);
        let mut changes = self.directory.changes();
        while changes.changed().await.is_ok() {
            self.leaves.retain(|hash| self.directory.leaf(hash));
            sleep(INTERVAL).await;
        }
    }

    /// Opens a connection to the node of a room; returns with it the process that has it, if that may end without
    /// this one.
    async fn open(
        &self,
        location: Location,
        client: &Forwarded,
    ) -> io::Result<(Stream, Option<Process>)> {
        /// What may be on its way between a gateway and a room of the same node.
        const PIPE_BYTES: usize = 64 << 10;
        match location {
            Location::Node(node) => {
                let (stream, process) = peers::connect(node, &self.secret, client).await?;
                Ok((stream, Some(process)))
            }
            Location::Leaf(leaf) => {
                let connecting = self.leaves.connect(leaf, client);
                Ok((timeout(CONNECT_TIMEOUT, connecting).await??, None))
            }
            Location::Here => {
                let permit = self.limiter.admit_proxy().map_err(refusal)?;
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                let theirs = Stream::Pipe(theirs);
                let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                let connection = new_connection(theirs, client.clone(), permit, nowhere);
                self.rooms.connect(connection?);
                Ok((Stream::Pipe(ours), None))
            }
            Location::Unknown => Err(io::ErrorKind::HostUnreachable.into()),
        }
    }
}

/// A gateway's clients. Each of them is alone in a room of its own, as far as its worker can tell.
pub(crate) struct GatewayRooms {
    clients: Clients,
    forwards: HashMap<RoomKey, Forward>,
    /// Those that have just come.
    new: Vec<RoomKey>,
    next_key: u64,
    /// Bytes that nodes have not acknowledged. They are no queue: what is there says nothing of how clients read.
    unacknowledged: usize,
    /// Bytes that wait to be sent to nodes.
    outgoing: QueuedBytes,
    /// Beyond it, clients are not read from of whom enough is there to be acknowledged; beyond twice that, those
    /// are closed of whom most is.
    max_unacknowledged: usize,
    max_unacknowledged_bytes: usize,
    max_forwards: usize,
    /// How often a session has gone on over another connection.
    resumed: u64,
    is_stopping: bool,
}

/// A client, and its session with the node that has its room.
struct Forward {
    client: Forwarded,
    session: ClientSession,
    /// Bytes of messages that the node has not acknowledged, as far as they are counted.
    counted: usize,
    /// Messages that the client has sent.
    sent: u64,
    blame: Blame,
    /// For the present connection to the node.
    outgoing: SendQueue,
    /// Whether there is a connection over which the session goes on.
    is_linked: bool,
    /// Whether a node may have let the client join.
    has_said_hello: bool,
    /// Whether the client has joined its room, as far as this gateway knows.
    has_joined: bool,
    /// Whether it has left, or will when the room has handled what it has sent.
    is_leaving: bool,
    /// Of the task that has the connection to the node.
    waker: Waker,
}

/// Nodes that have ended, and perhaps of what this client has sent.
///
/// What ends its node is never acknowledged. So it was among what was not when the first of them ended; when all
/// of that is, it was something else. It begins anew as well when a node acknowledges what it has handled itself:
/// that one does not end at once. (What a node knows to be handled when it begins tells nothing.)
#[derive(Clone, Copy, Debug, Default)]
struct Blame {
    deaths: u32,
    /// Set with the first: the last that was not acknowledged then. The join counts as the first message.
    until: u64,
}

impl Forward {
    /// What was sent, and how much of that was acknowledged; the join counts as the first message.
    fn progress(&self) -> (u64, u64) {
        let (waiting, _) = self.session.unacknowledged_size();
        match self.has_joined {
            true => (1 + self.sent, 1 + self.sent - waiting as u64),
            false => (1 + self.sent, 0),
        }
    }

    /// The node has ended, and had gone on with the session.
    fn node_died(&mut self) {
        let (sent, acknowledged) = self.progress();
        if self.blame.deaths == 0 {
            self.blame.until = sent;
        }
        if acknowledged < self.blame.until {
            self.blame.deaths = self.blame.deaths.saturating_add(1);
        }
    }

    /// Something may have been acknowledged: by the node itself, or because it knows of it from those before.
    fn acknowledged(&mut self, by_itself: bool) {
        let (_, acknowledged) = self.progress();
        if by_itself || acknowledged >= self.blame.until {
            self.blame = Blame::default();
        }
    }

    /// What the next node must know.
    fn suspicion(&self) -> Suspicion {
        Suspicion {
            deaths: self.blame.deaths,
            messages: self.sent,
        }
    }
}

/// A client's id in its room.
const CLIENT: ClientId = ClientId(1);

/// Messages of a client that its node has not acknowledged; beyond that, and beyond some bytes, the client is
/// not read from.
const MAX_UNACKNOWLEDGED_MESSAGES: usize = 256;

/// A node acknowledges after so many small messages, or so many bytes of long ones. What is kept may be less
/// than that for ever.
const ACK_MESSAGES: usize = 16;
const ACK_BYTES: usize = 256 << 10;

/// Nothing but the session bounds what is sent to a node.
const UNLIMITED: QueueLimits = QueueLimits {
    messages: usize::MAX,
    bytes: usize::MAX,
};

/// Time for nodes to take the clients' last messages at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Forwards clients until the gateway is stopped.
pub(crate) async fn run(worker: Rc<Worker<GatewayRooms>>, routes: Arc<Routes>) -> io::Result<()> {
    loop {
        let (new, is_stopping) = worker.with(|rooms| {
            rooms.remove_slow();
            (core::mem::take(&mut rooms.new), rooms.is_stopping)
        });
        for key in new {
            let link = Link::new(worker.clone(), routes.clone(), key);
            spawn_local(link.run());
        }
        if is_stopping {
            break;
        }
        worker.wait().await;
    }
    let until = Instant::now() + SHUTDOWN_GRACE;
    while !worker.with(|rooms| rooms.forwards.is_empty()) {
        if timeout_at(until, worker.wait()).await.is_err() {
            break;
        }
    }
    Ok(())
}

impl GatewayRooms {
    pub(crate) fn new(mut limits: ClientLimits, max_message_bytes: usize) -> Self {
        // Of the other half, a half is for what was not acknowledged, and one to send that again.
        limits.max_queued_bytes /= 2;
        // There is space for the next message if nothing is acknowledged.
        let max_unacknowledged_bytes = max_message_bytes.saturating_add(2 * ACK_BYTES);
        Self {
            // It has no tokens and no sessions of its own.
            clients: Clients::new(limits, [0; 32], None),
            forwards: HashMap::new(),
            new: Vec::new(),
            next_key: 0,
            unacknowledged: 0,
            outgoing: QueuedBytes::default(),
            // More than one client has by itself.
            max_unacknowledged: (limits.max_queued_bytes / 4).max(2 * max_unacknowledged_bytes),
            max_unacknowledged_bytes,
            max_forwards: limits.sessions.saturating_mul(2),
            resumed: 0,
            is_stopping: false,
        }
    }

    /// The client of a room.
    fn connection(&self, key: RoomKey) -> Option<ConnectionKey> {
        self.clients.connection_of(key, CLIENT)
    }

    /// Clients that were too slow have left.
    fn remove_slow(&mut self) {
        for (key, _) in self.clients.take_removed(HostTime::ZERO) {
            self.begin_to_leave(key);
        }
    }

    fn begin_to_leave(&mut self, key: RoomKey) {
        if let Some(forward) = self.forwards.get_mut(&key) {
            forward.is_leaving = true;
            forward.waker.wake_by_ref();
        }
    }

    /// Counts what a session keeps, after that has changed.
    fn count(&mut self, key: RoomKey) {
        if let Some(forward) = self.forwards.get_mut(&key) {
            let (_, bytes) = forward.session.unacknowledged_size();
            self.unacknowledged = self.unacknowledged + bytes - forward.counted;
            forward.counted = bytes;
        }
        while self.unacknowledged > 2 * self.max_unacknowledged {
            let Some(key) = self.largest_of_slowest() else {
                return;
            };
            let reason = "the node of the room takes too long";
            self.finish(key, Ended::Closed(1013, reason.into()));
        }
    }

    /// The client of whom most is not acknowledged, among those of the leaf, or of all nodes, of whom it is most
    /// together: no leaf costs others' clients their connections.
    fn largest_of_slowest(&self) -> Option<RoomKey> {
        let leaf =
            |forward: &Forward| leaf_room(&forward.client.room).map(|(name, _)| name.to_owned());
        let mut sums = HashMap::<_, usize>::new();
        for forward in self.forwards.values() {
            *sums.entry(leaf(forward)).or_default() += forward.counted;
        }
        let (slowest, _) = sums.into_iter().max_by_key(|(_, bytes)| *bytes)?;
        let forwards = self.forwards.iter();
        let its = forwards.filter(|(_, forward)| leaf(forward) == slowest);
        its.max_by_key(|(_, forward)| forward.counted)
            .map(|(key, _)| *key)
    }

    /// Ends what is done for a client, and its connection if it has one.
    fn finish(&mut self, key: RoomKey, ended: Ended) {
        if let Some(forward) = self.forwards.remove(&key) {
            self.unacknowledged -= forward.counted;
            forward.waker.wake();
        }
        let connection = self.clients.leave(key, CLIENT);
        if let Some(connection) = connection.and_then(|key| self.clients.get(key)) {
            connection.waits_to_end = false;
            match ended {
                Ended::Closed(code, reason) => connection.close(code, &reason, true),
                // It ends as it was about to.
                Ended::Left => connection.wake(),
            }
        }
        // It is empty.
        self.clients.close_room(key, 1000, "");
    }
}

impl Rooms for GatewayRooms {
    fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    fn join(
        &mut self,
        connection: ConnectionKey,
        id: &str,
        claim: Claim,
    ) -> Result<(), JoinRejection> {
        if self.is_stopping {
            return Err(JoinRejection::stopping());
        }
        // Some have left and are still to say goodbye, at nodes that may not be reached.
        if self.forwards.len() >= self.max_forwards {
            let reason = "too many clients wait for the nodes of their rooms";
            return Err(JoinRejection::new(1013, reason));
        }
        let secret = session_secret()?;
        self.next_key += 1;
        let key = RoomKey::from_bits(self.next_key);
        self.clients.join(key, CLIENT, connection);
        let Some(joining) = self.clients.get(connection) else {
            return Ok(());
        };
        joining.waits_to_end = true;
        let client = Forwarded {
            room: id.into(),
            token: claim.token,
            address: joining.peer(),
            session: Some(secret),
            order: joining.order,
            suspicion: Suspicion::default(),
        };
        let forward = Forward {
            client,
            session: ClientSession::new(MAX_UNACKNOWLEDGED_MESSAGES, self.max_unacknowledged_bytes),
            counted: 0,
            sent: 0,
            blame: Blame::default(),
            outgoing: SendQueue::new(UNLIMITED, self.outgoing.clone()),
            is_linked: false,
            has_said_hello: false,
            has_joined: false,
            is_leaving: false,
            waker: Waker::noop().clone(),
        };
        self.forwards.insert(key, forward);
        self.new.push(key);
        Ok(())
    }

    fn message(
        &mut self,
        connection: ConnectionKey,
        (key, _): (RoomKey, ClientId),
        payload: MessagePayload<'_>,
    ) -> Result<(), Busy> {
        let Some(forward) = self.forwards.get_mut(&key).filter(|it| !it.is_leaving) else {
            return Ok(());
        };
        let (messages, bytes) = forward.session.unacknowledged_size();
        // Only if the node will acknowledge something.
        let is_full = self.unacknowledged >= self.max_unacknowledged
            && (messages >= ACK_MESSAGES || bytes >= ACK_BYTES);
        let message = match payload {
            MessagePayload::Text(text) => Message::Text(text.into()),
            MessagePayload::Bytes(bytes) => Message::Binary(bytes.into()),
        };
        let is_kept = !is_full && forward.session.keep(message).is_ok();
        forward.sent += u64::from(is_kept);
        if is_kept && forward.session.is_open() {
            // Without limits it has space.
            let _ = forward.outgoing.push_prefixed(payload);
            forward.waker.wake_by_ref();
        }
        if let Some(connection) = self.clients.get(connection) {
            // It is woken when the node acknowledges something.
            connection.waits_for_room = !is_kept;
        }
        self.count(key);
        if is_kept { Ok(()) } else { Err(Busy) }
    }

    fn ending(&mut self, (key, _): (RoomKey, ClientId)) {
        self.begin_to_leave(key);
    }

    fn leave(&mut self, (key, client): (RoomKey, ClientId)) {
        self.clients.leave(key, client);
        self.begin_to_leave(key);
    }

    fn list(&self) -> Listing {
        Listing::default()
    }

    fn metrics(&self, _busiest: usize) -> Metrics {
        let is_waiting = |forward: &&Forward| !forward.is_linked;
        let gateway = GatewayMetrics {
            clients: self.forwards.len(),
            waiting: self.forwards.values().filter(is_waiting).count(),
            resumed: self.resumed,
        };
        let queued = self.clients.queued().get() + self.outgoing.get();
        Metrics::of_gateway(gateway, queued + self.unacknowledged)
    }

    fn close(&mut self, _id: &str, done: Closed) {
        // Fails if the operator has gone.
        let _ = done.send(Err(AdminError::UnknownRoom));
    }

    fn watch(&mut self, _id: &str, _watch: Watch) -> Result<(), AdminError> {
        Err(AdminError::UnknownRoom)
    }

    fn save(&mut self, _id: &str) -> Result<Vec<u8>, AdminError> {
        Err(AdminError::UnknownRoom)
    }

    fn replace_module(&mut self, _module: Module) {}

    fn stop(&mut self) {
        self.is_stopping = true;
        let (code, reason) = STOPPING;
        let keys: Vec<_> = self.forwards.keys().copied().collect();
        for key in keys {
            if let Some(connection) = self.clients.leave(key, CLIENT)
                && let Some(connection) = self.clients.get(connection)
            {
                connection.close(code, reason, true);
            }
            self.begin_to_leave(key);
        }
    }
}
