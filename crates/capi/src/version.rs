//! Versions of the library and of its interface.

use core::ffi::c_char;

/// The version of the interface that this header declares. It changes when a program that was
/// compiled with an older header would not work any more; additions do not change it.
pub const STATEROOM_INTERFACE_VERSION: u32 = 1;

/// A time that never comes.
pub const STATEROOM_NEVER: u64 = u64::MAX;

/// No limit for fuel.
pub const STATEROOM_UNLIMITED: u64 = u64::MAX;

/// The key of a room, by which a host knows it. Keys are never used again, so that one of a room
/// that has ended names no other.
pub type stateroom_room = u64;

/// A key that no room ever has.
pub const STATEROOM_NO_ROOM: stateroom_room = 0;

/// Returns the interface version of the library. Compare it with STATEROOM_INTERFACE_VERSION
/// where the library is loaded at run time.
///
/// Any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn stateroom_interface_version() -> u32 {
    STATEROOM_INTERFACE_VERSION
}

/// Returns the version of the library, such as "0.1.0": static, and ended by a NUL.
///
/// Any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn stateroom_library_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
