//! Many clients, many messages.

use super::{Client, Server, eventually};
use crate::support::{ENV, echo, guest_0_2};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

/// A guest that broadcasts each text.
fn broadcast() -> String {
    let message = "(call $send_message (i32.const 0) (local.get 1) (local.get 2))";
    guest_0_2(ENV, &[("message", message)], "")
}

/// Sends numbers and reads their echoes concurrently.
async fn pipeline(client: Client, count: u32) {
    let (mut sink, mut stream) = client.0.split();
    let say = async {
        for number in 0..count {
            sink.feed(Message::text(number.to_string()))
                .await
                .expect("the connection is open");
        }
        sink.flush().await.expect("the connection is open");
    };
    let hear = async {
        let mut next = 0;
        while next < count {
            match stream.next().await.expect("an echo").expect("an echo") {
                Message::Text(text) => {
                    assert_eq!(text.as_str(), next.to_string());
                    next += 1;
                }
                Message::Ping(_) => {}
                other => panic!("after {next} echoes: {other:?}"),
            }
        }
    };
    eventually("all echoes", async { tokio::join!(say, hear) }).await;
}

#[tokio::test]
async fn five_thousand_echoes_are_in_order() {
    let server = Server::guest(&echo(), &["--message-rate", "0"]);
    pipeline(server.join("").await, 5000).await;
    let room = server.room("").await.expect("the room is open");
    assert_eq!(
        (&room["messages_in"], &room["messages_out"]),
        (&5000.into(), &5000.into())
    );
}

/// Backpressure: replies to a client's own messages do not overflow its queue, however short.
#[tokio::test]
async fn a_client_that_reads_is_never_too_slow() {
    for queue in ["1", "2", "16"] {
        let server = Server::guest(
            &echo(),
            &["--max-queued-messages", queue, "--message-rate", "0"],
        );
        pipeline(server.join("").await, 2000).await;
    }
}

#[tokio::test]
async fn messages_sent_before_reading_are_all_echoed() {
    let server = Server::guest(
        &echo(),
        &["--max-queued-messages", "16", "--message-rate", "0"],
    );
    let mut client = server.join("").await;
    for number in 0..3000 {
        let message = Message::text(number.to_string());
        eventually("it is buffered", client.0.feed(message))
            .await
            .expect("the connection is open");
    }
    eventually("it is sent", client.0.flush())
        .await
        .expect("the connection is open");
    for number in 0..3000 {
        client.expect(&number.to_string()).await;
    }
}

#[tokio::test]
async fn fifty_clients_receive_the_same_order() {
    let server = Server::guest(&broadcast(), &[]);
    let mut clients: [_; 50] = server.join_all("r").await;
    // Two clients send concurrently: all clients receive the same interleaving, which keeps each
    // sender's order.
    for number in 0..20 {
        clients[0].send(format!("a{number}")).await;
        clients[49].send(format!("b{number}")).await;
    }
    let mut received = Vec::new();
    for client in &mut clients {
        let mut texts = Vec::new();
        for _ in 0..40 {
            texts.push(client.receive_text().await);
        }
        received.push(texts);
    }
    assert!(received.iter().all(|texts| *texts == received[0]));
    for speaker in ["a", "b"] {
        let own: Vec<_> = received[0]
            .iter()
            .filter(|text| text.starts_with(speaker))
            .cloned()
            .collect();
        let sent: Vec<_> = (0..20).map(|number| format!("{speaker}{number}")).collect();
        assert_eq!(own, sent);
    }
}

#[tokio::test]
async fn rooms_on_all_workers_are_isolated() {
    let server = Server::guest(&broadcast(), &["--workers", "4"]);
    let mut rooms = Vec::new();
    for number in 0..16 {
        rooms.push(server.join_all::<2>(&number.to_string()).await);
    }
    for (number, [first, _]) in rooms.iter_mut().enumerate() {
        first.send(format!("from {number}")).await;
    }
    for (number, [first, second]) in rooms.iter_mut().enumerate() {
        first.expect(&format!("from {number}")).await;
        second.expect(&format!("from {number}")).await;
        second.send("end").await;
        first.expect("end").await;
        second.expect("end").await;
    }
    assert_eq!(server.rooms().await.len(), 16);
}

#[tokio::test]
async fn clients_that_join_and_leave_leak_nothing() {
    let server = Server::bundled("chat-rust-0.4", &["--room-idle", "1"]);
    let mut watcher = server.join("/r").await;
    watcher
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    for _ in 0..100 {
        // Some disconnect before they have joined.
        drop(server.try_join("/r").await);
        drop(server.try_join("/elsewhere").await);
    }
    server
        .until_room("r", "they have left", |room| {
            room.is_some_and(|room| room["clients"] == 1)
        })
        .await;
    server
        .until_room("elsewhere", "it is closed", |room| room.is_none())
        .await;
    watcher.send("/who").await;
    loop {
        let text = watcher.receive_text().await;
        if text.starts_with("Here: ") {
            break assert_eq!(text, "Here: guest1.");
        }
    }
}
