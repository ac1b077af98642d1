//! WASI's `poll_oneoff`: a guest that sleeps sees its clock move on, and nobody waits.

use crate::support::{assemble, connect, guest_0_2, module, outputs, room};
use stateroom_wasmi_host::{
    Budget, ClientId, Event, Host, Instant, ManualClock, OwnedPayload, RecordingTransport, Room,
    RoomOptions,
};
use std::time::Duration;

const SUCCESS: u16 = 0;
const EBADF: u16 = 8;
const EFAULT: u16 = 21;
const EINVAL: u16 = 28;

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

const SECOND: u64 = 1_000_000_000;
/// What the monotonic clock shows when a room is created.
const MONOTONIC_AT_ZERO: u64 = SECOND;
/// The most that a guest may sleep within one event.
const LONGEST: u64 = 60 * SECOND;

/// Where the guest has the events, 32 bytes each, in its 64 KiB of memory.
const EVENTS: u32 = 56_000;
/// Where payloads, which are arrays of subscriptions, are.
const SUBSCRIPTIONS: u32 = 4096;

/// The two versions of WASI: the name of the module, and the length of a subscription.
#[derive(Clone, Copy, PartialEq)]
struct Wasi {
    module: &'static str,
    subscription_len: usize,
}

const PREVIEW_0: Wasi = Wasi {
    module: "wasi_unstable",
    subscription_len: 56,
};
const PREVIEW_1: Wasi = Wasi {
    module: "wasi_snapshot_preview1",
    subscription_len: 48,
};

#[derive(Clone, Copy)]
enum On {
    Clock {
        id: u32,
        timeout: u64,
        is_absolute: bool,
    },
    Read(u32),
    Write(u32),
}

const fn after(nanos: u64) -> On {
    On::Clock {
        id: MONOTONIC,
        timeout: nanos,
        is_absolute: false,
    }
}

const fn at(id: u32, time: u64) -> On {
    On::Clock {
        id,
        timeout: time,
        is_absolute: true,
    }
}

impl Wasi {
    /// Subscriptions whose user data are 100, 101 and so on.
    fn encode(self, subscriptions: &[On]) -> Vec<u8> {
        let encode = |(userdata, on): (u64, &On)| {
            let mut words: Vec<u64> = vec![userdata];
            match *on {
                On::Clock {
                    id,
                    timeout,
                    is_absolute,
                } => {
                    words.push(0);
                    if self == PREVIEW_0 {
                        words.push(0xaaaa);
                    }
                    // The precision is not used.
                    words.extend([id.into(), timeout, 7, is_absolute.into()]);
                }
                On::Read(fd) => words.extend([1, fd.into()]),
                On::Write(fd) => words.extend([2, fd.into()]),
            }
            words.resize(self.subscription_len / 8, 0xbbbb);
            words
                .into_iter()
                .flat_map(u64::to_le_bytes)
                .collect::<Vec<_>>()
        };
        (100..).zip(subscriptions).flat_map(encode).collect()
    }

    /// A guest that takes bytes for subscriptions, and sends the errno and the number of events, the
    /// events, and what the clocks show after that.
    fn sleeper(self, more: &str) -> String {
        let import = |name: &str, params: &str| {
            let module = self.module;
            format!(r#"(import "{module}" "{name}" (func ${name} (param {params}) (result i32)))"#)
        };
        let imports = r#"
            (import "env" "send_binary" (func $send (param i32 i32 i32)))
            (import "env" "set_timer" (func $set_timer (param i32)))"#
            .to_owned()
            + &import("poll_oneoff", "i32 i32 i32 i32")
            + &import("clock_time_get", "i32 i64 i32");
        let binary = format!(
            "(i32.store (i32.const 4) (i32.const 0))
             (i32.store (i32.const 0) (call $poll_oneoff
                (local.get 1) (i32.const {EVENTS})
                (i32.div_u (local.get 2) (i32.const {}))
                (i32.const 4)))
             (call $send (i32.const 0) (i32.const 0) (i32.const 8))
             (call $send (i32.const 0) (i32.const {EVENTS})
                (i32.mul (i32.load (i32.const 4)) (i32.const 32)))
             (call $show)",
            self.subscription_len
        );
        let show = "
            (func $show
                (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 16)))
                (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 24)))
                (call $send (i32.const 0) (i32.const 16) (i32.const 16)))";
        guest_0_2(
            &imports,
            &[("binary", &binary), ("message", "(call $show)")],
            &format!("{show} {more}"),
        )
    }

    fn room(self) -> Room {
        let mut room = room(&module(&self.sleeper("")));
        connect(&mut room, 1);
        room
    }

    /// The result of waiting for these at `now`.
    fn poll(self, room: &mut Room, now: Instant, subscriptions: &[On]) -> Polled {
        let bytes = self.encode(subscriptions);
        room.handle_event(now, Event::message(ClientId(1), bytes.as_slice()))
            .unwrap();
        polled(room, now)
    }
}

#[derive(Debug, PartialEq)]
struct Polled {
    errno: u16,
    /// User data, errno, type, bytes available and flags.
    events: Vec<(u64, u16, u8, u64, u16)>,
    realtime: u64,
    monotonic: u64,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..][..8].try_into().unwrap())
}

fn sent(room: &mut Room, now: Instant) -> Vec<Vec<u8>> {
    let sent = outputs(room, now);
    assert_eq!(room.fault(), None);
    let unhex = |text: String| {
        let digits = text.strip_prefix("0x").expect("bytes").to_owned();
        (0..digits.len() / 2)
            .map(|i| u8::from_str_radix(&digits[2 * i..][..2], 16).unwrap())
            .collect()
    };
    sent.into_iter().map(|(_, text)| unhex(text)).collect()
}

fn polled(room: &mut Room, now: Instant) -> Polled {
    let [counts, events, clocks] = sent(room, now).try_into().expect("three messages");
    let event = |bytes: &[u8]| {
        (
            word(bytes, 0),
            u16::from_le_bytes([bytes[8], bytes[9]]),
            bytes[10],
            word(bytes, 16),
            u16::from_le_bytes([bytes[24], bytes[25]]),
        )
    };
    assert_eq!(word(&counts, 0) >> 32, events.len() as u64 / 32);
    Polled {
        errno: counts[0].into(),
        events: events.chunks(32).map(event).collect(),
        realtime: word(&clocks, 0),
        monotonic: word(&clocks, 8),
    }
}

/// The event of a clock's subscription.
const fn rang(userdata: u64) -> (u64, u16, u8, u64, u16) {
    (userdata, SUCCESS, 0, 0, 0)
}

/// What the guest's clocks show, as a time of the room.
fn shows(room: &mut Room, now: Instant) -> u64 {
    room.handle_event(now, Event::message(ClientId(1), "show"))
        .unwrap();
    let [clocks] = sent(room, now).try_into().expect("one message");
    let shown = word(&clocks, 8) - MONOTONIC_AT_ZERO;
    assert_eq!(word(&clocks, 0), shown, "both clocks move on");
    shown
}

#[test]
fn a_sleep_moves_the_clocks_on_at_once() {
    for wasi in [PREVIEW_0, PREVIEW_1] {
        let mut room = wasi.room();
        let now = Instant::from_millis(500);
        let slept = wasi.poll(&mut room, now, &[after(5_000_000)]);
        let expected = 505_000_000;
        assert_eq!(
            slept,
            Polled {
                errno: SUCCESS,
                events: vec![rang(100)],
                realtime: expected,
                monotonic: expected + MONOTONIC_AT_ZERO,
            }
        );
    }
}

#[test]
fn a_sleep_may_end_at_a_time_of_a_clock() {
    let options = RoomOptions::new().unix_time_at_zero(Duration::from_secs(1_700_000_000));
    let now = Instant::from_millis(500);
    for wasi in [PREVIEW_0, PREVIEW_1] {
        for (id, time, expected) in [
            (MONOTONIC, MONOTONIC_AT_ZERO + 600_000_000, 600_000_000),
            (REALTIME, 1_700_000_000 * SECOND + 700_000_000, 700_000_000),
            // The CPU's time is the monotonic clock's.
            (2, MONOTONIC_AT_ZERO + 800_000_000, 800_000_000),
            (3, MONOTONIC_AT_ZERO + 900_000_000, 900_000_000),
            // It has passed.
            (MONOTONIC, 0, 500_000_000),
            (MONOTONIC, MONOTONIC_AT_ZERO + 499_999_999, 500_000_000),
            (REALTIME, 1, 500_000_000),
        ] {
            let mut room = Room::new(&module(&wasi.sleeper("")), "", options).unwrap();
            connect(&mut room, 1);
            let slept = wasi.poll(&mut room, now, &[at(id, time)]);
            assert_eq!((slept.errno, slept.events), (SUCCESS, vec![rang(100)]));
            assert_eq!(slept.monotonic, MONOTONIC_AT_ZERO + expected, "{id} {time}");
            assert_eq!(slept.realtime, 1_700_000_000 * SECOND + expected);
        }
    }
}

#[test]
fn the_first_of_several_times_ends_a_sleep() {
    let mut room = PREVIEW_1.room();
    let timeouts = [
        after(30),
        after(10),
        after(20),
        at(MONOTONIC, MONOTONIC_AT_ZERO + 10),
    ];
    let slept = PREVIEW_1.poll(&mut room, Instant::ZERO, &timeouts);
    assert_eq!(slept.events, [rang(101), rang(103)]);
    assert_eq!(slept.realtime, 10);
}

#[test]
fn streams_are_ready_at_once() {
    for wasi in [PREVIEW_0, PREVIEW_1] {
        let mut room = wasi.room();
        let all = [
            after(10),
            On::Read(0),
            On::Write(1),
            On::Write(2),
            // Not open in that direction, or not at all.
            On::Write(0),
            On::Read(1),
            On::Read(3),
            On::Write(u32::MAX),
            after(0),
        ];
        let polled = wasi.poll(&mut room, Instant::ZERO, &all);
        let hung_up = 1;
        let expected = [
            (101, SUCCESS, 1, 0, hung_up),
            (102, SUCCESS, 2, 65_536, 0),
            (103, SUCCESS, 2, 65_536, 0),
            (104, EBADF, 2, 0, 0),
            (105, EBADF, 1, 0, 0),
            (106, EBADF, 1, 0, 0),
            (107, EBADF, 2, 0, 0),
            rang(108),
        ];
        assert_eq!((polled.errno, polled.events), (SUCCESS, expected.to_vec()));
        assert_eq!(polled.realtime, 0, "nobody slept");
    }
}

#[test]
fn a_guest_that_looks_again_sees_time_pass() {
    // As a runtime does: it sleeps a little, until the clock shows that it is late enough.
    let mut room = PREVIEW_1.room();
    for i in 1..=100 {
        let slept = PREVIEW_1.poll(&mut room, Instant::ZERO, &[after(10)]);
        assert_eq!(slept.realtime, 10 * i);
    }
}

#[test]
fn an_event_sleeps_for_a_minute_at_most() {
    let mut room = PREVIEW_1.room();
    for long in [2 * LONGEST, u64::MAX] {
        for subscription in [
            after(long),
            at(MONOTONIC, long.saturating_add(MONOTONIC_AT_ZERO)),
        ] {
            let mut room = PREVIEW_1.room();
            let slept = PREVIEW_1.poll(&mut room, Instant::from_nanos(5), &[subscription]);
            // The guest is woken all the same.
            assert_eq!((slept.errno, slept.events), (SUCCESS, vec![rang(100)]));
            assert_eq!(slept.realtime, 5 + LONGEST);
        }
    }
    // The longest sleep is all that an event may sleep, and the next may again.
    for i in 1..=3 {
        let slept = PREVIEW_1.poll(&mut room, Instant::ZERO, &[after(LONGEST)]);
        assert_eq!(slept.realtime, i * LONGEST);
    }
}

#[test]
fn the_minute_is_for_all_sleeps_of_an_event() {
    // The handler sleeps twice.
    let twice = PREVIEW_1.sleeper("").replacen(
        "(i32.store (i32.const 0) (call $poll_oneoff",
        "(drop (call $poll_oneoff
            (local.get 1) (i32.const 8000) (i32.const 1) (i32.const 7000)))
         (i32.store (i32.const 0) (call $poll_oneoff",
        1,
    );
    let mut room = room(&module(&twice));
    connect(&mut room, 1);
    let slept = PREVIEW_1.poll(&mut room, Instant::ZERO, &[after(20 * SECOND)]);
    assert_eq!(slept.realtime, 40 * SECOND);
    let slept = PREVIEW_1.poll(
        &mut room,
        Instant::from_millis(40_000),
        &[after(40 * SECOND)],
    );
    assert_eq!(slept.realtime, 40 * SECOND + LONGEST);
}

#[test]
fn the_clock_waits_for_the_room_to_catch_up() {
    let mut room = PREVIEW_1.room();
    let ms = Instant::from_millis;
    PREVIEW_1.poll(&mut room, ms(1_000), &[after(10 * SECOND)]);
    // It does not run backwards.
    for (now, shown) in [
        (1_001, 11_000),
        (10_999, 11_000),
        (11_000, 11_000),
        (11_001, 11_001),
    ] {
        assert_eq!(shows(&mut room, ms(now)), shown * 1_000_000, "at {now} ms");
    }
}

#[test]
fn a_sleep_does_not_move_the_timer() {
    let text = PREVIEW_1.sleeper("").replace(
        "(call $show))",
        "(call $show) (call $set_timer (i32.const 20)))",
    );
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    PREVIEW_1.poll(&mut room, Instant::from_millis(5), &[after(10 * SECOND)]);
    assert_eq!(room.poll_timeout(), Some(Instant::from_millis(25)));
}

#[test]
fn a_start_function_may_sleep() {
    let start = "(func $start
        (i32.store (i32.const 2016) (i32.const 1))
        (i64.store (i32.const 2024) (i64.const 3000000))
        (drop (call $poll_oneoff (i32.const 2000) (i32.const 1000) (i32.const 1) (i32.const 900)))
        (call $show))
        (start $start)";
    let clock = ManualClock::new();
    let mut host = Host::new(&clock, RecordingTransport::new());
    clock.set(Instant::from_millis(6_000));
    host.open("", &module(&PREVIEW_1.sleeper(start))).unwrap();
    host.poll(Budget::UNLIMITED);
    let OwnedPayload::Bytes(clocks) = &host.transport().sent[0].payload else {
        panic!("the guest sends bytes")
    };
    assert_eq!(word(clocks, 8), MONOTONIC_AT_ZERO + 3_000_000);
}

/// The errno of `poll_oneoff` with these arguments, for memory that begins with a subscription at
/// [`SUBSCRIPTIONS`].
fn errno(wasi: Wasi, subscriptions: &[u8], arguments: [u32; 4]) -> u16 {
    let [at, events, count, written] = arguments.map(|argument| format!("(i32.const {argument})"));
    let text = wasi.sleeper("").replacen(
        "(i32.store (i32.const 0) (call $poll_oneoff",
        &format!(
            "(i32.store (i32.const 0) (call $poll_oneoff {at} {events} {count} {written}))
             (call $send (i32.const 0) (i32.const 0) (i32.const 4))
             (call $show) (return)
             (i32.store (i32.const 0) (call $poll_oneoff"
        ),
        1,
    );
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    room.handle_event(Instant::ZERO, Event::message(ClientId(1), subscriptions))
        .unwrap();
    let [errno, clocks] = sent(&mut room, Instant::ZERO)
        .try_into()
        .expect("two messages");
    let errno = u16::from_le_bytes([errno[0], errno[1]]);
    let has_slept = word(&clocks, 0) != 0;
    assert_eq!(errno == SUCCESS, has_slept, "nothing happens if it fails");
    errno
}

#[test]
fn invalid_calls_return_an_error_and_do_not_sleep() {
    for wasi in [PREVIEW_0, PREVIEW_1] {
        let sleep = wasi.encode(&[after(10)]);
        let len = wasi.subscription_len as u32;
        let errno = |bytes: &[u8], arguments| errno(wasi, bytes, arguments);
        let good = [SUBSCRIPTIONS, 1024, 1, 512];
        assert_eq!(errno(&sleep, good), SUCCESS);
        let with = |i: usize, value: u32| {
            let mut arguments = good;
            arguments[i] = value;
            arguments
        };
        // Pointers.
        for (i, len) in [(0, len), (1, 32), (3, 4)] {
            for ptr in [65_536 - len + 1, 65_536, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
                assert_eq!(
                    errno(&sleep, with(i, ptr)),
                    EFAULT,
                    "argument {i} is {ptr:#x}"
                );
            }
        }
        for (i, len) in [(1, 32), (3, 4)] {
            assert_eq!(errno(&sleep, with(i, 65_536 - len)), SUCCESS);
        }
        // Counts.
        for count in [0, 1025, 65_536, u32::MAX] {
            assert_eq!(errno(&sleep, with(2, count)), EINVAL);
        }
        // Numbers that are not defined: the type, the clock, and the flags.
        let clock = wasi.subscription_len - 32;
        for (at, byte) in [
            (8, 3),
            (8, 0xff),
            (clock, 4),
            (clock + 1, 1),
            (clock + 24, 2),
        ] {
            let mut bytes = sleep.clone();
            bytes[at] = byte;
            assert_eq!(errno(&bytes, good), EINVAL, "byte {at} is {byte}");
        }
    }
}

#[test]
fn at_most_1024_subscriptions_are_served_at_once() {
    let text = PREVIEW_1.sleeper("").replace(
        r#"(memory (export "memory") 1)"#,
        r#"(memory (export "memory") 2)"#,
    );
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    let slept = PREVIEW_1.poll(&mut room, Instant::ZERO, &[after(10); 1024]);
    assert_eq!((slept.errno, slept.events.len()), (SUCCESS, 1024));
    let refused = PREVIEW_1.poll(&mut room, Instant::ZERO, &[after(10); 1025]);
    assert_eq!((refused.errno, refused.events.len()), (EINVAL, 0));
}

#[test]
fn events_may_overwrite_their_subscriptions() {
    let wasi = PREVIEW_1;
    let in_place = wasi
        .sleeper("")
        .replace(&EVENTS.to_string(), &SUBSCRIPTIONS.to_string());
    let mut room = room(&module(&in_place));
    connect(&mut room, 1);
    let slept = wasi.poll(&mut room, Instant::ZERO, &[after(10); 8]);
    assert_eq!(
        slept.events,
        [100, 101, 102, 103, 104, 105, 106, 107].map(rang)
    );
}

#[test]
fn subscriptions_cost_fuel() {
    let mut room = PREVIEW_1.room();
    let mut cost = |count: usize| {
        let before = room.fuel_used();
        PREVIEW_1.poll(&mut room, Instant::ZERO, &vec![after(10); count]);
        room.fuel_used() - before
    };
    // The second of the same length, for which the buffer is there.
    let [few, many] = [1, 100].map(|count| [(); 2].map(|()| cost(count))[1]);
    assert!(many - few >= 99 * 16, "{few} for one, {many} for a hundred");
}

#[test]
fn a_guest_that_sleeps_for_ever_runs_out_of_fuel() {
    let text = PREVIEW_1.sleeper("").replacen(
        "(i32.store (i32.const 4) (i32.const 0))",
        "(loop $again
            (drop (call $poll_oneoff
                (local.get 1) (i32.const 8000) (i32.const 1) (i32.const 7000)))
            (br $again))
         (i32.store (i32.const 4) (i32.const 0))",
        1,
    );
    let limits = crate::support::limits(|limits| limits.max_fuel_per_event = Some(100_000));
    let wasm = assemble(&text);
    let module = stateroom_wasmi_host::Module::load(&wasm, &limits).unwrap();
    let mut room = room(&module);
    connect(&mut room, 1);
    let sleep = PREVIEW_1.encode(&[after(1)]);
    room.handle_event(Instant::ZERO, Event::message(ClientId(1), sleep.as_slice()))
        .unwrap();
    outputs(&mut room, Instant::ZERO);
    assert!(room.is_closed());
}
