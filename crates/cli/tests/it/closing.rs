//! Close codes (RFC 6455, 7.4.1) and the end of connections.

use super::{BINARY, CLOSE, CONTINUATION, FINAL, RawClient, Server, TEXT, eventually};
use crate::support::{ENV, echo, guest_0_2};
use futures_util::{SinkExt, StreamExt};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

/// On each text, the guest sends `count` messages of 1,024 bytes to the sender, numbered down to 1.
fn flood(count: u32) -> String {
    let message = format!(
        "(local $left i32)
         (local.set $left (i32.const {count}))
         (loop $again
             (i32.store (i32.const 16) (local.get $left))
             (call $send_binary (local.get 0) (i32.const 16) (i32.const 1024))
             (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"
    );
    guest_0_2(ENV, &[("message", &message)], "")
}

/// A guest that fails on the text `boom`, and replies to others with the number of connects.
fn fragile() -> String {
    let say = "(if (i32.eq (i32.load8_u (local.get 1)) (i32.const 98)) (then unreachable))
               (i32.store8 (i32.const 16) (i32.add (global.get $connects) (i32.const 48)))
               (call $send_message (local.get 0) (i32.const 16) (i32.const 1))";
    let count = "(global.set $connects (i32.add (global.get $connects) (i32.const 1)))";
    guest_0_2(
        ENV,
        &[("message", say), ("connect", count)],
        "(global $connects (mut i32) (i32.const 0))",
    )
}

#[tokio::test]
async fn a_client_that_closes_gets_a_close_frame_and_its_room_a_disconnect() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let mut a = server.join("/r").await;
    a.expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    let mut b = RawClient::join(&server, "/r").await;
    a.expect("guest2 joined.").await;
    // A message before the close is handled before the disconnect.
    b.frame(FINAL | TEXT, b"bye").await;
    b.frame(FINAL | CLOSE, &1000_u16.to_be_bytes()).await;
    a.expect("guest2: bye").await;
    a.expect("guest2 left.").await;
    assert_eq!(b.closed().await, 1000);
    assert_eq!(
        b.0.read(&mut [0]).await.expect("the connection was reset"),
        0
    );
}

#[tokio::test]
async fn replies_precede_the_reply_to_a_close() {
    // Each text takes several slices.
    let message = "(local $left i32)
        (local.set $left (i32.const 2000000))
        (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $send_message (local.get 0) (local.get 1) (local.get 2))";
    let server = Server::guest(&guest_0_2(ENV, &[("message", message)], ""), &[]);
    let mut client = RawClient::join(&server, "/r").await;
    for text in ["one", "two", "three"] {
        client.frame(FINAL | TEXT, text.as_bytes()).await;
    }
    client.frame(FINAL | CLOSE, &4000_u16.to_be_bytes()).await;
    for text in ["one", "two", "three"] {
        assert_eq!(client.receive().await, (FINAL | TEXT, text.into()));
    }
    let close = (FINAL | CLOSE, 4000_u16.to_be_bytes().into());
    assert_eq!(client.receive().await, close);
}

#[tokio::test]
async fn all_that_a_message_causes_precedes_the_reply_to_a_close() {
    const COUNT: u32 = 2000;
    // More than a room may send in one turn: each message goes to all clients.
    let everybody =
        flood(COUNT).replace("$send_binary (local.get 0)", "$send_binary (i32.const 0)");
    let server = Server::guest(&everybody, &[]);
    let _others: [_; 5] = server.join_all("r").await;
    let mut client = RawClient::join(&server, "/r").await;
    client.frame(FINAL | TEXT, b"go").await;
    client.frame(FINAL | CLOSE, &1000_u16.to_be_bytes()).await;
    for left in (1..=COUNT).rev() {
        let (first, message) = client.receive().await;
        assert_eq!(
            (first, message.len()),
            (FINAL | BINARY, 1024),
            "{left} are missing"
        );
        assert_eq!(message[..4], left.to_le_bytes());
    }
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn a_client_that_closed_gets_its_reply_when_its_room_fails() {
    let server = Server::guest(&fragile(), &[]);
    let mut client = RawClient::join(&server, "/r").await;
    client.frame(FINAL | TEXT, b"how many").await;
    client.frame(FINAL | TEXT, b"boom").await;
    client.frame(FINAL | CLOSE, &4000_u16.to_be_bytes()).await;
    assert_eq!(client.receive().await, (FINAL | TEXT, "1".into()));
    assert!([1011, 4000].contains(&client.closed().await));
    let end = client.0.read(&mut [0]).await;
    assert_eq!(end.expect("the connection was reset"), 0);
}

#[tokio::test]
async fn a_lost_connection_disconnects_the_client() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let mut a = server.join("/r").await;
    a.expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    let b = RawClient::join(&server, "/r").await;
    a.expect("guest2 joined.").await;
    drop(b);
    a.expect("guest2 left.").await;
}

#[tokio::test]
async fn pings_are_sent_every_interval() {
    let server = Server::bundled("echo-c", &["-i", "1"]);
    let start = Instant::now();
    let mut client = server.join("").await;
    for number in 1..=2 {
        let message = eventually("a ping", client.0.next()).await;
        assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
        assert!(
            start.elapsed() >= Duration::from_secs(number),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_silent_client_is_disconnected() {
    let server = Server::bundled("chat-rust-0.4", &["-i", "1", "-t", "4"]);
    let mut watcher = server.join("/r").await;
    watcher
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    let start = Instant::now();
    let mut silent = RawClient::join(&server, "/r").await;
    watcher.expect("guest2 joined.").await;
    // The watcher replies to pings while it waits, and stays.
    watcher.expect("guest2 left.").await;
    assert!(
        start.elapsed() >= Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(silent.closed().await, 1008);
    watcher.send("alone").await;
    watcher.expect("guest1: alone").await;
}

#[tokio::test]
async fn a_client_under_backpressure_is_not_silent() {
    // The first text keeps the room busy for longer than the heartbeat timeout.
    let spin = "(loop $again (br $again))";
    let busy = guest_0_2(ENV, &[("message", spin)], "");
    let server = Server::guest(
        &busy,
        &["-i", "1", "-t", "2", "--max-fuel-per-event", "200000000"],
    );
    let mut client = server.join("").await;
    for _ in 0..200 {
        client.send("work").await;
    }
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1011, "{reason}");
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_1009() {
    let server = Server::bundled("echo-c", &["--max-message-bytes", "1024"]);
    let mut client = server.join("").await;
    let longest = Message::binary(vec![1; 1024]);
    client.send(longest.clone()).await;
    assert_eq!(client.receive().await, longest);
    client.send(Message::binary(vec![1; 1025])).await;
    let (code, reason) = client.closed().await;
    assert_eq!(
        (code, reason.as_str()),
        (1009, "the message exceeds 1024 bytes")
    );

    // In fragments that are each below the limit.
    let mut client = RawClient::join(&server, "").await;
    client.frame(BINARY, &[1; 512]).await;
    client.frame(FINAL | CONTINUATION, &[1; 512]).await;
    assert_eq!(client.receive().await, (FINAL | BINARY, vec![1; 1024]));
    client.frame(TEXT, &[b'x'; 600]).await;
    client.frame(FINAL | CONTINUATION, &[b'x'; 600]).await;
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test]
async fn a_message_far_over_the_limit_causes_no_reset() {
    let server = Server::bundled("echo-c", &[]);
    let mut client = RawClient::join(&server, "").await;
    // Exceeds the socket buffers, so that the server has to read it.
    client.frame(FINAL | BINARY, &vec![1; 32 << 20]).await;
    assert_eq!(client.closed().await, 1009);
    assert_eq!(
        client
            .0
            .read(&mut [0])
            .await
            .expect("the connection was reset"),
        0
    );
}

#[tokio::test]
async fn text_that_is_not_utf_8_closes_with_1007() {
    let server = Server::bundled("echo-c", &[]);
    let mut client = RawClient::join(&server, "").await;
    client.frame(FINAL | TEXT, b"a\xff").await;
    assert_eq!(client.closed().await, 1007);

    // A character may be split over two fragments, but not end in half.
    let mut client = RawClient::join(&server, "").await;
    client.frame(TEXT, "é".as_bytes().split_at(1).0).await;
    client
        .frame(FINAL | CONTINUATION, "é".as_bytes().split_at(1).1)
        .await;
    assert_eq!(client.receive().await, (FINAL | TEXT, "é".into()));
    client.frame(TEXT, "é".as_bytes().split_at(1).0).await;
    client.frame(FINAL | CONTINUATION, b"").await;
    assert_eq!(client.closed().await, 1007);
}

#[tokio::test]
async fn protocol_errors_close_with_1002() {
    let server = Server::bundled("echo-c", &[]);
    let cases: [(&str, u8, &[u8]); 4] = [
        ("an unknown opcode", FINAL | 3, b""),
        ("a reserved bit", FINAL | 0x40 | TEXT, b"x"),
        ("a continuation of nothing", FINAL | CONTINUATION, b"x"),
        ("a ping in fragments", 9, b""),
    ];
    for (what, first, payload) in cases {
        let mut client = RawClient::join(&server, "").await;
        client.frame(first, payload).await;
        assert_eq!(client.closed().await, 1002, "{what}");
    }
}

#[tokio::test]
async fn a_faulted_room_closes_all_clients_with_1011_and_reopens_fresh() {
    let server = Server::guest(&fragile(), &[]);
    let mut clients: [_; 3] = server.join_all("r").await;
    let mut other = server.join("/other").await;
    clients[1].send("how many").await;
    clients[1].expect("3").await;
    clients[0].send("how many").await;
    clients[0].send("boom").await;
    // Messages before the fault are still delivered.
    clients[0].expect("3").await;
    for client in &mut clients {
        let (code, reason) = client.closed().await;
        assert_eq!(code, 1011);
        assert!(
            reason.starts_with("the guest failed in `message`: "),
            "{reason}"
        );
        assert!(reason.len() <= 123, "{reason}");
    }
    let mut fresh = server.join("/r").await;
    fresh.send("how many").await;
    fresh.expect("1").await;
    other.send("how many").await;
    other.expect("1").await;
}

#[tokio::test]
async fn a_fault_in_initialize_closes_with_1011() {
    let server = Server::guest(&guest_0_2(ENV, &[("initialize", "unreachable")], ""), &[]);
    for _ in 0..2 {
        let (code, reason) = server.join("/r").await.closed().await;
        assert_eq!(code, 1011);
        assert!(
            reason.starts_with("the guest failed in `initialize`: "),
            "{reason}"
        );
    }
    assert_eq!(server.rooms().await.len(), 0);
}

/// A guest that loops endlessly on texts that start with `l`, and echoes others.
fn looping() -> String {
    let message = "(if (i32.eq (i32.load8_u (local.get 1)) (i32.const 108))
                       (then (loop $again (br $again))))
                   (call $send_message (local.get 0) (local.get 1) (local.get 2))";
    guest_0_2(ENV, &[("message", message)], "")
}

#[tokio::test]
async fn an_endless_loop_runs_out_of_fuel() {
    let args = ["--max-fuel-per-event", "10000000"];
    let server = Server::guest(&looping(), &args);
    let mut client = server.join("").await;
    client.send("loop").await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1011);
    assert!(
        reason.contains("one event used more than 10000000 units of fuel"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_endless_loop_delays_no_other_room() {
    // More fuel than can be used during the test.
    let args = ["--workers", "1", "--max-fuel-per-event", "1000000000000000"];
    let server = Server::guest(&looping(), &args);
    let mut looping = server.join("/looping").await;
    let mut other = server.join("/other").await;
    looping.send("loop").await;
    server
        .until_room("looping", "it is busy", |room| {
            room.is_some_and(|room| room["state"] == "busy")
        })
        .await;
    for number in 0..5 {
        other.send(format!("{number}")).await;
        other.expect(&format!("{number}")).await;
    }
    let room = server.room("looping").await.expect("the room is open");
    assert_eq!(room["state"], "busy");
}

/// Signals a server while much is queued for one client and nothing for another.
async fn shutdown_drains_queues(signal: &str) {
    const COUNT: u32 = 3500;
    let mut server = Server::guest(&flood(COUNT), &[]);
    let mut reader = server.join("/r").await;
    let mut quiet = server.join("/s").await;
    reader.send("go").await;
    // The outputs of an event are queued together, so all are queued now.
    let first = reader.receive().await.into_data();
    assert_eq!(first[..4], COUNT.to_le_bytes());
    server.signal(signal);
    for left in (1..COUNT).rev() {
        let message = reader.receive().await.into_data();
        assert_eq!(message.len(), 1024, "{left} are missing: {message:?}");
        assert_eq!(message[..4], left.to_le_bytes());
    }
    let expected = (1001, "the server is stopping".to_owned());
    assert_eq!(reader.closed().await, expected);
    assert_eq!(quiet.closed().await, expected);
    drop((reader, quiet));
    assert_eq!(server.exited().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_drains_the_queues_and_closes_with_1001() {
    shutdown_drains_queues("-TERM").await;
}

#[tokio::test]
async fn sigint_drains_the_queues_and_closes_with_1001() {
    shutdown_drains_queues("-INT").await;
}

#[tokio::test]
async fn a_client_that_keeps_sending_gets_the_close_frame() {
    let mut server = Server::guest(&echo(), &[]);
    let (mut sink, mut stream) = server.join("").await.0.split();
    let talk = async {
        let message = Message::text("and another thing");
        while sink.send(message.clone()).await.is_ok() {}
        // The other half reads the close frame.
        core::future::pending::<u16>().await
    };
    let listen = async {
        for number in 0.. {
            match stream
                .next()
                .await
                .expect("the connection is open")
                .expect("the connection is open")
            {
                Message::Close(frame) => return frame.expect("a code").code.into(),
                _ if number == 100 => server.signal("-TERM"),
                _ => {}
            }
        }
        0
    };
    let code = eventually("the close frame", async {
        tokio::select! {
            code = listen => code,
            code = talk => code,
        }
    });
    assert_eq!(code.await, 1001_u16);
    drop((sink, stream));
    assert_eq!(server.exited().await.code(), Some(0));
}

#[tokio::test]
async fn no_client_can_block_the_shutdown() {
    // Only the timeouts of the shutdown itself can end these connections.
    let args = ["-t", "3600", "--handshake-timeout", "3600"];
    let mut server = Server::guest(&flood(1500), &args);
    // A client that reads nothing, one that sends nothing, and an unfinished request.
    let mut deaf = RawClient::join(&server, "/r").await;
    deaf.frame(FINAL | TEXT, b"go").await;
    deaf.frame(FINAL | TEXT, b"go").await;
    let _silent = RawClient::join(&server, "/s").await;
    let mut idle = tokio::net::TcpStream::connect(&server.address)
        .await
        .expect("it listens");
    tokio::io::AsyncWriteExt::write_all(&mut idle, b"GET /status HTTP/1.1\r\n")
        .await
        .expect("cannot write");
    server
        .until_room("r", "all messages are sent", |room| {
            room.is_some_and(|room| room["messages_out"] == 3000)
        })
        .await;
    server.signal("-TERM");
    assert_eq!(server.exited().await.code(), Some(0));
}

#[tokio::test]
#[cfg(unix)]
async fn a_process_that_was_stopped_takes_nobody_for_silent() {
    let server = Server::bundled("echo-c", &["-i", "1", "-t", "2"]);
    let mut client = server.join("").await;
    client.send("before").await;
    client.expect("before").await;
    server.signal("-STOP");
    // It could not answer a ping if it was sent one now.
    client.send("while it is stopped").await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    server.signal("-CONT");
    client.expect("while it is stopped").await;
    client.send("after").await;
    client.expect("after").await;
}
