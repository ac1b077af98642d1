//! What it costs that a room is at another node.

use super::{
    clients::{Client, echo},
    nodes::{Cluster, Node, nodes},
};
use core::{pin::pin, time::Duration};
use futures_util::{SinkExt, StreamExt};
use stateroom_wasmi_server::{Rate, journal::MemoryJournal};
use std::sync::Arc;
use tokio_tungstenite::{connect_async, tungstenite::Message};
/// Prints how long a message and its reply take, and how many a second there can be: to a server by itself,
/// by way of a gateway to a room at the same node, and at another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it prints figures"]
async fn what_a_gateway_costs() {
    let cluster = Cluster::new();
    let alone = crate::journaled::RunningServer::without_journal(|config| {
        config.module = echo();
        config.message_rate = Rate::new(0, 0);
        config.journal = Some(Arc::new(MemoryJournal::new()));
    })
    .await;
    let [first, second]: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("here", Some(0));
    cluster.set_owner("there", Some(1));
    let ways = [
        ("alone", alone.address.clone(), "here"),
        ("here", first.address.to_string(), "here"),
        ("there", first.address.to_string(), "there"),
    ];
    for round in 0..3 {
        for (way, address, room) in &ways {
            let url = format!("ws://{address}/ws/{room}");
            let (mut socket, _) = connect_async(url).await.expect("the handshake succeeds");
            socket.next().await.expect("a join").expect("no error");
            let mut took = Vec::new();
            for number in 0..3000 {
                let start = std::time::Instant::now();
                let message = Client::message(number);
                socket.send(message.clone()).await.expect("connected");
                while socket.next().await.expect("connected").expect("no error") != message {}
                took.push(start.elapsed());
            }
            took.sort_unstable();
            let (p50, p99) = (took[1500], took[2970]);
            let start = std::time::Instant::now();
            let (mut said, mut heard) = (0, 0);
            while heard < 50_000 {
                while said < heard + 200 {
                    socket.feed(Message::text("text")).await.expect("connected");
                    said += 1;
                }
                socket.flush().await.expect("connected");
                socket.next().await.expect("connected").expect("no error");
                heard += 1;
            }
            let rate = 50_000.0 / start.elapsed().as_secs_f64();
            println!("{round} {way}: p50 {p50:?}, p99 {p99:?}, {rate:.0} messages a second");
        }
    }
    // A client of a third node, whose room goes to and fro: the longest that it waits each time.
    let third = Node::start(&cluster, 2, |_| {}).await;
    let mut client = third.join("here").await;
    let mut took = Vec::new();
    for round in 0..200 {
        let (from, to) = match round % 2 {
            0 => (&first, &second),
            _ => (&second, &first),
        };
        let mut longest = Duration::ZERO;
        let mut handing_over = pin!(cluster.hand_over("here", from, to));
        let mut is_over = false;
        // And some that come after it.
        for _ in 0..20 {
            let start = std::time::Instant::now();
            let mut said = pin!(async {
                client.say().await;
                client.hear_all().await;
            });
            while !is_over {
                tokio::select! {
                    () = &mut handing_over, if !is_over => is_over = true,
                    () = &mut said => break,
                }
            }
            if is_over {
                said.await;
            }
            longest = longest.max(start.elapsed());
        }
        took.push(longest);
        if !is_over {
            handing_over.await;
        }
    }
    took.sort_unstable();
    println!("hand-over: p50 {:?}, p99 {:?}", took[100], took[198]);
}
