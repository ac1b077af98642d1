//! What a room does about the faults of its guest.

use super::{Phase, Room, State, event_kind::EventKind, rollback::History};
#[cfg(feature = "snapshot")]
use crate::snapshot::bytes::{Malformed, Reader, Writer};
use crate::{
    error::{Fault, FaultCause, OpenError, Trap},
    event::{ClientId, EventHeader, MessagePayload, OutputHeader},
    fault_policy::{Backoff, FaultPolicy},
    guest::{Guest, LineKind, Outbox, Progress, Stdio},
    module::Module,
    structure::memory_cost,
    time::Instant,
};
use alloc::{boxed::Box, vec::Vec};
use core::{mem, time::Duration};

/// A room's fault policy with the state that it needs.
pub(super) enum Recovery {
    Close,
    Restart(Restarts),
    Continue,
    #[cfg_attr(
        not(feature = "snapshot"),
        expect(dead_code, reason = "there is no history")
    )]
    Rollback(Box<History>),
}

impl Recovery {
    /// # Errors
    ///
    /// If the module was not loaded for the policy.
    #[cfg_attr(not(feature = "snapshot"), expect(unused_variables))]
    pub(super) fn new(policy: FaultPolicy, module: &Module) -> Result<Self, OpenError> {
        match policy {
            FaultPolicy::Close => Ok(Self::Close),
            FaultPolicy::Restart(backoff) => Ok(Self::Restart(Restarts::new(backoff))),
            FaultPolicy::Continue => Ok(Self::Continue),
            #[cfg(feature = "snapshot")]
            FaultPolicy::Rollback if module.compiled.layout().is_some() => {
                Ok(Self::Rollback(Box::default()))
            }
            #[cfg(feature = "snapshot")]
            FaultPolicy::Rollback => Err(OpenError::NoRollback),
        }
    }

    /// Records an event that ended well. The guest is as the event left it.
    pub(super) fn event_succeeded(
        &mut self,
        guest: &Guest,
        event: EventKind,
        payload: MessagePayload<'_>,
    ) {
        if let Self::Rollback(history) = self {
            history.record(guest, event, payload);
        }
    }

    /// What was done for the policy, in units of fuel.
    pub(super) const fn host_work(&self) -> u64 {
        match self {
            Self::Rollback(history) => history.work(),
            Self::Close | Self::Restart(_) | Self::Continue => 0,
        }
    }

    /// Whether an event's outputs are held until it ends, since it may be undone.
    pub(super) const fn holds_outputs(&self) -> bool {
        matches!(self, Self::Rollback(_))
    }
}

impl Room {
    /// Applies the fault policy. The event that caused the fault is over.
    ///
    /// Out of line, so that its frame is not on the stack while a guest runs.
    #[cold]
    #[inline(never)]
    pub(super) fn fail(&mut self, event: EventKind, fault: Fault) {
        self.stats.faults += 1;
        // Not the present time, which depends on how many slices the event has taken.
        let event_time = match &self.state {
            State::Live { guest, .. } => guest.now(),
            _ => self.now,
        };
        match &mut self.recovery {
            // A guest that was not initialised has no state to go on with.
            Recovery::Continue if !matches!(event, EventKind::Init) => {
                self.log_fault("continues", &fault);
                if let State::Live { phase, .. } = &mut self.state {
                    *phase = Phase::Idle;
                }
                self.last_fault = Some(fault);
            }
            Recovery::Close | Recovery::Continue => self.end(Some(fault)),
            Recovery::Restart(restarts) => match restarts.schedule(event_time, self.now) {
                Some(at) => {
                    self.log_fault("restarts", &fault);
                    let mut outbox = self.retire_guest();
                    if !self.is_managed {
                        // It was set by the guest that is no more.
                        outbox.push(OutputHeader::CancelTimer, MessagePayload::EMPTY);
                    }
                    self.state = State::Starting {
                        at,
                        undone: None,
                        outbox,
                    };
                    self.last_fault = Some(fault);
                }
                None => self.end(Some(fault)),
            },
            Recovery::Rollback(_) => self.roll_back(event, fault),
        }
    }

    /// Logs what follows a fault that does not close the room.
    #[cfg_attr(not(feature = "log"), expect(unused_variables))]
    fn log_fault(&mut self, what: &str, fault: &Fault) {
        if let Some(permit) = self.permit_line(LineKind::Fault) {
            log!(
                warn,
                "room {:?} {what} after a fault: {}{permit}",
                crate::Escaped::new(&self.id),
                crate::WithSources(fault)
            );
        }
    }

    /// Closes the room, with what its guest sent still to be taken.
    fn end(&mut self, fault: Option<Fault>) {
        let outbox = self.retire_guest();
        self.close_with(fault, outbox);
    }

    /// Drops the guest and returns its outbox. The caller sets the state that follows.
    pub(super) fn retire_guest(&mut self) -> Outbox {
        let interim = State::Closed {
            fault: None,
            outbox: Outbox::new(),
        };
        match mem::replace(&mut self.state, interim) {
            State::Live { mut guest, .. } => {
                self.stats.fuel_used += guest.fuel_used();
                self.stats.memory_bytes = guest.memory_bytes();
                self.log = guest.take_log();
                guest.take_outbox()
            }
            State::Starting { outbox, .. } | State::Closed { outbox, .. } => outbox,
            #[cfg(feature = "snapshot")]
            State::Asleep(_) => Outbox::new(),
            #[cfg(feature = "snapshot")]
            State::Upgrading(_) => Outbox::new(),
        }
    }

    /// Instantiates a fresh guest: to undo an event in it, or to begin anew. In that case, before all
    /// that waits, it is initialised and handles a connect for each client that was connected before.
    pub(super) fn start(&mut self, undone: Option<EventKind>) {
        let now = self.now;
        if let Recovery::Restart(restarts) = &mut self.recovery {
            restarts.start(now);
        }
        if undone.is_none() {
            let fuel_used = self.stats.fuel_used;
            self.recorder
                .record(EventKind::Init, MessagePayload::EMPTY, now, || fuel_used);
        }
        self.host_work += self.module.compiled.instantiation_cost;
        let guest = match self.fresh_guest() {
            Ok(guest) => guest,
            Err(fault) => return self.fail(undone.unwrap_or(EventKind::Init), fault),
        };
        match undone {
            Some(undone) => self.begin_replay(guest, undone),
            None => {
                let phase = Phase::Idle;
                self.state = State::Live { guest, phase };
                for client in self.clients_before_inbox().into_iter().rev() {
                    self.inbox.push_first(EventKind::Rejoin(client));
                }
                self.inbox.push_first(EventKind::Init);
                self.begin_next();
            }
        }
    }

    /// Another guest of the same module, with other random numbers after each fault.
    fn fresh_guest(&mut self) -> Result<Box<Guest>, Fault> {
        // An odd multiplier with well-spread bits, so that no other room of a host has the same seed.
        let seed = self
            .seed
            .wrapping_add(self.stats.faults.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.guest_with_seed(seed)
    }

    /// Another guest of the same module.
    pub(super) fn guest_with_seed(&mut self, seed: u64) -> Result<Box<Guest>, Fault> {
        let stdio = Stdio::new(&self.id, self.module.limits());
        let guest = Guest::new(
            &self.module.compiled,
            seed,
            self.unix_time_at_zero,
            self.is_managed,
            stdio,
        );
        let mut guest = guest.map(Box::new)?;
        // Not before: the room keeps it if there is no guest.
        *guest.log_mut() = mem::take(&mut self.log);
        Ok(guest)
    }

    /// The clients that were connected before the events in the inbox. (In an unmanaged room one of
    /// these may change nothing, such as a second connect: then the client is here only if its first
    /// event of the two is a disconnect, so that a fresh guest is told once that it is connected.)
    fn clients_before_inbox(&self) -> Vec<ClientId> {
        let mut clients = self.clients.clone();
        for event in self.inbox.kinds().rev() {
            match event {
                EventKind::Rejoin(client) | EventKind::Outside(EventHeader::Connect(client)) => {
                    if let Ok(at) = clients.binary_search(&client) {
                        clients.remove(at);
                    }
                }
                EventKind::Outside(EventHeader::Disconnect(client)) => {
                    if let Err(at) = clients.binary_search(&client) {
                        clients.insert(at, client);
                    }
                }
                EventKind::Init
                | EventKind::Timer
                | EventKind::Outside(EventHeader::Message(_)) => {}
            }
        }
        clients
    }

    /// Starts to undo an event; the room closes if that is impossible.
    fn roll_back(&mut self, undone: EventKind, fault: Fault) {
        // A replay repeats what went well before. If it fails the host lacks memory, and another
        // attempt would fail as well.
        let can_replay = matches!(
            self.state,
            State::Live {
                phase: Phase::Idle | Phase::InEvent,
                ..
            }
        );
        let has_checkpoint =
            matches!(&self.recovery, Recovery::Rollback(history) if history.has_checkpoint());
        // What the event sent is dropped with its guest, before the next one gets its memory.
        drop(self.retire_guest());
        if can_replay && has_checkpoint {
            self.log_fault("undoes an event", &fault);
            // That a client joined or left is not undone.
            let mut outbox = Outbox::new();
            outbox.announce(undone);
            self.state = State::Starting {
                at: self.now,
                undone: Some(undone),
                outbox,
            };
            self.last_fault = Some(fault);
        } else {
            self.close_with(Some(fault), Outbox::new());
        }
    }

    /// Restores the checkpoint in a fresh guest, which then replays what came after it.
    fn begin_replay(&mut self, mut guest: Box<Guest>, undone: EventKind) {
        let Recovery::Rollback(history) = &self.recovery else {
            return;
        };
        if history.restore(&mut guest).is_none() {
            let cause = FaultCause::Trap(Trap::OutOfSystemMemory);
            return self.fail(
                undone,
                Fault {
                    during: "instantiate",
                    cause,
                },
            );
        }
        self.host_work += memory_cost(guest.memory_bytes());
        let phase = Phase::Replaying { undone };
        self.state = State::Live { guest, phase };
    }

    /// Continues to undo an event, for one slice.
    pub(super) fn continue_rollback(&mut self) {
        let slice = self.module.limits().fuel_per_slice;
        let State::Live { guest, phase } = &mut self.state else {
            return;
        };
        let (Phase::Replaying { undone }, Recovery::Rollback(history)) =
            (*phase, &mut self.recovery)
        else {
            return;
        };
        match history.replay(guest, &self.id, slice, undone) {
            Ok(Progress::Done) => *phase = Phase::Idle,
            Ok(Progress::Paused) => {}
            Err(fault) => self.fail(EventKind::Init, fault),
        }
    }
}

impl Outbox {
    /// Appends that a client joined or left, if the event is its connect or disconnect.
    #[cold]
    #[inline(never)]
    pub(super) fn announce(&mut self, event: EventKind) {
        match event {
            EventKind::Rejoin(client) | EventKind::Outside(EventHeader::Connect(client)) => {
                self.push(OutputHeader::Joined(client), MessagePayload::EMPTY);
            }
            EventKind::Outside(EventHeader::Disconnect(client)) => {
                self.push(OutputHeader::Left(client), MessagePayload::EMPTY);
            }
            EventKind::Init | EventKind::Timer | EventKind::Outside(EventHeader::Message(_)) => {}
        }
    }
}

/// Counts consecutive faults.
#[derive(Clone, Copy)]
pub(super) struct Restarts {
    backoff: Backoff,
    consecutive_faults: u32,
    /// When the guest was started last.
    started: Instant,
}

impl Restarts {
    const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            consecutive_faults: 0,
            started: Instant::ZERO,
        }
    }

    /// When to restart after one more fault, of an event that began at `event_time`; none if the room is to
    /// close. When it is then started depends on the time of polls, so that is recorded for replays.
    fn schedule(&mut self, event_time: Instant, now: Instant) -> Option<Instant> {
        // Never no time at all: a guest that fails at once would never count as failing in a row, and
        // a host whose clock stands still would restart it without end.
        let shortest = Duration::from_nanos(1);
        if event_time >= self.started + self.backoff.longest.max(shortest) {
            self.consecutive_faults = 0;
        }
        self.consecutive_faults = self.consecutive_faults.saturating_add(1);
        self.backoff
            .wait(self.consecutive_faults)
            .map(|wait| now + wait.max(shortest))
    }

    #[cfg(feature = "snapshot")]
    pub(super) fn encode(self, writer: &mut Writer<'_>) {
        writer.number(self.consecutive_faults.into());
        writer.number(self.started.as_nanos());
    }

    #[cfg(feature = "snapshot")]
    pub(super) fn decode(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        self.consecutive_faults = reader.fitting()?;
        self.started = Instant::from_nanos(reader.number()?);
        Ok(())
    }

    /// A fresh guest is about to start.
    const fn start(&mut self, now: Instant) {
        self.started = now;
    }
}
