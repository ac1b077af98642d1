//! What a server is started with.

use crate::rate_limit::Rate;
use stateroom_wasmi_host::{FaultPolicy, Limits, LoadError, LoadOptions, Module};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    string::String,
    time::Duration,
    vec::Vec,
};

/// What a [`Server`](super::Server) is started with; the fields say their defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The module, binary.
    pub module: Vec<u8>,
    /// What the module is called in `/rooms`.
    pub module_name: String,
    /// The address to listen on. Default 127.0.0.1.
    pub host: IpAddr,
    /// The port; 0 picks a free one. Default 8080.
    pub port: u16,
    /// Time between two pings of the server. Default 30 s.
    pub heartbeat_interval: Duration,
    /// Time after which a client that sends nothing, not even pongs, is dropped, and likewise a
    /// connection that takes not a byte of what is sent. Default 120 s.
    pub heartbeat_timeout: Duration,
    /// A folder whose files are served instead of the page. Default none.
    pub static_dir: Option<PathBuf>,
    /// Tasks that run rooms, each with an interpreter of its own. Default one for each core; more
    /// bring nothing.
    pub workers: usize,
    /// Time after which a room without clients is closed. Default 60 s.
    pub room_idle: Duration,
    /// Whether a room without clients is kept while its timer is set. Default no.
    pub keep_timers: bool,
    /// Limits of the module and of each room. Defaults are [`Limits::default`].
    pub limits: Limits,
    /// Rooms that are open at a time, over all workers. Default 10,000.
    pub max_rooms: usize,
    /// Messages that wait for one client; one more, and the client is closed with 1013. A room may
    /// say much in one event, so this should be no less than
    /// [`Limits::max_outbox_messages`](crate::Limits::max_outbox_messages). Default 4,096.
    pub max_queued_messages: usize,
    /// Bytes of the messages that wait for one client, likewise. Default 8 MiB.
    pub max_queued_bytes: usize,
    /// Messages and pings of one client. Who sends more is not read from until it is time, so that
    /// nothing is lost. Default 500 a second, 1,000 at once.
    pub message_rate: Rate,
    /// Bytes that are read from one connection, likewise; so many that a message of the greatest
    /// length takes less than [`heartbeat_timeout`](Self::heartbeat_timeout). Default 8 MiB a second,
    /// 16 MiB at once.
    pub byte_rate: Rate,
    /// Connections at a time, of all kinds; one more is answered with 503. Default 10,000.
    pub max_connections: usize,
    /// Connections at a time from one address (of IPv6, from one /64 network); one more is answered
    /// with 429. Behind a proxy all clients have its address. Default 1,000.
    pub max_connections_per_address: usize,
    /// New connections from one address, likewise. This bounds how fast tokens can be guessed.
    /// Default 200 a second, 2,000 at once.
    pub connect_rate: Rate,
    /// Time for a request, from when it could begin to the end of its headers; then the connection
    /// is closed. Default 10 s.
    pub handshake_timeout: Duration,
    /// Tokens of clients that a room remembers. Default 4,096.
    pub max_tokens: usize,
    /// The origins whose pages may talk to the rooms, besides the server's own, as in
    /// `https://example.org`; `*` for all. Default none.
    pub allowed_origins: Vec<String>,
    /// What becomes of a room whose guest fails. Default [`FaultPolicy::Close`], with 1011.
    pub on_fault: FaultPolicy,
    /// Seeds the random generators of the rooms. Default: from the operating system, so that
    /// nobody can guess it.
    pub seed: Option<u64>,
}

impl ServerConfig {
    /// A server of this binary module, with defaults for everything else.
    pub fn new(module: impl Into<Vec<u8>>) -> Self {
        Self {
            module: module.into(),
            module_name: "room.wasm".into(),
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8080,
            heartbeat_interval: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(120),
            static_dir: None,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            room_idle: Duration::from_secs(60),
            keep_timers: false,
            limits: Limits::default(),
            max_rooms: 10_000,
            max_queued_messages: 4096,
            max_queued_bytes: 8 << 20,
            message_rate: Rate::new(500, 1000),
            byte_rate: Rate::new(8 << 20, 16 << 20),
            max_connections: 10_000,
            max_connections_per_address: 1000,
            connect_rate: Rate::new(200, 2000),
            handshake_timeout: Duration::from_secs(10),
            max_tokens: 4096,
            allowed_origins: Vec::new(),
            on_fault: FaultPolicy::Close,
            seed: None,
        }
    }

    /// Sets [`module_name`](#structfield.module_name).
    #[must_use]
    pub fn module_name(mut self, module_name: impl Into<String>) -> Self {
        self.module_name = module_name.into();
        self
    }

    /// Sets [`static_dir`](#structfield.static_dir).
    #[must_use]
    pub fn static_dir(mut self, static_dir: impl Into<PathBuf>) -> Self {
        self.static_dir = Some(static_dir.into());
        self
    }

    /// Sets [`allowed_origins`](#structfield.allowed_origins).
    #[must_use]
    pub fn allowed_origins(mut self, origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    stateroom_wasmi_host::setters! {
        host: IpAddr,
        port: u16,
        heartbeat_interval: Duration,
        heartbeat_timeout: Duration,
        workers: usize,
        room_idle: Duration,
        keep_timers: bool,
        limits: Limits,
        max_rooms: usize,
        max_queued_messages: usize,
        max_queued_bytes: usize,
        message_rate: Rate,
        byte_rate: Rate,
        max_connections: usize,
        max_connections_per_address: usize,
        connect_rate: Rate,
        handshake_timeout: Duration,
        max_tokens: usize,
        on_fault: FaultPolicy,
        seed: Option<u64>,
    }

    pub(crate) fn load(&self) -> Result<Module, ServeError> {
        let rollback = self.on_fault == FaultPolicy::Rollback;
        let options = LoadOptions::new().rollback(rollback);
        Module::load_with(&self.module, &self.limits, options).map_err(ServeError::Load)
    }

    pub(crate) fn draw_seed(&self) -> Result<u64, ServeError> {
        match self.seed {
            Some(seed) => Ok(seed),
            None => getrandom::u64().map_err(|error| ServeError::Start(error.into())),
        }
    }
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The module cannot be served.
    Load(LoadError),
    /// The address cannot be listened on.
    Listen(io::Error),
    /// The operating system gave no seed.
    Start(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load(_) => "the module cannot be served",
            Self::Listen(_) => "the address cannot be listened on",
            Self::Start(_) => "the operating system refused what the server needs",
        })
    }
}

impl core::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Load(error) => Some(error),
            Self::Listen(error) | Self::Start(error) => Some(error),
        }
    }
}
