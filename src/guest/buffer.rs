//! The buffer in a guest's memory that payloads are written into.

use super::{host_state::HostState, memory::grow};
use crate::error::FaultCause;
use wasmi::{Memory, Store};

/// Where a payload goes. The default is none, which fits no payload, not even an empty one.
#[derive(Clone, Copy, Default)]
pub(super) struct Buffer {
    pub(super) ptr: u32,
    /// The shortest length that does not fit.
    pub(super) limit: u32,
    /// Whether the guest's allocator returned it and must free it.
    pub(super) owned_by_guest: bool,
}

impl Buffer {
    pub(super) const fn len(self) -> u32 {
        self.limit.saturating_sub(1)
    }

    /// The buffer at the pointer that the guest's allocator returned.
    ///
    /// Null is a valid pointer to no bytes. For more it means that the guest has no memory, and the
    /// payload goes into pages that the host adds, which are kept in `pages` for the next time.
    pub(super) fn allocated(
        ptr: u32,
        len: u32,
        pages: &mut Self,
        memory: Memory,
        store: &mut Store<HostState>,
    ) -> Result<Self, FaultCause> {
        let end = u64::from(ptr) + u64::from(len);
        if ptr == 0 && len > 0 {
            if len >= pages.limit {
                *pages = Self::in_new_pages(len, *pages, memory, store)
                    .ok_or(FaultCause::BadAllocation { ptr, len })?;
            }
            Ok(*pages)
        } else if end > memory.data(&*store).len() as u64 {
            Err(FaultCause::BadAllocation { ptr, len })
        } else {
            Ok(Self {
                ptr,
                limit: len.saturating_add(1),
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
        // At least double, so that growing messages do not each leave a buffer behind.
        let len = needed.max(before.len().saturating_mul(2));
        let ptr = memory.data(&*store).len();
        let grown = grow(memory, store, len as usize)?;
        Some(Self {
            ptr: u32::try_from(ptr).ok()?,
            limit: u32::try_from(grown).ok()?.saturating_add(1),
            owned_by_guest: false,
        })
    }
}
