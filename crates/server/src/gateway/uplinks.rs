//! Connections of a leaf to the nodes of its cluster, which use them for clients of its rooms.

use super::{
    peers::{Forwarded, introduce, keep_alive, new_connection, read_introduction, refusal},
    process::Process,
};
use crate::{
    config::ServerConfig,
    http::ConnectionLimiter,
    leaf::{Leaf, leaf_room},
    rooms::worker_pool::LocalRooms,
    stream::Stream,
};
use core::{future::Future, time::Duration};
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// What opens them.
pub(crate) struct Uplinks {
    leaf: Leaf,
    rooms: LocalRooms,
    limiter: ConnectionLimiter,
    /// Time for what a node says first, once it has begun.
    timeout: Duration,
}

/// Connections to each node that wait for a client.
const SLOTS: usize = 4;

/// Nodes that are connected to, of those that there are.
const MAX_NODES: usize = 256;

impl Uplinks {
    /// None if the server is no leaf.
    pub(crate) fn new(
        config: &ServerConfig,
        rooms: &LocalRooms,
        limiter: &ConnectionLimiter,
    ) -> Option<Self> {
        Some(Self {
            leaf: config.leaf.clone()?,
            rooms: rooms.clone(),
            limiter: limiter.clone(),
            timeout: config.handshake_timeout,
        })
    }

    /// Serves until `stop` resolves; clients that have come stay connected.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()>) {
        let this = Arc::new(self);
        let mut nodes = this.leaf.nodes.clone();
        let following = async {
            let mut links = BTreeMap::<SocketAddr, JoinSet<()>>::new();
            loop {
                let mut known = nodes.borrow_and_update().clone();
                known.truncate(MAX_NODES);
                // The tasks of the others end.
                links.retain(|node, _| known.contains(node));
                for node in known {
                    links.entry(node).or_insert_with(|| this.connect_to(node));
                }
                if nodes.changed().await.is_err() {
                    core::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = following => {}
            () = stop => {}
        }
    }

    fn connect_to(self: &Arc<Self>, node: SocketAddr) -> JoinSet<()> {
        let mut slots = JoinSet::new();
        for _ in 0..SLOTS {
            slots.spawn(self.clone().keep_connected(node));
        }
        slots
    }

    /// Has one connection to a node wait for a client, and then the next one, without end.
    async fn keep_connected(self: Arc<Self>, node: SocketAddr) {
        const MIN_PAUSE: Duration = Duration::from_millis(50);
        const MAX_PAUSE: Duration = Duration::from_secs(2);
        let mut pause = MIN_PAUSE;
        loop {
            let began = Instant::now();
            match self.serve_one(node).await {
                Ok(()) => pause = MIN_PAUSE,
                Err(error) => {
                    log::debug!("the connection to the node at {node} was not used: {error}");
                    if began.elapsed() > MAX_PAUSE {
                        pause = MIN_PAUSE;
                    }
                    sleep(pause).await;
                    pause = (2 * pause).min(MAX_PAUSE);
                }
            }
        }
    }

    /// Waits for a client, and hands it to its room.
    async fn serve_one(&self, node: SocketAddr) -> io::Result<()> {
        /// A cluster may be far away.
        const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
        let connecting = async {
            let mut stream = TcpStream::connect(node).await?;
            let _ = stream.set_nodelay(true);
            keep_alive(&stream)?;
            introduce(&mut stream, self.leaf.secret.expose(), None).await?;
            Process::read(node, &mut stream).await?;
            io::Result::Ok(stream)
        };
        let mut stream = timeout(CONNECT_TIMEOUT, connecting).await??;
        if stream.peek(&mut [0]).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let introduction = timeout(self.timeout, read_introduction(&mut stream)).await??;
        let mut client = Forwarded::from(introduction);
        let room = leaf_room(&client.room).filter(|(name, _)| *name == self.leaf.name);
        let (_, room) = room.ok_or_else(|| io::Error::other("the room is not of this leaf"))?;
        client.room = room.into();
        let permit = self.limiter.admit_proxy().map_err(refusal)?;
        let connection = new_connection(Stream::Plain(stream), client, permit, node)?;
        self.rooms.connect(connection);
        Ok(())
    }
}
