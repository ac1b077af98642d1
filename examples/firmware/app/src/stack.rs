//! Measures stack use by painting: unused stack keeps the pattern.

use core::ptr::{addr_of, read_volatile, write_volatile};

const PAINT: u32 = 0xacce_55ed;
/// Not painted, for the frame of [`paint`] itself.
const SLACK_BYTES: usize = 64;

unsafe extern "C" {
    /// The two ends of the stack, from the linker scripts. It grows downwards.
    static _stack_start: u32;
    static _stack_end: u32;
}

/// Paints the unused stack, and returns its upper end: about where the caller's frame is.
#[inline(never)]
pub fn paint() -> usize {
    let here = 0_u32;
    let top = (addr_of!(here) as usize - SLACK_BYTES) & !3;
    let mut word = addr_of!(_stack_end) as usize;
    while word < top {
        // SAFETY: this is below every frame in use.
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
    // SAFETY: reading the stack has no effect; the loop stays within it.
    while word < addr_of!(_stack_start) as usize
        && unsafe { read_volatile(word as *const u32) } == PAINT
    {
        word += 4;
    }
    word
}
