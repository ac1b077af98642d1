//! What those who run rooms are told, and how they refuse a client.

use crate::{http::rooms_endpoint::RoomSummary, rooms::clients::Connection};
use stateroom_wasmi_host::{ClientId, RoomKey, driver::tokio::OwnedEvent};
use std::{boxed::Box, string::String, vec::Vec};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Commands that wait for a worker.
pub(crate) const COMMANDS: usize = 1024;

/// What a worker is told.
pub(crate) enum Command {
    Join {
        room: Box<str>,
        token: Option<Box<str>>,
        connection: Connection,
        reply: oneshot::Sender<Result<(RoomKey, ClientId), Refusal>>,
    },
    Message {
        room: RoomKey,
        event: OwnedEvent,
        /// What the connection may have on its way; given back when the room is done with it.
        permit: OwnedSemaphorePermit,
    },
    Leave {
        room: RoomKey,
        client: ClientId,
        connection: u64,
    },
    List(oneshot::Sender<Vec<RoomSummary>>),
    Stop(oneshot::Sender<()>),
}

/// Why a client does not get into a room, as a close code and a reason.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: String,
}
