//! What a client sends to the server: any bytes, cut into pieces anywhere, with or without a
//! handshake before them. Beside it, a client that behaves is answered all the time.
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
    /// Whether it reads, once it has written, until the server closes.
    ends_well: bool,
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
    /// A frame as a client has to mask it, with an opcode and flags that may make no sense, and a
    /// length that may be a lie.
    Frame {
        first_byte: u8,
        payload: &'a [u8],
        lie: Option<u64>,
    },
    /// A frame that is in order.
    Text(&'a str),
    Close(u16),
}

fuzz_target!(|input: Input<'_>| {
    SERVED.with(|served| {
        let served = served.get_or_init(Served::new);
        served.runtime.block_on(async {
            attack(served.address, &input).await;
            served.witness().await;
        });
    });
});

/// Long enough for whatever a server that works does.
const LONG: Duration = Duration::from_secs(10);

/// Connects, writes what there is, and reads until there is no more.
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
                "GET /ws/{room}?{query} HTTP/1.1\r\nHost: fuzz\r\nConnection: Upgrade\r\n\
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
                lie,
            } => push_frame(&mut bytes, first_byte, payload, lie),
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
    // Without this the server would rightly wait for more.
    let _ = stream.shutdown().await;
    if input.ends_well {
        let mut sink = [0; 1024];
        let all = async { while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {} };
        timeout(LONG, all)
            .await
            .expect("the server ends what its client has ended");
    }
}

fn push_frame(bytes: &mut Vec<u8>, first_byte: u8, payload: &[u8], lie: Option<u64>) {
    bytes.push(first_byte);
    match lie {
        Some(len) => {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        }
        None if payload.len() < 126 => bytes.push(0x80 | payload.len() as u8),
        None => {
            bytes.push(0x80 | 126);
            bytes.extend((payload.len() as u16).to_be_bytes());
        }
    }
    // A mask of zeros leaves the payload as it is.
    bytes.extend([0; 4]);
    bytes.extend(payload);
}

thread_local! {
    static SERVED: OnceCell<Served> = const { OnceCell::new() };
}

/// A server in a thread of its own, and a client of it that behaves.
struct Served {
    runtime: Runtime,
    address: SocketAddr,
    client: tokio::sync::Mutex<WebSocketStream<TcpStream>>,
}

impl Served {
    fn new() -> Self {
        let wasm = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/rooms/wasm/echo-c.wasm"
        );
        let mut config = ServerConfig::new(std::fs::read(wasm).expect("the room is there"));
        config.port = 0;
        config.workers = 1;
        config.max_rooms = 300;
        config.room_idle = Duration::from_millis(5);
        config.limits.max_message_bytes = 4 << 10;
        config.limits.max_memory_bytes = 1 << 20;
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = runtime();
            runtime.block_on(async {
                let server = Server::bind(config).await.expect("a port is free");
                tell.send(server.local_addr()).expect("it is waited for");
                server.run(pending()).await.expect("it runs");
            });
        });
        let address = told.recv().expect("the server starts");
        let runtime = runtime();
        let client = runtime.block_on(async {
            let stream = TcpStream::connect(address)
                .await
                .expect("the server listens");
            client_async(format!("ws://{address}/ws/witness"), stream)
                .await
                .expect("it is let in")
                .0
        });
        Self {
            runtime,
            address,
            client: tokio::sync::Mutex::new(client),
        }
    }

    /// The client that behaves is answered.
    async fn witness(&self) {
        let mut client = self.client.lock().await;
        client
            .send(Message::text("still there?"))
            .await
            .expect("it is connected");
        let answer = async {
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
        let answer = timeout(LONG, answer).await.expect("it is answered");
        assert_eq!(answer, Message::text("still there?"));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system lets us")
}
