//! The servers, each in its own process.

use crate::bench::{
    memory, noisy_neighbour,
    rows::{COMPUTE, ECHO_0_4, ECHO_C},
};
use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stateroom_wasmi_server::{Rate, Server, ServerConfig};
use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Serve until killed
#[derive(clap::Args)]
pub struct Child {
    server: Kind,
    /// This crate's
    #[arg(long, default_value = "echo-sdk")]
    guest: GuestName,
    /// This crate's workers [default: one per core]
    #[arg(long)]
    workers: Option<usize>,
    /// What axum reads at once
    #[arg(long, default_value_t = SMALL_BUFFER)]
    read_buffer: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    Ours,
    NoisyNeighbour,
    Jit,
    Axum,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum GuestName {
    EchoC,
    EchoSdk,
    Compute,
}

/// Axum's default is 128 KiB, all of which it overwrites with zeros before each read.
const SMALL_BUFFER: usize = 4 << 10;

impl Child {
    pub fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        match self.server {
            Kind::Ours => runtime.block_on(serve_ours(self.config())),
            Kind::NoisyNeighbour => runtime.block_on(serve_ours(endless_loops()?)),
            Kind::Jit => runtime.block_on(serve_jit()),
            Kind::Axum => runtime.block_on(serve_axum(self.read_buffer)),
        }
    }

    fn config(&self) -> ServerConfig {
        let guest = match self.guest {
            GuestName::EchoC => ECHO_C,
            GuestName::EchoSdk => ECHO_0_4,
            GuestName::Compute => COMPUTE,
        };
        let mut config = ServerConfig::new(guest.wasm());
        if let Some(workers) = self.workers {
            config.workers = workers;
        }
        config
    }
}

/// A server whose rooms may loop endlessly, all on one worker.
fn endless_loops() -> Result<ServerConfig> {
    let mut config = ServerConfig::new(wat::parse_str(noisy_neighbour::GUEST)?);
    config.limits = noisy_neighbour::limits();
    config.workers = 1;
    Ok(config)
}

async fn serve_ours(mut config: ServerConfig) -> Result<()> {
    config.port = 0;
    // This measures what the server can do, not its limits for one client or one address.
    config.message_rate = Rate::UNLIMITED;
    config.connect_rate = Rate::UNLIMITED;
    config.max_connections = usize::MAX;
    config.max_connections_per_address = usize::MAX;
    config.limits.max_clients = usize::MAX;
    let server = Server::bind(config).await?;
    println!("{}", server.local_addrs()[0].port());
    Ok(server.run(std::future::pending()).await?)
}

/// The published server, which speaks ABI 0.4 only.
async fn serve_jit() -> Result<()> {
    // The published server cannot choose a free port.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let factory = stateroom_wasm_host_0_4::WasmHostFactory::new(ECHO_0_4.path())?;
    let server = stateroom_server::Server::new()
        .with_ip("127.0.0.1".into())
        .with_port(port);
    println!("{port}");
    Ok(server.serve_async(factory).await?)
}

/// An echo on axum alone, as the baseline.
async fn serve_axum(read_buffer: usize) -> Result<()> {
    use axum::{
        Router,
        extract::{WebSocketUpgrade, ws::WebSocket},
        routing::get,
        serve::ListenerExt,
    };
    async fn echo(mut socket: WebSocket) {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    }
    let upgrade = get(async move |upgrade: WebSocketUpgrade| {
        upgrade.read_buffer_size(read_buffer).on_upgrade(echo)
    });
    let app = Router::new()
        .route("/ws", upgrade.clone())
        .route("/ws/{room}", upgrade);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

/// A server in its own process, killed on drop.
pub struct Process {
    child: std::process::Child,
    pub port: u16,
}

impl Process {
    /// Starts a server with the arguments of [`Child`].
    pub fn start(arguments: &[impl AsRef<OsStr>]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("server-child")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        let process = Self {
            child,
            port: line.trim().parse().context("the server did not start")?,
        };
        // The published server prints its port before it listens.
        for _ in 0..100 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, process.port)).is_ok() {
                return Ok(process);
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("no server listens on port {}", process.port)
    }

    /// The processor time of all its threads, in user mode and in the kernel.
    pub fn processor_time(&self) -> Result<Duration> {
        let mut time = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))
            .context("processor time needs Linux")?
        {
            // Unlike `stat`, which has hundredths of a second, in nanoseconds.
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let nanos = text.split_whitespace().next().context("no time")?;
            time += Duration::from_nanos(nanos.parse()?);
        }
        Ok(time)
    }

    pub fn resident_bytes(&self) -> Result<usize> {
        memory::resident_bytes(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets this process, and the servers that it starts, open this many files.
pub fn allow_open_files(needed: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let limit = Rlimit {
        current: Some(needed),
        maximum: maximum.map(|maximum| maximum.max(needed)),
    };
    setrlimit(Resource::Nofile, limit).with_context(|| {
        let maximum = maximum.unwrap_or(u64::MAX);
        format!("{needed} files must be open at once, and `ulimit -Hn` allows {maximum}")
    })
}
