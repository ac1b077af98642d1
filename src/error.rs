//! Errors by operation (loading a module, opening a room, giving it an event), and the faults of
//! guests.

use crate::{
    abi::{AbiProblem, AbiVersion, DecodeError},
    escape::Escaped,
    event::ClientId,
    limits::LimitsError,
};
use alloc::{boxed::Box, vec::Vec};
use core::{error::Error, fmt};

/// Why a [`Module`](crate::Module) could not be loaded.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The limits contradict each other.
    Limits(LimitsError),
    /// The module is longer than [`Limits::max_module_bytes`](crate::Limits::max_module_bytes).
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The module has more of something than a limit allows, so that its rooms would exceed it from
    /// the start.
    TooMany {
        /// Of what, such as `locals in one function`.
        what: &'static str,
        /// How many it has.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not valid WebAssembly, or use a proposal that is not supported.
    Invalid(EngineError),
    /// The text is not valid WebAssembly text.
    #[cfg(feature = "wat")]
    Text(EngineError),
    /// The module is valid, but does not conform to the ABI. Displays the first 32 problems.
    Abi {
        /// The ABI that it was checked against; none if it exports nothing of either.
        abi: Option<AbiVersion>,
        /// All problems; at least one.
        problems: Vec<AbiProblem>,
    },
    /// The module has an instruction that wasmi 2.0.0 executes incorrectly: a vector lane store at an
    /// offset of 65,536 or more, or to another memory than the first.
    #[cfg(feature = "simd")]
    Misread {
        /// Its name.
        instruction: &'static str,
    },
    /// The module cannot be loaded for [snapshots](crate::LoadOptions): its guests have state that
    /// cannot be restored.
    HiddenState {
        /// What has that state: an instruction such as `table.set`.
        what: &'static str,
    },
    /// The module cannot be loaded for [snapshots](crate::LoadOptions), since no instance of it can be
    /// made.
    Instantiation(Box<Fault>),
    /// The module was returned by `Module::instrument`, and so is loaded by `Module::load_instrumented`.
    AlreadyInstrumented,
    /// The module cannot be loaded by `Module::load_instrumented`.
    NotInstrumented {
        /// What it is: such as instrumented for another version of this crate, or not for snapshots.
        what: &'static str,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::TooLarge { bytes, limit } => {
                write!(
                    f,
                    "the module is {bytes} bytes long, more than the limit of {limit}"
                )
            }
            Self::TooMany { what, count, limit } => {
                write!(
                    f,
                    "the module has {count} {what}, more than the limit of {limit}"
                )
            }
            Self::Invalid(_) => f.write_str(
                "the module is not valid WebAssembly, or uses a proposal that is not supported",
            ),
            #[cfg(feature = "wat")]
            Self::Text(_) => f.write_str("not valid WebAssembly text"),
            #[cfg(feature = "simd")]
            Self::Misread { instruction } => write!(
                f,
                "the module uses {instruction} with an offset of 65536 or more or on a second memory, \
                 which the interpreter executes incorrectly"
            ),
            Self::HiddenState { what } => {
                write!(
                    f,
                    "the module's rooms cannot be saved or rolled back, since it uses {what}"
                )
            }
            Self::Instantiation(_) => f.write_str(
                "the module's rooms cannot be saved or rolled back, since none can be made",
            ),
            Self::AlreadyInstrumented => f.write_str(
                "the module was instrumented for firmware: load it as such, or the original",
            ),
            Self::NotInstrumented { what } => {
                write!(f, "the module was to be instrumented before, and is {what}")
            }
            Self::Abi { abi, problems } => {
                match abi {
                    Some(abi) => write!(f, "the module does not fit the Stateroom ABI {abi}:")?,
                    None => f.write_str("the module is not a room:")?,
                }
                for problem in problems.iter().take(MAX_PROBLEMS) {
                    write!(f, "\n  - {problem}")?;
                }
                match problems.len().checked_sub(MAX_PROBLEMS) {
                    Some(more @ 1..) => write!(f, "\n  - and {more} more"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// How many problems of a module are displayed: a small module can have a million.
const MAX_PROBLEMS: usize = 32;

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Invalid(error) => Some(error),
            #[cfg(feature = "wat")]
            Self::Text(error) => Some(error),
            Self::Instantiation(fault) => Some(&**fault),
            _ => None,
        }
    }
}

/// Displays an error with its sources, with colons between them: for logs, and for whoever can act.
///
/// ```
/// use stateroom_wasmi_host::*;
///
/// let error = Module::load(b"\0asm", &Limits::new()).unwrap_err();
/// println!("cannot load the module: {}", WithSources(&error));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WithSources<'a>(pub &'a dyn Error);

impl fmt::Display for WithSources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        match self.0.source() {
            Some(source) => write!(f, ": {}", WithSources(source)),
            None => Ok(()),
        }
    }
}

/// An error of the interpreter or of its parser, whose message says what it is about. What it quotes
/// from a module is [escaped](Escaped).
pub struct EngineError {
    error: Box<dyn fmt::Display + Send + Sync>,
    has_lines: bool,
}

impl EngineError {
    pub(crate) fn new(error: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self {
            error: Box::new(error),
            has_lines: false,
        }
    }

    /// An error whose message has several lines, and quotes no ends of lines.
    #[cfg(feature = "wat")]
    pub(crate) fn with_lines(error: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self {
            has_lines: true,
            ..Self::new(error)
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Quoted names may have any length.
        const MAX_CHARS: usize = 1000;
        let text = Escaped::new(&self.error).at_most(MAX_CHARS);
        let text = if self.has_lines {
            text.keep_lines()
        } else {
            text
        };
        text.fmt(f)
    }
}

/// As `Display`, so that firmware has no second text for each error of the interpreter.
impl fmt::Debug for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for EngineError {}

/// Why a room could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The id is longer than [`Limits::max_room_id_bytes`](crate::Limits::max_room_id_bytes).
    IdTooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The host has a room of this id already.
    IdTaken,
    /// The host has as many rooms as [`HostLimits::max_rooms`](crate::HostLimits::max_rooms) allows.
    TooManyRooms {
        /// The limit.
        limit: usize,
    },
    /// The policy is [`Rollback`](crate::FaultPolicy::Rollback), but the module was not loaded for
    /// it ([`LoadOptions::snapshots`](crate::LoadOptions::snapshots)).
    NoRollback,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdTooLong { bytes, limit } => {
                write!(
                    f,
                    "the room's id is {bytes} bytes long, more than the limit of {limit}"
                )
            }
            Self::IdTaken => f.write_str("a room of this id is open already"),
            Self::TooManyRooms { limit } => write!(f, "the host has its limit of {limit} rooms"),
            Self::NoRollback => f.write_str("the module was not loaded for rollback"),
        }
    }
}

impl Error for OpenError {}

/// Why a room does not go on with another module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplaceError {
    /// The host has no such room.
    UnknownRoom,
    /// The module was not loaded for the room's fault policy, [`FaultPolicy::Rollback`](crate::FaultPolicy).
    NoRollback,
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoom => UnknownRoom.fmt(f),
            Self::NoRollback => f.write_str("the module was not loaded to be rolled back"),
        }
    }
}

impl Error for ReplaceError {}

impl From<UnknownRoom> for ReplaceError {
    fn from(_: UnknownRoom) -> Self {
        Self::UnknownRoom
    }
}

/// The host has no room of this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRoom;

impl fmt::Display for UnknownRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no such room")
    }
}

impl Error for UnknownRoom {}

impl From<UnknownRoom> for EventError {
    fn from(_: UnknownRoom) -> Self {
        Self::UnknownRoom
    }
}

/// Why a room refused an event. Nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// The host has no room of this key.
    UnknownRoom,
    /// The room is closed.
    Closed,
    /// The id is not from 1 to 2³¹ − 1.
    InvalidClientId(ClientId),
    /// The client is connected already.
    AlreadyConnected(ClientId),
    /// The client is not connected.
    NotConnected(ClientId),
    /// The room has as many clients as [`Limits::max_clients`](crate::Limits::max_clients) allows.
    RoomFull {
        /// The limit.
        limit: usize,
    },
    /// The message is longer than [`Limits::max_message_bytes`](crate::Limits::max_message_bytes): it
    /// is never accepted.
    MessageTooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The room is busy and its inbox is full: it will be accepted when the room has made progress.
    InboxFull,
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoom => UnknownRoom.fmt(f),
            Self::Closed => f.write_str("the room is closed"),
            Self::InvalidClientId(id) => {
                write!(
                    f,
                    "invalid client id {id}: must be between 1 and {}",
                    ClientId::MAX
                )
            }
            Self::AlreadyConnected(id) => write!(f, "client {id} is connected already"),
            Self::NotConnected(id) => write!(f, "client {id} is not connected"),
            Self::RoomFull { limit } => write!(f, "the room has its limit of {limit} clients"),
            Self::MessageTooLong { bytes, limit } => {
                write!(
                    f,
                    "the message is {bytes} bytes long, more than the limit of {limit}"
                )
            }
            Self::InboxFull => f.write_str("the room is busy and its inbox is full"),
        }
    }
}

impl Error for EventError {}

/// A guest's failure: its cause, and the export in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The export that was running, such as `message` or `jam_malloc`; `start` for a module's start
    /// function, and `instantiate` before any of the guest's code has run.
    pub during: &'static str,
    /// What happened.
    pub cause: FaultCause,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest failed in `{}`: {}", self.during, self.cause)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            FaultCause::Undecodable(error) => Some(error),
            _ => None,
        }
    }
}

/// What a guest did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultCause {
    /// An instruction trapped; a panic of a Rust guest is an `unreachable`.
    Trap(Trap),
    /// One event used more than [`Limits::max_fuel_per_event`](crate::Limits::max_fuel_per_event).
    OutOfFuel {
        /// The limit.
        limit: u64,
    },
    /// The driver has ended the event ([`Room::interrupt`](crate::Room::interrupt)).
    Interrupted,
    /// The guest passed a pointer and a length that are not within its memory.
    BadPointer {
        /// The function that it called.
        function: &'static str,
        /// The pointer.
        ptr: u32,
        /// The length in bytes.
        len: u32,
    },
    /// The guest sent a text that is not UTF-8.
    NotUtf8,
    /// The guest passed bytes to `stateroom_send` that do not decode.
    Undecodable(DecodeError),
    /// The guest sent a message longer than [`Limits::max_message_bytes`](crate::Limits::max_message_bytes).
    MessageTooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The guest sent more messages (in an [unmanaged](crate::Room::unmanaged) room, messages and
    /// requests for the timer) within one event than
    /// [`Limits::max_outbox_messages`](crate::Limits::max_outbox_messages).
    TooManyMessages {
        /// The limit.
        limit: usize,
    },
    /// The guest sent more bytes within one event than
    /// [`Limits::max_outbox_bytes`](crate::Limits::max_outbox_bytes).
    TooManyBytes {
        /// The limit in bytes.
        limit: usize,
    },
    /// The guest's allocator returned a buffer that is not within its memory; or null, and the memory
    /// cannot be grown for a buffer either.
    BadAllocation {
        /// The pointer that it returned.
        ptr: u32,
        /// The requested length in bytes.
        len: u32,
    },
    /// A function that was called for the first time is not valid; only with
    /// [`Compilation::OnDemand`](crate::Compilation::OnDemand).
    InvalidFunction,
    /// The guest called `proc_exit`.
    Exit {
        /// Its exit code.
        code: i32,
    },
    /// The guest was made for another version of the ABI.
    WrongVersion {
        /// The exported global that holds the address of the number.
        name: &'static str,
        /// The supported number.
        expected: i32,
        /// The guest's number.
        found: i32,
    },
}

impl fmt::Display for FaultCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(trap) => trap.fmt(f),
            Self::OutOfFuel { limit } => {
                write!(f, "one event used more than {limit} units of fuel")
            }
            Self::Interrupted => f.write_str("it was interrupted"),
            Self::BadPointer { function, ptr, len } => {
                write!(
                    f,
                    "{len} bytes at {ptr:#x}, given to `{function}`, are not within its memory"
                )
            }
            Self::NotUtf8 => f.write_str("it sent a text that is not UTF-8"),
            Self::Undecodable(_) => f.write_str("it sent bytes that do not decode"),
            Self::MessageTooLong { bytes, limit } => {
                write!(
                    f,
                    "it sent a message of {bytes} bytes, more than the limit of {limit}"
                )
            }
            Self::TooManyMessages { limit } => {
                write!(f, "it sent more than {limit} messages within one event")
            }
            Self::TooManyBytes { limit } => {
                write!(f, "it sent more than {limit} bytes within one event")
            }
            Self::BadAllocation { ptr, len } => {
                write!(f, "its allocator returned {ptr:#x} for {len} bytes")
            }
            Self::InvalidFunction => f.write_str("one of its functions is not valid WebAssembly"),
            Self::Exit { code } => write!(f, "it exited with code {code}"),
            Self::WrongVersion {
                name,
                expected,
                found,
            } => {
                write!(f, "`{name}` is {found}, but this host supports {expected}")
            }
        }
    }
}

/// How an instruction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trap {
    /// `unreachable` was reached: a panic or an abort of the guest.
    Unreachable,
    /// The same, after the guest was refused memory beyond
    /// [`Limits::max_memory_bytes`](crate::Limits::max_memory_bytes).
    UnreachableOutOfMemory,
    /// An access outside of the linear memory.
    MemoryOutOfBounds,
    /// An access outside of a table.
    TableOutOfBounds,
    /// An indirect call of a null reference.
    IndirectCallToNull,
    /// An indirect call of a function of another type.
    BadSignature,
    /// An integer division by zero.
    DivisionByZero,
    /// An integer overflow in a division or a conversion.
    IntegerOverflow,
    /// A conversion of a NaN to an integer.
    BadConversion,
    /// More than [`Limits::max_stack_bytes`](crate::Limits::max_stack_bytes) or
    /// [`Limits::max_recursion_depth`](crate::Limits::max_recursion_depth).
    StackOverflow,
    /// The host is out of memory.
    OutOfSystemMemory,
    /// A trap that this crate has no name for.
    Other,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "it panicked or aborted (`unreachable` was executed)",
            Self::UnreachableOutOfMemory => {
                "it aborted (`unreachable` was executed) after it was refused more memory"
            }
            Self::MemoryOutOfBounds => "memory access out of bounds",
            Self::TableOutOfBounds => "table access out of bounds",
            Self::IndirectCallToNull => "indirect call of a null reference",
            Self::BadSignature => "indirect call of a function of another type",
            Self::DivisionByZero => "integer division by zero",
            Self::IntegerOverflow => "integer overflow",
            Self::BadConversion => "invalid conversion to integer",
            Self::StackOverflow => "stack overflow",
            Self::OutOfSystemMemory => "the host is out of memory",
            Self::Other => "unknown trap",
        })
    }
}
