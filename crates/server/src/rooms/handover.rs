//! What HTTP hands over to the rooms.

use crate::http::ConnectionPermit;
use bytes::Bytes;
use std::net::{SocketAddr, TcpStream};

/// A WebSocket connection after its handshake, on its way to the worker of its room.
pub(crate) struct NewConnection {
    /// It has no delay, is not blocking, and belongs to no runtime.
    pub(crate) stream: TcpStream,
    /// What was read beyond the handshake.
    pub(crate) unread: Bytes,
    /// To be dropped once the stream is closed.
    pub(crate) permit: ConnectionPermit,
    pub(crate) address: SocketAddr,
    pub(crate) room: Box<str>,
    pub(crate) token: Option<Box<str>>,
}
