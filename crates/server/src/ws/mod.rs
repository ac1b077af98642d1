//! WebSocket connections.

pub(crate) mod socket;
