//! Why a room cannot be saved or loaded.

use super::{EngineVersion, ModuleHash, bytes::Malformed, envelope::FORMAT};
use crate::error::{Fault, OpenError, UnknownRoom};
use core::{error::Error, fmt};

/// Why a room cannot be saved, now or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaveError {
    /// The host has no such room.
    UnknownRoom,
    /// The room is closed.
    Closed,
    /// The guest is in the middle of an event, or one is being undone:
    /// [`resume`](crate::Room::resume) the room until it is not. To hibernate, no event may wait either.
    Busy,
    /// The room has outputs that were not taken. They are not part of a snapshot.
    OutputsWaiting,
    /// The room is [unmanaged](crate::Room::unmanaged): its driver has a part of its state.
    Unmanaged,
    /// The module was not loaded for it ([`LoadOptions::snapshots`](crate::LoadOptions::snapshots)).
    NotInstrumented,
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownRoom => "there is no such room",
            Self::Closed => "the room is closed",
            Self::Busy => "events of the room are not handled yet",
            Self::OutputsWaiting => "the room has outputs that were not sent yet",
            Self::Unmanaged => "the room is unmanaged: its driver has a part of its state",
            Self::NotInstrumented => NOT_INSTRUMENTED,
        })
    }
}

impl Error for SaveError {}

/// Why a room does not go on with another module and its present state. It goes on as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The room's state cannot be had now, or at all; or the other module was not loaded for
    /// [snapshots](crate::LoadOptions::snapshots).
    Save(SaveError),
    /// The present module does not export `stateroom_save`.
    NoSave,
    /// The other module does not export `stateroom_load`.
    NoLoad,
    /// The other module was not loaded for the room's fault policy, [`FaultPolicy::Rollback`](crate::FaultPolicy).
    NoRollback,
    /// A guest failed to return the state, to be initialised, or to take the state.
    Failed(Fault),
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Save(error) => error.fmt(f),
            Self::NoSave => f.write_str("the present module does not export `stateroom_save`"),
            Self::NoLoad => f.write_str("the new module does not export `stateroom_load`"),
            Self::NoRollback => f.write_str("the module was not loaded to be rolled back"),
            Self::Failed(_) => f.write_str("the room's state did not pass to the new module"),
        }
    }
}

impl Error for UpgradeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(fault) => Some(fault),
            _ => None,
        }
    }
}

impl From<SaveError> for UpgradeError {
    fn from(error: SaveError) -> Self {
        Self::Save(error)
    }
}

impl From<UnknownRoom> for UpgradeError {
    fn from(_: UnknownRoom) -> Self {
        Self::Save(SaveError::UnknownRoom)
    }
}

const NOT_INSTRUMENTED: &str = "the module was not loaded for snapshots";

/// Why a room cannot be loaded from a snapshot.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes are no snapshot.
    NotASnapshot,
    /// The snapshot's format is of this later version.
    Format(u8),
    /// The bytes were changed or are incomplete, or were never written by this crate.
    Damaged,
    /// The room ran on another version of the interpreter, on which its fuel may differ.
    Engine(EngineVersion),
    /// The room has another module, of this hash.
    Module(ModuleHash),
    /// The room ran under another limit that its guest can observe. See
    /// [`SnapshotOptions::other_limits`](crate::SnapshotOptions#structfield.other_limits).
    Limits {
        /// The name of a limit that differs.
        name: &'static str,
        /// What it was; [`u64::MAX`] if there was none.
        saved: u64,
        /// What the module was loaded with.
        loaded: u64,
    },
    /// The room has more of something than the module's limits allow.
    TooMany {
        /// Of what, such as `clients`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The module was loaded with another [`PayloadBuffer`](crate::PayloadBuffer).
    PayloadBuffer,
    /// The module was not loaded for it ([`LoadOptions::snapshots`](crate::LoadOptions::snapshots)).
    NotInstrumented,
    /// The host cannot open the room.
    Open(OpenError),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASnapshot => f.write_str("this is not a snapshot of a room"),
            Self::Format(version) => write!(
                f,
                "the snapshot has format {version}, and only {FORMAT} is known"
            ),
            Self::Damaged => f.write_str("the snapshot is damaged"),
            Self::Engine(engine) => write!(
                f,
                "the room ran on {engine}, and this is {}",
                EngineVersion::CURRENT
            ),
            Self::Module(hash) => write!(f, "the room has another module, of SHA-256 {hash}"),
            Self::Limits {
                name,
                saved,
                loaded,
            } => {
                write!(f, "the room ran with {name} ")?;
                write_limit(f, *saved)?;
                f.write_str(", and the module was loaded with ")?;
                write_limit(f, *loaded)
            }
            Self::TooMany { what, limit } => {
                write!(f, "the room has more {what} than the limit of {limit}")
            }
            Self::PayloadBuffer => {
                f.write_str("the module was loaded with another option for its payload buffer")
            }
            Self::NotInstrumented => f.write_str(NOT_INSTRUMENTED),
            Self::Open(error) => error.fmt(f),
        }
    }
}

fn write_limit(f: &mut fmt::Formatter<'_>, limit: u64) -> fmt::Result {
    match limit {
        u64::MAX => f.write_str("unlimited"),
        _ => write!(f, "{limit}"),
    }
}

impl Error for SnapshotError {}

impl From<Malformed> for SnapshotError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

impl From<OpenError> for SnapshotError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}
