//! Rooms for drivers that keep clients, the timer and the time of events themselves.

use super::{Phase, Room, RoomOptions, State, event_kind::EventKind};
use crate::{
    error::{EventError, OpenError},
    event::MessagePayload,
    module::Module,
    time::Instant,
};

impl Room {
    /// Like [`new`](Self::new), for a driver whose own interface keeps the clients and the timer, and
    /// cannot refuse an event, as the traits of the `stateroom` crate.
    ///
    /// - Clients have any id. The connect of a client that is connected, and messages and disconnects
    ///   of clients that are not, are events like others; [`Limits::max_clients`] does not apply.
    ///   [`clients`](Self::clients) returns whose last event of the two was a connect.
    /// - Each request of the guest's for its timer is an [`Output`](crate::Output), and counts as a message for
    ///   [`Limits::max_outbox_messages`]. When the timer fires, call
    ///   [`handle_timer`](Self::handle_timer). An event that is rolled back requests nothing, nor does
    ///   its replay; a restart cancels the timer.
    ///
    /// [`Limits::max_clients`]: crate::Limits::max_clients
    /// [`Limits::max_outbox_messages`]: crate::Limits::max_outbox_messages
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn unmanaged(module: &Module, id: &str, options: RoomOptions) -> Result<Self, OpenError> {
        let mut room = Self::suspended(module, id, options)?;
        room.is_managed = false;
        room.resume(Instant::ZERO);
        Ok(room)
    }

    /// Gives an [unmanaged](Self::unmanaged) room the event of its timer, whether or not the guest has
    /// set it. A no-op for other rooms, which [`handle_timeout`](Self::handle_timeout) tells the time.
    ///
    /// # Errors
    ///
    /// If the room is closed, or busy and its inbox is full; then nothing has happened.
    pub fn handle_timer(&mut self, now: Instant) -> Result<(), EventError> {
        if self.is_closed() {
            return Err(EventError::Closed);
        }
        if self.is_managed {
            return Ok(());
        }
        if self.is_ready() {
            self.advance(now);
            self.begin(EventKind::Timer, MessagePayload::EMPTY);
            return Ok(());
        }
        if !self.inbox.fits(0, self.module.limits()) {
            return Err(EventError::InboxFull);
        }
        self.inbox.push(EventKind::Timer, MessagePayload::EMPTY);
        Ok(())
    }

    /// Fails the event that the guest is in the middle of, and applies the fault policy: for drivers
    /// that also limit an event's time. A no-op if there is none.
    pub fn interrupt(&mut self) {
        let State::Live {
            guest,
            phase: Phase::InEvent,
        } = &mut self.state
        else {
            return;
        };
        let Some((event, payload)) = self.inbox.running() else {
            return;
        };
        let fault = guest.interrupt(&event.call(&self.id, payload));
        self.inbox.drop_first();
        self.stats.count_handled(event);
        self.fail(event, fault);
    }

    /// Whether the guest has used up its slice in the middle of an event.
    #[must_use]
    pub const fn is_in_event(&self) -> bool {
        matches!(
            self.state,
            State::Live {
                phase: Phase::InEvent,
                ..
            }
        )
    }
}
