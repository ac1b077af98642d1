//! Warm events allocate nothing, and memory does not grow however long a guest repeats itself.
//!
//! A separate test target, since it installs a counting global allocator. Counts are per thread, so
//! that tests do not count each other.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod support {
    pub mod counting_allocator;
}

use stateroom_wasmi_host::{
    Budget, ClientId, Compilation, Event, Host, Instant, Limits, ManualClock, Module,
    OutputMessage, Room, RoomKey, RoomOptions, SendError, Transport,
};
use std::{convert::Infallible, time::Duration};
use support::counting_allocator::{ALLOCATIONS, LIVE_BYTES};

/// A transport that counts messages and bytes.
#[derive(Default)]
struct Sink {
    messages: usize,
    bytes: usize,
    full: bool,
}

impl Transport for Sink {
    type Error = Infallible;

    fn send(
        &mut self,
        _: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Infallible>> {
        if self.full {
            return Err(SendError::WouldBlock);
        }
        self.messages += 1;
        self.bytes += message.payload.len();
        Ok(())
    }
}

const CLIENT: ClientId = ClientId(1);

/// An echo that sets its timer with each message to one of 16 delays, and broadcasts when the timer
/// fires.
const ECHO: &str = r#"(module
    (import "env" "send_message" (func $send_message (param i32 i32 i32)))
    (import "env" "send_binary" (func $send_binary (param i32 i32 i32)))
    (import "env" "set_timer" (func $set_timer (param i32)))
    (memory (export "memory") 1)
    (global $delay (mut i32) (i32.const 0))
    (func $set
        (global.set $delay (i32.and (i32.add (global.get $delay) (i32.const 7)) (i32.const 15)))
        (call $set_timer (i32.add (global.get $delay) (i32.const 1))))
    (func (export "jam_malloc") (param i32) (result i32) (i32.const 4096))
    (func (export "jam_free") (param i32 i32))
    (func (export "initialize") (param i32 i32))
    (func (export "connect") (param i32))
    (func (export "disconnect") (param i32))
    (func (export "timer") (call $send_message (i32.const 0) (i32.const 0) (i32.const 5)))
    (func (export "message") (param i32 i32 i32)
        (call $set) (call $send_message (local.get 0) (local.get 1) (local.get 2)))
    (func (export "binary") (param i32 i32 i32)
        (call $set) (call $send_binary (local.get 0) (local.get 1) (local.get 2))))"#;

fn echo(limits: &Limits) -> Module {
    let wasm = wat::parse_str(ECHO).expect("the guest is valid text");
    Module::load_with(&wasm, limits, Compilation::Eager).expect("the guest fits the ABI")
}

type TestHost = Host<ManualClock, Sink>;

fn host_of(rooms: usize) -> (TestHost, Vec<RoomKey>) {
    let mut host = Host::new(ManualClock::new(), Sink::default());
    let module = echo(&Limits::default());
    let keys: Vec<_> = (0..rooms)
        .map(|i| host.open(&i.to_string(), &module).expect("it opens"))
        .collect();
    for key in &keys {
        host.enqueue(*key, Event::Connect(CLIENT))
            .expect("the client may connect");
    }
    host.poll(Budget::UNLIMITED);
    (host, keys)
}

/// A round of all routine events: messages, a reconnect, backpressure and a timer.
fn round(host: &mut TestHost, keys: &[RoomKey]) {
    for key in keys {
        for event in [
            Event::message(CLIENT, "some text of a client"),
            Event::message(CLIENT, &[0xff; 500]),
            Event::message(CLIENT, ""),
            Event::Disconnect(CLIENT),
            Event::Connect(CLIENT),
        ] {
            host.enqueue(*key, event).expect("the room accepts it");
        }
    }
    // The transport refuses at first, so that the room's next events wait.
    host.transport_mut().full = true;
    host.poll(Budget::UNLIMITED);
    host.transport_mut().full = false;
    host.poll(Budget::UNLIMITED);
    host.clock().advance(Duration::from_millis(30));
    host.poll(Budget::UNLIMITED);
}

#[test]
fn warm_events_allocate_nothing() {
    let (mut host, keys) = host_of(5);
    for _ in 0..50 {
        round(&mut host, &keys);
    }
    let before = (ALLOCATIONS.get(), host.transport().messages);
    for _ in 0..100 {
        round(&mut host, &keys);
    }
    // Three echoes and a timer in each room and round.
    assert_eq!(host.transport().messages - before.1, 100 * 5 * 4);
    assert_eq!(ALLOCATIONS.get() - before.0, 0);
}

/// Rooms with rollback.
#[cfg(feature = "snapshot")]
mod rollback {
    use super::*;
    use stateroom_wasmi_host::{FaultPolicy, LoadOptions};

    /// A host with one room whose guest has `pages` of memory.
    fn host_of(pages: usize, on_fault: FaultPolicy) -> (TestHost, Vec<RoomKey>) {
        let text = ECHO.replace(
            "(memory (export \"memory\") 1)",
            &format!("(memory (export \"memory\") {pages})"),
        );
        assert!(pages == 1 || text != ECHO);
        let mut options = LoadOptions::default();
        options.compilation = Compilation::Eager;
        options.snapshots = true;
        let wasm = wat::parse_str(text).expect("the guest is valid text");
        let module =
            Module::load_with(&wasm, &Limits::default(), options).expect("the guest fits the ABI");
        let mut host = Host::new(ManualClock::new(), Sink::default()).with_fault_policy(on_fault);
        let keys = vec![host.open("room", &module).expect("it opens")];
        host.enqueue(keys[0], Event::Connect(CLIENT))
            .expect("the client may connect");
        host.poll(Budget::UNLIMITED);
        (host, keys)
    }

    #[test]
    fn a_checkpoint_holds_only_changed_memory() {
        let [more, less] = [FaultPolicy::Rollback, FaultPolicy::Close].map(|policy| {
            let before = LIVE_BYTES.get();
            let _host = host_of(100, policy);
            LIVE_BYTES.get() - before
        });
        assert!(more - less < 10_000, "{more} and {less} bytes");
    }

    #[test]
    fn warm_events_allocate_nothing_with_rollback() {
        let (mut host, keys) = host_of(1, FaultPolicy::Rollback);
        let mut rounds = || {
            let before = ALLOCATIONS.get();
            let fuel = host.room(keys[0]).map_or(0, |room| room.fuel_used());
            while host
                .room(keys[0])
                .is_some_and(|room| room.fuel_used() - fuel < 10 * 65_536)
            {
                round(&mut host, &keys);
            }
            ALLOCATIONS.get() - before
        };
        rounds();
        assert_eq!(rounds(), 0, "although ten checkpoints were taken");
    }
}

/// It is asked whether there is memory for the module.
#[test]
fn estimating_a_modules_heap_allocates_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rooms/wasm");
    for entry in std::fs::read_dir(folder).expect("the bundled rooms are there") {
        let path = entry.expect("the folder can be read").path();
        let wasm = std::fs::read(&path).expect("the room can be read");
        let before = ALLOCATIONS.get();
        let estimate = Module::heap_estimate(&wasm, &Limits::small());
        assert_eq!(ALLOCATIONS.get(), before, "{}", path.display());
        assert!(estimate.module > wasm.len() / 2, "{}", path.display());
    }
}

#[test]
fn a_room_takes_no_more_for_its_imports_than_is_counted() {
    /// What a room takes of the heap, and what is counted of that.
    fn takes(import: &str, times: usize) -> (isize, isize) {
        let text = ECHO.replacen("(module", &format!("(module {}", import.repeat(times)), 1);
        let wasm = wat::parse_str(text).expect("the guest is valid text");
        let module = Module::load(&wasm, &Limits::default()).expect("the guest fits the ABI");
        let before = LIVE_BYTES.get();
        let room = Room::new(&module, "room", RoomOptions::new()).expect("its id is short");
        let counted = room.stats().instance_bytes;
        (LIVE_BYTES.get() - before, counted.cast_signed())
    }

    for import in [
        r#"(import "env" "send_binary" (func (param i32 i32 i32)))"#,
        // It has no effect, and the most parameters.
        #[cfg(feature = "wasi")]
        r#"(import "wasi_snapshot_preview1" "path_open"
            (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#,
    ] {
        let (none, counted_of_none) = takes(import, 0);
        // The interpreter's arenas double with the last, or are full.
        for times in [510, 1022, 2000] {
            let (many, counted) = takes(import, times);
            let (taken, counted) = (many - none, counted - counted_of_none);
            assert!(taken <= counted, "{times} of {import}: {taken}, {counted}");
        }
    }
}

#[test]
fn setting_a_timer_100_000_times_does_not_grow_memory() {
    let (mut host, keys) = host_of(3);
    let set = |host: &mut TestHost, times: usize| {
        for i in 0..times {
            host.enqueue(keys[i % 3], Event::message(CLIENT, "again"))
                .expect("the room accepts it");
            host.poll(Budget::UNLIMITED);
        }
    };
    set(&mut host, 1_000);
    let before = LIVE_BYTES.get();
    set(&mut host, 100_000);
    assert_eq!(LIVE_BYTES.get(), before);
    assert!(
        host.poll_timeout()
            .is_some_and(|deadline| deadline <= Instant::from_millis(16))
    );
}

#[test]
fn a_timer_pending_through_5_000_events_does_not_grow_memory() {
    let (mut host, keys) = host_of(1);
    let deliver = |host: &mut TestHost, event: Event<'_>| {
        host.enqueue(keys[0], event).expect("the room accepts it");
        host.poll(Budget::UNLIMITED);
    };
    let reconnect = |host: &mut TestHost, times: usize| {
        for _ in 0..times {
            deliver(host, Event::Disconnect(CLIENT));
            deliver(host, Event::Connect(CLIENT));
        }
    };
    deliver(&mut host, Event::message(CLIENT, "set it"));
    reconnect(&mut host, 100);
    let before = LIVE_BYTES.get();
    reconnect(&mut host, 2_500);
    assert_eq!(LIVE_BYTES.get(), before);
    assert!(
        host.poll_timeout()
            .is_some_and(|deadline| deadline > Instant::ZERO)
    );
}

#[test]
fn closing_rooms_frees_their_memory() {
    let (mut host, keys) = host_of(1);
    let module = echo(&Limits::default());
    let flood = |host: &mut TestHost| {
        let many: Vec<_> = (0..200)
            .map(|i| host.open(&format!("more {i}"), &module).expect("it opens"))
            .collect();
        for key in &many {
            host.enqueue(*key, Event::Connect(CLIENT))
                .expect("the client may connect");
        }
        round(host, &many);
        many.iter()
            .for_each(|key| host.close(*key).expect("the room is open"));
        host.poll(Budget::UNLIMITED);
        assert_eq!(std::iter::from_fn(|| host.poll_closed()).count(), 200);
    };
    // The host keeps the capacity of its map and queues, so let them grow first.
    for _ in 0..3 {
        flood(&mut host);
    }
    let before = LIVE_BYTES.get();
    for _ in 0..20 {
        flood(&mut host);
    }
    // The host's tables may grow once more, at a time that depends on their hashes; 4,000 rooms
    // that each leaked only 20 bytes would exceed that.
    let more = LIVE_BYTES.get() - before;
    assert!(more < 80_000, "{more} bytes more after 4,000 rooms");
    round(&mut host, &keys);
}

#[test]
fn a_queue_that_is_never_empty_does_not_grow() {
    let module = echo(&Limits::default());
    let mut room = Room::new(&module, "busy", RoomOptions::default()).expect("it opens");
    room.handle_event(Instant::ZERO, Event::Connect(CLIENT))
        .expect("the client may connect");
    let mut send = |times: usize| {
        for i in 0..times {
            // One of the two is always queued.
            let event = match i % 2 {
                0 => Event::message(CLIENT, "a text"),
                _ => Event::message(CLIENT, b"and bytes"),
            };
            room.handle_event(Instant::ZERO, event)
                .expect("the room accepts it");
            if i >= 4 {
                while room.poll_output().is_some() {}
                room.resume(Instant::ZERO);
            }
            assert!(i < 4 || room.stats().waiting_events > 0);
        }
        while room.poll_output().is_some() || room.has_work(Instant::ZERO) {
            room.resume(Instant::ZERO);
        }
    };
    send(1_000);
    let before = LIVE_BYTES.get();
    send(100_000);
    assert_eq!(LIVE_BYTES.get(), before);
}

/// What a hostile guest does when a client connects.
const HOSTILE: [&str; 9] = [
    "(unreachable)",
    "(loop (br 0))",
    "(loop (drop (memory.grow (i32.const 1))) (br 0))",
    "(loop (drop (table.grow $t (ref.null func) (i32.const 7))) (br 0))",
    "(loop (call $send_binary (i32.const 0) (i32.const 0) (i32.const 60000)) (br 0))",
    "(loop (call $send_message (i32.const 5) (i32.const 0) (i32.const 0)) (br 0))",
    "(loop (call $set_timer (i32.const 1)) (br 0))",
    "(call $forever)",
    "(call $send_message (i32.const 0x80000000) (i32.const -1) (i32.const -1))",
];

/// Start functions of hostile guests that fail when they are opened.
const HOSTILE_STARTS: [&str; 3] = [
    "(func $start (unreachable))",
    "(func $start (loop (br 0)))",
    "(func $start (call $forever))",
];

/// Opens rooms of each hostile guest: some fail, some are closed in the middle of an event, and
/// some have their outputs refused by the transport.
fn attack() {
    let mut limits = Limits::default();
    limits.max_fuel_per_event = Some(100_000);
    limits.max_memory_bytes = 1 << 20;
    let mut host = Host::new(ManualClock::new(), Sink::default());
    let mut refused = 0;
    for (i, text) in hostile().iter().enumerate() {
        let wasm = wat::parse_str(text).expect("the guest is valid text");
        let Ok(module) = Module::load(&wasm, &limits) else {
            refused += 1;
            continue;
        };
        let open = |host: &mut TestHost, n: usize| host.open(&format!("{i} {n}"), &module);
        let keys: Vec<_> = (0..10).map_while(|n| open(&mut host, n).ok()).collect();
        for key in keys {
            host.enqueue(key, Event::Connect(CLIENT))
                .expect("the client may connect");
            while host
                .enqueue(key, Event::message(CLIENT, &[0xff; 1000]))
                .is_ok()
            {}
        }
        host.transport_mut().full = true;
        host.poll(Budget::fuel(500_000));
        let all: Vec<_> = host.rooms().map(|(key, _)| key).collect();
        all.iter()
            .step_by(2)
            .for_each(|key| host.close(*key).expect("the room is open"));
        host.transport_mut().full = false;
        host.poll(Budget::fuel(500_000));
        while host.poll_closed().is_some() {}
    }
    assert_eq!(refused, 1, "the last guest fits no ABI");
}

/// The texts of all hostile guests; the last does not fit the ABI.
fn hostile() -> Vec<String> {
    let more = "(table $t 1 funcref) (func $forever (call $forever))";
    let connect = |body: &&str| {
        let export = format!("{more} (func (export \"connect\") (param i32) {body})");
        ECHO.replace("(func (export \"connect\") (param i32))", &export)
    };
    let mut all: Vec<String> = HOSTILE.iter().map(connect).collect();
    let start = |text: &&str| {
        ECHO.replacen(
            "(func $set\n",
            &format!("{more} {text} (start $start) (func $set\n"),
            1,
        )
    };
    all.extend(HOSTILE_STARTS.iter().map(start));
    all.push(ECHO.replace("(i32.const 4096)", "(i32.const 0)"));
    all.push(ECHO.replace("(i32.const 4096)", "(i32.const -1)"));
    all.push(ECHO.replace("\"timer\"", "\"no timer\""));
    all
}

#[test]
fn hostile_rooms_leave_no_memory_behind() {
    // The first one initializes thread-locals, which are reused.
    attack();
    let before = LIVE_BYTES.get();
    attack();
    assert_eq!(LIVE_BYTES.get() - before, 0);
}

#[test]
fn rooms_that_are_opened_and_removed_between_two_polls_take_no_more_memory() {
    let mut host = Host::new(ManualClock::new(), Sink::default());
    let module = echo(&Limits::default());
    let mut open_and_remove = |times: usize| {
        for i in 0..times {
            let key = host.open("room", &module).expect("its id is free");
            if i % 2 == 0 {
                host.close(key).expect("it is open");
            }
            if i % 4 == 0 {
                host.poll_closed().expect("it is closed");
            } else {
                host.discard(key).expect("it is open");
            }
        }
        LIVE_BYTES.get()
    };
    let before = open_and_remove(100);
    assert_eq!(open_and_remove(2_000), before);
}
