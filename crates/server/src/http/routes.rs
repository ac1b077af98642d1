//! The routes of clients, and their handlers.

use crate::{
    auth::{AuthError, AuthErrorKind, AuthRequest, Authenticator},
    config::{ConfigError, ServerConfig},
    http::{
        activity::Activity,
        admin::Admin,
        files::Files,
        headers::{bearer_token, elements},
        notice::Notice,
        origin::Origins,
        response::{self, Refusal, Response},
        transfers::RequestBody,
        websocket::shake_hands,
    },
    metrics::HttpCounts,
    rooms::{
        DRAINING,
        worker_pool::{Sequence, WorkerPool},
    },
};
use bytes::Bytes;
use core::time::Duration;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Body,
    header::{
        ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};
use percent_encoding::percent_decode_str;
use std::{
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::time::timeout;

/// What all requests share.
pub(crate) struct App {
    origins: Origins,
    /// What clients ask for, unless the address is one for operators alone.
    game: Option<Game>,
    /// What operators ask for, if they may here.
    admin: Option<Admin>,
    http: Arc<HttpCounts>,
    activity: Activity,
}

/// The clients' routes.
struct Game {
    subprotocols: Vec<String>,
    /// Whether clients may speak `stateroom.resume.1`.
    may_resume: bool,
    /// Whether there are other nodes that clients may come back to.
    is_of_cluster: bool,
    /// A folder in place of the page.
    files: Option<Files>,
    /// A folder below `/client/`.
    client: Option<Files>,
    authenticator: Option<Arc<dyn Authenticator>>,
    auth_timeout: Duration,
    sequence: Sequence,
    draining: Arc<AtomicBool>,
    activity: Activity,
}

/// What the addresses of a server share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(super) http: Arc<HttpCounts>,
    /// Whether no new clients are accepted.
    pub(super) draining: Arc<AtomicBool>,
    pub(crate) sequence: Sequence,
    pub(crate) notice: Notice,
    activity: Activity,
}

impl Shared {
    pub(crate) fn new(workers: &WorkerPool) -> Self {
        Self {
            http: Arc::default(),
            draining: workers.draining(),
            notice: Notice::default(),
            activity: Activity::default(),
            sequence: Sequence::default(),
        }
    }
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
    /// Of the addresses for clients. `is_local`: whether all of them are loopback addresses.
    pub(crate) fn for_clients(
        config: &ServerConfig,
        workers: &Arc<WorkerPool>,
        shared: &Shared,
        is_local: bool,
    ) -> Result<Self, ConfigError> {
        let admin = is_local && config.is_for_development();
        let admin = admin.then(|| Admin::new(config, workers.clone(), shared, true));
        Ok(Self {
            origins: Origins::new(config, is_local),
            game: Some(Game {
                subprotocols: config.subprotocols.clone(),
                may_resume: !config.resume_window.is_zero(),
                is_of_cluster: config.directory.is_some(),
                files: config.static_dir.as_deref().map(Files::open).transpose()?,
                client: config.client_dir.as_deref().map(Files::open).transpose()?,
                authenticator: config.authenticator.clone(),
                auth_timeout: config.handshake_timeout,
                sequence: shared.sequence.clone(),
                draining: shared.draining.clone(),
                activity: shared.activity.clone(),
            }),
            admin,
            http: shared.http.clone(),
            activity: shared.activity.clone(),
        })
    }

    /// Of an address for operators.
    pub(crate) fn for_operators(
        config: &ServerConfig,
        workers: &Arc<WorkerPool>,
        shared: &Shared,
        is_local: bool,
    ) -> Self {
        Self {
            origins: Origins::for_operators(config, is_local),
            game: None,
            admin: Some(Admin::new(config, workers.clone(), shared, false)),
            http: shared.http.clone(),
            activity: shared.activity.clone(),
        }
    }

    /// What is counted of responses.
    pub(super) fn counts(&self) -> &HttpCounts {
        &self.http
    }

    /// The WebSockets that are open.
    pub(super) const fn activity(&self) -> &Activity {
        &self.activity
    }

    /// `address` is the client's.
    pub(super) async fn respond<B: RequestBody>(
        &self,
        request: &mut Request<B>,
        address: IpAddr,
    ) -> Outcome {
        let outcome = self.route(request, address).await;
        outcome.unwrap_or_else(|refusal| (*refusal, None))
    }

    async fn route<B: RequestBody>(
        &self,
        request: &mut Request<B>,
        address: IpAddr,
    ) -> Result<Outcome, Refusal> {
        self.origins.check(request)?;
        if let Some(admin) = &self.admin
            && let Some(response) = admin.respond(request).await
        {
            return response.map(|response| (response, None));
        }
        match &self.game {
            Some(game) => game.route(request, address).await,
            // The rooms, without a way to join them.
            None if request.uri().path() == "/" && request.method().is_safe() => Ok((page(), None)),
            None => Err(response::refusal(StatusCode::NOT_FOUND, "not found\n")),
        }
    }
}

impl Game {
    async fn route<B: Body>(
        &self,
        request: &Request<B>,
        address: IpAddr,
    ) -> Result<Outcome, Refusal> {
        let path = request.uri().path();
        if let Some(room) = room_in(path) {
            return self.connect(request, room, address).await;
        }
        let client = self.client.as_ref().zip(path.strip_prefix("/client"));
        let client = client.filter(|(_, path)| path.starts_with('/'));
        let is_known = self.files.is_some() || client.is_some() || matches!(path, "/" | "/status");
        if !is_known {
            return Err(response::refusal(StatusCode::NOT_FOUND, "not found\n"));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(response::method_not_allowed("GET, HEAD"));
        }
        let response = match (path, client, &self.files) {
            ("/status", ..) => self.status(request.headers()),
            (_, Some((client, path)), _) => client.respond(request, path).await,
            (_, None, Some(files)) => files.respond(request, path).await,
            (_, None, None) => page(),
        };
        Ok((response, None))
    }

    /// In JSON for those that ask for it, as programs made for `stateroom serve` 0.2.9 need it.
    fn status(&self, headers: &HeaderMap) -> Response {
        let response = if elements(headers, ACCEPT).any(is_json) {
            let is_listening = !self.draining.load(Ordering::Relaxed);
            let status = self.activity.status(is_listening);
            let json = serde_json::to_vec(&status).unwrap_or_default();
            let headers = [(CONTENT_TYPE, "application/json")];
            response::with_headers(response::bytes(json.into()), headers)
        } else {
            response::text(StatusCode::OK, "ok")
        };
        response::with_headers(response, [(VARY, "accept"), (CACHE_CONTROL, "no-store")])
    }

    async fn connect<B: Body>(
        &self,
        request: &Request<B>,
        room: &str,
        address: IpAddr,
    ) -> Result<Outcome, Refusal> {
        if *request.method() != Method::GET {
            return Err(response::method_not_allowed("GET"));
        }
        let bad_request = |reason| response::refusal(StatusCode::BAD_REQUEST, reason);
        let room = decode_room(room)?;
        let query = request.uri().query().unwrap_or_default();
        let mut token = token_in(query).map_err(bad_request)?;
        let handshake = shake_hands(request, &self.subprotocols, self.may_resume);
        // One that comes back says so when it is connected, and is then known by its room.
        let may_come_back = matches!(&handshake, Ok((_, true))) && !self.is_of_cluster;
        if self.draining.load(Ordering::Relaxed) && !may_come_back {
            let reason = format!("{DRAINING}\n");
            return Err(response::refusal(StatusCode::SERVICE_UNAVAILABLE, reason));
        }
        let (response, resumes) = handshake?;
        if let Some(authenticator) = &self.authenticator {
            let header = bearer_token(request.headers());
            let parameter = parameter_in(query, "access_token").map_err(bad_request)?;
            let request = AuthRequest {
                room: &room,
                credential: header.or(parameter.as_deref()),
                headers: request.headers(),
                address,
            };
            let decision = timeout(self.auth_timeout, authenticator.authenticate(request)).await;
            let late = |_| Err(AuthError::unavailable("the authentication takes too long"));
            let identity = decision.unwrap_or_else(late).map_err(refuse)?;
            if let Some(subject) = identity.subject {
                // No token of a client's choice has a control character in front.
                token = Some(format!("\0{subject}").into());
            }
        }
        let destination = Destination {
            room: room.into(),
            token,
            resumes,
            sequence: self.sequence.next(),
        };
        Ok((response, Some(destination)))
    }
}

/// Whether an element of a header `Accept` is the type of JSON.
fn is_json(element: &[u8]) -> bool {
    let media_type = element.split(|byte| *byte == b';').next();
    media_type
        .unwrap_or_default()
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
}

/// The id of the room in a path, as it is encoded there.
fn room_in(path: &str) -> Option<&str> {
    match path.strip_prefix("/ws")? {
        "" => Some(""),
        rest => rest.strip_prefix('/').filter(|id| !id.contains('/')),
    }
}

/// The id of a room from a path.
pub(super) fn decode_room(encoded: &str) -> Result<String, Refusal> {
    let room = percent_decode_str(encoded).decode_utf8();
    let malformed = |_| response::refusal(StatusCode::BAD_REQUEST, "the room id is not UTF-8\n");
    room.map(Into::into).map_err(malformed)
}

/// The token in a query.
fn token_in(query: &str) -> Result<Option<Box<str>>, Bytes> {
    /// Longer tokens would only waste memory.
    const MAX_TOKEN_BYTES: usize = 128;
    match parameter_in(query, "token")? {
        Some(token) if token.len() > MAX_TOKEN_BYTES => {
            Err(format!("the token is longer than {MAX_TOKEN_BYTES} bytes\n").into())
        }
        Some(token) if token.starts_with('\0') => {
            Err("the token must not begin with a control character\n".into())
        }
        token => Ok(token),
    }
}

/// A parameter of a query; an empty one is none.
pub(super) fn parameter_in(query: &str, name: &str) -> Result<Option<Box<str>>, Bytes> {
    // Parsing replaces what is no UTF-8, which would make different tokens the same.
    if percent_decode_str(query).decode_utf8().is_err() {
        return Err("the query is not UTF-8\n".into());
    }
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(found, _)| found == name);
    let value = values.next().map(|(_, value)| value);
    if values.next().is_some() {
        return Err(format!("there is more than one {name}\n").into());
    }
    Ok(value.filter(|value| !value.is_empty()).map(Into::into))
}

/// The response to a client that may not connect.
fn refuse(error: AuthError) -> Refusal {
    let status = match error.kind {
        AuthErrorKind::Unauthorized => return response::unauthorized(error.reason),
        AuthErrorKind::Forbidden => StatusCode::FORBIDDEN,
        AuthErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    response::refusal(status, format!("{}\n", error.reason))
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
    response::with_headers(response::bytes(PAGE.clone()), headers)
}
