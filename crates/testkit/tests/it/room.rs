//! `TestRoom`: what it accepts, and what it says where it does not.

use super::{
    bundled_module, panic_of,
    support::{ENV, assemble, guest_0_2, guest_0_4},
};
use stateroom_wasmi_testkit::{
    Backoff, FaultCause, FaultPolicy, Limits, TestOptions, TestRoom, Trap,
};
use std::time::Duration;

fn echo_room() -> TestRoom {
    let mut room = TestRoom::open(&bundled_module("echo-c"));
    room.connect(1);
    room
}

fn hostile_with(options: TestOptions) -> TestRoom {
    let limits = Limits::new().max_fuel_per_event(Some(1_000_000));
    let wasm = bundled_module("hostile-rust-small");
    let mut room = TestRoom::open_with(&wasm, &options.limits(limits));
    room.connect(1);
    room
}

/// A guest that prints a line for each text, and traps after that if the text is empty.
fn printing() -> Vec<u8> {
    let imports = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))"#;
    let message = r"(drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
        (if (i32.eqz (local.get 2)) (then unreachable))";
    let data = r#"(data (i32.const 0) "\10\00\00\00\12\00\00\00") (data (i32.const 16) "it \"is\": printed\n\n")"#;
    assemble(&guest_0_2(imports, &[("message", message)], data))
}

#[test]
fn texts_and_bytes_are_told_apart() {
    let mut room = echo_room();
    room.send(1, "ab");
    room.send(1, b"ab");
    room.expect(1, "ab");
    room.expect(1, b"ab");
    room.send(1, b"ab");
    room.send(1, "ab");
    let (bytes, text) = (
        room.receive(1).expect("bytes"),
        room.receive(1).expect("text"),
    );
    assert_eq!((bytes.bytes(), text.text()), (&b"ab"[..], "ab"));
    assert_eq!(
        panic_of(|| bytes.text().len()),
        "expected a text, received 0x6162"
    );
    assert_eq!(
        panic_of(|| text.bytes().len()),
        "expected bytes, received \"ab\""
    );
    room.send(1, b"ab");
    let message = panic_of(|| room.expect(1, "ab"));
    assert!(
        message.contains("\nexpected \"ab\"\nreceived 0x6162\n"),
        "{message}"
    );
}

#[test]
fn another_message_is_shown_beside_the_expected_one() {
    let mut room = echo_room();
    room.advance(Duration::from_millis(1500));
    room.send(1, "hello, world");
    room.send(1, "more");
    let message = panic_of(|| room.expect(1, "hello, word"));
    let expected = "\
client 1 received something else, at 1.5 s
expected \"hello, word\"
received \"hello, world\"
                    ^ the first difference
not taken:
  @ 1.5 s  1 < \"more\"";
    assert_eq!(message, expected);
}

#[test]
fn texts_of_several_lines_are_shown_as_a_diff() {
    let mut room = echo_room();
    room.send(1, "one\ntwo\nthree");
    let message = panic_of(|| room.expect(1, "one\n2\nthree"));
    assert!(message.contains(" one\n-2\n+two\n three"), "{message}");
}

#[test]
fn long_messages_are_shown_where_they_differ() {
    let mut room = echo_room();
    let long = "x".repeat(100_000);
    room.send(1, format!("{long}y{long}").as_str());
    let message = panic_of(|| room.expect(1, format!("{long}z{long}").as_str()));
    assert!(message.len() < 2000, "{message}");
    assert!(
        message.contains("xxxzxxx") && message.contains("xxxyxxx"),
        "{message}"
    );
}

#[test]
fn a_message_that_does_not_come_is_missed() {
    let mut room = echo_room();
    let message = panic_of(|| room.expect(1, "hello"));
    assert_eq!(
        message,
        "client 1 received nothing more\nexpected \"hello\""
    );
    room.disconnect(1);
    let message = panic_of(|| room.expect_all("hello"));
    assert_eq!(message, "nobody is connected who could receive \"hello\"");
}

#[test]
fn a_message_that_is_not_expected_is_shown() {
    let mut room = echo_room();
    room.expect_nothing();
    room.send(1, "hello");
    let message = panic_of(|| room.expect_nothing());
    assert_eq!(
        message,
        "expected nothing\nnot taken:\n  @ 0 ms  1 < \"hello\""
    );
    assert_eq!(room.receive(1).expect("a message").payload, "hello".into());
    assert_eq!(room.receive(1), None);
    room.expect_nothing();
}

#[test]
fn messages_reach_those_who_are_connected() {
    // Who sends n as a text of n bytes speaks to the recipient n - 2: all but 2, all but 1, all, 1, 2.
    let message =
        "(call $send_message (i32.sub (local.get 2) (i32.const 2)) (local.get 1) (local.get 2))";
    let mut room = TestRoom::open(&assemble(&guest_0_2(ENV, &[("message", message)], "")));
    for client in [1, 2, 3] {
        room.connect(client);
    }
    room.send(1, "");
    room.expect(1, "");
    room.expect(3, "");
    room.send(1, "x");
    room.expect(2, "x");
    room.expect(3, "x");
    room.send(1, "xx");
    room.expect_all("xx");
    room.send(1, "xxx");
    room.expect(1, "xxx");
    room.disconnect(2);
    room.send(1, "xxxx");
    room.expect_nothing();
}

#[test]
fn events_that_the_room_refuses_fail_the_test() {
    let mut room = echo_room();
    for (event, reason) in [
        (
            panic_of(|| room.connect(1)),
            "connect of client 1: client 1 is connected already",
        ),
        (
            panic_of(|| room.send(2, "")),
            "send of client 2: client 2 is not connected",
        ),
        (
            panic_of(|| room.disconnect(2)),
            "disconnect of client 2: client 2 is not connected",
        ),
        (
            panic_of(|| room.connect(0)),
            "connect of client 0: invalid client id 0: must be between 1 and 2147483647",
        ),
    ] {
        assert_eq!(event, reason);
    }
    let message = panic_of(|| TestRoom::open(b"\0asm"));
    assert!(message.starts_with("cannot load the module: "), "{message}");
}

#[test]
fn a_fault_that_is_expected_is_returned() {
    let mut room = hostile_with(TestOptions::new());
    room.send(1, "panic");
    assert_eq!(
        room.expect_fault().cause,
        FaultCause::Trap(Trap::Unreachable)
    );
    assert!(room.room().is_closed());
    let message = panic_of(|| room.expect_fault());
    assert_eq!(message, "expected a fault, but the room has not failed");
}

#[test]
fn a_fault_that_is_not_expected_fails_the_next_call_and_the_drop() {
    let mut room = hostile_with(TestOptions::new());
    room.send(1, "panic");
    let reason =
        "the guest failed in `message`: it panicked or aborted (`unreachable` was executed)";
    assert_eq!(panic_of(|| room.expect(1, "panic")), reason);
    assert_eq!(panic_of(|| room.send(1, "more")), reason);
    assert_eq!(panic_of(|| room.advance(Duration::ZERO)), reason);
    assert_eq!(panic_of(move || drop(room)), reason);
}

#[test]
fn what_the_room_printed_explains_a_failure() {
    let mut room = TestRoom::open(&printing());
    room.connect(1);
    room.send(1, "x");
    assert_eq!(
        room.printed().collect::<Vec<_>>(),
        ["it \"is\": printed", ""]
    );
    room.send(1, "");
    let message = panic_of(|| room.expect_nothing());
    assert!(
        message
            .ends_with("\nthe room printed:\n  it \"is\": printed\n  \n  it \"is\": printed\n  "),
        "{message}"
    );
    room.expect_fault();
}

#[test]
fn rooms_with_odd_names_print_the_same() {
    let options = TestOptions::new().room_id("a\": \"b\\");
    let mut room = TestRoom::open_with(&printing(), &options);
    room.connect(1);
    room.send(1, "x");
    assert_eq!(room.printed().next(), Some("it \"is\": printed"));
}

#[test]
fn a_room_goes_on_after_a_fault_as_its_policy_says() {
    let mut room = hostile_with(TestOptions::new().on_fault(FaultPolicy::Rollback));
    room.send(1, "flood");
    room.expect_fault();
    room.send(1, "here");
    room.expect(1, "here");
    room.expect_nothing();

    let policy = FaultPolicy::Restart(Backoff::new().first(Duration::from_secs(1)));
    let mut room = hostile_with(TestOptions::new().on_fault(policy));
    room.send(1, "loop");
    assert!(matches!(
        room.expect_fault().cause,
        FaultCause::OutOfFuel { .. }
    ));
    room.send(1, "waits");
    room.advance(Duration::from_millis(999));
    room.expect_nothing();
    room.advance(Duration::from_millis(1));
    room.expect(1, "waits");
}

#[test]
fn an_event_without_an_end_is_a_fault_whatever_the_limits() {
    let wasm = assemble(&guest_0_2("", &[("message", "(loop (br 0))")], ""));
    let limits = Limits::new().max_fuel_per_event(None);
    let mut room = TestRoom::open_with(&wasm, &TestOptions::new().limits(limits));
    room.connect(1);
    room.send(1, "");
    assert!(matches!(
        room.expect_fault().cause,
        FaultCause::OutOfFuel { .. }
    ));
}

#[test]
fn a_room_that_never_rests_ends_the_test() {
    // ABI 0.4: SetTimer(0), on each event.
    let timer = r#"(data (i32.const 64) "\01\00\00\00\00\00\00\00")"#;
    let wasm = assemble(&guest_0_4(
        "(call $send (i32.const 64) (i32.const 8))",
        timer,
    ));
    let mut room = TestRoom::open_with(&wasm, &TestOptions::new().max_fuel(100_000));
    let message = panic_of(|| room.advance(Duration::from_secs(1)));
    assert_eq!(
        message,
        "advance: the room has used more than 100000 units of fuel in all, the limit of a test"
    );
}

#[test]
fn messages_that_nobody_takes_end_the_test() {
    let mut room = echo_room();
    let long = vec![0; 1 << 20];
    let message = panic_of(|| {
        for _ in 0..100 {
            room.send(1, long.as_slice());
        }
    });
    assert!(message.starts_with(
        "send of client 1: the room has sent more than 67108864 bytes that the test has not taken"
    ));
}
