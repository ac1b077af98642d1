//! Hostile guests: each closes only its own room, with the right fault.

use crate::support::{
    ENV, connect, echo, guest_0_2, guest_0_4, limits, module, module_with, outputs, room,
    room_of_one, send,
};
use stateroom_wasmi_host::{
    Budget, ClientId, Event, EventError, Fault, FaultCause, Host, Instant, Limits, ManualClock,
    MessageRecipient, OwnedPayload, RecordingTransport, Room, RoomOptions, Trap, abi::DecodeError,
};

const CLIENT: ClientId = ClientId(1);

/// Little fuel, so that endless loops end soon.
fn little() -> Limits {
    limits(|limits| {
        limits.max_fuel_per_event = Some(200_000);
        limits.fuel_per_slice = 10_000;
        limits.max_memory_bytes = 1 << 20;
    })
}

fn out_of_fuel() -> FaultCause {
    FaultCause::OutOfFuel { limit: 200_000 }
}

/// Runs a hostile room between two well-behaved ones, and asserts that after a connect and two
/// messages it is closed with this fault and that the others are not affected.
#[track_caller]
fn fails(text: &str, during: &'static str, cause: FaultCause) {
    let mut host = Host::new(ManualClock::new(), RecordingTransport::new());
    let good = module(&echo());
    let first = host.open("first", &good).unwrap();
    let bad = host.open("bad", &module_with(text, &little())).unwrap();
    let last = host.open("last", &good).unwrap();
    for event in [
        Event::Connect(CLIENT),
        Event::message(CLIENT, "go"),
        Event::message(CLIENT, "again"),
    ] {
        for room in [first, bad, last] {
            // The hostile room may be closed by now.
            let result = host.enqueue(room, event);
            assert!(
                result.is_ok() || (room == bad && result == Err(EventError::Closed)),
                "{result:?}"
            );
        }
        host.poll(Budget::UNLIMITED);
    }
    let mut expected = Vec::new();
    for text in ["go", "again"] {
        expected.extend([first, last].map(|room| (room, OwnedPayload::Text(text.into()))));
    }
    let sent = host.transport_mut().sent.drain(..);
    let sent: Vec<_> = sent
        .filter(|sent| sent.room != bad)
        .map(|sent| (sent.room, sent.payload))
        .collect();
    assert_eq!(sent, expected, "the other rooms are not affected");

    assert_eq!(
        host.enqueue(bad, Event::message(CLIENT, "late")),
        Err(EventError::Closed)
    );
    let closed = host.poll_closed().expect("the room is closed");
    assert_eq!(closed.key, bad);
    assert_eq!(closed.fault, Some(Fault { during, cause }), "{text}");
    assert_eq!(host.poll_closed(), None);
    assert_eq!(
        host.enqueue(bad, Event::message(CLIENT, "late")),
        Err(EventError::UnknownRoom)
    );
}

/// The same for a guest with this body of `message`.
#[track_caller]
fn message_fails(body: &str, cause: FaultCause) {
    let more = "(table $t 4 funcref) (type $none (func)) (type $one (func (param i32)))
        (func $f) (elem (i32.const 0) $f) (func $forever (call $forever))
        (func $call (param i32)) (func $spin (return_call $spin))
        (func $spin_indirect (return_call_indirect $t (type $none) (i32.const 2)))
        (elem (i32.const 2) $spin_indirect)";
    fails(
        &guest_0_2(ENV, &[("message", body)], more),
        "message",
        cause,
    );
}

fn trap(trap: Trap) -> FaultCause {
    FaultCause::Trap(trap)
}

#[test]
fn every_trap_has_its_own_variant() {
    for (body, expected) in [
        ("(unreachable)", Trap::Unreachable),
        (
            "(drop (i32.load (i32.const 65533)))",
            Trap::MemoryOutOfBounds,
        ),
        (
            "(i64.store offset=0xffffffff (i32.const -1) (i64.const 0))",
            Trap::MemoryOutOfBounds,
        ),
        (
            "(memory.fill (i32.const 65535) (i32.const 0) (i32.const 2))",
            Trap::MemoryOutOfBounds,
        ),
        (
            "(memory.copy (i32.const 0) (i32.const 65536) (i32.const 1))",
            Trap::MemoryOutOfBounds,
        ),
        (
            "(drop (table.get $t (i32.const 4)))",
            Trap::TableOutOfBounds,
        ),
        (
            "(call_indirect $t (type $none) (i32.const 4))",
            Trap::TableOutOfBounds,
        ),
        (
            "(call_indirect $t (type $none) (i32.const 1))",
            Trap::IndirectCallToNull,
        ),
        (
            "(call_indirect $t (type $one) (i32.const 7) (i32.const 0))",
            Trap::BadSignature,
        ),
        (
            "(drop (i32.div_s (local.get 2) (i32.const 0)))",
            Trap::DivisionByZero,
        ),
        (
            "(drop (i64.rem_u (i64.const 1) (i64.const 0)))",
            Trap::DivisionByZero,
        ),
        (
            "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
            Trap::IntegerOverflow,
        ),
        (
            "(drop (i32.trunc_f32_s (f32.const 1e30)))",
            Trap::IntegerOverflow,
        ),
        (
            "(drop (i32.trunc_f64_u (f64.const nan)))",
            Trap::BadConversion,
        ),
        ("(call $forever)", Trap::StackOverflow),
    ] {
        message_fails(body, trap(expected));
    }
}

#[test]
fn every_trap_has_its_own_text() {
    let traps = [
        Trap::Unreachable,
        Trap::UnreachableOutOfMemory,
        Trap::MemoryOutOfBounds,
        Trap::TableOutOfBounds,
        Trap::IndirectCallToNull,
        Trap::BadSignature,
        Trap::DivisionByZero,
        Trap::IntegerOverflow,
        Trap::BadConversion,
        Trap::StackOverflow,
        Trap::OutOfSystemMemory,
        Trap::Other,
    ];
    let mut texts: Vec<_> = traps.iter().map(Trap::to_string).collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), traps.len());
}

/// Pointers and lengths outside of 65,536 bytes, at each edge.
const OUTSIDE: [(u32, u32); 10] = [
    (0, 65_537),
    (1, 65_536),
    (65_535, 2),
    (65_536, 1),
    (65_537, 0),
    (u32::MAX, 0),
    (u32::MAX, 1),
    (0, u32::MAX),
    (u32::MAX, u32::MAX),
    // The sum wraps to 0.
    (0x8000_0000, 0x8000_0000),
];

#[test]
fn pointers_outside_memory_are_a_fault() {
    for (ptr, len) in OUTSIDE {
        for function in ["send_message", "send_binary"] {
            let body =
                format!("(call ${function} (i32.const 0) (i32.const {ptr}) (i32.const {len}))");
            message_fails(&body, FaultCause::BadPointer { function, ptr, len });
        }
        let recv = format!("(call $send (i32.const {ptr}) (i32.const {len}))");
        let cause = FaultCause::BadPointer {
            function: "stateroom_send",
            ptr,
            len,
        };
        fails(&guest_0_4(&recv, ""), "stateroom_recv", cause);
    }
    let fault = Fault {
        during: "message",
        cause: FaultCause::BadPointer {
            function: "send_message",
            ptr: 65_536,
            len: 1,
        },
    };
    assert_eq!(
        fault.to_string(),
        "the guest failed in `message`: 1 bytes at 0x10000, given to `send_message`, are not within its memory"
    );
}

#[test]
fn text_that_is_not_utf_8_is_a_fault() {
    for wrong in [
        r"\ff",
        r"\c3",
        r"ab\80",
        r"\ed\a0\80",
        r"\c0\80",
        r"\f4\90\80\80",
    ] {
        let store = format!("(data (i32.const 0) \"{wrong}\")");
        let len = wrong.matches('\\').count() + wrong.matches("ab").count() * 2;
        let body = format!("(call $send_message (i32.const 0) (i32.const 0) (i32.const {len}))");
        fails(
            &guest_0_2(ENV, &[("message", &body)], &store),
            "message",
            FaultCause::NotUtf8,
        );
    }
    let recv = "(call $send (i32.const 0) (i32.const 21))";
    // Message, Broadcast, Text, one byte, 0xff.
    let data = r#"(data (i32.const 8) "\01\00\00\00\01\00\00\00\00\00\00\00\ff")"#;
    fails(
        &guest_0_4(recv, data),
        "stateroom_recv",
        FaultCause::Undecodable(DecodeError::NotUtf8),
    );
}

#[test]
fn endless_loops_run_out_of_fuel() {
    for body in [
        "(loop (br 0))",
        "(loop (call $call (i32.const 1)) (br 0))",
        "(loop (call $set_timer (i32.const 1)) (br 0))",
        "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br 0))",
        "(loop (memory.copy (i32.const 0) (i32.const 1) (i32.const 65535)) (br 0))",
        "(loop (drop (memory.grow (i32.const 1))) (br 0))",
        "(loop (drop (table.grow $t (ref.null func) (i32.const 1))) (br 0))",
        "(loop (table.fill $t (i32.const 0) (ref.null func) (i32.const 4)) (br 0))",
        "(loop (call_indirect $t (type $none) (i32.const 0)) (br 0))",
        "(loop (return_call $spin))",
        "(loop (return_call_indirect $t (type $none) (i32.const 2)))",
    ] {
        message_fails(body, out_of_fuel());
    }
}

#[cfg(feature = "wasi")]
#[test]
fn endless_wasi_calls_run_out_of_fuel() {
    for (name, params, arguments) in [
        (
            "fd_write",
            "i32 i32 i32 i32",
            "(i32.const 1) (i32.const 0) (i32.const 1024) (i32.const 8192)",
        ),
        ("random_get", "i32 i32", "(i32.const 0) (i32.const 65536)"),
        ("random_get", "i32 i32", "(i32.const 0) (i32.const 0)"),
        ("random_get", "i32 i32", "(i32.const -1) (i32.const -1)"),
        (
            "clock_time_get",
            "i32 i64 i32",
            "(i32.const 0) (i64.const 0) (i32.const 0)",
        ),
        (
            "environ_sizes_get",
            "i32 i32",
            "(i32.const 0) (i32.const 0)",
        ),
        ("fd_fdstat_get", "i32 i32", "(i32.const 1) (i32.const 0)"),
        (
            "fd_read",
            "i32 i32 i32 i32",
            "(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)",
        ),
        ("sched_yield", "", ""),
    ] {
        let import = format!(
            r#"(import "wasi_snapshot_preview1" "{name}" (func $f (param {params}) (result i32)))"#
        );
        let body = format!("(loop (drop (call $f {arguments})) (br 0))");
        fails(
            &guest_0_2(&import, &[("message", &body)], ""),
            "message",
            out_of_fuel(),
        );
    }
}

#[test]
fn long_loops_use_no_host_stack() {
    // The interpreter dispatches instructions by tail calls; in a profile that does not compile
    // them to jumps, this overflows the thread's stack.
    let limits = limits(|limits| {
        limits.max_fuel_per_event = Some(1_000_000);
        limits.fuel_per_slice = u64::MAX;
    });
    let more = r#"(table $t 4 funcref) (type $none (func)) (func $f) (elem (i32.const 0) $f)
        (func $call (param i32)) (global $g (mut i64) (i64.const 0))"#;
    for body in [
        "(br 0)",
        "(call $call (i32.const 1)) (br 0)",
        "(call_indirect $t (type $none) (i32.const 0)) (br 0)",
        "(call $set_timer (i32.const 1)) (br 0)",
        "(memory.fill (i32.const 0) (i32.const 1) (i32.const 1)) (br 0)",
        "(memory.copy (i32.const 0) (i32.const 1) (i32.const 1)) (br 0)",
        "(drop (memory.grow (i32.const 0))) (br 0)",
        "(drop (table.grow $t (ref.null func) (i32.const 0))) (br 0)",
        "(table.fill $t (i32.const 1) (ref.null func) (i32.const 1)) (br 0)",
        "(table.set $t (i32.const 2) (table.get $t (i32.const 1))) (br 0)",
        "(i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1))) (br 0)",
        "(global.set $g (i64.mul (global.get $g) (i64.const 3))) (br 0)",
        "(drop (f64.sqrt (f64.convert_i32_s (local.get 0)))) (br 0)",
        "(drop (i32.div_u (i32.const 7) (local.get 0))) (br_if 0 (local.get 0))",
    ] {
        let text = guest_0_2(ENV, &[("message", &format!("(loop {body})"))], more);
        let mut room = room(&module_with(&text, &limits));
        connect(&mut room, 1);
        send(&mut room, "go");
        let cause = FaultCause::OutOfFuel { limit: 1_000_000 };
        assert_eq!(
            room.fault(),
            Some(&Fault {
                during: "message",
                cause
            }),
            "{body}"
        );
    }
}

#[test]
fn a_flood_of_messages_is_a_fault() {
    let flood = |len: u32| {
        format!("(loop (call $send_binary (i32.const 0) (i32.const 0) (i32.const {len})) (br 0))")
    };
    let limits = limits(|limits| limits.max_outbox_bytes = 100_000);
    for (len, sent, cause) in [
        (0, 4096, FaultCause::TooManyMessages { limit: 4096 }),
        (60_000, 1, FaultCause::TooManyBytes { limit: 100_000 }),
    ] {
        let text = guest_0_2(ENV, &[("message", &flood(len))], "");
        let mut room = room(&module_with(&text, &limits));
        connect(&mut room, 1);
        send(&mut room, "go");
        assert_eq!(outputs(&mut room, Instant::ZERO).len(), sent);
        assert_eq!(
            room.fault(),
            Some(&Fault {
                during: "message",
                cause
            })
        );
    }
}

#[test]
fn a_memory_bomb_stops_at_its_limit() {
    let bomb = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)";
    message_fails(bomb, trap(Trap::UnreachableOutOfMemory));
}

#[cfg(feature = "wasi")]
#[test]
fn a_guest_that_exits_is_closed() {
    let import = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
    for export in ["initialize", "connect", "message"] {
        let text = guest_0_2(import, &[(export, "(call $exit (i32.const 3))")], "");
        fails(&text, export, FaultCause::Exit { code: 3 });
    }
}

#[test]
fn an_allocator_that_fails_is_a_fault() {
    // The first payload is the id `bad`.
    for (malloc, cause) in [
        (
            "(i32.const 65534)",
            FaultCause::BadAllocation {
                ptr: 65_534,
                len: 3,
            },
        ),
        (
            "(i32.const 65536)",
            FaultCause::BadAllocation {
                ptr: 65_536,
                len: 3,
            },
        ),
        (
            "(i32.const -1)",
            FaultCause::BadAllocation {
                ptr: u32::MAX,
                len: 3,
            },
        ),
        (
            "(i32.const -3)",
            FaultCause::BadAllocation {
                ptr: u32::MAX - 2,
                len: 3,
            },
        ),
        ("(unreachable)", trap(Trap::Unreachable)),
        ("(loop (br 0)) (unreachable)", out_of_fuel()),
        ("(call $forever) (unreachable)", trap(Trap::StackOverflow)),
        (
            "(call $send_binary (i32.const 0) (i32.const -1) (i32.const 1)) (i32.const 4096)",
            FaultCause::BadPointer {
                function: "send_binary",
                ptr: u32::MAX,
                len: 1,
            },
        ),
        (
            "(loop (call $send_binary (i32.const 0) (i32.const 0) (i32.const 0)) (br 0)) (unreachable)",
            FaultCause::TooManyMessages { limit: 4096 },
        ),
    ] {
        let text = guest_0_2(
            ENV,
            &[("jam_malloc", malloc)],
            "(func $forever (call $forever))",
        );
        fails(&text, "jam_malloc", cause);
    }
    assert_eq!(
        FaultCause::BadAllocation {
            ptr: 65_536,
            len: 3
        }
        .to_string(),
        "its allocator returned 0x10000 for 3 bytes"
    );
}

#[test]
fn an_allocator_of_abi_0_4_that_fails_is_a_fault() {
    // The first payload is the id, `bad`.
    for (malloc, cause) in [
        (
            "(i32.const 65534)",
            FaultCause::BadAllocation {
                ptr: 65_534,
                len: 3,
            },
        ),
        (
            "(i32.const -1)",
            FaultCause::BadAllocation {
                ptr: u32::MAX,
                len: 3,
            },
        ),
        (
            "(i32.const -3)",
            FaultCause::BadAllocation {
                ptr: u32::MAX - 2,
                len: 3,
            },
        ),
        // The second is the tag of `Init`.
        (
            "(if (result i32) (i32.eq (local.get 0) (i32.const 4))
                (then (i32.const 65533)) (else (i32.const 4096)))",
            FaultCause::BadAllocation {
                ptr: 65_533,
                len: 4,
            },
        ),
        ("(unreachable)", trap(Trap::Unreachable)),
        ("(loop (br 0)) (unreachable)", out_of_fuel()),
    ] {
        let text = guest_0_4("", "").replace("(i32.const 4096)", malloc);
        fails(&text, "stateroom_malloc", cause);
    }
    for (free, cause) in [
        ("(unreachable)", trap(Trap::Unreachable)),
        ("(loop (br 0))", out_of_fuel()),
    ] {
        let export = "(func (export \"stateroom_free\") (param i32 i32)";
        let text = guest_0_4("", "").replace(export, &format!("{export} {free}"));
        fails(&text, "stateroom_free", cause);
    }
}

#[test]
fn an_allocator_may_return_the_last_bytes_of_memory() {
    // The id is `test`.
    for (malloc, is_within) in [("(i32.const 65532)", true), ("(i32.const 65533)", false)] {
        let text = guest_0_2(ENV, &[("jam_malloc", malloc)], "");
        assert_eq!(
            room(&module(&text)).fault().is_none(),
            is_within,
            "{malloc}"
        );
    }
}

#[test]
fn an_allocator_may_grow_memory_and_return_the_new_page() {
    // 65,536 is the address of the second page, which does not exist before.
    let malloc = "(drop (memory.grow (i32.const 1))) (i32.const 65536)";
    let mut room = room(&module(&echo().replace("(i32.const 4096)", malloc)));
    connect(&mut room, 1);
    send(&mut room, "hi");
    assert_eq!(
        outputs(&mut room, Instant::ZERO),
        [(MessageRecipient::Client(CLIENT), "hi".to_owned())]
    );
}

#[test]
fn an_allocator_may_send_and_set_the_timer_for_each_payload() {
    let malloc =
        "(call $set_timer (i32.const 9)) (call $send_binary (i32.const 0) (i32.const 0) (i32.const 1))
        (i32.const 4096)";
    let mut room = room(&module(&guest_0_2(ENV, &[("jam_malloc", malloc)], "")));
    connect(&mut room, 1);
    send(&mut room, "hi");
    // One for the id, one for the message; a connect has no payload.
    let one = (MessageRecipient::Broadcast, "0x00".to_owned());
    assert_eq!(outputs(&mut room, Instant::ZERO), [one.clone(), one]);
    assert_eq!(room.poll_timeout(), Some(Instant::from_millis(9)));
}

#[test]
fn a_null_allocator_gets_a_buffer_in_grown_memory() {
    let text = echo().replace("(i32.const 4096)", "(i32.const 0)");
    // The address of the payload is sent, too.
    let at = "(i32.store (i32.const 0) (local.get 1))
        (call $send_binary (i32.const 0) (i32.const 0) (i32.const 4))
        (call $send_message (local.get 0)";
    let text = text.replace("(call $send_message (local.get 0)", at);
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    for len in [1, 10, 100_000, 10] {
        let message = "x".repeat(len);
        send(&mut room, message.as_str());
        let sent = outputs(&mut room, Instant::ZERO);
        assert_eq!(room.fault(), None);
        assert_eq!(sent[1], (MessageRecipient::Client(CLIENT), message));
        assert_ne!(sent[0].1, "0x00000000", "address zero belongs to the guest");
    }
}

#[test]
fn an_empty_memory_grows_by_pages_of_any_size() {
    let echo = "(call $send_message (local.get 0) (local.get 1) (local.get 2))";
    for memory in ["0", "0 (pagesize 1)", "1 (pagesize 1)", "3 (pagesize 1)"] {
        let text = guest_0_2(
            ENV,
            &[("message", echo), ("jam_malloc", "(i32.const 0)")],
            "",
        )
        .replace("\"memory\") 1", &format!("\"memory\") {memory}"));
        let mut room = room_of_one(&text, &Limits::new());
        for message in ["short", "", "a message that is longer than those before it"] {
            send(&mut room, message);
            let sent = outputs(&mut room, Instant::ZERO);
            assert_eq!(sent.len(), 1, "{memory}: {:?}", room.fault());
            assert_eq!(sent[0].1, message);
        }
    }
    // And when it cannot grow.
    for memory in ["0 0", "0 0 (pagesize 1)", "0 3 (pagesize 1)"] {
        let text = guest_0_2(
            ENV,
            &[("message", echo), ("jam_malloc", "(i32.const 0)")],
            "",
        )
        .replace("\"memory\") 1", &format!("\"memory\") {memory}"));
        let mut room = room(&module(&text));
        outputs(&mut room, Instant::ZERO);
        assert!(room.fault().is_some(), "{memory}");
    }
}

#[test]
fn a_room_tells_that_its_allocator_returned_null() {
    for (text, is_null) in [
        (echo(), false),
        (echo().replace("(i32.const 4096)", "(i32.const 0)"), true),
    ] {
        let mut room = Room::new(&module(&text), "", RoomOptions::default()).unwrap();
        connect(&mut room, 1);
        send(&mut room, "");
        assert!(!room.has_null_allocator(), "null is a pointer to nothing");
        send(&mut room, "hello");
        outputs(&mut room, Instant::ZERO);
        assert_eq!(room.has_null_allocator(), is_null);
    }
}

#[test]
fn a_null_allocator_faults_when_memory_cannot_grow() {
    let text = guest_0_2("", &[("jam_malloc", "(i32.const 0)")], "");
    let limits = limits(|limits| limits.max_memory_bytes = 65_536);
    let room = room(&module_with(&text, &limits));
    // The id is `test`.
    let cause = FaultCause::BadAllocation { ptr: 0, len: 4 };
    assert_eq!(
        room.fault(),
        Some(&Fault {
            during: "jam_malloc",
            cause
        })
    );
}

#[test]
fn an_allocator_that_fails_on_a_later_call_is_a_fault() {
    let malloc =
        "(if (i32.gt_u (local.get 0) (i32.const 4)) (then (unreachable))) (i32.const 4096)";
    let text = guest_0_2("", &[("jam_malloc", malloc)], "");
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    send(&mut room, "four");
    assert_eq!(room.fault(), None);
    send(&mut room, "five!");
    let cause = trap(Trap::Unreachable);
    assert_eq!(
        room.fault(),
        Some(&Fault {
            during: "jam_malloc",
            cause
        })
    );
}

#[test]
fn a_free_that_fails_is_a_fault() {
    for (free, cause) in [
        ("(unreachable)", trap(Trap::Unreachable)),
        ("(loop (br 0))", out_of_fuel()),
        (
            "(call $send_message (i32.const 0) (i32.const -1) (i32.const 1))",
            FaultCause::BadPointer {
                function: "send_message",
                ptr: u32::MAX,
                len: 1,
            },
        ),
    ] {
        // The id has four bytes.
        let free = format!("(if (i32.gt_u (local.get 1) (i32.const 4)) (then {free}))");
        let text = echo().replace(
            r#"(func (export "jam_free") (param i32 i32)"#,
            &format!(r#"(func (export "jam_free") (param i32 i32) {free}"#),
        );
        let mut room = room(&module_with(&text, &little()));
        connect(&mut room, 1);
        send(&mut room, "longer");
        let sent = outputs(&mut room, Instant::ZERO);
        assert_eq!(
            sent,
            [(MessageRecipient::Client(CLIENT), "longer".to_owned())],
            "the message was handled before"
        );
        assert_eq!(
            room.fault(),
            Some(&Fault {
                during: "jam_free",
                cause
            })
        );
    }
}

#[test]
fn an_allocator_that_returns_used_memory_harms_only_its_own_guest() {
    // The buffer overlaps the text that the guest sends, so it sends the message that it received.
    let body = "(call $send_message (i32.const 0) (i32.const 4096) (i32.const 3))";
    let text = guest_0_2(
        ENV,
        &[("message", body)],
        r#"(data (i32.const 4096) "abc")"#,
    );
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    send(&mut room, "xyz");
    assert_eq!(
        outputs(&mut room, Instant::ZERO),
        [(MessageRecipient::Broadcast, "xyz".to_owned())]
    );
}

#[test]
fn a_fault_in_initialization_opens_a_closed_room() {
    let unreachable = "(unreachable)";
    fails(
        &guest_0_2("", &[("initialize", unreachable)], ""),
        "initialize",
        trap(Trap::Unreachable),
    );
    let reactor = r#"(func (export "_initialize") (unreachable))"#;
    fails(
        &guest_0_2("", &[], reactor),
        "_initialize",
        trap(Trap::Unreachable),
    );
    let reactor = r#"(func (export "_initialize") (loop (br 0)))"#;
    fails(&guest_0_2("", &[], reactor), "_initialize", out_of_fuel());
    let recv = "(unreachable)";
    fails(
        &guest_0_4(recv, ""),
        "stateroom_recv",
        trap(Trap::Unreachable),
    );
}

#[test]
fn faults_in_connect_disconnect_and_timer_are_reported() {
    fails(
        &guest_0_2("", &[("connect", "(unreachable)")], ""),
        "connect",
        trap(Trap::Unreachable),
    );
    let mut bad = room(&module(&guest_0_2(
        "",
        &[("disconnect", "(unreachable)")],
        "",
    )));
    connect(&mut bad, 1);
    bad.handle_event(Instant::ZERO, Event::Disconnect(CLIENT))
        .unwrap();
    assert_eq!(
        bad.fault(),
        Some(&Fault {
            during: "disconnect",
            cause: trap(Trap::Unreachable)
        })
    );

    let text = guest_0_2(
        ENV,
        &[
            ("connect", "(call $set_timer (i32.const 1))"),
            ("timer", "(unreachable)"),
        ],
        "",
    );
    let mut bad = room(&module(&text));
    connect(&mut bad, 1);
    bad.handle_timeout(Instant::from_millis(1));
    assert_eq!(
        bad.fault(),
        Some(&Fault {
            during: "timer",
            cause: trap(Trap::Unreachable)
        })
    );
    assert_eq!(bad.poll_timeout(), None);
}

/// A room of a guest with this start function.
fn start(body: &str) -> Room {
    let text = guest_0_2(
        ENV,
        &[],
        &format!("(func $f (call $f)) (func $start {body}) (start $start)"),
    );
    room(&module_with(&text, &little()))
}

#[test]
fn a_start_function_that_fails_closes_the_room() {
    for (body, cause) in [
        ("(unreachable)", trap(Trap::Unreachable)),
        ("(loop (br 0))", out_of_fuel()),
        ("(call $f)", trap(Trap::StackOverflow)),
        (
            "(loop (call $set_timer (i32.const 1)) (br 0))",
            out_of_fuel(),
        ),
        (
            "(call $send_binary (i32.const 0) (i32.const -1) (i32.const 1))",
            FaultCause::BadPointer {
                function: "send_binary",
                ptr: u32::MAX,
                len: 1,
            },
        ),
    ] {
        let mut room = start(body);
        while room.has_work(Instant::ZERO) {
            room.resume(Instant::ZERO);
        }
        let during = "start";
        assert_eq!(room.fault(), Some(&Fault { during, cause }), "{body}");
    }
    assert_eq!(start("").fault(), None);
}

#[test]
fn a_room_whose_start_function_fails_gives_its_id_back() {
    let text = guest_0_2("", &[], "(func $start (unreachable)) (start $start)");
    let mut host = Host::new(ManualClock::new(), RecordingTransport::new());
    let key = host.open("room", &module(&text)).expect("its id is free");
    host.poll(Budget::UNLIMITED);
    let closed = host.poll_closed().expect("its guest failed");
    assert_eq!(closed.key, key);
    assert_eq!(closed.fault.expect("it failed").during, "start");
    assert_eq!(host.rooms().len(), 0);
    assert_eq!(host.find("room"), None);
    host.open("room", &module(&echo())).expect("the id is free");
}

#[test]
fn outputs_sent_before_a_fault_are_delivered() {
    let body = "(call $send_binary (i32.const 0) (i32.const 0) (i32.const 1))
        (call $send_message (i32.const 1) (i32.const 0) (i32.const 0)) (unreachable)";
    let mut room = room(&module(&guest_0_2(ENV, &[("message", body)], "")));
    connect(&mut room, 1);
    send(&mut room, "go");
    assert!(room.is_closed());
    let expected = [
        (MessageRecipient::Broadcast, "0x00".to_owned()),
        (MessageRecipient::Client(CLIENT), String::new()),
    ];
    assert_eq!(outputs(&mut room, Instant::ZERO), expected);
    assert_eq!(room.stats().messages_out, 2);
}

#[test]
fn a_closed_room_rejects_events_and_sends_nothing() {
    let mut room = room(&module(&guest_0_2("", &[("message", "(unreachable)")], "")));
    connect(&mut room, 1);
    send(&mut room, "go");
    let fault = room.fault().cloned();
    assert!(fault.is_some());
    for event in [
        Event::Connect(ClientId(2)),
        Event::Disconnect(CLIENT),
        Event::message(CLIENT, "hi"),
    ] {
        assert_eq!(
            room.handle_event(Instant::ZERO, event),
            Err(EventError::Closed)
        );
    }
    assert_eq!(EventError::Closed.to_string(), "the room is closed");
    room.handle_timeout(Instant::MAX);
    room.resume(Instant::MAX);
    room.close();
    assert!(!room.has_work(Instant::MAX));
    assert_eq!(room.poll_timeout(), None);
    assert_eq!(room.poll_output(), None);
    assert_eq!(room.fault(), fault.as_ref());
    assert_eq!(
        room.clients(),
        [CLIENT],
        "so that the driver can close their connections"
    );
    assert!(room.fuel_used() > 0, "its stats are kept");
}

#[test]
fn a_room_closed_by_its_driver_has_no_fault() {
    let mut room = room(&module(&echo()));
    connect(&mut room, 1);
    send(&mut room, "sent");
    send(&mut room, "queued, and dropped");
    room.close();
    assert!(room.is_closed());
    assert_eq!(room.fault(), None);
    assert_eq!(
        outputs(&mut room, Instant::ZERO),
        [(MessageRecipient::Client(CLIENT), "sent".to_owned())]
    );
    assert_eq!(
        room.handle_event(Instant::ZERO, Event::Disconnect(CLIENT)),
        Err(EventError::Closed)
    );
}

#[cfg(feature = "wasi")]
#[test]
fn reexported_host_functions_may_fault() {
    // The exports are host functions, called with the arguments of an export.
    let export = |text: String, name: &str, import: &str| {
        text.replace(
            &format!("(func (export \"{name}\")"),
            &format!("(export \"{name}\" (func ${import})) (func (export \"_{name}\")"),
        )
    };
    let wasi = |name: &str, result: &str| {
        format!(r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} (param i32) {result}))"#)
    };
    let text = guest_0_2(&wasi("proc_exit", ""), &[], "");
    fails(
        &export(text, "connect", "proc_exit"),
        "connect",
        FaultCause::Exit { code: 1 },
    );
    // `fd_sync` returns EBADF, which is 8: the address of the buffer.
    let text = export(
        guest_0_2(&wasi("fd_sync", "(result i32)"), &[], ""),
        "jam_malloc",
        "fd_sync",
    );
    assert_eq!(room(&module(&text)).fault(), None);
    // `stateroom_send` decodes `Init`, whose tag means Message there, and finds it truncated.
    let text = guest_0_4("", "").replace(
        "(func (export \"stateroom_recv\")",
        "(export \"stateroom_recv\" (func $send)) (func (export \"_recv\")",
    );
    fails(
        &text,
        "stateroom_recv",
        FaultCause::Undecodable(DecodeError::Truncated),
    );
}
