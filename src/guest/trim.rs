//! Zero pages of a guest's memory, given back to the operating system.
//!
//! An interpreter's memory is zeroed by writing it, so that all of it becomes resident, though most
//! guests never touch most of theirs: a room made by a compiler with its default stack has 17 pages
//! of 64 KiB and uses less than one. What is zero can be given back; it is zero again when it is
//! next looked at.

#![allow(unsafe_code, reason = "madvise has no safe form")]

use super::memory::is_zero;
use core::ffi::c_void;
use rustix::mm::{Advice, madvise};

/// Gives the pages of `memory` that are all zero back; answers how many bytes.
///
/// What `memory` reads as does not change. It does nothing where the memory is not the private and
/// anonymous kind that allocators use.
pub(super) fn give_back_zero_pages(memory: &mut [u8]) -> usize {
    let page = rustix::param::page_size();
    let first = memory.as_ptr().align_offset(page);
    let Some(mut rest) = memory.get_mut(first..) else {
        return 0;
    };
    let mut given_back = 0;
    while rest.len() >= page {
        // Neighbours go together: one call for many pages.
        let zeros = page
            * rest
                .chunks_exact(page)
                .take_while(|page| is_zero(page))
                .count();
        let (zero_pages, others) = rest.split_at_mut(zeros);
        if !zero_pages.is_empty() && !give_back(zero_pages) {
            break;
        }
        given_back += zeros;
        // The next page, if there is one, is not zero.
        rest = others.get_mut(page..).unwrap_or_default();
    }
    given_back
}

fn give_back(zero_pages: &mut [u8]) -> bool {
    let (address, len) = (zero_pages.as_mut_ptr().cast::<c_void>(), zero_pages.len());
    // SAFETY: these are whole pages of zeros that nobody else refers to. `MADV_FREE` may let each
    // be replaced by a page of zeros, and fails for anything but private anonymous memory; so once
    // it has succeeded, `MADV_DONTNEED` does the same at once. Neither changes what they read as.
    unsafe {
        madvise(address, len, Advice::LinuxFree).is_ok()
            && madvise(address, len, Advice::LinuxDontNeed).is_ok()
    }
}
