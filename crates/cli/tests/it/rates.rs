//! Clients that send too much, or too slowly.
//!
//! Times are only ever compared from below: a server may be slow, but not too fast.

use super::{BINARY, CONTINUATION, FINAL, RawClient, Server, TEXT, soon};
use crate::support::echo;
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, time::sleep};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn who_sends_too_many_messages_is_slowed_down_and_loses_none() {
    // Nor is anybody who waits for his turn taken for silent.
    let args = [
        "--message-rate",
        "5",
        "--message-burst",
        "5",
        "-i",
        "1",
        "-t",
        "1",
    ];
    let server = Server::guest(&echo(), &args);
    let mut client = server.join("").await;
    let start = Instant::now();
    for number in 0..20 {
        client.say(format!("{number}")).await;
    }
    for number in 0..20 {
        client.expect(&format!("{number}")).await;
    }
    // Five at once, and five in each second after that.
    assert!(
        start.elapsed() >= Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn pings_are_messages_too() {
    let server = Server::guest(&echo(), &["--message-rate", "5", "--message-burst", "5"]);
    let mut client = server.join("").await;
    let start = Instant::now();
    for _ in 0..19 {
        client.say(Message::Ping(Default::default())).await;
    }
    client.say("done").await;
    client.expect("done").await;
    assert!(
        start.elapsed() >= Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn who_sends_too_many_bytes_is_slowed_down_and_loses_none() {
    let server = Server::guest(&echo(), &["--byte-rate", "10000", "--byte-burst", "1000"]);
    let mut client = server.join("").await;
    let start = Instant::now();
    for byte in 0..4 {
        client.say(Message::binary(vec![byte; 8000])).await;
    }
    for byte in 0..4 {
        assert_eq!(client.hear().await, Message::binary(vec![byte; 8000]));
    }
    // What is read last, 8 KiB at most, is not waited for.
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn fragments_without_an_end_are_bytes_too() {
    let server = Server::guest(&echo(), &["--byte-rate", "10000", "--byte-burst", "1000"]);
    let mut client = RawClient::join(&server, "").await;
    let start = Instant::now();
    client.frame(BINARY, b"a").await;
    // Each has two bytes and its mask.
    for _ in 0..5500 {
        client.frame(CONTINUATION, b"").await;
    }
    client.frame(FINAL | CONTINUATION, b"b").await;
    assert_eq!(client.hear().await, (FINAL | BINARY, b"ab".to_vec()));
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn fragments_for_ever_are_over_the_limit_some_time() {
    let server = Server::guest(&echo(), &["--max-message-bytes", "65536"]);
    let mut client = RawClient::join(&server, "").await;
    client.frame(BINARY, &[0; 1000]).await;
    for _ in 0..100 {
        client.frame(CONTINUATION, &[0; 1000]).await;
    }
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test]
async fn a_message_that_trickles_in_is_not_waited_for() {
    let server = Server::guest(&echo(), &["-i", "1", "-t", "2"]);
    // A frame byte by byte, and a message in empty fragments.
    let long_frame = [FINAL | TEXT, 0x80 | 126, 0x40, 0, 0, 0, 0, 0];
    let endless_message = [TEXT, 0x80, 0, 0, 0, 0];
    let cases: [(&[u8], &[u8]); 2] = [
        (&long_frame, b"x"),
        (&endless_message, &[CONTINUATION, 0x80, 0, 0, 0, 0]),
    ];
    for (once, again) in cases {
        let (mut writer, mut reader) = RawClient::join(&server, "").await.twins();
        writer.0.write_all(once).await.expect("the server reads");
        let trickle = async {
            loop {
                sleep(Duration::from_millis(100)).await;
                // It fails when the server has closed.
                let _ = writer.0.write_all(again).await;
            }
        };
        let code = async {
            tokio::select! {
                code = reader.closed() => code,
                () = trickle => unreachable!("it goes on for ever"),
            }
        };
        assert_eq!(soon("it is closed", code).await, 1008);
    }
}
