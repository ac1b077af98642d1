//! A heap with counters, to measure rooms, and an optional second region for large blocks: the
//! memories of guests, in external RAM.

use crate::rooms::RoomError;
use core::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use embedded_alloc::LlffHeap;
use stateroom_wasmi_host::HeapEstimate;

/// Blocks of this size or more go to the second region, if the board has one: a page of a guest's
/// memory, and nothing else that small rooms allocate.
pub const LARGE_BYTES: usize = 64 << 10;

/// First-fit heaps of `embedded-alloc`, with counters.
pub struct Heap {
    inner: LlffHeap,
    /// Empty if the board has no second region.
    large: LlffHeap,
    /// Start and end of that region.
    large_region: (AtomicUsize, AtomicUsize),
    live: AtomicUsize,
    peak: AtomicUsize,
    allocations: AtomicUsize,
}

impl Heap {
    pub const fn empty() -> Self {
        Self {
            inner: LlffHeap::empty(),
            large: LlffHeap::empty(),
            large_region: (AtomicUsize::new(0), AtomicUsize::new(0)),
            live: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            allocations: AtomicUsize::new(0),
        }
    }

    /// # Safety
    ///
    /// Must be called once, with memory that nothing else uses.
    pub unsafe fn init(&self, start: usize, bytes: usize) {
        // SAFETY: the caller upholds the same contract.
        unsafe { self.inner.init(start, bytes) }
    }

    /// Adds a region for large blocks.
    ///
    /// # Safety
    ///
    /// As [`init`](Self::init).
    pub unsafe fn init_large(&self, start: usize, bytes: usize) {
        self.large_region.0.store(start, Relaxed);
        self.large_region.1.store(start + bytes, Relaxed);
        // SAFETY: the caller upholds the same contract.
        unsafe { self.large.init(start, bytes) }
    }

    /// Free bytes, which may be fragmented.
    pub fn free(&self) -> Free {
        Free {
            heap: self.inner.free(),
            large: self.large.free(),
        }
    }

    fn is_large(&self, block: *mut u8) -> bool {
        (self.large_region.0.load(Relaxed)..self.large_region.1.load(Relaxed))
            .contains(&block.addr())
    }

    /// Bytes in use, without the allocator's overhead.
    pub fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// The most bytes in use since [`reset_peak`](Self::reset_peak).
    pub fn peak(&self) -> usize {
        self.peak.load(Relaxed)
    }

    pub fn reset_peak(&self) {
        self.peak.store(self.live(), Relaxed);
    }

    /// Number of allocations so far.
    pub fn allocations(&self) -> usize {
        self.allocations.load(Relaxed)
    }
}

// SAFETY: all calls are forwarded to the inner allocators. The processor has one core, and no
// interrupt allocates.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the same contract.
        let mut block = match layout.size() {
            LARGE_BYTES.. => unsafe { self.large.alloc(layout) },
            _ => core::ptr::null_mut(),
        };
        if block.is_null() {
            // SAFETY: as above.
            block = unsafe { self.inner.alloc(layout) };
        }
        if !block.is_null() {
            let live = self.live() + layout.size();
            self.live.store(live, Relaxed);
            self.peak.fetch_max(live, Relaxed);
            self.allocations.fetch_add(1, Relaxed);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.live.fetch_sub(layout.size(), Relaxed);
        let heap = if self.is_large(block) {
            &self.large
        } else {
            &self.inner
        };
        // SAFETY: the block is from that heap; otherwise as above.
        unsafe { heap.dealloc(block, layout) }
    }
}

/// Free memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Free {
    pub heap: usize,
    /// In the region for large blocks.
    pub large: usize,
}

impl Free {
    /// No bound: on a desktop.
    pub const UNLIMITED: Self = Self {
        heap: usize::MAX,
        large: 0,
    };

    /// What is left without so many bytes of heap.
    ///
    /// # Errors
    ///
    /// If that does not fit.
    pub fn without(self, bytes: usize) -> Result<Self, RoomError> {
        match self.heap.checked_sub(bytes) {
            Some(heap) => Ok(Self { heap, ..self }),
            None => Err(RoomError::OutOfMemory {
                needed: bytes,
                free: self.heap,
            }),
        }
    }

    /// Reserves what a module and one room of it may take, and returns the rest.
    ///
    /// # Errors
    ///
    /// If that does not fit: the bytes of heap that it needs.
    pub fn reserve(self, needed: HeapEstimate) -> Result<Self, usize> {
        let uses_large = (LARGE_BYTES..=self.large).contains(&needed.memory);
        let (large, needed) = match uses_large {
            true => (self.large - needed.memory, needed.without_memory()),
            false => (self.large, needed),
        };
        let needed = needed.with_one_room();
        let heap = self.heap.checked_sub(needed).ok_or(needed)?;
        Ok(Self { heap, large })
    }
}
