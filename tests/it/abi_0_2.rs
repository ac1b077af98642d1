//! ABI 0.2: the arguments of each export, and the effect of each import.

use crate::support::{
    ENV, assemble, connect, echo, guest_0_2, hex, limits, module, numbers, outputs, room,
    room_of_one, send, speaker,
};
use MessageRecipient::{Broadcast, Client, EveryoneExcept};
use stateroom_wasmi_host::{
    ClientId, Event, Fault, FaultCause, Instant, Limits, MessageRecipient, Module, Room,
    RoomOptions, abi::AbiVersion,
};

/// A guest that reports each call: the number of the export, its arguments (but no pointers), and
/// the payload.
fn spy() -> String {
    let number = |n: i32| format!("(call $say (i32.const {n}))");
    let argument = |i: i32| format!("(call $say (local.get {i}))");
    let payload = |ptr: i32, len: i32| {
        format!("(call $send_binary (i32.const 0) (local.get {ptr}) (local.get {len}))")
    };
    speaker(
        &[
            ("initialize", &(number(1) + &argument(1) + &payload(0, 1))),
            ("connect", &(number(2) + &argument(0))),
            ("disconnect", &(number(3) + &argument(0))),
            ("timer", &number(4)),
            (
                "message",
                &(number(5) + &argument(0) + &argument(2) + &payload(1, 2)),
            ),
            (
                "binary",
                &(number(6) + &argument(0) + &argument(2) + &payload(1, 2)),
            ),
        ],
        "",
    )
}

/// What the spy reports.
fn received(room: &mut Room) -> Vec<String> {
    outputs(room, Instant::ZERO)
        .into_iter()
        .map(|(_, text)| text)
        .collect()
}

/// The report of the spy for numbers and a payload.
fn expected(numbers: &[u32], payload: Option<&[u8]>) -> Vec<String> {
    numbers
        .iter()
        .map(|n| hex(&n.to_le_bytes()))
        .chain(payload.map(hex))
        .collect()
}

#[test]
fn initialize_receives_the_room_id() {
    let module = module(&spy());
    for id in ["", "lobby", "Zürich 🚢", "\0", &"x".repeat(256)] {
        let mut room = Room::new(&module, id, RoomOptions::default()).unwrap();
        assert_eq!(
            received(&mut room),
            expected(&[1, id.len() as u32], Some(id.as_bytes())),
            "{id:?}"
        );
        assert_eq!(room.id(), id);
    }
}

#[test]
fn connect_and_disconnect_receive_the_client() {
    let mut room = room(&module(&spy()));
    received(&mut room);
    for client in [1, 2, 0x0102_0304, i32::MAX as u32] {
        connect(&mut room, client);
        assert_eq!(received(&mut room), expected(&[2, client], None));
        room.handle_event(Instant::ZERO, Event::Disconnect(ClientId(client)))
            .unwrap();
        assert_eq!(received(&mut room), expected(&[3, client], None));
    }
}

#[test]
fn message_and_binary_receive_the_client_and_the_payload() {
    let mut room = room(&module(&spy()));
    for client in [1, i32::MAX as u32] {
        connect(&mut room, client);
        received(&mut room);
        for text in ["", "a", "Grüße, 世界", "\0\0", &"long ".repeat(1000)] {
            room.handle_event(Instant::ZERO, Event::message(ClientId(client), text))
                .unwrap();
            assert_eq!(
                received(&mut room),
                expected(&[5, client, text.len() as u32], Some(text.as_bytes()))
            );
        }
        for bytes in [&[][..], &[0], &[0xff, 0xfe], &[7; 5000]] {
            room.handle_event(Instant::ZERO, Event::message(ClientId(client), bytes))
                .unwrap();
            assert_eq!(
                received(&mut room),
                expected(&[6, client, bytes.len() as u32], Some(bytes))
            );
        }
    }
}

#[test]
fn timer_receives_no_arguments() {
    let text = spy().replace(
        "(call $say (i32.const 2))",
        "(call $set_timer (i32.const 5))",
    );
    let mut room = room_of_one(&text, &Limits::default());
    room.handle_timeout(Instant::from_millis(5));
    assert_eq!(received(&mut room), expected(&[4], None));
}

#[test]
fn an_empty_payload_has_a_pointer_within_memory() {
    // The guest may read at the address of an empty id and of empty messages.
    let read = "(drop (i32.load8_u (local.get 1)))";
    let text = guest_0_2("", &[("message", read), ("binary", read)], "");
    let mut room = Room::new(&module(&text), "", RoomOptions::default()).unwrap();
    connect(&mut room, 1);
    send(&mut room, "");
    send(&mut room, b"");
    assert_eq!(room.fault(), None);
}

/// A guest that sends `hi` to the recipient in each binary message, once as text and once as bytes.
fn caller() -> String {
    let to = "(i32.load (local.get 1)) (i32.const 0) (i32.const 2)";
    let body = format!("(call $send_message {to}) (call $send_binary {to})");
    guest_0_2(ENV, &[("binary", &body)], r#"(data (i32.const 0) "hi")"#)
}

#[test]
fn each_form_of_recipient_is_passed_on() {
    let mut room = room_of_one(&caller(), &Limits::default());
    for (number, recipient) in [
        (0, Broadcast),
        (1, Client(ClientId(1))),
        (2, Client(ClientId(2))),
        (i32::MAX, Client(ClientId(2_147_483_647))),
        (-1, EveryoneExcept(ClientId(1))),
        (-77, EveryoneExcept(ClientId(77))),
        (-i32::MAX, EveryoneExcept(ClientId(2_147_483_647))),
        // Everybody: it is no client's id.
        (i32::MIN, EveryoneExcept(ClientId(2_147_483_648))),
    ] {
        send(&mut room, &number.to_le_bytes());
        let expected = [
            (recipient, "hi".to_owned()),
            (recipient, "0x6869".to_owned()),
        ];
        assert_eq!(outputs(&mut room, Instant::ZERO), expected, "{number}");
    }
}

#[test]
fn empty_and_largest_payloads_can_be_sent_from_the_edges_of_memory() {
    // A page has 65,536 bytes.
    for (ptr, len) in [(0, 0), (65_536, 0), (65_535, 1), (0, 65_536)] {
        let body =
            format!("(call $send_message (i32.const 0) (i32.const {ptr}) (i32.const {len}))");
        let mut room = room_of_one(
            &guest_0_2(ENV, &[("message", &body)], ""),
            &Limits::default(),
        );
        room.handle_event(Instant::ZERO, Event::message(ClientId(1), ""))
            .unwrap();
        let sent = outputs(&mut room, Instant::ZERO);
        assert_eq!(sent.len(), 1, "{ptr} {len}: {:?}", room.fault());
        assert_eq!(sent[0].1.len(), len);
    }
}

#[test]
fn outputs_keep_the_order_of_sending() {
    let body = r#"
        (call $send_message (i32.const 1) (i32.const 0) (i32.const 1))
        (call $send_binary (i32.const 0) (i32.const 1) (i32.const 1))
        (call $send_message (i32.const -1) (i32.const 2) (i32.const 1))
        (call $send_message (i32.const 0) (i32.const 0) (i32.const 0))
        (call $send_binary (i32.const 5) (i32.const 0) (i32.const 3))"#;
    let text = guest_0_2(ENV, &[("message", body)], r#"(data (i32.const 0) "abc")"#);
    let mut room = room_of_one(&text, &Limits::default());
    send(&mut room, "go");
    let expected = [
        (Client(ClientId(1)), "a"),
        (Broadcast, "0x62"),
        (EveryoneExcept(ClientId(1)), "c"),
        (Broadcast, ""),
        (Client(ClientId(5)), "0x616263"),
    ];
    assert_eq!(
        outputs(&mut room, Instant::ZERO),
        expected.map(|(to, text)| (to, text.to_owned()))
    );
}

#[test]
fn every_import_is_optional() {
    let imports: Vec<&str> = ENV.trim().lines().collect();
    for chosen in 0..8 {
        let some = imports
            .iter()
            .enumerate()
            .filter(|(i, _)| chosen >> i & 1 == 1)
            .map(|(_, line)| *line);
        let module = module(&guest_0_2(&some.collect::<String>(), &[], ""));
        assert_eq!(module.imports().count() as u32, u32::count_ones(chosen));
        assert!(!room(&module).is_closed());
    }
}

#[test]
fn an_import_may_be_imported_twice_and_reexported() {
    // Host functions as the guest's exports: each message is sent back to its sender.
    let text = format!("{}{}", ENV.replace('$', "$other_"), ENV);
    let mut text = guest_0_2(&text, &[], "");
    for (export, import) in [
        ("message", "send_message"),
        ("binary", "send_binary"),
        ("connect", "set_timer"),
    ] {
        text = text.replace(
            &format!("(func (export \"{export}\")"),
            &format!("(export \"{export}\" (func ${import})) (func (export \"_{export}\")"),
        );
    }
    let mut room = room(&module(&text));
    connect(&mut room, 3);
    assert_eq!(
        room.poll_timeout(),
        Some(Instant::from_millis(3)),
        "connect(3) is set_timer(3)"
    );
    room.handle_event(Instant::ZERO, Event::message(ClientId(3), "back"))
        .unwrap();
    assert_eq!(
        outputs(&mut room, Instant::ZERO),
        [(Client(ClientId(3)), "back".to_owned())]
    );
    room.handle_event(Instant::ZERO, Event::message(ClientId(3), &[1, 2]))
        .unwrap();
    assert_eq!(
        outputs(&mut room, Instant::ZERO),
        [(Client(ClientId(3)), "0x0102".to_owned())]
    );
}

#[test]
fn the_exported_memory_need_not_be_the_first() {
    // Payloads, texts and versions are in the exported one, which is the second.
    let text = speaker(
        &[(
            "message",
            "(call $send_message (local.get 0) (local.get 1) (local.get 2))
             (i32.store 0 (local.get 1) (i32.const 0))
             (call $send_message (local.get 0) (local.get 1) (local.get 2))
             (memory.copy 0 1 (i32.const 100) (local.get 1) (local.get 2))
             (memory.copy 1 0 (i32.const 200) (i32.const 100) (local.get 2))
             (call $send_message (local.get 0) (i32.const 200) (local.get 2))",
        )],
        r#"(data (memory 1) (i32.const 32) "\01")
           (global (export "JAMSOCKET_API_VERSION") i32 (i32.const 32))"#,
    )
    .replacen("(memory (export", "(memory $first 1) (memory (export", 1);
    let other_version = text.replace(
        r#"(data (memory 1) (i32.const 32) "\01")"#,
        r#"(data (memory 0) (i32.const 32) "\02")"#,
    );
    let mut room = room_of_one(&text, &Limits::default());
    send(&mut room, "here");
    let echo = (Client(ClientId(1)), "here".to_owned());
    assert_eq!(
        outputs(&mut room, Instant::ZERO),
        [echo.clone(), echo.clone(), echo]
    );
    // What is in another memory is no version.
    let cause = FaultCause::WrongVersion {
        name: "JAMSOCKET_API_VERSION",
        expected: 1,
        found: 0,
    };
    let during = "initialize";
    let other = crate::support::room(&module(&other_version));
    assert_eq!(other.fault(), Some(&Fault { during, cause }));
}

/// A guest that exports the addresses of its version numbers.
fn versioned(version: (&str, i32), protocol: (&str, i32), more: &str) -> String {
    let globals = format!(
        r#"(global (export "JAMSOCKET_API_VERSION") i32 (i32.const {}))
           (global (export "JAMSOCKET_API_PROTOCOL") i32 (i32.const {})) {more}"#,
        version.1, protocol.1
    );
    let data = [version, protocol].map(|(bytes, at)| match bytes {
        "" => String::new(),
        bytes => format!("(data (i32.const {at}) \"{bytes}\")"),
    });
    guest_0_2("", &[], &(globals + &data.concat()))
}

#[test]
fn a_guest_of_the_right_version_is_accepted() {
    let one = r"\01\00\00\00";
    let zero = r"\00\00\00\00";
    for (version, protocol) in [
        ((one, 32), (zero, 36)),
        // Memory without data is zero.
        ((one, 32), ("", 36)),
        // The last four bytes of the memory.
        ((one, 0), ("", 65_532)),
        ((one, 65_532), (zero, 0)),
    ] {
        let room = room(&module(&versioned(version, protocol, "")));
        assert_eq!(room.fault(), None);
    }
}

#[test]
fn a_guest_without_version_numbers_is_accepted() {
    let module = module(&guest_0_2("", &[], ""));
    assert_eq!(module.abi(), AbiVersion::V0_2);
    assert_eq!(room(&module).fault(), None);
}

#[test]
fn version_addresses_outside_memory_are_a_fault() {
    for address in [65_533, 65_536, -4, -1, i32::MIN] {
        let room = room(&module(&versioned(
            (r"\01\00\00\00", 32),
            ("", address),
            "",
        )));
        let (function, ptr) = ("JAMSOCKET_API_PROTOCOL", address.cast_unsigned());
        let cause = FaultCause::BadPointer {
            function,
            ptr,
            len: 4,
        };
        assert_eq!(
            room.fault(),
            Some(&Fault {
                during: "initialize",
                cause
            })
        );
    }
}

#[test]
fn versions_are_checked_after_initialize() {
    let global = r#"(global (export "JAMSOCKET_API_VERSION") i32 (i32.const 32))"#;
    let initialize = |number: i32| {
        format!("(i32.store (i32.const 32) (i32.const {number})) (call $say (i32.const 7))")
    };
    let opened = |number: i32| {
        let text = speaker(&[("initialize", &initialize(number))], global);
        let mut room = room(&module(&text));
        assert_eq!(numbers(&mut room, Instant::ZERO), [7]);
        room
    };
    assert_eq!(opened(1).fault(), None);
    let cause = FaultCause::WrongVersion {
        name: "JAMSOCKET_API_VERSION",
        expected: 1,
        found: 3,
    };
    let during = "initialize";
    assert_eq!(opened(3).fault(), Some(&Fault { during, cause }));
}

#[test]
fn a_message_may_be_as_long_as_the_memory_above_the_buffer() {
    // The allocator returns 4096, so that 65,536 − 4096 bytes remain.
    let mut room = room_of_one(&echo(), &Limits::default());
    let longest = vec![0x61; 65_536 - 4096];
    send(&mut room, longest.as_slice());
    assert_eq!(
        outputs(&mut room, Instant::ZERO),
        [(Client(ClientId(1)), hex(&longest))]
    );
    send(&mut room, vec![0x61; 65_536 - 4096 + 1].as_slice());
    let cause = FaultCause::BadAllocation {
        ptr: 4096,
        len: 65_536 - 4096 + 1,
    };
    assert_eq!(
        room.fault(),
        Some(&Fault {
            during: "jam_malloc",
            cause
        })
    );
}

#[test]
fn the_bundled_rust_room_of_the_published_sdk_echoes() {
    // Its source: examples/rooms/rust-0.2, an echo.
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/rooms/wasm/echo-rust-0.2.wasm"
    );
    let module = Module::load(&std::fs::read(path).unwrap(), &limits(|_| {})).unwrap();
    let mut room = room(&module);
    connect(&mut room, 1);
    outputs(&mut room, Instant::ZERO);
    send(&mut room, "hello");
    let sent = outputs(&mut room, Instant::ZERO);
    assert_eq!(sent.len(), 1, "{:?}", room.fault());
    assert!(sent[0].1.contains("hello"), "{sent:?}");
}

#[test]
fn a_module_lists_its_imports_and_exports() {
    let module = Module::load(&assemble(&echo()), &Limits::default()).unwrap();
    let imports: Vec<String> = module
        .imports()
        .map(|(module, name, kind)| format!("{module}.{name} {kind}"))
        .collect();
    assert_eq!(
        imports,
        [
            "env.send_message a function (i32, i32, i32) -> ()",
            "env.send_binary a function (i32, i32, i32) -> ()",
            "env.set_timer a function (i32) -> ()",
        ]
    );
    let exports: Vec<String> = module
        .exports()
        .map(|(name, kind)| format!("{name} {kind}"))
        .collect();
    assert_eq!(exports.len(), 9);
    assert!(exports.contains(&"memory a memory".to_owned()));
    assert!(exports.contains(&"jam_malloc a function (i32) -> i32".to_owned()));
}
