//! What a room needs to undo an event: a checkpoint and the events since.
//!
//! Copying a guest's memory before each event would cost more than most events do. But a guest is
//! deterministic, so an occasional checkpoint and a log of the events since are as good: the state
//! before an event is the checkpoint with the logged events replayed.

use super::event_kind::EventKind;
use crate::{
    error::Fault,
    event::MessagePayload,
    guest::{Checkpoint, Guest, Progress},
    storage::PayloadQueue,
    structure::copy_cost,
    time::Instant,
};
/// Logged events after which the next checkpoint is taken, whatever they cost.
const MAX_LOG_EVENTS: usize = 1024;

#[derive(Default)]
pub(super) struct History {
    /// The guest's state when the log was begun; none before the guest is initialised.
    checkpoint: Option<Checkpoint>,
    /// Fuel that the guest had used by then.
    fuel_at_checkpoint: u64,
    /// The events since then, in order.
    log: PayloadQueue<LogEntry>,
    /// Fuel that the copies are worth which were made.
    work: u64,
}

#[derive(Clone, Copy, Debug)]
struct LogEntry {
    event: EventKind,
    now: Instant,
}

impl History {
    pub(super) const fn work(&self) -> u64 {
        self.work
    }

    /// The history of a room that was given this state.
    pub(super) fn beginning_with(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint: Some(checkpoint),
            ..Self::default()
        }
    }

    /// Whether there is a state to go back to.
    pub(super) const fn has_checkpoint(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Records an event that the guest has handled. The guest is as it left it.
    pub(super) fn record(&mut self, guest: &Guest, event: EventKind, payload: MessagePayload<'_>) {
        // A checkpoint reads each byte of memory; it pays when the log has cost many times as much.
        let memory_bytes = guest.memory_bytes();
        let is_due = guest.fuel_used() - self.fuel_at_checkpoint >= memory_bytes as u64
            || self.log.payload_bytes() + payload.len() > memory_bytes
            || self.log.len() >= MAX_LOG_EVENTS;
        if self.checkpoint.is_none() || is_due {
            self.take_checkpoint(guest);
        } else {
            self.log.push(
                LogEntry {
                    event,
                    now: guest.now(),
                },
                payload,
            );
        }
    }

    /// Restores the checkpoint into a fresh guest, whose outputs are off until
    /// [`replay`](Self::replay) is done. None if there is no checkpoint, or no memory for it.
    pub(super) fn restore(&self, guest: &mut Guest) -> Option<()> {
        self.checkpoint.as_ref()?.restore(guest)?;
        guest.set_outputs_enabled(false);
        Some(())
    }

    /// Replays the log, at most one slice of it; at its end the guest is where it was before the
    /// event `undone`.
    ///
    /// # Errors
    ///
    /// If the guest fails at what it did before: only when the host has no memory for it.
    pub(super) fn replay(
        &mut self,
        guest: &mut Guest,
        room_id: &str,
        slice: u64,
        undone: EventKind,
    ) -> Result<Progress, Fault> {
        let before = guest.fuel_used();
        while let Some((LogEntry { event, now }, payload)) = self.log.front() {
            let Some(left) = slice.checked_sub(guest.fuel_used() - before) else {
                return Ok(Progress::Paused);
            };
            let call = event.call(room_id, payload);
            let progress = if guest.is_paused() {
                guest.resume(&call, left)
            } else {
                guest.begin(now, &call, left)
            };
            if progress? == Progress::Paused {
                return Ok(Progress::Paused);
            }
            self.log.drop_front();
        }
        // A timer that fired is not set any more, even if its event is undone.
        if matches!(undone, EventKind::Timer) {
            guest.cancel_timer();
        }
        guest.set_outputs_enabled(true);
        self.take_checkpoint(guest);
        Ok(Progress::Done)
    }

    fn take_checkpoint(&mut self, guest: &Guest) {
        match &mut self.checkpoint {
            Some(checkpoint) => {
                checkpoint.update(guest);
            }
            None => self.checkpoint = Checkpoint::of(guest),
        }
        self.work += copy_cost(guest.memory_bytes());
        self.fuel_at_checkpoint = guest.fuel_used();
        self.log.clear();
    }
}
