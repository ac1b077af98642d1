//! What follows when guests fail.

use crate::support::{Call, Host, Module, ROOM, Status, on_fault, status};
use stateroom_wasmi::*;

const MS: u64 = 1_000_000;

#[test]
fn a_fault_closes_its_room_and_no_other() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    let other = host.open("other", &module).unwrap();
    host.connect(other, 1).unwrap();
    host.text(room, 1, "sent before").unwrap();
    host.text(room, 1, "!").unwrap();
    host.text(other, 1, "unharmed").unwrap();
    host.poll(0);
    let calls = host.calls();
    let Some(Call::Closed {
        room: key,
        id,
        fault,
        text: Some(text),
        clients,
        faults,
    }) = calls.last()
    else {
        panic!("{calls:?}");
    };
    assert_eq!(
        (*key, id.as_str(), clients.as_slice(), *faults),
        (room, "room", [1].as_slice(), 1)
    );
    assert_eq!(*fault, stateroom_fault::Trap as i32);
    assert!(
        text.contains("`message`") && text.contains("unreachable"),
        "{text}"
    );
    let sent = calls.iter().filter(|call| matches!(call, Call::Sent(..)));
    assert_eq!(sent.count(), 2, "{calls:?}");
    assert_eq!(status(host.text(room, 1, "late")), Status::UnknownRoom);
}

#[test]
fn a_guest_that_cannot_start_is_a_fault_of_its_room() {
    let host = Host::new();
    let initialize = r#"(func (export "initialize") (param i32 i32) "#;
    let spins = format!("{initialize} (loop $spin (br $spin))");
    let module = Module::with_limits(&ROOM.replace(initialize.trim(), &spins), |limits| {
        limits.max_fuel_per_event = 10_000;
    });
    host.open("room", &module).unwrap();
    host.poll(0);
    assert!(matches!(&host.calls()[..], [Call::Closed { fault, .. }]
            if *fault == stateroom_fault::OutOfFuel as i32));
}

#[test]
fn each_kind_of_fault_has_a_number() {
    let exit = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "jam_malloc") (param i32) (result i32) (i32.const 16))
        (func (export "jam_free") (param i32 i32))
        (func (export "initialize") (param i32 i32) (call $exit (i32.const 3)))
        (func (export "connect") (param i32))
        (func (export "disconnect") (param i32))
        (func (export "timer"))
        (func (export "message") (param i32 i32 i32))
        (func (export "binary") (param i32 i32 i32)))"#;
    let sends = |ptr: &str, len: &str| {
        exit.replace("(call $exit (i32.const 3))", &format!(
            "(loop $again (call $send (i32.const 0) (i32.const {ptr}) (i32.const {len})) (br $again))"
        ))
        .replace(
            r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#,
            r#"(import "env" "send_message" (func $send (param i32 i32 i32)))"#,
        )
        .replace(r#"(export "memory") 1)"#, r#"(export "memory") 1) (data (i32.const 8) "\ff")"#)
    };
    for (wat, fault) in [
        (exit.into(), stateroom_fault::Exit),
        (sends("-1", "1"), stateroom_fault::BadPointer),
        (sends("8", "1"), stateroom_fault::NotUtf8),
        (sends("16", "2000"), stateroom_fault::MessageTooLong),
        (sends("16", "0"), stateroom_fault::TooManyMessages),
        (sends("16", "1000"), stateroom_fault::TooManyBytes),
        (
            exit.replace("(i32.const 16)", "(i32.const -1)"),
            stateroom_fault::BadAllocation,
        ),
    ] {
        let host = Host::new();
        let module = Module::with_limits(&wat, |limits| {
            limits.max_message_bytes = 1000;
            limits.max_outbox_messages = 100;
            limits.max_outbox_bytes = 10_000;
        });
        host.open("room", &module).unwrap();
        host.poll(0);
        let calls = host.calls();
        assert!(
            matches!(calls.last(), Some(Call::Closed { fault: found, .. }) if *found == fault as i32),
            "{fault:?}: {calls:?}"
        );
    }
}

#[test]
fn a_room_restarts_after_its_wait() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let mut options = on_fault(stateroom_on_fault::Restart);
    options.fault_policy.first_wait = 5 * MS;
    options.fault_policy.max_restarts = 1;
    let room = host.open_with(0, "room", &module, &options).unwrap();
    host.connect(room, 1).unwrap();
    host.text(room, 1, "!").unwrap();
    host.text(room, 1, "n").unwrap();
    assert_eq!(host.poll(0), 5 * MS);
    let stats = host.room_stats(room).unwrap();
    assert_eq!(stats.state, stateroom_room_state::Restarting as i32);
    let (fault, text) = host.fault(room).unwrap();
    assert_eq!(fault, stateroom_fault::Trap as i32);
    assert!(text.contains("unreachable"), "{text}");
    assert_eq!(host.calls(), [Call::Connected(room, 1)]);
    host.poll(5 * MS);
    let calls = host.calls();
    assert_eq!(calls[0], Call::Connected(room, 1), "once more: {calls:?}");
    assert_eq!(host.room_stats(room).unwrap().faults, 1);
    host.text(room, 1, "!").unwrap();
    host.poll(6 * MS);
    assert!(matches!(host.calls()[..], [Call::Closed { faults: 2, .. }]));
}

#[test]
fn a_room_goes_on_after_a_fault() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let options = on_fault(stateroom_on_fault::Continue);
    let room = host.open_with(0, "room", &module, &options).unwrap();
    host.connect(room, 1).unwrap();
    host.text(room, 1, "!").unwrap();
    host.text(room, 1, "n").unwrap();
    host.poll(0);
    assert_eq!(host.texts(), ["2"], "the fault's event changed the guest");
}

#[test]
fn a_room_undoes_the_event_of_a_fault() {
    let options = stateroom_load_options {
        snapshots: 1,
        ..Default::default()
    };
    let module = Module::load(ROOM.as_bytes(), &options).unwrap();
    // As the host's policy, which the room takes over.
    let host = Host::with(|options| {
        options.fault_policy.on_fault = stateroom_on_fault::Rollback as i32;
    });
    let room = host.open_with_client(&module);
    host.text(room, 1, "!").unwrap();
    host.text(room, 1, "n").unwrap();
    host.poll(0);
    assert_eq!(host.texts(), ["1"], "the fault's event is undone");
    assert_eq!(host.fault(room).unwrap().0, stateroom_fault::Trap as i32);
}

#[test]
fn a_room_without_a_fault_has_none() {
    let (host, module) = (Host::new(), Module::new(ROOM));
    let room = host.open_with_client(&module);
    assert_eq!(
        host.fault(room),
        Ok((stateroom_fault::None as i32, String::new()))
    );
}

#[test]
fn an_unknown_policy_is_refused() {
    let module = Module::new(ROOM);
    let host = Host::new();
    for policy in [-1, 5] {
        let mut options = on_fault(stateroom_on_fault::Default);
        options.fault_policy.on_fault = policy;
        assert_eq!(
            status(host.open_with(0, "room", &module, &options)),
            Status::InvalidArgument
        );
        let host = Host::try_with(|options| options.fault_policy.on_fault = policy);
        assert_eq!(host.map(drop).unwrap_err().status, Status::InvalidArgument);
    }
}
