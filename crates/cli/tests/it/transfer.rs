//! Rooms that are saved, loaded and moved while servers run.

use super::{Client, Response, Server, TempDir, eventually, request_of, tool};
use crate::support::{ENV, SAY, guest_0_2};
use futures_util::{SinkExt, StreamExt};
use stateroom_wasmi_resume::{ClientSession, Incoming, Message as Sent, SUBPROTOCOL};
use stateroom_wasmi_server::journal::{RoomFile, RoomSnapshot};
use std::{
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

/// A guest that counts what each of its clients says, and replies with that number.
fn counter() -> String {
    let count = "(local $n i32)
        (local.set $n (i32.add (i32.const 8192) (i32.mul (local.get 0) (i32.const 4))))
        (i32.store (local.get $n) (i32.add (i32.load (local.get $n)) (i32.const 1)))
        (call $send_binary (local.get 0) (local.get $n) (i32.const 4))";
    guest_0_2(ENV, &[("message", count)], SAY)
}

/// A room that is at one of two servers.
struct Servers {
    folder: TempDir,
    servers: [Server; 2],
}

impl Servers {
    /// With rooms that survive, or in memory.
    fn start(has_data: bool) -> Self {
        let folder = TempDir::new();
        let module = folder.write("guest.wat", counter());
        let servers = ["a", "b"].map(|name| {
            let rooms = folder.0.join(name);
            let data = ["--data", rooms.to_str().expect("UTF-8")];
            let mut args = vec!["--admin-listen", "127.0.0.1:0"];
            if has_data {
                args.extend(data);
            }
            Server::start(&module, &args)
        });
        Self { folder, servers }
    }

    /// From one of them to the other, of which its clients are told.
    fn move_room(&self, from: usize) -> Output {
        let [from, to] = [&self.servers[from], &self.servers[1 - from]];
        let tell = format!("ws://{}/ws/lobby", to.address);
        tool(&[
            "move",
            &from.operators(),
            &to.operators(),
            "lobby",
            "--tell",
            &tell,
        ])
    }
}

impl Server {
    fn operators(&self) -> String {
        format!("http://{}", self.admin)
    }

    async fn operate(&self, method: &str, path: &str) -> Response {
        self.ask(&self.admin, method, path, "").await
    }

    async fn put(&self, path: &str, body: &[u8]) -> Response {
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.admin,
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        Response::parse(&request_of(&self.admin, &request).await)
    }
}

#[track_caller]
fn succeeds(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

#[track_caller]
fn fails(output: &Output, reason: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains(reason), "{stderr}");
}

impl Response {
    fn header(&self, name: &str) -> &str {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers
            .find(|(found, _)| *found == name)
            .map_or("", |(_, value)| value)
    }
}

async fn number_of(client: &mut Client) -> u32 {
    loop {
        let message = eventually("a number", client.0.next()).await;
        if let Message::Binary(bytes) = message.expect("it is open").expect("a message") {
            return u32::from_le_bytes(bytes[..].try_into().expect("four bytes"));
        }
    }
}

async fn count_of(client: &mut Client) -> u32 {
    client.send("count").await;
    number_of(client).await
}

#[tokio::test]
async fn a_moved_room_goes_on_with_its_clients() {
    for has_data in [true, false] {
        let both = Servers::start(has_data);
        let servers = &both.servers;
        let mut ann = servers[0].join("/lobby?token=ann").await;
        let mut bob = servers[0].join("/lobby?token=bob").await;
        assert_eq!((count_of(&mut ann).await, count_of(&mut bob).await), (1, 1));
        assert_eq!(count_of(&mut ann).await, 2);
        let [from, to] = [0, 1].map(|at: usize| &servers[at]);
        let url = format!("ws://{}/ws/lobby", to.address);
        succeeds(&both.move_room(0));
        for mut client in [ann, bob] {
            assert_eq!(client.closed().await, (1012, format!("moved to {url}")));
        }
        // By their tokens they are who they were.
        let mut bob = to.join("/lobby?token=bob").await;
        let mut ann = to.join("/lobby?token=ann").await;
        assert_eq!((count_of(&mut ann).await, count_of(&mut bob).await), (3, 2));
        // Nobody is given a new room of its id.
        let (code, reason) = from.join("/lobby?token=ann").await.closed().await;
        assert_eq!((code, reason), (1012, format!("moved to {url}")));
        // And back again, without saying where.
        succeeds(&tool(&[
            "move",
            &to.operators(),
            &from.operators(),
            "lobby",
        ]));
        let (code, reason) = ann.closed().await;
        assert_eq!(
            (code, &*reason),
            (1012, "the room has moved to another server")
        );
        let mut ann = from.join("/lobby?token=ann").await;
        assert_eq!(count_of(&mut ann).await, 4);
    }
}

#[tokio::test]
async fn a_moved_room_survives_the_crash_of_its_new_server() {
    let Servers { folder, servers } = Servers::start(true);
    let mut ann = servers[0].join("/lobby?token=ann").await;
    assert_eq!(count_of(&mut ann).await, 1);
    let [from, to] = [&servers[0], &servers[1]];
    succeeds(&tool(&[
        "move",
        &from.operators(),
        &to.operators(),
        "lobby",
    ]));
    drop(servers);
    for (name, expected) in [("a", 1), ("b", 2)] {
        let rooms = folder.0.join(name);
        let args = ["--data", rooms.to_str().expect("UTF-8")];
        let server = Server::start(&folder.0.join("guest.wat"), &args);
        let mut ann = server.join("/lobby?token=ann").await;
        assert_eq!(count_of(&mut ann).await, expected, "{name}");
    }
}

/// A client of `stateroom.resume.1`, whose messages the room counts.
struct Counting {
    session: ClientSession,
    sent: u32,
    seen: u32,
}

impl Counting {
    fn new() -> Self {
        let session = ClientSession::new(1000, 1 << 20);
        Self {
            session,
            sent: 0,
            seen: 0,
        }
    }

    /// Keeps some messages on their way until `end` says so, or the room has moved; returns where it is then.
    /// Each must be counted once.
    async fn talk(&mut self, url: &str, mut is_over: impl FnMut(u32) -> bool) -> Option<String> {
        let mut request = url.into_client_request().expect("a URL");
        let name = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert("sec-websocket-protocol", name);
        let connected = eventually("the handshake", connect_async(request)).await;
        let (mut socket, _) = connected.expect("the handshake succeeds");
        let hello = self.session.hello();
        socket.send(Message::text(hello)).await.expect("it is open");
        let mut location = None;
        while let Some(Ok(message)) = eventually("a message", socket.next()).await {
            let frame = match message {
                Message::Text(text) => Sent::Text(text.as_str().into()),
                Message::Binary(bytes) => Sent::Binary(bytes.into()),
                Message::Close(close) => {
                    let reason = close.expect("a reason").reason;
                    let moved = reason.strip_prefix("moved to ");
                    location = moved.map(Into::into);
                    // The room may not have arrived yet.
                    break;
                }
                _ => continue,
            };
            match self
                .session
                .receive(&frame)
                .expect("a frame of the protocol")
            {
                Incoming::New { was_lost } => assert!(!was_lost && self.sent == 0),
                Incoming::Resumed => {
                    for frame in self.session.unacknowledged().collect::<Vec<_>>() {
                        let _ = socket.send(frame_of(frame)).await;
                    }
                }
                Incoming::Message(Sent::Binary(bytes)) => {
                    self.seen += 1;
                    let counted = u32::from_le_bytes(bytes[..].try_into().expect("four bytes"));
                    assert_eq!(counted, self.seen);
                }
                other => assert_eq!(other, Incoming::Nothing),
            }
            if let Some(ack) = self.session.ack(false) {
                let _ = socket.send(Message::text(ack)).await;
            }
            while !is_over(self.seen) && self.sent < self.seen + 8 {
                self.sent += 1;
                let frame = self.session.send(Sent::Text("count".into()));
                let _ = socket.send(frame_of(frame.expect("space"))).await;
            }
            if is_over(self.seen) && self.seen == self.sent {
                break;
            }
        }
        location
    }
}

fn frame_of(frame: Sent) -> Message {
    match frame {
        Sent::Text(text) => Message::text(text),
        Sent::Binary(bytes) => Message::binary(bytes),
    }
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_for_clients_that_come_back() {
    const MOVES: usize = 6;
    let both = Arc::new(Servers::start(true));
    let mut url = format!("ws://{}/ws/lobby", both.servers[0].address);
    let (moved, moves) = (Arc::new(AtomicUsize::new(0)), both.clone());
    let mut counting = Counting::new();
    // The room is there before it moves.
    counting.talk(&url, |seen| seen > 0).await;
    let count = moved.clone();
    let moving = tokio::task::spawn_blocking(move || {
        for number in 0..MOVES {
            succeeds(&moves.move_room(number % 2));
            count.store(number + 1, Ordering::Relaxed);
        }
    });
    let mut last = None;
    loop {
        let has_moved = || moved.load(Ordering::Relaxed) == MOVES;
        let is_over = |seen| has_moved() && seen >= *last.get_or_insert(seen + 20);
        match counting.talk(&url, is_over).await {
            Some(location) => url = location,
            None if has_moved() && counting.seen == counting.sent => break,
            None => {}
        }
    }
    moving.await.expect("all moves succeed");
    assert!(counting.seen > 20);
    // Others see the same.
    let mut other = Client(connect_async(&url).await.expect("it is there").0);
    assert_eq!(count_of(&mut other).await, 1);
}

#[tokio::test]
async fn what_cannot_be_moved_goes_on_where_it_is() {
    let Servers { servers, .. } = &Servers::start(true);
    let [from, to] = [&servers[0], &servers[1]];
    let mut client = from.join("/lobby").await;
    assert_eq!(count_of(&mut client).await, 1);
    let moved = |room: &str| tool(&["move", &from.operators(), &to.operators(), room]);
    fails(&moved("hall"), "there is no such room");
    // The other has a room of this id.
    let mut other = to.join("/lobby").await;
    assert_eq!(count_of(&mut other).await, 1);
    fails(&moved("lobby"), "there is a room of this id");
    assert_eq!(count_of(&mut client).await, 2);
    assert_eq!(count_of(&mut other).await, 2);
    // The other has another module.
    let args = ["--admin-listen", "127.0.0.1:0"];
    let third = Server::bundled("counter-c", &args);
    let moved = tool(&["move", &from.operators(), &third.operators(), "lobby"]);
    fails(&moved, "another module");
    assert_eq!(count_of(&mut client).await, 3);
    // The other is not there.
    let moved = tool(&["move", &from.operators(), "http://127.0.0.1:1", "lobby"]);
    fails(&moved, "127.0.0.1:1");
    assert_eq!(count_of(&mut client).await, 4);
}

#[tokio::test]
async fn a_hold_ends_by_itself() {
    let Servers { servers, .. } = &Servers::start(true);
    let [from, to] = [&servers[0], &servers[1]];
    let mut client = from.join("/lobby").await;
    assert_eq!(count_of(&mut client).await, 1);
    let held = from.operate("POST", "/rooms/lobby/hold?seconds=300").await;
    assert_eq!(held.status, 200);
    // What is sent meanwhile waits.
    client.send("count").await;
    assert_eq!(from.operate("POST", "/rooms/lobby/hold").await.status, 409);
    let number = held.header("stateroom-hold");
    for path in ["/rooms/lobby/resume", "/rooms/lobby/moved"] {
        assert_eq!(from.operate("POST", path).await.status, 400);
        let path = format!("{path}?hold=77");
        assert_eq!(from.operate("POST", &path).await.status, 409);
    }
    let resume = format!("/rooms/lobby/resume?hold={number}");
    assert_eq!(from.operate("POST", &resume).await.status, 200);
    assert_eq!(number_of(&mut client).await, 2);
    assert_eq!(from.operate("POST", &resume).await.status, 409);
    // By itself, at once.
    assert_eq!(
        from.operate("POST", "/rooms/lobby/hold?seconds=0")
            .await
            .status,
        200
    );
    assert_eq!(count_of(&mut client).await, 3);
    // A room that was not given up does not arrive.
    let file = TempDir::new();
    let path = file.0.join("lobby.room");
    let path = path.to_str().expect("UTF-8");
    succeeds(&tool(&["save", &from.operators(), "lobby", path]));
    let room = std::fs::read(path).expect("it was written");
    assert_eq!(to.put("/rooms/lobby?seconds=0", &room).await.status, 201);
    let mut other = loop {
        let mut other = to.join("/lobby").await;
        other.send("count").await;
        // Until the hold has ended, the room is not there, and cannot be made anew.
        match eventually("a reply", other.0.next()).await {
            Some(Ok(Message::Binary(bytes))) if bytes[..] == [1, 0, 0, 0] => break other,
            Some(Ok(Message::Close(_))) => {}
            message => panic!("{message:?}"),
        }
    };
    assert_eq!(count_of(&mut other).await, 2);
}

#[tokio::test]
async fn a_room_that_has_not_arrived_is_not_kept() {
    let Servers { folder, servers } = Servers::start(true);
    let [from, mut to] = servers;
    let mut client = from.join("/lobby").await;
    assert_eq!(count_of(&mut client).await, 1);
    let path = folder.0.join("lobby.room");
    let path = path.to_str().expect("UTF-8");
    succeeds(&tool(&["save", &from.operators(), "lobby", path]));
    let room = std::fs::read(path).expect("it was written");
    assert_eq!(to.put("/rooms/lobby?seconds=300", &room).await.status, 201);
    // Its server still has it, and this one ends.
    to.signal("-TERM");
    assert!(to.exited().await.success());
    let list = tool(&["store", "list", folder.0.join("b").to_str().expect("UTF-8")]);
    assert_eq!(String::from_utf8_lossy(&list.stdout), "0 rooms\n");
    // One that is closed while it is held is gone, too.
    assert_eq!(
        from.operate("POST", "/rooms/lobby/hold?seconds=1")
            .await
            .status,
        200
    );
    assert_eq!(from.operate("POST", "/rooms/lobby/close").await.status, 200);
    assert_eq!(client.closed().await.0, 1001);
    let mut other = from.join("/lobby").await;
    assert_eq!(count_of(&mut other).await, 1);
}

#[tokio::test]
async fn a_room_that_has_left_is_remembered_until_it_is_back() {
    let both = Servers::start(true);
    let [from, to] = &both.servers;
    drop(from.join("/lobby").await);
    succeeds(&both.move_room(0));
    let path = both.folder.0.join("lobby.room");
    let path = path.to_str().expect("UTF-8");
    succeeds(&tool(&["save", &to.operators(), "lobby", path]));
    let room = std::fs::read(path).expect("it was written");
    // On its way back, and not given up.
    assert_eq!(from.put("/rooms/lobby?seconds=0", &room).await.status, 201);
    let moved = format!("moved to ws://{}/ws/lobby", to.address);
    assert_eq!(from.join("/lobby").await.closed().await, (1012, moved));
    succeeds(&both.move_room(1));
    let mut client = from.join("/lobby").await;
    assert_eq!(count_of(&mut client).await, 1);
}

#[tokio::test]
async fn a_file_opens_no_room_of_another_id() {
    let Servers { folder, servers } = &Servers::start(true);
    drop(servers[0].join("/b").await);
    let path = folder.0.join("saved");
    let path = path.to_str().expect("UTF-8");
    succeeds(&tool(&["save", &servers[0].operators(), "b", path]));
    let file = RoomFile {
        id: "a".into(),
        snapshot: RoomSnapshot {
            events: 0,
            room: std::fs::read(path).expect("it was written"),
            // A version, and no clients.
            clients: [&[1][..], &[0; 12]].concat(),
            wake_at: None,
        },
        tail: Vec::new(),
    };
    let response = servers[1].put("/rooms/a", &file.encode()).await;
    assert_eq!(
        (response.status, response.body.contains("of another room")),
        (422, true)
    );
}

#[tokio::test]
async fn rooms_in_memory_are_loaded_beside_those_that_are_stored() {
    let Servers { folder, servers } = &Servers::start(false);
    let mut client = servers[0].join("/tmp-a").await;
    assert_eq!(count_of(&mut client).await, 1);
    let saved = folder.0.join("saved");
    let saved = saved.to_str().expect("UTF-8");
    succeeds(&tool(&["save", &servers[0].operators(), "tmp-a", saved]));
    let data = folder.0.join("c");
    let data = data.to_str().expect("UTF-8");
    let flags = [
        "--data",
        data,
        "--durability-of",
        "tmp-=memory",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let server = Server::start(&folder.0.join("guest.wat"), &flags);
    succeeds(&tool(&["load", &server.operators(), saved]));
    let mut other = server.join("/tmp-a").await;
    assert_eq!(count_of(&mut other).await, 1);
    let list = tool(&["store", "list", data]);
    assert_eq!(String::from_utf8_lossy(&list.stdout), "0 rooms\n");
}

#[tokio::test]
async fn a_room_whose_module_is_unknown_does_not_move() {
    let Servers { folder, servers } = &Servers::start(false);
    let from = &servers[0];
    let mut client = from.join("/lobby").await;
    assert_eq!(count_of(&mut client).await, 1);
    let data = folder.0.join("c");
    let data = data.to_str().expect("UTF-8");
    for more in [&[][..], &["--data", data]] {
        let flags = [
            "--upgrade",
            "hook-or-restart",
            "--admin-listen",
            "127.0.0.1:0",
        ];
        let other = Server::bundled("counter-c", &[&flags, more].concat());
        for _ in 0..2 {
            let moved = tool(&["move", &from.operators(), &other.operators(), "lobby"]);
            fails(&moved, "module was not kept");
        }
    }
    assert_eq!(count_of(&mut client).await, 2);
}

#[tokio::test]
async fn a_saved_room_is_loaded() {
    let Servers { folder, servers } = &Servers::start(false);
    let [from, to] = [&servers[0], &servers[1]];
    let mut client = from.join("/a%2F%22b").await;
    assert_eq!(count_of(&mut client).await, 1);
    let file = folder.0.join("saved");
    let file = file.to_str().expect("UTF-8");
    succeeds(&tool(&["save", &from.operators(), "a/\"b", file]));
    assert_eq!(count_of(&mut client).await, 2);
    let room = std::fs::read(file).expect("it was written");
    assert_eq!(to.put("/rooms/other", &room).await.status, 422);
    for length in [0, 5, room.len() - 1] {
        let cut = &room[..length];
        assert_eq!(to.put("/rooms/a%2F%22b", cut).await.status, 422, "{length}");
    }
    succeeds(&tool(&["load", &to.operators(), file]));
    fails(
        &tool(&["load", &to.operators(), file]),
        "there is a room of this id",
    );
    // Its client did not come with it, and another has its id no more.
    let mut other = to.join("/a%2F%22b").await;
    assert_eq!(count_of(&mut other).await, 1);
    let junk = folder.write("junk", "SRRF\x02 and more");
    let junk = junk.to_str().expect("UTF-8");
    fails(&tool(&["load", &to.operators(), junk]), "snapshot");
    assert_eq!(to.operate("POST", "/rooms/x").await.status, 405);
    assert_eq!(to.operate("GET", "/rooms/x/hold").await.status, 405);
    let url = format!("/rooms/x/moved?hold=1&to={}", "x".repeat(200));
    assert_eq!(to.operate("POST", &url).await.status, 400);
}

#[tokio::test]
async fn only_operators_move_rooms() {
    let folder = TempDir::new();
    let token = folder.write("token", "secret");
    let token = token.to_str().expect("UTF-8");
    let args = ["--admin-listen", "127.0.0.1:0", "--admin-token-file", token];
    let server = Server::bundled("counter-c", &args);
    drop(server.join("/lobby").await);
    assert_eq!(
        server.operate("GET", "/rooms/lobby/replay").await.status,
        401
    );
    for path in ["hold", "resume?hold=1", "moved?hold=1"] {
        let response = server
            .operate("POST", &format!("/rooms/lobby/{path}"))
            .await;
        assert_eq!(response.status, 401, "{path}");
    }
    assert_eq!(server.put("/rooms/hall", b"x").await.status, 401);
    let file = folder.0.join("saved");
    let file = file.to_str().expect("UTF-8");
    let address = server.operators();
    fails(&tool(&["save", &address, "lobby", file]), "401");
    succeeds(&tool(&[
        "save",
        &address,
        "lobby",
        file,
        "--token-file",
        token,
    ]));
}

/// The events of a stream that ends, without their times.
fn events_of(response: &Response) -> Vec<serde_json::Value> {
    let lines = response
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let events = lines.map(|line| {
        let mut event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let at = event.as_object_mut().and_then(|event| event.remove("at"));
        assert!(
            at.and_then(|at| at.as_u64())
                .is_some_and(|at| at > 1_700_000_000_000)
        );
        event
    });
    events.collect()
}

#[tokio::test]
async fn a_stored_room_is_replayed_for_operators() {
    let Servers { servers, .. } = &Servers::start(true);
    let server = &servers[0];
    assert_eq!(
        server.operate("GET", "/rooms/lobby/replay").await.status,
        404
    );
    let mut client = server.join("/lobby").await;
    for n in 1..=2 {
        assert_eq!(count_of(&mut client).await, n);
    }
    let response = server.operate("GET", "/rooms/lobby/replay").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), "text/event-stream");
    let message = serde_json::json!({"event": "message", "client": 1, "text": "count", "bytes": 5});
    let reply = |n: u32| {
        let hex = format!("0{n}000000");
        serde_json::json!({"event": "to", "client": 1, "hex": hex, "bytes": 4})
    };
    let expected = [
        serde_json::json!({"event": "start"}),
        serde_json::json!({"event": "connect", "client": 1}),
        message.clone(),
        reply(1),
        message,
        reply(2),
    ];
    assert_eq!(events_of(&response), expected);
    // It was looked at, and no more.
    assert_eq!(count_of(&mut client).await, 3);
    assert_eq!(
        server.operate("POST", "/rooms/lobby/replay").await.status,
        405
    );
    // Those in memory have no past.
    let memory = Server::bundled("counter-c", &["--admin-listen", "127.0.0.1:0"]);
    drop(memory.join("/lobby").await);
    assert_eq!(
        memory.operate("GET", "/rooms/lobby/replay").await.status,
        409
    );
}
