//! Snapshots that were damaged, or made up: an error, or a room that harms nobody.

use crate::{
    snapshots::{load_module, loaded, module_of, open},
    support::{Random, assemble, limits, outputs, speaker},
    unsealed::Unsealed,
};
use stateroom_wasmi_host::{
    ClientId, Event, Instant, Limits, Module, Room, RoomOptions, SnapshotError, SnapshotInfo,
    SnapshotOptions,
};
use std::time::Duration;

const OPTIONS: SnapshotOptions = SnapshotOptions::new();

/// A room with a state, clients, and events that wait.
fn saved() -> (Module, Vec<u8>) {
    let wasm = include_bytes!("../../examples/rooms/wasm/counter-rust-0.2.wasm");
    let module = load_module(wasm, &Limits::new()).expect("it loads");
    let mut room = open(&module);
    for client in 1..=3 {
        room.handle_event(Instant::ZERO, Event::Connect(ClientId(client)))
            .expect("it is free");
    }
    outputs(&mut room, Instant::ZERO);
    for text in ["+", "+", "-"] {
        room.handle_event(Instant::ZERO, Event::message(ClientId(2), text))
            .expect("it fits");
    }
    while room.poll_output().is_some() {}
    assert_eq!(room.stats().waiting_events, 2);
    let snapshot = room.save().expect("it can be saved");
    (module, snapshot)
}

#[test]
fn the_format_is_the_documented_one() {
    let (module, snapshot) = saved();
    let room = loaded(&module, &snapshot);
    let again = loaded(&module, &Unsealed::of(&snapshot).sealed());
    assert_eq!(room.state_hash(), again.state_hash());
    let info = SnapshotInfo::read(&snapshot).expect("it is a snapshot");
    assert_eq!(Ok(info.state_hash), room.state_hash());
}

#[test]
fn every_changed_or_missing_byte_is_noticed() {
    let (module, snapshot) = saved();
    for at in 0..snapshot.len() {
        let mut changed = snapshot.clone();
        changed[at] ^= 1 << (at % 8);
        // LZ4 has more than one form for the same bytes.
        if let Ok(same) = Room::load(&module, &changed, OPTIONS) {
            assert_eq!(same.save().as_ref(), Ok(&snapshot), "byte {at} was changed");
        }
        Room::load(&module, &snapshot[..at], OPTIONS).expect_err("bytes are missing");
    }
    let longer = [snapshot.as_slice(), &[0]].concat();
    Room::load(&module, &longer, OPTIONS).expect_err("there is a byte too many");
    assert!(matches!(
        Room::load(&module, b"", OPTIONS),
        Err(SnapshotError::NotASnapshot)
    ));
    assert!(matches!(
        Room::load(&module, b"\0asm\x01\0\0\0", OPTIONS),
        Err(SnapshotError::NotASnapshot)
    ));
    let later = [b"SRSN\x02", &snapshot[5..]].concat();
    assert!(matches!(
        Room::load(&module, &later, OPTIONS),
        Err(SnapshotError::Format(2))
    ));
}

/// Whatever such a room does, it does no harm: it is driven on until it has had its say.
fn drive(mut room: Room) {
    let now = room.now() + Duration::from_secs(1);
    room.handle_timeout(now);
    for _ in 0..100 {
        while room.poll_output().is_some() {}
        if !room.has_work(now) {
            break;
        }
        room.resume(now);
    }
    let _ = room.handle_event(now, Event::message(ClientId(1), "+"));
    let _ = room.handle_event(now, Event::Disconnect(ClientId(2)));
    for _ in 0..100 {
        while room.poll_output().is_some() {}
        if !room.has_work(now) {
            break;
        }
        room.resume(now);
    }
    if let Ok(snapshot) = room.save() {
        loaded(&room.module().clone(), &snapshot);
    }
}

#[test]
fn a_made_up_state_is_refused_or_harms_nobody() {
    let mut random = Random::new();
    let (module, snapshot) = saved();
    let original = Unsealed::of(&snapshot);
    let mut accepted = 0;
    for _ in 0..4000 {
        let mut state = original.state.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(state.len());
            match random.below(4) {
                0 => state[at] = random.next() as u8,
                1 => state[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                2 => {
                    state.remove(at);
                }
                _ => state.insert(at, random.next() as u8),
            }
        }
        let info = original.info.clone();
        if let Ok(room) = Room::load(&module, &Unsealed { info, state }.sealed(), OPTIONS) {
            accepted += 1;
            drive(room);
        }
    }
    assert!(
        accepted > 100,
        "most bytes are those of the guest's memory: {accepted}"
    );
}

/// The state of a room in which nobody has been, whose guest has no mutable globals, up to the length of
/// its memory.
fn empty_state() -> Vec<u8> {
    let module = module_of(&speaker(&[], ""));
    let room = open(&module);
    let state = Unsealed::of(&room.save().expect("it can be saved")).state;
    // One page, in which only the room's id was written.
    let page = state
        .windows(3)
        .rposition(|bytes| bytes == [0x80, 0x80, 0x04]);
    state[..page.expect("the memory is a page")].to_vec()
}

#[test]
fn impossible_memories_are_refused() {
    let wasm = assemble(&speaker(&[], ""));
    let small = limits(|limits| limits.max_memory_bytes = 2 << 16);
    let module = load_module(&wasm, &small).expect("it loads");
    let snapshot = open(&module).save().expect("it can be saved");
    let info = Unsealed::of(&snapshot).info;
    let state = empty_state();
    let load = |memory: &[u8]| {
        let state = [state.as_slice(), memory].concat();
        let info = info.clone();
        Room::load(&module, &Unsealed { info, state }.sealed(), OPTIONS)
    };
    let error = load(&[0x80, 0x80, 0x0c, 0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the room has more bytes of memory than the limit of 131072"
    );
    // Two pages, with a byte that differs at the end of the second.
    let two_pages = [0x80, 0x80, 0x08, 5, 0xff, 0xff, 0x07, 1, 42];
    drive(load(&two_pages).expect("that is possible"));
    for (what, memory) in [
        ("less than the module declares", &[0x00, 0x00][..]),
        ("no whole pages", &[0x81, 0x80, 0x04, 0]),
        (
            "a run beyond the end",
            &[0x80, 0x80, 0x04, 5, 0xff, 0xff, 0x03, 2, 1, 1],
        ),
        (
            "a run that overflows",
            &[
                0x80, 0x80, 0x04, 11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
                0x01,
            ],
        ),
        ("an empty run", &[0x80, 0x80, 0x04, 2, 1, 0]),
        (
            "a number that is longer than needed",
            &[0x80, 0x80, 0x04, 4, 0x81, 0x00, 1, 7],
        ),
        ("bytes after the end", &[0x80, 0x80, 0x04, 0, 0]),
    ] {
        let error = load(memory).map(|_| ()).expect_err(what);
        assert!(matches!(error, SnapshotError::Damaged), "{what}: {error}");
    }
}

#[test]
fn counters_near_their_end_do_not_overflow() {
    let module = module_of(&speaker(&[], ""));
    let mut room = open(&module);
    room.handle_event(Instant::ZERO, Event::Connect(ClientId(1)))
        .expect("it is free");
    while room.poll_output().is_some() {}
    let Unsealed { info, mut state } = Unsealed::of(&room.save().expect("it can be saved"));
    // After the seed, the buffer, the policy and a client: one event handled.
    let at = state
        .windows(6)
        .position(|bytes| bytes[..3] == [0, 1, 1] && bytes[3] == 1);
    let at = at.expect("the client and the counter of events") + 3;
    state.splice(at..=at, [0xff; 9].into_iter().chain([0x01]));
    let snapshot = Unsealed { info, state }.sealed();
    let mut room = loaded(&module, &snapshot);
    for _ in 0..3 {
        room.handle_event(Instant::ZERO, Event::message(ClientId(1), "a"))
            .expect("it fits");
        while room.poll_output().is_some() {}
        room = loaded(&module, &room.save().expect("it can be saved"));
    }
    assert_eq!(room.stats().events_handled, u64::MAX / 2);
}

#[test]
fn more_events_than_may_wait_are_refused() {
    let (module, snapshot) = saved();
    assert_eq!(loaded(&module, &snapshot).stats().waiting_events, 2);
    let wasm = include_bytes!("../../examples/rooms/wasm/counter-rust-0.2.wasm");
    let two = load_module(wasm, &limits(|limits| limits.max_inbox_events = 2));
    loaded(&two.expect("it loads"), &snapshot);
    let Unsealed { info, state } = Unsealed::of(&snapshot);
    let waiting = [&[2][..], &[3, 2, 1], b"+", &[3, 2, 1], b"-"].concat();
    let at = state
        .windows(waiting.len())
        .position(|bytes| bytes == waiting)
        .expect("two texts of client 2 wait");
    let three = [&[3][..], &waiting[1..], &[3, 2, 1], b"+"].concat();
    let state = [&state[..at], &three, &state[at + waiting.len()..]].concat();
    let three = Unsealed { info, state }.sealed();
    assert_eq!(loaded(&module, &three).stats().waiting_events, 3);
    let two = load_module(wasm, &limits(|limits| limits.max_inbox_events = 2));
    let error = Room::load(&two.expect("it loads"), &three, OPTIONS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the room has more events that wait than the limit of 2"
    );
}

#[test]
fn a_decompressed_length_that_cannot_be_allocates_nothing() {
    let (module, snapshot) = saved();
    let info = Unsealed::of(&snapshot).info;
    for len in [1 << 20, 1 << 40, u64::MAX] {
        let state = Vec::new();
        let mut bomb = Unsealed {
            info: info.clone(),
            state,
        }
        .sealed();
        bomb[5] = 1;
        let mut rest = len;
        while rest >= 0x80 {
            bomb.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bomb.push(rest as u8);
        bomb.extend([0xf0, 0xff, 0xff]);
        let error = Room::load(&module, &bomb, OPTIONS)
            .map(|_| ())
            .expect_err("it is no room");
        assert!(matches!(error, SnapshotError::Damaged), "{error}");
    }
}

#[test]
fn a_room_id_that_is_too_long_is_refused() {
    let wasm = assemble(&speaker(&[], ""));
    let module = load_module(&wasm, &Limits::new()).expect("it loads");
    let id = "x".repeat(200);
    let mut room = Room::new(&module, &id, RoomOptions::new()).expect("it opens");
    outputs(&mut room, Instant::ZERO);
    let snapshot = room.save().expect("it can be saved");
    let short =
        load_module(&wasm, &limits(|limits| limits.max_room_id_bytes = 100)).expect("it loads");
    let error = Room::load(&short, &snapshot, OPTIONS)
        .map(|_| ())
        .expect_err("it is too long");
    assert_eq!(
        error.to_string(),
        "the room has more bytes of its id than the limit of 100"
    );
}
