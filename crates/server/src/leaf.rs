//! Servers that have rooms of their own, which clients of a cluster reach.

use crate::config::Secret;
use std::net::SocketAddr;
use tokio::sync::watch;

/// Makes a server a *leaf* of a cluster: its rooms are its own, in memory, in its journal or on a board, and
/// clients of all nodes reach them by ids that begin with its name ([`leaf_room`]). It opens connections to
/// the nodes, which use them for these clients; so nobody needs to reach the leaf itself.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Its name, without `.`; no other leaf has it.
    pub name: String,
    /// What the nodes know it by ([`Directory::leaf`](crate::Directory::leaf)).
    pub secret: Secret,
    /// Where the nodes listen for each other ([`ServerConfig::peer_listen`](crate::ServerConfig::peer_listen)),
    /// as the leaf reaches them.
    pub nodes: watch::Receiver<Vec<SocketAddr>>,
}

/// The leaf that has the room of this id in a cluster, and the room's id there: `@NAME.ROOM` is `ROOM` at
/// the leaf `NAME`, and `@NAME` the room with the empty id. None if the id does not begin with `@`, and so is
/// no leaf's.
#[must_use]
pub fn leaf_room(id: &str) -> Option<(&str, &str)> {
    let id = id.strip_prefix('@')?;
    Some(id.split_once('.').unwrap_or((id, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_say_which_leaf_has_a_room() {
        assert_eq!(leaf_room("@den.lobby"), Some(("den", "lobby")));
        assert_eq!(leaf_room("@den.a.b@c"), Some(("den", "a.b@c")));
        assert_eq!(leaf_room("@den"), Some(("den", "")));
        assert_eq!(leaf_room("@den."), Some(("den", "")));
        assert_eq!(leaf_room("@"), Some(("", "")));
        for id in ["", "den.lobby", "lobby@den", " @den"] {
            assert_eq!(leaf_room(id), None, "{id}");
        }
    }
}
