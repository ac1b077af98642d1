//! What `Journal` promises, on one node.

use crate::{
    Node, config, events, load_later, log, nats::NatsServer, room_of, save, snapshot, wait,
    write_later,
};
use core::time::Duration;
use stateroom_wasmi_cluster::{Admin, ClusterError, SHARDS, Shard};
use stateroom_wasmi_host::ModuleHash;
use stateroom_wasmi_server::journal::{
    Batch, JournalError, RoomNumber, RoomWrite, Stored, UnfinishedRoom,
};
use std::time::Instant;

fn one_node() -> Option<(NatsServer, Node)> {
    let server = NatsServer::start()?;
    let node = Node::join(&server, "a");
    node.wait_for_shards(|shards| shards == SHARDS);
    Some((server, node))
}

/// The node is killed, and another one takes over.
fn next(server: &NatsServer, node: Node) -> Node {
    node.kill();
    let node = Node::join(server, "a");
    node.wait_for_shards(|shards| shards == SHARDS);
    node
}

#[test]
fn a_room_is_loaded_as_it_was_saved_with_its_events_since() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("lobby");
    node.write(save(number, "lobby", snapshot(0, b"birth")))
        .expect("it is written");
    node.write(log(number, 0..3)).expect("it is written");
    let mut both = log(number, 3..5);
    let second = snapshot(4, b"second");
    both.write(
        number,
        RoomWrite::Snapshot {
            id: "lobby".into(),
            snapshot: second.clone(),
        },
    );
    node.write(both).expect("it is written");
    node.write(log(number, 5..6)).expect("it is written");
    let check = |node: &Node| {
        let room = node.stored("lobby");
        assert_eq!(room.number, number);
        assert_eq!(room.snapshot, second);
        assert_eq!(events(&room), [4, 5]);
    };
    check(&node);
    let node = next(&server, node);
    check(&node);
    // The tail that was taken over, and what has come since.
    node.write(log(number, 6..8)).expect("it is written");
    assert_eq!(events(&node.stored("lobby")), [4, 5, 6, 7]);
    let node = next(&server, node);
    assert_eq!(events(&node.stored("lobby")), [4, 5, 6, 7]);
}

#[test]
fn a_load_finds_what_was_written_before_it() {
    let Some((_server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("lobby");
    // Without waiting: both are on their way.
    let written = write_later(&node, save(number, "lobby", snapshot(7, b"now")));
    assert_eq!(node.stored("lobby").snapshot, snapshot(7, b"now"));
    written().expect("it is written");
}

#[test]
fn batches_are_done_in_order() {
    let Some((_server, node)) = one_node() else {
        return;
    };
    let rooms: Vec<_> = (0..20).map(|n| format!("room {n}")).collect();
    let numbers: Vec<_> = rooms.iter().map(|id| node.new_room(id)).collect();
    let (send, receive) = std::sync::mpsc::channel();
    for n in 0..2000_u64 {
        let at = n as usize % rooms.len();
        let batch = match n < 20 {
            true => save(numbers[at], &rooms[at], snapshot(0, b"birth")),
            false => log(numbers[at], n / 20 - 1..n / 20),
        };
        let send = send.clone();
        let done = move |result: Result<(), _>| drop(send.send(result.map(|()| n)));
        node.journal.write(batch, Box::new(done));
    }
    for n in 0..2000 {
        let done = receive.recv_timeout(crate::TIMEOUT).expect("it is done");
        assert_eq!(done.expect("it is written"), n);
    }
    for id in &rooms {
        assert_eq!(events(&node.stored(id)), Vec::from_iter(0..99));
    }
}

#[test]
fn a_room_that_was_removed_is_new_and_has_another_number() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("lobby");
    node.write(save(number, "lobby", snapshot(0, b"birth")))
        .expect("it is written");
    node.write(log(number, 0..3)).expect("it is written");
    let mut batch = Batch::default();
    batch.write(number, RoomWrite::Remove);
    node.write(batch).expect("it is written");
    assert_ne!(node.new_room("lobby"), number);
    let node = next(&server, node);
    let again = node.new_room("lobby");
    assert_ne!(again, number);
    // What is left of the first one's events is not this one's.
    node.write(save(again, "lobby", snapshot(0, b"again")))
        .expect("it is written");
    let node = next(&server, node);
    assert!(events(&node.stored("lobby")).is_empty());
}

#[test]
fn nothing_is_left_of_a_room_that_was_removed() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let (large, other) = (vec![7; 5_000_000], room_of(Shard(9)));
    let numbers = ["large", &other].map(|id| {
        let number = node.new_room(id);
        node.write(save(number, id, snapshot(0, &large)))
            .expect("it is written");
        number
    });
    let stored = |room: &str| server.count("STATEROOM_main", &format!("stateroom.main.s.{room}"));
    assert!(stored("*.room.>") > 5);
    let mut batch = Batch::default();
    batch.write(numbers[0], RoomWrite::Remove);
    node.write(batch).expect("it is written");
    let of_other = stored("9.room.>");
    node.poll(|_| stored("*.room.>") == of_other);
    // An owner that ended before it had deleted what was left of the other one.
    node.kill();
    let token: String = other.bytes().map(|byte| format!("{byte:02x}")).collect();
    server.publish(
        format!("stateroom.main.s.9.room.x{token}.0"),
        &[("Stateroom-Room", "removed"), ("Nats-Rollup", "sub")],
        b"",
    );
    assert_eq!(stored("9.room.>"), of_other, "the other parts are there");
    let node = Node::join(&server, "a");
    node.wait_for_shards(|shards| shards == SHARDS);
    node.poll(|_| stored("*.room.>") == 0);
    node.new_room(&other);
}

#[test]
fn rooms_with_events_and_those_that_wake_are_unfinished() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let wake_at = Some(Duration::from_millis(1_700_000_000_123));
    for (id, wake_at, tail) in [
        ("busy", None, 2),
        ("done", None, 0),
        ("asleep", wake_at, 0),
        ("both", wake_at, 1),
    ] {
        let number = node.new_room(id);
        let mut snapshot = snapshot(0, b"birth");
        snapshot.wake_at = wake_at;
        node.write(save(number, id, snapshot))
            .expect("it is written");
        node.write(log(number, 0..tail)).expect("it is written");
    }
    assert_eq!(*node.rooms.adopted.lock().expect("no panic"), []);
    let node = next(&server, node);
    let unfinished = |id: &str, wake_at| UnfinishedRoom {
        id: id.into(),
        wake_at,
    };
    let mut found = node.rooms.adopted.lock().expect("no panic").clone();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    let expected = [
        unfinished("asleep", wake_at),
        unfinished("both", None),
        unfinished("busy", None),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_snapshot_may_be_longer_than_a_message() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("large");
    let large: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    node.write(save(number, "large", snapshot(1, &large)))
        .expect("it is written");
    assert_eq!(node.stored("large").snapshot, snapshot(1, &large));
    let node = next(&server, node);
    assert_eq!(node.stored("large").snapshot, snapshot(1, &large));
    node.write(save(number, "large", snapshot(2, b"small")))
        .expect("it is written");
    let node = next(&server, node);
    assert_eq!(node.stored("large").snapshot, snapshot(2, b"small"));
}

#[test]
fn a_batch_may_have_more_than_a_record() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("lobby");
    node.write(save(number, "lobby", snapshot(0, b"birth")))
        .expect("it is written");
    let mut batch = Batch::default();
    for event in 0..7 {
        batch.log(number, event, &vec![event as u8; 1 << 20]);
    }
    node.write(batch).expect("it is written");
    let node = next(&server, node);
    let tail = node.stored("lobby").tail;
    let entries = stateroom_wasmi_server::journal::LogEntries::new(&tail);
    let entries: Vec<_> = entries.map(|entry| entry.expect("well-formed")).collect();
    assert_eq!(entries.len(), 7);
    assert!(
        entries
            .iter()
            .all(|entry| entry.event == vec![entry.number as u8; 1 << 20])
    );
}

#[test]
fn a_new_room_may_have_more_events_than_a_record() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("lobby");
    // It is saved first, and its first events are in the same batch.
    let mut batch = save(number, "lobby", snapshot(0, b"birth"));
    for event in 0..5 {
        batch.log(number, event, &vec![event as u8; 1 << 20]);
    }
    node.write(batch).expect("it is written");
    let is_complete = |node: &Node| {
        let tail = node.stored("lobby").tail;
        let entries = stateroom_wasmi_server::journal::LogEntries::new(&tail);
        let numbers = entries.map(|entry| entry.expect("well-formed").number);
        assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    };
    let node = next(&server, node);
    is_complete(&node);
    // The same for one that comes out of quarantine.
    let mut batch = Batch::default();
    batch.write(number, RoomWrite::Quarantine("it is bad".into()));
    node.write(batch).expect("it is written");
    let runtime = tokio::runtime::Runtime::new().expect("it starts");
    runtime.block_on(async {
        let admin = Admin::connect(&config(&server.url, "operator")).await;
        let admin = admin.expect("NATS is there");
        admin.release("lobby", false).await.expect("it is released");
    });
    is_complete(&node);
    let node = next(&server, node);
    is_complete(&node);
}

#[test]
fn the_log_is_trimmed_and_nothing_that_is_needed_is_lost() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("lobby");
    node.write(save(number, "lobby", snapshot(0, b"birth")))
        .expect("it is written");
    for n in 0..1300 {
        node.write(log(number, n..n + 1)).expect("it is written");
        if n % 400 == 399 {
            node.write(save(number, "lobby", snapshot(n, b"later")))
                .expect("it is written");
        }
    }
    let node = next(&server, node);
    let room = node.stored("lobby");
    assert_eq!(room.snapshot.events, 1199);
    assert_eq!(events(&room), Vec::from_iter(1199..1300));
}

#[test]
fn the_log_of_a_busy_room_is_trimmed() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("lobby");
    // Without waiting, so that a record has the first snapshot and events that are not in it.
    let mut written = vec![write_later(
        &node,
        save(number, "lobby", snapshot(0, b"birth")),
    )];
    let (mut event, mut saved) = (0, 0);
    for n in 0..1200 {
        written.push(write_later(&node, log(number, event..event + 1)));
        event += 1;
        if n % 10 == 9 {
            // Some of the events of this record are in the snapshot, and others are not.
            saved = event;
            written.push(write_later(
                &node,
                save(number, "lobby", snapshot(saved, b"later")),
            ));
            written.push(write_later(&node, log(number, event..event + 1)));
            event += 1;
        }
        for written in written.drain(..) {
            written().expect("it is written");
        }
    }
    // It is trimmed each 500 records, in the background.
    let until = Instant::now() + crate::TIMEOUT;
    let filter = format!("stateroom.main.s.{}.log", Shard::of_room("lobby"));
    while server.count("STATEROOM_main", &filter) > 700 {
        assert!(Instant::now() < until, "the log is not trimmed");
    }
    let node = next(&server, node);
    let room = node.stored("lobby");
    assert_eq!(room.snapshot.events, saved);
    assert_eq!(events(&room), Vec::from_iter(saved..event));
}

#[test]
fn a_shard_may_have_more_rooms_than_nats_finds_at_once() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let shard = Shard::of_room("lobby");
    let rooms = (0..).map(|n| format!("room-{n}"));
    let rooms = rooms.filter(|room| Shard::of_room(room) == shard);
    let rooms: Vec<_> = rooms.take(1100).collect();
    for some in rooms.chunks(100) {
        let mut batch = Batch::default();
        for id in some {
            let number = node.new_room(id);
            let snapshot = snapshot(0, id.as_bytes());
            let id = id.as_str().into();
            batch.write(number, RoomWrite::Snapshot { id, snapshot });
        }
        node.write(batch).expect("it is written");
    }
    let busy = node.stored(&rooms[0]).number;
    node.write(log(busy, 0..3)).expect("it is written");
    let node = next(&server, node);
    for id in [&rooms[0], &rooms[500], &rooms[1099]] {
        assert_eq!(node.stored(id).snapshot, snapshot(0, id.as_bytes()));
    }
    assert_eq!(events(&node.stored(&rooms[0])), [0, 1, 2]);
}

#[test]
fn a_room_in_quarantine_is_kept_and_not_restored() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("bad");
    node.write(save(number, "bad", snapshot(0, b"birth")))
        .expect("it is written");
    node.write(log(number, 0..3)).expect("it is written");
    let mut batch = Batch::default();
    batch.write(number, RoomWrite::Quarantine("it is bad".into()));
    node.write(batch).expect("it is written");
    let is_quarantined = |node: &Node| match node.load("bad") {
        Stored::Quarantined(reason) => assert_eq!(reason, "it is bad"),
        other => panic!("{other:?}"),
    };
    is_quarantined(&node);
    let node = next(&server, node);
    is_quarantined(&node);
    assert_eq!(*node.rooms.adopted.lock().expect("no panic"), []);
}

#[test]
fn a_module_is_kept_however_long_it_is() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let wasm: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 241) as u8).collect();
    let (long, short) = (ModuleHash::of(&wasm), ModuleHash::of(b"short"));
    node.journal.keep_module(long, &wasm);
    node.journal.keep_module(short, b"short");
    // What is written later is durable no earlier.
    node.write(Batch::default()).expect("it is written");
    let node = next(&server, node);
    let load = |hash| wait(|done| node.journal.load_module(hash, done)).expect("it is loaded");
    assert_eq!(load(long), Some(wasm));
    assert_eq!(load(short).as_deref(), Some(&b"short"[..]));
    assert_eq!(load(ModuleHash::of(b"other")), None);
}

#[test]
fn nodes_stay_below_the_limit_of_batches_of_nats() {
    // Which is that of 50 for five nodes.
    let limits = "limits { batch { max_inflight_per_stream: 10 } }";
    let Some(server) = NatsServer::start_limited(limits) else {
        return;
    };
    let node = Node::join(&server, "a");
    node.wait_for_shards(|shards| shards == SHARDS);
    let rooms: Vec<_> = (0..500).map(|n| format!("room {n}")).collect();
    let rooms: Vec<_> = rooms.iter().map(|id| (node.new_room(id), id)).collect();
    // What is one too many is not answered; nor is, on a busy machine, now and then what is not.
    let has_errors = |round| {
        let before = node.metrics().append_errors;
        let saves = rooms.iter().map(|(number, id)| {
            let snapshot = snapshot(round, &[7; 100_000]);
            write_later(&node, save(*number, id, snapshot))
        });
        for written in Vec::from_iter(saves) {
            written().expect("it is written");
        }
        node.metrics().append_errors > before
    };
    assert!(!(0..5).all(has_errors), "there are too many each time");
}

#[test]
fn one_shard_that_cannot_be_written_does_not_stop_the_others_for_good() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let (bad, good) = (room_of(Shard(1)), room_of(Shard(2)));
    let rooms = [&bad, &good].map(|id| {
        let number = node.new_room(id);
        node.write(save(number, id, snapshot(0, b"birth")))
            .expect("it is written");
        number
    });
    set_max_message_bytes(&server, 1000);
    let mut long = Batch::default();
    long.log(rooms[0], 0, &[7; 2000]);
    let refused = write_later(&node, long);
    // They are done in order.
    let written: Vec<_> = (0..3)
        .map(|n| write_later(&node, log(rooms[1], n..n + 1)))
        .collect();
    let refused = refused();
    let Err(JournalError::NotOwned { rooms: not_owned }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(not_owned, rooms[..1]);
    for written in written {
        written().expect("it is written");
    }
    assert!(node.metrics().append_errors > 0);
    // It goes on, without what could not be written.
    node.wait_for_shards(|shards| shards == SHARDS);
    assert!(events(&node.stored(&bad)).is_empty());
    node.write(log(rooms[0], 0..1)).expect("it is written");
    assert_eq!(events(&node.stored(&bad)), [0]);
    assert_eq!(events(&node.stored(&good)), [0, 1, 2]);
}

#[test]
fn a_record_of_another_version_stops_its_shard_alone() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let (bad, good) = (room_of(Shard(1)), room_of(Shard(2)));
    let [in_bad, in_good] = [&bad, &good].map(|id| {
        let number = node.new_room(id);
        node.write(save(number, id, snapshot(0, b"birth")))
            .expect("it is written");
        number
    });
    let sequence = server.publish("stateroom.main.s.1.log".into(), &[], b"\xffsomething else");
    // Its writer has the shard.
    let refused = node.write(log(in_bad, 0..1));
    assert!(
        matches!(refused, Err(JournalError::NotOwned { .. })),
        "{refused:?}"
    );
    let is_so = |node: &Node| node.here() == SHARDS - 1 && node.metrics().damaged_shards == 1;
    node.poll(is_so);
    node.write(log(in_good, 0..1)).expect("it is written");
    // As if it were never there.
    server.delete("STATEROOM_main", sequence);
    node.wait_for_shards(|shards| shards == SHARDS);
    node.write(log(in_bad, 0..1)).expect("it is written");
    assert_eq!(events(&node.stored(&bad)), [0]);
    node.poll(|node| node.metrics().damaged_shards == 0);
}

#[test]
fn epochs_go_on_where_the_log_is_also_without_the_directory() {
    let Some((server, node)) = one_node() else {
        return;
    };
    node.kill();
    // As of a node that has had the shard a million times; the directory says that it was once.
    let mut record = vec![2];
    for field in [7, 1_000_000, 0, u64::MAX] {
        record.extend(u64::to_le_bytes(field));
    }
    server.publish("stateroom.main.s.1.log".into(), &[], &record);
    let node = Node::join(&server, "a");
    node.wait_for_shards(|shards| shards == SHARDS);
    let room = room_of(Shard(1));
    let number = node.new_room(&room);
    node.write(save(number, &room, snapshot(0, b"birth")))
        .expect("it is written");
}

#[test]
fn one_shard_of_which_nothing_is_answered_does_not_stop_the_others_for_good() {
    let users = |permissions: &str| {
        format!("authorization {{ users: [{{ user: node, password: secret{permissions} }}] }}")
    };
    let Some(mut server) = NatsServer::start_with(&users("")) else {
        return;
    };
    let url = server.url.replace("nats://", "nats://node:secret@");
    let node = Node::join_with(config(&url, "a")).expect("it joins");
    node.wait_for_shards(|shards| shards == SHARDS);
    let (bad, good) = (room_of(Shard(1)), room_of(Shard(2)));
    let [in_bad, in_good] = [&bad, &good].map(|id| {
        let number = node.new_room(id);
        node.write(save(number, id, snapshot(0, b"birth")))
            .expect("it is written");
        number
    });
    server.restart_with(&users(
        ", permissions: { publish: { deny: [\"stateroom.main.s.1.log\"] } }",
    ));
    let refused = write_later(&node, log(in_bad, 0..1));
    let written = write_later(&node, log(in_good, 0..1));
    let refused = refused();
    assert!(
        matches!(refused, Err(JournalError::NotOwned { .. })),
        "{refused:?}"
    );
    written().expect("it is written");
    node.write(log(in_good, 1..2)).expect("it is written");
    server.restart_with(&users(""));
    node.wait_for_shards(|shards| shards == SHARDS);
    assert!(events(&node.stored(&bad)).is_empty());
    assert_eq!(events(&node.stored(&good)), [0, 1]);
}

/// Has NATS refuse longer messages of the logs.
fn set_max_message_bytes(server: &NatsServer, max_bytes: i32) {
    server.configure_stream("STATEROOM_main", |config| {
        config.max_message_size = max_bytes
    });
}

#[test]
fn the_secret_stays() {
    let Some((server, node)) = one_node() else {
        return;
    };
    let secret = node.journal.secret();
    assert_eq!(Node::join(&server, "b").journal.secret(), secret);
    let other = NatsServer::start().expect("there is a program");
    assert_ne!(Node::join(&other, "a").journal.secret(), secret);
}

#[test]
fn what_cannot_keep_the_promise_is_refused() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let refused = |change: &dyn Fn(&mut stateroom_wasmi_cluster::ClusterConfig)| {
        let mut config = config(&server.url, "a");
        config.is_unsafe = false;
        change(&mut config);
        Node::join_with(config).err().expect("it is refused")
    };
    let error = refused(&|_| {});
    assert!(
        matches!(error, ClusterError::Replicas { found: 1, .. }),
        "{error}"
    );
    let error = refused(&|config| config.replicas = 3);
    assert!(matches!(error, ClusterError::SyncInterval(_)), "{error}");
    let error = refused(&|config| config.max_message_bytes = 2 << 20);
    assert!(matches!(error, ClusterError::MaxPayload { .. }), "{error}");
    let error = refused(&|config| config.node = "a.b".into());
    assert!(matches!(error, ClusterError::Name(_)), "{error}");
}

#[test]
fn a_log_that_is_not_kept_is_refused() {
    let Some((server, node)) = one_node() else {
        return;
    };
    node.kill();
    server.configure_stream("STATEROOM_main", |config| {
        config.max_messages_per_subject = 1
    });
    let refused = Node::join_with(config(&server.url, "a")).err();
    let refused = refused.expect("it is refused");
    assert!(matches!(refused, ClusterError::Storage(_)), "{refused}");
}

#[test]
fn what_nats_does_not_take_waits_until_it_is_back() {
    let Some((mut server, node)) = one_node() else {
        return;
    };
    let number = node.new_room("lobby");
    node.write(save(number, "lobby", snapshot(0, b"birth")))
        .expect("it is written");
    server.kill();
    let written = write_later(&node, log(number, 0..1));
    let loaded = load_later(&node, "lobby");
    server.restart();
    written().expect("it is written");
    let Ok(Stored::Room(room)) = loaded() else {
        panic!("it is loaded")
    };
    assert_eq!(events(&room), [0]);
    let _: RoomNumber = wait(|done| {
        node.journal.load(
            "new",
            Box::new(|stored| {
                done(stored.map(|stored| match stored {
                    Stored::New(number) => number,
                    other => panic!("{other:?}"),
                }))
            }),
        );
    })
    .expect("it is loaded");
}
