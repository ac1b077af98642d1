//! The SysTick timer of every Cortex-M as a [`Clock`].
#![no_std]

use core::cell::Cell;
use cortex_m::{
    asm,
    peripheral::{SYST, syst::SystClkSource},
};
use cortex_m_rt::exception;
use critical_section::Mutex;
use stateroom_wasmi_host::{Clock, Instant};

static MILLISECONDS: Mutex<Cell<u64>> = Mutex::new(Cell::new(0));

/// Counts milliseconds by interrupt, and reads the fraction from the timer. `HZ` is the processor's
/// clock.
pub struct SysTick<const HZ: u32>(());

impl<const HZ: u32> SysTick<HZ> {
    const TICKS_PER_MS: u32 = HZ / 1000;

    /// Starts the timer at zero.
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(Self::TICKS_PER_MS - 1);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        Self(())
    }

    /// Stops the processor until a time or until `has_input` returns true, which only an interrupt
    /// can change. The timer wakes it each millisecond; a product that must save power sets an
    /// alarm instead, as the RISC-V board here does.
    pub fn sleep(&self, until: Option<Instant>, mut has_input: impl FnMut() -> bool) {
        while until.is_none_or(|until| self.now() < until) {
            // With interrupts masked, one that arrives between the check and `wfi` stays pending
            // and ends the sleep; it is handled afterwards.
            let ends = critical_section::with(|_| {
                let ends = has_input();
                if !ends {
                    asm::wfi();
                }
                ends
            });
            if ends {
                return;
            }
        }
    }
}

impl<const HZ: u32> Clock for SysTick<HZ> {
    fn now(&self) -> Instant {
        let milliseconds = || critical_section::with(|cs| MILLISECONDS.borrow(cs).get());
        loop {
            let before = milliseconds();
            let ticks = Self::TICKS_PER_MS - 1 - SYST::get_current();
            if milliseconds() == before {
                let nanos = u64::from(ticks) * 1_000_000 / u64::from(Self::TICKS_PER_MS);
                return Instant::from_nanos(before * 1_000_000 + nanos);
            }
        }
    }
}

#[exception]
fn SysTick() {
    critical_section::with(|cs| {
        let milliseconds = MILLISECONDS.borrow(cs);
        milliseconds.set(milliseconds.get() + 1);
    });
}
