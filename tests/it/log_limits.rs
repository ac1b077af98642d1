//! Lines of the log that a guest can cause at will: there are few, and they tell how many there are
//! not.

use crate::{
    captured_log,
    support::{assemble, guest_0_2, outputs, speaker},
};
use log::Level::Warn;
use stateroom_wasmi_host::{
    Backoff, Budget, ClientId, Event, FaultPolicy, Host, Instant, Limits, LoadOptions, ManualClock,
    Module, RecordingTransport, Room, RoomOptions,
};
use std::time::Duration;

/// Lines that may come at once, as documented in docs/guarantees.md; then there is one a second.
const BURST: usize = 10;

/// A restart after a nanosecond, as often as it takes.
const RESTART: FaultPolicy = FaultPolicy::Restart(
    Backoff::new()
        .first(Duration::ZERO)
        .longest(Duration::ZERO)
        .restarts(u32::MAX),
);

/// All policies with which a room survives a fault, and what they log.
fn policies() -> Vec<(FaultPolicy, &'static str)> {
    vec![
        (FaultPolicy::Continue, "continues"),
        (RESTART, "restarts"),
        #[cfg(feature = "snapshot")]
        (FaultPolicy::Rollback, "undoes an event"),
    ]
}

/// A guest that fails at bytes, and not at text.
fn fails_at_bytes() -> String {
    guest_0_2("", &[("binary", "unreachable")], "")
}

fn module(text: &str, limits: &Limits) -> Module {
    let options = LoadOptions::new();
    #[cfg(feature = "snapshot")]
    let options = options.snapshots(true);
    Module::load_with(&assemble(text), limits, options).expect("it conforms")
}

/// A room with client 1, after what follows from that.
fn room(id: &str, text: &str, limits: &Limits, policy: FaultPolicy) -> Room {
    captured_log::start();
    let options = RoomOptions::new().on_fault(policy);
    let mut room = Room::new(&module(text, limits), id, options).expect("the room opens");
    handle(&mut room, Instant::ZERO, Event::Connect(ClientId(1)));
    room
}

/// Runs a room until it waits for events; returns the time then, which is later only if it restarts.
fn handle(room: &mut Room, mut now: Instant, event: Event<'_>) -> Instant {
    room.handle_event(now, event).expect("it is accepted");
    outputs(room, now);
    while room.is_restarting() {
        now = room.poll_timeout().expect("it restarts");
        room.handle_timeout(now);
        outputs(room, now);
    }
    now
}

fn fail(room: &mut Room, now: Instant) -> Instant {
    handle(room, now, Event::message(ClientId(1), &[0][..]))
}

fn go_well(room: &mut Room, now: Instant) -> Instant {
    handle(room, now, Event::message(ClientId(1), "text"))
}

/// The warnings of the host since the last call.
fn warnings() -> Vec<String> {
    let lines = captured_log::take().into_iter();
    lines
        .filter(|line| line.level == Warn && line.target.starts_with("stateroom_wasmi_host"))
        .map(|line| line.text)
        .collect()
}

/// How many faults or lost outputs a line tells of.
fn told(line: &str) -> u64 {
    let number_before = |text: &str| -> Option<u64> {
        let (before, _) = line.split_once(text)?;
        before.rsplit([' ', '(']).next()?.parse().ok()
    };
    if let Some(only_counted) = number_before(" more faults were not logged")
        .or_else(|| number_before(" more lost outputs were not logged"))
    {
        return only_counted;
    }
    1 + number_before(" more like it)").unwrap_or(0)
}

fn told_in_all(lines: &[String]) -> u64 {
    lines.iter().map(|line| told(line)).sum()
}

#[test]
fn a_room_whose_every_event_fails_logs_few_lines_and_how_many_there_were() {
    const EVENTS: u64 = 10_000;
    for (policy, what) in policies() {
        let mut room = room("r", &fails_at_bytes(), &Limits::new(), policy);
        let mut now = Instant::ZERO;
        for _ in 0..EVENTS {
            now = fail(&mut room, now);
        }
        assert_eq!(room.stats().faults, EVENTS);
        let lines = warnings();
        assert_eq!(lines.len(), BURST, "{policy}: {lines:#?}");
        for line in &lines {
            assert!(
                line.starts_with(&format!("room \"r\" {what} after a fault: "))
                    && line.contains("`binary`"),
                "{line}"
            );
        }
        drop(room);
        let rest = EVENTS - BURST as u64;
        let note = format!("room \"r\": {rest} more faults were not logged");
        assert_eq!(warnings(), [note], "{policy}");
    }
}

#[test]
fn a_room_that_goes_on_to_fail_logs_a_line_a_second_with_the_count() {
    const SECONDS: u64 = 100;
    for (policy, _) in policies() {
        let mut room = room("r", &fails_at_bytes(), &Limits::new(), policy);
        for millis in 0..SECONDS * 1000 / 10 {
            fail(&mut room, Instant::from_millis(10 * millis));
        }
        let lines = warnings();
        let expected = BURST + SECONDS as usize - 1;
        assert_eq!(lines.len(), expected, "{policy}: {lines:#?}");
        let last = lines.last().expect("there are lines");
        assert!(last.ends_with(" (and 99 more like it)"), "{last}");
        drop(room);
        let faults = SECONDS * 100;
        assert_eq!(told_in_all(&lines) + told_in_all(&warnings()), faults);
    }
}

#[test]
fn a_room_that_fails_no_more_tells_the_count_when_there_is_a_line_for_it() {
    for (policy, _) in policies() {
        let mut room = room("r", &fails_at_bytes(), &Limits::new(), policy);
        let mut now = Instant::ZERO;
        for _ in 0..100 {
            now = fail(&mut room, now);
        }
        warnings();
        now = go_well(&mut room, now + Duration::from_millis(900));
        assert_eq!(warnings(), [""; 0], "{policy}");
        now = go_well(&mut room, now + Duration::from_millis(100));
        let note = "room \"r\": 90 more faults were not logged";
        assert_eq!(warnings(), [note], "{policy}");
        // One line is refilled.
        for _ in 0..5 {
            now = fail(&mut room, now);
        }
        let lines = warnings();
        assert_eq!(lines.len(), 1, "{policy}");
        assert!(lines[0].contains("`binary`"), "{}", lines[0]);
        now = fail(&mut room, now + Duration::from_secs(1));
        let lines = warnings();
        let last = lines.last().expect("it is logged");
        assert!(last.contains("`binary`"), "{last}");
        assert_eq!(told_in_all(&lines), 4 + 1, "{policy}: {lines:#?}");
        // After a pause there may be as many lines as at the beginning.
        now = now + Duration::from_secs(BURST as u64);
        for _ in 0..2 * BURST {
            now = fail(&mut room, now);
        }
        assert_eq!(warnings().len(), BURST, "{policy}");
    }
}

#[test]
fn no_room_silences_another() {
    let [mut one, mut other] =
        ["one", "other"].map(|id| room(id, &fails_at_bytes(), &Limits::new(), RESTART));
    let mut now = Instant::ZERO;
    for _ in 0..100 {
        now = fail(&mut one, now);
    }
    warnings();
    fail(&mut other, now);
    let lines = warnings();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("room \"other\" "), "{}", lines[0]);
}

#[test]
fn a_room_that_cannot_be_instantiated_has_no_new_allowance_each_time() {
    captured_log::start();
    let text = guest_0_2("", &[], r#"(data (i32.const 65536) "x")"#);
    let options = RoomOptions::new().on_fault(RESTART);
    let module = Module::load(&assemble(&text), &Limits::new()).expect("it conforms");
    let mut room = Room::new(&module, "r", options).expect("it opens");
    for _ in 0..1_000 {
        let now = room.poll_timeout().expect("it restarts");
        room.handle_timeout(now);
    }
    let faults = room.stats().faults;
    assert_eq!(faults, 1_001);
    let lines = warnings();
    assert_eq!(lines.len(), BURST, "{lines:#?}");
    room.close();
    assert_eq!(told_in_all(&lines) + told_in_all(&warnings()), faults);
}

#[cfg(feature = "wasi")]
#[test]
fn what_a_failing_room_prints_has_few_notes() {
    // Prints more than it may, and fails.
    let fd_write = r#"(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))"#;
    let prints = r"
        (i32.store (i32.const 32) (i32.const 1024)) (i32.store (i32.const 36) (i32.const 1000))
        (drop (call $fd_write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40)))
        unreachable";
    let text = guest_0_2(fd_write, &[("binary", prints)], "");
    let limits = Limits::new()
        .max_log_bytes_per_event(100)
        .max_log_bytes_per_second(0);
    for (policy, _) in policies() {
        let mut room = room("r", &text, &limits, policy);
        let mut now = Instant::ZERO;
        for _ in 0..1_000 {
            now = fail(&mut room, now);
        }
        assert_eq!(room.stats().faults, 1_000);
        drop(room);
        let lines = captured_log::take();
        let dropped: Vec<u64> = lines
            .iter()
            .filter_map(|line| {
                let text = line.text.strip_prefix("room \"r\": ")?;
                let (dropped, _) = text.split_once(" bytes that it printed were dropped")?;
                dropped.parse().ok()
            })
            .collect();
        assert_eq!(dropped, [1_000, 999_000], "{policy}");
    }
}

#[test]
fn outputs_that_are_lost_have_few_lines_and_a_count() {
    captured_log::start();
    let body = "(local $n i32)
        (loop $again
            (call $say (local.get $n))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $n) (i32.const 1000))))";
    let module = module(&speaker(&[("binary", body)], ""), &Limits::new());
    let clock = ManualClock::new();
    let mut transport = RecordingTransport::new();
    transport.capacity = Some(0);
    transport.fails = true;
    let mut host = Host::new(&clock, transport);
    let key = host.open("r", &module).expect("it opens");
    host.enqueue(key, Event::Connect(ClientId(1)))
        .expect("it is accepted");
    let mut fail = |second: u64| {
        clock.set(Instant::from_millis(1_000 * second));
        let event = Event::message(ClientId(1), &[0][..]);
        host.enqueue(key, event).expect("it is accepted");
        host.poll(Budget::UNLIMITED);
        warnings()
    };
    let lines = fail(0);
    assert_eq!(lines.len(), BURST, "{lines:#?}");
    assert_eq!(
        lines[0],
        "an output of room \"r\" is lost: the transport is set to fail"
    );
    let later = fail(1);
    // After a second without one, the count is told first; then one line says why.
    assert_eq!(later.len(), 2, "{later:#?}");
    assert_eq!(
        later[0],
        "room \"r\": 990 more lost outputs were not logged"
    );
    host.close(key).expect("it is open");
    assert!(host.poll_closed().is_some());
    let told = [lines, later, warnings()].map(|lines| told_in_all(&lines));
    assert_eq!(told.iter().sum::<u64>(), 2_000, "{told:?}");
}
