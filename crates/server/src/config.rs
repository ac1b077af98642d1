//! The configuration of a server.

#[cfg(feature = "tls")]
use crate::tls::{TlsError, TlsFiles};
use crate::{
    auth::Authenticator,
    directory::Directory,
    http::{files::Files, origin::AllowedOrigin, proxies, websocket::is_token},
    journal::{Durability, Journal, ModuleUpgrade},
    leaf::Leaf,
    rate_limit::Rate,
};
use stateroom_wasmi_host::{Escaped, FaultPolicy, Limits, LoadError, LoadOptions, Module};
use std::{
    fmt, io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// The configuration of a [`Server`](super::Server). Each field states its default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The module, in the binary format.
    pub module: Vec<u8>,
    /// The module's name in `/rooms`. Default `room.wasm`.
    pub module_name: String,
    /// The addresses to listen on: names or IP addresses. A name stands for all its addresses.
    /// Default 127.0.0.1.
    pub hosts: Vec<String>,
    /// The port, the same for all addresses; 0 picks a free one. Default 8080.
    pub port: u16,
    /// Time between two pings of the server. Default 30 s.
    pub heartbeat_interval: Duration,
    /// Time after which a client that sends nothing, not even pongs, is disconnected, and after
    /// which a connection that takes no byte of what is sent to it is closed. Default 120 s.
    pub heartbeat_timeout: Duration,
    /// A folder whose files are served instead of the page. Default none.
    pub static_dir: Option<PathBuf>,
    /// A folder whose files are served below `/client/`, before those of [`static_dir`](Self::static_dir).
    /// Default none.
    pub client_dir: Option<PathBuf>,
    /// Threads that run rooms, each with an interpreter of its own and the connections of its
    /// rooms. Default one per core; more do not help.
    pub workers: usize,
    /// Time after which a room without clients is closed. Default 60 s.
    pub room_idle: Duration,
    /// Ids of rooms that are opened when the server begins, and not closed because they have no clients. One
    /// that has failed or was closed opens with its next client, as others do. Not for the rooms of a board.
    /// Default none.
    pub open_rooms: Vec<String>,
    /// Whether a room without clients is kept while its timer is set. Default no.
    pub keep_timers: bool,
    /// Time after which a room that does nothing [hibernates](stateroom_wasmi_host::Room::hibernate): its
    /// guest is replaced by its state until an event or its timer wakes it, and its clients stay
    /// connected. It may be up to twice this time. The module's state must be one that can be saved.
    /// Default none.
    pub hibernate_after: Option<Duration>,
    /// Keeps rooms beyond the process. The module's state must then be one that can be saved. A room
    /// without clients that is closed ([`room_idle`](Self::room_idle)) is kept there and restored for its
    /// next client; a room whose guest has failed for good is removed. Default none: rooms are in memory
    /// only.
    pub journal: Option<Arc<dyn Journal>>,
    /// What the journal promises to rooms. Default [`Durability::Durable`].
    pub durability: Durability,
    /// The same for rooms whose ids begin with a prefix; the longest counts. Default none.
    pub durability_of: Vec<(String, Durability)>,
    /// What becomes of rooms of another module. Default [`ModuleUpgrade::Refuse`].
    pub upgrade: ModuleUpgrade,
    /// Makes the server a node of a cluster, which takes clients of all rooms and has some of them. Then
    /// rooms should have a [`journal`](Self::journal): those in memory are lost when they go to another
    /// node. Default none: all rooms are here.
    pub directory: Option<Arc<dyn Directory>>,
    /// A host and a port for the other nodes, which pass on clients of rooms that are here. What they send
    /// is not encrypted: it should be an address that nobody else reaches. Default none.
    pub peer_listen: Option<(String, u16)>,
    /// Makes the server a leaf of a cluster, whose nodes pass on clients of its rooms. Not together with a
    /// [`directory`](Self::directory). Default none.
    pub leaf: Option<Leaf>,
    /// What nodes know each other by. All have the same, and it must be set if there is a
    /// [`directory`](Self::directory) or a [`peer_listen`](Self::peer_listen). Default none.
    pub peer_secret: Option<Secret>,
    /// How long a client whose room is at no node that can be reached waits for one. It is then closed with
    /// 1013. Default 15 s.
    pub owner_timeout: Duration,
    /// Limits of the module and of each room. Default [`Limits::default`].
    pub limits: Limits,
    /// Open rooms, over all workers. Default 10,000.
    pub max_rooms: usize,
    /// Messages that may be queued for one client; beyond that it is closed with 1013. Should be
    /// no less than [`Limits::max_outbox_messages`], which a room may send in one event. Default
    /// 4,096.
    pub max_queued_messages: usize,
    /// Bytes of messages that may be queued for one client; beyond that it is closed with 1013.
    /// Default 8 MiB.
    pub max_queued_bytes: usize,
    /// Bytes of messages that may be queued for all clients together; beyond that the clients with
    /// the fullest queues are disconnected with 1013. Each worker has an equal share. Default
    /// 256 MiB.
    pub max_total_queued_bytes: usize,
    /// Messages, fragments and pings of one client, and requests of one connection. A client over
    /// the rate is throttled: it is read from later, and nothing is lost. Default 500 a second,
    /// bursts of 1,000.
    pub message_rate: Rate,
    /// Bytes of one connection, throttled too. High enough that a message of
    /// [`Limits::max_message_bytes`] takes less than
    /// [`heartbeat_timeout`](Self::heartbeat_timeout). Default 8 MiB a second, bursts of 16 MiB.
    pub byte_rate: Rate,
    /// Concurrent connections of all kinds; beyond that, 503. Default 10,000.
    pub max_connections: usize,
    /// Concurrent connections from one address (for IPv6, one /64 network); beyond that, 429.
    /// Behind a proxy all clients have its address. Default 1,000.
    pub max_connections_per_address: usize,
    /// New connections from one address; beyond that, 429. Bounds how fast tokens can be guessed.
    /// Default 200 a second, bursts of 2,000.
    pub connect_rate: Rate,
    /// Time for a request's headers, from the moment a request may start; then the connection is
    /// closed. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a client that speaks the subprotocol `stateroom.resume.1` stays in its room without a
    /// connection; zero turns the subprotocol off, which a node of a cluster cannot do without. Default 30 s.
    pub resume_window: Duration,
    /// Messages to such a client that are kept until it acknowledges them; beyond that it is disconnected.
    /// Should be no less than [`Limits::max_outbox_messages`]. At a node of a cluster all clients are such
    /// clients to the node of their room, and it is no less than
    /// [`max_queued_messages`](Self::max_queued_messages). Default 4,096.
    pub max_resume_messages: usize,
    /// Bytes of those; at a node of a cluster no less than [`max_queued_bytes`](Self::max_queued_bytes).
    /// Default 1 MiB.
    pub max_resume_bytes: usize,
    /// Client tokens that a room remembers. Default 4,096.
    pub max_tokens: usize,
    /// Origins whose pages may connect, besides the server's own, such as `https://example.org`;
    /// `*` allows all, `null` is a page from a file. Default none.
    ///
    /// A server that listens on loopback addresses alone serves no requests for other hosts than
    /// `localhost` and IP addresses, except for those of these origins.
    pub allowed_origins: Vec<String>,
    /// Subprotocols of WebSockets: of those that a client offers, the first that is listed here is
    /// chosen, and none if none is listed. If this is empty, it is the first that the client offers.
    /// Default none.
    pub subprotocols: Vec<String>,
    /// Addresses and networks (`10.0.0.0/8`) of proxies that are trusted to say on whose behalf they
    /// connect, so that limits per address are the clients', and not the proxy's. Default none.
    pub trusted_proxies: Vec<String>,
    /// How they say so. Default [`ProxyHeader::XForwardedFor`].
    pub proxy_header: ProxyHeader,
    /// The certificate of the server, for TLS on all addresses but loopback addresses for operators. Default
    /// none: connections are not encrypted.
    #[cfg(feature = "tls")]
    pub tls: Option<TlsFiles>,
    /// Who may connect, and as whom. Default all, as whoever their token says.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// A host and a port for operators alone, with `/metrics`, `/rooms` and what else the front page lists.
    /// Default none.
    ///
    /// Without it, a server that listens on loopback addresses alone and allows no other origins serves
    /// that together with all else; any other does not serve it.
    pub admin_listen: Option<(String, u16)>,
    /// The token that operators must send, as `Authorization: Bearer TOKEN`. Must be set if
    /// [`admin_listen`](Self::admin_listen) is no loopback address. Default none.
    pub admin_token: Option<Secret>,
    /// How many rooms have metrics of their own: those that have used the most fuel. Default 0.
    pub busiest_rooms: usize,
    /// How many lines of the log were lost, for the metrics. Default none.
    pub log_lines_lost: Option<Arc<AtomicU64>>,
    /// Metrics of what is around the server, which are put behind its own. Default none.
    pub more_metrics: Option<MoreMetrics>,
    /// What follows when a guest fails. Default [`FaultPolicy::Close`], which closes the room's
    /// clients with 1011.
    pub on_fault: FaultPolicy,
    /// Seed of the rooms' random generators. Default: from the operating system, so that it cannot
    /// be guessed.
    pub seed: Option<u64>,
}

impl ServerConfig {
    /// The defaults, for this module.
    pub fn new(module: impl Into<Vec<u8>>) -> Self {
        Self {
            module: module.into(),
            module_name: "room.wasm".into(),
            hosts: Vec::from([Ipv4Addr::LOCALHOST.to_string()]),
            port: 8080,
            heartbeat_interval: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(120),
            static_dir: None,
            client_dir: None,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            room_idle: Duration::from_secs(60),
            open_rooms: Vec::new(),
            keep_timers: false,
            hibernate_after: None,
            journal: None,
            durability: Durability::Durable,
            durability_of: Vec::new(),
            upgrade: ModuleUpgrade::Refuse,
            directory: None,
            peer_listen: None,
            leaf: None,
            peer_secret: None,
            owner_timeout: Duration::from_secs(15),
            limits: Limits::default(),
            max_rooms: 10_000,
            max_queued_messages: 4096,
            max_queued_bytes: 8 << 20,
            max_total_queued_bytes: 256 << 20,
            message_rate: Rate::new(500, 1000),
            byte_rate: Rate::new(8 << 20, 16 << 20),
            max_connections: 10_000,
            max_connections_per_address: 1000,
            connect_rate: Rate::new(200, 2000),
            handshake_timeout: Duration::from_secs(10),
            resume_window: Duration::from_secs(30),
            max_resume_messages: 4096,
            max_resume_bytes: 1 << 20,
            max_tokens: 4096,
            allowed_origins: Vec::new(),
            subprotocols: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::XForwardedFor,
            #[cfg(feature = "tls")]
            tls: None,
            authenticator: None,
            admin_listen: None,
            admin_token: None,
            busiest_rooms: 0,
            log_lines_lost: None,
            more_metrics: None,
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

    /// Sets [`hosts`](#structfield.hosts).
    #[must_use]
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`static_dir`](#structfield.static_dir).
    #[must_use]
    pub fn static_dir(mut self, static_dir: impl Into<PathBuf>) -> Self {
        self.static_dir = Some(static_dir.into());
        self
    }

    /// Sets [`client_dir`](#structfield.client_dir).
    #[must_use]
    pub fn client_dir(mut self, client_dir: impl Into<PathBuf>) -> Self {
        self.client_dir = Some(client_dir.into());
        self
    }

    /// Sets [`journal`](#structfield.journal).
    #[must_use]
    pub fn journal(mut self, journal: Option<Arc<dyn Journal>>) -> Self {
        self.journal = journal;
        self
    }

    /// Sets [`durability_of`](#structfield.durability_of).
    #[must_use]
    pub fn durability_of(
        mut self,
        prefixes: impl IntoIterator<Item = (impl Into<String>, Durability)>,
    ) -> Self {
        let prefixes = prefixes.into_iter();
        self.durability_of = prefixes
            .map(|(prefix, durability)| (prefix.into(), durability))
            .collect();
        self
    }

    /// Sets [`directory`](#structfield.directory).
    #[must_use]
    pub fn directory(mut self, directory: Option<Arc<dyn Directory>>) -> Self {
        self.directory = directory;
        self
    }

    /// Sets [`peer_listen`](#structfield.peer_listen).
    #[must_use]
    pub fn peer_listen(mut self, address: Option<(impl Into<String>, u16)>) -> Self {
        self.peer_listen = address.map(|(host, port)| (host.into(), port));
        self
    }

    /// Sets [`leaf`](#structfield.leaf).
    #[must_use]
    pub fn leaf(mut self, leaf: Option<Leaf>) -> Self {
        self.leaf = leaf;
        self
    }

    /// Sets [`peer_secret`](#structfield.peer_secret).
    #[must_use]
    pub fn peer_secret(mut self, secret: Option<Secret>) -> Self {
        self.peer_secret = secret;
        self
    }

    /// Sets [`open_rooms`](#structfield.open_rooms).
    #[must_use]
    pub fn open_rooms(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.open_rooms = ids.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`allowed_origins`](#structfield.allowed_origins).
    #[must_use]
    pub fn allowed_origins(mut self, origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`subprotocols`](#structfield.subprotocols).
    #[must_use]
    pub fn subprotocols(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`trusted_proxies`](#structfield.trusted_proxies).
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.trusted_proxies = proxies.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`tls`](#structfield.tls).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, files: Option<TlsFiles>) -> Self {
        self.tls = files;
        self
    }

    /// Sets [`authenticator`](#structfield.authenticator).
    #[must_use]
    pub fn authenticator(mut self, authenticator: Option<Arc<dyn Authenticator>>) -> Self {
        self.authenticator = authenticator;
        self
    }

    /// Sets [`admin_listen`](#structfield.admin_listen).
    #[must_use]
    pub fn admin_listen(mut self, address: Option<(impl Into<String>, u16)>) -> Self {
        self.admin_listen = address.map(|(host, port)| (host.into(), port));
        self
    }

    /// Sets [`admin_token`](#structfield.admin_token).
    #[must_use]
    pub fn admin_token(mut self, token: Option<Secret>) -> Self {
        self.admin_token = token;
        self
    }

    /// Sets [`log_lines_lost`](#structfield.log_lines_lost).
    #[must_use]
    pub fn log_lines_lost(mut self, lost: Option<Arc<AtomicU64>>) -> Self {
        self.log_lines_lost = lost;
        self
    }

    /// Sets [`more_metrics`](#structfield.more_metrics).
    #[must_use]
    pub fn more_metrics(mut self, metrics: Option<MoreMetrics>) -> Self {
        self.more_metrics = metrics;
        self
    }

    stateroom_wasmi_host::setters! {
        port: u16,
        heartbeat_interval: Duration,
        heartbeat_timeout: Duration,
        workers: usize,
        room_idle: Duration,
        keep_timers: bool,
        hibernate_after: Option<Duration>,
        durability: Durability,
        upgrade: ModuleUpgrade,
        owner_timeout: Duration,
        limits: Limits,
        max_rooms: usize,
        max_queued_messages: usize,
        max_queued_bytes: usize,
        max_total_queued_bytes: usize,
        message_rate: Rate,
        byte_rate: Rate,
        max_connections: usize,
        max_connections_per_address: usize,
        connect_rate: Rate,
        handshake_timeout: Duration,
        resume_window: Duration,
        max_resume_messages: usize,
        max_resume_bytes: usize,
        max_tokens: usize,
        proxy_header: ProxyHeader,
        busiest_rooms: usize,
        on_fault: FaultPolicy,
        seed: Option<u64>,
    }

    /// Whether a server can serve with these settings. [`Server::bind`](super::Server::bind) checks
    /// this.
    ///
    /// # Errors
    ///
    /// If nobody could be served, or a setting is not what it must be. The module is not checked.
    pub fn check(&self) -> Result<(), ConfigError> {
        let zeros = [
            ("workers", self.workers == 0),
            ("max_rooms", self.max_rooms == 0),
            ("max_clients", self.limits.max_clients == 0),
            (
                "max_fuel_per_event",
                self.limits.max_fuel_per_event == Some(0),
            ),
            ("max_queued_messages", self.max_queued_messages == 0),
            ("max_queued_bytes", self.max_queued_bytes == 0),
            ("max_total_queued_bytes", self.max_total_queued_bytes == 0),
            ("max_connections", self.max_connections == 0),
            (
                "max_connections_per_address",
                self.max_connections_per_address == 0,
            ),
            ("handshake_timeout", self.handshake_timeout.is_zero()),
            (
                "hibernate_after",
                self.hibernate_after.is_some_and(|after| after.is_zero()),
            ),
            ("heartbeat_interval", self.heartbeat_interval.is_zero()),
            (
                "resume_window",
                (self.directory.is_some() || self.leaf.is_some()) && self.resume_window.is_zero(),
            ),
        ];
        if let Some((setting, _)) = zeros.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(ConfigError::Zero { setting });
        }
        if self.heartbeat_timeout <= self.heartbeat_interval {
            return Err(ConfigError::HeartbeatTimeout {
                timeout: self.heartbeat_timeout,
                interval: self.heartbeat_interval,
            });
        }
        if self.hosts.is_empty() {
            return Err(ConfigError::NoHost);
        }
        let limit = self.limits.max_room_id_bytes;
        if let Some(id) = self.open_rooms.iter().find(|id| id.len() > limit) {
            let bytes = id.len();
            return Err(ConfigError::OpenRoomId { bytes, limit });
        }
        if self.open_rooms.len() > self.max_rooms {
            return Err(ConfigError::OpenRooms {
                rooms: self.open_rooms.len(),
                limit: self.max_rooms,
            });
        }
        let is_origin = |origin: &&String| origin.parse::<AllowedOrigin>().is_ok();
        if let Some(origin) = self
            .allowed_origins
            .iter()
            .find(|origin| !is_origin(origin))
        {
            return Err(ConfigError::AllowedOrigin(origin.clone()));
        }
        let is_proxy = |text: &&String| proxies::parse(text).is_some();
        if let Some(text) = self.trusted_proxies.iter().find(|text| !is_proxy(text)) {
            return Err(ConfigError::TrustedProxy(text.clone()));
        }
        let is_name = |name: &&String| is_token(name.as_bytes());
        if self
            .admin_token
            .as_ref()
            .is_some_and(|token| token.0.is_empty())
        {
            return Err(ConfigError::AdminToken);
        }
        let is_node = self.directory.is_some() || self.peer_listen.is_some();
        let secret = self.peer_secret.as_ref();
        if is_node && secret.is_none_or(|secret| secret.0.is_empty()) {
            return Err(ConfigError::PeerSecret);
        }
        if self.directory.is_some() && self.leaf.is_some() {
            return Err(ConfigError::LeafAndNode);
        }
        if let Some(name) = self.subprotocols.iter().find(|name| !is_name(name)) {
            return Err(ConfigError::Subprotocol(name.clone()));
        }
        let folders = [&self.static_dir, &self.client_dir];
        let mut folders = folders.into_iter().flatten();
        folders.try_for_each(|dir| Files::open(dir).map(drop))
    }

    /// Whether operators may ask on the addresses for clients, if all of them are loopback addresses.
    pub(crate) fn is_for_development(&self) -> bool {
        self.admin_listen.is_none()
            && self.allowed_origins.is_empty()
            && self.trusted_proxies.is_empty()
    }

    pub(crate) fn loader(&self) -> ModuleLoader {
        let snapshots = self.on_fault == FaultPolicy::Rollback
            || self.hibernate_after.is_some()
            || self.journal.is_some();
        ModuleLoader {
            limits: self.limits,
            options: LoadOptions::new().snapshots(snapshots).simd(true),
            // For what operators can do with rooms.
            prefers_snapshots: self.admin_listen.is_some(),
        }
    }

    /// The secret that tokens are hashed with.
    pub(crate) fn secret(&self) -> Result<[u8; 32], ServeError> {
        match &self.journal {
            Some(journal) => Ok(journal.secret()),
            None => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|error| ServeError::Seed(error.into()))?;
                Ok(secret)
            }
        }
    }

    /// The configured seed, or a random one.
    pub(crate) fn draw_seed(&self) -> Result<u64, ServeError> {
        match self.seed {
            Some(seed) => Ok(seed),
            None => getrandom::u64().map_err(|error| ServeError::Seed(error.into())),
        }
    }
}

/// How modules are loaded.
#[derive(Clone)]
pub(crate) struct ModuleLoader {
    limits: Limits,
    options: LoadOptions,
    /// Whether modules are loaded for snapshots if they can be.
    prefers_snapshots: bool,
}

impl ModuleLoader {
    pub(crate) fn load(&self, wasm: &[u8]) -> Result<Module, LoadError> {
        let module = Module::load_with(wasm, &self.limits, self.options)?;
        // If its rooms can go on with another module, they must be saved for that; if they cannot be saved,
        // they begin anew.
        let prefers = self.prefers_snapshots || module.has_save() || module.has_load();
        if self.options.snapshots || !prefers {
            return Ok(module);
        }
        let options = self.options.snapshots(true);
        Ok(Module::load_with(wasm, &self.limits, options).unwrap_or(module))
    }
}

/// How a proxy says on whose behalf it connects. What it does not write itself, it passes on as the client
/// has sent it: so this must be what the proxy writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyHeader {
    /// By appending to the header `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// By appending to the header `Forwarded` (RFC 7239).
    Forwarded,
    /// By a header of the PROXY protocol, version 1 or 2, at the beginning of each connection.
    ProxyProtocol,
}

/// Metrics that are not the server's.
#[derive(Clone)]
pub struct MoreMetrics(Arc<dyn Fn() -> String + Send + Sync>);

impl MoreMetrics {
    /// `read` returns them in the text format of Prometheus, version 0.0.4, with a line break at the end. It
    /// is called for each response, and must not wait.
    pub fn new(read: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub(crate) fn read(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for MoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MoreMetrics")
    }
}

/// A text that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A setting with which a server cannot serve.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is zero, so that nobody could be served.
    Zero {
        /// The field of [`ServerConfig`], or of its limits.
        setting: &'static str,
    },
    /// Clients would be disconnected before they can reply to a ping.
    HeartbeatTimeout {
        /// [`ServerConfig::heartbeat_timeout`]
        timeout: Duration,
        /// [`ServerConfig::heartbeat_interval`]
        interval: Duration,
    },
    /// There is no address to listen on.
    NoHost,
    /// One of [`ServerConfig::open_rooms`] has an id that is too long.
    OpenRoomId {
        /// The length of the id.
        bytes: usize,
        /// [`Limits::max_room_id_bytes`]
        limit: usize,
    },
    /// [`ServerConfig::open_rooms`] are more than there may be.
    OpenRooms {
        /// How many there are.
        rooms: usize,
        /// [`ServerConfig::max_rooms`]
        limit: usize,
    },
    /// One of [`ServerConfig::allowed_origins`] is no origin.
    AllowedOrigin(String),
    /// One of [`ServerConfig::subprotocols`] cannot be the name of one.
    Subprotocol(String),
    /// One of [`ServerConfig::trusted_proxies`] is no address and no network.
    TrustedProxy(String),
    /// [`ServerConfig::admin_token`] is missing where all can ask, or is empty.
    AdminToken,
    /// [`ServerConfig::peer_secret`] is missing at a node of a cluster, or is empty.
    PeerSecret,
    /// There are both a [`ServerConfig::directory`] and a [`ServerConfig::leaf`].
    LeafAndNode,
    /// [`ServerConfig::static_dir`] or [`ServerConfig::client_dir`] is no folder that can be read.
    StaticDir {
        /// The path.
        dir: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero { setting } => write!(f, "`{setting}` is 0, so that nobody could be served"),
            Self::HeartbeatTimeout { timeout, interval } => write!(
                f,
                "the heartbeat timeout ({timeout:?}) must be longer than the heartbeat interval \
                 ({interval:?}), or clients that reply to each ping would be disconnected"
            ),
            Self::NoHost => f.write_str("there is no address to listen on"),
            Self::OpenRoomId { bytes, limit } => write!(
                f,
                "a room that is to be opened has an id of {bytes} bytes, but the limit is {limit}"
            ),
            Self::OpenRooms { rooms, limit } => write!(
                f,
                "{rooms} rooms are to be opened, but there may be no more than {limit}"
            ),
            Self::AllowedOrigin(origin) => {
                let quoted = Escaped::new(origin);
                write!(
                    f,
                    "{quoted:?} is no origin, which is scheme://host or scheme://host:port"
                )?;
                match similar_origin(origin) {
                    Some(similar) => write!(f, ", such as {similar}"),
                    None if !origin.is_ascii() => f.write_str(", with the host in its xn-- form"),
                    None => Ok(()),
                }
            }
            Self::Subprotocol(name) => write!(
                f,
                "{:?} cannot be a subprotocol: its name must be a token, of letters, digits and \
                 !#$%&'*+-.^_`|~",
                Escaped::new(name)
            ),
            Self::TrustedProxy(text) => write!(
                f,
                "{:?} is no address of a proxy, nor a network, such as 10.0.0.0/8",
                Escaped::new(text)
            ),
            Self::AdminToken => f.write_str(
                "operators must have a token, since the address for them is no loopback address; and \
                 it must not be empty",
            ),
            Self::PeerSecret => {
                f.write_str("nodes of a cluster must have a secret, which must not be empty")
            }
            Self::LeafAndNode => f.write_str("a server cannot be a node of a cluster and a leaf at once"),
            Self::StaticDir { dir, .. } => {
                write!(
                    f,
                    "cannot serve the folder {:?}",
                    Escaped::new(dir.display())
                )
            }
        }
    }
}

impl core::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::StaticDir { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// The origin that somebody may have meant by a URL or a host.
fn similar_origin(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
    let scheme = match scheme {
        "ws" => "http",
        "wss" => "https",
        scheme => scheme,
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let similar = format!("{scheme}://{host}");
    similar.parse::<AllowedOrigin>().is_ok().then_some(similar)
}

/// Why a server could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting is not what it must be.
    Config(ConfigError),
    /// The module cannot be loaded.
    Load(LoadError),
    /// The server cannot listen.
    Listen {
        /// The address, or the host that has none, and the port.
        address: String,
        /// What is wrong with it.
        error: io::Error,
    },
    /// There is no TLS.
    #[cfg(feature = "tls")]
    Tls(TlsError),
    /// The operating system returned no random seed.
    Seed(io::Error),
    /// A worker's thread could not be started.
    Worker(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Load(_) => f.write_str("cannot load the module"),
            Self::Listen { address, .. } => {
                write!(f, "cannot listen on the address {}", Escaped::new(address))
            }
            #[cfg(feature = "tls")]
            Self::Tls(error) => error.fmt(f),
            Self::Seed(_) => f.write_str("cannot get a random seed from the operating system"),
            Self::Worker(_) => f.write_str("cannot start the thread of a worker"),
        }
    }
}

impl core::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Config(error) => error.source(),
            #[cfg(feature = "tls")]
            Self::Tls(error) => error.source(),
            Self::Load(error) => Some(error),
            Self::Listen { error, .. } | Self::Seed(error) | Self::Worker(error) => Some(error),
        }
    }
}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
