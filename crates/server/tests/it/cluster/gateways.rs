//! Clients whose rooms are at other nodes.

use super::nodes::{Cluster, Node, SECRET, nodes};
use crate::{journaled::eventually, resuming::Connection};
use core::time::Duration;
use futures_util::{SinkExt, StreamExt, future::select_all};
use stateroom_wasmi_resume::Message as SessionMessage;
use stateroom_wasmi_server::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_tungstenite::tungstenite::Message;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_any_node_is_in_the_same_room() {
    let cluster = Cluster::new();
    let nodes: [Node; 3] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut clients = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let mut client = node.join("lobby").await;
        client.see(&[1001 + index as i32]).await;
        for _ in 0..100 {
            client.say().await;
        }
        client.hear_all().await;
        clients.push(client);
    }
    clients[0].see(&[1001, 1002, 1003]).await;
    // One closes and one is lost; what they have said before is replied to, or at least handled.
    let mut last = clients.pop().expect("a client");
    for _ in 0..50 {
        last.say().await;
    }
    last.socket.close(None).await.expect("it is connected");
    while last.heard < last.said {
        last.hear().await;
    }
    clients[0].see(&[1001, 1002, 1003, 2003]).await;
    drop(clients.pop());
    clients[0].see(&[1001, 1002, 1003, 2003, 2002]).await;
    let last = clients.pop().expect("a client");
    let [first, _, _] = nodes;
    let (closed, ()) = tokio::join!(last.closed(), first.stop());
    assert_eq!(closed.0, 1001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_for_an_owner_and_not_for_ever() {
    let cluster = Cluster::new();
    let [gateway, owner]: [Node; 2] = nodes(&cluster).await;
    // Before there is one.
    let mut client = gateway.join("lobby").await;
    client.say().await;
    cluster.set_owner("lobby", Some(1));
    client.hear_all().await;
    // And while there is none for a moment.
    cluster.set_owner("lobby", None);
    eventually("the end of the room", owner.control.abandon(|_| true)).await;
    for _ in 0..100 {
        client.say().await;
    }
    eventually("a client that waits", async {
        while gateway.metric("stateroom_gateway_clients_waiting").await == 0 {}
    })
    .await;
    cluster.take_over("lobby", &owner).await;
    client.hear_all().await;
    assert_eq!(client.seen, [1001]);
    let resumed = gateway.metric("stateroom_gateway_sessions_resumed_total");
    assert_eq!(resumed.await, 1);
    assert_eq!(gateway.metric("stateroom_gateway_clients_waiting").await, 0);
    assert_eq!(gateway.metric("stateroom_gateway_clients").await, 1);
    assert_eq!(owner.metric("stateroom_sessions").await, 1);
    assert_eq!(owner.metric("stateroom_gateway_clients").await, 0);

    let impatient = Node::start(&cluster, 2, |config| {
        config.owner_timeout = Duration::from_millis(50);
    })
    .await;
    let mut client = impatient.join("lobby").await;
    client.see(&[1002]).await;
    let (code, reason) = impatient.join("nowhere").await.closed().await;
    assert_eq!(code, 1013, "{reason}");
    let gone = impatient.join("lobby").await;
    owner.die();
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1013, "{reason}");
    // Nobody is left whose node is to be told that a client has left.
    drop(gone);
    eventually("the end of what is done for them", async {
        while impatient.metric("stateroom_gateway_clients").await > 0 {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_messages_need_no_acknowledgement_to_pass() {
    let cluster = Cluster::new();
    let [gateway, owner]: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    // The default limit of a guest's memory for a message is less.
    for length in [1, 60_000, 1, 30_000, 60_000, 60_000, 60_000, 60_000, 1] {
        for _ in 0..3 {
            let text = "x".repeat(length);
            let message = Message::text(text.clone());
            client.socket.send(message).await.expect("it is connected");
            let echo = eventually("an echo", client.socket.next()).await;
            let echo = echo.expect("it is connected").expect("no error");
            assert_eq!(echo, Message::text(text));
        }
    }
    drop(owner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_no_node_is_not_served() {
    let cluster = Cluster::new();
    let node = Node::start(&cluster, 0, |config| {
        config.handshake_timeout = Duration::from_secs(2);
    })
    .await;
    cluster.set_owner("lobby", Some(0));
    let mut watcher = node.join("lobby").await;
    watcher.see(&[1001]).await;
    let introduce = |secret: &str, version: u32| {
        format!(
            r#"{{"version":{version},"secret":"{secret}","room":"lobby","token":null,"address":"1.2.3.4","session":"0123","sequence":1}}"#
        )
        .into_bytes()
    };
    let framed = |json: &[u8]| [&(json.len() as u32).to_be_bytes()[..], json].concat();
    let hello = b"\x81\x01h";
    for bytes in [
        framed(&introduce("wrong", 2)),
        framed(&introduce("", 2)),
        framed(&introduce(SECRET, 1)),
        framed(b"{}"),
        framed(b""),
        [0xff; 4].into(),
        b"GET / HTTP/1.1\r\n\r\n".into(),
        introduce(SECRET, 2),
        // It stops in the middle.
        framed(&introduce(SECRET, 2))[..20].into(),
        Vec::new(),
    ] {
        let mut stream = node.connect_peer().await;
        // It may be closed before.
        let _ = stream.write_all(&[&bytes[..], hello].concat()).await;
        let mut received = Vec::new();
        let _ = eventually("the end", stream.read_to_end(&mut received)).await;
        assert_eq!(received, b"", "{bytes:?}");
    }
    // Nobody has joined.
    let mut stream = node.connect_peer().await;
    let bytes = [&framed(&introduce(SECRET, 2))[..], hello].concat();
    stream.write_all(&bytes).await.expect("it is taken");
    watcher.see(&[1001, 1002]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_delays_nobody() {
    let cluster = Cluster::new();
    let change = |config: &mut ServerConfig| {
        config.max_queued_bytes = 256 << 10;
        config.max_resume_bytes = 256 << 10;
    };
    let gateway = Node::start(&cluster, 0, change).await;
    let owner = Node::start(&cluster, 1, change).await;
    cluster.set_owner("lobby", Some(1));
    let mut watcher = owner.join("lobby").await;
    watcher.see(&[1001]).await;
    let mut slow = gateway.join("lobby").await;
    watcher.see(&[1001, 1002]).await;
    // Each is sent back, and it reads none of them.
    let text = Message::text("x".repeat(30_000));
    let saying = async {
        while slow.socket.send(text.clone()).await.is_ok() {}
        // It was disconnected.
        core::future::pending::<()>().await;
    };
    let watching = async {
        // It still gets its own.
        for _ in 0..20 {
            watcher.say().await;
            watcher.hear_all().await;
        }
        watcher.see(&[1001, 1002, 2002]).await;
    };
    tokio::select! {
        () = watching => {}
        () = saying => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_again_replaces_its_connection_at_another_node() {
    let cluster = Cluster::new();
    let nodes: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut first = nodes[0].join("lobby?token=ann").await;
    first.see(&[1001]).await;
    let mut second = nodes[1].join("lobby?token=ann").await;
    let (code, reason) = first.closed().await;
    assert_eq!((code, &*reason), (1008, "replaced by a newer connection"));
    second.see(&[1001]).await;
}

/// A node that was stopped goes on with what it had begun; its clients are at other nodes by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_begun_earlier_at_another_node_replaces_nobody() {
    let cluster = Cluster::new();
    let node = Node::start(&cluster, 0, |_| {}).await;
    cluster.set_owner("lobby", Some(0));
    let mut client = node.join("lobby?token=ann").await;
    client.see(&[1001]).await;
    let introduce = |session: &str, sequence: u64| {
        let json = format!(
            r#"{{"version":2,"secret":"{SECRET}","room":"lobby","token":"ann","address":null,"session":"{session}","sequence":{sequence}}}"#
        );
        [
            &(json.len() as u32).to_be_bytes()[..],
            json.as_bytes(),
            b"\x81\x01h",
        ]
        .concat()
    };
    let mut stale = node.connect_peer().await;
    stale
        .write_all(&introduce("01", 1))
        .await
        .expect("it is taken");
    let mut received = Vec::new();
    eventually("the end", stale.read_to_end(&mut received))
        .await
        .expect("it is closed");
    let reason = b"replaced by a newer connection";
    let is_refused = received
        .windows(reason.len())
        .any(|window| window == reason);
    assert!(is_refused, "{received:?}");
    // The client is still there, and a later connection replaces it.
    client.say().await;
    client.hear().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_micros() as u64;
    let mut later = node.connect_peer().await;
    later
        .write_all(&introduce("02", now))
        .await
        .expect("it is taken");
    let (code, reason) = client.closed().await;
    assert_eq!((code, &*reason), (1008, "replaced by a newer connection"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_owner_is_backpressure_and_disconnects_nobody() {
    let cluster = Cluster::new();
    let [gateway, _owner]: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    cluster.journal.pause();
    let (mut sink, mut stream) = client.socket.split();
    const MESSAGES: usize = 20_000;
    let text = "x".repeat(500);
    let said = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let message = Message::text(format!("{number} {text}"));
            sink.send(message).await.expect("it is connected");
        }
        sink
    });
    // What nobody takes fills the queues on the way.
    let mut queued = 0;
    eventually("backpressure", async {
        loop {
            sleep(Duration::from_millis(50)).await;
            let now = gateway.metric("stateroom_send_queue_bytes").await;
            if now > 0 && now == queued {
                break;
            }
            queued = now;
        }
    })
    .await;
    assert!(queued < 2 << 20, "{queued} bytes are kept");
    assert!(!said.is_finished());
    cluster.journal.resume();
    for number in 0..MESSAGES {
        let echo = eventually("an echo", stream.next()).await;
        let echo = echo.expect("it is connected").expect("no error");
        let echo = echo.to_text().expect("text");
        assert_eq!(echo.split(' ').next(), Some(&*number.to_string()));
    }
    let _sink = said.await.expect("all was said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_cut_off_is_connected_to_again() {
    let cluster = Cluster::new();
    let gateway = Node::start(&cluster, 0, |config| {
        // Nothing else is to notice it.
        config.heartbeat_timeout = Duration::from_secs(3600);
    })
    .await;
    let owner = Node::start(&cluster, 1, |_| {}).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    owner.lose_connections();
    client.say().await;
    // Whether the gateway looks while it is not known is not told.
    let again = async {
        loop {
            cluster.suspect("lobby");
            sleep(Duration::from_millis(10)).await;
            cluster.trust("lobby", 1);
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = client.hear_all() => {}
        () = again => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_owner_does_not_acknowledge_disconnects_no_client_of_another() {
    const SLOW: usize = 12;
    let cluster = Cluster::new();
    let gateway = Node::start(&cluster, 0, |config| {
        config.workers = 1;
        config.max_total_queued_bytes = 2 << 20;
        config.limits.max_message_bytes = 64 << 10;
    })
    .await;
    let owner = Node::start(&cluster, 1, |_| {}).await;
    let _other = Node::start(&cluster, 2, |_| {}).await;
    cluster.set_owner("slow", Some(1));
    cluster.set_owner("lobby", Some(2));
    let mut slow = Vec::new();
    for id in 1..=SLOW {
        let mut client = gateway.join("slow").await;
        client.see(&[1000 + id as i32]).await;
        slow.push(client);
    }
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    owner.lose_connections();
    // Less than what an owner acknowledges at once.
    let message = Message::binary(vec![0; 60_000]);
    for client in &mut slow {
        for _ in 0..4 {
            let sent = client.socket.send(message.clone()).await;
            sent.expect("it is connected");
        }
    }
    // What is kept of them is bounded all the same: some are closed, and no others.
    let clients = SLOW as u64 + 1;
    let talking = async {
        loop {
            client.say().await;
            client.hear_all().await;
            if gateway.metric("stateroom_gateway_clients").await < clients {
                break;
            }
        }
        for _ in 0..100 {
            client.say().await;
            client.hear_all().await;
        }
    };
    eventually("the end of some", talking).await;
    let kept = gateway.metric("stateroom_send_queue_bytes").await;
    assert!(kept < 3 << 20, "{kept} bytes are kept");
    let closed = slow.into_iter().map(|client| Box::pin(client.closed()));
    let ((code, reason), ..) = select_all(closed).await;
    assert_eq!(
        (code, &*reason),
        (1013, "the node of the room takes too long")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_has_said_is_not_kept_after_it_was_handled() {
    let cluster = Cluster::new();
    let gateway = Node::start(&cluster, 0, |config| config.workers = 1).await;
    let _owner = Node::start(&cluster, 1, |_| {}).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    // Too few for an acknowledgement by their number.
    for _ in 0..3 {
        client.say().await;
        client.hear_all().await;
    }
    let forgotten = async {
        while gateway.metric("stateroom_send_queue_bytes").await > 0 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    eventually("the acknowledgement", forgotten).await;
}

/// A connection to a node, as one that another node opens for a client.
struct Link(TcpStream);

impl Link {
    /// Opens it for a client with this token, whose handshake and attempt have these numbers; a gateway has chosen
    /// the secret of its session.
    async fn open(node: &Node, session: Option<&str>, (sequence, attempt): (u64, u64)) -> Self {
        let session = session.map_or("null".into(), |session| format!("\"{session}\""));
        let json = format!(
            r#"{{"version":2,"secret":"{SECRET}","room":"lobby","token":"ann","address":null,"session":{session},"sequence":{sequence},"attempt":{attempt}}}"#
        );
        let mut stream = node.connect_peer().await;
        let introduction = [&(json.len() as u32).to_be_bytes()[..], json.as_bytes()].concat();
        let written = stream.write_all(&introduction).await;
        written.expect("it is taken");
        Self(stream)
    }

    async fn say(&mut self, text: &str) {
        // Masked with zeros, as it must be if it is the client's own.
        let frame = [
            &[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0],
            text.as_bytes(),
        ]
        .concat();
        self.0.write_all(&frame).await.expect("it is taken");
    }

    /// The next text, or the code of a close frame; 1006 if there is none.
    async fn hear(&mut self) -> Result<String, u16> {
        loop {
            let mut header = [0; 2];
            let read = eventually("a frame", self.0.read_exact(&mut header)).await;
            if read.is_err() {
                return Err(1006);
            }
            let mut payload = vec![0; header[1].into()];
            let read = eventually("a frame", self.0.read_exact(&mut payload)).await;
            read.expect("it is connected");
            match header[0] {
                0x81 => return Ok(String::from_utf8(payload).expect("text")),
                0x88 => return Err(u16::from_be_bytes([payload[0], payload[1]])),
                _ => {}
            }
        }
    }
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_micros() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_over_the_newest_of_its_connections() {
    let cluster = Cluster::new();
    let node = Node::start(&cluster, 0, |_| {}).await;
    cluster.set_owner("lobby", Some(0));
    let now = now();
    // A gateway has given up its first connection, which comes late, twice.
    let mut newest = Link::open(&node, Some("0a"), (now, 2)).await;
    newest.say("h").await;
    assert_eq!(newest.hear().await, Ok("n0a".into()));
    for hello in ["h", "h0 0a"] {
        let mut late = Link::open(&node, Some("0a"), (now, 1)).await;
        late.say(hello).await;
        assert_eq!(late.hear().await, Err(1012));
    }
    // As may that of a client with a session of its own, and is no reason not to come back.
    let mut late = Link::open(&node, None, (now - 1_000_000, 0)).await;
    late.say("h0 0a").await;
    assert_eq!(late.hear().await, Err(1012));
    newest.say("mone").await;
    assert_eq!(newest.hear().await, Ok("mone".into()));
    let mut next = Link::open(&node, Some("0a"), (now, 3)).await;
    next.say("h1 0a").await;
    assert_eq!(next.hear().await, Ok("r1".into()));
    assert_eq!(newest.hear().await, Err(1008));
}

/// The node of the room has died meanwhile, and the newer one has not come to the next one yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_begun_earlier_replaces_no_session_that_is_away() {
    let cluster = Cluster::new();
    let nodes: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(0));
    let now = now();
    let mut client = Link::open(&nodes[0], Some("0a"), (now, 1)).await;
    client.say("h").await;
    assert_eq!(client.hear().await, Ok("n0a".into()));
    // With what is in the log, and with what is in a snapshot.
    for round in 0..4 {
        let [from, to] = [round % 2, (round + 1) % 2];
        match round {
            0 | 3 => cluster.take_over("lobby", &nodes[to]).await,
            _ => cluster.hand_over("lobby", &nodes[from], &nodes[to]).await,
        }
        let mut earlier = Link::open(&nodes[to], Some("0b"), (now - 60_000_000, 1)).await;
        earlier.say("h").await;
        // It may come back: nobody else is there.
        assert_eq!(earlier.hear().await, Err(1012));
    }
    let mut client = Link::open(&nodes[0], Some("0a"), (now, 2)).await;
    client.say("h0 0a").await;
    assert_eq!(client.hear().await, Ok("r0".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_a_session_and_was_asleep_may_come_back() {
    let cluster = Cluster::new();
    let node = Node::start(&cluster, 0, |config| {
        config.heartbeat_interval = Duration::from_millis(100);
        config.heartbeat_timeout = Duration::from_secs(1);
    })
    .await;
    cluster.set_owner("lobby", Some(0));
    // A gateway finds out by itself whether the node is there.
    for (session, code) in [(None, 1013), (Some("0a"), 1006)] {
        let mut asleep = Link::open(&node, session, (now(), 1)).await;
        asleep.say("h").await;
        let hello = asleep.hear().await.expect("a session");
        let secret = hello.strip_prefix('n').expect("it begins");
        // It replies to no ping.
        let closed = loop {
            if let Err(code) = asleep.hear().await {
                break code;
            }
        };
        assert_eq!(closed, code);
        let mut awake = Link::open(&node, session, (now(), 2)).await;
        awake.say(&format!("h0 {secret}")).await;
        assert_eq!(awake.hear().await, Ok("r0".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_waits_for_an_owner_as_others_do() {
    let cluster = Cluster::new();
    let [gateway, owner, next]: [Node; 3] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    owner.die();
    owner.has_ended().await;
    // The directory does not know that yet.
    let mut client = Connection::open_at(&gateway.address.to_string(), "lobby").await;
    client.send_text("h").await;
    sleep(Duration::from_millis(50)).await;
    cluster.take_over("lobby", &next).await;
    let reply = client.receive().await;
    let has_begun = matches!(&reply, Some(SessionMessage::Text(text)) if text.starts_with('n'));
    assert!(has_begun, "{reply:?}");

    let impatient = Node::start(&cluster, 3, |config| {
        config.owner_timeout = Duration::from_millis(50);
    })
    .await;
    cluster.set_owner("elsewhere", Some(1));
    for room in ["elsewhere", "nowhere"] {
        let mut client = Connection::open_at(&impatient.address.to_string(), room).await;
        client.send_text("h").await;
        assert_eq!(client.closed().await, 1013);
    }
}
