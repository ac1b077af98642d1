//! Rooms from their opening to their end.

use crate::support::{
    Call, Host, Module, Payload, ROOM, Recipient, Status, buffer, call, on_fault, status,
};
use stateroom_wasmi::*;
use std::ffi::CStr;

#[test]
fn a_room_handles_what_its_clients_do() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open("lobby", &module).unwrap();
    host.connect(room, 1).unwrap();
    host.connect(room, 2).unwrap();
    host.text(room, 1, "echo").unwrap();
    host.bytes(room, 2, &[0, 255]).unwrap();
    host.text(room, 1, "*all").unwrap();
    host.text(room, 1, "-others").unwrap();
    host.text(room, 2, "").unwrap();
    host.bytes(room, 2, &[]).unwrap();
    host.disconnect(room, 1).unwrap();
    assert_eq!(host.calls(), [], "nothing happens before the poll");
    assert_eq!(host.poll(0), STATEROOM_NEVER);
    let text = |to, text: &str| Call::Sent(room, to, Payload::Text(text.into()));
    let bytes = |to, bytes: &[u8]| Call::Sent(room, to, Payload::Bytes(bytes.into()));
    assert_eq!(
        host.calls(),
        [
            Call::Connected(room, 1),
            Call::Connected(room, 2),
            text(Recipient::Client(1), "echo"),
            bytes(Recipient::Client(2), &[0, 255]),
            text(Recipient::Broadcast, "*all"),
            text(Recipient::EveryoneExcept(1), "-others"),
            text(Recipient::Client(2), ""),
            bytes(Recipient::Client(2), &[]),
            Call::Disconnected(room, 1),
        ]
    );
}

#[test]
fn a_closed_room_is_reported_by_the_next_poll() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    host.connect(room, 7).unwrap();
    host.poll(0);
    host.calls();
    host.close(room).unwrap();
    host.close(room).unwrap();
    assert_eq!(status(host.text(room, 1, "late")), Status::Closed);
    assert_eq!(host.calls(), []);
    host.poll(0);
    let closed = Call::Closed {
        room,
        id: "room".into(),
        fault: stateroom_fault::None as i32,
        text: None,
        clients: vec![1, 7],
        faults: 0,
    };
    assert_eq!(host.calls(), [closed]);
    assert_eq!(status(host.close(room)), Status::UnknownRoom);
}

#[test]
fn a_discarded_room_is_gone_at_once() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    host.text(room, 1, "lost").unwrap();
    host.discard(room).unwrap();
    assert_eq!(status(host.discard(room)), Status::UnknownRoom);
    host.poll(0);
    assert_eq!(host.calls(), []);
}

#[test]
fn a_room_outlives_its_module_handle() {
    let host = Host::new();
    let room = host.open_with_client(&Module::new(ROOM));
    host.text(room, 1, "echo").unwrap();
    host.poll(0);
    assert_eq!(host.texts(), ["echo"]);
}

#[test]
fn keys_are_found_by_id_and_never_used_again() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let first = host.open("a", &module).unwrap();
    assert_eq!(host.find("a"), Ok(first));
    assert_eq!(status(host.find("b")), Status::UnknownRoom);
    host.discard(first).unwrap();
    assert_eq!(status(host.find("a")), Status::UnknownRoom);
    let second = host.open("a", &module).unwrap();
    assert_ne!(first, second);
    assert_eq!(status(host.connect(first, 1)), Status::UnknownRoom);
}

#[test]
fn an_id_may_be_any_text() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    for id in ["", "a\0b", "räume"] {
        let room = host.open(id, &module).unwrap();
        assert_eq!(host.find(id), Ok(room));
        let mut text = [0x7f; 16];
        let mut buffer = buffer(&mut text);
        call(|error| unsafe { stateroom_room_get_id(host.handle, room, &raw mut buffer, error) })
            .unwrap();
        assert_eq!(&text[..buffer.length], id.as_bytes());
        assert_eq!(text[buffer.length], 0);
    }
}

#[test]
fn texts_are_cut_off_after_a_whole_character() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open("räume", &module).unwrap();
    for (capacity, expected) in [
        (0, None),
        (1, Some("")),
        (2, Some("r")),
        (3, Some("r")),
        (4, Some("rä")),
        (6, Some("räum")),
        (7, Some("räume")),
    ] {
        let mut text = vec![0x7f; capacity];
        let mut buffer = buffer(&mut text);
        call(|error| unsafe { stateroom_room_get_id(host.handle, room, &raw mut buffer, error) })
            .unwrap();
        assert_eq!(buffer.length, "räume".len());
        let written = CStr::from_bytes_until_nul(&text).ok();
        assert_eq!(written.map(|text| text.to_str().unwrap()), expected);
    }
}

#[test]
fn rooms_are_listed_in_the_order_of_their_opening() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let rooms: Vec<_> = (0..5)
        .map(|n| host.open(&n.to_string(), &module).unwrap())
        .collect();
    let list = |capacity: usize| {
        let (mut listed, mut count) = (vec![9; capacity], 9);
        call(|error| unsafe {
            let rooms = listed.as_mut_ptr();
            stateroom_host_get_rooms(host.handle, rooms, capacity, &raw mut count, error)
        })
        .unwrap();
        (listed, count)
    };
    assert_eq!(list(5), (rooms.clone(), 5));
    assert_eq!(list(2), (rooms[..2].to_vec(), 5));
    assert_eq!(list(0), (vec![], 5));
    assert_eq!(list(6).0[5], 9, "what is beyond the rooms is not written");
}

#[test]
fn clients_are_listed_in_the_order_of_their_ids() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open("room", &module).unwrap();
    for client in [3, 1, 2_147_483_647] {
        host.connect(room, client).unwrap();
    }
    let (mut clients, mut count) = ([0; 2], 0);
    call(|error| unsafe {
        let places = clients.as_mut_ptr();
        stateroom_room_get_clients(host.handle, room, places, 2, &raw mut count, error)
    })
    .unwrap();
    assert_eq!((clients, count), ([1, 3], 3));
}

#[test]
fn figures_count_what_happened() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    host.open("other", &module).unwrap();
    host.text(room, 1, "one").unwrap();
    let stats = host.room_stats(room).unwrap();
    assert_eq!((stats.waiting_events, stats.messages_in), (1, 1));
    assert_eq!((stats.messages_out, stats.events_handled), (0, 1));
    assert_eq!(stats.state, stateroom_room_state::Open as i32);
    let waiting = host.stats();
    assert_eq!((waiting.rooms, waiting.clients), (2, 1));
    assert_eq!((waiting.waiting_events, waiting.is_blocked), (1, 0));
    host.poll(0);
    let stats = host.room_stats(room).unwrap();
    assert_eq!((stats.waiting_events, stats.messages_out), (0, 1));
    assert_eq!((stats.clients, stats.memory_bytes), (1, 65536));
    assert_eq!((stats.faults, stats.has_null_allocator), (0, 0));
    assert!(stats.fuel_used > 0 && stats.instance_bytes > 0 && stats.host_work > 0);
    let all = host.stats();
    assert_eq!(all.memory_bytes, 2 * 65536);
    assert_eq!(all.instance_bytes, 2 * stats.instance_bytes);
}

#[test]
fn memory_that_a_guest_does_not_use_is_returned() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let mut released = usize::MAX;
    call(|error| unsafe { stateroom_room_trim(host.handle, room, &raw mut released, error) })
        .unwrap();
    // A page is 64 KiB at most, so of a memory of that size there may be none.
    assert!(released <= 65536);
    call(|error| unsafe { stateroom_room_trim(host.handle, room, std::ptr::null_mut(), error) })
        .unwrap();
}

#[test]
fn seeds_and_wall_times_reach_guests() {
    let module = Module::new(ROOM);
    let ask = |host: &Host, options: &stateroom_room_options, now| {
        let room = host.open_with(now, "room", &module, options).unwrap();
        host.connect(room, 1).unwrap();
        host.text(room, 1, "random").unwrap();
        host.text(room, 1, "wall time").unwrap();
        host.poll(now + 5);
        let mut replies = host.calls().into_iter().filter_map(|call| match call {
            Call::Sent(_, _, Payload::Bytes(bytes)) => {
                Some(u64::from_le_bytes(bytes.try_into().unwrap()))
            }
            _ => None,
        });
        (replies.next().unwrap(), replies.next().unwrap())
    };
    let seeded = |seed| {
        Host::with(|options| {
            options.seed = seed;
            options.unix_time_at_zero = 1_000_000;
        })
    };
    let options = stateroom_room_options::default();
    let (random, time) = ask(&seeded(3), &options, 100);
    assert_eq!(time, 1_000_105);
    assert_eq!(ask(&seeded(3), &options, 0).0, random);
    assert_ne!(ask(&seeded(4), &options, 0).0, random);
    let own = stateroom_room_options {
        has_seed: 1,
        seed: 3,
        has_unix_time: 1,
        unix_time: 7,
        ..options
    };
    let (own_random, own_time) = ask(&seeded(1000), &own, 100);
    assert_eq!((own_random, own_time), (random, 12));
}

#[test]
fn opening_fails_with_a_reason() {
    let module = Module::with_limits(ROOM, |limits| limits.max_room_id_bytes = 4);
    let host = Host::with(|options| options.max_rooms = 1);
    assert_eq!(status(host.open("12345", &module)), Status::IdTooLong);
    assert_eq!(
        status(host.open_with(0, "a", &module, &on_fault(stateroom_on_fault::Rollback))),
        Status::NotLoadedForSnapshots
    );
    host.open("a", &module).unwrap();
    assert_eq!(status(host.open("a", &module)), Status::IdTaken);
    assert_eq!(status(host.open("b", &module)), Status::TooManyRooms);
}

#[test]
fn events_are_refused_with_a_reason() {
    let host = Host::new();
    let module = Module::with_limits(ROOM, |limits| {
        limits.max_clients = 2;
        limits.max_message_bytes = 3;
        limits.max_inbox_events = 3;
    });
    let room = host.open("room", &module).unwrap();
    for id in [0, 1 << 31, u32::MAX] {
        assert_eq!(status(host.connect(room, id)), Status::InvalidClient);
    }
    host.connect(room, 1).unwrap();
    assert_eq!(status(host.connect(room, 1)), Status::AlreadyConnected);
    host.connect(room, 2).unwrap();
    assert_eq!(status(host.connect(room, 3)), Status::RoomFull);
    assert_eq!(status(host.text(room, 3, "")), Status::NotConnected);
    assert_eq!(status(host.disconnect(room, 3)), Status::NotConnected);
    assert_eq!(status(host.text(room, 1, "long")), Status::MessageTooLong);
    host.bytes(room, 1, b"abc").unwrap();
    assert_eq!(status(host.bytes(room, 1, b"abc")), Status::InboxFull);
    host.poll(0);
    host.bytes(room, 1, b"abc").unwrap();
}
