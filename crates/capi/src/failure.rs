//! Why a function did nothing.

use crate::status::stateroom_status as Status;
#[cfg(feature = "std")]
use alloc::string::String;
use core::{fmt, str::Utf8Error};
use stateroom_wasmi_host::{EventError, LoadError, OpenError, UnknownRoom, WithSources};
#[cfg(feature = "snapshot")]
use stateroom_wasmi_host::{SaveError, SnapshotError};

/// Why a function did nothing. It becomes a status and a message.
#[derive(Debug)]
pub(crate) enum Failure {
    Null(&'static str),
    Misaligned(&'static str),
    TooLong(&'static str),
    BadSize {
        name: &'static str,
        size: usize,
        expected: usize,
    },
    UnknownOption(&'static str),
    UnknownValue {
        name: &'static str,
        value: i32,
    },
    NotUtf8(&'static str, Utf8Error),
    WrongHandle(&'static str),
    OtherHost,
    InUse,
    /// The host was in use when an earlier call panicked.
    Lost,
    #[cfg(feature = "std")]
    Panicked(String),
    Unsupported(&'static str),
    TooLate,
    UnknownRoom,
    Load(LoadError),
    Open(OpenError),
    Event(EventError),
    #[cfg(feature = "snapshot")]
    Save(SaveError),
    #[cfg(feature = "snapshot")]
    Snapshot(SnapshotError),
    TooSmall {
        needed: usize,
    },
}

/// A number that stands for nothing.
pub(crate) const fn unknown_value(name: &'static str, value: i32) -> Failure {
    Failure::UnknownValue { name, value }
}

impl Failure {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Null(_)
            | Self::Misaligned(_)
            | Self::TooLong(_)
            | Self::BadSize { .. }
            | Self::UnknownOption(_)
            | Self::UnknownValue { .. } => Status::InvalidArgument,
            Self::NotUtf8(..) => Status::NotUtf8,
            Self::WrongHandle(_) | Self::OtherHost => Status::WrongHandle,
            Self::InUse => Status::InUse,
            Self::Lost => Status::Panicked,
            #[cfg(feature = "std")]
            Self::Panicked(_) => Status::Panicked,
            Self::Unsupported(_) => Status::Unsupported,
            Self::TooLate => Status::TooLate,
            Self::UnknownRoom => Status::UnknownRoom,
            Self::Load(error) => load_status(error),
            Self::Open(error) => open_status(error),
            Self::Event(error) => event_status(error),
            #[cfg(feature = "snapshot")]
            Self::Save(error) => save_status(*error),
            #[cfg(feature = "snapshot")]
            Self::Snapshot(error) => snapshot_status(error),
            Self::TooSmall { .. } => Status::TooSmall,
        }
    }
}

const fn load_status(error: &LoadError) -> Status {
    match error {
        LoadError::Limits(_) => Status::InvalidLimits,
        LoadError::TooLarge { .. } | LoadError::TooMany { .. } => Status::ModuleTooLarge,
        LoadError::Abi { .. } => Status::NotARoom,
        LoadError::HiddenState { .. } => Status::HiddenState,
        _ => Status::InvalidModule,
    }
}

const fn open_status(error: &OpenError) -> Status {
    match error {
        OpenError::IdTooLong { .. } => Status::IdTooLong,
        OpenError::IdTaken => Status::IdTaken,
        OpenError::TooManyRooms { .. } => Status::TooManyRooms,
        OpenError::NoRollback => Status::NotLoadedForSnapshots,
        _ => Status::InvalidArgument,
    }
}

const fn event_status(error: &EventError) -> Status {
    match error {
        EventError::UnknownRoom => Status::UnknownRoom,
        EventError::Closed => Status::Closed,
        EventError::InvalidClientId(_) => Status::InvalidClient,
        EventError::AlreadyConnected(_) => Status::AlreadyConnected,
        EventError::NotConnected(_) => Status::NotConnected,
        EventError::RoomFull { .. } => Status::RoomFull,
        EventError::MessageTooLong { .. } => Status::MessageTooLong,
        EventError::InboxFull => Status::InboxFull,
        _ => Status::InvalidArgument,
    }
}

#[cfg(feature = "snapshot")]
const fn save_status(error: SaveError) -> Status {
    match error {
        SaveError::UnknownRoom => Status::UnknownRoom,
        SaveError::Closed => Status::Closed,
        SaveError::Busy => Status::Busy,
        SaveError::OutputsWaiting => Status::OutputsWaiting,
        SaveError::NotInstrumented => Status::NotLoadedForSnapshots,
        _ => Status::InvalidArgument,
    }
}

#[cfg(feature = "snapshot")]
const fn snapshot_status(error: &SnapshotError) -> Status {
    match error {
        SnapshotError::NotASnapshot | SnapshotError::Format(_) | SnapshotError::Damaged => {
            Status::InvalidSnapshot
        }
        SnapshotError::NotInstrumented => Status::NotLoadedForSnapshots,
        SnapshotError::Open(error) => open_status(error),
        _ => Status::OtherSnapshot,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null(name) => write!(f, "`{name}` is NULL"),
            Self::Misaligned(name) => write!(f, "`{name}` is not aligned"),
            Self::TooLong(name) => write!(f, "`{name}` is longer than any memory"),
            Self::BadSize {
                name,
                size,
                expected,
            } => write!(
                f,
                "the size of `{name}` is {size}, not {expected}: it must be set to the struct's sizeof"
            ),
            Self::UnknownOption(name) => write!(
                f,
                "`{name}` sets an option that version {} of the library does not know",
                env!("CARGO_PKG_VERSION")
            ),
            Self::UnknownValue { name, value } => write!(f, "`{name}` cannot be {value}"),
            Self::NotUtf8(name, error) => write!(f, "`{name}` is not UTF-8: {error}"),
            Self::WrongHandle(name) => write!(f, "`{name}` is a handle of another type"),
            Self::OtherHost => f.write_str("the room's key is of another host"),
            Self::InUse => f.write_str(
                "the host is running: the call came from one of its callbacks or from another thread",
            ),
            Self::Lost => f.write_str("an earlier call panicked; the host can only be freed"),
            #[cfg(feature = "std")]
            Self::Panicked(text) => write!(f, "the library panicked, which is a bug: {text}"),
            Self::Unsupported(what) => write!(f, "this build of the library lacks {what}"),
            Self::TooLate => {
                f.write_str("memory was allocated already, so the allocator cannot be set any more")
            }
            Self::UnknownRoom => UnknownRoom.fmt(f),
            Self::Load(error) => WithSources(error).fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Event(error) => error.fmt(f),
            #[cfg(feature = "snapshot")]
            Self::Save(error) => error.fmt(f),
            #[cfg(feature = "snapshot")]
            Self::Snapshot(error) => error.fmt(f),
            Self::TooSmall { needed } => write!(f, "the result has {needed} bytes"),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<EventError> for Failure {
    fn from(error: EventError) -> Self {
        Self::Event(error)
    }
}

impl From<UnknownRoom> for Failure {
    fn from(_: UnknownRoom) -> Self {
        Self::UnknownRoom
    }
}
