//! The timer of a guest.

use crate::time::Instant;
use core::time::Duration;

/// Who keeps the timer.
#[derive(Clone, Copy)]
pub(super) enum Timer {
    /// The room.
    Room {
        /// When it fires.
        deadline: Option<Instant>,
        /// The earliest deadline that the running event may set.
        earliest: Instant,
    },
    /// The driver, which gets each request as an output.
    Driver,
}

impl Timer {
    pub(super) const fn of_room() -> Self {
        Self::Room {
            deadline: None,
            earliest: Instant::ZERO,
        }
    }

    /// When it fires, if the room keeps it and it is set.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Room { deadline, .. } => *deadline,
            Self::Driver => None,
        }
    }

    /// An event begins.
    pub(super) const fn begin_event(&mut self, now: Instant) {
        if let Self::Room { earliest, .. } = self {
            *earliest = now;
        }
    }

    /// The timer's own event begins, so that it is not set any more. If the event sets it to fire at
    /// once, it fires at a later time: a timer that always does would else never let a driver at one
    /// time finish.
    pub(super) fn begin_own_event(&mut self, now: Instant) {
        if let Self::Room { deadline, earliest } = self {
            *deadline = None;
            *earliest = now + Duration::from_nanos(1);
        }
    }

    /// Replaces the deadline, if the room keeps it.
    #[cfg(feature = "snapshot")]
    pub(super) const fn set(&mut self, to: Option<Instant>) {
        if let Self::Room { deadline, .. } = self {
            *deadline = to;
        }
    }
}
