//! Pausing in the middle of an event, and resuming later.

use crate::support::{
    ENV, SAY, Said, connect, echo, guest_0_2, limits, module, module_with, next_message, numbers,
    outputs, room, room_of_one, send, speaker,
};
use stateroom_wasmi_host::{
    Budget, ClientId, Compilation, Event, EventError, Fault, FaultCause, Host, Instant, Limits,
    ManualClock, Module, OwnedPayload, RecordingTransport, Room, RoomKey, Trap,
};

const NOW: Instant = Instant::ZERO;
const SLICES: [u64; 8] = [1, 2, 7, 50, 333, 5_000, 100_000, u64::MAX];

fn sliced(slice: u64) -> Limits {
    limits(|limits| {
        limits.fuel_per_slice = slice;
        limits.max_fuel_per_event = Some(1_000_000);
    })
}

/// Guests that compute for a while on a message and send numbers as the result.
fn workers() -> Vec<(&'static str, String)> {
    let worker = |body: &str, more: &str| speaker(&[("message", body)], more);
    // The sum of its bytes shows that memory was filled correctly.
    let sum = "(func $sum (param $ptr i32) (param $len i32) (result i32) (local $sum i32)
        (loop $next
            (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $ptr))))
            (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
            (br_if $next (local.tee $len (i32.sub (local.get $len) (i32.const 1)))))
        (local.get $sum))";
    let count_to = |n: u32, body: &str| {
        format!(
            "(local $i i32) (loop $next {body}
                (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {n}))))"
        )
    };
    vec![
        (
            "loop",
            worker(&(count_to(1000, "") + "(call $say (local.get $i))"), ""),
        ),
        (
            "recursion",
            worker(
                "(call $say (call $fib (i32.const 12)))",
                "(func $fib (param i32) (result i32)
                    (if (result i32) (i32.lt_u (local.get 0) (i32.const 2)) (then (local.get 0))
                        (else (i32.add
                            (call $fib (i32.sub (local.get 0) (i32.const 1)))
                            (call $fib (i32.sub (local.get 0) (i32.const 2)))))))",
            ),
        ),
        (
            "memory.fill",
            worker(
                "(memory.fill (i32.const 4096) (i32.const 3) (i32.const 60000))
                (call $say (call $sum (i32.const 4096) (i32.const 1000)))",
                sum,
            ),
        ),
        (
            "memory.copy",
            worker(
                "(memory.fill (i32.const 100) (i32.const 5) (i32.const 30000))
                (memory.copy (i32.const 32768) (i32.const 100) (i32.const 30000))
                (call $say (call $sum (i32.const 32768) (i32.const 500)))",
                sum,
            ),
        ),
        (
            "memory.grow",
            worker(
                "(call $say (memory.grow (i32.const 5))) (call $say (memory.size))",
                "",
            ),
        ),
        (
            "sends",
            worker(&count_to(200, "(call $say (local.get $i))"), ""),
        ),
        (
            "large sends",
            worker(
                &count_to(
                    20,
                    "(call $send_binary (i32.const 0) (i32.const 4096) (i32.const 4))
            (call $send_message (i32.const 5) (i32.const 8192) (i32.const 4))",
                ),
                "",
            ),
        ),
        (
            "timers",
            worker(&count_to(200, "(call $set_timer (local.get $i))"), ""),
        ),
        (
            "slow malloc",
            speaker(
                &[
                    ("jam_malloc", &(count_to(500, "") + "(i32.const 4096)")),
                    ("jam_free", &count_to(300, "")),
                    ("message", "(call $say (local.get 2))"),
                ],
                "",
            ),
        ),
        (
            "trap",
            worker(
                &(count_to(100, "") + "(call $say (local.get $i)) (unreachable)"),
                "",
            ),
        ),
    ]
}

/// A room's outputs, fuel, fault and timer.
type Outcome = (Vec<Said>, u64, Option<Fault>, Option<Instant>);

fn outcome(module: &Module) -> Outcome {
    let mut room = room(module);
    let mut sent = outputs(&mut room, NOW);
    connect(&mut room, 1);
    sent.extend(outputs(&mut room, NOW));
    send(&mut room, "go on, and on");
    sent.extend(outputs(&mut room, NOW));
    (
        sent,
        room.fuel_used(),
        room.fault().cloned(),
        room.poll_timeout(),
    )
}

#[test]
fn slices_of_any_length_give_the_same_outputs_and_fuel() {
    for (name, text) in workers() {
        let whole = outcome(&module_with(&text, &sliced(u64::MAX)));
        assert!(whole.1 > 0, "{name}");
        if name != "trap" {
            assert_eq!(whole.2, None, "{name}");
        }
        for slice in SLICES {
            assert_eq!(
                outcome(&module_with(&text, &sliced(slice))),
                whole,
                "{name} in slices of {slice}"
            );
        }
    }
}

#[test]
fn sliced_guests_send_the_expected_numbers() {
    // From the source of each worker. The twelfth Fibonacci number is 144.
    let expected: [(&str, &[i32]); 6] = [
        ("loop", &[1000]),
        ("recursion", &[144]),
        ("memory.fill", &[3 * 1000]),
        ("memory.copy", &[5 * 500]),
        ("memory.grow", &[1, 6]),
        ("slow malloc", &["go on, and on".len() as i32]),
    ];
    for (name, text) in workers() {
        let Some((_, expected)) = expected.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        let mut room = room(&module_with(&text, &sliced(100)));
        outputs(&mut room, NOW);
        connect(&mut room, 1);
        outputs(&mut room, NOW);
        send(&mut room, "go on, and on");
        assert_eq!(numbers(&mut room, NOW), *expected, "{name}");
    }
}

#[test]
fn all_compilation_modes_use_the_same_fuel() {
    for (name, text) in workers() {
        let wasm = crate::support::assemble(&text);
        for slice in [1, 100, u64::MAX] {
            let [lazy, eager, on_demand] =
                [Compilation::Lazy, Compilation::Eager, Compilation::OnDemand].map(|compilation| {
                    outcome(&Module::load_with(&wasm, &sliced(slice), compilation).unwrap())
                });
            assert_eq!(
                (&lazy, &lazy),
                (&eager, &on_demand),
                "{name} in slices of {slice}"
            );
        }
    }
}

#[test]
fn each_room_of_a_module_uses_the_same_fuel() {
    for (name, text) in workers() {
        let module = module_with(&text, &sliced(100));
        assert_eq!(outcome(&module), outcome(&module), "{name}");
    }
}

#[test]
fn a_first_call_at_the_end_of_a_slice_is_not_lost() {
    // Functions are compiled on their first call; one of these slices ends exactly there.
    let functions: String = (0..40)
        .map(|i| {
            format!(
                "(func $f{i} (result i32) (i32.add (call $f{}) (i32.const 1)))",
                i + 1
            )
        })
        .collect();
    let text = speaker(
        &[("message", "(call $say (call $f0))")],
        &(functions + "(func $f40 (result i32) (i32.const 0))"),
    );
    for slice in 1..60 {
        let mut room = room(&module_with(&text, &sliced(slice)));
        outputs(&mut room, NOW);
        connect(&mut room, 1);
        send(&mut room, "go");
        assert_eq!(
            numbers(&mut room, NOW),
            [40],
            "slices of {slice}: {:?}",
            room.fault()
        );
    }
}

#[test]
fn table_grow_at_the_end_of_a_slice_runs_once() {
    // If a growth was replayed, the count right before it would be incremented twice.
    let step = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (drop (table.grow $t (ref.null func) (i32.const 7)))";
    let body = step.repeat(20) + "(call $say (global.get $count)) (call $say (table.size $t))";
    let more = "(global $count (mut i32) (i32.const 0)) (table $t 0 funcref)";
    let text = speaker(&[("message", &body)], more);
    for slice in 1..120 {
        let mut room = room(&module_with(&text, &sliced(slice)));
        outputs(&mut room, NOW);
        connect(&mut room, 1);
        send(&mut room, "go");
        assert_eq!(numbers(&mut room, NOW), [20, 140], "slices of {slice}");
    }
}

#[test]
fn memory_grow_at_the_end_of_a_slice_runs_once() {
    let step = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (drop (memory.grow (i32.const 1)))";
    let body = step.repeat(10) + "(call $say (global.get $count)) (call $say (memory.size))";
    let text = speaker(
        &[("message", &body)],
        "(global $count (mut i32) (i32.const 0))",
    );
    for slice in (1..120).chain([500, 1000, 1024, 1025, 3000]) {
        let mut room = room(&module_with(&text, &sliced(slice)));
        outputs(&mut room, NOW);
        connect(&mut room, 1);
        send(&mut room, "go");
        assert_eq!(numbers(&mut room, NOW), [10, 11], "slices of {slice}");
    }
}

/// A guest that, on a message or timer, sends a number, computes, and sends the next number.
fn slow() -> String {
    let work = |begin: i32| {
        format!(
            "(local $i i32) (call $say (i32.const {begin}))
            (loop $next
                (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 500))))
            (call $say (i32.const {}))",
            begin + 1
        )
    };
    speaker(
        &[
            (
                "connect",
                "(call $say (i32.const 5)) (call $set_timer (i32.const 10))",
            ),
            ("disconnect", "(call $say (i32.const 6))"),
            ("timer", &work(30)),
            ("message", &work(10)),
            ("binary", &work(20)),
        ],
        "",
    )
}

#[test]
fn the_running_event_does_not_count_towards_the_inbox() {
    let limits = limits(|limits| {
        (
            limits.max_inbox_events,
            limits.max_inbox_bytes,
            limits.max_message_bytes,
        ) = (2, 20, 20)
    });
    let mut room = room_of_one(&guest_0_2("", &[("message", "(loop (br 0))")], ""), &limits);
    send(&mut room, "ten bytes.");
    assert!(room.has_work(NOW), "the room is paused");
    for (text, expected) in [
        ("ten bytes.", Ok(())),
        ("one too many", Err(EventError::InboxFull)),
    ] {
        assert_eq!(
            room.handle_event(NOW, Event::message(ClientId(1), text)),
            expected
        );
    }
    send(&mut room, "ten bytes.");
    let empty = room.handle_event(NOW, Event::message(ClientId(1), ""));
    assert_eq!(empty, Err(EventError::InboxFull), "two events are queued");
}

#[test]
fn events_do_not_overtake_queued_ones() {
    let mut room = room_of_one(&echo(), &Limits::default());
    for text in ["1", "2"] {
        send(&mut room, text);
    }
    assert!(room.poll_output().is_some());
    assert_eq!(
        room.peek_output(),
        None,
        "the second is still queued, and there is no other work"
    );
    send(&mut room, "3");
    let echoed: Vec<_> = outputs(&mut room, Instant::ZERO)
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    assert_eq!(echoed, ["2", "3"]);
}

#[test]
fn a_paused_room_is_not_reentered_and_queues_events_in_order() {
    let mut room = room(&module_with(&slow(), &sliced(100)));
    connect(&mut room, 1);
    outputs(&mut room, NOW);
    send(&mut room, "begins, and is paused");
    assert!(room.has_work(NOW));
    send(&mut room, b"waits");
    connect(&mut room, 2);
    room.handle_event(NOW, Event::Disconnect(ClientId(1)))
        .unwrap();
    assert_eq!(room.clients(), [ClientId(2)]);
    room.handle_event(NOW, Event::message(ClientId(2), "waits, too"))
        .unwrap();
    assert_eq!(numbers(&mut room, NOW), [10, 11, 20, 21, 5, 6, 10, 11]);
}

#[test]
fn a_disconnect_during_a_message_is_delivered_after_it() {
    let mut room = room(&module_with(&slow(), &sliced(100)));
    connect(&mut room, 1);
    outputs(&mut room, NOW);
    send(&mut room, "begins");
    room.handle_event(NOW, Event::Disconnect(ClientId(1)))
        .unwrap();
    connect(&mut room, 1);
    assert_eq!(numbers(&mut room, NOW), [10, 11, 6, 5], "and can reconnect");
}

#[test]
fn a_timer_due_during_a_paused_event_fires_after_it() {
    let mut room = room(&module_with(&slow(), &sliced(100)));
    connect(&mut room, 1);
    outputs(&mut room, NOW);
    assert_eq!(room.poll_timeout(), Some(Instant::from_millis(10)));
    send(&mut room, "begins");
    let late = Instant::from_millis(50);
    room.handle_timeout(late);
    room.handle_event(late, Event::message(ClientId(1), b"waits"))
        .unwrap();
    assert_eq!(numbers(&mut room, late), [10, 11, 30, 31, 20, 21]);
}

#[test]
fn a_timer_cancelled_by_the_paused_event_does_not_fire() {
    let body = "(local $i i32)
        (loop $next
            (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 500))))
        (call $set_timer (i32.const 0))";
    let text = speaker(
        &[
            ("connect", "(call $set_timer (i32.const 10))"),
            ("message", body),
            ("timer", "(call $say (i32.const 7))"),
        ],
        "",
    );
    let mut room = room(&module_with(&text, &sliced(100)));
    connect(&mut room, 1);
    outputs(&mut room, NOW);
    send(&mut room, "begins");
    assert_eq!(
        room.poll_timeout(),
        None,
        "the paused event may still change it"
    );
    room.handle_timeout(Instant::from_millis(50));
    assert_eq!(numbers(&mut room, Instant::from_millis(50)), [0_i32; 0]);
}

#[test]
fn outputs_of_a_paused_room_can_be_polled() {
    let mut room = room(&module_with(&slow(), &sliced(100)));
    connect(&mut room, 1);
    outputs(&mut room, NOW);
    send(&mut room, "begins");
    let (_, first) = next_message(&mut room).expect("an output is pending");
    assert_eq!(first, OwnedPayload::Bytes(10_u32.to_le_bytes().into()));
    assert_eq!(room.poll_output(), None);
    assert_eq!(numbers(&mut room, NOW), [11]);
}

#[test]
fn initialization_can_be_paused() {
    let body = "(local $i i32)
        (loop $next
            (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 500))))
        (call $say (local.get $i)) (call $say (local.get 1))";
    let constructor = "(func (export \"_initialize\") (call $say (i32.const 1)))";
    let text = guest_0_2(
        ENV,
        &[
            ("initialize", body),
            ("connect", "(call $say (i32.const 2))"),
        ],
        &format!("{SAY} {constructor}"),
    );
    let mut room = room(&module_with(&text, &sliced(20)));
    assert!(room.has_work(NOW));
    connect(&mut room, 1);
    // The id is `test`.
    assert_eq!(numbers(&mut room, NOW), [1, 500, 4, 2]);
}

#[test]
fn a_paused_room_can_be_closed() {
    let mut room = room(&module_with(&slow(), &sliced(100)));
    connect(&mut room, 1);
    outputs(&mut room, NOW);
    send(&mut room, "begins");
    let fuel = room.fuel_used();
    room.close();
    assert!(!room.has_work(Instant::MAX));
    assert_eq!(numbers(&mut room, NOW), [10], "outputs from before closing");
    assert_eq!(room.fuel_used(), fuel);
}

#[test]
fn the_fuel_limit_of_an_event_spans_its_slices() {
    let text = speaker(&[("message", "(loop (br 0))")], "");
    for slice in [100, 3_333, 10_000, u64::MAX] {
        let limits = limits(|limits| {
            limits.max_fuel_per_event = Some(10_000);
            limits.fuel_per_slice = slice;
        });
        let mut room = room(&module_with(&text, &limits));
        connect(&mut room, 1);
        let before = room.fuel_used();
        send(&mut room, "go");
        outputs(&mut room, NOW);
        let cause = FaultCause::OutOfFuel { limit: 10_000 };
        assert_eq!(
            room.fault(),
            Some(&Fault {
                during: "message",
                cause
            })
        );
        assert!(room.fuel_used() - before <= 10_000);
    }
}

#[test]
fn endless_recursion_across_slices_overflows_the_stack() {
    let text = guest_0_2(ENV, &[("message", "(call $f)")], "(func $f (call $f))");
    let limits = limits(|limits| (limits.fuel_per_slice, limits.max_recursion_depth) = (10, 500));
    let mut room = room(&module_with(&text, &limits));
    connect(&mut room, 1);
    send(&mut room, "go");
    outputs(&mut room, NOW);
    let cause = FaultCause::Trap(Trap::StackOverflow);
    assert_eq!(
        room.fault(),
        Some(&Fault {
            during: "message",
            cause
        })
    );
}

type TestHost = Host<ManualClock, RecordingTransport>;

/// A host with `rooms` rooms of a module, each with client 1.
fn host_of(module: &Module, rooms: usize) -> (TestHost, Vec<RoomKey>) {
    let mut host = Host::new(ManualClock::new(), RecordingTransport::new());
    let keys: Vec<_> = (0..rooms)
        .map(|i| host.open(&i.to_string(), module).unwrap())
        .collect();
    for key in &keys {
        host.enqueue(*key, Event::Connect(ClientId(1))).unwrap();
    }
    host.poll(Budget::UNLIMITED);
    (host, keys)
}

fn send_go(host: &mut TestHost, room: RoomKey) {
    host.enqueue(room, Event::message(ClientId(1), "go"))
        .unwrap();
}

/// A guest that loops endlessly and sends a number now and then.
fn spinning() -> String {
    speaker(
        &[(
            "message",
            "(local $i i32) (loop
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (if (i32.eqz (i32.rem_u (local.get $i) (i32.const 50))) (then (call $say (local.get $i))))
        (br 0))",
        )],
        "",
    )
}

#[test]
fn busy_rooms_alternate_slices() {
    let (mut host, keys) = host_of(&module_with(&spinning(), &sliced(2_000)), 2);
    keys.iter().for_each(|key| send_go(&mut host, *key));
    let fuel = |host: &TestHost| [0, 1].map(|i| host.room(keys[i]).unwrap().fuel_used());
    let mut last = fuel(&host);
    for turn in 0..40 {
        // Exactly one slice.
        assert_eq!(
            host.poll(Budget::fuel(1)),
            Some(Instant::ZERO),
            "there is more work"
        );
        let now = fuel(&host);
        let used = [0, 1].map(|i| now[i] - last[i]);
        assert!(
            used[turn % 2] > 1_500 && used[turn % 2] < 2_500,
            "{used:?} in turn {turn}"
        );
        assert_eq!(used[1 - turn % 2], 0, "in turn {turn}");
        last = now;
    }
}

#[test]
fn a_timer_due_in_a_queued_room_does_not_queue_it_twice() {
    let text = speaker(
        &[
            (
                "connect",
                "(if (i32.eq (local.get 0) (i32.const 2)) (then (call $set_timer (i32.const 10))))",
            ),
            ("message", "(loop (br 0))"),
            ("timer", "(loop (br 0))"),
        ],
        "",
    );
    let (mut host, keys) = host_of(&module_with(&text, &sliced(2_000)), 2);
    host.enqueue(keys[0], Event::Connect(ClientId(2))).unwrap();
    host.poll(Budget::UNLIMITED);
    keys.iter().for_each(|key| send_go(&mut host, *key));
    host.clock().set(Instant::from_millis(10));
    let fuel = |host: &TestHost| [0, 1].map(|i| host.room(keys[i]).unwrap().fuel_used());
    let before = fuel(&host);
    for _ in 0..40 {
        host.poll(Budget::fuel(1));
    }
    let used = [0, 1].map(|i| fuel(&host)[i] - before[i]);
    assert!(
        used[0] > 30_000 && used[0].abs_diff(used[1]) <= 2_000,
        "{used:?}"
    );
}

#[test]
fn a_busy_room_does_not_block_another() {
    let spinning = module_with(&spinning(), &sliced(2_000));
    let (mut host, keys) = host_of(&spinning, 1);
    let echo = host.open("echo", &module(&crate::support::echo())).unwrap();
    host.enqueue(echo, Event::Connect(ClientId(1))).unwrap();
    host.poll(Budget::UNLIMITED);
    send_go(&mut host, keys[0]);
    for _ in 0..20 {
        send_go(&mut host, echo);
        host.transport_mut().sent.clear();
        // Enough for a slice of each room.
        host.poll(Budget::fuel(4_000));
        let replies = host
            .transport()
            .sent
            .iter()
            .filter(|sent| sent.room == echo);
        assert_eq!(
            replies.map(|sent| &sent.payload).collect::<Vec<_>>(),
            [&OwnedPayload::Text("go".into())]
        );
        assert!(!host.room(keys[0]).unwrap().is_closed());
    }
}

#[test]
fn poll_returns_when_its_fuel_is_used_up() {
    let (mut host, keys) = host_of(&module_with(&spinning(), &sliced(1_000)), 3);
    keys.iter().for_each(|key| send_go(&mut host, *key));
    let total = |host: &TestHost| host.rooms().map(|(_, room)| room.fuel_used()).sum::<u64>();
    for budget in [1, 1_000, 10_000, 50_000] {
        let (before, sent_before) = (total(&host), host.transport().sent.len());
        assert_eq!(host.poll(Budget::fuel(budget)), Some(Instant::ZERO));
        let used = total(&host) - before;
        // Less than an instruction's worth is never left, and an output is worth some dozens.
        let sending = 100 * (host.transport().sent.len() - sent_before) as u64;
        assert!(used + sending >= budget, "{used} of {budget}");
        assert!(
            used <= budget + 1_100,
            "only the last slice may exceed it: {used} of {budget}"
        );
    }
}

#[test]
fn poll_returns_when_its_time_is_up() {
    /// A clock that advances by a millisecond on each read.
    #[derive(Default)]
    struct Ticking(std::cell::Cell<u64>);

    impl stateroom_wasmi_host::Clock for Ticking {
        fn now(&self) -> Instant {
            self.0.set(self.0.get() + 1);
            Instant::from_millis(self.0.get())
        }
    }

    let mut host = Host::new(Ticking::default(), RecordingTransport::new());
    let room = host
        .open("room", &module_with(&spinning(), &sliced(1_000)))
        .unwrap();
    host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
    host.poll(Budget::UNLIMITED);
    host.enqueue(room, Event::message(ClientId(1), "go"))
        .unwrap();
    let before = host.clock().0.get();
    let until = Instant::from_millis(before + 20);
    assert_eq!(host.poll(Budget::until(until)), Some(Instant::ZERO));
    assert!(host.clock().0.get() <= before + 21);
    assert!(!host.room(room).unwrap().is_closed());
    // The bound that is reached first counts.
    let until = Instant::from_millis(host.clock().0.get() + 1_000_000);
    host.poll(Budget::fuel(1).and_until(until));
    assert!(host.clock().0.get() <= before + 25);
}

#[test]
fn slices_bound_bulk_copies_host_calls_and_recursion() {
    let fill = "(loop (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) (br 0))";
    let calls = "(loop (call $set_timer (i32.const 1)) (br 0))";
    let recursion = "(loop (call $fib (i32.const 20)) (br 0))";
    let fib = "(func $fib (param i32) (if (i32.gt_u (local.get 0) (i32.const 1)) (then
        (call $fib (i32.sub (local.get 0) (i32.const 1)))
        (call $fib (i32.sub (local.get 0) (i32.const 2))))))";
    for body in [fill, calls, recursion, "(loop (br 0))"] {
        let (mut host, keys) = host_of(
            &module_with(&speaker(&[("message", body)], fib), &sliced(5_000)),
            1,
        );
        send_go(&mut host, keys[0]);
        let fuel = |host: &TestHost| host.room(keys[0]).unwrap().fuel_used();
        for _ in 0..10 {
            let before = fuel(&host);
            host.poll(Budget::fuel(1));
            // A copy of 64 KiB is 1,024 units.
            let used = fuel(&host) - before;
            assert!(used > 3_500 && used <= 6_100, "{used} in a slice of {body}");
        }
    }
}

#[test]
fn extra_resumes_do_not_change_the_outputs() {
    // Extra calls of `resume` neither lose nor add outputs.
    let mut room = room(&module_with(&slow(), &sliced(50)));
    connect(&mut room, 1);
    outputs(&mut room, NOW);
    send(&mut room, "begins");
    while room.has_work(NOW) {
        room.resume(NOW);
    }
    // The event is finished; the next one must wait for its outputs.
    send(&mut room, b"waits");
    room.resume(NOW);
    assert!(!room.has_work(NOW));
    assert_eq!(pending_outputs(&mut room), [10, 11]);
    assert_eq!(numbers(&mut room, NOW), [20, 21]);
}

/// The room's pending outputs, without resuming it.
fn pending_outputs(room: &mut Room) -> Vec<u32> {
    std::iter::from_fn(|| {
        let (_, payload) = next_message(room)?;
        let bytes = payload.as_payload().as_bytes();
        Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    })
    .collect()
}
