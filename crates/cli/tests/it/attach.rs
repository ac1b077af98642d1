//! `attach`: a board that is simulated by a thread, and WebSocket clients of its rooms.

use super::{Client, Server, soon};
use crate::support::{ENV, echo, guest_0_2, limits, module_with};
use serde_json::Value;
use stateroom_wasmi_host::{Budget, Host, Limits, SystemClock};
use stateroom_wasmi_link::{Link, LinkTransport, Wire, buffer_bytes};
use std::{
    io::{self, Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const BUFFER: usize = buffer_bytes(1024);

/// What the board's rooms are.
fn rooms() -> Vec<(&'static str, String)> {
    let to =
        |recipient: &str| format!("(call $send_message {recipient} (local.get 1) (local.get 2))");
    let chat = guest_0_2(ENV, &[("message", &to("(i32.const 0)"))], "");
    let fragile = guest_0_2(ENV, &[("message", "(unreachable)")], "");
    vec![("echo", echo()), ("chat", chat), ("fragile", fragile)]
}

/// A wire that is a stream which does not block.
struct Stream<S>(S);

impl<S: Read + Write> Wire for Stream<S> {
    type Error = io::Error;

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.0.read(bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }
}

/// What a test and its board share.
#[derive(Default)]
struct Switches {
    /// The board is to start again, on the same line.
    restart: AtomicBool,
    /// The line is to break.
    cut: AtomicBool,
    /// Nobody is to be let in any more.
    quit: AtomicBool,
    /// Clients in all rooms together.
    clients: AtomicUsize,
}

/// A board that runs until the test is over.
struct Board(Arc<Switches>);

impl Drop for Board {
    fn drop(&mut self) {
        self.0.quit.store(true, Ordering::Relaxed);
    }
}

/// Runs a board on each line that is opened, one after the other.
fn run_board<S: Read + Write>(open: impl Fn() -> Option<S> + Send + 'static) -> Board {
    let switches = Arc::new(Switches::default());
    let shared = switches.clone();
    thread::spawn(move || {
        while !shared.quit.load(Ordering::Relaxed) {
            match open() {
                Some(stream) => run_line(stream, &shared),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    });
    Board(switches)
}

fn run_line<S: Read + Write>(stream: S, switches: &Switches) {
    let mut stream = Stream(stream);
    while !switches.cut.swap(false, Ordering::Relaxed) && !switches.quit.load(Ordering::Relaxed) {
        switches.restart.store(false, Ordering::Relaxed);
        if run_firmware(&mut stream, switches).is_err() {
            return;
        }
    }
}

/// What a board does from its start to its reset.
fn run_firmware<S: Read + Write>(stream: &mut Stream<S>, switches: &Switches) -> io::Result<()> {
    let small = limits(|limits| {
        *limits = Limits::small();
        limits.max_clients = 3;
        limits.max_message_bytes = 1000;
    });
    let mut host = Host::new(SystemClock::new(), LinkTransport::<BUFFER>::new());
    let mut link = Link::<_, BUFFER>::new(stream);
    for (id, text) in rooms() {
        let room = host
            .open(id, &module_with(&text, &small))
            .expect("the room opens");
        link.add_room(&mut host, room)
            .expect("the link has capacity");
    }
    loop {
        for switch in [&switches.restart, &switches.cut, &switches.quit] {
            if switch.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        let polled = link.poll(&mut host, Budget::fuel(100_000));
        while link.poll_closed(&mut host).is_some() {}
        let clients = host.rooms().map(|(_, room)| room.clients().len()).sum();
        switches.clients.store(clients, Ordering::Relaxed);
        polled?;
        thread::sleep(Duration::from_millis(1));
    }
}

/// A board behind a TCP socket, and its address.
fn tcp_board() -> (Board, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens").to_string();
    listener
        .set_nonblocking(true)
        .expect("it can be asked not to wait");
    let open = move || {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    };
    (run_board(open), address)
}

/// The tool, attached to a board of which it knows all rooms.
async fn attach(board: &str) -> Server {
    let server = Server::attach(board, &[]);
    all_rooms_are_there(&server).await;
    server
}

async fn all_rooms_are_there(server: &Server) {
    // The last that is told of.
    server
        .until_room("fragile", "the rooms are known", |room| room.is_some())
        .await;
}

/// A client that is in its room for sure.
async fn join_echo(server: &Server) -> Client {
    let mut client = server.join("/echo").await;
    client.say("hello").await;
    client.expect("hello").await;
    client
}

#[tokio::test]
async fn a_client_talks_to_a_room_on_a_board() {
    let (_board, address) = tcp_board();
    let server = attach(&address).await;
    let mut client = join_echo(&server).await;
    client.say(vec![0_u8, 255, 0]).await;
    assert_eq!(client.hear().await.into_data(), [0, 255, 0][..]);
    for i in 0..300 {
        client.say(i.to_string()).await;
    }
    for i in 0..300 {
        client.expect(&i.to_string()).await;
    }
    let long = "x".repeat(1000);
    client.say(long.clone()).await;
    client.expect(&long).await;

    let list: Value = serde_json::from_str(&server.get("/rooms").await.body).expect("JSON");
    assert_eq!(
        (&list["module"], &list["abi"]),
        (&format!("the board at {address}").into(), &"unknown".into())
    );
    let rooms: Vec<_> = list["rooms"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|room| (room["id"].as_str(), room["clients"].as_u64()))
        .collect();
    assert_eq!(
        rooms,
        [
            (Some("chat"), Some(0)),
            (Some("echo"), Some(1)),
            (Some("fragile"), Some(0))
        ]
    );
    assert!(server.get("/").await.body.contains("<title>"));
    assert_eq!(server.get("/status").await.body, "ok");
}

#[tokio::test]
async fn the_first_room_is_that_of_the_empty_id() {
    let (_board, address) = tcp_board();
    let server = attach(&address).await;
    let mut client = server.join("").await;
    client.say("hello").await;
    client.expect("hello").await;
    server
        .until_room("echo", "it is in the echo", |room| {
            room.is_some_and(|room| room["clients"] == 1)
        })
        .await;
}

#[tokio::test]
async fn clients_of_a_room_hear_each_other_until_they_leave() {
    let (board, address) = tcp_board();
    let server = attach(&address).await;
    let [mut a, mut b] = server.join_all("chat").await;
    a.say("a").await;
    for client in [&mut a, &mut b] {
        client.expect("a").await;
    }
    a.leave().await;
    soon("the board knows", async {
        while board.0.clients.load(Ordering::Relaxed) != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    b.say("b").await;
    b.expect("b").await;
}

#[tokio::test]
async fn what_the_board_refuses_is_closed_with_the_reason() {
    let (_board, address) = tcp_board();
    let server = attach(&address).await;
    let unknown = server.join("/nowhere").await.closed().await;
    assert_eq!(unknown, (1008, "the board has no room \"nowhere\"".into()));

    let _three = server.join_all::<3>("chat").await;
    let full = server.join("/chat").await.closed().await;
    assert_eq!(full, (1013, "the room has its limit of clients".into()));

    let mut wordy = join_echo(&server).await;
    wordy.say("x".repeat(1001)).await;
    assert_eq!(
        wordy.closed().await,
        (
            1009,
            "1001 bytes are more than the 1000 that the board takes".into()
        )
    );

    let mut fragile = server.join("/fragile").await;
    fragile.say("x").await;
    let (code, reason) = fragile.closed().await;
    assert_eq!(code, 1011);
    assert!(
        reason.starts_with("the guest failed in `message`"),
        "{reason}"
    );
    server
        .until_room("fragile", "it is gone", |room| room.is_none())
        .await;
    // Others do not notice.
    join_echo(&server).await;
}

#[tokio::test]
async fn a_client_comes_back_with_its_token() {
    let (board, address) = tcp_board();
    let server = attach(&address).await;
    let mut older = server.join("/echo?token=t").await;
    older.say("hello").await;
    older.expect("hello").await;
    let mut newer = server.join("/echo?token=t").await;
    assert_eq!(
        older.closed().await,
        (1008, "replaced by a newer connection".into())
    );
    newer.say("again").await;
    newer.expect("again").await;
    assert_eq!(board.0.clients.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_line_that_breaks_is_opened_again() {
    let (board, address) = tcp_board();
    let server = attach(&address).await;
    let mut client = join_echo(&server).await;
    board.0.cut.store(true, Ordering::Relaxed);
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1012);
    assert!(reason.starts_with("the line is broken"), "{reason}");
    all_rooms_are_there(&server).await;
    join_echo(&server).await;
}

#[tokio::test]
async fn a_board_that_starts_again_is_attached_again() {
    let (board, address) = tcp_board();
    let server = attach(&address).await;
    let mut client = join_echo(&server).await;
    board.0.restart.store(true, Ordering::Relaxed);
    assert_eq!(client.closed().await, (1012, "the board restarted".into()));
    all_rooms_are_there(&server).await;
    join_echo(&server).await;
}

#[tokio::test]
async fn a_tool_that_stops_takes_its_clients_with_it() {
    let (board, address) = tcp_board();
    let mut server = attach(&address).await;
    let mut client = join_echo(&server).await;
    server.signal("-TERM");
    assert_eq!(client.closed().await.0, 1001);
    assert!(server.ended().await.success());
    soon("the board knows", async {
        while board.0.clients.load(Ordering::Relaxed) != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn without_a_board_clients_are_told_to_come_again() {
    // A port where nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("it listens").to_string();
    drop(free);
    let mut server = Server::attach(&address, &[]);
    assert_eq!(
        server.join("/echo").await.closed().await,
        (1013, "the board is not connected".into())
    );
    assert_eq!(server.rooms().await, Vec::<Value>::new());
    server.signal("-INT");
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_board_is_reached_over_a_unix_socket() {
    let folder = super::Folder::new();
    let path = folder.0.join("board");
    let listener = UnixListener::bind(&path).expect("a socket can be made");
    listener
        .set_nonblocking(true)
        .expect("it can be asked not to wait");
    let _board = run_board(move || {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    });
    let server = attach(path.to_str().expect("text")).await;
    join_echo(&server).await;
}

/// A pseudoterminal is a serial port as far as programs can tell.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_board_is_reached_over_a_serial_port() {
    use rustix::{fs, pty};
    let board_end = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).expect("a pty");
    pty::grantpt(&board_end).expect("it is ours");
    pty::unlockpt(&board_end).expect("it is ours");
    let port = pty::ptsname(&board_end, Vec::new())
        .expect("it has a name")
        .into_string()
        .expect("text");
    // While nobody has the other end open, this one cannot be read.
    let other_end = fs::open(
        &*port,
        fs::OFlags::RDWR | fs::OFlags::NOCTTY,
        fs::Mode::empty(),
    );
    let _other_end = other_end.expect("it can be opened");
    let flags = fs::fcntl_getfl(&board_end).expect("it is open");
    fs::fcntl_setfl(&board_end, flags | fs::OFlags::NONBLOCK).expect("it can be asked not to wait");
    let board_end = std::sync::Mutex::new(Some(std::fs::File::from(board_end)));
    let _board = run_board(move || board_end.lock().ok()?.take());
    let server = Server::attach(&port, &["--baud", "115200"]);
    all_rooms_are_there(&server).await;
    join_echo(&server).await;
}
