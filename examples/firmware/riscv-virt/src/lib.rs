//! QEMU's RISC-V board `virt`: the application's clock and UART.
#![no_std]

use app::serial::{Port, ReceiveBuffer};
use core::ptr::{read_volatile, write_volatile};
use riscv::{
    interrupt::Interrupt,
    register::{mie, mstatus},
};
use stateroom_wasmi_host::{Clock, Instant};

/// Of 4 MB.
pub const HEAP_BYTES: usize = 3 << 20;

/// The timer of the core (CLINT), which counts at 10 MHz.
const MTIMECMP: *mut u32 = 0x0200_4000 as *mut u32;
const MTIME: *mut u32 = 0x0200_bff8 as *mut u32;
const NANOS_PER_TICK: u64 = 100;

/// A UART 16550; the registers in use, and their bits.
const DATA: *mut u8 = 0x1000_0000 as *mut u8;
const IER: *mut u8 = 0x1000_0001 as *mut u8;
const FCR: *mut u8 = 0x1000_0002 as *mut u8;
const LSR: *mut u8 = 0x1000_0005 as *mut u8;
const DATA_READY: u8 = 1;
const TX_EMPTY: u8 = 1 << 5;

/// The interrupt controller (PLIC), and the UART's number there.
const UART_INTERRUPT: u32 = 10;
const UART_PRIORITY: *mut u32 = (0x0c00_0000 + 4 * UART_INTERRUPT as usize) as *mut u32;
const ENABLE: *mut u32 = 0x0c00_2000 as *mut u32;
const CLAIM: *mut u32 = 0x0c20_0004 as *mut u32;

static RECEIVED: ReceiveBuffer = ReceiveBuffer::empty();

/// Starts the UART; the timer is running already.
pub fn start() -> (Timer, Uart) {
    // SAFETY: nothing else accesses these registers, and the interrupt handlers are defined.
    unsafe {
        write_volatile(FCR, 1);
        write_volatile(IER, 1);
        write_volatile(UART_PRIORITY, 1);
        write_volatile(ENABLE, 1 << UART_INTERRUPT);
        set_alarm(u64::MAX);
        mie::set_mext();
        mie::set_mtimer();
        mstatus::set_mie();
    }
    (Timer(()), Uart(()))
}

/// The timer of the core.
pub struct Timer(());

impl Clock for Timer {
    fn now(&self) -> Instant {
        // SAFETY: reading the time has no effect.
        let read = |half| unsafe { read_volatile(MTIME.add(half)) };
        loop {
            let high = read(1);
            let low = read(0);
            if read(1) == high {
                return Instant::from_nanos(
                    (u64::from(high) << 32 | u64::from(low)) * NANOS_PER_TICK,
                );
            }
        }
    }
}

impl Timer {
    /// Stops the processor until a time or until `has_input` returns true, which only an interrupt
    /// can change.
    pub fn sleep(&self, until: Option<Instant>, mut has_input: impl FnMut() -> bool) {
        let alarm = until.map_or(u64::MAX, |until| until.as_nanos().div_ceil(NANOS_PER_TICK));
        while until.is_none_or(|until| self.now() < until) {
            // With interrupts masked, one that arrives between the check and `wfi` stays pending
            // and ends the sleep; it is handled afterwards. The alarm is no longer needed by then.
            let ends = critical_section::with(|_| {
                let ends = has_input();
                if !ends {
                    set_alarm(alarm);
                    riscv::asm::wfi();
                    set_alarm(u64::MAX);
                }
                ends
            });
            if ends {
                return;
            }
        }
    }
}

/// Resets the board.
pub fn reset() -> ! {
    const RESET: *mut u32 = 0x0010_0000 as *mut u32;
    loop {
        // SAFETY: the program ends here.
        unsafe { write_volatile(RESET, 0x7777) }
    }
}

fn set_alarm(ticks: u64) {
    // SAFETY: only this function sets the alarm. The high half is at its maximum in between, so
    // that the alarm does not fire early.
    unsafe {
        write_volatile(MTIMECMP.add(1), u32::MAX);
        write_volatile(MTIMECMP, ticks as u32);
        write_volatile(MTIMECMP.add(1), (ticks >> 32) as u32);
    }
}

/// The UART: receives by interrupt, sends a byte at a time.
pub struct Uart(());

impl Port for Uart {
    fn received(&self) -> &'static ReceiveBuffer {
        &RECEIVED
    }

    fn can_send(&self) -> bool {
        // SAFETY: reading the status has no effect.
        unsafe { read_volatile(LSR) & TX_EMPTY != 0 }
    }

    fn send(&mut self, byte: u8) {
        // SAFETY: there is one `Uart`, and the interrupt handler does not send.
        unsafe { write_volatile(DATA, byte) }
    }
}

#[riscv_rt::core_interrupt(Interrupt::MachineExternal)]
fn external() {
    // SAFETY: reading consumes the byte, and only this function reads it.
    unsafe {
        let interrupt = read_volatile(CLAIM);
        while read_volatile(LSR) & DATA_READY != 0 {
            RECEIVED.push(read_volatile(DATA));
        }
        write_volatile(CLAIM, interrupt);
    }
}
