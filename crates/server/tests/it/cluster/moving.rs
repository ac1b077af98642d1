//! Rooms go from node to node while their clients talk.

use super::{
    clients::{check, come_back},
    nodes::{Cluster, Node, nodes},
};
use crate::{journaled::eventually, support::Random};
use core::{pin::pin, time::Duration};
use futures_util::FutureExt;
use stateroom_wasmi_server::{
    ServerConfig,
    journal::{Durability, Journal, JournalError},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::time::sleep;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_rooms_are_handed_over() {
    let cluster = Cluster::new();
    let nodes: [Node; 3] = nodes(&cluster).await;
    let rooms = ["a", "b", "c", "d"];
    let stop = Arc::<AtomicBool>::default();
    let mut talking = Vec::new();
    for (index, room) in rooms.iter().enumerate() {
        cluster.set_owner(room, Some(index % 3));
        for node in &nodes {
            let client = node.join(room).await;
            talking.push(tokio::spawn(client.talk(40, stop.clone())));
        }
    }
    let mut random = Random::new();
    for _ in 0..60 {
        let room = rooms[random.below(rooms.len())];
        let from = cluster.owner(room).expect("an owner");
        let to = random.below(3);
        cluster.hand_over(room, &nodes[from], &nodes[to]).await;
        sleep(Duration::from_millis(random.below(20) as u64)).await;
    }
    stop.store(true, Ordering::SeqCst);
    check(talking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_owners_die() {
    let cluster = Cluster::new();
    let gateway = Node::start(&cluster, 0, |_| {}).await;
    let mut owner = Node::start(&cluster, 1, |_| {}).await;
    let rooms = ["a", "b", "c"];
    let stop = Arc::<AtomicBool>::default();
    let mut talking = Vec::new();
    for room in rooms {
        cluster.set_owner(room, Some(1));
        for _ in 0..3 {
            let client = gateway.join(room).await;
            talking.push(tokio::spawn(client.talk(40, stop.clone())));
        }
    }
    let mut random = Random::new();
    for number in 2..14 {
        sleep(Duration::from_millis(random.below(60) as u64)).await;
        let next = Node::start(&cluster, number, |_| {}).await;
        owner.die();
        for room in rooms {
            cluster.take_over(room, &next).await;
        }
        owner = next;
    }
    stop.store(true, Ordering::SeqCst);
    check(talking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_has_lost_its_rooms_shows_nothing_more() {
    let cluster = Cluster::new();
    let nodes: [Node; 3] = nodes(&cluster).await;
    let stop = Arc::<AtomicBool>::default();
    cluster.set_owner("lobby", Some(0));
    cluster.set_owner("other", Some(0));
    let mut talking = Vec::new();
    for node in &nodes {
        for room in ["lobby", "other"] {
            let client = node.join(room).await;
            talking.push(tokio::spawn(client.talk(40, stop.clone())));
        }
    }
    let mut random = Random::new();
    for round in 1..40 {
        sleep(Duration::from_millis(random.below(20) as u64)).await;
        // The node that has it finds out when it writes, and sometimes is told.
        let before = cluster.owner("lobby").expect("an owner");
        let to = (before + 1) % 3;
        cluster.take_over("lobby", &nodes[to]).await;
        if round % 3 == 0 {
            let abandoned = nodes[before].control.abandon(|room| room == "lobby");
            eventually("the end of the room", abandoned).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    check(talking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_leaves_its_rooms_to_another() {
    let cluster = Cluster::new();
    let [gateway, first, second]: [Node; 3] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    for _ in 0..50 {
        client.say().await;
    }
    first.stop().await;
    for _ in 0..50 {
        client.say().await;
    }
    cluster.take_over("lobby", &second).await;
    client.hear_all().await;
    assert_eq!(client.seen, [1001]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_back_do_so_at_any_node() {
    let cluster = Cluster::new();
    let nodes: [Node; 3] = nodes(&cluster).await;
    let addresses: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    cluster.set_owner("lobby", Some(0));
    let stop = Arc::<AtomicBool>::default();
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(come_back(addresses.clone(), "lobby", stop.clone())))
        .collect();
    let mut watcher = nodes[0].join("lobby").await;
    let mut random = Random::new();
    for round in 0..30 {
        sleep(Duration::from_millis(random.below(30) as u64)).await;
        let from = cluster.owner("lobby").expect("an owner");
        let to = random.below(3);
        match round % 2 {
            0 => cluster.hand_over("lobby", &nodes[from], &nodes[to]).await,
            _ => cluster.take_over("lobby", &nodes[to]).await,
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut all_asked = 0;
    for client in clients {
        let (said, heard, asked) = eventually("the end", client).await.expect("no panic");
        assert_eq!(said, heard);
        assert!(heard > 40, "{heard} heard");
        all_asked += asked;
    }
    // None has joined again that had a session.
    for _ in 0..10 {
        watcher.say().await;
    }
    watcher.hear_all().await;
    let joined = watcher.seen.iter().filter(|seen| **seen < 2000).count();
    assert!(joined <= 1 + all_asked, "{joined} joins of {all_asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_room_in_memory_are_told_that_it_is_gone() {
    let cluster = Cluster::new();
    let change = |config: &mut ServerConfig| config.durability = Durability::Memory;
    let first = Node::start(&cluster, 0, change).await;
    let second = Node::start(&cluster, 1, change).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = first.join("lobby").await;
    client.see(&[1001]).await;
    cluster.hand_over("lobby", &second, &first).await;
    assert_eq!(client.closed().await.0, 1012);
    let mut client = first.join("lobby").await;
    client.see(&[1001]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rooms_go_at_once() {
    let cluster = Cluster::new();
    let [gateway, first, second]: [Node; 3] = nodes(&cluster).await;
    let rooms: Vec<_> = (0..200).map(|number| format!("room-{number}")).collect();
    let mut clients = Vec::new();
    for room in &rooms {
        cluster.set_owner(room, Some(1));
        let mut client = gateway.join(room).await;
        client.see(&[1001]).await;
        clients.push(client);
    }
    for round in 0..4 {
        for client in &mut clients {
            client.say().await;
        }
        let (from, to) = match round % 2 {
            0 => (&first, &second),
            _ => (&second, &first),
        };
        for room in &rooms {
            cluster.set_owner(room, None);
        }
        let released = from.control.release(|room| room.starts_with("room-"));
        let released = eventually("the release", released).await;
        released.expect("it is durable");
        let mut unfinished = cluster.journal.unfinished();
        assert_eq!(unfinished.len(), rooms.len());
        // In no order, as far as their node can tell.
        unfinished.rotate_left(round * 13);
        for room in &rooms {
            cluster.set_owner(room, Some(to.number));
        }
        to.control.adopt(unfinished);
        for client in &mut clients {
            client.hear_all().await;
        }
    }
    for client in &clients {
        assert_eq!(client.seen, [1001]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_room_has_done_elsewhere_is_not_the_load_of_its_node() {
    let cluster = Cluster::new();
    let nodes: [Node; 2] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(0));
    let mut client = nodes[0].join("lobby").await;
    client.see(&[1001]).await;
    let load = async |node: &Node| {
        let load = node.control.load(2, |room| usize::from(room == "lobby"));
        let load = eventually("the load", load).await;
        assert_eq!((load.groups.len(), load.groups[0].rooms), (2, 0));
        load.groups[1]
    };
    let first = load(&nodes[0]).await;
    assert!(first.rooms == 1 && first.fuel > 0 && first.memory_bytes > 0);
    // It has done nothing since.
    assert_eq!(load(&nodes[0]).await.fuel, 0);
    cluster.hand_over("lobby", &nodes[0], &nodes[1]).await;
    client.say().await;
    client.hear_all().await;
    let after = load(&nodes[1]).await;
    assert!(
        after.rooms == 1 && after.fuel < first.fuel,
        "{after:?}, {first:?}"
    );
    assert_eq!(load(&nodes[0]).await.rooms, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_released_when_that_is_durable() {
    let cluster = Cluster::new();
    let journal = cluster.journal.clone();
    let node = Node::start(&cluster, 0, |config| {
        config.journal = Some(Arc::new(journal))
    })
    .await;
    cluster.set_owner("lobby", Some(0));
    let mut client = node.join("lobby").await;
    client.see(&[1001]).await;
    cluster.journal.pause();
    client.say().await;
    eventually("the message", async {
        while cluster.journal.waiting() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    cluster.set_owner("lobby", None);
    let mut released = pin!(node.control.release(|room| room == "lobby"));
    while cluster.journal.waiting() > 0 {
        // However slowly the journal takes it.
        assert!((&mut released).now_or_never().is_none());
        if cluster.journal.waiting() == 1 {
            // The message; the room's snapshot follows.
            sleep(Duration::from_millis(20)).await;
        }
        cluster.journal.step();
    }
    let released = eventually("the release", released).await;
    released.expect("it is durable");
    let stored = cluster.journal.stored("lobby").expect("it is stored");
    assert_eq!((stored.snapshot.events, &*stored.tail), (3, &[][..]));
    cluster.journal.resume();
    cluster.set_owner("lobby", Some(0));
    client.hear_all().await;
    assert_eq!(client.seen, [1001]);
}

/// Its node hears of it when the room is gone already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_seen_of_a_room_that_is_released_when_another_node_has_it() {
    let cluster = Cluster::new();
    let [first, second, gateway]: [Node; 3] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(0));
    let mut watcher = first.join("lobby").await;
    watcher.see(&[1001]).await;
    let mut client = gateway.join("lobby").await;
    client.see(&[1002]).await;
    watcher.see(&[1001, 1002]).await;
    cluster.journal.pause();
    cluster.fence("lobby", 1);
    client.say().await;
    let waiting = async |count| {
        let is_so = async {
            while cluster.journal.waiting() < count {
                sleep(Duration::from_millis(1)).await;
            }
        };
        eventually("what is to be written", is_so).await;
    };
    // The echo waits for it.
    waiting(1).await;
    cluster.set_owner("lobby", None);
    let released = first.control.release(|room| room == "lobby");
    // The room's snapshot.
    waiting(2).await;
    cluster.journal.resume();
    let released = eventually("the release", released).await;
    assert!(
        matches!(released, Err(JournalError::NotOwned { .. })),
        "{released:?}"
    );
    cluster.take_over("lobby", &second).await;
    // Each is replied to once, by the room at the other node, where nobody has spoken before.
    client.hear_all().await;
    for client in [&mut client, &mut watcher] {
        client.say().await;
        client.hear_all().await;
    }
    assert_eq!(watcher.seen, [1001, 1002]);
    assert_eq!(client.seen, [1002]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_no_space_for_a_room_closes_none_of_its_clients() {
    let cluster = Cluster::new();
    let [gateway, owner, other]: [Node; 3] = nodes(&cluster).await;
    let full = Node::start(&cluster, 3, |config| config.max_rooms = 1).await;
    cluster.set_owner("lobby", Some(1));
    cluster.set_owner("filling", Some(3));
    let mut filling = gateway.join("filling").await;
    filling.see(&[1001]).await;
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    owner.die();
    cluster.take_over("lobby", &full).await;
    client.say().await;
    // Whoever is new is told.
    let (code, reason) = gateway.join("lobby").await.closed().await;
    assert_eq!(code, 1013, "{reason}");
    sleep(Duration::from_millis(50)).await;
    cluster.take_over("lobby", &other).await;
    client.hear_all().await;
    assert_eq!(client.seen, [1001]);
}

/// For longer than a node is waited for, and than one is that says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_whose_node_waits_for_its_journal_wait_as_long() {
    let cluster = Cluster::new();
    let quick = |config: &mut ServerConfig| {
        config.heartbeat_interval = Duration::from_millis(100);
        config.heartbeat_timeout = Duration::from_secs(1);
        config.owner_timeout = Duration::from_millis(500);
    };
    let gateway = Node::start(&cluster, 0, quick).await;
    let owner = Node::start(&cluster, 1, quick).await;
    let next = Node::start(&cluster, 2, quick).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    cluster.journal.pause();
    client.say().await;
    let waiting = async {
        sleep(Duration::from_millis(2500)).await;
        // The session is not open over the next connection before the journal is there again.
        owner.lose_connections();
        cluster.suspect("lobby");
        sleep(Duration::from_millis(20)).await;
        cluster.trust("lobby", 1);
        sleep(Duration::from_secs(1)).await;
        // And then another node has the room.
        cluster.take_over("lobby", &next).await;
        sleep(Duration::from_millis(20)).await;
        cluster.journal.resume();
    };
    tokio::join!(client.hear_all(), waiting);
    assert_eq!(client.seen, [1001]);
}

/// Each of them is asked for the room before it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_at_a_node_that_is_about_to_have_their_room() {
    let cluster = Cluster::new();
    let [gateway, first, second]: [Node; 3] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    for to in [&second, &first, &second] {
        let from = cluster.owner("lobby").expect("an owner");
        let from = [&gateway, &first, &second][from];
        client.say().await;
        cluster.release("lobby", from).await;
        cluster.begin_to_arrive("lobby", to.number);
        client.say().await;
        cluster.waits_for_arrival("lobby", 1).await;
        cluster.arrive("lobby");
        client.hear_all().await;
    }
    assert_eq!(client.seen, [1001]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_wait_for_their_room_go_where_it_is_instead() {
    let cluster = Cluster::new();
    let [gateway, first, second]: [Node; 3] = nodes(&cluster).await;
    cluster.set_owner("lobby", Some(1));
    let mut client = gateway.join("lobby").await;
    client.see(&[1001]).await;
    cluster.release("lobby", &first).await;
    cluster.begin_to_arrive("lobby", 2);
    client.say().await;
    cluster.waits_for_arrival("lobby", 1).await;
    // Its journal is refused: another one has the room.
    cluster.fence("lobby", 1);
    cluster.arrive("lobby");
    cluster.take_over("lobby", &first).await;
    client.hear_all().await;
    for _ in 0..3 {
        client.say().await;
    }
    cluster.hand_over("lobby", &first, &second).await;
    client.hear_all().await;
    assert_eq!(client.seen, [1001]);
}

/// Nothing keeps two owners of such a room apart but that one of them has ended it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_in_memory_begins_only_when_it_is_here() {
    let cluster = Cluster::new();
    let change = |config: &mut ServerConfig| {
        config.durability_of = vec![("memory-".into(), Durability::Memory)];
    };
    let gateway = Node::start(&cluster, 0, change).await;
    let owner = Node::start(&cluster, 1, change).await;
    cluster.begin_to_arrive("memory-1", 1);
    cluster.begin_to_arrive("lobby", 1);
    let mut client = gateway.join("memory-1").await;
    let mut later = gateway.join("lobby").await;
    cluster.waits_for_arrival("lobby", 1).await;
    let load = eventually("the load", owner.control.load(1, |_| 0)).await;
    assert_eq!(load.groups[0].rooms, 0);
    for room in ["memory-1", "lobby"] {
        cluster.arrive(room);
    }
    client.see(&[1001]).await;
    later.see(&[1001]).await;
}
