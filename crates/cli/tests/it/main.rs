//! End-to-end tests: the built tool and real WebSocket clients.
//!
//! Each test starts a server of its own on a free port and waits for events. The upper bound on
//! time is generous, so that tests pass on a busy machine, and only keeps a failing one from
//! hanging; what a server may not do too early is asserted with lower bounds.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod admin;
mod admission;
mod agreement;
#[cfg(unix)]
mod attach;
mod attack;
mod auth;
#[cfg(unix)]
mod board;
#[cfg(unix)]
mod board_transfers;
mod bundled;
mod check_tool;
mod closing;
mod conformance;
mod data;
mod faults;
mod files;
mod handshakes;
mod hibernation;
#[cfg(target_os = "linux")]
mod hostile_boards;
mod limits;
mod listening;
mod load;
mod logging;
mod new_tool;
mod origins;
mod proxies;
mod rates;
#[cfg(unix)]
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "`hostile_boards` uses the rest")
)]
mod raw_board;
mod reload;
mod rooms;
mod settings;
#[path = "../../../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the other crates")]
mod support;
mod test_tool;
mod tls;
mod transfer;
mod urls;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::{
    fs,
    future::Future,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message},
};

/// The upper bound on every wait.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Waits for an event, and fails after [`TIMEOUT`].
async fn eventually<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// The root of the repository.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A built module of examples/rooms; `ROOMS_DIR` overrides the folder.
fn bundled_path(name: &str) -> PathBuf {
    let committed = || repository().join("examples/rooms/wasm");
    let folder = std::env::var_os("ROOMS_DIR").map_or_else(committed, PathBuf::from);
    folder.join(format!("{name}.wasm"))
}

/// Runs the tool to its end.
fn tool(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"))
        .args(args)
        .output()
        .expect("cannot run the tool")
}

/// A folder that is removed on drop.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "stateroom-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("cannot create a folder");
        Self(path)
    }

    /// Writes a file, and creates its parent folders.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("no parent")).expect("cannot create a folder");
        fs::write(&path, contents).expect("cannot write a file");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server; killed on drop, which prints its log if the test failed.
struct Server {
    process: Child,
    /// `127.0.0.1:` and the port.
    address: String,
    /// The same for operators, with `--admin-listen`.
    admin: String,
    has_admin: bool,
    log: Arc<Mutex<String>>,
    /// Holds the module, if it was written for this test.
    folder: Option<TempDir>,
}

impl Server {
    /// Serves a built module of examples/rooms.
    fn bundled(name: &str, args: &[&str]) -> Self {
        Self::start(&bundled_path(name), args)
    }

    /// Serves a guest in WebAssembly text.
    fn guest(text: &str, args: &[&str]) -> Self {
        let folder = TempDir::new();
        let mut server = Self::start(&folder.write("guest.wat", text), args);
        server.folder = Some(folder);
        server
    }

    fn start(module: &Path, args: &[&str]) -> Self {
        Self::run(
            Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi")),
            module,
            args,
        )
    }

    /// Serves with a command that runs the tool.
    fn run(mut command: Command, module: &Path, args: &[&str]) -> Self {
        // The default would start a worker per core for each test.
        let workers: &[&str] = if args.contains(&"--workers") {
            &[]
        } else {
            &["--workers", "2"]
        };
        command.arg("serve").arg(module).args(workers).args(args);
        Self::listening(command)
    }

    /// Serves the rooms of a board.
    fn attach(board: &str, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"));
        command.arg("attach").arg(board).args(args);
        Self::listening(command)
    }

    fn listening(command: Command) -> Self {
        Self::try_listening(command).expect("the server did not start")
    }

    /// None if the process ends without listening.
    fn try_listening(command: Command) -> Option<Self> {
        // Built first, so that a failed start is cleaned up and its log printed.
        let mut server = Self::spawn(command);
        server.read_log();
        server.has_address().then_some(server)
    }

    /// Starts a process, whose log is not read before [`read_log`](Self::read_log).
    fn spawn(mut command: Command) -> Self {
        if command.get_envs().all(|(name, _)| name != "RUST_LOG") {
            command.env("RUST_LOG", "info,stateroom_wasmi_server=debug");
        }
        let has_admin = command.get_args().any(|arg| arg == "--admin-listen");
        let process = command
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cannot run the tool");
        Self {
            process,
            address: String::new(),
            admin: String::new(),
            has_admin,
            log: Arc::default(),
            folder: None,
        }
    }

    /// Reads the log from now on.
    fn read_log(&mut self) {
        let mut stderr = self.process.stderr.take().expect("it is piped");
        let lines = self.log.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                lines
                    .lock()
                    .expect("not poisoned")
                    .push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
    }

    /// Waits for the line that says where the server listens; false if the process ends without.
    fn has_address(&mut self) -> bool {
        let stdout = self.process.stdout.take().expect("it is piped");
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let mut addresses = lines.filter_map(|line| {
            let address = line.strip_prefix("http://");
            let address = address.or_else(|| line.strip_prefix("https://"));
            address.map(str::to_owned)
        });
        if let Some(address) = addresses.next() {
            self.address = address;
        }
        if self.has_admin {
            self.admin = addresses.next().unwrap_or_default();
        }
        !self.address.is_empty()
    }

    /// Connects a client to `/ws` followed by `path`.
    async fn join(&self, path: &str) -> Client {
        self.try_join(path).await.expect("the handshake failed")
    }

    /// Connects clients to an empty room, and waits until all have joined: the WebSocket handshake
    /// precedes the join.
    async fn join_all<const N: usize>(&self, room: &str) -> [Client; N] {
        let mut clients = Vec::new();
        for count in 1..=N {
            clients.push(self.join(&format!("/{room}")).await);
            let has_joined =
                |room: Option<&Value>| room.is_some_and(|room| room["clients"] == count);
            self.until_room(room, "the client has joined", has_joined)
                .await;
        }
        clients
            .try_into()
            .unwrap_or_else(|_| unreachable!("N clients"))
    }

    async fn try_join(&self, path: &str) -> Result<Client, Error> {
        let url = format!("ws://{}/ws{path}", self.address);
        let (socket, _) = eventually("the handshake", connect_async(url)).await?;
        Ok(Client(socket))
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(&self.address, "GET", path, "").await
    }

    /// Asks one of the server's addresses. `headers` end with the ends of their lines.
    async fn ask(&self, address: &str, method: &str, path: &str, headers: &str) -> Response {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n",
        );
        Response::parse(&request_of(address, request.as_bytes()).await)
    }

    /// Sends raw bytes; returns everything until the server closes.
    async fn request(&self, request: &[u8]) -> String {
        let response = request_of(&self.address, request).await;
        String::from_utf8(response).expect("not UTF-8")
    }

    /// Sends raw bytes; returns the head of the response.
    async fn request_head(&self, request: &[u8]) -> String {
        let head = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_all(request).await?;
            read_head(&mut stream).await
        };
        eventually("a response", head).await.expect("no response")
    }

    /// Waits until the server's log contains `what`.
    async fn until_logged(&self, what: &str) {
        eventually(what, async {
            while !self.log.lock().expect("not poisoned").contains(what) {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// The rooms as `/rooms` lists them.
    async fn rooms(&self) -> Vec<Value> {
        let list: Value = serde_json::from_str(&self.get("/rooms").await.body).expect("JSON");
        list["rooms"].as_array().expect("a list").clone()
    }

    async fn room(&self, id: &str) -> Option<Value> {
        self.rooms().await.into_iter().find(|room| room["id"] == id)
    }

    /// Waits until a room satisfies `is`.
    async fn until_room(&self, id: &str, what: &str, is: impl Fn(Option<&Value>) -> bool) {
        eventually(what, async {
            while !is(self.room(id).await.as_ref()) {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.process.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until the process has exited.
    async fn exited(&mut self) -> ExitStatus {
        eventually("the server exits", async {
            loop {
                if let Some(status) = self.process.try_wait().expect("no child") {
                    return status;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            // Captured by the test harness, which shows it with the failed test.
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("the server's log:\n{log}");
        }
    }
}

/// Sends raw bytes to an address; returns everything until it closes.
async fn request_of(address: &str, request: &[u8]) -> Vec<u8> {
    let response = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        std::io::Result::Ok(response)
    };
    eventually("a response", response)
        .await
        .expect("no response")
}

/// Reads up to and including an empty line.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).expect("text"))
}

struct Response {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

impl Response {
    fn parse(bytes: &[u8]) -> Self {
        let response = String::from_utf8_lossy(bytes);
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        Self {
            status,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }
}

/// A WebSocket client, which replies to pings while it waits.
struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn send(&mut self, message: impl Into<Message>) {
        eventually("sending", self.0.send(message.into()))
            .await
            .expect("cannot send");
    }

    /// The next message that is not a ping or a pong.
    async fn receive(&mut self) -> Message {
        loop {
            let message = eventually("a message", self.0.next())
                .await
                .expect("the connection is open");
            match message.expect("the connection is open") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    async fn receive_text(&mut self) -> String {
        match self.receive().await {
            Message::Text(text) => text.to_string(),
            other => panic!("not text: {other:?}"),
        }
    }

    #[track_caller]
    fn expect(&mut self, text: &str) -> impl Future<Output = ()> {
        let (caller, text) = (std::panic::Location::caller(), text.to_owned());
        async move { assert_eq!(self.receive_text().await, text, "at {caller}") }
    }

    /// The code and reason that the server closes with; skips other messages.
    async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.receive().await {
                let frame = frame.expect("no close code");
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    /// Closes and waits for the server's close.
    async fn leave(mut self) {
        eventually("the close handshake", async {
            let _ = self.0.close(None).await;
            while let Some(Ok(_)) = self.0.next().await {}
        })
        .await;
    }
}

/// A client that sends raw frames and replies to no ping.
struct RawClient(TcpStream);

impl RawClient {
    async fn join(server: &Server, path: &str) -> Self {
        let mut stream = TcpStream::connect(&server.address)
            .await
            .expect("the server listens");
        let request = format!(
            "GET /ws{path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            server.address
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("cannot write");
        let head = eventually("the handshake", read_head(&mut stream))
            .await
            .expect("a response");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        // The example of RFC 6455.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self(stream)
    }

    /// Two handles of the connection, to read and write concurrently.
    fn split(self) -> (Self, Self) {
        let stream = self.0.into_std().expect("a socket");
        let clone = stream.try_clone().expect("cannot clone the socket");
        (
            Self(TcpStream::from_std(stream).expect("a socket")),
            Self(TcpStream::from_std(clone).expect("a socket")),
        )
    }

    /// Sends one frame, masked with zeros.
    async fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut frame = frame_header(first, payload.len());
        frame.extend([0; 4]);
        frame.extend(payload);
        eventually("sending", self.0.write_all(&frame))
            .await
            .expect("cannot send");
    }

    /// The first byte of the next frame, and its payload.
    async fn receive(&mut self) -> (u8, Vec<u8>) {
        let frame = async {
            let first = self.0.read_u8().await?;
            let length = match self.0.read_u8().await? {
                126 => self.0.read_u16().await?.into(),
                127 => self.0.read_u64().await?,
                short => short.into(),
            };
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await?;
            std::io::Result::Ok((first, payload))
        };
        eventually("a frame", frame)
            .await
            .expect("the connection is open")
    }

    /// The code that the server closes with; skips other frames.
    async fn closed(&mut self) -> u16 {
        loop {
            let (first, payload) = self.receive().await;
            if first == FINAL | CLOSE {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }
}

/// The header of a client's frame (RFC 6455, 5.2), without the masking key. `first` is its first byte: the
/// final bit, three reserved bits, and the opcode.
fn frame_header(first: u8, payload: usize) -> Vec<u8> {
    let mut header = vec![first];
    match payload {
        short @ 0..126 => header.push(0x80 | short as u8),
        medium @ 126..0x1_0000 => {
            header.push(0x80 | 126);
            header.extend((medium as u16).to_be_bytes());
        }
        long => {
            header.push(0x80 | 127);
            header.extend((long as u64).to_be_bytes());
        }
    }
    header
}

const FINAL: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
