//! Several nodes.

use crate::{
    Node, config, events, load_later, log, nats::NatsServer, proxy::Proxy, room_of, save, snapshot,
    write_later,
};
use futures_util::StreamExt;
use serde_json::Value;
use stateroom_wasmi_cluster::{Admin, SHARDS, Shard};
use stateroom_wasmi_server::{
    GroupLoad, Location, ServerLoad,
    journal::{JournalError, Stored},
};
use std::{cell::OnceCell, collections::BTreeSet};
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
            location => location == Location::Node(a.address),
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
fn rooms_may_be_asked_for_that_are_about_to_be_here() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let a = Node::join(&server, "a");
    let coming = |a: &Node| {
        let mut rooms = Shard::all().map(room_of);
        rooms.find(|room| a.directory.is_coming(room))
    };
    let loading = OnceCell::new();
    a.wait(|a| match coming(a) {
        Some(room) => loading.set((load_later(a, &room), room)).is_ok(),
        None => false,
    });
    let (load, room) = loading.into_inner().expect("one is coming");
    let loaded = load();
    assert!(matches!(loaded, Ok(Stored::New(_))), "{loaded:?}");
    assert_eq!(a.directory.locate(&room), Location::Here);
    a.wait_for_shards(|shards| shards == SHARDS);
    assert_eq!(coming(&a), None);
}

#[test]
fn whoever_asks_for_a_room_does_not_wait_for_its_shard_for_ever() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let proxy = Proxy::to(&server.url);
    let coming = |a: &Node| {
        let rooms = Shard::all().map(room_of);
        let rooms = rooms.filter(|room| a.directory.is_coming(room));
        rooms.collect::<Vec<_>>()
    };
    let is_refused = |loaded: &Result<_, _>| matches!(loaded, Err(JournalError::NotOwned { .. }));
    // What NATS has said already may be enough for them to be here, on a busy machine for all of them; then another
    // node tries it.
    loop {
        let a = Node::join_with(config(&proxy.url, "a")).expect("it joins");
        let mut has_refused = false;
        while !has_refused && a.here() < SHARDS {
            a.wait(|a| {
                let is_some = !coming(a).is_empty();
                proxy.set_cut(is_some);
                is_some || a.here() == SHARDS
            });
            let loads: Vec<_> = coming(&a).iter().map(|room| load_later(&a, room)).collect();
            has_refused = loads.into_iter().any(|load| is_refused(&load()));
            proxy.set_cut(false);
        }
        a.wait_for_shards(|shards| shards == SHARDS);
        if has_refused {
            return;
        }
    }
}

/// Who gives shards away waits for that.
#[test]
fn a_node_says_of_which_shards_it_runs_the_rooms() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let runtime = Runtime::new().expect("it starts");
    let _entered = runtime.enter();
    let mut announcements = runtime.block_on(async {
        let client = async_nats::connect(&server.url).await.expect("it connects");
        let announcements = client.subscribe("stateroom.*.owners").await;
        client.flush().await.expect("it is there");
        announcements.expect("it is there")
    });
    let _a = Node::join(&server, "a");
    let all_active = async {
        let mut active = BTreeSet::new();
        while active.len() < SHARDS {
            let said = announcements.next().await.expect("it is there");
            let said: Value = serde_json::from_slice(&said.payload).expect("it is JSON");
            if said["is_active"] == true {
                active.insert(said["shard"].as_u64());
            }
        }
    };
    let all_active = async { tokio::time::timeout(crate::TIMEOUT, all_active).await };
    runtime.block_on(all_active).expect("it says so of all");
}

/// Those who look for nodes do not know how long these may be silent.
#[test]
fn nodes_that_may_be_silent_for_long_are_found() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let mut config = config(&server.url, "a");
    config.silence = crate::TIMEOUT;
    let _a = Node::join_with(config.clone()).expect("it joins");
    config.node = "b".into();
    let _b = Node::join_with(config).expect("it joins");
    let runtime = Runtime::new().expect("it starts");
    let admin = runtime.block_on(Admin::connect(&crate::config(&server.url, "admin")));
    let admin = admin.expect("it connects");
    let nodes = runtime.block_on(admin.nodes()).expect("NATS answers");
    assert_eq!(nodes.len(), 2);
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
    // It stays so, also when shards are moved to where they would be by themselves.
    let c = Node::join(&server, "c");
    c.wait_for_shards(|shards| shards > SHARDS / 3);
    c.wait(|c| b.here() + c.here() == SHARDS);
    assert_eq!(a.here(), 0);
    // It comes back as another run, and gets its own again.
    a.kill();
    let a = Node::join(&server, "a");
    a.wait_for_shards(|shards| shards > SHARDS / 4);
}

#[test]
fn busy_shards_go_to_a_node_that_has_less_to_do() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let a = Node::join(&server, "a");
    a.wait_for_shards(|shards| shards == SHARDS);
    let b = Node::join(&server, "b");
    b.wait(|b| b.here() > SHARDS / 3 && a.here() + b.here() == SHARDS);
    // All rooms are in eight of the shards that a has, with no fuel and no memory.
    let of_a = Shard::all().filter(|shard| a.directory.locate(&room_of(*shard)) == Location::Here);
    let busy: Vec<_> = of_a.take(8).collect();
    for node in [&a, &b] {
        let mut load = ServerLoad::default();
        load.groups = vec![GroupLoad::default(); SHARDS];
        for shard in &busy {
            load.groups[shard.index()].rooms = if core::ptr::eq(node, &a) { 500 } else { 0 };
        }
        *node.rooms.load.lock().expect("no panic") = load;
    }
    let at_b = |b: &Node| {
        let mut shards = busy.iter();
        shards.any(|shard| b.directory.locate(&room_of(*shard)) == Location::Here)
    };
    b.wait(at_b);
    let runtime = Runtime::new().expect("it starts");
    let status = runtime.block_on(async {
        let admin = Admin::connect(&config(&server.url, "operator")).await;
        let admin = admin.expect("NATS is there");
        let placed = admin.shards().await.expect("NATS is there").into_iter();
        let placed = placed.filter(|shard| shard.placement.is_some());
        (
            admin.nodes().await.expect("NATS is there"),
            placed.collect::<Vec<_>>(),
        )
    });
    let (nodes, placed) = status;
    let rooms = nodes.iter().map(|node| node.load.map(|load| load.rooms));
    assert_eq!(rooms.collect::<Vec<_>>(), [Some(4000), Some(0)]);
    // Half of them at most, or they would come back.
    assert!((1..=4).contains(&placed.len()), "{placed:?}");
    for shard in placed {
        assert!(busy.contains(&shard.shard), "{shard:?}");
        let placement = shard.placement.expect("it has one");
        assert_eq!((&*placement.node, placement.is_pinned), ("b", false));
    }
}

#[test]
fn no_more_rooms_are_stored_than_may_be() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let mut config = config(&server.url, "a");
    config.max_stored_rooms = Some(3);
    let node = Node::join_with(config).expect("it joins");
    node.wait_for_shards(|shards| shards == SHARDS);
    for n in 0..3 {
        let id = format!("room-{n}");
        let number = node.new_room(&id);
        node.write(save(number, &id, snapshot(0, b"birth")))
            .expect("it is written");
    }
    let loaded = load_later(&node, "another")();
    assert!(matches!(
        loaded,
        Err(JournalError::TooManyRooms { limit: 3 })
    ));
    // Those that are stored can be loaded.
    assert_eq!(node.stored("room-1").snapshot, snapshot(0, b"birth"));
}

#[test]
fn a_room_that_ends_its_nodes_is_in_quarantine_and_no_other() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let mut node = Node::join(&server, "a");
    node.wait_for_shards(|shards| shards == SHARDS);
    // Two of them are in the same shard.
    let culprit = room_of(Shard(7));
    let neighbour = (0..).map(|n| format!("neighbour-{n}"));
    let neighbour = neighbour
        .into_iter()
        .find(|id| Shard::of_room(id) == Shard(7));
    let rooms = [
        culprit.clone(),
        neighbour.expect("there is one"),
        room_of(Shard(8)),
    ];
    for id in &rooms {
        let number = node.new_room(id);
        node.write(save(number, id, snapshot(0, b"birth")))
            .expect("it is written");
        node.write(log(number, 0..2)).expect("it is written");
    }
    let mut deaths = 0;
    let quarantined = loop {
        node.kill();
        node = Node::join(&server, "a");
        node.wait_for_shards(|shards| shards == SHARDS);
        // The first time all are restored at once.
        let innocent = || rooms[1..].iter().map(|id| node.begin_restoring(id));
        let first: Vec<_> = if deaths == 0 {
            innocent().collect()
        } else {
            Vec::new()
        };
        match node.begin_restoring(&culprit) {
            Stored::Quarantined(_) => break node,
            Stored::Room(room) => assert_eq!(events(&room), [0, 1]),
            other => panic!("{other:?}"),
        }
        assert!(first.iter().all(|room| matches!(room, Stored::Room(_))));
        deaths += 1;
        assert!(deaths < 10, "it is not in quarantine");
    };
    assert_eq!(deaths, 3);
    let adopted = quarantined.rooms.adopted.lock().expect("no panic").clone();
    let ids: std::collections::BTreeSet<_> = adopted.iter().map(|room| &*room.id).collect();
    assert_eq!(ids, rooms[1..].iter().map(|id| &**id).collect());
    for id in &rooms[1..] {
        assert_eq!(events(&quarantined.stored(id)), [0, 1]);
    }
    // It stays so.
    quarantined
        .write(log(quarantined.stored(&rooms[1]).number, 2..3))
        .expect("it is written");
    quarantined.kill();
    let node = Node::join(&server, "a");
    node.wait_for_shards(|shards| shards == SHARDS);
    assert!(matches!(node.load(&culprit), Stored::Quarantined(_)));
    assert_eq!(events(&node.stored(&rooms[1])), [0, 1, 2]);
    // Until an operator says otherwise.
    let runtime = Runtime::new().expect("it starts");
    let admin = runtime.block_on(Admin::connect(&config(&server.url, "admin")));
    let admin = admin.expect("it connects");
    let nodes = runtime.block_on(admin.nodes()).expect("NATS answers");
    let quarantined = || runtime.block_on(admin.quarantined(&nodes));
    assert_eq!(quarantined().expect("they answer"), [&*culprit]);
    let release = |room: &str, discard| runtime.block_on(admin.release(room, discard));
    assert!(release(&rooms[1], false).is_err(), "it is in no quarantine");
    release(&culprit, false).expect("it is released");
    assert!(quarantined().expect("they answer").is_empty());
    assert_eq!(events(&node.stored(&culprit)), [0, 1]);
    node.write(log(node.stored(&culprit).number, 2..3))
        .expect("it is written");
    node.kill();
    let node = Node::join(&server, "a");
    node.wait_for_shards(|shards| shards == SHARDS);
    assert_eq!(events(&node.stored(&culprit)), [0, 1, 2]);
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
    let placement = shards[shard.index()].placement.as_ref();
    let placement = placement.expect("it has one");
    assert_eq!((&*placement.node, placement.is_pinned), ("b", true));
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
