//! A clock on the delay of an `embedded-hal` driver.

use crate::{host::Clock, time::Instant};
use core::{
    cell::{Cell, RefCell},
    time::Duration,
};
use embedded_hal::delay::DelayNs;

/// A clock for boards whose only time source is a delay: it counts the time slept through it.
///
/// It is coarse: between two sleeps it stands still, so it lags by the time that the rooms' work
/// takes; [`pass`](Self::pass) adds time that is known by other means. A hardware timer is better,
/// and takes five lines: see [`Clock`].
///
/// Give the host a reference, and sleep with the clock itself:
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
/// # host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
/// # for _ in 0..1000 {
/// let wake_at = host.poll(Budget::UNLIMITED);
/// // Check for input every ten milliseconds.
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
    /// A clock at [`Instant::ZERO`].
    pub const fn new(delay: D) -> Self {
        Self {
            delay: RefCell::new(delay),
            now: Cell::new(Instant::ZERO),
        }
    }

    /// Sleeps and counts the time.
    ///
    /// # Panics
    ///
    /// If the delay itself calls this method.
    pub fn sleep(&self, time: Duration) {
        let mut delay = self.delay.borrow_mut();
        // Milliseconds first: a delay in nanoseconds is limited to four seconds.
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

    /// Sleeps until `wake_at` (what [`Host::poll`](crate::Host::poll) returned), but no longer than
    /// `at_most`, and returns for how long. It does not sleep if `wake_at` has passed.
    pub fn sleep_until(&self, wake_at: Option<Instant>, at_most: Duration) -> Duration {
        let time = wake_at.map_or(at_most, |at| {
            at.saturating_duration_since(self.now.get()).min(at_most)
        });
        self.sleep(time);
        time
    }

    /// Counts time that passed without a sleep.
    pub fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    /// Returns the delay.
    pub fn into_inner(self) -> D {
        self.delay.into_inner()
    }
}

impl<D: DelayNs> Clock for DelayClock<D> {
    fn now(&self) -> Instant {
        self.now.get()
    }
}
