//! The library's allocator: the program's, or the operating system's.

use crate::{
    buffer::stateroom_buffer,
    failure::Failure,
    ffi::{Caller, Versioned},
    status::stateroom_status,
};
use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    ffi::c_void,
    hint,
    ptr::{self, null_mut},
    sync::atomic::{AtomicU8, Ordering},
};

/// An allocator. Its functions are called by any thread that uses the library, and must not call
/// it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_allocator {
    /// sizeof (stateroom_allocator).
    pub size: usize,
    /// Given to each function.
    pub user: *mut c_void,
    /// Allocates `size` bytes, at least 1, at a multiple of `align`, a power of 2. Returns NULL
    /// if there is no memory. Required.
    pub allocate:
        Option<unsafe extern "C" fn(user: *mut c_void, size: usize, align: usize) -> *mut c_void>,
    /// Frees what was allocated with this `size` and `align`. Required.
    pub deallocate: Option<
        unsafe extern "C" fn(user: *mut c_void, memory: *mut c_void, size: usize, align: usize),
    >,
    /// Changes the size of what was allocated with `old_size` and `align`, keeping its contents.
    /// Returns NULL, and leaves it as it is, if there is no memory. NULL: allocate, copy and
    /// free.
    pub reallocate: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            memory: *mut c_void,
            old_size: usize,
            align: usize,
            new_size: usize,
        ) -> *mut c_void,
    >,
}

/// Sets the allocator for everything that the library allocates from now on, in the whole
/// process. It is copied, and cannot be changed any more. Without this call the library uses the
/// operating system's allocator; a library built without `std` has none.
///
/// When it returns NULL the process ends, or, without `std`, stateroom_panic is called: so keep a
/// reserve, and refuse modules that do not fit (stateroom_module_estimate_heap).
///
/// Before any other function, and while no other thread uses the library. Errors:
/// INVALID_ARGUMENT, TOO_LATE if something was allocated already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_allocator_set(
    allocator: *const stateroom_allocator,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let allocator = caller.read_versioned("allocator", allocator)?;
        ALLOCATOR.set(Functions::new(&allocator)?)
    })
}

#[global_allocator]
static ALLOCATOR: Allocator = Allocator {
    state: AtomicU8::new(UNSET),
    functions: UnsafeCell::new(None),
};

struct Allocator {
    state: AtomicU8,
    /// Written once, while `state` is `SETTING`; read when it is `CUSTOM`.
    functions: UnsafeCell<Option<Functions>>,
}

/// Nothing was allocated.
const UNSET: u8 = 0;
/// The functions are being written.
const SETTING: u8 = 1;
/// The program's functions allocate.
const CUSTOM: u8 = 2;
/// The operating system's allocator does.
const SYSTEM: u8 = 3;

/// The program's allocator.
#[derive(Clone, Copy)]
struct Functions {
    user: *mut c_void,
    allocate: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    deallocate: unsafe extern "C" fn(*mut c_void, *mut c_void, usize, usize),
    reallocate:
        Option<unsafe extern "C" fn(*mut c_void, *mut c_void, usize, usize, usize) -> *mut c_void>,
}

// SAFETY: the functions are written once, before `state` says that they may be read. What they point to
// is the program's, which promises that any thread may call them.
unsafe impl Sync for Allocator {}

impl Functions {
    fn new(allocator: &stateroom_allocator) -> Result<Self, Failure> {
        Ok(Self {
            user: allocator.user,
            allocate: allocator.allocate.ok_or(Failure::Null("allocate"))?,
            deallocate: allocator.deallocate.ok_or(Failure::Null("deallocate"))?,
            reallocate: allocator.reallocate,
        })
    }
}

impl Allocator {
    fn set(&self, functions: Functions) -> Result<(), Failure> {
        self.state
            .compare_exchange(UNSET, SETTING, Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| Failure::TooLate)?;
        // SAFETY: only the call that changes the state to `SETTING` comes here, and nobody reads yet.
        unsafe { *self.functions.get() = Some(functions) };
        self.state.store(CUSTOM, Ordering::Release);
        Ok(())
    }

    /// The program's functions; none if the operating system's are used, from now on for good.
    #[inline]
    fn functions(&self) -> Option<&Functions> {
        loop {
            match self.state.load(Ordering::Acquire) {
                SYSTEM => return None,
                // SAFETY: they were written before, and are not written again.
                CUSTOM => return unsafe { &*self.functions.get() }.as_ref(),
                SETTING => hint::spin_loop(),
                // Without an allocator of the system's, one can still be set.
                _ if cfg!(not(feature = "std")) => return None,
                _ => {
                    let _ = self.state.compare_exchange(
                        UNSET,
                        SYSTEM,
                        Ordering::Acquire,
                        Ordering::Acquire,
                    );
                }
            }
        }
    }
}

// SAFETY: each call is passed on to one allocator, the same for as long as there are allocations, with
// the size and the alignment that it was given.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.functions() {
            // SAFETY: the program's promise for its allocator; the size is not 0.
            Some(f) => unsafe { (f.allocate)(f.user, layout.size(), layout.align()) }.cast(),
            // SAFETY: as our caller promises.
            None => unsafe { system::alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match self.functions() {
            // SAFETY: the program's promise; `alloc` allocated it with this layout.
            Some(f) => unsafe {
                (f.deallocate)(f.user, memory.cast(), layout.size(), layout.align());
            },
            // SAFETY: as our caller promises.
            None => unsafe { system::dealloc(memory, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.functions().is_none() {
            // SAFETY: as our caller promises.
            return unsafe { system::alloc_zeroed(layout) };
        }
        // SAFETY: as our caller promises.
        let memory = unsafe { self.alloc(layout) };
        if !memory.is_null() {
            // SAFETY: it was allocated with this size.
            unsafe { ptr::write_bytes(memory, 0, layout.size()) };
        }
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(f) = self.functions() else {
            // SAFETY: as our caller promises.
            return unsafe { system::realloc(memory, layout, new_size) };
        };
        let (old_size, align) = (layout.size(), layout.align());
        if let Some(reallocate) = f.reallocate {
            // SAFETY: the program's promise; `alloc` allocated it with this layout.
            return unsafe { reallocate(f.user, memory.cast(), old_size, align, new_size) }.cast();
        }
        // SAFETY: the program's promise; the new size is not 0.
        let new = unsafe { (f.allocate)(f.user, new_size, align) }.cast::<u8>();
        if new.is_null() {
            return null_mut();
        }
        // SAFETY: both have that many bytes, and the old memory is not used any more.
        unsafe {
            ptr::copy_nonoverlapping(memory, new, old_size.min(new_size));
            (f.deallocate)(f.user, memory.cast(), old_size, align);
        }
        new
    }
}

/// The operating system's allocator.
#[cfg(feature = "std")]
mod system {
    use core::alloc::{GlobalAlloc, Layout};
    use std::alloc::System;

    pub(super) unsafe fn alloc(layout: Layout) -> *mut u8 {
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    pub(super) unsafe fn alloc_zeroed(layout: Layout) -> *mut u8 {
        // SAFETY: as our caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    pub(super) unsafe fn dealloc(memory: *mut u8, layout: Layout) {
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    pub(super) unsafe fn realloc(memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as our caller promises.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

/// There is none: nothing can be allocated before the program has set an allocator.
#[cfg(not(feature = "std"))]
mod system {
    use core::{alloc::Layout, ptr::null_mut};

    pub(super) const unsafe fn alloc(_layout: Layout) -> *mut u8 {
        null_mut()
    }

    pub(super) const unsafe fn alloc_zeroed(_layout: Layout) -> *mut u8 {
        null_mut()
    }

    pub(super) const unsafe fn dealloc(_memory: *mut u8, _layout: Layout) {}

    pub(super) const unsafe fn realloc(
        _memory: *mut u8,
        _layout: Layout,
        _new_size: usize,
    ) -> *mut u8 {
        null_mut()
    }
}

impl Default for stateroom_allocator {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            user: null_mut(),
            allocate: None,
            deallocate: None,
            reallocate: None,
        }
    }
}

// SAFETY: it begins with its size, and consists of pointers and optional pointers to functions, for
// which the header says what they must be.
unsafe impl Versioned for stateroom_allocator {}
