//! Recording what a room does, and doing it again.

use super::{Phase, Room, State, event_kind::EventKind, recovery::Recovery};
use crate::{
    event::{Event, MessagePayload},
    replay::{EventRecord, RecordedEvent, ReplayError},
};

impl Room {
    /// Makes the room keep a record of each event that it begins from now on, or no longer; by default
    /// it does not. A driver then takes the records ([`poll_record`](Self::poll_record)) whenever it
    /// takes outputs, and before those: what an event sends comes after its record.
    pub fn set_recording(&mut self, is_on: bool) {
        self.recorder.set(is_on);
    }

    /// Takes the record of the next event that the room has begun.
    pub fn poll_record(&mut self) -> Option<EventRecord<'_>> {
        self.recorder.poll()
    }

    /// Does again what was recorded, in the state and at the time in which it was recorded: it sends the
    /// same, uses the same fuel and ends in the same state. A replay is not recorded.
    ///
    /// Returns whether the event is one that waited in the room's inbox, as some do in a room that was
    /// loaded.
    ///
    /// The event may take more than one slice: [`resume`](Self::resume) the room while it
    /// [is unfinished](Self::is_unfinished). Its outputs are to be taken before the next event.
    ///
    /// # Errors
    ///
    /// If the room is busy, or not in the state in which the event was recorded; then nothing has happened.
    pub fn replay(&mut self, record: &EventRecord<'_>) -> Result<bool, ReplayError> {
        if self.is_unfinished() || self.peek_output().is_some() || !self.recorder.is_empty() {
            return Err(ReplayError::Busy);
        }
        // What a rollback replays depends on when the room was saved, and counts as used.
        let is_fuel_exact = !matches!(self.recovery, Recovery::Rollback(_));
        if is_fuel_exact && record.fuel_used != self.fuel_used() {
            return Err(ReplayError::Diverged);
        }
        if record.at < self.now {
            return Err(ReplayError::Diverged);
        }
        let recorder = core::mem::take(&mut self.recorder);
        let replayed = self.replay_event(record);
        self.recorder = recorder;
        replayed
    }

    fn replay_event(&mut self, record: &EventRecord<'_>) -> Result<bool, ReplayError> {
        let is_timer_due = self.poll_timeout().is_some_and(|at| at <= record.at);
        match record.event {
            RecordedEvent::Start => match self.state {
                State::Starting { undone: None, .. } if is_timer_due => {
                    self.advance(record.at);
                    self.start(None);
                    Ok(false)
                }
                _ => Err(ReplayError::Diverged),
            },
            RecordedEvent::Timer => match self.state {
                State::Live { .. } | State::Asleep(_) if is_timer_due => {
                    self.advance(record.at);
                    self.fire();
                    Ok(false)
                }
                _ => Err(ReplayError::Diverged),
            },
            RecordedEvent::Rejoin(client) => {
                self.replay_waiting(
                    record,
                    |next, _| matches!(next, EventKind::Rejoin(waiting) if waiting == client),
                )?;
                Ok(true)
            }
            RecordedEvent::Outside(event) if self.inbox.is_empty() => {
                self.check(&event).map_err(|_| ReplayError::Diverged)?;
                self.wake();
                if !self.is_ready() {
                    return Err(ReplayError::Diverged);
                }
                self.count_accepted(&event);
                self.advance(record.at);
                self.begin(EventKind::Outside(event.header()), event.payload());
                Ok(false)
            }
            RecordedEvent::Outside(event) => {
                self.replay_waiting(record, |next, payload| match (next, event) {
                    (EventKind::Outside(header), Event::Message(_, expected)) => {
                        header == event.header() && payload == expected
                    }
                    (EventKind::Outside(header), _) => header == event.header(),
                    _ => false,
                })?;
                Ok(true)
            }
        }
    }

    /// Begins the event that waits longest, if it is the expected one.
    fn replay_waiting(
        &mut self,
        record: &EventRecord<'_>,
        is_expected: impl FnOnce(EventKind, MessagePayload<'_>) -> bool,
    ) -> Result<(), ReplayError> {
        let next = self.inbox.next();
        if !next.is_some_and(|(next, payload)| is_expected(next, payload)) {
            return Err(ReplayError::Diverged);
        }
        self.wake();
        let is_idle = matches!(
            self.state,
            State::Live {
                phase: Phase::Idle,
                ..
            }
        );
        if !is_idle {
            return Err(ReplayError::Diverged);
        }
        self.advance(record.at);
        self.begin_next();
        Ok(())
    }
}
