//! The self-test on this board: prints by semihosting, so it needs a debugger or QEMU.
#![no_std]
#![no_main]

use mps2_an505 as board;

use app::{heap::Heap, measure::TestBench, rooms, selftest};
use semihosted::Terminal;

#[global_allocator]
static HEAP: Heap = Heap::empty();

#[cortex_m_rt::entry]
fn main() -> ! {
    let (timer, _) = board::start();
    // SAFETY: called once, before anything allocates.
    unsafe {
        embedded_alloc::init!(HEAP, board::HEAP_BYTES);
        HEAP.init_large(board::PSRAM, board::PSRAM_BYTES);
    }
    let mut bench = TestBench {
        out: &mut Terminal,
        clock: &timer,
        heap: &HEAP,
    };
    semihosted::exit(selftest::run(&mut bench, &rooms::SDK))
}
