//! Modules that were instrumented before they are loaded, as a firmware has them.

use crate::{
    determinism::{bundled, play},
    rollback::ledger,
    snapshots::{load_module, loaded, open},
    support::{Said, assemble, echo, guest_0_2, limits, outputs},
};
use stateroom_wasmi_host::{
    ClientId, Compilation, Event, Instant, Limits, LoadError, LoadOptions, Module, ModuleHash,
};
use std::fmt::Debug;

const FOR_SNAPSHOTS: LoadOptions = LoadOptions::new().snapshots(true);

fn instrumented(wasm: &[u8], options: LoadOptions) -> &'static [u8] {
    Module::instrument(wasm, &Limits::new(), options)
        .expect("it can be instrumented")
        .leak()
}

fn load(wasm: &'static [u8]) -> Module {
    Module::load_instrumented(wasm, &Limits::new(), FOR_SNAPSHOTS).expect("it loads")
}

/// What a room does, whatever that is, when it is told to do everything that a ledger can.
fn told(module: &Module) -> (Vec<Said>, u64) {
    let mut room = open(module);
    let mut said = Vec::new();
    let texts: Vec<_> = (1..=100).map(|what| char::from(what).to_string()).collect();
    let messages = texts
        .iter()
        .map(|text| Event::message(ClientId(1), &**text));
    let events = [Event::Connect(ClientId(1))].into_iter().chain(messages);
    for (now, event) in (0..).map(Instant::from_millis).zip(events) {
        room.handle_event(now, event).expect("it accepts the event");
        said.extend(outputs(&mut room, now));
    }
    (said, room.fuel_used())
}

#[track_caller]
fn assert_does_the_same<T: PartialEq + Debug>(name: &str, wasm: &[u8], play: fn(&Module) -> T) {
    let original = load_module(wasm, &Limits::new()).expect("it loads");
    let instrumented_wasm = instrumented(wasm, FOR_SNAPSHOTS);
    let module = load(instrumented_wasm);
    assert_eq!(module.hash(), Some(ModuleHash::of(wasm)), "{name}");
    assert_eq!(module.hash(), original.hash(), "{name}");
    assert_eq!(play(&module), play(&original), "{name}");
    assert!(
        module.exports().eq(original.exports()),
        "{name}: what was added is no export of its own"
    );

    // A room goes from one to the other and back.
    let mut room = open(&original);
    let connect = Event::Connect(ClientId(1));
    room.handle_event(Instant::ZERO, connect)
        .expect("it accepts a client");
    outputs(&mut room, Instant::ZERO);
    let snapshot = room.save().expect("it can be saved");
    let there = loaded(&module, &snapshot);
    assert_eq!(there.save().as_ref(), Ok(&snapshot), "{name}");
    assert_eq!(there.state_hash(), room.state_hash(), "{name}");
    let back = loaded(&original, &there.save().expect("it can be saved"));
    assert_eq!(back.save(), Ok(snapshot), "{name}");

    // Without snapshots, too, and by whatever compilation.
    let slim = instrumented(wasm, LoadOptions::new());
    for compilation in [Compilation::Lazy, Compilation::Eager] {
        let module = Module::load_instrumented(slim, &Limits::new(), compilation);
        assert_eq!(
            play(&module.expect("it loads")),
            play(&original),
            "{name}, {compilation:?}"
        );
    }
}

#[test]
fn bundled_rooms_do_the_same_when_instrumented_before() {
    for (name, wasm) in bundled() {
        assert_does_the_same(&name, &wasm, play);
    }
}

#[test]
fn all_that_is_rewritten_at_load_can_be_rewritten_before() {
    // Mutable globals, memory that grows, a timer and random numbers.
    assert_does_the_same("ledger", &assemble(&ledger()), told);
    // A start function, and a store that wasmi cannot translate as it is.
    let far = "(global $g (mut i32) (i32.const 7))
        (func $start (local $i i32)
            (local.set $i (i32.const 1000))
            (drop (memory.grow (i32.const 2)))
            (i32.store offset=70000 (local.get $i) (local.get $i))
            (global.set $g (i32.const 8)))
        (start $start)";
    assert_does_the_same("start", &assemble(&guest_0_2("", &[], far)), told);
}

#[track_caller]
fn assert_refused(result: Result<Module, LoadError>, why: &str) {
    match result {
        Err(LoadError::NotInstrumented { what }) => assert_eq!(what, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_not_instrumented_for_it_is_refused() {
    let wasm = assemble(&echo());
    let original: &'static [u8] = wasm.clone().leak();
    let limits = Limits::new();
    let load = |wasm| Module::load_instrumented(wasm, &limits, FOR_SNAPSHOTS);
    assert_refused(load(original), "not marked as such");
    assert_refused(load(b""), "not marked as such");
    let slim = instrumented(&wasm, LoadOptions::new());
    assert_refused(load(slim), "not for snapshots");

    let whole = instrumented(&wasm, FOR_SNAPSHOTS);
    let refused = Module::load(whole, &limits).map(drop);
    assert!(
        matches!(refused, Err(LoadError::AlreadyInstrumented)),
        "{refused:?}"
    );
    // The engine's version and the format follow the section's name.
    let name = b"stateroom-wasmi-host:instrumented";
    let at = whole
        .windows(name.len())
        .position(|window| window == name)
        .expect("it is marked");
    for version in at + name.len()..at + name.len() + 5 {
        let mut other = whole.to_vec();
        other[version] ^= 1;
        assert_refused(load(other.leak()), "for another version");
    }
}

#[test]
fn limits_apply_to_instrumented_modules() {
    let wasm = instrumented(&assemble(&echo()), FOR_SNAPSHOTS);
    let short = limits(|limits| limits.max_module_bytes = 100);
    let refused = Module::load_instrumented(wasm, &short, FOR_SNAPSHOTS).map(drop);
    assert!(
        matches!(refused, Err(LoadError::TooLarge { limit: 100, .. })),
        "{refused:?}"
    );
    let small = limits(|limits| limits.max_memory_bytes = 1000);
    let refused = Module::load_instrumented(wasm, &small, FOR_SNAPSHOTS).map(drop);
    assert!(
        matches!(refused, Err(LoadError::TooMany { .. })),
        "{refused:?}"
    );
    let hidden = guest_0_2(
        "",
        &[],
        "(table $t 1 funcref) (func (table.set $t (i32.const 0) (ref.null func)))",
    );
    let refused = Module::instrument(&assemble(&hidden), &Limits::new(), FOR_SNAPSHOTS);
    assert!(
        matches!(refused, Err(LoadError::HiddenState { .. })),
        "{refused:?}"
    );
}

#[test]
fn damaged_instrumented_modules_are_errors_or_rooms() {
    // Only modules of one's own are to be loaded so; but no byte of them makes it a panic.
    let whole = instrumented(&assemble(&ledger()), FOR_SNAPSHOTS);
    let end = whole.len().min(700);
    for at in 0..end {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = whole.to_vec();
            damaged[at] ^= flip;
            let damaged = damaged.leak();
            let Ok(module) = Module::load_instrumented(damaged, &Limits::new(), FOR_SNAPSHOTS)
            else {
                continue;
            };
            let Ok(mut room) = stateroom_wasmi_host::Room::new(&module, "x", <_>::default()) else {
                continue;
            };
            let _ = room.handle_event(Instant::ZERO, Event::Connect(ClientId(1)));
            while room.has_work(Instant::ZERO) || room.peek_output().is_some() {
                while room.poll_output().is_some() {}
                room.resume(Instant::ZERO);
            }
            if let Ok(snapshot) = room.save() {
                let again = stateroom_wasmi_host::Room::load(&module, &snapshot, <_>::default());
                if let Ok(mut again) = again {
                    let _ = again.handle_event(Instant::ZERO, Event::Connect(ClientId(2)));
                }
            }
        }
        let cut = whole[..at].to_vec().leak();
        assert!(Module::load_instrumented(cut, &Limits::new(), FOR_SNAPSHOTS).is_err());
    }
}
