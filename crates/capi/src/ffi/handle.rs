//! Handles: what the program holds instead of a value.

use alloc::boxed::Box;

/// A value that a program has a handle of, which it may use on any thread.
pub(crate) trait HandleType: Send + Sync {
    /// What the header calls it.
    type Opaque;
    /// Tells handles of different types apart.
    const KIND: u32;
}

/// Where a handle points to.
#[repr(C)]
pub(crate) struct Handle<T> {
    /// Comes first in handles of all types.
    kind: u32,
    pub(super) value: T,
}

impl<T: HandleType> Handle<T> {
    /// A handle that the program owns.
    pub(crate) fn create(value: T) -> *mut T::Opaque {
        let kind = T::KIND;
        Box::into_raw(Box::new(Self { kind, value })).cast()
    }

    /// Takes the value out of a handle, which is freed.
    ///
    /// # Safety
    ///
    /// [`create`](Self::create) made it, and nothing uses it any more.
    pub(super) unsafe fn destroy(handle: *mut T::Opaque) -> T {
        // SAFETY: `create` allocated it, as a box of this type.
        unsafe { Box::from_raw(handle.cast::<Self>()) }.value
    }
}
