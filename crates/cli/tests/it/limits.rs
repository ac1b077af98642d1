//! The bounds that an operator sets, and what is beyond them.

use super::Server;
use crate::support::{ENV, echo, guest_0_2};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn too_many_rooms_are_refused_with_1013() {
    // Whichever of the workers they are on.
    let args = ["--max-rooms", "3", "--workers", "4", "--room-idle", "1"];
    let server = Server::guest(&echo(), &args);
    let mut clients = [
        server.join("/1").await,
        server.join("/2").await,
        server.join("/3").await,
    ];
    for client in &mut clients {
        // A room is open when it answers.
        client.say("hello").await;
        client.expect("hello").await;
    }
    let [first, _second, _third] = clients;
    for room in ["/4", "/5", "/6"] {
        let (code, reason) = server.join(room).await.closed().await;
        assert_eq!(code, 1013);
        assert!(reason.contains("limit of 3 rooms"), "{reason}");
    }
    // There is room for another client, and for another room when one has gone.
    let mut another = server.join("/2").await;
    another.say("hello").await;
    another.expect("hello").await;
    first.leave().await;
    server
        .until_room("1", "the room is closed", |room| room.is_none())
        .await;
    let mut fourth = server.join("/4").await;
    fourth.say("hello").await;
    fourth.expect("hello").await;
}

#[tokio::test]
async fn a_full_room_refuses_with_1013() {
    let server = Server::bundled("chat-rust-0.4", &["--max-clients", "2"]);
    let mut first = server.join("/r").await;
    first
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    let second = server.join("/r").await;
    first.expect("guest2 joined.").await;
    let (code, reason) = server.join("/r").await.closed().await;
    assert_eq!(code, 1013);
    assert!(reason.contains("limit of 2 clients"), "{reason}");
    second.leave().await;
    // Nothing was heard of the third.
    first.expect("guest2 left.").await;
    let mut fourth = server.join("/r").await;
    assert!(fourth.hear_text().await.starts_with("Welcome, guest"));
}

#[tokio::test]
async fn a_room_id_that_is_too_long_is_refused_with_1008() {
    let server = Server::guest(&echo(), &[]);
    let mut longest = server.join(&format!("/{}", "x".repeat(256))).await;
    longest.say("hello").await;
    longest.expect("hello").await;
    let (code, reason) = server
        .join(&format!("/{}", "x".repeat(257)))
        .await
        .closed()
        .await;
    assert_eq!(code, 1008);
    assert!(reason.contains("257 bytes long"), "{reason}");
}

#[tokio::test]
async fn memory_is_bounded() {
    // Two pages at the start are more than one.
    let guest = guest_0_2(ENV, &[], "").replacen("\"memory\") 1)", "\"memory\") 2)", 1);
    let server = Server::guest(&guest, &["--max-memory-bytes", "65536"]);
    let (code, _) = server.join("").await.closed().await;
    assert_eq!(code, 1011);
}

/// A guest that sends on each text 16 messages of 1 KiB to everybody but the sender, numbered, and
/// then `done` to the sender; and tells everybody, by a text, when a client has gone.
fn busy_room() -> String {
    let message = "(local $i i32)
        (loop $again
            (i32.store (i32.const 1024) (global.get $number))
            (global.set $number (i32.add (global.get $number) (i32.const 1)))
            (call $send_binary (i32.sub (i32.const 0) (local.get 0)) (i32.const 1024) (i32.const 1024))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const 16))))
        (call $send_message (local.get 0) (i32.const 16) (i32.const 4))";
    let gone = "(call $send_message (i32.const 0) (i32.const 20) (i32.const 4))";
    let data = r#"(data (i32.const 16) "donegone") (global $number (mut i32) (i32.const 0))"#;
    guest_0_2(ENV, &[("message", message), ("disconnect", gone)], data)
}

#[tokio::test]
async fn a_slow_client_delays_nobody_and_is_closed_with_1013() {
    let server = Server::guest(&busy_room(), &["--max-queued-messages", "64"]);
    let [mut speaker, mut reader, mut slow] = server.join_all("r").await;
    let mut numbers = 0_u32..;
    let mut slowest = Duration::ZERO;
    let rounds = loop {
        let start = Instant::now();
        speaker.say("go").await;
        let answer = speaker.hear_text().await;
        slowest = slowest.max(start.elapsed());
        if answer == "gone" {
            break numbers.start / 16;
        }
        assert_eq!(answer, "done");
        for number in numbers.by_ref().take(16) {
            assert_eq!(reader.hear().await.into_data()[..4], number.to_le_bytes());
        }
        // The buffers of the operating system take some MB before anything waits at the server.
        assert!(
            numbers.start < 64 << 10,
            "64 MiB were taken by one who does not read"
        );
    };
    assert!(rounds >= 4, "{rounds}: the queue holds four rounds");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let (code, reason) = slow.closed().await;
    assert_eq!(
        (code, reason.as_str()),
        (1013, "too slow: too many messages were waiting")
    );
    speaker.expect("done").await;
    speaker.say("go").await;
    speaker.expect("done").await;
}

#[tokio::test]
async fn bytes_that_wait_for_a_slow_client_are_bounded_too() {
    let server = Server::guest(&busy_room(), &["--max-queued-bytes", "65536"]);
    let [mut speaker, mut slow] = server.join_all("r").await;
    for round in 0.. {
        speaker.say("go").await;
        if speaker.hear_text().await == "gone" {
            break;
        }
        assert!(round < 4096, "64 MiB were taken by one who does not read");
    }
    assert_eq!(slow.closed().await.0, 1013);
}

#[tokio::test]
async fn one_message_may_be_longer_than_what_may_wait() {
    let server = Server::bundled("echo-c", &["--max-queued-bytes", "1000"]);
    let mut client = server.join("").await;
    let long = Message::binary(vec![3; 100_000]);
    client.say(long.clone()).await;
    assert_eq!(client.hear().await, long);
}

#[tokio::test]
async fn an_event_may_say_as_much_as_a_room_may() {
    // 4,096 messages and 4 MiB are the limits of one event.
    let message = "(local $i i32)
        (loop $again
            (call $send_binary (i32.const 0) (i32.const 0) (i32.const 1024))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const 4096))))";
    let server = Server::guest(&guest_0_2(ENV, &[("message", message)], ""), &[]);
    let mut client = server.join("").await;
    client.say("go").await;
    for _ in 0..4096 {
        assert_eq!(client.hear().await.into_data().len(), 1024);
    }
}
