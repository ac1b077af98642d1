//! WebSocket clients that take turns.

use futures_util::{SinkExt, StreamExt};
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// What a client does, and how many messages that brings to which clients. The next turn begins when
/// these have come, so that the room handles all turns in one order.
#[derive(Clone, Debug)]
pub struct Turn {
    pub client: u32,
    pub action: Action,
    pub brings: Vec<(u32, usize)>,
}

#[derive(Clone, Debug)]
pub enum Action {
    Connect,
    /// By which the server 0.2.9 knows a client that it has seen.
    ConnectWithToken(&'static str),
    Text(&'static str),
    Bytes(Vec<u8>),
    Close,
    /// Nothing: time passes.
    Wait,
}

pub fn turn<const N: usize>(client: u32, action: Action, brings: [(u32, usize); N]) -> Turn {
    Turn {
        client,
        action,
        brings: brings.to_vec(),
    }
}

/// Plays the turns against the server on this port; returns what came to whom.
pub fn play(port: u16, turns: &[Turn]) -> Vec<(u32, Message)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("there is a runtime");
    runtime.block_on(async {
        let mut clients = BTreeMap::new();
        let mut received = Vec::new();
        for turn in turns {
            act(port, &mut clients, turn).await;
            for (client, messages) in &turn.brings {
                let socket = clients.get_mut(client).expect("the client is connected");
                for _ in 0..*messages {
                    received.push((*client, next(socket, turn).await));
                }
            }
        }
        received
    })
}

type Socket = WebSocketStream<TcpStream>;

async fn act(port: u16, clients: &mut BTreeMap<u32, Socket>, turn: &Turn) {
    let client = turn.client;
    let message = match &turn.action {
        Action::Connect => {
            clients.insert(client, connect(port, "").await);
            return;
        }
        Action::ConnectWithToken(token) => {
            clients.insert(client, connect(port, &format!("?token={token}")).await);
            return;
        }
        Action::Close => {
            let mut socket = clients.remove(&client).expect("the client is connected");
            socket.close(None).await.expect("the server is there");
            // Neither server need reply.
            while let Some(Ok(_)) = socket.next().await {}
            return;
        }
        Action::Wait => return,
        Action::Text(text) => Message::text(*text),
        Action::Bytes(bytes) => Message::binary(bytes.clone()),
    };
    let socket = clients.get_mut(&client).expect("the client is connected");
    socket.send(message).await.expect("the server is there");
}

async fn connect(port: u16, query: &str) -> Socket {
    // The servers do not say when they listen.
    let stream = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let url = format!("ws://127.0.0.1:{port}/ws{query}");
    let (socket, _) = client_async(url, stream).await.expect("a WebSocket opens");
    socket
}

/// The next message, without pings.
async fn next(socket: &mut Socket, turn: &Turn) -> Message {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(60), socket.next())
            .await
            .unwrap_or_else(|_| panic!("nothing comes of {turn:?}"))
            .unwrap_or_else(|| panic!("the connection has ended after {turn:?}"))
            .unwrap_or_else(|error| panic!("{error} after {turn:?}"));
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            return message;
        }
    }
}
