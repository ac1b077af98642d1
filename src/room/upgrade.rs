//! A room that goes on with another module and keeps its state: one guest returns it, the next takes it.

use super::{Room, State, recovery::Recovery, snapshot::Boundary};
use crate::{
    abi::Call,
    error::{Fault, FaultCause, Trap},
    guest::{Checkpoint, Guest, Progress},
    module::Module,
    snapshot::{SaveError, UpgradeError},
    structure::{copy_cost, memory_cost},
};
use alloc::{boxed::Box, vec::Vec};
use core::task::Poll;

/// An upgrade that is under way.
///
/// It works on a copy of the room's guest, so that a room whose new module does not take the state goes on
/// as if nobody had tried. Each step is a turn of the room, like a slice of an event.
pub(super) struct Upgrade {
    /// What the room goes back to.
    before: Checkpoint,
    module: Module,
    step: Step,
}

enum Step {
    /// Makes the copy.
    Copy,
    Save(Box<Guest>),
    /// Makes the guest of the other module.
    Start {
        state: Vec<u8>,
    },
    Init {
        guest: Box<Guest>,
        state: Vec<u8>,
    },
    Load {
        guest: Box<Guest>,
        state: Vec<u8>,
    },
    Ended(Result<Checkpoint, Fault>),
}

impl Upgrade {
    /// Whether the next step makes an instance.
    pub(super) const fn needs_guest(&self) -> bool {
        matches!(self.step, Step::Copy | Step::Start { .. })
    }

    pub(super) const fn has_ended(&self) -> bool {
        matches!(self.step, Step::Ended(_))
    }
}

impl Room {
    /// Begins to go on with another module, to which the state of the present guest passes: that returns it
    /// (`stateroom_save`), and a fresh guest of the other module, once it is initialised, takes it
    /// (`stateroom_load`). What the state looks like is the modules' own affair; `docs/rooms.md` says how
    /// they are written.
    ///
    /// To the clients, nothing happens. They stay connected, and no guest is told of that. Events wait, and
    /// so does the timer; it stays set, unless the fresh guest sets it. What the guests send meanwhile is
    /// discarded, and the fuel that they use is not counted as the room's, but as
    /// [`host_work`](Self::host_work). Each of the three calls is bounded as an event is.
    ///
    /// [`resume`](Self::resume) the room while it [is runnable](Self::is_runnable), until
    /// [`poll_upgrade`](Self::poll_upgrade) returns what has become of it. Until then it cannot be saved.
    ///
    /// A room without a guest that has a state, such as one that was just opened, has nothing to pass on: it
    /// begins with the other module at once, as by [`replace_module`](Self::replace_module).
    ///
    /// # Errors
    ///
    /// If one of the modules lacks its export, the other module was not loaded for the fault policy, or the
    /// room is not at an event boundary with its outputs taken; then nothing has happened.
    pub fn begin_upgrade(&mut self, module: &Module) -> Result<(), UpgradeError> {
        if Recovery::new(self.on_fault, module).is_err() {
            return Err(UpgradeError::NoRollback);
        }
        let has_state = !matches!(self.state, State::Starting { undone: None, .. });
        match (self.module.compiled.has_save(), module.compiled.has_load()) {
            (false, _) if has_state => return Err(UpgradeError::NoSave),
            (_, false) if has_state => return Err(UpgradeError::NoLoad),
            _ if has_state && module.compiled.layout().is_none() => {
                return Err(SaveError::NotInstrumented.into());
            }
            _ => {}
        }
        let before = match self.boundary()? {
            Boundary::Guest(checkpoint) => checkpoint.into_owned(),
            Boundary::Starting(_) => {
                return self
                    .replace_module(module)
                    .map_err(|_| UpgradeError::NoRollback);
            }
        };
        self.host_work = self
            .host_work()
            .saturating_add(copy_cost(before.memory_bytes));
        self.retire_guest();
        self.recovery = self.recovery.without_history();
        self.state = State::Upgrading(Box::new(Upgrade {
            before,
            module: module.clone(),
            step: Step::Copy,
        }));
        Ok(())
    }

    /// Whether an upgrade is under way, or its result was not taken yet.
    #[must_use]
    pub const fn is_upgrading(&self) -> bool {
        matches!(self.state, State::Upgrading(_))
    }

    /// What has become of [an upgrade](Self::begin_upgrade); ready, too, if there is none. The room goes on:
    /// with the other module, or after an error with the present one, as if there had been no upgrade. A
    /// driver that records what the room does should save it now, since the events before are those of the
    /// other module.
    ///
    /// # Errors
    ///
    /// If a guest failed.
    pub fn poll_upgrade(&mut self) -> Poll<Result<(), UpgradeError>> {
        let Some(mut upgrade) = self.take_upgrade() else {
            return Poll::Ready(Ok(()));
        };
        let (checkpoint, result) = match upgrade.step {
            Step::Ended(Ok(after)) => {
                if let Ok(recovery) = Recovery::new(self.on_fault, &upgrade.module) {
                    self.recovery = recovery;
                }
                self.module = upgrade.module;
                (after, Ok(()))
            }
            Step::Ended(Err(fault)) => (upgrade.before, Err(UpgradeError::Failed(fault))),
            step => {
                upgrade.step = step;
                self.state = State::Upgrading(upgrade);
                return Poll::Pending;
            }
        };
        self.state = State::Asleep(Box::new(checkpoint));
        Poll::Ready(result)
    }

    /// Takes the upgrade out of the room; the caller sets the state that follows.
    fn take_upgrade(&mut self) -> Option<Box<Upgrade>> {
        if !self.is_upgrading() {
            return None;
        }
        match core::mem::replace(&mut self.state, State::Asleep(Box::default())) {
            State::Upgrading(upgrade) => Some(upgrade),
            _ => None,
        }
    }

    /// Takes the next step of an upgrade, or a slice of it.
    pub(super) fn continue_upgrade(&mut self) {
        let Some(mut upgrade) = self.take_upgrade() else {
            return;
        };
        let step = core::mem::replace(&mut upgrade.step, Step::Copy);
        let Upgrade { before, module, .. } = &*upgrade;
        upgrade.step = match step {
            Step::Copy => self.copy_guest(before),
            Step::Save(guest) => self.save_state(guest),
            Step::Start { state } => self.start_other(module, before, state),
            Step::Init { guest, state } => self.initialise(guest, state, before),
            Step::Load { guest, state } => self.load_state(guest, state),
            ended @ Step::Ended(_) => ended,
        };
        self.state = State::Upgrading(upgrade);
    }

    fn copy_guest(&mut self, before: &Checkpoint) -> Step {
        self.host_work +=
            self.module.compiled.instantiation_cost + memory_cost(before.memory_bytes);
        let copy = self.guest_with_seed(before.seed()).and_then(|mut guest| {
            let restored = before.restore(&mut guest);
            restored.map(|()| guest).ok_or(Fault {
                during: "instantiate",
                cause: FaultCause::Trap(Trap::OutOfSystemMemory),
            })
        });
        match copy {
            Ok(guest) => self.save_state(guest),
            Err(fault) => Step::Ended(Err(fault)),
        }
    }

    fn save_state(&mut self, mut guest: Box<Guest>) -> Step {
        let saved = match self.run(&mut guest, &Call::Save) {
            Ok(Progress::Paused) => return Step::Save(guest),
            Ok(Progress::Done) => guest.take_saved(),
            Err(fault) => Err(fault),
        };
        self.log = guest.take_log();
        match saved {
            Ok(state) => {
                self.host_work += copy_cost(state.len());
                Step::Start { state }
            }
            Err(fault) => Step::Ended(Err(fault)),
        }
    }

    fn start_other(&mut self, module: &Module, before: &Checkpoint, state: Vec<u8>) -> Step {
        /// Odd, with well-spread bits: the fresh guest does not draw the last one's random numbers again.
        const NEXT_SEED: u64 = 0xd1b5_4a32_d192_ed03;
        self.host_work += module.compiled.instantiation_cost;
        let present = core::mem::replace(&mut self.module, module.clone());
        let guest = self.guest_with_seed(before.seed().wrapping_add(NEXT_SEED));
        self.module = present;
        match guest {
            Ok(guest) => self.initialise(guest, state, before),
            Err(fault) => Step::Ended(Err(fault)),
        }
    }

    fn initialise(&mut self, mut guest: Box<Guest>, state: Vec<u8>, before: &Checkpoint) -> Step {
        let room_id = self.id.clone();
        match self.run(&mut guest, &Call::Init { room_id: &room_id }) {
            Ok(Progress::Paused) => Step::Init { guest, state },
            Ok(Progress::Done) => {
                guest.inherit_timer(before.deadline);
                self.load_state(guest, state)
            }
            Err(fault) => self.end_upgrade(&mut guest, Err(fault)),
        }
    }

    fn load_state(&mut self, mut guest: Box<Guest>, state: Vec<u8>) -> Step {
        match self.run(&mut guest, &Call::Load(&state)) {
            Ok(Progress::Paused) => Step::Load { guest, state },
            Ok(Progress::Done) => {
                let after = Checkpoint::of(&guest).ok_or(Fault {
                    during: "instantiate",
                    cause: FaultCause::Trap(Trap::Other),
                });
                self.end_upgrade(&mut guest, after)
            }
            Err(fault) => self.end_upgrade(&mut guest, Err(fault)),
        }
    }

    fn end_upgrade(&mut self, guest: &mut Guest, after: Result<Checkpoint, Fault>) -> Step {
        self.log = guest.take_log();
        Step::Ended(after)
    }

    /// Gives a guest a slice of a call. What it sends is discarded; what it prints is logged.
    fn run(&mut self, guest: &mut Guest, call: &Call<'_>) -> Result<Progress, Fault> {
        let slice = self.module.limits().fuel_per_slice;
        let before = guest.fuel_used();
        let progress = match guest.is_paused() {
            true => guest.resume(call, slice),
            false => guest.begin(self.now, call, slice),
        };
        guest.outbox_mut().clear();
        self.host_work += guest.fuel_used() - before;
        progress
    }
}
