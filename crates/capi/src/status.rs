//! What functions return.

use crate::number::any_stateroom_status;
use core::ffi::c_char;

/// What a function returns: 0, or why it did nothing. Later versions may return others.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_status {
    /// Done.
    Ok = 0,

    // Misuse: mistakes in the program that calls.
    /// An argument is not allowed: NULL, misaligned, a number that means nothing, a struct whose
    /// `size` is not set, an option that this version of the library does not know.
    InvalidArgument = 1,
    /// A text is not UTF-8.
    NotUtf8 = 2,
    /// The pointer is no handle of this type, or the key is of a room of another host.
    WrongHandle = 3,
    /// The host is running: the call came from one of its callbacks, or from another thread.
    InUse = 4,
    /// This build of the library lacks the feature.
    Unsupported = 5,
    /// Memory was allocated already, so the allocator cannot be set any more.
    TooLate = 6,
    /// The library failed: a bug of it. The host can only be freed.
    Panicked = 7,
    /// The program's buffer is too small for a result.
    TooSmall = 8,

    // Loading a module.
    /// The limits contradict each other.
    InvalidLimits = 16,
    /// The bytes are not valid WebAssembly, or use a proposal that is not supported.
    InvalidModule = 17,
    /// The module is valid, but not a room. The message lists what is wrong.
    NotARoom = 18,
    /// The module is longer than a limit, or has more of something than a limit allows.
    ModuleTooLarge = 19,
    /// The module cannot be loaded for snapshots, since it has state that cannot be restored.
    HiddenState = 20,

    // Opening a room.
    /// The id is longer than `max_room_id_bytes`.
    IdTooLong = 32,
    /// The host has a room of this id.
    IdTaken = 33,
    /// The host has as many rooms as `max_rooms` allows.
    TooManyRooms = 34,
    /// This needs a module that was loaded with `snapshots`: the fault policy ROLLBACK, saving and
    /// loading rooms.
    NotLoadedForSnapshots = 35,

    // Using a room. These are part of normal operation.
    /// The host has no such room, or not any more.
    UnknownRoom = 48,
    /// The room is closed.
    Closed = 49,
    /// The client's id is not from 1 to 2147483647.
    InvalidClient = 50,
    /// The client is connected already.
    AlreadyConnected = 51,
    /// The client is not connected.
    NotConnected = 52,
    /// The room has as many clients as `max_clients` allows.
    RoomFull = 53,
    /// The message is longer than `max_message_bytes`: it is never accepted.
    MessageTooLong = 54,
    /// The room is busy and its inbox is full: try again after the next poll.
    InboxFull = 55,

    // Saving and loading rooms.
    /// The bytes are no snapshot, or a damaged one, or of a later format.
    InvalidSnapshot = 64,
    /// The snapshot is of another module, another version of the interpreter or another way to pass
    /// payloads, or of a room under other limits; the message says of which.
    OtherSnapshot = 65,
    /// A callback refused an output, which must be sent before the room can be saved.
    OutputsWaiting = 66,
    /// Events wait for the room, so that it does not hibernate.
    Busy = 67,
}

/// Returns what a status means, in a few words: static, and ended by a NUL. The message that a
/// function writes to `error` says more.
///
/// Any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn stateroom_status_text(status: any_stateroom_status) -> *const c_char {
    use stateroom_status as S;
    let text = match status {
        s if s == S::Ok as i32 => c"done",
        s if s == S::InvalidArgument as i32 => c"invalid argument",
        s if s == S::NotUtf8 as i32 => c"the text is not UTF-8",
        s if s == S::WrongHandle as i32 => c"a handle of another type or host",
        s if s == S::InUse as i32 => c"the host is running",
        s if s == S::Unsupported as i32 => c"not built into this library",
        s if s == S::TooLate as i32 => c"memory was allocated already",
        s if s == S::Panicked as i32 => c"the library failed",
        s if s == S::InvalidLimits as i32 => c"the limits contradict each other",
        s if s == S::InvalidModule as i32 => c"not a valid WebAssembly module",
        s if s == S::NotARoom as i32 => c"the module is not a room",
        s if s == S::ModuleTooLarge as i32 => c"the module exceeds a limit",
        s if s == S::HiddenState as i32 => c"the module has state that cannot be saved",
        s if s == S::IdTooLong as i32 => c"the room's id is too long",
        s if s == S::IdTaken as i32 => c"a room of this id is open already",
        s if s == S::TooManyRooms as i32 => c"the host has its limit of rooms",
        s if s == S::NotLoadedForSnapshots as i32 => c"the module was not loaded for snapshots",
        s if s == S::UnknownRoom as i32 => c"there is no such room",
        s if s == S::Closed as i32 => c"the room is closed",
        s if s == S::InvalidClient as i32 => c"invalid client id",
        s if s == S::AlreadyConnected as i32 => c"the client is connected already",
        s if s == S::NotConnected as i32 => c"the client is not connected",
        s if s == S::RoomFull as i32 => c"the room has its limit of clients",
        s if s == S::MessageTooLong as i32 => c"the message is too long",
        s if s == S::InboxFull as i32 => c"the room's inbox is full",
        s if s == S::TooSmall as i32 => c"the buffer is too small",
        s if s == S::InvalidSnapshot as i32 => c"not a valid snapshot",
        s if s == S::OtherSnapshot as i32 => c"the snapshot is of another module, engine or limits",
        s if s == S::OutputsWaiting as i32 => c"outputs of the room were not sent yet",
        s if s == S::Busy as i32 => c"events wait for the room",
        _ => c"unknown status",
    };
    text.as_ptr()
}
