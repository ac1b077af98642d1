//! `attach`: rooms that operators save, load and move between boards.

use super::{
    Client, Server, eventually,
    raw_board::{HEAD_BYTES, RawBoard, TEXT},
    request_of,
};
use crate::support::{assemble, limits, speaker};
use serde_json::Value;
use stateroom_wasmi_host::{
    Budget, Host, Limits, LoadOptions, Module, Room, SnapshotInfo, SnapshotOptions, SystemClock,
};
use stateroom_wasmi_link::{Link, LinkOptions, LinkTransport, Wire, buffer_bytes};
use stateroom_wasmi_server::journal::RoomFile;
use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const BUFFER: usize = buffer_bytes(1024);
const HEAP_BYTES: usize = 200 << 10;

/// Sends back how many messages have come, as a text of one letter; each stays in memory.
fn counting_text() -> String {
    let count = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (memory.copy (i32.mul (global.get $count) (i32.const 1024)) (local.get 1) (local.get 2))
        (i32.store8 (i32.const 64) (i32.add (i32.const 64) (global.get $count)))
        (call $send_message (local.get 0) (i32.const 64) (i32.const 1))";
    speaker(
        &[("message", count)],
        "(global $count (mut i32) (i32.const 0))",
    )
}

fn counting() -> Module {
    let text = counting_text();
    let limits = limits(|limits| {
        *limits = Limits::small();
        limits.max_message_bytes = 1000;
    });
    let options = LoadOptions::new().snapshots(true);
    Module::load_with(&assemble(&text), &limits, options).expect("it loads")
}

/// A stream that may be cut, on either end's account.
struct Line {
    stream: Option<TcpStream>,
    switches: Arc<Switches>,
}

/// How a test controls its board.
struct Switches {
    /// Bytes in either direction after which the stream is cut, once.
    bytes_until_cut: AtomicUsize,
    quit: AtomicBool,
}

const NEVER: usize = usize::MAX;

impl Line {
    fn act(&mut self, act: impl FnOnce(&mut TcpStream) -> io::Result<usize>) -> usize {
        let Some(stream) = &mut self.stream else {
            return 0;
        };
        let left = self.switches.bytes_until_cut.load(Ordering::Relaxed);
        match act(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Ok(bytes) if bytes > 0 => {
                if left != NEVER {
                    let left = left.saturating_sub(bytes);
                    self.switches
                        .bytes_until_cut
                        .store(if left == 0 { NEVER } else { left }, Ordering::Relaxed);
                    if left == 0 {
                        self.stream = None;
                    }
                }
                bytes
            }
            _ => {
                self.stream = None;
                0
            }
        }
    }
}

impl Wire for Line {
    type Error = io::Error;

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(self.act(|stream| stream.read(bytes)))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.act(|stream| stream.write(bytes)))
    }
}

/// A board that keeps its rooms when the line is cut, until this is dropped.
struct Board {
    address: String,
    switches: Arc<Switches>,
}

impl Drop for Board {
    fn drop(&mut self) {
        self.switches.quit.store(true, Ordering::Relaxed);
    }
}

impl Board {
    fn new(rooms: &'static [&'static str], heap_bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens").to_string();
        listener.set_nonblocking(true).expect("it can be");
        let switches = Arc::new(Switches {
            bytes_until_cut: AtomicUsize::new(NEVER),
            quit: AtomicBool::new(false),
        });
        let shared = switches.clone();
        thread::spawn(move || run_firmware(&listener, shared, rooms, heap_bytes));
        Self { address, switches }
    }

    fn cut_after(&self, bytes: usize) {
        self.switches
            .bytes_until_cut
            .store(bytes, Ordering::Relaxed);
    }

    async fn until_cut(&self) {
        eventually("the line is cut", async {
            while self.switches.bytes_until_cut.load(Ordering::Relaxed) != NEVER {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

fn run_firmware(listener: &TcpListener, switches: Arc<Switches>, rooms: &[&str], heap: usize) {
    let module = counting();
    let mut host = Host::new(SystemClock::new(), LinkTransport::<BUFFER>::new());
    let options = LinkOptions::new().transfer_heap_bytes(heap);
    let line = Line {
        stream: None,
        switches: switches.clone(),
    };
    let mut link = Link::<_, BUFFER>::with_options(line, options);
    for id in rooms {
        let room = host.open(id, &module).expect("the room opens");
        link.add_room(&mut host, room).expect("there is space");
    }
    while !switches.quit.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("it can be");
            stream.set_nodelay(true).expect("it can be");
            link.wire_mut().stream = Some(stream);
        }
        link.poll(&mut host, Budget::fuel(100_000))
            .expect("the wire never fails");
        while link.poll_closed(&mut host).is_some() {}
        drop(link.poll_moved());
        // Those of a server are others.
        let options = SnapshotOptions::new().other_limits(true);
        if let Some(info) = link.received_room() {
            match Some(info.module) == module.hash() {
                true => drop(link.load(&mut host, &module, options)),
                false => link.refuse_load("its module is not part of this firmware"),
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A server that is attached to a board, and knows that it saves and loads rooms.
async fn attach(board: &Board, room: Option<&str>) -> Server {
    let server = Server::attach(&board.address, &["--admin-listen", "127.0.0.1:0"]);
    match room {
        Some(room) => {
            until_room(&server, room, "the room is known", |room| room.is_some()).await;
        }
        None => until_connected(&server).await,
    }
    server
}

/// The room of this id, as it is listed for operators.
async fn listed(server: &Server, id: &str) -> Option<Value> {
    let list = assert_ok(admin(server, "GET", "/rooms", b"").await);
    let list: Value = serde_json::from_slice(&list).expect("JSON");
    let rooms = list["rooms"].as_array().expect("a list");
    rooms.iter().find(|room| room["id"] == id).cloned()
}

/// Waits until a room is listed as it should be.
async fn until_room(
    server: &Server,
    id: &str,
    what: &str,
    is_as_expected: impl Fn(Option<&Value>) -> bool,
) {
    eventually(what, async {
        while !is_as_expected(listed(server, id).await.as_ref()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Until the board is there: a snapshot of a room that it does not load.
async fn until_connected(server: &Server) {
    // Of a room that there is not.
    admin_connected(server, "GET", "/rooms/no%20such/snapshot", b"").await;
}

/// Status and body.
async fn admin(server: &Server, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let (status, _, body) = ask(server, method, path, body).await;
    (status, body)
}

/// Status, head and body.
async fn ask(server: &Server, method: &str, path: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let (address, length) = (&server.admin, body.len());
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let response = request_of(address, &[head.as_bytes(), body].concat()).await;
    let end = response
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head");
    let status = text(&response[9..12]).parse().expect("a status");
    let head = text(&response[..end]).to_ascii_lowercase();
    (status, head, response[end + 4..].to_vec())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Holds a room; returns the number of the hold, and the room's file.
async fn hold(server: &Server, room: &str) -> (u64, Vec<u8>) {
    let path = format!("/rooms/{room}/hold?seconds=60");
    let held = eventually("the board is connected", async {
        loop {
            let (status, head, body) = ask(server, "POST", &path, b"").await;
            if !text(&body).contains("the board is not connected") {
                return (status, head, body);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (status, head, body) = held.await;
    assert_eq!(status, 200, "{}", text(&body));
    (number_of(&head), body)
}

fn number_of(head: &str) -> u64 {
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("stateroom-hold: "));
    line.and_then(|number| number.parse().ok())
        .expect("the number of the hold")
}

async fn resume(server: &Server, room: &str, hold: u64) -> (u16, Vec<u8>) {
    admin(
        server,
        "POST",
        &format!("/rooms/{room}/resume?hold={hold}"),
        b"",
    )
    .await
}

async fn moved(server: &Server, room: &str, hold: u64) -> (u16, Vec<u8>) {
    admin(
        server,
        "POST",
        &format!("/rooms/{room}/moved?hold={hold}"),
        b"",
    )
    .await
}

/// The same, again if the line was cut before there was anything to go on with.
async fn admin_connected(server: &Server, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    eventually("the board is connected", async {
        loop {
            let (status, response) = admin(server, method, path, body).await;
            if !text(&response).contains("the board is not connected") {
                return (status, response);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[track_caller]
fn assert_ok((status, body): (u16, Vec<u8>)) -> Vec<u8> {
    assert!(matches!(status, 200 | 201), "{status} {}", text(&body));
    body
}

#[track_caller]
fn assert_refused((status, body): (u16, Vec<u8>), expected: u16, why: &str) {
    let body = text(&body);
    assert_eq!(status, expected, "{body}");
    assert!(body.contains(why), "{body}");
}

/// There is a room of the id, or it is not held.
const CONFLICT: u16 = 409;
/// The board cannot make a room of it.
const UNREADABLE: u16 = 422;
/// The board is not there, or does not save the room.
const UNAVAILABLE: u16 = 503;

/// What LZ4 cannot make shorter.
fn noise(seed: u32) -> String {
    let mut state = seed;
    let letters = (0..900).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'!' + (state >> 24) as u8 % 90)
    });
    letters.collect()
}

/// A client that has sent this many messages, and heard their counts.
async fn counted(server: &Server, room: &str, messages: u8) -> Client {
    let mut client = server.join(&format!("/{room}")).await;
    for n in 1..=messages {
        client.send(noise(n.into())).await;
        client.expect(letter(n)).await;
    }
    client
}

fn letter(n: u8) -> &'static str {
    ["@", "A", "B", "C", "D", "E", "F", "G", "H"][usize::from(n)]
}

/// The room in a file of a hold.
fn in_file(file: &[u8]) -> Room {
    let file = RoomFile::decode(file).expect("it is a room's file");
    assert!(file.tail.is_empty());
    saved(&file.snapshot.room)
}

fn saved(snapshot: &[u8]) -> Room {
    Room::load(&counting(), snapshot, SnapshotOptions::new()).expect("it loads")
}

#[tokio::test]
async fn a_room_of_a_board_is_saved_while_it_goes_on() {
    let board = Board::new(&["r"], HEAP_BYTES);
    let server = attach(&board, Some("r")).await;
    let mut client = counted(&server, "r", 3).await;
    let snapshot = assert_ok(admin(&server, "GET", "/rooms/r/snapshot", b"").await);
    assert!(snapshot.len() > 2700, "in many pieces");
    let room = saved(&snapshot);
    assert_eq!((room.id(), room.clients().len()), ("r", 1));
    assert_eq!(room.stats().messages_in, 3);
    client.send("on").await;
    client.expect(letter(4)).await;
    let (status, _) = admin(&server, "GET", "/rooms/other/snapshot", b"").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn what_clients_of_a_held_room_send_waits() {
    let board = Board::new(&["r", "s"], HEAP_BYTES);
    let server = attach(&board, Some("s")).await;
    let mut client = counted(&server, "r", 2).await;
    let (number, file) = hold(&server, "r").await;
    assert_eq!(in_file(&file).stats().messages_in, 2);
    for _ in 0..3 {
        client.send("waits").await;
    }
    // Others do not wait for it, nor does a client that comes.
    let mut other = counted(&server, "s", 1).await;
    let mut joining = server.join("/r").await;
    let second = admin(&server, "GET", "/rooms/s/snapshot", b"").await;
    assert_refused(second, UNAVAILABLE, "another room");
    other.send("still").await;
    other.expect(letter(2)).await;

    assert_refused(resume(&server, "r", number + 1).await, CONFLICT, "not held");
    assert_ok(resume(&server, "r", number).await);
    for n in 3..=5 {
        client.expect(letter(n)).await;
    }
    joining.send("x").await;
    joining.expect(letter(6)).await;
    assert_refused(moved(&server, "r", number).await, CONFLICT, "not held");
}

#[tokio::test]
async fn a_room_moves_from_board_to_board_and_loses_nothing() {
    const MOVED: &str = "the room has moved to another server";
    let (from, to) = (Board::new(&["r"], HEAP_BYTES), Board::new(&[], HEAP_BYTES));
    let (source, target) = (attach(&from, Some("r")).await, attach(&to, None).await);
    let mut client = counted(&source, "r", 3).await;
    let (number, file) = hold(&source, "r").await;
    assert_ok(admin(&target, "PUT", "/rooms/r", &file).await);
    assert_ok(moved(&source, "r", number).await);
    assert_eq!(client.closed().await, (1012, MOVED.into()));
    until_room(&source, "r", "it is gone", |room| room.is_none()).await;
    until_room(&target, "r", "its clients were elsewhere", |room| {
        room.is_some_and(|room| room["clients"] == 0)
    })
    .await;
    let mut client = target.join("/r").await;
    client.send("here").await;
    client.expect(letter(4)).await;
    let again = admin(&target, "PUT", "/rooms/r", &file).await;
    assert_refused(again, CONFLICT, "a room of this id");

    // And back, by the tool. Its clients are told where it is.
    let url = format!("ws://{}/ws/r", source.address);
    let [from, to] = [&target.admin, &source.admin].map(|address| format!("http://{address}"));
    let output = tokio::task::spawn_blocking(move || {
        super::tool(&["move", &from, &to, "r", "--tell", &url])
    });
    let output = output.await.expect("it does not panic");
    assert!(output.status.success(), "{output:?}");
    let told = format!("moved to ws://{}/ws/r", source.address);
    assert_eq!(client.closed().await, (1012, told));
    let mut client = source.join("/r").await;
    client.send("back").await;
    client.expect(letter(5)).await;
}

#[tokio::test]
async fn a_room_moves_from_a_board_to_a_server_and_back() {
    let board = Board::new(&["r"], HEAP_BYTES);
    let boards = attach(&board, Some("r")).await;
    let mut client = counted(&boards, "r", 2).await;
    let args = [
        "--admin-listen",
        "127.0.0.1:0",
        "--hibernate-after",
        "60",
        "--room-idle",
        "never",
    ];
    let server = Server::guest(&counting_text(), &args);
    for (from, to, count) in [(&boards, &server, 3), (&server, &boards, 4)] {
        let addresses = [from, to].map(|server| format!("http://{}", server.admin));
        let output = tokio::task::spawn_blocking(move || {
            super::tool(&["move", &addresses[0], &addresses[1], "r"])
        });
        let output = output.await.expect("it does not panic");
        assert!(output.status.success(), "{output:?}");
        let (code, _) = client.closed().await;
        assert_eq!(code, 1012);
        client = to.join("/r").await;
        client.send("x").await;
        client.expect(letter(count)).await;
    }
}

#[tokio::test]
async fn a_room_that_arrives_waits_for_its_time() {
    let (from, to) = (Board::new(&["r"], HEAP_BYTES), Board::new(&[], HEAP_BYTES));
    let (source, target) = (attach(&from, Some("r")).await, attach(&to, None).await);
    let _client = counted(&source, "r", 1).await;
    let (_, file) = hold(&source, "r").await;
    // It is not given up by the source, and so is dropped.
    let (status, _, _) = ask(&target, "PUT", "/rooms/r?seconds=1", &file).await;
    assert_eq!(status, 201);
    until_room(&target, "r", "it is dropped", |room| room.is_none()).await;
    // Now it is, and what its client sends waits until then.
    let (status, head, _) = ask(&target, "PUT", "/rooms/r?seconds=60", &file).await;
    assert_eq!(status, 201);
    let number = number_of(&head);
    until_room(&target, "r", "it is there", |room| room.is_some()).await;
    let mut client = target.join("/r").await;
    client.send("x").await;
    assert_refused(moved(&target, "r", number).await, CONFLICT, "not held");
    assert_ok(resume(&target, "r", number).await);
    client.expect(letter(2)).await;
}

#[tokio::test]
async fn a_save_goes_on_when_the_line_is_there_again() {
    for bytes in [1, 60, 500, 1500, 2500] {
        let board = Board::new(&["r"], HEAP_BYTES);
        let server = attach(&board, Some("r")).await;
        counted(&server, "r", 3).await.leave().await;
        until_room(&server, "r", "it has no client", |room| {
            room.is_some_and(|room| room["clients"] == 0)
        })
        .await;
        board.cut_after(bytes);
        let (number, file) = hold(&server, "r").await;
        board.until_cut().await;
        assert_eq!(in_file(&file).stats().messages_in, 3, "{bytes}");
        assert_ok(resume(&server, "r", number).await);
        until_room(&server, "r", "it is there", |room| room.is_some()).await;
        let mut client = server.join("/r").await;
        client.send("x").await;
        client.expect(letter(4)).await;
    }
}

#[tokio::test]
async fn a_load_goes_on_when_the_line_is_there_again() {
    let source = Board::new(&["r"], HEAP_BYTES);
    let server = attach(&source, Some("r")).await;
    let _client = counted(&server, "r", 3).await;
    let snapshot = assert_ok(admin(&server, "GET", "/rooms/r/snapshot", b"").await);
    for bytes in [1, 100, 1500, 2500] {
        let board = Board::new(&[], HEAP_BYTES);
        let server = attach(&board, None).await;
        board.cut_after(bytes);
        assert_ok(admin_connected(&server, "PUT", "/rooms/r", &snapshot).await);
        board.until_cut().await;
        until_room(&server, "r", "it is there", |room| room.is_some()).await;
        let mut client = server.join("/r").await;
        client.send("x").await;
        client.expect(letter(4)).await;
    }
}

#[tokio::test]
async fn a_room_that_has_moved_is_not_forgotten_when_the_line_is_cut() {
    let board = Board::new(&["r"], HEAP_BYTES);
    let server = attach(&board, Some("r")).await;
    let _client = counted(&server, "r", 1).await;
    let (number, _) = hold(&server, "r").await;
    // Before the board learns of it.
    board.cut_after(1);
    board.until_cut().await;
    assert_ok(moved(&server, "r", number).await);
    until_connected(&server).await;
    until_room(&server, "r", "it is gone", |room| room.is_none()).await;
    assert!(server.join("/r").await.closed().await.1.contains("no room"));
}

#[tokio::test]
async fn what_a_board_does_not_take_is_refused() {
    let board = Board::new(&["r"], HEAP_BYTES);
    let server = attach(&board, Some("r")).await;
    let _client = counted(&server, "r", 1).await;
    let snapshot = assert_ok(admin(&server, "GET", "/rooms/r/snapshot", b"").await);
    let other = admin(&server, "PUT", "/rooms/other", &snapshot).await;
    assert_refused(other, UNREADABLE, "of another room");
    let noise = admin(&server, "PUT", "/rooms/other", b"noise").await;
    assert_refused(noise, UNREADABLE, "not a snapshot");

    let small = Board::new(&["s"], 1000);
    let server = attach(&small, Some("s")).await;
    let long = admin(&server, "PUT", "/rooms/r", &snapshot).await;
    assert_refused(long, UNREADABLE, "the board takes 1000");
    let large = admin(&server, "GET", "/rooms/s/snapshot", b"").await;
    assert_refused(large, UNAVAILABLE, "1000 are allowed");
    let none = Board::new(&["r"], 0);
    let server = attach(&none, Some("r")).await;
    for (method, path, status) in [
        ("GET", "/rooms/r/snapshot", UNAVAILABLE),
        ("POST", "/rooms/r/hold", UNAVAILABLE),
    ] {
        let refused = admin(&server, method, path, b"").await;
        assert_refused(refused, status, "saves and loads no rooms");
    }
    let (status, _) = admin(&server, "POST", "/rooms/r/close", b"").await;
    assert_eq!(status, 501);
}

const SAVE: u8 = 0x14;
const RELEASE: u8 = 0x15;
const LOAD: u8 = 0x16;
const TRANSFERS: u8 = 0x26;
const SAVED: u8 = 0x27;
const SAVED_PIECE: u8 = 0x28;
const LOAD_READY: u8 = 0x29;
const LOADED: u8 = 0x2a;
const TRANSFER_REFUSED: u8 = 0x2b;

fn crc(bytes: &[u8]) -> u32 {
    crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes)
}

fn saved_body(room: u8, is_held: u8, length: u32, checksum: u32) -> Vec<u8> {
    let numbers = [length, checksum].map(u32::to_le_bytes).concat();
    [&[room, is_held][..], &numbers].concat()
}

fn piece(offset: u32, bytes: &[u8]) -> Vec<u8> {
    [&offset.to_le_bytes(), bytes].concat()
}

/// A server with a board that says that it saves and loads rooms, and has the room `r`.
async fn hostile() -> (RawBoard, Server) {
    let mut board = RawBoard::new();
    let server = Server::attach(&board.address, &["--admin-listen", "127.0.0.1:0"]);
    board.session().await;
    board.send(TRANSFERS, &1_000_000_u32.to_le_bytes());
    board.send_opened(0, 50_000, "r");
    until_room(&server, "r", "the room is known", |room| room.is_some()).await;
    (board, server)
}

#[tokio::test]
async fn a_hostile_board_passes_nothing_off_as_a_snapshot() {
    let mut own = Room::new(&counting(), "another", Default::default()).expect("it opens");
    while own.poll_output().is_some() {}
    let another = own.save().expect("it can be saved");
    let length = another.len() as u32;
    // What comes of it, and what the operator is told.
    type Frames = Vec<(u8, Vec<u8>)>;
    let cases: Vec<(Frames, &str)> = vec![
        (vec![(SAVED, saved_body(0, 0, u32::MAX, 0))], "too long"),
        (vec![(SAVED, saved_body(0, 0, 0, 0))], "not a snapshot"),
        (
            vec![
                (SAVED, saved_body(0, 0, 5, crc(b"noise"))),
                (SAVED_PIECE, piece(0, b"noise")),
            ],
            "not a snapshot",
        ),
        (
            vec![
                (SAVED, saved_body(0, 0, 5, 7)),
                (SAVED_PIECE, piece(0, b"noise")),
            ],
            "damaged",
        ),
        (
            vec![
                (SAVED, saved_body(0, 0, 5, crc(b"noise"))),
                (SAVED_PIECE, piece(1, b"oise")),
            ],
            "a piece of the snapshot is missing",
        ),
        (
            vec![
                (SAVED, saved_body(0, 0, 5, crc(b"noise"))),
                (SAVED_PIECE, piece(0, b"noises")),
            ],
            "a piece of the snapshot is missing",
        ),
        (
            vec![
                (SAVED, saved_body(0, 0, length, crc(&another))),
                (SAVED_PIECE, piece(0, &another)),
            ],
            "the snapshot is of the room \"another\"",
        ),
        (
            vec![(TRANSFER_REFUSED, b"\x07no \x1b[2Jluck".to_vec())],
            "no \\x1b[2Jluck",
        ),
    ];
    let (mut board, server) = hostile().await;
    for (frames, why) in cases {
        let snapshot = admin(&server, "GET", "/rooms/r/snapshot", b"");
        let answer = async {
            while board.event().await.kind != SAVE {}
            // Of another room, or of nothing: before and after.
            board.send(SAVED_PIECE, &piece(0, b"early"));
            board.send(SAVED, &saved_body(9, 1, 5, 5));
            board.send(LOADED, &[0, 0]);
            board.send(LOAD_READY, &[0; 4]);
            for (kind, body) in &frames {
                board.send(*kind, body);
            }
            board.send(SAVED_PIECE, &piece(0, b"late"));
        };
        let (refused, ()) = tokio::join!(snapshot, answer);
        assert_refused(refused, UNAVAILABLE, why);
    }
    // It closes the room meanwhile.
    let snapshot = admin(&server, "GET", "/rooms/r/snapshot", b"");
    let answer = async {
        while board.event().await.kind != SAVE {}
        board.send(super::raw_board::ROOM_CLOSED, &[0, 0]);
    };
    let ((status, _), ()) = tokio::join!(snapshot, answer);
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_hostile_board_cannot_hold_rooms_or_load_what_was_not_sent() {
    let (mut board, server) = hostile().await;
    // Rooms that it says it holds are released, and each of its requests is answered by one frame at most.
    for _ in 0..10 {
        board.send(SAVED, &saved_body(0, 1, 10, 10));
        board.expect(RELEASE, &[0, 0]).await;
    }
    let (mut client, head) = board.joined(&server, "/r").await;
    client.send("hello").await;
    let event = board.event().await;
    assert_eq!((event.kind, &event.body[..HEAD_BYTES]), (TEXT, &head[..]));

    let mut room = Room::new(&counting(), "s", Default::default()).expect("it opens");
    while room.poll_output().is_some() {}
    let snapshot = room.save().expect("it can be saved");
    let info = SnapshotInfo::read(&snapshot).expect("it is a snapshot");
    assert_eq!(info.room_id, "s");
    for (from, why) in [
        (snapshot.len() as u32 + 1, "asks for more"),
        (u32::MAX, "asks for more"),
    ] {
        let loaded = admin(&server, "PUT", "/rooms/s", &snapshot);
        let answer = async {
            while board.event().await.kind != LOAD {}
            // Nothing was sent yet, and no such room was opened.
            board.send(LOADED, &[0, 0]);
            board.send(LOAD_READY, &from.to_le_bytes());
        };
        let (refused, ()) = tokio::join!(loaded, answer);
        assert_refused(refused, UNAVAILABLE, why);
    }
    assert!(listed(&server, "r").await.is_some());
    assert!(listed(&server, "s").await.is_none());
}
