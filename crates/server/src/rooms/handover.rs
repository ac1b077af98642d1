//! What the rest of the server tells a worker.

use crate::{
    http::{ConnectionPermit, FailedRoom, RoomSummary},
    rooms::{Order, Rooms, trials::Suspicion},
    stream::DetachedStream,
};
use bytes::Bytes;
use std::net::SocketAddr;

/// A WebSocket connection after its handshake, on its way to the worker of its room.
pub(crate) struct NewConnection {
    pub(crate) stream: DetachedStream,
    /// What was read beyond the handshake.
    pub(crate) unread: Bytes,
    pub(crate) permit: ConnectionPermit,
    pub(crate) address: SocketAddr,
    /// Handovers may overtake each other.
    pub(crate) order: Order,
    pub(crate) room: Box<str>,
    pub(crate) token: Option<Box<str>>,
    /// Whether the client speaks `stateroom.resume.1`.
    pub(crate) resumes: bool,
    /// The secret of the session, if it is one of a gateway, which speaks for a client that does not.
    pub(crate) session: Option<Box<str>>,
    /// What the gateway knows of nodes that have ended.
    pub(crate) suspicion: Suspicion,
}

/// The rooms of a worker, or of all of them.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) rooms: Vec<RoomSummary>,
    pub(crate) failed: Vec<FailedRoom>,
}

/// Replies by itself.
pub(crate) type Question = Box<dyn FnOnce(&mut dyn Rooms) + Send>;

/// A message to a worker.
pub(crate) enum Command {
    Connect(Box<NewConnection>),
    /// Something to ask of the rooms, or to do with them.
    Ask(Question),
    /// Handle what has come, close all clients, and end.
    Stop,
}
