//! Where rooms are, if they are spread over several servers.

use core::fmt;
use std::net::SocketAddr;
use tokio::sync::watch;

/// Says which server of a cluster has a room: each of them, a *node*, has some of the rooms, and takes
/// clients of all of them. A room is at no more than one node that can write what it does into the
/// [`Journal`](crate::journal::Journal), which is what makes that safe; a directory may be wrong for a
/// while.
///
/// Called from all threads, which must not wait.
pub trait Directory: fmt::Debug + Send + Sync + 'static {
    /// Where a room is, as far as this node knows. Called for each client that joins, and for all clients of
    /// this node after each of the [`changes`](Self::changes). Takes no more than microseconds.
    fn locate(&self, room: &str) -> Location;

    /// Whether this node is about to have a room that [`locate`](Self::locate) does not say is here. Clients that
    /// other nodes send here already are not sent back then: if the room is kept in the journal, they wait until
    /// that has loaded it, or says that the room is another node's. By default it is about to have none.
    fn is_coming(&self, room: &str) -> bool {
        let _ = room;
        false
    }

    /// Notified after [`locate`](Self::locate) may have begun to return something else for some room.
    fn changes(&self) -> watch::Receiver<()>;

    /// The leaf whose secret has this SHA-256 hash, as in [`Location::Leaf`]; by default there are none.
    fn leaf(&self, secret_hash: [u8; 32]) -> Option<u64> {
        let _ = secret_hash;
        None
    }
}

/// Where a room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// At this node: it opens the room for its first client.
    Here,
    /// At the node that listens for others on this address
    /// ([`Server::peer_addrs`](crate::Server::peer_addrs)).
    Node(SocketAddr),
    /// At the [`Leaf`](crate::Leaf) of this number, which has opened connections to this node. A leaf that
    /// starts again has another number.
    Leaf(u64),
    /// At no node, or this one does not know; clients wait for the next of the
    /// [`changes`](Directory::changes), up to [`ServerConfig::owner_timeout`](crate::ServerConfig::owner_timeout).
    Unknown,
}
