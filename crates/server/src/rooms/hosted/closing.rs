//! Rooms that operators close.

use super::HostedRooms;
use crate::{
    journal::{JournalError, RoomNumber, Stored},
    rooms::{AdminError, Closed, RoomFilter},
};
use stateroom_wasmi_host::{RoomKey, WithSources};
use std::sync::Arc;

impl HostedRooms {
    /// Ends a room that is open; nothing is kept of it.
    pub(super) fn close_open(&mut self, room: RoomKey) -> Result<(), AdminError> {
        // One that has failed before is reported.
        if self.host.room(room).is_some_and(|room| !room.is_closed()) {
            self.host.transport_mut().forget_at_end(room);
        }
        self.host.close(room).map_err(|_| AdminError::UnknownRoom)
    }

    /// Removes a room that is not open from the journal, if that has it.
    pub(super) fn close_stored(&mut self, id: &str, done: Closed) {
        if let Some(number) = self.restorations.number(id) {
            self.discard(id, number);
            // Fails if the operator has gone, here and below.
            let _ = done.send(Ok(()));
            return;
        }
        // Its number is not known before it is loaded.
        if !self.restorations.contains(id)
            && let Err(error) = self.load(id, None)
        {
            let _ = done.send(Err(AdminError::Unavailable(error.to_string())));
            return;
        }
        self.restorations.close(id, done);
    }

    /// Discards a room that was loaded for operators who close it. Returns false if nobody does, or clients
    /// wait for what cannot be discarded.
    pub(super) fn close_loaded(&mut self, id: &str, stored: &Result<Stored, JournalError>) -> bool {
        let closing = self.restorations.take_closing(id);
        if closing.is_empty() {
            return false;
        }
        let outcome = match stored {
            Ok(Stored::Room(stored)) => Ok(stored.number),
            Ok(Stored::New(_)) => Err(AdminError::UnknownRoom),
            Ok(Stored::Quarantined(reason)) => Err(AdminError::Quarantined(reason.clone())),
            Err(error) => Err(AdminError::Unavailable(WithSources(error).to_string())),
        };
        let is_over = match outcome {
            Ok(number) => {
                self.discard(id, number);
                true
            }
            Err(_) => self.restorations.forget(id),
        };
        for done in closing {
            let _ = done.send(outcome.clone().map(drop));
        }
        is_over
    }

    /// Removes a room that is being restored, and closes those who wait for it.
    fn discard(&mut self, id: &str, number: RoomNumber) {
        let name = Box::<str>::from(id);
        let is_it: RoomFilter = Arc::new(move |other| other == &*name);
        let (code, reason) = (1001, "the room is closed");
        for connection in self.restorations.remove(&is_it) {
            if let Some(connection) = self.host.transport_mut().get(connection) {
                connection.close(code, reason, true);
            }
        }
        if let Some(journaling) = &mut self.host.transport_mut().journaling {
            journaling.discard(number);
        }
    }
}
