//! HTTP: connections from when they are accepted until they become WebSockets.

pub(crate) mod accept;
mod admission;
mod origin;
mod rooms_endpoint;
pub(crate) mod routes;
mod throttled_stream;

pub(crate) use self::rooms_endpoint::RoomSummary;
