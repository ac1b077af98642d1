//! Timers of a room and of a host.

use crate::support::{
    ENV, SAY, connect, guest_0_2, guest_0_4, limits, module, next_message, numbers, outputs, room,
    room_of_one, send, speaker,
};
use MessageRecipient::Broadcast;
use stateroom_wasmi_host::{
    Budget, ClientId, Event, Host, Instant, Limits, ManualClock, MessageRecipient, Module,
    OwnedPayload, RecordingTransport, Room, RoomKey, SentMessage,
};
use std::time::Duration;

const NEVER: Option<Instant> = None;

fn ms(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// A guest that sets its timer to each number of a binary message in turn, and sends 7 when it
/// fires.
fn alarm() -> Module {
    module(&speaker(
        &[
            ("binary", SET_TIMERS),
            ("timer", "(call $say (i32.const 7))"),
        ],
        "",
    ))
}

const SET_TIMERS: &str = r"
    (local $end i32)
    (local.set $end (i32.add (local.get 1) (local.get 2)))
    (block $done
        (loop $next
            (br_if $done (i32.ge_u (local.get 1) (local.get $end)))
            (call $set_timer (i32.load (local.get 1)))
            (local.set 1 (i32.add (local.get 1) (i32.const 4)))
            (br $next)))";

fn set(delays: &[u32]) -> Vec<u8> {
    delays
        .iter()
        .flat_map(|delay| delay.to_le_bytes())
        .collect()
}

fn set_timers(room: &mut Room, now: Instant, delays: &[u32]) {
    room.handle_event(now, Event::message(ClientId(1), set(delays).as_slice()))
        .unwrap();
}

fn alarm_room() -> Room {
    let mut room = room(&alarm());
    connect(&mut room, 1);
    room
}

#[test]
fn a_timer_fires_once_at_its_deadline() {
    let mut room = alarm_room();
    assert_eq!(room.poll_timeout(), NEVER);
    set_timers(&mut room, ms(0), &[20]);
    assert_eq!(room.poll_timeout(), Some(ms(20)));
    for early in [Instant::ZERO, ms(19), Instant::from_nanos(19_999_999)] {
        assert!(!room.has_work(early));
        room.handle_timeout(early);
        assert_eq!(numbers(&mut room, early), [0_i32; 0]);
    }
    assert_eq!(room.poll_timeout(), Some(ms(20)));
    assert!(room.has_work(ms(20)));
    room.handle_timeout(ms(20));
    assert_eq!(room.poll_timeout(), NEVER);
    assert_eq!(numbers(&mut room, ms(20)), [7]);
    for later in [ms(20), ms(40), Instant::MAX] {
        room.handle_timeout(later);
        assert_eq!(numbers(&mut room, later), [0_i32; 0]);
    }
}

#[test]
fn setting_a_timer_replaces_the_previous_one() {
    let mut room = alarm_room();
    set_timers(&mut room, ms(0), &[20, 50, 10, 30]);
    assert_eq!(room.poll_timeout(), Some(ms(30)));
    set_timers(&mut room, ms(5), &[10]);
    assert_eq!(room.poll_timeout(), Some(ms(15)));
    set_timers(&mut room, ms(6), &[100]);
    assert_eq!(room.poll_timeout(), Some(ms(106)));
    room.handle_timeout(ms(105));
    assert_eq!(numbers(&mut room, ms(105)), [0_i32; 0]);
    room.handle_timeout(ms(106));
    assert_eq!(numbers(&mut room, ms(106)), [7]);
}

#[test]
fn setting_a_timer_to_zero_cancels_it() {
    let mut room = alarm_room();
    set_timers(&mut room, ms(0), &[20]);
    set_timers(&mut room, ms(1), &[0]);
    assert_eq!(room.poll_timeout(), NEVER);
    room.handle_timeout(Instant::MAX);
    assert_eq!(numbers(&mut room, Instant::MAX), [0_i32; 0]);
    // Also within one event, and when no timer is set.
    set_timers(&mut room, ms(2), &[5, 0]);
    assert_eq!(room.poll_timeout(), NEVER);
    set_timers(&mut room, ms(3), &[0]);
    assert_eq!(room.poll_timeout(), NEVER);
}

/// A guest of ABI 0.4 that broadcasts 2 for a message and 7 for its timer, and sets the timer to
/// zero in each event whose tag is in `setting` (0 init, 1 connect, 3 message, 4 timer).
fn at_once(setting: &[u32]) -> Module {
    let is_tag = |tag: u32| format!("(i32.eq (local.get $tag) (i32.const {tag}))");
    let when = |tag: u32, body: &str| format!("(if {} (then {body}))", is_tag(tag));
    let set = "(call $send (i32.const 0) (i32.const 8))";
    let sets: String = setting.iter().map(|tag| when(*tag, set)).collect();
    let say = |byte: u32| {
        format!(
            "(i32.store8 (i32.const 36) (i32.const {byte}))
             (call $send (i32.const 16) (i32.const 21))"
        )
    };
    let recv = format!(
        "(local $tag i32) (local.set $tag (i32.load (local.get 0))) {sets} {} {}",
        when(3, &say(2)),
        when(4, &say(7))
    );
    // SetTimer { ms_delay: 0 } is at 0; a broadcast of one byte, which is at 36, at 16.
    let data = r#"(data (i32.const 0) "\01") (data (i32.const 28) "\01")"#;
    module(&guest_0_4(&recv, data))
}

/// The bytes that [`at_once`] has sent.
fn bytes_sent(room: &mut Room, now: Instant) -> Vec<String> {
    let sent = outputs(room, now);
    sent.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn setting_a_timer_to_zero_fires_it_at_once_in_abi_0_4() {
    let mut room = room(&at_once(&[3]));
    connect(&mut room, 1);
    assert_eq!(room.poll_timeout(), NEVER);
    for now in [ms(5), ms(5), ms(1005)] {
        room.handle_event(now, Event::message(ClientId(1), "go"))
            .unwrap();
        assert_eq!(room.poll_timeout(), Some(now));
        assert_eq!(bytes_sent(&mut room, now), ["0x02", "0x07"], "at {now}");
        assert_eq!(room.poll_timeout(), NEVER, "it fires once");
    }
}

#[test]
fn a_timer_that_always_fires_at_once_lets_time_pass_in_between() {
    let mut room = room(&at_once(&[1, 3, 4]));
    connect(&mut room, 1);
    for _ in 0..3 {
        // A driver's loop at one time ends.
        room.handle_event(ms(5), Event::message(ClientId(1), "go"))
            .unwrap();
        assert_eq!(bytes_sent(&mut room, ms(5)), ["0x02", "0x07"]);
        let next = ms(5) + Duration::from_nanos(1);
        assert_eq!(room.poll_timeout(), Some(next));
    }
    let mut now = ms(5);
    for _ in 0..3 {
        now = room.poll_timeout().expect("it is set");
        assert_eq!(bytes_sent(&mut room, now), ["0x07"]);
    }
    assert_eq!(now, ms(5) + Duration::from_nanos(3));
}

#[test]
fn a_late_timer_fires_once() {
    let mut room = alarm_room();
    set_timers(&mut room, ms(0), &[10]);
    room.handle_timeout(ms(1_000_000));
    assert_eq!(numbers(&mut room, ms(1_000_000)), [7]);
    assert_eq!(room.poll_timeout(), NEVER);
}

#[test]
fn deadlines_count_from_the_time_of_the_event() {
    let mut room = alarm_room();
    set_timers(&mut room, ms(1234), &[10]);
    assert_eq!(room.poll_timeout(), Some(ms(1244)));
    set_timers(&mut room, Instant::from_nanos(2_000_000_007), &[1]);
    assert_eq!(
        room.poll_timeout(),
        Some(Instant::from_nanos(2_001_000_007))
    );
}

#[test]
fn a_timer_set_by_a_late_timer_counts_from_its_firing() {
    let timer = "(call $say (i32.const 7)) (call $set_timer (i32.const 10))";
    let text = speaker(
        &[
            ("connect", "(call $set_timer (i32.const 10))"),
            ("timer", timer),
        ],
        "",
    );
    let mut room = room_of_one(&text, &Limits::default());
    room.handle_timeout(ms(1005));
    assert_eq!(numbers(&mut room, ms(1005)), [7]);
    assert_eq!(room.poll_timeout(), Some(ms(1015)));
    room.handle_timeout(ms(1015));
    assert_eq!(numbers(&mut room, ms(1015)), [7]);
    assert_eq!(room.poll_timeout(), Some(ms(1025)));
}

#[test]
fn a_timer_set_in_initialize_counts_from_zero() {
    let text = guest_0_2(
        ENV,
        &[("initialize", "(call $set_timer (i32.const 30))")],
        "",
    );
    let room = Room::new(&module(&text), "", Default::default()).unwrap();
    assert_eq!(room.poll_timeout(), Some(ms(30)));
}

#[test]
fn time_that_runs_backwards_is_clamped() {
    let mut room = alarm_room();
    set_timers(&mut room, ms(100), &[1000]);
    set_timers(&mut room, ms(50), &[10]);
    assert_eq!(room.poll_timeout(), Some(ms(110)));
    room.handle_timeout(ms(20));
    assert_eq!(numbers(&mut room, ms(20)), [0_i32; 0]);
    assert_eq!(room.poll_timeout(), Some(ms(110)));
    room.handle_timeout(ms(110));
    assert_eq!(numbers(&mut room, ms(110)), [7]);
}

#[test]
fn deadlines_saturate() {
    let mut room = alarm_room();
    set_timers(&mut room, ms(1), &[u32::MAX]);
    assert_eq!(room.poll_timeout(), Some(ms(1 + 4_294_967_295)));
    let end = Instant::from_nanos(u64::MAX - 1_000_000);
    set_timers(&mut room, end, &[1]);
    assert_eq!(room.poll_timeout(), Some(Instant::MAX), "to the nanosecond");
    for delay in [2, u32::MAX] {
        set_timers(&mut room, end, &[delay]);
        assert_eq!(room.poll_timeout(), Some(Instant::MAX));
    }
    set_timers(&mut room, Instant::MAX, &[1]);
    assert_eq!(room.poll_timeout(), Some(Instant::MAX));
    room.handle_timeout(Instant::MAX);
    assert_eq!(
        next_message(&mut room).map(|(recipient, _)| recipient),
        Some(Broadcast)
    );
    assert_eq!(room.poll_timeout(), NEVER);
}

#[test]
fn arithmetic_on_time_saturates() {
    assert_eq!(Instant::ZERO + Duration::MAX, Instant::MAX);
    assert_eq!(Instant::MAX + Duration::from_nanos(1), Instant::MAX);
    assert_eq!(Instant::from_millis(u64::MAX), Instant::MAX);
    assert_eq!(Instant::from_micros(u64::MAX), Instant::MAX);
    assert_eq!(ms(1).saturating_duration_since(ms(2)), Duration::ZERO);
    assert_eq!(
        ms(5).saturating_duration_since(ms(2)),
        Duration::from_millis(3)
    );
}

#[test]
fn spurious_calls_are_no_ops() {
    let mut room = alarm_room();
    let before = room.stats();
    for _ in 0..3 {
        room.handle_timeout(ms(5));
        room.resume(ms(5));
        assert!(!room.has_work(ms(5)));
        assert_eq!(room.poll_output(), None);
    }
    assert_eq!(room.stats(), before);
}

#[test]
fn a_timer_fires_after_pending_outputs_are_polled() {
    let text = speaker(
        &[
            (
                "connect",
                "(call $set_timer (i32.const 5)) (call $say (i32.const 1))",
            ),
            ("timer", "(call $say (i32.const 7))"),
        ],
        "",
    );
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    room.handle_timeout(ms(5));
    assert_eq!(room.poll_timeout(), Some(ms(5)), "it is still pending");
    assert_eq!(numbers(&mut room, ms(5)), [1, 7]);
}

#[test]
fn a_due_timer_fires_before_queued_events() {
    let text = speaker(
        &[
            (
                "connect",
                "(call $set_timer (i32.const 5)) (call $say (i32.const 1))",
            ),
            ("timer", "(call $say (i32.const 7))"),
            ("message", "(call $say (i32.const 2))"),
        ],
        "",
    );
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    send(&mut room, "queued, since an output is pending");
    assert_eq!(numbers(&mut room, ms(5)), [1, 7, 2]);
}

#[test]
fn a_timer_that_is_always_due_lets_events_pass() {
    let timer = "(call $set_timer (i32.const 1)) (call $say (i32.const 7))";
    let text = speaker(
        &[
            ("connect", timer),
            ("timer", timer),
            ("message", "(call $say (i32.const 2))"),
        ],
        "",
    );
    let clock = ManualClock::new();
    let mut host = Host::new(&clock, RecordingTransport::new());
    let room = host.open("", &module(&text)).unwrap();
    host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
    host.poll(Budget::UNLIMITED);
    for _ in 0..3 {
        host.enqueue(room, Event::message(ClientId(1), "x"))
            .unwrap();
    }
    // So little at a time that the timer is due again at each of the room's turns.
    for _ in 0..7 {
        clock.advance(Duration::from_millis(1));
        host.poll(Budget::fuel(1));
    }
    let sent = &host.transport().sent;
    let said = sent
        .iter()
        .map(|sent| sent.payload.as_payload().as_bytes()[0]);
    assert_eq!(said.collect::<Vec<_>>(), [7, 7, 2, 7, 2, 7, 2, 7]);
}

#[test]
fn a_timer_that_always_fires_at_once_lets_events_pass() {
    let clock = ManualClock::new();
    let mut host = Host::new(&clock, RecordingTransport::new());
    let room = host.open("", &at_once(&[1, 4])).unwrap();
    host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
    host.poll(Budget::UNLIMITED);
    for _ in 0..3 {
        host.enqueue(room, Event::message(ClientId(1), "x"))
            .unwrap();
    }
    for _ in 0..7 {
        clock.advance(Duration::from_nanos(1));
        host.poll(Budget::fuel(1));
    }
    let sent = &host.transport().sent;
    let said = sent
        .iter()
        .map(|sent| sent.payload.as_payload().as_bytes()[0]);
    assert_eq!(said.collect::<Vec<_>>(), [7, 2, 7, 2, 7, 2, 7]);
}

#[test]
fn a_due_timer_fires_before_events_that_came_later_however_often_it_fired() {
    let timer = "(call $set_timer (i32.const 10)) (call $say (i32.const 7))";
    let exports = [
        ("connect", "(call $set_timer (i32.const 10))"),
        ("timer", timer),
        ("message", "(call $say (i32.const 2))"),
    ];
    let mut room = room(&module(&speaker(&exports, "")));
    connect(&mut room, 1);
    room.handle_timeout(ms(10));
    assert_eq!(numbers(&mut room, ms(10)), [7]);
    room.handle_timeout(ms(20));
    assert_eq!(room.stats().waiting_events, 0);
    // While the output of the timer is not taken, an event waits and the timer becomes due again.
    send(&mut room, "x");
    assert_eq!(numbers(&mut room, ms(30)), [7, 7, 2]);
}

#[test]
fn a_timer_that_the_start_function_sets_counts_from_the_start() {
    let text = guest_0_2(
        ENV,
        &[
            ("initialize", "(call $say (i32.const 1))"),
            ("timer", "(call $say (i32.const 7))"),
        ],
        &format!("{SAY} (func $start (call $set_timer (i32.const 5))) (start $start)"),
    );
    let clock = ManualClock::new();
    let mut host = Host::new(&clock, RecordingTransport::new());
    host.open("", &module(&text)).unwrap();
    // The guest starts when the host is first polled.
    clock.set(ms(100));
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(105)));
    clock.set(ms(105));
    assert_eq!(host.poll(Budget::UNLIMITED), NEVER);
    let sent = &host.transport().sent;
    let said = sent
        .iter()
        .map(|sent| sent.payload.as_payload().as_bytes()[0]);
    assert_eq!(said.collect::<Vec<_>>(), [1, 7]);
}

/// A host with `rooms` rooms of a module, each with client 1.
fn host_of<'a>(
    clock: &'a ManualClock,
    module: &Module,
    rooms: usize,
) -> (Host<&'a ManualClock, RecordingTransport>, Vec<RoomKey>) {
    let mut host = Host::new(clock, RecordingTransport::new());
    let keys: Vec<_> = (0..rooms)
        .map(|i| host.open(&i.to_string(), module).unwrap())
        .collect();
    for key in &keys {
        host.enqueue(*key, Event::Connect(ClientId(1))).unwrap();
    }
    assert_eq!(host.poll(Budget::UNLIMITED), NEVER);
    (host, keys)
}

/// The rooms that sent 7 since the last call.
fn fired(host: &mut Host<&ManualClock, RecordingTransport>) -> Vec<RoomKey> {
    let seven = OwnedPayload::Bytes(7_u32.to_le_bytes().into());
    let sent = std::mem::take(&mut host.transport_mut().sent);
    sent.into_iter()
        .map(|SentMessage { room, payload, .. }| {
            assert_eq!(payload, seven);
            room
        })
        .collect()
}

fn set_in(host: &mut Host<&ManualClock, RecordingTransport>, room: RoomKey, delay: u32) {
    host.enqueue(room, Event::message(ClientId(1), set(&[delay]).as_slice()))
        .unwrap();
}

#[test]
fn poll_returns_the_earliest_deadline() {
    let clock = ManualClock::new();
    let (mut host, keys) = host_of(&clock, &alarm(), 3);
    for (key, delay) in keys.iter().zip([30, 10, 20]) {
        set_in(&mut host, *key, delay);
    }
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(10)));
    for (now, expected, next) in [
        (9, vec![], Some(ms(10))),
        (10, vec![keys[1]], Some(ms(20))),
        (20, vec![keys[2]], Some(ms(30))),
        (29, vec![], Some(ms(30))),
        (35, vec![keys[0]], NEVER),
    ] {
        clock.set(ms(now));
        assert_eq!(host.poll(Budget::UNLIMITED), next, "at {now} ms");
        assert_eq!(fired(&mut host), expected, "at {now} ms");
        assert_eq!(host.poll_timeout(), next);
    }
}

#[test]
fn due_timers_fire_by_deadline_then_by_order_of_opening() {
    let clock = ManualClock::new();
    let (mut host, keys) = host_of(&clock, &alarm(), 6);
    for (i, delay) in [(5, 20), (4, 10), (3, 20), (2, 30), (1, 10), (0, 20)] {
        set_in(&mut host, keys[i], delay);
    }
    host.poll(Budget::UNLIMITED);
    clock.set(ms(100));
    assert_eq!(host.poll(Budget::UNLIMITED), NEVER);
    assert_eq!(fired(&mut host), [1, 4, 0, 3, 5, 2].map(|i| keys[i]));
}

#[test]
fn cancelled_and_replaced_timers_do_not_wake_the_host() {
    let clock = ManualClock::new();
    let (mut host, keys) = host_of(&clock, &alarm(), 2);
    set_in(&mut host, keys[0], 10);
    set_in(&mut host, keys[1], 20);
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(10)));
    set_in(&mut host, keys[0], 0);
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(20)));
    set_in(&mut host, keys[1], 40);
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(40)));
    set_in(&mut host, keys[0], 50);
    set_in(&mut host, keys[1], 10);
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(10)));
    clock.set(ms(49));
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(50)));
    assert_eq!(fired(&mut host), [keys[1]]);
    host.close(keys[0]).expect("the room is open");
    host.poll_closed().expect("the room is closed");
    assert_eq!(host.poll(Budget::UNLIMITED), NEVER);
}

#[test]
fn a_postponed_timer_takes_no_turn() {
    let clock = ManualClock::new();
    let (mut host, keys) = host_of(&clock, &alarm(), 3);
    for (delay, rooms) in [(5, &keys[..1]), (10, &keys[1..]), (100, &keys[1..])] {
        for key in rooms {
            set_in(&mut host, *key, delay);
        }
        host.poll(Budget::UNLIMITED);
    }
    clock.set(ms(10));
    // The smallest budget is one turn, and there is no more work than that.
    assert_eq!(host.poll(Budget::fuel(0)), Some(ms(100)));
    assert_eq!(fired(&mut host), keys[..1]);
}

#[test]
fn a_timer_due_while_the_transport_is_blocked_fires_later() {
    let text = speaker(
        &[
            (
                "message",
                "(call $set_timer (i32.const 10)) (call $say (i32.const 7))",
            ),
            ("timer", "(call $say (i32.const 7))"),
        ],
        "",
    );
    let clock = ManualClock::new();
    let (mut host, keys) = host_of(&clock, &module(&text), 1);
    host.transport_mut().capacity = Some(0);
    host.enqueue(keys[0], Event::message(ClientId(1), "go"))
        .unwrap();
    for now in [0, 10, 11] {
        clock.set(ms(now));
        // Only the transport is a reason to poll again.
        assert_eq!(host.poll(Budget::UNLIMITED), NEVER);
        assert!(host.is_blocked());
    }
    host.transport_mut().capacity = None;
    while host.poll(Budget::UNLIMITED).is_some() {}
    assert_eq!(fired(&mut host).len(), 2);
}

#[test]
fn a_timer_set_again_to_the_same_deadline_fires() {
    let clock = ManualClock::new();
    let (mut host, keys) = host_of(&clock, &alarm(), 1);
    set_in(&mut host, keys[0], 10);
    host.poll(Budget::UNLIMITED);
    // Cancelled, then set to the same deadline.
    set_in(&mut host, keys[0], 0);
    host.poll(Budget::UNLIMITED);
    set_in(&mut host, keys[0], 10);
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(10)));
    clock.set(ms(10));
    assert_eq!(host.poll(Budget::UNLIMITED), NEVER);
    assert_eq!(fired(&mut host), [keys[0]]);
}

#[test]
fn a_late_ticking_timer_fires_once_in_each_poll() {
    let timer = "(call $say (i32.const 7)) (call $set_timer (i32.const 10))";
    let module = module(&speaker(
        &[
            ("message", "(call $set_timer (i32.const 10))"),
            ("timer", timer),
        ],
        "",
    ));
    let clock = ManualClock::new();
    let (mut host, keys) = host_of(&clock, &module, 1);
    host.enqueue(keys[0], Event::message(ClientId(1), "start"))
        .unwrap();
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(10)));
    // Many ticks late: missed ticks are skipped.
    clock.set(ms(1000));
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(1010)));
    assert_eq!(fired(&mut host), [keys[0]]);
    for tick in 1..=100 {
        clock.advance(Duration::from_millis(10));
        assert_eq!(
            host.poll(Budget::UNLIMITED),
            Some(ms(1000 + 10 * tick + 10))
        );
        assert_eq!(fired(&mut host), [keys[0]]);
    }
}

#[test]
fn a_clock_that_runs_backwards_fires_no_timer_early_or_twice() {
    let clock = ManualClock::new();
    let (mut host, keys) = host_of(&clock, &alarm(), 1);
    clock.set(ms(100));
    set_in(&mut host, keys[0], 10);
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(110)));
    clock.set(ms(50));
    assert_eq!(host.poll(Budget::UNLIMITED), Some(ms(110)));
    set_in(&mut host, keys[0], 20);
    assert_eq!(
        host.poll(Budget::UNLIMITED),
        Some(ms(120)),
        "the room's time was clamped to 100"
    );
    assert_eq!(fired(&mut host), [] as [RoomKey; 0]);
    clock.set(ms(120));
    host.poll(Budget::UNLIMITED);
    assert_eq!(fired(&mut host), [keys[0]]);
    clock.set(ms(0));
    assert_eq!(host.poll(Budget::UNLIMITED), NEVER);
    clock.set(Instant::MAX);
    assert_eq!(host.poll(Budget::UNLIMITED), NEVER);
    assert_eq!(fired(&mut host), [] as [RoomKey; 0]);
}

#[test]
fn setting_timers_in_a_loop_runs_out_of_fuel() {
    let flood = "(loop $next (call $set_timer (i32.const 5)) (br $next))";
    let limits = limits(|limits| limits.max_fuel_per_event = Some(100_000));
    let mut room = room_of_one(&guest_0_2(ENV, &[("message", flood)], ""), &limits);
    send(&mut room, "go");
    assert_eq!(
        outputs(&mut room, ms(0)),
        [] as [(MessageRecipient, String); 0]
    );
    assert!(room.is_closed());
    assert_eq!(room.poll_timeout(), NEVER);
}
