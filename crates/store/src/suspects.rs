//! Rooms whose restoration may have ended a process.

use crate::writer::Job;
use stateroom_wasmi_server::journal::RoomNumber;
use std::collections::VecDeque;

/// Lets one of these rooms be restored at a time: if the process ends then, it was this one.
#[derive(Default)]
pub(crate) struct Suspects {
    restoring: Option<RoomNumber>,
    waiting: VecDeque<Job>,
}

/// Attempts to restore a room that were not ended before it is not tried again: one together with other
/// rooms, and two alone.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

impl Suspects {
    /// Whether this room may be restored now.
    pub(crate) fn may_restore(&self, room: RoomNumber) -> bool {
        self.restoring.is_none_or(|restoring| restoring == room)
    }

    pub(crate) fn begin(&mut self, room: RoomNumber) {
        self.restoring = Some(room);
    }

    /// Keeps a load for later.
    pub(crate) fn wait(&mut self, load: Job) {
        self.waiting.push_back(load);
    }

    /// Something was written for a room: if it was being restored, that is over. Returns the next load.
    pub(crate) fn end(&mut self, room: RoomNumber) -> Option<Job> {
        if self.restoring != Some(room) {
            return None;
        }
        self.restoring = None;
        self.waiting.pop_front()
    }
}
