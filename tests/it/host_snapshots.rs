//! Rooms of a host that are saved, loaded and hibernated.

use crate::{
    snapshots::{load_module, module_of},
    support::{assemble, limits, speaker},
};
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Event, Host, HostLimits, Instant, Limits, ManualClock, OpenError,
    OutputMessage, RecordingTransport, RoomKey, RoomOptions, SaveError, SendError, SnapshotError,
    SnapshotOptions, Transport,
};
use std::{convert::Infallible, time::Duration};

const OPTIONS: SnapshotOptions = SnapshotOptions::new();
const CLIENT: ClientId = ClientId(1);

/// A text sets a timer of ten seconds; the timer and bytes are counted.
fn alarm() -> String {
    let count =
        "(global.set $n (i32.add (global.get $n) (i32.const 1))) (call $say (global.get $n))";
    speaker(
        &[
            ("message", "(call $set_timer (i32.const 10000))"),
            ("binary", count),
            ("timer", count),
        ],
        "(global $n (mut i32) (i32.const 0))",
    )
}

/// A clock with a wall time.
struct WallClock {
    uptime: ManualClock,
    at_zero: Duration,
}

impl Clock for WallClock {
    fn now(&self) -> Instant {
        self.uptime.now()
    }

    fn unix_time_at_zero(&self) -> Option<Duration> {
        Some(self.at_zero)
    }
}

fn host_at(unix_seconds: u64) -> Host<WallClock, RecordingTransport> {
    let clock = WallClock {
        uptime: ManualClock::new(),
        at_zero: Duration::from_secs(unix_seconds),
    };
    Host::new(clock, RecordingTransport::new())
}

fn sent(host: &Host<WallClock, RecordingTransport>) -> Vec<Vec<u8>> {
    let sent = host.transport().sent.iter();
    sent.map(|message| message.payload.as_payload().as_bytes().to_vec())
        .collect()
}

#[test]
fn room_time_goes_on_by_the_wall_time_that_has_passed() {
    let module = module_of(&alarm());
    let mut before = host_at(1000);
    let room = before.open("lobby", &module).expect("it opens");
    before
        .enqueue(room, Event::Connect(CLIENT))
        .expect("it is free");
    before.clock().uptime.set(Instant::from_millis(5000));
    before
        .enqueue(room, Event::message(CLIENT, "set"))
        .expect("it fits");
    before.poll(Budget::UNLIMITED);
    before.clock().uptime.set(Instant::from_millis(7000));
    let snapshot = before.save(room).expect("it can be saved");

    // Another process, a second later.
    let mut after = host_at(1008);
    let room = after.load(&module, &snapshot, OPTIONS).expect("it loads");
    assert_eq!(after.find("lobby"), Some(room));
    assert_eq!(
        after.poll(Budget::UNLIMITED),
        Some(Instant::from_millis(7000))
    );
    after.clock().uptime.set(Instant::from_millis(7000));
    after.poll(Budget::UNLIMITED);
    assert_eq!(
        sent(&after),
        [[1, 0, 0, 0]],
        "the timer fires when it is due"
    );

    // A third, an hour later: it fires at once, and only once.
    let mut late = host_at(1000 + 3600);
    late.load(&module, &snapshot, OPTIONS).expect("it loads");
    late.poll(Budget::UNLIMITED);
    assert_eq!(sent(&late), [[1, 0, 0, 0]]);
    assert_eq!(late.poll(Budget::UNLIMITED), None);

    // A clock that went back: no time has passed.
    let mut early = host_at(10);
    early.load(&module, &snapshot, OPTIONS).expect("it loads");
    assert_eq!(
        early.poll(Budget::UNLIMITED),
        Some(Instant::from_millis(8_000))
    );
}

#[test]
fn the_time_since_the_last_event_has_passed_also_without_wall_time() {
    let module = module_of(&alarm());
    let mut host = Host::new(ManualClock::new(), RecordingTransport::new());
    let mut room = host.open("lobby", &module).expect("it opens");
    host.enqueue(room, Event::Connect(CLIENT))
        .expect("it is free");
    host.enqueue(room, Event::message(CLIENT, "set"))
        .expect("it fits");
    host.poll(Budget::UNLIMITED);
    // It moves again and again before its timer is due, ten seconds after the event.
    for second in [4, 8, 9] {
        host.clock().set(Instant::from_millis(second * 1000));
        let snapshot = host.save(room).expect("it can be saved");
        host.discard(room).expect("it is open");
        room = host.load(&module, &snapshot, OPTIONS).expect("it loads");
        assert_eq!(
            host.poll(Budget::UNLIMITED),
            Some(Instant::from_millis(10_000))
        );
    }
}

#[test]
fn a_room_with_a_wall_time_of_its_own_does_not_jump() {
    let module = module_of(&alarm());
    let mut host = host_at(1_700_000_000);
    let options = RoomOptions::new().unix_time_at_zero(Duration::from_secs(1));
    let room = host.open_with("lobby", &module, options).expect("it opens");
    host.enqueue(room, Event::Connect(CLIENT))
        .expect("it is free");
    host.enqueue(room, Event::message(CLIENT, "set"))
        .expect("it fits");
    host.poll(Budget::UNLIMITED);
    let snapshot = host.save(room).expect("it can be saved");
    let mut later = host_at(1_700_000_003);
    later.load(&module, &snapshot, OPTIONS).expect("it loads");
    assert_eq!(
        later.poll(Budget::UNLIMITED),
        Some(Instant::from_millis(7_000))
    );
}

#[test]
fn an_id_that_is_taken_and_a_full_host_refuse_a_snapshot() {
    let module = module_of(&alarm());
    let limits = HostLimits::new().max_rooms(1);
    let mut host = Host::with_limits(ManualClock::new(), RecordingTransport::new(), limits);
    let room = host.open("lobby", &module).expect("it opens");
    host.poll(Budget::UNLIMITED);
    let snapshot = host.save(room).expect("it can be saved");
    host.discard(room).expect("it is open");
    host.open("attic", &module).expect("there is space again");
    let error = host.load(&module, &snapshot, OPTIONS).unwrap_err();
    assert!(
        matches!(
            error,
            SnapshotError::Open(OpenError::TooManyRooms { limit: 1 })
        ),
        "{error}"
    );
    let mut host = Host::new(ManualClock::new(), RecordingTransport::new());
    host.load(&module, &snapshot, OPTIONS).expect("it loads");
    let error = host.load(&module, &snapshot, OPTIONS).unwrap_err();
    assert!(
        matches!(error, SnapshotError::Open(OpenError::IdTaken)),
        "{error}"
    );
    let room = host.find("lobby").expect("it is open");
    assert_eq!(host.save(room), Ok(snapshot));
    host.discard(room).expect("it is there");
    assert_eq!(host.save(room), Err(SaveError::UnknownRoom));
}

#[test]
fn an_event_that_was_begun_is_finished_and_its_outputs_are_sent() {
    let slow = speaker(
        &[("message", "(local $i i32)
            (call $say (i32.const 1))
            (loop $l
                (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000))))
            (call $say (i32.const 2))")],
        "",
    );
    let small_slices = limits(|limits| limits.fuel_per_slice = 1000);
    let module = load_module(&assemble(&slow), &small_slices).expect("it loads");
    let mut host = host_at(0);
    let room = host.open("lobby", &module).expect("it opens");
    host.enqueue(room, Event::Connect(CLIENT))
        .expect("it is free");
    host.poll(Budget::UNLIMITED);
    host.enqueue(room, Event::message(CLIENT, "go"))
        .expect("it fits");
    host.enqueue(room, Event::message(CLIENT, "again"))
        .expect("it fits");
    host.poll(Budget::fuel(1));
    assert!(host.room(room).expect("it is open").is_runnable());
    let snapshot = host.save(room).expect("the event is finished");
    assert_eq!(
        sent(&host).len(),
        2,
        "the first event has sent, and the second has not begun"
    );
    // Here the second goes on, and there.
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&host).len(), 4);
    let mut other = host_at(0);
    other.load(&module, &snapshot, OPTIONS).expect("it loads");
    other.poll(Budget::UNLIMITED);
    assert_eq!(sent(&other).len(), 2);
}

struct Refusing;

impl Transport for Refusing {
    type Error = Infallible;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<Infallible>> {
        Err(SendError::WouldBlock)
    }
}

#[test]
fn a_room_whose_outputs_are_refused_cannot_be_saved() {
    let module = module_of(&alarm());
    let mut host = Host::new(ManualClock::new(), Refusing);
    let room = host.open("lobby", &module).expect("it opens");
    host.enqueue(room, Event::Connect(CLIENT))
        .expect("it is free");
    host.enqueue(room, Event::message(CLIENT, &b"count"[..]))
        .expect("it fits");
    host.poll(Budget::UNLIMITED);
    assert_eq!(host.save(room), Err(SaveError::OutputsWaiting));
    assert_eq!(host.hibernate(room), Err(SaveError::OutputsWaiting));
}

#[test]
fn hibernating_rooms_are_woken_by_events_and_by_their_timer() {
    let module = module_of(&alarm());
    let mut host = host_at(0);
    let rooms: Vec<RoomKey> = (0..3)
        .map(|i| {
            let room = host.open(&format!("room {i}"), &module).expect("it opens");
            host.enqueue(room, Event::Connect(CLIENT))
                .expect("it is free");
            host.enqueue(room, Event::message(CLIENT, "set"))
                .expect("it fits");
            room
        })
        .collect();
    host.poll(Budget::UNLIMITED);
    for room in &rooms {
        host.hibernate(*room).expect("it is idle");
        host.hibernate(*room).expect("it does already");
        let room = host.room(*room).expect("it is open");
        assert!(room.is_hibernating());
        let stats = room.stats();
        assert_eq!((stats.memory_bytes, stats.clients), (0, 1));
        assert!((1..1000).contains(&stats.hibernated_bytes), "{stats:?}");
    }
    let awake = |host: &Host<WallClock, RecordingTransport>| {
        rooms
            .iter()
            .filter(|room| !host.room(**room).expect("it is open").is_hibernating())
            .count()
    };
    assert_eq!(
        host.poll(Budget::UNLIMITED),
        Some(Instant::from_millis(10_000))
    );
    assert_eq!(awake(&host), 0);
    host.enqueue(rooms[1], Event::message(CLIENT, &b"count"[..]))
        .expect("it fits");
    host.poll(Budget::UNLIMITED);
    assert_eq!((awake(&host), sent(&host).len()), (1, 1));
    host.clock().uptime.set(Instant::from_millis(10_000));
    host.poll(Budget::UNLIMITED);
    assert_eq!((awake(&host), sent(&host).len()), (3, 4));
}

#[test]
fn a_room_has_work_by_its_own_time() {
    let module = module_of(&alarm());
    let mut host = host_at(0);
    // The room's time begins when it is opened.
    host.clock().uptime.set(Instant::from_millis(60_000));
    let room = host.open("late", &module).expect("it opens");
    assert!(host.has_work(room), "it starts");
    host.enqueue(room, Event::Connect(CLIENT))
        .expect("it is free");
    host.poll(Budget::UNLIMITED);
    assert!(!host.has_work(room));
    host.enqueue(room, Event::message(CLIENT, "set"))
        .expect("it fits");
    assert!(host.has_work(room), "an event waits");
    host.poll(Budget::UNLIMITED);
    for is_asleep in [false, true] {
        for (millis, is_due) in [(60_000, false), (69_999, false), (70_000, true)] {
            host.clock().uptime.set(Instant::from_millis(millis));
            assert_eq!(host.has_work(room), is_due, "{millis} {is_asleep}");
        }
        host.hibernate(room).expect("it is idle");
    }
    host.poll(Budget::UNLIMITED);
    assert!(!host.has_work(room));
    host.discard(room).expect("it is there");
    assert!(!host.has_work(room));
}

#[test]
fn a_room_with_events_that_wait_does_not_hibernate() {
    let module = load_module(&assemble(&alarm()), &Limits::new()).expect("it loads");
    let mut host = host_at(0);
    let room = host.open("lobby", &module).expect("it opens");
    host.poll(Budget::UNLIMITED);
    host.enqueue(room, Event::Connect(CLIENT))
        .expect("it is free");
    assert_eq!(host.hibernate(room), Err(SaveError::Busy));
}
