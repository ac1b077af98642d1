//! The order of outputs: messages, joins and leaves.

use crate::support::{echo, module, speaker};
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Event, Host, Instant, ManualClock, Output, OutputMessage,
    OwnedPayload, Room, RoomKey, RoomOptions, SendError, Transport,
};

use std::convert::Infallible;

const NOW: Instant = Instant::ZERO;
const ADA: ClientId = ClientId(1);
const BOB: ClientId = ClientId(2);

/// A guest that broadcasts a number for each kind of event.
fn diary() -> String {
    let say = |number: u32| format!("(call $say (i32.const {number}))");
    speaker(
        &[
            ("connect", &say(1)),
            ("disconnect", &say(2)),
            ("message", &say(3)),
        ],
        "",
    )
}

#[derive(Debug, PartialEq)]
enum Seen {
    Joined(ClientId),
    Left(ClientId),
    Number(u32),
}

fn number(message: OutputMessage<'_>) -> Seen {
    let bytes = message
        .payload
        .as_bytes()
        .try_into()
        .expect("a number has four bytes");
    Seen::Number(u32::from_le_bytes(bytes))
}

#[test]
fn joined_and_left_precede_the_outputs_of_their_event() {
    let mut room = Room::new(&module(&diary()), "", RoomOptions::new()).expect("it opens");
    for event in [
        Event::Connect(ADA),
        Event::message(ADA, "x"),
        Event::Disconnect(ADA),
    ] {
        room.handle_event(NOW, event).expect("it is accepted");
    }
    let mut seen = Vec::new();
    loop {
        while let Some(output) = room.poll_output() {
            seen.push(match output {
                Output::Joined(client) => Seen::Joined(client),
                Output::Left(client) => Seen::Left(client),
                Output::Message(message) => number(message),
                other => panic!("{other:?}"),
            });
        }
        if !room.has_work(NOW) {
            break;
        }
        room.resume(NOW);
    }
    let expected = [
        Seen::Joined(ADA),
        Seen::Number(1),
        Seen::Number(3),
        Seen::Left(ADA),
        Seen::Number(2),
    ];
    assert_eq!(seen, expected);
    assert_eq!(room.stats().messages_out, 3, "only messages count");
    assert_eq!(room.stats().events_handled, 3);
}

/// A transport that accepts a number of calls, then blocks.
#[derive(Default)]
struct Gate {
    accepts: usize,
    seen: Vec<Seen>,
}

impl Gate {
    fn accept(&mut self, seen: Seen) -> Result<(), SendError<&'static str>> {
        self.accepts = self.accepts.checked_sub(1).ok_or(SendError::WouldBlock)?;
        self.seen.push(seen);
        Ok(())
    }
}

impl Transport for Gate {
    type Error = &'static str;

    fn send(
        &mut self,
        _: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<&'static str>> {
        self.accept(number(message))
    }

    fn connected(&mut self, _: RoomKey, client: ClientId) -> Result<(), SendError<&'static str>> {
        self.accept(Seen::Joined(client))
    }

    fn disconnected(
        &mut self,
        _: RoomKey,
        client: ClientId,
    ) -> Result<(), SendError<&'static str>> {
        self.accept(Seen::Left(client))
    }
}

#[test]
fn a_refused_join_or_leave_is_retried_in_order() {
    let mut host = Host::new(ManualClock::new(), Gate::default());
    let room = host.open("", &module(&diary())).expect("it opens");
    let events = [
        Event::Connect(ADA),
        Event::Connect(BOB),
        Event::Disconnect(ADA),
        Event::message(BOB, "x"),
    ];
    for event in events {
        host.enqueue(room, event).expect("it is accepted");
    }
    let mut polls = 0;
    while host.transport().seen.len() < 7 {
        host.transport_mut().accepts = 1;
        host.poll(Budget::UNLIMITED);
        polls += 1;
        assert!(polls < 20, "{:?}", host.transport().seen);
    }
    let expected = [
        Seen::Joined(ADA),
        Seen::Number(1),
        Seen::Joined(BOB),
        Seen::Number(1),
        Seen::Left(ADA),
        Seen::Number(2),
        Seen::Number(3),
    ];
    assert_eq!(host.transport().seen, expected);
}

#[test]
fn a_closed_room_can_be_discarded_while_its_transport_blocks() {
    let mut host = Host::new(ManualClock::new(), Gate::default());
    let module = module(&diary());
    let room = host.open("lobby", &module).expect("it opens");
    host.enqueue(room, Event::Connect(ADA))
        .expect("it is accepted");
    host.poll(Budget::UNLIMITED);
    host.close(room).expect("it is open");
    host.poll(Budget::UNLIMITED);
    assert!(host.poll_closed().is_none(), "its outputs are blocked");
    let closed = host.discard(room).expect("the room exists");
    assert_eq!(
        (closed.key, &*closed.id, &*closed.clients),
        (room, "lobby", &[ADA][..])
    );
    assert_eq!(closed.stats.memory_bytes, 65_536, "its guest's memory");
    assert_eq!(closed.stats.events_handled, 1);
    assert!(host.discard(room).is_err() && host.close(room).is_err());
    // The id is free, and the queues are empty.
    let again = host.open("lobby", &module).expect("the id is free");
    host.transport_mut().accepts = usize::MAX;
    assert_eq!(host.poll(Budget::UNLIMITED), None);
    assert!(host.poll_closed().is_none() && !host.is_blocked());
    host.close(again).expect("it is open");
    assert_eq!(host.poll_closed().map(|closed| closed.key), Some(again));
}

#[test]
fn a_room_queued_as_closed_can_be_discarded() {
    let mut host = Host::new(
        ManualClock::new(),
        stateroom_wasmi_host::RecordingTransport::new(),
    );
    let module = module(&echo());
    let keys = ["a", "b"].map(|id| host.open(id, &module).expect("it opens"));
    for key in keys {
        host.close(key).expect("it is open");
    }
    host.discard(keys[0]).expect("the room exists");
    assert_eq!(host.poll_closed().map(|closed| closed.key), Some(keys[1]));
    assert!(host.poll_closed().is_none());
}

/// Each accepted event is counted once when it ends, also when it is dropped.
#[test]
fn events_are_counted_when_they_end() {
    let spins = module(&speaker(&[("message", "(loop (br 0))")], ""));
    let mut room = Room::new(&spins, "", RoomOptions::new()).expect("it opens");
    assert_eq!(
        room.stats().events_handled,
        0,
        "initialization is not an event"
    );
    room.handle_event(NOW, Event::Connect(ADA))
        .expect("it is accepted");
    assert_eq!(room.stats().events_handled, 1);
    assert_eq!(room.poll_output(), Some(Output::Joined(ADA)));
    for _ in 0..3 {
        room.handle_event(NOW, Event::message(ADA, "x"))
            .expect("it is accepted");
    }
    let stats = room.stats();
    assert_eq!(
        (stats.events_handled, stats.waiting_events),
        (1, 2),
        "one is running"
    );
    room.close();
    let stats = room.stats();
    assert_eq!((stats.events_handled, stats.waiting_events), (4, 0));
}

#[cfg(feature = "wasi")]
#[test]
fn a_room_inherits_unset_options_from_its_host() {
    let draws = r#"(module
        (import "env" "send_binary" (func $send (param i32 i32 i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get"
            (func $clock (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "jam_malloc") (param i32) (result i32) (i32.const 4096))
        (func (export "jam_free") (param i32 i32))
        (func (export "initialize") (param i32 i32)
            (drop (call $random (i32.const 0) (i32.const 8)))
            (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 8)))
            (call $send (i32.const 0) (i32.const 0) (i32.const 16)))
        (func (export "connect") (param i32))
        (func (export "disconnect") (param i32))
        (func (export "timer"))
        (func (export "message") (param i32 i32 i32))
        (func (export "binary") (param i32 i32 i32)))"#;
    struct WallClock(ManualClock);
    impl Clock for WallClock {
        fn now(&self) -> Instant {
            self.0.now()
        }
        fn unix_time_at_zero(&self) -> Option<core::time::Duration> {
            Some(core::time::Duration::from_secs(1_000))
        }
    }
    let module = module(draws);
    let clock = WallClock(ManualClock::new());
    let transport = stateroom_wasmi_host::RecordingTransport::new();
    let backoff = stateroom_wasmi_host::FaultPolicy::Restart(Default::default());
    let mut host = Host::new(&clock, transport)
        .with_seed(5)
        .with_fault_policy(backoff);
    clock.0.set(Instant::from_millis(2_000));
    for id in ["a", "b"] {
        let room = host
            .open_with(id, &module, RoomOptions::new())
            .expect("it opens");
        assert_eq!(host.room(room).map(Room::on_fault), Some(backoff));
    }
    let seeded = RoomOptions::new().seed(5);
    host.open_with("c", &module, seeded).expect("it opens");
    host.poll(Budget::UNLIMITED);
    let sent = host
        .transport()
        .sent
        .iter()
        .map(|sent| match &sent.payload {
            OwnedPayload::Bytes(bytes) => bytes.split_at(8),
            OwnedPayload::Text(text) => panic!("{text}"),
        });
    let (drawn, times): (Vec<_>, Vec<_>) = sent.unzip();
    assert_ne!(drawn[0], drawn[1], "each room has a seed of its own");
    assert_eq!(drawn[0], drawn[2], "the first room's seed is the host's");
    for time in times {
        let expected: u64 = 1_002_000_000_000;
        assert_eq!(
            time,
            expected.to_le_bytes(),
            "the wall time when the room was opened"
        );
    }
}

#[test]
fn room_time_starts_when_the_room_is_opened() {
    let timer = speaker(
        &[
            ("connect", "(call $set_timer (i32.const 30))"),
            ("timer", "(call $say (i32.const 9))"),
        ],
        "",
    );
    let clock = ManualClock::new();
    clock.set(Instant::from_millis(6_000));
    let mut host = Host::new(
        &clock,
        Gate {
            accepts: usize::MAX,
            seen: Vec::new(),
        },
    );
    let room = host.open("", &module(&timer)).expect("it opens");
    clock.set(Instant::from_millis(6_100));
    host.enqueue(room, Event::Connect(ADA))
        .expect("it is accepted");
    assert_eq!(
        host.poll(Budget::UNLIMITED),
        Some(Instant::from_millis(6_130)),
        "host time"
    );
    let deadline = host.room(room).and_then(Room::poll_timeout);
    assert_eq!(deadline, Some(Instant::from_millis(130)), "room time");
    clock.set(Instant::from_millis(6_130));
    host.poll(Budget::UNLIMITED);
    assert_eq!(host.transport().seen, [Seen::Joined(ADA), Seen::Number(9)]);
}

/// Refuses everything, and counts.
struct Full(usize);

impl Transport for Full {
    type Error = Infallible;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<Infallible>> {
        self.0 += 1;
        Err(SendError::WouldBlock)
    }
}

#[test]
fn blocked_rooms_are_retried_once_also_within_small_budgets() {
    const ROOMS: usize = 5;
    let module = module(&speaker(&[("message", "(call $say (i32.const 1))")], ""));
    let mut host = Host::new(ManualClock::new(), Full(0));
    for i in 0..ROOMS {
        let room = host.open(&i.to_string(), &module).expect("it opens");
        for event in [Event::Connect(ADA), Event::message(ADA, "say")] {
            host.enqueue(room, event).expect("it is accepted");
        }
    }
    host.poll(Budget::UNLIMITED);
    assert!(host.is_blocked());
    let before = host.transport().0;
    assert_eq!(host.poll(Budget::fuel(1)), None, "there is nothing to do");
    assert_eq!(host.transport().0 - before, ROOMS);
}
