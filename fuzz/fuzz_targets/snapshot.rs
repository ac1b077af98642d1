//! Snapshots that were made up: an error, or a room that harms nobody and can be saved again.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use stateroom_wasmi_fuzz::limits;
use stateroom_wasmi_host::{
    ClientId, Event, LoadOptions, Module, Room, RoomOptions, SnapshotOptions,
};
use std::{sync::LazyLock, time::Duration};

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    /// A whole snapshot.
    Snapshot(&'a [u8]),
    /// A state, with the right hash.
    State(u8, &'a [u8]),
    /// The state of a room with these bytes replaced, with the right hash.
    Changed(u8, Vec<(u16, u8)>),
}

struct Base {
    module: Module,
    info: Vec<u8>,
    state: Vec<u8>,
}

/// Bytes before what a snapshot says of itself.
const HEADER: usize = 22;

static BASES: LazyLock<[Base; 3]> = LazyLock::new(|| {
    [
        &include_bytes!("../../examples/rooms/wasm/counter-c.wasm")[..],
        include_bytes!("../../examples/rooms/wasm/chat-rust-small.wasm"),
        include_bytes!("../../examples/rooms/wasm/dice-rust-0.4-wasi.wasm"),
    ]
    .map(|wasm| {
        let options = LoadOptions::new().snapshots(true);
        let module = Module::load_with(wasm, &limits(10_000), options).expect("it loads");
        let mut room = Room::new(&module, "fuzz", RoomOptions::new()).expect("it opens");
        let now = room.now();
        for client in [1, 2] {
            drain(&mut room);
            room.handle_event(now, Event::Connect(ClientId(client)))
                .expect("it is free");
        }
        drain(&mut room);
        let snapshot = room.save().expect("it can be saved");
        let (info, state) = split(&snapshot);
        Base {
            module,
            info,
            state,
        }
    })
});

/// The info and the state of a snapshot, by `docs/snapshots.md`.
fn split(snapshot: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut at = HEADER + 4 + 32;
    let id = number(snapshot, &mut at) as usize;
    at += id;
    for _ in 0..3 {
        number(snapshot, &mut at);
    }
    at += 1;
    let mask = number(snapshot, &mut at);
    for _ in 0..mask.count_ones() {
        number(snapshot, &mut at);
    }
    let info = snapshot[HEADER..at].to_vec();
    let state = match snapshot[5] {
        0 => snapshot[at..].to_vec(),
        _ => {
            let len = number(snapshot, &mut at) as usize;
            lz4_flex::block::decompress(&snapshot[at..], len).expect("it is LZ4")
        }
    };
    (info, state)
}

fn number(bytes: &[u8], at: &mut usize) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Snapshot(bytes) => check(&BASES[0], bytes),
    Input::State(base, state) => {
        let base = &BASES[usize::from(base) % BASES.len()];
        check(base, &seal(&base.info, state));
    }
    Input::Changed(base, changes) => {
        let base = &BASES[usize::from(base) % BASES.len()];
        let mut state = base.state.clone();
        for (at, byte) in changes {
            let at = usize::from(at) % state.len();
            state[at] = byte;
        }
        check(base, &seal(&base.info, &state));
    }
});

fn seal(info: &[u8], state: &[u8]) -> Vec<u8> {
    let hash = Sha256::new()
        .chain_update(info)
        .chain_update(state)
        .finalize();
    [b"SRSN\x01\x00", &hash[..16], info, state].concat()
}

fn check(base: &Base, snapshot: &[u8]) {
    let load = |snapshot: &[u8]| Room::load(&base.module, snapshot, SnapshotOptions::new());
    let Ok(mut room) = load(snapshot) else {
        return;
    };
    let again = room.save().expect("it is at an event boundary");
    let copy = load(&again).expect("it was just saved");
    assert_eq!(copy.state_hash(), room.state_hash());
    let now = room.now() + Duration::from_secs(1);
    room.handle_timeout(now);
    drain(&mut room);
    let _ = room.handle_event(now, Event::message(ClientId(1), "+"));
    drain(&mut room);
    if let Ok(snapshot) = room.save() {
        load(&snapshot).expect("it was just saved");
    }
}

/// Events that wait, and timers that set themselves, end after some turns.
fn drain(room: &mut Room) {
    let now = room.now();
    for _ in 0..100 {
        while room.poll_output().is_some() {}
        if !room.has_work(now) {
            return;
        }
        room.resume(now);
    }
}
