//! Texts that the library writes into memory of the caller's.

use core::ffi::c_char;

/// Memory of the caller's that a function writes a text to: UTF-8, ended by a NUL. What does not
/// fit is cut off, after a whole character; `length` then is `capacity` or more.
///
/// As the last parameter, `error`, it receives the message of a function that fails, and is
/// emptied by one that succeeds. It may be NULL. 4096 bytes hold nearly any message; those about
/// modules are the longest.
#[repr(C)]
#[derive(Debug)]
pub struct stateroom_buffer {
    /// Set by the caller: where to write. May be NULL if `capacity` is 0.
    pub data: *mut c_char,
    /// Set by the caller: how many bytes there are, with the NUL.
    pub capacity: usize,
    /// Set by the function: bytes of the whole text, without the NUL.
    pub length: usize,
}
