//! Clients that check what they hear.

use crate::{
    journaled::eventually,
    resuming::Connection,
    support::{ENV, Random, SAY, assemble, guest_0_2},
};
use futures_util::{SinkExt, StreamExt};
use stateroom_wasmi_resume::{ClientSession, Incoming, Message as SessionMessage};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};
/// A guest that sends each message back to its sender, and says to all who comes (1,000 and the id) and
/// who leaves (2,000 and the id).
pub(super) fn echo() -> Vec<u8> {
    let echo = |send: &str| format!("(call {send} (local.get 0) (local.get 1) (local.get 2))");
    let say = |base: u32| format!("(call $say (i32.add (i32.const {base}) (local.get 0)))");
    assemble(&guest_0_2(
        ENV,
        &[
            ("connect", &say(1000)),
            ("disconnect", &say(2000)),
            ("message", &echo("$send_message")),
            ("binary", &echo("$send_binary")),
        ],
        SAY,
    ))
}

/// A client that knows of no cluster, and counts.
pub(super) struct Client {
    pub(super) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(super) said: u32,
    pub(super) heard: u32,
    /// Who was seen to come and to leave.
    pub(super) seen: Vec<i32>,
}

impl Client {
    pub(super) fn new(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self {
            socket,
            said: 0,
            heard: 0,
            seen: Vec::new(),
        }
    }

    /// Every third message is binary.
    pub(super) fn message(number: u32) -> Message {
        let text = format!("message {number}");
        match number % 3 {
            0 => Message::binary(text.into_bytes()),
            _ => Message::text(text),
        }
    }

    pub(super) async fn say(&mut self) {
        self.said += 1;
        let message = Self::message(self.said);
        self.socket.send(message).await.expect("it is connected");
    }

    /// Hears the next message: an echo, or who comes or leaves.
    pub(super) async fn hear(&mut self) {
        let message = eventually("a message", self.socket.next()).await;
        match message.expect("it is connected").expect("no error") {
            Message::Binary(bytes) if bytes.len() == 4 => {
                let number = bytes[..].try_into().expect("four bytes");
                self.seen.push(i32::from_le_bytes(number));
            }
            Message::Ping(_) => {}
            echo => {
                self.heard += 1;
                assert_eq!(echo, Self::message(self.heard));
            }
        }
    }

    pub(super) async fn hear_all(&mut self) {
        while self.heard < self.said {
            self.hear().await;
        }
    }

    pub(super) async fn see(&mut self, seen: &[i32]) {
        while self.seen.len() < seen.len() {
            self.hear().await;
        }
        assert_eq!(self.seen, seen);
    }

    /// Talks until it is told to stop and has heard more than so many replies, with up to so many messages on
    /// their way, and hears all replies.
    pub(super) async fn talk(mut self, on_its_way: u32, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::SeqCst) || self.heard <= on_its_way {
            while self.said < self.heard + on_its_way {
                self.say().await;
            }
            self.hear().await;
        }
        self.hear_all().await;
        self
    }

    pub(super) async fn closed(mut self) -> (u16, String) {
        loop {
            match eventually("a close", self.socket.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }
}

/// All have heard what they must, and nobody has seen another leave.
pub(super) async fn check(talking: Vec<JoinHandle<Client>>) {
    let mut clients = Vec::new();
    for client in talking {
        clients.push(eventually("the end", client).await.expect("no panic"));
    }
    for client in &clients {
        assert!(client.heard > 40, "{} heard", client.heard);
        let is_leave = |seen: &&i32| **seen >= 2000;
        assert_eq!(client.seen.iter().find(is_leave), None, "{:?}", client.seen);
    }
}

/// A client that speaks `stateroom.resume.1`, over connections to any node. Talks until it is told to stop.
/// Returns how often it has said something, heard something, and asked for a session.
pub(super) async fn come_back(
    addresses: Vec<String>,
    path: &'static str,
    stop: Arc<AtomicBool>,
) -> (u32, u32, usize) {
    let mut random = Random::new();
    let mut session = ClientSession::new(1000, 1 << 20);
    let (mut said, mut heard) = (0, 0);
    let mut has_begun = false;
    let mut asked = 0;
    while !stop.load(Ordering::SeqCst) || heard < said {
        let address = &addresses[random.below(addresses.len())];
        let mut connection = Connection::open_at(address, path).await;
        let hello = session.hello();
        asked += usize::from(!has_begun);
        connection.send_text(&hello).await;
        let Some(reply) = connection.receive().await else {
            continue;
        };
        match session.receive(&reply).expect("of the protocol") {
            Incoming::New { was_lost } => {
                assert!(!was_lost && !has_begun);
                has_begun = true;
            }
            Incoming::Resumed => {}
            other => panic!("no reply to a hello: {other:?}"),
        }
        for frame in session.unacknowledged().collect::<Vec<_>>() {
            connection.send(frame).await;
        }
        let mut steps = random.below(300);
        while steps > 0 || (stop.load(Ordering::SeqCst) && heard < said) {
            steps = steps.saturating_sub(1);
            let is_stopping = stop.load(Ordering::SeqCst);
            if !is_stopping && said < heard + 40 {
                said += 1;
                let frame = session.send(SessionMessage::Text(format!("{said}")));
                connection.send(frame.expect("space")).await;
                continue;
            }
            if heard == said {
                break;
            }
            let Some(message) = connection.receive().await else {
                break;
            };
            match session.receive(&message).expect("of the protocol") {
                Incoming::Message(SessionMessage::Text(echo)) => {
                    heard += 1;
                    assert_eq!(echo, format!("{heard}"));
                }
                // Who comes and leaves.
                Incoming::Message(SessionMessage::Binary(_)) | Incoming::Nothing => {}
                other => panic!("not now: {other:?}"),
            }
            if let Some(ack) = session.ack(false) {
                connection.send_text(&ack).await;
            }
        }
    }
    (said, heard, asked)
}
