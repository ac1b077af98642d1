//! STM32F405, which QEMU has as `netduinoplus2`: what the application needs of the board.
#![no_std]

use app::serial::{Port, Received};
use core::ptr::{read_volatile, write_volatile};
use cortex_m::Peripherals;
use cortex_m_rt::exception;
use systick::SysTick;

/// What the processor runs at: 168 MHz in QEMU. A real part starts with 16 MHz, until the program
/// has set up its clocks.
pub const HZ: u32 = 168_000_000;

/// Of the 110 KB that are not stack.
pub const HEAP_BYTES: usize = 106 << 10;

/// USART1, which is QEMU's `-serial`; the registers that are used, and their bits.
const SR: *mut u32 = 0x4001_1000 as *mut u32;
const DR: *mut u32 = 0x4001_1004 as *mut u32;
const CR1: *mut u32 = 0x4001_100c as *mut u32;
const RXNE: u32 = 1 << 5;
const TXE: u32 = 1 << 7;
const UE_RXNEIE_TE_RE: u32 = 1 << 13 | 1 << 5 | 1 << 3 | 1 << 2;
const USART1_INTERRUPT: i16 = 37;

static RECEIVED: Received = Received::empty();

/// Starts the timer and the UART.
pub fn start() -> (SysTick<HZ>, Uart) {
    let cpu = Peripherals::take().expect("the board is started once");
    let uart = Uart(());
    // SAFETY: nothing else touches these registers. A real part also wants the clock of USART1 and
    // its pins switched on (RCC, GPIO) and a baud rate (BRR), which QEMU does not ask for.
    unsafe {
        write_volatile(CR1, UE_RXNEIE_TE_RE);
        cpu.NVIC.iser[USART1_INTERRUPT as usize / 32].write(1 << (USART1_INTERRUPT % 32));
    }
    (SysTick::start(cpu.SYST), uart)
}

/// USART1: received by interrupt, sent a byte at a time.
pub struct Uart(());

impl Port for Uart {
    fn received(&self) -> &'static Received {
        &RECEIVED
    }

    fn can_send(&self) -> bool {
        // SAFETY: reading the status changes nothing.
        unsafe { read_volatile(SR) & TXE != 0 }
    }

    fn send(&mut self, byte: u8) {
        // SAFETY: there is one `Uart`, and the interrupt does not send.
        unsafe { write_volatile(DR, byte.into()) }
    }
}

#[exception]
unsafe fn DefaultHandler(interrupt: i16) {
    assert_eq!(interrupt, USART1_INTERRUPT, "nobody has enabled another");
    // SAFETY: reading takes the byte, and only this function does.
    while unsafe { read_volatile(SR) } & RXNE != 0 {
        RECEIVED.push(unsafe { read_volatile(DR) } as u8);
    }
}
