//! What a room does about the faults of its guest.

#[cfg(feature = "rollback")]
use super::undo::Undo;
use super::waiting::Waiting;
use crate::{
    event::MessagePayload,
    guest::Guest,
    policy::{Backoff, FaultPolicy},
    time::Instant,
};
#[cfg(feature = "rollback")]
use alloc::boxed::Box;

pub(super) enum Recovery {
    Close,
    Restart(Restarts),
    #[cfg(feature = "rollback")]
    Rollback(Box<Undo>),
}

impl Recovery {
    pub(super) fn new(policy: FaultPolicy) -> Self {
        match policy {
            FaultPolicy::Close => Self::Close,
            FaultPolicy::Restart(backoff) => Self::Restart(Restarts::new(backoff)),
            #[cfg(feature = "rollback")]
            FaultPolicy::Rollback => Self::Rollback(Box::default()),
        }
    }

    /// An event has ended well. The guest is as it left it.
    #[cfg_attr(not(feature = "rollback"), expect(unused_variables, clippy::unused_self))]
    pub(super) fn event_ended(&mut self, guest: &Guest, event: Waiting, payload: MessagePayload<'_>) {
        #[cfg(feature = "rollback")]
        if let Self::Rollback(undo) = self {
            undo.event_ended(guest, event, payload);
        }
    }

    /// When the next guest is to be started, if there is none but there will be.
    pub(super) const fn restart_at(&self) -> Option<Instant> {
        match self {
            Self::Restart(restarts) => restarts.at,
            _ => None,
        }
    }

    /// Whether what an event sends is to wait for the end of the event.
    pub(super) const fn holds_back(&self) -> bool {
        match self {
            Self::Close | Self::Restart(_) => false,
            #[cfg(feature = "rollback")]
            Self::Rollback(_) => true,
        }
    }

    /// Whether the guest is running events again that it has had already.
    pub(super) const fn is_replaying(&self) -> bool {
        match self {
            Self::Close | Self::Restart(_) => false,
            #[cfg(feature = "rollback")]
            Self::Rollback(undo) => undo.is_replaying(),
        }
    }
}

/// Counts the faults in a row.
pub(super) struct Restarts {
    backoff: Backoff,
    faults: u32,
    /// When the guest was started last.
    started: Instant,
    at: Option<Instant>,
}

impl Restarts {
    const fn new(backoff: Backoff) -> Self {
        Self { backoff, faults: 0, started: Instant::ZERO, at: None }
    }

    /// Sets when to start again, unless it is not to be tried any more.
    pub(super) fn schedule(&mut self, now: Instant) {
        if now >= self.started + self.backoff.longest {
            self.faults = 0;
        }
        self.faults = self.faults.saturating_add(1);
        self.at = self.backoff.wait(self.faults).map(|wait| now + wait);
    }

    /// A fresh guest is about to be started.
    pub(super) const fn start(&mut self, now: Instant) {
        self.started = now;
        self.at = None;
    }
}
