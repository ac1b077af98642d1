//! Many rooms: opening, closing, scheduling, and the clock and seed that they get from the host.

use crate::support::{ENV, echo, guest_0_2, limits, module, module_with};
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Event, EventError, Fault, FaultPolicy, Host, Instant, ManualClock,
    MessageRecipient, Module, OpenError, OutputMessage, OwnedPayload, RecordingTransport, RoomKey,
    SendError, Slice, Transport, UnknownRoom,
};
use std::time::Duration;

pub type TestHost = Host<ManualClock, RecordingTransport>;

pub fn host() -> TestHost {
    Host::new(ManualClock::new(), RecordingTransport::new())
}

/// Opens a room of this id with client 1.
pub fn open(host: &mut TestHost, id: &str, module: &Module) -> RoomKey {
    let key = host.open(id, module).expect("the room opens");
    host.enqueue(key, Event::Connect(ClientId(1)))
        .expect("the client may connect");
    host.poll(Budget::UNLIMITED);
    key
}

pub fn say(host: &mut TestHost, room: RoomKey, text: &str) {
    host.enqueue(room, Event::message(ClientId(1), text))
        .expect("the room accepts it");
}

/// Takes the texts that were sent since the last call.
pub fn sent(host: &mut TestHost) -> Vec<(RoomKey, String)> {
    let sent = std::mem::take(&mut host.transport_mut().sent);
    sent.into_iter()
        .map(|sent| match sent.payload {
            OwnedPayload::Text(text) => (sent.room, text),
            OwnedPayload::Bytes(bytes) => panic!("bytes were sent: {bytes:?}"),
        })
        .collect()
}

pub fn texts<const N: usize>(texts: [(RoomKey, &str); N]) -> Vec<(RoomKey, String)> {
    texts.map(|(room, text)| (room, text.to_owned())).into()
}

#[test]
fn rooms_are_found_by_id_until_reported_closed() {
    let (mut host, module) = (host(), module(&echo()));
    assert_eq!(host.find("a"), None);
    let a = open(&mut host, "a", &module);
    let b = open(&mut host, "", &module);
    assert_ne!(a, b);
    assert_eq!([host.find("a"), host.find("")], [Some(a), Some(b)]);
    let mut rooms: Vec<_> = host
        .rooms()
        .map(|(key, room)| (key, room.id().to_owned()))
        .collect();
    rooms.sort();
    assert_eq!(rooms, texts([(a, "a"), (b, "")]));

    host.close(a).expect("the room is open");
    let closed = host.poll_closed().expect("the room has ended");
    assert_eq!((closed.key, &*closed.id, closed.fault), (a, "a", None));
    assert_eq!(closed.clients, [ClientId(1)]);
    assert_eq!(host.find("a"), None);
    assert!(host.room(a).is_none());
    assert_eq!(host.rooms().len(), 1);
    assert_eq!(host.poll_closed(), None);
}

#[test]
fn open_ids_are_unique_and_keys_are_never_reused() {
    let (mut host, module) = (host(), module(&echo()));
    let mut keys = Vec::new();
    for _ in 0..5 {
        keys.push(open(&mut host, "id", &module));
        let error = host.open("id", &module).unwrap_err();
        assert!(matches!(error, OpenError::IdTaken));
        assert_eq!(error.to_string(), "a room of this id is open already");
        host.close(keys[keys.len() - 1]).expect("the room is open");
        assert!(
            matches!(host.open("id", &module), Err(OpenError::IdTaken)),
            "the closed room has not been polled"
        );
        host.poll_closed().expect("the room has ended");
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn events_for_unknown_rooms_and_clients_are_rejected() {
    let (mut host, module) = (host(), module(&echo()));
    let room = open(&mut host, "room", &module);
    let message = |client: u32| Event::message(ClientId(client), "hi");
    for (event, error, text) in [
        (
            Event::Connect(ClientId(0)),
            EventError::InvalidClientId(ClientId(0)),
            "invalid client id 0: must be between 1 and 2147483647",
        ),
        (
            Event::Connect(ClientId(1 << 31)),
            EventError::InvalidClientId(ClientId(1 << 31)),
            "invalid client id 2147483648: must be between 1 and 2147483647",
        ),
        (
            Event::Connect(ClientId(u32::MAX)),
            EventError::InvalidClientId(ClientId(u32::MAX)),
            "invalid client id 4294967295: must be between 1 and 2147483647",
        ),
        (
            Event::Connect(ClientId(1)),
            EventError::AlreadyConnected(ClientId(1)),
            "client 1 is connected already",
        ),
        (
            message(2),
            EventError::NotConnected(ClientId(2)),
            "client 2 is not connected",
        ),
        (
            message(0),
            EventError::NotConnected(ClientId(0)),
            "client 0 is not connected",
        ),
        (
            Event::Disconnect(ClientId(2)),
            EventError::NotConnected(ClientId(2)),
            "client 2 is not connected",
        ),
    ] {
        assert_eq!(host.enqueue(room, event), Err(error));
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(host.room(room).unwrap().clients(), [ClientId(1)]);
    host.close(room).expect("the room is open");
    assert_eq!(host.enqueue(room, message(1)), Err(EventError::Closed));
    host.poll_closed().expect("the room has ended");
    assert_eq!(host.enqueue(room, message(1)), Err(EventError::UnknownRoom));
    assert_eq!(EventError::UnknownRoom.to_string(), "there is no such room");
    assert_eq!(host.close(room), Err(UnknownRoom));
    assert_eq!(host.poll_closed(), None);
}

#[test]
fn the_largest_client_id_is_valid() {
    let (mut host, module) = (host(), module(&echo()));
    let room = open(&mut host, "room", &module);
    assert_eq!(ClientId::MAX, ClientId(2_147_483_647));
    host.enqueue(room, Event::Connect(ClientId::MAX)).unwrap();
    host.enqueue(room, Event::message(ClientId::MAX, "hi"))
        .unwrap();
    host.poll(Budget::UNLIMITED);
    assert_eq!(
        host.transport().sent[0].recipient,
        MessageRecipient::Client(ClientId::MAX)
    );
}

#[test]
fn a_client_may_reconnect_but_not_disconnect_twice() {
    let (mut host, module) = (host(), module(&echo()));
    let room = open(&mut host, "room", &module);
    for _ in 0..3 {
        host.enqueue(room, Event::Disconnect(ClientId(1))).unwrap();
        let again = host.enqueue(room, Event::Disconnect(ClientId(1)));
        assert_eq!(again, Err(EventError::NotConnected(ClientId(1))));
        host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
    }
    assert_eq!(host.room(room).unwrap().clients(), [ClientId(1)]);
}

#[test]
fn nothing_happens_before_the_host_is_polled() {
    let (mut host, module) = (host(), module(&echo()));
    let room = open(&mut host, "room", &module);
    say(&mut host, room, "hi");
    assert_eq!(sent(&mut host), []);
    assert_eq!(host.poll_timeout(), Some(Instant::ZERO), "there is work");
    assert_eq!(host.poll(Budget::UNLIMITED), None);
    assert_eq!(sent(&mut host), texts([(room, "hi")]));
    assert_eq!(host.poll(Budget::UNLIMITED), None);
    assert_eq!(sent(&mut host), []);
}

#[test]
fn a_room_is_reported_closed_once_in_any_state() {
    let busy = "(loop (br 0))";
    let text = guest_0_2(
        ENV,
        &[
            (
                "message",
                "(call $send_message (local.get 0) (local.get 1) (local.get 2))",
            ),
            ("binary", busy),
        ],
        "",
    );
    let module = module_with(&text, &limits(|limits| limits.fuel_per_slice = 1000));
    for state in ["new", "idle", "ready", "paused", "blocked"] {
        let mut host = host();
        let other = open(&mut host, "other", &module);
        let room = host.open("room", &module).unwrap();
        if state != "new" {
            host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
            host.poll(Budget::UNLIMITED);
        }
        match state {
            "ready" => say(&mut host, room, "waits"),
            "paused" => {
                host.enqueue(room, Event::message(ClientId(1), b""))
                    .unwrap();
                host.poll(Budget::fuel(1));
            }
            "blocked" => {
                host.transport_mut().capacity = Some(0);
                say(&mut host, room, "refused");
                host.poll(Budget::UNLIMITED);
                assert!(host.is_blocked());
            }
            _ => {}
        }
        host.close(room).expect("the room is open");
        host.close(room).expect("the room is open");
        if state == "blocked" {
            assert_eq!(host.poll_closed(), None, "it still has outputs to send");
            host.poll(Budget::UNLIMITED);
            assert_eq!(host.poll_closed(), None);
            host.transport_mut().capacity = None;
            host.poll(Budget::UNLIMITED);
            assert_eq!(sent(&mut host), texts([(room, "refused")]));
        }
        let closed = host.poll_closed().unwrap_or_else(|| panic!("{state}"));
        assert_eq!((closed.key, closed.fault), (room, None), "{state}");
        assert_eq!(
            closed.stats.waiting_events, 0,
            "queued events are dropped: {state}"
        );
        for _ in 0..3 {
            assert_eq!(host.poll(Budget::UNLIMITED), None, "{state}");
            assert_eq!(host.poll_closed(), None, "{state}");
        }
        assert!(!host.is_blocked());
        say(&mut host, other, "still there");
        host.poll(Budget::UNLIMITED);
        assert_eq!(sent(&mut host), texts([(other, "still there")]), "{state}");
    }
}

#[test]
fn closed_rooms_are_reported_in_the_order_of_closing() {
    let (mut host, module) = (host(), module(&echo()));
    let keys = ["a", "b", "c"].map(|id| open(&mut host, id, &module));
    for i in [2, 0, 1] {
        host.close(keys[i]).expect("the room is open");
    }
    let order: Vec<_> = std::iter::from_fn(|| host.poll_closed())
        .map(|closed| closed.key)
        .collect();
    assert_eq!(order, [2, 0, 1].map(|i| keys[i]));
    assert_eq!(host.rooms().len(), 0);
}

#[test]
fn room_stats_count_clients_events_and_messages() {
    let (mut host, module) = (host(), module(&echo()));
    let room = open(&mut host, "room", &module);
    host.enqueue(room, Event::Connect(ClientId(2))).unwrap();
    say(&mut host, room, "1");
    say(&mut host, room, "2");
    let stats = host.room(room).unwrap().stats();
    assert_eq!(
        (
            stats.clients,
            stats.waiting_events,
            stats.messages_in,
            stats.messages_out
        ),
        (2, 3, 2, 0)
    );
    assert_eq!(stats.memory_bytes, 65_536);
    host.poll(Budget::UNLIMITED);
    let after = host.room(room).unwrap().stats();
    assert_eq!(
        (after.waiting_events, after.messages_in, after.messages_out),
        (0, 2, 2)
    );
    assert!(after.fuel_used > stats.fuel_used);
    host.close(room).expect("the room is open");
    let closed = host.poll_closed().expect("the room has ended");
    assert_eq!(
        (closed.stats.fuel_used, closed.stats.messages_out),
        (after.fuel_used, 2)
    );
}

#[test]
fn rooms_run_round_robin_in_the_order_of_becoming_ready() {
    let (mut host, module) = (host(), module(&echo()));
    let keys = ["a", "b", "c"].map(|id| open(&mut host, id, &module));
    for (i, text) in [(1, "1"), (1, "2"), (0, "3"), (2, "4"), (0, "5"), (1, "6")] {
        say(&mut host, keys[i], text);
    }
    host.poll(Budget::UNLIMITED);
    // One event per room and round.
    let [a, b, c] = keys;
    assert_eq!(
        sent(&mut host),
        texts([(b, "1"), (a, "3"), (c, "4"), (b, "2"), (a, "5"), (b, "6")])
    );
}

#[test]
fn a_poll_ends_when_its_budget_is_used_up() {
    let module = module(&echo());
    let mut host = host();
    let keys = ["a", "b"].map(|id| open(&mut host, id, &module));
    let fuel = |host: &TestHost, key: RoomKey| host.room(key).map_or(0, |room| room.fuel_used());
    let before = fuel(&host, keys[0]);
    say(&mut host, keys[0], "x");
    host.poll(Budget::UNLIMITED);
    let one = fuel(&host, keys[0]) - before;
    let now = Instant::from_millis(5);
    host.clock().set(now);
    for (budget, turns) in [
        (Budget::fuel(one), 1),
        // Sending costs something, too.
        (Budget::fuel(3 * one), 2),
        (Budget::until(now), 1),
        (Budget::until(now + Duration::from_nanos(1)), 2),
        (Budget::fuel(3 * one).and_until(now), 1),
    ] {
        sent(&mut host);
        for key in keys {
            say(&mut host, key, "x");
        }
        host.poll(budget);
        assert_eq!(sent(&mut host).len(), turns, "{budget:?}");
        host.poll(Budget::UNLIMITED);
    }
    // Without a deadline the clock does not matter.
    host.clock().set(Instant::MAX);
    sent(&mut host);
    for key in keys {
        say(&mut host, key, "x");
    }
    assert_eq!(host.poll(Budget::UNLIMITED), None);
    assert_eq!(sent(&mut host).len(), 2);
}

#[test]
fn closing_a_queued_room_does_not_hide_other_closed_rooms() {
    for state in ["closed twice", "ready", "blocked"] {
        let (mut host, module) = (host(), module(&echo()));
        let keys = ["a", "b"].map(|id| open(&mut host, id, &module));
        say(&mut host, keys[0], "waits");
        if state == "blocked" {
            host.transport_mut().capacity = Some(0);
            host.poll(Budget::UNLIMITED);
            host.transport_mut().capacity = None;
        }
        host.close(keys[0]).expect("the room is open");
        if state == "closed twice" {
            host.close(keys[0]).expect("the room is open");
        } else {
            host.poll(Budget::UNLIMITED);
        }
        host.close(keys[1]).expect("the room is open");
        let order: Vec<_> = std::iter::from_fn(|| host.poll_closed())
            .map(|closed| closed.key)
            .collect();
        assert_eq!(order, keys, "{state}");
    }
}

#[cfg(feature = "std")]
#[test]
fn the_system_clock_advances_and_has_the_wall_time() {
    use std::time::{SystemTime, UNIX_EPOCH};
    let date = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is after 1970")
    };
    let before = date();
    let clock = stateroom_wasmi_host::SystemClock::new();
    let at_zero = clock.unix_time_at_zero().expect("it knows the wall time");
    assert!((before..=date()).contains(&at_zero));
    let start = clock.now();
    while clock.now() == start {}
    assert!(clock.now() > start);
}

/// Runs an echo on a host with any clock and transport.
fn echoes<C: Clock, T: Transport>(mut host: Host<C, T>) -> Host<C, T> {
    let room = host.open("room", &module(&echo())).unwrap();
    host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
    host.enqueue(room, Event::message(ClientId(1), "hi"))
        .unwrap();
    assert_eq!(host.poll(Budget::UNLIMITED), None);
    host
}

#[test]
fn clocks_and_transports_may_be_borrowed_and_boxed() {
    let mut clock = ManualClock::new();
    let mut transport = RecordingTransport::new();
    echoes(Host::new(&clock, &mut transport));
    echoes(Host::new(&mut clock, Box::new(&mut transport)));
    let boxed: Box<dyn Clock> = Box::new(&clock);
    let dynamic: &mut dyn Transport<Error = &'static str> = &mut transport;
    echoes(Host::new(boxed, dynamic));
    assert_eq!(transport.sent.len(), 3);
}

/// A clock that stands still and has the wall time.
struct Wall;

impl Clock for Wall {
    fn now(&self) -> Instant {
        Instant::from_millis(7)
    }

    fn unix_time_at_zero(&self) -> Option<Duration> {
        Some(Duration::from_secs(9))
    }
}

#[test]
fn a_borrowed_clock_shows_the_same_time() {
    fn shows(clock: impl Clock) {
        assert_eq!(clock.now(), Instant::from_millis(7));
        assert_eq!(clock.unix_time_at_zero(), Some(Duration::from_secs(9)));
    }

    shows(&Wall);
    shows(&mut Wall);
    shows(Box::new(Wall));
    assert_eq!(ManualClock::new().unix_time_at_zero(), None);
}

/// A guest that sends 8 random bytes and the wall time when a client connects.
#[cfg(feature = "wasi")]
fn random_and_time() -> Module {
    let imports = format!(
        r#"{ENV}
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))"#
    );
    let body = "(drop (call $random (i32.const 0) (i32.const 8)))
        (drop (call $time (i32.const 0) (i64.const 0) (i32.const 8)))
        (call $send_binary (i32.const 0) (i32.const 0) (i32.const 16))";
    module(&guest_0_2(&imports, &[("connect", body)], ""))
}

#[cfg(feature = "wasi")]
#[test]
fn random_numbers_differ_by_room_and_by_seed() {
    let draw = |seed: u64| {
        let mut host = host().with_seed(seed);
        for id in ["a", "b", "c"] {
            open(&mut host, id, &random_and_time());
        }
        host.transport()
            .sent
            .iter()
            .map(|sent| sent.payload.clone())
            .collect::<Vec<_>>()
    };
    let first = draw(1);
    assert_eq!(first, draw(1));
    let second = draw(1_000);
    for (i, numbers) in first.iter().enumerate() {
        assert!(
            !first[i + 1..].contains(numbers),
            "two rooms draw the same numbers"
        );
        assert!(!second.contains(numbers), "two seeds give the same numbers");
    }
}

#[cfg(feature = "wasi")]
#[test]
fn rooms_read_the_wall_time_of_the_clock() {
    let mut host = Host::new(Wall, RecordingTransport::new());
    let room = host.open("room", &random_and_time()).unwrap();
    host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
    host.poll(Budget::UNLIMITED);
    let OwnedPayload::Bytes(bytes) = &host.transport().sent[0].payload else {
        panic!("the guest sends bytes")
    };
    assert_eq!(bytes[8..], 9_007_000_000_u64.to_le_bytes());
}

#[test]
fn rooms_that_start_delay_those_that_run_by_one_start_each() {
    // An instance of this module is worth more than a slice.
    let large = module(&echo().replace("\"memory\") 1", "\"memory\") 1000"));
    let small = module(&echo());
    let mut host = host();
    let key = open(&mut host, "echo", &small);
    for i in 0..10 {
        host.open(&format!("large {i}"), &large).expect("it opens");
    }
    let started = |host: &TestHost| {
        let rooms = host.rooms();
        rooms
            .filter(|(_, room)| room.stats().memory_bytes > 65_536)
            .count()
    };
    sent(&mut host);
    for replies in 1..=5 {
        let before = started(&host);
        say(&mut host, key, "x");
        // A budget for one turn, however long that takes.
        host.poll(Budget::fuel(1));
        host.poll(Budget::fuel(1));
        assert_eq!(sent(&mut host).len(), 1, "after {replies}");
        assert!(started(&host) <= before + 1);
    }
    host.poll(Budget::UNLIMITED);
    assert_eq!(started(&host), 10, "none was forgotten");
}

#[test]
fn starting_a_room_uses_up_a_poll_s_budget() {
    let large = module(&echo().replace("\"memory\") 1", "\"memory\") 1000"));
    let mut host = host();
    let keys: Vec<_> = (0..4)
        .map(|i| host.open(&i.to_string(), &large).expect("it opens"))
        .collect();
    let started = |host: &TestHost| {
        let rooms = keys.iter().filter_map(|key| host.room(*key));
        rooms.filter(|room| room.stats().memory_bytes > 0).count()
    };
    assert_eq!(
        started(&host),
        0,
        "nothing is done before the host is polled"
    );
    // 1,000 pages are 65 MB: as much work as many slices.
    for expected in 1..=4 {
        host.poll(Budget::fuel(1_000_000));
        assert_eq!(started(&host), expected);
    }
    assert!(host.room(keys[0]).unwrap().host_work() > 1_000_000);
}

/// A transport that says that each message costs this much.
struct Costly {
    each: u64,
    cost: u64,
    sent: usize,
}

impl Transport for Costly {
    type Error = &'static str;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<&'static str>> {
        self.cost += self.each;
        self.sent += 1;
        Ok(())
    }

    fn take_cost(&mut self) -> u64 {
        std::mem::take(&mut self.cost)
    }
}

#[test]
fn what_a_transport_does_is_divided_and_counted() {
    let broadcasts = "(local $i i32) (loop
        (call $send_binary (i32.const 0) (i32.const 0) (i32.const 1))
        (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))";
    let text = guest_0_2(ENV, &[("message", broadcasts)], "");
    let transport = Costly {
        each: 300_000,
        cost: 0,
        sent: 0,
    };
    let mut host = Host::new(ManualClock::new(), transport);
    let keys = ["a", "b"].map(|id| {
        let key = host.open(id, &module(&text)).expect("it opens");
        host.enqueue(key, Event::Connect(ClientId(1)))
            .expect("it is accepted");
        key
    });
    host.poll(Budget::UNLIMITED);
    for key in keys {
        host.enqueue(key, Event::message(ClientId(1), "go"))
            .expect("it is accepted");
    }
    // A slice is a million, which pays for four of them; then it is the other room's turn.
    host.poll(Budget::fuel(1_000_000));
    assert_eq!(host.transport().sent, 4);
    host.poll(Budget::fuel(1_000_000));
    assert_eq!(host.transport().sent, 8);
    // Whose events are over before all that they sent is out.
    for key in keys {
        assert_eq!(host.room(key).unwrap().stats().events_handled, 2);
    }
    host.poll(Budget::UNLIMITED);
    assert_eq!(host.transport().sent, 200);
}

/// A transport that records slices.
#[derive(Default)]
struct Slices(Vec<(RoomKey, u64, bool, Option<Fault>)>);

impl Transport for Slices {
    type Error = &'static str;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<&'static str>> {
        Ok(())
    }

    fn slice_ended(&mut self, room: RoomKey, slice: Slice<'_>) {
        let fault = slice.fault.cloned();
        self.0.push((room, slice.fuel, slice.is_event_over, fault));
    }
}

#[test]
fn a_transport_is_told_what_each_slice_did() {
    // Some 3.5 slices of work, and a trap at the end if the message is not empty.
    let work = "(local $i i32) (loop
        (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 350))))
        (if (local.get 2) (then (unreachable)))";
    let text = guest_0_2(ENV, &[("message", work)], "");
    let limits = limits(|limits| limits.fuel_per_slice = 1000);
    let module = module_with(&text, &limits);
    let mut host =
        Host::new(ManualClock::new(), Slices::default()).with_fault_policy(FaultPolicy::Continue);
    let room = host.open("room", &module).expect("it opens");
    host.enqueue(room, Event::Connect(ClientId(1)))
        .expect("it is accepted");
    host.poll(Budget::UNLIMITED);
    let opened = std::mem::take(&mut host.transport_mut().0);
    assert!(
        opened
            .iter()
            .all(|(key, _, is_over, fault)| { (*key, *is_over, fault) == (room, true, &None) })
    );
    for text in ["", "fail"] {
        let before = host.room(room).expect("it is open").fuel_used();
        host.enqueue(room, Event::message(ClientId(1), text))
            .expect("it is accepted");
        host.poll(Budget::UNLIMITED);
        let slices = std::mem::take(&mut host.transport_mut().0);
        assert!(slices.len() > 1, "{slices:?}");
        let (last, others) = slices.split_last().expect("there is one");
        assert!(others.iter().all(|slice| !slice.2 && slice.3.is_none()));
        assert!(last.2);
        assert_eq!(last.3.is_some(), text == "fail", "{last:?}");
        let fuel: u64 = slices.iter().map(|slice| slice.1).sum();
        let after = host.room(room).expect("it is open").fuel_used();
        assert_eq!(fuel, after - before);
    }
}
