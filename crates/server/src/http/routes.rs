//! The routes and their handlers.

use crate::{
    config::ServerConfig,
    http::{
        origin::{self, Origins},
        rooms_endpoint::{MAX_CONCURRENT_LISTINGS, RoomList},
    },
    rooms::worker_pool::WorkerPool,
    ws::socket::{self, SocketOptions},
};
use axum::{
    Router,
    extract::{Path, Query, State, ws::WebSocketUpgrade},
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use core::time::Duration;
use std::sync::Arc;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tower_http::services::ServeDir;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct AppState {
    module_name: Arc<str>,
    workers: Arc<WorkerPool>,
    socket: SocketOptions,
    /// Each response that lists the rooms holds a permit.
    listings: Arc<Semaphore>,
    /// Each connection holds an upgrade of this; it no longer upgrades once the server stops.
    connection: mpsc::WeakSender<()>,
    stopping: watch::Receiver<bool>,
}

impl AppState {
    pub(crate) fn new(
        config: &ServerConfig,
        workers: Arc<WorkerPool>,
        connection: mpsc::WeakSender<()>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            module_name: config.module_name.as_str().into(),
            workers,
            socket: SocketOptions::new(config),
            listings: Arc::new(Semaphore::new(MAX_CONCURRENT_LISTINGS)),
            connection,
            stopping,
        }
    }
}

/// The routes behind the origin check.
pub(crate) fn app(state: AppState, config: &ServerConfig) -> Router {
    let router = Router::new()
        .route("/ws", get(connect_default))
        .route("/ws/", get(connect_default))
        .route("/ws/{room}", get(connect))
        .route("/status", get(async || "ok"))
        .route("/rooms", get(list));
    match config.static_dir.as_deref() {
        Some(dir) => router.fallback_service(ServeDir::new(dir)),
        None => router.route("/", get(page)),
    }
    .with_state(state)
    .layer(from_fn_with_state(Origins::new(config), origin::guard))
}

/// The policy lets the page run its own script and connect to this server, and nothing else.
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
    (headers, include_str!("page.html"))
}

async fn list(State(state): State<AppState>) -> Response {
    /// Time to wait for other listings to finish.
    const LIST_TIMEOUT: Duration = Duration::from_secs(1);
    let Ok(Ok(permit)) = timeout(LIST_TIMEOUT, state.listings.acquire_owned()).await else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many concurrent room listings\n",
        )
            .into_response();
    };
    let rooms = state.workers.list().await;
    let list = RoomList {
        module: state.module_name.to_string(),
        abi: state.workers.abi(),
        rooms,
    };
    list.into_response(permit)
}

#[derive(serde::Deserialize)]
struct Params {
    token: Option<String>,
}

async fn connect_default(
    state: State<AppState>,
    params: Query<Params>,
    upgrade: WebSocketUpgrade,
) -> Response {
    connect(state, Path(String::new()), params, upgrade).await
}

async fn connect(
    State(state): State<AppState>,
    Path(room): Path<String>,
    Query(Params { token }): Query<Params>,
    upgrade: WebSocketUpgrade,
) -> Response {
    /// Longer tokens would only waste memory.
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
    let options = state.socket;
    let Some(connection) = state.connection.upgrade() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n").into_response();
    };
    let upgrade = upgrade
        // The buffer is zeroed before each read, and most messages are small.
        .read_buffer_size(8 << 10)
        .max_message_size(options.max_message_bytes)
        .max_frame_size(options.max_message_bytes);
    upgrade.on_upgrade(async move |websocket| {
        let worker = state.workers.worker_of(&room);
        let room: Box<str> = room.into();
        socket::run(websocket, worker, room, token, options, state.stopping).await;
        // Shutdown waits until every connection has dropped its clone.
        drop(connection);
    })
}
