//! How connections end, and with which close code (RFC 6455, 7.4.1).

use super::{BINARY, CLOSE, CONTINUATION, FINAL, RawClient, Server, TEXT, TIME};
use crate::support::{ENV, echo, guest_0_2};
use futures_util::{SinkExt, StreamExt};
use std::time::{Duration, Instant};
use tokio::{io::AsyncReadExt, time::timeout};
use tokio_tungstenite::tungstenite::Message;

/// A guest that says on each text: the number of texts so far, `COUNT` times, 1024 bytes each, to
/// whom it came from.
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

/// A guest that fails on the text `boom` and else says how often it was connected to.
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
async fn a_client_that_says_goodbye_is_answered_and_the_room_told() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let mut a = server.join("/r").await;
    a.expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    let mut b = RawClient::join(&server, "/r").await;
    a.expect("guest2 joined.").await;
    // What it said before it went is heard before it is gone.
    b.frame(FINAL | TEXT, b"bye").await;
    b.frame(FINAL | CLOSE, &1000_u16.to_be_bytes()).await;
    a.expect("guest2: bye").await;
    a.expect("guest2 left.").await;
    assert_eq!(b.closed().await, 1000);
    assert_eq!(b.0.read(&mut [0]).await.expect("an orderly end"), 0);
}

#[tokio::test]
async fn a_client_that_vanishes_has_left() {
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
async fn pings_come_every_interval() {
    let server = Server::bundled("echo-c", &["-i", "1"]);
    let start = Instant::now();
    let mut client = server.join("").await;
    for number in 1..=2 {
        let message = timeout(TIME, client.0.next()).await.expect("a ping comes");
        assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
        assert!(
            start.elapsed() >= Duration::from_secs(number),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_silent_client_is_dropped_and_the_room_told() {
    let server = Server::bundled("chat-rust-0.4", &["-i", "1", "-t", "2"]);
    let mut watcher = server.join("/r").await;
    watcher
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    let start = Instant::now();
    let mut silent = RawClient::join(&server, "/r").await;
    watcher.expect("guest2 joined.").await;
    // The watcher answers pings while it waits, and stays.
    watcher.expect("guest2 left.").await;
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(silent.closed().await, 1008);
    watcher.say("alone").await;
    watcher.expect("guest1: alone").await;
}

#[tokio::test]
async fn a_client_that_is_not_read_from_is_not_silent() {
    // The first text keeps the room busy for longer than the timeout, by wall time.
    let spin = "(loop $again (br $again))";
    let busy = guest_0_2(ENV, &[("message", spin)], "");
    let server = Server::guest(
        &busy,
        &["-i", "1", "-t", "1", "--max-fuel-per-event", "150000000"],
    );
    let mut client = server.join("").await;
    for _ in 0..200 {
        client.say("work").await;
    }
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1011, "{reason}");
}

#[tokio::test]
async fn a_message_over_the_limit_closes_with_1009() {
    let server = Server::bundled("echo-c", &["--max-message-bytes", "1024"]);
    let mut client = server.join("").await;
    let longest = Message::binary(vec![1; 1024]);
    client.say(longest.clone()).await;
    assert_eq!(client.hear().await, longest);
    client.say(Message::binary(vec![1; 1025])).await;
    let (code, reason) = client.closed().await;
    assert_eq!(
        (code, reason.as_str()),
        (1009, "messages may have 1024 bytes")
    );

    // In fragments that are each below.
    let mut client = RawClient::join(&server, "").await;
    client.frame(BINARY, &[1; 512]).await;
    client.frame(FINAL | CONTINUATION, &[1; 512]).await;
    assert_eq!(client.hear().await, (FINAL | BINARY, vec![1; 1024]));
    client.frame(TEXT, &[b'x'; 600]).await;
    client.frame(FINAL | CONTINUATION, &[b'x'; 600]).await;
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test]
async fn a_message_far_over_the_limit_is_no_reset() {
    let server = Server::bundled("echo-c", &[]);
    let mut client = RawClient::join(&server, "").await;
    // More than the buffers of both sides hold, so that the server has to take it.
    client.frame(FINAL | BINARY, &vec![1; 32 << 20]).await;
    assert_eq!(client.closed().await, 1009);
    assert_eq!(client.0.read(&mut [0]).await.expect("an orderly end"), 0);
}

#[tokio::test]
async fn text_that_is_not_utf_8_closes_with_1007() {
    let server = Server::bundled("echo-c", &[]);
    let mut client = RawClient::join(&server, "").await;
    client.frame(FINAL | TEXT, b"a\xff").await;
    assert_eq!(client.closed().await, 1007);

    // A character may be split over two fragments; half of one is none.
    let mut client = RawClient::join(&server, "").await;
    client.frame(TEXT, "é".as_bytes().split_at(1).0).await;
    client
        .frame(FINAL | CONTINUATION, "é".as_bytes().split_at(1).1)
        .await;
    assert_eq!(client.hear().await, (FINAL | TEXT, "é".into()));
    client.frame(TEXT, "é".as_bytes().split_at(1).0).await;
    client.frame(FINAL | CONTINUATION, b"").await;
    assert_eq!(client.closed().await, 1007);
}

#[tokio::test]
async fn what_is_no_websocket_closes_with_1002() {
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
async fn a_room_that_fails_closes_all_with_1011_and_begins_anew() {
    let server = Server::guest(&fragile(), &[]);
    let mut clients: [_; 3] = server.join_all("r").await;
    let mut other = server.join("/other").await;
    clients[1].say("how many").await;
    clients[1].expect("3").await;
    clients[0].say("how many").await;
    clients[0].say("boom").await;
    // What the guest said before it failed is still to be had.
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
    fresh.say("how many").await;
    fresh.expect("1").await;
    other.say("how many").await;
    other.expect("1").await;
}

#[tokio::test]
async fn a_room_that_fails_at_once_closes_with_1011() {
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

#[tokio::test]
async fn a_room_that_never_comes_back_runs_out_of_fuel_and_delays_nobody() {
    let message = "(if (i32.eq (i32.load8_u (local.get 1)) (i32.const 108))
                       (then (loop $again (br $again))))
                   (call $send_message (local.get 0) (local.get 1) (local.get 2))";
    let guest = guest_0_2(ENV, &[("message", message)], "");
    let server = Server::guest(
        &guest,
        &["--workers", "1", "--max-fuel-per-event", "100000000"],
    );
    let mut lost = server.join("/lost").await;
    let mut other = server.join("/other").await;
    lost.say("loop").await;
    server
        .until_room("lost", "it is busy", |room| {
            room.is_some_and(|room| room["state"] == "busy")
        })
        .await;
    for number in 0..5 {
        other.say(format!("{number}")).await;
        other.expect(&format!("{number}")).await;
    }
    assert_eq!(
        server.room("lost").await.expect("it is still at it")["state"],
        "busy"
    );
    let (code, reason) = lost.closed().await;
    assert_eq!(code, 1011);
    assert!(
        reason.contains("one event used more than 100000000 units of fuel"),
        "{reason}"
    );
}

/// Stops a server by a signal while much is queued for one client and another has nothing to do.
async fn stops(signal: &str) {
    const COUNT: u32 = 3500;
    let mut server = Server::guest(&flood(COUNT), &[]);
    let mut reader = server.join("/r").await;
    let mut quiet = server.join("/s").await;
    reader.say("go").await;
    // Now all of it is queued: an event is sent as a whole.
    let first = reader.hear().await.into_data();
    assert_eq!(first[..4], COUNT.to_le_bytes());
    server.signal(signal);
    for left in (1..COUNT).rev() {
        let message = reader.hear().await.into_data();
        assert_eq!(message.len(), 1024, "{left} were to come: {message:?}");
        assert_eq!(message[..4], left.to_le_bytes());
    }
    let expected = (1001, "the server is stopping".to_owned());
    assert_eq!(reader.closed().await, expected);
    assert_eq!(quiet.closed().await, expected);
    drop((reader, quiet));
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_closes_with_1001_after_what_is_queued() {
    stops("-TERM").await;
}

#[tokio::test]
async fn sigint_closes_with_1001_after_what_is_queued() {
    stops("-INT").await;
}

#[tokio::test]
async fn a_client_that_goes_on_talking_hears_the_last_words() {
    let mut server = Server::guest(&echo(), &[]);
    let (mut sink, mut stream) = server.join("").await.0.split();
    let talk = async {
        let message = Message::text("and another thing");
        while sink.send(message.clone()).await.is_ok() {}
        // What it was told is for the other half to hear.
        core::future::pending::<u16>().await
    };
    let listen = async {
        for number in 0.. {
            match stream
                .next()
                .await
                .expect("the connection stands")
                .expect("the connection stands")
            {
                Message::Close(frame) => return frame.expect("a code").code.into(),
                _ if number == 100 => server.signal("-TERM"),
                _ => {}
            }
        }
        0
    };
    let code = timeout(TIME, async {
        tokio::select! {
            code = listen => code,
            code = talk => code,
        }
    });
    assert_eq!(code.await.expect("it is told"), 1001_u16);
    drop((sink, stream));
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn nobody_keeps_a_server_that_stops() {
    let mut server = Server::guest(&flood(3500), &[]);
    // One who takes nothing of what is sent, one who says nothing, one in the middle of a request.
    let mut deaf = RawClient::join(&server, "/r").await;
    deaf.frame(FINAL | TEXT, b"go").await;
    deaf.frame(FINAL | TEXT, b"go").await;
    let _silent = RawClient::join(&server, "/s").await;
    let mut idle = tokio::net::TcpStream::connect(&server.address)
        .await
        .expect("it listens");
    tokio::io::AsyncWriteExt::write_all(&mut idle, b"GET /status HTTP/1.1\r\n")
        .await
        .expect("it reads");
    server
        .until_room("r", "all is sent", |room| {
            room.is_some_and(|room| room["messages_out"] == 7000)
        })
        .await;
    let start = Instant::now();
    server.signal("-TERM");
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
}
