//! Helpers for a guest's linear memory.

use super::host_state::HostState;
use wasmi::{Memory, Store};

/// The size of a page unless a module chooses another.
const DEFAULT_PAGE_BYTES: u32 = 64 << 10;

/// The size of the memory's pages; a module may choose it.
pub(super) fn page_bytes(memory: Memory, store: &Store<HostState>) -> u32 {
    match memory.size(store) {
        0 => DEFAULT_PAGE_BYTES,
        pages => (memory.data(store).len() as u64 / pages) as u32,
    }
}

/// Grows the memory; returns the address of the new pages. None if it cannot grow.
pub(super) fn grow(memory: Memory, store: &mut Store<HostState>, pages: u32) -> Option<u64> {
    let page_bytes = page_bytes(memory, store);
    let pages_before = memory.grow(store, pages.into()).ok()?;
    Some(pages_before * u64::from(page_bytes))
}

/// Whether all of these bytes are zero, as most of a guest's memory is.
#[cfg(any(feature = "snapshot", all(feature = "trim", target_os = "linux")))]
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // No early exit within a chunk, so that the compiler vectorises the loop.
    bytes.chunks(256).all(|chunk| {
        let (words, rest) = chunk.as_chunks::<16>();
        let bits = words
            .iter()
            .fold(0, |bits, word| bits | u128::from_ne_bytes(*word));
        bits == 0 && rest.iter().all(|byte| *byte == 0)
    })
}
