//! The buffer in a guest's memory that payloads are written into.

use super::{
    host_state::HostState,
    memory::{grow, page_bytes},
};
use crate::error::FaultCause;
use wasmi::{Memory, Store};

#[derive(Clone, Copy, Default)]
pub(super) struct Buffer {
    pub(super) ptr: u32,
    pub(super) len: u32,
    /// Whether the guest's allocator returned it and must free it.
    pub(super) owned_by_guest: bool,
}

impl Buffer {
    /// The buffer at the pointer that the guest's allocator returned, in place of the one before.
    pub(super) fn allocated(
        ptr: u32,
        len: u32,
        before: Self,
        memory: Memory,
        store: &mut Store<HostState>,
    ) -> Result<Self, FaultCause> {
        let end = u64::from(ptr) + u64::from(len);
        if ptr == 0 {
            Self::in_new_pages(len, before, memory, store)
                .ok_or(FaultCause::BadAllocation { ptr, len })
        } else if end > memory.data(&*store).len() as u64 {
            Err(FaultCause::BadAllocation { ptr, len })
        } else {
            Ok(Self {
                ptr,
                len,
                owned_by_guest: true,
            })
        }
    }

    /// A buffer in pages that the memory is grown by, for a guest whose allocator returned null.
    ///
    /// Such guests are common: the published SDKs ask for an alignment of zero, which is undefined,
    /// and current compilers turn that into an allocator that always returns null at some levels of
    /// optimisation. The JIT host then writes to address zero, over the guest's own data.
    fn in_new_pages(
        needed: u32,
        before: Self,
        memory: Memory,
        store: &mut Store<HostState>,
    ) -> Option<Self> {
        let page_bytes = page_bytes(memory, store);
        // At least double, so that growing messages do not each leave a buffer behind.
        let len = needed.max(before.len.saturating_mul(2)).max(1);
        let pages = len.div_ceil(page_bytes);
        let ptr = grow(memory, store, pages)?;
        Some(Self {
            ptr: u32::try_from(ptr).ok()?,
            len: pages.checked_mul(page_bytes)?,
            owned_by_guest: false,
        })
    }
}
