//! Returns zero pages of a guest's memory to the operating system.
//!
//! The interpreter zeroes a memory by writing it, so all of it becomes resident, though most guests
//! never touch most of theirs: a room with a compiler's default stack has 17 pages of 64 KiB and uses
//! less than one. Zero pages can be released, since they read as zero afterwards.

#![allow(unsafe_code, reason = "madvise has no safe form")]

use super::memory::is_zero;
use core::ffi::c_void;
use rustix::mm::{Advice, madvise};

/// Releases the pages of `memory` that are all zero; returns their size in bytes.
///
/// The contents of `memory` do not change. No-op unless the memory is private and anonymous, as that
/// of allocators is.
pub(super) fn release_zero_pages(memory: &mut [u8]) -> usize {
    let page = rustix::param::page_size();
    let first = memory.as_ptr().align_offset(page);
    let Some(mut rest) = memory.get_mut(first..) else {
        return 0;
    };
    let mut released = 0;
    while rest.len() >= page {
        // One system call for adjacent pages.
        let zeros = page
            * rest
                .chunks_exact(page)
                .take_while(|page| is_zero(page))
                .count();
        let (zero_pages, others) = rest.split_at_mut(zeros);
        if !zero_pages.is_empty() && !release(zero_pages) {
            break;
        }
        released += zeros;
        // Skip the page after them, which is not zero.
        rest = others.get_mut(page..).unwrap_or_default();
    }
    released
}

fn release(zero_pages: &mut [u8]) -> bool {
    let (address, len) = (zero_pages.as_mut_ptr().cast::<c_void>(), zero_pages.len());
    // SAFETY: these are whole pages of zeros, borrowed exclusively. `MADV_FREE` lets the kernel
    // replace them by zero pages, and fails for anything but private anonymous memory; so after it
    // succeeded, `MADV_DONTNEED` does the same at once. Neither changes their contents.
    unsafe {
        madvise(address, len, Advice::LinuxFree).is_ok()
            && madvise(address, len, Advice::LinuxDontNeed).is_ok()
    }
}
