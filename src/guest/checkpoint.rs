//! The state of a guest between two events, to restore later.

use super::{
    Buffer, Guest,
    image::for_each_run,
    instrument::{Layout, StateAccess},
    memory::grow,
};
use crate::{
    abi::SAVE,
    error::{Fault, FaultCause},
    snapshot::bytes::{Malformed, Reader, Writer},
    time::Instant,
};
use alloc::vec::Vec;
use wasmi::{F32, F64, Global, Store, V128, Val, ValType};

/// Everything besides its module and its room that a guest's behaviour depends on.
#[derive(Clone, Default)]
pub(crate) struct Checkpoint {
    /// When the timer fires.
    pub(crate) deadline: Option<Instant>,
    seed: u64,
    wasi: WasiPosition,
    memory_refused: bool,
    buffer: Buffer,
    pages: Buffer,
    pub(crate) memory_bytes: usize,
    /// The values of the mutable globals, little endian, and then the runs of bytes of the memory that
    /// are not as in a fresh instance.
    state: Vec<u8>,
}

/// How far a guest's clock and random numbers have come.
#[derive(Clone, Copy, Default)]
pub(crate) struct WasiPosition {
    pub(in crate::guest) clock: Instant,
    /// Words taken from the generator; none if it was never used.
    pub(in crate::guest) random_words: Option<u64>,
}

impl Checkpoint {
    /// The state of a guest that has handled an event and is not paused. None if its module is not
    /// instrumented.
    pub(crate) fn of(guest: &Guest) -> Option<Self> {
        let mut checkpoint = Self::default();
        checkpoint.update(guest)?;
        Some(checkpoint)
    }

    /// Replaces this by the current state of the guest, reusing the allocation.
    pub(crate) fn update(&mut self, guest: &Guest) -> Option<()> {
        let StateAccess {
            layout,
            globals,
            seed,
        } = guest.access.as_ref()?;
        let memory = guest.exports.memory.data(&*guest.store);
        self.state.clear();
        for global in globals {
            write_value(&global.get(&*guest.store), &mut self.state);
        }
        layout.baseline.write_differences(memory, &mut self.state);
        let state = guest.store.data();
        self.deadline = state.timer.deadline();
        self.seed = *seed;
        self.wasi = state.wasi.position(state.now);
        self.memory_refused = state.limiter.memory_refused;
        self.buffer = guest.buffer;
        self.pages = guest.pages;
        self.memory_bytes = memory.len();
        Some(())
    }

    /// Gives up what was allocated beyond the state.
    pub(crate) fn shrink(&mut self) {
        self.state.shrink_to_fit();
    }

    /// Heap that it takes, in bytes.
    pub(crate) const fn heap_bytes(&self) -> usize {
        self.state.capacity()
    }

    /// The seed of the guest's random numbers.
    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    /// Restores this state in a fresh guest of the same module. None if there is no memory for it.
    pub(crate) fn restore(&self, guest: &mut Guest) -> Option<()> {
        let access = guest.access.as_mut()?;
        let layout = &access.layout;
        let memory = guest.exports.memory;
        let missing = self
            .memory_bytes
            .checked_sub(memory.data(&*guest.store).len())?;
        grow(memory, &mut guest.store, missing)?;
        let (mut values, runs) = self.state.split_at_checked(layout.globals_bytes)?;
        let bytes = memory.data_mut(&mut *guest.store);
        for_each_run(runs, bytes.len(), |start, run| {
            bytes[start..start + run.len()].copy_from_slice(run);
        })
        .ok()?;
        for global in &access.globals {
            read_value(&mut values, *global, &mut guest.store)?;
        }
        access.seed = self.seed;
        let state = guest.store.data_mut();
        state.timer.set(self.deadline);
        state.wasi.restore(self.seed, self.wasi);
        state.limiter.memory_refused = self.memory_refused;
        guest.buffer = self.buffer;
        guest.pages = self.pages;
        // The state is that after an event, so what precedes the first has happened.
        guest.exports.startup.clear();
        guest.owes_room_id = false;
        Some(())
    }

    /// Restores this state in a guest that has handled events since, or others. None if its memory is
    /// larger than it was, since a memory cannot shrink.
    pub(crate) fn restore_over(&self, guest: &mut Guest) -> Option<()> {
        let access = guest.access.as_ref()?;
        let memory = guest.exports.memory.data_mut(&mut *guest.store);
        if memory.len() > self.memory_bytes {
            return None;
        }
        access.layout.baseline.restore(memory);
        self.restore(guest)
    }

    /// Appends it to a snapshot.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.optional(self.deadline.map(Instant::as_nanos));
        writer.number(self.seed);
        writer.number(self.wasi.clock.as_nanos());
        writer.optional(self.wasi.random_words);
        writer.flag(self.memory_refused);
        self.buffer.write(writer);
        self.pages.write(writer);
        writer.size(self.memory_bytes);
        writer.sized(&self.state);
    }

    /// Reads it from a snapshot. Whatever the bytes are, [`restore`](Self::restore) then does what it
    /// should in a guest of this module, or lacks memory. Whether the memory is larger than the limits
    /// allow is the caller's to check.
    ///
    /// # Errors
    ///
    /// If that cannot be the state of a guest of this module.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        layout: &Layout,
        keeps_buffer: bool,
    ) -> Result<Self, Malformed> {
        let checkpoint = Self {
            deadline: reader.optional()?.map(Instant::from_nanos),
            seed: reader.number()?,
            wasi: WasiPosition {
                clock: Instant::from_nanos(reader.number()?),
                random_words: reader.optional()?,
            },
            memory_refused: reader.flag()?,
            buffer: Buffer::read(reader)?,
            pages: Buffer::read(reader)?,
            memory_bytes: reader.size()?,
            state: reader.sized()?.to_vec(),
        };
        checkpoint.check(layout, keeps_buffer)?;
        Ok(checkpoint)
    }

    fn check(&self, layout: &Layout, keeps_buffer: bool) -> Result<(), Malformed> {
        let grown = self.memory_bytes.checked_sub(layout.baseline.len());
        let is_possible_size = grown.is_some_and(|bytes| bytes.is_multiple_of(layout.page_bytes));
        let are_buffers_inside =
            self.buffer.ends_within(self.memory_bytes) && self.pages.ends_within(self.memory_bytes);
        let is_possible_buffer = keeps_buffer || self.buffer.is_none();
        if !(is_possible_size && are_buffers_inside && is_possible_buffer) {
            return Err(Malformed);
        }
        let (_, runs) = self
            .state
            .split_at_checked(layout.globals_bytes)
            .ok_or(Malformed)?;
        for_each_run(runs, self.memory_bytes, |_, _| {})
    }
}

impl Guest {
    /// Drops what is left of a paused event, outputs, and the count of fuel, before another state is
    /// restored.
    pub(crate) fn forget_events(&mut self) {
        self.abandon();
        self.outbox_mut().clear();
        self.store.data_mut().outputs_enabled = true;
        self.fuel.used = 0;
    }

    /// While disabled, what the guest sends and prints is discarded.
    pub(crate) fn set_outputs_enabled(&mut self, enabled: bool) {
        self.store.data_mut().outputs_enabled = enabled;
    }
}

impl Guest {
    /// The state that the guest has returned for another module's, having handled [`Call::Save`].
    ///
    /// # Errors
    ///
    /// If it is not within its memory.
    pub(crate) fn take_saved(&mut self) -> Result<Vec<u8>, Fault> {
        let (ptr, len) = self.saved.take().unwrap_or_default();
        let during = SAVE.export;
        let memory = self.exports.memory.data(&*self.store);
        let state = memory
            .get(ptr as usize..)
            .and_then(|rest| rest.get(..len as usize));
        state.map(<[u8]>::to_vec).ok_or(Fault {
            during,
            cause: FaultCause::BadPointer {
                function: during,
                ptr,
                len,
            },
        })
    }

    /// Sets when the timer fires, unless the guest has set it.
    pub(crate) fn inherit_timer(&mut self, deadline: Option<Instant>) {
        let timer = &mut self.store.data_mut().timer;
        timer.set(timer.deadline().or(deadline));
    }
}

impl Buffer {
    const fn is_none(self) -> bool {
        self.limit == 0
    }

    fn ends_within(self, memory_bytes: usize) -> bool {
        u64::from(self.ptr) + u64::from(self.len()) <= memory_bytes as u64
    }

    fn write(self, writer: &mut Writer<'_>) {
        writer.number(self.limit.into());
        if !self.is_none() {
            writer.number(self.ptr.into());
            writer.flag(self.owned_by_guest);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let limit = reader.fitting()?;
        if limit == 0 {
            return Ok(Self::default());
        }
        Ok(Self {
            limit,
            ptr: reader.fitting()?,
            owned_by_guest: reader.flag()?,
        })
    }
}

fn write_value(value: &Val, out: &mut Vec<u8>) {
    match value {
        Val::I32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Val::I64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Val::F32(value) => out.extend_from_slice(&value.to_bits().to_le_bytes()),
        Val::F64(value) => out.extend_from_slice(&value.to_bits().to_le_bytes()),
        Val::V128(value) => out.extend_from_slice(&value.as_u128().to_le_bytes()),
        // A module with such a global is refused.
        Val::FuncRef(_) | Val::ExternRef(_) => {}
    }
}

/// Sets a global to the value that `values` begins with, and advances `values` beyond it.
fn read_value<T>(values: &mut &[u8], global: Global, store: &mut Store<T>) -> Option<()> {
    fn take<const N: usize>(values: &mut &[u8]) -> Option<[u8; N]> {
        let (value, rest) = values.split_first_chunk()?;
        *values = rest;
        Some(*value)
    }
    let value = match global.ty(&*store).content() {
        ValType::I32 => Val::I32(i32::from_le_bytes(take(values)?)),
        ValType::I64 => Val::I64(i64::from_le_bytes(take(values)?)),
        ValType::F32 => Val::F32(F32::from_bits(u32::from_le_bytes(take(values)?))),
        ValType::F64 => Val::F64(F64::from_bits(u64::from_le_bytes(take(values)?))),
        ValType::V128 => Val::V128(V128::from(u128::from_le_bytes(take(values)?))),
        ValType::FuncRef | ValType::ExternRef => return None,
    };
    global.set(store, value).ok()
}
