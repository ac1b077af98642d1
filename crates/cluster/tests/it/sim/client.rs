//! Clients that count, and what all of them have seen.

use std::{collections::BTreeMap, time::Duration};

/// Messages that each client sends.
pub(crate) const MESSAGES: u64 = 30;

pub(crate) struct Client {
    pub(crate) room: usize,
    /// The message that it sends until it has the reply.
    pub(crate) number: u64,
    pub(crate) gateway: usize,
    pub(crate) sent_at: Duration,
    /// Owners that have ended of what it has sent; its gateways know that.
    pub(crate) deaths: u32,
}

/// A reply of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) room: usize,
    pub(crate) client: usize,
    pub(crate) number: u64,
    /// How many messages the room has had.
    pub(crate) count: u64,
}

/// What was seen of each room.
#[derive(Default)]
pub(crate) struct Seen {
    by_count: BTreeMap<(usize, u64), (usize, u64)>,
    by_message: BTreeMap<(usize, usize, u64), u64>,
}

impl Seen {
    pub(crate) fn see(&mut self, reply: Reply) {
        let Reply {
            room,
            client,
            number,
            count,
        } = reply;
        let message = *self
            .by_count
            .entry((room, count))
            .or_insert((client, number));
        assert_eq!(
            message,
            (client, number),
            "room {room} has counted {count} twice"
        );
        let before = *self
            .by_message
            .entry((room, client, number))
            .or_insert(count);
        assert_eq!(
            before, count,
            "room {room} has counted {number} of {client} twice"
        );
    }
}
