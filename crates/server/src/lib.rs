//! A WebSocket server for Stateroom rooms: one module, and one room per room id that clients
//! connect to.
//!
//! ```no_run
//! use stateroom_wasmi_server::{Server, ServerConfig};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ServerConfig::new(std::fs::read("chat.wasm")?).port(0);
//! let server = Server::bind(config).await?;
//! println!("listening on {}", server.local_addrs()[0]);
//! server.run(async { tokio::signal::ctrl_c().await.expect("no signal handler") }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | request | response |
//! | --- | --- |
//! | `GET /ws`, `GET /ws/{room}` | a WebSocket to a room, which opens with its first client; `/ws` is the room with the empty id; `?token=` gives a returning client its previous id |
//! | `GET /status` | `ok`; how many connections there are, if JSON is accepted |
//! | `GET /` | the files of a folder, or else a page to try the rooms |
//!
//! On [`ServerConfig::admin_listen`], for operators; and as well on the addresses above, if all of them are
//! loopback addresses and neither that nor an allowed origin is configured, as while a room is developed:
//!
//! | request | response |
//! | --- | --- |
//! | `GET /metrics` | metrics in the text format of Prometheus |
//! | `GET /rooms` | the rooms and their statistics, in JSON |
//! | `GET /rooms/{room}/snapshot` | a snapshot of the room |
//! | `GET /rooms/{room}/events` | what happens in the room from now on, as server-sent events |
//! | `POST /rooms/{room}/close` | ends the room; its clients are closed with 1001 |
//! | `GET /health`, `GET /ready` | 200; the latter 503 while the server is drained |
//! | `POST /drain` | from then on new clients get 503 |
//!
//! # Limits
//!
//! Everything that a client can do is bounded; [`ServerConfig`] has the limits and their defaults.
//! Cross-origin pages get 403, addresses with too many connections 429, and connections beyond the
//! server's limit 503. Clients over their message or byte rate are throttled, slow clients are
//! disconnected, and busy rooms apply backpressure.
//!
//! # Many nodes
//!
//! With a [`ServerConfig::directory`], servers are nodes of a cluster: each has some of the rooms, and takes
//! clients of all of them. A client's socket stays where it is when its room goes to another node, or when
//! that has died. What tells the nodes apart, a [`Directory`] and a [`Journal`](journal::Journal) that refuses
//! what a node writes of a room which it does not have any more, is not a part of this crate.
//!
//! A [`Leaf`] has rooms of its own, which clients of all nodes reach.
//!
//! # Threads
//!
//! Rooms are spread over workers: threads that each own a `Host`, an interpreter, and the
//! connections of its rooms. The runtime that calls [`Server::run`] accepts connections and serves
//! HTTP; one of a single thread is enough.
//!
//! # Features
//!
//! `board` adds `Server::attach`, which serves the rooms of a microcontroller at the other end of a
//! link. `jwt` adds `auth::JwtAuthenticator`, for clients with JSON Web Tokens, and `tls`
//! `ServerConfig::tls`.

#![forbid(unsafe_code)]

pub mod auth;
#[cfg(feature = "board")]
mod board;
mod config;
mod control;
mod directory;
mod gateway;
mod http;
pub mod journal;
mod leaf;
mod log_limit;
mod metrics;
mod rate_limit;
#[cfg(any(feature = "jwt", feature = "tls"))]
mod reload;
mod rooms;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod ws;

#[cfg(feature = "board")]
pub use self::board::{AddressError, BoardAddress};
#[cfg(feature = "tls")]
pub use self::tls::{TlsError, TlsFiles};
pub use self::{
    config::{ConfigError, MoreMetrics, ProxyHeader, Secret, ServeError, ServerConfig},
    control::ServerControl,
    directory::{Directory, Location},
    gateway::wait_for_peer_end,
    leaf::{Leaf, leaf_room},
    rate_limit::Rate,
    rooms::load::{GroupLoad, ServerLoad},
};

use crate::{
    gateway::{Peers, Uplinks},
    http::{
        ConnectionLimiter,
        accept::{Acceptor, warn_of_few_files},
        listen::{Listener, are_local, listen},
        routes::{App, Shared},
    },
    rooms::worker_pool::{WorkerEnds, WorkerPool},
};
#[cfg(feature = "board")]
use core::time::Duration;
use core::{future::Future, pin::pin};
use futures_util::{
    FutureExt,
    future::{OptionFuture, join4},
};
use stateroom_wasmi_host::Escaped;
use std::{io, net::SocketAddr, sync::Arc};
use tokio::sync::oneshot;

/// A server that listens; [`run`](Self::run) serves.
pub struct Server {
    acceptor: Acceptor,
    addresses: Vec<SocketAddr>,
    /// Of the addresses for operators alone, if there are any.
    admin: Option<(Acceptor, Vec<SocketAddr>)>,
    /// For the other nodes of a cluster, if it listens for them.
    peers: Option<(Peers, Vec<Listener>)>,
    /// If it is a leaf of a cluster.
    uplinks: Option<Uplinks>,
    control: ServerControl,
    module_name: String,
    workers: Arc<WorkerPool>,
    ends: WorkerEnds,
}

impl Server {
    /// Checks the configuration, loads the module and listens.
    ///
    /// # Errors
    ///
    /// If a setting is not what it must be, the module cannot be loaded, or an address cannot be
    /// bound.
    pub async fn bind(config: ServerConfig) -> Result<Self, ServeError> {
        config.check()?;
        let peers = ConnectionLimiter::for_peers(&config);
        Self::bind_with(WorkerPool::start(&config, &peers)?, config, peers).await
    }

    /// Listens for clients of rooms that run on a board, at the other end of a link.
    ///
    /// The configuration's module, workers and room limits are unused, except for
    /// [`Limits::max_message_bytes`](stateroom_wasmi_host::Limits::max_message_bytes). The link is
    /// opened when the server runs, and reopened whenever it breaks.
    ///
    /// # Errors
    ///
    /// If a setting is not what it must be, or an address cannot be bound.
    #[cfg(feature = "board")]
    pub async fn attach(mut config: ServerConfig, board: BoardAddress) -> Result<Self, ServeError> {
        config.check()?;
        config.module_name = board::module_name(&board);
        config.module = Vec::new();
        config.workers = 1;
        // A session of a client ends with that of the board, which tells no more than that a message was
        // taken. To come back over a node of a cluster is worth it, as the board notices nothing.
        if config.leaf.is_none() {
            config.resume_window = Duration::ZERO;
        }
        config.directory = None;
        config.peer_listen = None;
        let peers = ConnectionLimiter::for_peers(&config);
        Self::bind_with(WorkerPool::for_board(board, &config)?, config, peers).await
    }

    async fn bind_with(
        (workers, ends): (WorkerPool, WorkerEnds),
        config: ServerConfig,
        peers: ConnectionLimiter,
    ) -> Result<Self, ServeError> {
        let workers = Arc::new(workers);
        let loader = (!config.module.is_empty()).then(|| config.loader());
        let shared = Shared::new(&workers);
        let listeners = listen(&config.hosts, config.port).await?;
        let addresses = addresses_of(&listeners);
        let app = App::for_clients(&config, &workers, &shared, are_local(&listeners))?;
        warn_of_few_files(config.max_connections);
        let acceptor = Acceptor::new(listeners, &config, app, workers.clone(), true)?;
        let admin = match &config.admin_listen {
            None => None,
            Some((host, port)) => {
                let listeners = listen(core::slice::from_ref(host), *port).await?;
                let is_local = are_local(&listeners);
                if !is_local && config.admin_token.is_none() {
                    return Err(ConfigError::AdminToken.into());
                }
                let addresses = addresses_of(&listeners);
                let app = App::for_operators(&config, &workers, &shared, is_local);
                let config = ServerConfig {
                    // They are for the addresses of clients.
                    trusted_proxies: Vec::new(),
                    ..config.clone()
                };
                // A certificate is not for loopback addresses.
                let acceptor = Acceptor::new(listeners, &config, app, workers.clone(), !is_local)?;
                Some((acceptor, addresses))
            }
        };
        let uplinks = Uplinks::new(&config, workers.rooms(), &peers);
        let peers = match &config.peer_listen {
            None => None,
            Some((host, port)) => {
                let listeners = listen(core::slice::from_ref(host), *port).await?;
                let rooms = workers.rooms().clone();
                let peers = Peers::new(&config, rooms, workers.routes(), peers);
                let peers = peers.map_err(ServeError::Seed)?;
                Some((peers, listeners))
            }
        };
        Ok(Self {
            acceptor,
            addresses,
            admin,
            peers,
            uplinks,
            control: ServerControl::new(workers.clone(), loader, config.journal, shared.notice),
            module_name: config.module_name,
            workers,
            ends,
        })
    }

    /// The addresses that it listens on, of which there is at least one; for port 0, with the port
    /// that was assigned.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What can be changed while it runs.
    #[must_use]
    pub fn control(&self) -> ServerControl {
        self.control.clone()
    }

    /// Whether its clients must use TLS (`ServerConfig::tls`).
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.acceptor.is_encrypted()
    }

    /// The addresses that it listens on for operators alone; none without
    /// [`ServerConfig::admin_listen`].
    #[must_use]
    pub fn admin_addrs(&self) -> &[SocketAddr] {
        self.admin.as_ref().map_or(&[], |(_, addresses)| addresses)
    }

    /// The addresses that it listens on for the other nodes of a cluster; none without
    /// [`ServerConfig::peer_listen`].
    #[must_use]
    pub fn peer_addrs(&self) -> Vec<SocketAddr> {
        let peers = self.peers.as_ref();
        peers.map_or_else(Vec::new, |(_, listeners)| addresses_of(listeners))
    }

    /// Serves until `stop` resolves. Then it accepts no more connections, lets the rooms handle the
    /// events they have, sends what is queued, and closes all clients with 1001.
    ///
    /// # Errors
    ///
    /// If a worker panics.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let Self {
            acceptor,
            addresses,
            admin,
            peers,
            uplinks,
            control: _control,
            module_name,
            workers,
            mut ends,
        } = self;
        log::info!(
            "serving {} (ABI {}) on {}",
            Escaped::new(&module_name),
            workers.abi(),
            addresses
                .iter()
                .map(SocketAddr::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        );
        let (stop_accepting, accepting) = oneshot::channel::<()>();
        let accepting = accepting.map(drop).shared();
        let serving_operators = admin.map(|(acceptor, _)| acceptor.serve(accepting.clone()));
        let serving_operators = OptionFuture::from(serving_operators);
        let serving_peers =
            peers.map(|(peers, listeners)| peers.serve(listeners, accepting.clone()));
        let serving_peers = OptionFuture::from(serving_peers);
        let serving_nodes = uplinks.map(|uplinks| uplinks.serve(accepting.clone()));
        let serving_nodes = OptionFuture::from(serving_nodes);
        let serving = join4(
            acceptor.serve(accepting),
            serving_operators,
            serving_peers,
            serving_nodes,
        );
        let mut serving = pin!(serving);
        tokio::select! {
            () = stop => {}
            // It ends only when it is told to.
            _ = &mut serving => {}
            ended = ends.wait() => return ended,
        }
        log::info!("stopping");
        drop(stop_accepting);
        let stopped = tokio::join!(ends.stop(&workers), serving).0;
        log::info!("stopped");
        stopped
    }
}

fn addresses_of(listeners: &[Listener]) -> Vec<SocketAddr> {
    listeners.iter().map(|listener| listener.address).collect()
}
