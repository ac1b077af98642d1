//! `DelayClock`: a clock that counts the time slept in a `DelayNs`.

use embedded_hal::delay::DelayNs;
use stateroom_wasmi_host::{Clock, Instant, driver::embedded_hal::DelayClock};
use std::{cell::Cell, rc::Rc, time::Duration};

/// Records the requested delays.
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
fn the_clock_counts_sleep_to_the_nanosecond() {
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
fn sleep_until_stops_at_the_deadline_or_the_maximum() {
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
    // The deadline has passed.
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
fn passed_time_is_counted_without_sleeping() {
    let delay = Delay::default();
    let clock = DelayClock::new(delay);
    clock.pass(Duration::from_millis(3));
    assert_eq!(clock.now(), Instant::from_millis(3));
    assert_eq!(clock.into_inner().nanos.get(), 0);
}
