//! Connections that wait for space, in order.

use crate::{rooms::clients::Clients, ws::connection::ConnectionKey};
use std::collections::VecDeque;

/// Connections with a message that was not taken. They are not read from meanwhile, and those that come
/// later wait behind them.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue(VecDeque<ConnectionKey>);

impl WaitQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends a connection, unless it waits already.
    pub(crate) fn push(&mut self, clients: &mut Clients, key: ConnectionKey) {
        if let Some(connection) = clients.get(key)
            && !connection.waits_for_room
        {
            connection.waits_for_room = true;
            self.0.push_back(key);
        }
    }

    /// The first connection that waits, and has not ended meanwhile.
    pub(crate) fn first(&mut self, clients: &mut Clients) -> Option<ConnectionKey> {
        while let Some(first) = self.0.front() {
            if clients
                .get(*first)
                .is_some_and(|first| first.waits_for_room)
            {
                return Some(*first);
            }
            self.0.pop_front();
        }
        None
    }

    /// Removes the first connection, whose message was taken, and wakes the next.
    pub(crate) fn pop_first(&mut self, clients: &mut Clients) {
        if let Some(first) = self.0.pop_front()
            && let Some(connection) = clients.get(first)
        {
            connection.waits_for_room = false;
        }
        self.wake_first(clients);
    }

    /// Lets the first connection try again.
    pub(crate) fn wake_first(&mut self, clients: &mut Clients) {
        let first = self.first(clients);
        if let Some(connection) = first.and_then(|first| clients.get(first)) {
            connection.wake();
        }
    }
}
