//! The program that called, and its pointers.

use super::handle::{Handle, HandleType};
use crate::{buffer::stateroom_buffer, failure::Failure, status::stateroom_status};
use core::{
    ffi::{c_char, c_void},
    fmt::{self, Write},
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::{self, NonNull},
    slice,
};

/// Stands for a program that called a function and keeps to the header's rules: each pointer that it
/// passed is null, or good for what the header says until the function returns. Its methods check what
/// can be checked, and turn the pointers into values that safe code can use.
///
/// All but [`run`](Self::run) are to be given pointers of this call only.
pub(crate) struct Caller {
    error: *mut stateroom_buffer,
}

/// A struct that may grow: a later version of the interface adds fields at its end, and `size` says
/// which of them the program knows.
///
/// # Safety
///
/// It is `repr(C)`, its first field is `size: usize`, and any bytes are a valid value, as far as the
/// program keeps to the header's rules.
pub(crate) unsafe trait Versioned: Copy {}

impl Caller {
    /// # Safety
    ///
    /// The caller of the function keeps to the header's rules for `error` and for all pointers that the
    /// methods are given.
    pub(crate) const unsafe fn new(error: *mut stateroom_buffer) -> Self {
        Self { error }
    }

    /// Does what the function is for, and reports how that went. A panic ends here.
    pub(crate) fn run(&self, f: impl FnOnce(&Self) -> Result<(), Failure>) -> stateroom_status {
        self.report(catch(|| f(self)))
    }

    /// Bytes to read. The pointer may be null if there are none.
    pub(crate) fn bytes(
        &self,
        name: &'static str,
        bytes: *const c_void,
        len: usize,
    ) -> Result<&[u8], Failure> {
        if len == 0 {
            return Ok(&[]);
        }
        if bytes.is_null() {
            return Err(Failure::Null(name));
        }
        if isize::try_from(len).is_err() {
            return Err(Failure::TooLong(name));
        }
        // SAFETY: the caller lets us read `len` bytes here until the function returns.
        Ok(unsafe { slice::from_raw_parts(bytes.cast(), len) })
    }

    /// A text to read.
    pub(crate) fn text(
        &self,
        name: &'static str,
        text: *const c_char,
        len: usize,
    ) -> Result<&str, Failure> {
        let bytes = self.bytes(name, text.cast(), len)?;
        str::from_utf8(bytes).map_err(|error| Failure::NotUtf8(name, error))
    }

    /// A place for a result, which has this value unless the function sets another.
    pub(crate) fn out<T: Copy>(
        &self,
        name: &'static str,
        place: *mut T,
        initial: T,
    ) -> Result<Out<'_, T>, Failure> {
        let out = Out {
            place: Some(aligned(name, place)?),
            caller: PhantomData,
        };
        out.set(initial);
        Ok(out)
    }

    /// The same for a result that the caller may not want.
    pub(crate) fn optional_out<T: Copy>(
        &self,
        name: &'static str,
        place: *mut T,
        initial: T,
    ) -> Result<Out<'_, T>, Failure> {
        if place.is_null() {
            return Ok(Out {
                place: None,
                caller: PhantomData,
            });
        }
        self.out(name, place, initial)
    }

    /// Places for a list. The pointer may be null if there are none.
    pub(crate) fn list<T: Copy>(
        &self,
        name: &'static str,
        places: *mut T,
        capacity: usize,
    ) -> Result<List<'_, T>, Failure> {
        if capacity == 0 {
            return Ok(List(&mut []));
        }
        let places = aligned(name, places)?.cast::<MaybeUninit<T>>();
        if capacity > isize::MAX as usize / size_of::<T>() {
            return Err(Failure::TooLong(name));
        }
        // SAFETY: the caller lets us write `capacity` elements here until the function returns; they
        // need not be initialised.
        Ok(List(unsafe {
            slice::from_raw_parts_mut(places.as_ptr(), capacity)
        }))
    }

    /// Reads a struct; fields that the program does not know have their defaults.
    pub(crate) fn read_versioned<T: Versioned + Default>(
        &self,
        name: &'static str,
        place: *const T,
    ) -> Result<T, Failure> {
        let place = aligned(name, place.cast_mut())?;
        let size = self.size_of(name, place)?;
        let bytes = place.as_ptr().cast::<u8>();
        if size > size_of::<T>() {
            // SAFETY: the program's struct has `size` bytes, which it has initialised.
            let rest =
                unsafe { slice::from_raw_parts(bytes.add(size_of::<T>()), size - size_of::<T>()) };
            if rest.iter().any(|byte| *byte != 0) {
                return Err(Failure::UnknownOption(name));
            }
        }
        let mut value = T::default();
        // SAFETY: both have that many bytes, and any bytes are a value of the type.
        unsafe {
            ptr::copy_nonoverlapping(
                bytes,
                (&raw mut value).cast::<u8>(),
                size.min(size_of::<T>()),
            );
        }
        Ok(value)
    }

    /// Reads a struct; a null pointer means the defaults.
    pub(crate) fn read_versioned_or_default<T: Versioned + Default>(
        &self,
        name: &'static str,
        place: *const T,
    ) -> Result<T, Failure> {
        if place.is_null() {
            return Ok(T::default());
        }
        self.read_versioned(name, place)
    }

    /// Writes as much of a struct as the program knows, but for its `size`. What the program knows and
    /// we do not becomes zero.
    pub(crate) fn write_versioned<T: Versioned>(
        &self,
        name: &'static str,
        place: *mut T,
        value: T,
    ) -> Result<(), Failure> {
        let place = aligned(name, place)?;
        let size = self.size_of(name, place)?;
        let bytes = place.as_ptr().cast::<u8>();
        let known = size.min(size_of::<T>());
        // SAFETY: the program's struct has `size` bytes, which it lets us write, and the value is
        // elsewhere.
        unsafe {
            ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), bytes, known);
            ptr::write_bytes(bytes.add(known), 0, size - known);
            place.cast::<usize>().write(size);
        }
        Ok(())
    }

    /// Writes a text into a buffer.
    pub(crate) fn write_text(
        &self,
        name: &'static str,
        buffer: *mut stateroom_buffer,
        text: &dyn fmt::Display,
    ) -> Result<(), Failure> {
        let mut buffer = aligned(name, buffer)?;
        // SAFETY: the caller lets us use the buffer until the function returns, and nobody else does.
        let buffer = unsafe { buffer.as_mut() };
        if buffer.data.is_null() && buffer.capacity > 0 {
            return Err(Failure::Null(name));
        }
        let space = if buffer.capacity == 0 {
            &mut []
        } else {
            // SAFETY: the caller lets us write that many bytes here; they need not be initialised.
            unsafe {
                slice::from_raw_parts_mut(
                    buffer.data.cast::<MaybeUninit<u8>>(),
                    buffer.capacity.min(isize::MAX as usize),
                )
            }
        };
        buffer.length = write_with_nul(space, text);
        Ok(())
    }

    /// What a handle stands for.
    pub(crate) fn handle<T: HandleType>(
        &self,
        name: &'static str,
        handle: *const T::Opaque,
    ) -> Result<&T, Failure> {
        let handle = aligned(name, handle.cast_mut().cast::<Handle<T>>())?;
        // SAFETY: the caller passes a handle that we made and that is not freed, of this type or
        // another; each begins with its kind.
        if unsafe { *handle.cast::<u32>().as_ref() } != T::KIND {
            return Err(Failure::WrongHandle(name));
        }
        // SAFETY: it is a handle of this type. It is freed by a call that the caller does not make while
        // another uses it.
        Ok(&unsafe { handle.as_ref() }.value)
    }

    /// Takes the value of a handle that is freed, unless `check` refuses; none if the handle is null.
    pub(crate) fn take_handle<T: HandleType>(
        &self,
        name: &'static str,
        place: *mut *mut T::Opaque,
        check: impl FnOnce(&T) -> Result<(), Failure>,
    ) -> Result<Option<T>, Failure> {
        let place = aligned(name, place)?;
        // SAFETY: the caller lets us read and write the variable that holds the handle.
        let handle = unsafe { place.read() };
        if handle.is_null() {
            return Ok(None);
        }
        check(self.handle::<T>(name, handle)?)?;
        // SAFETY: as above.
        unsafe { place.write(ptr::null_mut()) };
        // SAFETY: it is a handle of this type that is not freed, and nobody uses it any more.
        Ok(Some(unsafe { Handle::<T>::destroy(handle) }))
    }

    /// The size that the program's struct has.
    fn size_of<T: Versioned>(
        &self,
        name: &'static str,
        place: NonNull<T>,
    ) -> Result<usize, Failure> {
        /// What no struct will ever have; a `size` that was not set seldom is less.
        const MAX_SIZE: usize = 4096;
        // SAFETY: the struct begins with its size, and the caller lets us read it.
        let size = unsafe { place.cast::<usize>().read() };
        // The first version of the interface has no smaller ones.
        if size < size_of::<T>() || size > MAX_SIZE {
            return Err(Failure::BadSize {
                name,
                size,
                expected: size_of::<T>(),
            });
        }
        Ok(size)
    }

    /// Not generic, so that it is in the library once.
    fn report(&self, result: Result<(), Failure>) -> stateroom_status {
        let (status, message): (_, &dyn fmt::Display) = match &result {
            Ok(()) => (stateroom_status::Ok, &""),
            Err(failure) => (failure.status(), failure),
        };
        if !self.error.is_null() {
            // A program whose buffer is none cannot be told so.
            let _ = self.write_text("error", self.error, message);
        }
        status
    }
}

/// A place for a result.
pub(crate) struct Out<'a, T> {
    place: Option<NonNull<T>>,
    caller: PhantomData<&'a Caller>,
}

impl<T: Copy> Out<'_, T> {
    pub(crate) fn set(&self, value: T) {
        if let Some(place) = self.place {
            // SAFETY: the caller lets us write here until the function returns.
            unsafe { place.write(value) }
        }
    }
}

/// Places for a list of results.
pub(crate) struct List<'a, T>(&'a mut [MaybeUninit<T>]);

impl<T: Copy> List<'_, T> {
    /// Writes as many as there is space for.
    pub(crate) fn fill(&mut self, values: impl Iterator<Item = T>) {
        for (place, value) in self.0.iter_mut().zip(values) {
            place.write(value);
        }
    }
}

fn aligned<T>(name: &'static str, pointer: *mut T) -> Result<NonNull<T>, Failure> {
    let pointer = NonNull::new(pointer).ok_or(Failure::Null(name))?;
    if pointer.is_aligned() {
        Ok(pointer)
    } else {
        Err(Failure::Misaligned(name))
    }
}

/// Writes a text and a NUL, as far as there is space, and returns the length of the whole text.
pub(crate) fn write_with_nul(space: &mut [MaybeUninit<u8>], text: &dyn fmt::Display) -> usize {
    let (len, is_terminated) = match space.len().checked_sub(1) {
        Some(capacity) => (capacity, true),
        None => (0, false),
    };
    let mut writer = Writer {
        space: &mut space[..len],
        written: 0,
        length: 0,
    };
    // The writer never fails, and a value that fails to be displayed is displayed as far as it goes.
    let _ = write!(writer, "{text}");
    let Writer {
        written, length, ..
    } = writer;
    if is_terminated {
        space[written].write(0);
    }
    length
}

struct Writer<'a> {
    space: &'a mut [MaybeUninit<u8>],
    written: usize,
    /// Of the whole text; equals `written` until something did not fit.
    length: usize,
}

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.length == self.written {
            let space = &mut self.space[self.written..];
            let fits = floor_char_boundary(text, space.len());
            for (place, byte) in space.iter_mut().zip(text[..fits].bytes()) {
                place.write(byte);
            }
            self.written += fits;
        }
        self.length += text.len();
        Ok(())
    }
}

/// The length of the longest start of a text that has whole characters and no more than `max` bytes.
fn floor_char_boundary(text: &str, max: usize) -> usize {
    (0..=max.min(text.len()))
        .rev()
        .find(|len| text.is_char_boundary(*len))
        .unwrap_or(0)
}

/// Calls, and turns a panic into a failure.
#[cfg(feature = "std")]
fn catch(f: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    use alloc::string::String;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    // What may be left in a state that nobody expects is behind an `Exclusive`, which is then lost.
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let text = match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload
                .downcast_ref::<&str>()
                .map_or_else(String::new, |text| (*text).into()),
        };
        Err(Failure::Panicked(text))
    })
}

/// Calls. A panic does not return without `std`.
#[cfg(not(feature = "std"))]
fn catch(f: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    f()
}
