//! STM32F405, which QEMU has as `netduinoplus2`: the application's clock and UART.
#![no_std]

use app::serial::{Port, ReceiveBuffer};
use core::ptr::{read_volatile, write_volatile};
use cortex_m::Peripherals;
use cortex_m_rt::exception;
use systick::SysTick;

/// The processor's clock: 168 MHz in QEMU. A real part starts at 16 MHz, until the program has set
/// up its clocks.
pub const HZ: u32 = 168_000_000;

/// Of the 110 KB of RAM beside the stack.
pub const HEAP_BYTES: usize = 106 << 10;

/// USART1, which is QEMU's `-serial`; the registers in use, and their bits.
const SR: *mut u32 = 0x4001_1000 as *mut u32;
const DR: *mut u32 = 0x4001_1004 as *mut u32;
const CR1: *mut u32 = 0x4001_100c as *mut u32;
const RXNE: u32 = 1 << 5;
const TXE: u32 = 1 << 7;
const UE_RXNEIE_TE_RE: u32 = 1 << 13 | 1 << 5 | 1 << 3 | 1 << 2;
const USART1_INTERRUPT: i16 = 37;

static RECEIVED: ReceiveBuffer = ReceiveBuffer::empty();

/// Starts the timer and the UART.
pub fn start() -> (SysTick<HZ>, Uart) {
    let cpu = Peripherals::take().expect("`start` is called once");
    let uart = Uart(());
    // SAFETY: nothing else accesses these registers. A real part also needs the clock of USART1 and
    // its pins enabled (RCC, GPIO) and a baud rate (BRR), which QEMU does not.
    unsafe {
        write_volatile(CR1, UE_RXNEIE_TE_RE);
        cpu.NVIC.iser[USART1_INTERRUPT as usize / 32].write(1 << (USART1_INTERRUPT % 32));
    }
    (SysTick::start(cpu.SYST), uart)
}

/// USART1: receives by interrupt, sends a byte at a time.
pub struct Uart(());

impl Port for Uart {
    fn received(&self) -> &'static ReceiveBuffer {
        &RECEIVED
    }

    fn can_send(&self) -> bool {
        // SAFETY: reading the status has no effect.
        unsafe { read_volatile(SR) & TXE != 0 }
    }

    fn send(&mut self, byte: u8) {
        // SAFETY: there is one `Uart`, and the interrupt handler does not send.
        unsafe { write_volatile(DR, byte.into()) }
    }
}

#[exception]
unsafe fn DefaultHandler(interrupt: i16) {
    assert_eq!(interrupt, USART1_INTERRUPT, "no other interrupt is enabled");
    // SAFETY: reading consumes the byte, and only this function reads it.
    while unsafe { read_volatile(SR) } & RXNE != 0 {
        RECEIVED.push(unsafe { read_volatile(DR) } as u8);
    }
}
