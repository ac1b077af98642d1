//! Messages that end the node that handles them.

use super::{
    clients::{Client, check},
    nodes::{Cluster, FATAL, Node, SLOW},
};
use crate::journaled::eventually;
use core::time::Duration;
use futures_util::{SinkExt, StreamExt};
use stateroom_wasmi_server::ServerConfig;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{sync::watch, time::sleep};
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
        Self::start_with(rooms, |_| {}).await
    }

    async fn start_with(rooms: &[&str], change: impl FnOnce(&mut ServerConfig)) -> Self {
        let cluster = Cluster::new();
        let gateway = Node::start(&cluster, 0, change).await;
        let owner = Self::start_owner(&cluster, 1).await;
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

    /// With one worker, so that all its rooms are as far as each other.
    async fn start_owner(cluster: &Arc<Cluster>, number: usize) -> Node {
        Node::start(cluster, number, |config| {
            *config = config.clone().workers(1);
            // Less than suspects wait for their turn, for which their sessions stay.
            config.resume_window = Duration::from_secs(1);
        })
        .await
    }

    async fn take_over(&mut self, rooms: &[&str]) {
        self.last += 1;
        let next = Self::start_owner(&self.cluster, self.last).await;
        for room in rooms {
            self.cluster.take_over(room, &next).await;
        }
        self.owner = next;
    }

    /// Takes rooms over until a client is closed; returns how.
    async fn until_closed(&mut self, client: &mut Client, rooms: &[&str]) -> (u16, String) {
        loop {
            tokio::select! {
                () = self.owner_ends() => self.take_over(rooms).await,
                closed = closed(client) => return closed,
            }
        }
    }

    async fn owner_ends(&mut self) {
        let died = eventually("the end of a node", self.deaths.changed());
        died.await.expect("it is there");
        self.owner.has_ended().await;
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

/// However long their rooms take to come back: what each has sent is acknowledged before the next goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspects_whose_rooms_come_back_late_go_on_one_after_the_other_as_well() {
    let rooms = ["lobby", "other", "third"];
    let mut nodes = Nodes::start(&rooms).await;
    let mut innocent = Vec::new();
    for room in &rooms[1..] {
        let mut client = nodes.gateway.join(room).await;
        client.say().await;
        client.hear_all().await;
        innocent.push(client);
    }
    let mut client = nodes.gateway.join("lobby").await;
    client.say().await;
    client.hear_all().await;
    for client in &mut innocent {
        let slow = client.socket.send(Message::binary(SLOW)).await;
        slow.expect("it is connected");
    }
    client.socket.send(fatal()).await.expect("it is connected");
    nodes.owner_ends().await;
    nodes.take_over(&rooms).await;
    nodes.owner_ends().await;
    // Longer than any of them waits.
    nodes.cluster.delay_loads(Duration::from_secs(5));
    nodes.take_over(&rooms).await;
    let (code, reason) = nodes.until_closed(&mut client, &rooms).await;
    assert_eq!((code, nodes.deaths()), (1011, 3), "{reason}");
    for mut client in innocent {
        loop {
            let message = eventually("the echo", client.socket.next()).await;
            match message.expect("it is connected").expect("no error") {
                Message::Binary(bytes) if bytes == SLOW => break,
                Message::Close(frame) => panic!("an innocent client is closed: {frame:?}"),
                _ => {}
            }
        }
    }
    for room in &rooms[1..] {
        assert_eq!(nodes.cluster.journal.quarantine(room), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_turn_is_not_without_a_node() {
    const OWNER_TIMEOUT: Duration = Duration::from_secs(2);
    let mut nodes = Nodes::start_with(&["lobby"], |config| {
        *config = config.clone().owner_timeout(OWNER_TIMEOUT);
    })
    .await;
    let mut client = nodes.gateway.join("lobby").await;
    client.socket.send(fatal()).await.expect("it is connected");
    for _ in 0..2 {
        nodes.owner_ends().await;
        nodes.take_over(&["lobby"]).await;
    }
    // It waits for longer than without a node, and then the next one has the room.
    tokio::select! {
        (code, reason) = closed(&mut client) => panic!("it is closed: {code} {reason}"),
        () = sleep(OWNER_TIMEOUT + OWNER_TIMEOUT / 4) => {}
    }
    nodes.take_over(&["lobby"]).await;
    let (code, reason) = nodes.until_closed(&mut client, &["lobby"]).await;
    assert_eq!((code, nodes.deaths()), (1011, 3), "{reason}");
}
