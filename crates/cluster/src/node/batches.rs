//! Batches of the server, each of which is done when its parts are.

use stateroom_wasmi_server::journal::{Done, JournalError, RoomNumber};
use std::collections::VecDeque;

/// Batches that are not done, in order.
#[derive(Default)]
pub(super) struct Batches {
    first: u64,
    waiting: VecDeque<BatchState>,
}

struct BatchState {
    done: Done<()>,
    /// Parts that are not durable.
    left: usize,
    not_owned: Vec<RoomNumber>,
}

impl Batches {
    pub(super) fn push(&mut self, done: Done<()>) -> u64 {
        self.waiting.push_back(BatchState {
            done,
            left: 0,
            not_owned: Vec::new(),
        });
        self.first + self.waiting.len() as u64 - 1
    }

    fn get(&mut self, batch: u64) -> Option<&mut BatchState> {
        let at = usize::try_from(batch.checked_sub(self.first)?).ok()?;
        self.waiting.get_mut(at)
    }

    /// How many are not done.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn add_parts(&mut self, batch: u64, parts: usize) {
        if let Some(batch) = self.get(batch) {
            batch.left += parts;
        }
    }

    pub(super) fn part_done(&mut self, batch: u64) {
        if let Some(batch) = self.get(batch) {
            batch.left = batch.left.saturating_sub(1);
        }
    }

    pub(super) fn part_failed(&mut self, batch: u64, rooms: Vec<RoomNumber>) {
        self.part_done(batch);
        self.not_owned(batch, rooms);
    }

    pub(super) fn not_owned(&mut self, batch: u64, rooms: Vec<RoomNumber>) {
        if let Some(batch) = self.get(batch) {
            batch.not_owned.extend(rooms);
        }
    }

    /// Says of those that are durable that they are, in order.
    pub(super) fn complete(&mut self) {
        while self.waiting.front().is_some_and(|batch| batch.left == 0) {
            let Some(batch) = self.waiting.pop_front() else {
                return;
            };
            self.first += 1;
            let BatchState {
                done, not_owned, ..
            } = batch;
            done(match not_owned.is_empty() {
                true => Ok(()),
                false => Err(JournalError::NotOwned { rooms: not_owned }),
            });
        }
    }
}
