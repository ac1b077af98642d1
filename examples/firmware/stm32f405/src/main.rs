//! The rooms on this board.
#![no_std]
#![no_main]

use stm32f405 as board;

use app::heap::Heap;
use core::panic::PanicInfo;

#[global_allocator]
static HEAP: Heap = Heap::empty();

#[cortex_m_rt::entry]
fn main() -> ! {
    let (timer, uart) = board::start();
    // SAFETY: called once, before anything allocates.
    unsafe {
        embedded_alloc::init!(HEAP, board::HEAP_BYTES);
    }
    let sleep = |until, has_input: &mut dyn FnMut() -> bool| timer.sleep(until, has_input);
    let Err(error) = app::serve::run(&timer, uart, HEAP.free(), sleep);
    panic!("{error}")
}

/// There is no output for the message: a product would record it before the reset.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
