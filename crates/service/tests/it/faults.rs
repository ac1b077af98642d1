//! Nothing that a guest does is a panic, and the factory's policy says what follows.

use crate::{
    for_both,
    support::{Asked, Recorder, build, bundled_with, factory, factory_with, guest, number},
};
use stateroom_wasmi_service::{
    Backoff, FaultPolicy, Limits, Module, WasmHostFactory, WasmRuntimeError,
};
use std::time::Duration;

/// Counts texts; at bytes, counts and traps. Says 100 and the client's id for connects, and 200 when
/// its timer fires.
const TRAPS: &[(&str, &str)] = &[
    (
        "connect",
        "(call $say (i32.add (i32.const 100) (local.get 0)))",
    ),
    ("message", "(call $count)"),
    (
        "binary",
        "(call $set_timer (i32.const 50)) (call $count) (unreachable)",
    ),
    ("timer", "(call $say (i32.const 200))"),
];

for_both! {
    fn by_default_a_room_goes_on_with_the_state_that_is_left<S>() {
        let (mut service, context) = build::<S>(&factory(TRAPS));
        service.text(1, "a");
        service.bytes(1, b"trap");
        service.text(1, "a");
        // As under the JIT host 0.2.9, what was sent and set before the trap holds.
        let expected = [number(1), Asked::Timer(50), number(2), number(3)];
        assert_eq!(context.take(), expected);
        assert_eq!((service.room().is_closed(), service.room().stats().faults), (false, 1));
    }
}

for_both! {
    fn a_closed_room_handles_nothing_more<S>() {
        let (mut service, context) = build::<S>(&factory(TRAPS).on_fault(FaultPolicy::Close));
        service.bytes(1, b"trap");
        assert_eq!(context.take(), [Asked::Timer(50), number(1)]);
        service.connect(1);
        service.text(1, "a");
        service.timer();
        service.disconnect(1);
        assert_eq!(context.take(), []);
        assert!(service.room().fault().is_some());
    }
}

/// The last that the context was asked for is its timer, within a millisecond: the shortest backoff is
/// no time at all, and contexts of 0.2 have no timer of zero.
fn take_restart(context: &Recorder) -> Vec<Asked> {
    let mut asked = context.take();
    let Some(Asked::Timer(0 | 1)) = asked.pop() else {
        panic!("the timer is set for the restart");
    };
    // A context of 0.2 can cancel the old guest's timer.
    asked.retain(|asked| *asked != Asked::Timer(0));
    asked
}

for_both! {
    fn a_fresh_guest_hears_of_the_clients_and_not_of_the_old_timer<S>() {
        let policy = FaultPolicy::Restart(Backoff::new().first(Duration::ZERO));
        let (mut service, context) = build::<S>(&factory(TRAPS).on_fault(policy));
        for client in [2, 1] {
            service.connect(client);
        }
        context.take();
        service.bytes(1, b"trap");
        assert_eq!(take_restart(&context), [Asked::Timer(50), number(1)]);
        service.timer();
        assert_eq!(context.take(), [101, 102].map(number));
        service.timer();
        assert_eq!(context.take(), []);
        service.text(1, "a");
        assert_eq!(context.take(), [number(1)]);
    }
}

for_both! {
    fn an_event_restarts_a_room_that_is_due<S>() {
        let policy = FaultPolicy::Restart(Backoff::new().first(Duration::ZERO));
        let (mut service, context) = build::<S>(&factory(TRAPS).on_fault(policy));
        service.connect(1);
        service.bytes(1, b"trap");
        context.take();
        service.text(1, "a");
        assert_eq!(context.take(), [101, 1].map(number));
        // The timer was for the restart.
        service.timer();
        assert_eq!(context.take(), []);
    }
}

for_both! {
    fn a_guest_that_always_fails_keeps_no_caller<S>() {
        let policy = FaultPolicy::Restart(Backoff::new().first(Duration::ZERO).restarts(u32::MAX));
        let guest = [("connect", "(unreachable)")];
        let (mut service, context) = build::<S>(&factory(&guest).on_fault(policy));
        service.connect(1);
        for faults in 1..100 {
            assert_eq!(service.room().stats().faults, faults);
            assert_eq!(take_restart(&context), []);
            service.timer();
        }
    }
}

for_both! {
    fn events_wait_for_a_restart<S>() {
        let policy = FaultPolicy::Restart(Backoff::new().first(Duration::from_secs(3600)));
        let limits = Limits::new().max_inbox_events(2);
        let (mut service, context) = build::<S>(&factory_with(TRAPS, &limits).on_fault(policy));
        service.bytes(1, b"trap");
        context.take();
        for _ in 0..3 {
            service.text(1, "waits, or is lost");
        }
        assert_eq!(service.room().stats().waiting_events, 2);
        // A timer that comes too early is set again.
        service.timer();
        let [Asked::Timer(ms)] = context.take()[..] else {
            panic!("the timer is set again");
        };
        assert!(ms <= 3_600_000);
        assert!(service.room().is_restarting());
    }
}

for_both! {
    fn an_event_can_be_rolled_back<S>() {
        let factory = factory_with(TRAPS, &Limits::new()).on_fault(FaultPolicy::Rollback);
        let (mut service, context) = build::<S>(&factory);
        service.text(1, "a");
        service.bytes(1, b"trap");
        service.text(1, "a");
        // Neither the count nor the timer of the event that failed.
        assert_eq!(context.take(), [1, 2].map(number));
    }
}

for_both! {
    fn an_endless_loop_ends<S>() {
        let spin = [("connect", "(loop $spin (br $spin))"), ("message", "(call $count)")];
        let limits = Limits::new().max_fuel_per_event(Some(1_000_000));
        let limited_time = factory_with(&spin, &Limits::new().max_fuel_per_event(Some(u64::MAX / 2)))
            .max_event_time(Some(Duration::ZERO));
        for factory in [factory_with(&spin, &limits), limited_time] {
            let (mut service, context) = build::<S>(&factory);
            service.connect(1);
            assert_eq!(service.room().stats().faults, 1);
            service.text(1, "a");
            assert_eq!(context.take(), [number(1)]);
        }
    }
}

for_both! {
    fn a_guest_that_sends_too_much_has_failed<S>() {
        let flood = [
            ("message", "(loop $next (call $count) (br $next))"),
            ("binary", "(loop $next (call $set_timer (i32.const 1)) (br $next))"),
        ];
        let limits = Limits::new().max_outbox_messages(3);
        let (mut service, context) = build::<S>(&factory_with(&flood, &limits));
        service.text(1, "messages");
        assert_eq!(context.take(), [1, 2, 3].map(number), "what fits is sent");
        service.bytes(1, b"timers");
        assert_eq!(context.take(), [1, 1, 1].map(Asked::Timer));
        assert_eq!(service.room().stats().faults, 2);
    }
}

for_both! {
    fn a_message_that_is_too_long_is_dropped<S>() {
        let limits = Limits::new().max_message_bytes(4);
        let (mut service, context) = build::<S>(&factory_with(TRAPS, &limits));
        service.text(1, "12345");
        assert_eq!(context.take(), []);
        service.text(1, "1234");
        assert_eq!(context.take(), [number(1)]);
    }
}

for_both! {
    fn what_a_hostile_room_does_stays_in_it<S>() {
        let limits = Limits::new().max_fuel_per_event(Some(1_000_000));
        let (mut service, _) = build::<S>(&bundled_with("hostile-rust-small", &limits));
        for request in ["panic", "loop", "recurse", "wild", "flood", "grow", ""] {
            service.text(1, request);
        }
        assert!(!service.room().is_closed());
    }
}

for_both! {
    fn a_guest_that_cannot_be_initialised_is_an_error<S>() {
        let policies = [
            FaultPolicy::Continue,
            FaultPolicy::Close,
            FaultPolicy::Restart(Backoff::new()),
        ];
        for policy in policies {
            let factory = factory(&[("initialize", "(unreachable)")]).on_fault(policy);
            let error = S::build(&factory).err().expect("there is no service");
            assert!(matches!(error.downcast_ref(), Some(WasmRuntimeError::Fault(_))));
            let text = "cannot initialise the room: the guest failed in `initialize`";
            assert!(format!("{error:#}").starts_with(text), "{error:#}");
        }
    }
}

for_both! {
    fn rollback_needs_a_module_that_was_loaded_for_it<S>() {
        let module = Module::load(&guest(TRAPS), &Limits::new()).unwrap();
        let factory = WasmHostFactory::new_with_shared_module(module);
        let error = S::build(&factory.on_fault(FaultPolicy::Rollback)).err();
        assert!(matches!(
            error.expect("there is no service").downcast_ref(),
            Some(WasmRuntimeError::Open(_))
        ));
    }
}
