//! Where rooms are, for the server.

use crate::shard::{SHARDS, Shard};
use core::fmt;
use stateroom_wasmi_server::{Directory, Location};
use std::sync::{PoisonError, RwLock};
use tokio::sync::watch;

/// Where the shards are, as this node knows.
pub(crate) struct ShardTable {
    locations: RwLock<Vec<Location>>,
    changes: watch::Sender<()>,
}

impl ShardTable {
    pub(crate) fn new() -> Self {
        Self {
            locations: RwLock::new(vec![Location::Unknown; SHARDS]),
            changes: watch::Sender::new(()),
        }
    }

    /// Replaces all of them, and says so if something has changed.
    pub(crate) fn set(&self, locations: Vec<Location>) {
        let mut current = self
            .locations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if *current != locations {
            *current = locations;
            drop(current);
            self.changes.send_replace(());
        }
    }
}

impl Directory for ShardTable {
    fn locate(&self, room: &str) -> Location {
        let locations = self
            .locations
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        locations[Shard::of_room(room).index()]
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

impl fmt::Debug for ShardTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardTable").finish_non_exhaustive()
    }
}
