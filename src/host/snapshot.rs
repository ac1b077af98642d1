//! Saving, loading and hibernating the rooms of a host.

use super::{Clock, Flushed, Host, Queued, RoomKey, Transport, flush};
use crate::{
    error::{OpenError, UnknownRoom},
    module::Module,
    room::Room,
    snapshot::{Envelope, SaveError, SnapshotError, SnapshotOptions, UpgradeError},
    time::Instant,
};
use alloc::{boxed::Box, vec::Vec};
use core::{task::Poll, time::Duration};

impl<C: Clock, T: Transport> Host<C, T> {
    /// The room as bytes; see [`Room::save`]. An event that the guest is in the middle of is finished
    /// first, which takes what it needs of [`max_fuel_per_event`](crate::Limits::max_fuel_per_event), and
    /// its outputs are sent; if the guest fails, the fault policy follows. The room stays open:
    /// [`discard`](Self::discard) it if it is to go on elsewhere.
    ///
    /// # Errors
    ///
    /// As [`Room::save`]; the transport may have refused an output.
    pub fn save(&mut self, key: RoomKey) -> Result<Vec<u8>, SaveError> {
        let unix_time = self.unix_time().unwrap_or(Duration::ZERO);
        self.at_boundary(key, |room| room.save_at(unix_time))
    }

    /// Opens a room from a snapshot, under the id that it has there, and returns its key. Room time goes
    /// on from where it stood, plus the wall time that has passed since as far as the clocks knew and
    /// know it; a timer that came due meanwhile fires once, late.
    ///
    /// # Errors
    ///
    /// As [`Room::load`], and if the id is taken or the host is full.
    pub fn load(
        &mut self,
        module: &Module,
        snapshot: &[u8],
        options: SnapshotOptions,
    ) -> Result<RoomKey, SnapshotError> {
        let envelope = Envelope::open(snapshot)?;
        // Before the state is looked at, which takes longer.
        self.check_free(&envelope.info.room_id)?;
        let room = Room::from_envelope(module, &envelope, options)?;
        Ok(self.insert(room, envelope.info.saved_at)?)
    }

    /// Adds a room that was made without this host: [loaded](Room::load), and maybe
    /// [replayed](Room::replay). Room time goes on from where it stands, plus the wall time that has passed
    /// since `unix_time`, the wall time at that room time, as far as both are known. One that is closed is
    /// returned by [`poll_closed`](Self::poll_closed).
    ///
    /// # Errors
    ///
    /// If the id is taken or the host is full.
    pub fn insert(
        &mut self,
        room: Room,
        unix_time: Option<Duration>,
    ) -> Result<RoomKey, OpenError> {
        self.check_free(room.id())?;
        let now = self.clock.now();
        let room_time = room.now() + self.wall_time_since(unix_time);
        let deadline = room.poll_timeout();
        let has_work = room.is_runnable() || room.peek_output().is_some();
        let queued = match (has_work, room.is_starting()) {
            (false, _) if room.is_closed() => Queued::Closed,
            (false, _) => Queued::Nowhere,
            (true, false) => Queued::Ready,
            (true, true) => Queued::Starting,
        };
        let key = self.add(Box::new(room), now, room_time, queued);
        if let (Some(deadline), Some(slot)) = (deadline, self.rooms.get_mut(&key)) {
            slot.deadline = Some(slot.host_time(deadline));
            let deadline = slot.deadline;
            self.insert_deadline(key, deadline);
        }
        Ok(key)
    }

    /// Makes a room record the events that it begins from now on, or no longer; the transport is passed
    /// the records ([`Transport::recorded`]). See [`Room::set_recording`].
    ///
    /// # Errors
    ///
    /// If the host has no such room.
    pub fn set_recording(&mut self, key: RoomKey, is_on: bool) -> Result<(), UnknownRoom> {
        let slot = self.rooms.get_mut(&key).ok_or(UnknownRoom)?;
        slot.room.set_recording(is_on);
        Ok(())
    }

    /// Replaces the room's guest by its state, which takes a fraction of the memory; see
    /// [`Room::hibernate`]. An event, or its timer, wakes the room.
    ///
    /// # Errors
    ///
    /// As [`Room::hibernate`].
    pub fn hibernate(&mut self, key: RoomKey) -> Result<(), SaveError> {
        self.at_boundary(key, Room::hibernate)
    }

    /// Begins to go on with another module in a room that keeps its state; see [`Room::begin_upgrade`]. An
    /// event that the guest is in the middle of is finished first, as for [`save`](Self::save). The steps are
    /// turns of the room.
    ///
    /// # Errors
    ///
    /// As [`Room::begin_upgrade`], and if the host has no such room.
    pub fn begin_upgrade(&mut self, key: RoomKey, module: &Module) -> Result<(), UpgradeError> {
        self.at_boundary(key, |room| room.check_boundary())?;
        let slot = self.rooms.get_mut(&key).ok_or(UnknownRoom)?;
        slot.room.begin_upgrade(module)?;
        slot.deadline = None;
        slot.wake(key, &mut self.queues);
        Ok(())
    }

    /// What has become of [an upgrade](Self::begin_upgrade); see [`Room::poll_upgrade`]. The room goes on
    /// when it was called.
    ///
    /// # Errors
    ///
    /// As [`Room::poll_upgrade`], and if the host has no such room.
    pub fn poll_upgrade(&mut self, key: RoomKey) -> Poll<Result<(), UpgradeError>> {
        let Some(slot) = self.rooms.get_mut(&key) else {
            return Poll::Ready(Err(UnknownRoom.into()));
        };
        let result = slot.room.poll_upgrade();
        if result.is_ready() && slot.queued == Queued::Nowhere {
            let (deadline, _) = slot.reschedule(key, &mut self.transport, &mut self.queues);
            self.insert_deadline(key, deadline);
        }
        result
    }

    /// Finishes the event that the guest is in the middle of, with its outputs, and then acts on the room.
    fn at_boundary<R>(
        &mut self,
        key: RoomKey,
        mut act: impl FnMut(&mut Room) -> Result<R, SaveError>,
    ) -> Result<R, SaveError> {
        let now = self.clock.now();
        let slot = self.rooms.get_mut(&key).ok_or(SaveError::UnknownRoom)?;
        // The time since its last event has passed for the room, too.
        slot.room.advance(slot.room_time(now));
        loop {
            while let (Flushed::Partly, _) = flush(&mut slot.room, key, &mut self.transport) {}
            let result = act(&mut slot.room);
            let room = &slot.room;
            // An upgrade is not an event, and takes its turns.
            let is_event = room.is_unfinished() && room.is_runnable() && !room.is_upgrading();
            if !(is_event && matches!(result, Err(SaveError::Busy))) {
                return result;
            }
            slot.room.resume(slot.room_time(now));
        }
    }

    /// The wall time since a room was saved; zero if a clock did not or does not know it, or has run
    /// backwards.
    fn wall_time_since(&self, saved_at: Option<Duration>) -> Duration {
        match (self.unix_time(), saved_at) {
            (Some(now), Some(saved_at)) => now.saturating_sub(saved_at),
            _ => Duration::ZERO,
        }
    }

    /// The wall time, if the clock knows it.
    fn unix_time(&self) -> Option<Duration> {
        let uptime = self.clock.now().saturating_duration_since(Instant::ZERO);
        Some(self.clock.unix_time_at_zero()?.saturating_add(uptime))
    }
}
