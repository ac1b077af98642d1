//! The timer is the context's.

use crate::{
    for_both,
    support::{Asked, Service as _, To, V0_2, V0_4, build, bundled, factory, number, text},
};
use Asked::Timer;

/// Sets its timer to the number in a message of four bytes; says 7 when it fires.
const ALARM: &[(&str, &str)] = &[
    ("initialize", "(call $set_timer (i32.const 1234))"),
    ("binary", "(call $set_timer (i32.load (local.get 1)))"),
    ("timer", "(call $say (i32.const 7))"),
];

for_both! {
    fn each_request_is_handed_on<S>() {
        let (mut service, context) = build::<S>(&factory(ALARM));
        assert_eq!(context.take(), [Timer(1234)]);
        for ms in [1, 1000, u32::MAX] {
            service.bytes(1, &ms.to_le_bytes());
            assert_eq!(context.take(), [Timer(ms)]);
        }
        service.timer();
        assert_eq!(context.take(), [number(7)]);
    }
}

for_both! {
    fn requests_stay_in_order_with_messages<S>() {
        let (mut service, context) = build::<S>(&factory(&[(
            "connect",
            "(call $say (i32.const 1)) (call $set_timer (i32.const 5))
            (call $say (i32.const 2)) (call $set_timer (i32.const 6))",
        )]));
        service.connect(1);
        assert_eq!(context.take(), [number(1), Timer(5), number(2), Timer(6)]);
    }
}

for_both! {
    fn a_timer_that_nobody_set_is_handed_on<S>() {
        let (mut service, context) = build::<S>(&factory(&[("timer", "(call $count)")]));
        service.timer();
        service.timer();
        assert_eq!(context.take(), [number(1), number(2)]);
    }
}

/// Zero cancels in ABI 0.2 and under `stateroom` 0.2.
#[test]
fn zero_of_abi_0_2_cancels_the_timer_of_a_context_0_2() {
    let (mut service, context) = build::<V0_2>(&factory(ALARM));
    service.bytes(1, &0_u32.to_le_bytes());
    assert_eq!(context.take(), [Timer(1234), Timer(0)]);
}

/// A context of 0.4 would fire it at once, and has nothing to cancel it: it fires, and is ignored.
#[test]
fn a_timer_that_is_cancelled_behind_a_context_0_4_is_ignored() {
    let (mut service, context) = build::<V0_4>(&factory(ALARM));
    service.bytes(1, &0_u32.to_le_bytes());
    assert_eq!(context.take(), [Timer(1234)]);
    service.timer();
    assert_eq!(context.take(), []);
    service.bytes(1, &5_u32.to_le_bytes());
    service.timer();
    assert_eq!(context.take(), [Timer(5), number(7)]);
}

/// Zero fires at once in ABI 0.4 and under `stateroom` 0.4.
#[test]
fn zero_of_abi_0_4_fires_at_once_behind_either_context() {
    let (mut service, context) = build::<V0_4>(&bundled("clock-rust-0.4"));
    service.connect(1);
    service.disconnect(1);
    assert_eq!(context.take(), [Timer(1000), Timer(0)]);
    // A context of 0.2 would cancel it.
    let (mut service, context) = build::<V0_2>(&bundled("clock-rust-0.4"));
    service.connect(1);
    service.disconnect(1);
    assert_eq!(context.take(), [Timer(1000), Timer(1)]);
}

for_both! {
    fn clocks_tick<S>() {
        for name in ["clock-rust-0.2", "clock-rust-0.4", "clock-assemblyscript"] {
            let (mut service, context) = build::<S>(&bundled(name));
            service.connect(1);
            assert_eq!(context.take(), [Timer(1000)], "{name}");
            for tick in 1..4 {
                service.timer();
                let news = text(To::All, &format!("tick {tick}"));
                assert_eq!(context.take(), [news, Timer(1000)], "{name}");
            }
        }
    }
}
