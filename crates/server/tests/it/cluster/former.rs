//! Owners that have lost their rooms and do not know it yet.

use super::{
    clients::echo,
    nodes::{Cluster, Node},
};
use crate::{
    journaled::eventually,
    support::{ENV, SAY, assemble, guest_0_2},
};
use core::time::Duration;
use futures_util::{SinkExt, StreamExt};
use stateroom_wasmi_server::{ServerConfig, journal::Durability};
use std::sync::Arc;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

/// A guest that counts texts and says nothing of it before bytes ask for it; and says who comes (1,000 and the id).
fn counter() -> Vec<u8> {
    let count = "(global.set $n (i32.add (global.get $n) (i32.const 1)))";
    let say = "(call $say (i32.add (i32.const 1000) (local.get 0)))";
    assemble(&guest_0_2(
        ENV,
        &[
            ("connect", say),
            ("message", count),
            ("binary", "(call $say (global.get $n))"),
        ],
        &format!("{SAY} (global $n (mut i32) (i32.const 0))"),
    ))
}

/// A gateway, and two more nodes, of which the first has the room.
async fn start(module: &[u8]) -> (Arc<Cluster>, [Node; 3]) {
    start_with(module, Durability::Durable).await
}

async fn start_with(module: &[u8], durability: Durability) -> (Arc<Cluster>, [Node; 3]) {
    let cluster = Cluster::new();
    let change = |config: &mut ServerConfig| {
        config.module = module.into();
        config.durability = durability;
    };
    let mut nodes = Vec::new();
    for number in 0..3 {
        nodes.push(Node::start(&cluster, number, change).await);
    }
    cluster.set_owner("lobby", Some(1));
    let nodes = nodes.try_into().unwrap_or_else(|_| unreachable!());
    (cluster, nodes)
}

/// Waits until the journal is to write so much, and some time more for what must not follow from that.
async fn wait_for_writes(cluster: &Cluster, count: usize) {
    let waiting = async {
        while cluster.journal.waiting() < count {
            sleep(Duration::from_millis(1)).await;
        }
    };
    eventually("what is to be written", waiting).await;
    sleep(Duration::from_millis(50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_said_last_is_not_lost_with_the_owner() {
    let (cluster, [gateway, _first, second]) = start(&counter()).await;
    let mut watcher = gateway.join("lobby").await;
    watcher.see(&[1001]).await;
    let mut client = gateway.join("lobby").await;
    watcher.see(&[1001, 1002]).await;
    client.see(&[1002]).await;
    cluster.journal.pause();
    cluster.fence("lobby", 2);
    for _ in 0..3 {
        let sent = client.socket.send(Message::text("one more")).await;
        sent.expect("it is connected");
    }
    client.socket.close(None).await.expect("it is connected");
    // The owner has handled all of it, but must not say so.
    wait_for_writes(&cluster, 1).await;
    cluster.journal.resume();
    cluster.take_over("lobby", &second).await;
    // It is told when its messages are where they cannot be lost any more.
    let closed = async { while client.socket.next().await.is_some_and(|it| it.is_ok()) {} };
    eventually("the close", closed).await;
    let asked = watcher
        .socket
        .send(Message::binary(&b"how many?"[..]))
        .await;
    asked.expect("it is connected");
    watcher.see(&[1001, 1002, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_a_room_end_that_another_node_has() {
    let (cluster, [gateway, first, second]) = start(&counter()).await;
    let mut watcher = gateway.join("lobby").await;
    watcher.see(&[1001]).await;
    let mut client = gateway.join("lobby").await;
    client.see(&[1002]).await;
    watcher.see(&[1001, 1002]).await;
    let ask = || Message::binary(&b"how many?"[..]);
    cluster.journal.pause();
    cluster.fence("lobby", 2);
    client.socket.send(ask()).await.expect("it is connected");
    wait_for_writes(&cluster, 1).await;
    // An operator closes it at the node that does not have it any more.
    first.post("/rooms/lobby/close").await;
    wait_for_writes(&cluster, 2).await;
    cluster.journal.resume();
    cluster.take_over("lobby", &second).await;
    // Nobody has seen the reply of the former owner, and the room goes on.
    client.see(&[1002, 0]).await;
    let said = client.socket.send(Message::text("one")).await;
    said.expect("it is connected");
    client.socket.send(ask()).await.expect("it is connected");
    client.see(&[1002, 0, 1]).await;
    watcher.see(&[1001, 1002, 0, 1]).await;
}

/// What rooms of relaxed durability have acknowledged and sent may be lost: clients are told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_knows_less_than_a_client_has_lost_it() {
    let lose = async |module: &[u8]| {
        let (cluster, [gateway, _first, second]) = start_with(module, Durability::Relaxed).await;
        let mut client = gateway.join("lobby").await;
        client.see(&[1001]).await;
        cluster.journal.pause();
        cluster.fence("lobby", 2);
        for _ in 0..20 {
            let sent = client.socket.send(Message::text("text")).await;
            sent.expect("it is connected");
        }
        // Some are acknowledged, or replied to.
        wait_for_writes(&cluster, 1).await;
        cluster.journal.resume();
        cluster.take_over("lobby", &second).await;
        client.closed().await
    };
    let (counter, echo) = (counter(), echo());
    let (fewer_inputs, fewer_outputs) = tokio::join!(lose(&counter), lose(&echo));
    let lost = (1012, "the room has lost its clients".into());
    assert_eq!([fewer_inputs, fewer_outputs], [lost.clone(), lost]);
}
