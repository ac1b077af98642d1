//! The last states of a room, to go back to.

use super::Room;
use crate::{snapshot::SaveError, time::Instant};
use alloc::collections::VecDeque;

/// Keeps the last states of a room, so that it can go back to one of them and handle events again: for
/// games that predict what has not arrived yet, and correct that when it does (rollback netcode).
///
/// A state costs the bytes that the guest has changed since it was instantiated, and about half a
/// kilobyte. To keep one is to compare the guest's memory with that of a fresh instance; to go back is
/// the same, without making an instance unless the guest's memory has grown since.
#[derive(Debug)]
pub struct RewindBuffer {
    states: VecDeque<Room>,
    capacity: usize,
}

impl RewindBuffer {
    /// A buffer for the last `capacity` states; at least one.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self {
            states: VecDeque::new(),
            capacity: if capacity == 0 { 1 } else { capacity },
        }
    }

    /// Keeps the room's state, and drops the oldest if there are too many.
    ///
    /// # Errors
    ///
    /// As [`Room::save`].
    pub fn push(&mut self, room: &Room) -> Result<(), SaveError> {
        let state = room.fork()?;
        if self.states.len() == self.capacity {
            self.states.pop_front();
        }
        self.states.push_back(state);
        Ok(())
    }

    /// The room times of the states, oldest first.
    pub fn times(&self) -> impl DoubleEndedIterator<Item = Instant> + ExactSizeIterator {
        self.states.iter().map(|state| state.now)
    }

    /// Makes the room what it was at the latest state that is not after `to`, and drops the states
    /// after that one. Room time goes back, too. Outputs that were not taken are dropped; what was taken
    /// is sent again if the room does the same again.
    ///
    /// Returns the time of the state; none, and nothing has happened, if there is none so old.
    pub fn rewind(&mut self, room: &mut Room, to: Instant) -> Option<Instant> {
        let after = self.states.partition_point(|state| state.now <= to);
        self.states.truncate(after);
        let state = self.states.back()?;
        room.become_fork(state);
        Some(state.now)
    }
}
