//! Records rooms on this board, or replays what another machine has recorded. Files are passed by
//! semihosting, so it needs a debugger or QEMU.
#![no_std]
#![no_main]

use riscv_virt as board;

use app::{
    heap::Heap,
    recordings::{self, Files},
    rooms,
};
use semihosted::Terminal;

#[global_allocator]
static HEAP: Heap = Heap::empty();

const FILES: Files = Files {
    read: semihosted::read_file,
    write: semihosted::write_file,
};

#[riscv_rt::entry]
fn main() -> ! {
    board::start();
    // SAFETY: called once, before anything allocates.
    unsafe {
        embedded_alloc::init!(HEAP, board::HEAP_BYTES);
    }
    let ended = recordings::run(&rooms::SDK, HEAP.free(), &FILES, &mut Terminal);
    semihosted::exit(ended)
}
