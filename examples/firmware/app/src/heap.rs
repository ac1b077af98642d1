//! A heap that counts, to see what rooms take of it.

use core::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use embedded_alloc::LlffHeap;

/// The first-fit heap of `embedded-alloc`, with counters.
pub struct Heap {
    inner: LlffHeap,
    live: AtomicUsize,
    peak: AtomicUsize,
    allocations: AtomicUsize,
}

impl Heap {
    pub const fn empty() -> Self {
        Self {
            inner: LlffHeap::empty(),
            live: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            allocations: AtomicUsize::new(0),
        }
    }

    /// # Safety
    ///
    /// Called once, with memory that nothing else uses.
    pub unsafe fn init(&self, start: usize, bytes: usize) {
        // SAFETY: the same is asked of the caller.
        unsafe { self.inner.init(start, bytes) }
    }

    /// Bytes that are free, maybe not in one piece.
    pub fn free(&self) -> usize {
        self.inner.free()
    }

    /// Bytes that are in use, as they were asked for.
    pub fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// The most that were in use since [`reset_peak`](Self::reset_peak).
    pub fn peak(&self) -> usize {
        self.peak.load(Relaxed)
    }

    pub fn reset_peak(&self) {
        self.peak.store(self.live(), Relaxed);
    }

    /// How often memory was asked for.
    pub fn allocations(&self) -> usize {
        self.allocations.load(Relaxed)
    }
}

// SAFETY: everything is left to the allocator within. The processor has one core, and no interrupt
// allocates.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract, which is the same.
        let block = unsafe { self.inner.alloc(layout) };
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
        // SAFETY: as above.
        unsafe { self.inner.dealloc(block, layout) }
    }
}
