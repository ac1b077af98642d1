//! Messages that end the node that handles them.

use super::{
    clients::{Client, check},
    nodes::{Cluster, FATAL, Node},
};
use crate::journaled::eventually;
use futures_util::{SinkExt, StreamExt};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

fn fatal() -> Message {
    Message::binary(FATAL)
}

/// The code and reason with which a client is closed.
async fn closed(client: &mut Client) -> (u16, String) {
    loop {
        let message = eventually("the close", client.socket.next()).await;
        match message.expect("it is connected").expect("no error") {
            Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
            Message::Close(None) => panic!("it is closed without a reason"),
            _ => {}
        }
    }
}

/// Rooms of a gateway at one node, which others take over each time that it ends.
struct Nodes {
    cluster: Arc<Cluster>,
    gateway: Node,
    owner: Node,
    last: usize,
    deaths: watch::Receiver<usize>,
}

impl Nodes {
    async fn start(rooms: &[&str]) -> Self {
        let cluster = Cluster::new();
        let gateway = Node::start(&cluster, 0, |_| {}).await;
        let owner = Node::start(&cluster, 1, |_| {}).await;
        for room in rooms {
            cluster.set_owner(room, Some(1));
        }
        let deaths = cluster.deaths.subscribe();
        Self {
            cluster,
            deaths,
            gateway,
            owner,
            last: 1,
        }
    }

    async fn take_over(&mut self, rooms: &[&str]) {
        self.last += 1;
        let next = Node::start(&self.cluster, self.last, |_| {}).await;
        for room in rooms {
            self.cluster.take_over(room, &next).await;
        }
        self.owner = next;
    }

    /// Takes rooms over until a client is closed; returns how.
    async fn until_closed(&mut self, client: &mut Client, rooms: &[&str]) -> (u16, String) {
        loop {
            tokio::select! {
                died = self.deaths.changed() => {
                    died.expect("it is there");
                    self.owner.has_ended().await;
                    self.take_over(rooms).await;
                }
                closed = closed(client) => return closed,
            }
        }
    }

    fn deaths(&self) -> usize {
        *self.deaths.borrow()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_ends_its_nodes_is_kept_from_the_fourth() {
    let rooms = ["lobby", "other", "third"];
    let mut nodes = Nodes::start(&rooms).await;
    let stop = Arc::<AtomicBool>::default();
    let mut talking = Vec::new();
    for _ in 0..3 {
        for room in &rooms[1..] {
            let client = nodes.gateway.join(room).await;
            talking.push(tokio::spawn(client.talk(40, stop.clone())));
        }
    }
    let mut client = nodes.gateway.join("lobby").await;
    client.say().await;
    client.hear_all().await;
    client.socket.send(fatal()).await.expect("it is connected");
    let (code, reason) = nodes.until_closed(&mut client, &rooms).await;
    assert_eq!(code, 1011, "{reason}");
    assert!(reason.contains("in quarantine"), "{reason}");
    assert_eq!(nodes.deaths(), 3);
    // It is kept so, and nobody comes to it any more.
    let mut other = nodes.gateway.join("lobby").await;
    let (code, reason) = closed(&mut other).await;
    assert_eq!(
        (code, reason.contains("in quarantine")),
        (1011, true),
        "{reason}"
    );
    assert!(nodes.cluster.journal.quarantine("lobby").is_some());
    // All others have noticed nothing.
    stop.store(true, Ordering::SeqCst);
    check(talking).await;
    for room in &rooms[1..] {
        assert_eq!(nodes.cluster.journal.quarantine(room), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_was_never_stored_is_in_quarantine_as_well() {
    let mut nodes = Nodes::start(&["lobby"]).await;
    let mut client = nodes.gateway.join("lobby").await;
    client.socket.send(fatal()).await.expect("it is connected");
    let (code, reason) = nodes.until_closed(&mut client, &["lobby"]).await;
    assert_eq!((code, nodes.deaths()), (1011, 3), "{reason}");
    // Whoever comes next is behind that.
    let mut other = nodes.gateway.join("lobby").await;
    assert_eq!(closed(&mut other).await.0, 1011);
    assert!(nodes.cluster.journal.quarantine("lobby").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_only_loses_its_rooms_has_not_ended() {
    let mut nodes = Nodes::start(&["lobby"]).await;
    let mut client = nodes.gateway.join("lobby").await;
    // More often than a node may end.
    for _ in 0..6 {
        client.say().await;
        nodes.take_over(&["lobby"]).await;
        client.hear_all().await;
    }
    assert_eq!(nodes.cluster.journal.quarantine("lobby"), None);
}
