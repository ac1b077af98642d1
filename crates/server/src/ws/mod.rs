//! WebSocket connections.

mod heartbeat;
pub(crate) mod send_queue;
pub(crate) mod socket;
