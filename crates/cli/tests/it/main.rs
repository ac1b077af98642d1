//! The built tool with real WebSocket clients, end to end.
//!
//! Each test starts a server of its own on a free port. Waiting is for events, with a time after
//! which a test fails rather than hangs.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[cfg(unix)]
mod attach;
mod attack;
mod bundled;
mod check_tool;
mod closing;
mod doors;
mod faults;
mod limits;
mod load;
mod origins;
mod rates;
mod rooms;
#[path = "../../../../tests/support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the other crates")]
mod support;
mod urls;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::{
    fs,
    future::Future,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
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

/// Longer than anything takes, on a machine that does much else.
const TIME: Duration = Duration::from_secs(20);

/// Waits for something that will happen.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIME, future)
        .await
        .unwrap_or_else(|_| panic!("it never happened: {what}"))
}

/// The root of the repository.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A built module of examples/rooms; `ROOMS_DIR` names a folder where they were built again.
fn bundled_path(name: &str) -> PathBuf {
    let committed = || repository().join("examples/rooms/wasm");
    let folder = std::env::var_os("ROOMS_DIR").map_or_else(committed, PathBuf::from);
    folder.join(format!("{name}.wasm"))
}

/// Runs the tool until it ends.
fn tool(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"))
        .args(args)
        .output()
        .expect("the tool runs")
}

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "stateroom-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    /// Writes a file, with the folders that it is in.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("it is in a folder"))
            .expect("a folder can be made");
        fs::write(&path, contents).expect("a file can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that runs; it is killed when the test is over.
struct Server {
    process: Child,
    /// `127.0.0.1:` and the port that was free.
    address: String,
    log: Arc<Mutex<String>>,
    /// The module, if it was written for this test.
    folder: Option<Folder>,
}

impl Server {
    /// Serves a built module of examples/rooms.
    fn bundled(name: &str, args: &[&str]) -> Self {
        Self::start(&bundled_path(name), args)
    }

    /// Serves a guest in WebAssembly text.
    fn guest(text: &str, args: &[&str]) -> Self {
        let folder = Folder::new();
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

    /// Serves by a command that runs the tool.
    fn run(mut command: Command, module: &Path, args: &[&str]) -> Self {
        // Machines that have many cores would start many threads for each test.
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

    fn listening(mut command: Command) -> Self {
        let mut process = command
            .args(["--port", "0"])
            .env("RUST_LOG", "debug")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool runs");
        let log = Arc::new(Mutex::new(String::new()));
        let (mut stderr, lines) = (process.stderr.take().expect("it is piped"), log.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                lines
                    .lock()
                    .expect("no panic")
                    .push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        let stdout = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut lines = stdout.lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("http://").map(str::to_owned));
        let mut server = Self {
            process,
            address: String::new(),
            log,
            folder: None,
        };
        server.address = address.expect("it prints its address when it listens");
        server
    }

    /// Connects a client to `/ws` and what follows.
    async fn join(&self, path: &str) -> Client {
        self.try_join(path).await.expect("a WebSocket is opened")
    }

    /// Connects clients to a room that is empty, and waits until all are there: a WebSocket is open
    /// before its client is in the room.
    async fn join_all<const N: usize>(&self, room: &str) -> [Client; N] {
        let mut clients = Vec::new();
        for count in 1..=N {
            clients.push(self.join(&format!("/{room}")).await);
            let is_there = |room: Option<&Value>| room.is_some_and(|room| room["clients"] == count);
            self.until_room(room, "the client is there", is_there).await;
        }
        clients
            .try_into()
            .unwrap_or_else(|_| unreachable!("there are as many"))
    }

    async fn try_join(&self, path: &str) -> Result<Client, Error> {
        let url = format!("ws://{}/ws{path}", self.address);
        let (socket, _) = soon("the handshake", connect_async(url)).await?;
        Ok(Client(socket))
    }

    async fn get(&self, path: &str) -> Response {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        let answer = self.ask(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        Response {
            status,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    /// Sends this, whatever it is; answers all that comes until the server closes.
    async fn ask(&self, request: &[u8]) -> String {
        let answer = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_all(request).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = soon("an answer", answer).await.expect("the server answers");
        String::from_utf8(answer).expect("text")
    }

    /// The same, but only until the end of the head.
    async fn ask_for_head(&self, request: &[u8]) -> String {
        let head = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_all(request).await?;
            read_head(&mut stream).await
        };
        soon("an answer", head).await.expect("the server answers")
    }

    /// Waits until the server has logged something.
    async fn until_logged(&self, what: &str) {
        soon(what, async {
            while !self.log.lock().expect("no panic").contains(what) {
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

    /// Waits until a room is as it should be.
    async fn until_room(&self, id: &str, what: &str, is: impl Fn(Option<&Value>) -> bool) {
        soon(what, async {
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

    /// Waits until the server has ended.
    async fn ended(&mut self) -> ExitStatus {
        soon("the server ends", async {
            loop {
                if let Some(status) = self.process.try_wait().expect("it is our child") {
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
            let _ = writeln!(
                std::io::stderr(),
                "the server's log:\n{}",
                self.log.lock().expect("no panic")
            );
        }
    }
}

/// Reads what ends with an empty line.
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

/// A WebSocket client. It answers pings while it waits for something.
struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn say(&mut self, message: impl Into<Message>) {
        soon("the server takes it", self.0.send(message.into()))
            .await
            .expect("the client can send");
    }

    /// The next that comes, but for pings and pongs.
    async fn hear(&mut self) -> Message {
        loop {
            let message = soon("a message", self.0.next())
                .await
                .expect("the connection stands");
            match message.expect("the connection stands") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    async fn hear_text(&mut self) -> String {
        match self.hear().await {
            Message::Text(text) => text.to_string(),
            other => panic!("not a text: {other:?}"),
        }
    }

    #[track_caller]
    fn expect(&mut self, text: &str) -> impl Future<Output = ()> {
        let (place, text) = (std::panic::Location::caller(), text.to_owned());
        async move { assert_eq!(self.hear_text().await, text, "at {place}") }
    }

    /// The code and the reason that the server closes with; what comes before is not looked at.
    async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.hear().await {
                let frame = frame.expect("a code");
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    /// Closes and waits until the server has closed, too.
    async fn leave(mut self) {
        soon("a goodbye", async {
            let _ = self.0.close(None).await;
            while let Some(Ok(_)) = self.0.next().await {}
        })
        .await;
    }
}

/// A client that sends what it is told to, frame by frame, and answers no ping.
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
            .expect("the server reads");
        let head = soon("the handshake", read_head(&mut stream))
            .await
            .expect("an answer");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        // The answer to this key that RFC 6455 gives.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self(stream)
    }

    /// One to write and one to read, at the same time.
    fn twins(self) -> (Self, Self) {
        let stream = self.0.into_std().expect("a socket");
        let twin = stream.try_clone().expect("a socket has two ends");
        (
            Self(TcpStream::from_std(stream).expect("a socket")),
            Self(TcpStream::from_std(twin).expect("a socket")),
        )
    }

    /// Sends one frame (RFC 6455, 5.2), masked with zeros. `first` is its first byte: the final bit,
    /// three reserved bits, and the opcode.
    async fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            medium @ 126..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend((medium as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        soon("the server takes it", self.0.write_all(&frame))
            .await
            .expect("the client can send");
    }

    /// The first byte of the next frame, and its payload.
    async fn hear(&mut self) -> (u8, Vec<u8>) {
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
        soon("a frame", frame).await.expect("the connection stands")
    }

    /// The code that the server closes with; what comes before is not looked at.
    async fn closed(&mut self) -> u16 {
        loop {
            let (first, payload) = self.hear().await;
            if first == FINAL | CLOSE {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }
}

const FINAL: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
