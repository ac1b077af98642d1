//! A guest: one instance of a module, called through its exports. The only folder that names the
//! interpreter.

mod buffer;
mod calls;
#[cfg(feature = "snapshot")]
mod checkpoint;
mod compiled;
mod engine;
mod exports;
mod fault;
mod fuel;
mod grow;
mod host_state;
#[cfg(feature = "snapshot")]
mod image;
mod imports;
#[cfg(feature = "snapshot")]
mod instrument;
#[cfg(not(feature = "snapshot"))]
#[path = "instrument_off.rs"]
mod instrument;
mod instrumented;
mod keep_buffer;
mod limiter;
mod memory;
mod rewrite;
#[cfg_attr(not(feature = "log"), path = "room_log_off.rs")]
mod room_log;
mod start;
#[cfg_attr(not(feature = "log"), path = "stdio_off.rs")]
mod stdio;
mod timer;
#[cfg(all(feature = "trim", target_os = "linux"))]
mod trim;
#[cfg(feature = "unchecked")]
mod unchecked;
mod wasmi_bugs;

#[cfg(feature = "validate")]
pub(crate) use self::engine::validated;
#[cfg(all(feature = "snapshot", feature = "validate"))]
pub(crate) use self::instrumented::instrumented;
#[cfg(feature = "unchecked")]
pub(crate) use self::unchecked::unchecked;
pub(crate) use self::{
    calls::Progress,
    compiled::Compiled,
    engine::Parse,
    host_state::Outbox,
    room_log::{LineKind, LogPermit, RoomLog},
    stdio::Stdio,
};
#[cfg(feature = "snapshot")]
pub(crate) use self::{checkpoint::Checkpoint, engine::ENGINE_VERSION};

use self::{
    buffer::Buffer, calls::Pending, exports::Exports, fuel::FuelMeter, host_state::HostState,
    timer::Timer,
};
use crate::{error::Fault, time::Instant};
use alloc::boxed::Box;
use core::time::Duration;
use wasmi::{Instance, Store};

/// One instance of a module. A call may be paused when its slice of fuel is used up; there is no
/// other call until it was resumed to its end.
pub(crate) struct Guest {
    /// Boxed: it is most of a guest, and would be moved with it through the stack when a room is
    /// opened, which is where a microcontroller needs most of its stack.
    store: Box<Store<HostState>>,
    exports: Exports,
    /// Access to its state, if its module is instrumented.
    #[allow(dead_code, reason = "only checkpoints read it")]
    access: instrument::Access,
    /// Where the payload of the running event is, and, if it is kept, those of later ones. Never
    /// larger than the largest payload so far, so that the guest never has to allocate more than under
    /// the JIT host.
    buffer: Buffer,
    /// Whether the buffer is kept between events, so that most of them are one call instead of three.
    keeps_buffer: bool,
    /// Pages that the host has added for payloads, since the guest's allocator returned null.
    pages: Buffer,
    /// Whether the room's id is still to be allocated and freed, as the ABI has it.
    owes_room_id: bool,
    /// The call that ran out of fuel, while the guest is paused.
    pending: Option<Pending>,
    /// The pointer and the length of the state that the guest has returned for another module's.
    #[cfg(feature = "snapshot")]
    saved: Option<(u32, u32)>,
    fuel: FuelMeter,
}

impl Guest {
    /// Instantiates the module. None of its code runs: a start function is the first call of the first
    /// event. `keeps_timer` is whether the room keeps its timer, or its driver.
    pub(crate) fn new(
        compiled: &Compiled,
        seed: u64,
        unix_time_at_zero: Duration,
        keeps_timer: bool,
        stdio: Stdio,
    ) -> Result<Self, Fault> {
        let limits = &compiled.limits;
        let timer = match keeps_timer {
            true => Timer::of_room(),
            false => Timer::Driver,
        };
        let state = HostState::new(limits, seed, unix_time_at_zero, timer, stdio);
        let mut store = new_store(compiled, state);
        let functions = imports::functions(&compiled.module, &mut store);
        let (instance, exports) = Instance::new(&mut *store, &compiled.module, &functions)
            .and_then(|instance| Ok((instance, Exports::new(compiled, &store, instance)?)))
            .map_err(|error| fault::instantiation_fault(&error))?;
        let state = store.data_mut();
        state.memory = Some(exports.memory);
        state.limiter.is_instantiated = true;
        let access = compiled.instrumentation.access(instance, &store, seed);
        Ok(Self {
            store,
            exports,
            access,
            buffer: Buffer::default(),
            keeps_buffer: compiled.keeps_buffer,
            pages: Buffer::default(),
            owes_room_id: !compiled.keeps_buffer && compiled.abi.description().allocates_room_id,
            pending: None,
            #[cfg(feature = "snapshot")]
            saved: None,
            fuel: FuelMeter::new(limits),
        })
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.pending.is_some()
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.store.data().outbox
    }

    pub(crate) fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.store.data_mut().outbox
    }

    /// Moves the outputs out, and nothing else through the stack.
    pub(crate) fn take_outbox(&mut self) -> Outbox {
        core::mem::take(&mut self.store.data_mut().outbox)
    }

    /// What the room may log.
    pub(crate) fn log_mut(&mut self) -> &mut RoomLog {
        &mut self.store.data_mut().stdio.log
    }

    /// What the room may log, for its next guest.
    pub(crate) fn take_log(&mut self) -> RoomLog {
        let state = self.store.data_mut();
        state.end_event();
        core::mem::take(&mut state.stdio.log)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.store.data().timer.deadline()
    }

    #[cfg(feature = "snapshot")]
    pub(crate) fn cancel_timer(&mut self) {
        self.store.data_mut().timer.set(None);
    }

    /// The time of the last event.
    pub(crate) fn now(&self) -> Instant {
        self.store.data().now
    }

    /// All the fuel that the guest has used.
    pub(crate) const fn fuel_used(&self) -> u64 {
        self.fuel.used
    }

    /// Whether the guest's allocator returned null, so that payloads are put into pages of the host's.
    pub(crate) const fn has_null_allocator(&self) -> bool {
        self.pages.limit > 0
    }

    /// Current size of all linear memories in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().limiter.memory_bytes
    }

    /// Returns zero pages of the memory to the operating system; returns their size in bytes.
    #[cfg(feature = "trim")]
    pub(crate) fn trim(&mut self) -> usize {
        #[cfg(target_os = "linux")]
        return trim::release_zero_pages(self.exports.memory.data_mut(&mut *self.store));
        #[cfg(not(target_os = "linux"))]
        return 0;
    }
}

/// Out of line, so that its stack frame is gone before the module is instantiated.
#[inline(never)]
fn new_store(compiled: &Compiled, state: HostState) -> Box<Store<HostState>> {
    let mut store = Box::new(Store::new(compiled.module.engine(), state));
    store.limiter(|state| &mut state.limiter);
    store
}
