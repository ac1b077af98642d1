//! The self-test on this board: prints by semihosting, so it needs a debugger or QEMU.
#![no_std]
#![no_main]

use mps2_an505 as board;

use app::{heap::Heap, measure::Lab, rooms, selftest};
use semihosted::Terminal;

#[global_allocator]
static HEAP: Heap = Heap::empty();

#[cortex_m_rt::entry]
fn main() -> ! {
    let (timer, _) = board::start();
    // SAFETY: this is the first and only time.
    unsafe {
        embedded_alloc::init!(HEAP, board::HEAP_BYTES);
        HEAP.init_large(board::PSRAM, board::PSRAM_BYTES);
    }
    let mut lab = Lab {
        out: &mut Terminal,
        clock: &timer,
        heap: &HEAP,
    };
    semihosted::exit(selftest::run(&mut lab, &rooms::SDK))
}
