//! What a room does about the faults of its guest.

use super::{Room, event_kind::EventKind};
#[cfg(feature = "rollback")]
use super::{event_kind::payload, rollback::History};
use crate::{
    abi::Call,
    error::{Fault, FaultCause, OpenError, Trap},
    event::{ClientId, MessagePayload},
    fault_policy::{Backoff, FaultPolicy},
    guest::Guest,
    time::Instant,
};
#[cfg(feature = "rollback")]
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

pub(super) enum Recovery {
    Close,
    Restart(Restarts),
    #[cfg(feature = "rollback")]
    Rollback(Box<History>),
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
    #[cfg_attr(
        not(feature = "rollback"),
        expect(unused_variables, clippy::unused_self)
    )]
    pub(super) fn event_ended(&mut self, guest: &Guest, call: &Call<'_>) {
        #[cfg(feature = "rollback")]
        if let Self::Rollback(undo) = self {
            undo.event_ended(guest, EventKind::of(call), payload(call));
        }
    }

    /// If there is no guest: when the next is to be started, if it is.
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

impl Room {
    /// Does what the policy says about a fault. The event that was its cause waits no more.
    #[cfg_attr(not(feature = "rollback"), expect(unused_variables))]
    pub(super) fn fail(&mut self, event: EventKind, fault: Fault) {
        self.stats.faults += 1;
        match &mut self.recovery {
            Recovery::Close => {}
            Recovery::Restart(restarts) => restarts.schedule(self.now),
            #[cfg(feature = "rollback")]
            Recovery::Rollback(_) => {
                if self.roll_back(event).is_some() {
                    log!(
                        warn,
                        "room {:?} goes back to before an event: {fault}",
                        self.id
                    );
                    self.last_fault = Some(fault);
                    return;
                }
            }
        }
        if self.recovery.restart_at().is_some() {
            log!(warn, "room {:?} is to start again: {fault}", self.id);
            self.retire_guest(true);
        } else {
            self.is_broken = true;
            self.close();
        }
        self.last_fault = Some(fault);
    }

    /// Drops the guest, and keeps what it had sent if that is to be heard.
    pub(super) fn retire_guest(&mut self, is_heard: bool) {
        if let Some(guest) = self.guest.take() {
            self.stats.fuel_used += guest.fuel_used();
            self.last_words = Some(guest.into_outbox()).filter(|_| is_heard);
        }
    }

    /// Starts a fresh guest, which hears first of the clients that there were before all that
    /// waits.
    pub(super) fn restart(&mut self) {
        let now = self.now;
        if let Recovery::Restart(restarts) = &mut self.recovery {
            restarts.start(now);
        }
        match self.fresh_guest() {
            Ok(guest) => {
                self.guest = Some(guest);
                // They were all taken; what is left is the memory that they were in.
                self.last_words = None;
                for client in self.clients_of_guest().into_iter().rev() {
                    self.inbox
                        .push_first(EventKind::Connect(client), MessagePayload::Bytes(&[]));
                }
                self.inbox
                    .push_first(EventKind::Init, MessagePayload::Bytes(&[]));
                self.go_on();
            }
            Err(fault) => self.fail(EventKind::Init, fault),
        }
    }

    /// Another guest of the same module, with other random numbers.
    fn fresh_guest(&self) -> Result<Guest, Fault> {
        // An odd number with its bits well spread, so that no other room of a host draws the same.
        let seed = self
            .options
            .seed
            .wrapping_add(self.stats.faults.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Guest::new(&self.module.compiled, seed, self.options.unix_time_at_zero).map_err(|error| {
            match error {
                OpenError::Fault(fault) => fault,
                // It was possible before, with the same limits.
                _ => Fault {
                    during: "start",
                    cause: FaultCause::Trap(Trap::OutOfSystemMemory),
                },
            }
        })
    }

    /// Who was connected before the events that wait.
    fn clients_of_guest(&self) -> Vec<ClientId> {
        let mut clients = self.clients.clone();
        for event in self.inbox.headers().rev() {
            match (
                event,
                event.client().map(|client| clients.binary_search(&client)),
            ) {
                (EventKind::Connect(_), Some(Ok(place))) => {
                    clients.remove(place);
                }
                (EventKind::Disconnect(client), Some(Err(place))) => clients.insert(place, client),
                _ => {}
            }
        }
        clients
    }

    /// Begins to undo an event. None if that cannot be.
    #[cfg(feature = "rollback")]
    fn roll_back(&mut self, event: EventKind) -> Option<()> {
        // Its memory is what the next one gets.
        self.retire_guest(false);
        let mut guest = self.fresh_guest().ok()?;
        let Recovery::Rollback(undo) = &mut self.recovery else {
            return None;
        };
        undo.begin(&mut guest, event)?;
        self.guest = Some(guest);
        Some(())
    }

    /// Goes on to undo an event.
    pub(super) fn replay(&mut self) {
        #[cfg(feature = "rollback")]
        if let (Recovery::Rollback(undo), Some(guest)) = (&mut self.recovery, &mut self.guest) {
            let slice = self.module.limits().fuel_per_slice;
            if let Err(fault) = undo.replay(guest, &self.id, slice) {
                self.fail(EventKind::Init, fault);
            }
        }
    }
}

/// Counts the faults in a row.
pub(super) struct Restarts {
    backoff: Backoff,
    faults: u32,
    /// When the guest was started last.
    started: Instant,
    /// When the next is, while there is none; never, if it is not to be tried any more.
    at: Option<Instant>,
}

impl Restarts {
    const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            faults: 0,
            started: Instant::ZERO,
            at: None,
        }
    }

    /// Sets when to start again, unless it is not to be tried any more.
    pub(super) fn schedule(&mut self, now: Instant) {
        if now >= self.started + self.backoff.longest {
            self.faults = 0;
        }
        self.faults = self.faults.saturating_add(1);
        // Never at once: a host would go on for ever at what is one moment to it.
        let soonest = Duration::from_nanos(1);
        self.at = self
            .backoff
            .wait(self.faults)
            .map(|wait| now + wait.max(soonest));
    }

    /// A fresh guest is about to be started.
    pub(super) const fn start(&mut self, now: Instant) {
        self.started = now;
    }
}
