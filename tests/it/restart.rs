//! Restarting a room after a fault of its guest.

use crate::support::{
    ENV, guest_0_2, limits, module, module_with, next_message, numbers, outputs, speaker,
};
use stateroom_wasmi_host::{
    Backoff, Budget, ClientId, Clock as _, Event, EventError, Fault, FaultCause, FaultPolicy, Host,
    Instant, ManualClock, Module, Output, OutputMessage, OwnedPayload, RecordingTransport, Room,
    RoomKey, RoomOptions, SendError, Transport, Trap,
};
use std::{convert::Infallible, time::Duration};

const NOW: Instant = Instant::ZERO;

fn backoff(first_ms: u64, longest_ms: u64, restarts: u32) -> FaultPolicy {
    FaultPolicy::Restart(Backoff {
        first: Duration::from_millis(first_ms),
        longest: Duration::from_millis(longest_ms),
        restarts,
    })
}

fn options(on_fault: FaultPolicy) -> RoomOptions {
    RoomOptions::new().on_fault(on_fault)
}

fn open(module: &Module, policy: FaultPolicy) -> Room {
    Room::new(module, "test", options(policy)).expect("the room opens")
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn handle(room: &mut Room, now: Instant, event: Event<'_>) {
    room.handle_event(now, event)
        .expect("the room accepts the event");
    if let Some(Output::Joined(_)) = room.peek_output() {
        room.poll_output();
    }
}

fn unreachable(during: &'static str) -> Fault {
    Fault {
        during,
        cause: FaultCause::Trap(Trap::Unreachable),
    }
}

/// Sends 1000 on initialisation, 100 + n on a connect, 200 + n on a disconnect, 300 + n on its nth
/// text and 400 when its timer fires; on bytes, sends 7, sets its timer and fails.
fn event_reporter() -> String {
    speaker(
        &[
            ("initialize", "(call $say (i32.const 1000))"),
            (
                "connect",
                "(call $say (i32.add (i32.const 100) (local.get 0)))",
            ),
            (
                "disconnect",
                "(call $say (i32.add (i32.const 200) (local.get 0)))",
            ),
            (
                "message",
                "(global.set $texts (i32.add (global.get $texts) (i32.const 1)))
                (call $say (i32.add (i32.const 300) (global.get $texts)))",
            ),
            ("timer", "(call $say (i32.const 400))"),
            (
                "binary",
                "(call $set_timer (i32.const 5)) (call $say (i32.const 7)) (unreachable)",
            ),
        ],
        "(global $texts (mut i32) (i32.const 0))",
    )
}

#[test]
fn a_fresh_guest_receives_a_connect_for_each_client() {
    let mut room = open(&module(&event_reporter()), backoff(100, 1000, 3));
    for client in [3, 1, 2] {
        handle(&mut room, NOW, Event::Connect(ClientId(client)));
        numbers(&mut room, NOW);
    }
    handle(&mut room, NOW, Event::message(ClientId(1), "one"));
    assert_eq!(numbers(&mut room, NOW), [301]);

    handle(&mut room, NOW, Event::message(ClientId(1), b"bad"));
    assert_eq!(
        room.stats().memory_bytes,
        0,
        "the memory of a failed guest is freed at once"
    );
    assert_eq!(
        numbers(&mut room, NOW),
        [7],
        "outputs from before the fault are sent"
    );
    assert!(!room.is_closed());
    assert_eq!(
        (room.fault(), room.last_fault()),
        (None, Some(&unreachable("binary")))
    );
    assert_eq!(
        room.poll_timeout(),
        Some(at(100)),
        "the old guest's timer is cancelled"
    );

    // Events during the backoff are queued.
    handle(&mut room, at(50), Event::message(ClientId(2), "two"));
    handle(&mut room, at(50), Event::Disconnect(ClientId(3)));
    handle(&mut room, at(50), Event::Connect(ClientId(4)));
    assert!(numbers(&mut room, at(99)).is_empty());
    assert_eq!(
        numbers(&mut room, at(100)),
        [1000, 101, 102, 103, 301, 203, 104]
    );
    assert_eq!(room.clients(), [1, 2, 4].map(ClientId));
    assert_eq!((room.poll_timeout(), room.stats().faults), (None, 1));
}

#[test]
fn connects_and_disconnects_during_backoff_are_delivered_in_order() {
    let mut room = open(&module(&event_reporter()), backoff(10, 10, 1));
    handle(&mut room, NOW, Event::Connect(ClientId(1)));
    handle(&mut room, NOW, Event::message(ClientId(1), b"bad"));
    numbers(&mut room, NOW);
    for event in
        [Event::Disconnect, Event::Connect, Event::Disconnect].map(|event| event(ClientId(1)))
    {
        handle(&mut room, NOW, event);
    }
    for event in [Event::Connect, Event::Disconnect, Event::Connect].map(|event| event(ClientId(2)))
    {
        handle(&mut room, NOW, event);
    }
    assert_eq!(
        numbers(&mut room, at(10)),
        [1000, 101, 201, 101, 201, 102, 202, 102]
    );
    assert_eq!(room.clients(), [ClientId(2)]);
}

#[test]
fn the_failed_event_is_not_retried() {
    let fails_for_2 = "(if (i32.eq (local.get 0) (i32.const 2)) (then (unreachable)))
        (call $say (local.get 0))";
    // A client whose connect fails is still connected: the fresh guest receives its connect.
    let connect = speaker(&[("connect", fails_for_2)], "");
    let mut room = open(&module(&connect), backoff(1, 1, 1));
    handle(&mut room, NOW, Event::Connect(ClientId(1)));
    handle(&mut room, NOW, Event::Connect(ClientId(2)));
    assert_eq!(numbers(&mut room, NOW), [1]);
    assert_eq!(room.clients(), [1, 2].map(ClientId));

    // A client whose disconnect fails has left: the fresh guest receives nothing of it.
    let disconnect = speaker(
        &[
            ("disconnect", "(unreachable)"),
            ("connect", "(call $say (local.get 0))"),
        ],
        "",
    );
    let mut room = open(&module(&disconnect), backoff(1, 1, 1));
    handle(&mut room, NOW, Event::Connect(ClientId(1)));
    numbers(&mut room, NOW);
    handle(&mut room, NOW, Event::Connect(ClientId(2)));
    numbers(&mut room, NOW);
    handle(&mut room, NOW, Event::Disconnect(ClientId(1)));
    assert_eq!(numbers(&mut room, at(1)), [2]);
    assert_eq!(room.clients(), [2].map(ClientId));
}

#[test]
fn backoff_doubles_up_to_the_longest_and_restarts_are_bounded() {
    let always = guest_0_2("", &[("initialize", "(unreachable)")], "");
    let mut room = open(&module(&always), backoff(100, 350, 4));
    let mut now = NOW;
    for wait in [100, 200, 350, 350] {
        assert!(!room.is_closed());
        now = now + Duration::from_millis(wait);
        assert_eq!(room.poll_timeout(), Some(now));
        room.handle_timeout(now);
    }
    assert!(room.is_closed() && !room.is_restarting());
    assert_eq!(room.fault(), Some(&unreachable("initialize")));
    assert_eq!((room.stats().faults, room.poll_timeout()), (5, None));
    assert_eq!(
        room.handle_event(now, Event::Connect(ClientId(1))),
        Err(EventError::Closed)
    );
}

#[test]
fn the_fault_count_resets_after_running_for_the_longest_wait() {
    for (pause, restarts) in [(999, false), (1000, true)] {
        let mut room = open(&module(&event_reporter()), backoff(10, 1000, 1));
        handle(&mut room, NOW, Event::Connect(ClientId(1)));
        numbers(&mut room, NOW);
        handle(&mut room, NOW, Event::message(ClientId(1), b"bad"));
        numbers(&mut room, at(10));
        let next = at(10 + pause);
        handle(&mut room, next, Event::message(ClientId(1), b"bad"));
        assert_eq!(!room.is_closed(), restarts, "{pause} ms after the restart");
    }
}

#[test]
fn restarts_are_limited_even_if_the_longest_wait_is_zero() {
    let bad = module(&speaker(&[("initialize", "(unreachable)")], ""));
    let mut room = open(&bad, backoff(0, 0, 2));
    for ms in 1..=2 {
        assert!(!room.is_closed());
        room.resume(at(ms));
    }
    assert_eq!(room.fault(), Some(&unreachable("initialize")));
    assert_eq!(room.stats().faults, 3);
}

#[test]
fn backoff_doubles_from_one_nanosecond_and_saturates() {
    let backoff = Backoff {
        first: Duration::from_nanos(1),
        longest: Duration::MAX,
        restarts: u32::MAX,
    };
    let nanos = |fault| backoff.wait(fault).map(|wait| wait.as_nanos());
    assert_eq!(
        [1, 2, 33, 34, 64, 80].map(nanos),
        [0, 1, 32, 33, 63, 79].map(|exponent| Some(1 << exponent))
    );
    assert_eq!(
        [95, 1000, u32::MAX].map(|fault| backoff.wait(fault)),
        [Some(backoff.longest); 3]
    );
}

#[cfg(feature = "wasi")]
#[test]
fn a_start_function_that_fails_on_restart_counts_as_a_fault() {
    // It fails on an odd random number. The first run must succeed to be counted.
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (func $start
            (drop (call $random (i32.const 0) (i32.const 1)))
            (if (i32.and (i32.load8_u (i32.const 0)) (i32.const 1)) (then (unreachable))))
        (start $start) {}"#,
        &guest_0_2("", &[("message", "(unreachable)")], "")["(module".len()..]
    );
    let module = module(&text);
    let mut restarted = 0;
    for seed in 0..100 {
        let options = options(backoff(1, 1, 1)).seed(seed);
        let mut room = Room::new(&module, "test", options).expect("its id is short");
        if room.last_fault().is_some() {
            continue;
        }
        handle(&mut room, NOW, Event::Connect(ClientId(1)));
        handle(&mut room, NOW, Event::message(ClientId(1), "go"));
        room.handle_timeout(at(1));
        if room.is_closed() {
            assert_eq!(
                (room.fault(), room.stats().faults),
                (Some(&unreachable("start")), 2)
            );
        } else {
            assert_eq!((room.stats().faults, room.is_restarting()), (1, false));
            restarted += 1;
        }
    }
    assert!(
        (10..40).contains(&restarted),
        "about a quarter: {restarted}"
    );
}

#[test]
fn a_timer_that_the_start_function_sets_counts_from_the_restart() {
    let text = guest_0_2(
        ENV,
        &[("message", "(unreachable)")],
        "(func $start (call $set_timer (i32.const 5))) (start $start)",
    );
    let mut room = open(&module(&text), backoff(10, 10, 1));
    handle(&mut room, at(100), Event::Connect(ClientId(1)));
    handle(&mut room, at(100), Event::message(ClientId(1), "fail"));
    room.handle_timeout(at(110));
    assert_eq!(room.poll_timeout(), Some(at(115)));
}

#[test]
fn zero_restarts_close_the_room() {
    let mut room = open(&module(&event_reporter()), backoff(10, 10, 0));
    handle(&mut room, NOW, Event::Connect(ClientId(1)));
    numbers(&mut room, NOW);
    handle(&mut room, NOW, Event::message(ClientId(1), b"bad"));
    assert!(room.is_closed());
    assert_eq!(numbers(&mut room, NOW), [7]);
}

#[test]
fn a_fault_in_a_later_slice_restarts_the_room() {
    let text = speaker(
        &[
            (
                "message",
                "(loop (br_if 0 (i32.lt_u (call $count) (i32.const 50000)))) (unreachable)",
            ),
            ("initialize", "(call $say (i32.const 1000))"),
        ],
        "(global $n (mut i32) (i32.const 0))
        (func $count (result i32)
            (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))",
    );
    let mut room = open(
        &module_with(&text, &limits(|limits| limits.fuel_per_slice = 1000)),
        backoff(1, 1, 1),
    );
    handle(&mut room, NOW, Event::Connect(ClientId(1)));
    outputs(&mut room, NOW);
    handle(&mut room, NOW, Event::message(ClientId(1), "go"));
    assert!(room.has_work(NOW), "the room is paused");
    handle(&mut room, NOW, Event::Disconnect(ClientId(1)));
    assert!(numbers(&mut room, NOW).is_empty());
    assert_eq!(room.poll_timeout(), Some(at(1)));
    assert_eq!(numbers(&mut room, at(1)), [1000]);
    assert_eq!(room.stats().waiting_events, 0);
}

#[test]
fn pending_outputs_are_polled_before_the_restart() {
    let mut room = open(&module(&event_reporter()), backoff(1, 1, 1));
    assert_eq!(numbers(&mut room, NOW), [1000]);
    handle(&mut room, NOW, Event::Connect(ClientId(1)));
    numbers(&mut room, NOW);
    handle(&mut room, NOW, Event::message(ClientId(1), b"bad"));
    room.handle_timeout(at(5));
    room.resume(at(5));
    assert!(!room.has_work(at(5)), "an output is pending");
    assert_eq!(
        next_message(&mut room).map(|(_, payload)| payload.as_payload().len()),
        Some(4)
    );
    assert_eq!(room.poll_output(), None);
    assert!(room.has_work(at(5)));
    assert_eq!(numbers(&mut room, at(5)), [1000, 101]);
}

#[cfg(feature = "wasi")]
#[test]
fn a_fresh_guest_draws_different_random_numbers() {
    let imports = r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "env" "send_binary" (func $send (param i32 i32 i32)))"#;
    let draw = "(drop (call $random (i32.const 16) (i32.const 8)))
        (call $send (i32.const 0) (i32.const 16) (i32.const 8))";
    let text = guest_0_2(
        imports,
        &[("initialize", draw), ("binary", "(unreachable)")],
        "",
    );
    let mut room = open(&module(&text), backoff(1, 1, 9));
    let mut drawn = outputs(&mut room, NOW);
    handle(&mut room, NOW, Event::Connect(ClientId(1)));
    for restart in 1..4 {
        handle(&mut room, at(restart), Event::message(ClientId(1), b"bad"));
        drawn.extend(outputs(&mut room, at(restart + 1)));
    }
    assert_eq!(drawn.len(), 4);
    drawn.dedup();
    assert_eq!(drawn.len(), 4, "all numbers differ: {drawn:?}");
}

/// Records the calls of `connected`.
#[derive(Default)]
struct ConnectRecorder {
    connected: Vec<u32>,
    sent: usize,
}

impl Transport for ConnectRecorder {
    type Error = Infallible;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<Infallible>> {
        self.sent += 1;
        Ok(())
    }

    fn connected(&mut self, _: RoomKey, client: ClientId) -> Result<(), SendError<Infallible>> {
        self.connected.push(client.0);
        Ok(())
    }
}

#[test]
fn the_host_wakes_for_a_restart_and_reports_connects_again() {
    let clock = ManualClock::new();
    let mut host =
        Host::new(&clock, ConnectRecorder::default()).with_fault_policy(backoff(100, 100, 1));
    let key = host.open("room", &module(&event_reporter())).unwrap();
    for event in [
        Event::Connect(ClientId(1)),
        Event::message(ClientId(1), b"bad"),
    ] {
        host.enqueue(key, event).unwrap();
    }
    assert_eq!(host.poll(Budget::UNLIMITED), Some(at(100)));
    assert_eq!(host.poll_closed(), None);
    assert_eq!(host.transport().connected, [1]);
    clock.set(at(100));
    assert_eq!(host.poll(Budget::UNLIMITED), None);
    assert_eq!(host.transport().connected, [1, 1]);

    // The second fault in a row closes the room.
    host.enqueue(key, Event::message(ClientId(1), b"bad"))
        .unwrap();
    host.poll(Budget::UNLIMITED);
    let closed = host.poll_closed().expect("the room is closed");
    assert_eq!(
        (closed.fault, closed.stats.faults),
        (Some(unreachable("binary")), 2)
    );
}

#[test]
fn endless_restarts_without_backoff_do_not_block_poll() {
    let always = guest_0_2("", &[("initialize", "(unreachable)")], "");
    let clock = ManualClock::new();
    let mut host =
        Host::new(&clock, RecordingTransport::new()).with_fault_policy(backoff(0, 0, u32::MAX));
    let key = host.open("room", &module(&always)).unwrap();
    for faults in 1..100 {
        let wake_at = host
            .poll(Budget::UNLIMITED)
            .expect("a restart is scheduled");
        assert!(wake_at > clock.now());
        assert_eq!(host.room(key).map(|room| room.stats().faults), Some(faults));
        clock.set(wake_at);
    }
}

#[test]
fn a_room_can_override_the_policy_of_its_host() {
    let mut host = Host::new(ManualClock::new(), RecordingTransport::new())
        .with_fault_policy(backoff(1, 1, 1));
    let module = module(&event_reporter());
    let restarts = host.open("restarts", &module).unwrap();
    let closes = host
        .open_with("closes", &module, options(FaultPolicy::Close))
        .unwrap();
    for room in [restarts, closes] {
        host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
        host.enqueue(room, Event::message(ClientId(1), b"bad"))
            .unwrap();
    }
    host.poll(Budget::UNLIMITED);
    assert_eq!(host.poll_closed().map(|closed| closed.key), Some(closes));
    assert_eq!(host.poll_closed(), None);
    assert_eq!(
        host.room(restarts)
            .map(|room| room.on_fault().to_string())
            .as_deref(),
        Some("restart")
    );
}

#[test]
fn closing_a_room_during_backoff_is_no_fault() {
    let clock = ManualClock::new();
    let mut host =
        Host::new(&clock, RecordingTransport::new()).with_fault_policy(backoff(10, 10, 1));
    let key = host.open("room", &module(&event_reporter())).unwrap();
    for event in [
        Event::Connect(ClientId(1)),
        Event::message(ClientId(1), b"bad"),
    ] {
        host.enqueue(key, event).unwrap();
    }
    host.poll(Budget::UNLIMITED);
    host.close(key).expect("the room is open");
    let closed = host.poll_closed().expect("the room is closed");
    assert_eq!((closed.fault, closed.stats.faults), (None, 1));
    clock.set(at(1000));
    assert_eq!(host.poll(Budget::UNLIMITED), None);
    let last = host
        .transport()
        .sent
        .last()
        .map(|sent| sent.payload.clone());
    assert_eq!(last, Some(OwnedPayload::Bytes(7_i32.to_le_bytes().into())));
}
