//! Several nodes.

use crate::{
    Node, config, events, log, nats::NatsServer, proxy::Proxy, room_of, save, snapshot, write_later,
};
use stateroom_wasmi_cluster::{Admin, SHARDS, Shard};
use stateroom_wasmi_server::{Location, journal::JournalError};
use tokio::runtime::Runtime;

#[test]
fn shards_are_shared_and_those_of_a_node_that_is_killed_go_on_elsewhere() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let a = Node::join(&server, "a");
    a.wait_for_shards(|shards| shards == SHARDS);
    let rooms = Shard::all().step_by(16).map(room_of);
    let rooms: Vec<_> = rooms.map(|id| (a.new_room(&id), id)).collect();
    for (number, id) in &rooms {
        a.write(save(*number, id, snapshot(0, b"birth")))
            .expect("it is written");
        a.write(log(*number, 0..2)).expect("it is written");
    }
    let b = Node::join(&server, "b");
    // Each gets about a half, in the end.
    b.wait_for_shards(|shards| shards > SHARDS / 3);
    b.wait(|b| a.here() + b.here() == SHARDS);
    b.wait(|b| {
        Shard::all().all(|shard| match b.directory.locate(&room_of(shard)) {
            Location::Here => true,
            location => location == Location::Node(a.address()),
        })
    });
    for (number, id) in &rooms {
        let (here, other) = match a.directory.locate(id) {
            Location::Here => (&a, &b),
            _ => (&b, &a),
        };
        assert_eq!(events(&here.stored(id)), [0, 1]);
        here.write(log(*number, 2..3)).expect("it is written");
        let refused = other.write(log(*number, 2..3));
        let Err(JournalError::NotOwned { rooms }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(rooms, [*number]);
    }
    a.kill();
    b.wait_for_shards(|shards| shards == SHARDS);
    for (_, id) in &rooms {
        assert_eq!(events(&b.stored(id)), [0, 1, 2]);
    }
}

#[test]
fn a_node_that_is_drained_gives_all_away() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let a = Node::join(&server, "a");
    a.wait_for_shards(|shards| shards == SHARDS);
    let b = Node::join(&server, "b");
    b.wait_for_shards(|shards| shards > 0);
    a.drain();
    b.wait_for_shards(|shards| shards == SHARDS);
    assert_eq!(a.here(), 0);
    // It comes back as another run, and gets its own again.
    a.kill();
    let a = Node::join(&server, "a");
    a.wait_for_shards(|shards| shards > SHARDS / 3);
}

#[test]
fn one_that_was_cut_off_writes_nothing_more() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let proxy = Proxy::to(&server.url);
    let a = Node::join_with(config(&proxy.url, "a")).expect("it joins");
    a.wait_for_shards(|shards| shards == SHARDS);
    let number = a.new_room("lobby");
    a.write(save(number, "lobby", snapshot(0, b"birth")))
        .expect("it is written");
    a.write(log(number, 0..1)).expect("it is written");
    proxy.set_cut(true);
    // It is on its way when the other one takes over.
    let late = write_later(&a, log(number, 1..2));
    let b = Node::join(&server, "b");
    b.wait_for_shards(|shards| shards == SHARDS);
    assert_eq!(events(&b.stored("lobby")), [0]);
    b.write(log(number, 1..3)).expect("it is written");
    proxy.set_cut(false);
    let refused = late();
    assert!(
        matches!(refused, Err(JournalError::NotOwned { .. })),
        "{refused:?}"
    );
    assert_eq!(events(&b.stored("lobby")), [0, 1, 2]);
    // It is there again, and gets its share.
    a.wait_for_shards(|shards| (1..SHARDS).contains(&shards));
    a.wait(|a| a.here() + b.here() == SHARDS);
    let owner = if a.directory.locate("lobby") == Location::Here {
        &a
    } else {
        &b
    };
    assert_eq!(events(&owner.stored("lobby")), [0, 1, 2]);
}

#[test]
fn operators_see_and_move_shards() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let a = Node::join(&server, "a");
    a.wait_for_shards(|shards| shards == SHARDS);
    let b = Node::join(&server, "b");
    b.wait_for_shards(|shards| shards > SHARDS / 3);
    let runtime = Runtime::new().expect("it starts");
    let admin = runtime.block_on(Admin::connect(&config(&server.url, "admin")));
    let admin = admin.expect("it connects");
    let nodes = runtime.block_on(admin.nodes()).expect("NATS answers");
    let names: Vec<_> = nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["a", "b"]);
    let is_at_a = |room: &String| a.directory.locate(room) == Location::Here;
    let room = Shard::all().map(room_of).find(is_at_a);
    let room = room.expect("it has one");
    let shard = Shard::of_room(&room);
    runtime
        .block_on(admin.pin(shard, Some("b")))
        .expect("it is pinned");
    b.wait(|b| b.directory.locate(&room) == Location::Here);
    let shards = runtime.block_on(admin.shards()).expect("NATS answers");
    assert_eq!(shards[shard.index()].pin.as_deref(), Some("b"));
    assert_eq!(
        shards[shard.index()].owner.map(|owner| owner.node),
        Some(nodes[1].id)
    );
    runtime
        .block_on(admin.drain(nodes[1].id, crate::TIMEOUT))
        .expect("it is drained");
    assert_eq!(b.here(), 0);
}

#[test]
fn a_node_waits_for_nats_to_start() {
    let Some(mut server) = NatsServer::start() else {
        return;
    };
    server.kill();
    let address = server.url.trim_start_matches("nats://");
    let listener = std::net::TcpListener::bind(address).expect("the port is free");
    let config = config(&server.url, "a");
    let joining = std::thread::spawn(|| Node::join_with(config));
    // It has tried, in vain.
    drop(listener.accept().expect("it connects"));
    drop(listener);
    server.restart();
    let node = joining.join().expect("no panic").expect("it joins");
    node.wait_for_shards(|shards| shards == SHARDS);
}
