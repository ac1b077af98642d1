//! What it costs a whole server to keep its rooms: latency, throughput and processor time of rooms that are
//! `memory`, `relaxed` and `durable`, beside those of a server without a store.
//!
//! `cargo bench -p stateroom-wasmi-store --bench server [-- ROUNDS [EVENTS_PER_SECOND]]`; Linux only. Four
//! servers with an echo room of the SDK run in this process, and take turns: messages of 200 bytes at a steady
//! rate, and then as many as they can. Ratios are the medians of the rounds', since machines are shared and
//! noisy.

use core::{net::SocketAddr, ops::Range, time::Duration};
use stateroom_wasmi_server::{
    Rate, Server, ServerConfig,
    journal::{Durability, Journal},
};
use stateroom_wasmi_store::Store;
use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::mpsc::unbounded_channel,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

const ROOMS: usize = 10;
const CLIENTS_OF_A_ROOM: usize = 4;
const MESSAGE_BYTES: usize = 200;
/// Time of each turn's halves.
const TURN: Duration = Duration::from_secs(2);
/// Messages that a client sends before it waits for the replies, when it sends as many as it can.
const WINDOW: usize = 16;
/// All threads whose processor time is not the servers' have this name.
const CLIENTS_THREAD: &str = "clients";

fn main() {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|it| it.parse().ok())
        .collect();
    let rounds = arguments.first().copied().unwrap_or(5);
    let rate = arguments.get(1).copied().unwrap_or(2000);
    println!(
        "{rounds} rounds, {} clients in {ROOMS} rooms, {rate} messages of {MESSAGE_BYTES} bytes a second",
        ROOMS * CLIENTS_OF_A_ROOM
    );
    let clients = thread::Builder::new().name(CLIENTS_THREAD.into());
    let clients = clients.spawn(move || compare(rounds, rate));
    clients.expect("a thread").join().expect("no panic");
}

/// Lets the servers take turns, and prints what each has done.
fn compare(rounds: u64, rate: u64) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut contenders = vec![
        Contender::start(&runtime, "no store", None),
        Contender::start(&runtime, "memory", Some(Durability::Memory)),
        Contender::start(&runtime, "relaxed", Some(Durability::Relaxed)),
        Contender::start(&runtime, "durable", Some(Durability::Durable)),
    ];
    // Not counted: files and pools grow.
    for contender in &mut contenders {
        contender.flood(&runtime);
    }
    for _ in 0..rounds {
        for contender in &mut contenders {
            let turn = contender.turn(&runtime, rate);
            contender.turns.push(turn);
        }
    }
    let base = contenders[0].turns.clone();
    for contender in &contenders {
        contender.print(&base);
    }
}

/// A server, and its clients.
struct Contender {
    name: &'static str,
    clients: Vec<TcpStream>,
    turns: Vec<Turn>,
    folder: PathBuf,
}

/// What was measured in a turn.
#[derive(Clone, Copy)]
struct Turn {
    /// At a steady rate.
    p50: Duration,
    p99: Duration,
    steady_cpu: Duration,
    /// With as many as it can.
    per_second: f64,
    full_cpu: Duration,
}

impl Contender {
    fn start(runtime: &Runtime, name: &'static str, durability: Option<Durability>) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.join(format!(
            "server-{}-{}",
            name.replace(' ', "-"),
            std::process::id()
        ));
        let module = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../examples/rooms/wasm/echo-rust-0.4.wasm"
        );
        let mut config = ServerConfig::new(fs::read(module).expect("it is built"))
            .port(0)
            // Clients that wait for their turn send no pongs, and expect no pings.
            .heartbeat_interval(Duration::from_secs(24 * 60 * 60))
            .heartbeat_timeout(Duration::from_secs(48 * 60 * 60))
            .message_rate(Rate::UNLIMITED)
            .byte_rate(Rate::UNLIMITED);
        if let Some(durability) = durability {
            let store: Arc<dyn Journal> = Arc::new(Store::open(&folder).expect("it opens"));
            config = config.journal(Some(store)).durability(durability);
        }
        let address = serve(config);
        let clients = (0..ROOMS * CLIENTS_OF_A_ROOM).map(|client| {
            let connected = runtime.block_on(connect(address, client % ROOMS));
            connected.expect("it is let in")
        });
        Self {
            name,
            clients: clients.collect(),
            turns: Vec::new(),
            folder,
        }
    }

    fn turn(&mut self, runtime: &Runtime, rate: u64) -> Turn {
        let ((mut latencies, _), steady_cpu) = self.drive(runtime, Load::Steady(rate));
        latencies.sort_unstable();
        let percentile = |percent: usize| latencies[latencies.len() * percent / 100];
        let ((all, took), full_cpu) = self.drive(runtime, Load::Full);
        let events = |latencies: &[Duration]| u32::try_from(latencies.len()).unwrap_or(u32::MAX);
        Turn {
            p50: percentile(50),
            p99: percentile(99),
            steady_cpu: steady_cpu / events(&latencies),
            per_second: all.len() as f64 / took.as_secs_f64(),
            full_cpu: full_cpu / events(&all),
        }
    }

    fn flood(&mut self, runtime: &Runtime) {
        self.drive(runtime, Load::Full);
    }

    /// Lets the clients send; returns the latency of each reply and the time of all, and the processor
    /// time of the servers meanwhile.
    fn drive(&mut self, runtime: &Runtime, load: Load) -> ((Vec<Duration>, Duration), Duration) {
        let cpu = servers_time();
        let started = Instant::now();
        let latencies = runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (index, client) in self.clients.drain(..).enumerate() {
                tasks.spawn(load.run(client, index));
            }
            let mut latencies = Vec::new();
            while let Some(client) = tasks.join_next().await {
                let (client, own) = client.expect("no panic").expect("the server replies");
                self.clients.push(client);
                latencies.extend(own);
            }
            latencies
        });
        ((latencies, started.elapsed()), servers_time() - cpu)
    }

    /// Prints what was measured, and what that is beside a server without a store.
    fn print(&self, base: &[Turn]) {
        let of = |value: fn(&Turn) -> f64| median(self.turns.iter().map(value));
        let beside = |value: fn(&Turn) -> f64| {
            let turns = self.turns.iter().zip(base);
            median(turns.map(|(turn, base)| value(turn) / value(base)))
        };
        let added = |value: fn(&Turn) -> Duration| {
            let turns = self.turns.iter().zip(base);
            let millis = turns.map(|(turn, base)| {
                (value(turn).as_secs_f64() - value(base).as_secs_f64()) * 1000.0
            });
            median(millis)
        };
        println!(
            "{:<9} steady: p50 {:.2} ms ({:+.2}), p99 {:.2} ms ({:+.2}), {:.1} µs of processor time each ({:.2}); \
             full: {:.0} a second ({:.2}), {:.1} µs each ({:.2})",
            self.name,
            of(|turn| turn.p50.as_secs_f64() * 1000.0),
            added(|turn| turn.p50),
            of(|turn| turn.p99.as_secs_f64() * 1000.0),
            added(|turn| turn.p99),
            of(|turn| turn.steady_cpu.as_secs_f64() * 1e6),
            beside(|turn| turn.steady_cpu.as_secs_f64()),
            of(|turn| turn.per_second),
            beside(|turn| turn.per_second),
            of(|turn| turn.full_cpu.as_secs_f64() * 1e6),
            beside(|turn| turn.full_cpu.as_secs_f64()),
        );
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts a server, which runs as long as the process.
fn serve(config: ServerConfig) -> SocketAddr {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let server = Server::bind(config).await.expect("it listens");
            let _ = send.send(server.local_addrs()[0]);
            server.run(std::future::pending()).await
        })
    });
    receive.recv().expect("it listens")
}

/// What clients send.
#[derive(Clone, Copy)]
enum Load {
    /// So many messages a second, of all clients.
    Steady(u64),
    Full,
}

impl Load {
    /// Sends for a turn, and returns the latency of each reply.
    async fn run(self, client: TcpStream, index: usize) -> io::Result<(TcpStream, Vec<Duration>)> {
        match self {
            Self::Steady(rate) => send_steadily(client, index, rate).await,
            Self::Full => send_all(client).await,
        }
    }
}

/// Sends at its rate, and waits for no reply before it sends again, as clients of a game do.
async fn send_steadily(
    mut client: TcpStream,
    index: usize,
    rate: u64,
) -> io::Result<(TcpStream, Vec<Duration>)> {
    let clients = ROOMS * CLIENTS_OF_A_ROOM;
    let period = Duration::from_secs(clients as u64) / u32::try_from(rate).unwrap_or(u32::MAX);
    let start = Instant::now();
    let mut ticks = interval_at(start + period * index as u32 / clients as u32, period);
    // What is late is sent at once, and counts from when it was due.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let frame = frame();
    let (mut replies, mut messages) = client.split();
    let (sent, mut awaited) = unbounded_channel();
    let send = async move {
        let mut free_since = start;
        while start.elapsed() < TURN {
            let due = ticks.tick().await;
            // A timer fires late by up to a millisecond, which is no latency of the server's.
            let since = if free_since > due {
                due
            } else {
                Instant::now()
            };
            messages.write_all(&frame).await?;
            free_since = Instant::now();
            let _ = sent.send(since);
        }
        Ok(())
    };
    let receive = async {
        let mut latencies = Vec::new();
        while let Some(since) = awaited.recv().await {
            read_replies(&mut replies, 1).await?;
            latencies.push(since.elapsed());
        }
        Ok::<_, io::Error>(latencies)
    };
    let ((), latencies) = tokio::try_join!(send, receive)?;
    Ok((client, latencies))
}

async fn send_all(mut client: TcpStream) -> io::Result<(TcpStream, Vec<Duration>)> {
    let frames = frame().repeat(WINDOW);
    let start = Instant::now();
    let mut latencies = Vec::new();
    while start.elapsed() < TURN {
        let sent_at = Instant::now();
        client.write_all(&frames).await?;
        read_replies(&mut client, WINDOW).await?;
        latencies.extend([sent_at.elapsed(); WINDOW]);
    }
    Ok((client, latencies))
}

/// Opens a WebSocket.
async fn connect(address: SocketAddr, room: usize) -> io::Result<TcpStream> {
    let mut client = TcpStream::connect(address).await?;
    client.set_nodelay(true)?;
    let request = format!(
        "GET /ws/{room} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        response.push(client.read_u8().await?);
    }
    assert!(response.starts_with(b"HTTP/1.1 101"), "it is let in");
    Ok(client)
}

/// Where the length of a frame's payload is, in its bytes.
const LENGTH: Range<usize> = 2..4;

/// A binary message, masked with zeros.
fn frame() -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | 126, 0, 0, 0, 0, 0, 0];
    frame[LENGTH].copy_from_slice(&(MESSAGE_BYTES as u16).to_be_bytes());
    frame.extend([7; MESSAGE_BYTES]);
    frame
}

/// Reads so many replies, of which nothing but the length is looked at.
async fn read_replies(client: &mut (impl AsyncRead + Unpin), count: usize) -> io::Result<()> {
    const REPLY_BYTES: usize = LENGTH.end + MESSAGE_BYTES;
    let mut replies = [0; WINDOW * REPLY_BYTES];
    let replies = &mut replies[..count * REPLY_BYTES];
    client.read_exact(replies).await?;
    assert_eq!(replies[0], 0x82, "a binary message");
    Ok(())
}

/// Processor time of all threads but those of the clients.
fn servers_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("Linux");
    let times = threads.filter_map(|thread| {
        let folder = thread.ok()?.path();
        let name = fs::read_to_string(folder.join("comm")).ok()?;
        let times = fs::read_to_string(folder.join("schedstat")).ok()?;
        let nanos: u64 = times.split_whitespace().next()?.parse().ok()?;
        (name.trim_end() != CLIENTS_THREAD).then_some(nanos)
    });
    Duration::from_nanos(times.sum())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
