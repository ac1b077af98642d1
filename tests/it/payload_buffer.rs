//! How a payload gets into a guest: which calls of its allocator, in which order, with which
//! arguments, and whose buffer is kept between events.
//!
//! Each expected order of calls is that of the published hosts: `WasmHost::new`, `put_data`,
//! `try_message` and `try_recv` of `stateroom-wasm-host` 0.2.9 and 0.4.4.

use crate::{
    determinism::bundled,
    support::{
        ENV, SAY, assemble, connect, echo, guest_0_2, guest_0_4, hex, limits, module, numbers,
        outputs, room, send, speaker,
    },
};
use stateroom_wasmi_host::{
    ClientId, Event, Fault, FaultCause, Instant, Limits, LoadOptions, MessageRecipient, Module,
    PayloadBuffer, Room, RoomOptions,
};

const NOW: Instant = Instant::ZERO;

fn load(text: &str, payload_buffer: PayloadBuffer) -> Module {
    let options = LoadOptions::new().payload_buffer(payload_buffer);
    Module::load_with(&assemble(text), &Limits::default(), options).expect("the module loads")
}

fn open(module: &Module, id: &str) -> Room {
    Room::new(module, id, RoomOptions::new()).expect("the room opens")
}

/// The bodies of an allocator that hands out 4096, 8192 and so on, and reports each length, and for
/// each free minus the pointer and minus the length.
const MALLOC: &str = "(call $say (local.get 0))
    (global.set $next (i32.add (global.get $next) (i32.const 4096)))
    (global.get $next)";
const FREE: &str = "(call $say (i32.sub (i32.const 0) (local.get 0)))
    (call $say (i32.sub (i32.const 0) (local.get 1)))";
const NEXT: &str = "(global $next (mut i32) (i32.const 0))";

/// A guest with this allocator that reports the pointer of each payload, and other events as 1 to 3.
fn reporter() -> String {
    reporter_with(MALLOC)
}

fn reporter_with(malloc: &str) -> String {
    speaker(
        &[
            ("jam_malloc", malloc),
            ("jam_free", FREE),
            ("initialize", "(call $say (local.get 0))"),
            (
                "connect",
                "(call $say (i32.const 1)) (call $set_timer (i32.const 1))",
            ),
            ("disconnect", "(call $say (i32.const 2))"),
            ("timer", "(call $say (i32.const 3))"),
            ("message", "(call $say (local.get 1))"),
            ("binary", "(call $say (local.get 1))"),
        ],
        NEXT,
    )
}

/// The same for ABI 0.4.
fn reporter_0_4() -> String {
    // `Message`, `Broadcast`, `Bytes`, a length of 4, and then the number.
    let say = r#"(data (i32.const 64) "\00\00\00\00\00\00\00\00\00\00\00\00\04\00\00\00\00\00\00\00")
        (func $say (param i32)
            (i32.store (i32.const 84) (local.get 0))
            (call $send (i32.const 64) (i32.const 24)))"#;
    guest_0_4("(call $say (local.get 0))", &format!("{say} {NEXT}"))
        .replace("(i32.const 4096))\n", &format!("{MALLOC})\n"))
        .replace(
            r#"(export "stateroom_free") (param i32 i32)"#,
            &format!(r#"(export "stateroom_free") (param i32 i32) {FREE}"#),
        )
}

#[test]
fn each_payload_is_allocated_passed_and_freed() {
    let mut room = open(&module(&reporter()), "room");
    let calls = |room: &mut Room| numbers(room, NOW);
    assert_eq!(calls(&mut room), [4, 4096, -4096, -4], "initialize");
    connect(&mut room, 1);
    assert_eq!(calls(&mut room), [1], "a connect has no payload");
    send(&mut room, "ten bytes.");
    assert_eq!(calls(&mut room), [10, 8192, -8192, -10]);
    send(&mut room, &[0; 3]);
    assert_eq!(calls(&mut room), [3, 12_288, -12_288, -3]);
    send(&mut room, "");
    assert_eq!(calls(&mut room), [0, 16_384, -16_384, 0], "no bytes");
    room.handle_timeout(Instant::from_millis(1));
    assert_eq!(calls(&mut room), [3], "nor has the timer");
    room.handle_event(NOW, Event::Disconnect(ClientId(1)))
        .unwrap();
    assert_eq!(calls(&mut room), [2], "nor a disconnect");
}

#[test]
fn in_abi_0_4_each_event_is_allocated_passed_and_freed_after_the_id() {
    let mut room = open(&module(&reporter_0_4()), "lobby");
    let calls = |room: &mut Room| numbers(room, NOW);
    assert_eq!(
        calls(&mut room),
        [5, -4096, -5, 4, 8192, -8192, -4],
        "the id's five bytes are handled by nobody, then `Init`"
    );
    connect(&mut room, 1);
    assert_eq!(calls(&mut room), [8, 12_288, -12_288, -8]);
    send(&mut room, "abc");
    assert_eq!(calls(&mut room), [23, 16_384, -16_384, -23]);
    room.handle_event(NOW, Event::Disconnect(ClientId(1)))
        .unwrap();
    assert_eq!(calls(&mut room), [8, 20_480, -20_480, -8]);
}

#[test]
fn in_abi_0_4_the_id_is_in_memory_when_it_is_freed() {
    // The id is in the buffer at 4096, and there is nothing else when it is freed first.
    let header = r#"(data (i32.const 4076) "\00\00\00\00\00\00\00\00\00\00\00\00\05\00\00\00\00\00\00\00")
        (global $done (mut i32) (i32.const 0))"#;
    let text = guest_0_4("", header).replace(
        r#"(export "stateroom_free") (param i32 i32)"#,
        r#"(export "stateroom_free") (param i32 i32)
            (if (i32.eqz (global.get $done)) (then (call $send (i32.const 4076) (i32.const 25))))
            (global.set $done (i32.const 1))"#,
    );
    let mut room = open(&module(&text), "lobby");
    let sent = [(MessageRecipient::Broadcast, hex(b"lobby"))];
    assert_eq!(outputs(&mut room, NOW), sent);
}

#[test]
fn the_allocator_is_asked_for_zero_bytes_and_may_return_null() {
    let mut room = open(&module(&reporter()), "");
    assert_eq!(numbers(&mut room, NOW), [0, 4096, -4096, 0]);

    // Rust rooms return null for no bytes, and it is passed on and freed as any other pointer.
    let null = "(call $say (local.get 0)) (i32.const 0)";
    let mut room = open(&module(&reporter_with(null)), "");
    assert_eq!(numbers(&mut room, NOW), [0, 0, 0, 0]);
    connect(&mut room, 1);
    numbers(&mut room, NOW);
    send(&mut room, "");
    assert_eq!(numbers(&mut room, NOW), [0, 0, 0, 0]);
    assert_eq!(room.stats().memory_bytes, 65_536, "no page was added");
}

#[test]
fn zero_bytes_outside_of_memory_are_a_fault() {
    for (ptr, is_within) in [(65_536, true), (65_537, false)] {
        let malloc = format!("(i32.const {ptr})");
        let room = open(&module(&guest_0_2("", &[("jam_malloc", &malloc)], "")), "");
        let cause = FaultCause::BadAllocation { ptr, len: 0 };
        let fault = Fault {
            during: "jam_malloc",
            cause,
        };
        assert_eq!(room.fault(), Some(&fault).filter(|_| !is_within), "{ptr}");
    }
}

/// An echo whose memory is taken by moving a mark, which each free takes back; each message takes
/// another thousand bytes of it for the reply.
fn arena() -> String {
    let take = "(local $at i32)
        (local.set $at (global.get $mark))
        (global.set $mark (i32.add (global.get $mark) (local.get 0)))
        (if (i32.gt_u (global.get $mark) (i32.const 65536)) (then (unreachable)))
        (local.get $at)";
    let reply = "(local $reply i32)
        (local.set $reply (call $take (i32.const 1000)))
        (memory.copy (local.get $reply) (local.get 1) (local.get 2))
        (call $send_message (local.get 0) (local.get $reply) (local.get 2))";
    guest_0_2(
        ENV,
        &[
            ("jam_malloc", "(call $take (local.get 0))"),
            ("jam_free", "(global.set $mark (local.get 0))"),
            ("message", reply),
        ],
        &format!(
            "(global $mark (mut i32) (i32.const 1024))
            (func $take (param i32) (result i32) {take})"
        ),
    )
}

#[test]
fn an_arena_that_is_emptied_by_each_free_never_runs_full() {
    let mut room = room(&module(&arena()));
    connect(&mut room, 1);
    for i in 0..500 {
        let text = format!("message {i}");
        send(&mut room, text.as_str());
        let reply = (MessageRecipient::Client(ClientId(1)), text);
        assert_eq!(outputs(&mut room, NOW), [reply]);
    }
}

/// A guest that frees nothing and keeps each text where it was written, as one does whose garbage
/// collector takes back what it does not know. It replies with the text before.
fn collector() -> String {
    let malloc = "(local $at i32)
        (local.set $at (global.get $next))
        (global.set $next (i32.add (global.get $next) (local.get 0)))
        (local.get $at)";
    let reply = "(call $send_message (local.get 0) (global.get $before) (global.get $len))
        (global.set $before (local.get 1))
        (global.set $len (local.get 2))";
    guest_0_2(
        ENV,
        &[("jam_malloc", malloc), ("message", reply)],
        "(global $next (mut i32) (i32.const 4096))
        (global $before (mut i32) (i32.const 0))
        (global $len (mut i32) (i32.const 0))",
    )
}

#[test]
fn a_payload_that_the_guest_does_not_free_stays_where_it_is() {
    let mut room = room(&module(&collector()));
    connect(&mut room, 1);
    let mut before = String::new();
    for i in 0..50 {
        let text = format!("line {i}");
        send(&mut room, text.as_str());
        let reply = (MessageRecipient::Client(ClientId(1)), before);
        assert_eq!(outputs(&mut room, NOW), [reply]);
        before = text;
    }
}

#[test]
fn a_kept_buffer_grows_to_the_exact_length_of_a_message() {
    let mut room = open(&load(&reporter(), PayloadBuffer::Keep), "room");
    let calls = |room: &mut Room| numbers(room, NOW);
    assert_eq!(calls(&mut room), [4, 4096]);
    connect(&mut room, 1);
    assert_eq!(calls(&mut room), [1]);
    send(&mut room, "ten bytes.");
    assert_eq!(calls(&mut room), [-4096, -4, 10, 8192]);
    send(&mut room, "shorter");
    assert_eq!(calls(&mut room), [8192], "a shorter one fits");
    send(&mut room, "");
    assert_eq!(calls(&mut room), [8192], "so does an empty one");
    send(&mut room, &[0; 10]);
    assert_eq!(calls(&mut room), [8192], "and one of the same length");
    send(&mut room, &[0; 11]);
    assert_eq!(calls(&mut room), [-8192, -10, 11, 12_288]);

    let mut room = open(&load(&reporter_0_4(), PayloadBuffer::Keep), "lobby");
    assert_eq!(calls(&mut room), [4, 4096], "the id is for nobody");
    connect(&mut room, 1);
    assert_eq!(calls(&mut room), [-4096, -4, 8, 8192]);
}

#[test]
fn a_kept_buffer_is_asked_for_before_the_first_payload_even_if_that_is_empty() {
    let mut room = open(&load(&reporter(), PayloadBuffer::Keep), "");
    assert_eq!(numbers(&mut room, NOW), [0, 4096]);
    connect(&mut room, 1);
    send(&mut room, "");
    assert_eq!(numbers(&mut room, NOW), [1, 4096], "it fits");
    send(&mut room, "a");
    assert_eq!(numbers(&mut room, NOW), [-4096, 0, 1, 8192]);
}

#[test]
fn a_module_says_by_an_export_that_its_buffer_may_be_kept() {
    let name = "stateroom_keep_payload_buffer";
    for (more, is_kept) in [
        (format!(r#"(func (export "{name}"))"#), true),
        (
            format!(r#"(func (export "{name}") (param i64) (result i32) (unreachable))"#),
            true,
        ),
        (
            format!(r#"(global (export "{name}") i32 (i32.const 0))"#),
            true,
        ),
        (format!(r#"(func (export "{name}s"))"#), false),
        (String::new(), false),
    ] {
        for text in [guest_0_2("", &[], &more), guest_0_4("", &more)] {
            assert_eq!(module(&text).keeps_payload_buffer(), is_kept, "{text}");
            for (choice, is_kept) in [
                (PayloadBuffer::Auto, is_kept),
                (PayloadBuffer::Keep, true),
                (PayloadBuffer::PerEvent, false),
            ] {
                let module = load(&text, choice);
                assert_eq!(module.keeps_payload_buffer(), is_kept, "{choice:?} {text}");
            }
        }
    }
}

#[test]
fn buffers_of_rooms_of_the_sdk_and_of_our_helpers_are_kept() {
    let mut kept = 0;
    for (name, wasm) in bundled() {
        let module = Module::load(&wasm, &Limits::default()).expect("the room loads");
        // Those by hand have no helper.
        let is_kept = !name.ends_with("-wat");
        assert_eq!(module.keeps_payload_buffer(), is_kept, "{name}");
        kept += usize::from(is_kept);
    }
    assert!(kept >= 20, "only {kept} rooms were found");
}

/// A guest that is not of the SDK, with everything else that may be taken for it.
#[test]
fn version_numbers_do_not_make_a_room_one_of_the_sdk() {
    // The JIT hosts refuse rooms without them, so that each that runs there has them.
    let versions = |abi: &str| {
        format!(
            r#"(global (export "{abi}_API_VERSION") i32 (i32.const 32))
            (global (export "{abi}_API_PROTOCOL") i32 (i32.const 36))
            (data (i32.const 32) "\01\00\00\00\00\00\00\00")"#
        )
    };
    let data = |text: &str| format!(r#"(data (i32.const 64) "{text}")"#);
    let linker = r#"(global (export "__data_end") i32 (i32.const 1024))
        (global (export "__heap_base") i32 (i32.const 1024))"#;
    let (sdk_0_2, sdk_0_4) = (
        data("Error parsing UTF-8 from host {:?}"),
        data("/crates/stateroom-wasm-0.4.4/src/lib.rs"),
    );
    let in_0_2 = |more: String| module(&guest_0_2("", &[], &more)).keeps_payload_buffer();
    let in_0_4 = |more: String| module(&guest_0_4("", &more)).keeps_payload_buffer();
    assert!(!in_0_2(versions("JAMSOCKET") + linker));
    assert!(!in_0_4(versions("STATEROOM") + linker));
    assert!(!in_0_2(versions("JAMSOCKET") + &data("Error parsing")));
    assert!(!in_0_4(
        versions("STATEROOM") + &data("my-stateroom-wasm/src/lib.rs")
    ));
    // A text alone, or that of the other version.
    assert!(!in_0_2(sdk_0_2.clone()));
    assert!(!in_0_4(sdk_0_4.clone()));
    assert!(!in_0_2(versions("JAMSOCKET") + &sdk_0_4));
    assert!(!in_0_4(versions("STATEROOM") + &sdk_0_2));
    // Not in the data: the name of an export.
    let export = r#"(func (export "Error parsing UTF-8 from host ") (nop))"#;
    assert!(!in_0_2(versions("JAMSOCKET") + export));
    // Both.
    assert!(in_0_2(versions("JAMSOCKET") + &sdk_0_2));
    assert!(in_0_4(versions("STATEROOM") + &sdk_0_4));
}

#[test]
fn a_null_allocator_gets_pages_whether_its_buffer_is_kept_or_not() {
    for choice in [PayloadBuffer::Keep, PayloadBuffer::PerEvent] {
        let text = echo()
            .replace("(i32.const 4096)", "(i32.const 0)")
            // What the host added is not the guest's to free.
            .replace(
                r#"(export "jam_free") (param i32 i32)"#,
                r#"(export "jam_free") (param i32 i32) (unreachable)"#,
            );
        let mut room = room(&load(&text, choice));
        connect(&mut room, 1);
        for len in [1, 10, 100_000, 10, 0x1_0000] {
            let message = "x".repeat(len);
            send(&mut room, message.as_str());
            let reply = (MessageRecipient::Client(ClientId(1)), message);
            assert_eq!(outputs(&mut room, NOW), [reply], "{choice:?}");
        }
        // One page for the id and what fits, and then two for the longest message.
        assert_eq!(room.stats().memory_bytes, 4 * 65_536, "{choice:?}");
    }
}

#[test]
fn pages_are_used_again_by_an_allocator_that_returns_null_now_and_then() {
    // For odd lengths.
    let malloc = "(select (i32.const 0) (i32.const 4096) (i32.and (local.get 0) (i32.const 1)))";
    for choice in [PayloadBuffer::Keep, PayloadBuffer::PerEvent] {
        let text = echo().replace("(i32.const 4096)", malloc);
        let mut room = room(&load(&text, choice));
        connect(&mut room, 1);
        for len in 1..200 {
            let message = "x".repeat(len);
            send(&mut room, message.as_str());
            let reply = (MessageRecipient::Client(ClientId(1)), message);
            assert_eq!(outputs(&mut room, NOW), [reply], "{choice:?}");
        }
        assert_eq!(room.stats().memory_bytes, 2 * 65_536, "{choice:?}");
    }
}

/// A guest that works a while in each of its calls.
fn slow(mut text: String) -> String {
    let spin = "(func $spin (param i32) (loop $next
        (br_if $next (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))";
    text = text.replacen("(memory", &format!("{spin} (memory"), 1);
    // After the parameters, and the result if there is one.
    for (export, rounds) in [
        (r#"malloc") (param i32) (result i32)"#, 30),
        (r#"free") (param i32 i32)"#, 20),
        (r#"initialize") (param i32 i32)"#, 25),
        (r#"message") (param i32 i32 i32)"#, 40),
        (r#"stateroom_recv") (param i32 i32)"#, 35),
    ] {
        let body = format!("{export} (call $spin (i32.const {rounds}))");
        text = text.replace(export, &body);
    }
    text
}

#[test]
fn calls_may_pause_anywhere_and_give_the_same() {
    for text in [reporter(), reporter_0_4()] {
        let constructor = r#"(func (export "_initialize") (call $say (i32.const 7)))"#;
        let text = slow(text.replacen(SAY, &format!("{SAY} {constructor}"), 1));
        for choice in [PayloadBuffer::Keep, PayloadBuffer::PerEvent] {
            let run = |slice: u64| {
                let limits = limits(|limits| limits.fuel_per_slice = slice);
                let options = LoadOptions::new().payload_buffer(choice);
                let module = Module::load_with(&assemble(&text), &limits, options).unwrap();
                let mut room = open(&module, "a longer id");
                let mut said = numbers(&mut room, NOW);
                connect(&mut room, 1);
                said.extend(numbers(&mut room, NOW));
                for text in ["hello", "", "a longer message than the id is", "hi"] {
                    send(&mut room, text);
                    said.extend(numbers(&mut room, NOW));
                }
                assert_eq!(room.fault(), None);
                (said, room.fuel_used())
            };
            let expected = run(u64::MAX);
            for slice in (1..60).chain([100, 150, 1000]) {
                assert_eq!(run(slice), expected, "{choice:?}, slices of {slice}");
            }
        }
    }
}

#[test]
fn the_constructor_runs_before_the_first_allocation() {
    let constructor = r#"(func (export "_initialize") (call $say (i32.const 7)))"#;
    let text = reporter().replacen(NEXT, &format!("{NEXT} {constructor}"), 1);
    let mut room = open(&module(&text), "room");
    assert_eq!(numbers(&mut room, NOW), [7, 4, 4096, -4096, -4]);
    let text = reporter_0_4().replacen(NEXT, &format!("{NEXT} {constructor}"), 1);
    let mut room = open(&module(&text), "room");
    let calls = [7, 4, -4096, -4, 4, 8192, -8192, -4];
    assert_eq!(numbers(&mut room, NOW), calls);
}

#[cfg(feature = "snapshot")]
#[test]
fn a_rollback_restores_the_buffer() {
    use stateroom_wasmi_host::FaultPolicy;
    // A message that begins with a zero traps, after it was allocated.
    let text = reporter().replace(
        "(call $say (local.get 1)))\n(func (export \"jam_malloc\")",
        "(if (i32.eqz (i32.load8_u (local.get 1))) (then (unreachable)))
            (call $say (local.get 1)))\n(func (export \"jam_malloc\")",
    );
    for (choice, before, after) in [
        (PayloadBuffer::Keep, vec![-4096, -4, 5, 8192], vec![8192]),
        (
            PayloadBuffer::PerEvent,
            vec![5, 8192, -8192, -5],
            vec![3, 12_288, -12_288, -3],
        ),
    ] {
        let options = LoadOptions::new().snapshots(true).payload_buffer(choice);
        let module = Module::load_with(&assemble(&text), &Limits::default(), options).unwrap();
        let options = RoomOptions::new().on_fault(FaultPolicy::Rollback);
        let mut room = Room::new(&module, "room", options).unwrap();
        numbers(&mut room, NOW);
        connect(&mut room, 1);
        numbers(&mut room, NOW);
        send(&mut room, "hello");
        assert_eq!(numbers(&mut room, NOW), before);
        send(&mut room, &[0; 100]);
        assert_eq!(numbers(&mut room, NOW), [0_i32; 0]);
        assert_eq!(room.stats().faults, 1);
        send(&mut room, "bye");
        assert_eq!(numbers(&mut room, NOW), after, "as if it had not happened");
    }
}
