//! Rolling back the event that made a guest fail.

use crate::support::{
    Random, Said, assemble, guest_0_2, limits, module, numbers, outputs, speaker,
};
use stateroom_wasmi_host::{
    Budget, ClientId, Event, EventError, Fault, FaultCause, FaultPolicy, Host, Instant, Limits,
    LoadError, LoadOptions, ManualClock, Module, OpenError, RecordingTransport, Room, RoomOptions,
    Trap,
};

const NOW: Instant = Instant::ZERO;
const CLIENT: ClientId = ClientId(1);

fn load(wasm: &[u8], limits: &Limits) -> Result<Module, LoadError> {
    let mut options = LoadOptions::default();
    options.snapshots = true;
    Module::load_with(wasm, limits, options)
}

fn load_wat(text: &str, limits: &Limits) -> Module {
    load(&assemble(text), limits).expect("the module can be rolled back")
}

fn options() -> RoomOptions {
    RoomOptions::new().on_fault(FaultPolicy::Rollback)
}

fn open(module: &Module) -> Room {
    let mut room = Room::new(module, "test", options()).expect("the room opens");
    outputs(&mut room, NOW);
    room.handle_event(NOW, Event::Connect(CLIENT))
        .expect("the client may connect");
    outputs(&mut room, NOW);
    room
}

fn handle(room: &mut Room, now: Instant, event: Event<'_>) -> Vec<Said> {
    room.handle_event(now, event)
        .expect("the room accepts the event");
    outputs(room, now)
}

/// A guest that keeps state everywhere that a guest can. A text changes all of it and sends it;
/// bytes do the same and then fail. The first byte says how much to compute in between.
pub fn ledger() -> String {
    let imports = r#"
        (import "env" "send_binary" (func $send_binary (param i32 i32 i32)))
        (import "env" "set_timer" (func $set_timer (param i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get"
            (func $clock (param i32 i64 i32) (result i32)))"#;
    let change = "(call $change (i32.load8_u (local.get 1)))";
    let more = r#"
        (global $texts (mut i32) (i32.const 0))
        (global $sum (mut f64) (f64.const 0.5))
        (func $change (param i32)
            (local $i i32)
            (global.set $texts (i32.add (global.get $texts) (i32.const 1)))
            (global.set $sum (f64.add (f64.mul (global.get $sum) (f64.const 1.5)) (f64.const 1)))
            ;; A byte of the first page, and one of the last.
            (i32.store8 (i32.add (i32.const 5000) (global.get $texts)) (local.get 0))
            (if (i32.eqz (i32.rem_u (local.get 0) (i32.const 32)))
                (then (drop (memory.grow (i32.const 1)))))
            (i32.store
                (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4))
                (global.get $texts))
            (loop $again
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.mul (local.get 0) (i32.const 100)))))
            (if (i32.and (local.get 0) (i32.const 1))
                (then (drop (call $random (i32.const 32) (i32.const 6)))))
            (if (i32.and (local.get 0) (i32.const 2))
                (then (call $set_timer (i32.add (local.get 0) (i32.const 1)))))
            (if (i32.and (local.get 0) (i32.const 4))
                (then
                    ;; Sleep that many milliseconds.
                    (i64.store (i32.const 6024)
                        (i64.mul (i64.extend_i32_u (local.get 0)) (i64.const 1000000)))
                    (drop (call $poll
                        (i32.const 6000) (i32.const 6100) (i32.const 1) (i32.const 6090)))))
            (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 40)))
            (i32.store (i32.const 16) (global.get $texts))
            (f64.store (i32.const 20) (global.get $sum))
            (i32.store (i32.const 28) (memory.size))
            (call $send_binary (i32.const 0) (i32.const 16) (i32.const 32))
            (call $send_binary (i32.const 0) (i32.const 5000) (i32.const 64)))"#;
    guest_0_2(
        imports,
        &[
            ("message", change),
            ("binary", &format!("{change} (unreachable)")),
            ("timer", "(call $change (i32.const 8))"),
        ],
        more,
    )
}

/// Sends random events to one room, some of which fail, and only the good ones to a reference room;
/// the outputs must be equal at each step.
#[track_caller]
fn same_as_without_bad_events(
    module: &Module,
    random: &mut Random,
    mut payload: impl FnMut(&mut Random) -> Payload,
) -> u64 {
    let (mut room, mut reference) = (open(module), open(module));
    let mut now = NOW;
    for step in 0..150 {
        now = Instant::from_millis(now.as_millis() + random.below(40) as u64);
        let payload = payload(random);
        let event = match &payload {
            Payload::Text(text) => Event::message(CLIENT, text.as_str()),
            Payload::Bytes(bytes) => Event::message(CLIENT, bytes.as_slice()),
        };
        let mut actual = Vec::new();
        let faults = room.stats().faults;
        // The timer first, since it may be due before the event.
        room.handle_timeout(now);
        actual.extend(outputs(&mut room, now));
        assert_eq!(room.stats().faults, faults, "the timer does not fail here");
        actual.extend(handle(&mut room, now, event));
        let failed = room.stats().faults > faults;

        reference.handle_timeout(now);
        let mut expected = outputs(&mut reference, now);
        if !failed {
            expected.extend(handle(&mut reference, now, event));
        }
        assert_eq!(actual, expected, "step {step}");
        assert_eq!(room.poll_timeout(), reference.poll_timeout(), "step {step}");
        assert_eq!(
            room.stats().memory_bytes,
            reference.stats().memory_bytes,
            "step {step}"
        );
    }
    assert_eq!(reference.stats().faults, 0);
    room.stats().faults
}

enum Payload {
    Text(String),
    Bytes(Vec<u8>),
}

#[test]
fn a_rolled_back_event_leaves_no_trace() {
    let mut random = Random::new();
    // Slices of all sizes, occasional checkpoints, and a log of the events in between.
    for slice in [300, 5000, 1_000_000] {
        let module = load_wat(&ledger(), &limits(|limits| limits.fuel_per_slice = slice));
        let faults =
            same_as_without_bad_events(&module, &mut random, |random| match random.below(4) {
                0 => Payload::Bytes(random.bytes(2)),
                _ => Payload::Text(char::from(random.below(128) as u8).to_string()),
            });
        assert!(
            (20..60).contains(&faults),
            "about a quarter of the events fail: {faults}"
        );
    }
}

#[test]
fn a_rolled_back_event_leaves_no_trace_in_sdk_rooms() {
    let mut random = Random::new();
    for name in [
        "echo-rust-0.2",
        "counter-rust-0.2",
        "chat-rust-0.4",
        "echo-rust-0.4-wasi",
        "dice-rust-0.2-wasi",
        "dice-rust-0.4-wasi",
    ] {
        let wasm =
            std::fs::read(format!("examples/rooms/wasm/{name}.wasm")).expect("the room is bundled");
        // Long messages run out of fuel, each at a different point.
        let limits = limits(|limits| {
            limits.max_fuel_per_event = Some(20_000);
            limits.fuel_per_slice = 7_000;
        });
        let module = load(&wasm, &limits).expect("compilers keep no state in tables");
        let faults =
            same_as_without_bad_events(&module, &mut random, |random| match random.below(4) {
                0 => Payload::Text("long ".repeat(4_000 + random.below(8_000))),
                1 => Payload::Text("roll 6".into()),
                _ => Payload::Text("x".repeat(random.below(200) + 1)),
            });
        assert!(faults > 10, "{name}: {faults}");
    }
}

#[test]
fn a_failed_event_sends_nothing_however_it_is_sliced() {
    let fails_late = "(call $say (i32.const 1))
        (loop (br_if 0 (i32.lt_u (call $count) (i32.const 5000))))
        (call $say (i32.const 2)) (unreachable)";
    let ends_well = "(call $say (i32.const 3))
        (loop (br_if 0 (i32.rem_u (call $count) (i32.const 5000))))
        (call $say (i32.const 4))";
    let text = speaker(
        &[("binary", fails_late), ("message", ends_well)],
        "(global $n (mut i32) (i32.const 0))
        (func $count (result i32)
            (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))",
    );
    let mut room = open(&load_wat(
        &text,
        &limits(|limits| limits.fuel_per_slice = 1000),
    ));
    for (payload, expected) in [
        (Event::message(CLIENT, b"bad"), vec![]),
        (Event::message(CLIENT, "good"), vec![3, 4]),
    ] {
        room.handle_event(NOW, payload).unwrap();
        assert!(room.has_work(NOW), "the event takes many slices");
        assert_eq!(room.peek_output(), None, "no output before the event ends");
        assert_eq!(room.poll_output(), None);
        assert_eq!(numbers(&mut room, NOW), expected);
    }
    assert_eq!(room.stats().messages_out, 2);
    let fault = Fault {
        during: "binary",
        cause: FaultCause::Trap(Trap::Unreachable),
    };
    assert_eq!((room.last_fault(), room.fault()), (Some(&fault), None));
}

#[test]
fn replay_is_sliced() {
    // Each text is expensive, but cheaper than a checkpoint.
    let text = speaker(
        &[
            (
                "message",
                "(loop (br_if 0 (i32.rem_u (call $count) (i32.const 1000)))) (call $say (global.get $n))",
            ),
            ("binary", "(unreachable)"),
        ],
        "(global $n (mut i32) (i32.const 0))
        (func $count (result i32)
            (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))",
    )
    .replace("(memory (export \"memory\") 1)", "(memory (export \"memory\") 4)");
    let mut room = open(&load_wat(
        &text,
        &limits(|limits| limits.fuel_per_slice = 2000),
    ));
    for n in 1..=10 {
        room.handle_event(NOW, Event::message(CLIENT, "count"))
            .unwrap();
        assert_eq!(numbers(&mut room, NOW), [n * 1000]);
    }
    room.handle_event(NOW, Event::message(CLIENT, b"bad"))
        .unwrap();
    let mut slices = 0;
    while room.has_work(NOW) {
        let before = room.fuel_used();
        room.resume(NOW);
        // The copy of one import may exceed the slice.
        assert!(
            room.fuel_used() - before <= 2100,
            "{}",
            room.fuel_used() - before
        );
        slices += 1;
    }
    assert!(
        slices > 10,
        "replaying ten events of several slices each took {slices}"
    );
    assert!(outputs(&mut room, NOW).is_empty());
    room.handle_event(NOW, Event::message(CLIENT, "count"))
        .unwrap();
    assert_eq!(numbers(&mut room, NOW), [11_000]);
}

#[test]
fn an_event_during_replay_is_queued() {
    let text = speaker(
        &[
            (
                "message",
                "(global.set $n (i32.add (global.get $n) (i32.const 1))) (call $say (global.get $n))",
            ),
            ("binary", "(unreachable)"),
        ],
        "(global $n (mut i32) (i32.const 0))",
    );
    let mut room = open(&load_wat(&text, &Limits::default()));
    handle(&mut room, NOW, Event::message(CLIENT, "one"));
    room.handle_event(NOW, Event::message(CLIENT, b"bad"))
        .unwrap();
    room.handle_event(NOW, Event::message(CLIENT, "two"))
        .unwrap();
    assert_eq!(numbers(&mut room, NOW), [2]);
}

#[test]
fn timers_do_not_fire_during_replay() {
    let text = speaker(
        &[
            ("initialize", "(call $set_timer (i32.const 5))"),
            ("message", "(call $set_timer (i32.const 0))"),
            ("binary", "(unreachable)"),
            ("timer", "(call $say (i32.const 7))"),
        ],
        "",
    );
    let mut room = open(&load_wat(&text, &Limits::default()));
    handle(&mut room, NOW, Event::message(CLIENT, "cancel"));
    let later = Instant::from_millis(10);
    room.handle_event(later, Event::message(CLIENT, b"bad"))
        .unwrap();
    assert_eq!(room.poll_timeout(), Some(later), "a fresh guest is due");
    room.handle_timeout(later);
    assert_eq!(room.poll_timeout(), None, "the text is yet to be replayed");
    room.handle_timeout(later);
    assert!(outputs(&mut room, later).is_empty());
    assert_eq!((room.poll_timeout(), room.stats().faults), (None, 1));
}

/// The fuel of one text, and of a rollback after `texts` of them.
fn cost_of_rollback(guest: &str, limits: &Limits, text: &str, texts: usize) -> (u64, u64) {
    let text_guest = guest_0_2("", &[("message", guest), ("binary", "(unreachable)")], "");
    let mut room = open(&load_wat(&text_guest, limits));
    let mut cost = |event| {
        let before = room.fuel_used();
        handle(&mut room, NOW, event);
        room.fuel_used() - before
    };
    // The first also allocates the buffer.
    cost(Event::message(CLIENT, text));
    let one = cost(Event::message(CLIENT, text));
    for _ in 2..texts {
        assert_eq!(cost(Event::message(CLIENT, text)), one);
    }
    (one, cost(Event::message(CLIENT, b"")))
}

#[test]
fn replay_is_bounded() {
    let memory = 65_536;
    let count = "(loop $again
        (local.set 0 (i32.add (local.get 0) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get 0) (i32.const 2000))))";
    let (one, rollback) = cost_of_rollback(count, &Limits::default(), "", 100);
    assert!(
        rollback <= memory + one,
        "bounded by fuel: {rollback}, of {one} each"
    );

    let long = "x".repeat(30_000);
    let (one, rollback) = cost_of_rollback("", &Limits::default(), &long, 300);
    assert!(
        rollback <= 3 * one,
        "bounded by logged bytes: {rollback}, of {one} each"
    );

    let (one, rollback) = cost_of_rollback("", &Limits::default(), "", 10_000);
    assert!(
        rollback <= 1025 * one,
        "bounded by logged events: {rollback}, of {one} each"
    );
}

#[test]
fn slices_of_zero_fuel_make_progress() {
    let limits = limits(|limits| limits.fuel_per_slice = 0);
    let text = speaker(
        &[
            ("message", "(call $say (i32.const 1))"),
            ("binary", "(unreachable)"),
        ],
        "",
    );
    let mut room = open(&load_wat(&text, &limits));
    for event in [
        Event::message(CLIENT, "good"),
        Event::message(CLIENT, b"bad"),
    ] {
        room.handle_event(NOW, event).unwrap();
        for _ in 0..1000 {
            room.resume(NOW);
        }
        numbers(&mut room, NOW);
    }
    assert!(!room.has_work(NOW));
    assert_eq!(room.stats().faults, 1);
}

#[test]
fn inbox_limits_hold_during_rollback() {
    let count = "(loop $again
        (local.set 0 (i32.add (local.get 0) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get 0) (i32.const 2000))))";
    let limits = limits(|limits| {
        (
            limits.fuel_per_slice,
            limits.max_inbox_events,
            limits.max_inbox_bytes,
            limits.max_message_bytes,
        ) = (1000, 3, 20, 20)
    });
    let text = guest_0_2("", &[("message", count), ("binary", "(unreachable)")], "");
    for (message, waiting) in [("", 3), ("7 bytes", 2)] {
        let mut room = open(&load_wat(&text, &limits));
        handle(&mut room, NOW, Event::message(CLIENT, "first"));
        room.handle_event(NOW, Event::message(CLIENT, b"bad"))
            .unwrap();
        room.resume(NOW);
        assert!(
            room.has_work(NOW),
            "the replay of the first event is paused"
        );
        for _ in 0..waiting {
            room.handle_event(NOW, Event::message(CLIENT, message))
                .unwrap();
        }
        let one_more = room.handle_event(NOW, Event::message(CLIENT, message));
        assert_eq!(
            one_more,
            Err(EventError::InboxFull),
            "{waiting} events are queued"
        );
        outputs(&mut room, NOW);
        assert_eq!((room.stats().waiting_events, room.stats().faults), (0, 1));
    }
}

#[test]
fn events_during_a_failing_event_are_queued() {
    let text = speaker(
        &[
            ("message", "(call $say (i32.const 1))"),
            ("binary", "(loop (br 0))"),
            ("disconnect", "(call $say (i32.const 2))"),
        ],
        "",
    );
    let limits =
        limits(|limits| (limits.fuel_per_slice, limits.max_fuel_per_event) = (1000, Some(10_000)));
    let mut room = open(&load_wat(&text, &limits));
    room.handle_event(NOW, Event::message(CLIENT, b"bad"))
        .unwrap();
    room.handle_event(NOW, Event::message(CLIENT, "next"))
        .unwrap();
    room.handle_event(NOW, Event::Disconnect(CLIENT)).unwrap();
    assert_eq!(numbers(&mut room, NOW), [1, 2]);
    assert_eq!(
        room.last_fault().map(|fault| &fault.cause),
        Some(&FaultCause::OutOfFuel { limit: 10_000 })
    );
}

#[test]
fn rollback_restores_a_pending_timer_but_not_the_one_that_failed() {
    let text = speaker(
        &[
            ("message", "(call $set_timer (i32.const 100))"),
            ("binary", "(call $set_timer (i32.const 5)) (unreachable)"),
            (
                "timer",
                "(call $say (i32.const 1)) (call $set_timer (i32.const 7)) (unreachable)",
            ),
        ],
        "",
    );
    let mut room = open(&load_wat(&text, &Limits::default()));
    handle(&mut room, NOW, Event::message(CLIENT, "set"));
    handle(&mut room, NOW, Event::message(CLIENT, b"bad"));
    let deadline = Instant::from_millis(100);
    assert_eq!(
        room.poll_timeout(),
        Some(deadline),
        "the timer of the failed event is rolled back"
    );
    room.handle_timeout(deadline);
    assert!(outputs(&mut room, deadline).is_empty());
    assert_eq!((room.poll_timeout(), room.stats().faults), (None, 2));
    assert!(!room.is_closed());
}

/// The numbers that a guest sends on a text after three rollbacks, and the last fault.
fn after_rollbacks(text: &str) -> (Vec<i32>, Option<Fault>) {
    let mut room = open(&load_wat(text, &Limits::default()));
    // The second rollback restores what was saved after the first; the third starts from there.
    for _ in 0..3 {
        handle(&mut room, NOW, Event::message(CLIENT, b"bad"));
    }
    room.handle_event(NOW, Event::message(CLIENT, "good"))
        .unwrap();
    (numbers(&mut room, NOW), room.last_fault().cloned())
}

#[test]
fn zeroed_data_segments_are_restored_as_zero() {
    let text = speaker(
        &[
            (
                "initialize",
                "(memory.fill (i32.const 512) (i32.const 0) (i32.const 512))",
            ),
            (
                "message",
                "(call $say (i32.load (i32.const 600))) (call $say (i32.load (i32.const 1100)))",
            ),
            (
                "binary",
                "(i32.store (i32.const 600) (i32.const 5)) (unreachable)",
            ),
        ],
        "(data (i32.const 600) \"\\01\") (data (i32.const 1100) \"\\02\")",
    );
    assert_eq!(after_rollbacks(&text).0, [0, 2]);
}

#[test]
fn rollback_does_not_rerun_the_constructor() {
    let text = speaker(
        &[
            ("message", "(call $say (global.get $runs))"),
            ("binary", "(unreachable)"),
        ],
        "(global $runs (mut i32) (i32.const 0))
        (func (export \"_initialize\")
            (global.set $runs (i32.add (global.get $runs) (i32.const 1))))",
    );
    assert_eq!(after_rollbacks(&text).0, [1]);
}

#[test]
fn grown_memory_is_restored_with_custom_page_sizes() {
    let text = speaker(
        &[
            ("connect", "(drop (memory.grow (i32.const 100)))"),
            ("message", "(call $say (memory.size))"),
            ("binary", "(drop (memory.grow (i32.const 1))) (unreachable)"),
        ],
        "",
    )
    .replace(
        "(memory (export \"memory\") 1)",
        "(memory (export \"memory\") 5000 (pagesize 1))",
    );
    assert_eq!(after_rollbacks(&text).0, [5100]);
}

#[test]
fn refused_memory_growth_is_remembered_after_rollback() {
    let text = speaker(
        &[
            ("connect", "(drop (memory.grow (i32.const 60000)))"),
            ("binary", "(unreachable)"),
        ],
        "",
    );
    let fault = Fault {
        during: "binary",
        cause: FaultCause::Trap(Trap::UnreachableOutOfMemory),
    };
    assert_eq!(after_rollbacks(&text).1, Some(fault));
}

#[test]
fn a_fault_in_initialize_closes_the_room() {
    let text = speaker(
        &[("initialize", "(call $say (i32.const 1)) (unreachable)")],
        "",
    );
    let mut room = Room::new(&load_wat(&text, &Limits::default()), "test", options()).unwrap();
    assert!(room.is_closed());
    assert!(room.fault().is_some());
    assert!(outputs(&mut room, NOW).is_empty());
}

#[test]
fn a_client_whose_connect_was_rolled_back_stays_connected() {
    let text = speaker(
        &[
            ("connect", "(unreachable)"),
            ("message", "(call $say (local.get 0))"),
        ],
        "",
    );
    let mut room = open(&load_wat(&text, &Limits::default()));
    assert_eq!(
        (room.clients(), room.stats().faults),
        ([CLIENT].as_slice(), 1)
    );
    room.handle_event(NOW, Event::message(CLIENT, "hello"))
        .unwrap();
    assert_eq!(numbers(&mut room, NOW), [1]);
}

#[test]
fn closing_a_room_discards_the_outputs_of_an_unfinished_event() {
    let text = speaker(
        &[("message", "(call $say (i32.const 1)) (loop (br 0))")],
        "",
    );
    let clock = ManualClock::new();
    let mut host =
        Host::new(&clock, RecordingTransport::new()).with_fault_policy(FaultPolicy::Rollback);
    let key = host
        .open("room", &load_wat(&text, &Limits::default()))
        .unwrap();
    for event in [Event::Connect(CLIENT), Event::message(CLIENT, "go")] {
        host.enqueue(key, event).unwrap();
    }
    host.poll(Budget::fuel(2_000_000));
    host.close(key).expect("the room is open");
    assert_eq!(host.transport().sent.len(), 0);
    assert_eq!(host.poll_closed().map(|closed| closed.fault), Some(None));
}

#[test]
fn modules_with_unrestorable_state_are_refused() {
    for (instruction, what) in [
        ("(table.set $t (i32.const 0) (ref.null func))", "table.set"),
        (
            "(drop (table.grow $t (ref.null func) (i32.const 1)))",
            "table.grow",
        ),
        (
            "(table.fill $t (i32.const 0) (ref.null func) (i32.const 1))",
            "table.fill",
        ),
        (
            "(table.copy $t $t (i32.const 0) (i32.const 0) (i32.const 1))",
            "table.copy",
        ),
        (
            "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))",
            "table.init",
        ),
        ("(elem.drop $e)", "elem.drop"),
        ("(data.drop $d)", "data.drop"),
        (
            "(global.set $r (ref.null func))",
            "a mutable global of references",
        ),
    ] {
        let reference = if what.contains("global") {
            "(global $r (mut funcref) (ref.null func))"
        } else {
            ""
        };
        let more =
            format!("(table $t 4 funcref) (func $f) (elem $e func $f) (data $d \"x\") {reference}");
        let wasm = assemble(&guest_0_2("", &[("timer", instruction)], &more));
        match load(&wasm, &Limits::default()) {
            Err(LoadError::HiddenState { what: found }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
        Module::load(&wasm, &Limits::default()).expect("without rollback any state is allowed");
    }
    let two = assemble(&guest_0_2("", &[], "(memory 0)"));
    match load(&two, &Limits::default()) {
        Err(LoadError::HiddenState { what }) => assert_eq!(what, "a second memory"),
        other => panic!("{other:?}"),
    }
    module(&guest_0_2("", &[], "(memory 0)"));
}

#[test]
fn instrumentation_keeps_imports_exports_and_errors() {
    let everything = r#"(table (export "table") 3 funcref) (func (export "function"))
        (global (export "constant") i64 (i64.const 1)) (global (export "shown") (mut f32) (f32.const 1))"#;
    let text = ledger().replace("(memory (export", &format!("{everything} (memory (export"));
    let (plain, changed) = (module(&text), load_wat(&text, &Limits::default()));
    assert!(plain.exports().any(|(name, _)| name == "table"));
    assert_eq!(
        plain.exports().collect::<Vec<_>>(),
        changed.exports().collect::<Vec<_>>()
    );
    assert_eq!(
        plain.imports().collect::<Vec<_>>(),
        changed.imports().collect::<Vec<_>>()
    );

    let wasm = assemble("(module)");
    let [plain, changed] = [
        Module::load(&wasm, &Limits::default()),
        load(&wasm, &Limits::default()),
    ];
    assert_eq!(
        plain.unwrap_err().to_string(),
        changed.unwrap_err().to_string()
    );
    // Truncated anywhere (a prefix that ends between two sections may still be a module).
    let wasm = assemble(&text);
    for end in 0..wasm.len() {
        let plain = Module::load(&wasm[..end], &Limits::default()).map(|_| ());
        let changed = load(&wasm[..end], &Limits::default()).map(|_| ());
        assert_eq!(
            plain.is_ok(),
            changed.is_ok(),
            "the first {end} bytes: {plain:?}, {changed:?}"
        );
    }
}

#[test]
fn rollback_requires_a_module_loaded_for_rollback() {
    let plain = module(&ledger());
    assert!(matches!(
        Room::new(&plain, "", options()),
        Err(OpenError::NoRollback)
    ));
    let mut host = Host::new(ManualClock::new(), RecordingTransport::new())
        .with_fault_policy(FaultPolicy::Rollback);
    assert!(matches!(
        host.open("room", &plain),
        Err(OpenError::NoRollback)
    ));
}

#[test]
fn what_a_start_function_does_is_not_repeated() {
    let more = r#"(func $start (call $say (i32.const 7))) (start $start)"#;
    let text = speaker(&[("message", "(unreachable)")], more);
    let mut room = Room::new(&load_wat(&text, &Limits::default()), "test", options()).unwrap();
    assert_eq!(numbers(&mut room, NOW), [7]);
    room.handle_event(NOW, Event::Connect(CLIENT)).unwrap();
    for _ in 0..2 {
        room.handle_event(NOW, Event::message(CLIENT, "fail"))
            .unwrap();
        assert_eq!(numbers(&mut room, NOW), [] as [i32; 0]);
    }
    assert_eq!(room.stats().faults, 2);
}
