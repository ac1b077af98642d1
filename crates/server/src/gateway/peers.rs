//! Connections between the nodes of a cluster.
//!
//! Whoever opens one says first for whom: four bytes, the length in big endian, and JSON; the other end says which
//! [`Process`] it is. Then both ends speak WebSocket, without a handshake, and in it `stateroom.resume.1`. A leaf
//! only says who it is; the node says for whom, as if it had opened the connection, when there is a client.

use super::{
    Routes,
    process::{Process, ProcessId},
};
use crate::{
    config::ServerConfig,
    http::{
        ConnectionLimiter, ConnectionPermit, Rejection, accept::accept_failed, listen::Listener,
    },
    log_limit::LogLimiter,
    rooms::{Order, handover::NewConnection, trials::Suspicion, worker_pool::LocalRooms},
    stream::Stream,
};
use bytes::Bytes;
use core::{future::Future, time::Duration};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use socket2::{SockRef, TcpKeepalive};
use std::{
    borrow::Cow,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

/// What the nodes know each other by. Hashes are compared, so that the time that it takes tells nothing of
/// the secret.
#[derive(Clone)]
pub(super) struct PeerSecret {
    text: Arc<str>,
    hash: [u8; 32],
}

impl PeerSecret {
    pub(super) fn new(config: &ServerConfig) -> Self {
        let text = config.peer_secret.as_ref();
        let text: Arc<str> = text.map_or("", |secret| secret.expose()).into();
        let hash = Sha256::digest(text.as_bytes()).into();
        Self { text, hash }
    }

    /// An empty secret is none, and not right.
    fn is(&self, text: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        !text.is_empty() && hash == self.hash
    }
}

/// The client on whose behalf a connection is opened.
#[derive(Clone, Debug)]
pub(super) struct Forwarded {
    pub(super) room: Box<str>,
    pub(super) token: Option<Box<str>>,
    /// The client's address, as far as limits go.
    pub(super) address: Option<IpAddr>,
    /// The secret of the session, if the other end is a gateway that speaks for the client; or else it is the
    /// client itself.
    pub(super) session: Option<Box<str>>,
    pub(super) order: Order,
    /// What the gateway knows of nodes that have ended.
    pub(super) suspicion: Suspicion,
}

/// What is said first.
#[derive(Serialize, Deserialize)]
pub(super) struct Introduction<'a> {
    version: u32,
    secret: Cow<'a, str>,
    /// Whether it is a leaf's, and for a client that will come: then the secret is the leaf's, and the rest is
    /// empty.
    #[serde(default)]
    leaf: bool,
    room: Cow<'a, str>,
    token: Option<Cow<'a, str>>,
    address: Option<IpAddr>,
    session: Option<Cow<'a, str>>,
    /// As in [`Order`].
    sequence: u64,
    #[serde(default)]
    attempt: u64,
    /// As in [`Suspicion`].
    #[serde(default)]
    deaths: u32,
    #[serde(default)]
    messages: u64,
}

const VERSION: u32 = 2;

/// Longer introductions are none: more than the head of a client's request may have, escaped.
const MAX_INTRODUCTION_BYTES: usize = 128 << 10;

/// Time to open a connection. A node that is there takes milliseconds.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a connection to a node.
pub(super) async fn connect(
    node: SocketAddr,
    secret: &PeerSecret,
    client: &Forwarded,
) -> io::Result<(Stream, Process)> {
    let connected = async {
        let mut stream = TcpStream::connect(node).await?;
        let _ = stream.set_nodelay(true);
        introduce(&mut stream, &secret.text, Some(client)).await?;
        let process = Process::read(node, &mut stream).await?;
        io::Result::Ok((Stream::Plain(stream), process))
    };
    timeout(CONNECT_TIMEOUT, connected).await?
}

/// Says for whom a connection is; that of a leaf is for nobody yet.
pub(super) async fn introduce(
    stream: &mut TcpStream,
    secret: &str,
    client: Option<&Forwarded>,
) -> io::Result<()> {
    let introduction = Introduction {
        version: VERSION,
        secret: secret.into(),
        leaf: client.is_none(),
        room: client.map_or("", |client| &client.room).into(),
        token: client.and_then(|client| client.token.as_deref().map(Into::into)),
        address: client.and_then(|client| client.address),
        session: client.and_then(|client| client.session.as_deref().map(Into::into)),
        sequence: client.map_or(0, |client| client.order.sequence),
        attempt: client.map_or(0, |client| client.order.attempt),
        deaths: client.map_or(0, |client| client.suspicion.deaths),
        messages: client.map_or_else(Default::default, |client| client.suspicion.messages),
    };
    let json = serde_json::to_vec(&introduction)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let introduction = [&length.to_be_bytes()[..], &json].concat();
    stream.write_all(&introduction).await
}

/// Reads what is said first.
pub(super) async fn read_introduction(stream: &mut TcpStream) -> io::Result<Introduction<'static>> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > MAX_INTRODUCTION_BYTES {
        return Err(malformed("it introduces itself with too many words"));
    }
    let mut json = Vec::new();
    let read = stream.take(length as u64).read_to_end(&mut json).await?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let introduction: Introduction<'static> =
        serde_json::from_slice(&json).map_err(|_| malformed("it is no node"))?;
    match introduction.version {
        VERSION => Ok(introduction),
        _ => Err(malformed("it speaks another version")),
    }
}

impl From<Introduction<'_>> for Forwarded {
    fn from(introduction: Introduction<'_>) -> Self {
        Self {
            room: introduction.room.into(),
            token: introduction.token.map(Into::into),
            address: introduction.address,
            session: introduction.session.map(Into::into),
            order: Order {
                sequence: introduction.sequence,
                attempt: introduction.attempt,
            },
            suspicion: Suspicion {
                deaths: introduction.deaths,
                messages: introduction.messages,
            },
        }
    }
}

/// Has the system find out when the other end of a connection is not there any more, and keeps what is between
/// them from forgetting a connection on which nothing is said.
pub(super) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    const TIME: Duration = Duration::from_secs(15);
    const INTERVAL: Duration = Duration::from_secs(5);
    let options = TcpKeepalive::new().with_time(TIME).with_interval(INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&options)
}

/// Takes connections of other nodes.
pub(crate) struct Peers {
    rooms: LocalRooms,
    /// None if all rooms are here.
    routes: Option<Arc<Routes>>,
    secret: PeerSecret,
    id: ProcessId,
    limiter: ConnectionLimiter,
    timeout: Duration,
    log: LogLimiter,
}

impl Peers {
    pub(crate) fn new(
        config: &ServerConfig,
        rooms: LocalRooms,
        routes: Option<Arc<Routes>>,
        limiter: ConnectionLimiter,
    ) -> io::Result<Self> {
        Ok(Self {
            rooms,
            routes,
            secret: PeerSecret::new(config),
            id: ProcessId::random()?,
            limiter,
            timeout: config.handshake_timeout,
            log: LogLimiter::new(),
        })
    }

    /// Serves until `stop` resolves.
    pub(crate) async fn serve(self, listeners: Vec<Listener>, stop: impl Future<Output = ()>) {
        let this = Arc::new(self);
        // Each task holds a receiver until it ends.
        let (stopping, is_stopping) = watch::channel(());
        for listener in listeners {
            let mut stopped = is_stopping.clone();
            let accepting = this.clone().accept(listener, is_stopping.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = accepting => {}
                    _ = stopped.changed() => {}
                }
            });
        }
        if let Some(routes) = this.routes.clone() {
            let mut stopped = is_stopping.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = routes.forget_leaves() => {}
                    _ = stopped.changed() => {}
                }
            });
        }
        drop(is_stopping);
        stop.await;
        let _ = stopping.send(());
        stopping.closed().await;
    }

    async fn accept(self: Arc<Self>, listener: Listener, is_stopping: watch::Receiver<()>) {
        loop {
            match listener.socket.accept().await {
                Ok((stream, address)) => {
                    let (this, mut stopped) = (self.clone(), is_stopping.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = this.take(stream, address) => {}
                            _ = stopped.changed() => {}
                        }
                    });
                }
                Err(error) => {
                    if let Some(pause) = accept_failed(&error, &self.log) {
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    async fn take(&self, mut stream: TcpStream, address: SocketAddr) {
        let taken = async {
            // Eight bytes always fit. It is said even if there are too many connections: the process has not ended.
            self.id.write(&mut stream).await?;
            let permit = self.limiter.admit_proxy().map_err(refusal)?;
            let _ = stream.set_nodelay(true);
            let introduced = timeout(self.timeout, read_introduction(&mut stream)).await??;
            if introduced.leaf {
                return self.take_leaf(stream, &introduced.secret, permit);
            }
            if !self.secret.is(&introduced.secret) {
                return Err(malformed("its secret is wrong"));
            }
            let client = Forwarded::from(introduced);
            self.hand_over(Stream::Plain(stream), client, permit, address)
        };
        match taken.await {
            Ok(()) => {}
            // Nodes hold connections open to notice when one ends.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::TimedOut
                ) =>
            {
                log::debug!("a node at {address} has said nothing: {error}");
            }
            Err(error) => {
                if let Some(permit) = self.log.permit() {
                    log::warn!("rejected the connection of a node at {address}: {error}{permit}");
                }
            }
        }
    }

    /// Keeps a leaf's connection for a client.
    fn take_leaf(
        &self,
        stream: TcpStream,
        secret: &str,
        permit: ConnectionPermit,
    ) -> io::Result<()> {
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let found = self.routes.as_ref().and_then(|routes| {
            let leaf = routes.directory.leaf(hash)?;
            Some((routes, leaf))
        });
        let (routes, leaf) = found.ok_or_else(|| malformed("it is no leaf that is known"))?;
        routes.leaves.offer(leaf, hash, stream, permit)
    }

    fn hand_over(
        &self,
        stream: Stream,
        client: Forwarded,
        permit: ConnectionPermit,
        address: SocketAddr,
    ) -> io::Result<()> {
        let connection = new_connection(stream, client, permit, address);
        self.rooms.connect(connection?);
        Ok(())
    }
}

/// The connection of a forwarded client, for the worker of its room.
pub(super) fn new_connection(
    stream: Stream,
    client: Forwarded,
    permit: ConnectionPermit,
    address: SocketAddr,
) -> io::Result<NewConnection> {
    let permit = match client.address {
        Some(address) => permit.of(address).map_err(refusal)?,
        None => permit,
    };
    Ok(NewConnection {
        stream: stream.detach()?,
        unread: Bytes::new(),
        permit,
        address,
        order: client.order,
        room: client.room,
        token: client.token,
        resumes: true,
        session: client.session,
        suspicion: client.suspicion,
    })
}

pub(super) fn refusal(Rejection { reason, .. }: Rejection) -> io::Error {
    io::Error::other(reason)
}

fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
