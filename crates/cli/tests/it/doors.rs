//! Who gets in: connections that never become anything, too many of them, and what is no request.

use super::{Folder, RawClient, Response, Server, bundled_path, soon};
use crate::support::echo;
use std::{process::Command, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// Waits until the server closes a connection, to which `again` is sent over and over.
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
        let mut answer = Vec::new();
        tokio::select! {
            read = read.read_to_end(&mut answer) => read.map(drop),
            // What is written to a connection that is closed fails.
            talked = talk => talked,
        }
    };
    let _: std::io::Result<()> = soon(what, end).await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    let server = Server::bundled("echo-c", &["--handshake-timeout", "1"]);
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let cases = [
        ("one that says nothing", "", ""),
        ("one that stops in the first line", "GET /st", ""),
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
    // Whoever is in a room has all the time.
    let mut client = server.join("").await;
    sleep(Duration::from_millis(1500)).await;
    client.say("still here").await;
    client.expect("still here").await;
}

/// Asks for the status until there is a place again.
async fn until_ok(server: &Server) {
    soon("there is a place", async {
        while server.get("/status").await.status != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_are_counted_and_one_too_many_gets_503() {
    let server = Server::guest(&echo(), &["--max-connections", "3"]);
    let mut first = server.join("/r").await;
    // Whatever they are.
    let idle = TcpStream::connect(&server.address)
        .await
        .expect("the server listens");
    let raw = RawClient::join(&server, "/s").await;
    for _ in 0..10 {
        let Response { status, head, body } = server.get("/status").await;
        assert_eq!(status, 503);
        assert!(head.contains("retry-after:"), "{head}");
        assert_eq!(body, "the server has 3 connections and takes no more\n");
    }
    first.say("hello").await;
    first.expect("hello").await;
    drop(idle);
    until_ok(&server).await;
    drop(raw);
    let mut second = soon("there is another place", async {
        loop {
            match server.try_join("/r").await {
                Ok(client) => break client,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    second.say("hello").await;
    second.expect("hello").await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn there_may_be_more_connections_than_files_at_first() {
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
        client.say("hello").await;
        client.expect("hello").await;
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn no_address_takes_all_the_places() {
    let server = Server::guest(&echo(), &["--max-connections-per-address", "2"]);
    let _both = [server.join("/r").await, server.join("/r").await];
    let refused = server.get("/status").await;
    assert_eq!(refused.status, 429);
    assert_eq!(
        refused.body,
        "your address has 2 connections and may have no more\n"
    );
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.2:0".parse().expect("an address"))
        .expect("all of 127/8 is this machine");
    let mut other = socket
        .connect(server.address.parse().expect("an address"))
        .await
        .expect("it listens");
    other
        .write_all(b"GET /status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .expect("it reads");
    let mut answer = String::new();
    soon("an answer", other.read_to_string(&mut answer))
        .await
        .expect("text");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn who_connects_too_often_gets_429_for_a_while() {
    let server = Server::guest(&echo(), &["--connect-rate", "1", "--connect-burst", "5"]);
    let mut client = server.join("/r").await;
    let mut refused = None;
    for _ in 0..100 {
        let answer = server.get("/status").await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a hundred take less than a hundred seconds");
    assert_eq!(refused.status, 429);
    assert_eq!(
        refused.body,
        "your address connects more than 1 times a second\n"
    );
    // Whoever is in is not asked.
    client.say("hello").await;
    client.expect("hello").await;
    until_ok(&server).await;
}

#[tokio::test]
async fn heads_are_bounded_and_garbage_is_refused() {
    let server = Server::bundled("echo-c", &[]);
    let long = "x".repeat(64 << 10);
    let many: String = (0..1000)
        .map(|number| format!("h{number}: x\r\n"))
        .collect();
    let cases = [
        (
            "a long header",
            format!("GET /status HTTP/1.1\r\nHost: a\r\nx: {long}\r\n\r\n"),
            [431, 431],
        ),
        (
            "many headers",
            format!("GET /status HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
            [431, 431],
        ),
        (
            "a long address",
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
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
            "POST /status HTTP/1.1\r\nHost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"
                .to_owned(),
            [400, 400],
        ),
    ];
    for (what, request, statuses) in cases {
        let answer = server.ask(request.as_bytes()).await;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        assert!(statuses.contains(&status), "{what}: {answer}");
    }
    // A body that nobody wants is not waited for.
    let post = "POST /rooms HTTP/1.1\r\nHost: a\r\nconnection: close\r\ncontent-length: 1000000000\r\n\r\nx";
    assert!(
        server
            .ask(post.as_bytes())
            .await
            .starts_with("HTTP/1.1 405")
    );
    assert_eq!(server.get("/status").await.status, 200);
}

#[tokio::test]
async fn who_does_not_take_an_answer_is_given_up() {
    let folder = Folder::new();
    // More than the buffers of both sides hold.
    folder.write("large", vec![0; 64 << 20]);
    let site = folder.0.to_str().expect("UTF-8");
    let server = Server::bundled("echo-c", &["--static", site, "-t", "1"]);
    let mut deaf = TcpStream::connect(&server.address)
        .await
        .expect("the server listens");
    deaf.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .expect("the server reads");
    server.until_logged("has failed").await;
    let mut taken = Vec::new();
    soon("the end", deaf.read_to_end(&mut taken))
        .await
        .expect("an orderly end");
    assert!(taken.len() < 64 << 20, "{}", taken.len());
}

#[tokio::test]
async fn tokens_of_clients_that_are_there_are_not_pushed_out() {
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
    // The latest of those that have gone is known, and the first is not.
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
