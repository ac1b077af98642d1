//! `stateroom-wasmi serve`.

use crate::module_file::ModuleFile;
use clap::Args;
use stateroom_wasmi_host::{
    Limits,
    driver::server::{Server, ServerConfig},
};
use std::{
    error::Error,
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// Serve the rooms of a module over WebSockets.
#[derive(Args)]
pub struct Serve {
    /// A .wasm, a .wat, or a folder with server.wasm (and static/)
    module: PathBuf,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 picks a free one
    #[arg(short, long, default_value_t = 8080)]
    port: u16,
    /// Seconds between two pings
    #[arg(short = 'i', long, default_value_t = 30, value_name = "SECONDS", value_parser = at_least_one())]
    heartbeat_interval: u64,
    /// Seconds after which a client that sends nothing is dropped
    #[arg(short = 't', long, default_value_t = 120, value_name = "SECONDS", value_parser = at_least_one())]
    heartbeat_timeout: u64,
    /// Folder to serve under / instead of the bundled page
    #[arg(long = "static", value_name = "DIR")]
    static_dir: Option<PathBuf>,
    /// Workers that run rooms, in parallel [default: one for each core]
    #[arg(long)]
    workers: Option<usize>,
    /// Seconds after which a room without clients is closed
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    room_idle: u64,
    /// Keep a room without clients while its timer is set
    #[arg(long)]
    keep_timers: bool,
    /// Seed of the rooms' random generators [default: from the operating system]
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    limits: LimitArgs,
}

/// The limits that an operator would set.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Rooms that are open at a time
    #[arg(long, default_value_t = 10_000)]
    max_rooms: usize,
    /// Clients of one room
    #[arg(long, default_value_t = Limits::default().clients)]
    max_clients: usize,
    /// Bytes of one message, both ways
    #[arg(long, default_value_t = Limits::default().message_bytes, value_name = "BYTES")]
    max_message: usize,
    /// Bytes of memory of one room
    #[arg(long, default_value_t = Limits::default().memory_bytes, value_name = "BYTES")]
    max_memory: usize,
    /// Fuel of one event: about one unit an instruction
    #[arg(long, default_value_t = Limits::default().fuel_per_event.unwrap_or_default(), value_name = "FUEL")]
    max_fuel: u64,
    /// Messages that may wait for a client that is slow to take them
    #[arg(long, default_value_t = 4096, value_name = "MESSAGES")]
    client_queue: usize,
    /// Bytes of the messages that may wait for such a client
    #[arg(long, default_value_t = 8 << 20, value_name = "BYTES")]
    client_queue_bytes: usize,
}

fn at_least_one() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=u32::MAX.into())
}

impl LimitArgs {
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.clients = self.max_clients;
        limits.message_bytes = self.max_message;
        limits.memory_bytes = self.max_memory;
        limits.fuel_per_event = Some(self.max_fuel);
        // What may be sent one by one may be sent in one event, and wait.
        limits.inbox_bytes = limits.inbox_bytes.max(self.max_message);
        limits.outbox_bytes = limits.outbox_bytes.max(self.max_message);
        limits
    }
}

impl Serve {
    pub fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let file = ModuleFile::read(&self.module)?;
        let config = self.config(file);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(serve(config))?;
        Ok(ExitCode::SUCCESS)
    }

    fn config(self, file: ModuleFile) -> ServerConfig {
        let mut config = ServerConfig::new(file.wasm);
        config.module_name = file.name;
        config.host = self.host;
        config.port = self.port;
        config.heartbeat_interval = Duration::from_secs(self.heartbeat_interval);
        config.heartbeat_timeout = Duration::from_secs(self.heartbeat_timeout);
        config.static_dir = self.static_dir.or(file.static_dir);
        config.workers = self.workers.unwrap_or(config.workers);
        config.room_idle = Duration::from_secs(self.room_idle);
        config.keep_timers = self.keep_timers;
        config.limits = self.limits.limits();
        config.rooms = self.limits.max_rooms;
        config.client_queue = self.limits.client_queue;
        config.client_queue_bytes = self.limits.client_queue_bytes;
        config.seed = self.seed;
        config
    }
}

async fn serve(config: ServerConfig) -> Result<(), Box<dyn Error>> {
    let name = config.module_name.clone();
    let stop = stop_signal()?;
    let server = Server::bind(config).await?;
    // On a line of its own, so that scripts find it. Whoever closed our output does not want it.
    let _ = writeln!(io::stdout(), "{name} is served at\nhttp://{}", server.local_addr());
    server.run(stop).await?;
    Ok(())
}

/// Ready when the process is asked to end.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
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
