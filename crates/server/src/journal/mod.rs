//! What keeps rooms beyond the process.

mod batch;
mod memory;
mod room_file;

pub use self::{
    batch::{Batch, LogEntries, LogEntry, MalformedLog, RoomWrite},
    memory::MemoryJournal,
    room_file::RoomFile,
};

use core::{fmt, time::Duration};
use stateroom_wasmi_host::ModuleHash;
use std::error::Error;

/// Keeps what happens in rooms, so that they survive the process: for each room a snapshot, and the
/// events since.
///
/// The server calls it from its workers, which must not wait. So each method returns at once, and calls
/// `done` later, once, on whatever thread. What was passed in is done in order: a [`load`](Self::load)
/// finds what was written before, and no batch is durable before an earlier one.
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    /// A random secret that is kept with the rooms. The server hashes clients' tokens with it, since what
    /// is stored must not contain them.
    fn secret(&self) -> [u8; 32];

    /// The rooms that must be restored although nobody has asked for them: those with events since their
    /// snapshots, and those with a time to wake up. Called once, before all else.
    fn unfinished(&self) -> Vec<UnfinishedRoom>;

    /// Loads a room.
    fn load(&self, id: &str, done: Done<Stored>);

    /// Reads a room that may be open, for somebody who looks at it and does not go on with it. The default is
    /// [`load`](Self::load).
    fn peek(&self, id: &str, done: Done<Stored>) {
        self.load(id, done);
    }

    /// Notes which event a worker is about to replay, or that it replays none: the event of a room and its
    /// number. The note must survive the process, though not the machine. If the process ends meanwhile, the
    /// event may be why; a room is not restored any more after that was so three times in a row
    /// ([`Stored::Quarantined`]): less could be coincidence, where something kills the process again and
    /// again. Takes no more than microseconds. The default does nothing.
    fn replaying(&self, worker: usize, event: Option<(RoomNumber, u64)>) {
        let _ = (worker, event);
    }

    /// A room that was [loaded](Self::load) has been restored and has done what was due, or it is not restored
    /// after all. Until then, it may be why the process ends. The default does nothing.
    fn restored(&self, room: RoomNumber) {
        let _ = room;
    }

    /// Keeps a module, in the binary format: rooms of it can then be restored when the server has another, to
    /// go on with that ([`ModuleUpgrade::Hook`]). What is written later is durable no earlier. The default
    /// does nothing.
    fn keep_module(&self, hash: ModuleHash, wasm: &[u8]) {
        let _ = (hash, wasm);
    }

    /// Loads a module that was kept; none if it was not.
    fn load_module(&self, hash: ModuleHash, done: Done<Option<Vec<u8>>>) {
        let _ = hash;
        done(Ok(None));
    }

    /// What reading events back costs, which decides when rooms are saved. The default is a file's.
    fn replay_cost(&self) -> ReplayCost {
        ReplayCost::default()
    }

    /// Makes a batch durable. If the disk is full, `done` waits until it is not.
    ///
    /// If some of its rooms are another node's by now, [`JournalError::NotOwned`] names them: nothing of
    /// these was written, and all the rest is durable. A later batch of the worker is then not done before
    /// this one either.
    fn write(&self, batch: Batch, done: Done<()>);
}

/// What it costs to restore a room from events: when those since its snapshot have come to the limit, or to
/// many times what another snapshot costs if that is more, the room is saved. In fuel, of which one takes about a
/// nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayCost {
    /// To read an event back, besides its bytes and what the room does.
    pub event: u64,
    /// Where saving is worth it, for the smallest room.
    pub limit: u64,
}

impl Default for ReplayCost {
    fn default() -> Self {
        Self {
            event: 2_000,
            limit: 20_000_000,
        }
    }
}

/// Called with the result of a [`Journal`]'s work.
pub type Done<T> = Box<dyn FnOnce(Result<T, JournalError>) + Send>;

/// A room that must be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedRoom {
    /// The room's id.
    pub id: Box<str>,
    /// When its timer fires, as a time since the Unix epoch; none if it has events since its snapshot and
    /// must be restored now.
    pub wake_at: Option<Duration>,
}

/// What a journal promises to a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that a client has seen is lost: what the room sends waits until its events are durable.
    #[default]
    Durable,
    /// What the room sends does not wait: a crash may undo the last moments, also what clients have seen of
    /// them.
    Relaxed,
    /// The room is in memory only.
    Memory,
}

/// What becomes of a room when the server has another module: of one that is stored when it is opened, and of
/// one that is open when [the module is replaced](crate::ServerControl::replace_module).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModuleUpgrade {
    /// A stored room is kept as it is, and its clients are rejected. One that is open goes on, as with
    /// [`HookOrRestart`](Self::HookOrRestart).
    #[default]
    Refuse,
    /// It begins anew, with a fresh guest of the new module. Its clients keep their ids.
    Restart,
    /// Its state passes to the new module by the modules' exports `stateroom_save` and `stateroom_load`
    /// ([`Room::begin_upgrade`](stateroom_wasmi_host::Room::begin_upgrade)). If they lack them, or a guest
    /// fails, the room goes on with the module that it has.
    Hook,
    /// As [`Hook`](Self::Hook), but if the state does not pass, the room begins anew.
    HookOrRestart,
}

/// Names a room in a journal. It is not used again for another room, also of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomNumber(pub u64);

/// What a journal has of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing. If the room is opened, this is its number; it exists once it has a snapshot.
    New(RoomNumber),
    /// The room.
    Room(StoredRoom),
    /// It is kept, but not restored: that has ended processes, or what is stored cannot be replayed. The
    /// reason is for those who ask for the room.
    Quarantined(String),
}

/// A room as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRoom {
    /// The room's number.
    pub number: RoomNumber,
    /// The last snapshot.
    pub snapshot: RoomSnapshot,
    /// The events since, as [`LogEntries`] of this room in order.
    pub tail: Vec<u8>,
}

/// A snapshot of a room, with what the server keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomSnapshot {
    /// How many events of the room are contained.
    pub events: u64,
    /// A snapshot of [`Host::save`](stateroom_wasmi_host::Host::save).
    pub room: Vec<u8>,
    /// What the server knows of the room's clients.
    pub clients: Vec<u8>,
    /// When the room is to be woken, as a time since the Unix epoch. None while it is open, and if it waits
    /// for nothing.
    pub wake_at: Option<Duration>,
}

/// Why a journal did not do its work.
#[derive(Debug)]
#[non_exhaustive]
pub enum JournalError {
    /// What was stored is damaged, or of another version. It was not changed.
    Damaged(Box<dyn Error + Send + Sync>),
    /// There are so many rooms that no new one is kept.
    TooManyRooms {
        /// The limit.
        limit: u64,
    },
    /// The storage has failed: what was written last may be lost, and nothing more is written.
    Failed(Box<dyn Error + Send + Sync>),
    /// Rooms that another node of a cluster may have by now, so that this one must not write any more. It
    /// drops them at once, and what they have sent since is never seen by anybody. Of
    /// [`load`](Journal::load), it is the room that was asked for.
    NotOwned {
        /// The rooms; those that are not open here are ignored.
        rooms: Vec<RoomNumber>,
    },
    /// The journal has ended.
    Closed,
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(_) => f.write_str("what is stored is damaged or of another version"),
            Self::TooManyRooms { limit } => {
                write!(f, "the server keeps its maximum of {limit} rooms")
            }
            Self::Failed(_) => f.write_str("the storage has failed"),
            Self::NotOwned { .. } => f.write_str("another node has the room"),
            Self::Closed => f.write_str("the storage is closed"),
        }
    }
}

impl Error for JournalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Damaged(error) | Self::Failed(error) => Some(&**error),
            Self::TooManyRooms { .. } | Self::NotOwned { .. } | Self::Closed => None,
        }
    }
}
