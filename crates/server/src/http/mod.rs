//! Connections from when they are accepted until they are WebSockets.

pub(crate) mod accept;
pub(crate) mod admission;
pub(crate) mod origin;
pub(crate) mod rooms_endpoint;
pub(crate) mod throttled_stream;
