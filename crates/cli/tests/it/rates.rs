//! Throttling, and clients that send too slowly.
//!
//! Elapsed times have lower bounds only: a server may be slow, but not too fast.

use super::{BINARY, CONTINUATION, FINAL, RawClient, Server, TEXT, eventually};
use crate::support::echo;
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, time::sleep};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn messages_over_the_rate_are_throttled_not_lost() {
    // A throttled client does not count as silent either.
    let args = [
        "--message-rate",
        "5",
        "--message-burst",
        "5",
        "-i",
        "1",
        "-t",
        "2",
    ];
    let server = Server::guest(&echo(), &args);
    let mut client = server.join("").await;
    let start = Instant::now();
    for number in 0..20 {
        client.send(format!("{number}")).await;
    }
    for number in 0..20 {
        client.expect(&format!("{number}")).await;
    }
    // A burst of five, then five a second.
    assert!(
        start.elapsed() >= Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn pings_count_as_messages() {
    let server = Server::guest(&echo(), &["--message-rate", "5", "--message-burst", "5"]);
    let mut client = server.join("").await;
    let start = Instant::now();
    for _ in 0..19 {
        client.send(Message::Ping(Default::default())).await;
    }
    client.send("done").await;
    client.expect("done").await;
    assert!(
        start.elapsed() >= Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn requests_of_one_connection_count_as_messages() {
    let server = Server::guest(&echo(), &["--message-rate", "5", "--message-burst", "5"]);
    let start = Instant::now();
    let pipelined = "GET /rooms HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(19);
    let last = "GET /rooms HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let responses = server.request((pipelined + last).as_bytes()).await;
    assert_eq!(responses.matches("HTTP/1.1 200").count(), 20);
    assert!(
        start.elapsed() >= Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn bytes_over_the_rate_are_throttled_not_lost() {
    let server = Server::guest(&echo(), &["--byte-rate", "10000", "--byte-burst", "1000"]);
    let mut client = server.join("").await;
    let start = Instant::now();
    for byte in 0..4 {
        client.send(Message::binary(vec![byte; 8000])).await;
    }
    for byte in 0..4 {
        assert_eq!(client.receive().await, Message::binary(vec![byte; 8000]));
    }
    // The last read, of at most 8 KiB, is not followed by a pause.
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn fragments_of_unfinished_messages_count_as_bytes() {
    let server = Server::guest(&echo(), &["--byte-rate", "10000", "--byte-burst", "1000"]);
    let mut client = RawClient::join(&server, "").await;
    let start = Instant::now();
    client.frame(BINARY, b"a").await;
    // Each has a header of two bytes and a mask of four.
    for _ in 0..5500 {
        client.frame(CONTINUATION, b"").await;
    }
    client.frame(FINAL | CONTINUATION, b"b").await;
    assert_eq!(client.receive().await, (FINAL | BINARY, b"ab".to_vec()));
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn fragments_count_as_messages() {
    let server = Server::guest(&echo(), &["--message-rate", "5", "--message-burst", "5"]);
    let mut client = RawClient::join(&server, "").await;
    let start = Instant::now();
    client.frame(BINARY, b"a").await;
    for _ in 0..18 {
        client.frame(CONTINUATION, b"").await;
    }
    client.frame(FINAL | CONTINUATION, b"b").await;
    assert_eq!(client.receive().await, (FINAL | BINARY, b"ab".to_vec()));
    // A burst of five, then five a second.
    assert!(
        start.elapsed() >= Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn endless_fragments_exceed_the_message_limit() {
    let server = Server::guest(&echo(), &["--max-message-bytes", "65536"]);
    let mut client = RawClient::join(&server, "").await;
    client.frame(BINARY, &[0; 1000]).await;
    for _ in 0..100 {
        client.frame(CONTINUATION, &[0; 1000]).await;
    }
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test]
async fn a_message_that_trickles_in_times_out() {
    let server = Server::guest(&echo(), &["-i", "1", "-t", "2"]);
    // A frame sent byte by byte, and a message of empty fragments.
    let long_frame = [FINAL | TEXT, 0x80 | 126, 0x40, 0, 0, 0, 0, 0];
    let endless_message = [TEXT, 0x80, 0, 0, 0, 0];
    let cases: [(&[u8], &[u8]); 2] = [
        (&long_frame, b"x"),
        (&endless_message, &[CONTINUATION, 0x80, 0, 0, 0, 0]),
    ];
    for (once, again) in cases {
        let (mut writer, mut reader) = RawClient::join(&server, "").await.split();
        writer.0.write_all(once).await.expect("cannot write");
        let trickle = async {
            loop {
                sleep(Duration::from_millis(100)).await;
                // Fails once the server has closed.
                let _ = writer.0.write_all(again).await;
            }
        };
        let code = async {
            tokio::select! {
                code = reader.closed() => code,
                () = trickle => unreachable!("endless"),
            }
        };
        assert_eq!(eventually("it is closed", code).await, 1008);
    }
}
