//! What `GET /rooms` answers.

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderValue,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use core::convert::Infallible;
use futures_util::stream;
use stateroom_wasmi_host::Host;
use stateroom_wasmi_host::{Clock, Instant, Room, Transport};
use std::{
    string::{String, ToString},
    vec::Vec,
};
use tokio::sync::OwnedSemaphorePermit;

/// Answers to `/rooms` that are under way at a time. A list may have megabytes, and stays in memory
/// until its client has taken it.
pub(crate) const LISTS: usize = 16;

/// All rooms of a server.
#[derive(Debug, serde::Serialize)]
pub(crate) struct RoomList {
    /// The module that they are made from.
    pub(crate) module: String,
    /// The ABI that it speaks.
    pub(crate) abi: String,
    /// The rooms, by their ids.
    pub(crate) rooms: Vec<RoomSummary>,
}

/// One room.
#[derive(Debug, serde::Serialize)]
pub(crate) struct RoomSummary {
    pub(crate) id: String,
    clients: usize,
    state: State,
    memory_bytes: usize,
    fuel_used: u64,
    messages_in: u64,
    messages_out: u64,
    /// The policy: `close`, `restart` or `rollback`; none if it is not known.
    on_fault: Option<String>,
    faults: u64,
    last_fault: Option<String>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It waits for something to happen.
    Open,
    /// It is in the middle of an event, or events wait for it.
    Busy,
    /// Its guest has failed; another will be started.
    Restarting,
    /// It has ended and its last messages are on their way.
    Closed,
}

impl RoomList {
    /// The list in JSON, in pieces; the permit is given back when the last one is taken.
    pub(crate) fn into_response(self, permit: OwnedSemaphorePermit) -> Response {
        const PIECE_BYTES: usize = 16 << 10;
        let json = Bytes::from(serde_json::to_vec(&self).unwrap_or_default());
        let length = json.len();
        let pieces = stream::unfold((json, permit), async |(mut rest, permit)| {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (rest, permit)))
        });
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CONTENT_LENGTH, length.into()),
        ];
        (headers, Body::from_stream(pieces)).into_response()
    }
}

impl RoomSummary {
    pub(crate) fn of_all<C: Clock, T: Transport>(host: &Host<C, T>) -> Vec<Self> {
        host.rooms().map(|(_, room)| Self::of(room)).collect()
    }

    /// A room that runs elsewhere, of which no more is known.
    #[cfg(feature = "board")]
    pub(crate) fn elsewhere(id: &str, clients: usize) -> Self {
        Self {
            id: id.into(),
            clients,
            state: State::Open,
            memory_bytes: 0,
            fuel_used: 0,
            messages_in: 0,
            messages_out: 0,
            on_fault: None,
            faults: 0,
            last_fault: None,
        }
    }

    fn of(room: &Room) -> Self {
        let stats = room.stats();
        let state = match room {
            room if room.is_closed() => State::Closed,
            room if room.is_restarting() => State::Restarting,
            room if room.has_work(Instant::ZERO) => State::Busy,
            _ => State::Open,
        };
        Self {
            id: room.id().into(),
            clients: stats.clients,
            state,
            memory_bytes: stats.memory_bytes,
            fuel_used: stats.fuel_used,
            messages_in: stats.messages_in,
            messages_out: stats.messages_out,
            on_fault: Some(room.on_fault().to_string()),
            faults: stats.faults,
            last_fault: room.last_fault().map(ToString::to_string),
        }
    }
}
