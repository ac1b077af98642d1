//! Rooms that are saved, loaded, forked, hibernated and rewound go on as if nothing had happened.

use crate::{
    determinism::bundled,
    rollback::ledger,
    support::{Random, Said, assemble, limits, numbers, outputs, speaker},
};
use stateroom_wasmi_host::{
    Backoff, ClientId, EngineVersion, Event, FaultPolicy, Instant, Limits, LoadError, LoadOptions,
    Module, ModuleHash, PayloadBuffer, RewindBuffer, Room, RoomOptions, SaveError, SnapshotError,
    SnapshotInfo, SnapshotOptions,
};
use std::{string::String, time::Duration};

const OPTIONS: SnapshotOptions = SnapshotOptions::new();

pub fn load_module(wasm: &[u8], limits: &Limits) -> Result<Module, LoadError> {
    Module::load_with(wasm, limits, LoadOptions::new().snapshots(true))
}

pub fn module_of(text: &str) -> Module {
    load_module(&assemble(text), &Limits::new()).expect("the module can be saved")
}

pub fn open(module: &Module) -> Room {
    let options = RoomOptions::new()
        .seed(7)
        .unix_time_at_zero(Duration::from_secs(1_700_000_000));
    let mut room = Room::new(module, "test", options).expect("the room opens");
    outputs(&mut room, Instant::ZERO);
    room
}

pub fn loaded(module: &Module, snapshot: &[u8]) -> Room {
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

/// Gives a room random steps, and saves, forks, keeps or rewinds it in between; it must do what one does
/// that is left alone.
#[track_caller]
fn goes_on_as_if_nothing_had_happened(
    name: &str,
    wasm: &[u8],
    steps: &[Step],
    random: &mut Random,
) {
    let module =
        load_module(wasm, &Limits::new()).unwrap_or_else(|error| panic!("{name}: {error}"));
    // The same bytes, loaded by another machine.
    let elsewhere = load_module(wasm, &Limits::new()).expect("it loads");
    let (mut room, mut reference) = (open(&module), open(&module));
    let mut kept = RewindBuffer::new(4);
    let mut since_kept: Vec<&Step> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let what = format!("{name}, step {i}");
        let expected = take_step(&mut reference, step);
        assert_eq!(take_step(&mut room, step), expected, "{what}");
        since_kept.push(step);
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
                since_kept.clear();
            }
            4 => {
                let latest = kept.times().next_back();
                if latest.is_some() {
                    assert_eq!(kept.rewind(&mut room, Instant::MAX), latest);
                    for step in &since_kept {
                        take_step(&mut room, step);
                    }
                }
            }
            _ => {}
        }
        assert_same_state(&room, &reference, &what);
    }
    assert!(
        reference.fault().is_none(),
        "{name}: {:?}",
        reference.fault()
    );
}

#[test]
fn bundled_rooms_go_on_as_if_nothing_had_happened() {
    let mut random = Random::new();
    for (name, wasm) in bundled() {
        let steps = random_steps(&mut random, 120);
        goes_on_as_if_nothing_had_happened(&name, &wasm, &steps, &mut random);
    }
}

#[test]
fn memory_that_grew_globals_timers_sleep_and_random_numbers_are_saved() {
    let mut random = Random::new();
    let wasm = assemble(&ledger());
    let mut steps = random_steps(&mut random, 200);
    // The guest fails at bytes, and wants a first byte of a text that says what to do.
    for step in &mut steps {
        if let Some(Happening::Text(client, _) | Happening::Bytes(client, _)) = step.event {
            let what = char::from(1 + random.below(100) as u8);
            step.event = Some(Happening::Text(client, what.to_string()));
        }
    }
    goes_on_as_if_nothing_had_happened("ledger", &wasm, &steps, &mut random);
}

/// Sends how often it was called; bytes make it fail, after it has counted them.
fn counter() -> String {
    speaker(
        &[
            ("message", "(call $count)"),
            ("binary", "(call $count) (unreachable)"),
            ("connect", "(call $count)"),
            ("timer", "(call $count)"),
        ],
        "(global $calls (mut i32) (i32.const 0))
         (func $count
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (call $say (global.get $calls)))",
    )
}

fn handle(room: &mut Room, event: Event<'_>) -> Vec<i32> {
    room.handle_event(Instant::ZERO, event)
        .expect("the room accepts it");
    numbers(room, Instant::ZERO)
}

const CLIENT: ClientId = ClientId(1);

#[test]
fn memory_grows_from_any_length() {
    // A text of more than one byte grows the memory by its length, and writes the last byte. Each sends
    // all from the end of the initial memory on.
    let text = speaker(
        &[(
            "message",
            "(if (i32.gt_u (local.get 2) (i32.const 1))
                (then
                    (drop (memory.grow (local.get 2)))
                    (i32.store8 (i32.sub (memory.size) (i32.const 1)) (local.get 2))))
             (call $send_binary (i32.const 0)
                (i32.const 6990) (i32.sub (memory.size) (i32.const 6990)))",
        )],
        // In the last chunk, which is none of whole words.
        r#"(data (i32.const 6990) "end")"#,
    )
    .replace(
        "(memory (export \"memory\") 1)",
        "(memory (export \"memory\") 7001 (pagesize 1))",
    );
    // And one that is empty at first.
    let empty = text
        .replace("7001 (pagesize 1)", "0 (pagesize 1)")
        .replace("6990", "0")
        .replace(r#"(data (i32.const 0) "end")"#, "")
        .replace("(i32.const 4096)", "(i32.const 0)");
    let lengths = [3, 1, 1, 40, 1, 110, 1, 1, 1, 255, 1, 300, 1, 1];
    let steps: Vec<Step> = (0..=lengths.len())
        .map(|i| Step {
            now: Instant::from_millis(i as u64),
            event: Some(match i.checked_sub(1) {
                None => Happening::Connect(CLIENT),
                Some(i) => Happening::Text(CLIENT, "x".repeat(lengths[i])),
            }),
        })
        .collect();
    for text in [text, empty] {
        let wasm = assemble(&text);
        for seed in 0..50 {
            let mut random = Random::of_seed(seed);
            goes_on_as_if_nothing_had_happened("grower", &wasm, &steps, &mut random);
        }
    }
}

#[test]
fn events_that_wait_are_saved() {
    let module = module_of(&counter());
    let mut room = open(&module);
    room.handle_event(Instant::ZERO, Event::Connect(CLIENT))
        .expect("it is free");
    // Its first output is not taken, so that these wait.
    for text in ["a", "b", "c"] {
        room.handle_event(Instant::ZERO, Event::message(CLIENT, text))
            .expect("it fits");
    }
    while room.poll_output().is_some() {}
    let mut copy = loaded(&module, &room.save().expect("it is at an event boundary"));
    assert_eq!(copy.stats().waiting_events, 3);
    assert!(copy.is_runnable());
    assert_eq!(numbers(&mut copy, Instant::ZERO), [2, 3, 4]);
    assert_eq!(copy.stats().events_handled, 4);
}

#[test]
fn an_event_precedes_a_timer_that_is_due_as_if_the_room_had_not_slept() {
    let text = speaker(
        &[
            (
                "message",
                "(call $set_timer (i32.const 10)) (call $say (i32.const 1))",
            ),
            ("timer", "(call $say (i32.const 2))"),
        ],
        "",
    );
    let module = module_of(&text);
    let mut room = open(&module);
    handle(&mut room, Event::Connect(CLIENT));
    assert_eq!(handle(&mut room, Event::message(CLIENT, "a")), [1]);
    let mut copy = room.fork().expect("it can be forked");
    let late = Instant::from_millis(20);
    for room in [&mut room, &mut copy] {
        // The message replaces the timer, which this driver has not fired.
        room.handle_event(late, Event::message(CLIENT, "b"))
            .expect("it fits");
        assert_eq!(numbers(room, late), [1]);
        assert_eq!(room.poll_timeout(), Some(Instant::from_millis(30)));
    }
}

#[test]
fn only_a_room_at_an_event_boundary_can_be_saved() {
    let slow = speaker(
        &[("message", "(local $i i32) (loop $l
            (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000))))
            (call $say (local.get $i))")],
        "",
    );
    let small_slices = limits(|limits| limits.fuel_per_slice = 1000);
    let module = load_module(&assemble(&slow), &small_slices).expect("it loads");
    let mut room = open(&module);
    handle(&mut room, Event::Connect(CLIENT));
    room.handle_event(Instant::ZERO, Event::message(CLIENT, "go"))
        .expect("it fits");
    assert_eq!(room.save(), Err(SaveError::Busy));
    assert_eq!(room.hibernate(), Err(SaveError::Busy));
    while room.peek_output().is_none() {
        room.resume(Instant::ZERO);
    }
    assert_eq!(room.state_hash(), Err(SaveError::OutputsWaiting));
    while room.poll_output().is_some() {}
    room.save().expect("the event has ended");
    room.close();
    assert_eq!(room.save(), Err(SaveError::Closed));

    let not_instrumented = Module::load(&assemble(&slow), &Limits::new()).expect("it loads");
    assert_eq!(
        open(&not_instrumented).save(),
        Err(SaveError::NotInstrumented)
    );
    let snapshot = open(&module).save().expect("it can be saved");
    let error = Room::load(&not_instrumented, &snapshot, OPTIONS).unwrap_err();
    assert!(matches!(error, SnapshotError::NotInstrumented), "{error}");
}

#[test]
fn a_room_that_waits_to_restart_is_saved() {
    let module = module_of(&counter());
    let restart = FaultPolicy::Restart(Backoff::new().first(Duration::from_secs(5)));
    let mut room = Room::new(&module, "r", RoomOptions::new().on_fault(restart)).expect("it opens");
    outputs(&mut room, Instant::ZERO);
    assert_eq!(handle(&mut room, Event::Connect(CLIENT)), [1]);
    handle(&mut room, Event::message(CLIENT, &b"fail"[..]));
    let mut copy = loaded(&module, &room.save().expect("it waits"));
    assert!(copy.is_restarting());
    assert_eq!(copy.on_fault(), restart);
    let at = copy.poll_timeout().expect("it restarts");
    assert_eq!(at, Instant::from_millis(5000));
    copy.handle_timeout(at);
    // A fresh guest, which the client joins again.
    assert_eq!(numbers(&mut copy, at), [1]);
    // Faults in a row are still counted.
    copy.handle_event(at, Event::message(CLIENT, &b"fail"[..]))
        .expect("it fits");
    numbers(&mut copy, at);
    assert_eq!(copy.poll_timeout(), Some(at + Duration::from_secs(10)));
}

#[test]
fn a_loaded_room_can_undo_its_first_event() {
    let module = module_of(&counter());
    let options = RoomOptions::new().on_fault(FaultPolicy::Rollback);
    let mut room = Room::new(&module, "r", options).expect("it opens");
    outputs(&mut room, Instant::ZERO);
    assert_eq!(handle(&mut room, Event::Connect(CLIENT)), [1]);
    assert_eq!(handle(&mut room, Event::message(CLIENT, "a")), [2]);
    let mut copy = loaded(&module, &room.save().expect("it can be saved"));
    copy.handle_event(Instant::ZERO, Event::message(CLIENT, &b"fail"[..]))
        .expect("it fits");
    assert_eq!(numbers(&mut copy, Instant::ZERO), []);
    assert_eq!(copy.stats().faults, 1);
    assert_eq!(handle(&mut copy, Event::message(CLIENT, "b")), [3]);
    // So can one that was rewound.
    let mut kept = RewindBuffer::new(1);
    kept.push(&copy).expect("it can be kept");
    assert_eq!(handle(&mut copy, Event::message(CLIENT, "c")), [4]);
    kept.rewind(&mut copy, Instant::MAX).expect("there is one");
    handle(&mut copy, Event::message(CLIENT, &b"fail"[..]));
    assert_eq!(handle(&mut copy, Event::message(CLIENT, "d")), [4]);
}

#[test]
fn rewinding_goes_to_the_latest_state_not_after_a_time() {
    let module = module_of(&counter());
    let mut room = open(&module);
    assert_eq!(handle(&mut room, Event::Connect(CLIENT)), [1]);
    let mut kept = RewindBuffer::new(3);
    for second in 1..=5 {
        let now = Instant::from_millis(second * 1000);
        room.handle_event(now, Event::message(CLIENT, "+"))
            .expect("it fits");
        assert_eq!(numbers(&mut room, now), [second as i32 + 1]);
        kept.push(&room).expect("it can be kept");
    }
    let times: Vec<u64> = kept.times().map(Instant::as_millis).collect();
    assert_eq!(times, [3000, 4000, 5000]);
    assert_eq!(kept.rewind(&mut room, Instant::from_millis(2999)), None);
    assert_eq!(kept.times().len(), 0, "later states are gone");

    kept.push(&room).expect("it can be kept");
    let at = Instant::from_millis(6000);
    // In the middle of what is undone: an output that was not taken, and a message that waits.
    room.handle_event(at, Event::message(CLIENT, "+"))
        .expect("it fits");
    room.handle_event(at, Event::message(CLIENT, "+"))
        .expect("it fits");
    assert_eq!(kept.rewind(&mut room, at), Some(Instant::from_millis(5000)));
    assert_eq!(
        (room.now(), room.stats().waiting_events),
        (Instant::from_millis(5000), 0)
    );
    room.handle_event(at, Event::message(CLIENT, "+"))
        .expect("it fits");
    assert_eq!(numbers(&mut room, at), [7]);
}

#[test]
fn a_room_is_bound_to_its_module_engine_limits_and_payload_buffer() {
    let wasm = assemble(&counter());
    let module = load_module(&wasm, &Limits::new()).expect("it loads");
    let snapshot = open(&module).save().expect("it can be saved");
    let info = SnapshotInfo::read(&snapshot).expect("it is a snapshot");
    assert_eq!(info.module, ModuleHash::of(&wasm));
    assert_eq!(module.hash(), Some(info.module));
    assert_eq!((info.room_id.as_str(), info.now), ("test", Instant::ZERO));
    assert_eq!(
        (info.engine, info.limits),
        (EngineVersion::CURRENT, Limits::new())
    );

    let other = module_of(&speaker(&[], ""));
    let error = Room::load(&other, &snapshot, OPTIONS).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Module(hash) if hash == info.module),
        "{error}"
    );

    let less = limits(|limits| limits.max_fuel_per_event = Some(1000));
    let less = load_module(&wasm, &less).expect("it loads");
    let error = Room::load(&less, &snapshot, OPTIONS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the room ran with max_fuel_per_event 100000000, and the module was loaded with 1000"
    );
    Room::load(&less, &snapshot, OPTIONS.other_limits(true)).expect("that is wanted");
    // What no guest can observe may differ.
    let shorter = limits(|limits| limits.fuel_per_slice = 10);
    let shorter = load_module(&wasm, &shorter).expect("it loads");
    Room::load(&shorter, &snapshot, OPTIONS).expect("slices do not matter");

    let keep = LoadOptions::new()
        .snapshots(true)
        .payload_buffer(PayloadBuffer::Keep);
    let keep = Module::load_with(&wasm, &Limits::new(), keep).expect("it loads");
    let error = Room::load(&keep, &snapshot, OPTIONS).unwrap_err();
    assert!(matches!(error, SnapshotError::PayloadBuffer), "{error}");
}

#[test]
fn a_module_without_an_instance_is_refused() {
    let beyond = r#"(data (i32.const 65536) "x")"#;
    let error = load_module(&assemble(&speaker(&[], beyond)), &Limits::new()).unwrap_err();
    assert!(matches!(error, LoadError::Instantiation(_)), "{error}");
}

#[test]
fn a_room_that_exceeds_the_limits_of_the_module_is_refused() {
    let wasm = assemble(&counter());
    let module = load_module(&wasm, &Limits::new()).expect("it loads");
    let mut room = open(&module);
    for client in 1..=3 {
        handle(&mut room, Event::Connect(ClientId(client)));
    }
    let snapshot = room.save().expect("it can be saved");
    let few = load_module(&wasm, &limits(|limits| limits.max_clients = 2)).expect("it loads");
    let error = Room::load(&few, &snapshot, OPTIONS.other_limits(true)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the room has more clients than the limit of 2"
    );
}

#[test]
fn the_engine_is_the_one_that_is_linked() {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let lock = std::fs::read_to_string(lock).expect("the workspace has a lock file");
    let [major, minor, patch] = EngineVersion::CURRENT.wasmi;
    let entry = format!("name = \"wasmi\"\nversion = \"{major}.{minor}.{patch}\"\n");
    assert!(lock.contains(&entry), "update EngineVersion::CURRENT");
}
