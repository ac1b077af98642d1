//! The state of a guest between two events, to go back to.

use super::{Buffer, Guest, memory::is_zero, rng::Random};
use crate::time::Instant;
use alloc::vec::Vec;
use core::mem;
use wasmi::Val;

/// All that a guest's answer to an event depends on, but for what its module says.
pub(crate) struct Checkpoint {
    memory: Image,
    globals: Vec<Val>,
    deadline: Option<Instant>,
    random: Random,
    memory_refused: bool,
    buffer: Buffer,
}

impl Checkpoint {
    /// The state of a guest that has had an event and is not in the middle of another.
    pub(crate) fn of(guest: &Guest) -> Self {
        Self::within(Image::default(), Vec::new(), guest)
    }

    /// Becomes the state of the guest as it is now, in the memory that it has already.
    pub(crate) fn update(&mut self, guest: &Guest) {
        let (memory, globals) = (mem::take(&mut self.memory), mem::take(&mut self.globals));
        *self = Self::within(memory, globals, guest);
    }

    fn within(mut memory: Image, mut globals: Vec<Val>, guest: &Guest) -> Self {
        memory.take(guest.exports.memory.data(&*guest.store));
        globals.clear();
        globals.extend(guest.globals.iter().map(|global| global.get(&*guest.store)));
        let state = guest.store.data();
        Self {
            memory,
            globals,
            deadline: state.deadline,
            random: state.random.fork(),
            memory_refused: state.growth.memory_refused,
            buffer: guest.buffer,
        }
    }

    /// Brings a fresh guest of the same module into this state. None if there is no memory for it.
    pub(crate) fn restore(&self, guest: &mut Guest) -> Option<()> {
        let memory = guest.exports.memory;
        let more = self.memory.len.checked_sub(guest.memory_bytes())?;
        let pages = more as u64 / u64::from(guest.page_bytes());
        memory.grow(&mut *guest.store, pages).ok()?;
        self.memory.put(memory.data_mut(&mut *guest.store));
        for (global, value) in guest.globals.iter().zip(&self.globals) {
            global.set(&mut *guest.store, value.clone()).ok()?;
        }
        let state = guest.store.data_mut();
        state.deadline = self.deadline;
        state.random = self.random.fork();
        state.growth.memory_refused = self.memory_refused;
        guest.buffer = self.buffer;
        // It was before the first event, and the state is that after one.
        guest.constructed = true;
        Some(())
    }
}

/// A memory without its zeros: most guests use little of what they have.
#[derive(Default)]
struct Image {
    /// Length of the memory in bytes.
    len: usize,
    /// The numbers of the chunks that are not all zero.
    chunks: Vec<u32>,
    /// These chunks, one behind the other; the memory's last may be shorter.
    bytes: Vec<u8>,
}

/// A few cache lines: small enough for guests with a memory of some KiB.
const CHUNK: usize = 256;

impl Image {
    fn take(&mut self, memory: &[u8]) {
        self.len = memory.len();
        self.chunks.clear();
        self.bytes.clear();
        for (number, chunk) in (0..).zip(memory.chunks(CHUNK)) {
            if !is_zero(chunk) {
                self.chunks.push(number);
                self.bytes.extend_from_slice(chunk);
            }
        }
    }

    fn put(&self, memory: &mut [u8]) {
        let mut chunks = self.chunks.iter().zip(self.bytes.chunks(CHUNK)).peekable();
        for (number, chunk) in (0..).zip(memory.chunks_mut(CHUNK)) {
            match chunks.next_if(|(at, _)| **at == number) {
                Some((_, bytes)) => chunk.copy_from_slice(bytes),
                // Pages that were never written need no memory of the host; so zeros stay.
                None if is_zero(chunk) => {}
                None => chunk.fill(0),
            }
        }
    }
}
