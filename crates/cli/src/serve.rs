//! `stateroom-wasmi serve`.

use crate::{
    admin::AdminArgs,
    data::DataArgs,
    diagnosis,
    listen::{ListenArgs, defaults, timeout_seconds},
    logging::Logging,
    module_file::ModuleFile,
    reload::Reload,
    room_args::RoomArgs,
};
#[cfg(feature = "cluster")]
use crate::{
    cluster::ClusterArgs,
    leaf::{LeafArgs, run_leaf},
};
use clap::Args;
use stateroom_wasmi_host::Escaped;
use stateroom_wasmi_server::{Rate, ServeError, Server, ServerConfig};
use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Serve the rooms of a module over WebSockets
///
/// SIGHUP reads the module again.
#[derive(Args)]
pub(crate) struct Serve {
    /// A .wasm or .wat file, or a folder with server.wasm (and static/)
    module: PathBuf,
    /// Read the module again when it changes: rooms go on with a fresh guest, and clients stay connected
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    server: ServeArgs,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    cluster: ClusterArgs,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    leaf: LeafArgs,
}

/// How rooms are served.
#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    listen: ListenArgs,
    /// Workers that run rooms in parallel [default: one per core]
    #[arg(long)]
    workers: Option<usize>,
    /// Seconds after which a room without clients is closed, or `never`
    #[arg(
        long,
        default_value_t = defaults().room_idle.as_secs(),
        value_name = "SECONDS",
        value_parser = parse_room_idle,
    )]
    room_idle: u64,
    /// Id of a room to open at the start, and to keep without clients; repeatable; '' is the room at /ws
    #[arg(long, value_name = "ID")]
    open: Vec<String>,
    /// Keep a room without clients while its timer is set
    #[arg(long)]
    keep_timers: bool,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    rooms: RoomArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

fn parse_room_idle(text: &str) -> Result<u64, String> {
    /// A hundred years, for which no process runs.
    const NEVER: u64 = 100 * 365 * 24 * 60 * 60;
    match text {
        "never" => Ok(NEVER),
        _ => text
            .parse()
            .map_err(|_| "it must be a number of seconds, or never".to_owned()),
    }
}

/// The limits of clients, and of all rooms together.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Open rooms
    #[arg(long, default_value_t = defaults().max_rooms, value_name = "ROOMS")]
    max_rooms: usize,
    /// Messages queued for one client; beyond that it is disconnected
    #[arg(long, default_value_t = defaults().max_queued_messages, value_name = "MESSAGES")]
    max_queued_messages: usize,
    /// Bytes of messages queued for one client; beyond that it is disconnected
    #[arg(long, default_value_t = defaults().max_queued_bytes, value_name = "BYTES")]
    max_queued_bytes: usize,
    /// Bytes of messages queued for all clients; beyond that those with the fullest queues are
    /// disconnected
    #[arg(long, default_value_t = defaults().max_total_queued_bytes, value_name = "BYTES")]
    max_total_queued_bytes: usize,
    /// Messages of one client, or requests of one connection, per second, throttled; 0 is unlimited
    #[arg(long, default_value_t = defaults().message_rate.per_second, value_name = "MESSAGES")]
    message_rate: u64,
    /// Messages of one client in a burst
    #[arg(long, default_value_t = defaults().message_rate.burst, value_name = "MESSAGES")]
    message_burst: u64,
    /// Bytes read from one connection per second, throttled; 0 is unlimited
    #[arg(long, default_value_t = defaults().byte_rate.per_second, value_name = "BYTES")]
    byte_rate: u64,
    /// Bytes read from one connection in a burst
    #[arg(long, default_value_t = defaults().byte_rate.burst, value_name = "BYTES")]
    byte_burst: u64,
    /// Concurrent connections
    #[arg(long, default_value_t = defaults().max_connections, value_name = "CONNECTIONS")]
    max_connections: usize,
    /// Concurrent connections from one address; behind a proxy all clients have its address
    #[arg(
        long,
        default_value_t = defaults().max_connections_per_address,
        value_name = "CONNECTIONS",
    )]
    max_connections_per_address: usize,
    /// New connections from one address per second; 0 is unlimited
    #[arg(long, default_value_t = defaults().connect_rate.per_second, value_name = "CONNECTIONS")]
    connect_rate: u64,
    /// New connections from one address in a burst
    #[arg(long, default_value_t = defaults().connect_rate.burst, value_name = "CONNECTIONS")]
    connect_burst: u64,
    /// Seconds for the headers of a request
    #[arg(
        long,
        default_value_t = defaults().handshake_timeout.as_secs(),
        value_name = "SECONDS",
        value_parser = timeout_seconds(),
    )]
    handshake_timeout: u64,
    /// Seconds that a client of the subprotocol stateroom.resume.1 stays in its room without a connection; 0
    /// turns the subprotocol off
    #[arg(
        long,
        default_value_t = defaults().resume_window.as_secs(),
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(..=1_000_000),
    )]
    resume_window: u64,
    /// Messages to such a client that are kept until it acknowledges them; beyond that it is disconnected
    #[arg(long, default_value_t = defaults().max_resume_messages, value_name = "MESSAGES")]
    max_resume_messages: usize,
    /// Bytes of those
    #[arg(long, default_value_t = defaults().max_resume_bytes, value_name = "BYTES")]
    max_resume_bytes: usize,
    /// Client tokens that a room remembers
    #[arg(long, default_value_t = defaults().max_tokens, value_name = "TOKENS")]
    max_tokens: usize,
}

impl LimitArgs {
    fn apply(&self, config: ServerConfig) -> ServerConfig {
        config
            .max_rooms(self.max_rooms)
            .max_queued_messages(self.max_queued_messages)
            .max_queued_bytes(self.max_queued_bytes)
            .max_total_queued_bytes(self.max_total_queued_bytes)
            .message_rate(Rate::new(self.message_rate, self.message_burst))
            .byte_rate(Rate::new(self.byte_rate, self.byte_burst))
            .max_connections(self.max_connections)
            .max_connections_per_address(self.max_connections_per_address)
            .connect_rate(Rate::new(self.connect_rate, self.connect_burst))
            .handshake_timeout(Duration::from_secs(self.handshake_timeout))
            .resume_window(Duration::from_secs(self.resume_window))
            .max_resume_messages(self.max_resume_messages)
            .max_resume_bytes(self.max_resume_bytes)
            .max_tokens(self.max_tokens)
    }
}

impl Serve {
    pub(crate) fn run(self, logging: &Logging) -> Result<ExitCode, Box<dyn Error>> {
        #[cfg(feature = "cluster")]
        let max_stored_rooms = self.server.data.max_stored_rooms();
        let config = self.server.config(&self.module, logging)?;
        run(async {
            #[cfg(feature = "cluster")]
            let (config, node) = self.cluster.join(config, max_stored_rooms).await?;
            #[cfg(feature = "cluster")]
            let (config, leaf) = self.leaf.join(config).await?;
            let server = bind(config).await?;
            let module = self.module.clone();
            let reload = Reload::start(&self.module, self.watch, server.control())?;
            let name = ModuleFile::name(&module);
            #[cfg(feature = "cluster")]
            let served = match node {
                None => run_leaf(server, &name, leaf).await,
                Some(node) => {
                    node.start(&server)?;
                    let served = run_server_until(server, &name, node.drain()).await;
                    node.leave().await;
                    served
                }
            };
            #[cfg(not(feature = "cluster"))]
            let served = run_server(server, &name).await;
            drop(reload);
            served
        })
    }
}

impl ServeArgs {
    /// Sets how the log is written, before something else is logged.
    pub(crate) fn set_log_format(&self, logging: &Logging) {
        logging.set_format(self.listen.log_format);
    }

    /// The folder that keeps the rooms.
    pub(crate) fn data(&self) -> Option<&Path> {
        self.rooms.data.as_deref()
    }

    pub(crate) fn config(
        self,
        module: &Path,
        logging: &Logging,
    ) -> Result<ServerConfig, Box<dyn Error>> {
        self.set_log_format(logging);
        let file = ModuleFile::read(module)?;
        let config = ServerConfig::new(file.wasm)
            .module_name(ModuleFile::name(module))
            .log_lines_lost(Some(logging.lines_lost()));
        let workers = self.workers.unwrap_or(config.workers);
        let mut config = self
            .limits
            .apply(self.listen.apply(config)?)
            .workers(workers)
            .room_idle(Duration::from_secs(self.room_idle))
            .open_rooms(self.open)
            .keep_timers(self.keep_timers)
            .hibernate_after(self.rooms.hibernate_after())
            .limits(self.rooms.limits())
            .on_fault(self.rooms.on_fault())
            .seed(self.rooms.seed);
        config.static_dir = config.static_dir.or(file.static_dir);
        let config = self.admin.apply(config)?;
        self.data.apply(self.rooms.data.as_deref(), config)
    }
}

/// Runs a server to its end.
pub(crate) fn run(
    server: impl Future<Output = Result<(), Box<dyn Error>>>,
) -> Result<ExitCode, Box<dyn Error>> {
    /// Time for what a disk takes long for; a server has ended all else by itself.
    const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
    raise_open_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(server);
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result.map(|()| ExitCode::SUCCESS)
}

/// Raises the soft limit on open files to the hard limit: each connection is a file, and the soft
/// limit is often 1,024.
fn raise_open_file_limit() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // If it fails, connections beyond the soft limit wait.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Loads the module and listens.
pub(crate) async fn bind(config: ServerConfig) -> Result<Server, Box<dyn Error>> {
    let wasm = config.module.clone();
    match Server::bind(config).await {
        Err(ServeError::Load(error)) => {
            let reason = diagnosis::explain(&error, &wasm);
            Err(format!("cannot load the module: {reason}").into())
        }
        bound => Ok(bound?),
    }
}

/// Prints where the server listens, and runs it until SIGINT or SIGTERM.
pub(crate) async fn run_server(server: Server, name: &str) -> Result<(), Box<dyn Error>> {
    run_server_until(server, name, core::future::ready(())).await
}

/// The same, but after a signal something is done first, while it still runs.
pub(crate) async fn run_server_until(
    server: Server,
    name: &str,
    before_stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    let stop = stop_signal()?;
    let mut text = format!("{} is served at\n", Escaped::new(name));
    let scheme = if server.is_encrypted() {
        "https"
    } else {
        "http"
    };
    // Each URL has a line of its own, for scripts.
    for address in server.local_addrs() {
        text.push_str(&format!("{scheme}://{address}\n"));
    }
    if let [first, others @ ..] = server.admin_addrs() {
        text.push_str("operators use\n");
        for address in core::iter::once(first).chain(others) {
            let is_local = address.ip().to_canonical().is_loopback();
            let scheme = if is_local { "http" } else { scheme };
            text.push_str(&format!("{scheme}://{address}\n"));
        }
    }
    // Fails if standard output is closed.
    let _ = io::stdout().write_all(text.as_bytes());
    tell_service_manager(Service::Listens);
    let stopping = async {
        stop.await;
        tell_service_manager(Service::Stops);
        before_stop.await;
    };
    server.run(stopping).await?;
    Ok(())
}

/// What a service manager such as systemd is told.
enum Service {
    Listens,
    Stops,
}

/// Tells the service manager that has started this process, if one waits for it.
fn tell_service_manager(service: Service) {
    #[cfg(target_os = "linux")]
    {
        let state = match service {
            Service::Listens => sd_notify::NotifyState::Ready,
            Service::Stops => sd_notify::NotifyState::Stopping,
        };
        // Fails if it has gone.
        let _ = sd_notify::notify(&[state]);
    }
    #[cfg(not(target_os = "linux"))]
    drop(service);
}

/// Resolves on SIGINT or SIGTERM.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
