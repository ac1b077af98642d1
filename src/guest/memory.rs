//! Helpers for a guest's linear memory.

use super::host_state::HostState;
use wasmi::{Memory, Store};

/// The size of the memory's pages, which a module may choose. An empty memory, whose pages cannot be
/// measured, is grown by one; none if that is impossible.
pub(super) fn page_bytes(memory: Memory, store: &mut Store<HostState>) -> Option<usize> {
    if memory.size(&*store) == 0 {
        memory.grow(&mut *store, 1).ok()?;
    }
    let pages = usize::try_from(memory.size(&*store)).ok()?;
    Some(memory.data(&*store).len() / pages)
}

/// Grows the memory by pages that have as many bytes, or more; returns how many. None if it cannot grow.
pub(super) fn grow(memory: Memory, store: &mut Store<HostState>, bytes: usize) -> Option<usize> {
    let before = memory.data(&*store).len();
    if bytes == 0 {
        return Some(0);
    }
    let page_bytes = page_bytes(memory, store)?;
    // An empty memory has a page now.
    let grown = memory.data(&*store).len() - before;
    let pages = bytes.saturating_sub(grown).div_ceil(page_bytes);
    memory.grow(&mut *store, pages as u64).ok()?;
    Some(memory.data(&*store).len() - before)
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
