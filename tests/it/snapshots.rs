//! Rooms that are saved, loaded, forked, hibernated and rewound go on as if nothing had happened.

use crate::{
    determinism::bundled,
    support::{ENV, Random, SAY, Said, assemble, guest_0_2, limits, outputs},
};
use stateroom_wasmi_host::{
    Backoff, Budget, ClientId, EngineVersion, Event, FaultPolicy, Host, Instant, Limits, LoadError,
    LoadOptions, ManualClock, MessagePayload, Module, ModuleHash, OpenError, PayloadBuffer,
    RecordingTransport, RewindBuffer, Room, RoomOptions, SaveError, SnapshotError, SnapshotInfo,
    SnapshotOptions,
};
use std::{string::String, time::Duration};

const OPTIONS: SnapshotOptions = SnapshotOptions::new();

fn load_module(wasm: &[u8], limits: &Limits) -> Result<Module, LoadError> {
    Module::load_with(wasm, limits, LoadOptions::new().snapshots(true))
}

fn module_of(text: &str) -> Module {
    load_module(&assemble(text), &Limits::new()).expect("the module can be saved")
}

fn open(module: &Module) -> Room {
    let options = RoomOptions::new()
        .seed(7)
        .unix_time_at_zero(Duration::from_secs(1_700_000_000));
    let mut room = Room::new(module, "test", options).expect("the room opens");
    outputs(&mut room, Instant::ZERO);
    room
}

fn loaded(module: &Module, snapshot: &[u8]) -> Room {
    Room::load(module, snapshot, OPTIONS).expect("the snapshot can be loaded")
}

/// What happens to a room, at a time.
struct Step {
    now: Instant,
    event: Option<Happening>,
}

enum Happening {
    Connect(ClientId),
    Disconnect(ClientId),
    Text(ClientId, String),
    Bytes(ClientId, Vec<u8>),
}

/// Random steps that a room accepts: clients come, speak and leave, and time passes.
fn random_steps(random: &mut Random, count: usize) -> Vec<Step> {
    let texts = [
        "+",
        "-",
        "roll",
        "2d6",
        "hello",
        "",
        "12 7",
        "{\"x\":1,\"y\":2}",
        "name: Ann",
    ];
    let mut connected: Vec<ClientId> = Vec::new();
    let mut now = Instant::ZERO;
    (0..count)
        .map(|_| {
            now = now + Duration::from_millis(random.below(700) as u64);
            let speaker = connected.get(random.below(connected.len().max(1))).copied();
            let event = match (random.below(10), speaker) {
                (0 | 1, _) | (_, None) => {
                    let client = ClientId(1 + random.below(20) as u32);
                    match connected.iter().position(|other| *other == client) {
                        Some(at) => Some(Happening::Disconnect(connected.remove(at))),
                        None => {
                            connected.push(client);
                            Some(Happening::Connect(client))
                        }
                    }
                }
                (2, _) => None,
                (3, Some(client)) => {
                    let len = random.below(60);
                    Some(Happening::Bytes(client, random.bytes(len)))
                }
                (4, Some(client)) => {
                    Some(Happening::Text(client, "long ".repeat(random.below(200))))
                }
                (_, Some(client)) => {
                    let text = texts[random.below(texts.len())];
                    Some(Happening::Text(client, text.to_owned()))
                }
            };
            Step { now, event }
        })
        .collect()
}

/// Gives a room one step; returns what it sends.
fn take_step(room: &mut Room, step: &Step) -> Vec<Said> {
    room.handle_timeout(step.now);
    let mut sent = outputs(room, step.now);
    if let Some(event) = &step.event {
        let event = match event {
            Happening::Connect(client) => Event::Connect(*client),
            Happening::Disconnect(client) => Event::Disconnect(*client),
            Happening::Text(client, text) => Event::message(*client, text.as_str()),
            Happening::Bytes(client, bytes) => Event::message(*client, bytes.as_slice()),
        };
        room.handle_event(step.now, event)
            .expect("the room accepts it");
        sent.extend(outputs(room, step.now));
    }
    sent
}

/// What must be the same for rooms that go on in the same way.
#[track_caller]
fn assert_same_state(room: &Room, reference: &Room, what: &str) {
    assert_eq!(room.fuel_used(), reference.fuel_used(), "{what}");
    assert_eq!(room.poll_timeout(), reference.poll_timeout(), "{what}");
    assert_eq!(room.clients(), reference.clients(), "{what}");
    assert_eq!(room.state_hash(), reference.state_hash(), "{what}");
}

#[test]
fn bundled_rooms_go_on_as_if_nothing_had_happened() {
    let mut random = Random::new();
    let mut names = Vec::new();
    for (name, wasm) in bundled() {
        let module = match load_module(&wasm, &Limits::new()) {
            Ok(module) => module,
            Err(error) => panic!("{name}: {error}"),
        };
        // Another module of the same bytes, as on another machine.
        let elsewhere = load_module(&wasm, &Limits::new()).expect("it loads");
        let mut reference = open(&module);
        let mut room = open(&module);
        let mut kept = RewindBuffer::new(4);
        let mut recent: Vec<&Step> = Vec::new();
        let steps = random_steps(&mut random, 120);
        for (i, step) in steps.iter().enumerate() {
            let what = format!("{name}, step {i}");
            let expected = take_step(&mut reference, step);
            assert_eq!(take_step(&mut room, step), expected, "{what}");
            recent.push(step);
            match random.below(6) {
                0 => {
                    let snapshot = room.save().expect("it can be saved");
                    room = loaded(&elsewhere, &snapshot);
                    assert_eq!(room.save(), Ok(snapshot), "{what}");
                }
                1 => room = room.fork().expect("it can be forked"),
                2 => room.hibernate().expect("it can hibernate"),
                3 => {
                    kept.push(&room).expect("it can be kept");
                    recent.clear();
                }
                4 if kept.times().next().is_some() => {
                    let latest = kept.times().next_back().expect("there is one");
                    assert_eq!(kept.rewind(&mut room, Instant::MAX), Some(latest));
                    for step in &recent {
                        take_step(&mut room, step);
                    }
                }
                _ => {}
            }
            assert_same_state(&room, &reference, &what);
        }
        assert!(reference.fault().is_none(), "{name}");
        names.push(name);
    }
    println!("{names:?}");
}
