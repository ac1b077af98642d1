//! Rooms whose driver keeps the clients and the timer.

use crate::support::{ENV, SAY, guest_0_2, guest_0_4, limits, module, module_with, speaker};
use Out::{Cancel, Joined, Left, Said, Set};
use stateroom_wasmi_host::{
    Backoff, ClientId, Event, EventError, Fault, FaultCause, FaultPolicy, Instant, Module, Output,
    Room, RoomOptions,
};
use std::time::Duration;

const NOW: Instant = Instant::ZERO;

/// An output, owned; a message is the number that it carries.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    Joined(u32),
    Left(u32),
    Said(u32),
    Set(Duration),
    Cancel,
}

fn open_with(module: &Module, on_fault: FaultPolicy) -> Room {
    let options = RoomOptions::new().on_fault(on_fault);
    Room::unmanaged(module, "test", options).expect("the room opens")
}

fn open(module: &Module) -> Room {
    open_with(module, FaultPolicy::Close)
}

/// Runs the room as long as it has work, and takes its outputs.
fn outs(room: &mut Room, now: Instant) -> Vec<Out> {
    let mut taken = Vec::new();
    loop {
        while let Some(output) = room.poll_output() {
            taken.push(match output {
                Output::Joined(client) => Joined(client.0),
                Output::Left(client) => Left(client.0),
                Output::Message(message) => {
                    let bytes = message.payload.as_bytes();
                    Said(u32::from_le_bytes(bytes.try_into().unwrap()))
                }
                Output::SetTimer(delay) => Set(delay),
                Output::CancelTimer => Cancel,
                other => panic!("{other:?}"),
            });
        }
        if !room.has_work(now) {
            return taken;
        }
        room.resume(now);
    }
}

fn handle(room: &mut Room, event: Event<'_>) -> Vec<Out> {
    room.handle_event(NOW, event)
        .expect("the room takes the event");
    outs(room, NOW)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Says who connects, and 100 and 200 more for disconnects and texts; at bytes, sets its timer to the
/// number in them, says 7, and traps if that is 666; says 9 when the timer fires.
fn reporter() -> String {
    let say = |more: u32| format!("(call $say (i32.add (i32.const {more}) (local.get 0)))");
    speaker(
        &[
            ("connect", &say(0)),
            ("disconnect", &say(100)),
            ("message", &say(200)),
            (
                "binary",
                "(call $set_timer (i32.load (local.get 1))) (call $say (i32.const 7))
                (if (i32.eq (i32.load (local.get 1)) (i32.const 666)) (then (unreachable)))",
            ),
            ("timer", "(call $say (i32.const 9))"),
        ],
        "",
    )
}

fn set_timer(room: &mut Room, millis: u32) -> Vec<Out> {
    handle(room, Event::message(ClientId(1), &millis.to_le_bytes()))
}

#[test]
fn every_client_and_event_is_handed_to_the_guest() {
    let limits = limits(|limits| limits.max_clients = 1);
    let mut room = open(&module_with(&reporter(), &limits));
    for id in [0, 1, i32::MAX as u32, 1 << 31, u32::MAX] {
        let client = ClientId(id);
        let text = |id: u32| [Said(id.wrapping_add(200))];
        assert_eq!(handle(&mut room, Event::message(client, "x")), text(id));
        for _ in 0..2 {
            assert_eq!(
                handle(&mut room, Event::Connect(client)),
                [Joined(id), Said(id)]
            );
        }
        assert_eq!(handle(&mut room, Event::message(client, "x")), text(id));
        assert!(room.clients().contains(&client));
        for _ in 0..2 {
            let left = [Left(id), Said(id.wrapping_add(100))];
            assert_eq!(handle(&mut room, Event::Disconnect(client)), left);
        }
        assert_eq!(room.clients(), []);
        assert_eq!(
            handle(&mut room, Event::Connect(client)),
            [Joined(id), Said(id)]
        );
        handle(&mut room, Event::Connect(ClientId(77)));
        assert_eq!(room.clients().len(), 2, "beyond the limit");
        handle(&mut room, Event::Disconnect(ClientId(77)));
        handle(&mut room, Event::Disconnect(client));
    }
}

#[test]
fn what_is_too_long_or_too_much_is_refused() {
    let limits = limits(|limits| {
        limits.max_message_bytes = 4;
        limits.max_inbox_events = 2;
    });
    let mut room = open(&module_with(&reporter(), &limits));
    let long = Event::message(ClientId(1), "12345");
    assert!(matches!(
        room.handle_event(NOW, long),
        Err(EventError::MessageTooLong { bytes: 5, limit: 4 })
    ));
    handle(&mut room, Event::Connect(ClientId(1)));
    // With an output that is not taken, events wait.
    room.handle_event(NOW, Event::message(ClientId(1), "x"))
        .unwrap();
    for _ in 0..2 {
        room.handle_event(NOW, Event::Disconnect(ClientId(5)))
            .unwrap();
    }
    for event in [
        Event::Disconnect(ClientId(5)),
        Event::Connect(ClientId(1)),
        Event::message(ClientId(1), "x"),
    ] {
        assert_eq!(room.handle_event(NOW, event), Err(EventError::InboxFull));
    }
    assert_eq!(room.handle_timer(NOW), Err(EventError::InboxFull));
    // Of these there are no more than connects.
    room.handle_event(NOW, Event::Disconnect(ClientId(1)))
        .unwrap();
    let stray = || [Left(5), Said(105)];
    let mut expected = vec![Said(201)];
    expected.extend(stray());
    expected.extend(stray());
    expected.extend([Left(1), Said(101)]);
    assert_eq!(outs(&mut room, NOW), expected);
}

#[test]
fn each_request_for_the_timer_is_an_output_in_order() {
    let mut room = open(&module(&speaker(
        &[(
            "connect",
            "(call $set_timer (i32.const 5)) (call $say (i32.const 1))
            (call $set_timer (i32.const 0)) (call $set_timer (i32.const -1))",
        )],
        "",
    )));
    let expected = [
        Joined(1),
        Set(ms(5)),
        Said(1),
        Cancel,
        Set(ms(u32::MAX.into())),
    ];
    assert_eq!(handle(&mut room, Event::Connect(ClientId(1))), expected);
    assert_eq!(room.stats().messages_out, 1, "requests are no messages");
}

/// What the JIT host 0.4.4 passes on as zero, and its server fires at once.
#[test]
fn zero_of_abi_0_4_sets_the_timer() {
    let set = "(i32.store (i32.const 0) (i32.const 1)) (i32.store (i32.const 4) (i32.const 0))
        (call $send (i32.const 0) (i32.const 8))";
    let mut room = open(&module(&guest_0_4(set, "")));
    assert_eq!(outs(&mut room, NOW), [Set(ms(0))]);
    assert_eq!(room.poll_timeout(), None);
}

#[test]
fn the_room_keeps_no_deadline_and_fires_when_it_is_told() {
    let mut room = open(&module(&reporter()));
    assert_eq!(set_timer(&mut room, 5), [Set(ms(5)), Said(7)]);
    let late = Instant::from_millis(100);
    assert_eq!((room.poll_timeout(), room.has_work(late)), (None, false));
    room.handle_timeout(late);
    assert_eq!(outs(&mut room, late), []);
    // However often, and whether or not it was set.
    for _ in 0..2 {
        room.handle_timer(late).unwrap();
        assert_eq!(outs(&mut room, late), [Said(9)]);
    }
}

#[test]
fn a_timer_waits_behind_the_events_before_it() {
    let mut room = open(&module(&reporter()));
    let text = Event::message(ClientId(1), "x");
    room.handle_event(NOW, text).unwrap();
    room.handle_timer(NOW).unwrap();
    room.handle_event(NOW, text).unwrap();
    assert_eq!(room.stats().waiting_events, 2);
    assert_eq!(outs(&mut room, NOW), [Said(201), Said(9), Said(201)]);
    room.close();
    assert_eq!(room.handle_timer(NOW), Err(EventError::Closed));
}

#[test]
fn a_room_with_a_timer_of_its_own_is_not_told() {
    let mut room = Room::new(&module(&reporter()), "test", RoomOptions::new()).unwrap();
    room.handle_timer(NOW).unwrap();
    assert_eq!(outs(&mut room, NOW), []);
}

#[test]
fn requests_count_against_the_outputs_of_an_event() {
    let flood = "(loop $next (call $set_timer (i32.const 3)) (br $next))";
    let limits = limits(|limits| limits.max_outbox_messages = 2);
    let mut room = open(&module_with(
        &guest_0_2(ENV, &[("connect", flood)], ""),
        &limits,
    ));
    let outputs = handle(&mut room, Event::Connect(ClientId(1)));
    assert_eq!(outputs, [Joined(1), Set(ms(3)), Set(ms(3))]);
    let cause = FaultCause::TooManyMessages { limit: 2 };
    let during = "connect";
    assert_eq!(room.fault(), Some(&Fault { during, cause }));
}

#[test]
fn who_keeps_the_timer_changes_no_fuel() {
    let module = module(&reporter());
    let mut managed = Room::new(&module, "test", RoomOptions::new()).unwrap();
    let mut unmanaged = open(&module);
    let connect = Event::Connect(ClientId(1));
    for room in [&mut managed, &mut unmanaged] {
        handle(room, connect);
        set_timer(room, 5);
    }
    assert_eq!(managed.fuel_used(), unmanaged.fuel_used());
}

#[test]
fn a_restart_cancels_the_timer_and_tells_of_the_clients() {
    let policy = FaultPolicy::Restart(Backoff::new().first(ms(100)));
    let mut room = open_with(&module(&reporter()), policy);
    for id in [2, 1] {
        handle(&mut room, Event::Connect(ClientId(id)));
    }
    assert_eq!(set_timer(&mut room, 666), [Set(ms(666)), Said(7), Cancel]);
    assert!(room.is_restarting());
    assert_eq!(room.poll_timeout(), Some(Instant::from_millis(100)));
    // These wait, in order.
    room.handle_event(NOW, Event::Connect(ClientId(3))).unwrap();
    room.handle_event(NOW, Event::message(ClientId(2), "x"))
        .unwrap();
    room.handle_timer(NOW).unwrap();
    room.handle_event(NOW, Event::Disconnect(ClientId(1)))
        .unwrap();
    let now = Instant::from_millis(100);
    room.handle_timeout(now);
    let rejoined = [Joined(1), Said(1), Joined(2), Said(2)];
    let waited = [Joined(3), Said(3), Said(202), Said(9), Left(1), Said(101)];
    assert_eq!(
        outs(&mut room, now),
        rejoined.into_iter().chain(waited).collect::<Vec<_>>()
    );
    assert_eq!(room.clients(), [2, 3].map(ClientId));
}

/// Whatever waits, a fresh guest in the end knows the same clients as the room.
#[test]
fn events_that_change_nothing_do_not_confuse_a_restart() {
    let policy = FaultPolicy::Restart(Backoff::new().first(ms(100)));
    let mut room = open_with(&module(&reporter()), policy);
    handle(&mut room, Event::Connect(ClientId(1)));
    set_timer(&mut room, 666);
    for event in [
        Event::Connect(ClientId(1)),
        Event::Disconnect(ClientId(2)),
        Event::Connect(ClientId(3)),
        Event::Connect(ClientId(3)),
    ] {
        room.handle_event(NOW, event).unwrap();
    }
    let now = Instant::from_millis(100);
    room.handle_timeout(now);
    let mut known = Vec::new();
    for out in outs(&mut room, now) {
        match out {
            Joined(client) => known.push(client),
            Left(client) => known.retain(|other| *other != client),
            _ => {}
        }
    }
    known.sort_unstable();
    known.dedup();
    assert_eq!(room.clients(), [1, 3].map(ClientId));
    assert_eq!(known, [1, 3]);
}

#[test]
fn an_interrupted_event_has_failed() {
    let spin = [
        ("connect", "(loop $spin (br $spin))"),
        ("message", "(call $say (i32.const 1))"),
        (
            "jam_malloc",
            "(if (i32.eq (local.get 0) (i32.const 3)) (then (loop $spin (br $spin)))) (i32.const 4096)",
        ),
    ];
    let limits = limits(|limits| limits.max_fuel_per_event = Some(u64::MAX));
    let module = module_with(&guest_0_2(ENV, &spin, SAY), &limits);
    let mut room = open_with(&module, FaultPolicy::Continue);
    room.interrupt();
    assert_eq!(room.last_fault(), None, "there is nothing to interrupt");
    for (event, during) in [
        (Event::Connect(ClientId(1)), "connect"),
        (Event::message(ClientId(1), "abc"), "jam_malloc"),
    ] {
        room.handle_event(NOW, event).unwrap();
        assert!(room.is_in_event());
        room.resume(NOW);
        assert!(room.is_in_event());
        room.interrupt();
        assert!(!room.is_in_event());
        let cause = FaultCause::Interrupted;
        assert_eq!(room.last_fault(), Some(&Fault { during, cause }));
        outs(&mut room, NOW);
    }
    assert_eq!(
        handle(&mut room, Event::message(ClientId(1), "x")),
        [Said(1)]
    );

    let mut room = open(&module);
    room.handle_event(NOW, Event::Connect(ClientId(1))).unwrap();
    room.interrupt();
    assert!(room.is_closed());
}

/// An undone event requests nothing, and neither do those that are replayed.
#[cfg(feature = "snapshot")]
#[test]
fn rollback_requests_nothing() {
    let options = stateroom_wasmi_host::LoadOptions::new().snapshots(true);
    let wasm = crate::support::assemble(&reporter());
    let module = Module::load_with(&wasm, &limits(|_| ()), options).unwrap();
    let mut room = open_with(&module, FaultPolicy::Rollback);
    handle(&mut room, Event::Connect(ClientId(1)));
    assert_eq!(set_timer(&mut room, 5), [Set(ms(5)), Said(7)]);
    assert_eq!(set_timer(&mut room, 6), [Set(ms(6)), Said(7)]);
    assert_eq!(set_timer(&mut room, 666), []);
    assert_eq!(room.stats().faults, 1);
    room.handle_timer(NOW).unwrap();
    assert_eq!(outs(&mut room, NOW), [Said(9)]);
    assert_eq!(set_timer(&mut room, 8), [Set(ms(8)), Said(7)]);
}
