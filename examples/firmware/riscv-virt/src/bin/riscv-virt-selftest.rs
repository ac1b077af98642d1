//! The self-test on this board: prints by semihosting, so it needs a debugger or QEMU.
#![no_std]
#![no_main]

use riscv_virt as board;

use app::{heap::Heap, measure::TestBench, rooms, selftest};
use semihosted::Terminal;

#[global_allocator]
static HEAP: Heap = Heap::empty();

#[riscv_rt::entry]
fn main() -> ! {
    let (timer, _) = board::start();
    // SAFETY: called once, before anything allocates.
    unsafe {
        embedded_alloc::init!(HEAP, board::HEAP_BYTES);
    }
    let mut bench = TestBench {
        out: &mut Terminal,
        clock: &timer,
        heap: &HEAP,
    };
    semihosted::exit(selftest::run(&mut bench, &rooms::SDK))
}
