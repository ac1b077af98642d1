//! Time and sleep by the delay of an `embedded-hal` driver.

use crate::{host::Clock, time::Instant};
use core::{
    cell::{Cell, RefCell},
    time::Duration,
};
use embedded_hal::delay::DelayNs;

/// A clock for boards whose only time is a delay: it counts what was slept through it.
///
/// That is coarse. Between two sleeps it stands still, so the time that the rooms' work takes is not
/// counted, and it goes slow by that; [`pass`](Self::pass) adds what is known by other means. A
/// hardware timer is better, and takes five lines: see [`Clock`].
///
/// Hand the host a reference, so that the clock stays at hand to sleep with:
///
/// ```
/// use stateroom_wasmi_host::{driver::embedded_hal::DelayClock, *};
/// # use core::time::Duration;
/// # struct Delay;
/// # impl embedded_hal::delay::DelayNs for Delay {
/// #     fn delay_ns(&mut self, _: u32) {}
/// # }
/// # let delay = Delay;
/// # let wasm = include_bytes!("../../examples/rooms/wasm/clock-rust-0.2.wasm");
/// # let module = Module::load(wasm, &Limits::default()).unwrap();
/// let clock = DelayClock::new(delay);
/// let mut host = Host::new(&clock, RecordingTransport::new());
/// # let room = host.open("tower", &module).unwrap();
/// # host.handle_event(room, Event::Connect(ClientId(1))).unwrap();
/// # for _ in 0..1000 {
/// let wake_at = host.poll(Budget::UNLIMITED);
/// // Look at what comes in every ten milliseconds.
/// clock.sleep_until(wake_at, Duration::from_millis(10));
/// # }
/// # assert!(clock.now() > Instant::from_millis(9_900));
/// ```
#[derive(Debug)]
pub struct DelayClock<D> {
    delay: RefCell<D>,
    now: Cell<Instant>,
}

impl<D: DelayNs> DelayClock<D> {
    /// A clock that shows [`Instant::ZERO`].
    pub const fn new(delay: D) -> Self {
        Self {
            delay: RefCell::new(delay),
            now: Cell::new(Instant::ZERO),
        }
    }

    /// Sleeps, and counts the time.
    ///
    /// # Panics
    ///
    /// If the delay itself calls this.
    pub fn sleep(&self, time: Duration) {
        let mut delay = self.delay.borrow_mut();
        // In milliseconds first, since the nanoseconds of a delay last for four seconds.
        let mut millis = time.as_millis();
        while millis > 0 {
            let some = u32::try_from(millis).unwrap_or(u32::MAX);
            delay.delay_ms(some);
            millis -= u128::from(some);
        }
        match time.subsec_nanos() % 1_000_000 {
            0 => {}
            nanos => delay.delay_ns(nanos),
        }
        drop(delay);
        self.pass(time);
    }

    /// Sleeps until `wake_at` (what [`Host::poll`](crate::Host::poll) answered), but no longer than
    /// `at_most`; answers for how long. If it is time already, it does not sleep.
    pub fn sleep_until(&self, wake_at: Option<Instant>, at_most: Duration) -> Duration {
        let time = wake_at.map_or(at_most, |at| {
            at.saturating_duration_since(self.now.get()).min(at_most)
        });
        self.sleep(time);
        time
    }

    /// Counts time that passed otherwise.
    pub fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    /// Gives the delay back.
    pub fn into_inner(self) -> D {
        self.delay.into_inner()
    }
}

impl<D: DelayNs> Clock for DelayClock<D> {
    fn now(&self) -> Instant {
        self.now.get()
    }
}
