//! `attach`: a board, simulated by a thread, and WebSocket clients of its rooms.

use super::{
    Client, Server,
    board::{Board, run_board, tcp_board},
    raw_board::RawBoard,
};
use serde_json::Value;
use std::{net::TcpListener, os::unix::net::UnixListener, sync::atomic::Ordering, time::Duration};

/// The tool, attached to a board and informed of all its rooms.
async fn attach(board: &str) -> Server {
    let server = Server::attach(board, &[]);
    until_all_rooms(&server).await;
    server
}

async fn until_all_rooms(server: &Server) {
    // The last that the board announces.
    server
        .until_room("fragile", "the rooms are known", |room| room.is_some())
        .await;
}

/// A client that has joined: its first message was echoed.
async fn join_echo(server: &Server) -> Client {
    let mut client = server.join("/echo").await;
    client.send("hello").await;
    client.expect("hello").await;
    client
}

#[tokio::test]
async fn a_client_exchanges_messages_with_a_room_on_a_board() {
    let (_board, address) = tcp_board();
    let server = attach(&address).await;
    let mut client = join_echo(&server).await;
    client.send(vec![0_u8, 255, 0]).await;
    assert_eq!(client.receive().await.into_data(), [0, 255, 0][..]);
    for i in 0..300 {
        client.send(i.to_string()).await;
    }
    for i in 0..300 {
        client.expect(&i.to_string()).await;
    }
    let long = "x".repeat(1000);
    client.send(long.clone()).await;
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
async fn the_empty_id_is_the_first_room() {
    let (_board, address) = tcp_board();
    let server = attach(&address).await;
    let mut client = server.join("").await;
    client.send("hello").await;
    client.expect("hello").await;
    server
        .until_room("echo", "it is in the echo", |room| {
            room.is_some_and(|room| room["clients"] == 1)
        })
        .await;
}

#[tokio::test]
async fn clients_share_a_room_until_they_leave() {
    let (board, address) = tcp_board();
    let server = attach(&address).await;
    let [mut a, mut b] = server.join_all("chat").await;
    a.send("a").await;
    for client in [&mut a, &mut b] {
        client.expect("a").await;
    }
    a.leave().await;
    board.until_clients(1).await;
    b.send("b").await;
    b.expect("b").await;
}

#[tokio::test]
async fn rejections_of_the_board_close_with_their_reason() {
    let (_board, address) = tcp_board();
    let server = attach(&address).await;
    let unknown = server.join("/nowhere").await.closed().await;
    assert_eq!(unknown, (1008, "the board has no room \"nowhere\"".into()));

    // A close frame has 125 bytes, two of which are its code.
    let mut long = server.join(&format!("/{}", "%C3%A9".repeat(100))).await;
    let (code, reason) = long.closed().await;
    assert_eq!(code, 1008);
    let whole = format!("the board has no room \"{}", "é".repeat(100));
    assert!(
        whole.starts_with(&reason) && reason.len() >= 122,
        "{reason}"
    );

    let _three = server.join_all::<3>("chat").await;
    let full = server.join("/chat").await.closed().await;
    assert_eq!(full, (1013, "the room is full".into()));

    let mut verbose = join_echo(&server).await;
    verbose.send("x".repeat(1001)).await;
    assert_eq!(
        verbose.closed().await,
        (
            1009,
            "the message has 1001 bytes; the board's limit is 1000".into()
        )
    );

    let mut fragile = server.join("/fragile").await;
    fragile.send("x").await;
    let (code, reason) = fragile.closed().await;
    assert_eq!(code, 1011);
    assert!(
        reason.starts_with("the guest failed in `message`"),
        "{reason}"
    );
    server
        .until_room("fragile", "it is gone", |room| room.is_none())
        .await;
    // Other rooms are not affected.
    join_echo(&server).await;
}

#[tokio::test]
async fn a_token_replaces_the_older_connection() {
    let (board, address) = tcp_board();
    let server = attach(&address).await;
    let mut older = server.join("/echo?token=t").await;
    older.send("hello").await;
    older.expect("hello").await;
    let mut newer = server.join("/echo?token=t").await;
    assert_eq!(
        older.closed().await,
        (1008, "replaced by a newer connection".into())
    );
    newer.send("again").await;
    newer.expect("again").await;
    board.until_clients(1).await;
}

#[tokio::test]
async fn a_broken_link_is_reopened() {
    let (board, address) = tcp_board();
    let server = attach(&address).await;
    let mut client = join_echo(&server).await;
    board.0.cut.store(true, Ordering::Relaxed);
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1012);
    assert!(reason.starts_with("the link is broken"), "{reason}");
    until_all_rooms(&server).await;
    join_echo(&server).await;
}

#[tokio::test]
async fn a_restarted_board_is_attached_again() {
    let (board, address) = tcp_board();
    let server = attach(&address).await;
    let mut client = join_echo(&server).await;
    board.0.restart.store(true, Ordering::Relaxed);
    assert_eq!(client.closed().await, (1012, "the board restarted".into()));
    until_all_rooms(&server).await;
    join_echo(&server).await;
}

#[tokio::test]
async fn shutdown_closes_the_clients_and_tells_the_board() {
    let (board, address) = tcp_board();
    let mut server = attach(&address).await;
    let mut client = join_echo(&server).await;
    server.signal("-TERM");
    assert_eq!(client.closed().await.0, 1001);
    assert!(server.exited().await.success());
    board.until_clients(0).await;
}

#[tokio::test]
async fn without_a_board_clients_close_with_1013() {
    // A port without a listener.
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
    assert!(server.exited().await.success());
}

#[tokio::test]
async fn shutdown_waits_for_no_join() {
    let mut board = RawBoard::new();
    let mut server = Server::attach(&board.address, &[]);
    board.session().await;
    board.open(&server, 0, "a").await;
    let (mut client, _) = board.connecting(&server, "/a").await;
    server.signal("-TERM");
    assert_eq!(
        client.closed().await,
        (1001, "the server is stopping".into())
    );
    drop(client);
    assert!(server.exited().await.success());
}

#[tokio::test]
async fn shutdown_waits_for_no_port_that_cannot_be_opened() {
    let folder = super::TempDir::new();
    let missing = folder.0.join("tty");
    let mut server = Server::attach(missing.to_str().expect("text"), &[]);
    server.until_logged("cannot reach the board").await;
    assert_eq!(server.join("/a").await.closed().await.0, 1013);
    server.signal("-TERM");
    assert!(server.exited().await.success());
}

#[tokio::test]
async fn shutdown_waits_for_no_board_that_is_silent() {
    // It accepts the connection, but nobody reads it.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens").to_string();
    let mut server = Server::attach(&address, &[]);
    server.until_logged("the link to").await;
    assert_eq!(
        server.join("/a").await.closed().await,
        (1013, "the board is not connected".into())
    );
    server.signal("-TERM");
    assert!(server.exited().await.success());
}

/// A listener that is full lets connects wait.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn shutdown_waits_for_no_connect() {
    use rustix::net::{self, AddressFamily, SocketType};
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};
    let listener = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    net::bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port is free");
    // One connection fits.
    net::listen(&listener, 0).expect("it listens");
    let address = net::getsockname(&listener).expect("it has an address");
    let address = SocketAddr::try_from(address).expect("it is of the internet");
    let _first = TcpStream::connect(address).expect("it fits");
    let second = TcpStream::connect_timeout(&address, Duration::from_millis(500));
    second.expect_err("it does not fit");

    let mut server = Server::attach(&address.to_string(), &[]);
    assert_eq!(server.join("/a").await.closed().await.0, 1013);
    server.signal("-TERM");
    assert!(server.exited().await.success());
}

#[tokio::test]
async fn a_board_is_reached_over_a_unix_socket() {
    let folder = super::TempDir::new();
    let path = folder.0.join("board");
    let listener = UnixListener::bind(&path).expect("a socket can be made");
    listener
        .set_nonblocking(true)
        .expect("cannot make it nonblocking");
    let _board = run_board(move || {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    });
    let server = attach(path.to_str().expect("text")).await;
    join_echo(&server).await;
}

/// A pseudoterminal, which programs cannot tell from a serial port: a board at one end, and the path
/// of the other.
#[cfg(target_os = "linux")]
struct SerialBoard {
    _board: Board,
    port: String,
    /// Reading one end fails unless the other is open.
    _other_end: rustix::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl SerialBoard {
    fn new() -> Self {
        use rustix::{fs, pty};
        let board_end =
            pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).expect("a pty");
        pty::grantpt(&board_end).expect("it is ours");
        pty::unlockpt(&board_end).expect("it is ours");
        let port = pty::ptsname(&board_end, Vec::new())
            .expect("it has a name")
            .into_string()
            .expect("text");
        let other_end = open_port(&port).expect("it can be opened");
        let flags = fs::fcntl_getfl(&board_end).expect("the room is open");
        fs::fcntl_setfl(&board_end, flags | fs::OFlags::NONBLOCK)
            .expect("cannot make it nonblocking");
        let board_end = std::sync::Mutex::new(Some(std::fs::File::from(board_end)));
        Self {
            _board: run_board(move || board_end.lock().ok()?.take()),
            port,
            _other_end: other_end,
        }
    }
}

#[cfg(target_os = "linux")]
fn open_port(port: &str) -> rustix::io::Result<rustix::fd::OwnedFd> {
    use rustix::fs;
    let flags = fs::OFlags::RDWR | fs::OFlags::NOCTTY | fs::OFlags::CLOEXEC;
    fs::open(port, flags, fs::Mode::empty())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_board_is_reached_over_a_serial_port() {
    let board = SerialBoard::new();
    let server = Server::attach(&board.port, &["--baud", "115200"]);
    until_all_rooms(&server).await;
    join_echo(&server).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_serial_port_is_used_by_one_process() {
    const IN_USE: &str = "the port is in use by another process";
    let board = SerialBoard::new();
    let mut first = Server::attach(&board.port, &[]);
    until_all_rooms(&first).await;
    let mut client = join_echo(&first).await;
    // Programs that do not look for locks cannot open it, unless they are the superuser's.
    if !rustix::process::geteuid().is_root() {
        let opened = open_port(&board.port).map(drop);
        assert_eq!(opened, Err(rustix::io::Errno::BUSY));
    }

    let second = Server::attach(&board.port, &[]);
    second.until_logged(IN_USE).await;
    assert_eq!(second.join("/echo").await.closed().await.0, 1013);
    // The first one is not disturbed.
    client.send("still here").await;
    client.expect("still here").await;

    // It tries again, until the port is free.
    client.leave().await;
    first.signal("-TERM");
    assert!(first.exited().await.success());
    until_all_rooms(&second).await;
    join_echo(&second).await;
    drop(second);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_serial_port_that_another_program_has_locked_is_waited_for() {
    use rustix::fs::{FlockOperation, flock};
    let board = SerialBoard::new();
    let program = open_port(&board.port).expect("it can be opened");
    flock(&program, FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
    let server = Server::attach(&board.port, &[]);
    server
        .until_logged("the port is in use by another process")
        .await;
    drop(program);
    until_all_rooms(&server).await;
    join_echo(&server).await;
}
