//! Clients that come back (`stateroom.resume.1`): each message arrives exactly once, both ways, over
//! connections that are lost and servers that crash.

use crate::{
    journaled::{RunningServer, eventually},
    support::{ENV, Random, SAY, assemble, guest_0_2},
};
use core::time::Duration;
use futures_util::{SinkExt, StreamExt};
use stateroom_wasmi_resume::{ClientSession, Incoming, Message, SUBPROTOCOL};
use stateroom_wasmi_server::{
    Rate, ServerConfig,
    journal::{LogEntries, MemoryJournal},
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message as Frame, client::IntoClientRequest, http::HeaderValue},
};

/// A guest that sends each message back to its sender, and says to all who comes (1,000 and the id) and
/// who leaves (2,000 and the id).
fn echo() -> Vec<u8> {
    let echo = |send: &str| format!("(call {send} (local.get 0) (local.get 1) (local.get 2))");
    let say = |base: u32| format!("(call $say (i32.add (i32.const {base}) (local.get 0)))");
    assemble(&guest_0_2(
        ENV,
        &[
            ("connect", &say(1000)),
            ("disconnect", &say(2000)),
            ("message", &echo("$send_message")),
            ("binary", &echo("$send_binary")),
        ],
        SAY,
    ))
}

fn change(config: &mut ServerConfig) {
    config.module = echo();
    config.message_rate = Rate::new(0, 0);
}

/// A connection of a client that speaks the protocol.
pub(crate) struct Connection(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Connection {
    async fn open(server: &RunningServer, path: &str) -> Self {
        Self::open_at(&server.address, path).await
    }

    pub(crate) async fn open_at(address: &str, path: &str) -> Self {
        let url = format!("ws://{address}/ws/{path}");
        let mut request = url.into_client_request().expect("a URL");
        let name = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert("sec-websocket-protocol", name);
        let (socket, response) = eventually("the handshake", connect_async(request))
            .await
            .expect("the handshake succeeds");
        let chosen = response.headers().get("sec-websocket-protocol");
        assert_eq!(
            chosen.map(HeaderValue::as_bytes),
            Some(SUBPROTOCOL.as_bytes())
        );
        Self(socket)
    }

    /// Says hello; returns what the server replies.
    async fn hello(&mut self, session: &mut ClientSession) -> Incoming {
        let hello = session.hello();
        self.send_text(&hello).await;
        let reply = self.receive().await.expect("a reply");
        session.receive(&reply).expect("a frame of the protocol")
    }

    pub(crate) async fn send(&mut self, message: Message) -> bool {
        let frame = match message {
            Message::Text(text) => Frame::text(text),
            Message::Binary(bytes) => Frame::binary(bytes),
        };
        self.0.send(frame).await.is_ok()
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.send(Message::Text(text.into())).await;
    }

    /// The next message; none if the connection has ended.
    pub(crate) async fn receive(&mut self) -> Option<Message> {
        loop {
            match eventually("a message", self.0.next()).await? {
                Ok(Frame::Text(text)) => return Some(Message::Text(text.to_string())),
                Ok(Frame::Binary(bytes)) => return Some(Message::Binary(bytes.into())),
                Ok(Frame::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The code that the server closes with.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match eventually("a close", self.0.next()).await {
                Some(Ok(Frame::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }
}

/// What a client is to hear next.
struct Dialogue {
    session: ClientSession,
    said: u32,
    heard: u32,
    /// Who was seen to come and to leave.
    seen: Vec<i32>,
}

impl Dialogue {
    fn new() -> Self {
        Self {
            session: ClientSession::new(1000, 1 << 20),
            said: 0,
            heard: 0,
            seen: Vec::new(),
        }
    }

    /// Every third message is binary.
    fn message(number: u32) -> Message {
        let text = format!("message {number}");
        match number % 3 {
            0 => Message::Binary(text.into_bytes()),
            _ => Message::Text(text),
        }
    }

    fn hear(&mut self, message: &Message) {
        match message {
            Message::Binary(bytes) if bytes.len() == 4 => {
                let number = bytes[..].try_into().expect("four bytes");
                self.seen.push(i32::from_le_bytes(number));
            }
            echo => {
                self.heard += 1;
                assert_eq!(*echo, Self::message(self.heard));
            }
        }
    }

    /// Talks over one connection, for so many steps, and drops it.
    async fn talk(
        &mut self,
        server: &RunningServer,
        path: &str,
        steps: usize,
        random: &mut Random,
    ) {
        let mut connection = Connection::open(server, path).await;
        let is_first = self.said == 0 && self.heard == 0 && self.seen.is_empty();
        match connection.hello(&mut self.session).await {
            Incoming::New { was_lost } => assert!(is_first && !was_lost),
            Incoming::Resumed => {
                for frame in self.session.unacknowledged().collect::<Vec<_>>() {
                    connection.send(frame).await;
                }
            }
            other => panic!("no reply to a hello: {other:?}"),
        }
        for _ in 0..steps {
            if random.below(2) == 0 && self.said - self.heard < 50 + 40 {
                self.said += 1;
                let frame = self.session.send(Self::message(self.said));
                connection.send(frame.expect("space")).await;
            } else if self.heard < self.said {
                let message = connection.receive().await.expect("it is connected");
                match self.session.receive(&message).expect("of the protocol") {
                    Incoming::Message(message) => self.hear(&message),
                    Incoming::Nothing => {}
                    other => panic!("not now: {other:?}"),
                }
                if let Some(ack) = self.session.ack(false) {
                    connection.send_text(&ack).await;
                }
            }
        }
        // Not closed: it is lost, with whatever is on its way.
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_connections_are_lost() {
    let mut random = Random::new();
    let server = RunningServer::without_journal(change).await;
    let mut watcher = server.join("lobby").await;
    assert_eq!(watcher.hear().await, 1001);
    let mut dialogue = Dialogue::new();
    for _ in 0..60 {
        let steps = random.below(120);
        dialogue.talk(&server, "lobby", steps, &mut random).await;
    }
    assert!(dialogue.heard > 1000, "{} heard", dialogue.heard);
    // Nobody has seen it leave.
    assert_eq!(watcher.hear().await, 1002);
    assert_eq!(dialogue.seen, [1002]);
    let _other = server.join("lobby").await;
    assert_eq!(watcher.hear().await, 1003);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_the_server_crashes() {
    let mut random = Random::new();
    let mut journal = MemoryJournal::new();
    let mut server = RunningServer::start(&journal, change).await;
    let mut dialogue = Dialogue::new();
    for round in 0..40 {
        let steps = random.below(150);
        dialogue.talk(&server, "lobby", steps, &mut random).await;
        if round % 2 == 0 {
            // The journal may have fallen behind what the room has done.
            if round % 4 == 0 {
                dialogue.talk_to_nobody(&server, &journal).await;
            }
            journal = journal.fork();
            server = RunningServer::start(&journal, change).await;
        }
    }
    assert!(dialogue.heard > 500, "{} heard", dialogue.heard);
    assert_eq!(dialogue.seen, [1001], "no crash has made it leave");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_the_server_is_stopped() {
    let mut random = Random::new();
    let journal = MemoryJournal::new();
    let mut dialogue = Dialogue::new();
    for _ in 0..6 {
        let server = RunningServer::start(&journal, change).await;
        for _ in 0..3 {
            let steps = random.below(60);
            dialogue.talk(&server, "lobby", steps, &mut random).await;
        }
        server.stop().await.expect("it stops");
    }
    assert!(dialogue.heard > 100, "{} heard", dialogue.heard);
    assert_eq!(dialogue.seen, [1001]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_has_begun_survives_a_crash() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        change(config);
        // The room waits when two messages are not durable.
        config.max_queued_messages = 2;
    })
    .await;
    let mut busy = Connection::open(&server, "lobby").await;
    busy.hello(&mut ClientSession::new(10, 1000)).await;
    journal.pause();
    for batches in 1..=2 {
        busy.send_text("mhi").await;
        eventually("the batch", async {
            while journal.waiting() < batches {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
    let mut session = ClientSession::new(10, 1000);
    let mut connection = Connection::open(&server, "lobby").await;
    let hello = session.hello();
    connection.send_text(&hello).await;
    // As slowly as it takes to see what comes after each step.
    let reply = loop {
        match timeout(Duration::from_millis(20), connection.receive()).await {
            Ok(reply) => break reply.expect("it is connected"),
            Err(_) => _ = journal.step(),
        }
    };
    let incoming = session.receive(&reply).expect("of the protocol");
    assert_eq!(incoming, Incoming::New { was_lost: false });
    let server = RunningServer::start(&journal.fork(), change).await;
    let mut connection = Connection::open(&server, "lobby").await;
    assert_eq!(connection.hello(&mut session).await, Incoming::Resumed);
}

impl Dialogue {
    /// Says something while the journal stands still, so that nothing of it is durable. Whatever comes
    /// meanwhile is taken for true.
    async fn talk_to_nobody(&mut self, server: &RunningServer, journal: &MemoryJournal) {
        let mut connection = Connection::open(server, "lobby").await;
        let reply = connection.hello(&mut self.session).await;
        assert_eq!(reply, Incoming::Resumed);
        for frame in self.session.unacknowledged().collect::<Vec<_>>() {
            connection.send(frame).await;
        }
        journal.pause();
        for _ in 0..40 {
            self.said += 1;
            let frame = self.session.send(Self::message(self.said));
            connection.send(frame.expect("space")).await;
        }
        while let Ok(Some(message)) = timeout(Duration::from_millis(30), connection.receive()).await
        {
            if let Incoming::Message(message) =
                self.session.receive(&message).expect("of the protocol")
            {
                self.hear(&message);
            }
        }
        // And over another connection.
        let mut connection = Connection::open(server, "lobby").await;
        let hello = self.session.hello();
        connection.send_text(&hello).await;
        if let Ok(Some(reply)) = timeout(Duration::from_millis(30), connection.receive()).await {
            self.session.receive(&reply).expect("of the protocol");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_by_a_goodbye_and_by_time() {
    let server = RunningServer::without_journal(|config| {
        change(config);
        config.resume_window = Duration::from_millis(50);
    })
    .await;
    let mut watcher = server.join("lobby").await;
    assert_eq!(watcher.hear().await, 1001);
    let mut session = ClientSession::new(10, 1000);
    let mut connection = Connection::open(&server, "lobby").await;
    let reply = connection.hello(&mut session).await;
    assert_eq!(reply, Incoming::New { was_lost: false });
    assert_eq!(watcher.hear().await, 1002);
    connection.send_text("g").await;
    assert_eq!(connection.closed().await, 1000);
    assert_eq!(watcher.hear().await, 2002);

    // Who comes too late has a new one.
    for id in [3, 4] {
        let mut connection = Connection::open(&server, "lobby").await;
        let reply = connection.hello(&mut session).await;
        assert_eq!(reply, Incoming::New { was_lost: true });
        assert_eq!(watcher.hear().await, 1000 + id);
        drop(connection);
        assert_eq!(watcher.hear().await, 2000 + id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_room_whose_client_does_not_come_back_hibernates() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        config.resume_window = Duration::from_millis(50);
    })
    .await;
    let mut session = ClientSession::new(10, 1000);
    let mut connection = Connection::open(&server, "lobby").await;
    connection.hello(&mut session).await;
    drop(connection);
    server.until_it_hibernates().await;
    // It was told that the client has left.
    let stored = journal.stored("lobby").expect("it is stored");
    let events = LogEntries::new(&stored.tail).count();
    assert_eq!(events, 3, "the start, a connect and a disconnect");
    let mut client = server.join("lobby").await;
    assert_eq!(client.hear().await, 1002);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_is_replied_to_when_what_was_said_before_is_durable() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        // It replies nothing.
        config.module = assemble(&guest_0_2(ENV, &[], SAY));
    })
    .await;
    let mut session = ClientSession::new(10, 1000);
    let mut connection = Connection::open(&server, "lobby").await;
    connection.hello(&mut session).await;
    let events = || {
        let stored = journal.stored("lobby").expect("it is stored");
        LogEntries::new(&stored.tail).count()
    };
    let before = events();
    journal.pause();
    for text in ["mone", "mtwo", "g"] {
        connection.send_text(text).await;
    }
    let waiting = async {
        while journal.waiting() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    eventually("the journal", waiting).await;
    // What comes after it is nothing to the room.
    connection.send_text("mthree").await;
    let early = timeout(Duration::from_millis(50), connection.closed()).await;
    assert!(early.is_err(), "nothing of it is durable");
    journal.resume();
    let (code, events) = (connection.closed().await, events());
    assert_eq!(code, 1000);
    // That it leaves may be there by then, too.
    assert!(events >= before + 2, "{events} of {before}");
    let stored = journal.stored("lobby").expect("it is stored");
    let has = |text: &[u8]| stored.tail.windows(text.len()).any(|it| it == text);
    assert_eq!((has(b"two"), has(b"three")), (true, false));
}

/// Something is always held for those who stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_is_replied_to_in_a_room_that_goes_on_sending() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, change).await;
    let mut session = ClientSession::new(10, 1000);
    let mut connection = Connection::open(&server, "lobby").await;
    connection.hello(&mut session).await;
    journal.pause();
    for text in ["mone", "g"] {
        connection.send_text(text).await;
    }
    let mut closed = Box::pin(connection.closed());
    let mut others = Vec::new();
    let closing = async {
        loop {
            // The room says to all who has come, before what it has said before is durable.
            let waiting = journal.waiting();
            others.push(server.join("lobby").await);
            while journal.waiting() <= waiting {
                sleep(Duration::from_millis(1)).await;
            }
            journal.step();
            if let Ok(code) = timeout(Duration::from_millis(20), &mut closed).await {
                assert!(journal.waiting() > 0, "the room has nothing to send");
                return code;
            }
        }
    };
    assert_eq!(eventually("the close", closing).await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_come_back_to_a_server_that_is_drained() {
    let journal = MemoryJournal::new();
    for is_journaled in [false, true] {
        let mut server = match is_journaled {
            true => RunningServer::start(&journal, change).await,
            false => RunningServer::without_journal(change).await,
        };
        let mut session = ClientSession::new(10, 1000);
        let mut connection = Connection::open(&server, "r").await;
        let reply = connection.hello(&mut session).await;
        assert_eq!(reply, Incoming::New { was_lost: false });
        drop(connection);
        if is_journaled {
            // Also one that has just begun: the room is stored, and nobody has asked for it.
            server.stop().await.expect("it stops");
            let paused = journal.fork();
            paused.pause();
            server = RunningServer::start(&paused, change).await;
            server.post("/drain").await;
            let mut connection = Connection::open(&server, "r").await;
            let hello = connection.hello(&mut session);
            let (reply, ()) = tokio::join!(hello, async { paused.resume() });
            assert_eq!(reply, Incoming::Resumed);
            drop(connection);
        } else {
            server.post("/drain").await;
        }
        for _ in 0..2 {
            let mut connection = Connection::open(&server, "r").await;
            let reply = connection.hello(&mut session).await;
            assert_eq!(reply, Incoming::Resumed);
        }
        // Others do not, whatever they say, and open no rooms.
        let plain = connect_async(format!("ws://{}/ws/r", server.address)).await;
        assert!(plain.is_err_and(|error| error.to_string().contains("503")));
        for (room, hello) in [
            ("r", "h"),
            ("r", "h0 secret"),
            ("other", "h"),
            ("other", "h0 secret"),
        ] {
            let mut connection = Connection::open(&server, room).await;
            connection.send_text(hello).await;
            assert_eq!(connection.closed().await, 1013, "{room} {hello}");
        }
        assert_eq!(journal.stored("other"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_absence_has_the_whole_window() {
    let server = RunningServer::without_journal(|config| {
        change(config);
        config.resume_window = Duration::from_secs(4);
    })
    .await;
    let mut session = ClientSession::new(10, 1000);
    let mut connection = Connection::open(&server, "lobby").await;
    connection.hello(&mut session).await;
    // Longer than a window together.
    for _ in 0..3 {
        drop(connection);
        sleep(Duration::from_millis(1500)).await;
        connection = Connection::open(&server, "lobby").await;
        assert_eq!(connection.hello(&mut session).await, Incoming::Resumed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_no_more_sessions_than_connections() {
    let server = RunningServer::without_journal(|config| {
        change(config);
        config.resume_window = Duration::from_secs(1000);
        config.max_connections_per_address = 4;
    })
    .await;
    let mut watcher = server.join("lobby").await;
    assert_eq!(watcher.hear().await, 1001);
    let mut sessions = Vec::new();
    for id in 2..=5 {
        let mut session = ClientSession::new(10, 1000);
        let mut connection = Connection::open(&server, "lobby").await;
        connection.hello(&mut session).await;
        assert_eq!(watcher.hear().await, 1000 + id);
        sessions.push(session);
        drop(connection);
    }
    for id in 6..=8 {
        let mut connection = Connection::open(&server, "lobby").await;
        connection.hello(&mut ClientSession::new(10, 1000)).await;
        // The oldest leaves.
        let mut heard = [watcher.hear().await, watcher.hear().await];
        heard.sort_unstable();
        assert_eq!(heard, [1000 + id, 2000 + id - 4]);
        drop(connection);
    }
    let mut connection = Connection::open(&server, "lobby").await;
    let reply = connection.hello(&mut sessions[3]).await;
    assert_eq!(reply, Incoming::Resumed, "of the four, one is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_replaces_an_older_one() {
    let server = RunningServer::without_journal(change).await;
    let mut session = ClientSession::new(10, 1000);
    let mut older = Connection::open(&server, "lobby").await;
    older.hello(&mut session).await;
    let mut newer = Connection::open(&server, "lobby").await;
    assert_eq!(newer.hello(&mut session).await, Incoming::Resumed);
    assert_eq!(older.closed().await, 1008);
    drop(older);
    let frame = session.send(Message::Text("hi".into())).expect("space");
    newer.send(frame).await;
    loop {
        let message = newer.receive().await.expect("it is connected");
        if session.receive(&message) == Ok(Incoming::Message(Message::Text("hi".into()))) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_violates_the_protocol_closes_the_connection() {
    let server = RunningServer::without_journal(change).await;
    for frames in [
        &["mtoo early"][..],
        &["h", "h"],
        &["h", "a5"],
        &["h", "a0", "a-1"],
        &["h", "n0123"],
        &["h", "r0"],
        &["x"],
        &[""],
        &["h01 0123"],
        &["h5 "],
    ] {
        let mut connection = Connection::open(&server, "lobby").await;
        for frame in frames {
            connection.send_text(frame).await;
        }
        assert_eq!(connection.closed().await, 1008, "{frames:?}");
    }
    // A count of what was never sent.
    let mut session = ClientSession::new(10, 1000);
    let mut connection = Connection::open(&server, "lobby").await;
    connection.send_text("h").await;
    let Some(Message::Text(new)) = connection.receive().await else {
        panic!("no reply");
    };
    let secret = new.strip_prefix('n').expect("a new session");
    let mut connection = Connection::open(&server, "lobby").await;
    connection.send_text(&format!("h99 {secret}")).await;
    assert_eq!(connection.closed().await, 1008);
    // And the session is still there.
    let mut connection = Connection::open(&server, "lobby").await;
    connection.send_text(&format!("h0 {secret}")).await;
    assert_eq!(connection.receive().await, Some(Message::Text("r0".into())));
    let mut connection = Connection::open(&server, "lobby").await;
    assert_eq!(
        connection.hello(&mut session).await,
        Incoming::New { was_lost: false }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_acknowledges_nothing_is_disconnected() {
    let server = RunningServer::without_journal(|config| {
        change(config);
        config.max_resume_messages = 8;
    })
    .await;
    let mut watcher = server.join("lobby").await;
    assert_eq!(watcher.hear().await, 1001);
    let mut connection = Connection::open(&server, "lobby").await;
    connection.send_text("h").await;
    for _ in 0..20 {
        connection.send_text("mecho").await;
    }
    assert_eq!(connection.closed().await, 1013);
    assert_eq!(watcher.hear().await, 1002);
    assert_eq!(watcher.hear().await, 2002);
}

/// What it has not acknowledged is more than what may be queued.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_and_is_too_slow_at_once_has_left() {
    let server = RunningServer::without_journal(|config| {
        change(config);
        config.max_queued_messages = 4;
        config.resume_window = Duration::from_secs(1000);
    })
    .await;
    let mut watcher = server.join("lobby").await;
    assert_eq!(watcher.hear().await, 1001);
    let mut session = ClientSession::new(10, 1000);
    let mut connection = Connection::open(&server, "lobby").await;
    connection.hello(&mut session).await;
    assert_eq!(watcher.hear().await, 1002);
    for _ in 0..5 {
        connection.send_text("mecho").await;
        while connection.receive().await != Some(Message::Text("mecho".into())) {}
    }
    // The one before is still there.
    let mut again = Connection::open(&server, "lobby").await;
    again.send_text(&session.hello()).await;
    assert_eq!(again.closed().await, 1013);
    assert_eq!(watcher.hear().await, 2002);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_window_nobody_speaks_the_protocol() {
    let server = RunningServer::without_journal(|config| {
        change(config);
        config.resume_window = Duration::ZERO;
        config.subprotocols = vec!["other".into()];
    })
    .await;
    let url = format!("ws://{}/ws/lobby", server.address);
    let mut request = url.into_client_request().expect("a URL");
    let name = HeaderValue::from_static("stateroom.resume.1, other");
    request.headers_mut().insert("sec-websocket-protocol", name);
    let (_, response) = eventually("the handshake", connect_async(request))
        .await
        .expect("the handshake succeeds");
    assert_eq!(response.headers()["sec-websocket-protocol"], "other");
}
