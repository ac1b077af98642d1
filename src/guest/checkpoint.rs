//! The state of a guest between two events, to restore later.

use super::{
    Buffer, Guest,
    imports::wasi::WasiState,
    memory::{grow, is_zero, page_bytes},
    timer::Timer,
};
use crate::time::Instant;
use alloc::vec::Vec;
use core::mem;
use wasmi::Val;

/// Everything besides its module that a guest's behaviour depends on.
pub(crate) struct Checkpoint {
    memory: Image,
    globals: Vec<Val>,
    timer: Timer,
    wasi: WasiState,
    memory_refused: bool,
    buffer: Buffer,
    pages: Buffer,
}

impl Checkpoint {
    /// The state of a guest that has handled an event and is not paused.
    pub(crate) fn of(guest: &Guest) -> Self {
        Self::reusing(Image::default(), Vec::new(), guest)
    }

    /// Replaces this by the current state of the guest, reusing the allocations.
    pub(crate) fn update(&mut self, guest: &Guest) {
        let (memory, globals) = (mem::take(&mut self.memory), mem::take(&mut self.globals));
        *self = Self::reusing(memory, globals, guest);
    }

    fn reusing(mut memory: Image, mut globals: Vec<Val>, guest: &Guest) -> Self {
        memory.copy_from(guest.exports.memory.data(&*guest.store));
        globals.clear();
        globals.extend(guest.globals.iter().map(|global| global.get(&*guest.store)));
        let state = guest.store.data();
        Self {
            memory,
            globals,
            timer: state.timer,
            wasi: state.wasi.fork(),
            memory_refused: state.limiter.memory_refused,
            buffer: guest.buffer,
            pages: guest.pages,
        }
    }

    /// Restores this state in a fresh guest of the same module. None if there is no memory for it.
    pub(crate) fn restore(&self, guest: &mut Guest) -> Option<()> {
        let memory = guest.exports.memory;
        let missing = self.memory.len.checked_sub(guest.memory_bytes())?;
        let pages = missing / page_bytes(memory, &guest.store) as usize;
        grow(memory, &mut guest.store, pages.try_into().ok()?)?;
        self.memory.copy_to(memory.data_mut(&mut *guest.store));
        for (global, value) in guest.globals.iter().zip(&self.globals) {
            global.set(&mut *guest.store, value.clone()).ok()?;
        }
        let state = guest.store.data_mut();
        state.timer = self.timer;
        state.wasi = self.wasi.fork();
        state.limiter.memory_refused = self.memory_refused;
        guest.buffer = self.buffer;
        guest.pages = self.pages;
        // The state is that after an event, so what precedes the first has happened.
        guest.exports.startup.clear();
        guest.owes_room_id = false;
        Some(())
    }
}

impl Guest {
    /// The time of the last event.
    pub(crate) fn now(&self) -> Instant {
        self.store.data().now
    }

    /// While disabled, what the guest sends and prints is discarded.
    pub(crate) fn set_outputs_enabled(&mut self, enabled: bool) {
        self.store.data_mut().outputs_enabled = enabled;
    }
}

/// A memory without its zero chunks: most guests use little of theirs.
#[derive(Default)]
struct Image {
    /// Length of the memory in bytes.
    len: usize,
    /// The indices of the chunks that are not all zero.
    chunks: Vec<u32>,
    /// The contents of these chunks; the memory's last may be shorter.
    bytes: Vec<u8>,
}

/// A few cache lines, small enough for memories of some KiB.
const CHUNK: usize = 256;

impl Image {
    fn copy_from(&mut self, memory: &[u8]) {
        self.len = memory.len();
        self.chunks.clear();
        self.bytes.clear();
        for (index, chunk) in (0..).zip(memory.chunks(CHUNK)) {
            if !is_zero(chunk) {
                self.chunks.push(index);
                self.bytes.extend_from_slice(chunk);
            }
        }
    }

    fn copy_to(&self, memory: &mut [u8]) {
        let mut chunks = self.chunks.iter().zip(self.bytes.chunks(CHUNK)).peekable();
        for (index, chunk) in (0..).zip(memory.chunks_mut(CHUNK)) {
            match chunks.next_if(|(at, _)| **at == index) {
                Some((_, bytes)) => chunk.copy_from_slice(bytes),
                // Do not write zeros to zero pages, which may not be resident.
                None if is_zero(chunk) => {}
                None => chunk.fill(0),
            }
        }
    }
}
