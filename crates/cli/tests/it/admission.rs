//! Admission control and request parsing, before a connection becomes a WebSocket.

use super::{RawClient, Response, Server, TempDir, bundled_path, eventually};
use crate::support::echo;
use std::{
    process::Command,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// Sends `once` and then, repeatedly, `again`, until the server closes the connection.
async fn is_closed(server: &Server, what: &str, once: &str, again: &str) {
    let stream = TcpStream::connect(&server.address)
        .await
        .expect("the server listens");
    let (mut read, mut write) = stream.into_split();
    let talk = async {
        write.write_all(once.as_bytes()).await?;
        loop {
            sleep(Duration::from_millis(100)).await;
            write.write_all(again.as_bytes()).await?;
        }
    };
    let end = async {
        let mut response = Vec::new();
        tokio::select! {
            read = read.read_to_end(&mut response) => read.map(drop),
            // Writing to a closed connection fails.
            talked = talk => talked,
        }
    };
    let _: std::io::Result<()> = eventually(what, end).await;
}

#[tokio::test]
async fn an_unfinished_request_times_out() {
    let server = Server::bundled("echo-c", &["--handshake-timeout", "1"]);
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let cases = [
        ("an idle connection", "", ""),
        ("one that stops in the request line", "GET /st", ""),
        ("one that stops before the end", upgrade, ""),
        ("one that trickles", upgrade, "x: y\r\n"),
        (
            "one that has no second request",
            "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "",
        ),
    ];
    for (what, once, again) in cases {
        is_closed(&server, what, once, again).await;
    }
    // The timeout does not apply to WebSockets.
    let mut client = server.join("").await;
    sleep(Duration::from_millis(1500)).await;
    client.send("still here").await;
    client.expect("still here").await;
}

/// Requests the status until a connection is admitted.
async fn until_ok(server: &Server) {
    eventually("a connection is admitted", async {
        while server.get("/status").await.status != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_over_the_limit_get_503() {
    let server = Server::guest(&echo(), &["--max-connections", "3"]);
    let mut first = server.join("/r").await;
    // All kinds of connections count.
    let idle = TcpStream::connect(&server.address)
        .await
        .expect("the server listens");
    let raw = RawClient::join(&server, "/s").await;
    for _ in 0..10 {
        let Response { status, head, body } = server.get("/status").await;
        assert_eq!(status, 503);
        assert!(head.contains("retry-after:"), "{head}");
        assert_eq!(body, "the server has its maximum of 3 connections\n");
    }
    first.send("hello").await;
    first.expect("hello").await;
    drop(idle);
    until_ok(&server).await;
    drop(raw);
    let mut second = eventually("another connection is admitted", async {
        loop {
            match server.try_join("/r").await {
                Ok(client) => break client,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    second.send("hello").await;
    second.expect("hello").await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn the_soft_limit_on_open_files_is_raised() {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -S -n 64; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_stateroom-wasmi"),
    ]);
    let server = Server::run(shell, &bundled_path("echo-c"), &[]);
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(server.join("").await);
    }
    for client in &mut clients {
        client.send("hello").await;
        client.expect("hello").await;
    }
}

/// The tool with a limit on open files that it cannot raise.
#[cfg(target_os = "linux")]
fn with_few_files() -> Command {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -n 64; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_stateroom-wasmi"),
    ]);
    shell
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_server_without_a_file_left_says_so_and_goes_on() {
    let folder = TempDir::new();
    folder.write("index.html", "my page");
    let site = folder.0.to_str().expect("UTF-8");
    let server = Server::run(
        with_few_files(),
        &bundled_path("echo-c"),
        &["--static", site],
    );
    server
        .until_logged(
            "there may be 10000 connections, but this process may have only 64 open files",
        )
        .await;
    let mut client = server.join("").await;
    let start = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..100 {
        let stream = TcpStream::connect(&server.address).await;
        idle.push(stream.expect("the server listens"));
    }
    let line = "cannot accept connections: this process has its maximum of 64 open files";
    let count = || {
        server
            .log
            .lock()
            .expect("not poisoned")
            .matches(line)
            .count()
    };
    eventually("ten attempts", async {
        while count() < 10 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Each was followed by a pause.
    assert!(start.elapsed() >= Duration::from_millis(900));
    // The clients that it has are served.
    for _ in 0..10 {
        client.send("hello").await;
        client.expect("hello").await;
    }
    drop(idle);
    // Others are, once there are files again.
    let mut late = server.join("").await;
    late.send("hello").await;
    late.expect("hello").await;
    assert_eq!(server.get("/").await.body, "my page");
    // A burst of ten, then one a second.
    let limit = 11 + start.elapsed().as_secs() as usize;
    assert!(count() <= limit, "{} lines", count());
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn connections_over_the_limit_of_an_address_get_429() {
    let server = Server::guest(&echo(), &["--max-connections-per-address", "2"]);
    let _both = [server.join("/r").await, server.join("/r").await];
    let rejected = server.get("/status").await;
    assert_eq!(rejected.status, 429);
    assert_eq!(
        rejected.body,
        "your address has its maximum of 2 connections\n"
    );
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.2:0".parse().expect("an address"))
        .expect("cannot bind 127.0.0.2");
    let mut other = socket
        .connect(server.address.parse().expect("an address"))
        .await
        .expect("the server listens");
    other
        .write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .expect("cannot write");
    let mut response = String::new();
    eventually("a response", other.read_to_string(&mut response))
        .await
        .expect("text");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn connections_over_the_rate_get_429() {
    let server = Server::guest(&echo(), &["--connect-rate", "1", "--connect-burst", "5"]);
    let mut client = server.join("/r").await;
    let mut rejected = None;
    for _ in 0..100 {
        let response = server.get("/status").await;
        if response.status != 200 {
            rejected = Some(response);
            break;
        }
    }
    let rejected = rejected.expect("no connection was rejected");
    assert_eq!(rejected.status, 429);
    assert_eq!(
        rejected.body,
        "your address exceeds 1 new connections a second\n"
    );
    // Open connections are not affected.
    client.send("hello").await;
    client.expect("hello").await;
    until_ok(&server).await;
}

#[tokio::test]
async fn oversized_and_malformed_heads_are_rejected() {
    let server = Server::bundled("echo-c", &[]);
    let long = "x".repeat(64 << 10);
    let many: String = (0..1000)
        .map(|number| format!("h{number}: x\r\n"))
        .collect();
    let cases = [
        (
            "a long header",
            format!("GET /status HTTP/1.1\r\nHost: localhost\r\nx: {long}\r\n\r\n"),
            [431, 431],
        ),
        (
            "many headers",
            format!("GET /status HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
            [431, 431],
        ),
        (
            "a long path",
            format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            [414, 431],
        ),
        (
            "garbage",
            "\0\u{1}\u{2}garbage\r\n\r\n".to_owned(),
            [400, 400],
        ),
        (
            "a TLS hello",
            "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\u{3}".to_owned(),
            [400, 400],
        ),
        (
            "two lengths",
            "POST /status HTTP/1.1\r\nHost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"
                .to_owned(),
            [400, 400],
        ),
    ];
    for (what, request, statuses) in cases {
        let response = server.request(request.as_bytes()).await;
        let status = response
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        assert!(statuses.contains(&status), "{what}: {response}");
    }
    // The response does not wait for the body.
    let post = "POST /rooms HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\ncontent-length: 1000000000\r\n\r\nx";
    assert!(
        server
            .request(post.as_bytes())
            .await
            .starts_with("HTTP/1.1 405")
    );
    assert_eq!(server.get("/status").await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_response_times_out() {
    let folder = TempDir::new();
    // Exceeds the socket buffers.
    folder.write("large", vec![0; 64 << 20]);
    let site = folder.0.to_str().expect("UTF-8");
    let server = Server::bundled("echo-c", &["--static", site, "-i", "1", "-t", "2"]);
    let mut deaf = TcpStream::connect(&server.address)
        .await
        .expect("the server listens");
    deaf.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("cannot write");
    server.until_logged("the connection of").await;
    let mut taken = Vec::new();
    eventually("the end", deaf.read_to_end(&mut taken))
        .await
        .expect("an orderly end");
    assert!(taken.len() < 64 << 20, "{}", taken.len());
}

#[tokio::test]
async fn tokens_of_connected_clients_are_not_evicted() {
    let server = Server::bundled("chat-rust-0.4", &["--max-tokens", "3"]);
    let mut keeper = server.join("/r?token=kept").await;
    keeper
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    for number in 2..10 {
        let mut other = server.join(&format!("/r?token={number}")).await;
        other
            .expect(&format!(
                "Welcome, guest{number}. Commands: /nick NAME, /who."
            ))
            .await;
        keeper.expect(&format!("guest{number} joined.")).await;
        other.leave().await;
        keeper.expect(&format!("guest{number} left.")).await;
    }
    let mut again = server.join("/r?token=kept").await;
    again
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    // The newest token of the disconnected clients is kept, the oldest is evicted.
    server
        .join("/r?token=9")
        .await
        .expect("Welcome, guest9. Commands: /nick NAME, /who.")
        .await;
    server
        .join("/r?token=2")
        .await
        .expect("Welcome, guest10. Commands: /nick NAME, /who.")
        .await;
}
