//! `FaultPolicy::Continue`: the guest goes on with the state that a failed event leaves.
//!
//! What is expected is what `WasmHost` of `stateroom-wasm-host` 0.2.9 does: it logs the error and
//! handles the next event. It frees a payload only after a handler that returned, and builds no room
//! whose guest fails in `initialize`.

use crate::support::{
    ENV, Said, assemble, connect, guest_0_2, guest_0_4, limits, module, module_with, numbers,
    outputs, send, speaker,
};
use stateroom_wasmi_host::{
    Budget, ClientId, Event, EventError, Fault, FaultCause, FaultPolicy, Host, Instant, Limits,
    LoadOptions, ManualClock, MessageRecipient, Module, PayloadBuffer, RecordingTransport, Room,
    RoomOptions, Trap,
};
use std::time::Duration;

const NOW: Instant = Instant::ZERO;
const UNREACHABLE: FaultCause = FaultCause::Trap(Trap::Unreachable);

fn open(module: &Module) -> Room {
    let options = RoomOptions::new().on_fault(FaultPolicy::Continue);
    Room::new(module, "test", options).expect("the room opens")
}

/// A room of this guest with client 1, and all outputs taken.
fn open_text(text: &str) -> Room {
    let mut room = open(&module(text));
    outputs(&mut room, NOW);
    connect(&mut room, 1);
    outputs(&mut room, NOW);
    room
}

fn fault(during: &'static str, cause: FaultCause) -> Fault {
    Fault { during, cause }
}

fn to_1(text: &str) -> Said {
    (MessageRecipient::Client(ClientId(1)), text.to_owned())
}

const ECHO: &str = "(call $send_message (local.get 0) (local.get 1) (local.get 2))";

/// An echo that traps at each empty text, as rooms of the SDK 0.2 do, and at each disconnect.
fn traps_now_and_then() -> String {
    let message = format!("(if (i32.eqz (local.get 2)) (then (unreachable))) {ECHO}");
    guest_0_2(
        ENV,
        &[("message", &message), ("disconnect", "(unreachable)")],
        "",
    )
}

#[test]
fn events_after_a_trap_are_handled() {
    let mut room = open_text(&traps_now_and_then());
    for i in 0..20 {
        let text = format!("message {i}");
        send(&mut room, text.as_str());
        assert_eq!(outputs(&mut room, NOW), [to_1(&text)]);
        send(&mut room, "");
        assert_eq!(outputs(&mut room, NOW), []);
        assert_eq!(room.last_fault(), Some(&fault("message", UNREACHABLE)));
        room.handle_event(NOW, Event::Disconnect(ClientId(1)))
            .unwrap();
        assert_eq!(outputs(&mut room, NOW), []);
        assert_eq!(room.last_fault(), Some(&fault("disconnect", UNREACHABLE)));
        assert_eq!(room.clients(), [], "that a client left is not undone");
        connect(&mut room, 1);
        assert_eq!(room.stats().faults, 2 * (i + 1));
    }
    assert_eq!((room.fault(), room.is_closed()), (None, false));
}

#[test]
fn what_the_event_had_done_stays() {
    // A message sets the timer, counts, sends the count and traps; the timer does the same.
    let count = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (i32.store (i32.const 32) (global.get $count))
        (call $set_timer (i32.mul (global.get $count) (i32.const 10)))
        (call $say (i32.load (i32.const 32)))
        (unreachable)";
    let mut room = open_text(&speaker(
        &[("message", count), ("timer", count)],
        "(global $count (mut i32) (i32.const 0))",
    ));
    send(&mut room, "count");
    assert_eq!(numbers(&mut room, NOW), [1]);
    send(&mut room, "count");
    assert_eq!(numbers(&mut room, NOW), [2]);
    let mut deadline = NOW + Duration::from_millis(20);
    for n in 3..10 {
        assert_eq!(room.poll_timeout(), Some(deadline));
        room.handle_timeout(deadline);
        assert_eq!(numbers(&mut room, deadline), [n]);
        deadline = deadline + Duration::from_millis(10 * n as u64);
    }
    assert_eq!(room.stats().faults, 9);
}

#[test]
fn a_timer_that_fails_is_not_set_any_more() {
    let mut room = open_text(&guest_0_2(
        ENV,
        &[
            ("message", "(call $set_timer (i32.const 5))"),
            ("timer", "(unreachable)"),
        ],
        "",
    ));
    send(&mut room, "go");
    let at = Instant::from_millis(5);
    room.handle_timeout(at);
    assert_eq!(room.last_fault(), Some(&fault("timer", UNREACHABLE)));
    assert_eq!((room.poll_timeout(), room.has_work(at)), (None, false));
}

#[cfg(feature = "wasi")]
#[test]
fn every_kind_of_fault_is_survived() {
    let exit = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
    let out_of_bounds = FaultCause::BadPointer {
        function: "send_message",
        ptr: u32::MAX,
        len: 2,
    };
    for (body, cause) in [
        ("(unreachable)", UNREACHABLE),
        (
            "(drop (i32.load (i32.const -4)))",
            FaultCause::Trap(Trap::MemoryOutOfBounds),
        ),
        ("(call $forever)", FaultCause::Trap(Trap::StackOverflow)),
        ("(loop (br 0))", FaultCause::OutOfFuel { limit: 100_000 }),
        (
            "(call $send_message (i32.const 1) (i32.const -1) (i32.const 2))",
            out_of_bounds,
        ),
        ("(call $exit (i32.const 0))", FaultCause::Exit { code: 0 }),
        ("(call $exit (i32.const 7))", FaultCause::Exit { code: 7 }),
        (
            "(loop (call $send_message (i32.const 1) (i32.const 0) (i32.const 0)) (br 0))",
            FaultCause::TooManyMessages { limit: 3 },
        ),
    ] {
        let message = format!("(if (i32.eq (local.get 2) (i32.const 3)) (then {body})) {ECHO}");
        let text = guest_0_2(
            &(ENV.to_owned() + exit),
            &[("message", &message)],
            "(func $forever (call $forever))",
        );
        for slice in [50, 1_000, 100_000] {
            let limits = limits(|limits| {
                limits.max_fuel_per_event = Some(100_000);
                limits.fuel_per_slice = slice;
                limits.max_outbox_messages = 3;
            });
            let mut room = open(&module_with(&text, &limits));
            connect(&mut room, 1);
            for faults in 1..=3 {
                send(&mut room, "bad");
                let sent = outputs(&mut room, NOW);
                let is_flood = matches!(cause, FaultCause::TooManyMessages { .. });
                let expected = vec![to_1(""); if is_flood { 3 } else { 0 }];
                assert_eq!(sent, expected, "{body}");
                assert_eq!(room.last_fault(), Some(&fault("message", cause.clone())));
                assert_eq!(room.stats().faults, faults);
                send(&mut room, "good");
                assert_eq!(outputs(&mut room, NOW), [to_1("good")], "{body}");
            }
        }
    }
}

#[test]
fn slices_change_neither_outputs_nor_fuel() {
    // A text of n bytes works a while in each call; the n-th call of all fails.
    let call = |rest: &str| {
        format!(
            "(call $spin (i32.const 30)) (call $say (global.get $calls))
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (if (i32.eqz (i32.rem_u (global.get $calls) (i32.const 4))) (then (unreachable)))
            (if (i32.eqz (i32.rem_u (global.get $calls) (i32.const 9))) (then (loop (br 0)))) {rest}"
        )
    };
    let (malloc, body) = (call("(i32.const 4096)"), call(""));
    let text = speaker(
        &[
            ("jam_malloc", &malloc),
            ("jam_free", &body),
            ("message", &body),
            ("binary", &body),
        ],
        "(global $calls (mut i32) (i32.const 0))
        (func $spin (param i32) (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))",
    );
    for choice in [PayloadBuffer::PerEvent, PayloadBuffer::Keep] {
        let run = |slice: u64| {
            let limits = limits(|limits| {
                limits.max_fuel_per_event = Some(2_000);
                limits.fuel_per_slice = slice;
            });
            let options = LoadOptions::new().payload_buffer(choice);
            let mut room = open(&Module::load_with(&assemble(&text), &limits, options).unwrap());
            let mut said = numbers(&mut room, NOW);
            connect(&mut room, 1);
            for i in 0..40_usize {
                send(&mut room, &vec![1; i * 7 % 30][..]);
                said.extend(numbers(&mut room, NOW));
            }
            (said, room.fuel_used(), room.stats().faults)
        };
        let expected = run(u64::MAX);
        assert!(expected.2 > 5, "{expected:?}");
        for slice in (1..50).chain([100, 500, 1_999]) {
            assert_eq!(run(slice), expected, "{choice:?}, slices of {slice}");
        }
    }
}

/// Reports each length that is allocated, each pointer in a message, and minus each pointer that is
/// freed; `more` comes first in the function of that name.
fn reporter(more: (&str, &str)) -> String {
    let body = |name: &str, body: &str| match more {
        (function, more) if function == name => more.to_owned() + body,
        _ => body.to_owned(),
    };
    let malloc = body(
        "jam_malloc",
        "(call $say (local.get 0))
        (global.set $next (i32.add (global.get $next) (i32.const 4096)))
        (global.get $next)",
    );
    let free = body(
        "jam_free",
        "(call $say (i32.sub (i32.const 0) (local.get 0)))",
    );
    let message = body("message", "(call $say (local.get 1))");
    speaker(
        &[
            ("jam_malloc", &malloc),
            ("jam_free", &free),
            ("message", &message),
        ],
        "(global $next (mut i32) (i32.const 0))",
    )
}

/// The calls of three texts, the second of which has 13 bytes.
fn calls(text: &str, choice: PayloadBuffer) -> ([Vec<i32>; 3], Option<Fault>) {
    let options = LoadOptions::new().payload_buffer(choice);
    let module = Module::load_with(&assemble(text), &Limits::default(), options).unwrap();
    let mut room = open(&module);
    connect(&mut room, 1);
    numbers(&mut room, NOW);
    let calls = ["first", "unlucky text!", "third"].map(|text| {
        send(&mut room, text);
        numbers(&mut room, NOW)
    });
    assert_eq!(room.stats().faults, 1);
    (calls, room.last_fault().cloned())
}

#[test]
fn what_a_failed_event_allocated_is_not_freed() {
    let calls = |text: &str| calls(text, PayloadBuffer::PerEvent);
    let first = vec![5, 8192, -8192];
    let unlucky = |local: u32, what: &str| {
        format!("(if (i32.eq (local.get {local}) (i32.const 13)) (then {what}))")
    };

    // The handler fails: nobody frees its payload.
    let text = reporter(("message", &unlucky(2, "(unreachable)")));
    let (made, last) = calls(&text);
    assert_eq!(made, [first.clone(), vec![13], vec![5, 16_384, -16_384]]);
    assert_eq!(last, Some(fault("message", UNREACHABLE)));

    // The allocator fails: the handler is not called.
    let text = reporter(("jam_malloc", &unlucky(0, "(unreachable)")));
    let (made, last) = calls(&text);
    assert_eq!(made, [first.clone(), vec![], vec![5, 12_288, -12_288]]);
    assert_eq!(last, Some(fault("jam_malloc", UNREACHABLE)));

    // Its pointer is not within memory: nor is it freed.
    let text = reporter(("jam_malloc", &unlucky(0, "(return (i32.const -13))")));
    let (made, last) = calls(&text);
    assert_eq!(made, [first.clone(), vec![], vec![5, 12_288, -12_288]]);
    let cause = FaultCause::BadAllocation {
        ptr: u32::MAX - 12,
        len: 13,
    };
    assert_eq!(last, Some(fault("jam_malloc", cause)));

    // Freeing fails: the message was handled.
    let text = reporter(("jam_free", &unlucky(1, "(unreachable)")));
    let (made, last) = calls(&text);
    assert_eq!(made, [first, vec![13, 12_288], vec![5, 16_384, -16_384]]);
    assert_eq!(last, Some(fault("jam_free", UNREACHABLE)));
}

#[test]
fn a_kept_buffer_stays_if_its_allocator_did_not_fail() {
    let calls = |text: &str| calls(text, PayloadBuffer::Keep);
    let unlucky = |local: u32, what: &str| {
        format!("(if (i32.eq (local.get {local}) (i32.const 13)) (then {what}))")
    };
    let first = vec![-4096, 5, 8192];

    let text = reporter(("message", &unlucky(2, "(unreachable)")));
    let (made, _) = calls(&text);
    assert_eq!(made, [first.clone(), vec![-8192, 13], vec![12_288]]);

    // The buffer before is freed, and none takes its place.
    let text = reporter(("jam_malloc", &unlucky(0, "(unreachable)")));
    let (made, last) = calls(&text);
    assert_eq!(made, [first.clone(), vec![-8192], vec![5, 12_288]]);
    assert_eq!(last, Some(fault("jam_malloc", UNREACHABLE)));

    // One that could not be freed is not used again.
    let five = "(if (i32.eq (local.get 1) (i32.const 5)) (then (unreachable)))";
    let (made, last) = calls(&reporter(("jam_free", five)));
    assert_eq!(made, [first, vec![], vec![5, 12_288]]);
    assert_eq!(last, Some(fault("jam_free", UNREACHABLE)));
}

#[test]
fn pages_that_replace_a_null_allocator_are_not_lost() {
    let message = format!("(if (i32.eqz (local.get 2)) (then (unreachable))) {ECHO}");
    let message = message.replace(
        "(i32.eqz (local.get 2))",
        "(i32.eq (local.get 2) (i32.const 3))",
    );
    let text = guest_0_2(
        ENV,
        &[("jam_malloc", "(i32.const 0)"), ("message", &message)],
        "",
    );
    let mut room = open_text(&text);
    for _ in 0..50 {
        send(&mut room, "bad");
        send(&mut room, "good");
        assert_eq!(outputs(&mut room, NOW), [to_1("good")]);
    }
    assert_eq!(room.stats().faults, 50);
    assert_eq!(room.stats().memory_bytes, 2 * 65_536);
}

#[test]
fn a_guest_that_fails_while_it_is_initialised_closes_its_room() {
    let constructor = r#"(func (export "_initialize") (unreachable))"#;
    let versions = r#"(global (export "JAMSOCKET_API_VERSION") i32 (i32.const 32))"#;
    for (text, during) in [
        (
            guest_0_2("", &[("initialize", "(unreachable)")], ""),
            "initialize",
        ),
        (
            guest_0_2("", &[("jam_free", "(unreachable)")], ""),
            "jam_free",
        ),
        (
            guest_0_2("", &[("jam_malloc", "(unreachable)")], ""),
            "jam_malloc",
        ),
        (guest_0_2("", &[], constructor), "_initialize"),
        (guest_0_2("", &[], versions), "initialize"),
        (guest_0_4("(unreachable)", ""), "stateroom_recv"),
    ] {
        let mut room = open(&module(&text));
        assert_eq!(room.fault().map(|fault| fault.during), Some(during));
        assert!(room.is_closed());
        assert_eq!(
            room.handle_event(NOW, Event::Connect(ClientId(1))),
            Err(EventError::Closed)
        );
    }
}

#[test]
fn guests_of_abi_0_4_go_on_too() {
    // Each event says its tag; a disconnect traps before that.
    let say =
        r#"(data (i32.const 64) "\00\00\00\00\00\00\00\00\00\00\00\00\04\00\00\00\00\00\00\00")"#;
    let recv = "(if (i32.eq (i32.load (local.get 0)) (i32.const 2)) (then (unreachable)))
        (i32.store (i32.const 84) (i32.load (local.get 0)))
        (call $send (i32.const 64) (i32.const 24))";
    let mut room = open(&module(&guest_0_4(recv, say)));
    assert_eq!(numbers(&mut room, NOW), [0]);
    for faults in 1..=3 {
        connect(&mut room, 1);
        assert_eq!(numbers(&mut room, NOW), [1]);
        room.handle_event(NOW, Event::Disconnect(ClientId(1)))
            .unwrap();
        assert_eq!(numbers(&mut room, NOW), [0_i32; 0]);
        assert_eq!(room.stats().faults, faults);
        assert_eq!(
            room.last_fault(),
            Some(&fault("stateroom_recv", UNREACHABLE))
        );
    }
}

#[test]
fn a_room_of_a_host_goes_on_with_the_events_that_wait() {
    let host = Host::new(ManualClock::new(), RecordingTransport::new());
    let mut host = host.with_fault_policy(FaultPolicy::Continue);
    let limits = limits(|limits| limits.fuel_per_slice = 10);
    let room = host
        .open("room", &module_with(&traps_now_and_then(), &limits))
        .unwrap();
    host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
    for text in ["one", "", "two", "", "", "three"] {
        host.enqueue(room, Event::message(ClientId(1), text))
            .unwrap();
    }
    host.poll(Budget::UNLIMITED);
    let sent: Vec<_> = host.transport_mut().sent.drain(..).collect();
    let texts: Vec<_> = sent
        .iter()
        .map(|sent| format!("{:?}", sent.payload))
        .collect();
    assert_eq!(texts, ["Text(\"one\")", "Text(\"two\")", "Text(\"three\")"]);
    assert_eq!(host.poll_closed(), None);
    let stats = host.room(room).unwrap().stats();
    assert_eq!((stats.faults, stats.waiting_events), (3, 0));
}
