//! What operators ask for: metrics, rooms, health, and what is to be done with rooms.

use crate::{
    config::{ModuleLoader, MoreMetrics, ServerConfig},
    http::{
        headers::bearer_token,
        notice::Notice,
        response::{self, Body, Refusal, Response},
        rooms_endpoint::RoomList,
        routes::{Shared, decode_room},
        transfers::{Query, RequestBody},
    },
    journal::Journal,
    metrics::{Exposition, HttpCounts},
    rooms::{AdminError, handover::Listing, watches::Watch, worker_pool::WorkerPool},
};
use bytes::Bytes;
use core::time::Duration;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Method, Request, StatusCode,
    body::Frame,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName},
};
use sha2::{Digest, Sha256};
use stateroom_wasmi_host::{Escaped, WithSources};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::{
    sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore, mpsc::Receiver},
    time::timeout,
};

/// A list of rooms, or a snapshot, may have megabytes, and stays in memory until its client has taken it.
const MAX_CONCURRENT_RESPONSES: usize = 16;

/// Watches of rooms, each of which takes some memory and the time of its room's worker.
const MAX_WATCHES: usize = 8;

/// The operators' routes.
pub(super) struct Admin {
    module_name: String,
    pub(super) workers: Arc<WorkerPool>,
    http: Arc<HttpCounts>,
    draining: Arc<AtomicBool>,
    log_lines_lost: Option<Arc<AtomicU64>>,
    more_metrics: Option<MoreMetrics>,
    busiest_rooms: usize,
    notice: Notice,
    /// Whether clients connect to this address, too.
    takes_clients: bool,
    /// The hash of the token that each request must have; none if none is needed. Hashes are compared, so
    /// that the time that it takes tells nothing of the token.
    token: Option<[u8; 32]>,
    /// By which stored rooms are replayed.
    pub(super) journal: Option<Arc<dyn Journal>>,
    pub(super) loader: ModuleLoader,
    /// Each response that may be long holds a permit.
    responses: Arc<Semaphore>,
    /// Each watch of a room holds a permit.
    watches: Arc<Semaphore>,
    /// Held while the workers are asked for one.
    next_turn: Mutex<()>,
}

/// What a request is for.
enum Route<'a> {
    Health,
    Ready,
    Metrics,
    Rooms,
    Drain,
    Close(&'a str),
    Snapshot(&'a str),
    Load(&'a str),
    Hold(&'a str),
    Resume(&'a str),
    Moved(&'a str),
    Events(&'a str),
    Replay(&'a str),
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/health" => Self::Health,
            "/ready" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/rooms" => Self::Rooms,
            "/drain" => Self::Drain,
            _ => {
                let rest = path.strip_prefix("/rooms/")?;
                let Some((room, action)) = rest.rsplit_once('/') else {
                    return Some(Self::Load(rest));
                };
                match action {
                    _ if room.contains('/') => return None,
                    "close" => Self::Close(room),
                    "snapshot" => Self::Snapshot(room),
                    "hold" => Self::Hold(room),
                    "resume" => Self::Resume(room),
                    "moved" => Self::Moved(room),
                    "events" => Self::Events(room),
                    "replay" => Self::Replay(room),
                    _ => return None,
                }
            }
        })
    }

    /// The methods by which it is asked for.
    const fn methods(&self) -> (&'static [Method], &'static str) {
        match self {
            Self::Load(_) => (&[Method::PUT], "PUT"),
            Self::Drain | Self::Close(_) | Self::Hold(_) | Self::Resume(_) | Self::Moved(_) => {
                (&[Method::POST], "POST")
            }
            _ => (&[Method::GET, Method::HEAD], "GET, HEAD"),
        }
    }

    /// Whether anybody may ask: what probes of load balancers need.
    const fn is_open(&self) -> bool {
        matches!(self, Self::Health | Self::Ready)
    }
}

impl Admin {
    pub(super) fn new(
        config: &ServerConfig,
        workers: Arc<WorkerPool>,
        shared: &Shared,
        takes_clients: bool,
    ) -> Self {
        Self {
            module_name: config.module_name.clone(),
            workers,
            http: shared.http.clone(),
            draining: shared.draining.clone(),
            log_lines_lost: config.log_lines_lost.clone(),
            more_metrics: config.more_metrics.clone(),
            busiest_rooms: config.busiest_rooms,
            notice: shared.notice.clone(),
            takes_clients,
            token: config
                .admin_token
                .as_ref()
                .map(|token| hash(token.expose())),
            journal: config.journal.clone(),
            loader: config.loader(),
            responses: Arc::new(Semaphore::new(MAX_CONCURRENT_RESPONSES)),
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
            next_turn: Mutex::default(),
        }
    }

    /// The response to a request of an operator; none if it is no such request.
    pub(super) async fn respond<B: RequestBody>(
        &self,
        request: &mut Request<B>,
    ) -> Option<Result<Response, Refusal>> {
        let path = request.uri().path().to_owned();
        let route = Route::of(&path)?;
        Some(self.carry_out(request, route).await)
    }

    async fn carry_out<B: RequestBody>(
        &self,
        request: &mut Request<B>,
        route: Route<'_>,
    ) -> Result<Response, Refusal> {
        let (methods, allowed) = route.methods();
        if !methods.contains(request.method()) {
            return Err(response::method_not_allowed(allowed));
        }
        if !route.is_open() {
            self.authorise(request)?;
        }
        match route {
            Route::Health => Ok(response::text(StatusCode::OK, "ok\n")),
            Route::Ready if self.draining.load(Ordering::Relaxed) => Err(response::refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is being drained\n",
            )),
            Route::Ready => Ok(response::text(StatusCode::OK, "ready\n")),
            Route::Metrics => self.metrics().await,
            Route::Rooms => self.list().await,
            Route::Drain => {
                if !self.draining.swap(true, Ordering::Relaxed) {
                    log::info!("draining: no new clients are accepted");
                }
                Ok(response::text(StatusCode::OK, "draining\n"))
            }
            Route::Close(room) => self.close(&decode_room(room)?).await,
            Route::Snapshot(room) => self.snapshot(&decode_room(room)?).await,
            Route::Load(room) => {
                let (id, query) = (decode_room(room)?, Query::of(request)?);
                self.load(&id, &query, request.body_mut()).await
            }
            Route::Hold(room) => self.hold(&decode_room(room)?, &Query::of(request)?).await,
            Route::Resume(room) => self.resume(&decode_room(room)?, &Query::of(request)?).await,
            Route::Moved(room) => self.moved(&decode_room(room)?, &Query::of(request)?).await,
            Route::Replay(room) => self.replay(&decode_room(room)?).await,
            Route::Events(room) => {
                self.events(&decode_room(room)?, *request.method() == Method::HEAD)
                    .await
            }
        }
    }

    fn authorise<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let Some(expected) = self.token else {
            return Ok(());
        };
        match bearer_token(request.headers()).map(hash) {
            Some(given) if given == expected => Ok(()),
            _ => Err(response::unauthorized(
                "the administration token is missing or wrong",
            )),
        }
    }

    async fn metrics(&self) -> Result<Response, Refusal> {
        let permit = self.admit().await?;
        let metrics = self.workers.metrics(self.busiest_rooms).await;
        let lost = self.log_lines_lost.as_ref();
        let lost = lost.map(|lost| lost.load(Ordering::Relaxed));
        let mut text = Exposition::new(&metrics, &self.http, lost).encode();
        if let Some(more) = &self.more_metrics {
            text.extend(more.read().bytes());
        }
        let headers = [(CONTENT_TYPE, Exposition::CONTENT_TYPE)];
        Ok(permit.respond(text, headers))
    }

    /// Admits a request whose response may be long and keeps the workers from their rooms.
    pub(super) async fn admit(&self) -> Result<Permit<'_>, Refusal> {
        /// Time to wait for other responses to be taken.
        const ADMIT_TIMEOUT: Duration = Duration::from_secs(1);
        let permit = timeout(ADMIT_TIMEOUT, self.responses.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            let reason = "too many concurrent requests of operators\n";
            return Err(response::refusal(StatusCode::SERVICE_UNAVAILABLE, reason));
        };
        Ok(Permit {
            response: permit,
            _turn: self.next_turn.lock().await,
        })
    }

    async fn list(&self) -> Result<Response, Refusal> {
        let permit = self.admit().await?;
        let Listing { rooms, failed } = self.workers.list().await;
        let list = RoomList {
            module: self.module_name.clone(),
            abi: self.workers.abi(),
            rooms,
            failed,
            takes_clients: self.takes_clients,
            notice: self.notice.get(),
        };
        Ok(permit.respond(list.to_json(), [(CONTENT_TYPE, "application/json")]))
    }

    async fn close(&self, id: &str) -> Result<Response, Refusal> {
        done(self.workers.close_room(id).await)?;
        log::info!(
            "closed room {:?} for an operator",
            Escaped::new(id).at_most(256)
        );
        Ok(response::text(StatusCode::OK, "closed\n"))
    }

    /// What happens in a room from now on, until it ends.
    async fn events(&self, id: &str, is_head: bool) -> Result<Response, Refusal> {
        let Ok(permit) = self.watches.clone().try_acquire_owned() else {
            let reason = "too many rooms are watched\n";
            return Err(response::refusal(StatusCode::SERVICE_UNAVAILABLE, reason));
        };
        let room = String::from(id);
        let (watch, lines) = Watch::new();
        let watched = self
            .workers
            .ask_room(id, move |rooms| rooms.watch(&room, watch));
        done(watched.await)?;
        let body = match is_head {
            true => response::empty(StatusCode::OK).into_body(),
            false => event_stream(lines, permit),
        };
        let headers = [
            (CONTENT_TYPE, "text/event-stream"),
            (CACHE_CONTROL, "no-store"),
            // Nginx would wait for more.
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        Ok(response::with_headers(Response::new(body), headers))
    }

    async fn snapshot(&self, id: &str) -> Result<Response, Refusal> {
        let permit = self.admit().await?;
        let room = String::from(id);
        // A board's room has to come, which may take long.
        let permit = permit.without_turn();
        let saved = self.transfer(id, move |rooms, reply| rooms.begin_save(&room, reply));
        let saved = saved.await?;
        let headers = [
            (CONTENT_TYPE, "application/octet-stream"),
            (CACHE_CONTROL, "no-store"),
        ];
        Ok(permit.respond(saved, headers))
    }
}

/// What happens in a room, as server-sent events: one with JSON in it for each line of the watch.
fn event_stream(lines: Receiver<Bytes>, permit: OwnedSemaphorePermit) -> Body {
    /// Without it, that an operator has gone would not be noticed while nothing happens.
    const KEEP_ALIVE: Duration = Duration::from_secs(15);
    let events = stream::unfold((lines, permit), async |(mut lines, permit)| {
        let event = match timeout(KEEP_ALIVE, lines.recv()).await {
            Ok(line) => Bytes::from([b"data: ", &*line?, b"\n\n"].concat()),
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        Some((Ok(Frame::data(event)), (lines, permit)))
    });
    StreamBody::new(events).boxed_unsync()
}

/// A request that was admitted: one at a time has its turn with the workers.
pub(super) struct Permit<'a> {
    pub(super) response: OwnedSemaphorePermit,
    _turn: MutexGuard<'a, ()>,
}

impl Permit<'_> {
    /// A response that counts until all of it is written.
    pub(super) fn respond<const N: usize>(
        self,
        bytes: Vec<u8>,
        headers: [(HeaderName, &'static str); N],
    ) -> Response {
        self.without_turn().respond(bytes, headers)
    }

    /// Leaves the turn to others.
    pub(super) fn without_turn(self) -> PermitWithoutTurn {
        PermitWithoutTurn(self.response)
    }
}

/// A request that was admitted, and has had its turn.
pub(super) struct PermitWithoutTurn(OwnedSemaphorePermit);

impl PermitWithoutTurn {
    /// As [`Permit::respond`].
    pub(super) fn respond<const N: usize>(
        self,
        bytes: Vec<u8>,
        headers: [(HeaderName, &'static str); N],
    ) -> Response {
        let bytes = Bytes::from_owner(PermittedBytes {
            bytes,
            _permit: self.0,
        });
        response::with_headers(response::bytes(bytes), headers)
    }
}

/// Bytes that release a permit when they are dropped.
struct PermittedBytes {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for PermittedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What became of a request for a room.
pub(super) fn done<T>(result: Option<Result<T, AdminError>>) -> Result<T, Refusal> {
    let conflict = |reason: &str| (StatusCode::CONFLICT, format!("{reason}\n"));
    let error = match result {
        Some(Ok(done)) => return Ok(done),
        Some(Err(error)) => error,
        None => {
            let reason = "the server is stopping\n";
            return Err(response::refusal(StatusCode::SERVICE_UNAVAILABLE, reason));
        }
    };
    let (status, reason) = match error {
        AdminError::UnknownRoom => (StatusCode::NOT_FOUND, "there is no such room\n".into()),
        AdminError::Quarantined(reason) => (
            StatusCode::CONFLICT,
            format!("the room is in quarantine, and kept for `stateroom-wasmi store`: {reason}\n"),
        ),
        AdminError::Remote => (
            StatusCode::NOT_IMPLEMENTED,
            "rooms of a board cannot be closed or watched from here\n".into(),
        ),
        AdminError::Save(error) => (StatusCode::CONFLICT, format!("{}\n", WithSources(&error))),
        AdminError::Restoring => conflict("the room is being restored: try again"),
        AdminError::Exists => conflict("there is a room of this id"),
        AdminError::Held => conflict("the room is being moved"),
        AdminError::NotHeld => conflict("the room is not held by this number, or not any more"),
        AdminError::Unreadable(reason) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("the room cannot be loaded: {reason}\n"),
        ),
        AdminError::Unavailable(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    };
    Err(response::refusal(status, reason))
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
