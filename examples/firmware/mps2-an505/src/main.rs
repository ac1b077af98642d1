//! The rooms on this board.
#![no_std]
#![no_main]

use mps2_an505 as board;

use app::heap::Heap;
use core::panic::PanicInfo;

#[global_allocator]
static HEAP: Heap = Heap::empty();

#[cortex_m_rt::entry]
fn main() -> ! {
    let (timer, uart) = board::start();
    // SAFETY: this is the first and only time.
    unsafe {
        embedded_alloc::init!(HEAP, board::HEAP_BYTES);
        HEAP.init_large(board::PSRAM, board::PSRAM_BYTES);
    }
    let sleep = |until, awaited: &mut dyn FnMut() -> bool| timer.sleep(until, awaited);
    let Err(refused) = app::serve::run(&timer, uart, HEAP.free(), sleep);
    panic!("{refused}")
}

/// There is nobody to tell: a product would note it and start again.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
