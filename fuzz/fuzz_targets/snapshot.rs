//! Snapshots and records that were made up: an error, or a room that harms nobody and can be saved again.
#![no_main]

#[path = "../../tests/it/unsealed.rs"]
mod unsealed;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use stateroom_wasmi_fuzz::limits;
use stateroom_wasmi_host::{
    ClientId, Event, EventRecord, LoadOptions, Module, Room, RoomOptions, SnapshotOptions,
};
use std::{sync::LazyLock, time::Duration};
use unsealed::Unsealed;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    /// A whole snapshot.
    Snapshot(&'a [u8]),
    /// A state, with the right hash.
    State(u8, &'a [u8]),
    /// The state of a room with these bytes replaced, with the right hash.
    Changed(u8, Vec<(u16, u8)>),
    /// Records to replay in a room.
    Records(u8, &'a [u8]),
}

struct Base {
    module: Module,
    snapshot: Unsealed,
}

impl Base {
    /// A snapshot of a room in this state.
    fn with_state(&self, state: Vec<u8>) -> Vec<u8> {
        let info = self.snapshot.info.clone();
        Unsealed { info, state }.sealed()
    }
}

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
        Base {
            module,
            snapshot: Unsealed::of(&snapshot),
        }
    })
});

fuzz_target!(|input: Input<'_>| match input {
    Input::Snapshot(bytes) => check(&BASES[0], bytes),
    Input::State(base, state) => {
        let base = &BASES[usize::from(base) % BASES.len()];
        check(base, &base.with_state(state.to_vec()));
    }
    Input::Changed(base, changes) => {
        let base = &BASES[usize::from(base) % BASES.len()];
        let mut state = base.snapshot.state.clone();
        for (at, byte) in changes {
            let at = usize::from(at) % state.len();
            state[at] = byte;
        }
        check(base, &base.with_state(state));
    }
    Input::Records(base, records) => replay(&BASES[usize::from(base) % BASES.len()], records),
});

/// Replays what are records, whatever the room makes of them.
fn replay(base: &Base, mut records: &[u8]) {
    let snapshot = base.with_state(base.snapshot.state.clone());
    let mut room =
        Room::load(&base.module, &snapshot, SnapshotOptions::new()).expect("a room's own");
    while let Ok((mut record, rest)) = EventRecord::decode(records) {
        records = rest;
        // Nearly all others are refused.
        if record.fuel_used.is_multiple_of(2) {
            record.fuel_used = room.fuel_used();
            record.at = room.now() + Duration::from_nanos(record.at.as_nanos() % (1 << 40));
        }
        let before = room.save();
        if room.replay(&record).is_err() {
            assert_eq!(room.save(), before, "nothing has happened");
        }
        while room.is_unfinished() {
            while room.poll_output().is_some() {}
            room.resume(record.at);
        }
        while room.poll_output().is_some() {}
        if room.is_closed() {
            return;
        }
    }
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
