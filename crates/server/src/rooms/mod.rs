//! The rooms and the threads that run them.

pub(crate) mod client_counts;
pub(crate) mod clients;
mod failed_rooms;
pub(crate) mod handover;
mod hibernation;
mod hosted;
mod inbox_queue;
pub(crate) mod journaling;
pub(crate) mod load;
mod restorations;
pub(crate) mod sessions;
mod stored_clients;
mod tokens;
pub(crate) mod trials;
pub(crate) mod wait_queue;
pub(crate) mod watches;
pub(crate) mod worker;
pub(crate) mod worker_pool;

use crate::{
    journal::{JournalError, UnfinishedRoom},
    metrics::Metrics,
    rooms::{
        clients::Clients, handover::Listing, load::ServerLoad, trials::Suspicion, watches::Watch,
    },
    ws::connection::ConnectionKey,
};
use core::time::Duration;
use stateroom_wasmi_host::{ClientId, MessagePayload, Module, RoomKey, SaveError};
use std::sync::Arc;
use tokio::sync::oneshot;

pub(crate) use self::failed_rooms::FailedRooms;
#[cfg(feature = "board")]
pub(crate) use self::hosted::{file_of, read_file};

/// Rooms that connections join: those of a host, or those of a board.
pub(crate) trait Rooms: 'static {
    fn clients(&mut self) -> &mut Clients;

    /// Makes a connection a client of the room of this id. It is admitted at once or later.
    fn join(
        &mut self,
        connection: ConnectionKey,
        id: &str,
        claim: Claim,
    ) -> Result<(), JoinRejection>;

    /// Passes on a client's message.
    fn message(
        &mut self,
        connection: ConnectionKey,
        member: (RoomKey, ClientId),
        payload: MessagePayload<'_>,
    ) -> Result<(), Busy>;

    /// A client's connection will end when its room has handled what it has sent.
    fn ending(&mut self, member: (RoomKey, ClientId)) {
        let _ = member;
    }

    /// Removes a client whose connection has ended.
    fn leave(&mut self, member: (RoomKey, ClientId));

    fn list(&self) -> Listing;

    /// What was counted and measured, with the `busiest` rooms one by one.
    fn metrics(&self, busiest: usize) -> Metrics;

    /// What the open rooms take, and have done since this was asked last, in so many groups.
    fn load(&mut self, groups: usize, group_of: &dyn Fn(&str) -> usize) -> ServerLoad {
        let _ = (groups, group_of);
        ServerLoad::default()
    }

    /// Ends a room, and removes what is stored of it, also if it is not open.
    fn close(&mut self, id: &str, done: Closed);

    /// Shows an operator what happens in an open room from now on.
    fn watch(&mut self, id: &str, watch: Watch) -> Result<(), AdminError>;

    /// The state of a room as bytes.
    fn save(&mut self, id: &str) -> Result<Vec<u8>, AdminError>;

    /// The same, later: that of a board's room has to come.
    fn begin_save(&mut self, id: &str, reply: Reply<Vec<u8>>) {
        reply(self.save(id));
    }

    /// Lets a room wait for up to this time, on its way to another server; returns the number of the hold, and
    /// the room as a file ([`RoomFile`](crate::journal::RoomFile)).
    fn hold(&mut self, id: &str, time: Duration) -> Result<(u64, Vec<u8>), AdminError> {
        let _ = (id, time);
        Err(AdminError::Remote)
    }

    /// The same, later.
    fn begin_hold(&mut self, id: &str, time: Duration, reply: Reply<(u64, Vec<u8>)>) {
        reply(self.hold(id, time));
    }

    /// Lets a room go on that is held by this number.
    fn end_hold(&mut self, id: &str, hold: u64, reply: TransferReply) {
        let _ = (id, hold);
        reply(Err(AdminError::Remote));
    }

    /// Gives up a room that is held by this number. Its clients are told where it is, if that is known.
    fn give_up(&mut self, id: &str, hold: u64, location: Option<&str>, reply: TransferReply) {
        let _ = (id, hold, location);
        reply(Err(AdminError::Remote));
    }

    /// Opens a room from a file, and holds it for this time if there is one.
    fn import(&mut self, id: &str, file: &[u8], hold: Option<Duration>, reply: TransferReply) {
        let _ = (id, file, hold);
        reply(Err(AdminError::Remote));
    }

    /// Opens rooms of another module from now on, and lets those that are open go on with it.
    fn replace_module(&mut self, module: Module);

    /// Restores rooms that this node has taken over.
    fn adopt(&mut self, rooms: Vec<UnfinishedRoom>) {
        drop(rooms);
    }

    /// Gives up rooms, for another node; sends `done` when that is durable.
    fn release(&mut self, moves: &RoomFilter, done: Released) {
        let _ = (moves, done.send(Ok(())));
    }

    /// Drops rooms that another node has.
    fn abandon(&mut self, is_lost: &RoomFilter) {
        let _ = is_lost;
    }

    /// Begins to stop: refuses whatever comes from now on.
    fn stop(&mut self);
}

/// Whether a room, of this id, is one of those that are meant.
pub(crate) type RoomFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Told when rooms were given up.
pub(crate) type Released = oneshot::Sender<Result<(), JournalError>>;

/// Called when something was done with a room, with the number of its hold if it has one, and that is durable.
pub(crate) type TransferReply = Reply<u64>;

/// Called with what has become of something that was asked for.
pub(crate) type Reply<T> = Box<dyn FnOnce(Result<T, AdminError>) + Send>;

/// Who a client says it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim {
    pub(crate) token: Option<Box<str>>,
    /// If the client speaks `stateroom.resume.1`: what it says first.
    pub(crate) hello: Option<Hello>,
    /// If it is a gateway: the secret of its session, which it has chosen, so that it can join again if it
    /// does not know whether it has. A session that it had is gone on with, or nothing is.
    pub(crate) session: Option<Box<str>>,
    /// What the gateway knows of nodes that have ended.
    pub(crate) suspicion: Suspicion,
}

impl Claim {
    /// The secret of the session that begins, if the client is to have one.
    pub(crate) fn new_session(&self) -> Result<Option<Box<str>>, JoinRejection> {
        match (&self.hello, &self.session) {
            (None, _) => Ok(None),
            (Some(_), Some(secret)) => Ok(Some(secret.clone())),
            (Some(_), None) => session_secret().map(Some),
        }
    }
}

/// Which of a client's connections is the newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order {
    /// The number of the client's handshake.
    pub(crate) sequence: u64,
    /// Counts the connections that a gateway opens for it.
    pub(crate) attempt: u64,
}

impl Order {
    /// Whether this one is the older, as far as the clocks of nodes agree, which may differ by so much.
    pub(crate) const fn is_before(self, other: Self, clock_skew: u64) -> bool {
        if self.sequence == other.sequence {
            return self.attempt < other.attempt;
        }
        self.sequence < other.sequence.saturating_sub(clock_skew)
    }
}

/// The session that a client wants to go on with, if it has one: its secret, and how many messages it has
/// received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hello(pub(crate) Option<(Box<str>, u64)>);

/// The room does not take the message now; the connection is woken when it may.
#[derive(Debug)]
pub(crate) struct Busy;

/// Is told what has become of a room that was to be closed.
pub(crate) type Closed = oneshot::Sender<Result<(), AdminError>>;

/// Why something cannot be done with a room.
#[derive(Clone, Debug)]
pub(crate) enum AdminError {
    /// There is no such room; or to be saved, none that is open.
    UnknownRoom,
    /// It is kept as it is for tools that repair it.
    Quarantined(String),
    /// There are too many rooms, or what is stored of it cannot be reached now.
    Unavailable(String),
    /// The rooms are not this process's, but a board's.
    Remote,
    Save(SaveError),
    /// It is on its way from the journal.
    Restoring,
    /// There is a room of this id.
    Exists,
    /// It is on its way to or from another server.
    Held,
    /// It is not, or not by this number.
    NotHeld,
    /// What it is to be loaded from is no room that this server can have.
    Unreadable(String),
}

/// Why a client cannot join a room, as a close code and a reason.
#[derive(Debug)]
pub(crate) struct JoinRejection {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl JoinRejection {
    pub(crate) fn new(code: u16, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { code, reason }
    }

    pub(crate) fn draining() -> Self {
        Self::new(1013, DRAINING)
    }

    pub(crate) fn stopping() -> Self {
        STOPPING.into()
    }

    pub(crate) fn moved() -> Self {
        MOVED.into()
    }
}

impl From<(u16, &str)> for JoinRejection {
    fn from((code, reason): (u16, &str)) -> Self {
        Self::new(code, reason)
    }
}

/// The secret of a new session: 128 random bits.
pub(crate) fn session_secret() -> Result<Box<str>, JoinRejection> {
    let random = getrandom::u64().and_then(|high| Ok((high, getrandom::u64()?)));
    let (high, low) = random.map_err(|error| JoinRejection::new(1011, error.to_string()))?;
    Ok(format!("{high:016x}{low:016x}").into())
}

/// Why clients are rejected while the server is drained.
pub(crate) const DRAINING: &str = "the server accepts no new clients";

/// The close code and reason of clients at shutdown.
pub(crate) const STOPPING: (u16, &str) = (1001, "the server is stopping");

/// The close code and reason of connections whose room is at another node, where their clients find it again.
pub(crate) const MOVED: (u16, &str) = (1012, "the room is at another node");

/// The close code and reason of a connection whose session has gone on over a newer one.
pub(crate) const LATE: (u16, &str) = (1012, "the session goes on over a newer connection");

/// The close code and reason for a gateway whose client's session is not there any more. No client sees it.
pub(crate) const SESSION_LOST: (u16, &str) = (4001, "the session is lost");

/// Close code of a gateway's session whose counts cannot be: one of both knows too little.
pub(crate) const BEHIND: u16 = 4003;

/// The reason for closing, with 1008, a connection whose client has connected again.
pub(crate) const REPLACED: &str = "replaced by a newer connection";

/// A bundled room.
#[cfg(test)]
fn echo() -> stateroom_wasmi_host::Module {
    use stateroom_wasmi_host::{Limits, LoadOptions, Module};
    let rooms = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/rooms/wasm");
    let wasm = std::fs::read(format!("{rooms}/echo-wat.wasm")).expect("it is bundled");
    let options = LoadOptions::new().snapshots(true);
    Module::load_with(&wasm, &Limits::new(), options).expect("it loads")
}
