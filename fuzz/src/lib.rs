//! What the targets share: modules are opened and given events, and what must hold is asserted.

use stateroom_wasmi_host::{
    ClientId, Compilation, Event, Fault, FaultPolicy, Instant, Limits, LoadOptions, MessagePayload,
    MessageRecipient, Module, OpenError, Room, RoomOptions,
};

/// So small that each of them is met, and that no input takes long.
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

/// What one instruction or one import may use beyond its slice: a copy of all of the memory, or
/// what an import copies. (An import that is given a wild length is charged for it, and fails.)
const BEYOND_SLICE: u64 = (4 << 20) / 64 + (64 << 10);

/// Runs a module in every way that there is, which must come to the same.
pub fn play(wasm: &[u8]) {
    // When the stack overflows, libFuzzer can write nothing down any more.
    if let Some(path) = std::env::var_os("FUZZ_LAST") {
        std::fs::write(path, wasm).expect("the file can be written");
    }
    let mut outcomes = [
        (Compilation::Lazy, u64::MAX),
        (Compilation::Eager, u64::MAX),
        (Compilation::Lazy, 1_000),
        (Compilation::Eager, 17),
    ]
    .map(|(compilation, slice)| outcome(wasm, compilation, slice))
    .into_iter();
    let first = outcomes.next().expect("there are four");
    for other in outcomes {
        assert_eq!(
            first, other,
            "however it is compiled and sliced, it does the same"
        );
    }
    for slice in [1_000, u64::MAX] {
        undo(wasm, slice);
    }
}

/// Plays a room that undoes the events that break it, beside one that is not given them: both do the
/// same.
fn undo(wasm: &[u8], slice: u64) {
    let mut load_options = LoadOptions::default();
    load_options.rollback = true;
    // Not every module can be rolled back.
    let Ok(module) = Module::load_with(wasm, &limits(slice), load_options) else {
        return;
    };
    let mut options = RoomOptions::default();
    options.seed = 7;
    let mut now = Instant::from_millis(1);
    let Ok(mut spared) = Room::new(&module, "fuzz", now, options) else {
        return;
    };
    options.on_fault = FaultPolicy::Rollback;
    let mut undoing = Room::new(&module, "fuzz", now, options).expect("the other one opened");
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
            undoing.handle_timeout(now);
            spared.handle_timeout(now);
        }
        let (a, b) = (see(&mut undoing, now), see(&mut spared, now));
        if undoing.stats().faults > 0 && i <= 2 || spared.is_closed() {
            // What becomes of connects and timers that are undone is no such simple matter.
            return;
        }
        assert_eq!(
            (&a.said, a.memory_bytes, a.timer),
            (&b.said, b.memory_bytes, b.timer)
        );
        let faults = undoing.stats().faults;
        undoing
            .handle_event(now, event)
            .expect("it is open, and has nothing else to do");
        let a = see(&mut undoing, now);
        if undoing.stats().faults > faults {
            assert_eq!(a.said, [], "nothing of what is undone is sent");
            continue;
        }
        spared
            .handle_event(now, event)
            .expect("it is open, and has nothing else to do");
        let b = see(&mut spared, now);
        assert_eq!(
            (a.said, a.memory_bytes, a.timer),
            (b.said, b.memory_bytes, b.timer)
        );
    }
}

/// Whatever can be seen of a module and a room of it. Where it fails before there is a room, how.
type Outcome = Result<Vec<Seen>, String>;

/// What is seen of a room after an event.
#[derive(Debug, PartialEq)]
struct Seen {
    said: Vec<(MessageRecipient, bool, Vec<u8>)>,
    fuel: u64,
    memory_bytes: usize,
    timer: Option<Instant>,
    fault: Option<Fault>,
}

fn outcome(wasm: &[u8], compilation: Compilation, slice: u64) -> Outcome {
    let module =
        Module::load_with(wasm, &limits(slice), compilation).map_err(|error| error.to_string())?;
    let mut options = RoomOptions::default();
    options.seed = 7;
    let mut now = Instant::from_millis(1);
    let mut room = Room::new(&module, "fuzz", now, options).map_err(|error| match error {
        OpenError::Fault(fault) => fault.to_string(),
        // The interpreter's own words number its stores.
        error => error.to_string(),
    })?;
    let mut all = vec![see(&mut room, now)];
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
            assert!(room.is_closed(), "a room that is open takes its events");
        }
        all.push(see(&mut room, now));
        room.handle_timeout(now);
        all.push(see(&mut room, now));
    }
    room.close();
    assert!(!room.has_work(Instant::MAX));
    Ok(all)
}

/// Lets the room go on until it has nothing left to do now, and looks at it all the time.
fn see(room: &mut Room, now: Instant) -> Seen {
    let limits = *room.module().limits();
    let mut said = Vec::new();
    loop {
        while let Some(output) = room.poll_output() {
            assert!(output.payload.len() <= limits.max_message_bytes);
            let is_text = output.payload.text().is_some();
            said.push((
                output.recipient,
                is_text,
                output.payload.as_bytes().to_vec(),
            ));
        }
        assert!(room.stats().memory_bytes <= limits.max_memory_bytes);
        // It may have a timer that is due, besides the event.
        assert!(said.len() <= 2 * limits.max_outbox_messages);
        assert!(
            said.iter().map(|(.., bytes)| bytes.len()).sum::<usize>()
                <= 2 * limits.max_outbox_bytes
        );
        if !room.has_work(now) {
            break;
        }
        let before = room.fuel_used();
        room.resume(now);
        let used = room.fuel_used() - before;
        // Where events are run again, the last of them may begin at the end of the slice.
        let slice = limits
            .fuel_per_slice
            .saturating_mul(if room.stats().faults > 0 { 2 } else { 1 });
        let is_bounded = used <= slice.saturating_add(BEYOND_SLICE);
        assert!(
            is_bounded || room.is_closed(),
            "{used} units of fuel in a slice"
        );
    }
    Seen {
        said,
        fuel: room.fuel_used(),
        memory_bytes: room.stats().memory_bytes,
        timer: room.poll_timeout(),
        fault: room.fault().cloned(),
    }
}
