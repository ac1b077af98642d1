//! Saving a room at an event boundary, and rooms without a guest: loaded, forked or hibernating.

use super::{
    Phase, Room, State,
    encoding::{
        bounded, max_events, read_clients, read_inbox, read_stats, write_clients, write_inbox,
        write_stats,
    },
    event_kind::EventKind,
    inbox::Inbox,
    recorder::Recorder,
    recovery::Recovery,
    rollback::History,
};
use crate::{
    error::{Fault, FaultCause, Trap},
    guest::{Checkpoint, Outbox, RoomLog},
    module::Module,
    room::RoomStats,
    snapshot::{
        EngineVersion, Envelope, ModuleHash, SaveError, SnapshotError, SnapshotInfo,
        SnapshotOptions, StateHash,
        bytes::{Reader, Writer},
        seal,
    },
    structure::{copy_cost, memory_cost},
    time::Instant,
};
use alloc::{borrow::Cow, boxed::Box, vec::Vec};
use core::time::Duration;

/// What a room is at an event boundary.
pub(super) enum Boundary<'a> {
    /// A fresh guest is to start at this time.
    Starting(Instant),
    Guest(Cow<'a, Checkpoint>),
}

impl Room {
    /// The room as bytes, from which [`load`](Self::load) makes one that goes on exactly here: with the
    /// same outputs, fuel, timer and random numbers, on whatever machine.
    ///
    /// They hold what the guest has changed, compressed, the clients, the events that wait, room time
    /// and counters; not the module, nor the last fault. `docs/snapshots.md` is the format.
    ///
    /// # Errors
    ///
    /// If the room is not at an event boundary with all its outputs taken, or the module was not loaded
    /// for snapshots.
    pub fn save(&self) -> Result<Vec<u8>, SaveError> {
        self.save_at(Duration::ZERO)
    }

    /// As [`save`](Self::save), with the wall time; zero if that is unknown.
    pub(crate) fn save_at(&self, unix_time: Duration) -> Result<Vec<u8>, SaveError> {
        let (info, state) = self.encode()?;
        Ok(seal(&info, &state, unix_time))
    }

    /// A hash of what [`save`](Self::save) saves: equal for rooms that go on in the same way.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn state_hash(&self) -> Result<StateHash, SaveError> {
        let (info, state) = self.encode()?;
        Ok(StateHash::of(&info, &state))
    }

    /// A room from a snapshot, which goes on where that was taken: at the same room time, with the same
    /// clients connected. Its guest is made when it is first needed.
    ///
    /// Whatever the bytes are, they harm nobody but their own room; they take no more memory than the
    /// limits of the module allow a room.
    ///
    /// # Errors
    ///
    /// If the bytes are no whole snapshot of a room of this module and engine, or the room would not be
    /// within the module's limits.
    pub fn load(
        module: &Module,
        snapshot: &[u8],
        options: SnapshotOptions,
    ) -> Result<Self, SnapshotError> {
        Self::from_envelope(module, &Envelope::open(snapshot)?, options)
    }

    pub(crate) fn from_envelope(
        module: &Module,
        envelope: &Envelope<'_>,
        options: SnapshotOptions,
    ) -> Result<Self, SnapshotError> {
        let layout = module.compiled.layout();
        let layout = layout.ok_or(SnapshotError::NotInstrumented)?;
        let info = &envelope.info;
        let limits = module.limits();
        if info.engine != EngineVersion::CURRENT {
            return Err(SnapshotError::Engine(info.engine));
        }
        if info.module.0 != layout.module_hash {
            return Err(SnapshotError::Module(info.module));
        }
        if !options.other_limits {
            limits.check_same_for_guest(&info.limits)?;
        }
        bounded(
            "bytes of its id",
            info.room_id.len(),
            limits.max_room_id_bytes,
        )?;
        let state = envelope.state(max_state_bytes(module))?;
        decode(module, info, &mut Reader::new(&state))
    }

    /// Another room that goes on from here as this one would: with the same id, time and clients.
    /// Neither knows of the other. Its guest is made when it is first needed.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn fork(&self) -> Result<Self, SaveError> {
        let state = match self.boundary()? {
            Boundary::Starting(at) => State::Starting {
                at,
                undone: None,
                outbox: Outbox::new(),
            },
            Boundary::Guest(checkpoint) => State::Asleep(Box::new(checkpoint.into_owned())),
        };
        Ok(Self {
            id: self.id.clone(),
            module: self.module.clone(),
            recovery: self.recovery.without_history(),
            recorder: Recorder::off(),
            log: RoomLog::new(),
            last_fault: self.last_fault.clone(),
            clients: self.clients.clone(),
            inbox: self.inbox.clone(),
            stats: self.stats_so_far(),
            host_work: 0,
            state,
            ..*self
        })
    }

    /// Replaces the guest by its state, which takes a fraction of the memory. The next event or the
    /// timer wakes the room: its guest is then made again. If there is no memory for that, it is a fault
    /// ([`Trap::OutOfSystemMemory`]), which the fault policy follows.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save), and if events wait. A room that has no guest yet has nothing to replace.
    pub fn hibernate(&mut self) -> Result<(), SaveError> {
        if !self.inbox.is_empty() {
            return Err(SaveError::Busy);
        }
        if let Boundary::Guest(Cow::Owned(mut checkpoint)) = self.boundary()? {
            checkpoint.shrink();
            self.host_work = self
                .host_work()
                .saturating_add(copy_cost(checkpoint.memory_bytes));
            self.retire_guest();
            self.recovery = self.recovery.without_history();
            self.clients.shrink_to_fit();
            self.inbox = Inbox::default();
            self.state = State::Asleep(Box::new(checkpoint));
        }
        Ok(())
    }

    /// Whether the guest is in the middle of an event, or one is being undone, so that the room cannot be
    /// saved: [`SaveError::Busy`].
    #[must_use]
    pub const fn is_unfinished(&self) -> bool {
        match &self.state {
            State::Live { phase, .. } => !matches!(phase, Phase::Idle),
            State::Starting { undone, .. } => undone.is_some(),
            State::Upgrading(_) => true,
            State::Asleep(_) | State::Closed { .. } => false,
        }
    }

    /// Whether the room has a state but no guest: it hibernates, or was loaded or forked and not
    /// resumed since.
    #[must_use]
    pub const fn is_hibernating(&self) -> bool {
        matches!(self.state, State::Asleep(_))
    }

    /// Makes the guest of a room that is asleep, and goes on with it.
    pub(super) fn wake_and(&mut self, go_on: impl FnOnce(&mut Self)) {
        self.wake();
        // Otherwise the fault policy decides.
        if let State::Live { .. } = self.state {
            go_on(self);
        }
    }

    /// Makes the guest of a room, if that is asleep.
    #[inline]
    pub(super) fn wake(&mut self) {
        if self.is_hibernating() {
            self.make_guest();
        }
    }

    #[cold]
    #[inline(never)]
    fn make_guest(&mut self) {
        let State::Asleep(checkpoint) = &mut self.state else {
            return;
        };
        let checkpoint = core::mem::take(&mut **checkpoint);
        self.host_work +=
            self.module.compiled.instantiation_cost + memory_cost(checkpoint.memory_bytes);
        let restored = self
            .guest_with_seed(checkpoint.seed())
            .and_then(|mut guest| {
                let restored = checkpoint.restore(&mut guest);
                restored.map(|()| guest).ok_or(Fault {
                    during: "instantiate",
                    cause: FaultCause::Trap(Trap::OutOfSystemMemory),
                })
            });
        match restored {
            Ok(guest) => {
                if let Recovery::Rollback(history) = &mut self.recovery {
                    **history = History::beginning_with(checkpoint);
                }
                let phase = Phase::Idle;
                self.state = State::Live { guest, phase };
            }
            Err(fault) => self.fail(EventKind::Init, fault),
        }
    }

    /// Makes this room what a fork of it was, in its guest if that can be.
    pub(super) fn become_fork(&mut self, fork: &Self) {
        let before = core::mem::replace(
            &mut self.state,
            State::Closed {
                fault: None,
                outbox: Outbox::new(),
            },
        );
        let work = self.host_work();
        let recorder = core::mem::take(&mut self.recorder);
        let Ok(fork) = fork.fork() else {
            unreachable!("a fork is at an event boundary until it is resumed");
        };
        let log = core::mem::take(&mut self.log);
        *self = fork;
        self.log = log;
        self.recorder = recorder;
        self.host_work = work;
        let (State::Asleep(checkpoint), State::Live { mut guest, .. }) = (&self.state, before)
        else {
            return;
        };
        guest.forget_events();
        if checkpoint.restore_over(&mut guest).is_none() {
            return;
        }
        self.host_work += copy_cost(checkpoint.memory_bytes);
        if let Recovery::Rollback(history) = &mut self.recovery {
            **history = History::beginning_with(Checkpoint::clone(checkpoint));
        }
        self.state = State::Live {
            guest,
            phase: Phase::Idle,
        };
    }

    /// The counters of a room without a guest that goes on from here.
    fn stats_so_far(&self) -> RoomStats {
        RoomStats {
            fuel_used: self.fuel_used(),
            ..self.stats
        }
    }

    /// # Errors
    ///
    /// If the room cannot be saved now.
    pub(crate) fn check_boundary(&self) -> Result<(), SaveError> {
        if !self.is_managed {
            return Err(SaveError::Unmanaged);
        }
        if self.module.compiled.layout().is_none() {
            return Err(SaveError::NotInstrumented);
        }
        if self.is_closed() {
            return Err(SaveError::Closed);
        }
        if self.is_unfinished() {
            return Err(SaveError::Busy);
        }
        if self.peek_output().is_some() {
            return Err(SaveError::OutputsWaiting);
        }
        Ok(())
    }

    pub(super) fn boundary(&self) -> Result<Boundary<'_>, SaveError> {
        self.check_boundary()?;
        Ok(match &self.state {
            State::Starting { at, .. } => Boundary::Starting(*at),
            State::Asleep(checkpoint) => Boundary::Guest(Cow::Borrowed(checkpoint)),
            State::Live { guest, .. } => {
                let checkpoint = Checkpoint::of(guest).ok_or(SaveError::NotInstrumented)?;
                Boundary::Guest(Cow::Owned(checkpoint))
            }
            State::Upgrading(_) => return Err(SaveError::Busy),
            State::Closed { .. } => return Err(SaveError::Closed),
        })
    }

    /// What a snapshot says of itself, and the state.
    fn encode(&self) -> Result<(Vec<u8>, Vec<u8>), SaveError> {
        let boundary = self.boundary()?;
        let layout = self.module.compiled.layout();
        let info = SnapshotInfo {
            engine: EngineVersion::CURRENT,
            module: ModuleHash(layout.ok_or(SaveError::NotInstrumented)?.module_hash),
            limits: *self.module.limits(),
            room_id: (*self.id).into(),
            now: self.now,
            unix_time_at_zero: self.unix_time_at_zero,
            state_hash: StateHash::default(),
            state_bytes: 0,
            saved_at: None,
        };
        let (mut info_bytes, mut state) = (Vec::new(), Vec::new());
        info.encode(&mut Writer::new(&mut info_bytes));
        let writer = &mut Writer::new(&mut state);
        writer.number(self.seed);
        writer.flag(self.module.compiled.keeps_buffer);
        self.recovery.encode(self.on_fault, writer);
        write_clients(&self.clients, writer);
        write_stats(&self.stats_so_far(), writer);
        writer.flag(self.is_turn_of_inbox);
        write_inbox(&self.inbox, writer);
        match boundary {
            Boundary::Starting(at) => writer.optional(Some(at.as_nanos())),
            Boundary::Guest(checkpoint) => {
                writer.optional(None);
                checkpoint.write(writer);
            }
        }
        Ok((info_bytes, state))
    }
}

fn decode(
    module: &Module,
    info: &SnapshotInfo,
    reader: &mut Reader<'_>,
) -> Result<Room, SnapshotError> {
    let (limits, compiled) = (module.limits(), &*module.compiled);
    let layout = compiled.layout().ok_or(SnapshotError::NotInstrumented)?;
    let seed = reader.number()?;
    if reader.flag()? != compiled.keeps_buffer {
        return Err(SnapshotError::PayloadBuffer);
    }
    let (on_fault, recovery) = Recovery::decode(module, reader)?;
    let clients = read_clients(limits, reader)?;
    let stats = read_stats(reader)?;
    let is_turn_of_inbox = reader.flag()?;
    let inbox = read_inbox(limits, reader)?;
    let state = match reader.optional()? {
        Some(at) => State::Starting {
            at: Instant::from_nanos(at),
            undone: None,
            outbox: Outbox::new(),
        },
        None => {
            let checkpoint = Checkpoint::read(reader, layout, compiled.keeps_buffer)?;
            bounded(
                "bytes of memory",
                checkpoint.memory_bytes,
                layout.max_memory_bytes,
            )?;
            State::Asleep(Box::new(checkpoint))
        }
    };
    if !reader.is_empty() {
        return Err(SnapshotError::Damaged);
    }
    Ok(Room {
        id: info.room_id.as_str().into(),
        module: module.clone(),
        seed,
        unix_time_at_zero: info.unix_time_at_zero,
        on_fault,
        is_managed: true,
        state,
        recovery,
        recorder: Recorder::off(),
        log: RoomLog::new(),
        last_fault: None,
        clients,
        inbox,
        is_turn_of_inbox,
        now: info.now,
        stats,
        host_work: 0,
    })
}

/// The longest encoded state of a room within the limits of its module. Runs of a memory that differs
/// everywhere are shorter than twice the memory.
fn max_state_bytes(module: &Module) -> usize {
    /// More than an event or a client takes without its payload, and all else.
    const ENTRY: usize = 16;
    const REST: usize = 4096;
    let limits = module.limits();
    let globals = module
        .compiled
        .layout()
        .map_or(0, |layout| layout.globals_bytes);
    let entries = limits.max_clients.saturating_add(max_events(limits));
    limits
        .max_memory_bytes
        .saturating_mul(2)
        .saturating_add(limits.max_inbox_bytes)
        .saturating_add(entries.saturating_mul(ENTRY))
        .saturating_add(globals + REST)
}

impl Recovery {
    /// The same for a room whose state is kept elsewhere.
    pub(super) fn without_history(&self) -> Self {
        match self {
            Self::Close => Self::Close,
            Self::Restart(restarts) => Self::Restart(*restarts),
            Self::Continue => Self::Continue,
            Self::Rollback(_) => Self::Rollback(Box::default()),
        }
    }
}
