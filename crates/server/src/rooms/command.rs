//! Messages from connections to a worker, and its rejection of a join.

use crate::{http::RoomSummary, ws::send_queue::ClientSender};
use stateroom_wasmi_host::{ClientId, OwnedEvent, RoomKey};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Capacity of a worker's command queue.
pub(crate) const MAX_QUEUED_COMMANDS: usize = 1024;

/// A message to a worker.
pub(crate) enum Command {
    Join {
        room: Box<str>,
        token: Option<Box<str>>,
        sender: ClientSender,
        reply: oneshot::Sender<Result<(RoomKey, ClientId), JoinRejection>>,
    },
    Message {
        room: RoomKey,
        event: OwnedEvent,
        /// A share of what the connection may have in flight; returned once the room has handled
        /// the event.
        credit: OwnedSemaphorePermit,
    },
    Leave {
        room: RoomKey,
        client: ClientId,
        connection_id: u64,
    },
    List(oneshot::Sender<Vec<RoomSummary>>),
    Stop(oneshot::Sender<()>),
}

/// The close code and reason of clients at shutdown.
pub(crate) const STOPPING: (u16, &str) = (1001, "the server is stopping");

/// The reason for closing, with 1008, a connection whose client has connected again.
pub(crate) const REPLACED: &str = "replaced by a newer connection";

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

    pub(crate) fn stopping() -> Self {
        let (code, reason) = STOPPING;
        Self::new(code, reason)
    }
}
