//! How deep the stack was used: it is painted, and later it shows where the paint is gone.

use core::ptr::{addr_of, read_volatile, write_volatile};

const PAINT: u32 = 0xacce_55ed;
/// Above what is painted, for the frame of whoever paints.
const SLACK_BYTES: usize = 64;

unsafe extern "C" {
    /// The two ends of the stack, which all the linker scripts here name so. It grows downwards.
    static _stack_start: u32;
    static _stack_end: u32;
}

/// Paints what is free of the stack, and answers where that ends: about where the caller's frame is.
#[inline(never)]
pub fn paint() -> usize {
    let here = 0_u32;
    let top = (addr_of!(here) as usize - SLACK_BYTES) & !3;
    let mut word = addr_of!(_stack_end) as usize;
    while word < top {
        // SAFETY: this is below all that is in use.
        unsafe { write_volatile(word as *mut u32, PAINT) };
        word += 4;
    }
    top
}

/// Bytes of the stack that were used below `top` since it was painted.
#[inline(never)]
pub fn used_below(top: usize) -> usize {
    top.saturating_sub(lowest())
}

/// Bytes of the whole stack that were used since it was painted.
pub fn used() -> usize {
    addr_of!(_stack_start) as usize - lowest()
}

fn lowest() -> usize {
    let mut word = addr_of!(_stack_end) as usize;
    // SAFETY: reading the stack changes nothing; it ends at something that is not painted.
    while word < addr_of!(_stack_start) as usize
        && unsafe { read_volatile(word as *const u32) } == PAINT
    {
        word += 4;
    }
    word
}
