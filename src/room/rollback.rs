//! How an event is undone.
//!
//! To copy a guest's memory before each event would cost more than most events. But a guest does
//! the same when it is given the same; so a copy now and then, and the events since, are as good:
//! the state before an event is the copy with those events run again.

use super::event_kind::EventKind;
use crate::{
    error::Fault,
    event::MessagePayload,
    guest::{Checkpoint, Guest, Progress},
    storage::PayloadQueue,
    time::Instant,
};

/// Events since the last copy of the guest's state at which the next is taken, whatever they cost.
const LOG_EVENTS: usize = 1024;

#[derive(Default)]
pub(super) struct History {
    /// The guest's state when the log was begun; none before it is initialised.
    checkpoint: Option<Checkpoint>,
    /// What the guest has used when that was taken.
    fuel: u64,
    /// The events since then, in order.
    log: PayloadQueue<Logged>,
    /// While the log is run again: whether it was a timer that is undone.
    replaying: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Logged {
    event: EventKind,
    now: Instant,
}

impl History {
    pub(super) const fn is_replaying(&self) -> bool {
        self.replaying.is_some()
    }

    /// Notes an event that the guest has had, so that it can be gone back to what follows it.
    pub(super) fn event_ended(
        &mut self,
        guest: &Guest,
        event: EventKind,
        payload: MessagePayload<'_>,
    ) {
        // A copy looks at each byte; it is worth that when the events have cost many times as much.
        let enough = guest.memory_bytes();
        let is_enough = guest.fuel_used() - self.fuel >= enough as u64
            || self.log.payload_bytes() + payload.len() > enough
            || self.log.len() >= LOG_EVENTS;
        if self.checkpoint.is_none() || is_enough {
            self.save(guest);
        } else {
            self.log.push(
                Logged {
                    event,
                    now: guest.now(),
                },
                payload,
            );
        }
    }

    /// Begins to bring a fresh guest to where another was before this event. None if there is
    /// nothing to go back to, or no memory for it.
    pub(super) fn begin(&mut self, guest: &mut Guest, event: EventKind) -> Option<()> {
        // What went well before can only fail for want of the host's memory, and would again.
        if self.is_replaying() {
            return None;
        }
        self.checkpoint.as_ref()?.restore(guest)?;
        guest.set_heard(false);
        self.replaying = Some(matches!(event, EventKind::Timer));
        Some(())
    }

    /// Goes on to do so, for one slice.
    ///
    /// # Errors
    ///
    /// If the guest fails at what it did before: only when the host has no memory for it.
    pub(super) fn replay(
        &mut self,
        guest: &mut Guest,
        room_id: &str,
        slice: u64,
    ) -> Result<(), Fault> {
        let before = guest.fuel_used();
        while let Some((Logged { event, now }, payload)) = self.log.front() {
            let Some(left) = slice.checked_sub(guest.fuel_used() - before) else {
                return Ok(());
            };
            let call = event.call(room_id, payload);
            let progress = if guest.is_paused() {
                guest.resume(&call, left)
            } else {
                if matches!(event, EventKind::Timer) {
                    guest.clear_timer();
                }
                guest.begin(now, &call, left)
            };
            if progress? == Progress::Paused {
                return Ok(());
            }
            self.log.drop_front();
        }
        if self.replaying.take() == Some(true) {
            guest.clear_timer();
        }
        guest.set_heard(true);
        self.save(guest);
        Ok(())
    }

    fn save(&mut self, guest: &Guest) {
        match &mut self.checkpoint {
            Some(checkpoint) => checkpoint.update(guest),
            None => self.checkpoint = Some(Checkpoint::of(guest)),
        }
        self.fuel = guest.fuel_used();
        self.log.clear();
    }
}
