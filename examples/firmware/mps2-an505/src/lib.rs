//! Arm's MPS2+ with the image AN505, a Cortex-M33: the application's clock and UART.
#![no_std]

use app::serial::{Port, ReceiveBuffer};
use core::ptr::{read_volatile, write_volatile};
use cortex_m::Peripherals;
use cortex_m_rt::exception;
use systick::SysTick;

/// The processor's clock.
pub const HZ: u32 = 20_000_000;

/// Of the 4 MB of RAM beside the stack.
pub const HEAP_BYTES: usize = 3 << 20;

/// The external RAM, for the memories of guests.
pub const PSRAM: usize = 0x8000_0000;
pub const PSRAM_BYTES: usize = 16 << 20;

/// UART 0 at its secure address; the registers in use, and their bits.
const DATA: *mut u32 = 0x5020_0000 as *mut u32;
const STATE: *mut u32 = 0x5020_0004 as *mut u32;
const CTRL: *mut u32 = 0x5020_0008 as *mut u32;
const INTCLEAR: *mut u32 = 0x5020_000c as *mut u32;
const BAUDDIV: *mut u32 = 0x5020_0010 as *mut u32;
const TX_FULL: u32 = 1;
const RX_FULL: u32 = 1 << 1;
const TX_RX_RXINT: u32 = 1 | 1 << 1 | 1 << 3;
const RX_INTERRUPT: u32 = 1 << 1;
const UART0_INTERRUPT: i16 = 32;

static RECEIVED: ReceiveBuffer = ReceiveBuffer::empty();

/// Starts the timer and the UART.
pub fn start() -> (SysTick<HZ>, Uart) {
    let cpu = Peripherals::take().expect("`start` is called once");
    let uart = Uart(());
    // SAFETY: nothing else accesses these registers.
    unsafe {
        write_volatile(BAUDDIV, HZ / 115_200);
        write_volatile(CTRL, TX_RX_RXINT);
        cpu.NVIC.iser[UART0_INTERRUPT as usize / 32].write(1 << (UART0_INTERRUPT % 32));
    }
    (SysTick::start(cpu.SYST), uart)
}

/// UART 0: receives by interrupt, sends a byte at a time.
pub struct Uart(());

impl Port for Uart {
    fn received(&self) -> &'static ReceiveBuffer {
        &RECEIVED
    }

    fn can_send(&self) -> bool {
        // SAFETY: reading the state has no effect.
        unsafe { read_volatile(STATE) & TX_FULL == 0 }
    }

    fn send(&mut self, byte: u8) {
        // SAFETY: there is one `Uart`, and the interrupt handler does not send.
        unsafe { write_volatile(DATA, byte.into()) }
    }
}

#[exception]
unsafe fn DefaultHandler(interrupt: i16) {
    assert_eq!(interrupt, UART0_INTERRUPT, "no other interrupt is enabled");
    // SAFETY: reading consumes the byte, and only this function reads it.
    unsafe {
        write_volatile(INTCLEAR, RX_INTERRUPT);
        while read_volatile(STATE) & RX_FULL != 0 {
            RECEIVED.push(read_volatile(DATA) as u8);
        }
    }
}
