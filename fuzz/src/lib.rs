//! Shared by the targets: opens rooms, sends them events and asserts the invariants.

use stateroom_wasmi_host::{
    ClientId, Compilation, Event, Fault, FaultPolicy, Instant, Limits, LoadOptions, MessagePayload,
    MessageRecipient, Module, PayloadBuffer, Room, RoomOptions, SnapshotOptions,
};

/// Low enough that inputs reach each limit and none takes long.
pub fn limits(fuel_per_slice: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_module_bytes = 1 << 20;
    limits.max_memory_bytes = 4 << 20;
    limits.max_table_elements = 1_000;
    limits.max_stack_bytes = 64 << 10;
    limits.max_recursion_depth = 200;
    limits.max_fuel_per_event = Some(200_000);
    limits.fuel_per_slice = fuel_per_slice;
    limits.max_message_bytes = 4 << 10;
    limits.max_outbox_messages = 64;
    limits.max_outbox_bytes = 16 << 10;
    limits
}

/// How far one instruction or import may overrun its slice: by a copy of all of the memory, or by
/// what an import copies. (An import with an invalid length is charged for that length, and fails.)
const MAX_SLICE_OVERRUN: u64 = (4 << 20) / 64 + (64 << 10);

/// Runs a module compiled lazily and eagerly, in slices of several lengths, and compares results.
pub fn check_module(wasm: &[u8]) {
    // After a stack overflow libFuzzer cannot save the input.
    if let Some(path) = std::env::var_os("FUZZ_LAST") {
        std::fs::write(path, wasm).expect("FUZZ_LAST names a writable file");
    }
    let mut outcomes = [
        (Compilation::Lazy, u64::MAX),
        (Compilation::Eager, u64::MAX),
        (Compilation::Lazy, 1_000),
        (Compilation::Eager, 17),
    ]
    .map(|(compilation, slice)| run(wasm, compilation, slice))
    .into_iter();
    let first = outcomes.next().expect("the array has four entries");
    for other in outcomes {
        assert_eq!(
            first, other,
            "compilation and slices must not change the results"
        );
    }
    for slice in [1_000, u64::MAX] {
        check_rollback(wasm, slice);
        check_snapshots(wasm, slice);
    }
}

/// Compares a room that is saved and loaded, or forked, or hibernates after each event with one that is
/// left alone.
fn check_snapshots(wasm: &[u8], slice: u64) {
    let options = LoadOptions::new()
        .payload_buffer(payload_buffer(wasm))
        .snapshots(true)
        .simd(true);
    // The state of some modules cannot be saved.
    let Ok(module) = Module::load_with(wasm, &limits(slice), options) else {
        return;
    };
    let expected = play(&module, |room| room);
    let mut turn = wasm.len();
    let actual = play(&module, |mut room| {
        turn += 1;
        let Ok(snapshot) = room.save() else {
            return room;
        };
        match turn % 3 {
            0 => Room::load(&module, &snapshot, SnapshotOptions::new()).expect("it was just saved"),
            1 => room.fork().expect("it could be saved"),
            _ => {
                // Not if an event waits.
                let _ = room.hibernate();
                room
            }
        }
    });
    let (Ok(expected), Ok(actual)) = (expected, actual) else {
        panic!("the room opened once, so it opens again");
    };
    for (expected, actual) in expected.iter().zip(&actual) {
        assert_eq!(
            (&expected.outputs, expected.fuel, expected.timer),
            (&actual.outputs, actual.fuel, actual.timer)
        );
        // None while there is no guest.
        if actual.memory_bytes > 0 {
            assert_eq!(expected.memory_bytes, actual.memory_bytes);
        }
    }
}

/// Compares a room that rolls back the events that fail with a reference room that never gets them.
fn check_rollback(wasm: &[u8], slice: u64) {
    let load_options = LoadOptions::new()
        .payload_buffer(payload_buffer(wasm))
        .snapshots(true)
        .simd(true);
    // Some modules do not support rollback.
    let Ok(module) = Module::load_with(wasm, &limits(slice), load_options) else {
        return;
    };
    let options = RoomOptions::new().seed(7);
    let mut now = Instant::from_millis(1);
    let Ok(mut reference) = Room::new(&module, "fuzz", options) else {
        return;
    };
    let options = options.on_fault(FaultPolicy::Rollback);
    let mut rolled_back = Room::new(&module, "fuzz", options).expect("the reference opened");
    let long = [0x62; 3_000];
    let (one, two) = (ClientId(1), ClientId(2));
    let payloads = [
        MessagePayload::Text("go"),
        MessagePayload::Bytes(&long),
        MessagePayload::Bytes(&[0, 1, 2]),
        MessagePayload::Text(""),
    ];
    let connects = [Event::Connect(one), Event::Connect(two)];
    let messages = payloads
        .into_iter()
        .flat_map(|payload| [one, two].map(|client| Event::message(client, payload)));
    for (i, event) in connects.into_iter().chain(messages).enumerate() {
        if i > 1 {
            now = now + core::time::Duration::from_millis(20);
            rolled_back.handle_timeout(now);
            reference.handle_timeout(now);
        }
        let (a, b) = (observe(&mut rolled_back, now), observe(&mut reference, now));
        if rolled_back.stats().faults > 0 && i <= 2 || reference.is_closed() {
            // Rolled back connects and timers have effects that the reference does not model.
            return;
        }
        assert_eq!(
            (&a.outputs, a.memory_bytes, a.timer),
            (&b.outputs, b.memory_bytes, b.timer)
        );
        let faults = rolled_back.stats().faults;
        rolled_back
            .handle_event(now, event)
            .expect("the room is open and idle");
        let a = observe(&mut rolled_back, now);
        if rolled_back.stats().faults > faults {
            assert_eq!(a.outputs, [], "a rolled back event must send nothing");
            continue;
        }
        reference
            .handle_event(now, event)
            .expect("the room is open and idle");
        let b = observe(&mut reference, now);
        assert_eq!(
            (a.outputs, a.memory_bytes, a.timer),
            (b.outputs, b.memory_bytes, b.timer)
        );
    }
}

/// Kept or not, by the module, so that all of its runs are alike.
const fn payload_buffer(wasm: &[u8]) -> PayloadBuffer {
    match wasm.len() / 2 % 2 {
        0 => PayloadBuffer::PerEvent,
        _ => PayloadBuffer::Keep,
    }
}

/// The observable behaviour of a module and a room of it, or the error that prevented the room.
type Outcome = Result<Vec<Observation>, String>;

/// The observable state of a room after an event.
#[derive(Debug, PartialEq)]
struct Observation {
    outputs: Vec<(MessageRecipient, bool, Vec<u8>)>,
    fuel: u64,
    memory_bytes: usize,
    timer: Option<Instant>,
    fault: Option<Fault>,
}

fn run(wasm: &[u8], compilation: Compilation, slice: u64) -> Outcome {
    let module = Module::load_with(
        wasm,
        &limits(slice),
        LoadOptions::from(compilation)
            .payload_buffer(payload_buffer(wasm))
            .simd(true),
    )
    .map_err(|error| error.to_string())?;
    play(&module, |room| room)
}

/// What a room of a module does at some events. Between them, another that is in the same state may take
/// its place.
fn play(module: &Module, mut replace: impl FnMut(Room) -> Room) -> Outcome {
    // Chosen by the module, so that all of its runs are alike.
    let on_fault = match module.exports().count() % 2 {
        0 => FaultPolicy::Close,
        _ => FaultPolicy::Continue,
    };
    let options = RoomOptions::new().seed(7).on_fault(on_fault);
    let mut now = Instant::from_millis(1);
    let mut room = Room::new(module, "fuzz", options).map_err(|error| error.to_string())?;
    let mut all = vec![observe(&mut room, now)];
    let client = ClientId(1);
    let long = [0x61; 3_000];
    for event in [
        Event::Connect(client),
        Event::message(client, "go"),
        Event::Connect(ClientId::MAX),
        Event::message(client, &[0, 1, 2, 0xff]),
        Event::message(ClientId::MAX, MessagePayload::Bytes(&long)),
        Event::Disconnect(client),
        Event::message(ClientId::MAX, ""),
    ] {
        now = now + core::time::Duration::from_millis(50);
        if room.handle_event(now, event).is_err() {
            assert!(room.is_closed(), "an open room accepts events");
        }
        all.push(observe(&mut room, now));
        room.handle_timeout(now);
        all.push(observe(&mut room, now));
        room = replace(room);
    }
    room.close();
    assert!(!room.has_work(Instant::MAX));
    Ok(all)
}

/// Resumes the room until it is idle, and checks the limits after each slice.
fn observe(room: &mut Room, now: Instant) -> Observation {
    let limits = *room.module().limits();
    let mut outputs = Vec::new();
    loop {
        while let Some(output) = room.poll_output() {
            let Some(message) = output.message() else {
                continue;
            };
            assert!(message.payload.len() <= limits.max_message_bytes);
            let is_text = message.payload.text().is_some();
            outputs.push((
                message.recipient,
                is_text,
                message.payload.as_bytes().to_vec(),
            ));
        }
        assert!(room.stats().memory_bytes <= limits.max_memory_bytes);
        // Twice: a due timer may run besides the event.
        assert!(outputs.len() <= 2 * limits.max_outbox_messages);
        assert!(
            outputs.iter().map(|(.., bytes)| bytes.len()).sum::<usize>()
                <= 2 * limits.max_outbox_bytes
        );
        if !room.has_work(now) {
            break;
        }
        let before = room.fuel_used();
        room.resume(now);
        let used = room.fuel_used() - before;
        // During a replay the last event may begin at the end of the slice.
        let slice = limits
            .fuel_per_slice
            .saturating_mul(if room.stats().faults > 0 { 2 } else { 1 });
        let is_bounded = used <= slice.saturating_add(MAX_SLICE_OVERRUN);
        assert!(
            is_bounded || room.is_closed(),
            "{used} units of fuel in a slice"
        );
    }
    Observation {
        outputs,
        fuel: room.fuel_used(),
        memory_bytes: room.stats().memory_bytes,
        timer: room.poll_timeout(),
        fault: room.last_fault().cloned(),
    }
}
