//! Keys of rooms.

use core::fmt;

/// Identifies a room of a host. A key is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(u64);

impl RoomKey {
    /// The key as a number, for a language or a protocol that has no type for it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The key of this number: one that [`to_bits`](Self::to_bits) returned, or, for a transport of
    /// rooms that no [`Host`](super::Host) of this process runs, any number.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
