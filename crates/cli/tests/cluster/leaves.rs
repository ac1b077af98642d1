//! Leaves: a tool with a board, and one with rooms in a folder, whose rooms clients of all nodes reach.

use crate::{
    ALONE,
    board::tcp_board,
    counter, eventually,
    machines::{Machines, NODES, Setup, nats_program},
};
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use stateroom_wasmi_resume::{ClientSession, Incoming, Message as Frame};
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use tokio::{
    net::TcpStream,
    time::{Duration, sleep},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

/// A process that is killed in the end, and shows its log if the test has failed.
struct Leaf {
    process: Child,
    log: PathBuf,
}

impl Leaf {
    fn start(machines: &Machines, name: &str, args: &[&str]) -> Self {
        let servers = machines.nats_addresses().into_iter();
        let servers: Vec<_> = servers.map(|server| format!("nats://{server}")).collect();
        let log = machines.folder().join(format!("leaf-{name}.log"));
        let file = fs::File::options().create(true).append(true).open(&log);
        let process = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"))
            .args(args)
            .args(["--port", "0", "--leaf-name", name])
            .args(["--leaf-of", &servers.join(",")])
            .env("RUST_LOG", "info,stateroom_wasmi_server=debug")
            .stdout(Stdio::null())
            .stderr(file.expect("the folder can be written"))
            .spawn()
            .expect("the tool runs");
        Self { process, log }
    }

    fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it was killed");
    }

    async fn end(mut self) {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        kill_process(pid.expect("it has an id"), Signal::TERM).expect("it runs");
        assert!(self.ended().await);
    }

    /// Waits for its end; returns whether it has succeeded.
    async fn ended(&mut self) -> bool {
        eventually("the end of the leaf", async {
            loop {
                match self.process.try_wait().expect("it can be waited for") {
                    Some(status) => return status.success(),
                    None => sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn join(node: SocketAddr, room: &str) -> Self {
        let url = format!("ws://{node}/ws/{room}");
        let joined = eventually("the handshake", connect_async(url)).await;
        Self(joined.expect("the handshake succeeds").0)
    }

    /// By a subprotocol.
    async fn join_by(node: SocketAddr, room: &str, protocol: &'static str) -> Self {
        let url = format!("ws://{node}/ws/{room}");
        let mut request = url.into_client_request().expect("a URL");
        let value = HeaderValue::from_static(protocol);
        request
            .headers_mut()
            .insert("sec-websocket-protocol", value);
        let joined = eventually("the handshake", connect_async(request)).await;
        Self(joined.expect("the handshake succeeds").0)
    }

    async fn hear_frame(&mut self) -> Frame {
        match self.hear().await {
            Message::Text(text) => Frame::Text(text.to_string()),
            Message::Binary(bytes) => Frame::Binary(bytes.to_vec()),
            other => panic!("no frame: {other:?}"),
        }
    }

    async fn say(&mut self, message: impl Into<Message>) {
        let said = self.0.send(message.into()).await;
        said.expect("it is connected");
    }

    async fn hear(&mut self) -> Message {
        eventually("a message", async {
            loop {
                let heard = self.0.next().await;
                match heard.expect("it is connected").expect("no error") {
                    Message::Ping(_) => {}
                    message => return message,
                }
            }
        })
        .await
    }

    async fn hear_text(&mut self, text: &str) {
        assert_eq!(self.hear().await, Message::text(text));
    }

    /// What this client has said, and what all have, as the room counts.
    async fn count(&mut self) -> (u32, u32) {
        self.say("x").await;
        let counts = self.hear().await.into_data();
        let number = |at: usize| u32::from_le_bytes(counts[at..at + 4].try_into().expect("four"));
        (number(0), number(4))
    }

    async fn closed(mut self) -> (u16, String) {
        match self.hear().await {
            Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
            other => panic!("no close frame: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_all_nodes_play_on_a_board_behind_a_leaf() {
    let Some(program) = nats_program() else {
        return;
    };
    let _alone = ALONE.lock().await;
    let setup = Setup {
        can_be_cut: false,
        nodes: NODES,
        args: &["--owner-timeout", "60"],
        module: counter().into_bytes(),
    };
    let machines = Machines::start(&program, setup).await;
    let nodes = machines.addresses();
    let (board, address) = tcp_board();
    let attach = ["attach", &address];
    // It waits for the leaf.
    let mut first = Client::join(nodes[0], "@den.echo").await;
    first.say("hello").await;
    let leaf = Leaf::start(&machines, "den", &attach);
    first.hear_text("hello").await;
    for n in 0..100 {
        first.say(format!("message {n}")).await;
    }
    for n in 0..100 {
        first.hear_text(&format!("message {n}")).await;
    }
    // The board's first room.
    let mut unnamed = Client::join(nodes[1], "@den").await;
    unnamed.say(vec![1, 2, 3]).await;
    assert_eq!(unnamed.hear().await, Message::binary(vec![1, 2, 3]));
    let mut chat = [
        Client::join(nodes[1], "@den.chat").await,
        Client::join(nodes[2], "@den.chat").await,
    ];
    board.until_clients(4).await;
    chat[0].say("to all").await;
    for client in &mut chat {
        client.hear_text("to all").await;
    }
    let refused = Client::join(nodes[2], "@den.cellar").await.closed().await;
    assert_eq!(refused, (1008, "the board has no room \"cellar\"".into()));
    let [gone, mut left] = chat;
    drop(gone);
    board.until_clients(3).await;
    come_back(&nodes).await;
    board.until_clients(3).await;
    // Its name is taken.
    let mut second = Leaf::start(&machines, "den", &attach);
    assert!(!second.ended().await);
    assert!(second.log().contains("another leaf of the name"));
    // The board notices that the leaf has gone, and so clients are not in their rooms any more.
    leaf.kill();
    let mut waiting = Client::join(nodes[2], "@den.echo").await;
    waiting.say("again").await;
    left.say("into the void").await;
    let leaf = Leaf::start(&machines, "den", &attach);
    waiting.hear_text("again").await;
    let lost = (1012, "the room has lost its clients".into());
    assert_eq!(left.closed().await, lost);
    let mut back = Client::join(nodes[0], "@den.chat").await;
    back.say("here").await;
    back.hear_text("here").await;
    leaf.end().await;
}

/// A client of `stateroom.resume.1` loses its connections, and comes back to the board at other nodes; it
/// neither misses a reply nor gets one twice, and the board notices nothing.
async fn come_back(nodes: &[SocketAddr]) {
    const ROUNDS: u32 = 6;
    let mut session = ClientSession::new(1000, 1 << 20);
    let (mut said, mut heard) = (0, 0);
    for round in 0..ROUNDS {
        let node = nodes[round as usize % nodes.len()];
        let mut client = Client::join_by(node, "@den.echo", "stateroom.resume.1").await;
        client.say(session.hello()).await;
        let reply = session.receive(&client.hear_frame().await);
        let expected = match round {
            0 => Incoming::New { was_lost: false },
            _ => Incoming::Resumed,
        };
        assert_eq!(reply.expect("of the protocol"), expected);
        for frame in session.unacknowledged().collect::<Vec<_>>() {
            client.say(message_of(frame)).await;
        }
        for _ in 0..50 {
            said += 1;
            let frame = session.send(Frame::Text(format!("number {said}")));
            client.say(message_of(frame.expect("space"))).await;
        }
        // Some replies are on their way when the connection is lost, but for the last time.
        let until = if round + 1 == ROUNDS { said } else { said - 20 };
        while heard < until {
            let frame = client.hear_frame().await;
            if let Incoming::Message(message) = session.receive(&frame).expect("of the protocol") {
                heard += 1;
                assert_eq!(message, Frame::Text(format!("number {heard}")));
            }
        }
        if round + 1 == ROUNDS {
            client
                .say(stateroom_wasmi_resume::Frame::Goodbye.to_string())
                .await;
        }
    }
}

fn message_of(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => Message::text(text),
        Frame::Binary(bytes) => Message::binary(bytes),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_a_leaf_survive_with_their_clients_if_it_keeps_them() {
    let Some(program) = nats_program() else {
        return;
    };
    let _alone = ALONE.lock().await;
    let setup = Setup {
        can_be_cut: false,
        nodes: NODES,
        args: &["--owner-timeout", "60"],
        module: counter().into_bytes(),
    };
    let machines = Machines::start(&program, setup).await;
    let nodes = machines.addresses();
    let (module, data) = (machines.module().to_owned(), machines.folder().join("den"));
    let serve = [
        "serve",
        module.to_str().expect("text"),
        "--data",
        data.to_str().expect("text"),
        "--workers",
        "1",
    ];
    let mut leaf = Leaf::start(&machines, "den", &serve);
    let mut clients = [
        Client::join(nodes[0], "@den.lobby").await,
        Client::join(nodes[1], "@den.lobby").await,
    ];
    let mut all = 0;
    for round in 1..=4 {
        for client in &mut clients {
            all += 1;
            assert_eq!(client.count().await, (round, all));
        }
        if round == 2 {
            leaf.kill();
            leaf = Leaf::start(&machines, "den", &serve);
        }
        if round == 3 {
            leaf.end().await;
            leaf = Leaf::start(&machines, "den", &serve);
        }
    }
    // A room of the same id at the nodes is another one.
    let mut elsewhere = Client::join(nodes[0], "lobby").await;
    assert_eq!(elsewhere.count().await, (1, 1));
    leaf.end().await;
}
