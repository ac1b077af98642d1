//! A WebSocket server of rooms: one module, a room for each name that clients ask for.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /ws`, `GET /ws/{room}` | a WebSocket to a room, which is opened for its first client; `/ws` is the room with the empty id; `?token=` gives a returning client the id it had |
//! | `GET /status` | `ok` |
//! | `GET /rooms` | the rooms and their figures, in JSON |
//! | `GET /` | the files of a folder, or else a page to play with the rooms |
//!
//! A page of a foreign origin gets 403, who connects too often 429, and one more than there are
//! places for 503; [`ServerConfig`] has the limits.
//!
//! Rooms are spread over workers, tasks that each have a host and an interpreter of their own. A client's
//! connection is a task that talks to its room's worker through bounded channels.

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
    http::accept::Acceptor, http::origin::Origins, http::rooms_endpoint::RoomList,
    rooms::worker_pool::WorkerPool, ws::socket::SocketOptions,
};
use axum::{
    Router,
    extract::{Path, Query, State, ws::WebSocketUpgrade},
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use core::{future::Future, pin::pin, time::Duration};
use std::{
    boxed::Box,
    format, io,
    net::SocketAddr,
    string::{String, ToString},
    sync::Arc,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tower_http::services::ServeDir;

/// A server that listens, and is yet to run.
pub struct Server {
    acceptor: Acceptor,
    address: SocketAddr,
    app: Router,
    workers: Arc<WorkerPool>,
    /// Told when the server stops, for connections that have no room yet.
    stopping: watch::Sender<bool>,
    /// Dropped when the server stops; each connection holds another.
    connection: mpsc::Sender<()>,
    /// Ends when the last of those is gone.
    connections: mpsc::Receiver<()>,
}

/// What requests share.
#[derive(Clone)]
struct Shared {
    name: Arc<str>,
    workers: Arc<WorkerPool>,
    socket: SocketOptions,
    /// For each answer that lists the rooms to hold one.
    lists: Arc<Semaphore>,
    /// For each connection to hold one; gone when the server stops.
    connection: mpsc::WeakSender<()>,
    stopping: watch::Receiver<bool>,
}

impl Server {
    /// Loads the module and listens.
    ///
    /// # Errors
    ///
    /// If the module cannot be served, or the address cannot be had.
    pub async fn bind(config: ServerConfig) -> Result<Self, ServeError> {
        Self::bind_with(WorkerPool::start(&config)?, config).await
    }

    /// Listens for clients of rooms that run on a board, at the other end of a line.
    ///
    /// Of the configuration, what is about modules, workers and limits of rooms does not matter, but
    /// for the length of messages. The line is opened when the server runs, and again when it breaks.
    ///
    /// # Errors
    ///
    /// If the address cannot be had.
    #[cfg(feature = "board")]
    pub async fn attach(mut config: ServerConfig, board: BoardAddress) -> Result<Self, ServeError> {
        config.module_name = board::name(&board);
        Self::bind_with(WorkerPool::of_board(board, config.max_tokens), config).await
    }

    async fn bind_with(workers: WorkerPool, config: ServerConfig) -> Result<Self, ServeError> {
        let workers = Arc::new(workers);
        let listener = TcpListener::bind((config.host, config.port))
            .await
            .map_err(ServeError::Listen)?;
        let address = listener.local_addr().map_err(ServeError::Listen)?;
        let (connection, connections) = mpsc::channel(1);
        let (stopping, stop) = watch::channel(false);
        let shared = Shared {
            name: config.module_name.as_str().into(),
            workers: workers.clone(),
            socket: SocketOptions::new(&config),
            lists: Arc::new(Semaphore::new(http::rooms_endpoint::LISTS)),
            connection: connection.downgrade(),
            stopping: stop,
        };
        let origins = Origins::new(&config);
        let app = router(shared, config.static_dir.as_deref());
        let app = app.layer(from_fn_with_state(origins, http::origin::guard));
        let acceptor = Acceptor::new(listener, &config);
        Ok(Self {
            acceptor,
            address,
            app,
            workers,
            stopping,
            connection,
            connections,
        })
    }

    /// Where it listens: with port 0, the one that was free.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready. Then it takes no more connections, lets the rooms handle what
    /// they were given, sends what is queued, and closes all clients with 1001.
    ///
    /// # Errors
    ///
    /// If connections can be taken no more; none at present.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let Self {
            acceptor,
            app,
            workers,
            stopping,
            connection,
            mut connections,
            ..
        } = self;
        let (tell, told) = oneshot::channel();
        let stopped = async move {
            stop.await;
            let _ = tell.send(());
            let _ = stopping.send(true);
            workers.stop().await;
            // Each connection ends by itself, within its time for saying goodbye.
            drop(connection);
            let _ = connections.recv().await;
        };
        let serving = acceptor.serve(app, async move {
            let _ = told.await;
        });
        let (mut serving, mut stopped) = (pin!(serving), pin!(stopped));
        tokio::select! {
            () = &mut serving => stopped.await,
            () = &mut stopped => {
                // A request that never ends is no reason to stay.
                let _ = timeout(LAST_REQUESTS, serving).await;
            }
        }
        Ok(())
    }
}

/// Time for the requests that are being answered when all clients are gone.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

fn router(shared: Shared, static_dir: Option<&std::path::Path>) -> Router {
    let router = Router::new()
        .route("/ws", get(connect_default))
        .route("/ws/", get(connect_default))
        .route("/ws/{room}", get(connect))
        .route("/status", get(async || "ok"))
        .route("/rooms", get(list));
    match static_dir {
        Some(dir) => router.fallback_service(ServeDir::new(dir)),
        None => router.route("/", get(page)),
    }
    .with_state(shared)
}

/// The page may run its own script and talk to this server, and nothing else.
async fn page() -> impl IntoResponse {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                          connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                          frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, include_str!("http/page.html"))
}

async fn list(State(shared): State<Shared>) -> Response {
    /// Time to wait for others who ask for the same.
    const PATIENCE: Duration = Duration::from_secs(1);
    let Ok(Ok(permit)) = timeout(PATIENCE, shared.lists.acquire_owned()).await else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many are taking the list of rooms\n",
        )
            .into_response();
    };
    let rooms = shared.workers.list().await;
    let list = RoomList {
        module: shared.name.to_string(),
        abi: shared.workers.abi(),
        rooms,
    };
    list.into_response(permit)
}

#[derive(serde::Deserialize)]
struct Params {
    token: Option<String>,
}

async fn connect_default(
    state: State<Shared>,
    params: Query<Params>,
    upgrade: WebSocketUpgrade,
) -> Response {
    connect(state, Path(String::new()), params, upgrade).await
}

async fn connect(
    State(shared): State<Shared>,
    Path(room): Path<String>,
    Query(Params { token }): Query<Params>,
    upgrade: WebSocketUpgrade,
) -> Response {
    /// Longer tokens would be memory for nothing.
    const MAX_TOKEN_BYTES: usize = 128;
    if token
        .as_ref()
        .is_some_and(|token| token.len() > MAX_TOKEN_BYTES)
    {
        let message = format!("the token is longer than {MAX_TOKEN_BYTES} bytes\n");
        return (StatusCode::BAD_REQUEST, message).into_response();
    }
    let token = token
        .filter(|token| !token.is_empty())
        .map(String::into_boxed_str);
    let options = shared.socket;
    let Some(connection) = shared.connection.upgrade() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n").into_response();
    };
    let upgrade = upgrade
        // It is zeroed before each attempt to read, and most messages are small.
        .read_buffer_size(8 << 10)
        .max_message_size(options.message_bytes)
        .max_frame_size(options.message_bytes);
    upgrade.on_upgrade(async move |socket| {
        let worker = shared.workers.of_room(&room);
        let room: Box<str> = room.into();
        ws::socket::run(socket, worker, room, token, options, shared.stopping).await;
        // The connection is over, for whoever waits for that.
        drop(connection);
    })
}
