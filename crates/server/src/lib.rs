//! A WebSocket server for Stateroom rooms: one module, and one room per room id that clients
//! connect to.
//!
//! ```no_run
//! use stateroom_wasmi_server::{Server, ServerConfig};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ServerConfig::new(std::fs::read("chat.wasm")?).port(0);
//! let server = Server::bind(config).await?;
//! println!("listening on {}", server.local_addr());
//! server.run(async { tokio::signal::ctrl_c().await.expect("no signal handler") }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | request | response |
//! | --- | --- |
//! | `GET /ws`, `GET /ws/{room}` | a WebSocket to a room, which opens with its first client; `/ws` is the room with the empty id; `?token=` gives a returning client its previous id |
//! | `GET /status` | `ok` |
//! | `GET /rooms` | the rooms and their statistics, in JSON |
//! | `GET /` | the files of a folder, or else a page to try the rooms |
//!
//! # Limits
//!
//! Everything that a client can do is bounded; [`ServerConfig`] has the limits and their defaults.
//! Cross-origin pages get 403, addresses with too many connections 429, and connections beyond the
//! server's limit 503. Clients over their message or byte rate are throttled, slow clients are
//! disconnected, and busy rooms apply backpressure.
//!
//! # Tasks
//!
//! Rooms are spread over workers: tasks that each own a `Host` and an interpreter. A connection is
//! a task that exchanges messages with its room's worker through bounded channels.
//!
//! # Features
//!
//! `board` adds `Server::attach`, which serves the rooms of a microcontroller at the other end of a
//! link.

#![forbid(unsafe_code)]

#[cfg(feature = "board")]
mod board;
mod config;
mod http;
mod rate_limit;
mod rooms;
mod ws;

#[cfg(feature = "board")]
pub use self::board::{AddressError, BoardAddress};
pub use self::{
    config::{ServeError, ServerConfig},
    rate_limit::Rate,
};

use crate::{
    http::{
        accept::Acceptor,
        routes::{AppState, app},
    },
    rooms::worker_pool::WorkerPool,
};
use axum::Router;
use core::{future::Future, pin::pin, time::Duration};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// A server that listens; [`run`](Self::run) serves.
pub struct Server {
    acceptor: Acceptor,
    address: SocketAddr,
    app: Router,
    workers: Arc<WorkerPool>,
    /// Set at shutdown, for connections that have not joined a room yet.
    stopping: watch::Sender<bool>,
    /// Dropped at shutdown; each connection holds a clone.
    connection: mpsc::Sender<()>,
    /// Closed once all clones of `connection` are dropped.
    connections: mpsc::Receiver<()>,
}

impl Server {
    /// Loads the module and listens.
    ///
    /// # Errors
    ///
    /// If the module cannot be loaded, or the address cannot be bound.
    pub async fn bind(config: ServerConfig) -> Result<Self, ServeError> {
        Self::bind_with(WorkerPool::start(&config)?, config).await
    }

    /// Listens for clients of rooms that run on a board, at the other end of a link.
    ///
    /// The configuration's module, workers and room limits are unused, except for
    /// [`Limits::max_message_bytes`](stateroom_wasmi_host::Limits::max_message_bytes). The link is
    /// opened when the server runs, and reopened whenever it breaks.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    #[cfg(feature = "board")]
    pub async fn attach(mut config: ServerConfig, board: BoardAddress) -> Result<Self, ServeError> {
        config.module_name = board::module_name(&board);
        Self::bind_with(WorkerPool::for_board(board, config.max_tokens), config).await
    }

    async fn bind_with(workers: WorkerPool, config: ServerConfig) -> Result<Self, ServeError> {
        let workers = Arc::new(workers);
        let listener = TcpListener::bind((config.host, config.port))
            .await
            .map_err(ServeError::Listen)?;
        let address = listener.local_addr().map_err(ServeError::Listen)?;
        let (connection, connections) = mpsc::channel(1);
        let (stopping, is_stopping) = watch::channel(false);
        let state = AppState::new(
            &config,
            workers.clone(),
            connection.downgrade(),
            is_stopping,
        );
        Ok(Self {
            acceptor: Acceptor::new(listener, &config),
            address,
            app: app(state, &config),
            workers,
            stopping,
            connection,
            connections,
        })
    }

    /// The address that it listens on; for port 0, with the port that was assigned.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` resolves. Then it accepts no more connections, lets the rooms handle the
    /// events they have, sends what is queued, and closes all clients with 1001.
    ///
    /// # Errors
    ///
    /// If connections can no longer be accepted; never at present.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        /// Time for requests in flight once all clients are gone.
        const REQUEST_GRACE: Duration = Duration::from_secs(1);
        let Self {
            acceptor,
            app,
            workers,
            stopping,
            connection,
            mut connections,
            ..
        } = self;
        let (stop_accepting, accepting) = oneshot::channel();
        let stopped = async move {
            stop.await;
            let _ = stop_accepting.send(());
            let _ = stopping.send(true);
            workers.stop().await;
            // Each connection ends by itself, within its timeouts for draining and closing.
            drop(connection);
            let _ = connections.recv().await;
        };
        let serving = acceptor.serve(app, async move {
            let _ = accepting.await;
        });
        let (mut serving, mut stopped) = (pin!(serving), pin!(stopped));
        tokio::select! {
            () = &mut serving => stopped.await,
            () = &mut stopped => {
                // A request that never ends must not delay the shutdown.
                let _ = timeout(REQUEST_GRACE, serving).await;
            }
        }
        Ok(())
    }
}
