//! A value that is used by one call at a time.

use crate::failure::Failure;
use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU8, Ordering},
};

/// A value that one call at a time may use. Others are refused at once: those of another thread, and
/// those of a callback of the first.
pub(crate) struct Exclusive<T> {
    state: AtomicU8,
    value: UnsafeCell<T>,
}

/// Nobody uses the value.
const FREE: u8 = 0;
/// A call uses it, or it is about to be freed.
const IN_USE: u8 = 1;
/// A call that used it has panicked.
const LOST: u8 = 2;

// SAFETY: a reference to the value exists only while `state` is `IN_USE`, which one call alone sets.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            state: AtomicU8::new(FREE),
            value: UnsafeCell::new(value),
        }
    }

    /// Calls with the value.
    pub(crate) fn with<R>(
        &self,
        f: impl FnOnce(&mut T) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        self.acquire(FREE).map_err(|state| match state {
            LOST => Failure::Lost,
            _ => Failure::InUse,
        })?;
        let mut release = Release {
            state: &self.state,
            next: LOST,
        };
        // SAFETY: `state` was free and is now in use until `release` is dropped.
        let result = f(unsafe { &mut *self.value.get() });
        release.next = FREE;
        result
    }

    /// Keeps the value in use for good, so that it can be freed.
    pub(crate) fn retire(&self) -> Result<(), Failure> {
        self.acquire(FREE)
            .or_else(|_| self.acquire(LOST))
            .map_err(|_| Failure::InUse)
    }

    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }

    fn acquire(&self, from: u8) -> Result<(), u8> {
        self.state
            .compare_exchange(from, IN_USE, Ordering::Acquire, Ordering::Relaxed)
            .map(drop)
    }
}

/// Ends the use of a value, also when that panics.
struct Release<'a> {
    state: &'a AtomicU8,
    next: u8,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.state.store(self.next, Ordering::Release);
    }
}
