//! Arbitrary bytes from a client to the server, split anywhere, with or without a handshake. A
//! well-behaved client beside it must get its echo throughout.
#![no_main]

use arbitrary::Arbitrary;
use futures_util::{SinkExt, StreamExt};
use libfuzzer_sys::fuzz_target;
use stateroom_wasmi_server::{Server, ServerConfig};
use std::{cell::OnceCell, future::pending, net::SocketAddr, thread, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    handshake: Option<Handshake<'a>>,
    pieces: Vec<Piece<'a>>,
    /// Whether it reads until the server closes, after it has written everything.
    reads_to_end: bool,
}

#[derive(Debug, Arbitrary)]
struct Handshake<'a> {
    room: u8,
    query: &'a str,
    headers: &'a str,
}

#[derive(Debug, Arbitrary)]
enum Piece<'a> {
    Raw(&'a [u8]),
    /// A masked frame with any opcode and flags, and maybe a false length.
    Frame {
        first_byte: u8,
        payload: &'a [u8],
        false_len: Option<u64>,
    },
    /// A valid frame.
    Text(&'a str),
    Close(u16),
}

fuzz_target!(|input: Input<'_>| {
    SERVER.with(|server| {
        let server = server.get_or_init(TestServer::new);
        server.runtime.block_on(async {
            attack(server.address, &input).await;
            server.check_echo().await;
        });
    });
});

/// More than a working server needs for anything.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connects, writes the input, and maybe reads until the server closes.
async fn attack(server: SocketAddr, input: &Input<'_>) {
    let Ok(mut stream) = TcpStream::connect(server).await else {
        return;
    };
    let mut bytes = Vec::new();
    if let Some(Handshake {
        room,
        query,
        headers,
    }) = &input.handshake
    {
        bytes.extend(
            format!(
                "GET /ws/{room}?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n\r\n"
            )
            .bytes(),
        );
    }
    for piece in &input.pieces {
        match *piece {
            Piece::Raw(raw) => bytes.extend(raw),
            Piece::Frame {
                first_byte,
                payload,
                false_len,
            } => push_frame(&mut bytes, first_byte, payload, false_len),
            Piece::Text(text) => push_frame(&mut bytes, 0x81, text.as_bytes(), None),
            Piece::Close(code) => push_frame(&mut bytes, 0x88, &code.to_be_bytes(), None),
        }
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
        tokio::task::yield_now().await;
    }
    let _ = stream.write_all(&bytes).await;
    // Otherwise the server would rightly wait for more.
    let _ = stream.shutdown().await;
    if input.reads_to_end {
        let mut sink = [0; 1024];
        let all = async { while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {} };
        timeout(TIMEOUT, all)
            .await
            .expect("the server closes a connection that its client has closed");
    }
}

fn push_frame(bytes: &mut Vec<u8>, first_byte: u8, payload: &[u8], false_len: Option<u64>) {
    bytes.push(first_byte);
    match false_len.unwrap_or(payload.len() as u64) {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        medium @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend(long.to_be_bytes());
        }
    }
    // A mask of zeros: the payload is not changed.
    bytes.extend([0; 4]);
    bytes.extend(payload);
}

thread_local! {
    static SERVER: OnceCell<TestServer> = const { OnceCell::new() };
}

/// A server on its own thread, and a well-behaved client of it.
struct TestServer {
    runtime: Runtime,
    address: SocketAddr,
    client: tokio::sync::Mutex<WebSocketStream<TcpStream>>,
}

impl TestServer {
    fn new() -> Self {
        let wasm = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/rooms/wasm/echo-c.wasm"
        );
        let mut config = ServerConfig::new(std::fs::read(wasm).expect("the bundled room exists"));
        config.port = 0;
        config.workers = 1;
        config.max_rooms = 300;
        config.room_idle = Duration::from_millis(5);
        config.limits.max_message_bytes = 4 << 10;
        config.limits.max_memory_bytes = 1 << 20;
        let (address_tx, address_rx) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = runtime();
            runtime.block_on(async {
                let server = Server::bind(config).await.expect("a port is free");
                address_tx
                    .send(server.local_addrs()[0])
                    .expect("the other thread waits for it");
                server.run(pending()).await.expect("it runs");
            });
        });
        let address = address_rx.recv().expect("the server starts");
        let runtime = runtime();
        let client = runtime.block_on(async {
            let stream = TcpStream::connect(address)
                .await
                .expect("the server listens");
            client_async(format!("ws://{address}/ws/well-behaved"), stream)
                .await
                .expect("the handshake succeeds")
                .0
        });
        Self {
            runtime,
            address,
            client: tokio::sync::Mutex::new(client),
        }
    }

    /// The well-behaved client gets its echo.
    async fn check_echo(&self) {
        let mut client = self.client.lock().await;
        client
            .send(Message::text("still there?"))
            .await
            .expect("it is connected");
        let echo = async {
            loop {
                let message = client
                    .next()
                    .await
                    .expect("it is connected")
                    .expect("it is connected");
                if message.is_text() {
                    return message;
                }
            }
        };
        let echo = timeout(TIMEOUT, echo)
            .await
            .expect("the server echoes in time");
        assert_eq!(echo, Message::text("still there?"));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system allows a runtime")
}
