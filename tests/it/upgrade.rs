//! Rooms that go on with another module and keep their state.

use crate::{
    host::{TestHost, host, say},
    snapshots::{load_module, module_of, open},
    support::{Random, assemble, connect_at, guest_0_4, limits, numbers, speaker},
};
use stateroom_wasmi_host::abi::AbiProblem;
use stateroom_wasmi_host::{
    Budget, ClientId, Event, Fault, FaultCause, FaultPolicy, Instant, Limits, LoadError,
    LoadOptions, Module, OwnedPayload, Room, RoomKey, RoomOptions, SaveError, SnapshotOptions,
    Trap, UpgradeError,
};
use std::{task::Poll, time::Duration};

/// Returns the count, from an address of its own.
const SAVE: &str = "(i32.store (i32.const 64) (global.get $count))
     (i64.const 0x4000000004)";

/// Takes a count.
const LOAD: &str = "(global.set $count (i32.load (local.get 0)))";

/// A guest that adds to its count for each message and says it; by its timer it says the count's negative.
/// `save` and `load` are the bodies of its exports.
fn counter(step: i32, save: Option<&str>, load: Option<&str>) -> String {
    let exports = [
        (
            "message",
            &*format!(
                "(global.set $count (i32.add (global.get $count) (i32.const {step})))
                 (call $say (global.get $count))"
            ),
        ),
        (
            "timer",
            "(call $say (i32.sub (i32.const 0) (global.get $count)))",
        ),
        ("connect", "(call $set_timer (i32.const 1000))"),
    ];
    let save = save.map_or_else(String::new, |body| {
        format!("(func (export \"stateroom_save\") (result i64) {body})")
    });
    let load = load.map_or_else(String::new, |body| {
        format!("(func (export \"stateroom_load\") (param i32 i32) {body})")
    });
    let count = "(global $count (mut i32) (i32.const 0))";
    speaker(&exports, &format!("{count} {save} {load}"))
}

fn first() -> Module {
    module_of(&counter(1, Some(SAVE), None))
}

fn second() -> Module {
    module_of(&counter(100, None, Some(LOAD)))
}

/// A room with client 1, whose guest has counted to 3, at the time of one second.
fn room_of(module: &Module) -> Room {
    room_with(module, RoomOptions::new())
}

fn room_with(module: &Module, options: RoomOptions) -> Room {
    let mut room = Room::new(module, "test", options).expect("the room opens");
    connect_at(&mut room, SECOND, 1);
    for count in 1..=3 {
        assert_eq!(tell(&mut room, SECOND), [count]);
    }
    room
}

const SECOND: Instant = Instant::from_nanos(1_000_000_000);

fn tell(room: &mut Room, now: Instant) -> Vec<i32> {
    room.handle_event(now, Event::message(ClientId(1), "x"))
        .expect("client 1 is connected");
    numbers(room, now)
}

/// Runs an upgrade to its end; returns its result and how many turns it took.
fn run(room: &mut Room) -> (Result<(), UpgradeError>, usize) {
    let mut turns = 0;
    while room.poll_upgrade().is_pending() {
        if !room.is_runnable() {
            break;
        }
        room.resume(room.now());
        turns += 1;
        assert_eq!(room.peek_output(), None);
        // Before the result is taken.
        if !room.is_runnable() {
            break;
        }
    }
    match room.poll_upgrade() {
        Poll::Ready(result) => (result, turns),
        Poll::Pending => panic!("it is not runnable and has not ended"),
    }
}

fn upgrade(room: &mut Room, module: &Module) -> Result<(), UpgradeError> {
    room.begin_upgrade(module)?;
    run(room).0
}

#[test]
fn the_state_passes_to_the_other_module_and_clients_notice_nothing() {
    let (first, second) = (first(), second());
    let mut room = room_of(&first);
    assert_eq!(upgrade(&mut room, &second), Ok(()));
    assert!(room.module().ptr_eq(&second));
    assert_eq!(room.clients(), [ClientId(1)]);
    assert_eq!(room.peek_output(), None);
    assert_eq!(tell(&mut room, SECOND), [103]);
    // Its timer was set by the first guest, a second after its connect.
    let due = SECOND + Duration::from_secs(1);
    assert_eq!(room.poll_timeout(), Some(due));
    room.handle_timeout(due);
    assert_eq!(numbers(&mut room, due), [-103]);
    assert_eq!(room.poll_timeout(), None);
}

#[test]
fn the_state_passes_between_the_abis_and_keeps_its_bytes() {
    // Bytes that are no message of ABI 0.4.
    let save = "(i32.store (i32.const 64) (i32.const 0xfffefdfc)) (i64.const 0x4000000004)";
    let mut room = open(&module_of(&counter(1, Some(save), None)));
    // Broadcasts what it was given: the tag, the recipient, the kind and the length, then the state.
    let answer = "(i32.store (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 0))
         (i32.store (i32.const 8) (i32.const 0)) (i64.store (i32.const 12) (i64.const 4))
         (call $send (i32.const 0) (i32.const 24))";
    let other = guest_0_4(
        &format!("(if (i32.gt_u (local.get 1) (i32.const 4)) (then {answer}))"),
        "(func (export \"stateroom_load\") (param i32 i32)
           (if (i32.ne (local.get 1) (i32.const 4)) (then unreachable))
           (i32.store (i32.const 20) (i32.load (local.get 0))))",
    );
    assert_eq!(upgrade(&mut room, &module_of(&other)), Ok(()));
    connect_at(&mut room, SECOND, 1);
    assert_eq!(numbers(&mut room, SECOND), [0xfffe_fdfc_u32.cast_signed()]);
}

#[test]
fn events_wait_for_the_other_guest() {
    let (first, second) = (first(), second());
    let mut room = room_of(&first);
    room.begin_upgrade(&second).expect("both have the exports");
    room.handle_event(SECOND, Event::message(ClientId(1), "x"))
        .expect("the inbox has space");
    room.handle_event(SECOND, Event::Connect(ClientId(2)))
        .expect("the inbox has space");
    // Its time has come, too.
    let later = SECOND + Duration::from_secs(5);
    room.handle_timeout(later);
    assert_eq!(room.save(), Err(SaveError::Busy));
    assert_eq!(run(&mut room).0, Ok(()));
    assert_eq!(room.peek_output(), None, "nothing happens by itself");
    assert_eq!(numbers(&mut room, later), [-3, 103]);
    assert_eq!(room.clients(), [ClientId(1), ClientId(2)]);
}

#[test]
fn what_guests_send_meanwhile_is_discarded() {
    let say = "(call $say (i32.const 77))";
    let first = module_of(&counter(1, Some(&format!("{say} {SAVE}")), None));
    let text = counter(100, None, Some(&format!("{LOAD} {say}")));
    let text = text.replacen(
        "(export \"initialize\") (param i32 i32) ",
        &format!("(export \"initialize\") (param i32 i32) {say}"),
        1,
    );
    assert!(text.matches("i32.const 77").count() == 2, "{text}");
    let mut room = room_of(&first);
    assert_eq!(upgrade(&mut room, &module_of(&text)), Ok(()));
    assert_eq!(room.peek_output(), None);
    assert_eq!(tell(&mut room, SECOND), [103]);
}

#[test]
fn the_fresh_guest_may_set_the_timer_or_cancel_it() {
    let with_timer = |ms: u32| {
        let load = format!("{LOAD} (call $set_timer (i32.const {ms}))");
        module_of(&counter(100, None, Some(&load)))
    };
    let now = SECOND + Duration::from_millis(500);
    for (ms, expected) in [(250, Some(now + Duration::from_millis(250))), (0, None)] {
        let mut room = room_of(&first());
        room.handle_timeout(now);
        assert_eq!(upgrade(&mut room, &with_timer(ms)), Ok(()));
        assert_eq!(room.poll_timeout(), expected, "{ms}");
    }
}

/// Modules to which the state of [`first`] or a variant of it does not pass, and why.
fn failures() -> Vec<(&'static str, Module, Module, Fault)> {
    let fault = |during, cause| Fault { during, cause };
    let trap = |during| fault(during, FaultCause::Trap(Trap::Unreachable));
    let bad_pointer = |ptr, len| {
        let function = "stateroom_save";
        fault(function, FaultCause::BadPointer { function, ptr, len })
    };
    let saves = |body: &str| module_of(&counter(1, Some(body), None));
    let loads = |body: &str| module_of(&counter(100, None, Some(body)));
    let out_of_fuel = FaultCause::OutOfFuel {
        limit: Limits::new().max_fuel_per_event.expect("it is limited"),
    };
    let init_traps = counter(100, None, Some(LOAD)).replacen(
        "(export \"initialize\") (param i32 i32) ",
        "(export \"initialize\") (param i32 i32) unreachable",
        1,
    );
    vec![
        (
            "save traps",
            saves("unreachable"),
            second(),
            trap("stateroom_save"),
        ),
        (
            "load traps",
            first(),
            loads("unreachable"),
            trap("stateroom_load"),
        ),
        (
            "the module is not initialised",
            first(),
            module_of(&init_traps),
            trap("initialize"),
        ),
        (
            "the state is beyond the memory",
            saves("(i64.const 0x0000fffd00000004)"),
            second(),
            bad_pointer(0xfffd, 4),
        ),
        (
            "address and length overflow",
            saves("(i64.const -1)"),
            second(),
            bad_pointer(u32::MAX, u32::MAX),
        ),
        (
            "save does not end",
            saves("(loop $l (br $l)) (i64.const 0)"),
            second(),
            fault("stateroom_save", out_of_fuel.clone()),
        ),
        (
            "load does not end",
            first(),
            loads("(loop $l (br $l))"),
            fault("stateroom_load", out_of_fuel),
        ),
    ]
}

#[test]
fn a_room_whose_state_does_not_pass_goes_on_as_if_nobody_had_tried() {
    for (what, from, to, expected) in failures() {
        for policy in [
            FaultPolicy::Close,
            FaultPolicy::Continue,
            FaultPolicy::Rollback,
        ] {
            let options = RoomOptions::new().on_fault(policy);
            let mut room = room_with(&from, options);
            let reference = room_with(&from, options);
            assert_eq!(
                upgrade(&mut room, &to),
                Err(UpgradeError::Failed(expected.clone())),
                "{what}"
            );
            assert!(room.module().ptr_eq(&from));
            assert_eq!(room.state_hash(), reference.state_hash(), "{what}");
            assert_eq!(room.fuel_used(), reference.fuel_used(), "{what}");
            assert_eq!(room.stats().faults, 0, "it is no fault of the room's");
            assert!(room.host_work() > reference.host_work(), "{what}");
            assert_eq!(tell(&mut room, SECOND), [4], "{what}");
        }
    }
}

#[test]
fn modules_without_the_exports_are_refused_and_nothing_happens() {
    let (first, second) = (first(), second());
    let plain = module_of(&counter(1, None, None));
    let uninstrumented = counter(100, None, Some(LOAD));
    let uninstrumented =
        Module::load(&assemble(&uninstrumented), &Limits::new()).expect("it loads");
    let cases = [
        (&first, &plain, UpgradeError::NoLoad),
        (&plain, &second, UpgradeError::NoSave),
        (
            &first,
            &uninstrumented,
            UpgradeError::Save(SaveError::NotInstrumented),
        ),
    ];
    for (from, to, expected) in cases {
        let mut room = room_of(from);
        assert_eq!(room.begin_upgrade(to), Err(expected));
        assert_eq!(room.poll_upgrade(), Poll::Ready(Ok(())));
        assert_eq!(tell(&mut room, SECOND), [4]);
    }
    assert_eq!((first.has_save(), first.has_load()), (true, false));
    assert_eq!((second.has_save(), second.has_load()), (false, true));
}

#[test]
fn exports_of_another_type_are_reported() {
    let text = speaker(
        &[],
        "(func (export \"stateroom_save\") (result i32) i32.const 0)",
    );
    let Err(LoadError::Abi { problems, .. }) = Module::load(&assemble(&text), &Limits::new())
    else {
        panic!("it is no room");
    };
    let [problem @ AbiProblem::WrongExport { name, .. }] = &*problems else {
        panic!("{problems:?}");
    };
    assert_eq!(*name, "stateroom_save");
    assert_eq!(
        problem.to_string(),
        "export `stateroom_save` must be a function () -> i64, but is a function () -> i32"
    );
}

#[test]
fn a_busy_room_is_not_upgraded() {
    let busy = counter(1, Some(SAVE), None).replacen(
        "(export \"timer\") ",
        "(export \"timer\") (loop $l (br $l))",
        1,
    );
    let limits = limits(|limits| limits.fuel_per_slice = 10_000);
    let module = load_module(&assemble(&busy), &limits).expect("it loads");
    let mut room = room_of(&module);
    room.handle_timeout(SECOND + Duration::from_secs(1));
    assert!(room.is_unfinished());
    let busy = UpgradeError::Save(SaveError::Busy);
    assert_eq!(room.begin_upgrade(&second()), Err(busy));

    let mut room = room_of(&first());
    room.handle_event(SECOND, Event::message(ClientId(1), "x"))
        .expect("it is connected");
    let waiting = UpgradeError::Save(SaveError::OutputsWaiting);
    assert_eq!(room.begin_upgrade(&second()), Err(waiting));
}

#[test]
fn however_sliced_the_room_is_the_same() {
    let work = "(local $i i32) (local.set $i (i32.const 20000))
         (loop $l (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $l (local.get $i)))";
    let texts = [
        counter(1, Some(&format!("{work} {SAVE}")), None),
        counter(100, None, Some(&format!("{work} {LOAD}"))),
    ];
    let upgraded = |fuel_per_slice: u64| {
        let limits = limits(|limits| limits.fuel_per_slice = fuel_per_slice);
        let [from, to] = texts
            .each_ref()
            .map(|text| load_module(&assemble(text), &limits).expect("it loads"));
        let mut room = room_of(&from);
        room.begin_upgrade(&to).expect("both have the exports");
        let (result, turns) = run(&mut room);
        assert_eq!(result, Ok(()));
        // Other limits are no part of the hash.
        let saved = room.save().expect("it is idle");
        let options = SnapshotOptions::new().other_limits(true);
        let to = load_module(&assemble(&texts[1]), &Limits::new()).expect("it loads");
        let room = Room::load(&to, &saved, options).expect("it is whole");
        (turns, room.state_hash())
    };
    let (whole_turns, whole) = upgraded(10_000_000);
    let (sliced_turns, sliced) = upgraded(1_000);
    assert_eq!(whole_turns, 2, "one for each instance");
    assert!(sliced_turns > 50, "{sliced_turns}");
    assert_eq!(whole, sliced);
}

#[test]
fn a_room_that_was_just_opened_begins_with_the_other_module() {
    let (plain, second) = (module_of(&counter(1, None, None)), second());
    let mut host = host();
    let key = host.open("room", &plain).expect("it opens");
    // It has no guest yet, and so no state that must pass.
    host.begin_upgrade(key, &second).expect("there is no state");
    assert_eq!(host.poll_upgrade(key), Poll::Ready(Ok(())));
    host.enqueue(key, Event::Connect(ClientId(1)))
        .expect("it may");
    say(&mut host, key, "x");
    host.poll(Budget::UNLIMITED);
    assert!(
        host.room(key)
            .is_some_and(|room| room.module().ptr_eq(&second))
    );
}

#[test]
fn a_host_runs_the_upgrade_in_turns_beside_its_other_rooms() {
    let (first, second) = (first(), second());
    let mut host: TestHost = host();
    let keys = ["a", "b"].map(|id| {
        let key = host.open(id, &first).expect("it opens");
        host.enqueue(key, Event::Connect(ClientId(1)))
            .expect("it may");
        say(&mut host, key, "x");
        key
    });
    host.poll(Budget::UNLIMITED);
    sent_bytes(&mut host);
    let [a, b] = keys;
    host.begin_upgrade(a, &second)
        .expect("both have the exports");
    assert_eq!(host.poll_upgrade(a), Poll::Pending);
    for key in keys {
        say(&mut host, key, "x");
    }
    host.poll(Budget::UNLIMITED);
    // The room waits for its driver, which is to save it first.
    assert_eq!(sent_bytes(&mut host), [(b, 2)]);
    assert_eq!(host.poll_upgrade(a), Poll::Ready(Ok(())));
    assert!(host.save(a).is_ok());
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent_bytes(&mut host), [(a, 101)]);
    // The timer is in the host's queue again.
    assert!(host.poll_timeout().is_some());
    host.clock()
        .set(SECOND + SECOND.saturating_duration_since(Instant::ZERO));
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent_bytes(&mut host), [(a, -101), (b, -2)]);
}

fn sent_bytes(host: &mut TestHost) -> Vec<(RoomKey, i32)> {
    let sent = std::mem::take(&mut host.transport_mut().sent);
    let mut sent: Vec<_> = sent
        .into_iter()
        .map(|sent| {
            let OwnedPayload::Bytes(bytes) = sent.payload else {
                panic!("it sends numbers");
            };
            let bytes = (*bytes).try_into().expect("a number");
            (sent.room, i32::from_le_bytes(bytes))
        })
        .collect();
    sent.sort();
    sent
}

#[test]
fn a_room_may_be_closed_or_begin_anew_meanwhile() {
    let (first, second) = (first(), second());
    let mut room = room_of(&first);
    room.begin_upgrade(&second).expect("both have the exports");
    room.resume(SECOND);
    room.close();
    assert!(room.is_closed());
    assert_eq!(room.poll_upgrade(), Poll::Ready(Ok(())));

    let mut room = room_of(&first);
    room.begin_upgrade(&second).expect("both have the exports");
    room.resume(SECOND);
    room.replace_module(&second).expect("it is open");
    room.resume(SECOND);
    assert_eq!(numbers(&mut room, SECOND), []);
    assert_eq!(tell(&mut room, SECOND), [100]);
}

#[test]
fn an_upgraded_room_is_rolled_back_to_the_state_that_it_was_given() {
    let second = counter(100, None, Some(LOAD)).replacen(
        "(export \"binary\") (param i32 i32 i32) ",
        "(export \"binary\") (param i32 i32 i32) (global.set $count (i32.const 9)) unreachable",
        1,
    );
    let mut room = room_with(&first(), RoomOptions::new().on_fault(FaultPolicy::Rollback));
    assert_eq!(upgrade(&mut room, &module_of(&second)), Ok(()));
    assert_eq!(tell(&mut room, SECOND), [103]);
    room.handle_event(SECOND, Event::message(ClientId(1), &b"x"[..]))
        .expect("it is connected");
    assert_eq!(numbers(&mut room, SECOND), []);
    assert_eq!(room.stats().faults, 1);
    assert_eq!(tell(&mut room, SECOND), [203]);
}

#[test]
fn states_of_any_size_pass_in_kept_and_in_other_buffers() {
    let mut random = Random::new();
    for keep in [
        "",
        "(global (export \"stateroom_keep_payload_buffer\") i32 (i32.const 0))",
    ] {
        for len in [0, 1, 5, 60_000, random.below(60_000)] {
            // An allocator that gives each payload its own place, so that one that is too short shows.
            let save = format!(
                "(memory.fill (i32.const 1024) (i32.const 7) (i32.const {len}))
                 (i64.const {})",
                (1024_u64 << 32) | len as u64
            );
            let first = module_of(&counter(1, Some(&save), None));
            let load = format!(
                "(local $i i32)
                 (if (i32.ne (local.get 1) (i32.const {len})) (then unreachable))
                 (loop $l (if (i32.lt_u (local.get $i) (local.get 1)) (then
                   (global.set $count (i32.add (global.get $count)
                     (i32.load8_u (i32.add (local.get 0) (local.get $i)))))
                   (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l))))"
            );
            let second = counter(100, None, Some(&load))
                .replacen(
                    "(memory (export \"memory\") 1)",
                    "(memory (export \"memory\") 2)",
                    1,
                )
                .replacen("(memory", &format!("{keep} (memory"), 1);
            let mut room = room_of(&first);
            assert_eq!(upgrade(&mut room, &module_of(&second)), Ok(()), "{len}");
            assert_eq!(tell(&mut room, SECOND), [100 + 7 * len as i32], "{len}");
        }
    }
}

#[test]
fn a_module_that_was_not_loaded_for_the_policy_is_refused() {
    let first = first();
    let mut room = room_with(&first, RoomOptions::new().on_fault(FaultPolicy::Rollback));
    let text = assemble(&counter(100, None, Some(LOAD)));
    let second = Module::load_with(&text, &Limits::new(), LoadOptions::new()).expect("it loads");
    assert_eq!(room.begin_upgrade(&second), Err(UpgradeError::NoRollback));
    assert_eq!(tell(&mut room, SECOND), [4]);
}
