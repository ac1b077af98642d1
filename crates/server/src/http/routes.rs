//! The routes and their handlers.

use crate::{
    config::{ConfigError, ServerConfig},
    http::{
        files::Files,
        origin::Origins,
        response::{self, Refusal, Response},
        rooms_endpoint::{MAX_CONCURRENT_LISTINGS, RoomList},
        websocket::shake_hands,
    },
    rooms::{handover::Listing, worker_pool::WorkerPool},
};
use bytes::Bytes;
use core::time::Duration;
use hyper::{
    Method, Request, StatusCode,
    body::Body,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use percent_encoding::percent_decode_str;
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};

/// What all requests share.
pub(super) struct App {
    module_name: String,
    workers: Arc<WorkerPool>,
    origins: Origins,
    subprotocols: Vec<String>,
    /// Whether clients may speak `stateroom.resume.1`.
    may_resume: bool,
    /// A folder in place of the page.
    files: Option<Files>,
    /// Each response that lists the rooms holds a permit.
    listings: Arc<Semaphore>,
    /// Held by the listing that is made.
    next_listing: Mutex<()>,
    next_sequence: AtomicU64,
}

/// The room that a client asks for, and who it says it is.
pub(super) struct Destination {
    pub(super) room: Box<str>,
    pub(super) token: Option<Box<str>>,
    /// Whether the client speaks `stateroom.resume.1`.
    pub(super) resumes: bool,
    /// Grows with each handshake.
    pub(super) sequence: u64,
}

/// A response; to a handshake, with where the connection leads from now on.
pub(super) type Outcome = (Response, Option<Destination>);

impl App {
    /// `is_local`: whether all addresses that the server listens on are loopback addresses.
    pub(super) fn new(
        config: &ServerConfig,
        workers: Arc<WorkerPool>,
        is_local: bool,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            module_name: config.module_name.clone(),
            workers,
            origins: Origins::new(config, is_local),
            subprotocols: config.subprotocols.clone(),
            may_resume: !config.resume_window.is_zero(),
            files: Files::of(config)?,
            listings: Arc::new(Semaphore::new(MAX_CONCURRENT_LISTINGS)),
            next_listing: Mutex::default(),
            next_sequence: AtomicU64::new(0),
        })
    }

    pub(super) async fn respond<B: Body>(&self, request: &Request<B>) -> Outcome {
        let outcome = self.route(request).await;
        outcome.unwrap_or_else(|refusal| (*refusal, None))
    }

    async fn route<B: Body>(&self, request: &Request<B>) -> Result<Outcome, Refusal> {
        self.origins.check(request)?;
        let path = request.uri().path();
        if let Some(room) = room_in(path) {
            return self.connect(request, room);
        }
        let is_known = self.files.is_some() || matches!(path, "/" | "/rooms" | "/status");
        if !is_known {
            return Err(response::refusal(StatusCode::NOT_FOUND, "not found\n"));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(method_not_allowed("GET, HEAD"));
        }
        let response = match (path, &self.files) {
            ("/status", _) => response::text(StatusCode::OK, "ok"),
            ("/rooms", _) => self.list().await,
            (_, Some(files)) => files.respond(request).await,
            (_, None) => page(),
        };
        Ok((response, None))
    }

    fn connect<B: Body>(&self, request: &Request<B>, room: &str) -> Result<Outcome, Refusal> {
        if *request.method() != Method::GET {
            return Err(method_not_allowed("GET"));
        }
        let bad_request = |reason| response::refusal(StatusCode::BAD_REQUEST, reason);
        let room = percent_decode_str(room).decode_utf8();
        let room = room.map_err(|_| bad_request("the room id is not UTF-8\n".into()))?;
        let token = token_in(request.uri().query().unwrap_or_default()).map_err(bad_request)?;
        let (response, resumes) = shake_hands(request, &self.subprotocols, self.may_resume)?;
        let destination = Destination {
            room: room.into(),
            token,
            resumes,
            sequence: self.next_sequence.fetch_add(1, Ordering::Relaxed),
        };
        Ok((response, Some(destination)))
    }

    async fn list(&self) -> Response {
        /// Time to wait for other listings to finish.
        const LIST_TIMEOUT: Duration = Duration::from_secs(1);
        let permit = timeout(LIST_TIMEOUT, self.listings.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            let reason = "too many concurrent room listings\n";
            return response::text(StatusCode::SERVICE_UNAVAILABLE, reason);
        };
        // One at a time, since a listing holds up the workers.
        let _turn = self.next_listing.lock().await;
        let Listing { rooms, failed } = self.workers.list().await;
        let list = RoomList {
            module: self.module_name.clone(),
            abi: self.workers.abi(),
            rooms,
            failed,
        };
        list.into_response(permit)
    }
}

/// The id of the room in a path, as it is encoded there.
fn room_in(path: &str) -> Option<&str> {
    match path.strip_prefix("/ws")? {
        "" => Some(""),
        rest => rest.strip_prefix('/').filter(|id| !id.contains('/')),
    }
}

/// The token in a query; an empty one is none.
fn token_in(query: &str) -> Result<Option<Box<str>>, Bytes> {
    /// Longer tokens would only waste memory.
    const MAX_TOKEN_BYTES: usize = 128;
    // Parsing replaces what is no UTF-8, which would make different tokens the same.
    if percent_decode_str(query).decode_utf8().is_err() {
        return Err("the query is not UTF-8\n".into());
    }
    let mut tokens = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "token");
    let token = tokens.next().map(|(_, token)| token);
    if tokens.next().is_some() {
        return Err("there is more than one token\n".into());
    }
    match token {
        Some(token) if token.len() > MAX_TOKEN_BYTES => {
            Err(format!("the token is longer than {MAX_TOKEN_BYTES} bytes\n").into())
        }
        token => Ok(token.filter(|token| !token.is_empty()).map(Into::into)),
    }
}

/// The policy lets the page run its own script and connect to this server, and nothing else.
/// One file: the client of `stateroom.resume.1` is a part of its script.
static PAGE: LazyLock<Bytes> = LazyLock::new(|| {
    let module = stateroom_wasmi_resume::JAVASCRIPT.replace("export ", "");
    let page = include_str!("page.html").replace("/* stateroom-resume.js */", &module);
    page.into()
});

fn page() -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                          connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                          frame-ancestors 'none'";
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    let mut response = response::bytes(PAGE.clone());
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}

fn method_not_allowed(allowed: &'static str) -> Refusal {
    let mut response = response::refusal(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}
