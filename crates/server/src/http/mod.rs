//! HTTP: connections from when they are accepted until they become WebSockets.

pub(crate) mod accept;
mod activity;
mod admin;
mod admission;
mod connection;
pub(crate) mod files;
mod headers;
pub(crate) mod listen;
mod notice;
mod open_files;
pub(crate) mod origin;
pub(crate) mod proxies;
mod rejection;
mod replay;
mod response;
mod rooms_endpoint;
pub(crate) mod routes;
mod throttled_stream;
mod transfers;
pub(crate) mod websocket;

pub(crate) use self::{
    admission::{ConnectionLimiter, ConnectionPermit, Rejection},
    notice::Notice,
    rooms_endpoint::{FailedRoom, RoomSummary},
};
