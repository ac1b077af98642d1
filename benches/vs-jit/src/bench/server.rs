//! The whole server: WebSocket echo, each server in its own process, the clients in this one.

use super::{
    measure::{Effort, Figure, percentile},
    noisy_neighbour,
    table::{Group, Row, Unit},
};
use anyhow::{Context, Result, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use stateroom_wasmi_server::{Rate, Server, ServerConfig};
use std::{
    fmt::Display,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

/// Serve until killed
#[derive(clap::Args)]
pub struct Child {
    /// ours, noisy-neighbour, jit or axum
    server: String,
}

/// A guest of ABI 0.4, the only one of the published server.
fn guest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/rooms/wasm/echo-rust-0.4.wasm")
}

/// Send load to a local server, to profile it, and print how many messages came back
#[derive(clap::Args)]
pub struct Load {
    /// The port that the server printed
    port: u16,
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// A room for each connection
    #[arg(long)]
    many_rooms: bool,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl Load {
    pub fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let pace = Pace {
            time: Duration::from_secs(self.seconds),
            pause: Duration::ZERO,
        };
        let (_, nanos) =
            runtime.block_on(measure(self.port, self.connections, self.many_rooms, pace))?;
        println!("{}", nanos.len());
        Ok(())
    }
}

impl Child {
    pub fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        match self.server.as_str() {
            "ours" => runtime.block_on(serve_ours(ServerConfig::new(std::fs::read(guest())?))),
            "noisy-neighbour" => runtime.block_on(serve_ours(endless_loops()?)),
            "jit" => runtime.block_on(serve_jit()),
            "axum" => runtime.block_on(serve_axum()),
            other => bail!("there is no server {other:?}"),
        }
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
    // This measures the server's throughput, not its limit for one client.
    config.message_rate = Rate::UNLIMITED;
    let server = Server::bind(config).await?;
    println!("{}", server.local_addrs()[0].port());
    Ok(server.run(std::future::pending()).await?)
}

async fn serve_jit() -> Result<()> {
    // The published server cannot choose a free port.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let factory = stateroom_wasm_host_0_4::WasmHostFactory::new(guest())?;
    let server = stateroom_server::Server::new()
        .with_ip("127.0.0.1".into())
        .with_port(port);
    println!("{port}");
    Ok(server.serve_async(factory).await?)
}

/// An echo on axum alone, as the baseline.
async fn serve_axum() -> Result<()> {
    use axum::{
        Router,
        extract::{Path, WebSocketUpgrade, ws::WebSocket},
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
    let app = Router::new()
        .route(
            "/ws",
            get(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo)),
        )
        .route(
            "/ws/{room}",
            get(async |Path(_): Path<String>, upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo)),
        );
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

/// A server in its own process, killed on drop.
struct Process {
    child: std::process::Child,
    port: u16,
}

impl Process {
    fn start(server: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["server-child", server])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        let port = line
            .trim()
            .parse()
            .with_context(|| format!("{server} did not start"))?;
        Ok(Self { child, port })
    }
}

fn url(port: u16, room: Option<impl Display>) -> String {
    let room = room.map_or_else(String::new, |room| format!("/{room}"));
    format!("ws://127.0.0.1:{port}/ws{room}")
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The figures of one server in one round.
struct Figures {
    /// Nanoseconds per message, over all connections together.
    nanos_each: f64,
    p50: f64,
    p99: f64,
}

/// Fewer and longer rounds than for rows within a process.
fn rounds(effort: Effort) -> (usize, Duration) {
    match effort.rounds {
        ..10 => (3, Duration::from_millis(500)),
        10..50 => (5, Duration::from_secs(1)),
        _ => (9, Duration::from_secs(2)),
    }
}

/// Latency while another room is in an endless loop, and while none is.
pub fn noisy_neighbour_rows(effort: Effort) -> Result<Vec<Row>> {
    const CLIENTS: usize = 10;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (rounds, time) = rounds(effort);
    let mut contenders = [
        ("alone", Vec::new()),
        ("beside an endless loop", Vec::new()),
    ];
    for _ in 0..rounds {
        for (name, turns) in &mut contenders {
            let process = Process::start("noisy-neighbour")?;
            let is_noisy = *name != "alone";
            let (_, nanos) = runtime.block_on(async {
                let mut neighbour = connect(&url(process.port, Some("neighbour"))).await?;
                if is_noisy {
                    neighbour.send(Message::text(noisy_neighbour::SPIN)).await?;
                }
                measure(
                    process.port,
                    CLIENTS,
                    true,
                    Pace {
                        time,
                        pause: Duration::from_millis(10),
                    },
                )
                .await
            })?;
            turns.push(noisy_neighbour::Latency::of(nanos));
        }
    }
    Ok(noisy_neighbour::latency_rows("the server", &contenders))
}

/// Throughput and latency.
pub fn rows(effort: Effort) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (rounds, time) = rounds(effort);
    let mut rows = Vec::new();
    for (connections, many_rooms) in [
        (1, false),
        (50, false),
        (50, true),
        (500, false),
        (500, true),
    ] {
        let load = match (connections, many_rooms) {
            (1, _) => "1 connection".to_owned(),
            (n, false) => format!("{n} connections, one room"),
            (n, true) => format!("{n} connections, a room each"),
        };
        let servers = [
            ("this crate", "ours"),
            ("JIT server 0.4.4", "jit"),
            ("axum alone", "axum"),
        ];
        let mut turns: Vec<Vec<Figures>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for ((name, server), turns) in servers.iter().zip(&mut turns) {
                let process = Process::start(server)?;
                // The published server has one room.
                let many_rooms = many_rooms && *server != "jit";
                let turn = runtime.block_on(turn(&process, connections, many_rooms, time));
                turns.push(turn.with_context(|| format!("{name}, {load}"))?);
            }
        }
        let row = |title: String, unit, value: fn(&Figures) -> f64| {
            let values = |turns: &[Figures]| turns.iter().map(value).collect::<Vec<_>>();
            let first = values(&turns[0]);
            let figures = servers
                .iter()
                .zip(&turns)
                .map(|((name, _), all)| Figure::new(name, values(all), &first));
            Row {
                title,
                group: Group::Server,
                unit,
                figures: figures.collect(),
            }
        };
        rows.push(row(format!("messages, {load}"), Unit::PerSecond, |turn| {
            turn.nanos_each
        }));
        rows.push(row(format!("p50 latency, {load}"), Unit::Nanos, |turn| {
            turn.p50
        }));
        rows.push(row(format!("p99 latency, {load}"), Unit::Nanos, |turn| {
            turn.p99
        }));
    }
    Ok(rows)
}

async fn turn(
    process: &Process,
    connections: usize,
    many_rooms: bool,
    time: Duration,
) -> Result<Figures> {
    let pace = Pace {
        time,
        pause: Duration::ZERO,
    };
    let (spent, mut nanos) = measure(process.port, connections, many_rooms, pace).await?;
    nanos.sort_unstable();
    Ok(Figures {
        nanos_each: spent.as_nanos() as f64 / nanos.len() as f64,
        p50: percentile(&nanos, 0.5),
        p99: percentile(&nanos, 0.99),
    })
}

/// How long clients send, and the pause after each reply.
#[derive(Clone, Copy)]
struct Pace {
    time: Duration,
    pause: Duration,
}

/// The total time, and the latency of each message in nanoseconds.
async fn measure(
    port: u16,
    connections: usize,
    many_rooms: bool,
    pace: Pace,
) -> Result<(Duration, Vec<u32>)> {
    let mut sockets = Vec::with_capacity(connections);
    // One after the other: the published server panics when very many join at once.
    for number in 0..connections {
        sockets.push(connect(&url(port, many_rooms.then_some(number))).await?);
    }
    let start = Instant::now();
    let end = start + pace.time;
    let clients: Vec<_> = sockets
        .into_iter()
        .map(|socket| tokio::spawn(ping_pong(socket, end, pace.pause)))
        .collect();
    let mut nanos = Vec::new();
    for client in clients {
        nanos.extend(client.await??);
    }
    Ok((start.elapsed(), nanos))
}

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(url: &str) -> Result<Socket> {
    for _ in 0..100 {
        if let Ok((socket, _)) = connect_async(url).await {
            if let tokio_tungstenite::MaybeTlsStream::Plain(stream) = socket.get_ref() {
                stream.set_nodelay(true)?;
            }
            return Ok(socket);
        }
        // The published server prints its port before it listens.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("no server listens at {url}")
}

/// Sends each message after the reply to the last; returns the latencies.
async fn ping_pong(mut socket: Socket, end: Instant, pause: Duration) -> Result<Vec<u32>> {
    let mut nanos = Vec::new();
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(nanos);
        }
        socket.send(Message::text("0123456789abcdef")).await?;
        loop {
            match socket
                .next()
                .await
                .ok_or_else(|| anyhow!("the server closed the connection"))??
            {
                Message::Text(_) => break,
                _ => continue,
            }
        }
        nanos.push(u32::try_from(sent.elapsed().as_nanos()).unwrap_or(u32::MAX));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}
