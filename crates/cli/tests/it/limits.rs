//! The limits that operators set.

use super::{Server, TempDir, bundled_path, tool};
use crate::support::{ENV, echo, guest_0_2};
use std::process::Command;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn rooms_over_the_limit_close_with_1013() {
    // The limit spans all workers.
    let args = ["--max-rooms", "3", "--workers", "4", "--room-idle", "1"];
    let server = Server::guest(&echo(), &args);
    let mut clients = [
        server.join("/1").await,
        server.join("/2").await,
        server.join("/3").await,
    ];
    for client in &mut clients {
        // The echo shows that the room is open.
        client.send("hello").await;
        client.expect("hello").await;
    }
    let [first, _second, _third] = clients;
    for room in ["/4", "/5", "/6"] {
        let (code, reason) = server.join(room).await.closed().await;
        assert_eq!(code, 1013);
        assert!(reason.contains("limit of 3 rooms"), "{reason}");
    }
    // Open rooms still admit clients, and closing a room makes space for another.
    let mut another = server.join("/2").await;
    another.send("hello").await;
    another.expect("hello").await;
    first.leave().await;
    server
        .until_room("1", "the room is closed", |room| room.is_none())
        .await;
    let mut fourth = server.join("/4").await;
    fourth.send("hello").await;
    fourth.expect("hello").await;
}

#[tokio::test]
async fn a_full_room_closes_with_1013() {
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
    // The room did not see the third.
    first.expect("guest2 left.").await;
    let mut fourth = server.join("/r").await;
    assert!(fourth.receive_text().await.starts_with("Welcome, guest"));
}

#[tokio::test]
async fn a_room_id_over_the_limit_closes_with_1008() {
    let server = Server::guest(&echo(), &[]);
    let mut longest = server.join(&format!("/{}", "x".repeat(256))).await;
    longest.send("hello").await;
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
    // It has one page, asks for another, and replies if it gets none.
    let message = "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1))
        (then (call $send_message (local.get 0) (i32.const 16) (i32.const 7))))";
    let data = r#"(data (i32.const 16) "refused")"#;
    let guest = guest_0_2(ENV, &[("message", message)], data);
    let server = Server::guest(&guest, &["--max-memory-bytes", "65536"]);
    let mut client = server.join("").await;
    client.send("more").await;
    assert_eq!(client.receive_text().await, "refused");
}

#[test]
fn a_module_over_a_limit_is_refused_with_its_name() {
    let guest = guest_0_2(ENV, &[], "").replacen("\"memory\") 1)", "\"memory\") 2)", 1);
    let folder = TempDir::new();
    let path = folder.write("large.wat", guest);
    let path = path.to_str().expect("UTF-8");
    let served = tool(&["serve", path, "--port", "0", "--max-memory-bytes", "65536"]);
    assert!(!served.status.success());
    assert_eq!(
        String::from_utf8_lossy(&served.stderr),
        "error: cannot load the module: the module has 131072 bytes of initial memory, more than the \
         limit of 65536\n"
    );
}

#[tokio::test]
async fn a_room_id_over_the_limit_is_logged() {
    let server = Server::guest(&echo(), &[]);
    let id = "x".repeat(257);
    assert_eq!(server.join(&format!("/{id}")).await.closed().await.0, 1008);
    let id = "x".repeat(256);
    server
        .until_logged(&format!(
            "cannot open room \"{id}…\": the room's id is 257 bytes long, more than the limit of 256"
        ))
        .await;
}

#[tokio::test]
async fn why_a_room_cannot_start_is_in_the_close_reason_and_the_log() {
    let loops = "(func $start (loop (br 0))) (start $start)";
    let segment = r#"(data (i32.const 65535) "ab")"#;
    for (more, why) in [
        (
            loops,
            "the guest failed in `start`: one event used more than 100000 units of fuel",
        ),
        (
            segment,
            "the guest failed in `instantiate`: memory access out of bounds",
        ),
    ] {
        let server = Server::guest(
            &guest_0_2("", &[], more),
            &["--max-fuel-per-event", "100000"],
        );
        let (code, reason) = server.join("/r").await.closed().await;
        assert_eq!(code, 1011);
        assert_eq!(reason, why);
        server
            .until_logged(&format!("closed room \"r\": {why}"))
            .await;
    }
}

/// On each text, the guest sends 16 numbered messages of 1 KiB to everybody but the sender, and
/// then `done` to the sender. On a disconnect it sends `gone` to everybody.
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
async fn a_slow_client_delays_no_other_and_closes_with_1013() {
    let server = Server::guest(&busy_room(), &["--max-queued-messages", "64", "-t", "3600"]);
    let [mut speaker, mut reader, mut slow] = server.join_all("r").await;
    let mut numbers = 0_u32..;
    // The slow client never reads and does not time out, so a server that waited for it would never
    // reply to the speaker.
    let rounds = loop {
        speaker.send("go").await;
        let reply = speaker.receive_text().await;
        if reply == "gone" {
            break numbers.start / 16;
        }
        assert_eq!(reply, "done");
        for number in numbers.by_ref().take(16) {
            assert_eq!(
                reader.receive().await.into_data()[..4],
                number.to_le_bytes()
            );
        }
        // Socket buffers take some MB before anything is queued at the server.
        assert!(
            numbers.start < 64 << 10,
            "64 MiB were accepted for a client that does not read"
        );
    };
    assert!(rounds >= 4, "{rounds}: the queue holds four rounds");
    let (code, reason) = slow.closed().await;
    assert_eq!(
        (code, reason.as_str()),
        (1013, "too slow: the send queue is full")
    );
    speaker.expect("done").await;
    speaker.send("go").await;
    speaker.expect("done").await;
}

#[tokio::test]
async fn queued_bytes_of_a_slow_client_are_bounded() {
    let server = Server::guest(&busy_room(), &["--max-queued-bytes", "65536"]);
    let [mut speaker, mut slow] = server.join_all("r").await;
    for round in 0.. {
        speaker.send("go").await;
        if speaker.receive_text().await == "gone" {
            break;
        }
        assert!(
            round < 4096,
            "64 MiB were accepted for a client that does not read"
        );
    }
    assert_eq!(slow.closed().await.0, 1013);
}

#[tokio::test]
async fn one_message_may_exceed_the_queue_limit() {
    let server = Server::bundled("echo-c", &["--max-queued-bytes", "1000"]);
    let mut client = server.join("").await;
    let long = Message::binary(vec![3; 100_000]);
    client.send(long.clone()).await;
    assert_eq!(client.receive().await, long);
}

#[tokio::test]
async fn an_event_may_fill_the_outbox() {
    // The default limits of one event: 4,096 messages, 4 MiB.
    let message = "(local $i i32)
        (loop $again
            (call $send_binary (i32.const 0) (i32.const 0) (i32.const 1024))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const 4096))))";
    let server = Server::guest(&guest_0_2(ENV, &[("message", message)], ""), &[]);
    let mut client = server.join("").await;
    client.send("go").await;
    for _ in 0..4096 {
        assert_eq!(client.receive().await.into_data().len(), 1024);
    }
}

#[tokio::test]
async fn what_a_client_sends_forges_no_line_of_the_log() {
    // At this level, dependencies log messages as they are.
    let mut command = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"));
    command.env("RUST_LOG", "trace");
    let server = Server::run(command, &bundled_path("echo-c"), &[]);
    let mut client = server.join("/%1b%0a%22").await;
    client.send("\x1b[2J\n[forged]\u{202e}").await;
    client.receive().await;
    server.until_logged(r"\x1b[2J\n[forged]\u{202e}").await;
    let log = server.log.lock().expect("not poisoned").clone();
    assert!(!log.contains(['\x1b', '\u{202e}']), "{log:?}");
    assert!(log.lines().all(|line| line.starts_with("[20")), "{log}");
}

#[tokio::test]
async fn what_a_room_prints_is_named_and_bounded() {
    let import = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))"#;
    // Standard error, whose lines stay unfinished.
    let message = "
        (i32.store (i32.const 8) (local.get 1)) (i32.store (i32.const 12) (local.get 2))
        (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 16)))";
    // 60 KB of `x` again and again, until its fuel is gone.
    let binary = "
        (memory.fill (i32.const 1024) (i32.const 120) (i32.const 60000))
        (i32.store (i32.const 8) (i32.const 1024)) (i32.store (i32.const 12) (i32.const 60000))
        (loop $again
            (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
            (br $again))";
    let guest = guest_0_2(import, &[("message", message), ("binary", binary)], "");
    let server = Server::guest(&guest, &["--max-log-bytes-per-event", "8000"]);
    let mut client = server.join("/lobby%22%0a").await;
    client.send("größer\x1b[2J").await;
    server
        .until_logged(r#"room "lobby\"\n": größer\x1b[2J"#)
        .await;
    client.send(Message::binary(vec![1])).await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1011);
    assert!(reason.contains("fuel"), "{reason}");
    server
        .until_logged("bytes that it printed were dropped; its limits are 8000 bytes an event")
        .await;
    let log = server.log.lock().expect("not poisoned").clone();
    assert!(log.matches('x').count() < 8_000);
}

#[tokio::test]
async fn a_broadcast_beyond_the_queues_disconnects_nobody_who_reads() {
    const CLIENTS: usize = 20;
    // Sends 100 short messages to everybody, which are more than a queue may have.
    let message = "(local $left i32)
        (local.set $left (i32.const 100))
        (loop $again
            (call $send_binary (i32.const 0) (i32.const 0) (i32.const 1000))
            (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))";
    let server = Server::guest(
        &guest_0_2(ENV, &[("message", message)], ""),
        &[
            "--workers",
            "1",
            "--max-queued-messages",
            "10",
            "--max-total-queued-bytes",
            "100000",
        ],
    );
    let mut clients = server.join_all::<CLIENTS>("room").await;
    clients[0].send("go").await;
    for client in &mut clients {
        for _ in 0..100 {
            assert_eq!(client.receive().await.len(), 1000);
        }
    }
}
