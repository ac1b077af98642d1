//! Rooms that undo the event that broke their guest.

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
    options.rollback = true;
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

fn give(room: &mut Room, now: Instant, event: Event<'_>) -> Vec<Said> {
    room.handle_event(now, event).expect("the room takes it");
    outputs(room, now)
}

/// A guest that keeps state everywhere that a guest can. A text changes all of it and tells it;
/// bytes do the same and fail. Its first byte is how much to do in between.
fn ledger() -> String {
    let imports = r#"
        (import "env" "send_binary" (func $send_binary (param i32 i32 i32)))
        (import "env" "set_timer" (func $set_timer (param i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;
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
            (i32.store (i32.const 16) (global.get $texts))
            (f64.store (i32.const 20) (global.get $sum))
            (i32.store (i32.const 28) (memory.size))
            (call $send_binary (i32.const 0) (i32.const 16) (i32.const 24))
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

/// Gives one room random events, some of which fail, and another those that do not; both must say
/// the same, at each step.
#[track_caller]
fn same_as_without_bad_events(
    module: &Module,
    random: &mut Random,
    mut payload: impl FnMut(&mut Random) -> Payload,
) -> u64 {
    let (mut room, mut twin) = (open(module), open(module));
    let mut now = NOW;
    for step in 0..150 {
        now = Instant::from_millis(now.as_millis() + random.below(40) as u64);
        let payload = payload(random);
        let event = match &payload {
            Payload::Text(text) => Event::message(CLIENT, text.as_str()),
            Payload::Bytes(bytes) => Event::message(CLIENT, bytes.as_slice()),
        };
        let mut said = Vec::new();
        let faults = room.stats().faults;
        // The timer first, since it may be due before the event.
        room.handle_timeout(now);
        said.extend(outputs(&mut room, now));
        assert_eq!(room.stats().faults, faults, "the timer does not fail here");
        said.extend(give(&mut room, now, event));
        let has_failed = room.stats().faults > faults;

        twin.handle_timeout(now);
        let mut expected = outputs(&mut twin, now);
        if !has_failed {
            expected.extend(give(&mut twin, now, event));
        }
        assert_eq!(said, expected, "step {step}");
        assert_eq!(room.poll_timeout(), twin.poll_timeout(), "step {step}");
        assert_eq!(
            room.stats().memory_bytes,
            twin.stats().memory_bytes,
            "step {step}"
        );
    }
    assert_eq!(twin.stats().faults, 0);
    room.stats().faults
}

enum Payload {
    Text(String),
    Bytes(Vec<u8>),
}

#[test]
fn the_room_goes_on_as_if_the_bad_event_had_not_been() {
    let mut random = Random::new();
    // Slices of all sizes, and copies of the state now and then; the log is the rest.
    for slice in [300, 5000, 1_000_000] {
        let module = load_wat(&ledger(), &limits(|limits| limits.fuel_per_slice = slice));
        let faults =
            same_as_without_bad_events(&module, &mut random, |random| match random.below(4) {
                0 => Payload::Bytes(random.bytes(2)),
                _ => Payload::Text(char::from(random.below(128) as u8).to_string()),
            });
        assert!(
            (20..60).contains(&faults),
            "a quarter of the events is bad: {faults}"
        );
    }
}

#[test]
fn rooms_made_with_the_sdks_do_too() {
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
            std::fs::read(format!("examples/rooms/wasm/{name}.wasm")).expect("it is bundled");
        // What a long message takes is more than an event may use, at a point of its own each time.
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
fn nothing_of_a_bad_event_is_sent_however_it_is_sliced() {
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
        assert_eq!(room.peek_output(), None, "and is not over");
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
fn to_run_events_again_takes_slices_as_well() {
    // Each text costs much, but less than what a copy of the memory is worth.
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
        // A slice may be passed by what one import copies.
        assert!(
            room.fuel_used() - before <= 2100,
            "{}",
            room.fuel_used() - before
        );
        slices += 1;
    }
    assert!(
        slices > 10,
        "ten events of several slices each are run again in {slices}"
    );
    assert!(outputs(&mut room, NOW).is_empty());
    room.handle_event(NOW, Event::message(CLIENT, "count"))
        .unwrap();
    assert_eq!(numbers(&mut room, NOW), [11_000]);
}

#[test]
fn an_event_that_comes_at_once_waits_until_all_was_run_again() {
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
    give(&mut room, NOW, Event::message(CLIENT, "one"));
    room.handle_event(NOW, Event::message(CLIENT, b"bad"))
        .unwrap();
    room.handle_event(NOW, Event::message(CLIENT, "two"))
        .unwrap();
    assert_eq!(numbers(&mut room, NOW), [2]);
}

#[test]
fn a_timer_of_what_is_run_again_does_not_fire_meanwhile() {
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
    give(&mut room, NOW, Event::message(CLIENT, "cancel"));
    let later = Instant::from_millis(10);
    room.handle_event(later, Event::message(CLIENT, b"bad"))
        .unwrap();
    assert_eq!(room.poll_timeout(), None, "the text is to be run again yet");
    room.handle_timeout(later);
    assert!(outputs(&mut room, later).is_empty());
    assert_eq!((room.poll_timeout(), room.stats().faults), (None, 1));
}

/// The fuel of one such text, and of undoing an event after so many of them.
fn cost_of_undoing(guest: &str, limits: &Limits, text: &str, texts: usize) -> (u64, u64) {
    let text_guest = guest_0_2("", &[("message", guest), ("binary", "(unreachable)")], "");
    let mut room = open(&load_wat(&text_guest, limits));
    let mut cost = |event| {
        let before = room.fuel_used();
        give(&mut room, NOW, event);
        room.fuel_used() - before
    };
    // The first also makes the buffer.
    cost(Event::message(CLIENT, text));
    let one = cost(Event::message(CLIENT, text));
    for _ in 2..texts {
        assert_eq!(cost(Event::message(CLIENT, text)), one);
    }
    (one, cost(Event::message(CLIENT, b"")))
}

#[test]
fn what_is_run_again_is_bounded() {
    let memory = 65_536;
    let count = "(loop $again
        (local.set 0 (i32.add (local.get 0) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get 0) (i32.const 2000))))";
    let (one, undoing) = cost_of_undoing(count, &Limits::default(), "", 100);
    assert!(
        undoing <= memory + one,
        "fuel ends it: {undoing}, of {one} each"
    );

    let long = "x".repeat(30_000);
    let (one, undoing) = cost_of_undoing("", &Limits::default(), &long, 300);
    assert!(
        undoing <= 3 * one,
        "bytes that are kept end it: {undoing}, of {one} each"
    );

    let (one, undoing) = cost_of_undoing("", &Limits::default(), "", 10_000);
    assert!(
        undoing <= 1025 * one,
        "so does their number: {undoing}, of {one} each"
    );
}

#[test]
fn slices_of_nothing_are_slow_but_come_to_an_end() {
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
fn the_inbox_takes_no_more_while_an_event_is_undone() {
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
        give(&mut room, NOW, Event::message(CLIENT, "first"));
        room.handle_event(NOW, Event::message(CLIENT, b"bad"))
            .unwrap();
        room.resume(NOW);
        assert!(room.has_work(NOW), "the first is run again, and paused");
        for _ in 0..waiting {
            room.handle_event(NOW, Event::message(CLIENT, message))
                .unwrap();
        }
        let one_more = room.handle_event(NOW, Event::message(CLIENT, message));
        assert_eq!(one_more, Err(EventError::InboxFull), "{waiting} wait");
        outputs(&mut room, NOW);
        assert_eq!((room.stats().waiting_events, room.stats().faults), (0, 1));
    }
}

#[test]
fn events_that_come_meanwhile_wait() {
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
fn a_timer_that_fails_is_not_set_any_more_and_one_that_waits_still_is() {
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
    give(&mut room, NOW, Event::message(CLIENT, "set"));
    give(&mut room, NOW, Event::message(CLIENT, b"bad"));
    let deadline = Instant::from_millis(100);
    assert_eq!(
        room.poll_timeout(),
        Some(deadline),
        "what the bad event set is not"
    );
    room.handle_timeout(deadline);
    assert!(outputs(&mut room, deadline).is_empty());
    assert_eq!((room.poll_timeout(), room.stats().faults), (None, 2));
    assert!(!room.is_closed());
}

/// What a guest says to a text after three events were undone, and the last fault.
fn after_undoing(text: &str) -> (Vec<i32>, Option<Fault>) {
    let mut room = open(&load_wat(text, &Limits::default()));
    // What is saved after the first is what the second goes back to, and the third fails from.
    for _ in 0..3 {
        give(&mut room, NOW, Event::message(CLIENT, b"bad"));
    }
    room.handle_event(NOW, Event::message(CLIENT, "good"))
        .unwrap();
    (numbers(&mut room, NOW), room.last_fault().cloned())
}

#[test]
fn what_was_made_zero_is_zero_again() {
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
    assert_eq!(after_undoing(&text).0, [0, 2]);
}

#[test]
fn a_constructor_runs_once() {
    let text = speaker(
        &[
            ("message", "(call $say (global.get $runs))"),
            ("binary", "(unreachable)"),
        ],
        "(global $runs (mut i32) (i32.const 0))
        (func (export \"_initialize\")
            (global.set $runs (i32.add (global.get $runs) (i32.const 1))))",
    );
    assert_eq!(after_undoing(&text).0, [1]);
}

#[test]
fn pages_of_any_size_grow_again() {
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
    assert_eq!(after_undoing(&text).0, [5100]);
}

#[test]
fn that_memory_was_refused_is_not_forgotten() {
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
    assert_eq!(after_undoing(&text).1, Some(fault));
}

#[test]
fn a_guest_that_cannot_be_initialised_closes_its_room() {
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
fn a_client_whose_connect_was_undone_is_connected() {
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
fn closing_a_room_in_the_middle_of_an_event_sends_nothing_of_it() {
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
fn a_module_with_state_that_cannot_be_written_is_refused() {
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
        Module::load(&wasm, &Limits::default()).expect("without rollback it may be anything");
    }
}

#[test]
fn loading_for_it_changes_nothing_that_can_be_seen() {
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
    // Cut off anywhere (between two sections a part may still be a module).
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
fn a_module_must_be_loaded_for_it() {
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
