//! Why an event cannot be replayed.

use core::fmt;

/// Why an event was not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// The bytes are no record.
    Malformed,
    /// The room is in the middle of an event, or has outputs or records that were not taken.
    Busy,
    /// The room would not handle such an event now, or has used another amount of fuel: it is not in the
    /// state in which the event was recorded. The records are not of this room, one is missing, or the room
    /// did something else when it was replayed.
    Diverged,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the record is malformed",
            Self::Busy => "the room is not at an event boundary with its outputs taken",
            Self::Diverged => "the room is not in the state in which the event was recorded",
        })
    }
}

impl core::error::Error for ReplayError {}
