//! Time that is slept through a delay.

use embedded_hal::delay::DelayNs;
use stateroom_wasmi_host::{Clock, Instant, driver::embedded_hal::DelayClock};
use std::{cell::Cell, rc::Rc, time::Duration};

/// Counts what it is asked to wait.
#[derive(Clone, Default)]
struct Delay {
    nanos: Rc<Cell<u128>>,
    calls: Rc<Cell<usize>>,
}

impl DelayNs for Delay {
    fn delay_ns(&mut self, ns: u32) {
        self.nanos.set(self.nanos.get() + u128::from(ns));
        self.calls.set(self.calls.get() + 1);
    }

    fn delay_ms(&mut self, ms: u32) {
        self.nanos
            .set(self.nanos.get() + u128::from(ms) * 1_000_000);
        self.calls.set(self.calls.get() + 1);
    }
}

#[test]
fn the_time_is_what_was_slept_to_the_nanosecond() {
    let nanos = [
        0,
        1,
        999_999,
        1_000_000,
        1_000_001,
        4_294_967_296,
        86_400_000_000_000,
        u64::MAX / 2,
    ];
    for nanos in nanos {
        let delay = Delay::default();
        let clock = DelayClock::new(delay.clone());
        clock.sleep(Duration::from_nanos(nanos));
        assert_eq!(delay.nanos.get(), u128::from(nanos));
        assert_eq!(clock.now(), Instant::from_nanos(nanos));
        assert!(delay.calls.get() <= 2200, "{} calls", delay.calls.get());
    }
}

#[test]
fn it_sleeps_until_it_is_time_or_until_it_has_to_look() {
    let delay = Delay::default();
    let clock = DelayClock::new(delay.clone());
    let at_most = Duration::from_millis(10);
    assert_eq!(
        clock.sleep_until(Some(Instant::from_millis(25)), at_most),
        at_most
    );
    assert_eq!(
        clock.sleep_until(Some(Instant::from_millis(25)), at_most),
        at_most
    );
    assert_eq!(
        clock.sleep_until(Some(Instant::from_millis(25)), at_most),
        Duration::from_millis(5)
    );
    assert_eq!(clock.now(), Instant::from_millis(25));
    // It is time already.
    let calls = delay.calls.get();
    assert_eq!(
        clock.sleep_until(Some(Instant::ZERO), at_most),
        Duration::ZERO
    );
    assert_eq!(
        clock.sleep_until(Some(Instant::from_millis(25)), at_most),
        Duration::ZERO
    );
    assert_eq!(delay.calls.get(), calls);
    assert_eq!(clock.sleep_until(None, at_most), at_most);
}

#[test]
fn time_that_passed_otherwise_is_counted_but_not_slept() {
    let delay = Delay::default();
    let clock = DelayClock::new(delay);
    clock.pass(Duration::from_millis(3));
    assert_eq!(clock.now(), Instant::from_millis(3));
    assert_eq!(clock.into_inner().nanos.get(), 0);
}
