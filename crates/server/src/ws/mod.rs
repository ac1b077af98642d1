//! WebSocket connections.

pub(crate) mod closing;
pub(crate) mod connection;
mod heartbeat;
pub(crate) mod message_reader;
pub(crate) mod resume;
pub(crate) mod send_queue;
