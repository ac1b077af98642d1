//! Snapshots of rooms: what they say of themselves, what they are bound to, and how they are loaded.
//! `docs/snapshots.md` is the format; `room/snapshot.rs` writes the state, `guest/checkpoint.rs` the
//! guest's part of it.

pub(crate) mod bytes;
mod envelope;
mod error;
mod limits;

pub(crate) use self::envelope::{Envelope, seal};
pub use self::error::{SaveError, SnapshotError, UpgradeError};

use crate::{guest::ENGINE_VERSION, limits::Limits, time::Instant};
use alloc::string::String;
use core::{fmt, time::Duration};
use sha2::{Digest, Sha256};

/// The interpreter that a room ran on. Another may use another amount of fuel for the same event, and
/// fuel decides when an event fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EngineVersion {
    /// The version of wasmi: major, minor, patch.
    pub wasmi: [u8; 3],
    /// Counts changes of this crate to what guests can observe, their fuel included.
    pub revision: u8,
}

impl EngineVersion {
    /// The one of this crate.
    pub const CURRENT: Self = {
        let [major, minor, patch, revision] = ENGINE_VERSION;
        Self {
            wasmi: [major, minor, patch],
            revision,
        }
    };
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.wasmi;
        write!(
            f,
            "wasmi {major}.{minor}.{patch} revision {}",
            self.revision
        )
    }
}

impl fmt::Debug for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hash of a room's state, by which replays and copies are compared: equal states have equal hashes,
/// on every architecture. It is the first half of a SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct StateHash(pub [u8; 16]);

impl StateHash {
    /// Of a room's encoded state, and what its snapshot says of itself.
    pub(crate) fn of(info: &[u8], state: &[u8]) -> Self {
        let digest = Sha256::new()
            .chain_update(info)
            .chain_update(state)
            .finalize();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The SHA-256 of a module's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleHash(pub [u8; 32]);

impl ModuleHash {
    /// The hash of a module in the binary format.
    #[must_use]
    pub fn of(wasm: &[u8]) -> Self {
        Self(Sha256::digest(wasm).into())
    }
}

impl fmt::Display for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// What a snapshot says without its module: which module it needs, and under which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The interpreter that the room ran on.
    pub engine: EngineVersion,
    /// The hash of the room's module.
    pub module: ModuleHash,
    /// The limits that the room ran under. What a guest can observe of them must be the same where it
    /// is loaded ([`SnapshotError::Limits`]).
    pub limits: Limits,
    /// The room's id.
    pub room_id: String,
    /// Room time when it was saved.
    pub now: Instant,
    /// Wall time when the room was created, since the Unix epoch; zero if its host did not know.
    pub unix_time_at_zero: Duration,
    /// The hash of the room's state.
    pub state_hash: StateHash,
    /// Length of the room's state in bytes, as it is not compressed.
    pub state_bytes: usize,
    /// The wall time when it was saved, since the Unix epoch; none if its host did not know, or the room
    /// had none.
    pub saved_at: Option<Duration>,
}

impl SnapshotInfo {
    /// Reads what a snapshot says. That the rest of it is not damaged is found out when it is loaded.
    ///
    /// # Errors
    ///
    /// If the bytes are no snapshot, or one of a later format, or are damaged here.
    pub fn read(snapshot: &[u8]) -> Result<Self, SnapshotError> {
        Ok(Envelope::open(snapshot)?.info)
    }
}

/// How a room is loaded from a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotOptions {
    /// Whether the room may go on under the limits of the module where they are not those that it ran
    /// under. What it has must be within them in any case. A guest may observe the difference, so that
    /// a replay of what it did before would not do the same. Default false.
    pub other_limits: bool,
}

impl SnapshotOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            other_limits: false,
        }
    }

    setters! { other_limits: bool }
}
