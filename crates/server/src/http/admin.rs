//! What operators ask for: metrics, rooms, health, and what is to be done with rooms.

use crate::{
    config::ServerConfig,
    http::{
        headers::bearer_token,
        notice::Notice,
        response::{self, Refusal, Response},
        rooms_endpoint::RoomList,
        routes::{Shared, decode_room, parameter_in},
    },
    metrics::{Exposition, HttpCounts},
    rooms::{AdminError, Rooms, TransferReply, handover::Listing, worker_pool::WorkerPool},
};
use bytes::Bytes;
use core::{error::Error, time::Duration};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Body,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName},
};
use sha2::{Digest, Sha256};
use stateroom_wasmi_host::{Escaped, WithSources};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::{
    sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

/// A list of rooms, or a snapshot, may have megabytes, and stays in memory until its client has taken it.
const MAX_CONCURRENT_RESPONSES: usize = 16;

/// The operators' routes.
pub(super) struct Admin {
    module_name: String,
    workers: Arc<WorkerPool>,
    http: Arc<HttpCounts>,
    draining: Arc<AtomicBool>,
    log_lines_lost: Option<Arc<AtomicU64>>,
    busiest_rooms: usize,
    notice: Notice,
    /// Whether clients connect to this address, too.
    takes_clients: bool,
    /// The hash of the token that each request must have; none if none is needed. Hashes are compared, so
    /// that the time that it takes tells nothing of the token.
    token: Option<[u8; 32]>,
    /// Each response that may be long holds a permit.
    responses: Arc<Semaphore>,
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
            busiest_rooms: config.busiest_rooms,
            notice: shared.notice.clone(),
            takes_clients,
            token: config
                .admin_token
                .as_ref()
                .map(|token| hash(token.expose())),
            responses: Arc::new(Semaphore::new(MAX_CONCURRENT_RESPONSES)),
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
        let text = Exposition::new(&metrics, &self.http, lost).encode();
        let headers = [(CONTENT_TYPE, Exposition::CONTENT_TYPE)];
        Ok(permit.respond(text, headers))
    }

    /// Admits a request whose response may be long and keeps the workers from their rooms.
    async fn admit(&self) -> Result<Permit<'_>, Refusal> {
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

    async fn snapshot(&self, id: &str) -> Result<Response, Refusal> {
        let permit = self.admit().await?;
        let room = String::from(id);
        let saved = self.workers.ask_room(id, move |rooms| rooms.save(&room));
        let saved = done(saved.await)?;
        let headers = [
            (CONTENT_TYPE, "application/octet-stream"),
            (CACHE_CONTROL, "no-store"),
        ];
        Ok(permit.respond(saved, headers))
    }
}

/// Rooms that come and go.
impl Admin {
    async fn load(
        &self,
        id: &str,
        query: &Query,
        body: &mut impl RequestBody,
    ) -> Result<Response, Refusal> {
        // Several of them may have as much memory as a response.
        let _permit = self.admit().await?.response;
        let body = Limited::new(body, MAX_ROOM_BYTES).collect();
        let body = match timeout(LOAD_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let reason = format!("the room has more than {MAX_ROOM_BYTES} bytes\n");
                return Err(response::refusal(StatusCode::PAYLOAD_TOO_LARGE, reason));
            }
            Ok(Err(_)) | Err(_) => {
                let reason = "the room has not come\n";
                return Err(response::refusal(StatusCode::REQUEST_TIMEOUT, reason));
            }
        };
        let (room, hold) = (String::from(id), query.seconds);
        let loaded = self.transfer(id, move |rooms, reply| {
            rooms.import(&room, &body, hold, reply)
        });
        let number = loaded.await?;
        log::info!("loaded room {:?}", Escaped::new(id).at_most(256));
        let response = response::text(StatusCode::CREATED, "loaded\n");
        Ok(match hold {
            Some(_) => with_hold(response, number),
            None => response,
        })
    }

    async fn hold(&self, id: &str, query: &Query) -> Result<Response, Refusal> {
        let permit = self.admit().await?;
        let room = String::from(id);
        let time = query.seconds.unwrap_or(DEFAULT_HOLD);
        let held = self
            .workers
            .ask_room(id, move |rooms| rooms.hold(&room, time));
        let (number, file) = done(held.await)?;
        let headers = [
            (CONTENT_TYPE, "application/octet-stream"),
            (CACHE_CONTROL, "no-store"),
        ];
        Ok(with_hold(permit.respond(file, headers), number))
    }

    async fn resume(&self, id: &str, query: &Query) -> Result<Response, Refusal> {
        let (room, hold) = (String::from(id), query.hold()?);
        let resumed = self.transfer(id, move |rooms, reply| rooms.end_hold(&room, hold, reply));
        resumed.await?;
        Ok(response::text(StatusCode::OK, "it goes on\n"))
    }

    async fn moved(&self, id: &str, query: &Query) -> Result<Response, Refusal> {
        let (room, hold) = (String::from(id), query.hold()?);
        let location = query.to.clone();
        let moved = self.transfer(id, move |rooms, reply| {
            rooms.give_up(&room, hold, location.as_deref(), reply);
        });
        moved.await?;
        log::info!("gave up room {:?}", Escaped::new(id).at_most(256));
        Ok(response::text(StatusCode::OK, "given up\n"))
    }

    /// Asks the worker of a room for something whose result comes later.
    async fn transfer(
        &self,
        id: &str,
        question: impl FnOnce(&mut dyn Rooms, TransferReply) + Send + 'static,
    ) -> Result<u64, Refusal> {
        let (reply, result) = oneshot::channel();
        let reply: TransferReply = Box::new(move |result| {
            // Fails if the client is gone.
            let _ = reply.send(result);
        });
        let asked = self
            .workers
            .ask_room(id, move |rooms| question(rooms, reply));
        match asked.await {
            Some(()) => done(result.await.ok()),
            None => done(None),
        }
    }
}

/// The longest file of a room that is loaded.
const MAX_ROOM_BYTES: usize = 64 << 20;

/// Time for a room's file to come.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a room is held if the request does not say, and the longest time.
const DEFAULT_HOLD: Duration = Duration::from_secs(30);
const MAX_HOLD: Duration = Duration::from_secs(300);

/// The header with the number of a hold.
const HOLD: HeaderName = HeaderName::from_static("stateroom-hold");

fn with_hold(mut response: Response, number: u64) -> Response {
    response.headers_mut().insert(HOLD, number.into());
    response
}

/// What a body must be to be read.
pub(super) trait RequestBody:
    Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin
{
}

impl<B> RequestBody for B where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin
{
}

/// The parameters of requests for rooms that come and go.
#[derive(Default)]
struct Query {
    /// Time of a hold.
    seconds: Option<Duration>,
    /// The number of one.
    hold: Option<u64>,
    /// Where the room is now.
    to: Option<String>,
}

impl Query {
    fn of<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let bad_request = |reason: String| response::refusal(StatusCode::BAD_REQUEST, reason);
        let query = request.uri().query().unwrap_or_default();
        let parameter = |name| {
            parameter_in(query, name)
                .map_err(|reason| response::refusal(StatusCode::BAD_REQUEST, reason))
        };
        let number = |name| {
            let parse = |text: Box<str>| {
                let number = text.parse::<u64>();
                number.map_err(|_| bad_request(format!("{name} is not a number\n")))
            };
            parameter(name)?.map(parse).transpose()
        };
        let to = parameter("to")?.map(String::from);
        if to
            .as_ref()
            .is_some_and(|to| to.len() > MAX_LOCATION_BYTES || to.contains(char::is_control))
        {
            let reason = format!("to is longer than {MAX_LOCATION_BYTES} bytes, or no URL\n");
            return Err(bad_request(reason));
        }
        let seconds = number("seconds")?.map(Duration::from_secs);
        Ok(Self {
            seconds: seconds.map(|time| time.min(MAX_HOLD)),
            hold: number("hold")?,
            to,
        })
    }

    fn hold(&self) -> Result<u64, Refusal> {
        let missing =
            || response::refusal(StatusCode::BAD_REQUEST, "the parameter hold is missing\n");
        self.hold.ok_or_else(missing)
    }
}

/// What fits into the reason of a close frame behind `moved to `.
const MAX_LOCATION_BYTES: usize = 114;

/// A request that was admitted: one at a time has its turn with the workers.
struct Permit<'a> {
    response: OwnedSemaphorePermit,
    _turn: MutexGuard<'a, ()>,
}

impl Permit<'_> {
    /// A response that counts until all of it is written.
    fn respond<const N: usize>(
        self,
        bytes: Vec<u8>,
        headers: [(HeaderName, &'static str); N],
    ) -> Response {
        let bytes = Bytes::from_owner(PermittedBytes {
            bytes,
            _permit: self.response,
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
fn done<T>(result: Option<Result<T, AdminError>>) -> Result<T, Refusal> {
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
            "rooms of a board cannot be closed, saved or moved from here\n".into(),
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
